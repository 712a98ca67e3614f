import pytest

from firstlight.errors import MalformedError
from firstlight.sim.subscription import (
    Credentials,
    SimGrant,
    SoftSim,
    draw_imsi,
)
from firstlight.sim.suci import HomeNetwork, Scheme
from firstlight.testing.random import SeededRandom

HOME = HomeNetwork("001", "01", "0", Scheme.PROFILE_A, 1, bytes(range(32)))


def credentials_of(imsi: str = "001010000000001") -> Credentials:
    return Credentials(imsi, b"k" * 16, b"o" * 16)


def test_a_soft_sim_survives_the_round_trip_and_hides_its_keys() -> None:
    credentials = credentials_of()
    sim = SoftSim.from_grant(SimGrant(credentials.imsi, HOME, "WLAN", "tcp://127.0.0.1:4000"), credentials)
    assert SoftSim.decode(sim.encode()) == sim
    assert repr(credentials.k) not in repr(sim)
    assert credentials.imsi not in repr(sim)


@pytest.mark.parametrize("imsi", ["001010000000002", "002010000000001"])
def test_a_grant_for_another_imsi_or_network_is_refused(imsi: str) -> None:
    credentials = credentials_of() if imsi.startswith("00101") else credentials_of(imsi)
    with pytest.raises(MalformedError) as caught:
        SoftSim.from_grant(SimGrant(imsi, HOME, "WLAN", "tcp://127.0.0.1:4000"), credentials)
    assert caught.value.code == "foreign-imsi"


def test_drawn_imsis_are_of_the_network_and_differ() -> None:
    random = SeededRandom(1)
    drawn = {draw_imsi(HOME, random) for _ in range(100)}
    assert len(drawn) == 100
    assert all(imsi.startswith("00101") and len(imsi) == 15 and imsi.isdecimal() for imsi in drawn)
