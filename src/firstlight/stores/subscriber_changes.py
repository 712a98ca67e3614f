"""Which subscriptions have changed since a register outside was last told: an outbox beside the subscriptions.

Triggers in the database write it, so that whoever grants or ends a subscription, in whichever process, has written it
in the same transaction. An operator without such a register has neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from firstlight.sim.subscription import Credentials, Subscriber, SubscriptionStatus
from firstlight.stores import subscriptions
from firstlight.stores.database import Database, Schema, Store

_PAGE = 500
_SCRIPT = """
CREATE TABLE IF NOT EXISTS subscriber_change (number INTEGER PRIMARY KEY AUTOINCREMENT, imsi TEXT NOT NULL) STRICT;
CREATE TRIGGER IF NOT EXISTS subscriber_added AFTER INSERT ON subscription BEGIN
    INSERT INTO subscriber_change (imsi) VALUES (new.imsi);
END;
CREATE TRIGGER IF NOT EXISTS subscriber_changed AFTER UPDATE OF status ON subscription
WHEN max(old.status, 2) != max(new.status, 2) BEGIN
    INSERT INTO subscriber_change (imsi) VALUES (new.imsi);
END;
"""
_NONE = """
DROP TRIGGER IF EXISTS subscriber_added;
DROP TRIGGER IF EXISTS subscriber_changed;
DROP TABLE IF EXISTS subscriber_change;
"""
_NAMED = "SELECT imsi, k, opc, sqn, status FROM subscription WHERE imsi = ?"
_AFTER = "SELECT imsi, k, opc, sqn, status FROM subscription WHERE imsi > ? ORDER BY imsi LIMIT ?"


@dataclass(frozen=True, slots=True)
class Changes:
    """Whom to tell of, and up to which entry of the outbox that is."""

    upto: int
    subscribers: tuple[Subscriber, ...]


class SubscriberChanges(Store):
    """The outbox, and the subscriptions as registers outside should have them. Any thread may call."""

    SCHEMA = Schema("subscriber changes", _SCRIPT)

    @classmethod
    def open(cls, path: Path) -> SubscriberChanges:
        """Keep an outbox from now on in the operator's database at ``path``; errors as :meth:`Store.open`."""
        database = Database.open(path, Schema("subscriptions", ""))
        with database.reading() as connection:
            subscriptions.create(connection)
            connection.executescript(_SCRIPT)
        return cls(database)

    def settled(self) -> bool:
        """Say whether there are no entries."""
        return self._database.row("SELECT 1 FROM subscriber_change LIMIT 1") is None

    def pending(self) -> Changes | None:
        """Return the oldest entries, or None if there are none."""
        rows = self._database.rows("SELECT number, imsi FROM subscriber_change ORDER BY number LIMIT ?", _PAGE)
        if not rows:
            return None
        return Changes(rows[-1][0], tuple(self.named({imsi for _, imsi in rows})))

    def done(self, changes: Changes) -> None:
        """Forget the entries up to those of ``changes``."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM subscriber_change WHERE number <= ?", (changes.upto,))

    def named(self, imsis: Iterable[str]) -> Iterator[Subscriber]:
        """Return the subscribers of these IMSIs."""
        for imsi in imsis:
            yield from map(_subscriber, self._database.rows(_NAMED, imsi))

    def everybody(self) -> Iterator[tuple[Subscriber, ...]]:
        """Return all subscribers, by IMSI, some at a time."""
        last = ""
        while True:
            page = tuple(map(_subscriber, self._database.rows(_AFTER, last, _PAGE)))
            if not page:
                return
            yield page
            last = page[-1].imsi


def forget(path: Path) -> None:
    """Keep no outbox any more in the database at ``path``; :class:`StoreError` (``database-unusable``)."""
    database = Database.open(path, Schema("no subscriber changes", _NONE))
    database.close()


def _subscriber(row: tuple[str, bytes, bytes, int, int]) -> Subscriber:
    imsi, k, opc, sqn, status = row
    living = status != SubscriptionStatus.DEAD
    return Subscriber(
        imsi, Credentials(imsi, k, opc) if living else None, sqn, suspended=status == SubscriptionStatus.SUSPENDED
    )
