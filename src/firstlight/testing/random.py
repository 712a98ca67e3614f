"""Randomness that comes out the same every time."""

from __future__ import annotations

import hashlib


class SeededRandom:
    """A :class:`firstlight.ports.Random` whose stream is SHA-256 of seed and counter."""

    def __init__(self, seed: str | int = 0) -> None:
        """Start the stream of ``seed``."""
        self._seed = str(seed).encode()
        self._counter = 0
        self._left = b""

    def bytes(self, count: int) -> bytes:
        """Return the next ``count`` bytes of the stream."""
        while len(self._left) < count:
            self._left += hashlib.sha256(self._counter.to_bytes(8) + self._seed).digest()
            self._counter += 1
        drawn, self._left = self._left[:count], self._left[count:]
        return drawn
