"""What all tests share: nothing is skipped in CI, no vector or peer anywhere; `--full` runs what is else sampled.

Without `--full` the examples of properties are the same in every run, and none is remembered from the last.
"""

import os
import random
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tests.sampling import FULL

from firstlight.cli.processes import Family
from firstlight.engines.cometbft_process import find
from firstlight.errors import ConfigError
from firstlight.testing.lab import Lab, open_lab

DEVICES = 250
"""Devices in the world that a worker's tests share: enough if one worker gets all tests, as one that is slow may."""
SETTINGS = {role: {"round_seconds": 1} for role in ("mno", "sp")}
"""Parties look every second which grants must end, so that tests need not wait for that."""
IN_CI = os.environ.get("CI") == "true"
ALWAYS = ("tests/vectors/", "tests/interop/")
LONG_SHARE = 4
"""One in how many of the tests that are marked as long runs in `bin/test`."""
WHOLE = 1_000
"""So many tests are the whole of them, not some that somebody has named."""

# Neither a time for an example nor for making its data: how fast the machine is today is no property of the code.
SLOW = [HealthCheck.too_slow]
settings.register_profile(
    "sampled", deadline=None, suppress_health_check=SLOW, max_examples=60, derandomize=True, database=None
)
settings.register_profile("full", deadline=None, suppress_health_check=SLOW, max_examples=1000, print_blob=True)
settings.load_profile("full" if FULL else "sampled")

# A shell that runs tests in the background has them ignore Ctrl-C, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def full() -> bool:
    """Whether everything runs (`bin/test --full`), or a seeded sample of what takes long."""
    return FULL


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One world of real processes for all tests of a worker; each takes devices of its own from it."""
    root = tmp_path_factory.mktemp("lab")
    with Family(root / "output") as family:
        yield from open_lab(root, family, devices=DEVICES, settings=SETTINGS)


@pytest.fixture(scope="session")
def cometbft() -> Path:
    """The CometBFT that `bin/test` has built, or one on PATH; without one a test is skipped, which fails in CI."""
    try:
        return find("cometbft")
    except ConfigError as error:
        pytest.skip(str(error))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the long tests run a sample, another one whenever tests are added; all with `--full`, or where asked for."""
    long = [item for item in items if item.get_closest_marker("long")]
    if FULL or len(items) < WHOLE:
        return
    left = set(random.Random(len(items)).sample(long, len(long) * (LONG_SHARE - 1) // LONG_SHARE))
    config.hook.pytest_deselected(items=sorted(left, key=lambda item: item.nodeid))
    items[:] = [item for item in items if item not in left]


def never_skipped(report: pytest.TestReport | pytest.CollectReport) -> bool:
    """Whether a skip is a failure: everywhere in CI, and for published vectors and independent peers always."""
    return IN_CI or report.nodeid.startswith(ALWAYS)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if never_skipped(report) and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", f"a skipped test is a failure here: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if never_skipped(report) and report.skipped:
        report.outcome, report.longrepr = "failed", f"a skipped module is a failure here: {report.longrepr}"
    return report
