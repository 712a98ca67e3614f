"""A clock that goes where a test puts it."""

from __future__ import annotations

NANOSECONDS = 1_000_000_000


class FakeClock:
    """A :class:`firstlight.ports.Clock` that moves only when told."""

    def __init__(self, seconds: int = 1_800_000_000) -> None:
        """Start at ``seconds`` of Unix time."""
        self._now = seconds * NANOSECONDS

    def now(self) -> int:
        """Return Unix time in nanoseconds."""
        return self._now

    @property
    def seconds(self) -> int:
        """Unix time in whole seconds."""
        return self._now // NANOSECONDS

    def advance(self, seconds: float) -> None:
        """Move on by ``seconds`` (negative: a clock that was set back)."""
        self._now += round(seconds * NANOSECONDS)

    def set(self, seconds: int) -> None:
        """Move to ``seconds`` of Unix time."""
        self._now = seconds * NANOSECONDS
