"""An engine's file: SQLite in WAL mode with synchronous FULL, one transaction for each block.

Tables: ``meta`` (genesis; under CometBFT, which keeps the blocks itself, also which one was applied last), ``blocks``,
``transactions`` with ``counts`` by kind, ``records`` (the newest state), and ``pages`` of ownership tries. Pages are
kept by the height that wrote them as long as a head that is still served needs them.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from firstlight.chain.block import Header, Nanoseconds
from firstlight.chain.commit import Commit
from firstlight.encoding import Bytes32, Record, Uint, decode
from firstlight.engines.blocks import Block
from firstlight.engines.port import Committed, Genesis
from firstlight.errors import StoreError
from firstlight.ledger.transaction import Kind

SCHEMA = 1
_APPLICATION = 0x464C4731
_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE blocks (height INTEGER PRIMARY KEY, header BLOB NOT NULL, closing BLOB NOT NULL, results BLOB NOT NULL);
CREATE TABLE transactions (
    serial INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, height INTEGER NOT NULL, position INTEGER NOT NULL,
    kind INTEGER NOT NULL, outcome BLOB NOT NULL, data BLOB NOT NULL
);
CREATE INDEX by_height ON transactions (height, position);
CREATE TABLE counts (kind INTEGER PRIMARY KEY, count INTEGER NOT NULL);
CREATE TABLE records (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE pages (
    batch BLOB NOT NULL, level INTEGER NOT NULL, number INTEGER NOT NULL, height INTEGER NOT NULL, data BLOB,
    PRIMARY KEY (batch, level, number, height)
);
"""
_PRUNE = (
    "DELETE FROM pages AS old WHERE EXISTS (SELECT 1 FROM pages AS newer WHERE newer.batch = old.batch AND"
    " newer.level = old.level AND newer.number = old.number AND newer.height > old.height AND newer.height <= ?)"
)

PageRow = tuple[bytes, int, int, bytes | None]
"""Batch, level, number, and the page's bytes or None if it is gone."""


@dataclass(frozen=True, slots=True)
class Applied(Record):
    """The last block whose transactions have been applied, where somebody else keeps the blocks."""

    height: Uint
    time: Nanoseconds
    app_hash: Bytes32


@dataclass(frozen=True, slots=True)
class Step:
    """What one block and its successors add to the file."""

    blocks: Sequence[Block]
    transactions: Sequence[tuple[Committed, bytes, bytes]]
    """Each with its outcome's bytes and its own."""
    records: Mapping[str, bytes]
    pages: Sequence[PageRow]
    floor: int
    """The lowest height whose pages are still needed."""
    applied: Applied | None = None

    @property
    def height(self) -> int:
        """The height of the block whose transactions these are."""
        return self.blocks[0].header.height if self.applied is None else self.applied.height


class Store:
    """One ledger file, held exclusively. Writing is for one thread; reading is for any."""

    def __init__(self, path: Path) -> None:
        """Open or make the file.

        Raises :class:`StoreError`: ``ledger-locked`` (another process has it), ``ledger-unreadable`` (not such a file),
        ``schema-too-new`` (made by a newer Firstlight).
        """
        self._path = path
        self._lock = _hold(path.with_name(path.name + ".lock"))
        self._reading = threading.Lock()
        try:
            with _wrapped("ledger-unreadable"):
                self._writer = _connect(path)
                _prepare(self._writer, path)
                self._reader = _connect(path)
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Close the file and let go of it."""
        with self._reading:
            self._reader.close()
        self._writer.close()
        os.close(self._lock)

    # --- writing ----------------------------------------------------------------------------------

    def begin(self, genesis: Genesis, records: Mapping[str, bytes], blocks: Sequence[Block]) -> None:
        """Write the genesis, its state and first blocks; ``ledger-not-written``."""
        with self._transaction() as connection:
            connection.execute("INSERT INTO meta VALUES ('genesis', ?)", (genesis.encode(),))
            _write(connection, Step(blocks, (), records, (), 0))

    def append(self, step: Step) -> None:
        """Write a block and its successors in one transaction, durably; ``ledger-not-written`` if that fails."""
        with self._transaction() as connection:
            _write(connection, step)

    def prune(self, floor: int) -> None:
        """Drop all page versions that no height from ``floor`` on needs."""
        with self._transaction() as connection:
            connection.execute(_PRUNE, (floor,))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _wrapped("ledger-not-written"):
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def replace(self, step: Step) -> None:
        """Write a whole state in place of the one that is there, in one transaction; ``ledger-not-written``."""
        with self._transaction() as connection:
            for table in ("blocks", "transactions", "counts", "records", "pages"):
                connection.execute(f"DELETE FROM {table}")  # noqa: S608 - a name of ours
            _write(connection, step)

    # --- reading ----------------------------------------------------------------------------------

    def applied(self) -> Applied | None:
        """Return the last block that was applied; nothing if there is none, or where the blocks are in this file."""
        row = self._one("SELECT value FROM meta WHERE name = 'applied'", ())
        return None if row is None else Applied.decode(row[0])

    def genesis(self) -> Genesis | None:
        """Return the genesis; nothing in a new file."""
        row = self._one("SELECT value FROM meta WHERE name = 'genesis'", ())
        return None if row is None else Genesis.decode(row[0])

    def records(self) -> dict[str, bytes]:
        """Return all records of the newest state."""
        with self._reading, _wrapped("ledger-unreadable"):
            return dict(self._reader.execute("SELECT name, value FROM records"))

    def last_block(self) -> Block | None:
        """Return the newest block."""
        return _block(self._one("SELECT header, closing, results FROM blocks ORDER BY height DESC LIMIT 1", ()))

    def block(self, height: int) -> Block | None:
        """Return the block at ``height``."""
        return _block(self._one("SELECT header, closing, results FROM blocks WHERE height = ?", (height,)))

    def committed(self, transaction: bytes) -> Committed | None:
        """Return what became of a transaction."""
        sql = "SELECT id, kind, height, position, outcome FROM transactions WHERE id = ?"
        row = self._one(sql, (transaction,))
        if row is None:
            return None
        subject, tenure, work = decode(row[4])
        return Committed(row[0], Kind(row[1]), row[2], row[3], subject, tenure, work)

    def transactions(self, height: int) -> tuple[bytes, ...]:
        """Return the transactions of the block at ``height``, in order."""
        with self._reading, _wrapped("ledger-unreadable"):
            sql = "SELECT data FROM transactions WHERE height = ? ORDER BY position"
            return tuple(row[0] for row in self._reader.execute(sql, (height,)))

    def counts(self) -> dict[Kind, int]:
        """Return how many transactions of each kind there are."""
        with self._reading, _wrapped("ledger-unreadable"):
            return {Kind(kind): count for kind, count in self._reader.execute("SELECT kind, count FROM counts")}

    def page(self, batch: bytes, level: int, number: int, height: int) -> bytes:
        """Return a page as it was at ``height``; ``page-missing`` if there was none."""
        sql = (
            "SELECT data FROM pages WHERE batch = ? AND level = ? AND number = ? AND height <= ?"
            " ORDER BY height DESC LIMIT 1"
        )
        row = self._one(sql, (batch, level, number, height))
        if row is None or row[0] is None:
            raise StoreError("page-missing", f"page {level}/{number} of batch {batch.hex()} at height {height}")
        return bytes(row[0])

    def frozen(self) -> Frozen:
        """Return this moment's state, for reading in any one thread while the file goes on; close it."""
        return Frozen(self._path)

    def _one(self, sql: str, arguments: Sequence[object]) -> tuple[Any, ...] | None:
        with self._reading, _wrapped("ledger-unreadable"):
            row: tuple[Any, ...] | None = self._reader.execute(sql, arguments).fetchone()
            return row


class Frozen:
    """The state of one moment, read from the file while others write; a context manager."""

    def __init__(self, path: Path) -> None:
        """Hold on to the newest state; :class:`StoreError` (``ledger-unreadable``)."""
        with _wrapped("ledger-unreadable"):
            self._connection = _connect(path)
            self._connection.execute("BEGIN")
            row = self._connection.execute("SELECT value FROM meta WHERE name = 'applied'").fetchone()
        self.applied = None if row is None else Applied.decode(row[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def records(self) -> Iterator[tuple[str, bytes]]:
        """Yield the records by name, in the order of their names."""
        with _wrapped("ledger-unreadable"):
            yield from self._connection.execute("SELECT name, value FROM records ORDER BY name")

    def pages(self) -> Iterator[tuple[bytes, int, int, bytes]]:
        """Yield batch, level, number and bytes of each page in its newest version, in that order."""
        sql = "SELECT batch, level, number, data FROM pages ORDER BY batch, level, number, height"
        last: tuple[bytes, int, int, bytes | None] | None = None
        with _wrapped("ledger-unreadable"):
            for row in self._connection.execute(sql):
                if last is not None and last[:3] != row[:3] and last[3] is not None:
                    yield (*last[:3], last[3])
                last = row
        if last is not None and last[3] is not None:
            yield (*last[:3], last[3])


class PagesAt:
    """The pages of one batch as they were at one height (:class:`firstlight.trees.ownership.PageSource`)."""

    __slots__ = ("_batch", "_height", "_store")

    def __init__(self, store: Store, batch: bytes, height: int) -> None:
        """Read those of ``batch`` at ``height``."""
        self._store = store
        self._batch = batch
        self._height = height

    def load(self, level: int, number: int) -> bytes:
        """Return a page's bytes; :class:`StoreError` (``page-missing``)."""
        return self._store.page(self._batch, level, number, self._height)


def _write(connection: sqlite3.Connection, step: Step) -> None:
    blocks = [(one.header.height, one.header.encode(), one.commit.encode(), one.results) for one in step.blocks]
    connection.executemany("INSERT INTO blocks VALUES (?, ?, ?, ?)", blocks)
    rows = [
        (one.id, one.height, one.position, int(one.kind), outcome, data) for one, outcome, data in step.transactions
    ]
    connection.executemany(
        "INSERT INTO transactions (id, height, position, kind, outcome, data) VALUES (?, ?, ?, ?, ?, ?)", rows
    )
    connection.executemany(
        "INSERT INTO counts VALUES (?, 1) ON CONFLICT (kind) DO UPDATE SET count = count + 1",
        [(row[3],) for row in rows],
    )
    connection.executemany("INSERT OR REPLACE INTO records VALUES (?, ?)", step.records.items())
    if step.pages:
        _write_pages(connection, step.pages, step.height, step.floor)
    if step.applied is not None:
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('applied', ?)", (step.applied.encode(),))


def _write_pages(connection: sqlite3.Connection, pages: Iterable[PageRow], height: int, floor: int) -> None:
    places = [(batch, level, number) for batch, level, number, _ in pages]
    # Of the versions of these pages up to the floor, only the newest is still needed.
    connection.executemany(
        "DELETE FROM pages WHERE batch = ?1 AND level = ?2 AND number = ?3 AND height < (SELECT max(height) FROM pages"
        " WHERE batch = ?1 AND level = ?2 AND number = ?3 AND height <= ?4)",
        [(*place, floor) for place in places],
    )
    rows = [(batch, level, number, height, data) for batch, level, number, data in pages]
    connection.executemany("INSERT OR REPLACE INTO pages VALUES (?, ?, ?, ?, ?)", rows)


def _block(row: tuple[Any, ...] | None) -> Block | None:
    if row is None:
        return None
    return Block(Header.decode(row[0]), Commit.decode(row[1]), row[2])


def _hold(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError("ledger-unreadable", f"{path}: {error.strerror or error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StoreError("ledger-locked", f"{path} is held by another process", hint="stop that node first") from error
    return descriptor


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA cache_size = -16384")
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    with closing(connection.execute("PRAGMA user_version")) as cursor:
        version = cursor.fetchone()[0]
    with closing(connection.execute("PRAGMA application_id")) as cursor:
        application = cursor.fetchone()[0]
    with closing(connection.execute("SELECT count(*) FROM sqlite_master")) as cursor:
        tables = cursor.fetchone()[0]
    if tables and application != _APPLICATION:
        raise StoreError("ledger-unreadable", f"{path} is another program's database")
    if version > SCHEMA:
        raise StoreError("schema-too-new", f"schema {version}, this is {SCHEMA}", hint="use a newer Firstlight")
    if tables:
        return
    marks = f"PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {SCHEMA};"
    connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} {marks} COMMIT;")


@contextmanager
def _wrapped(code: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(code, str(error)) from error
