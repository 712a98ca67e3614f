"""The gateway's mail: idempotent, capped, and no owner writes into another's slots."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from firstlight.errors import StoreError
from firstlight.sealing.deposit import DepositEntry, DepositList
from firstlight.sealing.envelope import SEALED_SIZE
from firstlight.sealing.receipt import SEALED_SIZE as RECEIPT_SIZE
from firstlight.stores.mail import Limits, MailStore

BATCH = b"B" * 16


def locator(number: int) -> bytes:
    return number.to_bytes(16)


def sealed(fill: int, size: int = SEALED_SIZE) -> bytes:
    return bytes([fill]) * size


def listed(*numbers: int, tenure: int = 1, revision: int = 1, fill: int = 1) -> DepositList:
    entries = tuple(DepositEntry(locator(number), sealed(fill)) for number in numbers)
    return DepositList("test-1", "gateway", BATCH, tenure, revision, entries)


@pytest.fixture
def store() -> Iterator[MailStore]:
    one = MailStore.in_memory(Limits(envelopes=10, receipts=6, receipts_per_locator=3, blobs=2, blob_size=64))
    yield one
    one.close()


def fills(store: MailStore, number: int) -> list[int]:
    return [mail.sealed[0] for mail in store.envelopes(locator(number))]


def refused(error: pytest.ExceptionInfo[StoreError]) -> str:
    return error.value.code


def test_a_deposit_is_found_and_repeating_it_changes_nothing(store: MailStore) -> None:
    assert store.deposit(listed(1, 2), live_revision=1, count=2) == 2
    first = store.envelopes(locator(1))
    assert store.deposit(listed(1, 2), live_revision=1, count=2) == 2
    assert store.envelopes(locator(1)) == first
    assert fills(store, 3) == []
    store.deposit(listed(1, fill=9), live_revision=1, count=2)
    assert fills(store, 1) == [9]


def test_a_former_owner_overwrites_nothing(store: MailStore) -> None:
    store.deposit(listed(1, tenure=1, fill=1), live_revision=1, count=5)
    store.deposit(listed(1, tenure=2, fill=2), live_revision=1, count=5)
    store.deposit(listed(1, tenure=1, fill=3), live_revision=1, count=5)
    assert fills(store, 1) == [3, 2]


def test_what_was_left_for_one_tenure_is_found_whoever_else_left_what_there(store: MailStore) -> None:
    for tenure in range(1, 6):
        store.deposit(listed(1, tenure=tenure, fill=tenure), live_revision=1, count=5)
        store.deposit(listed(1, tenure=tenure, revision=2, fill=10 * tenure), live_revision=1, count=5)
    assert [mail.sealed[0] for mail in store.envelopes(locator(1), limit=4)] == [1, 10, 2, 20]
    assert [mail.sealed[0] for mail in store.envelopes(locator(1), limit=4, tenure=(BATCH, 5))] == [5, 50]
    assert store.envelopes(locator(1), tenure=(bytes(16), 5)) == ()


def test_only_the_live_and_the_next_revision_have_slots(store: MailStore) -> None:
    store.deposit(listed(1, revision=1), live_revision=1, count=2)
    store.deposit(listed(1, revision=2, fill=2), live_revision=1, count=2)
    assert fills(store, 1) == [1, 2]
    for revision in (0, 3):
        with pytest.raises(StoreError) as error:
            store.deposit(listed(1, revision=revision), live_revision=1, count=2)
        assert refused(error) == "revision-not-current"
    store.clear(BATCH, 1, 2)
    assert fills(store, 1) == [2]
    store.deposit(listed(1, revision=3, fill=3), live_revision=2, count=2)
    store.deposit(listed(2, revision=4, fill=4), live_revision=3, count=2)
    assert fills(store, 1) == [3]
    store.drop(BATCH, 1)
    assert fills(store, 1) == fills(store, 2) == []


def test_a_tenure_has_no_more_slots_than_devices(store: MailStore) -> None:
    store.deposit(listed(1, 2), live_revision=1, count=2)
    with pytest.raises(StoreError) as error:
        store.deposit(listed(2, 3, fill=7), live_revision=1, count=2)
    assert refused(error) == "slots-full"
    assert fills(store, 2) == [1]
    assert store.deposit(listed(3), live_revision=1, count=3) == 3


def test_what_was_left_before_a_sale_can_be_replaced(store: MailStore) -> None:
    assert store.deposit(listed(1, 2, 3), live_revision=1, count=3) == 3
    assert store.deposit(listed(1, fill=9), live_revision=1, count=2) == 3
    assert fills(store, 1) == [9]
    with pytest.raises(StoreError) as caught:
        store.deposit(listed(4), live_revision=1, count=2)
    assert refused(caught) == "slots-full"


def test_all_envelopes_are_capped_too_and_clearing_makes_room(store: MailStore) -> None:
    store.deposit(listed(*range(6)), live_revision=1, count=100)
    with pytest.raises(StoreError) as error:
        store.deposit(listed(*range(5), tenure=2), live_revision=1, count=100)
    assert refused(error) == "store-full"
    assert fills(store, 1) == [1]
    store.drop(BATCH, 1)
    assert store.deposit(listed(*range(5), tenure=2), live_revision=1, count=100) == 5


def test_many_envelopes_come_page_by_page(store: MailStore) -> None:
    for tenure in range(1, 6):
        store.deposit(listed(1, tenure=tenure, fill=tenure), live_revision=1, count=1)
    page = store.envelopes(locator(1), limit=3)
    rest = store.envelopes(locator(1), after=page[-1].id, limit=3)
    assert [mail.sealed[0] for mail in page + rest] == [1, 2, 3, 4, 5]


def put(store: MailStore, number: int, fill: int, now: int = 100) -> None:
    store.put_receipt(locator(number), sealed(fill, RECEIPT_SIZE), now=now)


def receipts(store: MailStore, *numbers: int, after: int = 0) -> list[int]:
    return [mail.sealed[0] for mail in store.receipts([locator(number) for number in numbers], after=after)]


def test_receipts_lie_under_their_locator_once_and_the_oldest_makes_room(store: MailStore) -> None:
    for fill in (1, 2, 2, 3, 4):
        put(store, 1, fill)
    put(store, 2, 9)
    assert receipts(store, 1) == [2, 3, 4]
    assert receipts(store, 1, 2) == [2, 3, 4, 9]
    seen = store.receipts([locator(1)])[1].id
    assert receipts(store, 1, 2, after=seen) == [4, 9]
    assert receipts(store) == []


def test_receipts_are_capped_and_expire(store: MailStore) -> None:
    for number in range(6):
        put(store, number, 1, now=number)
    with pytest.raises(StoreError) as error:
        put(store, 7, 1)
    assert refused(error) == "store-full"
    assert receipts(store, 7) == []
    put(store, 5, 1)  # known already
    assert store.expire_receipts(2) == 2
    put(store, 7, 1)
    assert receipts(store, *range(8)) == [1] * 5


def test_what_is_no_receipt_is_refused(store: MailStore) -> None:
    for where, what in ((locator(1), b"x"), (b"short", sealed(1, RECEIPT_SIZE))):
        with pytest.raises(StoreError) as error:
            store.put_receipt(where, what, now=1)
        assert refused(error) == "wrong-size"
    with pytest.raises(StoreError) as error:
        store.receipts([locator(1)] * 1_025)
    assert refused(error) == "too-many-locators"


def test_bodies_are_found_by_their_hash_and_capped(store: MailStore) -> None:
    first = store.put_blob(b"one")
    assert first == store.put_blob(b"one")
    assert store.blob(first) == b"one"
    assert store.blob(bytes(32)) is None
    store.put_blob(b"two")
    with pytest.raises(StoreError) as error:
        store.put_blob(b"three")
    assert refused(error) == "store-full"
    with pytest.raises(StoreError) as error:
        store.put_blob(bytes(65))
    assert refused(error) == "too-large"


def test_mail_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "mail.db"
    first = MailStore.open(path)
    first.deposit(listed(1), live_revision=1, count=1)
    digest = first.put_blob(b"body")
    put(first, 1, 5)
    first.close()
    again = MailStore.open(path)
    assert fills(again, 1) == [1]
    assert receipts(again, 1) == [5]
    assert again.blob(digest) == b"body"
    with pytest.raises(StoreError) as error:
        again.deposit(listed(2), live_revision=1, count=1)
    assert refused(error) == "slots-full"
    again.close()


def test_another_version_or_no_database_is_a_clear_error(tmp_path: Path) -> None:
    newer = tmp_path / "newer.db"
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError) as error:
        MailStore.open(newer)
    assert refused(error) == "schema-unknown"
    junk = tmp_path / "junk.db"
    junk.write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError) as error:
        MailStore.open(junk)
    assert refused(error) == "database-unusable"
