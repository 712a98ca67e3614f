"""What device and party say to each other inside EDHOC, and how the bytes are framed.

EAD labels (RFC 9528 §3.8; the registry has no private range, so these are a deviation that
``docs/protocol.md`` declares). A critical item carries the label negated on the wire:

    65001  EAD_2             height of the party's verified head
    65002  EAD_3  critical   claim
    65003  EAD_3  critical   evidence (EAT)
    65004  EAD_3  critical   request (a CSR; absent for a SIM)
    65005  EAD_4  critical   grant
    65006  EAD_4  critical   refusal

Exporter labels (RFC 9528 §4.2.1, private range): 32768 for K, 32769 for OPc.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Any, ClassVar, Protocol, Self

from firstlight.encoding import (
    Bytes16,
    Count,
    Packed,
    Record,
    Seconds,
    Size,
    Text,
    Uint,
    Uint32,
    Uri,
    encode_byte_strings,
    encode_sequence,
)
from firstlight.errors import ExchangeError, MalformedError
from firstlight.identity.birth import Leaf
from firstlight.onboarding.edhoc.keys import Ead
from firstlight.plan.claims import PlanOpening
from firstlight.sim.subscription import NetworkName
from firstlight.sim.suci import HomeNetwork

EAD_HEIGHT = 65001
EAD_CLAIM = 65002
EAD_EVIDENCE = 65003
EAD_REQUEST = 65004
EAD_GRANT = 65005
EAD_REFUSAL = 65006

EXPORT_K = 32768
EXPORT_OPC = 32769

C_I = b"\x00"
"""The connection identifier of every device: the same for all, so that it tells nothing."""
C_R = b"\x01"
"""The connection identifier of every party: state travels in the token, so it need not differ."""

EVIDENCE_LABEL = b"firstlight-evidence-1"
_ARRAY_OF_4, _ARRAY_OF_6 = b"\x84", b"\x86"
MAX_EVIDENCE = 2_048
MAX_REQUEST = 1_024


@dataclass(frozen=True, slots=True)
class Claim(Record):
    """What a device says it is and what it acted on (EAD_3).

    Batch and index with the opening of the leaf and its path (RFC 6962); the opening of this party's plan
    claim; and what the device acted on: ledger height, tenure number, plan revision, revision of the party's
    record, and the newest grant that it has stored from this party under this tenure's origin.
    """

    LIMIT: ClassVar[int] = 2_048

    batch: Bytes16
    index: Uint32
    leaf: Leaf
    path: Annotated[tuple[bytes, ...], Packed(32)]
    plan: PlanOpening
    height: Uint
    tenure: Uint32
    plan_revision: Uint
    party_revision: Uint
    stored_grant: Bytes16 | None


class GrantKind(IntEnum):
    """What a grant grants."""

    SIM = 1
    X509 = 2


Supi = Annotated[str, Text(r"imsi-[0-9]{15}")]
Der = Annotated[bytes, Size(1, 4096)]
HostName = Annotated[str, Text(r"[A-Za-z0-9.-]{1,253}")]


@dataclass(frozen=True, slots=True)
class SimGrant(Record):
    """A subscription: K and OPc are not in it but come from the exporter, see :func:`subscription_keys`.

    ``endpoint`` is where to attach, ``home`` how to conceal the SUPI, ``network`` the name that AKA' binds keys to.
    """

    supi: Supi
    endpoint: Uri
    home: HomeNetwork
    network: NetworkName


@dataclass(frozen=True, slots=True)
class X509Grant(Record):
    """A certificate chain (DER, leaf first), and what to check and use when connecting with it.

    A service names its broker and the device's topic; a private network where to attach, and in place of the topic its
    own name.
    """

    chain: Annotated[tuple[Der, ...], Count(4, 1)]
    anchors: Annotated[tuple[Der, ...], Count(4, 1)]
    server: HostName
    broker: Uri
    topic: Annotated[str, Text(r"[A-Za-z0-9._/-]{1,128}")]


GrantBody = SimGrant | X509Grant


@dataclass(frozen=True, slots=True)
class Grant(Record):
    """A credential (EAD_4): a random id, times in Unix seconds, a body.

    On the wire it is the array [id, kind, issued, expires, body].
    """

    LIMIT: ClassVar[int] = 16_384

    id: bytes
    issued_at: int
    expires: int
    body: GrantBody

    @property
    def kind(self) -> GrantKind:
        """Which kind of body this grant has."""
        return GrantKind.SIM if isinstance(self.body, SimGrant) else GrantKind.X509

    def to_cbor(self) -> list[Any]:
        """Return the grant as a list of CBOR values."""
        return [self.id, int(self.kind), self.issued_at, self.expires, self.body.to_cbor()]

    @classmethod
    def from_cbor(cls, value: object) -> Self:
        """Build the grant; :class:`MalformedError` (``wrong-shape``) if it does not fit."""
        if type(value) is not list or len(value) != 5:
            raise MalformedError("wrong-shape", "Grant: not an array of 5")
        head = _GrantHead.from_cbor(value[:4])
        kind = SimGrant if head.kind is GrantKind.SIM else X509Grant
        return cls(head.id, head.issued_at, head.expires, kind.from_cbor(value[4]))


@dataclass(frozen=True, slots=True)
class _GrantHead(Record):
    id: Bytes16
    kind: GrantKind
    issued_at: Seconds
    expires: Seconds


@dataclass(frozen=True, slots=True)
class Refusal(Record):
    """A protected refusal (EAD_4): the stable code of the check that failed."""

    LIMIT: ClassVar[int] = 64

    code: Annotated[str, Text(r"[a-z][a-z0-9-]{1,39}")]


@dataclass(frozen=True, slots=True)
class Head(Record):
    """The party's verified head (EAD_2)."""

    LIMIT: ClassVar[int] = 16

    height: Uint


def collect(items: Sequence[Ead], known: Mapping[int, bool], *, required: Sequence[int] = ()) -> dict[int, bytes]:
    """Return the values of the EAD items with ``known`` labels (label to whether it is critical).

    1. Unknown items are passed over unless they are critical (``unknown-critical-ead``); 2. no known one is doubled,
    empty or of the wrong criticality, and no ``required`` one is missing (``bad-ead``). Raises
    :class:`firstlight.errors.ExchangeError` (1), :class:`MalformedError` (2).
    """
    found: dict[int, bytes] = {}
    for item in items:
        if item.label not in known:
            if item.critical:
                raise ExchangeError("unknown-critical-ead", f"label {item.label}")
            continue
        if item.label in found or not item.value or item.critical is not known[item.label]:
            raise MalformedError("bad-ead", f"label {item.label} is doubled, empty or of the wrong criticality")
        found[item.label] = item.value
    if not set(required) <= set(found):
        raise MalformedError("bad-ead", "an item is missing")
    return found


class Exporter(Protocol):
    """EDHOC_Exporter of one finished exchange (RFC 9528 §4.2.1)."""

    def export(self, label: int, context: bytes, length: int) -> bytes:
        """Return ``length`` bytes of key material for ``label`` and ``context``."""
        ...


def evidence_nonce(th_3: bytes, id_cred_i: bytes, cred_i: bytes, claim: bytes, request: bytes) -> bytes:
    """Return the 32-byte nonce that evidence must carry in this exchange.

    ``id_cred_i`` is the encoded map {4: kid}, ``cred_i`` the encoded CCS, ``claim`` and ``request`` the exact
    bytes in EAD_3 (a missing request is the empty string).
    """
    parts = (th_3, EVIDENCE_LABEL, id_cred_i, cred_i, hashlib.sha256(claim).digest(), hashlib.sha256(request).digest())
    return hashlib.sha256(_ARRAY_OF_6 + encode_byte_strings(*parts)).digest()


def subscription_keys(exporter: Exporter, *, chain: str, party: bytes, supi: str) -> tuple[bytes, bytes]:
    """Return K and OPc (16 bytes each) of the subscription ``supi``: both sides derive them, none is sent."""

    def derive(label: int, which: str) -> bytes:
        return exporter.export(label, _ARRAY_OF_4 + encode_sequence(chain, party, supi, which), 16)

    return derive(EXPORT_K, "K"), derive(EXPORT_OPC, "OPc")
