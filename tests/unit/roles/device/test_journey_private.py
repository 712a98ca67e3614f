"""A device's journey onto a private network: a certificate in place of a SIM, over a world in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.roles.device.test_journey import AGAIN, FIRST, codes, connect

from firstlight.plan.claims import PartyKind
from firstlight.roles.device.network import Network
from firstlight.roles.device.unit import Unit
from firstlight.testing.journeys import AAA, JourneyWorld


@pytest.fixture
def world(tmp_path: Path) -> JourneyWorld:
    return JourneyWorld(tmp_path, private=True)


def test_it_asks_for_a_certificate_when_the_operator_says_so_and_attaches_with_it(world: JourneyWorld) -> None:
    connect(world)
    assert world.seen() == FIRST
    assert codes(world) == []
    assert world.mno.answered == 4, "one exchange that was refused, one that was granted"
    (grant,) = world.mno.granted()
    (own,) = world.entered
    assert (own.name, own.server, own.access) == (grant.identifier, AAA, "wired://802.1x")
    assert own.key.stat().st_mode & 0o077 == 0
    assert world.opened(), "a refusal that only says how to ask is nothing to tell the owner of"
    assert all(not one.code for one in world.opened())


def test_its_next_exchange_asks_for_a_certificate_at_once(world: JourneyWorld) -> None:
    connect(world)
    before = world.mno.answered
    memory = world.memory()
    try:
        unit = Unit.wake(memory, world.tools())
        acted = memory.sight.acted
        assert acted is not None
        network = Network(unit)
        assert network._certified(acted)
    finally:
        memory.close()
    connect(world)
    assert world.seen()[len(FIRST) :] == AGAIN
    assert world.mno.answered == before, "what is stored is used"


def test_a_grant_that_the_network_refuses_is_replaced_by_one_of_the_same_kind(world: JourneyWorld) -> None:
    connect(world)
    world.refuse_attach["attach-refused"] = 2
    before = world.mno.answered
    connect(world)
    assert codes(world) == ["attach-refused"] * 2
    assert world.mno.answered == before + 2, "one exchange, which asked for the right thing at once"
    assert sorted(one.state.name for one in world.mno.granted()) == ["CONFIRMED", "ENDED"]
    keys = {own.key for own in world.entered}
    assert len(keys) == 2, "a new key for each certificate"


def test_an_operator_that_grants_sims_again_is_asked_for_one(world: JourneyWorld) -> None:
    connect(world)
    world.refuse_attach["attach-refused"] = 2
    world.mno.party._grantor = world._subscribes(world.mno.id)  # the party has changed its ways
    connect(world)
    memory = world.memory()
    try:
        acted = memory.sight.acted
        assert acted is not None
        newest = memory.grants.of(world.mno.id, PartyKind.NETWORK, acted.origin)[0]
        assert newest.sim is not None
    finally:
        memory.close()
