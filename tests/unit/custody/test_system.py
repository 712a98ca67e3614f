import time

from firstlight.custody.system import SystemClock, SystemEphemerals, SystemRandom
from firstlight.onboarding.edhoc.keys import Ephemeral
from firstlight.onboarding.ports import Ephemerals
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


def test_ephemeral_keys_are_fresh_and_the_same_again_from_their_secrets() -> None:
    ephemerals: Ephemerals = SystemEphemerals()
    one, other = ephemerals.draw(), ephemerals.draw()
    assert one.secret != other.secret
    again = Ephemeral.from_secret(one.secret)
    assert (again, again.x) == (one, one.x)
    assert again.exchange(other.x) == other.exchange(one.x)
