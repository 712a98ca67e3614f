"""A world of real processes for tests: the demo's own, with a gateway in front that can be told to lie.

Everything is done by ``firstlight`` commands over loopback sockets. Devices hold the interceptor's address as their
gateway, so whatever a test makes it do happens to them, and to the owner.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import firstlight
from firstlight.cli.demo import trade
from firstlight.cli.demo.commands import ENVIRONMENT, arguments
from firstlight.cli.demo.trade import Holding
from firstlight.cli.demo.world import Addresses, Places, World
from firstlight.cli.processes import Family
from firstlight.errors import FirstlightError
from firstlight.files import write_atomic
from firstlight.identity.birth import BirthCredential
from firstlight.roles.device.memory import BIRTH
from firstlight.roles.measure import software_digest
from firstlight.stores.exchanges import RETENTION_NS, GrantState
from firstlight.testing.datagram_tap import DatagramTap
from firstlight.testing.interceptor import Interceptor
from firstlight.transports.endpoint import read_endpoint

PATIENCE = 180.0
"""Seconds after which what a test waits for will not come; nothing that goes well depends on it."""
PAUSE = 0.05
_COMMITTED = 6
"""Which column of an exchange says when it was committed (Unix ns)."""
HOUSEKEEPING = frozenset({"certificate_meta", "sqlite_sequence"})
"""Tables that change by themselves: the number of the revocation list, which a provider issues anew in time, and what
SQLite notes about counters of tables that are looked at themselves."""
TURNS = 3
QUIET = 0.4
"""Seconds without a change after which the stores are taken to be at rest."""
_APART = {
    "mno": "SELECT id FROM issued JOIN subscription ON grant_id = id"
    " WHERE (state, status) NOT IN (VALUES (1, 1), (2, 2), (3, 4)) AND status != 3",
    "sp": "SELECT id FROM issued JOIN certificate ON grant_id = id"
    " WHERE (issued.state, certificate.state) NOT IN (VALUES (1, 1), (2, 2), (3, 3))",
}
"""Grants that stand otherwise than what was given out for them: used for the first time, or ended, a moment ago."""
STORES = ("mno", "sp", "owner", "gateway", "node")
"""The roles that keep anything in a database."""
Rows = Mapping[str, Counter[str]]
"""All rows of a database as text, by table."""


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
class Reading:
    """A database that stays open for reading, with its rows as they were when it last changed."""

    connection: sqlite3.Connection
    version: int = -1
    found: Rows = field(default_factory=dict)

    @classmethod
    def of(cls, database: Path) -> Reading:
        """Open a database."""
        return cls(sqlite3.connect(f"file:{database}?mode=ro", uri=True, check_same_thread=False))

    def rows(self) -> Rows:
        """Return all rows, read again only if somebody has written since."""
        ((version,),) = self.connection.execute("PRAGMA data_version").fetchall()
        if version != self.version:
            self.version, self.found = version, {name: Counter(rows) for name, rows in _tables(self.connection)}
        return self.found


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
    ledger: Interceptor
    """Stands between the node and everybody who asks it: manufacturer, owners, MNO and SP."""
    software: bytes
    """The digest of the program when the world was opened."""
    tap: DatagramTap
    """What carries CoAP to the gateway: under the interceptor's port number, so that both are one gateway."""
    spare: list[Path] = field(default_factory=list)
    rested: str = ""
    """The stores' digest when they were last seen at rest."""
    stirred: bool = False
    """Whether a device was switched on since; what it left behind may still be on its way into a store."""
    readings: dict[Path, Reading] = field(default_factory=dict, repr=False)

    def device(self) -> Path:
        """Return a device that has never been switched on."""
        assert self.spare, "more tests share this world than it has devices for"
        return self.spare.pop(0)

    def over_coap(self, device: Path) -> Path:
        """Return a device that now knows of the gateway over CoAP only, as if it had been born so."""
        birth = BirthCredential.decode((device / BIRTH).read_bytes())
        write_atomic(device / BIRTH, replace(birth, gateways=(self.tap.url,)).encode())
        return device

    def coap(self, role: str) -> str:
        """Return where a role's server listens for CoAP."""
        found = read_endpoint(self.state(role)).coap
        assert found is not None
        return found

    def switch_on(
        self, device: Path, *, until: Callable[[Outcome], bool] | None = None, seconds: float = PATIENCE
    ) -> Outcome:
        """Run a device once, in an empty environment, until it ends, ``until`` holds, or ``seconds`` are over."""
        self.stirred = True
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

    def switch_on_together(
        self, devices: Sequence[Path], *, until: Callable[[Outcome], bool], seconds: float = PATIENCE
    ) -> dict[str, Outcome]:
        """Run several devices in one process until ``until`` holds for each of them; return what became of each."""
        self.stirred = True
        output = self.places.root / "output" / f"fleet-{time.monotonic_ns()}.out"

        def outcomes() -> dict[str, Outcome]:
            lines = tuple(_json_lines(output))
            return {
                one.name: Outcome(
                    None,
                    tuple(line for line in lines if line.get("device") == one.name),
                    tuple(_json_lines(one / "log.jsonl")),
                )
                for one in devices
            }

        with output.open("wb") as file:
            process = subprocess.Popen(  # noqa: S603 - our own program
                arguments("device", "fleet", *devices, "--json"),
                env={},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
            try:
                end = time.monotonic() + seconds
                while not all(until(one) for one in outcomes().values()):
                    assert process.poll() is None, output.read_text()
                    assert time.monotonic() < end, f"not all came so far: {outcomes()}"
                    time.sleep(PAUSE)
                return outcomes()
            finally:
                _end(process)

    def connects(self, device: Path) -> Outcome:
        """Switch a device on and check that it gets all the way: the honest exchange."""
        outcome = self.switch_on(device)
        changed = software_digest(Path(firstlight.__file__).parent) != self.software
        assert outcome.code == 0 or not changed, "the program was edited meanwhile, so attestation fails: run again"
        assert outcome.code == 0, f"the honest journey failed: {outcome.lines[-5:]} {outcome.log[-5:]}"
        return outcome

    def switch_on_all(
        self, devices: Sequence[Path], *, seconds: float = PATIENCE, stage: str = "connected"
    ) -> dict[str, Outcome]:
        """Run devices as tasks of one process until all are at ``stage``; return what each printed and logged."""
        self.stirred = True
        output = devices[0].parent.parent / "output" / f"fleet-{time.monotonic_ns()}.out"
        names = {device.name for device in devices}

        def there(outcome: Outcome) -> bool:
            return {line["device"] for line in outcome.lines if line.get("stage") == stage} >= names

        with output.open("wb") as file:
            words = arguments("device", "fleet", *devices, "--json")
            process = subprocess.Popen(  # noqa: S603 - our own program
                words, env={}, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, cwd=devices[0]
            )
            try:
                outcome = _watch(process, devices[0], output, there, seconds)
            finally:
                _end(process)
        return {
            one.name: Outcome(
                outcome.code,
                tuple(line for line in outcome.lines if line.get("device") == one.name),
                tuple(_json_lines(one / "log.jsonl")),
            )
            for one in devices
        }

    def state(self, role: str) -> Path:
        """Return the state directory of ``mno``, ``sp``, ``owner``, ``gateway`` and so on."""
        place: Path = getattr(self.places, role)
        return place

    def port(self, role: str, name: str) -> int:
        """Return where an access network (``attach``, ``forwarder``) or a ``broker`` listens."""
        number: int = json.loads((self.state(role) / "ports").read_bytes())[name]
        return number

    def url(self, role: str) -> str:
        """Return where a role's server listens."""
        return read_endpoint(self.state(role)).url

    @contextmanager
    def heard(self, role: str, *until: str) -> Iterator[list[str]]:
        """Collect the codes that a server logs while the context lasts, and on until all of ``until`` are there.

        The list is filled at the end.
        """
        path = self.state(role) / "log.jsonl"
        before, codes = path.stat().st_size, list[str]()
        yield codes
        end = time.monotonic() + PATIENCE
        while True:
            with path.open("rb") as file:
                file.seek(before)
                codes[:] = [str(json.loads(line)["code"]) for line in file.read().split(b"\n")[:-1]]
            if not Counter(until) - Counter(codes):
                return
            assert time.monotonic() < end, f"{role} logged {codes}, not {until}"
            time.sleep(PAUSE)

    def query(self, role: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Return what a query of a role's database gives."""
        (database,) = self.state(role).glob("*.sqlite")
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            return connection.execute(statement, values).fetchall()

    def rows(self, state: Path) -> dict[str, Counter[str]]:
        """Return all rows of the databases in ``state``, by table."""
        found: dict[str, Counter[str]] = {}
        for database in sorted(state.glob("*.sqlite")):
            if database not in self.readings:
                self.readings[database] = Reading.of(database)
            found.update(self.readings[database].rows())
        return found

    @contextmanager
    def only(self, state: Path, **added: int) -> Iterator[None]:
        """Check that the stores in ``state`` gain exactly so many rows by table, and that nothing else changes."""
        self.rest()
        with self._gaining({state: added}):
            yield

    @contextmanager
    def adding(self, role: str, **rows: int) -> Iterator[None]:
        """Check that of all stores of all roles only one role's gain rows, exactly so many by table."""
        with self._gaining({self.state(one): rows if one == role else {} for one in STORES}):
            yield

    @contextmanager
    def untouched(self, *more: Path) -> Iterator[None]:
        """Check that no row of any role's store changes (nor of those in ``more``) while the context lasts."""
        with self._gaining({state: {} for state in (*map(self.state, STORES), *more)}):
            yield

    @contextmanager
    def growth(self) -> Iterator[Counter[str]]:
        """Count by how many rows each table of each role's stores grows while the context lasts: ``mno.issued``, 1.

        The counter is filled at the end, once all is at rest.
        """
        self.settle()
        before, grown = self._sizes(), Counter[str]()
        yield grown
        self.settle()
        grown.update({name: size - before[name] for name, size in self._sizes().items() if size != before[name]})

    def _sizes(self) -> dict[str, int]:
        rows = {role: self.rows(self.state(role)) for role in STORES}
        return {f"{role}.{table}": found.total() for role, tables in rows.items() for table, found in tables.items()}

    @contextmanager
    def _gaining(self, added: Mapping[Path, Mapping[str, int]]) -> Iterator[None]:
        self.settle() if self.stirred else self._wait_until_told()
        before = {state: self.rows(state) for state in added}
        yield
        for state, tables in before.items():
            after = self.rows(state)
            gone = {name: lost for name, rows in tables.items() if (lost := _lost(name, rows - after[name]))}
            new = {name: rows - tables[name] for name, rows in after.items() if rows - tables[name]}
            assert not gone, f"rows of {state.name} changed or are gone: {str(gone)[:2_000]}"
            counts = {name: rows.total() for name, rows in new.items()}
            assert counts == added[state], f"rows of {state.name} were added: {str(new)[:2_000]}, not {added[state]}"

    @contextmanager
    def twin(self, role: str, **settings: int | str) -> Iterator[Path]:
        """Run a second server on a copy of a role's directory with some settings changed; give the copy."""
        at = self.places.root / f"{role}-twin-{time.monotonic_ns()}"
        shutil.copytree(self.state(role), at, ignore=shutil.ignore_patterns("endpoint", "log.jsonl", "announced"))
        path = at / f"{role}.toml"
        path.write_text(
            "\n".join(
                f"{key} = {settings[key]}" if (key := line.partition(" =")[0]) in settings else line
                for line in path.read_text().splitlines()
            )
        )
        child = self.family.start(at.name, arguments(role, "serve", at), environment=ENVIRONMENT, state_dir=at)
        try:
            self.family.wait_for_endpoint(child)
            if role in ("mno", "sp"):
                _until_logged(self.family, at, "endpoints-kept")
            yield at
        finally:
            self.family.forget(child)
            child.process.terminate()
            child.process.wait(PATIENCE)

    def fingerprint(self, *states: Path) -> str:
        """Return a digest of all rows of the databases in ``states`` (without it: MNO, SP and owner)."""
        total = hashlib.sha256()
        for state in states or (self.places.mno, self.places.sp, self.places.owner):
            for table, rows in self.rows(state).items():
                total.update(table.encode() + repr(sorted(rows.elements())).encode())
        return total.hexdigest()

    def rest(self) -> None:
        """Wait until the servers have stored what they were told: receipts are read, and each has had its turns.

        A server that has answered several times in a row has dealt with what lay before it, however slow the machine.
        """
        end = time.monotonic() + PATIENCE
        while True:
            before = self.fingerprint()
            for role in ("mno", "sp", "gateway", "owner"):
                self._turns(role)
            if self._receipts_read() and self.fingerprint() == before:
                return
            assert time.monotonic() < end, "the servers do not come to rest"
            time.sleep(PAUSE)

    def _turns(self, role: str) -> None:
        with contextlib.suppress(OSError, FirstlightError):  # one that a test has ended writes nothing
            connection = http.client.HTTPConnection(urlsplit(self.url(role)).netloc, timeout=PATIENCE)
            for _ in range(TURNS):
                connection.request("GET", "/healthz")
                connection.getresponse().read()
            connection.close()

    def settle(self) -> None:
        """Wait until nobody writes any more what an honest journey left behind: receipts read, sessions ended."""
        self.stirred = False
        self.rest()
        before, since = self.fingerprint(), time.monotonic()
        if before == self.rested and self._told():
            return
        end = since + PATIENCE
        while time.monotonic() < end and not (self._told() and time.monotonic() - since > QUIET):
            time.sleep(PAUSE)
            now = self.fingerprint()
            before, since = now, since if now == before else time.monotonic()
        self.rested = before

    def _wait_until_told(self) -> None:
        end = time.monotonic() + PATIENCE
        while not self._told():
            assert time.monotonic() < end, "the parties do not come to rest"
            time.sleep(PAUSE)

    def _told(self) -> bool:
        """Say whether all that is on its way between the parties, and inside of them, has come to its place.

        The owner has read all receipts, each party has noted the use of the grants in them, and each grant stands as
        the subscription or certificate does that belongs to it.
        """
        if not self._receipts_read() or any(self.query(role, _APART[role]) for role in _APART):
            return False
        used = {grant for (grant,) in self.query("owner", "SELECT grant_id FROM receipt")}
        waiting = "SELECT id FROM issued WHERE state = ?"
        return not any(
            grant in used for role in ("mno", "sp") for (grant,) in self.query(role, waiting, GrantState.PENDING)
        )

    def _receipts_read(self) -> bool:
        """Say whether the owner has read the newest of the receipts that he watches for."""
        with (
            closing(sqlite3.connect(f"file:{self.places.owner / 'owner.sqlite'}?mode=ro", uri=True)) as owner,
            closing(sqlite3.connect(f"file:{self.places.gateway / 'gateway.sqlite'}?mode=ro", uri=True)) as gateway,
        ):
            for watch, cursor in owner.execute("SELECT id, cursor FROM watch").fetchall():
                watched = owner.execute("SELECT locator FROM locator WHERE watch = ?", (watch,)).fetchall()
                marks = ",".join("?" * len(watched))
                query = f"SELECT coalesce(max(id), 0) FROM receipt WHERE locator IN ({marks})"  # noqa: S608
                if gateway.execute(query, [row[0] for row in watched]).fetchone()[0] > cursor:
                    return False
        return True

    @contextmanager
    def unchanged(self, *states: Path) -> Iterator[None]:
        """Check that no row of the stores changes while the context lasts."""
        watched = states or (self.places.mno, self.places.sp, self.places.owner)
        self.rest()
        before = {state: self.rows(state) for state in watched}
        yield
        for state, tables in before.items():
            now = self.rows(state)
            moved = {name: (now[name] - rows, rows - now[name]) for name, rows in tables.items() if now[name] != rows}
            assert not moved, f"a store of {state.name} has changed: {str(moved)[:2_000]}"


def open_lab(
    root: Path,
    family: Family,
    *,
    devices: int,
    deploy: bool = True,
    settings: Mapping[str, Mapping[str, int]] | None = None,
) -> Iterator[Lab]:
    """Build a world in ``root`` whose gateway is an interceptor, and yield it; ``settings`` are those of servers.

    Servers serve over CoAP too, which devices do not know of unless a test tells them (:meth:`Lab.over_coap`).
    """
    places = Places(root)
    world = World(places, family, lambda _: None, settings=settings, coap=True)
    front, datagrams = _front()
    with front as interceptor, datagrams as tap, Interceptor() as ledger:
        real = world.open(gateway_name=interceptor.url)
        interceptor.upstream, ledger.upstream = real.gateway, real.node
        tap.upstream = int(real.gateway.rpartition(":")[2])
        addresses = replace(real, gateway=interceptor.url, node=ledger.url, hint=interceptor.url)
        parties = world.populate(addresses)
        software = software_digest(Path(firstlight.__file__).parent)
        batch = trade.manufacture(places, addresses, devices, lambda _: None)
        holding = trade.sell(places, batch, lambda _: None)
        if deploy:
            trade.choose(places, parties, holding, devices, lambda _: None)
        for role in ("mno", "sp"):
            _until_logged(family, getattr(places, role), "registered")
        spare = sorted(path for path in places.devices.iterdir() if path.is_dir())
        yield Lab(places, family, addresses, interceptor, parties, batch, holding, ledger, software, tap, spare)


def _front() -> tuple[Interceptor, DatagramTap]:
    """Return an interceptor and a tap on ports of one number."""
    while True:
        interceptor = Interceptor()
        try:
            return interceptor, DatagramTap(int(interceptor.url.rpartition(":")[2]))
        except OSError:
            interceptor.close()


def _until_logged(family: Family, state: Path, code: str) -> None:
    log, wanted = state / "log.jsonl", f'"code":"{code}"'
    family.wait_until(lambda: wanted in log.read_text(), f"{state.name}: {code}", PATIENCE)


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


def _lost(table: str, gone: Counter[str]) -> Counter[str]:
    """Return the rows that may not be gone: all but exchanges of an age at which parties forget them."""
    if table != "exchange":
        return gone
    forgotten = time.time_ns() - RETENTION_NS
    return Counter({row: count for row, count in gone.items() if ast.literal_eval(row)[_COMMITTED] >= forgotten})


def _tables(connection: sqlite3.Connection) -> Iterator[tuple[str, list[str]]]:
    """Iterate over the tables of a database, each with its rows as text."""
    names: Sequence[tuple[str]] = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
    ).fetchall()
    for (table,) in names:
        if table not in HOUSEKEEPING:
            rows = connection.execute(f'SELECT * FROM "{table}"').fetchall()  # noqa: S608 - a name from the schema
            yield table, [repr(row) for row in rows]
