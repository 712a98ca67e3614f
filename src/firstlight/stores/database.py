"""The one way in which the stores use SQLite: durable files, tables with a version, transactions, errors.

A file is private to its user (0600), in write-ahead mode and fully synchronous: what a transaction wrote outlives a
power cut. One :class:`Database` serves many threads, any number of processes may share the file. Several components
may keep their tables in one file; each has a :class:`Schema` of its own.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from firstlight.errors import StoreError

BUSY_SECONDS = 10.0
"""How long a statement waits for another process that writes."""
_MEMORY = ":memory:"


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of one component; ``script`` makes them, without a semicolon inside a statement.

    Where the ``version`` stands: in the table ``meta`` (key, value) of the component, or without one in the file's
    ``user_version``, of which there is one only. Tables without a version have never changed: their script makes
    what is missing.
    """

    name: str
    script: str
    version: int | None = None
    meta: str | None = None


class Database:
    """A connection that one store has to itself. Every method raises :class:`StoreError` (``database-unusable``)."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Use a connection in autocommit mode with its tables made; use :meth:`open` or :meth:`in_memory`."""
        self.connection = connection
        self.lock = threading.RLock()
        """Held by every method; who holds it has the connection to himself for several of them."""

    @classmethod
    def open(cls, path: Path, schema: Schema, *, busy_seconds: float = BUSY_SECONDS) -> Self:
        """Open or create the file at ``path`` and the tables in it; ``database-unusable``, ``schema-unknown``."""
        with wrapped():
            path.touch(mode=0o600)
        return cls._connect(str(path), schema, busy_seconds)

    @classmethod
    def in_memory(cls, schema: Schema) -> Self:
        """Return a database that lives as long as the object."""
        return cls._connect(_MEMORY, schema, BUSY_SECONDS)

    @classmethod
    def _connect(cls, place: str, schema: Schema, busy_seconds: float) -> Self:
        with wrapped(), contextlib.ExitStack() as undo:
            connection = sqlite3.connect(place, isolation_level=None, check_same_thread=False, timeout=busy_seconds)
            undo.callback(connection.close)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            prepare(connection, schema)
            undo.pop_all()
        return cls(connection)

    def close(self) -> None:
        """Close the database."""
        with self.lock, wrapped():
            self.connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write all of it, durably, or nothing; inside another one of this thread, be a part that fails alone."""
        with self.lock, wrapped(), _transaction(self.connection):
            yield self.connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Have the connection to oneself, for statements that stand alone."""
        with self.lock, wrapped():
            yield self.connection

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return what a query finds."""
        with self.lock:
            try:
                return self.connection.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise StoreError("database-unusable", str(error)) from error

    def row(self, query: str, *values: object) -> tuple[Any, ...] | None:
        """Return the first row that a query finds."""
        rows = self.rows(query, *values)
        return rows[0] if rows else None


class Store:
    """What all stores have in common: tables of their own, in a file that others may share."""

    SCHEMA: ClassVar[Schema]

    def __init__(self, database: Database) -> None:
        """Use a database that this object has to itself; use :meth:`open` or :meth:`in_memory`."""
        self._database = database

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or create the tables in the file at ``path``; ``database-unusable``, ``schema-unknown``."""
        return cls(Database.open(path, cls.SCHEMA))

    @classmethod
    def in_memory(cls) -> Self:
        """Return a store that lives as long as the object."""
        return cls(Database.in_memory(cls.SCHEMA))

    def close(self) -> None:
        """Close the database."""
        self._database.close()


def prepare(connection: sqlite3.Connection, schema: Schema) -> None:
    """Make a component's tables where they are missing, through a connection in autocommit mode.

    Raises :class:`StoreError`: ``database-unusable``, ``schema-unknown`` (another version made them, perhaps a newer
    one: they are left alone).
    """
    with wrapped():
        if schema.version is None:
            connection.executescript(schema.script)
            return
        found = _version(connection, schema)
        if found is None:
            with _transaction(connection):
                found = _version(connection, schema)  # another process may have made them meanwhile
                if found is None:
                    found = _make(connection, schema, schema.version)
    if found != schema.version:
        raise StoreError("schema-unknown", f"{schema.name} of version {found}, not {schema.version}")


@contextlib.contextmanager
def wrapped() -> Iterator[None]:
    """Raise what SQLite and the operating system raise inside as :class:`StoreError` (``database-unusable``)."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreError("database-unusable", str(error)) from error


@contextlib.contextmanager
def reading_only(path: Path) -> Iterator[sqlite3.Connection]:
    """Read the database at ``path`` beside whoever writes it; :class:`StoreError` (``database-unusable``)."""
    place = f"{path.absolute().as_uri()}?mode=ro"
    with wrapped(), contextlib.closing(sqlite3.connect(place, uri=True, timeout=5)) as opened:
        yield opened


def _version(connection: sqlite3.Connection, schema: Schema) -> int | None:
    """Return the version of the tables that are there; None if there are none."""
    if schema.meta is None:
        return connection.execute("PRAGMA user_version").fetchone()[0] or None
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (schema.meta,)).fetchone() is None:
        return None
    row = connection.execute(f"SELECT value FROM {schema.meta} WHERE key = 'version'").fetchone()  # noqa: S608
    return None if row is None else row[0]


def _make(connection: sqlite3.Connection, schema: Schema, version: int) -> int:
    """Make the tables in the caller's transaction, which ``executescript`` would end."""
    for statement in schema.script.split(";"):
        connection.execute(statement)
    if schema.meta is None:
        connection.execute(f"PRAGMA user_version = {version}")
    else:
        connection.execute(f"INSERT INTO {schema.meta} VALUES ('version', ?)", (version,))  # noqa: S608
    return version


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    inner = connection.in_transaction
    connection.execute("SAVEPOINT part" if inner else "BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("RELEASE part" if inner else "COMMIT")
    except BaseException:
        if connection.in_transaction:  # some failures, as of a full disc, make SQLite undo all by itself
            connection.execute("ROLLBACK TO part" if inner else "ROLLBACK")
        if inner and connection.in_transaction:
            connection.execute("RELEASE part")
        raise
