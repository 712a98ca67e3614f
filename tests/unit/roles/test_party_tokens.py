"""Token keys live for two minutes at most, and every token can be opened for half of that."""

from __future__ import annotations

import pytest

from firstlight.roles.party.tokens import TokenKeys
from firstlight.testing.clock import FakeClock
from firstlight.testing.random import SeededRandom


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_a_key_is_current_then_previous_then_gone(clock: FakeClock) -> None:
    keys = TokenKeys(clock, SeededRandom(), 120)
    first = keys.ring().current
    clock.advance(59)
    assert keys.ring().current == first
    clock.advance(1)
    second = keys.ring()
    assert (second.current != first, second.previous) == (True, first)
    clock.advance(60)
    third = keys.ring()
    assert third.previous == second.current
    assert first not in (third.current, third.previous)


def test_after_a_silence_both_are_new(clock: FakeClock) -> None:
    keys = TokenKeys(clock, SeededRandom(), 120)
    first = keys.ring().current
    clock.advance(121)
    ring = keys.ring()
    assert ring.previous is None
    assert ring.current != first


def test_a_clock_set_back_makes_new_keys(clock: FakeClock) -> None:
    keys = TokenKeys(clock, SeededRandom(), 120)
    first = keys.ring().current
    clock.advance(-1)
    assert keys.ring().current != first
    assert keys.ring().previous is None


def test_a_shorter_life(clock: FakeClock) -> None:
    keys = TokenKeys(clock, SeededRandom(), 10)
    first = keys.ring().current
    clock.advance(5)
    assert keys.ring().previous == first
    clock.advance(5)
    assert first not in (keys.ring().current, keys.ring().previous)


def test_processes_open_with_a_key_before_any_seals_with_it(clock: FakeClock) -> None:
    keys = TokenKeys(clock, SeededRandom(), 120)
    first = keys.ring().current
    assert keys.following() is None
    clock.advance(60)
    turn = keys.following()
    assert turn is not None
    opening, sealing = turn
    assert (opening.current, opening.previous) == (first, sealing.current)
    assert (sealing.previous, keys.ring()) == (first, sealing)
    assert keys.following() is None
    clock.advance(121)
    late = keys.following()
    assert late is not None
    assert late[0] == late[1]
    assert late[0].previous is None
