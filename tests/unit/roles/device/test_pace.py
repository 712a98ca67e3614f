"""Back-off."""

from __future__ import annotations

import pytest

from firstlight.errors import ExchangeError, ProofError, RefusedError, TransportError
from firstlight.roles.device.pace import (
    CHANGED,
    FINAL,
    FIRST_REFUSED,
    LEAVING,
    LONGEST,
    LONGEST_REFUSED,
    MOVED,
    PASSING,
    Pace,
    changed,
    leaving,
    moved,
)
from firstlight.testing.random import SeededRandom
from firstlight.transports.body import RemoteError


class Fixed:
    def __init__(self, value: int) -> None:
        self.value = value

    def bytes(self, count: int) -> bytes:
        return self.value.to_bytes(count)


def test_it_doubles_up_to_a_minute_and_begins_anew() -> None:
    pace = Pace(Fixed(65_535))
    waits = [pace.after(TransportError("unreachable")) for _ in range(10)]
    assert [round(one) for one in waits] == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert max(waits) <= LONGEST
    pace.reset()
    assert round(pace.after(ExchangeError("edhoc-error-1"))) == 1


def test_a_refusal_makes_it_wait_for_long() -> None:
    pace = Pace(Fixed(0))
    assert [pace.after(RefusedError("order-full")) for _ in range(2)] == [FIRST_REFUSED / 2, FIRST_REFUSED]
    for _ in range(20):
        last = pace.after(RefusedError("order-full"))
    assert last == LONGEST_REFUSED / 2


@pytest.mark.parametrize("code", sorted(PASSING))
def test_what_a_new_discovery_may_cure_does_not(code: str) -> None:
    assert Pace(Fixed(65_535)).after(RefusedError(code)) <= 1


def test_devices_do_not_come_back_together() -> None:
    waits = {Pace(SeededRandom(seed)).after(TransportError("timeout")) for seed in range(50)}
    assert len(waits) > 40
    assert all(0.5 <= one <= 1 for one in waits)


@pytest.mark.parametrize("code", sorted({MOVED} | CHANGED | FINAL | LEAVING))
def test_what_a_peer_says_in_the_clear_is_no_more_than_a_hint(code: str) -> None:
    said = RemoteError(409, code)
    assert (changed(said), moved(said), leaving(said)) == (False, False, False)
    assert Pace(Fixed(65_535)).after(said) <= 1


def test_what_is_proven_or_protected_counts() -> None:
    assert changed(ProofError(MOVED))
    assert changed(RefusedError("frozen"))
    assert leaving(TransportError("proxy-refused"))
    assert Pace(Fixed(0)).after(ProofError("tenure-retired")) == FIRST_REFUSED / 2


@pytest.mark.parametrize(("asked", "least", "most"), [(0, 0.5, 1), (7, 7, 14), (999_999, LONGEST, 2 * LONGEST)])
def test_a_peer_may_ask_for_a_pause_up_to_a_bound(asked: int, least: float, most: float) -> None:
    for chance in (0, 30_000, 65_535):
        wait = Pace(Fixed(chance)).after(RemoteError(429, "rate-limited", retry_after=asked))
        assert least <= wait <= most
