"""Who is let in, and how often: token buckets for each source address and for all together.

What a request costs before anybody is authenticated is paid out of these. Memory is bounded whatever the number of
sources: beyond a limit the one that has been silent for longest is forgotten.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from dataclasses import dataclass

from firstlight.errors import TransportError
from firstlight.ports import Clock

MAX_SOURCES = 4_096
SECOND = 1_000_000_000
_IPV6_PREFIX = 64


class OverloadError(TransportError):
    """Too much at once: ``rate-limited`` (by this source, or by all), ``busy``; ``retry_after`` is in seconds."""

    def __init__(self, code: str, detail: str, *, retry_after: int) -> None:
        """Say when to try again."""
        super().__init__(code, detail, hint=f"try again in {retry_after} s")
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Rate:
    """So many a second, and so many at once after a silence."""

    per_second: float
    burst: int


class Bucket:
    """A token bucket; times are Unix nanoseconds, and a clock that is set back adds nothing."""

    __slots__ = ("_at", "_level", "_rate")

    def __init__(self, rate: Rate, now: int) -> None:
        """Begin with a full bucket."""
        self._rate = rate
        self._level = float(rate.burst)
        self._at = now

    def wait(self, now: int) -> float:
        """Return in how many seconds there is something to take; 0 if there is now."""
        gained = max(0, now - self._at) * self._rate.per_second / SECOND
        self._level, self._at = min(self._rate.burst, self._level + gained), now
        if self._level >= 1:
            return 0.0
        return (1 - self._level) / self._rate.per_second if self._rate.per_second else math.inf

    def take(self) -> None:
        """Take one; :meth:`wait` has said that there is one."""
        self._level -= 1


class Admission:
    """The buckets of one server."""

    def __init__(self, clock: Clock, *, source: Rate, total: Rate, sources: int = MAX_SOURCES) -> None:
        """Let every source in at the rate ``source``, all of them together at ``total``; remember ``sources``."""
        self._clock = clock
        self._rate = source
        self._total = Bucket(total, clock.now())
        self._limit = sources
        self._sources: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sources)

    def admit(self, address: str) -> None:
        """Let a request from ``address`` in; :class:`OverloadError` (``rate-limited``).

        A source that is over its own rate takes nothing from the others.
        """
        now, name = self._clock.now(), source_of(address)
        bucket = self._sources.pop(name, None) or Bucket(self._rate, now)
        self._sources[name] = bucket
        if len(self._sources) > self._limit:
            self._sources.popitem(last=False)
        for one, whose in ((bucket, "from this address"), (self._total, "by all together")):
            seconds = one.wait(now)
            if seconds:
                retry_after = max(1, math.ceil(min(seconds, 60)))
                raise OverloadError("rate-limited", f"too many exchanges are begun {whose}", retry_after=retry_after)
        bucket.take()
        self._total.take()


def source_of(address: str) -> str:
    """Return what counts as one source: an IPv4 address, or the /64 of an IPv6 address, which is one site's."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if parsed.version == 4:
        return str(parsed)
    mapped = parsed.ipv4_mapped
    if mapped is not None:
        return str(mapped)
    return str(ipaddress.ip_network((parsed, _IPV6_PREFIX), strict=False).network_address)
