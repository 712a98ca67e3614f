"""Runs tests in a mutated tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from tests.mutants.plugin import HONEST, Step, Verdict
from tests.mutants.table import EXPECTED
from tests.mutants.tree import Mutant, Tree, make
from tests.sampling import ALL

REPOSITORY = Path(__file__).parents[2]
WORLDLESS = ("test_checks_",)
"""Files whose tests need no world."""


def plan(tree: Tree, steps: Sequence[Step], verdicts: Path, *, devices: int, record: bool = False) -> Path:
    """Write down what a process has to do."""
    path = tree.root / f"plan-{time.monotonic_ns()}.json"
    values = {
        "root": str(tree.root),
        "verdicts": str(verdicts),
        "devices": devices,
        "record": record,
        "steps": [asdict(one) for one in steps],
    }
    path.write_text(json.dumps(values))
    return path


def pytest_in(tree: Tree, path: Path, tests: Iterable[str], output: Path) -> int:
    """Run pytest in the mutated tree, and return how it ended."""
    words = [str(tree.python), "-m", "pytest", "-p", "tests.mutants.plugin", "-p", "no:xdist", "-p", "no:cacheprovider"]
    words += ["-q", "--plan", str(path), "--basetemp", str(tree.root / f"tmp-{time.monotonic_ns()}"), *tests]
    with output.open("ab") as file:
        done = subprocess.run(
            words, cwd=REPOSITORY, env={**os.environ, ALL: "1"}, stdout=file, stderr=subprocess.STDOUT, check=False
        )
    return done.returncode


def judge(tree: Tree, steps: Sequence[Step], verdicts: Path, *, devices: int = 128) -> list[Verdict]:
    """Try those mutants of which ``verdicts`` does not know yet what became of them; return what became of each."""
    done = {one.id for one in read(verdicts)}
    left = [one for one in steps if one.mutant.id not in done]
    tests = {test for one in left for test in one.tests}
    if tests:
        if not all(any(name in test for name in WORLDLESS) for test in tests):
            tests.add(HONEST)
        ended = pytest_in(tree, plan(tree, left, verdicts, devices=devices), sorted(tests), tree.root / "output.txt")
        assert ended == 0, (tree.root / "output.txt").read_text()[-3000:]
    wanted = {one.mutant.id for one in steps} | {"honest"}
    return [one for one in read(verdicts) if one.id in wanted]


def read(verdicts: Path) -> list[Verdict]:
    """Return the verdicts so far."""
    if not verdicts.exists():
        return []
    return [Verdict(**json.loads(line)) for line in verdicts.read_text().splitlines()]


def main() -> None:
    """Try what the table expects, or record which checks refuse in which tests.

    ``python -m tests.mutants.run ROOT VERDICTS`` tries every mutant of the table that nobody has tried, and goes on
    where it was stopped; with TESTS it writes down, for each of them, which mutants' checks refuse in it.
    """
    root, verdicts, *tests = sys.argv[1:]
    tree = Tree(Path(root)) if Path(root).exists() else make(Path(root))
    if tests:
        pytest_in(tree, plan(tree, (), Path(verdicts), devices=128, record=True), tests, Path(root) / "output.txt")
        return
    known = {one.id: one for one in Mutant.all()}
    steps = [Step(known[name], tests) for name, tests in sorted(EXPECTED.items(), key=lambda one: one[1])]
    for one in judge(tree, steps, Path(verdicts)):
        print(one.outcome, one.id, one.test, one.detail if one.outcome != "killed" else "")


if __name__ == "__main__":
    main()
