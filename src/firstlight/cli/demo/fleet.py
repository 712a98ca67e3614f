"""The fleet: devices that are given power, an empty environment and one directory each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from firstlight.cli.cables import Cables
from firstlight.cli.demo.commands import arguments
from firstlight.cli.processes import Family

ALONE = 20
"""Up to so many devices, each is a process of its own."""
TOGETHER = 64
"""Beyond, so many at most share a process, as tasks."""


def switch_on(devices: Sequence[Path], family: Family, *, isolate: bool, cables: Cables | None = None) -> int:
    """Start the devices and return how many processes they are; with ``cables``, each at the end of its own."""
    size = 1 if isolate or cables is not None or len(devices) <= ALONE else TOGETHER
    crews = [devices[at : at + size] for at in range(0, len(devices), size)]
    for number, crew in enumerate(crews, start=1):
        words = ("device", "run", crew[0]) if size == 1 else ("device", "fleet", *crew)
        line = arguments(*words) if cables is None else cables.cables[number - 1].inside(arguments(*words))
        family.start(f"device-{number}", line, environment={}, directory=crew[0], state_dir=crew[0])
    return len(crews)
