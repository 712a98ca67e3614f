"""Ed25519 as plain bytes: what validators sign with (keys of 32 bytes, signatures of 64)."""

from __future__ import annotations

import functools
import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

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


class KeySigner:
    """A validator's key held in memory, made from its 32-byte seed."""

    __slots__ = ("_private", "public")

    def __init__(self, seed: bytes) -> None:
        """Load the key; :class:`MalformedError` (``bad-seed``) if ``seed`` is not 32 bytes."""
        if len(seed) != 32:
            raise MalformedError("bad-seed", f"{len(seed)} bytes, not 32")
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._private.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Return the signature (64 bytes) of ``message``."""
        return self._private.sign(message)
