"""The outbox: whoever changes a subscription, in whichever process, has written it in the same transaction."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from firstlight.errors import StoreError
from firstlight.sim.subscription import Credentials, Subscriber, Subscription, SubscriptionStatus
from firstlight.stores import subscriber_changes
from firstlight.stores.subscriber_changes import SubscriberChanges
from firstlight.stores.subscriptions import Subscriptions


def subscription(number: int, slot: int = 1) -> Subscription:
    own = Credentials(f"00101{number:010}", number.to_bytes(16), bytes(16))
    return Subscription(own, number, SubscriptionStatus.PENDING, slot.to_bytes(16), number.to_bytes(16))


def subscriber(one: Subscription, *, suspended: bool = False) -> Subscriber:
    return Subscriber(one.credentials.imsi, one.credentials, one.sqn, suspended=suspended)


def ended(one: Subscription) -> Subscriber:
    return Subscriber(one.credentials.imsi, None, one.sqn, suspended=False)


@pytest.fixture
def changes(tmp_path: Path):
    with contextlib.closing(SubscriberChanges.open(tmp_path / "it")) as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path, changes: SubscriberChanges):
    with contextlib.closing(Subscriptions.open(tmp_path / "it")) as opened:
        yield opened


def drained(changes: SubscriberChanges) -> list[Subscriber]:
    found: list[Subscriber] = []
    while (some := changes.pending()) is not None:
        found += some.subscribers
        changes.done(some)
    assert changes.settled()
    return found


def test_what_is_granted_suspended_resumed_and_ended_is_told(changes: SubscriberChanges, store: Subscriptions) -> None:
    assert changes.settled()
    one = subscription(1)
    store.add(one)
    assert not changes.settled()
    assert drained(changes) == [subscriber(one)]
    store.suspend(one.grant)
    assert drained(changes) == [subscriber(one, suspended=True)]
    store.resume(one.grant)
    assert drained(changes) == [subscriber(one)]
    store.end(one.grant)
    assert drained(changes) == [ended(one)]


def test_use_alone_changes_nothing_for_a_register(changes: SubscriberChanges, store: Subscriptions) -> None:
    one = subscription(1)
    store.add(one)
    drained(changes)
    store.allocate(one.credentials.imsi)
    store.confirm(one.credentials.imsi, bytes(16), 1)
    assert changes.settled()


def test_a_successor_ends_its_predecessor_there_too(changes: SubscriberChanges, store: Subscriptions) -> None:
    first, second = subscription(1), subscription(2)
    store.add(first)
    store.add(second)
    assert sorted(drained(changes), key=lambda one: one.imsi) == [ended(first), subscriber(second)]


def test_what_was_undone_is_not_told(changes: SubscriberChanges, store: Subscriptions) -> None:
    def undone() -> None:
        with store.transaction():
            store.add(subscription(1))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        undone()
    assert changes.settled()


def test_what_changes_while_others_are_told_is_told_next(changes: SubscriberChanges, store: Subscriptions) -> None:
    one = subscription(1)
    store.add(one)
    first = changes.pending()
    assert first is not None
    store.suspend(one.grant)
    changes.done(first)
    assert drained(changes) == [subscriber(one, suspended=True)]


def test_everybody_comes_once_in_pages(
    changes: SubscriberChanges, store: Subscriptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber_changes, "_PAGE", 3)
    everybody = [subscription(number, slot=number) for number in range(1, 11)]
    for one in everybody:
        store.add(one)
    store.end(everybody[0].grant)
    pages = list(changes.everybody())
    assert [len(page) for page in pages] == [3, 3, 3, 1]
    told = [ended(everybody[0]), *map(subscriber, everybody[1:])]
    assert [one for page in pages for one in page] == told
    last = {one.imsi: one for one in drained(changes)}
    assert [last[one.imsi] for one in told] == told


def test_an_operator_without_a_register_keeps_no_outbox(tmp_path: Path, changes: SubscriberChanges) -> None:
    subscriber_changes.forget(tmp_path / "it")
    subscriber_changes.forget(tmp_path / "it")
    with contextlib.closing(Subscriptions.open(tmp_path / "it")) as store:
        store.add(subscription(1))
    with contextlib.closing(sqlite3.connect(tmp_path / "it")) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    assert not [name for name in names if name.startswith("subscriber")]
    with pytest.raises(StoreError):
        changes.settled()
