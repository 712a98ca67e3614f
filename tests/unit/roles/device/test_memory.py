"""What a device remembers, and how it changes."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from firstlight.errors import StoreError
from firstlight.files import remove
from firstlight.onboarding.messages import Grant, SimGrant
from firstlight.plan.claims import PartyKind
from firstlight.roles.device import look
from firstlight.roles.device.memory import GRANTS, IDENTITY, OPERATIONAL, GrantedSim, Memory, StoredGrant
from firstlight.sim.aka import Sequence
from firstlight.sim.subscription import Credentials, SoftSim
from firstlight.testing.journeys import HOME, JourneyWorld

PARTY, OTHER = b"p" * 16, b"q" * 16
SIM = SoftSim(Credentials("001010000000001", b"k" * 16, b"o" * 16), HOME, "WLAN", "tcp://h:1", Sequence.fresh())


@pytest.fixture
def world(tmp_path: Path) -> JourneyWorld:
    return JourneyWorld(tmp_path)


def add(memory: Memory, number: int, *, party: bytes = PARTY, origin: int = 2) -> StoredGrant:
    body = SimGrant("imsi-001010000000001", "tcp://h:1", HOME, "WLAN")
    grant = Grant(number.to_bytes(16), 1, 2, body)
    return memory.grants.add(grant, party=party, kind=PartyKind.NETWORK, origin=origin, sim=SIM, key=None)


def code_of(place: Path) -> str:
    with pytest.raises(StoreError) as caught:
        Memory.open(place)
    return caught.value.code


def numbers(memory: Memory, *, party: bytes = PARTY, origin: int = 2) -> list[int]:
    return [int.from_bytes(one.grant.id) for one in memory.grants.of(party, PartyKind.NETWORK, origin)]


def test_everything_survives_the_process(world: JourneyWorld) -> None:
    first = world.memory()
    add(first, 1)
    assert (first.start(), first.next_receipt(), first.next_receipt()) == (1, 1, 2)
    first.close()
    again = world.memory()
    assert numbers(again) == [1]
    assert (again.start(), again.next_receipt()) == (2, 3)
    again.close()


def test_the_predecessor_stays_until_the_new_grant_has_worked(world: JourneyWorld) -> None:
    memory = world.memory()
    add(memory, 1)
    add(memory, 2)
    assert numbers(memory) == [2, 1]
    newest = add(memory, 3)
    assert numbers(memory) == [3, 1], "what never worked makes room, what worked last stays"
    memory.grants.worked(newest)
    memory.close()
    again = world.memory()
    assert numbers(again) == [3]
    assert again.grants.newest(PARTY, PartyKind.NETWORK, 2) == (3).to_bytes(16)
    again.close()


def test_a_predecessor_that_works_does_not_drop_its_successor(world: JourneyWorld) -> None:
    memory = world.memory()
    old = add(memory, 1)
    add(memory, 2)
    memory.grants.worked(old)
    assert numbers(memory) == [2, 1]
    memory.close()


def test_a_new_network_or_owner_replaces_the_old_when_it_works(world: JourneyWorld) -> None:
    memory = world.memory()
    add(memory, 1)
    add(memory, 2, origin=3)
    newest = add(memory, 3, party=OTHER, origin=3)
    assert numbers(memory) == [1]
    memory.grants.worked(newest)
    assert numbers(memory) == numbers(memory, origin=3) == []
    assert numbers(memory, party=OTHER, origin=3) == [3]
    memory.close()


def test_a_sequence_number_is_on_disk_when_save_returns(world: JourneyWorld) -> None:
    memory = world.memory()
    sim = GrantedSim(memory.grants, add(memory, 1))
    moved = sim.load().sequence.accept(64)
    assert moved is not None
    sim.save(SoftSim(SIM.credentials, HOME, "WLAN", "tcp://h:1", moved))
    memory.close()
    again = world.memory()
    (stored,) = again.grants.of(PARTY, PartyKind.NETWORK, 2)
    assert GrantedSim(again.grants, stored).load().sequence.sqn == 64
    again.close()


def test_a_key_is_made_once_until_a_grant_takes_it(world: JourneyWorld) -> None:
    memory = world.memory()
    name, key = memory.operational_key()
    again, same = memory.operational_key()
    assert (name, key.public) == (again, same.public)
    assert memory.key_file(name).stat().st_mode & 0o777 == 0o600
    body = SimGrant("imsi-001010000000001", "tcp://h:1", HOME, "WLAN")
    grant = Grant(bytes(16), 1, 2, body)
    memory.grants.add(grant, party=PARTY, kind=PartyKind.SERVICE, origin=2, sim=None, key=name)
    assert memory.operational_key()[0] != name
    memory.close()


@pytest.mark.parametrize("cut", range(4))
def test_a_crash_while_a_grant_is_forgotten_leaves_nothing_for_ever(
    world: JourneyWorld, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    """A device killed before the removal with number ``cut`` has no litter once it has been connected again."""
    memory = world.memory()
    newest = None
    for number in (1, 2):
        name, _ = memory.operational_key()
        grant = Grant(number.to_bytes(16), 1, 2, SimGrant("imsi-001010000000001", "tcp://h:1", HOME, "WLAN"))
        newest = memory.grants.add(grant, party=PARTY, kind=PartyKind.SERVICE, origin=2, sim=None, key=name)
        memory.grants.chain_file(newest, lambda: b"chain")
    removals = iter(range(10))

    def removing(path: Path) -> None:
        if next(removals) == cut:
            raise KeyboardInterrupt
        remove(path)

    assert newest is not None
    monkeypatch.setattr("firstlight.roles.device.memory.remove", removing)
    with contextlib.suppress(KeyboardInterrupt):
        memory.grants.worked(newest)
    monkeypatch.undo()
    memory.close()
    again = world.memory()
    again.grants.worked(newest)
    again.close()
    left = {path.name for place in (GRANTS, OPERATIONAL) for path in (world.directory(0) / place).iterdir()}
    identifier = newest.grant.id.hex()
    assert left == {f"{identifier}.cbor", f"{identifier}.pem", f"{newest.key}.pem"}


def test_one_process_at_a_time(world: JourneyWorld) -> None:
    memory = world.memory()
    assert code_of(world.directory(0)) == "device-busy"
    memory.close()
    world.memory().close()


def test_foreign_keys_are_refused(world: JourneyWorld) -> None:
    (world.directory(0) / IDENTITY).write_bytes((world.directory(1) / IDENTITY).read_bytes())
    assert code_of(world.directory(0)) == "wrong-keys"


def test_a_refused_directory_is_not_kept_locked(world: JourneyWorld) -> None:
    own = (world.directory(0) / IDENTITY).read_bytes()
    (world.directory(0) / IDENTITY).unlink()
    assert code_of(world.directory(0)) == "file-missing"
    (world.directory(0) / IDENTITY).write_bytes(own)
    (world.directory(0) / IDENTITY).chmod(0o600)
    world.memory().close()


def test_files_open_to_others_are_refused(world: JourneyWorld) -> None:
    (world.directory(0) / "birth.cbor").chmod(0o644)
    assert code_of(world.directory(0)) == "file-not-private"


def test_what_is_interrupted_leaves_nothing_half(world: JourneyWorld) -> None:
    memory = world.memory()
    add(memory, 1)
    memory.close()
    halves = [
        place / ".cut.cbor.0123456789abcdef"
        for place in (world.directory(0), world.directory(0) / GRANTS, world.directory(0) / OPERATIONAL)
    ]
    for half in halves:
        half.write_bytes(b"half")
    again = world.memory()
    assert numbers(again) == [1]
    assert not any(half.exists() for half in halves)
    again.close()


def test_a_look_shows_no_secret(world: JourneyWorld) -> None:
    memory = world.memory()
    add(memory, 1)
    memory.close()
    shown = look.summary(world.directory(0))
    assert shown["subscriptions"] == 1
    assert shown["index"] == 0
    birth = world.births[0]
    assert not {birth.mailbox, birth.salt, SIM.credentials.k} & set(shown.values())
    assert not list((world.directory(0) / OPERATIONAL).iterdir())
