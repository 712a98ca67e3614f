import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from firstlight.errors import AccessError, FirstlightError, SignatureError, StoreError
from firstlight.sim import aka
from firstlight.sim.subscription import Credentials, Subscription, SubscriptionStatus
from firstlight.stores import subscriptions
from firstlight.stores.subscriptions import Subscriptions, insert

NOW = 1_800_000_000
SLOT = bytes(16)


def make(number: int, *, slot: bytes = SLOT) -> Subscription:
    credentials = Credentials(f"0010100000000{number:02}", bytes([number] * 16), bytes(16))
    return Subscription(credentials, 0, SubscriptionStatus.PENDING, slot, number.to_bytes(16))


def session(number: int) -> bytes:
    return number.to_bytes(16)


ONE, TWO, THREE = make(1), make(2), make(3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "subscriptions.db"


@pytest.fixture
def store(path: Path) -> Iterator[Subscriptions]:
    opened = Subscriptions.open(path)
    yield opened
    opened.close()


def imsi(subscription: Subscription) -> str:
    return subscription.credentials.imsi


def status(store: Subscriptions, subscription: Subscription) -> SubscriptionStatus:
    found = store.get(imsi(subscription))
    assert found is not None
    return found.status


def refused(store: Subscriptions, subscription: Subscription) -> str:
    with pytest.raises(AccessError) as caught:
        store.allocate(imsi(subscription))
    return caught.value.code


def test_what_is_added_is_found_by_imsi_and_grant(store: Subscriptions) -> None:
    store.add(ONE)
    assert store.get(imsi(ONE)) == store.by_grant(ONE.grant) == ONE
    assert store.get(imsi(TWO)) is None
    assert store.by_grant(TWO.grant) is None


def test_the_file_is_private(store: Subscriptions, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_imsi_is_given_once(store: Subscriptions) -> None:
    store.add(ONE)
    with pytest.raises(StoreError) as caught:
        store.add(make(1, slot=b"x" * 16))
    assert caught.value.code == "imsi-taken"
    assert store.get(imsi(ONE)) == ONE


def test_each_allocation_uses_up_a_number_for_good(store: Subscriptions, path: Path) -> None:
    store.add(ONE)
    first, second = store.allocate(imsi(ONE)).sqn, store.allocate(imsi(ONE)).sqn
    assert (first, second) == (aka.next_sqn(0), aka.next_sqn(aka.next_sqn(0)))
    store.close()
    again = Subscriptions.open(path)
    assert again.allocate(imsi(ONE)).sqn == aka.next_sqn(second)
    again.close()


def test_an_unknown_subscriber(store: Subscriptions) -> None:
    assert refused(store, ONE) == "unknown-subscriber"


def test_numbers_run_out_with_a_code(store: Subscriptions) -> None:
    own = ONE.credentials
    store.add(Subscription(own, aka.SQN_MAX, ONE.status, ONE.slot, ONE.grant))
    assert refused(store, ONE) == "sqn-exhausted"


def test_at_most_one_is_pending_in_a_slot(store: Subscriptions) -> None:
    store.add(ONE)
    store.add(TWO)
    store.add(make(3, slot=b"other slot 16 by"))
    assert [status(store, one) for one in (ONE, TWO, THREE)] == [
        SubscriptionStatus.DEAD,
        SubscriptionStatus.PENDING,
        SubscriptionStatus.PENDING,
    ]
    assert refused(store, ONE) == "subscription-dead"


def test_the_predecessor_dies_at_the_first_use_and_not_before(store: Subscriptions) -> None:
    store.add(ONE)
    store.confirm(imsi(ONE), session(1), NOW)
    store.add(TWO)
    assert status(store, ONE) is SubscriptionStatus.ACTIVE
    confirmation = store.confirm(imsi(TWO), session(2), NOW + 5)
    assert (confirmation.grant, confirmation.first, confirmation.replaced) == (TWO.grant, True, (imsi(ONE),))
    assert status(store, ONE) is SubscriptionStatus.DEAD
    assert status(store, TWO) is SubscriptionStatus.ACTIVE
    assert store.confirmed_at(TWO.grant) == NOW + 5
    assert store.confirmed() == 1


def test_a_second_use_is_no_first_one(store: Subscriptions) -> None:
    store.add(ONE)
    store.confirm(imsi(ONE), session(1), NOW)
    store.add(TWO)
    confirmation = store.confirm(imsi(ONE), session(2), NOW + 5)
    assert (confirmation.first, confirmation.replaced) == (False, ())
    assert store.confirmed_at(ONE.grant) == NOW
    assert status(store, TWO) is SubscriptionStatus.PENDING


def test_suspended_and_resumed(store: Subscriptions) -> None:
    store.add(ONE)
    store.add(make(3, slot=b"other slot 16 by"))
    store.confirm(imsi(ONE), session(1), NOW)
    for one in (ONE, THREE):
        store.suspend(one.grant)
        assert refused(store, one) == "subscription-suspended"
        store.resume(one.grant)
    assert status(store, ONE) is SubscriptionStatus.ACTIVE
    assert status(store, THREE) is SubscriptionStatus.PENDING


def test_the_dead_stay_dead(store: Subscriptions) -> None:
    store.add(ONE)
    store.end(ONE.grant)
    store.suspend(ONE.grant)
    store.resume(ONE.grant)
    assert refused(store, ONE) == "subscription-dead"
    with pytest.raises(AccessError, match="subscription-dead"):
        store.confirm(imsi(ONE), session(1), NOW)
    assert store.sessions(imsi(ONE)) == []


def test_a_suspended_one_is_not_confirmed(store: Subscriptions) -> None:
    store.add(ONE)
    store.suspend(ONE.grant)
    with pytest.raises(AccessError, match="subscription-suspended"):
        store.confirm(imsi(ONE), session(1), NOW)
    assert store.confirmed_at(ONE.grant) is None


def test_a_slot_ends_as_a_whole(store: Subscriptions) -> None:
    store.add(ONE)
    store.confirm(imsi(ONE), session(1), NOW)
    store.add(TWO)
    store.end_slot(SLOT)
    assert store.counts() == {
        SubscriptionStatus.PENDING: 0,
        SubscriptionStatus.ACTIVE: 0,
        SubscriptionStatus.SUSPENDED: 0,
        SubscriptionStatus.DEAD: 2,
    }


def test_resynchronisation_is_checked_and_kept(store: Subscriptions) -> None:
    store.add(ONE)
    own, rand = ONE.credentials, bytes(16)
    store.resynchronise(own.imsi, rand, aka.make_auts(own.k, own.opc, rand, 7777))
    assert store.allocate(own.imsi).sqn == aka.next_sqn(7777)
    with pytest.raises(SignatureError, match="bad-auts"):
        store.resynchronise(own.imsi, rand, bytes(14))
    found = store.get(own.imsi)
    assert found is not None
    assert found.sqn == aka.next_sqn(7777)


def test_watchers_hear_of_every_end_after_the_commit(store: Subscriptions, path: Path) -> None:
    heard: list[tuple[str, ...]] = []

    def watcher(imsis: tuple[str, ...]) -> None:
        with sqlite3.connect(path) as other:
            marks = ",".join("?" * len(imsis))
            rows = other.execute(f"SELECT status FROM subscription WHERE imsi IN ({marks})", imsis).fetchall()
        assert all(row[0] in (SubscriptionStatus.SUSPENDED, SubscriptionStatus.DEAD) for row in rows)
        heard.append(imsis)

    store.watch(watcher)
    store.add(ONE)
    store.confirm(imsi(ONE), session(1), NOW)
    store.add(TWO)
    assert heard == []
    store.suspend(ONE.grant)
    store.resume(ONE.grant)
    store.confirm(imsi(TWO), session(2), NOW)
    store.end(TWO.grant)
    store.end(TWO.grant)
    assert heard == [(imsi(ONE),), (imsi(ONE),), (imsi(TWO),)]


def test_a_transaction_that_fails_leaves_nothing_and_tells_nobody(store: Subscriptions) -> None:
    heard: list[tuple[str, ...]] = []
    store.watch(heard.append)
    store.add(ONE)

    def fail() -> None:
        with store.transaction():
            store.end(ONE.grant)
            store.add(TWO)
            raise StoreError("made-to-fail")

    with pytest.raises(StoreError, match="made-to-fail"):
        fail()
    assert status(store, ONE) is SubscriptionStatus.PENDING
    assert store.get(imsi(TWO)) is None
    assert heard == []


def test_one_failing_part_of_a_transaction_is_undone_alone(store: Subscriptions) -> None:
    store.add(ONE)
    with store.transaction():
        with pytest.raises(FirstlightError):
            store.add(make(1, slot=b"x" * 16))
        store.add(make(3, slot=b"y" * 16))
    assert status(store, THREE) is SubscriptionStatus.PENDING
    assert store.get(imsi(ONE)) == ONE


def test_insert_is_part_of_the_callers_transaction(store: Subscriptions, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    insert(other, ONE)
    assert store.get(imsi(ONE)) is None
    before = store.version()
    other.execute("COMMIT")
    other.close()
    assert store.get(imsi(ONE)) == ONE
    assert store.version() != before


def test_sessions_are_recorded(store: Subscriptions) -> None:
    store.add(ONE)
    store.confirm(imsi(ONE), session(1), NOW)
    store.confirm(imsi(ONE), session(2), NOW + 1)
    store.session_ended(session(1), 10, 20, NOW + 9)
    store.close_sessions(NOW + 3)
    first, second = store.sessions(imsi(ONE))
    assert (first.id, first.opened_at, first.closed_at, first.sent, first.received) == (
        session(1),
        NOW,
        NOW + 1,
        10,
        20,
    )
    assert (second.id, second.opened_at, second.closed_at) == (session(2), NOW + 1, NOW + 3)


def test_who_may_not_stay(store: Subscriptions) -> None:
    store.add(ONE)
    store.add(make(3, slot=b"other slot 16 by"))
    store.suspend(ONE.grant)
    assert store.unusable([imsi(ONE), imsi(TWO), imsi(THREE)]) == {imsi(ONE), imsi(TWO)}


def test_what_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"no database, not at all" * 100)
    with pytest.raises(StoreError) as caught:
        Subscriptions.open(path)
    assert caught.value.code == "database-unusable"


def test_all_who_may_be_served_come_once_in_pages(store: Subscriptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "_PAGE", 2)
    everybody = [make(number, slot=number.to_bytes(16)) for number in range(1, 8)]
    for one in everybody:
        store.add(one)
    store.suspend(everybody[1].grant)
    store.end(everybody[6].grant)
    assert list(store.all_usable()) == [everybody[at] for at in (0, 2, 3, 4, 5)]
    assert store.usable(imsi(everybody[0])) == everybody[0]
    for at, code in ((1, "subscription-suspended"), (6, "subscription-dead")):
        with pytest.raises(AccessError) as caught:
            store.usable(imsi(everybody[at]))
        assert caught.value.code == code
