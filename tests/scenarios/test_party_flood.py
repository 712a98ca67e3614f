"""A flood of message 1 from one address: a device elsewhere gets through, and the server's memory stays bounded."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from firstlight.custody.system import SystemRandom
from firstlight.onboarding import wire
from firstlight.onboarding.device import Granted, begin
from firstlight.onboarding.edhoc.keys import Ephemeral
from firstlight.settings import MnoSettings
from firstlight.testing.parties import FakeDevice, Server, party_world
from firstlight.transports.client import HttpClient

FLOODER = "127.0.0.9"
LONG = 180.0
"""Seconds after which what is waited for will not come."""
CONNECTIONS = 24
REQUESTS = 6_000
GROWTH = 24 * 1_024 * 1_024
"""Bytes by which a worker's memory may grow under a flood: caches filling up, not a request kept each."""


def message_1(device: FakeDevice, server: Server) -> bytes:
    """Return a request that costs the party its arithmetic, as if a device had sent it."""
    begun = begin(device.identity, device.acting(server), ephemeral=Ephemeral.draw(SystemRandom()))
    head = f"POST {wire.PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: {wire.MEDIA_TYPE_REQUEST}\r\n"
    return f"{head}content-length: {len(begun.request_1)}\r\n\r\n".encode() + begun.request_1


class Flood:
    """Sends message 1 over many connections until it is told to stop."""

    def __init__(self, url: str, request: bytes) -> None:
        self.host, self.port = urlsplit(url).hostname or "", urlsplit(url).port or 0
        self.request = request
        self.statuses: dict[bytes, int] = {}

    async def pour(self) -> None:
        """Keep one connection busy."""
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection(self.host, self.port, local_addr=(FLOODER, 0))
                try:
                    while True:
                        writer.write(self.request)
                        head = await reader.readuntil(b"\r\n\r\n")
                        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                        await reader.readexactly(length)
                        status = head.split(b" ", 2)[1]
                        self.statuses[status] = self.statuses.get(status, 0) + 1
                finally:
                    writer.close()

    @property
    def answered(self) -> int:
        return sum(self.statuses.values())

    async def reach(self, count: int) -> None:
        """Wait until so many have been answered."""
        async with asyncio.timeout(LONG):
            while self.answered < count:  # noqa: ASYNC110 - waits for the fact itself
                await asyncio.sleep(0.02)


def memory() -> int:
    return sum(
        child.memory_info().rss for child in psutil.Process().children() if "worker" in " ".join(child.cmdline())
    )


def test_a_device_gets_through_a_flood(tmp_path: Path) -> None:
    async def scene() -> None:
        async with party_world(tmp_path) as (world, network, _):
            await network.stop()
            settings = (network.directory / "mno.toml").read_text()
            tight = settings.replace("begins_per_source = 500", "begins_per_source = 50")
            assert tight != settings
            (network.directory / "mno.toml").write_text(tight)
            server = await world.start(MnoSettings, network.directory, network.keys, workers=2)
            flood = Flood(server.url, message_1(world.devices[3], server))
            pouring = [asyncio.create_task(flood.pour()) for _ in range(CONNECTIONS)]
            try:
                await flood.reach(REQUESTS // 3)
                before = memory()
                async with HttpClient() as http:
                    for device in world.devices[:3]:
                        async with asyncio.timeout(LONG):
                            assert isinstance(await device.onboard(server, http), Granted)
                await flood.reach(REQUESTS)
                assert memory() - before < GROWTH
            finally:
                for one in pouring:
                    one.cancel()
                await asyncio.gather(*pouring, return_exceptions=True)
            assert set(flood.statuses) == {b"200", b"429"}
            assert flood.statuses[b"429"] > flood.statuses[b"200"]

    asyncio.run(scene())
