"""Leases: renewed in time, predecessors kept, changes noticed; and time that comes from witnesses alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from firstlight.errors import RefusedError, TransportError
from firstlight.ledger.records import Tenure, tenure_name
from firstlight.plan.claims import PartyKind
from firstlight.roles.device.journey import Journey
from firstlight.roles.device.pace import CHANGED, changed
from firstlight.roles.device.tools import Stage, Tools, WitnessedClock
from firstlight.stores.exchanges import GrantState
from firstlight.testing.bundles import BATCH
from firstlight.testing.clock import FakeClock
from firstlight.testing.journeys import LEASE, OWNER, FakeParty, JourneyWorld

SECOND = 1_000_000_000


@pytest.fixture
def world(tmp_path: Path) -> JourneyWorld:
    return JourneyWorld(tmp_path)


def live(world: JourneyWorld, fact: Callable[[Journey], bool], tools: Tools | None = None) -> None:
    """Switch a device on until ``fact`` holds, and off again."""

    async def run() -> None:
        memory = world.memory()
        try:
            journey = Journey(memory, tools or world.tools())
            travelling = asyncio.ensure_future(journey.travel())
            async with asyncio.timeout(120):
                while not fact(journey) and not travelling.done():  # noqa: ASYNC110 - every step is looked at
                    await asyncio.sleep(0)
            travelling.cancel()
            await asyncio.gather(travelling, return_exceptions=True)
            if not travelling.cancelled():
                travelling.result()
        finally:
            memory.close()

    asyncio.run(run())


def connect(world: JourneyWorld, tools: Tools | None = None) -> None:
    live(world, lambda journey: journey.connected.is_set(), tools)


def states(party: FakeParty) -> list[GrantState]:
    return [one.state for one in sorted(party.granted(), key=lambda one: one.issued_at)]


def both(world: JourneyWorld, *wanted: GrantState) -> bool:
    return all(states(party) == list(wanted) for party in (world.mno, world.sp))


def test_both_leases_are_renewed_once_most_of_their_time_is_over(world: JourneyWorld) -> None:
    connect(world)
    world.clock.advance(LEASE * 0.5)
    connect(world)
    assert both(world, GrantState.CONFIRMED)
    world.clock.advance(LEASE * 0.25)
    world.stages.clear()
    live(world, lambda journey: both(world, GrantState.ENDED, GrantState.CONFIRMED) and journey.connected.is_set())
    assert both(world, GrantState.ENDED, GrantState.CONFIRMED)
    assert Stage.WAITING not in world.seen()
    memory = world.memory()
    kept = memory.grants.count(PartyKind.NETWORK), memory.grants.count(PartyKind.SERVICE)
    memory.close()
    assert kept == (1, 1)
    told = {(one.party, one.grant) for one in world.opened()}
    assert len(told) == 4


def test_a_renewed_certificate_is_in_use_before_the_old_session_is_closed(world: JourneyWorld) -> None:
    connect(world)
    world.clock.advance(LEASE * 0.75)
    old: list[bool] = []
    honest = world.connect

    async def watched(access: object) -> object:
        old.extend(one.closed for one in world.sessions[-1:] if len(states(world.sp)) > 1)
        return await honest(access)  # type: ignore[arg-type]

    tools = replace(world.tools(), connect=watched)  # type: ignore[arg-type]
    live(world, lambda _: states(world.sp) == [GrantState.ENDED, GrantState.CONFIRMED], tools)
    assert False in old


def test_what_cannot_be_renewed_stays_in_use_until_it_ends(world: JourneyWorld) -> None:
    connect(world)
    world.clock.advance(LEASE * 0.75)

    def lost(url: str, _: bytes, answer: bytes) -> bytes:
        if "/relay/" in url or "sp.example" in url:
            raise TransportError("unreachable", "as told")
        return answer

    world.bend = lost
    steps = iter(range(200))
    live(world, lambda journey: journey.connected.is_set() and next(steps, None) is None)
    assert both(world, GrantState.CONFIRMED)
    assert any('"step":"renewal"' in line for line in world.log)
    assert world.seen(Stage.CONNECTED)


def test_a_new_plan_is_noticed_at_the_next_look(world: JourneyWorld) -> None:
    connect(world)
    world.deploy([world.mno, world.sp], revision=2)
    connect(world)
    memory = world.memory()
    acted = memory.sight.acted
    memory.close()
    assert acted is not None
    assert (acted.revision, acted.root) == (2, world.plan.root)
    assert ("waiting", "moved") in {(stage.value, code) for stage, code in world.stages}


def test_a_frozen_tenure_is_noticed_at_the_next_look(world: JourneyWorld) -> None:
    connect(world)
    name = tenure_name(BATCH, OWNER)
    tenure = world.ledger.records[name]
    assert isinstance(tenure, Tenure)
    world.ledger.records[name] = replace(tenure, held=True)
    live(world, lambda _: ("waiting", "tenure-frozen") in {(stage.value, code) for stage, code in world.stages})
    assert not world.attached
    world.ledger.records[name] = tenure
    connect(world)


@pytest.mark.parametrize("machine", [0, 4_102_444_800])
def test_a_machine_without_the_right_time_goes_by_the_witnesses(world: JourneyWorld, machine: int) -> None:
    tools = replace(world.tools(), clock=FakeClock(machine), steady=world.clock)
    connect(world, tools)
    assert all(abs(one.time - world.clock.seconds) < 60 for one in world.opened())
    answered = (world.mno.answered, world.sp.answered)
    connect(world, tools)
    assert (world.mno.answered, world.sp.answered) == answered


def test_nobody_moves_a_clock_that_witnesses_have_set() -> None:
    machine, steady = FakeClock(1_000), FakeClock(50)
    clock = WitnessedClock(machine, steady)
    assert (clock.known, clock.seconds) == (False, 1_000)
    clock.learn(None)
    assert not clock.known
    clock.learn(5_000)
    machine.advance(1_000_000)
    steady.advance(7)
    assert (clock.known, clock.seconds) == (True, 5_007)


@pytest.mark.parametrize("code", sorted(CHANGED))
def test_what_a_party_says_when_things_have_changed(code: str) -> None:
    assert changed(RefusedError(code, ""))
    assert not changed(TransportError(code, ""))
