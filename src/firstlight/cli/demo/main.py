"""``firstlight demo``: the whole journey on one machine, told as it happens."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from firstlight.access.serving.daemons import HOSTAPD, IP, MOSQUITTO, NFT, WPA_SUPPLICANT
from firstlight.access.serving.port_guard import moved
from firstlight.cli import output
from firstlight.cli.cables import Cables, plugged
from firstlight.cli.demo import trade
from firstlight.cli.demo.counts import Counts, Recorder
from firstlight.cli.demo.fleet import switch_on
from firstlight.cli.demo.world import Addresses, Places, World
from firstlight.cli.processes import Family
from firstlight.console.fleet import FleetDisplay, Stage
from firstlight.errors import AccessError, ConfigError
from firstlight.files import write_atomic
from firstlight.roles.party.status import sp_status

PATIENCE = 60.0
"""Seconds without any device getting further, after which the demo gives up."""
PAUSE = 0.5
CABLED = 4
"""Devices that are switched on where each has a namespace, a cable and a supplicant of its own."""
REAL = (HOSTAPD, WPA_SUPPLICANT, NFT, IP)


class Access(Enum):
    """What devices attach at."""

    EMBEDDED = "embedded"
    REAL = "real"


@dataclass(frozen=True, slots=True)
class Report:
    """What ``--json`` writes."""

    devices: int
    counts: Counts
    ledger_transactions: int
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether all devices are connected."""
        return self.counts.connected == self.devices

    def values(self) -> dict[str, float]:
        """Return the report as JSON holds it."""
        counts = {stage.value: count for stage, count in self.counts.stages().items()}
        return {
            "devices": self.devices,
            **counts,
            "ledger_transactions": self.ledger_transactions,
            "seconds": round(self.seconds, 3),
        }


def command(
    *,
    devices: Annotated[
        int | None,
        typer.Option("--devices", min=1, max=100_000, help="How many devices to switch on: 50, or 4 with real access."),
    ] = None,
    access: Annotated[
        Access, typer.Option("--access", help="What devices attach at: our own program, or wired 802.1X ports (root).")
    ] = Access.EMBEDDED,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the counts to this file as JSON.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the world running, and say what can be done.")] = False,
    isolate: Annotated[bool, typer.Option("--isolate", help="One process for each device, however many.")] = False,
    coap: Annotated[bool, typer.Option("--coap", help="Let devices talk CoAP over UDP, not HTTP.")] = False,
    state: Annotated[Path | None, typer.Option("--state", help="A new directory for the world; kept.")] = None,
) -> None:
    """Watch a fleet that nobody has met come online by itself.

    Starts a ledger node, witnesses, a gateway, an MNO, an SP and an owner as separate processes; makes devices, sells
    them through a distributor to the owner, who orders and deploys; then switches the devices on. Exits 0 only if all
    of them are connected, as their service provider and their owner say.
    """
    if json_file is not None:
        _prepare(json_file)
    root, temporary = _root(state)
    try:
        with _cables(access, devices or CABLED) as cables:
            count = devices or (50 if cables is None else CABLED)
            way = _Way(isolate=isolate, coap=coap, cables=cables)
            report = _play(Places(root), count, way, keep=keep, json_file=json_file)
    except KeyboardInterrupt:
        output.note("interrupted: nothing of the world runs any more" + ("" if temporary else f"; see {root}"))
        raise
    finally:
        if temporary:
            shutil.rmtree(root, ignore_errors=True)
    if not report.complete:
        missing = report.devices - report.counts.connected
        raise AccessError("demo-incomplete", f"{missing} of {report.devices} devices are not connected")


def _prepare(json_file: Path) -> None:
    """Make the directory of the report, so that nothing is found missing after all the work."""
    try:
        json_file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("report-not-writable", f"{json_file}: {error.strerror or error}") from error
    if json_file.is_dir() or not os.access(json_file.parent, os.W_OK):
        raise ConfigError("report-not-writable", f"{json_file} cannot be written")


def _root(state: Path | None) -> tuple[Path, bool]:
    if state is None:
        return Path(tempfile.mkdtemp(prefix="firstlight-demo-")), True
    if state.exists() and any(state.iterdir()):
        raise ConfigError("state-not-empty", f"{state} holds something", hint="name a directory that is not there yet")
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    return state.resolve(), False


@contextlib.contextmanager
def _cables(access: Access, count: int) -> Iterator[Cables | None]:
    """Plug devices in, if that is asked for and this machine can; say which access network serves."""
    lacking = [one.package for one in REAL if not one.there] if os.geteuid() == 0 else ["root's rights"]
    if access is Access.EMBEDDED or lacking:
        why = f", for want of {', '.join(lacking)}" if access is Access.REAL else ""
        output.note(f"devices attach to the embedded access network{why}")
        yield None
        return
    with plugged(count) as cables:
        output.note(
            f"devices attach at {count} wired 802.1X ports: hostapd and wpa_supplicant speak EAP-AKA' there, "
            f"and messages go to {_broker()}"
        )
        yield cables


def _broker() -> str:
    return "mosquitto" if MOSQUITTO.there else "the embedded broker (mosquitto is not installed)"


@dataclass(frozen=True, slots=True)
class _Way:
    """How the devices run, and over what they talk."""

    isolate: bool
    coap: bool
    cables: Cables | None


def _play(places: Places, count: int, way: _Way, *, keep: bool, json_file: Path | None) -> Report:
    with FleetDisplay(count) as display, Family(places.root / "output") as family:
        world = World(places, family, display.say, coap=way.coap, cables=way.cables)
        addresses = world.open()
        parties = world.populate(addresses)
        batch = trade.manufacture(places, addresses, count, display.say)
        display.update({Stage.MADE: count})
        holding = trade.sell(places, batch, display.say)
        trade.choose(places, parties, holding, count, display.say)
        display.update({Stage.DEPLOYED: count})
        report = _switch_on(places, addresses, count, family, display, way=way)
        if json_file is not None:
            write_atomic(json_file, (json.dumps(report.values()) + "\n").encode(), 0o644)
        display.finish()
        _conclude(report)
        if way.cables is not None:
            _tell_traffic(places, way.cables)
        if keep:
            _leave_running(places, family)
    return report


def _switch_on(
    places: Places, addresses: Addresses, count: int, family: Family, display: FleetDisplay, *, way: _Way
) -> Report:
    directories = sorted(path for path in places.devices.iterdir() if path.is_dir())
    began = time.monotonic()
    processes = switch_on(directories, family, isolate=way.isolate, cables=way.cables)
    display.say(f"{count} devices are switched on, in {processes} processes")
    recorder = Recorder(places)
    moved_at, counts = began, recorder.read()
    while counts.connected < count and time.monotonic() - moved_at < PATIENCE:
        family.check()
        time.sleep(PAUSE)
        newer = recorder.read()
        if newer != counts:
            moved_at, counts = time.monotonic(), newer
            display.update(counts.stages())
    return Report(count, counts, recorder.transactions(addresses.node), time.monotonic() - began)


def _conclude(report: Report) -> None:
    output.note(
        f"{report.counts.connected} of {report.devices} devices connected {report.seconds:.1f} s after power-on, "
        f"with {report.ledger_transactions} ledger transactions"
    )


def _tell_traffic(places: Places, cables: Cables) -> None:
    """Say what has really passed the ports, and what the broker has really taken."""
    passed = [moved(port) for port in cables.ports]
    total = sum(one.sent + one.received for one in passed)
    used = sum(one.sent > 0 for one in passed)
    messages = sp_status(places.sp).messages
    output.note(f"{total} bytes have passed {used} ports; {messages} messages are read from {_broker()}")


def _leave_running(places: Places, family: Family) -> None:
    program = Path(sys.executable).with_name("firstlight")
    output.note(
        f"""
The world goes on running in {places.root}. In another terminal:

  {program} owner status {places.owner}
  {program} owner holdings {places.owner}
  {program} mno status {places.mno}
  {program} sp status {places.sp}
  {program} node counts {places.node}
  {program} owner freeze {places.owner} --select 0    # the first device loses network and service
  {program} owner unfreeze {places.owner} --select 0  # and gets them again

Ctrl-C ends it."""
    )
    try:
        family.watch()
    except KeyboardInterrupt:
        output.note("ending the world")
