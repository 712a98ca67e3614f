"""A small operator, a fleet of USIMs and something to reach, all on loopback sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from firstlight.access import frames
from firstlight.access.device.network_embedded import EmbeddedNetworkAccess
from firstlight.access.serving.authentication_centre import StoredAuthenticationCentre
from firstlight.access.serving.network_embedded import EmbeddedNetwork, NetworkSettings
from firstlight.sim import suci
from firstlight.sim.attach import Message
from firstlight.sim.subscription import Credentials, SimGrant, SoftSim, Subscription, SubscriptionStatus
from firstlight.sim.suci import HomeNetwork, Scheme
from firstlight.stores.subscriptions import Subscriptions
from firstlight.testing.clock import FakeClock
from firstlight.testing.random import SeededRandom

KEY = suci.generate(Scheme.PROFILE_A, 1, SeededRandom("home"))
HOME = HomeNetwork("001", "01", "0", Scheme.PROFILE_A, 1, KEY.public)
DATABASE = "subscriptions.db"
LONG = 120.0
"""Seconds after which what is waited for will not come."""
SETTINGS = NetworkSettings("WLAN", sweep_s=0.01, deadline_s=LONG)


class MemorySim:
    """A SimStore in memory that remembers what was saved."""

    def __init__(self, sim: SoftSim) -> None:
        """Start with ``sim``."""
        self.sim = sim
        self.saved: list[SoftSim] = []

    def load(self) -> SoftSim:
        """Return the USIM."""
        return self.sim

    def save(self, sim: SoftSim) -> None:
        """Keep the USIM."""
        self.sim = sim
        self.saved.append(sim)


def endpoint(uri: str) -> tuple[str, int]:
    """Return host and port of ``scheme://host:port``."""
    host, port = uri.rsplit("/", 1)[1].split(":")
    return host, int(port)


class Conversation:
    """A device that says what a test wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Talk over an open connection."""
        self.reader = reader
        self.writer = writer

    async def say(self, message: Message) -> Message:
        """Send a message and return the answer."""
        await frames.send(self.writer, message)
        return await frames.receive(self.reader)

    async def raw(self, data: bytes) -> bytes:
        """Send bytes and return all that comes back until the network hangs up."""
        self.writer.write(data)
        with contextlib.suppress(ConnectionError):
            return await self.reader.read()
        return b""


@dataclass(slots=True)
class World:
    """An operator with its network, and an echo server at ``far`` to reach through it."""

    store: Subscriptions
    network: EmbeddedNetwork
    clock: FakeClock
    random: SeededRandom
    far: tuple[str, int]
    used: list[bytes]
    forbidden: set[tuple[str, int]]
    made: int = 0

    def subscribe(self, slot: int = 1) -> tuple[Subscription, MemorySim]:
        """Grant one more subscription to the device in ``slot``."""
        self.made += 1
        imsi = f"00101{self.made:010}"
        credentials = Credentials(imsi, self.random.bytes(16), self.random.bytes(16))
        subscription = Subscription(
            credentials, 0, SubscriptionStatus.PENDING, slot.to_bytes(16), self.made.to_bytes(16)
        )
        self.store.add(subscription)
        grant = SimGrant(imsi, HOME, "WLAN", self.network.endpoint)
        return subscription, MemorySim(SoftSim.from_grant(grant, credentials))

    @property
    def access(self) -> EmbeddedNetworkAccess:
        """How a device attaches here."""
        return EmbeddedNetworkAccess(self.random, deadline_s=LONG)

    @contextlib.asynccontextmanager
    async def conversation(self) -> AsyncIterator[Conversation]:
        """Open a connection to the attach port."""
        reader, writer = await asyncio.open_connection(*endpoint(self.network.endpoint))
        with contextlib.closing(writer):
            yield Conversation(reader, writer)

    async def until_attached(self, count: int) -> None:
        """Wait until so many devices are attached."""
        async with asyncio.timeout(LONG):
            while self.network.attached() != count:  # noqa: ASYNC110 - waits for the fact itself
                await asyncio.sleep(0.001)

    async def until_outcome(self, code: str, count: int = 1) -> None:
        """Wait until the network has reported ``code`` so often."""
        async with asyncio.timeout(LONG):
            while self.network.outcomes[code] < count:  # noqa: ASYNC110 - waits for the fact itself
                await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def network_world(path: Path, settings: NetworkSettings = SETTINGS) -> AsyncIterator[World]:
    """Run an operator on system-chosen ports, its database in the directory ``path``."""
    store = Subscriptions.open(path / DATABASE)
    clock, random, used = FakeClock(), SeededRandom("world"), list[bytes]()
    centre = StoredAuthenticationCentre(store, random=random, clock=clock, on_first_use=used.append)
    far = await asyncio.start_server(_echo, "127.0.0.1", 0)
    forbidden: set[tuple[str, int]] = set()
    network = EmbeddedNetwork(
        settings,
        centre=centre,
        log=centre,
        home_keys={KEY.key_id: KEY},
        allowed=lambda host, port: (host, port) not in forbidden,
        clock=clock,
        random=random,
    )
    await network.start(store)
    try:
        yield World(store, network, clock, random, far.sockets[0].getsockname(), used, forbidden)
    finally:
        await network.close()
        await centre.close()
        far.close()
        store.close()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1000):
            writer.write(data)
    writer.close()
