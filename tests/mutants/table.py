"""Which test by an enemy fails for which mutant, as tried: the lines of ``killed_by.txt``.

A line is the id of a mutant (:class:`tests.mutants.tree.Mutant`) and a test: its file in ``tests/adversary`` and its
name. ``python -m tests.mutants.run ROOT TESTS`` says which lines a new test is good for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

LINES = Path(__file__).with_name("killed_by.txt").read_text().splitlines()
KILLED_BY: Mapping[str, str] = dict(line.split(" ", 1) for line in LINES)  # type: ignore[misc]
