"""The demo as a newcomer runs it: honest counts, nothing left behind, a ledger that does not grow with devices."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.sampling import FULL

COMMAND = (sys.executable, "-m", "firstlight", "demo")
STAGES = ("discovered", "network_granted", "attached", "service_granted", "connected", "receipts_read")
FIELDS = {"devices", *STAGES, "ledger_transactions", "seconds"}
LONG = 600.0
"""Seconds after which what is waited for will not come."""
WITHIN = 5.0
"""Seconds from Ctrl-C to the end of the last process."""
INTERRUPTED = 130


def play(tmp_path: Path, *words: str) -> dict[str, float]:
    report = tmp_path / "new" / "report.json"
    done = subprocess.run([*COMMAND, *words, "--json", str(report)], capture_output=True, timeout=2 * LONG, check=False)
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


class Lost(threading.Thread):
    """Adds up the time in which this machine let us wait for nothing: that is not the demo's."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seconds = 0.0
        self.ended = False

    def run(self) -> None:
        while not self.ended:
            before = time.monotonic()
            time.sleep(0.01)
            self.seconds += time.monotonic() - before - 0.01


class Demo:
    """A demo in a session of its own, as in a terminal; all that it starts, whoever starts it, is in that session."""

    def __init__(self, state: Path, *words: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "--devices", "2", "--state", str(state), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
        self.said: list[str] = []

    def until(self, text: str) -> None:
        """Read what it says until it says ``text``."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if text in line:
                return
        raise AssertionError(f"it ended without {text!r}: {self.said}")

    def members(self) -> set[int]:
        """Return the processes of its session that run."""
        found = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                if int(fields[3]) == self.process.pid and fields[0] not in "ZX":
                    found.add(int(entry.name))
        return found

    def interrupt(self, *, terminal: bool) -> float:
        """Press Ctrl-C, in its terminal or for it alone; return after how long nothing runs any more.

        Time in which the machine ran nobody is not counted.
        """
        lost = Lost()
        lost.start()
        began = time.monotonic()
        (os.killpg if terminal else os.kill)(self.process.pid, signal.SIGINT)
        while self.members():
            assert time.monotonic() - began < LONG, self.members()
            time.sleep(0.01)
        took = time.monotonic() - began
        lost.ended = True
        self.process.wait(LONG)
        assert self.process.stdout is not None
        self.said += self.process.stdout.readlines()
        return took - lost.seconds


@contextmanager
def demo(state: Path, *words: str) -> Iterator[Demo]:
    one = Demo(state, *words)
    try:
        yield one
    finally:
        for pid in one.members():
            os.kill(pid, signal.SIGKILL)
        one.process.wait()
        assert one.process.stdout is not None
        one.process.stdout.close()


MOMENTS = {
    "before anything runs": "the consortium makes its root",
    "while servers start": "a ledger node and its witnesses start",
    "while parties join": "manufacturer, operator",
    "while devices are sold": "the devices are sold",
    "while devices come online": "are switched on",
}
SAMPLE = [("while servers start", True), ("while parties join", False), ("while devices come online", True)]
ALL = [(moment, terminal) for moment in MOMENTS for terminal in (True, False)]


@pytest.mark.parametrize(("moment", "terminal"), ALL if FULL else SAMPLE)
def test_ctrl_c_at_any_moment_ends_everything_within_five_seconds(tmp_path: Path, moment: str, terminal: bool) -> None:
    """In its terminal it reaches the demo and the command that it runs just then; sent to it alone, only the demo."""
    with demo(tmp_path / "world") as one:
        one.until(MOMENTS[moment])
        assert one.interrupt(terminal=terminal) < WITHIN
        assert one.process.returncode == INTERRUPTED
        assert "interrupted: nothing of the world runs any more" in one.said[-1]
        assert "Traceback" not in "".join(one.said)


def test_what_keep_offers_works_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    with demo(tmp_path / "world", "--keep") as one:
        one.until("In another terminal:")
        heading = len(one.said)
        one.until("Ctrl-C ends it")
        offered = [line.strip() for line in one.said[heading:-1] if line.startswith("  ")]
        assert len(offered) >= 6
        for line in offered:
            words = shlex.split(line, comments=True)
            done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=LONG, check=False)
            assert done.returncode == 0, (line, done.stdout, done.stderr)
            assert done.stdout.strip(), line
        assert len(one.members()) >= 11, "the demo, node, three witnesses, gateway, MNO, SP, owner, two devices"
        assert one.interrupt(terminal=True) < WITHIN
        assert one.process.returncode == 0
        assert one.said[-1] == "ending the world\n"


def test_a_demo_that_cannot_finish_says_so_and_fails(tmp_path: Path) -> None:
    (tmp_path / "something").write_text("")
    done = subprocess.run([*COMMAND, "--state", str(tmp_path)], capture_output=True, timeout=LONG, check=False)
    assert done.returncode == 2
    assert b"state-not-empty" in done.stderr


def test_a_report_that_cannot_be_written_is_found_before_the_work(tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, "--json", str(tmp_path)], capture_output=True, timeout=LONG, check=False)
    assert done.returncode == 2
    assert b"report-not-writable" in done.stderr
