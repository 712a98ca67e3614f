"""What a party needs from outside to decide on an exchange: each a port that ``roles`` fills in.

:class:`LedgerView` and :class:`Appraiser` and :class:`Grantor` decide facts, evidence and credentials;
:class:`OrderBook` and :class:`Exchanges` are the party's own durable memory (``stores.exchanges``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from firstlight.identity.birth import Leaf
from firstlight.ledger.records import Batch, Party
from firstlight.ledger.tenure import Tenures
from firstlight.onboarding.edhoc.keys import Ephemeral
from firstlight.onboarding.messages import Exporter, GrantBody
from firstlight.plan.claims import PartyKind
from firstlight.plan.order import Order

# --- the ledger ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Facts:
    """Verified ledger facts about one index of a batch, all at one head.

    ``header_time`` is the head's, ``witnessed_at`` the lowest of the witness times over it (Unix seconds);
    ``owner`` the tenure number that the ownership trie gives for the index; ``tenures`` hold all records that
    ``ledger.tenure.counting`` reads for it; ``party`` is the deciding party's own record.
    """

    height: int
    header_time: int
    witnessed_at: int
    batch: Batch
    owner: int
    tenures: Tenures
    party: Party


class LedgerView(Protocol):
    """The ledger as the party has verified it."""

    def height(self) -> int:
        """Return the height of the newest verified head (0 if there is none yet); fetches nothing."""
        ...

    def facts(self, batch: bytes, index: int) -> Facts | None:
        """Return the facts about one device, or None if none can be had; may fetch and verify."""
        ...

    def facts_of(self, devices: Sequence[tuple[bytes, int]]) -> list[Facts | None]:
        """Return the facts about several devices (batch and index) under one head; None where there are none."""
        ...


# --- ephemeral keys -----------------------------------------------------------------------------


class Ephemerals(Protocol):
    """Makes EDHOC's ephemeral keys."""

    def draw(self) -> Ephemeral:
        """Return a fresh key, for one exchange."""
        ...

    def again(self, secret: bytes) -> Ephemeral:
        """Return the key with that secret, drawn here or elsewhere for message 2, as message 3 has come."""
        ...


# --- evidence and credentials -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Appraisal:
    """What came of evidence: the refusal code, or None if it passed; ``result`` (all findings) is kept either way.

    ``basis`` names the ledger records that it rests upon, present or absent.
    """

    refusal: str | None
    result: bytes
    basis: tuple[str, ...] = ()


class Appraiser(Protocol):
    """Appraises evidence against the live reference values of the batch's issuers."""

    def appraise(self, evidence: bytes, *, nonce: bytes, leaf: Leaf, facts: Facts, now: int) -> Appraisal:
        """Judge ``evidence``, which must carry ``nonce`` and the signature of the leaf's attestation key."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What a grant is asked for: ``id`` is the new grant's, ``until`` the order's end, ``now`` in Unix seconds."""

    id: bytes
    batch: bytes
    index: int
    origin: int
    order: bytes
    until: int
    kind: PartyKind
    request: bytes
    now: int


@dataclass(frozen=True, slots=True)
class Issue:
    """A new credential: what goes to the device, and what the party keeps (``secret``), known by ``identifier``.

    The identifier (a SUPI, a certificate's serial number) is unique among all grants of the party.
    """

    body: GrantBody
    expires: int
    identifier: str
    secret: bytes = field(repr=False)


class Grantor(Protocol):
    """Makes credentials."""

    def grant(self, asked: Asked, exporter: Exporter) -> Issue:
        """Make a new credential, kept nowhere yet; raises :class:`firstlight.errors.RefusedError`."""
        ...


# --- the party's own memory ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Anchor:
    """A batch as the party learned it when it accepted an order: RFC 6962 root over the leaves, and size."""

    leaves: bytes
    size: int


@dataclass(frozen=True, slots=True)
class OrderState:
    """An order, how many of its slots are taken, and whether the device in question has one."""

    order: Order
    used: int
    held: bool

    @property
    def room(self) -> bool:
        """Whether the device in question has a slot or can have one."""
        return self.held or self.used < self.order.devices


class OrderBook(Protocol):
    """The orders that the party has accepted."""

    def anchor(self, batch: bytes) -> Anchor | None:
        """Return a batch for which the party holds an order."""
        ...

    def order(self, number: bytes, batch: bytes, index: int) -> OrderState | None:
        """Return an order as it stands for one device."""
        ...


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of an exchange and its device at one moment.

    ``answered`` holds hash of message 3 and message 4 of an exchange that has counted; ``version`` changes with
    everything about the device that a decision reads, and is 0 as long as it has neither a grant nor an alarm;
    ``granted_ns`` is when message 2 of its newest granted exchange was made (0: never).
    """

    answered: Answered | None
    version: int
    granted_ns: int


@dataclass(frozen=True, slots=True)
class Answered:
    """An exchange that has counted: SHA-256 of its message 3, and its message 4."""

    digest_3: bytes
    message_4: bytes


@dataclass(frozen=True, slots=True)
class PastGrant:
    """A grant once given to a device; ``confirmed_ns`` is when it was first used with success."""

    id: bytes
    sequence: int
    confirmed_ns: int | None


@dataclass(frozen=True, slots=True)
class History:
    """A device's grants under one origin, by sequence; whether the clone alarm stands, when it was last cleared."""

    grants: tuple[PastGrant, ...]
    alarm: bool
    cleared_ns: int


@dataclass(frozen=True, slots=True)
class NewGrant:
    """A grant to be committed with its exchange; ``body`` is the encoded grant as it goes to the device.

    ``tenure`` and ``revision`` are the tenure that counted and its plan's revision (0: not said), ``basis`` names the
    ledger records that the appraisal rested upon.
    """

    id: bytes
    origin: int
    order: bytes
    kind: PartyKind
    issued_at: int
    expires: int
    identifier: str
    body: bytes
    secret: bytes = field(repr=False)
    tenure: int = 0
    revision: int = 0
    basis: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One exchange as it is committed, before its message 4 leaves.

    ``code`` is ``granted`` or the refusal's; ``alarm`` names the origin under which a clone alarm is raised;
    ``result`` is the appraisal's, empty if it never came to that. ``version`` is the one that was decided upon.
    """

    th_3: bytes
    answered: Answered
    batch: bytes
    index: int
    opened_ns: int
    committed_ns: int
    code: str
    version: int
    grant: NewGrant | None = None
    alarm: int | None = None
    result: bytes = b""


class Exchanges(Protocol):
    """The exchanges that have counted, and the grants made in them."""

    def known(self, th_3: bytes, batch: bytes, index: int) -> Known:
        """Return what is known of an exchange and its device."""
        ...

    def history(self, batch: bytes, index: int, origin: int) -> History:
        """Return a device's grants under one origin."""
        ...

    def commit(self, entry: Entry) -> Answered | None:
        """Commit exchange, grant, order slot and alarm in one durable transaction.

        Returns what counts: ``entry.answered``, or what was stored for that TH_3 before. Returns None and changes
        nothing if the ground has moved (another version of the device, no room left in the order, an identifier
        that is taken), so that the caller decides anew.
        """
        ...

    def commit_all(self, entries: Sequence[Entry]) -> list[Answered | None]:
        """Commit several exchanges, each as :meth:`commit` does, but durably at once: all that is returned counts."""
        ...
