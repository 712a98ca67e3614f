"""Orders: an owner places one, the party checks it against the ledger, somebody approves it."""

from __future__ import annotations

from dataclasses import dataclass

from firstlight.errors import ProofError, StoreError
from firstlight.ledger.records import Batch, TenureState
from firstlight.onboarding.ports import Anchor
from firstlight.plan.order import Order, open_order, parse_order
from firstlight.ports import Clock
from firstlight.roles.party.view import PartyView
from firstlight.stores.exchanges import ExchangeStore
from firstlight.stores.pending_orders import PendingOrder, PendingOrders

PENDING = "pending"
APPROVED = "approved"
SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class ListedOrder:
    """An order, whether it is ``pending`` or ``approved``, and how many of its devices have been granted something."""

    order: Order
    state: str
    used: int


class OrderDesk:
    """Takes orders for one party, and remembers them."""

    def __init__(
        self,
        chain: str,
        party: bytes,
        *,
        view: PartyView,
        pending: PendingOrders,
        exchanges: ExchangeStore,
        clock: Clock,
    ) -> None:
        """Take orders for ``party`` (16 bytes) on ``chain``."""
        self._chain = chain
        self._party = party
        self._view = view
        self._pending = pending
        self._exchanges = exchanges
        self._clock = clock

    def place(self, document: bytes) -> ListedOrder:
        """Take a signed order; the same one again changes nothing.

        1. Its batch is on the ledger (``unknown-batch``). 2. Its tenure is one that somebody has received and still
        counts as its own origin (``tenure-not-accepted``, ``tenure-missing``), and not retired (``tenure-retired``).
        3. That tenure's key signed it, for this chain and party, and it has not run out
        (:func:`firstlight.plan.order.open_order`). 4. It is for no more devices than the batch has
        (``too-many-devices``). 5. No other order has its number (:class:`StoreError` ``order-differs``).

        Raises :class:`ProofError` where nothing else is said, :class:`TransportError` where the ledger is out of reach.
        """
        order = parse_order(document)
        now = self._clock.now() // SECOND
        batch, key = self._holder(order)
        open_order(document, key=key, chain=self._chain, party=self._party, now=now)
        if order.devices > batch.size:
            raise ProofError("too-many-devices", f"{order.devices} devices of a batch of {batch.size}")
        known = next((one for one in self._exchanges.orders() if one.order.number == order.number), None)
        if known is not None:
            if known.order != order:
                raise StoreError("order-differs", "another order has this number")
            return ListedOrder(order, APPROVED, known.used)
        self._pending.add(PendingOrder(order, document, Anchor(batch.leaves, batch.size), now))
        return ListedOrder(order, PENDING, 0)

    def _holder(self, order: Order) -> tuple[Batch, bytes]:
        """Return the batch's record, and the key of the tenure that the order belongs to."""
        head = self._view.fresh()
        batch = self._view.batch(head, order.batch)
        standing = self._view.standing(head, order.batch, order.origin)
        if (standing.number, standing.origin) != (order.origin, order.origin):
            raise ProofError("tenure-not-accepted", f"tenure {order.origin} is nobody's own")
        if standing.state is TenureState.RETIRED:
            raise ProofError("tenure-retired", f"tenure {order.origin} is retired")
        return batch, standing.key


def listed(pending: PendingOrders, exchanges: ExchangeStore) -> tuple[ListedOrder, ...]:
    """Return all orders: those that wait, then those approved."""
    waiting = [ListedOrder(one.order, PENDING, 0) for one in pending.all()]
    return (*waiting, *(ListedOrder(one.order, APPROVED, one.used) for one in exchanges.orders()))


def approve(number: bytes, pending: PendingOrders, exchanges: ExchangeStore) -> ListedOrder:
    """Let an order count; one that does already stays so. Raises :class:`StoreError` (``order-unknown``)."""
    waiting = pending.get(number)
    if waiting is not None:
        exchanges.add_order(waiting.order, waiting.anchor, waiting.document)
        pending.remove(number)
    for one in exchanges.orders():
        if one.order.number == number:
            return ListedOrder(one.order, APPROVED, one.used)
    raise StoreError("order-unknown", f"no order {number.hex()} was placed here")
