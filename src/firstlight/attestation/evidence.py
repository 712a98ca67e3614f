"""Evidence: an Entity Attestation Token (RFC 9711) in COSE_Sign1 by the attestation key, untagged.

The profile, claim by claim (all are there, and nothing else):

    10    eat_nonce     32 bytes: what the exchange derives (see ``firstlight.onboarding.messages``)
    257   sueids        {"firstlight": 0x01 ‖ 16 bytes}: a pseudonym that one party knows the device by
    258   oemid         16 bytes: the batch issuer's party id
    259   hwmodel       1 to 32 bytes, as in the leaf
    260   hwversion     [text]
    262   oemboot       bool
    263   dbgstat       0 to 4 (0: enabled)
    265   eat_profile   :data:`PROFILE`
    267   bootcount     uint
    268   bootseed      16 bytes
    271   swversion     [text]
    273   measurements  [[65000, CBOR of [[component, SHA-256, svn], …]]]: components ascending by name
    -70001              [issuer, id], 16 bytes each: the reference-value set that it measures itself by

65000 is an experimental CoAP content format and -70001 a private-use claim key, both of this profile.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Any

from firstlight import cose
from firstlight.encoding import Bytes16, Bytes32, Count, Record, Text, Uint, decode, decode_as, encode
from firstlight.errors import MalformedError
from firstlight.ledger.records import Model
from firstlight.ports import Signer

TYP = "application/eat+cwt"
PROFILE = "tag:firstlight.example,2026:eat/1"
MAX_EVIDENCE = 2_048
MEASUREMENT_FORMAT = 65_000
MAX_COMPONENTS = 8

_NONCE, _SUEIDS, _OEMID, _HWMODEL, _HWVERSION, _OEMBOOT, _DBGSTAT = 10, 257, 258, 259, 260, 262, 263
_PROFILE, _BOOTCOUNT, _BOOTSEED, _SWVERSION, _MEASUREMENTS, _REFERENCE = 265, 267, 268, 271, 273, -70_001
_KEYS = (
    *(_NONCE, _SUEIDS, _OEMID, _HWMODEL, _HWVERSION, _OEMBOOT, _DBGSTAT),
    *(_PROFILE, _BOOTCOUNT, _BOOTSEED, _SWVERSION, _MEASUREMENTS, _REFERENCE),
)
"""All claims, in the order of their encodings."""
_INTEGERS = frozenset({int})
_SUEID, _RAND = "firstlight", b"\x01"

ComponentId = Annotated[str, Text(r"[a-z0-9][a-z0-9.-]{0,31}")]
"""The name of a measured component, such as ``bootloader`` or ``application``."""
Version = Annotated[str, Text(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,31}")]


class Debug(IntEnum):
    """Debug status (RFC 9711 §4.2.9)."""

    ENABLED = 0
    DISABLED = 1
    DISABLED_SINCE_BOOT = 2
    DISABLED_PERMANENTLY = 3
    DISABLED_FULLY_AND_PERMANENTLY = 4


@dataclass(frozen=True, slots=True)
class Measurement(Record):
    """What one component measured to: its SHA-256, and its security version number."""

    component: ComponentId
    digest: Bytes32
    svn: Uint


@dataclass(frozen=True, slots=True)
class ReferenceName(Record):
    """Which reference-value set: the issuer's party id, and the set's id."""

    issuer: Bytes16
    identifier: Bytes16


@dataclass(frozen=True, slots=True)
class Evidence(Record):
    """What a device says of itself; components ascend by name, none twice.

    As a record it travels nowhere: :meth:`claims` is its form on the wire.
    """

    nonce: Bytes32
    pseudonym: Bytes16
    oemid: Bytes16
    model: Model
    hardware_version: Version
    secure_boot: bool
    debug: Debug
    boot_count: Uint
    boot_seed: Bytes16
    software_version: Version
    measurements: Annotated[tuple[Measurement, ...], Count(MAX_COMPONENTS, 1)]
    reference: ReferenceName
    profile: Annotated[str, Text(r"[!-~]{1,80}")] = PROFILE

    def __post_init__(self) -> None:
        """Check the order of the components."""
        if any(left.component >= right.component for left, right in pairwise(self.measurements)):
            raise MalformedError("unsorted-components", "components do not ascend by name")

    def claims(self) -> dict[int, Any]:
        """Return the claims set."""
        measured = encode([one.to_cbor() for one in self.measurements])
        return {
            _NONCE: self.nonce,
            _SUEIDS: {_SUEID: _RAND + self.pseudonym},
            _OEMID: self.oemid,
            _HWMODEL: self.model,
            _HWVERSION: [self.hardware_version],
            _OEMBOOT: self.secure_boot,
            _DBGSTAT: int(self.debug),
            _PROFILE: self.profile,
            _BOOTCOUNT: self.boot_count,
            _BOOTSEED: self.boot_seed,
            _SWVERSION: [self.software_version],
            _MEASUREMENTS: [[MEASUREMENT_FORMAT, measured]],
            _REFERENCE: self.reference.to_cbor(),
        }


def pseudonym(mailbox: bytes, party: bytes) -> bytes:
    """Return the pseudonym (16 bytes) by which one party knows a device; two parties cannot match theirs."""
    return hmac.digest(mailbox, b"firstlight-pseudonym-1" + party, "sha256")[:16]


def sign_evidence(evidence: Evidence, signer: Signer) -> bytes:
    """Return the evidence as a COSE_Sign1 by the attestation key."""
    return cose.sign1(encode(evidence.claims()), typ=TYP, signer=signer)


@lru_cache(maxsize=64)
def parse_evidence(data: bytes) -> tuple[Evidence, cose.Signed]:
    """Parse evidence strictly; nothing is verified. Raises :class:`MalformedError`.

    An appraisal reads the same bytes several times, so the last ones are kept.
    """
    signed = cose.parse(data, typ=TYP, limit=MAX_EVIDENCE)
    if signed.many:
        raise MalformedError("not-cose", "a COSE_Sign where a COSE_Sign1 is expected")
    return decode_as(signed.payload, _evidence, limit=MAX_EVIDENCE), signed


def _evidence(claims: Any) -> Evidence:
    """Return what a claims set says; its keys come in the order of :data:`_KEYS`."""
    if type(claims) is not dict or tuple(claims) != _KEYS or not _INTEGERS.issuperset(map(type, claims)):
        raise MalformedError("wrong-shape", "the claims of the profile are not all there, and nothing else")
    fields = [
        claims[_NONCE],
        _sueid(claims[_SUEIDS]),
        claims[_OEMID],
        claims[_HWMODEL],
        _only(claims[_HWVERSION]),
        claims[_OEMBOOT],
        claims[_DBGSTAT],
        claims[_BOOTCOUNT],
        claims[_BOOTSEED],
        _only(claims[_SWVERSION]),
        _measured(_only(claims[_MEASUREMENTS])),
        claims[_REFERENCE],
        claims[_PROFILE],
    ]
    return Evidence.from_cbor(fields)


def _only(value: Any) -> Any:
    if type(value) is not list or len(value) != 1:
        raise MalformedError("wrong-shape", "not an array of one")
    return value[0]


def _sueid(value: Any) -> bytes:
    sueid = value.get(_SUEID) if type(value) is dict and len(value) == 1 else None
    if type(sueid) is not bytes or sueid[:1] != _RAND:
        raise MalformedError("wrong-shape", "sueids is not one random SUEID of this profile")
    return sueid[1:]


def _measured(value: Any) -> Any:
    if type(value) is not list or list(map(type, value)) != [int, bytes] or value[0] != MEASUREMENT_FORMAT:
        raise MalformedError("wrong-shape", f"a measurement is not in content format {MEASUREMENT_FORMAT}")
    return list(_decoded(value[1]))


@lru_cache(maxsize=64)
def _decoded(measured: bytes) -> tuple[Any, ...]:
    """Return the entries of encoded measurements, which are the same for all devices with one firmware."""
    entries = decode(measured, limit=MAX_EVIDENCE)
    if type(entries) is not list:
        raise MalformedError("wrong-shape", "measurements are not an array")
    return tuple(entries)
