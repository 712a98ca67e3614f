"""Exchanges that come together: one look at the ledger, one commit, and each one's fate its own."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from firstlight.errors import StoreError
from firstlight.onboarding.device import Granted, Refused, Sent
from firstlight.onboarding.party import UNIFORM_ERROR, Reply
from firstlight.onboarding.ports import Answered, Entry
from firstlight.onboarding.together import Outcome, handle_all
from firstlight.testing.onboarding import World


def send(world: World, *requests: bytes) -> list[Outcome]:
    return handle_all(world.party, requests, ring=world.ring, now_ns=world.clock.now())


def events(sent: Sequence[Sent], outcomes: Sequence[Outcome]) -> list[object]:
    return [
        one.read(outcome.data) if isinstance(outcome, Reply) else outcome.code
        for one, outcome in zip(sent, outcomes, strict=True)
    ]


def test_all_are_granted_by_one_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    sent = [world.open(index=index) for index in range(3)]
    commits: list[int] = []
    real = world.store.commit_all

    def commit_all(entries: Sequence[Entry]) -> list[Answered | None]:
        commits.append(len(entries))
        return real(entries)

    monkeypatch.setattr(world.store, "commit_all", commit_all)
    monkeypatch.setattr(world.store, "commit", None)
    answered = send(world, *(one.request_2 for one in sent))
    assert all(isinstance(event, Granted) for event in events(sent, answered))
    assert commits == [3]
    again = send(world, *(one.request_2 for one in sent))
    assert [(one.data, one.repeated) for one in again if isinstance(one, Reply)] == [
        (one.data, True) for one in answered if isinstance(one, Reply)
    ]
    assert commits == [3]


def test_replies_stand_in_the_order_of_the_requests() -> None:
    world = World()
    begun, sent = world.begin(index=1), world.open(index=2)
    first, nonsense, second = send(world, begun.request_1, b"\x40", sent.request_2)
    assert isinstance(first, Reply)
    assert isinstance(begun.read(first.data, evidence=lambda nonce: nonce), Sent)
    assert isinstance(nonsense, Reply)
    assert (nonsense.error, nonsense.data) == (True, UNIFORM_ERROR)
    assert isinstance(second, Reply)
    assert isinstance(sent.read(second.data), Granted)


def test_the_same_message_3_twice_counts_once() -> None:
    world = World()
    sent = world.open()
    one, other = send(world, sent.request_2, sent.request_2)
    assert isinstance(one, Reply)
    assert isinstance(other, Reply)
    assert (one.data, one.repeated, other.repeated) == (other.data, False, True)
    assert [state.used for state in world.store.orders()] == [1]


def test_two_exchanges_of_one_device_are_decided_one_after_the_other() -> None:
    """The second one's ground has moved when its turn to be committed comes: it is older, so it is superseded."""
    world = World()
    older, newer = world.open(), world.open()
    assert events([newer, older], send(world, newer.request_2, older.request_2))[1] == Refused("superseded")
    assert [state.used for state in world.store.orders()] == [1]


def test_an_order_with_room_for_one_gives_it_to_one() -> None:
    world = World(devices=1)
    sent = [world.open(index=index) for index in range(2)]
    first, second = events(sent, send(world, *(one.request_2 for one in sent)))
    assert isinstance(first, Granted)
    assert second == Refused("order-full")
    assert [state.used for state in world.store.orders()] == [1]


def test_a_taken_identifier_is_made_anew_for_that_one_alone() -> None:
    world = World()
    world.onboard(index=2)
    sent = [world.open(index=index) for index in range(2)]
    world.grantor.next = 1
    assert all(isinstance(event, Granted) for event in events(sent, send(world, *(one.request_2 for one in sent))))
    assert [state.used for state in world.store.orders()] == [3]


def test_what_the_store_refuses_one_it_grants_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    sent = [world.open(index=index) for index in range(3)]
    real = world.store.commit

    def commit(entry: Entry) -> Answered | None:
        if entry.index == 1:
            raise StoreError("database-unusable", "disk full")
        return real(entry)

    def commit_all(entries: Sequence[Entry]) -> list[Answered | None]:
        raise StoreError("database-unusable", "disk full")

    monkeypatch.setattr(world.store, "commit", commit)
    monkeypatch.setattr(world.store, "commit_all", commit_all)
    first, second, third = events(sent, send(world, *(one.request_2 for one in sent)))
    assert isinstance(first, Granted)
    assert second == "database-unusable"
    assert isinstance(third, Granted)
    assert [state.used for state in world.store.orders()] == [2]


def test_a_group_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    sent = [world.open(index=index) for index in range(2)]
    before = list(world.store._connection.iterdump())
    writes = 0
    real = world.store._write

    def write(*arguments: object) -> None:
        nonlocal writes
        writes += 1
        if writes > 1:
            raise StoreError("database-unusable", "disk full")
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(world.store, "_write", write)
    monkeypatch.setattr(world.store, "commit", lambda _: None)
    replies = send(world, *(one.request_2 for one in sent))
    assert [one.code for one in replies if isinstance(one, Reply)] == ["contended", "contended"]
    assert writes == 2
    assert list(world.store._connection.iterdump()) == before


def test_a_ledger_that_says_nothing_refuses_all(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    sent = [world.open(index=index) for index in range(2)]
    world.ledger.head = None
    assert events(sent, send(world, *(one.request_2 for one in sent))) == [Refused("view-too-old")] * 2
