"""The demo as a newcomer runs it: honest counts, nothing left behind, a ledger that does not grow with devices."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMAND = (sys.executable, "-m", "firstlight", "demo")
STAGES = ("discovered", "network_granted", "attached", "service_granted", "connected", "receipts_read")
FIELDS = {"devices", *STAGES, "ledger_transactions", "seconds"}


def play(tmp_path: Path, *words: str) -> dict[str, float]:
    report = tmp_path / "new" / "report.json"
    done = subprocess.run([*COMMAND, *words, "--json", str(report)], capture_output=True, timeout=1_200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    values = json.loads(report.read_text())
    assert set(values) == FIELDS
    return values


def test_every_device_connects_and_the_ledger_does_not_grow_with_them(tmp_path: Path) -> None:
    few = play(tmp_path, "--devices", "2")  # a process each
    many = play(tmp_path, "--devices", "70")  # tasks in two processes
    for report, devices in ((few, 2), (many, 70)):
        assert report["devices"] == devices
        assert {stage: report[stage] for stage in STAGES} == dict.fromkeys(STAGES, devices)
    assert few["ledger_transactions"] == many["ledger_transactions"] > 0


def test_ctrl_c_ends_every_child_within_five_seconds(tmp_path: Path) -> None:
    state = tmp_path / "world"
    demo = subprocess.Popen(
        [*COMMAND, "--devices", "2", "--keep", "--state", str(state)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        assert demo.stdout is not None
        for line in demo.stdout:
            if b"Ctrl-C ends it" in line:
                break
        children = mentioning(state) - {demo.pid}
        assert len(children) >= 9, "node, three witnesses, gateway, MNO, SP, owner, devices"
        began = time.monotonic()
        demo.send_signal(signal.SIGINT)
        demo.wait(timeout=10)
        assert time.monotonic() - began < 5
        assert not mentioning(state)
    finally:
        if demo.poll() is None:
            demo.kill()
        demo.wait()


def test_a_demo_that_cannot_finish_says_so_and_fails(tmp_path: Path) -> None:
    (tmp_path / "something").write_text("")
    done = subprocess.run([*COMMAND, "--state", str(tmp_path)], capture_output=True, timeout=300, check=False)
    assert done.returncode == 2
    assert b"state-not-empty" in done.stderr


def test_a_report_that_cannot_be_written_is_found_before_the_work(tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, "--json", str(tmp_path)], capture_output=True, timeout=300, check=False)
    assert done.returncode == 2
    assert b"report-not-writable" in done.stderr


def mentioning(state: Path) -> set[int]:
    """Return the processes whose command line names something in ``state``."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(state) in words:
                found.add(int(entry.name))
    return found
