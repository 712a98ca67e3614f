"""What pytest does in a mutated tree instead of running each test once: ``-p tests.mutants.plugin --plan FILE``.

For one mutant after the other its test is run with nothing switched off, where it must pass, and with just that check
switched off, where it must fail. With the honest journey among the tests, that is run first with every check switched
off at once: it must pass, so no mutant keeps honest devices out, and what fails later fails because of an enemy.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol
from tests.mutants.tree import Mutant, Tree

HONEST = "tests/adversary/test_honest.py::test_a_device_connects_through_an_honest_gateway"
DEVICES = 64
"""How many are in the world."""
CLAIMED = ("AssertionError", "assert ", "Failed: DID NOT RAISE", "Failed:")
"""How a failure begins that a test has asserted, and that is no accident."""
PATIENCE = 400.0
"""Seconds that a test may take at all."""
LONGER, LEAST = 8, 45.0
"""A test waits in vain with a check off that takes so many times as long as without, and at least so many seconds."""


@dataclass(frozen=True, slots=True)
class Step:
    """One mutant and the test that must fail for it."""

    mutant: Mutant
    test: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant: ``killed`` by its test, ``survived``, or the test was ``broken`` without it already."""

    id: str
    outcome: str
    test: str
    detail: str


@dataclass(frozen=True, slots=True)
class Ran:
    """How a test went: passed, or what failed and whether the test claims so."""

    passed: bool
    claimed: bool
    detail: str


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--plan", help="what to do, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--plan"):
        config.pluginmanager.register(Plan(json.loads(Path(config.getoption("--plan")).read_text())), "mutants-plan")


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Have what runs meanwhile fail after so many seconds."""

    def over(*_: object) -> None:
        pytest.fail(f"took more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class _Beside:
    """Stands for some next item beside this one: what belongs to more than the one item is kept for it."""

    def __init__(self, item: pytest.Item) -> None:
        self._chain = item.listchain()[:-1]

    def listchain(self) -> list[object]:
        return list(self._chain)


class Plan:
    """Carries out a plan, writing verdicts as it goes."""

    def __init__(self, plan: Mapping[str, object]) -> None:
        """Take a plan: root of the tree, file of verdicts, and steps, or ``record``."""
        self._tree = Tree(Path(str(plan["root"])))
        self._verdicts = Path(str(plan["verdicts"]))
        self._record = bool(plan["record"])
        steps = plan["steps"]
        assert isinstance(steps, list)
        self._steps = [Step(Mutant(**one["mutant"]), one["test"]) for one in steps]
        self._items: dict[str, list[pytest.Item]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the plan in place of the tests."""
        if session.testsfailed:
            raise session.Interrupted("some tests could not be collected")
        for module in list(sys.modules.values()):
            if str(getattr(module, "__file__", "")).endswith("tests/conftest.py"):
                module.DEVICES = DEVICES  # type: ignore[attr-defined]
        for item in session.items:
            for name in {item.nodeid, item.nodeid.partition("[")[0]}:
                self._items.setdefault(name, []).append(item)
        self._tree.switch_off(())
        (self._hear if self._record else self._judge)(session)
        session._setupstate.teardown_exact(None)
        return True

    # --- judging ----------------------------------------------------------------------------------

    def _judge(self, session: pytest.Session) -> None:
        if not self._honest(session):
            return
        for step in self._steps:
            verdict = self._try(step, session)
            if verdict.outcome == "broken":
                session._setupstate.teardown_exact(None)
                verdict = self._try(step, session)
            self._write(verdict)

    def _honest(self, session: pytest.Session) -> bool:
        """Run the honest journey with all checks switched off, if it is among the tests; say whether it passes."""
        honest = self._items.get(HONEST)
        if honest is None:
            return True
        self._tree.switch_off(Mutant.all())
        self._tree.heard.write_bytes(b"")
        ran = self._run(honest, session)
        refused = [line for line in self._tree.heard.read_text().splitlines() if any(_heard_as(line))]
        self._tree.heard.unlink()
        self._tree.switch_off(())
        if not ran.passed or refused:
            self._write(Verdict("honest", "broken", HONEST, f"{ran.detail} {refused[:5]}"))
        return ran.passed and not refused

    def _try(self, step: Step, session: pytest.Session) -> Verdict:
        items = self._items.get(step.test)
        if items is None:
            return Verdict(step.mutant.id, "survived", step.test, "there is no such test")
        began = time.monotonic()
        before = self._run(items, session)
        if not before.passed:
            return Verdict(step.mutant.id, "broken", step.test, before.detail)
        patience = max(LEAST, LONGER * (time.monotonic() - began))
        self._tree.switch_off([step.mutant])
        after = self._run(items, session, patience)
        self._tree.switch_off(())
        return Verdict(step.mutant.id, "killed" if after.claimed else "survived", step.test, after.detail or "passed")

    def _run(self, items: Sequence[pytest.Item], session: pytest.Session, patience: float = PATIENCE) -> Ran:
        """Run items until one fails, or has taken ``patience`` seconds."""
        for item in items:
            session._setupstate.teardown_exact(_Beside(item))  # type: ignore[arg-type]
            item._initrequest()  # type: ignore[attr-defined]
            with _within(patience):
                reports = runtestprotocol(item, log=False, nextitem=_Beside(item))  # type: ignore[arg-type]
            for report in reports:
                if report.failed:
                    crash = getattr(report.longrepr, "reprcrash", None)
                    said = str(crash.message if crash is not None else report.longrepr)
                    claimed = report.when == "call" and said.startswith(CLAIMED)
                    return Ran(False, claimed, f"{report.when}: {said[:400]}")
        return Ran(True, False, "")

    def _write(self, verdict: Verdict) -> None:
        with self._verdicts.open("a") as file:
            file.write(json.dumps(asdict(verdict)) + "\n")

    # --- hearing ----------------------------------------------------------------------------------

    def _hear(self, session: pytest.Session) -> None:
        """Write down which mutants' checks refuse something in which test."""
        for item in session.items:
            self._tree.heard.write_bytes(b"")
            ran = self._run([item], session)
            ids = sorted({one for line in self._tree.heard.read_text().splitlines() for one in _heard_as(line)})
            with self._verdicts.open("a") as file:
                file.write(json.dumps({"test": item.nodeid, "passed": ran.passed, "detail": ran.detail, "heard": ids}))
                file.write("\n")


def _heard_as(line: str) -> Iterator[str]:
    """Yield the ids of the mutants of which a refusal that was written down is one."""
    from firstlight import _mutants  # type: ignore[attr-defined]  # there in mutated trees only

    stack, code, number = json.loads(line)
    for one in Mutant.all():
        if _mutants.concerns(asdict(one), tuple(stack), code, number):
            yield one.id
