"""The subscribers in the database of osmo-hlr (its ``sql/hlr.sql``, of version 6; newer ones have the same columns).

osmo-hlr keeps nothing of it in memory: what a transaction here wrote counts for its next request. While one is open,
though, osmo-hlr cannot write down a sequence number and refuses (it waits for no lock), so transactions here are short
and made while nobody asks (:mod:`firstlight.access.serving.osmo_hlr_centre`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Self

from firstlight.errors import StoreError
from firstlight.sim.subscription import Subscriber
from firstlight.stores.database import Database, Schema

MILENAGE, NOTHING = 5, 0
"""``enum osmo_auth_algo``: with the latter osmo-hlr makes no vectors, and the sequence number stays."""
IND_BITS = 5
_COLUMNS = (
    "SELECT id, imsi, nam_cs, nam_ps FROM subscriber LIMIT 0",
    "SELECT subscriber_id, algo_id_3g, k, op, opc, sqn, ind_bitlen FROM auc_3g LIMIT 0",
)
_ROW = "SELECT id, algo_id_3g, k, opc, op FROM subscriber LEFT JOIN auc_3g ON subscriber_id = id WHERE imsi = ?"
_KEYS = ("DELETE FROM auc_3g WHERE subscriber_id = ?", "DELETE FROM auc_2g WHERE subscriber_id = ?")


class HlrDatabase:
    """The register's database. Any thread may call; every method raises :class:`StoreError` (``database-unusable``)."""

    def __init__(self, database: Database) -> None:
        """Use an open database; use :meth:`open`."""
        self._database = database

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file at ``path``, made by osmo-hlr: ``database-unusable``, ``schema-unknown``."""
        database = Database.open(path, Schema("osmo-hlr", ""))
        try:
            for query in _COLUMNS:
                database.rows(query)
        except StoreError as error:
            database.close()
            raise StoreError("schema-unknown", f"{path} is no database of osmo-hlr's that we know") from error
        return cls(database)

    def close(self) -> None:
        """Close it."""
        self._database.close()

    def write(self, subscribers: Iterable[Subscriber]) -> int:
        """Have each subscriber stand there as told, all in one durable transaction; return how many did not yet.

        One that has ended is deleted with its keys, one that is suspended keeps its sequence number and gets no
        vectors. The register's own sequence number stays as it is unless the keys are others.
        """
        with self._database.transaction():
            return sum([self._write(one) for one in subscribers])

    def imsis(self) -> set[str]:
        """Return everybody's IMSI."""
        return {imsi for (imsi,) in self._database.rows("SELECT imsi FROM subscriber")}

    def delete(self, imsis: Iterable[str]) -> None:
        """Delete subscribers with their keys, in one durable transaction."""
        self.write(Subscriber(imsi, None, 0, suspended=False) for imsi in imsis)

    def sqn(self, imsi: str) -> int | None:
        """Return a subscriber's sequence number; None for one that has no keys here."""
        row = self._database.row("SELECT sqn FROM auc_3g JOIN subscriber ON subscriber_id = id WHERE imsi = ?", imsi)
        return None if row is None else int(row[0])

    def _write(self, wanted: Subscriber) -> bool:
        execute = self._database.connection.execute
        row = execute(_ROW, (wanted.imsi,)).fetchone()
        own = wanted.credentials
        if own is None:
            if row is None:
                return False
            for statement in _KEYS:
                execute(statement, (row[0],))
            execute("DELETE FROM subscriber WHERE id = ?", (row[0],))
            return True
        algorithm, k, opc = NOTHING if wanted.suspended else MILENAGE, own.k.hex(), own.opc.hex()
        if row is not None and row[1:] == (algorithm, k, opc, None):
            return False
        if row is not None and (row[2], row[3], row[4]) == (k, opc, None):
            execute("UPDATE auc_3g SET algo_id_3g = ? WHERE subscriber_id = ?", (algorithm, row[0]))
            return True
        if row is None:
            query = "INSERT INTO subscriber (imsi, nam_cs, nam_ps) VALUES (?, 0, 1) RETURNING id"
            row = execute(query, (wanted.imsi,)).fetchone()
        execute(
            "INSERT OR REPLACE INTO auc_3g (subscriber_id, algo_id_3g, k, op, opc, sqn, ind_bitlen) "
            "VALUES (?, ?, ?, NULL, ?, ?, ?)",
            (row[0], algorithm, k, opc, wanted.sqn, IND_BITS),
        )
        return True
