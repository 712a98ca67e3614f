"""Datagrams through the forwarder: to where the operator allows, back to the device alone, no longer than it may."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest

from firstlight.access.datagram_header import parse_header
from firstlight.access.device.datagram_dial import Association, associate
from firstlight.access.device.network_embedded import EmbeddedAttachment
from firstlight.access.ports import Proxy
from firstlight.errors import AccessError
from firstlight.sim.subscription import Subscription
from firstlight.testing.access_network import SETTINGS, World, network_world

LOCAL = socket.inet_aton("127.0.0.1")


def run(path: Path, test: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(120), network_world(path, SETTINGS) as world:
            await test(world)

    asyncio.run(main())


async def attached(world: World) -> tuple[Subscription, EmbeddedAttachment]:
    subscription, sim = world.subscribe(1)
    return subscription, await world.access.attach(sim)


class Far(asyncio.DatagramProtocol):
    """A destination that sends back what comes, and remembers from where."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, tuple[str, int]]] = []
        self.came = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.heard.append((data, addr))
        self.came.set()
        self.transport.sendto(b"back " + data, addr)


async def far_end(host: str = "127.0.0.1") -> tuple[Far, int]:
    transport, far = await asyncio.get_running_loop().create_datagram_endpoint(Far, local_addr=(host, 0))
    return far, transport.get_extra_info("sockname")[1]


async def say(association: Association, data: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(association.datagrams, association.wrap(data))
    while (answer := association.unwrap(await loop.sock_recv(association.datagrams, 2_048))) is None:
        pass
    return answer


def close(association: Association) -> None:
    association.close()
    association.datagrams.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_datagrams_pass_both_ways_and_are_counted(tmp_path: Path, host: str) -> None:
    async def test(world: World) -> None:
        subscription, attachment = await attached(world)
        far, port = await far_end()
        association = await associate(host, port, attachment.proxy)
        assert await say(association, b"one") == b"back one"
        assert await say(association, b"two") == b"back two"
        assert [data for data, _ in far.heard] == [b"one", b"two"]
        close(association)
        await attachment.close()
        await world.network.close()
        (record,) = world.store.sessions(subscription.credentials.imsi)
        assert (record.sent, record.received) == (6, 16)

    run(tmp_path, test)


def test_without_a_session_there_is_no_association(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        _, attachment = await attached(world)
        foreign = Proxy(attachment.proxy.host, attachment.proxy.port, attachment.proxy.username, "0" * 64)
        with pytest.raises(AccessError) as caught:
            await associate("127.0.0.1", 9, foreign)
        assert caught.value.code == "proxy-refused"

    run(tmp_path, test)


def test_a_destination_that_is_not_allowed_hears_nothing(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        _, attachment = await attached(world)
        (forbidden, port), (far, other) = await far_end(), await far_end()
        world.forbidden.add(("127.0.0.1", port))
        association = await associate("127.0.0.1", other, attachment.proxy)
        loop = asyncio.get_running_loop()
        refused = b"\x00\x00\x00\x01" + LOCAL + port.to_bytes(2) + b"in"
        for _ in range(3):
            await loop.sock_sendall(association.datagrams, refused)
        assert await say(association, b"on") == b"back on"
        assert (forbidden.heard, len(far.heard)) == ([], 1)
        assert world.network.outcomes["forwarder-destination-refused"] == 1
        close(association)

    run(tmp_path, test)


def test_nobody_else_gets_a_datagram_through_in_either_direction(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        _, attachment = await attached(world)
        far, port = await far_end()
        association = await associate("127.0.0.1", port, attachment.proxy)
        assert await say(association, b"mine") == b"back mine"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(association.wrap(b"foreign"), association.datagrams.getpeername())
            stranger.sendto(b"injected", far.heard[0][1])
        assert await say(association, b"mine too") == b"back mine too"
        assert [data for data, _ in far.heard] == [b"mine", b"mine too"]
        close(association)

    run(tmp_path, test)


def test_the_end_of_the_session_ends_its_associations(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        subscription, attachment = await attached(world)
        far, port = await far_end()
        association = await associate("127.0.0.1", port, attachment.proxy)
        assert await say(association, b"before") == b"back before"
        world.network.drop((subscription.credentials.imsi,))
        await association.ended()
        with pytest.raises(AccessError) as caught:
            await associate("127.0.0.1", port, attachment.proxy)
        assert caught.value.code == "proxy-refused"
        assert len(far.heard) == 1
        close(association)

    run(tmp_path, test)


def test_what_is_no_datagram_of_socks_is_passed_over(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        _, attachment = await attached(world)
        far, port = await far_end()
        association = await associate("127.0.0.1", port, attachment.proxy)
        loop, to = asyncio.get_running_loop(), LOCAL + port.to_bytes(2)
        for bad in (b"", b"\x00", b"\x00\x00\x01\x01" + to + b"x", b"\x00\x00\x00\x01\x7f", b"\x00\x00\x00\x09" + to):
            await loop.sock_sendall(association.datagrams, bad)
        assert await say(association, b"good") == b"back good"
        assert len(far.heard) == 1
        close(association)

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x00\x00\x00\x01\x7f\x00\x00\x01\x00\x50rest", ("127.0.0.1", 80)),
        (b"\x00\x00\x00\x03\x09localhost\x16\x33", ("localhost", 5683)),
        (b"\x00\x00\x00\x04" + bytes(15) + b"\x01\x00\x50", ("::1", 80)),
        (b"\x00\x00\x00\x03\x00\x00\x50", None),
        (b"\x00\x00\x00\x03\x03a b\x00\x50", None),
        (b"\x00\x00\x00\x03\x09local", None),
        (b"\x00\x00\x00\x03", None),
        (b"\x00\x01\x00\x01\x7f\x00\x00\x01\x00\x50", None),
    ],
)
def test_headers(data: bytes, expected: tuple[str, int] | None) -> None:
    parsed = parse_header(data)
    assert (None if parsed is None else parsed[1:]) == expected
    if parsed is not None:
        assert data.startswith(parsed[0])
