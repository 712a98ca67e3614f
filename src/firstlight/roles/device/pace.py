"""When to try again: back-off with jitter, from an injected chance; long where a party has refused."""

from __future__ import annotations

from firstlight.errors import FirstlightError, RefusedError
from firstlight.ports import Random

FIRST, LONGEST = 1.0, 60.0
FIRST_REFUSED, LONGEST_REFUSED = 60.0, 3_600.0
PASSING = frozenset({"stale-view", "view-too-old", "superseded", "exchange-used"})
"""Protected refusals that a new discovery and a new exchange may cure."""


class Pace:
    """How long to wait after each failure in a row."""

    def __init__(self, random: Random) -> None:
        """Begin without a failure."""
        self._random = random
        self._failures = 0

    def reset(self) -> None:
        """Begin anew: it worked."""
        self._failures = 0

    def after(self, error: FirstlightError) -> float:
        """Return how many seconds to wait after ``error``: doubled with each failure, half to the whole of it."""
        refused = isinstance(error, RefusedError) and error.code not in PASSING
        first, longest = (FIRST_REFUSED, LONGEST_REFUSED) if refused else (FIRST, LONGEST)
        whole = min(first * 2.0 ** min(self._failures, 16), longest)
        self._failures += 1
        return whole * (0.5 + int.from_bytes(self._random.bytes(2)) / 131_072)
