"""The messages that a service has read from its broker: from which credential and grant, when, how large.

What was in them goes to the service's application, not here. One object serves many threads.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from firstlight.errors import StoreError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS message (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, grant_id BLOB, topic TEXT NOT NULL,
    time_ns INTEGER NOT NULL, size INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS message_grant ON message (grant_id);
CREATE INDEX IF NOT EXISTS message_time ON message (time_ns);
"""


@dataclass(frozen=True, slots=True)
class ReadMessage:
    """A message: its credential's name, the grant (None if the name is not known), topic, Unix ns, bytes."""

    name: str
    grant: bytes | None
    topic: str
    time_ns: int
    size: int


class Messages:
    """The store. Raises :class:`StoreError` (``database-unusable``) everywhere."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Use a connection in autocommit mode that this object has to itself."""
        self._connection = connection
        self._lock = threading.Lock()
        with _wrapped():
            connection.executescript(_SCHEMA)

    @classmethod
    def open(cls, path: Path) -> Messages:
        """Open or create the table in the database at ``path``."""
        with _wrapped():
            path.touch(mode=0o600)
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
        return cls(connection)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._connection.close()

    def add(self, messages: Sequence[ReadMessage]) -> None:
        """Keep messages in one durable transaction."""
        rows = [(one.name, one.grant, one.topic, one.time_ns, one.size) for one in messages]
        with self._lock, _wrapped(), self._transaction():
            self._connection.executemany(
                "INSERT INTO message (name, grant_id, topic, time_ns, size) VALUES (?, ?, ?, ?, ?)", rows
            )

    def of(self, grant: bytes) -> tuple[ReadMessage, ...]:
        """Return the messages of a grant, the oldest first."""
        with self._lock, _wrapped():
            rows = self._connection.execute(
                "SELECT name, grant_id, topic, time_ns, size FROM message WHERE grant_id = ? ORDER BY sequence",
                (grant,),
            ).fetchall()
        return tuple(ReadMessage(*row) for row in rows)

    def prune(self, before_ns: int) -> int:
        """Forget messages older than ``before_ns``, but for the first of each grant; return how many."""
        with self._lock, _wrapped(), self._transaction():
            return self._connection.execute(
                "DELETE FROM message WHERE time_ns < ? AND sequence NOT IN"
                " (SELECT min(sequence) FROM message GROUP BY grant_id)",
                (before_ns,),
            ).rowcount

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


@contextlib.contextmanager
def _wrapped() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreError("database-unusable", str(error)) from error
