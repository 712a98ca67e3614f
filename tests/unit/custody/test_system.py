import time

from firstlight.custody.system import SystemClock, SystemRandom
from firstlight.ports import Clock, Random


def test_the_clock_is_the_machines_in_nanoseconds() -> None:
    clock: Clock = SystemClock()
    before = time.time_ns()
    assert before <= clock.now() <= time.time_ns()


def test_randomness_has_the_length_asked_for_and_does_not_repeat() -> None:
    random: Random = SystemRandom()
    drawn = {random.bytes(16) for _ in range(64)}
    assert len(drawn) == 64
    assert {len(one) for one in drawn} == {16}
    assert random.bytes(0) == b""
