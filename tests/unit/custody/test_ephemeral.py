"""Ephemeral keys: fresh, the same again, and forgotten in time."""

from __future__ import annotations

import pytest

from firstlight.custody import ephemeral
from firstlight.custody.ephemeral import MOST, SystemEphemerals
from firstlight.errors import MalformedError
from firstlight.onboarding.edhoc.keys import Ephemeral
from firstlight.onboarding.ports import Ephemerals
from firstlight.onboarding.token import LIFETIME_NS
from firstlight.testing.clock import NANOSECONDS, FakeClock


def test_keys_are_fresh_and_the_same_again() -> None:
    kept = SystemEphemerals(FakeClock())
    ephemerals: Ephemerals = kept
    one, other = ephemerals.draw(), ephemerals.draw()
    assert one.secret != other.secret
    assert kept.again(one.secret) is one
    derived = kept.again(one.secret)  # it was forgotten as it was asked for
    assert derived is not one
    assert (derived, derived.x) == (one, one.x)
    assert derived.exchange(other.x) == other.exchange(one.x)
    foreign = Ephemeral.from_secret(b"\x01" * 32)
    assert kept.again(foreign.secret) == foreign
    with pytest.raises(MalformedError, match="bad-scalar"):
        kept.again(bytes(32))


def test_what_is_never_asked_for_is_forgotten_in_time() -> None:
    clock = FakeClock()
    kept = SystemEphemerals(clock)
    first = kept.draw()
    clock.advance(LIFETIME_NS / NANOSECONDS)
    second = kept.draw()
    assert kept.forget() == 2
    clock.advance(1 / NANOSECONDS)
    assert kept.forget() == 1
    assert kept.again(first.secret) is not first
    assert kept.again(second.secret) is second
    assert kept.forget() == 0


def test_strangers_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ephemeral, "MOST", 3)
    assert MOST == 1_024
    kept = SystemEphemerals(FakeClock())
    drawn = [kept.draw() for _ in range(5)]
    assert kept.forget() == 3
    assert [kept.again(one.secret) is one for one in drawn] == [False, False, True, True, True]
