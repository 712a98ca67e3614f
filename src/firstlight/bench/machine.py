"""The machine that figures were measured on, and what a measurement reads from it."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

_PROBES = 25
_PROBE_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class Machine:
    """What a figure depends on besides the code. ``fsync_ms`` is the median of writing 4 kB and making them durable."""

    cpu: str
    cores: int
    memory_mib: int
    python: str
    kernel: str
    sqlite: str
    cryptography: str
    filesystem: str
    fsync_ms: float
    load: float

    def values(self) -> dict[str, object]:
        """Return the description as JSON holds it."""
        return {name: getattr(self, name) for name in self.__slots__}


def machine(directory: Path) -> Machine:
    """Describe this machine, and the disk that ``directory`` is on; ``load`` is that of the last minute."""
    return Machine(
        cpu=_field(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_mib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        kernel=f"{platform.system()} {platform.release()}",
        sqlite=sqlite3.sqlite_version,
        cryptography=version("cryptography"),
        filesystem=filesystem(directory, Path("/proc/mounts").read_text(encoding="utf-8")),
        fsync_ms=_fsync_ms(directory / "probe"),
        load=round(os.getloadavg()[0], 2),
    )


def today() -> str:
    """Return the date (UTC, ISO 8601)."""
    return datetime.now(UTC).date().isoformat()


def peak_mib() -> float:
    """Return the most memory (resident set, MiB) that this process has ever held.

    It is read from ``VmHWM``: what ``getrusage`` tells begins with the memory of the process that started this one.
    """
    value = _field(Path("/proc/self/status"), "VmHWM")
    return int(value.split()[0]) / 1024


def timed(work: Callable[[], object]) -> float:
    """Return how long ``work`` takes, in seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def milliseconds(seconds: Sequence[float]) -> list[float]:
    """Return ``seconds`` in milliseconds, as they are printed."""
    return [round(one * 1000, 3) for one in seconds]


def median_ms(seconds: Sequence[float]) -> float:
    """Return the median of ``seconds`` in milliseconds."""
    return round(statistics.median(seconds) * 1000, 3)


def filesystem(directory: Path, mounts: str) -> str:
    """Return the type of the file system that ``directory`` is on, by the contents of ``/proc/mounts``."""
    place = directory.resolve()
    found = ("", "unknown")
    for line in mounts.splitlines():
        _, mounted, kind, *_ = line.split()
        if place.is_relative_to(mounted) and len(mounted) >= len(found[0]):
            found = (mounted, kind)
    return found[1]


def _field(path: Path, name: str) -> str:
    for line in path.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _fsync_ms(path: Path) -> float:
    with path.open("wb", buffering=0) as file:

        def write() -> None:
            file.write(bytes(_PROBE_BYTES))
            os.fsync(file.fileno())

        took = [timed(write) for _ in range(_PROBES)]
    path.unlink()
    return median_ms(took)
