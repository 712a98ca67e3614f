"""Orders that owners have placed and the party has not approved yet.

They stand in the party's own database beside what :mod:`firstlight.stores.exchanges` keeps; approving one moves it
there. Any number of processes may share the file, one object serves many threads.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firstlight.errors import StoreError
from firstlight.onboarding.ports import Anchor
from firstlight.plan.order import Order

MAX_PENDING = 10_000
"""How many orders may wait for approval: whoever holds any tenure's key may place some."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS pending_order (
    number BLOB PRIMARY KEY, body BLOB NOT NULL, document BLOB NOT NULL, leaves BLOB NOT NULL, size INTEGER NOT NULL,
    received_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True)
class PendingOrder:
    """An order whose signature and tenure were checked; ``document`` is the signed order, times in Unix seconds."""

    order: Order
    document: bytes
    anchor: Anchor
    received_at: int


class PendingOrders:
    """The store. Raises :class:`StoreError` (``database-unusable``) everywhere."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Use a connection in autocommit mode that this object has to itself."""
        self._connection = connection
        self._lock = threading.Lock()
        with _wrapped():
            connection.execute(_SCHEMA)

    @classmethod
    def open(cls, path: Path) -> PendingOrders:
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

    def add(self, pending: PendingOrder) -> None:
        """Keep an order; the same one again changes nothing.

        Raises :class:`StoreError`: ``order-differs`` (another one has its number), ``too-many-orders``.
        """
        order, anchor = pending.order, pending.anchor
        with self._lock, _wrapped():
            known = self._get(order.number)
            if known is not None:
                if known.order != order:
                    raise StoreError("order-differs", "another order has this number")
                return
            row = (order.number, order.encode(), pending.document, anchor.leaves, anchor.size, pending.received_at)
            added = self._connection.execute(
                "INSERT INTO pending_order SELECT ?, ?, ?, ?, ?, ? WHERE (SELECT count(*) FROM pending_order) < ?",
                (*row, MAX_PENDING),
            )
            if not added.rowcount:
                raise StoreError("too-many-orders", f"{MAX_PENDING} orders wait for approval")

    def get(self, number: bytes) -> PendingOrder | None:
        """Return the order of that number."""
        with self._lock, _wrapped():
            return self._get(number)

    def all(self) -> tuple[PendingOrder, ...]:
        """Return all that wait, the oldest first."""
        with self._lock, _wrapped():
            rows = self._connection.execute(f"{_SELECT} ORDER BY received_at, number").fetchall()
        return tuple(_pending(row) for row in rows)

    def remove(self, number: bytes) -> None:
        """Forget an order, if it is there."""
        with self._lock, _wrapped():
            self._connection.execute("DELETE FROM pending_order WHERE number = ?", (number,))

    def _get(self, number: bytes) -> PendingOrder | None:
        row = self._connection.execute(f"{_SELECT} WHERE number = ?", (number,)).fetchone()
        return None if row is None else _pending(row)


_SELECT = "SELECT body, document, leaves, size, received_at FROM pending_order"


def _pending(row: tuple[Any, ...]) -> PendingOrder:
    body, document, leaves, size, received_at = row
    return PendingOrder(Order.decode(body), document, Anchor(leaves, size), received_at)


@contextlib.contextmanager
def _wrapped() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreError("database-unusable", str(error)) from error
