"""The Milenage algorithm set f1 to f5* on AES-128 (3GPP TS 35.206), with its published constants.

All arguments and results are plain bytes: K, OP, OPc, RAND, CK and IK of 16, SQN and AK of 6, AMF of 2,
MAC and RES of 8.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.ciphers.base import CipherContext
from cryptography.hazmat.primitives.ciphers.modes import ECB


@dataclass(frozen=True, slots=True)
class Response:
    """What f2 to f5 give for one RAND: RES (8 bytes), CK and IK (16 each), AK (6)."""

    res: bytes = field(repr=False)
    ck: bytes = field(repr=False)
    ik: bytes = field(repr=False)
    ak: bytes = field(repr=False)


def derive_opc(k: bytes, op: bytes) -> bytes:
    """Return OPc = OP xor E_K(OP) (TS 35.206 §8.2)."""
    return xor(op, _aes(k).update(op))


def f1(k: bytes, opc: bytes, rand: bytes, sqn: bytes, amf: bytes) -> tuple[bytes, bytes]:
    """Return (MAC-A, MAC-S), 8 bytes each: the outputs of f1 and f1* (TS 35.206 §4.1)."""
    aes = _aes(k)
    temp = aes.update(xor(rand, opc))
    masked = xor((sqn + amf) * 2, opc)
    rotated = masked[8:] + masked[:8]
    out = xor(aes.update(xor(temp, rotated)), opc)
    return out[:8], out[8:]


def f2345(k: bytes, opc: bytes, rand: bytes) -> Response:
    """Return RES, CK, IK and AK (TS 35.206 §4.1)."""
    aes = _aes(k)
    masked = xor(aes.update(xor(rand, opc)), opc)
    out2 = _out(aes, masked, opc, 0, 1)
    return Response(
        res=out2[8:],
        ck=_out(aes, masked, opc, 4, 2),
        ik=_out(aes, masked, opc, 8, 4),
        ak=out2[:6],
    )


def f5_star(k: bytes, opc: bytes, rand: bytes) -> bytes:
    """Return the 6-byte anonymity key of a resynchronisation (TS 35.206 §4.1)."""
    aes = _aes(k)
    masked = xor(aes.update(xor(rand, opc)), opc)
    return _out(aes, masked, opc, 12, 8)[:6]


def xor(left: bytes, right: bytes) -> bytes:
    """Return the bitwise exclusive or of two byte strings of one length."""
    size = len(left)
    if len(right) != size:
        raise ValueError("exclusive or of two lengths")
    return (int.from_bytes(left) ^ int.from_bytes(right)).to_bytes(size)


def _aes(k: bytes) -> CipherContext:
    return Cipher(AES128(k), ECB()).encryptor()  # noqa: S305 - single blocks, as the standard says


def _out(aes: CipherContext, masked: bytes, opc: bytes, rotation: int, constant: int) -> bytes:
    """Return OUT2 to OUT5: rotate by whole bytes, add the constant to the last byte, encrypt, add OPc."""
    block = bytearray(masked[rotation:] + masked[:rotation])
    block[15] ^= constant
    return xor(aes.update(bytes(block)), opc)
