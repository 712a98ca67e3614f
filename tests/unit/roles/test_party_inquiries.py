"""Owners ask a party: whose key must have signed, what is told, and what a clearance does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from firstlight.errors import FirstlightError
from firstlight.ledger.records import TenureState, tenure_name
from firstlight.onboarding.ports import Anchor, Answered, Entry, NewGrant
from firstlight.plan.claims import PartyKind
from firstlight.plan.order import Order
from firstlight.roles.ledger_client import LedgerClient
from firstlight.roles.party.inquiries import Inquiries, Stores
from firstlight.roles.party.view import PartyView
from firstlight.sealing.inquiry import (
    Asked,
    Clearance,
    Cleared,
    Question,
    Told,
    open_answer,
    seal_inquiry,
    sign_inquiry,
)
from firstlight.stores.exchanges import ExchangeStore
from firstlight.stores.pending_orders import PendingOrder, PendingOrders
from firstlight.testing.bundles import BATCH, NETWORK, Ledger, origin
from firstlight.testing.chains import GENESIS, P256Key
from firstlight.testing.clock import FakeClock
from firstlight.testing.parties import FakeNode, genesis_of
from firstlight.testing.random import SeededRandom
from firstlight.transports.client import SyncClient

OWNER, MNO, REPLY = P256Key("tenure 2"), P256Key("agreement"), P256Key("reply")
ORDER = Order(b"\x07" * 16, "test-1", NETWORK, BATCH, 2, 100, GENESIS + 9_000)
ASKED = Question("test-1", NETWORK, BATCH, 2, ORDER.number, 0, b"n" * 16, GENESIS + 500, REPLY.public)
SECOND = 1_000_000_000
ACCEPTED = 400 * SECOND


@dataclass(slots=True)
class Scene:
    ledger: Ledger
    exchanges: ExchangeStore
    pending: PendingOrders
    inquiries: Inquiries

    def refuse(self, index: int, code: str, at_ns: int, *, alarm: int | None = None) -> None:
        th_3 = at_ns.to_bytes(32)
        known = self.exchanges.known(th_3, BATCH, index)
        entry = Entry(th_3, Answered(th_3, b"4"), BATCH, index, at_ns, at_ns, code, known.version, None, alarm)
        assert self.exchanges.commit(entry) is not None

    def grant(self, index: int) -> None:
        new = NewGrant(bytes([index + 1]) * 16, 2, ORDER.number, PartyKind.NETWORK, 1, 9, f"id-{index}", b"", b"")
        th_3 = bytes([index + 1]) * 32
        assert self.exchanges.commit(Entry(th_3, Answered(th_3, b"4"), BATCH, index, 1, 1, "granted", 0, new))

    def ask(self, question: Question = ASKED, signer: P256Key = OWNER) -> Told:
        signed = sign_inquiry(question, signer)
        sealed = seal_inquiry(signed, chain="test-1", party=NETWORK, agreement=MNO.public)
        answer = open_answer(self.inquiries.tell(sealed), REPLY, asked=Asked(question, signed))
        assert isinstance(answer, Told)
        return answer

    def clear(self, index: int, raised_ns: int) -> bool:
        word = Clearance("test-1", NETWORK, BATCH, 2, index, raised_ns, b"n" * 16, GENESIS + 500, REPLY.public)
        signed = sign_inquiry(word, OWNER)
        sealed = seal_inquiry(signed, chain="test-1", party=NETWORK, agreement=MNO.public)
        answer, stood = self.inquiries.clear(sealed)
        assert open_answer(answer, REPLY, asked=Asked(word, signed)) == Cleared(stood)
        return stood


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    ledger = Ledger(size=1024)
    node = FakeNode(ledger, time=GENESIS + 500)
    answering = httpx.MockTransport(lambda request: httpx.Response(200, content=node.answer(request.read())))
    http = SyncClient(transport=answering)
    client = LedgerClient("http://node", genesis_of(ledger), tmp_path / "memory", random=SeededRandom(), http=http)
    database = tmp_path / "party.sqlite"
    exchanges, pending = ExchangeStore.open(database), PendingOrders.open(database)
    stores, view, clock = Stores(database, pending, exchanges), PartyView(client, NETWORK), FakeClock(GENESIS + 500)
    inquiries = Inquiries("test-1", NETWORK, MNO, view=view, stores=stores, clock=clock)
    return Scene(ledger, exchanges, pending, inquiries)


def bend(scene: Scene, number: int, **changes: object) -> None:
    name = tenure_name(BATCH, number)
    scene.ledger.records[name] = replace(scene.ledger.records[name], **changes)  # type: ignore[type-var]


def test_an_owner_is_told_of_an_order_that_waits_and_of_one_that_counts(scene: Scene) -> None:
    anchor = Anchor(bytes(32), 1024)
    scene.pending.add(PendingOrder(ORDER, b"document", anchor, 1))
    assert scene.ask().approved is False
    scene.exchanges.add_order(ORDER, anchor, b"document")
    scene.grant(3)
    found = scene.ask()
    assert (found.approved, found.devices, found.used, [line.index for line in found.lines]) == (True, 100, 1, [3])


def undone(scene: Scene) -> None:
    """Undo the transfer that the asking tenure came from."""
    bend(scene, 1, delay=3_600, recovered_at=GENESIS + 400)
    bend(scene, 2, accepted_at=GENESIS + 300)


def split(scene: Scene) -> None:
    scene.ledger.split(0, 1, 3, replace(origin(3, 1, previous=2), origin=2))


def nothing(_: Scene) -> None:
    """Change nothing."""


REFUSED: dict[str, tuple[str, Callable[[Scene], None], dict[str, object], P256Key]] = {
    "another key": ("unknown-key", nothing, {}, P256Key("thief")),
    "another chain": ("wrong-chain", nothing, {"chain": "other"}, OWNER),
    "another party": ("wrong-party", nothing, {"party": bytes(16)}, OWNER),
    "too old": ("question-stale", nothing, {"at": GENESIS + 200}, OWNER),
    "an order that is not there": ("order-unknown", nothing, {"order": bytes(16)}, OWNER),
    "a tenure that is not there": ("tenure-missing", nothing, {"origin": 9}, OWNER),
    "a tenure that was undone": ("tenure-not-accepted", undone, {}, OWNER),
    "a tenure that is not an origin": ("tenure-not-accepted", split, {"origin": 3}, OWNER),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(scene: Scene, name: str) -> None:
    code, change, fields, key = REFUSED[name]
    scene.exchanges.add_order(ORDER, Anchor(bytes(32), 1024), b"document")
    change(scene)
    with pytest.raises(FirstlightError) as caught:
        scene.ask(replace(ASKED, **fields), key)  # type: ignore[arg-type]
    assert caught.value.code == code


def test_another_tenures_order_is_not_there(scene: Scene) -> None:
    scene.exchanges.add_order(replace(ORDER, origin=1), Anchor(bytes(32), 1024), b"document")
    with pytest.raises(FirstlightError, match="order-unknown"):
        scene.ask()


@pytest.mark.parametrize("state", [TenureState.FROZEN, TenureState.RETIRED])
def test_the_owner_of_frozen_and_retired_devices_may_ask(scene: Scene, state: TenureState) -> None:
    scene.exchanges.add_order(ORDER, Anchor(bytes(32), 1024), b"document")
    bend(scene, 2, state=state)
    assert scene.ask().approved


def test_of_refusals_he_learns_while_the_device_is_his(scene: Scene) -> None:
    scene.exchanges.add_order(ORDER, Anchor(bytes(32), 1024), b"document")
    bend(scene, 2, accepted_at=400)
    scene.refuse(0, "svn-too-low", ACCEPTED)
    scene.refuse(1, "svn-too-low", ACCEPTED - 1)
    scene.refuse(2, "svn-too-low", ACCEPTED + 1)
    scene.ledger.split(2, 1, 3, origin(3, 1, previous=2))
    assert [(line.index, line.refused) for line in scene.ask().lines] == [(0, "svn-too-low")]


def test_an_alarm_is_cleared_once_and_by_its_time(scene: Scene) -> None:
    scene.refuse(4, "clone-alarm", 7, alarm=2)
    assert [scene.clear(4, 6), scene.clear(5, 7), scene.clear(4, 7), scene.clear(4, 7)] == [False, False, True, False]
    scene.refuse(4, "clone-alarm", 9, alarm=2)
    assert not scene.clear(4, 7)
    assert [(one.index, one.raised_ns) for one in scene.exchanges.alarms()] == [(4, 9)]
