"""An operator's subscriptions and sessions, in SQLite.

Each method is one durable transaction. :func:`insert` alone opens none, so that a new subscription can be
part of the transaction that grants it. One object serves many threads.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from firstlight.errors import AccessError, StoreError
from firstlight.sim import aka
from firstlight.sim.subscription import Credentials, Subscription, SubscriptionStatus
from firstlight.stores.database import Database, Schema, Store, prepare

MOST_NAMES = 16
"""Names of one subscription that nobody has used yet."""
Watcher = Callable[[tuple[str, ...]], None]
"""Told the IMSIs of subscriptions that just stopped being usable, by any thread, after the commit."""

_SCRIPT = """
CREATE TABLE IF NOT EXISTS subscription (
    imsi TEXT PRIMARY KEY, k BLOB NOT NULL, opc BLOB NOT NULL, sqn INTEGER NOT NULL, status INTEGER NOT NULL,
    slot BLOB NOT NULL, grant_id BLOB NOT NULL UNIQUE, confirmed_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS subscription_slot ON subscription (slot);
CREATE TABLE IF NOT EXISTS accepted (imsi TEXT PRIMARY KEY, sqn INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS name (
    name TEXT PRIMARY KEY, imsi TEXT NOT NULL, until INTEGER NOT NULL, place TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS name_imsi ON name (imsi);
CREATE TABLE IF NOT EXISTS session (
    id BLOB PRIMARY KEY, imsi TEXT NOT NULL, opened_at INTEGER NOT NULL, closed_at INTEGER,
    sent INTEGER NOT NULL DEFAULT 0, received INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS session_imsi ON session (imsi, opened_at);
CREATE INDEX IF NOT EXISTS session_open ON session (imsi) WHERE closed_at IS NULL;
"""
_SCHEMA = Schema("subscriptions", _SCRIPT)
_COLUMNS = "imsi, k, opc, sqn, status, slot, grant_id"
_PAGE = 500
_USABLE = (SubscriptionStatus.PENDING, SubscriptionStatus.ACTIVE)


@dataclass(frozen=True, slots=True)
class Confirmation:
    """A successful use: of which grant, whether its first, and which subscriptions died of it."""

    grant: bytes
    first: bool
    replaced: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session: when it was opened and closed (Unix seconds; None while open), and what it moved (bytes)."""

    id: bytes
    imsi: str
    opened_at: int
    closed_at: int | None
    sent: int
    received: int


def create(connection: sqlite3.Connection) -> None:
    """Create the tables where they are missing; :class:`StoreError` (``database-unusable``)."""
    prepare(connection, _SCHEMA)


def insert(connection: sqlite3.Connection, subscription: Subscription, *, first: bool = False) -> tuple[str, ...]:
    """Add a pending subscription in the caller's transaction; what was pending in its slot dies.

    ``first`` says that nothing was ever in that slot, so that it need not be looked for. Returns the IMSIs that died.
    Raises :class:`StoreError` (``imsi-taken``) if the IMSI or the grant is there already.
    """
    replaced: tuple[str, ...] = ()
    if not first:
        replaced = _kill(connection, "slot = ? AND status = ?", (subscription.slot, int(SubscriptionStatus.PENDING)))
    own = subscription.credentials
    row = (own.imsi, own.k, own.opc, subscription.sqn, int(subscription.status), subscription.slot, subscription.grant)
    try:
        connection.execute(f"INSERT INTO subscription ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608
    except sqlite3.IntegrityError as error:
        raise StoreError("imsi-taken", "this IMSI or this grant has a subscription already") from error
    return replaced


class Subscriptions(Store):
    """The store. IMSIs are text, grants and slots 16 bytes, times Unix seconds."""

    SCHEMA = _SCHEMA

    def __init__(self, database: Database) -> None:
        """Use a database that this object may have to itself."""
        super().__init__(database)
        self._ended: list[str] = []
        self._watchers: list[Watcher] = []

    def watch(self, watcher: Watcher) -> None:
        """Tell ``watcher`` from now on which subscriptions stop being usable."""
        self._watchers.append(watcher)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold a transaction; what is called inside by this thread joins it, each call on its own rolled back or kept.

        Raises :class:`StoreError` (``database-unusable``).
        """
        with self._database.lock:
            outermost, known = not self._database.connection.in_transaction, len(self._ended)
            try:
                with self._database.transaction() as connection:
                    yield connection
            except BaseException:
                del self._ended[known:]
                raise
            ended = tuple(self._ended) if outermost else ()
            if outermost:
                self._ended.clear()
        if ended:
            for watcher in self._watchers:
                watcher(ended)

    # --- subscriptions ----------------------------------------------------------------------------

    def add(self, subscription: Subscription) -> None:
        """Add a pending subscription; see :func:`insert`."""
        with self.transaction() as connection:
            self._ended += insert(connection, subscription)

    def get(self, imsi: str) -> Subscription | None:
        """Return the subscription of an IMSI."""
        return self._one("imsi = ?", imsi)

    def by_grant(self, grant: bytes) -> Subscription | None:
        """Return the subscription of a grant."""
        return self._one("grant_id = ?", grant)

    def usable(self, imsi: str) -> Subscription:
        """Return a subscription that may be used now; errors as :meth:`allocate`."""
        return self._usable(imsi)

    def all_usable(self) -> Iterator[Subscription]:
        """Return all subscriptions that may be used now, by IMSI; what changes meanwhile may come or not."""
        last = ""
        while True:
            query = f"SELECT {_COLUMNS} FROM subscription WHERE imsi > ? AND status IN (?, ?) ORDER BY imsi LIMIT ?"  # noqa: S608
            page = self._database.rows(query, last, *map(int, _USABLE), _PAGE)
            if not page:
                return
            yield from map(_subscription, page)
            last = page[-1][0]

    def confirmed_at(self, grant: bytes) -> int | None:
        """Return when a grant was first used successfully; None if never."""
        row = self._database.row("SELECT confirmed_at FROM subscription WHERE grant_id = ?", grant)
        return None if row is None else row[0]

    def allocate(self, imsi: str) -> Subscription:
        """Use up the next SQN and return the subscription with it.

        Raises :class:`AccessError`: ``unknown-subscriber``, ``subscription-suspended``, ``subscription-dead``,
        ``sqn-exhausted``.
        """
        with self.transaction() as connection:
            found = self._usable(imsi)
            try:
                sqn = aka.next_sqn(found.sqn)
            except OverflowError as error:
                raise AccessError("sqn-exhausted", str(error)) from error
            connection.execute("UPDATE subscription SET sqn = ? WHERE imsi = ?", (sqn, imsi))
            return Subscription(found.credentials, sqn, found.status, found.slot, found.grant)

    def resynchronise(self, imsi: str, rand: bytes, auts: bytes) -> None:
        """Go on from where the USIM stands; errors as :meth:`allocate`, and ``bad-auts``."""
        with self.transaction() as connection:
            found = self._usable(imsi)
            own = found.credentials
            sqn_ms = aka.open_auts(own.k, own.opc, rand, auts)
            sqn = aka.resynchronise(found.sqn, sqn_ms)
            connection.execute("UPDATE subscription SET sqn = ? WHERE imsi = ?", (sqn, imsi))

    def confirm(self, imsi: str, session: bytes, now: int) -> Confirmation:
        """Record a successful use and its session; at the first use all others of the slot die. Errors: `allocate`."""
        with self.transaction() as connection:
            found = self._usable(imsi)
            first = found.status is SubscriptionStatus.PENDING
            replaced: tuple[str, ...] = ()
            if first:
                connection.execute(
                    "UPDATE subscription SET status = ?, confirmed_at = ? WHERE imsi = ?",
                    (int(SubscriptionStatus.ACTIVE), now, imsi),
                )
                replaced = self._end("slot = ? AND imsi != ?", (found.slot, imsi))
            connection.execute("UPDATE session SET closed_at = ? WHERE imsi = ? AND closed_at IS NULL", (now, imsi))
            connection.execute("INSERT INTO session (id, imsi, opened_at) VALUES (?, ?, ?)", (session, imsi, now))
            return Confirmation(found.grant, first, replaced)

    def suspend(self, grant: bytes) -> None:
        """Switch a grant's subscription off; nothing happens to a dead one."""
        with self.transaction() as connection:
            where, arguments = "grant_id = ? AND status IN (?, ?)", (grant, *map(int, _USABLE))
            self._ended += _set_status(connection, SubscriptionStatus.SUSPENDED, where, arguments)

    def resume(self, grant: bytes) -> None:
        """Switch a suspended subscription on again."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE subscription SET status = CASE WHEN confirmed_at IS NULL THEN ? ELSE ? END "
                "WHERE grant_id = ? AND status = ?",
                (*map(int, _USABLE), grant, int(SubscriptionStatus.SUSPENDED)),
            )

    def end(self, grant: bytes) -> None:
        """End a grant's subscription for good."""
        with self.transaction():
            self._end("grant_id = ?", (grant,))

    def end_slot(self, slot: bytes) -> None:
        """End all subscriptions of a slot for good."""
        with self.transaction():
            self._end("slot = ?", (slot,))

    def counts(self) -> dict[SubscriptionStatus, int]:
        """Return how many subscriptions stand where."""
        rows = self._database.rows("SELECT status, count(*) FROM subscription GROUP BY status")
        return dict.fromkeys(SubscriptionStatus, 0) | {SubscriptionStatus(status): count for status, count in rows}

    def confirmed(self) -> int:
        """Return how many slots have had a subscription that was used successfully."""
        rows = self._database.rows("SELECT count(DISTINCT slot) FROM subscription WHERE confirmed_at IS NOT NULL")
        return int(rows[0][0])

    def living(self) -> set[bytes]:
        """Return the grants whose subscriptions have not ended."""
        rows = self._database.rows("SELECT grant_id FROM subscription WHERE status != ?", int(SubscriptionStatus.DEAD))
        return {grant for (grant,) in rows}

    def unusable(self, imsis: Iterable[str]) -> set[str]:
        """Return those of ``imsis`` that may not be attached now."""
        rows = self._database.rows("SELECT imsi FROM subscription WHERE status IN (?, ?)", *map(int, _USABLE))
        return set(imsis) - {imsi for (imsi,) in rows}

    def version(self) -> tuple[int, int]:
        """Return a pair that changes whenever anybody, in this process or another, changes the database."""
        with self._database.reading() as connection:
            return int(connection.execute("PRAGMA data_version").fetchone()[0]), connection.total_changes

    # --- what USIMs have accepted -----------------------------------------------------------------

    def accepted(self, imsi: str) -> int | None:
        """Return the newest SQN that a USIM has proven to have accepted."""
        row = self._database.row("SELECT sqn FROM accepted WHERE imsi = ?", imsi)
        return None if row is None else int(row[0])

    def note_accepted(self, imsi: str, sqn: int) -> None:
        """Remember an SQN that a USIM has just proven to have accepted."""
        with self.transaction() as connection:
            connection.execute(
                "INSERT INTO accepted VALUES (?, ?) ON CONFLICT DO UPDATE SET sqn = max(sqn, excluded.sqn)", (imsi, sqn)
            )

    # --- one-time names ---------------------------------------------------------------------------

    def give_name(self, imsi: str, name: str, now: int, seconds: int) -> None:
        """Let ``name`` stand for a subscription for so long, and once used for as long as the subscription lives.

        What nobody used in time is forgotten, and of many that nobody uses the oldest. Errors as :meth:`allocate`.
        """
        with self.transaction() as connection:
            self._usable(imsi)
            connection.execute("DELETE FROM name WHERE until < ? AND place IS NULL", (now,))
            connection.execute(
                "DELETE FROM name WHERE imsi = ?1 AND place IS NULL AND name NOT IN"
                " (SELECT name FROM name WHERE imsi = ?1 AND place IS NULL ORDER BY until DESC LIMIT ?2)",
                (imsi, MOST_NAMES - 1),
            )
            connection.execute(
                "INSERT OR IGNORE INTO name (name, imsi, until) VALUES (?, ?, ?)", (name, imsi, now + seconds)
            )

    def named(self, name: str, now: int) -> str | None:
        """Return the IMSI that a name stands for now."""
        row = self._database.row(
            "SELECT imsi FROM name WHERE name = ? AND (until >= ? OR place IS NOT NULL)", name, now
        )
        return None if row is None else row[0]

    def bind_name(self, name: str, place: str, now: int) -> None:
        """Bind a name to the place where it was used, and forget those of the same subscription used before.

        1. The name was given out and counts still (``unknown-subscriber``). 2. It was used nowhere else
        (``name-used``). Raises :class:`AccessError`.
        """
        with self.transaction() as connection:
            row = self._database.row("SELECT imsi, until, place FROM name WHERE name = ?", name)
            if row is None or (row[2] is None and row[1] < now):
                raise AccessError("unknown-subscriber", "no name that was given out, or not any more")
            if row[2] not in (None, place):
                raise AccessError("name-used", "the name was used elsewhere")
            connection.execute("UPDATE name SET place = ? WHERE name = ?", (place, name))
            connection.execute("DELETE FROM name WHERE imsi = ? AND name != ? AND place IS NOT NULL", (row[0], name))

    # --- sessions ---------------------------------------------------------------------------------

    def session_ended(self, session: bytes, sent: int, received: int, now: int) -> None:
        """Record the end of a session, and what it moved."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE session SET closed_at = coalesce(closed_at, ?), sent = ?, received = ? WHERE id = ?",
                (now, sent, received, session),
            )

    def close_sessions(self, now: int) -> None:
        """Close all sessions: after a restart none is live."""
        with self.transaction() as connection:
            connection.execute("UPDATE session SET closed_at = ? WHERE closed_at IS NULL", (now,))

    def sessions(self, imsi: str) -> list[SessionRecord]:
        """Return the sessions of an IMSI, the oldest first."""
        query = "SELECT id, imsi, opened_at, closed_at, sent, received FROM session WHERE imsi = ? ORDER BY opened_at"
        return [SessionRecord(*row) for row in self._database.rows(query, imsi)]

    # --- inside -----------------------------------------------------------------------------------

    def _one(self, where: str, argument: object) -> Subscription | None:
        row = self._database.row(f"SELECT {_COLUMNS} FROM subscription WHERE {where}", argument)  # noqa: S608
        return None if row is None else _subscription(row)

    def _usable(self, imsi: str) -> Subscription:
        """Return a subscription that may be used now.

        1. There is one (``unknown-subscriber``), 2. it is not switched off (``subscription-suspended``), 3. and has not
        ended (``subscription-dead``). Raises :class:`AccessError`.
        """
        found = self.get(imsi)
        if found is None:
            raise AccessError("unknown-subscriber", "there is no such subscription")
        if found.status is SubscriptionStatus.SUSPENDED:
            raise AccessError("subscription-suspended", "the subscription is switched off")
        if found.status is SubscriptionStatus.DEAD:
            raise AccessError("subscription-dead", "the subscription has ended")
        return found

    def _end(self, where: str, arguments: tuple[object, ...]) -> tuple[str, ...]:
        ended = _kill(self._database.connection, where, arguments)
        self._ended += ended
        return ended


def _kill(connection: sqlite3.Connection, where: str, arguments: tuple[object, ...]) -> tuple[str, ...]:
    dead = SubscriptionStatus.DEAD
    return _set_status(connection, dead, f"{where} AND status != ?", (*arguments, int(dead)))


def _set_status(
    connection: sqlite3.Connection, status: SubscriptionStatus, where: str, arguments: tuple[object, ...]
) -> tuple[str, ...]:
    """Set the status of all rows that fit, and return their IMSIs."""
    query = f"UPDATE subscription SET status = ? WHERE {where} RETURNING imsi"  # noqa: S608
    return tuple(imsi for (imsi,) in connection.execute(query, (int(status), *arguments)).fetchall())


def _subscription(row: tuple[Any, ...]) -> Subscription:
    imsi, k, opc, sqn, status, slot, grant = row
    return Subscription(Credentials(imsi, k, opc), sqn, SubscriptionStatus(status), slot, grant)
