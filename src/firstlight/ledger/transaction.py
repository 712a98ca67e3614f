"""Transactions: one body for each kind, in a COSE_Sign1, or in a COSE_Sign where several keys must sign.

The payload is the CBOR array ``[chain, kind, sequence, body]``. :func:`parse` accepts canonical bytes only and
checks shapes, not signatures: whose key must have signed stands in the state (``firstlight.ledger.rules``).
:func:`build` makes transactions for clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Any, ClassVar

from firstlight import cose
from firstlight.chain.root import StatementBytes
from firstlight.encoding import (
    Bytes16,
    Bytes32,
    Bytes33,
    ChainId,
    Count,
    Range,
    Record,
    Seconds,
    Uint,
    Uint32,
    Uri,
    decode,
    encode,
)
from firstlight.errors import MalformedError
from firstlight.ledger.records import BatchSize, Model, PartyStatus, RevocationKind, Role
from firstlight.ports import Signer
from firstlight.trees.ownership import Selection

TYP = "application/firstlight-transaction+cbor"
MAX_BYTES = 1_048_576
"""The most bytes of one transaction."""
MAX_DELAY = 90 * 86_400
"""The longest transfer delay, in seconds."""

Number = Annotated[int, Range(1, 2**32 - 1)]
"""A tenure's number."""
Delay = Annotated[int, Range(0, MAX_DELAY)]
Endpoints = Annotated[tuple[Uri, ...], Count(4)]


class Kind(IntEnum):
    """What a transaction does."""

    REGISTER_PARTY = 1
    UPDATE_PARTY = 2
    SUSPEND_PARTY = 3
    ANCHOR_BATCH = 4
    ADD_BUDGET = 5
    OFFER = 6
    ACCEPT = 7
    WITHDRAW = 8
    DEPLOY = 9
    FREEZE = 10
    UNFREEZE = 11
    RETIRE = 12
    RECOVER = 13
    PUBLISH_REFERENCE = 14
    REVOKE_REFERENCE = 15
    SET_EPOCH = 16
    ROTATE_ROOT = 17

    @property
    def label(self) -> str:
        """The kind's name as people write it: ``register_party``."""
        return self.name.lower()


class Body(Record):
    """What a transaction says; each kind has its own."""

    __slots__ = ()
    KIND: ClassVar[Kind]
    MANY: ClassVar[bool] = False
    """Whether several keys sign (COSE_Sign)."""


@dataclass(frozen=True, slots=True)
class RegisterParty(Body):
    """A new party. Signed by its ``key`` (proof of possession) and by a consortium member's root key; sequence 1.

    ``next_key_hash`` is the SHA-256 of the compressed key that will replace ``key``.
    """

    KIND: ClassVar[Kind] = Kind.REGISTER_PARTY
    MANY: ClassVar[bool] = True

    key: Bytes33
    next_key_hash: Bytes32
    roles: Annotated[tuple[Role, ...], Count(3, 1)]
    agreement_key: Bytes33 | None
    endpoints: Endpoints


@dataclass(frozen=True, slots=True)
class Rotation(Record):
    """A party's key taking the place of the current one, and the hash of the one to follow it."""

    key: Bytes33
    next_key_hash: Bytes32


@dataclass(frozen=True, slots=True)
class UpdateParty(Body):
    """New key-agreement key and endpoints, in place of the old. Signed by the party's key.

    With ``rotation`` it is signed by the new key alone, as its sequence 1. ``revision`` is the one that it makes.
    """

    KIND: ClassVar[Kind] = Kind.UPDATE_PARTY

    party: Bytes16
    revision: Uint
    agreement_key: Bytes33 | None
    endpoints: Endpoints
    rotation: Rotation | None


@dataclass(frozen=True, slots=True)
class SuspendParty(Body):
    """Suspend a party, or let it count again. Signed by m root keys; the sequence is the revision that it makes."""

    KIND: ClassVar[Kind] = Kind.SUSPEND_PARTY
    MANY: ClassVar[bool] = True

    party: Bytes16
    status: PartyStatus


@dataclass(frozen=True, slots=True)
class AnchorBatch(Body):
    """A new batch, and tenure 1 with ``key``, ``recovery`` and ``delay``. Signed by the manufacturer ``party``."""

    KIND: ClassVar[Kind] = Kind.ANCHOR_BATCH

    party: Bytes16
    size: BatchSize
    model: Model
    leaves: Bytes32
    trust_anchors: Annotated[tuple[Bytes32, ...], Count(8)]
    reference_issuers: Annotated[tuple[Bytes16, ...], Count(8, 1)]
    key: Bytes33
    recovery: Bytes32
    delay: Delay


@dataclass(frozen=True, slots=True)
class AddBudget(Body):
    """More work (trie nodes) for a batch. Signed by a member's root key; the sequence is the number of the grant."""

    KIND: ClassVar[Kind] = Kind.ADD_BUDGET

    batch: Bytes16
    amount: Annotated[int, Range(1, 2**48)]


@dataclass(frozen=True, slots=True)
class Offer(Body):
    """Offer indices of ``tenure`` to whoever holds ``buyer``, until ``expiry``. Signed by the owner's key."""

    KIND: ClassVar[Kind] = Kind.OFFER

    batch: Bytes16
    tenure: Number
    buyer: Bytes33
    expiry: Seconds
    selection: Selection


@dataclass(frozen=True, slots=True)
class Accept(Body):
    """Take offer ``tenure``. Signed by the buyer's key, sequence 1.

    ``recovery`` is the SHA-256 of the recovery public key (compressed), ``delay`` the transfer delay in seconds.
    """

    KIND: ClassVar[Kind] = Kind.ACCEPT

    batch: Bytes16
    tenure: Number
    recovery: Bytes32
    delay: Delay


@dataclass(frozen=True, slots=True)
class Withdraw(Body):
    """Take back the live offer ``tenure``. Signed by the seller's key."""

    KIND: ClassVar[Kind] = Kind.WITHDRAW

    batch: Bytes16
    tenure: Number


@dataclass(frozen=True, slots=True)
class Deploy(Body):
    """Set a tenure's plan root; with a selection, move that to a new tenure of the same origin with this plan."""

    KIND: ClassVar[Kind] = Kind.DEPLOY

    batch: Bytes16
    tenure: Number
    plan: Bytes32
    selection: Selection | None


@dataclass(frozen=True, slots=True)
class Freeze(Body):
    """Move a selection of ``tenure`` to a new, frozen tenure of the same origin."""

    KIND: ClassVar[Kind] = Kind.FREEZE

    batch: Bytes16
    tenure: Number
    selection: Selection


@dataclass(frozen=True, slots=True)
class Unfreeze(Body):
    """Move a selection of the frozen ``tenure`` back; without one, release the origin ``tenure`` after a recovery."""

    KIND: ClassVar[Kind] = Kind.UNFREEZE

    batch: Bytes16
    tenure: Number
    selection: Selection | None


@dataclass(frozen=True, slots=True)
class Retire(Body):
    """Move a selection of ``tenure`` to a new, retired tenure of the same origin, for good."""

    KIND: ClassVar[Kind] = Kind.RETIRE

    batch: Bytes16
    tenure: Number
    selection: Selection


@dataclass(frozen=True, slots=True)
class Recover(Body):
    """Give origin ``tenure`` a new ``key`` and ``recovery`` hash. Signed by ``recovery_key``, whose hash is recorded.

    The sequence is the number of the recovery of this origin, from 1.
    """

    KIND: ClassVar[Kind] = Kind.RECOVER

    batch: Bytes16
    tenure: Number
    recovery_key: Bytes33
    key: Bytes33
    recovery: Bytes32


@dataclass(frozen=True, slots=True)
class PublishReference(Body):
    """Publish a reference-value set by its hash. Signed by the issuing manufacturer ``party``."""

    KIND: ClassVar[Kind] = Kind.PUBLISH_REFERENCE

    party: Bytes16
    model: Model
    identifier: Bytes16
    digest: Bytes32
    minimum_svn: Uint
    not_before: Seconds
    not_after: Seconds


@dataclass(frozen=True, slots=True)
class SetName(Record):
    """Names a reference-value set of an issuer."""

    model: Model
    identifier: Bytes16


@dataclass(frozen=True, slots=True)
class Revoked(Record):
    """Names by SHA-256 what must not count any more."""

    kind: RevocationKind
    digest: Bytes32


@dataclass(frozen=True, slots=True)
class RevokeReference(Body):
    """Revoke a set, or something by its hash: exactly one of the two. Signed by the issuer ``party``."""

    KIND: ClassVar[Kind] = Kind.REVOKE_REFERENCE

    party: Bytes16
    set: SetName | None
    revoked: Revoked | None


@dataclass(frozen=True, slots=True)
class SetEpoch(Body):
    """Put the next signed epoch statement in force. Signed by m root keys; the sequence is its number."""

    KIND: ClassVar[Kind] = Kind.SET_EPOCH
    MANY: ClassVar[bool] = True

    statement: StatementBytes


@dataclass(frozen=True, slots=True)
class RotateRoot(Body):
    """Put the next signed root statement in force. Signed by m of the new root's keys; the sequence is its version.

    ``epoch`` is the epoch statement in force, its contents unchanged, signed by m of the new root's keys.
    """

    KIND: ClassVar[Kind] = Kind.ROTATE_ROOT
    MANY: ClassVar[bool] = True

    statement: StatementBytes
    epoch: StatementBytes


BODIES: dict[Kind, type[Body]] = {
    body.KIND: body
    for body in (
        RegisterParty,
        UpdateParty,
        SuspendParty,
        AnchorBatch,
        AddBudget,
        Offer,
        Accept,
        Withdraw,
        Deploy,
        Freeze,
        Unfreeze,
        Retire,
        Recover,
        PublishReference,
        RevokeReference,
        SetEpoch,
        RotateRoot,
    )
}


@dataclass(frozen=True, slots=True)
class _Head(Record):
    """What stands before the body."""

    chain: ChainId
    kind: Kind
    sequence: Uint32


@dataclass(frozen=True, slots=True)
class Transaction:
    """A parsed transaction; its signatures are not verified yet. ``id`` does not depend on them."""

    id: bytes
    chain: str
    sequence: int
    body: Body
    signed: cose.Signed

    @property
    def kind(self) -> Kind:
        """What the transaction does."""
        return self.body.KIND


def parse(data: bytes) -> Transaction:
    """Parse a transaction strictly.

    Raises :class:`MalformedError`: what :func:`firstlight.cose.parse` raises, ``wrong-shape``, ``unknown-kind``, and
    ``wrong-signature-form`` if it is a COSE_Sign1 where COSE_Sign is due or the other way round.
    """
    signed = cose.parse(data, typ=TYP, limit=MAX_BYTES)
    payload = decode(signed.payload, limit=MAX_BYTES)
    if type(payload) is not list or len(payload) != 4:
        raise MalformedError("wrong-shape", "the payload is not an array of four")
    head = _head(payload)
    body = BODIES[head.kind].from_cbor(payload[3])
    if signed.many is not body.MANY:
        raise MalformedError("wrong-signature-form", f"{head.kind.label} is signed the other way")
    return Transaction(signed.id, head.chain, head.sequence, body, signed)


def _head(payload: list[Any]) -> _Head:
    if type(payload[1]) is int and payload[1] not in BODIES:
        raise MalformedError("unknown-kind", f"no transaction is of kind {payload[1]}")
    return _Head.from_cbor(payload[:3])


def build(body: Body, *, chain: str, sequence: int, signer: Signer, cosigners: Sequence[Signer] = ()) -> bytes:
    """Return the transaction that says ``body``, signed by ``signer`` and, where several sign, ``cosigners``.

    Raises :class:`MalformedError`: ``wrong-signature-form`` for cosigners where one key signs, ``too-large``,
    ``wrong-shape`` for values out of bounds.
    """
    payload = encode([chain, int(body.KIND), sequence, body.to_cbor()])
    if body.MANY:
        data = cose.sign(payload, typ=TYP, signers=(signer, *cosigners))
    elif cosigners:
        raise MalformedError("wrong-signature-form", f"one key signs {body.KIND.label}")
    else:
        data = cose.sign1(payload, typ=TYP, signer=signer)
    parse(data)
    return data
