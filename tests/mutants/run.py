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
from tests.mutants.table import KILLED_BY
from tests.mutants.tree import Mutant, Tree, make
from tests.sampling import ALL

REPOSITORY = Path(__file__).parents[2]
ENEMIES = "tests/adversary"
MUTANTS = {one.id: one for one in Mutant.all()}


def step(name: str) -> Step:
    """Return the mutant ``name`` with the test that the table has for it."""
    file, _, test = KILLED_BY[name].partition("::")
    return Step(MUTANTS[name], f"{ENEMIES}/{file}.py::{test}")


def pytest_in(tree: Tree, steps: Sequence[Step], verdicts: Path, tests: Iterable[str], *, record: bool = False) -> None:
    """Have pytest try ``steps`` (or ``record`` which checks refuse in ``tests``) in the mutated tree."""
    plan, output = tree.root / f"plan-{time.monotonic_ns()}.json", tree.root / "output.txt"
    todo = {
        "root": str(tree.root),
        "verdicts": str(verdicts),
        "record": record,
        "steps": [asdict(one) for one in steps],
    }
    plan.write_text(json.dumps(todo))
    words = [str(tree.python), "-m", "pytest", "-p", "tests.mutants.plugin", "-p", "no:xdist", "-p", "no:cacheprovider"]
    words += ["-q", "--plan", str(plan), "--basetemp", str(plan.with_suffix(".tmp")), *sorted(tests)]
    with output.open("ab") as file:
        done = subprocess.run(
            words, cwd=REPOSITORY, env={**os.environ, ALL: "1"}, stdout=file, stderr=subprocess.STDOUT, check=False
        )
    assert done.returncode == 0, output.read_text()[-3000:]


def judge(tree: Tree, steps: Sequence[Step], verdicts: Path, *, honest: bool = False) -> list[Verdict]:
    """Try those mutants of which ``verdicts`` does not know yet what became of them; return what became of each.

    With ``honest`` devices of a world of real processes first make their journey with every check switched off.
    """
    known = {one.id for one in read(verdicts)}
    left = sorted((one for one in steps if one.mutant.id not in known), key=lambda one: one.test)
    if left:
        pytest_in(tree, left, verdicts, {*(one.test for one in left), *([HONEST] if honest else [])})
    wanted = {one.mutant.id for one in steps} | {"honest"}
    return [one for one in read(verdicts) if one.id in wanted]


def read(verdicts: Path) -> list[Verdict]:
    """Return the verdicts so far."""
    if not verdicts.exists():
        return []
    return [Verdict(**json.loads(line)) for line in verdicts.read_text().splitlines()]


def find(tree: Tree, tests: Sequence[str]) -> list[Verdict]:
    """Return what becomes of those mutants that are not in the table and whose checks refuse something in ``tests``."""
    heard = tree.root / f"heard-{time.monotonic_ns()}.jsonl"
    pytest_in(tree, (), heard, tests, record=True)
    found: dict[str, Step] = {}
    for line in sorted(map(json.loads, heard.read_text().splitlines()), key=lambda line: len(line["heard"])):
        for name in line["heard"] if line["passed"] else ():
            if name not in KILLED_BY:
                found.setdefault(name, Step(MUTANTS[name], line["test"]))
    return judge(tree, list(found.values()), tree.root / "found.jsonl")


def main() -> None:
    """Try the table, or find what tests are good for.

    ``python -m tests.mutants.run ROOT`` tries every mutant of the table, in a copy that it makes in ROOT, and goes on
    there where it was stopped. With TESTS it tries which mutants that are not in the table they kill.
    """
    root, *tests = sys.argv[1:]
    tree = Tree(Path(root)) if Path(root).exists() else make(Path(root))
    steps = [step(name) for name in KILLED_BY]
    tried = find(tree, tests) if tests else judge(tree, steps, tree.root / "verdicts.jsonl", honest=True)
    for one in tried:
        file, _, test = one.test.removeprefix(f"{ENEMIES}/").partition("::")
        said = "" if one.outcome == "killed" else f"{one.outcome}: {one.detail}"
        print(one.id, f"{file.removesuffix('.py')}::{test}", said)


if __name__ == "__main__":
    main()
