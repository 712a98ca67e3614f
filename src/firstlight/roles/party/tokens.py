"""The keys that seal half-open exchanges: made in memory, used for a short while, stored nowhere."""

from __future__ import annotations

import threading
from typing import Protocol

from firstlight.onboarding.token import LIFETIME_NS, KeyRing, TokenKey
from firstlight.ports import Clock, Random

KEY_SIZE = 32
SECOND = 1_000_000_000


class Keys(Protocol):
    """The token keys of one process."""

    def ring(self) -> KeyRing:
        """Return the keys in use now."""
        ...


class GivenKeys:
    """The ring that a parent process gives; whoever seals or opens checks that its keys are not too old."""

    def __init__(self, ring: KeyRing) -> None:
        """Begin with ``ring``."""
        self._ring = ring

    def give(self, ring: KeyRing) -> None:
        """Use ``ring`` from now on."""
        self._ring = ring

    def ring(self) -> KeyRing:
        """Return the keys given last."""
        return self._ring


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

    def following(self) -> tuple[KeyRing, KeyRing] | None:
        """Begin a turn that several processes make together; None if it is not time for one.

        Returns two rings: when all have the first, every process opens what the new key seals, and none seals with it;
        only then may any have the second. What the first ring no longer opens has had its time.
        """
        now = self._clock.now()
        with self._lock:
            age = now - self._ring.current.made_ns
            if 0 <= age < self._half:
                return None
            new, old = self._new(now), self._ring.current
            if age < 0 or age >= 2 * self._half:
                self._ring = KeyRing(new)
                return self._ring, self._ring
            self._ring = KeyRing(new, old)
            return KeyRing(old, new), self._ring

    @property
    def pace(self) -> float:
        """How often to look whether it is time to turn, in seconds."""
        return min(1.0, self._half / SECOND / 4)

    def _new(self, now: int) -> TokenKey:
        return TokenKey(self._random.bytes(KEY_SIZE), now)
