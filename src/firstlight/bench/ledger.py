"""The ledger's benchmark: runs each stage in a fresh process and compares what it measured with its goals."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

from firstlight.bench.machine import machine, today
from firstlight.bench.process import run_process
from firstlight.bench.scene import Scale
from firstlight.errors import StoreError
from firstlight.files import write_atomic

GOALS: Mapping[str, float] = MappingProxyType(
    {
        "anchor_1m_seconds": 5,
        "anchor_peak_mib": 256,
        "sell_1m_contiguous_ms": 5,
        "sell_100k_random_ms": 1_000,
        "accept_ms": 50,
        "restart_seconds": 2,
        "proof_bundle_bytes": 4_096,
        "device_verify_ms": 1.5,
    }
)
"""The most that each figure may be, for 10⁶ devices."""
GOAL_DEVICES = 1_000_000
DOING: Mapping[str, str] = MappingProxyType(
    {
        "prepare": "making the factory's file and a ledger",
        "anchor": "anchoring the batch",
        "trade": "selling it, whole and scattered",
        "restart": "restarting",
        "bundle": "weighing and verifying a proof bundle",
    }
)
"""The stages in their order, and what to tell people about each."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured, where and when."""

    scale: Scale
    figures: Mapping[str, float]
    beside: Mapping[str, object]
    machine: Mapping[str, object]
    date: str

    @property
    def missed(self) -> list[str]:
        """The figures that are above their goal; goals are for 10⁶ devices, so at another scale there are none."""
        if self.scale.devices != GOAL_DEVICES:
            return []
        return [name for name, goal in GOALS.items() if self.figures[name] > goal]

    def values(self) -> dict[str, object]:
        """Return the report as JSON holds it: the figures first."""
        return {
            **{name: self.figures[name] for name in GOALS},
            "devices": self.scale.devices,
            "missed": self.missed,
            "goals": dict(GOALS),
            "beside": dict(self.beside),
            "machine": dict(self.machine),
            "date": self.date,
        }

    def text(self) -> str:
        """Return the report for people."""
        lines = [f"{self.scale.devices:,} devices · {self.machine['cpu']} · {self.machine['python']} · {self.date}", ""]
        for name, goal in GOALS.items():
            mark = "missed" if name in self.missed else ""
            lines.append(f"{name:<24}{self.figures[name]:>12,.10g}   goal ≤ {goal:<8,.10g}{mark}".rstrip())
        if self.busy:
            lines += ["", f"other work was running: load {self.machine['load']} on {self.machine['cores']} cores"]
        return "\n".join(lines)

    @property
    def busy(self) -> bool:
        """Whether so much else was running when it began that the times are not this code's alone."""
        load, cores = self.machine.get("load", 0), self.machine.get("cores", 1)
        return isinstance(load, float) and isinstance(cores, int) and load > cores / 2


def run(scale: Scale, parent: Path, say: Say) -> Report:
    """Measure at ``scale`` in a new directory under ``parent``, which is removed again.

    Raises :class:`BenchError` (``bench-stage-failed``), :class:`StoreError` (``bench-no-room``).
    """
    figures: dict[str, float] = {}
    beside: dict[str, object] = {}
    with _ended_by_signals(), _directory(parent) as directory:
        described = machine(directory).values()
        for name, doing in DOING.items():
            say(f"{doing} …")
            began = time.monotonic()
            part = run_stage(name, directory, scale)
            figures |= part["figures"]
            beside |= part["beside"]
            say(f"  {time.monotonic() - began:.1f} s")
    return Report(scale, figures, beside, described, today())


def run_stage(name: str, directory: Path, scale: Scale) -> dict[str, dict[str, float]]:
    """Run one stage in a fresh process and return what it printed. The process never outlives this call."""
    command = [sys.executable, "-m", "firstlight.bench.stages", name, str(directory), json.dumps(asdict(scale))]
    command.append(repr(time.monotonic()))
    return run_process(name, command)


def keep(report: Report, path: Path) -> None:
    """Write the report to ``path`` as a baseline; :class:`StoreError` (``file-not-written``)."""
    write_atomic(path, (json.dumps(report.values(), indent=2) + "\n").encode(), 0o644)


@contextlib.contextmanager
def _directory(parent: Path) -> Iterator[Path]:
    try:
        made = tempfile.TemporaryDirectory(prefix="firstlight-bench-", dir=parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise StoreError("bench-no-room", f"{parent}: {error.strerror or error}") from error
    with made as name:
        yield Path(name)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM end the benchmark as Ctrl-C does, so that nothing is left behind."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
