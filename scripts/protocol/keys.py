"""Keys that follow from names, and signatures that come out the same every time (RFC 6979)."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from firstlight import p256
from firstlight.sealing import hpke
from firstlight.testing.chains import P256Key

MADE: dict[str, Key] = {}
"""The keys made so far, by name."""


class Key(P256Key):
    """A P-256 key that is SHA-256 of its name (as a number), and that signs deterministically."""

    def __init__(self, name: str) -> None:
        """Make the key of ``name``."""
        self.name = name
        self.scalar = hashlib.sha256(f"firstlight example: {name}".encode()).digest()
        self.private = ec.derive_private_key(int.from_bytes(self.scalar), ec.SECP256R1())
        self.public = p256.compress(self.private.public_key())
        MADE[name] = self

    @property
    def xy(self) -> bytes:
        """The public key as x and y (64 bytes)."""
        return p256.coordinates(self.public)

    def sign(self, message: bytes) -> bytes:
        """Return the ES256 signature of ``message`` with the k of RFC 6979."""
        return p256.low_s(self.private.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))


def named(name: str) -> bytes:
    """Return 32 bytes that follow from a name, where a sender would draw them."""
    return hashlib.sha256(f"firstlight example: {name}".encode()).digest()


def seal(recipient: bytes, plaintext: bytes, info: bytes, ephemeral: Key) -> bytes:
    """Return what ``sealing.hpke.seal`` makes, with an ephemeral key that is given."""
    enc, context = hpke.setup_sender(recipient, info, ephemeral=ephemeral.private)
    return enc + context.seal(plaintext)
