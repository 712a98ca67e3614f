import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from firstlight.bench import ledger, machine, stages
from firstlight.bench.process import BenchError
from firstlight.bench.scene import LEAF_KEYS, MODEL, Scale, Scene, scattered
from firstlight.cli import main
from firstlight.identity.birth import Leaf, derive_salt
from firstlight.ledger.rules.holding import BUDGET_BASE, BUDGET_PER_DEVICE, MAX_WORK
from firstlight.ledger.transaction import MAX_BYTES
from firstlight.trees.ownership import MAX_RUNS, Selection

BENCH = Path(__file__).parents[3] / "bench"
LONG = 60.0
"""Seconds after which what is waited for will not come."""
TINY = Scale(devices=256, records=60, sales=2, scattered_sales=2, bundles=3, verifications=1)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> ledger.Report:
    parent = tmp_path_factory.mktemp("bench")
    said: list[str] = []
    measured = ledger.run(TINY, parent, said.append)
    assert [line for line in said if line.endswith("…")] == [f"{doing} …" for doing in ledger.DOING.values()]
    assert list(parent.iterdir()) == []
    return measured


def test_every_figure_with_a_goal_is_measured(report: ledger.Report) -> None:
    assert set(report.figures) == set(ledger.GOALS)
    assert all(figure > 0 for figure in report.figures.values())
    assert list(report.values())[: len(ledger.GOALS)] == list(ledger.GOALS)
    assert json.loads(json.dumps(report.values())) == report.values()


def test_the_bundle_is_the_one_that_is_meant(report: ledger.Report) -> None:
    assert report.beside["proof_bundle_path"] == 8
    assert report.beside["proof_bundle_records"] == TINY.records
    assert 1_500 < report.figures["proof_bundle_bytes"] < ledger.GOALS["proof_bundle_bytes"]
    gathered = report.beside["proof_bundle_more_with_64_nonces_bytes"]
    assert isinstance(gathered, int)
    assert gathered >= 6 * 32


def test_goals_are_for_a_million_devices(report: ledger.Report) -> None:
    assert report.missed == []
    slow = {**dict.fromkeys(ledger.GOALS, 0.0), "accept_ms": 51.0}
    full = ledger.Report(Scale(), slow, {}, {"cpu": "x", "python": "y"}, "2026-01-01")
    assert full.missed == ["accept_ms"]
    assert re.search(r"^accept_ms +51 +goal ≤ 50 +missed$", full.text(), re.MULTILINE)
    assert "other work" not in full.text()


def test_figures_of_a_busy_machine_are_marked() -> None:
    figures = dict.fromkeys(ledger.GOALS, 0.0)
    busy = {"cpu": "x", "python": "y", "load": 1.5, "cores": 2}
    assert ledger.Report(Scale(), figures, {}, busy, "").text().endswith("other work was running: load 1.5 on 2 cores")
    assert not ledger.Report(Scale(), figures, {}, {**busy, "load": 0.9}, "").busy


def test_a_baseline_is_kept_with_the_machine_named(report: ledger.Report, tmp_path: Path) -> None:
    ledger.keep(report, tmp_path / "ledger.json")
    kept = json.loads((tmp_path / "ledger.json").read_text())
    assert kept == report.values()
    assert kept["machine"]["cores"] >= 1
    assert kept["machine"]["cpu"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", kept["date"])


def test_a_stage_that_fails_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="bench-stage-failed: bundle: file-missing"):
        ledger.run_stage("bundle", tmp_path, TINY)


def test_an_unusable_directory_is_a_clear_error(tmp_path: Path) -> None:
    assert main.run(["bench", "ledger", "--directory", str(tmp_path / "none")]) == 1


def test_ctrl_c_ends_the_stage_and_removes_the_files(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from firstlight.bench import ledger; from firstlight.bench.scene import"
        " Scale; ledger.run(Scale(), Path(sys.argv[1]), lambda text: print(text, flush=True))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("making")
        child = _child_of(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=LONG) != 0
    assert not Path(f"/proc/{child}").exists()
    assert list(tmp_path.iterdir()) == []


def _child_of(pid: int) -> int:
    """Wait until the process has a child."""
    ends = time.monotonic() + LONG
    while time.monotonic() < ends:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            return int(children[0])
        os.sched_yield()
    raise AssertionError("no stage was started")


def test_the_factory_delivers_leaves_that_exist_each_another(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.make_devices(3_000)
    keys = scene.devices.read_bytes()
    rows = {keys[at : at + LEAF_KEYS] for at in range(0, len(keys), LEAF_KEYS)}
    assert len(rows) == 3_000
    inputs = list(scene.leaf_inputs(bytes(32)))
    for index in (0, 2_047, 2_048, 2_999):
        row = keys[index * LEAF_KEYS : (index + 1) * LEAF_KEYS]
        assert inputs[index] == Leaf(derive_salt(bytes(32), index), row[:64], row[64:], MODEL).input()


def test_what_is_measured_lies_within_the_ledgers_limits_by_design() -> None:
    """One device in ten of a million, picked at random, fits a transaction, and a batch's budget a hundred times."""
    scale = Scale()
    picked = Selection.of(scattered(scale.devices, scale.scattered, 0))
    assert picked.count == 100_000
    assert len(picked.runs()) * 2 < MAX_RUNS
    assert len(picked.packed) * 4 < MAX_BYTES
    work = picked.nodes(20)
    assert work * 4 < MAX_WORK
    assert work * 100 < BUDGET_BASE + BUDGET_PER_DEVICE * scale.devices


def test_the_file_system_is_that_of_the_longest_mount() -> None:
    mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmpfoo xfs rw 0 0\n"
    assert machine.filesystem(Path("/tmp/x/y"), mounts) == "tmpfs"
    assert machine.filesystem(Path("/tmpfoo"), mounts) == "xfs"
    assert machine.filesystem(Path("/srv"), mounts) == "ext4"


def test_the_stages_are_those_that_are_told() -> None:
    assert list(stages.STAGES) == list(ledger.DOING)
    assert Scale(**json.loads(json.dumps(asdict(TINY)))) == TINY


def test_the_table_shows_the_stored_baseline() -> None:
    stored = json.loads((BENCH / "ledger.json").read_text())
    table = (BENCH / "README.md").read_text()
    assert stored["devices"] == ledger.GOAL_DEVICES
    assert stored["missed"] == []
    assert stored["goals"] == dict(ledger.GOALS)
    for name, goal in ledger.GOALS.items():
        assert f"| `{name}` | {stored[name]:,.10g} | {goal:,.10g} |" in table
    for key in ("cpu", "python", "filesystem", "kernel"):
        assert str(stored["machine"][key]) in table
    assert stored["date"] in table
