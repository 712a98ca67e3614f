"""When to try again: back-off with jitter, from an injected chance; long where a party has refused.

What a peer says in the clear is a hint at most, whatever its words: nobody has signed it. It may ask for a pause, up
to a bound; it never means that things have changed, which only the ledger proves and only a party's protected refusal
says.
"""

from __future__ import annotations

from firstlight.errors import FirstlightError, ProofError, RefusedError
from firstlight.ports import Random
from firstlight.transports.body import RemoteError

MOVED = "moved"
"""The device's tenure, or its plan, is no longer the one that it acts on."""
LEAVING = frozenset({"proxy-unreachable", "proxy-refused"})
"""What means that the attachment must be made anew."""
FIRST, LONGEST = 1.0, 60.0
FIRST_REFUSED, LONGEST_REFUSED = 60.0, 3_600.0
CHANGED = frozenset(
    {
        "stale-view",
        "not-accepted",
        "frozen",
        "retired",
        "not-deployed",
        "bad-plan-opening",
        "wrong-party",
        "wrong-kind",
        "order-unknown",
        "order-foreign",
        "party-suspended",
    }
)
"""Protected refusals that mean that things have changed: the device must discover anew."""
PASSING = frozenset(
    {"stale-view", "view-too-old", "superseded", "exchange-used", "not-accepted", "not-deployed", "frozen"}
)
"""Protected refusals that a new discovery and a new exchange may cure."""
FINAL = frozenset({"tenure-retired"})
"""What the ledger proves, and what is meant for good."""


def changed(error: FirstlightError) -> bool:
    """Say whether ``error`` means that what the device acts on is no longer so."""
    return moved(error) or (isinstance(error, RefusedError) and error.code in CHANGED)


def moved(error: FirstlightError) -> bool:
    """Say whether ``error`` is the proof that the device's tenure or plan is another one now."""
    return isinstance(error, ProofError) and error.code == MOVED


def leaving(error: FirstlightError) -> bool:
    """Say whether ``error`` means that the attachment must be made anew; what a peer says in the clear does not."""
    return error.code in LEAVING and not isinstance(error, RemoteError)


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
        """Return how many seconds to wait after ``error``: doubled with each failure, half to the whole of it.

        A peer that has too much to do may ask for more, up to a minute; what it asks for is the least, so that those
        who were refused together still come back one after the other.
        """
        final = isinstance(error, ProofError) and error.code in FINAL
        refused = final or (isinstance(error, RefusedError) and error.code not in PASSING)
        first, longest = (FIRST_REFUSED, LONGEST_REFUSED) if refused else (FIRST, LONGEST)
        whole = min(first * 2.0 ** min(self._failures, 16), longest)
        self._failures += 1
        chance = 0.5 + int.from_bytes(self._random.bytes(2)) / 131_072
        asked = min(error.retry_after, LONGEST) if isinstance(error, RemoteError) else 0.0
        return max(whole * chance, asked * (0.5 + chance))
