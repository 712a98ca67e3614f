"""Ed25519 as plain bytes: what validators sign with (keys of 32 bytes, signatures of 64)."""

from __future__ import annotations

import functools
import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from firstlight.errors import MalformedError, SignatureError


def address(public: bytes) -> bytes:
    """Return a validator's CometBFT address: the first 20 bytes of the key's SHA-256."""
    return hashlib.sha256(public).digest()[:20]


@functools.lru_cache(maxsize=512)
def _load(public: bytes) -> Ed25519PublicKey:
    try:
        return Ed25519PublicKey.from_public_bytes(public)
    except ValueError as error:
        raise MalformedError("bad-point", "not an Ed25519 public key") from error


def verify(public: bytes, message: bytes, signature: bytes) -> None:
    """Check a signature (RFC 8032 §5.1.7).

    Raises :class:`MalformedError` (``bad-point``), :class:`SignatureError` (``bad-signature``).
    """
    try:
        _load(public).verify(signature, message)
    except InvalidSignature:
        raise SignatureError("bad-signature", "the Ed25519 signature does not verify") from None
