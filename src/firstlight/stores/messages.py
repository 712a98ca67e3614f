"""The messages that a service has read from its broker: from which credential and grant, when, how large.

What was in them goes to the service's application, not here. One object serves many threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from firstlight.stores.database import Schema, Store

_SCRIPT = """
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


class Messages(Store):
    """The store. Raises :class:`StoreError` (``database-unusable``) everywhere."""

    SCHEMA = Schema("messages", _SCRIPT)

    def add(self, messages: Sequence[ReadMessage]) -> None:
        """Keep messages in one durable transaction."""
        rows = [(one.name, one.grant, one.topic, one.time_ns, one.size) for one in messages]
        with self._database.transaction() as connection:
            connection.executemany(
                "INSERT INTO message (name, grant_id, topic, time_ns, size) VALUES (?, ?, ?, ?, ?)", rows
            )

    def of(self, grant: bytes) -> tuple[ReadMessage, ...]:
        """Return the messages of a grant, the oldest first."""
        rows = self._database.rows(
            "SELECT name, grant_id, topic, time_ns, size FROM message WHERE grant_id = ? ORDER BY sequence", grant
        )
        return tuple(ReadMessage(*row) for row in rows)

    def prune(self, before_ns: int) -> int:
        """Forget messages older than ``before_ns``, but for the first of each grant; return how many."""
        with self._database.transaction() as connection:
            return connection.execute(
                "DELETE FROM message WHERE time_ns < ? AND sequence NOT IN"
                " (SELECT min(sequence) FROM message GROUP BY grant_id)",
                (before_ns,),
            ).rowcount
