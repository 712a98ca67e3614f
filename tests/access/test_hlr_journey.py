"""The whole chain by the installed commands: wpa_supplicant, hostapd, our operator, and osmo-hlr behind it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.access.test_wired import DEVICES, Plugged, index_of

from firstlight.access.serving.daemons import HOSTAPD, IP, NFT, OSMO_HLR, WPA_SUPPLICANT
from firstlight.cli.cables import plugged
from firstlight.cli.demo import trade
from firstlight.cli.demo.commands import run
from firstlight.cli.demo.world import Places, World
from firstlight.cli.processes import Family
from firstlight.sim.subscription import SubscriptionStatus
from firstlight.testing.hostapd_world import needs

pytestmark = pytest.mark.long

SECONDS = 10.0
"""Within which whoever was suspended must be blocked, a loaded machine's slowness included."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plugged]:
    needs(HOSTAPD, WPA_SUPPLICANT, NFT, IP, OSMO_HLR)
    if os.geteuid() != 0:
        pytest.skip("only root makes network namespaces")
    places = Places(tmp_path_factory.mktemp("registered"))
    settings = {"mno": {"round_seconds": 1, "hlr": "osmo"}, "sp": {"round_seconds": 1}}
    with plugged(DEVICES) as cables, Family(places.root / "output") as family:
        made = World(places, family, lambda _: None, settings=settings, cables=cables)
        addresses = made.open()
        parties = made.populate(addresses)
        batch = trade.manufacture(places, addresses, DEVICES, lambda _: None)
        holding = trade.sell(places, batch, lambda _: None)
        trade.choose(places, parties, holding, DEVICES, lambda _: None)
        yield Plugged(places, family, addresses, cables, holding, {})


def register(world: Plugged) -> dict[str, tuple[int, str, str]]:
    """What osmo-hlr's database holds, by IMSI."""
    with closing(sqlite3.connect(world.places.mno / "hlr" / "hlr.sqlite")) as connection:
        query = "SELECT imsi, algo_id_3g, k, opc FROM subscriber JOIN auc_3g ON subscriber_id = id"
        return {imsi: (algorithm, k, opc) for imsi, algorithm, k, opc in connection.execute(query)}


def wanted(world: Plugged) -> dict[str, tuple[int, str, str]]:
    """What it should hold by the operator's own store."""
    with closing(sqlite3.connect(world.places.mno / "mno.sqlite")) as connection:
        rows = connection.execute("SELECT imsi, k, opc, status FROM subscription").fetchall()
    return {
        imsi: (0 if status == SubscriptionStatus.SUSPENDED else 5, k.hex(), opc.hex())
        for imsi, k, opc, status in rows
        if status != SubscriptionStatus.DEAD
    }


def registers(world: Plugged) -> list[int]:
    """The processes that work in the register's directory."""
    place = world.places.mno / "hlr"
    found = []
    for one in Path("/proc").iterdir():
        if one.name.isdigit():
            try:
                if (one / "cwd").readlink() == place:
                    found.append(int(one.name))
            except OSError:
                continue
    return found


def said(world: Plugged) -> list[str]:
    lines = (world.places.mno / "log.jsonl").read_text().splitlines()
    return [line["code"] for line in map(json.loads, lines) if line.get("step") == "hlr"]


def test_devices_live_by_osmo_hlr(world: Plugged, *, full: bool) -> None:
    """One comes in, is frozen and forgotten by the register; that crashes, the next comes in; its operator crashes."""
    comes_in(world)
    no_key_is_seen(world)
    is_forgotten_when_frozen(world, again=full)
    crashes_and_serves_the_next(world)
    no_key_is_seen(world)
    ends_with_its_operator(world)


def comes_in(world: Plugged) -> None:
    world.switch_on(0)
    world.connected(0)
    assert said(world) == ["hlr-connected"]
    (pid,) = registers(world)
    assert Path(f"/proc/{pid}/comm").read_text().strip() == "osmo-hlr"
    assert len(register(world)) == 1
    assert register(world) == wanted(world)


def is_forgotten_when_frozen(world: Plugged, *, again: bool) -> None:
    before = register(world)
    run("owner", "freeze", world.places.owner, "--select", index_of(world, 0))
    world.until(lambda: not world.is_open(0), "the port is shut")
    assert world.until(lambda: not register(world), "the register has forgotten") < SECONDS
    if not again:
        return
    run("owner", "unfreeze", world.places.owner, "--select", index_of(world, 0))
    world.connected(0, 2)
    assert register(world) == wanted(world)
    assert not set(register(world)) & set(before), "it came back with another subscription"


def crashes_and_serves_the_next(world: Plugged) -> None:
    (pid,) = registers(world)
    os.kill(pid, signal.SIGKILL)
    world.switch_on(1)
    world.connected(1)
    assert said(world).count("hlr-connected") == 2
    assert "hlr-restarted" in said(world)
    world.until(lambda: register(world) == wanted(world), "the register knows all")


def no_key_is_seen(world: Plugged) -> None:
    with closing(sqlite3.connect(world.places.mno / "mno.sqlite")) as connection:
        keys = [key for row in connection.execute("SELECT k, opc FROM subscription") for key in row]
    assert keys
    texts = [path.read_bytes() for path in world.places.root.rglob("*.jsonl")]
    texts += [path.read_bytes() for path in (world.places.root / "output").iterdir()]
    texts += [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in registers(world)]
    texts += [(world.places.mno / "hlr" / "osmo-hlr.cfg").read_bytes()]
    for key in keys:
        assert not [text for text in texts if key in text or key.hex().encode() in text.lower()]


def ends_with_its_operator(world: Plugged) -> None:
    (operator,) = (child for child in world.family.children if child.name == "mno")
    world.family.forget(operator)
    operator.process.send_signal(signal.SIGKILL)
    operator.process.wait()
    world.until(lambda: not registers(world), "osmo-hlr has ended")
