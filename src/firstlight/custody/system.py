"""The machine's own clock and randomness behind the ports."""

from __future__ import annotations

import os
import time

from cryptography.hazmat.primitives.asymmetric import ec

from firstlight.onboarding.edhoc.keys import Ephemeral


class SystemClock:
    """The machine's clock (:class:`firstlight.ports.Clock`)."""

    __slots__ = ()

    def now(self) -> int:
        """Return Unix time in nanoseconds."""
        return time.time_ns()


class SteadyClock:
    """Counts from the machine's start, asleep or awake, whatever is done to its clock."""

    __slots__ = ()

    def now(self) -> int:
        """Return nanoseconds."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class SystemRandom:
    """The kernel's randomness (:class:`firstlight.ports.Random`)."""

    __slots__ = ()

    def bytes(self, count: int) -> bytes:
        """Return ``count`` bytes fit for keys."""
        return os.urandom(count)


class SystemEphemerals:
    """EDHOC's ephemeral keys from the library's own generator (:class:`firstlight.onboarding.ports.Ephemerals`).

    A key is generated in a third of the time that it takes to derive one from a secret.
    """

    __slots__ = ()

    def draw(self) -> Ephemeral:
        """Return a fresh key."""
        return Ephemeral.of(ec.generate_private_key(ec.SECP256R1()))
