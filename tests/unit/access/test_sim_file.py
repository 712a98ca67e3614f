import stat
from dataclasses import replace
from pathlib import Path

import pytest

from firstlight.access.device.sim_file import SimFile
from firstlight.errors import StoreError
from firstlight.sim.aka import Sequence
from firstlight.sim.subscription import Credentials, SimGrant, SoftSim
from firstlight.sim.suci import HomeNetwork, Scheme

HOME = HomeNetwork("001", "01", "0", Scheme.PROFILE_A, 1, bytes(range(32)))
OWN = Credentials("001010000000001", bytes(range(16)), bytes(range(16, 32)))
SIM = SoftSim.from_grant(SimGrant(OWN.imsi, HOME, "WLAN", "tcp://127.0.0.1:4000"), OWN)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sim"


def code(path: Path) -> str:
    with pytest.raises(StoreError) as caught:
        SimFile(path).load()
    return caught.value.code


def test_what_is_saved_is_loaded_and_private(path: Path) -> None:
    SimFile(path).save(SIM)
    later = replace(SIM, sequence=Sequence((5,) * 32))
    SimFile(path).save(later)
    assert SimFile(path).load() == later
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["sim"]


def test_no_file(path: Path) -> None:
    assert code(path) == "file-missing"


@pytest.mark.parametrize("data", [b"", b"\x80", SIM.encode()[:-1], SIM.encode() + b"\x00"])
def test_a_damaged_file(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(0o600)
    assert code(path) == "sim-damaged"


def test_a_file_that_others_may_read(path: Path) -> None:
    SimFile(path).save(SIM)
    path.chmod(0o644)
    assert code(path) == "file-not-private"
