"""Which of many cases run: all with ``bin/test --full`` and where mutants are tried, else a sample by a seed."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable

SEED = 20_261_122
ALL = "FIRSTLIGHT_EVERY_CASE"
"""Set where every case must be there to be chosen from."""


def sampled(names: Iterable[str], count: int) -> list[str]:
    """Return ``count`` of the names, always the same, or all of them."""
    known = sorted(names)
    if "1" in (os.environ.get("FIRSTLIGHT_FULL"), os.environ.get(ALL)):
        return known
    return sorted(random.Random(SEED).sample(known, min(count, len(known))))
