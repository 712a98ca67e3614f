"""The machine's own clock and randomness behind the ports."""

from __future__ import annotations

import os
import time


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
