"""What a gateway holds for others, in SQLite: envelopes, receipts, and bodies by their hash.

An envelope's slot is (locator, batch, tenure, revision), so an owner can write into no slot but those of the
tenures whose key signed the deposit: a former owner, who still knows the locators, overwrites nothing. A tenure
has slots for its live and its next plan revision only, no more in each than it has devices. A receipt lies under
its locator; there the oldest makes room, as nobody can say whose receipts are genuine but the owner.

What is deposited twice is there once. Each method is one durable transaction; one object serves many threads.
Every method raises :class:`StoreError` (``database-unusable``).
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from firstlight.errors import StoreError
from firstlight.sealing import receipt
from firstlight.sealing.deposit import DepositList
from firstlight.stores.database import Database, Schema, Store

VERSION = 1
_SCRIPT = """
CREATE TABLE envelope (
    id INTEGER PRIMARY KEY AUTOINCREMENT, locator BLOB NOT NULL, batch BLOB NOT NULL, tenure INTEGER NOT NULL,
    revision INTEGER NOT NULL, sealed BLOB NOT NULL, UNIQUE (locator, batch, tenure, revision)
) STRICT;
CREATE INDEX envelope_tenure ON envelope (batch, tenure, revision);
CREATE TABLE held (
    batch BLOB NOT NULL, tenure INTEGER NOT NULL, revision INTEGER NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (batch, tenure, revision)
) STRICT, WITHOUT ROWID;
CREATE TABLE receipt (
    id INTEGER PRIMARY KEY AUTOINCREMENT, locator BLOB NOT NULL, digest BLOB NOT NULL, sealed BLOB NOT NULL,
    received_at INTEGER NOT NULL, UNIQUE (locator, digest)
) STRICT;
CREATE INDEX receipt_age ON receipt (received_at);
CREATE TABLE blob (digest BLOB PRIMARY KEY, body BLOB NOT NULL) STRICT;
CREATE TABLE total (kind TEXT PRIMARY KEY, count INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO total VALUES ('receipt', 0);
"""
_MAX_REVISION = 2**63 - 1
_SLOT = "batch = ? AND tenure = ? AND revision = ?"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a gateway keeps: in all, of receipts under one locator, and in bytes of one body."""

    envelopes: int = 4_000_000
    receipts: int = 4_000_000
    receipts_per_locator: int = 64
    blobs: int = 4_096
    blob_size: int = 16_384


@dataclass(frozen=True, slots=True)
class StoredMail:
    """An envelope or a receipt as it lies there; ``id`` rises in the order of arrival and serves to ask for more."""

    id: int
    locator: bytes
    sealed: bytes


class MailStore(Store):
    """The store of one gateway."""

    SCHEMA = Schema("mail", _SCRIPT, VERSION)

    def __init__(self, database: Database, limits: Limits) -> None:
        """Use a database that this object has to itself; use :meth:`open`."""
        super().__init__(database)
        self._limits = limits

    @classmethod
    def open(cls, path: Path, limits: Limits | None = None) -> Self:
        """Open or create the database at ``path``; ``schema-unknown`` if another version made it."""
        return cls(Database.open(path, cls.SCHEMA), limits or Limits())

    @classmethod
    def in_memory(cls, limits: Limits | None = None) -> Self:
        """Return a store that lives as long as the object."""
        return cls(Database.in_memory(cls.SCHEMA), limits or Limits())

    # --- envelopes ------------------------------------------------------------------------------

    def deposit(self, listed: DepositList, *, live_revision: int, count: int) -> int:
        """Keep the envelopes of a *verified* deposit; return how many slots of its revision are filled.

        ``live_revision`` and ``count`` are those of the tenure's record at the gateway's head; slots of earlier
        revisions are cleared. Raises ``revision-not-current`` (neither the live nor the next), ``slots-full``
        (more locators than the tenure has devices), ``store-full``; then nothing has changed. Of slots that were filled
        before some devices were sold, what is there can still be replaced.
        """
        if listed.revision not in {live_revision, live_revision + 1} or listed.revision > _MAX_REVISION:
            raise StoreError("revision-not-current", f"revision {listed.revision}, live is {live_revision}")
        slot = (listed.batch, listed.tenure, listed.revision)
        rows = [(entry.locator, *slot, entry.envelope) for entry in listed.entries]
        with self._database.transaction() as run:
            _clear(run, listed.batch, listed.tenure, live_revision)
            before = run.execute(f"SELECT count FROM held WHERE {_SLOT}", slot).fetchone()  # noqa: S608
            held = before[0] if before else 0
            marks = ",".join("?" * len(rows))
            known = run.execute(
                f"SELECT count(*) FROM envelope WHERE {_SLOT} AND locator IN ({marks})",  # noqa: S608
                (*slot, *(row[0] for row in rows)),
            ).fetchone()[0]
            filled: int = held + len(rows) - known
            if filled > max(count, held):
                raise StoreError("slots-full", f"{filled} envelopes for {count} devices")
            if self._all_held(run) - held + filled > self._limits.envelopes:
                raise StoreError("store-full", "the gateway holds as many envelopes as it may")
            run.executemany(
                "INSERT INTO envelope (locator, batch, tenure, revision, sealed) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET sealed = excluded.sealed",
                rows,
            )
            run.execute("INSERT OR REPLACE INTO held VALUES (?, ?, ?, ?)", (*slot, filled))
        return filled

    def clear(self, batch: bytes, tenure: int, live_revision: int) -> None:
        """Clear a tenure's slots of revisions before ``live_revision``."""
        with self._database.transaction() as run:
            _clear(run, batch, tenure, live_revision)

    def drop(self, batch: bytes, tenure: int) -> None:
        """Clear all slots of a tenure that has ended."""
        with self._database.transaction() as run:
            _clear(run, batch, tenure, _MAX_REVISION)

    def envelopes(
        self, locator: bytes, *, after: int = 0, limit: int = 16, tenure: tuple[bytes, int] | None = None
    ) -> tuple[StoredMail, ...]:
        """Return up to ``limit`` envelopes under ``locator`` with an id above ``after``; a device tries all of them.

        With ``tenure`` (batch, number) only those that were left for that tenure: at most two, whoever else has left
        what there.
        """
        if tenure is not None:
            batch, number = tenure
            query = (
                "SELECT id, locator, sealed FROM envelope"
                " WHERE locator = ? AND batch = ? AND tenure = ? AND id > ? ORDER BY id LIMIT ?"
            )
            return self._mail(query, (locator, batch, number, after, limit))
        query = "SELECT id, locator, sealed FROM envelope WHERE locator = ? AND id > ? ORDER BY id LIMIT ?"
        return self._mail(query, (locator, after, limit))

    # --- receipts -------------------------------------------------------------------------------

    def put_receipt(self, locator: bytes, sealed: bytes, *, now: int) -> None:
        """Keep a receipt that came at ``now`` (Unix seconds); the oldest under its locator makes room.

        Raises ``wrong-size`` (no receipt, or no locator), ``store-full``.
        """
        if len(sealed) != receipt.SEALED_SIZE or len(locator) != 16:
            raise StoreError("wrong-size", f"a receipt has {receipt.SEALED_SIZE} bytes, its locator 16")
        row = (locator, hashlib.sha256(sealed).digest(), sealed, now)
        with self._database.transaction() as run:
            added = run.execute(
                "INSERT OR IGNORE INTO receipt (locator, digest, sealed, received_at) VALUES (?, ?, ?, ?)", row
            ).rowcount
            removed = run.execute(
                "DELETE FROM receipt WHERE id IN"
                " (SELECT id FROM receipt WHERE locator = ? ORDER BY id DESC LIMIT -1 OFFSET ?)",
                (locator, self._limits.receipts_per_locator),
            ).rowcount
            if _count_receipts(run, added - removed) > self._limits.receipts and added > removed:
                raise StoreError("store-full", "the gateway holds as many receipts as it may")

    def receipts(self, locators: Sequence[bytes], *, after: int = 0, limit: int = 512) -> tuple[StoredMail, ...]:
        """Return up to ``limit`` receipts under any of at most 1,024 ``locators``, with an id above ``after``.

        Raises ``too-many-locators``.
        """
        if len(locators) > 1_024:
            raise StoreError("too-many-locators", f"{len(locators)} locators, at most 1024 at once")
        marks = ",".join("?" * len(locators))
        query = f"SELECT id, locator, sealed FROM receipt WHERE locator IN ({marks}) AND id > ? ORDER BY id LIMIT ?"  # noqa: S608
        return self._mail(query, (*locators, after, limit))

    def expire_receipts(self, before: int) -> int:
        """Delete receipts that came before that time (Unix seconds); return how many."""
        with self._database.transaction() as run:
            removed = run.execute("DELETE FROM receipt WHERE received_at < ?", (before,)).rowcount
            _count_receipts(run, -removed)
        return removed

    # --- bodies by hash -------------------------------------------------------------------------

    def put_blob(self, body: bytes) -> bytes:
        """Keep a body and return its SHA-256, by which it is fetched; ``too-large``, ``store-full``."""
        if len(body) > self._limits.blob_size:
            raise StoreError("too-large", f"{len(body)} bytes, at most {self._limits.blob_size}")
        digest = hashlib.sha256(body).digest()
        with self._database.transaction() as run:
            run.execute("INSERT OR IGNORE INTO blob VALUES (?, ?)", (digest, body))
            if run.execute("SELECT count(*) FROM blob").fetchone()[0] > self._limits.blobs:
                raise StoreError("store-full", "the gateway holds as many bodies as it may")
        return digest

    def blob(self, digest: bytes) -> bytes | None:
        """Return the body with that SHA-256, or None."""
        row = self._database.row("SELECT body FROM blob WHERE digest = ?", digest)
        return row[0] if row else None

    # --- within ---------------------------------------------------------------------------------

    def _mail(self, query: str, arguments: tuple[bytes | int, ...]) -> tuple[StoredMail, ...]:
        return tuple(StoredMail(*row) for row in self._database.rows(query, *arguments))

    @staticmethod
    def _all_held(run: sqlite3.Connection) -> int:
        total: int = run.execute("SELECT coalesce(sum(count), 0) FROM held").fetchone()[0]
        return total


def _clear(run: sqlite3.Connection, batch: bytes, tenure: int, below: int) -> None:
    run.execute("DELETE FROM envelope WHERE batch = ? AND tenure = ? AND revision < ?", (batch, tenure, below))
    run.execute("DELETE FROM held WHERE batch = ? AND tenure = ? AND revision < ?", (batch, tenure, below))


def _count_receipts(run: sqlite3.Connection, change: int) -> int:
    row = run.execute("UPDATE total SET count = count + ? WHERE kind = 'receipt' RETURNING count", (change,)).fetchone()
    total: int = row[0]
    return total
