"""Authentication and key agreement (3GPP TS 33.102): vectors, AUTN, sequence numbers, resynchronisation.

SQN is 48 bits: SEQ (43 bits) followed by IND (5 bits, TS 33.102 Annex C.1.1.1). The authentication
centre counts SEQ and IND up together; the USIM keeps, for each IND, the highest SEQ that it accepted
(Annex C.2.2), so that vectors may arrive out of order but none counts twice.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Annotated

from firstlight.encoding import Count, Range, Record
from firstlight.errors import SignatureError
from firstlight.sim import milenage
from firstlight.sim.milenage import xor

IND_BITS = 5
SLOTS = 1 << IND_BITS
SEQ_MAX = 2**43 - 1
SQN_MAX = 2**48 - 1
DELTA = 2**28
"""The widest jump ahead that a USIM accepts, in SEQ (TS 33.102 Annex C.3.2)."""
AMF_SEPARATION = b"\x80\x00"
"""Bit 0 of AMF set: the vector is for AKA' or EPS only, never for plain UMTS (TS 33.102 Annex H)."""
AMF_UMTS = b"\x00\x00"
_AMF_RESYNC = b"\x00\x00"

Seq = Annotated[int, Range(0, SEQ_MAX)]
Sqn = Annotated[int, Range(0, SQN_MAX)]


@dataclass(frozen=True, slots=True)
class Vector:
    """An authentication vector: RAND, AUTN, XRES, CK, IK (TS 33.102 §6.3.2)."""

    rand: bytes
    autn: bytes
    xres: bytes = field(repr=False)
    ck: bytes = field(repr=False)
    ik: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sequence(Record):
    """What a USIM remembers: for each IND the highest SEQ accepted (TS 33.102 Annex C.2.2)."""

    highest: Annotated[tuple[Seq, ...], Count(SLOTS, SLOTS)]

    @classmethod
    def fresh(cls) -> Sequence:
        """Return the state of a new USIM: nothing accepted yet."""
        return cls((0,) * SLOTS)

    @property
    def sqn(self) -> int:
        """SQN_MS: the highest SEQ accepted with its IND (48 bits)."""
        seq = max(self.highest)
        return (seq << IND_BITS) | self.highest.index(seq)

    def accept(self, sqn: int, *, delta: int = DELTA) -> Sequence | None:
        """Return the state after ``sqn``, or None if it is not fresh or jumps more than ``delta`` ahead."""
        seq, ind = sqn >> IND_BITS, sqn & (SLOTS - 1)
        if seq <= self.highest[ind] or seq - max(self.highest) > delta:
            return None
        return Sequence((*self.highest[:ind], seq, *self.highest[ind + 1 :]))


@dataclass(frozen=True, slots=True)
class Accepted:
    """The USIM trusts the challenge. ``sequence`` must be stored before ``res`` is sent."""

    res: bytes = field(repr=False)
    ck: bytes = field(repr=False)
    ik: bytes = field(repr=False)
    sequence: Sequence


@dataclass(frozen=True, slots=True)
class MacFailure:
    """AUTN was not made with this USIM's K and OPc."""


@dataclass(frozen=True, slots=True)
class SyncFailure:
    """AUTN is genuine and its SQN is not acceptable; AUTS (14 bytes) tells the network where the USIM stands."""

    auts: bytes


Answer = Accepted | MacFailure | SyncFailure


def next_sqn(sqn: int) -> int:
    """Return the SQN after ``sqn``: SEQ and IND one further (Annex C.1.2); raises :class:`OverflowError` at the end."""
    seq = (sqn >> IND_BITS) + 1
    if seq > SEQ_MAX:
        raise OverflowError("the sequence numbers of this subscription are used up")
    return (seq << IND_BITS) | ((sqn + 1) & (SLOTS - 1))


def make_vector(k: bytes, opc: bytes, sqn: int, rand: bytes, *, amf: bytes = AMF_SEPARATION) -> Vector:
    """Return the vector for one SQN and RAND (TS 33.102 §6.3.2)."""
    sqn_bytes = sqn.to_bytes(6)
    mac_a, _ = milenage.f1(k, opc, rand, sqn_bytes, amf)
    out = milenage.f2345(k, opc, rand)
    return Vector(rand, xor(sqn_bytes, out.ak) + amf + mac_a, out.res, out.ck, out.ik)


def answer(k: bytes, opc: bytes, sequence: Sequence, rand: bytes, autn: bytes) -> Answer:
    """Answer a challenge as the USIM does (TS 33.102 §6.3.3).

    1. MAC-A in AUTN matches; otherwise :class:`MacFailure`.
    2. SQN is acceptable; otherwise :class:`SyncFailure` with AUTS.
    """
    out = milenage.f2345(k, opc, rand)
    sqn, amf, mac = xor(autn[:6], out.ak), autn[6:8], autn[8:16]
    if not hmac.compare_digest(milenage.f1(k, opc, rand, sqn, amf)[0], mac):
        return MacFailure()
    accepted = sequence.accept(int.from_bytes(sqn))
    if accepted is None:
        return SyncFailure(make_auts(k, opc, rand, sequence.sqn))
    return Accepted(out.res, out.ck, out.ik, accepted)


def separated(autn: bytes) -> bool:
    """Say whether the AMF separation bit of an AUTN is set, as AKA' demands (RFC 9048 §3.1)."""
    return bool(autn[6] & 0x80)


def make_auts(k: bytes, opc: bytes, rand: bytes, sqn_ms: int) -> bytes:
    """Return AUTS, 14 bytes: SQN_MS xor AK* ‖ MAC-S (TS 33.102 §6.3.3)."""
    sqn = sqn_ms.to_bytes(6)
    _, mac_s = milenage.f1(k, opc, rand, sqn, _AMF_RESYNC)
    return xor(sqn, milenage.f5_star(k, opc, rand)) + mac_s


def open_auts(k: bytes, opc: bytes, rand: bytes, auts: bytes) -> int:
    """Return SQN_MS from an AUTS for ``rand``.

    1. MAC-S matches (``bad-auts``). Raises :class:`SignatureError`.
    """
    sqn = xor(auts[:6], milenage.f5_star(k, opc, rand)) if len(auts) == 14 else bytes(6)
    _, mac_s = milenage.f1(k, opc, rand, sqn, _AMF_RESYNC)
    if len(auts) != 14 or not hmac.compare_digest(mac_s, auts[6:]):
        raise SignatureError("bad-auts", "MAC-S does not match")
    return int.from_bytes(sqn)


def resynchronise(sqn_he: int, sqn_ms: int, *, delta: int = DELTA) -> int:
    """Return the SQN that the authentication centre goes on from (TS 33.102 §6.3.5).

    Its own if the next one made from it would be accepted by a USIM at ``sqn_ms``, otherwise the USIM's.
    """
    ahead = (next_sqn(sqn_he) >> IND_BITS) - (sqn_ms >> IND_BITS)
    return sqn_he if 0 < ahead <= delta else sqn_ms
