"""EAP-AKA' key derivation (RFC 9048 §3.3, 3.4; RFC 5448): keys bound to the name of the access network."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

_FC_CK_IK_PRIME = b"\x20"
"""FC of the CK', IK' derivation (TS 33.402 Annex A.2)."""


@dataclass(frozen=True, slots=True)
class Keys:
    """K_encr (16 bytes), K_aut and K_re (32 each), MSK and EMSK (64 each)."""

    k_encr: bytes = field(repr=False)
    k_aut: bytes = field(repr=False)
    k_re: bytes = field(repr=False)
    msk: bytes = field(repr=False)
    emsk: bytes = field(repr=False)


def ck_ik_prime(ck: bytes, ik: bytes, network: bytes, autn: bytes) -> tuple[bytes, bytes]:
    """Return (CK', IK'), 16 bytes each, for the access network name ``network`` (TS 33.402 Annex A.2).

    SQN xor AK is the first 6 bytes of AUTN.
    """
    message = _FC_CK_IK_PRIME + network + len(network).to_bytes(2) + autn[:6] + b"\x00\x06"
    out = hmac.digest(ck + ik, message, hashlib.sha256)
    return out[:16], out[16:]


def prf_prime(key: bytes, seed: bytes, size: int) -> bytes:
    """Return ``size`` bytes of PRF'(key, seed) (RFC 9048 §3.4.1)."""
    out, block, number = b"", b"", 1
    while len(out) < size:
        block = hmac.digest(key, block + seed + bytes([number]), hashlib.sha256)
        out, number = out + block, number + 1
    return out[:size]


def derive_keys(identity: bytes, ck_prime: bytes, ik_prime: bytes) -> Keys:
    """Return the key hierarchy for a peer's identity (RFC 9048 §3.3)."""
    out = prf_prime(ik_prime + ck_prime, b"EAP-AKA'" + identity, 208)
    return Keys(out[:16], out[16:48], out[48:80], out[80:144], out[144:])
