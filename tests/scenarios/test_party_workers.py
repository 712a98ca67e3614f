"""Parties with several worker processes: any of them finishes any exchange, and one that dies is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from firstlight.custody.system import SystemRandom
from firstlight.onboarding import wire
from firstlight.onboarding.device import Begun, Granted, Refused, Sent, begin
from firstlight.onboarding.edhoc.keys import Ephemeral
from firstlight.onboarding.token import KeyRing
from firstlight.roles.party.status import grant_rows, mno_status, sp_status
from firstlight.roles.party.tokens import TokenKeys
from firstlight.settings import MnoSettings, SpSettings
from firstlight.testing.parties import FakeDevice, PartyWorld, Server, new_key, party_world

LONG = 120.0
"""Seconds after which what is waited for will not come."""


class Connection:
    """One connection, kept: all its requests are answered by the worker that took it."""

    def __init__(self, url: str) -> None:
        self.kept = http.client.HTTPConnection(urlsplit(url).netloc, timeout=LONG)
        self.kept.connect()
        self.post(b"\x40")
        self.pid = holder(self.kept.sock.getsockname()[1], self.kept.sock.getpeername()[1])

    def post(self, body: bytes) -> bytes:
        self.kept.request("POST", wire.PATH, body, {"content-type": wire.MEDIA_TYPE_REQUEST})
        return self.kept.getresponse().read()

    def close(self) -> None:
        self.kept.close()


def children() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "firstlight.roles.party.worker" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
    return found


def holder(theirs: int, ours: int) -> int:
    """Return which worker holds the connection between these two ports."""
    for child in children():
        for one in child.net_connections("tcp"):
            if one.raddr and (one.laddr.port, one.raddr.port) == (ours, theirs):
                return child.pid
    raise AssertionError("nobody holds it")


async def connect(server: Server, wanted: Callable[[int], bool]) -> Connection:
    """Return a connection to a worker that is wanted."""
    async with asyncio.timeout(LONG):
        while True:
            connection = await asyncio.to_thread(Connection, server.url)
            if wanted(connection.pid):
                return connection
            connection.close()


@contextlib.asynccontextmanager
async def with_workers(
    root: Path, role: type[MnoSettings] | type[SpSettings]
) -> AsyncIterator[tuple[PartyWorld, Server]]:
    """Run a world, one of whose parties has two workers."""
    async with party_world(root) as (world, network, service):
        server = network if role is MnoSettings else service
        await server.stop()
        yield world, await world.start(role, server.directory, server.keys, workers=2)
    assert children() == []


def begun_by(device: FakeDevice, server: Server) -> Begun:
    return begin(device.identity, device.acting(server), ephemeral=Ephemeral.draw(SystemRandom()))


async def sent_by(device: FakeDevice, server: Server, connection: Connection) -> Sent:
    begun = begun_by(device, server)
    answer = await asyncio.to_thread(connection.post, begun.request_1)
    sent = begun.read(answer, evidence=device.evidence)
    assert isinstance(sent, Sent), sent
    return sent


def test_one_worker_begins_another_finishes_and_one_dies_in_between(tmp_path: Path) -> None:
    async def scene() -> None:
        async with with_workers(tmp_path, MnoSettings) as (world, server):
            device = world.devices[0]
            first = await connect(server, lambda _: True)
            sent = await sent_by(device, server, first)
            os.kill(first.pid, signal.SIGKILL)
            second = await connect(server, lambda pid: pid != first.pid)
            answer = await asyncio.to_thread(second.post, sent.request_2)
            granted = sent.read(answer)
            assert isinstance(granted, Granted), granted

            before = {first.pid, second.pid}
            third = await connect(server, lambda pid: pid not in before)
            assert await asyncio.to_thread(third.post, sent.request_2) == answer
            assert mno_status(server.directory).granted == 1
            attachment = await device.attach(server, granted)
            await attachment.close()
            kept = b"".join(path.read_bytes() for path in server.directory.iterdir() if path.is_file())
            assert sent.session.prk_exporter not in kept

    asyncio.run(scene())


def test_two_workers_race_for_one_exchange_and_say_the_same(tmp_path: Path) -> None:
    async def scene() -> None:
        async with with_workers(tmp_path, MnoSettings) as (world, server):
            first = await connect(server, lambda _: True)
            second = await connect(server, lambda pid: pid != first.pid)
            for device in world.devices[:3]:
                sent = await sent_by(device, server, first)
                answers = await asyncio.gather(
                    *(asyncio.to_thread(one.post, sent.request_2) for one in (first, second))
                )
                assert answers[0] == answers[1]
                assert isinstance(sent.read(answers[0]), Granted)
                other = await sent_by(device, server, second)
                twisted = other.request_2[:-1] + bytes([other.request_2[-1] ^ 1])
                assert isinstance(other.read(await asyncio.to_thread(first.post, other.request_2)), Granted | Refused)
                assert other.read(await asyncio.to_thread(second.post, twisted)).code.startswith("edhoc-error")
            assert len([one for one in grant_rows(MnoSettings, server.directory) if one.state == "pending"]) == 3

    asyncio.run(scene())


def test_a_broker_follows_what_workers_grant(tmp_path: Path) -> None:
    async def scene() -> None:
        async with with_workers(tmp_path, SpSettings) as (world, server):
            device = world.devices[0]
            connection = await connect(server, lambda _: True)
            key, request = new_key(tmp_path / "operational.pem")
            begun = begun_by(device, server)
            answer = await asyncio.to_thread(connection.post, begun.request_1)
            sent = begun.read(answer, evidence=device.evidence, request=request)
            assert isinstance(sent, Sent)
            granted = sent.read(await asyncio.to_thread(connection.post, sent.request_2))
            assert isinstance(granted, Granted), granted
            session = await device.connect(granted, key, None)
            await session.publish(b"21.5")
            async with asyncio.timeout(LONG):
                while sp_status(server.directory).connected != 1:  # noqa: ASYNC110 - waits for the fact itself
                    await asyncio.sleep(0.01)
            await session.close()

    asyncio.run(scene())


def test_keys_turn_while_exchanges_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Message 3 finds its key at another worker after a turn; with keys that are current for five seconds."""
    monkeypatch.setattr("firstlight.roles.party.tokens.LIFETIME_NS", 10_000_000_000)

    async def scene() -> None:
        async with with_workers(tmp_path, MnoSettings) as (world, server):
            first = await connect(server, lambda _: True)
            second = await connect(server, lambda pid: pid != first.pid)
            device = world.devices[0]
            assert isinstance(await finished(await sent_by(device, server, first), second), Granted)
            turned = asyncio.Event()
            following = TokenKeys.following

            def turning(keys: TokenKeys) -> tuple[KeyRing, KeyRing] | None:
                rings = following(keys)
                if rings is not None:
                    turned.set()
                return rings

            monkeypatch.setattr(TokenKeys, "following", turning)
            for _ in range(3):  # as often as this machine is too slow to send what was sealed before the turn
                turned.clear()
                sent = await sent_by(device, server, first)
                async with asyncio.timeout(LONG):
                    await turned.wait()
                event = await finished(sent, second)
                if isinstance(event, Granted):
                    break
            assert isinstance(event, Granted), event
            assert isinstance(await finished(await sent_by(device, server, second), first), Granted)

    asyncio.run(scene())


async def finished(sent: Sent, connection: Connection) -> object:
    """Send message 3 over a connection, and return what came of it."""
    return sent.read(await asyncio.to_thread(connection.post, sent.request_2))
