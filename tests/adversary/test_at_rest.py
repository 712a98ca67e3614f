"""What lies on the disks of those who take part: who else may read it, and what must not be there at all."""

from __future__ import annotations

import base64
import os
import re
import stat
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from firstlight.roles.device.memory import ATTESTATION, IDENTITY
from firstlight.testing.lab import Lab

ROLES = ("consortium", "node", "gateway", "manufacturer", "distributor", "owner", "mno", "sp")
PUBLIC = "ledger.sqlite"
"""What anybody may read, in a directory that nobody else can enter all the same."""
SECRETS = re.compile(rb"PRIVATE KEY|SQLite format 3")


def private_key(path: Path) -> tuple[bytes, bytes]:
    """Return a device's private number, and its key in DER."""
    key = load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    number = key.private_numbers().private_value.to_bytes(32)
    return number, key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def spelt(data: bytes) -> bytes:
    """Return a file's bytes with what PEM breaks into lines put together again."""
    return data + b"".join(data.split())


def written(number: bytes, der: bytes) -> list[bytes]:
    """Return how a private key may be written down."""
    middle = [base64.b64encode(bytes(start) + number)[4 if start else 0 : -4] for start in range(3)]
    return [number, number.hex().encode(), *middle, base64.b64encode(der)]


def test_nobody_else_on_the_machine_reads_keys(lab: Lab) -> None:
    """Another user of the machine looks through what every role and device keeps, for keys and databases to read."""
    device = lab.device()
    lab.connects(device)
    looked = 0
    for state in (*map(lab.state, ROLES), device):
        assert stat.S_IMODE(state.stat().st_mode) & 0o077 == 0, state
        for path in state.rglob("*"):
            if not path.is_file() or path.name.startswith(PUBLIC):
                continue
            with path.open("rb") as file:
                secret = SECRETS.search(file.read(4_096))
            if secret or path.suffix in (".pem", ".key"):
                looked += 1
                assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert looked > 2 * len(ROLES)


def test_a_factory_keeps_no_private_key_of_a_device(lab: Lab) -> None:
    """Somebody takes the factory's disks home, or a seller's: no device can be played with what is on them."""
    device = lab.device()
    lab.connects(device)
    keys = {name: private_key(device / name) for name in (IDENTITY, ATTESTATION)}
    for name, key in keys.items():
        own = spelt((device / name).read_bytes())
        assert any(form in own for form in written(*key)), "it is found where it is"
    for state in map(lab.state, ROLES):
        for path in state.rglob("*"):
            if path.is_file():
                data = spelt(path.read_bytes())
                assert not any(form in data for key in keys.values() for form in written(*key)), path


@pytest.mark.parametrize("role", ["gateway", "sp"])
def test_what_a_killed_server_left_half_written_is_cleared_away(lab: Lab, role: str) -> None:
    """Somebody reads what a server was writing when it was killed: half of a key, which nobody would ever look for."""
    state = lab.state(role)
    left = state / ".authority.pem.0123456789abcdef"
    kept = state / ".notes"
    for path in (left, kept):
        path.write_bytes(b"-----BEGIN PRIVATE KEY-----")
        path.chmod(0o600)
        os.utime(path, (time.time() - 3_600,) * 2)
    try:
        with lab.twin(role) as twin:
            assert (twin / kept.name).exists(), "what is another's stays"
            assert not (twin / left.name).exists()
        assert left.exists(), "the one that runs is not asked to look again"
    finally:
        left.unlink()
        kept.unlink()
