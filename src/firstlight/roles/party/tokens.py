"""The keys that seal half-open exchanges: made in memory, used for a short while, stored nowhere."""

from __future__ import annotations

import threading

from firstlight.onboarding.token import LIFETIME_NS, KeyRing, TokenKey
from firstlight.ports import Clock, Random

KEY_SIZE = 32
SECOND = 1_000_000_000


class TokenKeys:
    """A ring that turns twice in the life of an exchange, so that every token can be opened for half of it or longer.

    A key is current for half of ``seconds`` (at most two minutes) and then previous for the other half.
    """

    def __init__(self, clock: Clock, random: Random, seconds: int) -> None:
        """Begin with one fresh key."""
        self._clock = clock
        self._random = random
        self._half = min(seconds * SECOND, LIFETIME_NS) // 2
        self._lock = threading.Lock()
        self._ring = KeyRing(self._new(clock.now()))

    def ring(self) -> KeyRing:
        """Return the keys in use now; those whose time is over are gone."""
        now = self._clock.now()
        with self._lock:
            age = now - self._ring.current.made_ns
            if age < 0 or age >= 2 * self._half:
                self._ring = KeyRing(self._new(now))
            elif age >= self._half:
                self._ring = self._ring.turned(self._random.bytes(KEY_SIZE), now)
            return self._ring

    def _new(self, now: int) -> TokenKey:
        return TokenKey(self._random.bytes(KEY_SIZE), now)
