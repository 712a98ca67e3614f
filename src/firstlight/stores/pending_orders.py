"""Orders that owners have placed and the party has not approved yet.

They stand in the party's own database beside what :mod:`firstlight.stores.exchanges` keeps; approving one moves it
there. Any number of processes may share the file, one object serves many threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from firstlight.errors import StoreError
from firstlight.onboarding.ports import Anchor
from firstlight.plan.order import Order
from firstlight.stores.database import Schema, Store

MAX_PENDING = 10_000
"""How many orders may wait for approval: whoever holds any tenure's key may place some."""

_SCRIPT = """
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


class PendingOrders(Store):
    """The store. Raises :class:`StoreError` (``database-unusable``) everywhere."""

    SCHEMA = Schema("pending orders", _SCRIPT)

    def add(self, pending: PendingOrder) -> None:
        """Keep an order; the same one again changes nothing.

        Raises :class:`StoreError`: ``order-differs`` (another one has its number), ``too-many-orders``.
        """
        order, anchor = pending.order, pending.anchor
        with self._database.reading() as connection:
            known = self.get(order.number)
            if known is not None:
                if known.order != order:
                    raise StoreError("order-differs", "another order has this number")
                return
            row = (order.number, order.encode(), pending.document, anchor.leaves, anchor.size, pending.received_at)
            added = connection.execute(
                "INSERT INTO pending_order SELECT ?, ?, ?, ?, ?, ? WHERE (SELECT count(*) FROM pending_order) < ?",
                (*row, MAX_PENDING),
            )
            if not added.rowcount:
                raise StoreError("too-many-orders", f"{MAX_PENDING} orders wait for approval")

    def get(self, number: bytes) -> PendingOrder | None:
        """Return the order of that number."""
        row = self._database.row(f"{_SELECT} WHERE number = ?", number)
        return None if row is None else _pending(row)

    def all(self) -> tuple[PendingOrder, ...]:
        """Return all that wait, the oldest first."""
        return tuple(_pending(row) for row in self._database.rows(f"{_SELECT} ORDER BY received_at, number"))

    def remove(self, number: bytes) -> None:
        """Forget an order, if it is there."""
        with self._database.reading() as connection:
            connection.execute("DELETE FROM pending_order WHERE number = ?", (number,))


_SELECT = "SELECT body, document, leaves, size, received_at FROM pending_order"


def _pending(row: tuple[Any, ...]) -> PendingOrder:
    body, document, leaves, size, received_at = row
    return PendingOrder(Order.decode(body), document, Anchor(leaves, size), received_at)
