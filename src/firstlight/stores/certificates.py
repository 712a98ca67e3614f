"""The certificates that a service provider has issued, in SQLite: which grant each belongs to, and where it stands.

A certificate is pending until its first successful use (:meth:`Certificates.confirm`), which revokes the older ones
of its slot: one device under one origin tenure, as the caller writes it. A new certificate revokes the one that was
pending in its slot. Revoked is final, and stays on the revocation list until the certificate has expired.

Each method is one durable transaction. :func:`insert` alone opens none, so that a certificate can be part of the
transaction that grants it. One object serves many threads, any number of processes may share the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from enum import IntEnum

from firstlight.enrolment.issue import Revocation
from firstlight.errors import StoreError
from firstlight.stores.database import Database, Schema, Store, prepare

VERSION = 1
KEPT_AFTER_EXPIRY = 86_400
"""Seconds for which an expired certificate stays in the store, and on the list if it is revoked."""

_SCRIPT = """
CREATE TABLE IF NOT EXISTS certificate (
    name TEXT PRIMARY KEY, serial BLOB NOT NULL UNIQUE, grant_id BLOB NOT NULL UNIQUE, slot BLOB NOT NULL,
    issued_at INTEGER NOT NULL, expires INTEGER NOT NULL, state INTEGER NOT NULL, confirmed_at INTEGER,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS certificate_slot ON certificate (slot);
CREATE INDEX IF NOT EXISTS certificate_revoked ON certificate (expires) WHERE revoked_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS certificate_meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"""
_SCHEMA = Schema("certificates", _SCRIPT, VERSION, meta="certificate_meta")
_COLUMNS = "name, serial, grant_id, slot, issued_at, expires, state, revoked_at"


class CertificateState(IntEnum):
    """Where a certificate stands."""

    PENDING = 1
    ACTIVE = 2
    REVOKED = 3


@dataclass(frozen=True, slots=True)
class NewCertificate:
    """A certificate to keep: common name, serial number, grant (16 bytes), slot; times in Unix seconds."""

    name: str
    serial: int
    grant: bytes
    slot: bytes
    issued_at: int
    expires: int


@dataclass(frozen=True, slots=True)
class StoredCertificate:
    """A certificate as it is kept; times in Unix seconds."""

    name: str
    serial: int
    grant: bytes
    slot: bytes
    issued_at: int
    expires: int
    state: CertificateState
    revoked_at: int | None


@dataclass(frozen=True, slots=True)
class Confirmation:
    """A successful use: of which grant, whether its first, and which certificates were revoked by it."""

    grant: bytes
    first: bool
    revoked: tuple[StoredCertificate, ...]


@dataclass(frozen=True, slots=True)
class RevocationList:
    """What the next revocation list says: its number, larger than any before, and its entries."""

    number: int
    entries: tuple[Revocation, ...]


Watcher = Callable[[tuple[StoredCertificate, ...]], None]
"""Told, after the commit, which certificates were just revoked through this object."""


def create(connection: sqlite3.Connection) -> None:
    """Create the tables where they are missing; :class:`StoreError` (``schema-unknown``) for another version's."""
    prepare(connection, _SCHEMA)


def insert(
    connection: sqlite3.Connection, new: NewCertificate, *, first: bool = False
) -> tuple[StoredCertificate, ...]:
    """Add a pending certificate in the caller's transaction; what was pending in its slot is revoked, and returned.

    ``first`` says that nothing was ever in that slot, so that it need not be looked for. Raises :class:`StoreError`
    (``certificate-taken``) if its name, serial number or grant is there already.
    """
    revoked: tuple[StoredCertificate, ...] = ()
    if not first:
        revoked = _revoke(connection, new.issued_at, "slot = ? AND state = ?", new.slot, CertificateState.PENDING.value)
    row = (new.name, _serial(new.serial), new.grant, new.slot, new.issued_at, new.expires)
    try:
        connection.execute(
            "INSERT INTO certificate (name, serial, grant_id, slot, issued_at, expires, state)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*row, CertificateState.PENDING.value),
        )
    except sqlite3.IntegrityError as error:
        raise StoreError("certificate-taken", "this name, serial number or grant has a certificate") from error
    return revoked


class Certificates(Store):
    """The store. ``now`` is in Unix seconds. Raises :class:`StoreError` (``database-unusable``) everywhere."""

    SCHEMA = _SCHEMA

    def __init__(self, database: Database) -> None:
        """Use a database that this object has to itself."""
        super().__init__(database)
        self._watchers: list[Watcher] = []

    def watch(self, watcher: Watcher) -> None:
        """Tell ``watcher`` from now on which certificates are revoked."""
        self._watchers.append(watcher)

    def add(self, new: NewCertificate) -> tuple[StoredCertificate, ...]:
        """Do what :func:`insert` does in a transaction of its own."""
        with self._database.transaction() as connection:
            revoked = insert(connection, new)
        return self._tell(revoked)

    def confirm(self, name: str, now: int) -> Confirmation:
        """Record a successful use of the certificate ``name``; its first revokes all older ones of its slot.

        Raises ``certificate-unknown``, ``certificate-revoked``.
        """
        found = self._usable(name)
        if found.state is CertificateState.ACTIVE:
            return Confirmation(found.grant, first=False, revoked=())
        with self._database.transaction() as connection:
            found = self._usable(name)
            revoked = _revoke(connection, now, "slot = ? AND name <> ?", found.slot, name)
            connection.execute(
                "UPDATE certificate SET state = ?, confirmed_at = ? WHERE name = ?",
                (CertificateState.ACTIVE.value, now, name),
            )
        return Confirmation(found.grant, first=True, revoked=self._tell(revoked))

    def revoke(self, grants: Iterable[bytes], now: int) -> tuple[StoredCertificate, ...]:
        """Revoke the certificates of ``grants``, all or none of them; return those that were not revoked before.

        A grant without a certificate is none of this store's business.
        """
        revoked: tuple[StoredCertificate, ...] = ()
        with self._database.transaction() as connection:
            for grant in grants:
                revoked += _revoke(connection, now, "grant_id = ?", grant)
        return self._tell(revoked)

    def by_name(self, name: str) -> StoredCertificate | None:
        """Return the certificate with that common name."""
        return self._one("name = ?", name)

    def by_grant(self, grant: bytes) -> StoredCertificate | None:
        """Return the certificate of a grant."""
        return self._one("grant_id = ?", grant)

    def names(self, serials: Set[int]) -> set[str]:
        """Return the common names of those of these serial numbers that are revoked."""
        rows = self._database.rows("SELECT serial, name FROM certificate WHERE revoked_at IS NOT NULL")
        return {name for serial, name in rows if int.from_bytes(serial) in serials}

    def unusable(self, names: Iterable[str]) -> set[str]:
        """Return those of ``names`` that are revoked or unknown."""
        revoked = CertificateState.REVOKED.value
        usable = {name for (name,) in self._database.rows("SELECT name FROM certificate WHERE state <> ?", revoked)}
        return set(names) - usable

    def version(self) -> tuple[int, int]:
        """Return a pair that changes whenever anybody, in this process or another, changes the database."""
        with self._database.reading() as connection:
            return int(connection.execute("PRAGMA data_version").fetchone()[0]), connection.total_changes

    def living(self) -> set[bytes]:
        """Return the grants whose certificates have not been revoked."""
        rows = self._database.rows("SELECT grant_id FROM certificate WHERE state <> ?", CertificateState.REVOKED.value)
        return {grant for (grant,) in rows}

    def counts(self) -> dict[CertificateState, int]:
        """Return how many certificates stand where."""
        rows = self._database.rows("SELECT state, count(*) FROM certificate GROUP BY state")
        return {CertificateState(state): count for state, count in rows}

    def next_list(self, now: int) -> RevocationList:
        """Return what the revocation list issued at ``now`` says, under a number that is used up."""
        with self._database.transaction() as connection:
            number: int = connection.execute(
                "INSERT INTO certificate_meta VALUES ('list', 1)"
                " ON CONFLICT DO UPDATE SET value = value + 1 RETURNING value"
            ).fetchone()[0]
            rows = connection.execute(
                "SELECT serial, revoked_at FROM certificate WHERE revoked_at IS NOT NULL AND expires >= ?"
                " ORDER BY serial",
                (now - KEPT_AFTER_EXPIRY,),
            ).fetchall()
        return RevocationList(number, tuple(Revocation(int.from_bytes(serial), time) for serial, time in rows))

    def prune(self, now: int) -> int:
        """Forget certificates that have long expired; return how many."""
        with self._database.transaction() as connection:
            return connection.execute("DELETE FROM certificate WHERE expires < ?", (now - KEPT_AFTER_EXPIRY,)).rowcount

    def _usable(self, name: str) -> StoredCertificate:
        found = self.by_name(name)
        if found is None:
            raise StoreError("certificate-unknown", "no certificate of that name")
        if found.state is CertificateState.REVOKED:
            raise StoreError("certificate-revoked", "the certificate is revoked")
        return found

    def _one(self, where: str, value: str | bytes) -> StoredCertificate | None:
        with self._database.reading() as connection:
            rows = _select(connection, where, value)
        return rows[0] if rows else None

    def _tell(self, revoked: tuple[StoredCertificate, ...]) -> tuple[StoredCertificate, ...]:
        if revoked:
            for watcher in self._watchers:
                watcher(revoked)
        return revoked


def _select(connection: sqlite3.Connection, where: str, *values: object) -> tuple[StoredCertificate, ...]:
    rows = connection.execute(f"SELECT {_COLUMNS} FROM certificate WHERE {where}", values)  # noqa: S608
    return tuple(
        StoredCertificate(name, int.from_bytes(serial), grant, slot, issued, expires, CertificateState(state), revoked)
        for name, serial, grant, slot, issued, expires, state, revoked in rows.fetchall()
    )


def _revoke(connection: sqlite3.Connection, now: int, where: str, *values: object) -> tuple[StoredCertificate, ...]:
    """Revoke what ``where`` selects and is not revoked yet; return it as it now stands."""
    revoked = CertificateState.REVOKED.value
    names = [one.name for one in _select(connection, f"({where}) AND state <> ?", *values, revoked)]
    found: tuple[StoredCertificate, ...] = ()
    for name in names:
        connection.execute("UPDATE certificate SET state = ?, revoked_at = ? WHERE name = ?", (revoked, now, name))
        found += _select(connection, "name = ?", name)
    return found


def _serial(number: int) -> bytes:
    """Return a serial number of at most 20 bytes (RFC 5280 §4.1.2.2): SQLite's integers are too short for it."""
    return number.to_bytes(20)
