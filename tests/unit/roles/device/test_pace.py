"""Back-off."""

from __future__ import annotations

import pytest

from firstlight.errors import ExchangeError, RefusedError, TransportError
from firstlight.roles.device.pace import FIRST_REFUSED, LONGEST, LONGEST_REFUSED, PASSING, Pace
from firstlight.testing.random import SeededRandom


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
