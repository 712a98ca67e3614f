"""Wired 802.1X ports, whole: the installed commands, a namespace and a supplicant for each device, frames that pass."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from firstlight.access.serving.daemons import HOSTAPD, IP, NFT, WPA_SUPPLICANT
from firstlight.cli import cables as cabling
from firstlight.cli.cables import Cable, Cables, plugged
from firstlight.cli.demo import trade
from firstlight.cli.demo.commands import arguments, run
from firstlight.cli.demo.trade import Holding
from firstlight.cli.demo.world import Addresses, Places, World
from firstlight.cli.processes import Child, Family
from firstlight.identity.birth import BirthCredential
from firstlight.roles.device.memory import BIRTH
from firstlight.sim.suci import encode_msin
from firstlight.testing.hostapd_world import needs

DEVICES = 2
LONG = 120.0
ALL_PROTOCOLS = 0x0003


@dataclass
class Plugged:
    """A world whose devices are plugged in."""

    places: Places
    family: Family
    addresses: Addresses
    cables: Cables
    holding: Holding
    started: dict[int, Child]

    def directory(self, number: int) -> Path:
        return sorted(path for path in self.places.devices.iterdir() if path.is_dir())[number]

    def switch_on(self, number: int) -> None:
        place = self.directory(number)
        line = self.cables.cables[number].inside(arguments("device", "run", place, "--json"))
        self.started[number] = self.family.start(f"device-{number}", line, environment={}, state_dir=place)

    def stages(self, number: int) -> list[dict[str, str]]:
        text = self.started[number].output.read_text()
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def until(self, fact: Callable[[], bool], what: str) -> float:
        began = time.monotonic()
        self.family.wait_until(fact, what, LONG)
        return time.monotonic() - began

    def connected(self, number: int, times: int = 1) -> None:
        self.until(
            lambda: sum(one["stage"] == "connected" for one in self.stages(number)) >= times, f"{number} is connected"
        )

    def table(self) -> str:
        name = f"firstlight_{self.cables.ports[0]}"
        return subprocess.run(
            [NFT.find(), "list", "table", "inet", name], check=True, capture_output=True, text=True
        ).stdout

    def is_open(self, number: int) -> bool:
        found = re.search(r"set open \{(.*?)\n\t\}", self.table(), re.DOTALL)
        assert found is not None
        return f'"{self.cables.ports[number]}"' in found[1]

    def outcomes(self) -> list[str]:
        lines = (self.places.mno / "log.jsonl").read_text().splitlines()
        return [line["code"] for line in map(json.loads, lines) if line.get("step") == "access"]

    def broker(self) -> int:
        return int(json.loads((self.places.sp / "ports").read_text())["broker"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plugged]:
    needs(HOSTAPD, WPA_SUPPLICANT, NFT, IP)
    if os.geteuid() != 0:
        pytest.skip("only root makes network namespaces")
    places = Places(tmp_path_factory.mktemp("plugged"))
    quick = {role: {"round_seconds": 1} for role in ("mno", "sp")}
    with plugged(DEVICES) as cables, Family(places.root / "output") as family:
        made = World(places, family, lambda _: None, settings=quick, cables=cables)
        addresses = made.open()
        parties = made.populate(addresses)
        batch = trade.manufacture(places, addresses, DEVICES, lambda _: None)
        holding = trade.sell(places, batch, lambda _: None)
        trade.choose(places, parties, holding, DEVICES, lambda _: None)
        yield Plugged(places, family, addresses, cables, holding, {})


@contextmanager
def frames(*interfaces: str) -> Iterator[list[bytes]]:
    """Collect every frame at some interfaces while the block runs."""
    taken: list[bytes] = []
    sockets, threads = [], []
    for name in interfaces:
        one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
        one.bind((name, 0))
        one.settimeout(0.1)
        sockets.append(one)
    over = threading.Event()

    def take(one: socket.socket) -> None:
        while not over.is_set():
            with suppress(TimeoutError):
                taken.append(one.recv(65_536))

    for one in sockets:
        threads.append(threading.Thread(target=take, args=(one,)))
        threads[-1].start()
    try:
        yield taken
    finally:
        over.set()
        for thread in threads:
            thread.join()
        for one in sockets:
            one.close()


def reaches(cable: Cable, host: str, port: int) -> bool:
    """Say whether the device's end of a cable can open a connection."""
    program = (
        "import socket, sys\n"
        "try: socket.create_connection((sys.argv[1], int(sys.argv[2])), 1.5).close()\n"
        "except OSError: sys.exit(1)"
    )
    line = cable.inside([sys.executable, "-I", "-c", program, host, str(port)])
    return subprocess.run(line, check=False, capture_output=True).returncode == 0


def test_the_port_opens_on_success_alone_and_no_frame_on_the_way_shows_the_imsi(world: Plugged) -> None:
    """Somebody listens at the port, on the operator's RADIUS path and in all logs, to learn who attaches."""
    cable, server = world.cables.cables[0], world.cables.server
    gateway = int(world.addresses.gateway.rpartition(":")[2])
    assert reaches(cable, server, gateway), "a device must reach its gateway before anything"
    assert not reaches(cable, server, world.broker())
    assert not world.is_open(0)
    with frames(cable.port, "lo") as taken:
        world.switch_on(0)
        world.connected(0)
    assert world.is_open(0)
    assert reaches(cable, server, world.broker())
    with closing(sqlite3.connect(world.places.mno / "mno.sqlite")) as store:
        ((imsi,),) = store.execute("SELECT imsi FROM subscription").fetchall()
    everything = b"".join(taken)
    names = set(re.findall(rb"6([0-9]{15})@wlan\.mnc001\.mcc001\.3gppnetwork\.org", everything))
    assert names, "EAP-AKA' was spoken, and heard"
    assert b"/v1/names" in everything, "so was the SUCI"
    assert imsi.encode() not in names
    for shown in (imsi.encode(), imsi[5:].encode(), encode_msin(imsi[5:]), encode_msin(imsi)):
        assert shown not in everything
    logs = [path for path in world.places.root.rglob("*") if path.suffix in (".jsonl", ".out", ".conf", ".users")]
    assert any(path.suffix == ".out" for path in logs)
    assert any("hostapd" in path.name for path in logs)
    assert not [path for path in logs if imsi in path.read_text()]


def test_the_port_shuts_when_the_owner_freezes_the_device_and_opens_again(world: Plugged, *, full: bool) -> None:
    """A device whose owner has switched it off is out within seconds, and in again when it may be."""
    cable, server = world.cables.cables[1], world.cables.server
    world.switch_on(1)
    world.connected(1)
    assert world.is_open(1)
    run("owner", "freeze", world.places.owner, "--select", index_of(world, 1))
    seconds = world.until(lambda: not world.is_open(1), "the port is shut")
    assert seconds < 15, f"shut after {seconds:.1f} s"
    assert not reaches(cable, server, world.broker())
    world.until(lambda: any(one.get("code") == "attach-lost" for one in world.stages(1)), "the device knows")
    assert "port-shut" in world.outcomes()
    if not full:
        return
    before = sum(one["stage"] == "connected" for one in world.stages(1))
    run("owner", "unfreeze", world.places.owner, "--select", index_of(world, 1))
    world.connected(1, before + 1)
    assert world.is_open(1)


@pytest.mark.long
def test_devices_are_asked_anew_when_what_guards_their_ports_was_killed(world: Plugged) -> None:
    """hostapd dies: every port is shut until a new one has asked, and no device has to be touched."""
    if 0 not in world.started:
        world.switch_on(0)
    world.connected(0)
    (pid,) = guards(world)
    stages = len(world.stages(0))
    opened = world.outcomes().count("port-open")
    os.kill(pid, signal.SIGKILL)
    world.until(lambda: world.outcomes().count("port-open") > opened, "the device has proven itself again")
    assert world.is_open(0)
    assert guards(world) != [pid]
    assert reaches(world.cables.cables[0], world.cables.server, world.broker())
    lost = [one for one in world.stages(0)[stages:] if one.get("code") == "attach-lost"]
    assert not lost, "it has answered without noticing"


def guards(world: Plugged) -> list[int]:
    """Return the processes of hostapd that guard the world's ports."""
    where = str(world.places.mno / "access" / "ports")
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str((place / "cwd").readlink()) == where and (place / "comm").read_text() == "hostapd\n":
                found.append(int(place.name))
    return found


def index_of(world: Plugged, number: int) -> int:
    return BirthCredential.decode((world.directory(number) / BIRTH).read_bytes()).index


def test_nothing_of_cables_outlives_whoever_made_them_for_longer_than_the_next(tmp_path: Path) -> None:
    """A test that is killed leaves namespaces, ports and tables; the next one takes them away."""
    needs(IP, NFT)
    if os.geteuid() != 0:
        pytest.skip("only root makes network namespaces")
    program = (
        "import os, signal, subprocess\n"
        "from firstlight.cli.cables import plugged\n"
        "with plugged(1) as made:\n"
        "    subprocess.run(['nft', 'add', 'table', 'inet', 'firstlight_' + made.ports[0]], check=True)\n"
        "    print(made.ports[0], flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL
    port = killed.stdout.strip()
    assert port in cabling._interfaces()
    cabling.sweep()
    assert port not in cabling._names()
    assert not [name for name in [*cabling._names(), *cabling._tables()] if port.partition("p")[0] in name]
