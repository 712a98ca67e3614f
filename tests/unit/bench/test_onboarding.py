"""The onboarding benchmark: its report, its floor and how it reads a process's time."""

from __future__ import annotations

import os
import subprocess
import sys

from firstlight.bench import legs, onboarding

FINE = {**dict.fromkeys(onboarding.AT_MOST, 1.0), **dict.fromkeys(onboarding.AT_LEAST, 10_000.0)}


def test_goals_are_for_two_thousand_devices() -> None:
    slow = {**FINE, "ratio": 5.1, "legs_per_second_per_core_service": 449.0}
    machine: dict[str, object] = {"cpu": "x", "python": "y"}
    missed = ["ratio", "legs_per_second_per_core_service"]
    assert onboarding.Report(2_000, slow, machine, "").missed == missed
    assert onboarding.Report(2_000, slow, machine, "").text().count("missed") == 2
    assert onboarding.Report(1_999, slow, machine, "").missed == []
    assert onboarding.Report(2_000, FINE, machine, "").missed == []


def test_the_floor_is_timed() -> None:
    floor = legs.Floor("service")
    floor.once()
    assert floor.ms > 0


def test_a_process_is_known_by_its_time_and_that_of_its_workers() -> None:
    busy = "import sys, time\nwhile time.process_time() < 0.3: pass\nprint(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        alone = legs.cpu_seconds(child.pid)
        together = legs.cpu_seconds(os.getpid())
        child.stdin.close()
    assert alone >= 0.25
    assert together >= alone
