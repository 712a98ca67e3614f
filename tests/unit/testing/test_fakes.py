from firstlight.ports import Clock, Random
from firstlight.testing.clock import FakeClock
from firstlight.testing.random import SeededRandom


def test_the_fake_clock_moves_only_when_told() -> None:
    clock = FakeClock(100)
    port: Clock = clock
    assert port.now() == port.now() == 100_000_000_000
    clock.advance(0.5)
    assert (port.now(), clock.seconds) == (100_500_000_000, 100)
    clock.advance(-1)
    assert clock.seconds == 99
    clock.set(7)
    assert clock.seconds == 7


def test_seeded_randomness_repeats_for_one_seed_only() -> None:
    port: Random = SeededRandom("a")
    first = port.bytes(100)
    assert len(first) == 100
    assert port.bytes(100) != first
    other = SeededRandom("a")
    assert b"".join(other.bytes(n) for n in (1, 31, 0, 40, 28)) == first
    assert SeededRandom("b").bytes(100) != first
