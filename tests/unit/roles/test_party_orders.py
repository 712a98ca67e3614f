"""Orders: what a party takes, what it refuses, and that only an approved one counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from firstlight.errors import FirstlightError, StoreError
from firstlight.ledger.records import Batch, TenureState, batch_name, tenure_name
from firstlight.onboarding.ports import Anchor
from firstlight.plan.order import Order, sign_order
from firstlight.roles.ledger_client import LedgerClient
from firstlight.roles.party.orders import APPROVED, PENDING, OrderDesk, approve, listed
from firstlight.roles.party.view import PartyView
from firstlight.stores import pending_orders
from firstlight.stores.exchanges import ExchangeStore
from firstlight.stores.pending_orders import PendingOrder, PendingOrders
from firstlight.testing.bundles import BATCH, NETWORK, Ledger, origin
from firstlight.testing.chains import GENESIS, P256Key
from firstlight.testing.clock import FakeClock
from firstlight.testing.parties import FakeNode, genesis_of
from firstlight.testing.random import SeededRandom
from firstlight.transports.client import SyncClient

OWNER = P256Key("tenure 2")
ORDER = Order(b"\x07" * 16, "test-1", NETWORK, BATCH, 2, 100, GENESIS + 9_000)


@dataclass(slots=True)
class Scene:
    ledger: Ledger
    desk: OrderDesk
    pending: PendingOrders
    exchanges: ExchangeStore


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    ledger = Ledger(size=1000)
    node = FakeNode(ledger, time=GENESIS + 500)
    answering = httpx.MockTransport(lambda request: httpx.Response(200, content=node.answer(request.read())))
    http = SyncClient(transport=answering)
    client = LedgerClient("http://node", genesis_of(ledger), tmp_path / "memory", random=SeededRandom(), http=http)
    exchanges = ExchangeStore.open(tmp_path / "party.sqlite")
    pending = PendingOrders.open(tmp_path / "party.sqlite")
    view = PartyView(client, NETWORK)
    clock = FakeClock(GENESIS + 500)
    desk = OrderDesk("test-1", NETWORK, view=view, pending=pending, exchanges=exchanges, clock=clock)
    return Scene(ledger, desk, pending, exchanges)


def test_an_order_counts_once_it_is_approved(scene: Scene) -> None:
    document = sign_order(ORDER, OWNER)
    assert scene.desk.place(document).state == PENDING
    assert scene.desk.place(document).state == PENDING
    assert scene.exchanges.anchor(BATCH) is None
    assert [(one.order, one.state) for one in listed(scene.pending, scene.exchanges)] == [(ORDER, PENDING)]
    for _ in range(2):
        assert approve(ORDER.number, scene.pending, scene.exchanges).state == APPROVED
    anchor = scene.exchanges.anchor(BATCH)
    assert anchor == Anchor(bytes(32), 1000)
    assert [(one.order, one.state) for one in listed(scene.pending, scene.exchanges)] == [(ORDER, APPROVED)]
    assert scene.desk.place(document).state == APPROVED


def test_an_order_that_nobody_placed(scene: Scene) -> None:
    with pytest.raises(StoreError, match="order-unknown"):
        approve(bytes(16), scene.pending, scene.exchanges)


def bend(scene: Scene, number: int, **changes: object) -> None:
    name = tenure_name(BATCH, number)
    scene.ledger.records[name] = replace(scene.ledger.records[name], **changes)  # type: ignore[type-var]


def unaccepted(scene: Scene) -> None:
    bend(scene, 2, state=TenureState.OFFERED, expiry=GENESIS + 8_000)


def undone(scene: Scene) -> None:
    bend(scene, 1, delay=100, recovered_at=GENESIS + 50)


def split(scene: Scene) -> None:
    scene.ledger.split(0, 4, 3, replace(origin(3, 4, previous=2), origin=2))


REFUSED: dict[str, tuple[str, Callable[[Scene], None], dict[str, object], P256Key]] = {
    "another key": ("unknown-key", lambda _: None, {}, P256Key("tenure 1")),
    "the seller's order": ("unknown-key", lambda _: None, {"origin": 1}, OWNER),
    "another chain": ("wrong-chain", lambda _: None, {"chain": "other"}, OWNER),
    "another party": ("wrong-party", lambda _: None, {"party": bytes(16)}, OWNER),
    "run out": ("order-expired", lambda _: None, {"until": GENESIS + 500}, OWNER),
    "another batch": ("unknown-batch", lambda _: None, {"batch": bytes(16)}, OWNER),
    "a tenure that is not there": ("tenure-missing", lambda _: None, {"origin": 9}, OWNER),
    "a tenure that is not accepted": ("tenure-not-accepted", unaccepted, {}, OWNER),
    "a tenure that was undone": ("tenure-not-accepted", undone, {}, OWNER),
    "a tenure that is not an origin": ("tenure-not-accepted", split, {"origin": 3}, OWNER),
    "a retired tenure": ("tenure-retired", lambda s: bend(s, 2, state=TenureState.RETIRED), {}, OWNER),
    "more devices than there are": ("too-many-devices", lambda _: None, {"devices": 1001}, OWNER),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(scene: Scene, name: str) -> None:
    code, change, fields, key = REFUSED[name]
    change(scene)
    with pytest.raises(FirstlightError) as caught:
        scene.desk.place(sign_order(replace(ORDER, **fields), key))  # type: ignore[arg-type]
    assert caught.value.code == code
    assert listed(scene.pending, scene.exchanges) == ()


def test_one_number_is_one_order(scene: Scene) -> None:
    other = sign_order(replace(ORDER, devices=5), OWNER)
    scene.desk.place(sign_order(ORDER, OWNER))
    with pytest.raises(StoreError, match="order-differs"):
        scene.desk.place(other)
    approve(ORDER.number, scene.pending, scene.exchanges)
    with pytest.raises(StoreError, match="order-differs"):
        scene.desk.place(other)


def test_so_many_wait_and_no_more(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending_orders, "MAX_PENDING", 2)
    for number in (1, 2):
        scene.pending.add(PendingOrder(replace(ORDER, number=bytes([number]) * 16), b"", Anchor(bytes(32), 1), 1))
    with pytest.raises(StoreError, match="too-many-orders"):
        scene.desk.place(sign_order(ORDER, OWNER))
    record = scene.ledger.records.get(batch_name(BATCH))
    assert record is None or isinstance(record, Batch)
