"""EDHOC's ephemeral keys, in memory and nowhere else, for as long as their exchanges may go on."""

from __future__ import annotations

import threading

from cryptography.hazmat.primitives.asymmetric import ec

from firstlight.onboarding.edhoc.keys import Ephemeral
from firstlight.onboarding.token import LIFETIME_NS
from firstlight.ports import Clock

MOST = 1_024
"""How many keys are remembered at most."""


class SystemEphemerals:
    """Ephemeral keys from the library's own generator (:class:`firstlight.onboarding.ports.Ephemerals`).

    A key is generated in a third of the time that it takes to derive one from a secret. Whoever made message 2
    mostly gets message 3 too, and has the key still: it is forgotten as it is asked for, or when no token that holds
    its secret is good any more. So long the key that opens this token is in memory too. Any thread may ask.
    """

    def __init__(self, clock: Clock) -> None:
        """Forget by ``clock``."""
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[bytes, tuple[int, Ephemeral]] = {}
        """By secret, oldest first: when it was drawn, and the key."""

    def draw(self) -> Ephemeral:
        """Return a fresh key."""
        drawn = Ephemeral.of(ec.generate_private_key(ec.SECP256R1()))
        now = self._clock.now()
        with self._lock:
            self._kept[drawn.secret] = now, drawn
            self._forget(now)
        return drawn

    def again(self, secret: bytes) -> Ephemeral:
        """Return the key with that secret, and forget it; :class:`MalformedError` (``bad-scalar``) if it is none."""
        with self._lock:
            kept = self._kept.pop(secret, None)
        return Ephemeral.from_secret(secret) if kept is None else kept[1]

    def forget(self) -> int:
        """Forget what has had its time; return how many keys are left."""
        with self._lock:
            self._forget(self._clock.now())
            return len(self._kept)

    def _forget(self, now: int) -> None:
        while self._kept:
            oldest = next(iter(self._kept))
            if len(self._kept) <= MOST and 0 <= now - self._kept[oldest][0] <= LIFETIME_NS:
                return
            del self._kept[oldest]
