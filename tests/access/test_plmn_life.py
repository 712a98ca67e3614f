"""Life after onboarding at networks that hostapd serves: the owner moves a fleet to another operator."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from firstlight.access.serving.daemons import EAPOL_TEST, HOSTAPD
from firstlight.access.serving.network_hostapd import RADIUS
from firstlight.cli.demo import trade
from firstlight.cli.demo.commands import ENVIRONMENT, arguments
from firstlight.cli.demo.commands import run as command
from firstlight.cli.demo.trade import Holding
from firstlight.cli.demo.world import Addresses, Places, Setting, World, change_settings
from firstlight.cli.processes import Family
from firstlight.custody.system import SystemRandom
from firstlight.errors import AccessError
from firstlight.logs import Log
from firstlight.plan.claims import PartyKind
from firstlight.roles.device.gateways import Gateway
from firstlight.roles.device.memory import GrantedSim, Memory
from firstlight.roles.device.run import Plan, run
from firstlight.roles.device.tools import Event, Tell, Tools, http_client
from firstlight.sim.naming import OneTimeName
from firstlight.sim.subscription import SubscriptionStatus
from firstlight.sim.suci import Suci
from firstlight.testing.eapol_access import EapolAccess
from firstlight.testing.hostapd_world import needs

pytestmark = pytest.mark.long
LONG = 180.0
FLEET = 3
QUICK: dict[str, Setting] = {"round_seconds": 1, "plan_seconds": 1}
HOSTAPD_SERVES: dict[str, Setting] = {"access": "hostapd", **QUICK}


@dataclass
class Two:
    """A world with two operators whose networks hostapd serves."""

    places: Places
    family: Family
    addresses: Addresses
    parties: dict[str, str]
    holding: Holding
    other: Path

    @property
    def devices(self) -> list[Path]:
        return sorted(path for path in self.places.devices.iterdir() if path.is_dir())

    @property
    def device(self) -> Path:
        return self.devices[0]

    def server(self, state: Path) -> tuple[int, str]:
        return int(json.loads((state / "ports").read_text())["radius"]), (state / "access" / RADIUS).read_text()

    def statuses(self, state: Path) -> list[SubscriptionStatus]:
        with closing(sqlite3.connect(f"file:{state / 'mno.sqlite'}?mode=ro", uri=True)) as store:
            return [SubscriptionStatus(status) for (status,) in store.execute("SELECT status FROM subscription")]

    def active(self, state: Path) -> int:
        return self.statuses(state).count(SubscriptionStatus.ACTIVE)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    needs(HOSTAPD, EAPOL_TEST)
    places = Places(tmp_path_factory.mktemp("two"))
    other = places.root / "other"
    with Family(places.root / "output") as family:
        world = World(places, family, lambda _: None, settings={"mno": HOSTAPD_SERVES, "sp": QUICK})
        addresses = world.open()
        parties = world.populate(addresses)
        joined = ("--genesis", places.genesis, "--node", addresses.node, "--gateway", addresses.gateway)
        command("mno", "init", other, *joined, "--mnc", "02")
        change_settings(other / "mno.toml", HOSTAPD_SERVES)
        child = family.start("other", arguments("mno", "serve", other), environment=ENVIRONMENT, state_dir=other)
        family.wait_for_endpoint(child)
        request = places.papers / "other.registration"
        command("mno", "register", other, "--out", request)
        endorsed = command("consortium", "endorse", places.consortium, request, "--node", addresses.node)
        parties["other"] = endorsed.text("party")
        batch = trade.manufacture(places, addresses, FLEET, lambda _: None)
        holding = trade.sell(places, batch, lambda _: None)
        trade.choose(places, parties, holding, FLEET, lambda _: None)
        yield Two(places, family, addresses, parties, holding, other)


def power(two: Two) -> tuple[EapolAccess, list[Event]]:
    """Give the device power until it is connected, with eapol_test for its supplicant."""
    access = EapolAccess(dict(map(two.server, (two.places.mno, two.other))), SystemRandom())
    events: list[Event] = []

    def make(log: Log, tell: Tell) -> Tools:
        return replace(Tools.real(log, tell), network=access)

    assert run([two.device], Plan(once=True, seconds=LONG), events.append, make=make), [event.code for event in events]
    return access, events


def test_a_subscription_that_was_copied_is_refused_and_its_owner_hears_of_it(two: Two) -> None:
    """Somebody has copied a device's memory and attaches with it beside the device; nobody else can tell them apart."""
    power(two)
    copied = two.places.root / "copied"
    shutil.copytree(two.device, copied)
    power(two)
    before = alarms(two)
    assert before == {"mno": [], "sp": []}
    assert attaches(two, copied) is False
    assert codes(two.places.mno)[-1] == "subscription-copied"
    found = alarms(two)
    assert found == {"mno": [0], "sp": []}
    command("mno", "clear-alarm", two.places.mno, two.holding.batch, 0, two.holding.tenure)
    assert alarms(two) == before
    power(two)


def attaches(two: Two, directory: Path) -> bool:
    """Attach once with what a directory holds, as its device does."""
    memory = Memory.open(directory)
    try:
        acted = memory.sight.acted
        assert acted is not None
        (stored,) = memory.grants.of(acted.plan().network.party, PartyKind.NETWORK, acted.origin)
        access = EapolAccess(dict([two.server(two.places.mno)]), SystemRandom())

        class Through:
            async def name(self, concealed: Suci) -> OneTimeName:
                client = http_client(None)
                try:
                    return await Gateway(two.addresses.gateway, client).one_time_name(stored.party, concealed)
                finally:
                    await client.aclose()

        with suppress(AccessError):
            asyncio.run(access.attach(GrantedSim(memory.grants, stored), Through()))
        return access.tried[-1][1]
    finally:
        memory.close()


def alarms(two: Two) -> dict[str, list[int]]:
    """Return for which devices alarms stand, as the owner is told when he asks."""
    told = command("owner", "status", two.places.owner, "--at-parties").values["parties"]
    return {one["role"]: [alarm["index"] for alarm in one["alarms"]] for one in told}


def codes(state: Path) -> list[str]:
    lines = (state / "log.jsonl").read_text().splitlines()
    return [line["code"] for line in map(json.loads, lines) if line.get("step") == "access"]


def test_a_fleet_moves_to_another_operator_with_its_owners_plan_and_old_subscriptions_are_dead(two: Two) -> None:
    """Nobody touches the devices: they are on all the time."""
    here, there = two.server(two.places.mno)[0], two.server(two.other)[0]
    access = EapolAccess(dict(map(two.server, (two.places.mno, two.other))), SystemRandom())
    ended: list[int] = []

    def owner() -> None:
        two.family.wait_until(lambda: two.active(two.places.mno) == FLEET, "all are on one network", LONG)
        assert two.statuses(two.other) == []
        move(two)
        two.family.wait_until(lambda: set(two.statuses(two.places.mno)) == {SubscriptionStatus.DEAD}, "dead", LONG)
        ended.append(len(access.tried))
        two.family.wait_until(lambda: access.tried.count((there, True)) >= FLEET, "on the other", LONG)

    while_on(two, access, owner)
    before, after = access.tried[: ended[0]], access.tried[ended[0] :]
    assert before.count((here, True)) >= FLEET
    assert (here, True) not in after, "hostapd lets no old subscription in any more"
    assert two.active(two.other) == FLEET


def while_on(two: Two, access: EapolAccess, act: Callable[[], None]) -> None:
    """Have ``act`` done in a thread while all devices are on, in this process; and switch them off."""
    events: list[Event] = []

    def make(log: Log, tell: Tell) -> Tools:
        return replace(Tools.real(log, tell), network=access)

    def then_stop() -> None:
        try:
            act()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    with ThreadPoolExecutor(1) as threads:
        acting = threads.submit(then_stop)
        assert run(two.devices, Plan(), events.append, make=make), [event.code for event in events]
        acting.result()


def move(two: Two) -> None:
    """Order with the other operator, and deploy a plan that names it."""
    held = ("--batch", two.holding.batch, "--tenure", two.holding.tenure)
    chosen = {}
    for name, state, role in (("other", two.other, "mno"), ("sp", two.places.sp, "sp")):
        party = two.parties[name]
        number = command("owner", "order", two.places.owner, *held, "--party", party, "--devices", FLEET).text("order")
        command(role, "approve", state, number)
        chosen[name] = f"{party}:{number}"
    command("owner", "deploy", two.places.owner, *held, "--network", chosen["other"], "--service", chosen["sp"])
