"""The store of an owner's fleet."""

from __future__ import annotations

import sqlite3
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from firstlight.errors import StoreError
from firstlight.sealing.receipt import Receipt, Step
from firstlight.stores.fleet import WATCHED, Collected, Deployed, FleetStore

BATCH = b"B" * 16


def deployed(*indices: int, gateways: tuple[str, ...] = ("g1",)) -> list[Deployed]:
    return [
        Deployed(one, bytes([2]) * 33, {gateway: (gateway.encode() + one.to_bytes(14))[:16] for gateway in gateways})
        for one in indices
    ]


def receipt(counter: int, step: Step = Step.NETWORK_ATTACHED, index: int = 0) -> Receipt:
    return Receipt("test-1", BATCH, index, 2, 1, b"P" * 16, b"G" * 16, step, counter, 5)


def test_a_watch_never_changes_and_holds_so_many_locators() -> None:
    store = FleetStore.in_memory()
    assert store.deploy(BATCH, 2, 2, deployed(*range(WATCHED + 1), gateways=("g1", "g2"))) == WATCHED + 1
    assert [(one.gateway, len(store.locators(one.id))) for one in store.watches()] == [
        ("g1", WATCHED),
        ("g2", WATCHED),
        ("g1", 1),
        ("g2", 1),
    ]
    assert store.deploy(BATCH, 2, 2, deployed(*range(5))) == 0
    assert store.deploy(BATCH, 2, 2, deployed(3, 2_000)) == 1
    assert [len(store.locators(one.id)) for one in store.watches()] == [WATCHED, WATCHED, 1, 1, 1]


def test_a_device_has_all_tenures_of_its_origin() -> None:
    store = FleetStore.in_memory()
    store.deploy(BATCH, 2, 2, deployed(0))
    store.deploy(BATCH, 5, 2, deployed(0))
    store.deploy(BATCH, 9, 9, deployed(0))
    newer, older = store.known(deployed(0)[0].locators["g1"])
    assert (older.origin, older.tenures) == (2, frozenset({2, 5}))
    assert (newer.origin, newer.tenures) == (9, frozenset({9}))
    assert store.figures().devices == 1
    assert store.known(bytes(16)) == ()


def test_receipts_and_cursor_are_kept_together_or_not_at_all() -> None:
    store = FleetStore.in_memory()
    store.deploy(BATCH, 2, 2, deployed(0, 1))
    (watch,) = store.watches()
    (device,) = store.known(deployed(0)[0].locators["g1"])
    assert (
        store.collect(watch.id, Collected([(device.id, receipt(1)), (device.id, receipt(2))], ["cannot-open"], 7)) == 2
    )
    with pytest.raises(StoreError) as caught:
        store.collect(watch.id, Collected([(device.id, receipt(3)), (99, receipt(3))], [], 9))
    assert caught.value.code == "database-unusable"
    figures = store.figures()
    assert (figures.receipts, dict(figures.rejected)) == (2, {"cannot-open": 1})
    assert store.watches()[0].cursor == 7
    assert store.collect(watch.id, Collected([(device.id, receipt(2))], [], 3)) == 0
    assert store.figures().rejected == {"cannot-open": 1, "receipt-replayed": 1}
    assert store.watches()[0].cursor == 7


def test_a_number_beyond_the_database_holds_nothing_up() -> None:
    store = FleetStore.in_memory()
    store.deploy(BATCH, 2, 2, deployed(0))
    (watch,) = store.watches()
    (device,) = store.known(deployed(0)[0].locators["g1"])
    found = [(device.id, receipt(2**64 - 1)), (device.id, receipt(2**63 - 1))]
    assert store.collect(watch.id, Collected(found, [], 2)) == 1
    assert store.figures().rejected == {"receipt-out-of-range": 1}


def test_steps_count_devices_once() -> None:
    store = FleetStore.in_memory()
    store.deploy(BATCH, 2, 2, deployed(0, 1))
    (watch,) = store.watches()
    ids = [store.known(one.locators["g1"])[0].id for one in deployed(0, 1)]
    found = [
        (ids[0], receipt(1)),
        (ids[0], receipt(2)),
        (ids[1], receipt(1)),
        (ids[1], receipt(2, Step.SERVICE_CONNECTED)),
    ]
    assert store.collect(watch.id, Collected(found, [], 1)) == 4
    assert store.figures().steps == {Step.NETWORK_ATTACHED: 2, Step.SERVICE_CONNECTED: 1}
    assert [(one.index, one.counter, one.step) for one in store.grants()] == [
        (0, 1, Step.NETWORK_ATTACHED),
        (0, 2, Step.NETWORK_ATTACHED),
        (1, 1, Step.NETWORK_ATTACHED),
        (1, 2, Step.SERVICE_CONNECTED),
    ]


def test_what_refuses_a_device_is_the_newest_that_it_says() -> None:
    store = FleetStore.in_memory()
    store.deploy(BATCH, 2, 2, deployed(0, 1))
    (watch,) = store.watches()
    ids = [store.known(one.locators["g1"])[0].id for one in deployed(0, 1)]
    said = [replace(receipt(number, Step.REFUSED), code=code) for number, code in ((1, "frozen"), (2, "clone-alarm"))]
    store.collect(watch.id, Collected([(ids[0], said[1]), (ids[0], said[0]), (ids[1], said[0])], [], 1))
    assert store.figures().refused == {"clone-alarm": 1, "frozen": 1}
    assert [one.code for one in store.grants()] == ["frozen", "clone-alarm", "frozen"]
    store.collect(watch.id, Collected([(ids[0], receipt(3))], [], 2))
    assert store.figures().refused == {"frozen": 1}
    assert store.figures().steps == {Step.NETWORK_ATTACHED: 1, Step.SERVICE_CONNECTED: 0}


def test_the_file_is_private_and_outlives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "owner.sqlite"
    store = FleetStore.open(path)
    store.deploy(BATCH, 2, 2, deployed(0))
    store.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = FleetStore.open(path)
    assert again.figures().devices == 1
    again.close()
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 9")
    other.close()
    with pytest.raises(StoreError) as caught:
        FleetStore.open(path)
    assert caught.value.code == "schema-unknown"
