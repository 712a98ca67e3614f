"""What the ledger holds: the records, and the names under which the sparse Merkle tree keeps them.

A record's key in the tree is the SHA-256 of its name (ASCII), a tenure's near that of its batch
(:func:`tree_key`); its value is the record's deterministic CBOR. No field is free text.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from firstlight.encoding import (
    Bytes16,
    Bytes32,
    Bytes33,
    Count,
    Range,
    Record,
    Seconds,
    Size,
    Uint,
    Uint32,
    Uri,
    encode,
)

MAX_BATCH = 2**32 - 1
MAX_RECOVERIES = 16
"""How often one origin can be recovered; an owner who comes near to it sells to a fresh key of his own."""
_SHARED = 3
Model = Annotated[bytes, Size(1, 32)]
"""A hardware model (EAT ``hwmodel``, RFC 9711 §4.2.4)."""
BatchSize = Annotated[int, Range(1, MAX_BATCH)]


class Role(IntEnum):
    """What a party may do on the ledger."""

    MANUFACTURER = 1
    MNO = 2
    SP = 3


class PartyStatus(IntEnum):
    """Whether a party counts."""

    ACTIVE = 1
    SUSPENDED = 2


class TenureState(IntEnum):
    """Where one owner's holding stands; an offer's end by expiry is not a state but follows from the time."""

    OFFERED = 1
    ACTIVE = 2
    FROZEN = 3
    RETIRED = 4
    WITHDRAWN = 5


class ReferenceStatus(IntEnum):
    """Whether a reference-value set counts."""

    LIVE = 1
    REVOKED = 2


class RevocationKind(IntEnum):
    """What the hash in a revocation is a hash of."""

    FIRMWARE = 1
    SIGNER = 2
    DEVICE_CA = 3
    VENDOR_ROOT = 4


@dataclass(frozen=True, slots=True)
class Party(Record):
    """``party/<id>``: a manufacturer, MNO or SP; the id is the first 16 bytes of SHA-256 of its first key."""

    revision: Uint
    sequence: Uint
    roles: Annotated[tuple[Role, ...], Count(3, 1)]
    key: Bytes33
    next_key_hash: Bytes32
    agreement_key: Bytes33 | None
    endpoints: Annotated[tuple[Uri, ...], Count(4)]
    status: PartyStatus


@dataclass(frozen=True, slots=True)
class Batch(Record):
    """``batch/<id>``: devices made together.

    ``tenures`` counts the tenures so far, ``budget`` is what is left in trie nodes, ``grants`` counts the
    times that a member has added to it.
    """

    issuer: Bytes16
    size: BatchSize
    model: Model
    leaves: Bytes32
    ownership: Bytes32
    trust_anchors: Annotated[tuple[Bytes32, ...], Count(8)]
    reference_issuers: Annotated[tuple[Bytes16, ...], Count(8, 1)]
    budget: Uint
    tenures: Uint32
    grants: Uint32 = 0


@dataclass(frozen=True, slots=True)
class Tenure(Record):
    """``tenure/<batch>/<n>``: one owner's holding.

    Key, recovery hash, sequence, delay and ``recovered_at`` count in an origin only. ``held`` is set on an
    origin that a recovery froze together with all its tenures. ``offered_at`` and ``expiry`` are of an offer.

    ``count`` is how many indices the ownership trie points at this tenure. An offer's devices are counted in
    the offer, before and after it is accepted, so that neither ``accept`` nor the passing of time changes any
    other record; whatever counts as tenure p are its own indices and those of its offers that do not count.

    ``recovered_before`` keeps the times of the recoveries before the last one: what one recovery has undone,
    a later one must not bring back.
    """

    state: TenureState
    previous: Uint32
    origin: Uint32
    count: Uint32
    plan: Bytes32 | None
    plan_revision: Uint
    key: Bytes33 | None
    sequence: Uint
    recovery: Bytes32 | None
    delay: Seconds
    offered_at: Seconds
    expiry: Seconds
    accepted_at: Seconds
    recovered_at: Seconds
    held: bool
    recovered_before: Annotated[tuple[Seconds, ...], Count(MAX_RECOVERIES - 1)] = ()


@dataclass(frozen=True, slots=True)
class Reference(Record):
    """``reference/<issuer>/<class>/<id>``: a published reference-value set (a CoRIM), by hash."""

    digest: Bytes32
    minimum_svn: Uint
    not_before: Seconds
    not_after: Seconds
    status: ReferenceStatus


@dataclass(frozen=True, slots=True)
class Revocation(Record):
    """``reference/<issuer>/revoked/<hash>``: overrides every set and trust anchor that counts the issuer."""

    kind: RevocationKind
    revoked_at: Seconds


@dataclass(frozen=True, slots=True)
class Governance(Record):
    """``governance``: which root and epoch statements are in force, by number and hash (SHA-256 of its contents)."""

    root_version: Uint
    root_hash: Bytes32
    epoch: Uint
    epoch_hash: Bytes32
    next_epoch: Uint
    next_epoch_hash: Bytes32 | None


GOVERNANCE = "governance"


def party_name(party: bytes) -> str:
    """Return the name of a party's record."""
    return f"party/{party.hex()}"


def batch_name(batch: bytes) -> str:
    """Return the name of a batch's record."""
    return f"batch/{batch.hex()}"


def tenure_name(batch: bytes, number: int) -> str:
    """Return the name of a tenure's record."""
    return f"tenure/{batch.hex()}/{number}"


def reference_name(issuer: bytes, model: bytes, identifier: bytes) -> str:
    """Return the name of a reference-value set's record; its class is the hash of the hardware model."""
    return f"reference/{issuer.hex()}/{class_of(model).hex()}/{identifier.hex()}"


def revocation_name(issuer: bytes, digest: bytes) -> str:
    """Return the name of the record that revokes whatever has SHA-256 ``digest``."""
    return f"reference/{issuer.hex()}/revoked/{digest.hex()}"


def root_name(version: int) -> str:
    """Return the name of a root statement's record (its value is the statement as a byte string)."""
    return f"root/{version}"


def epoch_name(number: int) -> str:
    """Return the name of an epoch statement's record (its value is the statement as a byte string)."""
    return f"epoch/{number}"


def tree_key(name: str) -> bytes:
    """Return the key of a record in the sparse Merkle tree: SHA-256 of its name.

    A tenure's key begins with the first three bytes of its batch's: whoever asks for one asks for both, and so their
    ways to the root, and the proofs, are mostly one.
    """
    key = hashlib.sha256(name.encode("ascii")).digest()
    namespace, *rest = name.split("/")
    if namespace != "tenure":
        return key
    return hashlib.sha256(f"batch/{rest[0]}".encode("ascii")).digest()[:_SHARED] + key[_SHARED:]


def class_of(model: bytes) -> bytes:
    """Return the 16-byte class of a hardware model, as it stands in record names."""
    return hashlib.sha256(b"firstlight-class-1" + model).digest()[:16]


def batch_id(chain: str, issuer: bytes, size: int, model: bytes, leaves: bytes) -> bytes:
    """Return the 16-byte id of a batch: the hash of what it commits to."""
    return hashlib.sha256(encode(["firstlight-batch-1", chain, issuer, size, model, leaves])).digest()[:16]


def party_id(first_key: bytes) -> bytes:
    """Return the 16-byte id of the party whose first key (compressed) this is."""
    return hashlib.sha256(b"firstlight-party-1" + first_key).digest()[:16]
