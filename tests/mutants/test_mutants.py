"""Each check is switched off in turn, in a copy made outside of the product, and an enemy's test must fail for it."""

from __future__ import annotations

import ast
import random
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from tests.mutants.plugin import Step
from tests.mutants.run import REPOSITORY, WORLDLESS, judge
from tests.mutants.table import BACKED, EXPECTED, KILLED_BY, OPEN
from tests.mutants.tree import Mutant, make

from firstlight.chain.root import MAX_WALK
from firstlight.discovery.bundle import Bundle
from firstlight.enrolment import request
from firstlight.errors import MalformedError, ProofError
from firstlight.onboarding import messages
from firstlight.plan.claims import DIGESTS, PartyKind, ProfileClaim, _check_listed, new_claim
from firstlight.sealing.envelope import EnvelopeContent
from firstlight.testing.bundles import BATCH, Ledger
from firstlight.testing.random import SeededRandom

MUTANTS = {one.id: one for one in Mutant.all()}
SAMPLED = 8
"""How many are tried in every run: those whose tests need no world of their own, which takes half a minute to open."""


def test_every_mutant_is_in_the_table_once() -> None:
    listed = [*KILLED_BY, *BACKED, *EXPECTED, *OPEN]
    assert len(listed) == len(set(listed))
    assert set(listed) - set(MUTANTS) == set(), "there are no such checks any more"
    assert set(MUTANTS) - set(listed) == set(), "say which test by an enemy fails if this check is switched off"


def test_every_test_in_the_table_exists() -> None:
    named = {test.partition("[")[0] for tests in (*KILLED_BY.values(), *EXPECTED.values()) for test in tests}
    for test in sorted(named):
        path, _, function = test.partition("::")
        tree = ast.parse((REPOSITORY / path).read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, test
    assert all(tests for tests in KILLED_BY.values())


def test_gaps_do_not_grow() -> None:
    """Checks that no test by an enemy has been shown to need: these numbers only ever go down."""
    assert len(OPEN) <= MOST_OPEN
    assert len(OPEN) + len(EXPECTED) <= MOST_UNTRIED


MOST_OPEN = 101
MOST_UNTRIED = 234


def test_what_stands_behind_a_check_refuses_the_same() -> None:
    """What :data:`BACKED` says, for each of the reasons in it."""
    ledger = Ledger()
    bundle = ledger.answer(ledger.trust.request(bytes(32), batch=BATCH))
    assert Bundle.decode(bundle.encode()) == bundle
    with pytest.raises(MalformedError):
        Bundle.decode(replace(bundle, head=replace(bundle.head, roots=(b"x",) * (MAX_WALK + 1))).encode())
    content = EnvelopeContent(1, 1, 0, (bytes(32),) * DIGESTS, (b"x",))
    assert EnvelopeContent.decode(content.encode()) == content
    for count in (DIGESTS - 1, DIGESTS + 1):
        with pytest.raises(MalformedError):
            EnvelopeContent.decode(replace(content, digests=(bytes(32),) * count).encode())
    assert messages.MAX_REQUEST <= request.MAX_REQUEST
    listed = new_claim(PartyKind.NETWORK, bytes(16), bytes(16), SeededRandom("listed"))
    more = new_claim(PartyKind.SERVICE, bytes(16), bytes(16), SeededRandom("more"))
    profile = ProfileClaim(bytes(16), 0, ledger.consortium.roots[0].public, (listed.digest(),))
    with pytest.raises(ProofError) as refused:
        _check_listed(profile, {one.digest(): one for one in (listed, more)})
    assert refused.value.code == "claim-unlisted"
    assert len(set(BACKED.values())) == 4


def steps(full: bool) -> list[Step]:
    """Return what to try: all, or a sample that is another one whenever checks are added."""
    chosen = [one for one in KILLED_BY if full or all(_worldless(test) for test in KILLED_BY[one])]
    if not full:
        chosen = random.Random(len(MUTANTS)).sample(sorted(chosen), SAMPLED)
    chosen.sort(key=lambda one: KILLED_BY[one])
    return [Step(MUTANTS[one], KILLED_BY[one]) for one in chosen]


def _worldless(test: str) -> bool:
    return any(name in test for name in WORLDLESS)


def test_no_mutant_survives(tmp_path_factory: pytest.TempPathFactory, full: bool) -> None:
    tree = make(tmp_path_factory.mktemp("mutants"))
    tried = steps(full)
    verdicts = judge(tree, tried, tree.root / "verdicts.jsonl")
    assert {one.id for one in verdicts} == {one.mutant.id for one in tried}
    survivors = {one.id: one.detail for one in verdicts if one.outcome != "killed"}
    assert not survivors


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
