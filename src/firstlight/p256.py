"""P-256 keys and ES256 signatures as plain bytes: compressed points of 33 bytes, r ‖ s of 64.

A public key is always SEC 1 compressed; its *kid* is the first 8 bytes of its SHA-256. Signatures
have a low s, so that each has one form only.
"""

from __future__ import annotations

import functools
import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from firstlight.errors import MalformedError, SignatureError

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_CURVE = ec.SECP256R1()
_ECDSA = ec.ECDSA(hashes.SHA256())


def kid(public: bytes) -> bytes:
    """Return the key identifier of a compressed public key: the first 8 bytes of its SHA-256."""
    return hashlib.sha256(public).digest()[:8]


def compress(public: ec.EllipticCurvePublicKey) -> bytes:
    """Return the 33-byte SEC 1 compressed form of a key."""
    return public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)


@functools.lru_cache(maxsize=1024)
def load(public: bytes) -> ec.EllipticCurvePublicKey:
    """Return the key of a compressed point; :class:`MalformedError` (``bad-point``) if it is none."""
    return _decoded(public, 33)


def _decoded(point: bytes, size: int) -> ec.EllipticCurvePublicKey:
    if len(point) != size:
        raise MalformedError("bad-point", f"{len(point)} bytes, not a P-256 point of {size}")
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, point)
    except ValueError as error:
        raise MalformedError("bad-point", "not a point of P-256") from error


def coordinates(public: bytes) -> bytes:
    """Return x ‖ y (64 bytes) of a compressed key; errors as :func:`load`."""
    return coordinates_of(load(public))


def coordinates_of(public: ec.EllipticCurvePublicKey) -> bytes:
    """Return x ‖ y (64 bytes) of a key."""
    return public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


def from_coordinates(xy: bytes) -> bytes:
    """Return the compressed form of x ‖ y (64 bytes); ``bad-point`` if they are not on the curve."""
    return compress(from_xy(xy))


@functools.lru_cache(maxsize=64)
def from_x(x: bytes) -> ec.EllipticCurvePublicKey:
    """Return the key with x-coordinate ``x`` (32 bytes) and even y, as EDHOC's ECDH needs (RFC 9528 §3.7).

    Few are kept, and apart from :func:`load`: strangers' points must not push the keys of parties out of their place.
    """
    return _decoded(b"\x02" + x, 33)


def from_xy(xy: bytes) -> ec.EllipticCurvePublicKey:
    """Return the key with these coordinates (x ‖ y, 64 bytes); ``bad-point`` if they are not on the curve.

    It costs a quarter of what finding y would; nothing is kept.
    """
    return _decoded(b"\x04" + xy, 65)


def low_s(der: bytes) -> bytes:
    """Return r ‖ s with a low s from a DER signature."""
    r, s = utils.decode_dss_signature(der)
    return r.to_bytes(32) + min(s, ORDER - s).to_bytes(32)


def sign(private: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """Return the low-s ES256 signature of ``message`` as r ‖ s."""
    return low_s(private.sign(message, _ECDSA))


def verify(public: bytes, message: bytes, signature: bytes) -> None:
    """Check an ES256 signature (r ‖ s, low s) by a key, compressed or x ‖ y.

    Raises :class:`SignatureError` (``bad-signature``) if it does not hold; ``bad-point`` as :func:`load`.
    """
    if len(signature) != 64:
        raise SignatureError("bad-signature", "not 64 bytes")
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    if not 0 < s <= ORDER // 2:
        raise SignatureError("bad-signature", "s is not low")
    try:
        key = from_xy(public) if len(public) == 64 else load(public)
        key.verify(utils.encode_dss_signature(r, s), message, _ECDSA)
    except InvalidSignature:
        raise SignatureError("bad-signature", "the signature does not verify") from None
