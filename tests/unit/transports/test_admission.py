"""Token buckets: one for each source, one for all, and bounded memory."""

from __future__ import annotations

import pytest

from firstlight.testing.clock import FakeClock
from firstlight.transports.admission import Admission, OverloadError, Rate, source_of


def refused(admission: Admission, address: str) -> OverloadError:
    with pytest.raises(OverloadError) as caught:
        admission.admit(address)
    return caught.value


def admitted(admission: Admission, address: str, most: int = 1_000) -> int:
    for count in range(most):
        try:
            admission.admit(address)
        except OverloadError:
            return count
    return most


def test_so_many_at_once_and_then_so_many_a_second() -> None:
    clock = FakeClock()
    admission = Admission(clock, source=Rate(10, 20), total=Rate(100, 200))
    assert admitted(admission, "192.0.2.1") == 20
    error = refused(admission, "192.0.2.1")
    assert (error.code, error.retry_after) == ("rate-limited", 1)
    clock.advance(1)
    assert admitted(admission, "192.0.2.1") == 10
    clock.advance(-5)
    assert admitted(admission, "192.0.2.1") == 0


def test_one_source_takes_nothing_from_another() -> None:
    admission = Admission(FakeClock(), source=Rate(10, 20), total=Rate(100, 30))
    assert admitted(admission, "192.0.2.1") == 20
    for _ in range(1_000):
        refused(admission, "192.0.2.1")
    assert admitted(admission, "192.0.2.2") == 10
    assert "by all together" in refused(admission, "192.0.2.3").detail


def test_when_to_come_again() -> None:
    admission = Admission(FakeClock(), source=Rate(0.1, 1), total=Rate(100, 30))
    admission.admit("192.0.2.1")
    assert refused(admission, "192.0.2.1").retry_after == 10
    never = Admission(FakeClock(), source=Rate(0, 1), total=Rate(100, 30))
    never.admit("192.0.2.1")
    assert refused(never, "192.0.2.1").retry_after == 60


def test_memory_is_bounded() -> None:
    admission = Admission(FakeClock(), source=Rate(1, 1), total=Rate(1, 10_000), sources=100)
    for number in range(5_000):
        admission.admit(f"10.1.{number // 250}.{number % 250}")
    assert len(admission) == 100
    refused(admission, "10.1.19.249")


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("testclient", ""),
        ("", ""),
    ],
)
def test_what_counts_as_one_source(address: str, source: str) -> None:
    assert source_of(address) == source
