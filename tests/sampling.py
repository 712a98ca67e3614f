"""Which of many cases run: all with ``bin/test --full`` and where mutants are tried, else a sample by a seed."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable

SEED = 20_261_122
FULL = os.environ.get("FIRSTLIGHT_FULL") == "1"
"""Whether ``bin/test --full`` runs."""
ALL = "FIRSTLIGHT_EVERY_CASE"
"""Set where every case must be there to be chosen from."""


def sampled(names: Iterable[str], count: int) -> list[str]:
    """Return ``count`` of the names, always the same, or all of them."""
    known = sorted(names)
    if FULL or os.environ.get(ALL) == "1":
        return known
    return sorted(random.Random(SEED).sample(known, min(count, len(known))))
