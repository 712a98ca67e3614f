"""What an MNO or SP must never forget: orders and their slots, exchanges that have counted, grants, clone alarms.

SQLite, write-ahead log, fully synchronous: :meth:`ExchangeStore.commit` is one durable transaction, and any number
of processes may share the file. Implements ``onboarding.ports.OrderBook`` and ``onboarding.ports.Exchanges``.

A grant is pending until its first successful use (:meth:`ExchangeStore.confirm`), which ends all earlier grants of
the device under the same origin; a new grant ends the one that was pending. What a grant held is wiped when it
ends; that it was given stays.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from firstlight.encoding import decode, encode
from firstlight.errors import StoreError
from firstlight.onboarding.ports import (
    Anchor,
    Answered,
    Entry,
    History,
    Known,
    NewGrant,
    OrderState,
    PastGrant,
)
from firstlight.onboarding.token import LIFETIME_NS
from firstlight.plan.claims import PartyKind
from firstlight.plan.order import Order
from firstlight.sealing.inquiry import Ending
from firstlight.stores.database import Database, Schema, Store, prepare

VERSION = 2
RETENTION_NS = 5 * LIFETIME_NS
"""How long an exchange is kept at least: longer than any token that could reopen it."""

_SCRIPT = """
CREATE TABLE batch (id BLOB PRIMARY KEY, leaves BLOB NOT NULL, size INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE placed (
    number BLOB PRIMARY KEY, body BLOB NOT NULL, document BLOB NOT NULL, used INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE slot (
    number BLOB NOT NULL, batch BLOB NOT NULL, idx INTEGER NOT NULL, PRIMARY KEY (number, batch, idx)
) STRICT, WITHOUT ROWID;
CREATE TABLE exchange (
    th_3 BLOB PRIMARY KEY, digest_3 BLOB NOT NULL, message_4 BLOB NOT NULL, batch BLOB NOT NULL, idx INTEGER NOT NULL,
    opened_ns INTEGER NOT NULL, committed_ns INTEGER NOT NULL, code TEXT NOT NULL, result BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX exchange_age ON exchange (committed_ns);
CREATE TABLE device (
    batch BLOB NOT NULL, idx INTEGER NOT NULL, version INTEGER NOT NULL, granted_ns INTEGER NOT NULL,
    PRIMARY KEY (batch, idx)
) STRICT, WITHOUT ROWID;
CREATE TABLE alarm (
    batch BLOB NOT NULL, idx INTEGER NOT NULL, origin INTEGER NOT NULL, raised_ns INTEGER NOT NULL,
    cleared_ns INTEGER NOT NULL, PRIMARY KEY (batch, idx, origin)
) STRICT, WITHOUT ROWID;
CREATE TABLE issued (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, batch BLOB NOT NULL, idx INTEGER NOT NULL,
    origin INTEGER NOT NULL, number BLOB NOT NULL, kind INTEGER NOT NULL, issued_at INTEGER NOT NULL,
    expires INTEGER NOT NULL, identifier TEXT NOT NULL UNIQUE, body BLOB NOT NULL, secret BLOB NOT NULL,
    state INTEGER NOT NULL, confirmed_ns INTEGER, tenure INTEGER NOT NULL, revision INTEGER NOT NULL,
    basis BLOB NOT NULL, ended_ns INTEGER, ending INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE basis (digest BLOB PRIMARY KEY, names BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX issued_device ON issued (batch, idx, origin);
CREATE INDEX issued_state ON issued (state);
"""


class GrantState(IntEnum):
    """Where a grant stands."""

    PENDING = 1
    CONFIRMED = 2
    ENDED = 3


@dataclass(frozen=True, slots=True)
class StoredGrant:
    """A grant as it is kept; times in Unix seconds.

    ``tenure`` and ``revision`` say under which plan it was given, ``basis`` leads to the names of the ledger records
    that its appraisal rested upon (:meth:`ExchangeStore.basis`).
    """

    id: bytes
    batch: bytes
    index: int
    origin: int
    order: bytes
    kind: PartyKind
    issued_at: int
    expires: int
    identifier: str
    state: GrantState
    tenure: int = 0
    revision: int = 0
    basis: bytes = b""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A clone alarm that stands."""

    batch: bytes
    index: int
    origin: int
    raised_ns: int


GrantHook = Callable[[sqlite3.Connection, Entry, NewGrant], None]
"""Keeps a new grant's credential in the same transaction.

A :class:`StoreError` whose code ends in ``-taken`` says that its identifier is in use: the grant is made anew.
"""
EndWatcher = Callable[[tuple[StoredGrant, ...]], None]
"""Told, after the commit, which grants just ended."""

_GROUND = """
SELECT version, granted_ns, digest_3, message_4, body, used, slot.number IS NOT NULL, basis.digest IS NOT NULL
FROM (SELECT 1)
LEFT JOIN device ON device.batch = ?1 AND device.idx = ?2
LEFT JOIN exchange ON th_3 = ?3
LEFT JOIN placed ON placed.number = ?4
LEFT JOIN slot ON slot.number = ?4 AND slot.batch = ?1 AND slot.idx = ?2
LEFT JOIN basis ON basis.digest = ?5
"""
_GRANT = "id, batch, idx, origin, number, kind, issued_at, expires, identifier, state, tenure, revision, basis"


@dataclass(frozen=True, slots=True)
class _Ground:
    """What a commit finds: exchange and device, room in the order, whether slot and basis are there already."""

    known: Known
    room: bool
    held: bool
    based: bool


class ExchangeStore(Store):
    """The store; one object serves many threads."""

    SCHEMA = Schema("exchanges", _SCRIPT, VERSION)

    def __init__(self, database: Database, *, on_grant: GrantHook | None = None) -> None:
        """Use a database that this object has to itself."""
        super().__init__(database)
        self._connection = database.connection
        self._on_grant = on_grant
        self._watchers: list[EndWatcher] = []
        self._anchors: dict[bytes, Anchor] = {}
        """Batches that were read: one that is there never changes, and never goes."""

    @classmethod
    def open(cls, path: Path, *, on_grant: GrantHook | None = None) -> Self:
        """Open or create the database; :class:`StoreError`: ``database-unusable``, ``schema-unknown``."""
        return cls(Database.open(path, cls.SCHEMA), on_grant=on_grant)

    @classmethod
    def in_memory(cls, *, on_grant: GrantHook | None = None, beside: Sequence[Schema] = ()) -> Self:
        """Return a store that lives as long as the object; ``beside`` are the tables that ``on_grant`` writes to."""
        database = Database.in_memory(cls.SCHEMA)
        for schema in beside:
            prepare(database.connection, schema)
        return cls(database, on_grant=on_grant)

    def watch(self, watcher: EndWatcher) -> None:
        """Tell ``watcher`` from now on which grants end through this object."""
        self._watchers.append(watcher)

    # --- orders -----------------------------------------------------------------------------------

    def add_order(self, order: Order, anchor: Anchor, document: bytes) -> None:
        """Keep an accepted order with its signed ``document``, and the batch that it is for.

        Does nothing if it is there already; :class:`StoreError`: ``order-differs`` (the number is another order's),
        ``batch-differs``.
        """
        with self._database.transaction() as connection:
            placed = connection.execute("SELECT body FROM placed WHERE number = ?", (order.number,)).fetchone()
            if placed is not None and placed[0] != order.encode():
                raise StoreError("order-differs", "another order has this number")
            batch = self.anchor(order.batch)
            if batch is not None and batch != anchor:
                raise StoreError("batch-differs", "the batch is known with another root or size")
            connection.execute(
                "INSERT OR IGNORE INTO batch VALUES (?, ?, ?)", (order.batch, anchor.leaves, anchor.size)
            )
            row = (order.number, order.encode(), document)
            connection.execute("INSERT OR IGNORE INTO placed VALUES (?, ?, ?, 0)", row)

    def orders(self) -> tuple[OrderState, ...]:
        """Return all orders, with how many slots of each are taken."""
        rows = self._database.rows("SELECT body, used FROM placed ORDER BY number")
        return tuple(OrderState(Order.decode(body), used, held=False) for body, used in rows)

    def anchor(self, batch: bytes) -> Anchor | None:
        """Return a batch for which there is an order."""
        known = self._anchors.get(batch)
        if known is None:
            row = self._database.row("SELECT leaves, size FROM batch WHERE id = ?", batch)
            if row is None:
                return None
            known = self._anchors[batch] = Anchor(*row)
        return known

    def order(self, number: bytes, batch: bytes, index: int) -> OrderState | None:
        """Return an order as it stands for one device."""
        row = self._database.row(
            "SELECT body, used,"
            " EXISTS (SELECT 1 FROM slot WHERE number = ?1 AND batch = ?2 AND idx = ?3) FROM placed WHERE number = ?1",
            number,
            batch,
            index,
        )
        return None if row is None else OrderState(_order(row[0]), row[1], bool(row[2]))

    # --- exchanges --------------------------------------------------------------------------------

    def known(self, th_3: bytes, batch: bytes, index: int) -> Known:
        """Return what is known of an exchange and its device."""
        version, granted_ns, digest_3, message_4 = self._database.rows(
            "SELECT version, granted_ns, digest_3, message_4 FROM (SELECT 1)"
            " LEFT JOIN device ON device.batch = ? AND device.idx = ? LEFT JOIN exchange ON th_3 = ?",
            batch,
            index,
            th_3,
        )[0]
        return Known(None if digest_3 is None else Answered(digest_3, message_4), version or 0, granted_ns or 0)

    def history(self, batch: bytes, index: int, origin: int) -> History:
        """Return a device's grants under one origin."""
        where = (batch, index, origin)
        with self._database.lock:
            grants = self._database.rows(
                "SELECT id, sequence, confirmed_ns FROM issued"
                " WHERE batch = ? AND idx = ? AND origin = ? ORDER BY sequence",
                *where,
            )
            alarm = self._database.row(
                "SELECT raised_ns, cleared_ns FROM alarm WHERE batch = ? AND idx = ? AND origin = ?", *where
            )
        raised, cleared = alarm or (0, 0)
        return History(tuple(PastGrant(*row) for row in grants), alarm=raised > 0, cleared_ns=cleared)

    def commit(self, entry: Entry) -> Answered | None:
        """Commit an exchange; see ``onboarding.ports.Exchanges``.

        In this order: an exchange of that TH_3 that has counted is what counts; the device's version is the one decided
        upon; the order has room; the identifier is free, in this store and to the hook; all of it is written.
        """
        ended: list[StoredGrant] = []
        try:
            with self._database.transaction():
                counted = self._count(entry, ended)
        except _TakenError:
            return None
        self._tell(tuple(ended))
        return counted

    def commit_all(self, entries: Sequence[Entry]) -> list[Answered | None]:
        """Commit exchanges in one durable transaction; one by one if an identifier among them is taken."""
        ended: list[StoredGrant] = []
        try:
            with self._database.transaction():
                counted = [self._count(entry, ended) for entry in entries]
        except _TakenError:
            return [self.commit(entry) for entry in entries]
        self._tell(tuple(ended))
        return counted

    def _count(self, entry: Entry, ended: list[StoredGrant]) -> Answered | None:
        """Do what :meth:`commit` says in the caller's transaction; put the grants that end of it into ``ended``."""
        ground = self._ground(entry)
        known = ground.known
        if known.answered is not None:
            return known.answered
        if known.version != entry.version or not ground.room:
            return None
        if entry.grant is not None:
            self._take_slot(entry, entry.grant, ground)
            ended += self._insert(entry, entry.grant, ground)
        self._write(self._connection, entry, known)
        return entry.answered

    def _ground(self, entry: Entry) -> _Ground:
        """Read at once all that a commit depends upon."""
        grant = entry.grant
        number, basis = (None, None) if grant is None else (grant.order, _basis(grant.basis)[0])
        row = self._connection.execute(_GROUND, (entry.batch, entry.index, entry.th_3, number, basis)).fetchone()
        version, granted_ns, digest_3, message_4, body, used, held, based = row
        known = Known(None if digest_3 is None else Answered(digest_3, message_4), version or 0, granted_ns or 0)
        room = grant is None or (body is not None and OrderState(_order(body), used, bool(held)).room)
        return _Ground(known, room, bool(held), bool(based))

    def _take_slot(self, entry: Entry, grant: NewGrant, ground: _Ground) -> None:
        if not ground.held:
            slot = (grant.order, entry.batch, entry.index)
            self._connection.execute("INSERT INTO slot VALUES (?, ?, ?)", slot)
            self._connection.execute("UPDATE placed SET used = used + 1 WHERE number = ?", (grant.order,))

    def _insert(self, entry: Entry, grant: NewGrant, ground: _Ground) -> tuple[StoredGrant, ...]:
        """Insert a grant; return those that end of it, of which there are none if the device never had any."""
        device = (entry.batch, entry.index, grant.origin)
        ended: tuple[StoredGrant, ...] = ()
        if ground.known.version:
            of_device = "batch = ? AND idx = ? AND origin = ? AND state = ?"
            why = (Ending.SUPERSEDED, entry.committed_ns)
            ended = self._end(why, of_device, *device, GrantState.PENDING.value)
        digest, names = _basis(grant.basis)
        if names and not ground.based:
            self._connection.execute("INSERT INTO basis VALUES (?, ?)", (digest, names))
        row = (grant.id, *device, grant.order, int(grant.kind), grant.issued_at, grant.expires)
        try:
            self._connection.execute(
                "INSERT INTO issued (id, batch, idx, origin, number, kind, issued_at, expires, identifier, body,"
                " secret, state, tenure, revision, basis) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *row,
                    grant.identifier,
                    grant.body,
                    grant.secret,
                    GrantState.PENDING.value,
                    grant.tenure,
                    grant.revision,
                    digest,
                ),
            )
            if self._on_grant is not None:
                self._on_grant(self._connection, entry, grant)
        except sqlite3.IntegrityError as error:
            raise _TakenError("identifier-taken", str(error)) from error
        except StoreError as error:
            if error.code.endswith("-taken"):
                raise _TakenError(error.code, error.detail) from error
            raise
        return ended

    def _write(self, connection: sqlite3.Connection, entry: Entry, known: Known) -> None:
        device = (entry.batch, entry.index)
        connection.execute(
            "INSERT INTO exchange VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                entry.th_3,
                entry.answered.digest_3,
                entry.answered.message_4,
                *device,
                entry.opened_ns,
                entry.committed_ns,
                entry.code,
                entry.result,
            ),
        )
        if entry.alarm is not None:
            connection.execute(
                "INSERT INTO alarm VALUES (?, ?, ?, ?, 0) ON CONFLICT DO UPDATE"
                " SET raised_ns = CASE raised_ns WHEN 0 THEN excluded.raised_ns ELSE raised_ns END",
                (*device, entry.alarm, entry.committed_ns),
            )
        if entry.grant is not None or entry.alarm is not None:
            granted_ns = known.granted_ns if entry.grant is None else max(entry.opened_ns, known.granted_ns)
            self._touch(*device, granted_ns)

    def prune(self, now_ns: int) -> int:
        """Forget exchanges that no token can reopen; return how many. Grants, slots and order of time stay."""
        with self._database.transaction() as connection:
            return connection.execute("DELETE FROM exchange WHERE committed_ns < ?", (now_ns - RETENTION_NS,)).rowcount

    def outcomes(self) -> dict[str, int]:
        """Return how many of the exchanges still kept ended with which code."""
        return dict(self._database.rows("SELECT code, count(*) FROM exchange GROUP BY code"))

    def result(self, th_3: bytes) -> bytes | None:
        """Return the appraisal's result of an exchange still kept."""
        row = self._database.row("SELECT result FROM exchange WHERE th_3 = ?", th_3)
        return None if row is None else bytes(row[0])

    # --- grants -----------------------------------------------------------------------------------

    def confirm(self, grant: bytes, now_ns: int) -> tuple[StoredGrant, ...]:
        """Record a successful use; the first one ends all earlier grants of the device under this origin.

        Returns the grants that ended of it. Raises :class:`StoreError`: ``grant-unknown``, ``grant-ended``.
        """
        with self._database.transaction() as connection:
            found = self.grant(grant)
            if found is None:
                raise StoreError("grant-unknown", "no grant of that id")
            if found.state is GrantState.ENDED:
                raise StoreError("grant-ended", "the grant has ended")
            if found.state is GrantState.CONFIRMED:
                return ()
            connection.execute(
                "UPDATE issued SET state = ?, confirmed_ns = ? WHERE id = ?",
                (GrantState.CONFIRMED.value, now_ns, grant),
            )
            ended = self._end(
                (Ending.SUPERSEDED, now_ns),
                "batch = ? AND idx = ? AND origin = ? AND state != ?"
                " AND sequence < (SELECT sequence FROM issued WHERE id = ?)",
                *(found.batch, found.index, found.origin, GrantState.ENDED.value, grant),
            )
        self._tell(ended)
        return ended

    def end(self, grants: Iterable[bytes], why: Ending = Ending.UNSAID, now_ns: int = 0) -> tuple[StoredGrant, ...]:
        """End grants, as when their tenure no longer counts; return those that had not ended yet."""
        ended: list[StoredGrant] = []
        with self._database.transaction():
            for grant in grants:
                ended += self._end((why, now_ns), "id = ? AND state != ?", grant, GrantState.ENDED.value)
        self._tell(tuple(ended))
        return tuple(ended)

    def ended_elsewhere(self, grants: Iterable[bytes]) -> None:
        """Tell this object's watchers of grants that another process has ended."""
        found = [self.grant(grant) for grant in grants]
        self._tell(tuple(one for one in found if one is not None and one.state is GrantState.ENDED))

    def grant(self, grant: bytes) -> StoredGrant | None:
        """Return a grant by its id."""
        return _first(self._grants("id = ?", grant))

    def by_identifier(self, identifier: str) -> StoredGrant | None:
        """Return the grant of a SUPI or serial number."""
        return _first(self._grants("identifier = ?", identifier))

    def secret(self, grant: bytes) -> bytes:
        """Return what the party keeps of a grant (empty once it has ended); :class:`StoreError` (``grant-unknown``)."""
        row = self._database.row("SELECT secret FROM issued WHERE id = ?", grant)
        if row is None:
            raise StoreError("grant-unknown", "no grant of that id")
        return bytes(row[0])

    def grants(self, *states: GrantState) -> tuple[StoredGrant, ...]:
        """Return all grants in any of these states."""
        return tuple(found for state in states for found in self._grants("state = ?", state.value))

    def living(self) -> set[bytes]:
        """Return the ids of all grants that have not ended."""
        rows = self._database.rows("SELECT id FROM issued WHERE state != ?", GrantState.ENDED.value)
        return {grant for (grant,) in rows}

    def basis(self, digest: bytes) -> tuple[str, ...]:
        """Return the names of the ledger records that a grant's appraisal rested upon; none for an empty digest."""
        row = self._database.row("SELECT names FROM basis WHERE digest = ?", digest)
        return () if row is None else tuple(decode(row[0]))

    def granted_devices(self) -> int:
        """Return how many devices have been given a grant."""
        return int(self._database.rows("SELECT count(*) FROM device WHERE granted_ns > 0")[0][0])

    # --- clone alarms -----------------------------------------------------------------------------

    def alarms(self) -> tuple[Alarm, ...]:
        """Return the clone alarms that stand."""
        return tuple(
            Alarm(*row)
            for row in self._database.rows("SELECT batch, idx, origin, raised_ns FROM alarm WHERE raised_ns > 0")
        )

    def raise_alarm(self, grant: bytes, now_ns: int) -> None:
        """Raise a clone alarm for the device that a grant was given to: its credential is in use twice.

        Nothing happens for a grant that nobody knows.
        """
        with self._database.transaction() as connection:
            found = self._database.row("SELECT batch, idx, origin FROM issued WHERE id = ?", grant)
            if found is None:
                return
            connection.execute(
                "INSERT INTO alarm VALUES (?, ?, ?, ?, 0) ON CONFLICT DO UPDATE"
                " SET raised_ns = CASE raised_ns WHEN 0 THEN excluded.raised_ns ELSE raised_ns END",
                (*found, now_ns),
            )
            self._touch(found[0], found[1], self._device(found[0], found[1])[1])

    def clear_alarm(self, batch: bytes, index: int, origin: int, now_ns: int, raised_ns: int | None = None) -> None:
        """Clear a clone alarm, as the owner asks: uses confirmed until now betray nobody any more.

        With ``raised_ns`` only the one that was raised then. Raises :class:`StoreError` (``no-alarm``).
        """
        with self._database.transaction() as connection:
            cleared = connection.execute(
                "UPDATE alarm SET raised_ns = 0, cleared_ns = ? WHERE batch = ? AND idx = ? AND origin = ?"
                " AND raised_ns > 0 AND raised_ns = coalesce(?, raised_ns)",
                (now_ns, batch, index, origin, raised_ns),
            )
            if cleared.rowcount == 0:
                raise StoreError("no-alarm", "no clone alarm stands for this device and origin")
            self._touch(batch, index, self._device(batch, index)[1])

    # --- inside -----------------------------------------------------------------------------------

    def _device(self, batch: bytes, index: int) -> tuple[int, int]:
        row = self._database.row("SELECT version, granted_ns FROM device WHERE batch = ? AND idx = ?", batch, index)
        return (0, 0) if row is None else (int(row[0]), int(row[1]))

    def _touch(self, batch: bytes, index: int, granted_ns: int) -> None:
        self._connection.execute(
            "INSERT INTO device VALUES (?, ?, 1, ?) ON CONFLICT DO UPDATE"
            " SET version = version + 1, granted_ns = excluded.granted_ns",
            (batch, index, granted_ns),
        )

    def _end(self, why: tuple[Ending, int], where: str, *values: object) -> tuple[StoredGrant, ...]:
        """End grants; ``why`` says for which reason, and when (Unix ns)."""
        ended = self._grants(where, *values)
        for one in ended:
            self._connection.execute(
                "UPDATE issued SET state = ?, body = x'', secret = x'', ending = ?, ended_ns = ? WHERE id = ?",
                (GrantState.ENDED.value, why[0].value, why[1], one.id),
            )
        return ended

    def _grants(self, where: str, *values: object) -> tuple[StoredGrant, ...]:
        rows = self._database.rows(f"SELECT {_GRANT} FROM issued WHERE {where} ORDER BY sequence", *values)  # noqa: S608
        return tuple(_stored(row) for row in rows)

    def _tell(self, ended: tuple[StoredGrant, ...]) -> None:
        if ended:
            for watcher in self._watchers:
                watcher(ended)


@lru_cache(maxsize=256)
def _order(body: bytes) -> Order:
    return Order.decode(body)


@lru_cache(maxsize=256)
def _basis(names: tuple[str, ...]) -> tuple[bytes, bytes]:
    """Return digest and encoding of the names that an appraisal rested upon: a fleet's are all the same.

    Both are empty where it rested upon none.
    """
    if not names:
        return b"", b""
    data = encode(list(names))
    return hashlib.sha256(data).digest(), data


class _TakenError(StoreError):
    """An identifier that is in use."""


def _stored(row: tuple[Any, ...]) -> StoredGrant:
    grant, batch, index, origin, number, kind, issued_at, expires, identifier, state, tenure, revision, basis = row
    return StoredGrant(
        id=grant,
        batch=batch,
        index=index,
        origin=origin,
        order=number,
        kind=PartyKind(kind),
        issued_at=issued_at,
        expires=expires,
        identifier=identifier,
        state=GrantState(state),
        tenure=tenure,
        revision=revision,
        basis=basis,
    )


def _first(grants: tuple[StoredGrant, ...]) -> StoredGrant | None:
    return grants[0] if grants else None
