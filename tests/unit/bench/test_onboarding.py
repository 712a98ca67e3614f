"""The onboarding benchmark: its report, its floor and how it reads a process's time."""

from __future__ import annotations

import os

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


def test_a_process_is_known_by_its_own_time() -> None:
    assert 0 <= legs.cpu_seconds(os.getpid()) <= sum(os.times()[:2]) + 0.1
