"""The benchmark of onboarding: what one leg costs a party, beside the curve operations that it cannot do without."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from firstlight.bench.fleet import LEGS, NETWORK, SERVICE
from firstlight.bench.legs import WARM, Task
from firstlight.bench.machine import machine, today
from firstlight.bench.process import run_process
from firstlight.files import write_atomic

AT_MOST: Mapping[str, float] = MappingProxyType({"core_ratio": 2.5, "ratio": 5, "message_3_bytes": 1_800})
"""Figures that may be so much at most."""
AT_LEAST: Mapping[str, float] = MappingProxyType(
    {"legs_per_second_per_core_service": 450, "legs_per_second_per_core_network": 600}
)
"""Figures that must be so much at least."""
FEWEST = 2_000
"""Goals are for so many devices or more."""
WORST = ("core_ratio", "core_round_ratio", "ratio", "bytes_up", "bytes_down", "message_3_bytes")
"""Figures that are given for each leg and, under the name alone, for the worse of both."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Site:
    """A world that is running: where the devices are, and each leg's party with its server's process id."""

    devices: Path
    mno: Path
    mno_pid: int
    sp: Path
    sp_pid: int

    def task(self, leg: str, count: int, warm: int = WARM) -> Task:
        """Return what to measure for a leg."""
        party, pid = (self.sp, self.sp_pid) if leg == SERVICE else (self.mno, self.mno_pid)
        return Task(leg, str(self.devices), str(party), pid, count, warm)


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured, where and when."""

    devices: int
    figures: Mapping[str, float]
    machine: Mapping[str, object]
    date: str

    @property
    def missed(self) -> list[str]:
        """The figures that miss their goal; with fewer than :data:`FEWEST` devices there are no goals."""
        if self.devices < FEWEST:
            return []
        above = [name for name, goal in AT_MOST.items() if self.figures[name] > goal]
        return above + [name for name, goal in AT_LEAST.items() if self.figures[name] < goal]

    def values(self) -> dict[str, object]:
        """Return the report as JSON holds it: the figures first."""
        return {
            **self.figures,
            "devices": self.devices,
            "missed": self.missed,
            "goals": {"at_most": dict(AT_MOST), "at_least": dict(AT_LEAST)},
            "machine": dict(self.machine),
            "date": self.date,
        }

    def text(self) -> str:
        """Return the report for people."""
        lines = [f"{self.devices:,} devices · {self.machine['cpu']} · {self.machine['python']} · {self.date}", ""]
        for name, value in self.figures.items():
            goal = f"   goal ≤ {AT_MOST[name]:,g}" if name in AT_MOST else ""
            goal = f"   goal ≥ {AT_LEAST[name]:,g}" if name in AT_LEAST else goal
            mark = "   missed" if name in self.missed else ""
            lines.append(f"{name:<36}{value:>12,.10g}{goal}{mark}")
        return "\n".join(lines)


def measure(site: Site, devices: int, directory: Path, say: Say) -> Report:
    """Measure both legs in a world that is running, with ``devices`` devices of :func:`needed`.

    Raises :class:`firstlight.bench.process.BenchError` (``bench-stage-failed``).
    """
    described = machine(directory).values()
    found: dict[str, float] = {}
    for leg in LEGS:
        task = site.task(leg, devices)
        say(f"deciding the {leg} leg, bytes to bytes …")
        inside = _stage("core", task, say)
        say(f"serving the {leg} leg over HTTP …")
        outside = _stage("load", task, say)
        found |= {f"{name}_{leg}": value for name, value in figures(inside, outside).items()}
    worst = {name: max(found[f"{name}_{leg}"] for leg in LEGS) for name in WORST}
    first = {name: found.pop(name) for name in AT_LEAST}
    return Report(devices, {**worst, **first, **found}, described, today())


def needed(devices: int) -> int:
    """Return how many devices must be there to measure with ``devices`` of them: some onboard before the clock runs."""
    return devices + WARM


def figures(inside: Mapping[str, float], outside: Mapping[str, float]) -> dict[str, float]:
    """Return one leg's figures; of both times that the floor was taken the lower one counts."""
    floor = min(inside["floor_ms"], outside["floor_ms"])
    return {
        "core_ratio": round(inside["core_ms"] / floor, 3),
        "core_round_ratio": round(inside["core_round_ms"] / floor, 3),
        "ratio": round(outside["server_ms"] / floor, 3),
        "legs_per_second_per_core": round(1000 / outside["server_ms"], 1),
        **{name: inside[name] for name in ("bytes_up", "bytes_down", "message_3_bytes")},
        "floor_ms": round(floor, 4),
        "core_ms": round(inside["core_ms"], 4),
        "core_round_ms": round(inside["core_round_ms"], 4),
        "server_ms": round(outside["server_ms"], 4),
        "legs_per_second": round(outside["legs_per_second"], 1),
    }


def _stage(name: str, task: Task, say: Say) -> dict[str, Any]:
    began = time.monotonic()
    command = [sys.executable, "-m", "firstlight.bench.legs", name, json.dumps(asdict(task))]
    found = run_process(f"{name} {task.leg}", command)
    say(f"  {time.monotonic() - began:.1f} s")
    return found


def keep(report: Report, path: Path) -> None:
    """Write the report to ``path`` as a baseline; :class:`StoreError` (``file-not-written``)."""
    write_atomic(path, (json.dumps(report.values(), indent=2) + "\n").encode(), 0o644)


__all__ = [
    "AT_LEAST",
    "AT_MOST",
    "FEWEST",
    "LEGS",
    "NETWORK",
    "SERVICE",
    "Report",
    "Site",
    "figures",
    "keep",
    "measure",
    "needed",
]
