"""The store of exchanges, orders and grants: one transaction, races, endings. Run on memory and on a file."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from firstlight.errors import StoreError
from firstlight.onboarding.ports import Anchor, Answered, Entry, NewGrant
from firstlight.plan.claims import PartyKind
from firstlight.plan.order import Order
from firstlight.stores.exchanges import RETENTION_NS, ExchangeStore, GrantState, StoredGrant

BATCH, NUMBER = b"b" * 16, b"n" * 16
ORDER = Order(NUMBER, "testnet", b"p" * 16, BATCH, 2, 2, 2_000)
ANCHOR = Anchor(b"l" * 32, 8)


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ExchangeStore]:
    made = ExchangeStore.in_memory() if request.param == "memory" else ExchangeStore.open(tmp_path / "store.db")
    made.add_order(ORDER, ANCHOR, b"document")
    yield made
    made.close()


def grant(name: int, **changes: object) -> NewGrant:
    made = NewGrant(
        id=bytes([name]) * 16,
        origin=2,
        order=NUMBER,
        kind=PartyKind.NETWORK,
        issued_at=1,
        expires=100,
        identifier=f"imsi-{name:015d}",
        body=b"body",
        secret=b"secret",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def entry(name: int, *, version: int = 0, index: int = 0, **changes: object) -> Entry:
    made = Entry(
        th_3=bytes([name]) * 32,
        answered=Answered(bytes([name]) * 32, b"message 4 " + bytes([name])),
        batch=BATCH,
        index=index,
        opened_ns=name * 10,
        committed_ns=name * 10 + 1,
        code="granted",
        version=version,
        grant=grant(name),
        result=b"findings",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def state(store: ExchangeStore, name: int) -> GrantState:
    found = store.grant(bytes([name]) * 16)
    assert found is not None
    return found.state


def dump(store: ExchangeStore) -> list[str]:
    return list(store._connection.iterdump())


def test_orders_and_batches(store: ExchangeStore) -> None:
    assert store.anchor(BATCH) == ANCHOR
    assert store.anchor(bytes(16)) is None
    found = store.order(NUMBER, BATCH, 0)
    assert found is not None
    assert (found.order, found.used, found.held, found.room) == (ORDER, 0, False, True)
    assert store.order(bytes(16), BATCH, 0) is None
    store.add_order(ORDER, ANCHOR, b"document")
    with pytest.raises(StoreError, match="order-differs"):
        store.add_order(replace(ORDER, devices=3), ANCHOR, b"document")
    with pytest.raises(StoreError, match="batch-differs"):
        store.add_order(replace(ORDER, number=bytes(16)), replace(ANCHOR, size=9), b"document")
    assert [one.order for one in store.orders()] == [ORDER]


def test_a_grant_is_committed_whole(store: ExchangeStore) -> None:
    one = entry(1)
    assert store.commit(one) == one.answered
    known = store.known(one.th_3, BATCH, 0)
    assert (known.answered, known.version, known.granted_ns) == (one.answered, 1, 10)
    assert state(store, 1) is GrantState.PENDING
    assert store.secret(grant(1).id) == b"secret"
    assert store.by_identifier(grant(1).identifier) == store.grant(grant(1).id)
    assert store.by_identifier("imsi") is None
    found = store.order(NUMBER, BATCH, 0)
    assert found is not None
    assert (found.used, found.held) == (1, True)
    assert (store.granted_devices(), store.outcomes(), store.result(one.th_3)) == (1, {"granted": 1}, b"findings")


def test_what_was_stored_first_counts(store: ExchangeStore) -> None:
    one = entry(1)
    store.commit(one)
    before = dump(store)
    other = replace(entry(2, version=1), th_3=one.th_3)
    assert store.commit(other) == one.answered
    assert store.commit(one) == one.answered
    assert dump(store) == before


def test_another_version_changes_nothing(store: ExchangeStore) -> None:
    store.commit(entry(1))
    before = dump(store)
    assert store.commit(entry(2, version=0)) is None
    assert store.commit(entry(2, version=2, grant=None, code="frozen")) is None
    assert dump(store) == before
    assert store.commit(entry(2, version=1))


def test_no_room(store: ExchangeStore) -> None:
    assert store.commit(entry(1, index=0))
    assert store.commit(entry(2, index=1))
    before = dump(store)
    assert store.commit(entry(3, index=2)) is None
    assert store.commit(entry(4, index=2, grant=grant(4, order=bytes(16)))) is None
    assert dump(store) == before
    assert store.commit(entry(5, index=1, version=1))


def test_a_taken_identifier_changes_nothing(store: ExchangeStore) -> None:
    store.commit(entry(1))
    before = dump(store)
    assert store.commit(entry(2, index=1, grant=grant(2, identifier=grant(1).identifier))) is None
    assert store.commit(entry(2, index=1, grant=grant(2, id=grant(1).id))) is None
    assert dump(store) == before


def test_a_basis_is_kept_once_for_all_that_rest_upon_it(store: ExchangeStore) -> None:
    ours, others = ("party/a", "reference/b"), ("party/c",)
    for name, basis in ((1, ours), (2, ours), (3, others), (4, ())):
        assert store.commit(entry(name, index=name, grant=grant(name, basis=basis, order=NUMBER))) or name > 2
    assert len([line for line in dump(store) if line.startswith('INSERT INTO "basis"')]) == 1
    found = store.grant(bytes([2]) * 16)
    assert found is not None
    assert store.basis(found.basis) == ours


def test_a_rolled_back_basis_is_written_with_the_next(store: ExchangeStore) -> None:
    taken = entry(2, index=1, grant=grant(2, identifier=grant(1).identifier, basis=("party/a",)))
    store.commit(entry(1))
    assert store.commit(taken) is None
    assert store.commit(entry(3, index=1, grant=grant(3, basis=("party/a",))))
    found = store.grant(bytes([3]) * 16)
    assert found is not None
    assert store.basis(found.basis) == ("party/a",)


def test_refusals_take_no_slot_and_no_version(store: ExchangeStore) -> None:
    assert store.commit(entry(1, grant=None, code="frozen"))
    known = store.known(bytes([1]) * 32, BATCH, 0)
    assert known.answered is not None
    assert (known.version, known.granted_ns, store.granted_devices()) == (0, 0, 0)
    assert store.orders()[0].used == 0


def test_granted_time_never_goes_back(store: ExchangeStore) -> None:
    store.commit(entry(5))
    store.commit(entry(1, version=1))
    assert store.known(bytes(32), BATCH, 0).granted_ns == 50


def test_at_most_one_pending_and_the_predecessor_dies_at_first_use(store: ExchangeStore) -> None:
    told: list[tuple[StoredGrant, ...]] = []
    store.watch(told.append)
    store.commit(entry(1))
    assert store.confirm(grant(1).id, 15) == ()
    store.commit(entry(2, version=1))
    store.commit(entry(3, version=2))
    assert [state(store, name) for name in (1, 2, 3)] == [
        GrantState.CONFIRMED,
        GrantState.ENDED,
        GrantState.PENDING,
    ]
    assert store.confirm(grant(1).id, 35) == ()
    assert state(store, 3) is GrantState.PENDING
    ended = store.confirm(grant(3).id, 40)
    assert [one.id for one in ended] == [grant(1).id]
    assert [[one.id for one in batch] for batch in told] == [[grant(2).id], [grant(1).id]]
    assert store.secret(grant(1).id) == b""
    with pytest.raises(StoreError, match="grant-ended"):
        store.confirm(grant(2).id, 50)
    with pytest.raises(StoreError, match="grant-unknown"):
        store.confirm(bytes(16), 50)
    with pytest.raises(StoreError, match="grant-unknown"):
        store.secret(bytes(16))
    history = store.history(BATCH, 0, 2)
    assert [(one.id, one.confirmed_ns) for one in history.grants] == [
        (grant(1).id, 15),
        (grant(2).id, None),
        (grant(3).id, 40),
    ]
    assert store.confirm(grant(3).id, 99) == ()
    assert store.history(BATCH, 0, 2).grants[2].confirmed_ns == 40


def test_origins_are_apart(store: ExchangeStore) -> None:
    store.commit(entry(1))
    store.commit(entry(2, version=1, grant=grant(2, origin=3)))
    assert (state(store, 1), state(store, 2)) == (GrantState.PENDING, GrantState.PENDING)
    store.confirm(grant(2).id, 30)
    assert state(store, 1) is GrantState.PENDING
    assert [one.id for one in store.history(BATCH, 0, 3).grants] == [grant(2).id]
    ended = store.end([grant(1).id, bytes(16)])
    assert [one.id for one in ended] == [grant(1).id]
    assert store.end([grant(1).id]) == ()
    assert [one.id for one in store.grants(GrantState.ENDED, GrantState.CONFIRMED)] == [grant(1).id, grant(2).id]


def test_alarms(store: ExchangeStore) -> None:
    assert store.commit(entry(1, grant=None, code="clone-alarm", alarm=2))
    assert store.commit(entry(2, grant=None, code="clone-alarm", alarm=2, version=1))
    (alarm,) = store.alarms()
    assert (alarm.batch, alarm.index, alarm.origin, alarm.raised_ns) == (BATCH, 0, 2, 11)
    assert store.history(BATCH, 0, 2).alarm
    assert not store.history(BATCH, 0, 3).alarm
    store.clear_alarm(BATCH, 0, 2, 30)
    history = store.history(BATCH, 0, 2)
    assert (history.alarm, history.cleared_ns) == (False, 30)
    assert store.known(bytes(32), BATCH, 0).version == 3
    with pytest.raises(StoreError, match="no-alarm"):
        store.clear_alarm(BATCH, 0, 2, 31)
    store.commit(entry(4, grant=None, code="clone-alarm", alarm=2, version=3))
    assert store.history(BATCH, 0, 2).alarm


def test_exchanges_outlive_every_token(store: ExchangeStore) -> None:
    store.commit(entry(1))
    assert store.prune(11 + RETENTION_NS) == 0
    assert store.known(bytes([1]) * 32, BATCH, 0).answered is not None
    assert store.prune(12 + RETENTION_NS) == 1
    known = store.known(bytes([1]) * 32, BATCH, 0)
    assert (known.answered, known.granted_ns) == (None, 10)


def test_the_hook_is_part_of_the_transaction() -> None:
    kept: list[bytes] = []

    def keep(connection: sqlite3.Connection, one: Entry, new: NewGrant) -> None:
        assert connection.in_transaction
        kept.append(new.id)
        if one.index == 1:
            raise StoreError("imsi-taken", "in use")
        if one.index == 2:
            raise StoreError("disk-full", "no")

    store = ExchangeStore.in_memory(on_grant=keep)
    store.add_order(replace(ORDER, devices=5), ANCHOR, b"document")
    assert store.commit(entry(1))
    before = dump(store)
    assert store.commit(entry(2, index=1)) is None
    with pytest.raises(StoreError, match="disk-full"):
        store.commit(entry(3, index=2))
    assert dump(store) == before
    assert len(kept) == 3


def test_it_is_all_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = ExchangeStore.open(path)
    assert store._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert path.stat().st_mode & 0o777 == 0o600
    store.add_order(ORDER, ANCHOR, b"document")
    store.commit(entry(1))
    before = dump(store)
    store.close()
    again = ExchangeStore.open(path)
    assert dump(again) == before
    again._connection.execute("PRAGMA user_version = 9")
    again.close()
    with pytest.raises(StoreError, match="schema-unknown"):
        ExchangeStore.open(path)


@pytest.mark.parametrize("place", ["missing/store.db", "."])
def test_a_place_that_is_none(tmp_path: Path, place: str) -> None:
    with pytest.raises(StoreError, match="database-unusable"):
        ExchangeStore.open(tmp_path / place)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"nonsense " * 100)
    with pytest.raises(StoreError, match="database-unusable"):
        ExchangeStore.open(path)


def test_workers_race_for_the_last_slot(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    ExchangeStore.open(path).add_order(replace(ORDER, devices=1), ANCHOR, b"document")
    stores = [ExchangeStore.open(path) for _ in range(4)]
    results: list[Answered | None] = [None] * 4
    start = threading.Barrier(4)

    def work(number: int) -> None:
        start.wait()
        results[number] = stores[number].commit(entry(number + 1, index=number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(result is not None for result in results) == 1
    assert stores[0].orders()[0].used == 1
    assert len(stores[0].grants(GrantState.PENDING)) == 1
