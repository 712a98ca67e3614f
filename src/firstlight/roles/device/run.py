"""Running devices: one to a process, or up to 64 as tasks that share nothing that changes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from firstlight.custody.system import SystemClock
from firstlight.errors import ConfigError, FirstlightError
from firstlight.logs import LOG_FILE, Log, LogFile
from firstlight.roles.device.journey import Journey
from firstlight.roles.device.memory import BIRTH, Memory
from firstlight.roles.device.tools import Event, Stage, Tools
from firstlight.roles.measure import measured

ROLE = "device"
MOST = 64
"""The most devices in one process."""
Hear = Callable[[Event], None]
MakeTools = Callable[[Log, Callable[..., None]], Tools]


@dataclass(frozen=True, slots=True)
class Plan:
    """How to run: until stopped, or ``once`` (until connected), for at most ``seconds`` (None: as long as it takes)."""

    once: bool = False
    seconds: float | None = None


def one_directory(place: Path) -> Path:
    """Return ``place`` if it is the directory of one device; :class:`ConfigError` (``not-a-device``)."""
    if not (place / BIRTH).is_file():
        hint = "for several at once: firstlight device fleet"
        raise ConfigError("not-a-device", f"{place} is not the directory of a device", hint=hint)
    return place


def directories(places: Sequence[Path]) -> list[Path]:
    """Return the device directories that ``places`` are, or hold, in order.

    Raises :class:`ConfigError`: ``not-a-device``, ``no-devices``, ``too-many-devices``.
    """
    found: list[Path] = []
    for place in places:
        if (place / BIRTH).is_file():
            found.append(place)
            continue
        inside = sorted(path.parent for path in place.glob(f"*/{BIRTH}"))
        if not inside:
            raise ConfigError("not-a-device", f"{place} neither is nor holds the directory of a device")
        found += inside
    if not found:
        raise ConfigError("no-devices", "no directory is named")
    if len(set(found)) != len(found):
        raise ConfigError("device-twice", "a directory is named twice")
    if len(found) > MOST:
        raise ConfigError("too-many-devices", f"{len(found)} devices, at most {MOST} in one process")
    return found


def run(places: Sequence[Path], plan: Plan, hear: Hear, *, make: MakeTools = Tools.real) -> bool:
    """Run the devices in ``places`` until SIGTERM or SIGINT, or as ``plan`` says.

    Returns whether all went well: none failed and, with ``once``, all were connected. A device whose directory is of no
    use fails alone. The process writes into the devices' directories and nowhere else.
    """
    os.umask(0o077)
    measured()
    gc.collect()
    gc.freeze()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(places, plan, hear, make))


async def _run(places: Sequence[Path], plan: Plan, hear: Hear, make: MakeTools) -> bool:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    devices = [asyncio.create_task(_live(place, plan, hear, make)) for place in places]
    stopping = asyncio.create_task(stop.wait())
    ended = asyncio.create_task(_ended(devices))
    await asyncio.wait({stopping, ended}, timeout=plan.seconds, return_when=asyncio.FIRST_COMPLETED)
    asked = stop.is_set()
    for task in (stopping, ended, *devices):
        task.cancel()
    outcomes = await asyncio.gather(*devices, return_exceptions=True)
    for place, outcome in zip(places, outcomes, strict=True):
        if isinstance(outcome, Exception):
            traceback.print_exception(outcome)
            hear(Event(place.resolve().name, Stage.FAILED, "internal-error"))
    return all(_well(outcome, plan, asked=asked) for outcome in outcomes)


async def _ended(devices: Sequence[asyncio.Task[bool]]) -> bool:
    """Wait until all devices have ended."""
    await asyncio.wait(devices)
    return True


def _well(outcome: bool | BaseException, plan: Plan, *, asked: bool) -> bool:
    """Say whether a device ended as it should: by itself as told, or because somebody asked all to stop."""
    if isinstance(outcome, asyncio.CancelledError):
        return not plan.once and (asked or plan.seconds is not None)
    return outcome is True


async def _live(place: Path, plan: Plan, hear: Hear, make: MakeTools) -> bool:
    """Run one device; return whether it ended well, which without ``once`` it does only by being cancelled.

    A mistake in the program raises here, and ends this device alone.
    """

    def tell(stage: Stage, code: str = "", /) -> None:
        hear(Event(place.resolve().name, stage, code))

    try:
        with contextlib.ExitStack() as stack:
            memory = Memory.open(place)
            stack.callback(memory.close)
            file = LogFile(place / LOG_FILE)
            stack.callback(file.close)
            log = Log(ROLE, SystemClock(), file)
            stack.callback(log.info, "stopped")
            return await _travel(Journey(memory, make(log, tell)), plan)
    except asyncio.CancelledError:
        tell(Stage.STOPPED)
        raise
    except FirstlightError as error:
        tell(Stage.FAILED, error.code)
        return False


async def _travel(journey: Journey, plan: Plan) -> bool:
    """Let a device travel, with ``once`` until it is connected."""
    travelling = asyncio.create_task(journey.travel())
    connected = asyncio.create_task(journey.connected.wait() if plan.once else asyncio.Event().wait())
    try:
        await asyncio.wait({travelling, connected}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (connected, travelling):
            task.cancel()
        await asyncio.gather(connected, travelling, return_exceptions=True)
    if travelling.done() and not travelling.cancelled():
        travelling.result()
    return True
