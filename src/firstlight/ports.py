"""The small ports through which the pure half sees time, chance and private keys.

Implementations: ``firstlight.custody`` (signers, key agreement), ``firstlight.roles`` (system clock and
randomness), ``firstlight.testing`` (fakes).
"""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> int:
        """Return Unix time in nanoseconds."""
        ...


class Random(Protocol):
    """Draws randomness."""

    def bytes(self, count: int) -> bytes:
        """Return ``count`` bytes fit for keys."""
        ...


class Signer(Protocol):
    """Holds a P-256 signing key and never shows it."""

    @property
    def public(self) -> bytes:
        """The public key, SEC 1 compressed (33 bytes)."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return the ES256 signature (RFC 7518 §3.4) of ``message``: r ‖ s, 64 bytes, low s."""
        ...


class KeyAgreement(Protocol):
    """Holds a P-256 key-agreement key and never shows it."""

    @property
    def public(self) -> bytes:
        """The public key, SEC 1 compressed (33 bytes)."""
        ...

    def exchange(self, peer: bytes) -> bytes:
        """Return the ECDH x-coordinate (32 bytes) with ``peer`` (compressed, or its 32-byte x-coordinate).

        Raises :class:`firstlight.errors.MalformedError` (``bad-point``) if ``peer`` is not on the curve.
        """
        ...
