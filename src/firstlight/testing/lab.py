"""A world of real processes for tests: the demo's own, with a gateway in front that can be told to lie.

Everything is done by ``firstlight`` commands over loopback sockets. Devices hold the interceptor's address as their
gateway, so whatever a test makes it do happens to them, and to the owner.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from firstlight.cli.demo import trade
from firstlight.cli.demo.commands import arguments
from firstlight.cli.demo.trade import Holding
from firstlight.cli.demo.world import Addresses, Places, World
from firstlight.cli.processes import Family
from firstlight.testing.interceptor import Interceptor

PATIENCE = 40.0
PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a device process printed, line by line, and how it ended (None: it was stopped by the test)."""

    code: int | None
    lines: tuple[Mapping[str, Any], ...]
    log: tuple[Mapping[str, Any], ...]

    @property
    def codes(self) -> tuple[str, ...]:
        """All codes in what was printed and logged."""
        return tuple(str(line["code"]) for line in (*self.lines, *self.log) if line.get("code"))


@dataclass(slots=True)
class Lab:
    """The world, opened; ``spare`` are devices that nobody has switched on yet."""

    places: Places
    family: Family
    addresses: Addresses
    interceptor: Interceptor
    parties: Mapping[str, str]
    batch: str
    holding: Holding
    spare: list[Path] = field(default_factory=list)

    def device(self) -> Path:
        """Return a device that has never been switched on."""
        return self.spare.pop(0)

    def switch_on(
        self, device: Path, *, until: Callable[[Outcome], bool] | None = None, seconds: float = PATIENCE
    ) -> Outcome:
        """Run a device once, in an empty environment, until it ends, ``until`` holds, or ``seconds`` are over."""
        output = device.parent.parent / "output" / f"{device.name}-{time.monotonic_ns()}.out"
        with output.open("wb") as file:
            process = subprocess.Popen(  # noqa: S603 - our own program
                arguments("device", "run", device, "--once", "--json"),
                env={},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=device,
            )
            try:
                return _watch(process, device, output, until, seconds)
            finally:
                _end(process)

    def connects(self, device: Path) -> Outcome:
        """Switch a device on and check that it gets all the way: the honest exchange."""
        outcome = self.switch_on(device)
        assert outcome.code == 0, f"the honest journey failed: {outcome.lines[-5:]} {outcome.log[-5:]}"
        return outcome

    def fingerprint(self, *states: Path) -> str:
        """Return a digest of all rows of the databases in ``states`` (without it: MNO, SP and owner)."""
        total = hashlib.sha256()
        for state in states or (self.places.mno, self.places.sp, self.places.owner):
            for database in sorted(state.glob("*.sqlite")):
                total.update(_rows(database))
        return total.hexdigest()

    @contextmanager
    def unchanged(self, *states: Path) -> Iterator[None]:
        """Check that no row of the stores changes while the context lasts."""
        before = self.fingerprint(*states)
        yield
        assert self.fingerprint(*states) == before, "a store has changed"


def open_lab(root: Path, family: Family, *, devices: int, deploy: bool = True) -> Iterator[Lab]:
    """Build a world in ``root`` whose gateway is an interceptor, and yield it."""
    places = Places(root)
    world = World(places, family, lambda _: None)
    with Interceptor() as interceptor:
        real = world.open(gateway_name=interceptor.url)
        interceptor.upstream = real.gateway
        addresses = replace(real, gateway=interceptor.url)
        parties = world.populate(addresses)
        batch = trade.manufacture(places, addresses, devices, lambda _: None)
        holding = trade.sell(places, batch, lambda _: None)
        if deploy:
            trade.choose(places, parties, holding, devices, lambda _: None)
        spare = sorted(path for path in places.devices.iterdir() if path.is_dir())
        yield Lab(places, family, addresses, interceptor, parties, batch, holding, spare)


def copy_device(device: Path, to: Path) -> Path:
    """Return a copy of a device's directory: what a thief who opened it would have."""
    shutil.copytree(device, to)
    return to


def _watch(
    process: subprocess.Popen[bytes],
    device: Path,
    output: Path,
    until: Callable[[Outcome], bool] | None,
    seconds: float,
) -> Outcome:
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        if until is not None and until(outcome := _outcome(None, device, output)):
            return outcome
        time.sleep(PAUSE)
    return _outcome(process.poll(), device, output)


def _outcome(code: int | None, device: Path, output: Path) -> Outcome:
    return Outcome(code, tuple(_json_lines(output)), tuple(_json_lines(device / "log.jsonl")))


def _json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            value = {"text": line.decode(errors="replace")}
        yield value if isinstance(value, dict) else {"value": value}


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()


def _rows(database: Path) -> bytes:
    total = hashlib.sha256()
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        tables: Sequence[tuple[str]] = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
        ).fetchall()
        for (table,) in tables:
            rows = connection.execute(f'SELECT * FROM "{table}"').fetchall()  # noqa: S608 - a name from the schema
            total.update(table.encode() + repr(sorted(map(repr, rows))).encode())
    return total.digest()
