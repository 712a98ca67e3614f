"""An operator whose network hostapd serves, and USIMs that attach to it with eapol_test; all on loopback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from firstlight.access.device.eapol_test import AKA_PRIME, Outcome, RadiusServer, authenticate
from firstlight.access.serving.authentication_centre import StoredAuthenticationCentre
from firstlight.access.serving.copies import CopyWatch
from firstlight.access.serving.daemons import Program
from firstlight.access.serving.network_hostapd import AkaBackend, HostapdNetwork, HostapdSettings
from firstlight.sim.subscription import Credentials, SimGrant, SoftSim, Subscription, SubscriptionStatus
from firstlight.stores.subscriptions import Subscriptions
from firstlight.testing.access_network import DATABASE, HOME, LONG, MemorySim
from firstlight.testing.clock import FakeClock
from firstlight.testing.random import SeededRandom


def needs(*programs: Program) -> None:
    """Skip a test where a program is not installed, and say which package brings it; in CI that is a failure."""
    missing = sorted({one.package for one in programs if not one.there})
    if missing:
        pytest.skip(f"not installed: apt-get install {' '.join(missing)}")


@dataclass(slots=True)
class HostapdWorld:
    """A store of subscriptions, its authentication centre, and hostapd in front of them."""

    store: Subscriptions
    centre: StoredAuthenticationCentre
    network: HostapdNetwork
    backend: AkaBackend
    clock: FakeClock
    random: SeededRandom
    used: list[bytes]
    copied: list[str]
    outcomes: list[str]
    watched: dict[str, Callable[[], None]]
    made: int = 0

    def when(self, code: str, act: Callable[[], None]) -> None:
        """Act the next time that ``code`` is reported, before anybody hears of what it says."""
        self.watched[code] = act

    def subscribe(self, slot: int = 1) -> tuple[Subscription, MemorySim]:
        """Grant one more subscription to the device in ``slot``."""
        self.made += 1
        imsi = f"00101{self.made:010}"
        credentials = Credentials(imsi, self.random.bytes(16), self.random.bytes(16))
        one = Subscription(credentials, 0, SubscriptionStatus.PENDING, slot.to_bytes(16), self.made.to_bytes(16))
        self.store.add(one)
        return one, MemorySim(SoftSim.from_grant(SimGrant(imsi, HOME, "WLAN", self.network.endpoint), credentials))

    @property
    def server(self) -> RadiusServer:
        """Where ports ask."""
        return RadiusServer("127.0.0.1", self.network.radius_port, self.network.secret)

    async def attach(
        self, sim: MemorySim, *, name: str | None = None, method: str = AKA_PRIME, times: int = 1
    ) -> Outcome:
        """Authenticate with eapol_test, under the IMSI unless there is another ``name``."""
        imsi = sim.load().credentials.imsi
        return await authenticate(self.server, sim, name or imsi, method=method, times=times)


@contextlib.asynccontextmanager
async def hostapd_world(path: Path, make: type[AkaBackend] = AkaBackend) -> AsyncIterator[HostapdWorld]:
    """Run an operator with hostapd in front of what ``make`` makes, everything of it in the directory ``path``."""
    store = Subscriptions.open(path / DATABASE)
    clock, random, used = FakeClock(), SeededRandom("world"), list[bytes]()
    centre = StoredAuthenticationCentre(store, random=random, clock=clock, on_first_use=used.append)
    outcomes: list[str] = []
    copied: list[str] = []
    watched: dict[str, Callable[[], None]] = {}

    def report(code: str) -> None:
        outcomes.append(code)
        act = watched.pop(code, None)
        if act is not None:
            act()

    backend = make(centre, report, copies=CopyWatch(store, random, copied.append))
    network = HostapdNetwork(
        HostapdSettings(path / "access", sweep_s=0.01),
        backend=backend,
        users=centre,
        log=centre,
        random=random,
        report=report,
    )
    try:
        async with asyncio.timeout(LONG):
            await network.start(store)
            yield HostapdWorld(store, centre, network, backend, clock, random, used, copied, outcomes, watched)
    finally:
        await network.close()
        await centre.close()
        store.close()
