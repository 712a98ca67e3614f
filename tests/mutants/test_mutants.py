"""Each check is switched off in turn, in a copy made outside of the product, and an enemy's test must fail for it."""

from __future__ import annotations

import ast
import random
import re
import subprocess
from pathlib import Path

import pytest
from tests.mutants.run import ENEMIES, MUTANTS, REPOSITORY, judge, step
from tests.mutants.table import KILLED_BY, LINES
from tests.mutants.tree import make
from tests.test_docs_checks import NO_REFUSAL

PROCESSES = ("test_checks_light", "test_checks_proofs")
"""Files in which each test runs processes of its own."""
SAMPLED, SAMPLED_PROCESSES = 40, 2
"""How many are tried in every run of those whose tests take no time, and of the others."""


def test_an_enemys_test_is_named_for_every_check() -> None:
    assert set(KILLED_BY) - set(MUTANTS) == set(), "there are no such checks any more"
    assert set(MUTANTS) - set(KILLED_BY) == set(), "say which test by an enemy fails if this check is switched off"
    assert len(LINES) == len(KILLED_BY)


def test_every_check_in_the_docs_has_its_mutants() -> None:
    listed = set(re.findall(r"^\| `([^`]+)` \|", (REPOSITORY / "docs" / "checks.md").read_text(), re.MULTILINE))
    assert listed - set(NO_REFUSAL) == {one.rpartition(":")[0] for one in KILLED_BY}


def test_every_test_in_the_table_exists() -> None:
    for file, tests in _by_file().items():
        tree = ast.parse((REPOSITORY / ENEMIES / f"{file}.py").read_text())
        there = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert {test.partition("[")[0] for test in tests} <= there, file


def _by_file() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for named in KILLED_BY.values():
        file, _, test = named.partition("::")
        found.setdefault(file, set()).add(test)
    return found


def chosen(full: bool) -> list[str]:
    """Return what to try: all, or a sample that is another one whenever checks are added."""
    if full:
        return list(KILLED_BY)
    slow = sorted(one for one, test in KILLED_BY.items() if test.startswith(PROCESSES))
    quick = sorted(KILLED_BY.keys() - set(slow))
    dice = random.Random(len(KILLED_BY))
    return dice.sample(quick, SAMPLED) + dice.sample(slow, SAMPLED_PROCESSES)


def test_no_mutant_survives(tmp_path_factory: pytest.TempPathFactory, full: bool) -> None:
    tree = make(tmp_path_factory.mktemp("mutants"))
    tried = [step(name) for name in chosen(full)]
    verdicts = judge(tree, tried, tree.root / "verdicts.jsonl", honest=full)
    assert {one.id: one.detail for one in verdicts if one.outcome != "killed"} == {}
    assert {one.id for one in verdicts} == {one.mutant.id for one in tried}


def test_an_untouched_copy_refuses_as_the_product_does(tmp_path: Path) -> None:
    """The copy is the product but for what is switched off: with nothing switched off, and with one check."""
    tree = make(tmp_path / "copy")
    words = (
        "from firstlight.errors import ProofError\n"
        "from firstlight.chain.witness import verify_witnesses\n"
        "from firstlight.testing.chains import Consortium\n"
        "epoch = Consortium.of().epoch\n"
        "try: print(verify_witnesses((), epoch=epoch, height=1, header_hash=bytes(32), nonce_root=bytes(32)))\n"
        "except ProofError as error: print(error.code)\n"
        "except ValueError: print('let through')\n"
    )

    def said() -> str:
        done = subprocess.run([tree.python, "-c", words], capture_output=True, text=True, check=True, env={})
        return done.stdout.strip()

    assert said() == "not-enough-witnesses"
    tree.switch_off([MUTANTS["chain.witness.verify_witnesses.3:witness-signature"]])
    assert said() == "not-enough-witnesses"
    tree.switch_off([MUTANTS["chain.witness.verify_witnesses.2:not-enough-witnesses"]])
    assert said() == "let through"
    tree.switch_off([MUTANTS["discovery.verify.verify_bundle.4:not-enough-witnesses"]])
    assert said() == "not-enough-witnesses"
