"""A journey with one power cut, at each of its durable writes and messages: nothing is lost or doubled.

`bin/test` cuts at a seeded tenth of the points, of each process and each part of the journey some; `bin/test --full` at
all of them.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator

import pytest
from tests.power.cuts import cut_all, cut_renewals, record, record_renewal, tally
from tests.power.world import Bench, Where, end, open_bench

from firstlight.cli.processes import Family

SEED = 7
SHARE = 10
RENEWALS = 4
"""How many points of a renewal are cut in `bin/test`."""
DEVICES, DEVICES_IN_FULL = 128, 1_000
KNOWN = {
    ("device", "rename", "view.cbor"),
    ("device", "fsync-directory", "grants"),
    ("device", "link", "operational/*.pem"),
    ("device", "request-out", "POST /relay/*/.well-known/edhoc"),
    ("device", "frame-out", "Response"),
    ("device", "mqtt-in", "PUBACK"),
    ("node", "commit", "ledger.sqlite blocks,transactions,counts,records,pages"),
    ("node", "answer-out", "POST /v1/transactions"),
    ("gateway", "commit", "gateway.sqlite envelope,held"),
    ("gateway", "commit", "gateway.sqlite receipt,total"),
    ("gateway", "answer-in", "POST /.well-known/edhoc"),
    ("mno", "commit", "mno.sqlite subscription,session"),
    ("mno", "frame-out", "Challenge"),
    ("sp", "commit", "sp.sqlite message"),
    ("sp", "mqtt-out", "PUBACK"),
}
"""Some of what must be among the points: where one of these is missing, the hook has lost its hold."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, full: bool) -> Iterator[Bench]:
    root = tmp_path_factory.mktemp("power")
    with Family(root / "output") as family:
        opened = open_bench(root, family, DEVICES_IN_FULL if full else DEVICES)
        try:
            yield opened
        finally:
            end(opened)


@pytest.fixture(scope="module")
def points(bench: Bench) -> list[Where]:
    return record(bench)


def tenth(points: list[Where]) -> list[Where]:
    """Return a seeded tenth, of each process and part at least one."""
    parts: dict[tuple[str, str], list[Where]] = defaultdict(list)
    for point in points:
        parts[point.role, point.part].append(point)
    chance = random.Random(SEED)
    return [one for some in parts.values() for one in chance.sample(some, max(1, len(some) // SHARE))]


def test_the_recorded_run_has_numbered_every_write_and_message(points: list[Where]) -> None:
    assert not KNOWN - {(one.role, one.kind, one.what) for one in points}
    assert len(points) == len(set(points)) >= 400
    assert {one.when for one in points} == {"before", "after"}


def test_nothing_is_lost_or_doubled_wherever_the_power_is_cut(bench: Bench, points: list[Where], full: bool) -> None:
    chosen = points if full else tenth(points)
    failures = cut_all(bench, chosen)
    assert not failures, f"{len(failures)} of {tally(chosen)}:\n" + "\n".join(failures)


def test_nothing_is_lost_or_doubled_wherever_the_power_is_cut_while_grants_are_renewed(
    bench: Bench, full: bool
) -> None:
    points = record_renewal(bench)
    assert ("unlink", "operational/*.pem") in {(one.kind, one.what) for one in points}
    chosen = points if full else random.Random(SEED).sample(points, RENEWALS)
    failures = cut_renewals(bench, chosen)
    assert not failures, f"{len(failures)} of {tally(chosen)}:\n" + "\n".join(failures)
