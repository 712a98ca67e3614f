"""The world that is cut: real processes by the installed command, those that are cut with the hook in them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from tests.power.interpreter import make_interpreter

from firstlight.cli.demo import trade
from firstlight.cli.demo.commands import ENVIRONMENT, run
from firstlight.cli.demo.trade import Holding
from firstlight.cli.demo.world import Places, World, change_settings
from firstlight.cli.processes import Child, Family
from firstlight.errors import FirstlightError
from firstlight.transports.endpoint import read_endpoint

PATIENCE = 240.0
"""Seconds for which a fact is waited for: a machine under load may take its time."""
PAUSE = 0.01
SERVERS = ("node", "gateway", "mno", "sp")
DEVICE = "device"


@dataclass(frozen=True, slots=True, order=True)
class Where:
    """A numbered point: whose, in which part of a recorded run (``start``, ``cold`` or ``warm``), and which."""

    role: str
    part: str
    kind: str
    what: str
    occurrence: int
    when: str

    def __str__(self) -> str:
        return f"{self.role} ({self.part}) {self.when} {self.kind} {self.what} #{self.occurrence}"


class NotReachedError(AssertionError):
    """A process was to die at a point that it never came to."""


@dataclass(slots=True)
class Bench:
    """The world, opened, with devices that nobody has switched on yet."""

    places: Places
    family: Family
    program: Path
    orders: Path
    parties: Mapping[str, str]
    holding: Holding
    chosen: Mapping[str, str]
    """What is deployed by role: party and order, as ``owner deploy`` takes them."""
    spare: list[Path]
    servers: dict[str, Child] = field(default_factory=dict)
    serials: Iterator[int] = field(default_factory=lambda: count(1))

    # --- orders to the hook -------------------------------------------------------------------------

    def arm(self, name: str, where: Where) -> int:
        """Order the process ``name`` to die at a point; return the order's serial number."""
        return self._order(name, {"point": [where.kind, where.what, where.occurrence], "when": where.when})

    def record(self, name: str) -> None:
        """Have the process ``name`` write down all points from now on."""
        (self.orders / f"{name}.points").unlink(missing_ok=True)
        self._order(name, {"record": True})

    def recorded(self, name: str) -> list[tuple[str, str, int, list[str]]]:
        """Return the points that the process has written down, in order, and have it stop."""
        self._order(name, {})
        lines = (self.orders / f"{name}.points").read_text().splitlines()
        return [tuple(json.loads(line)) for line in lines]

    def _order(self, name: str, what: dict[str, Any]) -> int:
        serial = next(self.serials)
        path = self.orders / f"{name}.order"
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps({"serial": serial, **what}))
        os.utime(temporary, ns=(serial, serial))
        temporary.replace(path)
        return serial

    def died(self, name: str, serial: int) -> int:
        """Return which process has died, or is about to, by that order; 0 for none."""
        try:
            found = json.loads((self.orders / f"{name}.died").read_bytes())
        except (FileNotFoundError, ValueError):
            return 0
        return int(found["pid"]) if found["serial"] == serial else 0

    # --- servers ------------------------------------------------------------------------------------

    def start(self, role: str) -> None:
        """Start a server of the world by its command, on its directory; return when it is ready or has died."""
        self.launch(role)
        self.ready(role)

    def launch(self, role: str) -> None:
        """Start a server; do not wait for it."""
        state = self.state(role)
        self.servers[role] = child = self.family.start(
            role, self._command(role, "serve", state), environment=ENVIRONMENT, state_dir=state
        )
        self.family.forget(child)

    def ready(self, role: str) -> bool:
        """Wait until a server that was started serves; False if it has died instead."""
        child = self.servers[role]

        def serves() -> bool:
            if child.process.poll() is not None:
                return True
            try:
                return read_endpoint(self.state(role)).pid == child.pid
            except FirstlightError:
                return False

        self.until(serves, f"{role} is ready")
        return child.process.poll() is None

    def state(self, role: str) -> Path:
        """Return a server's state directory."""
        place: Path = getattr(self.places, role)
        return place

    def kill(self, role: str) -> None:
        """Cut a server's power now."""
        child = self.servers[role]
        child.process.kill()
        child.process.wait()

    def mend(self) -> None:
        """Start all servers that do not run, whatever they died of."""
        for role, child in self.servers.items():
            self._order(role, {})
            if child.process.poll() is not None:
                self.start(role)

    def revive(self, role: str, serial: int | None) -> None:
        """Start a server again if it has died by order ``serial``; one that died by itself fails the test."""
        child = self.servers[role]
        if child.process.poll() is None:
            return
        by_order = serial is not None and self.died(role, serial) == child.pid
        assert by_order, f"{role} has ended by itself: {child.process.returncode}\n{child.last_lines()}"
        assert child.process.returncode == -signal.SIGKILL
        self.start(role)

    def restart(self, role: str, settings: Mapping[str, int]) -> None:
        """Start a server again with some of its settings changed."""
        change_settings(self.state(role) / f"{role}.toml", settings)
        self.kill(role)
        self.start(role)

    # --- devices ------------------------------------------------------------------------------------

    def device(self) -> Path:
        """Return a device that has never been switched on."""
        return self.spare.pop(0)

    @contextmanager
    def powered(self, device: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a device in an empty environment while the context lasts."""
        output = self.places.root / "output" / f"device-{device.name}.out"
        with output.open("ab") as file:
            process = subprocess.Popen(
                self._command("device", "run", device, "--json", *options),
                env={},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=device,
            )
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()

    def printed(self, device: Path) -> str:
        """Return the last that a device printed and logged."""
        texts = [self.places.root / "output" / f"device-{device.name}.out", device / "log.jsonl"]
        return "\n".join(text.read_text()[-1500:] for text in texts if text.exists())

    # --- waiting, commands --------------------------------------------------------------------------

    def until(self, fact: Callable[[], object], what: str, *, seconds: float = PATIENCE, pause: float = PAUSE) -> None:
        """Wait for a fact."""
        end = time.monotonic() + seconds
        while not fact():
            assert time.monotonic() < end, f"not within {seconds} s: {what}"
            time.sleep(pause)

    def replan(self, device: Path) -> None:
        """Deploy the plan anew for one device, a new tenure of its own; asked again it goes on where it was."""
        run("owner", "deploy", self.places.owner, *self._deployment(device))

    def replanning(self, device: Path) -> subprocess.Popen[bytes]:
        """Start the same without waiting."""
        return subprocess.Popen(
            self._command("owner", "deploy", self.places.owner, *self._deployment(device)),
            env=dict(ENVIRONMENT),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _deployment(self, device: Path) -> Sequence[object]:
        held = ("--batch", self.holding.batch, "--tenure", self.holding.tenure)
        chosen = ("--network", self.chosen["mno"], "--service", self.chosen["sp"])
        return (*held, *chosen, "--select", int(device.name))

    def _command(self, *words: object) -> list[str]:
        return [str(self.program), "-m", "firstlight", *(str(word) for word in words)]


def open_bench(root: Path, family: Family, devices: int) -> Bench:
    """Build a world in ``root``, deployed, and put the hook into the servers that are to be cut."""
    places = Places(root)
    world = World(places, family, lambda _: None)
    addresses = world.open()
    parties = world.populate(addresses)
    batch = trade.manufacture(places, addresses, devices, lambda _: None)
    holding = trade.sell(places, batch, lambda _: None)
    chosen = _deploy(places, parties, holding, devices)
    spare = sorted(path for path in places.devices.iterdir() if path.is_dir())
    program = make_interpreter(root / "interpreter")
    orders = root / "interpreter" / "power"
    bench = Bench(places, family, program, orders, parties, holding, chosen, spare)
    for role in SERVERS:
        child = next(one for one in family.children if one.name == role)
        family.forget(child)
        child.process.terminate()
        child.process.wait(PATIENCE)
        bench.launch(role)
    for role in SERVERS:
        assert bench.ready(role), bench.servers[role].last_lines()
    return bench


def _deploy(places: Places, parties: Mapping[str, str], holding: Holding, devices: int) -> dict[str, str]:
    held = ("--batch", holding.batch, "--tenure", holding.tenure)
    chosen = {}
    for role, state in (("mno", places.mno), ("sp", places.sp)):
        party = parties[role]
        number = run("owner", "order", places.owner, *held, "--party", party, "--devices", devices).text("order")
        run(role, "approve", state, number)
        chosen[role] = f"{party}:{number}"
    run("owner", "deploy", places.owner, *held, "--network", chosen["mno"], "--service", chosen["sp"])
    return chosen


def end(bench: Bench) -> None:
    """End the servers that are nobody else's to end."""
    for child in bench.servers.values():
        if child.process.poll() is None:
            child.process.kill()
        child.process.wait()
