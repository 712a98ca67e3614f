"""The benchmark of network access: attaches through hostapd, and what a vector costs the authentication centre."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from firstlight.access.control_socket import reachable
from firstlight.access.device.eapol_test import RadiusServer, authenticate
from firstlight.access.serving.daemons import EAPOL_TEST, HOSTAPD, OSMO_HLR
from firstlight.access.serving.network_hostapd import SIM_DB, radius_secret
from firstlight.bench.access_server import DATABASE, HLR, NETWORK, OWN
from firstlight.bench.legs import cpu_seconds
from firstlight.bench.machine import machine, today
from firstlight.bench.onboarding import Say
from firstlight.bench.process import BenchError, started
from firstlight.custody.system import SystemRandom
from firstlight.files import private_directory, write_atomic
from firstlight.sim import suci
from firstlight.sim.subscription import SimGrant, SoftSim, Subscription
from firstlight.sim.suci import HomeNetwork, Scheme
from firstlight.stores.subscriptions import Subscriptions

AT_MOST: Mapping[str, float] = MappingProxyType({"vector_cpu_ms": 0.3})
"""Figures that may be so much at most."""
DEVICES, VECTORS = 200, 4_000
FEWEST = 1_000
"""Goals are for so many vectors or more."""
ATTACHING, ASKING = 4, 32
"""How many devices attach, and how many vectors are asked for, at a time."""
WARM = 8
"""How many devices attach before the clock runs."""
ANSWER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured, where and when."""

    devices: int
    vectors: int
    figures: Mapping[str, float]
    machine: Mapping[str, object]
    date: str

    @property
    def missed(self) -> list[str]:
        """The figures that miss their goal; with fewer than :data:`FEWEST` vectors there is none."""
        if self.vectors < FEWEST:
            return []
        return [name for name, goal in AT_MOST.items() if self.figures[name] > goal]

    def values(self) -> dict[str, object]:
        """Return the report as JSON holds it: the figures first."""
        return {
            **self.figures,
            "devices": self.devices,
            "at_a_time": ATTACHING,
            "vectors": self.vectors,
            "missed": self.missed,
            "goals": {"at_most": dict(AT_MOST)},
            "machine": dict(self.machine),
            "date": self.date,
        }

    def text(self) -> str:
        """Return the report for people."""
        lines = [f"{self.devices:,} devices · {self.machine['cpu']} · {self.machine['python']} · {self.date}", ""]
        for name, value in self.figures.items():
            goal = f"   goal ≤ {AT_MOST[name]:,g}" if name in AT_MOST else ""
            lines.append(f"{name:<28}{value:>10,.10g}{goal}{'   missed' if name in self.missed else ''}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Site:
    """An operator that serves: its directory, its process, and where ports ask."""

    directory: Path
    pid: int
    server: RadiusServer


class Card:
    """A USIM in memory (:class:`firstlight.access.ports.SimStore`)."""

    def __init__(self, sim: SoftSim) -> None:
        """Start with ``sim``."""
        self._sim = sim

    def load(self) -> SoftSim:
        """Return the USIM."""
        return self._sim

    def save(self, sim: SoftSim) -> None:
        """Keep the USIM."""
        self._sim = sim


def measure(directory: Path, devices: int, vectors: int, say: Say) -> Report:
    """Measure both authentication centres, one after the other.

    Raises :class:`firstlight.errors.AccessError` (``daemon-missing``), :class:`BenchError` (``bench-stage-failed``).
    """
    for program in (HOSTAPD, EAPOL_TEST, OSMO_HLR):
        program.find()
    described = machine(directory).values()
    rates: dict[str, float] = {}
    costs: dict[str, float] = {}
    for kind in (OWN, HLR):
        say(f"attaching {devices} devices, {ATTACHING} at a time, with vectors of {kind} …")
        with running(kind, directory / f"bench-{kind}", devices + WARM + ASKING) as site:
            rates[kind] = asyncio.run(attaches_per_second(site, devices))
            say(f"asking for {vectors} vectors …")
            costs[kind] = vector_cpu_ms(site, vectors)
    figures = {
        "attaches_per_second_own": round(rates[OWN], 1),
        "attaches_per_second_hlr": round(rates[HLR], 1),
        "vector_cpu_ms": round(costs[OWN], 4),
        "vector_cpu_ms_hlr": round(costs[HLR], 4),
    }
    return Report(devices, vectors, figures, described, today())


@contextlib.contextmanager
def running(kind: str, directory: Path, count: int) -> Iterator[Site]:
    """Have an operator with ``count`` subscriptions serve from ``directory``; :class:`BenchError`."""
    private_directory(directory)
    command = [sys.executable, "-m", "firstlight.bench.access_server", kind, str(directory), str(count)]
    with started(command) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            errors = process.communicate()[1].strip().splitlines()
            raise BenchError("bench-stage-failed", f"{kind}: {errors[-1] if errors else 'it ended'}")
        secret = radius_secret(directory / NETWORK, SystemRandom())
        yield Site(directory, process.pid, RadiusServer("127.0.0.1", json.loads(line)["port"], secret))
        process.terminate()
        process.communicate()


async def attaches_per_second(site: Site, devices: int) -> float:
    """Let devices attach for the first time, each with a supplicant process of its own."""
    with contextlib.closing(Subscriptions.open(site.directory / DATABASE)) as store:
        everybody = [one for _, one in zip(range(devices + WARM), store.all_usable(), strict=False)]
    await _attach_all(site, everybody[:WARM])
    began = time.monotonic()
    await _attach_all(site, everybody[WARM:])
    return devices / (time.monotonic() - began)


async def _attach_all(site: Site, subscriptions: Sequence[Subscription]) -> None:
    left = iter(subscriptions)

    async def some() -> None:
        for one in left:
            card = Card(_usim(one))
            outcome = await authenticate(site.server, card, one.credentials.imsi)
            if outcome.verdicts != ("accepted",) or not outcome.success:
                raise BenchError("bench-stage-failed", f"a device was not let in: {outcome.verdicts}")

    await asyncio.gather(*(some() for _ in range(ATTACHING)))


def _usim(subscription: Subscription) -> SoftSim:
    key = suci.generate(Scheme.PROFILE_A, 1, SystemRandom())
    home = HomeNetwork("001", "01", "0", key.scheme, key.key_id, key.public)
    grant = SimGrant(subscription.credentials.imsi, home, "WLAN", "radius://127.0.0.1:1")
    return SoftSim.from_grant(grant, subscription.credentials)


def vector_cpu_ms(site: Site, vectors: int) -> float:
    """Ask for vectors as hostapd does, over the socket that it uses; return the process's CPU time for one.

    Of devices that have never attached: those are not given a challenge of the last time first.
    """
    with contextlib.closing(Subscriptions.open(site.directory / DATABASE)) as store:
        names = [one.credentials.imsi for one in store.all_usable()][-ASKING:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
        asking.bind("")  # the system draws a name without a file, to which the answers go
        asking.settimeout(ANSWER_SECONDS)
        with reachable(site.directory / NETWORK / "eap" / SIM_DB) as name:
            asking.connect(name)
        _ask(asking, names, ASKING)
        before = cpu_seconds(site.pid)
        _ask(asking, names, vectors)
        return (cpu_seconds(site.pid) - before) / vectors * 1_000


def _ask(asking: socket.socket, names: Sequence[str], count: int) -> None:
    """Ask for ``count`` vectors, one for each name at a time."""
    for name in names:
        asking.send(f"AKA-REQ-AUTH {name}".encode())
    for number in range(count):
        try:
            answer = asking.recv(512).decode().split()
        except TimeoutError as error:
            raise BenchError("bench-stage-failed", "the authentication centre does not answer") from error
        if len(answer) != 7:
            raise BenchError("bench-stage-failed", f"no vector: {answer[-1]}")
        if number + len(names) < count:
            asking.send(f"AKA-REQ-AUTH {answer[1]}".encode())


def keep(report: Report, path: Path) -> None:
    """Write the report to ``path`` as a baseline; :class:`StoreError` (``file-not-written``)."""
    write_atomic(path, (json.dumps(report.values(), indent=2) + "\n").encode(), 0o644)
