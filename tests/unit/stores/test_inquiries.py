"""What a party's database tells an owner: of his order and origin alone, in pages, with why things ended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from firstlight.errors import StoreError
from firstlight.onboarding.ports import Anchor, Answered, Entry, NewGrant
from firstlight.plan.claims import PartyKind
from firstlight.plan.order import Order
from firstlight.sealing.inquiry import ROWS, DeviceLine, Ending, Holds, RaisedAlarm, Told
from firstlight.stores.exchanges import ExchangeStore
from firstlight.stores.inquiries import told
from firstlight.stores.messages import Messages, ReadMessage
from firstlight.stores.pending_orders import PendingOrders

BATCH = bytes(16)
SECOND = 1_000_000_000
ORDER = Order(b"\x09" * 16, "test-1", bytes(16), BATCH, 2, 1_000, 2_000_000_000)
ANOTHER = replace(ORDER, number=b"\x08" * 16, origin=3)


class Scene:
    """A provider's database."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store, self.messages = ExchangeStore.open(path), Messages.open(path)
        PendingOrders.open(path).close()
        for order in (ORDER, ANOTHER):
            self.store.add_order(order, Anchor(bytes(32), 1_000), b"document")
        self.number = 0

    def exchange(
        self, index: int, at: int, *, order: Order = ORDER, code: str = "granted", alarm: int | None = None
    ) -> bytes:
        """Commit an exchange at second ``at``; return the id of its grant, if it is one."""
        self.number += 1
        th_3, grant = self.number.to_bytes(32), self.number.to_bytes(16)
        new = NewGrant(
            id=grant,
            origin=order.origin,
            order=order.number,
            kind=PartyKind.SERVICE,
            issued_at=at,
            expires=at + 100,
            identifier=f"id-{self.number}",
            body=b"",
            secret=b"",
        )
        entry = Entry(
            th_3=th_3,
            answered=Answered(th_3, b"4"),
            batch=BATCH,
            index=index,
            opened_ns=at * SECOND,
            committed_ns=at * SECOND,
            code=code,
            version=self.store.known(th_3, BATCH, index).version,
            grant=new if code == "granted" else None,
            alarm=alarm,
        )
        assert self.store.commit(entry) == entry.answered
        return grant

    def told(self, start: int | None = 0, *, order: Order = ORDER, held: bool = True) -> Told:
        return told(self.path, order, approved=True, start=start, held=lambda _index, _at: held)

    def line(self, index: int, *, order: Order = ORDER) -> DeviceLine:
        return next(one for one in self.told(order=order).lines if one.index == index)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "sp.sqlite")


def test_an_order_that_nobody_has_used(scene: Scene) -> None:
    nothing = Told(True, 1_000, 0, 2_000_000_000, 0, 0, 0, 0, (), (), None)
    assert (scene.told(), scene.told(None)) == (nothing, nothing)


def test_a_life(scene: Scene) -> None:
    first = scene.exchange(5, 10)
    line = scene.line(5)
    assert (line.holds, line.grants, line.expires, line.first, line.last) == (Holds.PENDING, 1, 110, 0, 0)
    scene.store.confirm(first, 20 * SECOND)
    scene.messages.add([ReadMessage("n", first, "t", 25 * SECOND, 1)])
    line = scene.line(5)
    assert (line.holds, line.first, line.last, line.ending, line.ended) == (Holds.CONFIRMED, 20, 25, Ending.UNSAID, 0)
    second = scene.exchange(5, 30)
    assert (scene.line(5).holds, scene.line(5).grants) == (Holds.CONFIRMED, 2), "the one in use counts"
    scene.store.confirm(second, 40 * SECOND)
    line = scene.line(5)
    assert (line.holds, line.expires, line.ending, line.ended) == (Holds.CONFIRMED, 130, Ending.SUPERSEDED, 40)
    scene.store.end([second], Ending.FROZEN, 50 * SECOND)
    line = scene.line(5)
    assert (line.holds, line.expires, line.ending, line.ended) == (Holds.ENDED, 0, Ending.FROZEN, 50)
    assert (line.first, line.last) == (20, 40)
    counts = scene.told(None)
    assert (counts.used, counts.pending, counts.confirmed, counts.ended) == (1, 0, 0, 1)
    scene.exchange(5, 60)
    assert (scene.line(5).holds, scene.told(None).pending, scene.told(None).ended) == (Holds.PENDING, 1, 0)


def test_a_pending_grant_that_was_replaced(scene: Scene) -> None:
    scene.exchange(1, 10)
    scene.exchange(1, 20)
    assert (scene.line(1).ending, scene.line(1).ended, scene.line(1).holds) == (Ending.SUPERSEDED, 20, Holds.PENDING)


def test_refusals_and_alarms(scene: Scene) -> None:
    scene.exchange(1, 10)
    scene.exchange(1, 20, code="clone-alarm", alarm=2)
    scene.exchange(2, 20, code="firmware-revoked")
    line = scene.line(1)
    assert (line.refused, line.refused_at, line.alarm_ns) == ("clone-alarm", 20, 20 * SECOND)
    assert (scene.line(2).refused, scene.line(2).holds, scene.line(2).grants) == ("firmware-revoked", Holds.NOTHING, 0)
    found = scene.told(None)
    assert (found.alarmed, found.alarms) == (1, (RaisedAlarm(1, 20 * SECOND),))
    with pytest.raises(StoreError, match="no-alarm"):
        scene.store.clear_alarm(BATCH, 1, 2, 30 * SECOND, 19 * SECOND)
    scene.store.clear_alarm(BATCH, 1, 2, 30 * SECOND, 20 * SECOND)
    scene.exchange(1, 40)
    line = scene.line(1)
    assert (line.refused, line.refused_at, line.alarm_ns, scene.told(None).alarms) == ("", 0, 0, ())


def test_nothing_is_told_of_what_is_anothers(scene: Scene) -> None:
    scene.exchange(1, 10)
    scene.exchange(1, 20, order=ANOTHER)
    scene.exchange(1, 30, order=ANOTHER, code="clone-alarm", alarm=3)
    scene.exchange(7, 40, code="firmware-revoked")
    (line,) = scene.told(held=False).lines
    assert (line.index, line.grants, line.refused, line.alarm_ns) == (1, 1, "", 0)
    assert scene.told(held=False).alarms == ()
    assert scene.line(1, order=ANOTHER).alarm_ns == 30 * SECOND


def test_pages_reach_every_device_once(scene: Scene) -> None:
    for index in range(0, 2 * ROWS + 40, 2):
        scene.exchange(index, 10)
        scene.exchange(index + 1, 10, code="svn-too-low")
    seen: list[int] = []
    start: int | None = 0
    while start is not None:
        page = scene.told(start)
        assert len(page.lines) <= ROWS
        seen += [line.index for line in page.lines]
        assert page.following is None or page.following > start
        start = page.following
    assert seen == list(range(2 * ROWS + 40))


def test_refusals_of_others_do_not_hold_up_the_pages(scene: Scene) -> None:
    for index in range(5 * ROWS):
        scene.exchange(index % 1_000, 10 + index, code="svn-too-low")
    scene.exchange(999, 5_000)
    start: int | None = 0
    seen: list[int] = []
    while start is not None:
        page = scene.told(start, held=False)
        seen += [line.index for line in page.lines]
        start = page.following
    assert seen == [999]


def test_without_a_database(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="database-unusable"):
        told(tmp_path / "none.sqlite", ORDER, approved=True, start=None, held=lambda _index, _at: True)
