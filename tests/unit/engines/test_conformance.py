"""The conformance suite of engines, run on each: embedded, CometBFT with one validator, CometBFT with four."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from firstlight.custody.system import SystemClock
from firstlight.engines.embedded import EmbeddedEngine
from firstlight.engines.port import Engine
from firstlight.testing.abci import genesis_of
from firstlight.testing.chains import Consortium
from firstlight.testing.comet import Network
from firstlight.testing.engines import CHECKS, Check, Subject, started


@contextlib.contextmanager
def embedded(directory: Path) -> Iterator[Subject]:
    consortium, clock = Consortium.of(roots=2), SystemClock()
    genesis = genesis_of(consortium, clock.now())

    @contextlib.contextmanager
    def opened() -> Iterator[Engine]:
        path = directory / "ledger.sqlite"
        with EmbeddedEngine.open(path, signer=consortium.validators[0], clock=clock, genesis=genesis) as engine:
            yield engine

    with started(Subject(opened, consortium, clock)) as subject:
        yield subject


@contextlib.contextmanager
def comet(directory: Path, program: Path, validators: int) -> Iterator[Subject]:
    """Yield the first validator's engine; the others run all the time."""
    network = Network.of(directory, program, validators)

    @contextlib.contextmanager
    def opened() -> Iterator[Engine]:
        network.start(0)
        try:
            yield network.engines[0]
        finally:
            network.stop(0)

    try:
        for number in range(1, validators):
            network.start_soon(number)
        with started(Subject(opened, network.consortium, SystemClock())) as subject:
            yield subject
    finally:
        network.stop()


@pytest.fixture(scope="module", params=["embedded", "cometbft-1", pytest.param("cometbft-4", marks=pytest.mark.long)])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    directory = tmp_path_factory.mktemp(request.param)
    if request.param == "embedded":
        with embedded(directory) as one:
            yield one
    else:
        program = request.getfixturevalue("cometbft")
        with comet(directory, program, int(request.param[-1])) as one:
            yield one


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(subject: Subject, check: Check) -> None:
    check(subject)
