"""Making and anchoring devices."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from firstlight.custody.file import AgreementKey, SigningKey
from firstlight.errors import ConfigError, RuleError, TransportError
from firstlight.identity.birth import BirthCredential, derive_mailbox, derive_salt
from firstlight.ledger.records import Batch, Reference, ReferenceStatus, Role, batch_name, reference_name
from firstlight.roles.holdings import find_holding
from firstlight.roles.manufacturer.anchor import anchor, choose
from firstlight.roles.manufacturer.make import Make, make
from firstlight.roles.manufacturer.references import publish, revoke_set
from firstlight.roles.measure import measured, reference_identifier, software_digest
from firstlight.settings import ManufacturerSettings
from firstlight.testing.memory_node import MemoryNode

from .trading import GATEWAY, Market, quick_disk, register, workplace

__all__ = ["quick_disk"]


class StoppedError(Exception):
    pass


def stop_after(steps: int) -> Callable[[int], None]:
    left = [steps]

    def advance(count: int) -> None:
        left[0] -= count
        if left[0] < 0:
            raise StoppedError

    return advance


def modes(root: Path) -> set[tuple[bool, int]]:
    return {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in root.rglob("*")}


def test_devices_are_born_into_the_anchored_batch(tmp_path: Path) -> None:
    market = Market.open(tmp_path, devices=5)
    record = market.node.ledger.batch(market.made.batch)
    secret = (tmp_path / "maker/batches" / market.made.batch.hex() / "secret").read_bytes()
    for index in range(5):
        directory = tmp_path / "devices" / f"{index:06}"
        assert sorted(path.name for path in directory.iterdir()) == ["attestation.pem", "birth.cbor", "identity.pem"]
        birth = BirthCredential.decode((directory / "birth.cbor").read_bytes())
        birth.verify(record.leaves)
        assert (birth.index, birth.size, birth.gateways) == (index, 5, (GATEWAY,))
        assert (birth.salt, birth.mailbox) == (derive_salt(secret, index), derive_mailbox(secret, index))
        assert AgreementKey.load(directory / "identity.pem").public == birth.identity
        assert SigningKey.load(directory / "attestation.pem").public == birth.attestation
    find_holding(market.maker.directory, None, 1).manifest().verify(record.leaves, 5)


def test_everything_made_is_private(tmp_path: Path) -> None:
    Market.open(tmp_path, devices=3)
    assert modes(tmp_path) == {(True, 0o700), (False, 0o600)}


def test_the_factory_keeps_no_private_key_of_a_device(tmp_path: Path) -> None:
    market = Market.open(tmp_path, devices=2)
    kept = [path.read_bytes() for path in market.maker.directory.rglob("*") if path.is_file()]
    for path in (tmp_path / "devices").rglob("*.pem"):
        body = b"".join(path.read_bytes().splitlines()[2:-1])
        assert not any(body in one.replace(b"\n", b"") for one in kept)


@pytest.mark.parametrize("steps", [0, 3, 6, 8, 11])
def test_an_interrupted_make_goes_on(tmp_path: Path, steps: int) -> None:
    node = MemoryNode()
    place = workplace(tmp_path / "maker", node, ManufacturerSettings)
    register(place, node, Role.MANUFACTURER)
    asked = Make(6, b"fl-1", tmp_path / "devices", ())
    with pytest.raises(StoppedError):
        make(place, asked, stop_after(steps))
    (secret,) = [path.read_bytes() for path in (tmp_path / "maker/batches").glob("*/secret")]
    before = {path: path.read_bytes() for path in (tmp_path / "devices").rglob("*.pem")}
    made = make(place, asked, lambda _: None)
    assert (tmp_path / "maker/batches" / made.batch.hex() / "secret").read_bytes() == secret
    assert before == {path: path.read_bytes() for path in before}
    assert len(before) >= 2
    assert len(list((tmp_path / "devices").glob("*/birth.cbor"))) == 6


def test_a_key_cut_short_by_a_crash_is_made_anew(tmp_path: Path) -> None:
    node = MemoryNode()
    place = workplace(tmp_path / "maker", node, ManufacturerSettings)
    register(place, node, Role.MANUFACTURER)
    asked = Make(2, b"fl-1", tmp_path / "devices", ())
    with pytest.raises(StoppedError):
        make(place, asked, stop_after(1))
    torn = tmp_path / "devices/000000/identity.pem"
    torn.write_bytes(b"")
    make(place, asked, lambda _: None)
    birth = BirthCredential.decode((torn.parent / "birth.cbor").read_bytes())
    assert AgreementKey.load(torn).public == birth.identity


def test_devices_are_never_made_over_others(tmp_path: Path) -> None:
    market = Market.open(tmp_path, devices=2)
    before = (tmp_path / "devices/000000/identity.pem").read_bytes()
    with pytest.raises(ConfigError) as caught:
        make(market.maker, Make(2, b"fl-1", tmp_path / "devices", (GATEWAY,)), lambda _: None)
    assert caught.value.code == "devices-exist"
    assert (tmp_path / "devices/000000/identity.pem").read_bytes() == before


def test_anchoring_goes_on_when_its_answer_was_lost(tmp_path: Path) -> None:
    node = MemoryNode()
    place = workplace(tmp_path / "maker", node, ManufacturerSettings)
    register(place, node, Role.MANUFACTURER)
    made = make(place, Make(2, b"fl-1", tmp_path / "devices", ()), lambda _: None)
    node.cut.append("/v1/transactions")
    with pytest.raises(TransportError):
        anchor(place, choose(place, None))
    height = node.ledger.height
    done = anchor(place, choose(place, None))
    assert (done.made, node.ledger.height) == (made, height)
    tenure = node.ledger.tenure(made.batch, 1)
    holding = find_holding(place.directory, made.batch, 1)
    assert tenure.key == holding.owner().public
    assert isinstance(node.ledger.state.read(batch_name(made.batch), Batch), Batch)
    with pytest.raises(ConfigError) as caught:
        choose(place, None)
    assert caught.value.code == "no-batch"


def test_reference_values_are_published_once_and_revoked(tmp_path: Path) -> None:
    market = Market.open(tmp_path, devices=1)
    first = publish(market.maker, b"fl-1", measured(), (GATEWAY,))
    assert first.identifier == reference_identifier(measured().digest)
    again = publish(market.maker, b"fl-1", measured(), (GATEWAY,))
    assert again.submitted is None
    assert again.digest == first.digest
    name = reference_name(market.made.issuer, b"fl-1", first.identifier)
    record = market.node.ledger.state.read(name, Reference)
    assert record is not None
    assert record.digest == first.digest
    (path,) = [one for one in market.node.left if one.startswith(f"PUT /v1/blobs/{first.digest.hex()}?")]
    assert f"issuer={market.made.issuer.hex()}" in path
    revoke_set(market.maker, b"fl-1", first.identifier)
    revoked = market.node.ledger.state.read(name, Reference)
    assert revoked is not None
    assert revoked.status is ReferenceStatus.REVOKED
    with pytest.raises(RuleError) as refused:
        revoke_set(market.maker, b"fl-1", first.identifier)
    assert refused.value.code == "already-revoked"


def test_any_change_of_the_software_changes_its_digest(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/b.py").write_text("y = 1\n")
    first = software_digest(tmp_path)
    (tmp_path / "sub/__pycache__").mkdir()
    (tmp_path / "sub/__pycache__/b.pyc").write_bytes(b"compiled")
    assert software_digest(tmp_path) == first
    (tmp_path / "sub/b.py").rename(tmp_path / "sub/c.py")
    renamed = software_digest(tmp_path)
    (tmp_path / "a.py").write_text("x = 2\n")
    assert len({first, renamed, software_digest(tmp_path)}) == 3
