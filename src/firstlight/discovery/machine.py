"""A device's discovery through one gateway: from its birth credential to a network that its owner chose.

Sans-I/O: the driver carries each request to the gateway and brings the answer to the machine::

    event = discovery.start()
    while not isinstance(event, Discovered | Failed):
        event = discovery.receive(ask(event))

What can follow what stands in :data:`TRANSITIONS`. An envelope that does not open or does not fit the plan of
the tenure that counts is ignored: anybody may have left it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType
from typing import Annotated, ClassVar

from firstlight.discovery.bundle import Bundle, BundleRequest, StateProof
from firstlight.discovery.verify import Trust, View, verify_bundle, verify_follow_up
from firstlight.encoding import Count, Record, Size
from firstlight.errors import FirstlightError, MalformedError, ProofError
from firstlight.identity.birth import BirthCredential
from firstlight.ledger.records import Party, PartyStatus, Role, TenureState, party_name
from firstlight.ledger.tenure import Standing
from firstlight.plan.claims import OpenedPlan, PartyClaim, PartyKind, open_plan, parse_claim
from firstlight.ports import KeyAgreement
from firstlight.sealing.envelope import SEALED_SIZE, EnvelopeContent, open_envelope
from firstlight.sealing.locator import mailbox_locator
from firstlight.trees.ownership import depth_of

MAX_ENVELOPES = 64
"""How many a gateway may hand over for one locator: one for each tenure and revision that names it."""
MAX_NETWORKS = 4
LENGTHENING = 4
"""How many bits longer the next prefix is when no envelope says better."""


@dataclass(frozen=True, slots=True)
class Mail(Record):
    """What a gateway hands over for a locator: the sealed envelopes that lie there."""

    LIMIT: ClassVar[int] = MAX_ENVELOPES * (2 * SEALED_SIZE + 8) + 64

    envelopes: Annotated[tuple[Annotated[bytes, Size(1, 2 * SEALED_SIZE)], ...], Count(MAX_ENVELOPES)]


class State(Enum):
    """What the machine is waiting for."""

    NEW = "new"
    MAIL = "mail"
    BUNDLE = "bundle"
    MORE = "more"
    OVER = "over"


TRANSITIONS: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.NEW: frozenset({State.MAIL}),
        State.MAIL: frozenset({State.BUNDLE, State.MORE, State.OVER}),
        State.BUNDLE: frozenset({State.MORE, State.MAIL, State.OVER}),
        State.MORE: frozenset({State.MORE, State.MAIL, State.OVER}),
        State.OVER: frozenset(),
    }
)


@dataclass(frozen=True, slots=True)
class AskMailbox:
    """Fetch :class:`Mail` for this locator: all of it, or what the owner of a tenure (batch, number) has left there."""

    locator: bytes
    tenure: tuple[bytes, int] | None = None


@dataclass(frozen=True, slots=True)
class AskBundle:
    """Fetch a :class:`Bundle` for this request."""

    request: BundleRequest


@dataclass(frozen=True, slots=True)
class AskMore:
    """Fetch a :class:`StateProof` for this request, which names the head that the bundle opened."""

    request: BundleRequest


@dataclass(frozen=True, slots=True)
class Discovered:
    """The owner's plan, all of it, and the network's record, both proven. Store ``view.trust`` before acting on it.

    ``digests`` are the plan's sixteen, from which openings for parties are made; ``prefix`` is (bits, length).
    """

    plan: OpenedPlan
    digests: tuple[bytes, ...]
    network: Party
    view: View
    standing: Standing
    prefix: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing came of it at this gateway. If a head was verified nevertheless, ``trust`` is what to store.

    ``standing`` is the tenure that counts, if it was proven.

    Codes: ``no-mail`` (no envelope opens), ``no-plan`` (none fits), ``not-deployed``, ``tenure-frozen``,
    ``tenure-retired``, ``no-network`` (not registered, suspended or without an endpoint), ``still-split``,
    ``not-in-batch``, and those of :func:`firstlight.discovery.verify.verify_bundle` and of malformed answers.
    ``ignored`` says why envelopes did not count, each code once in the order in which it came up: those of
    :func:`firstlight.sealing.envelope.open_envelope`, ``bad-prefix``, those of
    :func:`firstlight.plan.claims.open_plan`.
    """

    code: str
    detail: str = ""
    trust: Trust | None = None
    ignored: tuple[str, ...] = ()
    standing: Standing | None = None


Event = AskMailbox | AskBundle | AskMore | Discovered | Failed


class Discovery:
    """One discovery through one gateway. Wrong answers end it with :class:`Failed`; calls out of turn raise."""

    def __init__(
        self, birth: BirthCredential, identity: KeyAgreement, *, gateway: str, trust: Trust, nonce: bytes
    ) -> None:
        """Prepare: ``gateway`` is the name it goes by, ``trust`` what is stored, ``nonce`` 32 fresh bytes."""
        self.state = State.NEW
        self._birth = birth
        self._identity = identity
        self._locator = mailbox_locator(birth.mailbox, gateway)
        self._trust = trust
        self._nonce = nonce
        self._candidates: tuple[EnvelopeContent, ...] = ()
        self._crowded = False
        self._request: BundleRequest | None = None
        self._prefix = (0, 0)
        self._view: View | None = None
        self._ignored: dict[str, None] = {}

    def start(self) -> Event:
        """Begin."""
        self._move(State.MAIL)
        return AskMailbox(self._locator)

    def receive(self, answer: bytes) -> Event:
        """Take the gateway's answer to the last request; ``answer-out-of-turn`` (ProofError) if there is none."""
        if self.state in (State.NEW, State.OVER):
            raise ProofError("answer-out-of-turn", f"nothing was asked for while {self.state.value}")
        try:
            if self.state is State.MAIL:
                return self._mail(answer)
            return self._proof(answer)
        except FirstlightError as error:
            return self._fail(error.code, error.detail)

    def _move(self, to: State) -> None:
        if to not in TRANSITIONS[self.state]:
            raise ProofError("answer-out-of-turn", f"from {self.state.value} to {to.value}")
        self.state = to

    def _fail(self, code: str, detail: str = "") -> Failed:
        self._move(State.OVER)
        view = self._view
        if view is None:
            return Failed(code, detail, None, tuple(self._ignored))
        return Failed(code, detail, view.trust, tuple(self._ignored), view.standing)

    def _mail(self, answer: bytes) -> Event:
        envelopes = Mail.decode(answer).envelopes
        opened = (self._open(sealed) for sealed in envelopes)
        fitting = [one for one in opened if one is not None]
        self._candidates = tuple(sorted(fitting, key=lambda one: (one.tenure, one.revision), reverse=True))
        if self._view is not None:
            self._crowded = False
            return self._judge(self._view)
        self._crowded = len(envelopes) >= MAX_ENVELOPES
        if not fitting and not self._crowded:
            return self._fail("no-mail", "no envelope opens")
        self._set_prefix(min((one.prefix_length for one in fitting), default=0))
        names = tuple(dict.fromkeys(party_name(party) for party in _networks(fitting)))[:MAX_NETWORKS]
        self._request = self._trust.request(self._nonce, batch=self._birth.batch, prefix=self._prefix, names=names)
        self._move(State.BUNDLE)
        return AskBundle(self._request)

    def _open(self, sealed: bytes) -> EnvelopeContent | None:
        try:
            content = open_envelope(sealed, self._identity, chain=self._birth.chain, locator=self._locator)
            if content.prefix_length > depth_of(self._birth.size):
                raise MalformedError("bad-prefix", f"{content.prefix_length} bits in a batch of {self._birth.size}")
        except FirstlightError as error:
            self._ignored[error.code] = None
            return None
        return content

    def _set_prefix(self, length: int) -> None:
        self._prefix = (self._birth.index >> (depth_of(self._birth.size) - length), length)

    def _proof(self, answer: bytes) -> Event:
        assert self._request is not None
        if self._view is None:
            self._view = verify_bundle(
                Bundle.decode(answer), self._request, trust=self._trust, batch_size=self._birth.size
            )
        else:
            self._view = verify_follow_up(
                StateProof.decode(answer), self._request, view=self._view, batch_size=self._birth.size
            )
        return self._judge(self._view)

    def _judge(self, view: View) -> Event:
        """Say what follows from what is proven by now."""
        assert view.batch is not None
        self._birth.verify(view.batch.leaves)
        if view.standing is None:
            return self._lengthen(view)
        _check_deployed(view.standing)
        fitting = self._fitting(view.standing)
        if fitting is None and self._crowded:
            return self._ask_by_name(view.standing)
        if fitting is None:
            return self._fail("no-plan", "no envelope fits the plan of the tenure that counts")
        digests, plan = fitting
        name = party_name(plan.network.party)
        if name not in view.records:
            return self._ask_more(view, replace(self._blank(view), names=(name,)))
        network = usable(view, plan.network.party, Role.MNO)
        self._move(State.OVER)
        return Discovered(plan, digests, network, view, view.standing, self._prefix)

    def _ask_by_name(self, standing: Standing) -> Event:
        """Ask once for the envelopes of the tenure that counts alone: others have filled the mailbox.

        That tells the gateway whose the device is, which it learns anyway.
        """
        self._move(State.MAIL)
        return AskMailbox(self._locator, (self._birth.batch, standing.number))

    def _lengthen(self, view: View) -> Event:
        depth, length = depth_of(self._birth.size), self._prefix[1]
        if length >= depth:
            return self._fail("still-split", "the longest prefix is split")
        longer = [one.prefix_length for one in self._candidates if one.prefix_length > length]
        self._set_prefix(min(longer, default=min(depth, length + LENGTHENING)))
        bits, length = self._prefix
        request = replace(self._blank(view), batch=self._birth.batch, prefix_bits=bits, prefix_length=length)
        return self._ask_more(view, request)

    def _blank(self, view: View) -> BundleRequest:
        return replace(self._trust.request(self._nonce), height=view.height)

    def _ask_more(self, view: View, request: BundleRequest) -> Event:
        self._view, self._request = view, request
        self._move(State.MORE)
        return AskMore(request)

    def _fitting(self, standing: Standing) -> tuple[tuple[bytes, ...], OpenedPlan] | None:
        assert standing.plan is not None
        for one in self._candidates:
            try:
                return one.digests, open_plan(standing.plan, one.digests, one.claims)
            except FirstlightError as error:
                self._ignored[error.code] = None
        return None


def _networks(candidates: Iterable[EnvelopeContent]) -> list[bytes]:
    """Return the networks that envelopes name, for asking only: nothing of it is proven yet."""
    found = []
    for one in candidates:
        for data in one.claims:
            try:
                claim = parse_claim(data)
            except FirstlightError:
                continue
            if isinstance(claim, PartyClaim) and claim.kind is PartyKind.NETWORK:
                found.append(claim.party)
    return found


def _check_deployed(standing: Standing) -> None:
    """Check that a device of this tenure may onboard.

    1. It is not frozen (``tenure-frozen``), 2. nor retired (``tenure-retired``), 3. and has a plan (``not-deployed``).
    Raises :class:`ProofError`.
    """
    if standing.state is TenureState.FROZEN:
        raise ProofError("tenure-frozen", f"tenure {standing.number} is frozen")
    if standing.state is TenureState.RETIRED:
        raise ProofError("tenure-retired", f"tenure {standing.number} is retired")
    if not standing.deployed:
        raise ProofError("not-deployed", f"tenure {standing.number} has no plan")


def usable(view: View, party: bytes, role: Role) -> Party:
    """Return the proven record of ``party`` if a device can go to it in that role.

    1. It is registered, active, and has the role, an endpoint and a key to agree with (``no-network``,
    ``no-service``). Raises :class:`ProofError`, ``not-asked`` too.
    """
    record = view.party(party)
    if (
        record is None
        or record.status is not PartyStatus.ACTIVE
        or role not in record.roles
        or record.agreement_key is None
        or not record.endpoints
    ):
        raise ProofError("no-network" if role is Role.MNO else "no-service", f"party {party.hex()} cannot be used")
    return record


def services_request(discovered: Discovered, trust: Trust, nonce: bytes) -> BundleRequest:
    """Return the request, sent once the device is attached, for its services' records and its tenure's state."""
    names = tuple(party_name(claim.party) for claim in discovered.plan.services)
    return trust.request(nonce, batch=discovered.view.batch_id, prefix=discovered.prefix, names=names)


def read_services(
    answer: Bundle, request: BundleRequest, discovered: Discovered, trust: Trust
) -> tuple[View, Mapping[bytes, Party]]:
    """Return the newer view and the services' records by party id, those left out that cannot be used now.

    1. The bundle holds (:func:`verify_bundle`); 2. tenure, plan and plan revision are those discovered (``moved``,
    which asks for a new discovery); 3. the device may onboard (:func:`_check_deployed`). Raises :class:`ProofError`.
    """
    size = None if discovered.view.batch is None else discovered.view.batch.size
    view = verify_bundle(answer, request, trust=trust, batch_size=size)
    now, then = view.standing, discovered.standing
    if now is None or (now.number, now.plan, now.plan_revision) != (then.number, then.plan, then.plan_revision):
        raise ProofError("moved", "the tenure or its plan has changed")
    _check_deployed(now)
    services: dict[bytes, Party] = {}
    for claim in discovered.plan.services:
        try:
            services[claim.party] = usable(view, claim.party, Role.SP)
        except ProofError:
            continue
    return view, MappingProxyType(services)
