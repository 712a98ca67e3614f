"""Counts from a party's database: of devices, not of exchanges or grants."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from firstlight.errors import StoreError
from firstlight.onboarding.ports import Anchor, Answered, Entry, NewGrant
from firstlight.plan.claims import PartyKind
from firstlight.plan.order import Order
from firstlight.stores.exchanges import ExchangeStore
from firstlight.stores.messages import Messages, ReadMessage
from firstlight.stores.party_figures import PartyFigures, figures, grants, heard

BATCH = bytes(16)
ORDER = Order(b"\x09" * 16, "test-1", bytes(16), BATCH, 2, 10, 2_000_000_000)


def exchange(store: ExchangeStore, number: int, index: int, *, grant: bool = True, alarm: int | None = None) -> None:
    th_3 = number.to_bytes(32)
    new = NewGrant(
        id=number.to_bytes(16),
        origin=2,
        order=ORDER.number,
        kind=PartyKind.SERVICE,
        issued_at=1,
        expires=9,
        identifier=f"id-{number}",
        body=b"",
        secret=b"",
    )
    version = store.known(th_3, BATCH, index).version
    entry = Entry(
        th_3=th_3,
        answered=Answered(th_3, b"4"),
        batch=BATCH,
        index=index,
        opened_ns=number,
        committed_ns=number * 1_000_000_000,
        code="granted" if grant else "svn-too-low",
        version=version,
        grant=new if grant else None,
        alarm=alarm,
    )
    assert store.commit(entry) == entry.answered


def test_nothing_yet(tmp_path: Path) -> None:
    path = tmp_path / "sp.sqlite"
    assert figures(path) == PartyFigures()
    assert (grants(path), heard(path)) == ((), frozenset())
    sqlite3.connect(path).close()
    assert (figures(path), grants(path), heard(path)) == (PartyFigures(), (), frozenset())


def test_devices_are_counted_once(tmp_path: Path) -> None:
    path = tmp_path / "sp.sqlite"
    store, messages = ExchangeStore.open(path), Messages.open(path)
    store.add_order(ORDER, Anchor(bytes(32), 10), b"document")
    exchange(store, 1, 0)
    exchange(store, 2, 0)
    exchange(store, 3, 1)
    exchange(store, 4, 2, grant=False)
    exchange(store, 5, 2, grant=False, alarm=2)
    store.confirm((3).to_bytes(16), 7_000_000_000)
    messages.add([ReadMessage("n", number.to_bytes(16), "t", 1, 1) for number in (1, 2, 2, 3)])
    found = figures(path)
    assert found == PartyFigures(
        orders=1, authenticated=3, granted=2, connected=2, messages=4, alarms=1, refused={"svn-too-low": 2}
    )
    assert [(row.grant[-1], row.state, row.confirmed) for row in grants(path)] == [
        (1, "ended", None),
        (2, "pending", None),
        (3, "confirmed", 7),
    ]
    assert heard(path) == {number.to_bytes(16) for number in (1, 2, 3)}
    store.prune(10**18)
    assert (figures(path).authenticated, figures(path).refused) == (3, {})


def test_what_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "sp.sqlite"
    path.write_bytes(b"nothing" * 1000)
    with pytest.raises(StoreError, match="database-unusable"):
        figures(path)
