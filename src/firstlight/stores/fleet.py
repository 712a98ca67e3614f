"""What an owner knows of his fleet, in SQLite: deployed devices, where their receipts lie, and the receipts.

Receipts are asked for by *watches*: at most 1,024 locators at one gateway, with a cursor of their own, made together
when devices are deployed and never changed, so that no receipt is passed over. A watch's receipts and its cursor are
written in one transaction: nothing is lost or counted twice, whenever the process ends. A receipt is known by its
device and counter.

One object serves many threads; any number of processes may use one file. Every method raises :class:`StoreError`
(``database-unusable``).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from firstlight.sealing.receipt import Receipt, Step
from firstlight.stores.database import Database, Schema, Store

VERSION = 2
WATCHED = 1_024
"""The most locators in one watch."""
LARGEST = 2**63 - 1
BUSY_SECONDS = 20.0
"""How long to wait for another process: one that deploys a great many devices writes for long."""
_SCRIPT = """
CREATE TABLE device (
    id INTEGER PRIMARY KEY, batch BLOB NOT NULL, idx INTEGER NOT NULL, origin INTEGER NOT NULL, key BLOB NOT NULL,
    UNIQUE (batch, idx, origin)
) STRICT;
CREATE TABLE tenure (
    batch BLOB NOT NULL, number INTEGER NOT NULL, origin INTEGER NOT NULL, PRIMARY KEY (batch, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE watch (id INTEGER PRIMARY KEY, gateway TEXT NOT NULL, cursor INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE locator (
    locator BLOB NOT NULL, watch INTEGER NOT NULL REFERENCES watch, device INTEGER NOT NULL REFERENCES device,
    PRIMARY KEY (locator, device)
) STRICT, WITHOUT ROWID;
CREATE INDEX locator_watch ON locator (watch);
CREATE TABLE receipt (
    device INTEGER NOT NULL REFERENCES device, counter INTEGER NOT NULL, step INTEGER NOT NULL,
    tenure INTEGER NOT NULL, revision INTEGER NOT NULL, party BLOB NOT NULL, grant_id BLOB NOT NULL,
    time INTEGER NOT NULL, code TEXT NOT NULL, PRIMARY KEY (device, counter)
) STRICT, WITHOUT ROWID;
CREATE INDEX receipt_step ON receipt (step, device);
CREATE TABLE rejected (code TEXT PRIMARY KEY, count INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"""

_REFUSED = """
SELECT code, count(*) FROM receipt JOIN (SELECT device, max(counter) AS counter FROM receipt GROUP BY device)
    USING (device, counter) WHERE step = ? GROUP BY code ORDER BY code
"""


@dataclass(frozen=True, slots=True)
class Deployed:
    """A device that is deployed: its index, its attestation key (compressed), its receipt locator at each gateway."""

    index: int
    key: bytes
    locators: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Watch:
    """Locators at one gateway (:meth:`FleetStore.locators`), and the cursor after which to ask."""

    id: int
    gateway: str
    cursor: int


@dataclass(frozen=True, slots=True)
class Known:
    """Whose receipts lie under a locator: device ``id`` of this store, and what its receipts must fit."""

    id: int
    watch: int
    batch: bytes
    index: int
    origin: int
    key: bytes
    tenures: frozenset[int]


@dataclass(frozen=True, slots=True)
class Collected:
    """What one answer of a gateway brought: opened receipts by device, codes of those refused, the new cursor."""

    receipts: Sequence[tuple[int, Receipt]]
    rejected: Sequence[str]
    cursor: int


@dataclass(frozen=True, slots=True)
class Figures:
    """How the fleet stands: distinct devices with a receipt of each step, receipts in all, refused ones by code."""

    devices: int
    steps: Mapping[Step, int]
    receipts: int
    rejected: Mapping[str, int]
    refused: Mapping[str, int]
    """Devices whose newest receipt is of a refusal, by its code."""


@dataclass(frozen=True, slots=True)
class GrantRow:
    """One receipt with what it says."""

    batch: bytes
    index: int
    counter: int
    step: Step
    tenure: int
    revision: int
    party: bytes
    grant: bytes
    time: int
    code: str


class FleetStore(Store):
    """The store of one owner."""

    SCHEMA = Schema("a fleet", _SCRIPT, VERSION)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or create the database at ``path``, 0600; ``schema-unknown`` if another version made it."""
        return cls(Database.open(path, cls.SCHEMA, busy_seconds=BUSY_SECONDS))

    # --- deploying ------------------------------------------------------------------------------

    def deploy(self, batch: bytes, tenure: int, origin: int, devices: Iterable[Deployed]) -> int:
        """Keep devices of ``tenure`` and watch for their receipts; return how many were not known before.

        A device and its locators are kept once, however often they are deployed.
        """
        with self._database.transaction() as run:
            run.execute("INSERT OR IGNORE INTO tenure VALUES (?, ?, ?)", (batch, tenure, origin))
            added = 0
            watches: dict[str, tuple[int, int]] = {}
            for device in devices:
                added += run.execute(
                    "INSERT OR IGNORE INTO device (batch, idx, origin, key) VALUES (?, ?, ?, ?)",
                    (batch, device.index, origin, device.key),
                ).rowcount
                identifier = run.execute(
                    "SELECT id FROM device WHERE batch = ? AND idx = ? AND origin = ?", (batch, device.index, origin)
                ).fetchone()[0]
                for gateway, locator in device.locators.items():
                    watches[gateway] = _watch(run, watches.get(gateway), gateway, (locator, identifier))
        return added

    # --- collecting -----------------------------------------------------------------------------

    def watches(self) -> tuple[Watch, ...]:
        """Return all watches."""
        rows = self._database.rows("SELECT id, gateway, cursor FROM watch ORDER BY id")
        return tuple(Watch(one, gateway, cursor) for one, gateway, cursor in rows)

    def locators(self, watch: int) -> tuple[bytes, ...]:
        """Return the locators of a watch, which never change."""
        query = "SELECT locator FROM locator WHERE watch = ? ORDER BY locator"
        return tuple(row[0] for row in self._database.rows(query, watch))

    def known(self, locator: bytes) -> tuple[Known, ...]:
        """Return the devices whose receipts lie under ``locator``: one, or one for each tenure that held it."""
        query = (
            "SELECT device.id, watch, batch, idx, origin, key FROM locator JOIN device ON device.id = locator.device"
            " WHERE locator = ? ORDER BY origin DESC"
        )
        with self._database.reading():
            return tuple(
                Known(one, watch, batch, index, origin, key, self._tenures(batch, origin))
                for one, watch, batch, index, origin, key in self._database.rows(query, locator)
            )

    def _tenures(self, batch: bytes, origin: int) -> frozenset[int]:
        query = "SELECT number FROM tenure WHERE batch = ? AND origin = ?"
        return frozenset(row[0] for row in self._database.rows(query, batch, origin))

    def collect(self, watch: int, collected: Collected) -> int:
        """Keep what an answer brought and move the watch's cursor; return how many receipts are new.

        One with a counter that its device has used already is counted as ``receipt-replayed``, one with a counter or
        revision that SQLite cannot hold as ``receipt-out-of-range``.
        """
        with self._database.transaction() as run:
            added, codes = 0, list(collected.rejected)
            for device, receipt in collected.receipts:
                if max(receipt.counter, receipt.revision) > LARGEST:
                    codes.append("receipt-out-of-range")
                    continue
                row = (device, receipt.counter, int(receipt.step), receipt.tenure, receipt.revision)
                new = run.execute(
                    "INSERT OR IGNORE INTO receipt VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (*row, receipt.party, receipt.grant, receipt.time, receipt.code),
                ).rowcount
                added += new
                codes += [] if new else ["receipt-replayed"]
            for code in codes:
                run.execute("INSERT INTO rejected VALUES (?, 1) ON CONFLICT DO UPDATE SET count = count + 1", (code,))
            run.execute("UPDATE watch SET cursor = max(cursor, ?) WHERE id = ?", (collected.cursor, watch))
        return added

    # --- looking --------------------------------------------------------------------------------

    def figures(self) -> Figures:
        """Return how the fleet stands."""
        with self._database.reading() as connection:
            run = connection.execute
            devices = run("SELECT count(*) FROM (SELECT DISTINCT batch, idx FROM device)").fetchone()[0]
            steps = dict(run("SELECT step, count(DISTINCT device) FROM receipt GROUP BY step").fetchall())
            receipts = run("SELECT count(*) FROM receipt").fetchone()[0]
            rejected = dict(run("SELECT code, count FROM rejected ORDER BY code").fetchall())
            refused = dict(run(_REFUSED, (int(Step.REFUSED),)).fetchall())
        return Figures(
            devices,
            {step: steps.get(int(step), 0) for step in Step if step is not Step.REFUSED},
            receipts,
            rejected,
            refused,
        )

    def grants(self) -> tuple[GrantRow, ...]:
        """Return all receipts, by device and counter."""
        query = (
            "SELECT batch, idx, counter, step, tenure, revision, party, grant_id, time, code"
            " FROM receipt JOIN device ON device.id = receipt.device ORDER BY batch, idx, counter"
        )
        return tuple(
            GrantRow(batch, index, counter, Step(step), tenure, revision, party, grant, time, code)
            for batch, index, counter, step, tenure, revision, party, grant, time, code in self._database.rows(query)
        )


def _watch(
    run: sqlite3.Connection, current: tuple[int, int] | None, gateway: str, entry: tuple[bytes, int]
) -> tuple[int, int]:
    """Put (locator, device) under the watch that is being filled, (id, entries so far), or under a new one."""
    if run.execute("SELECT 1 FROM locator WHERE locator = ? AND device = ?", entry).fetchone():
        return current or (0, WATCHED)
    if current is None or current[1] >= WATCHED:
        made = run.execute("INSERT INTO watch (gateway) VALUES (?)", (gateway,)).lastrowid or 0
        current = made, 0
    run.execute("INSERT INTO locator VALUES (?, ?, ?)", (entry[0], current[0], entry[1]))
    return current[0], current[1] + 1
