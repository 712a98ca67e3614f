"""The forwarder over real sockets: closed to everybody without a live session, and cut when the session ends."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import socks

from firstlight.access.device.network_embedded import EmbeddedAttachment
from firstlight.access.ports import Proxy
from firstlight.access.serving import forwarder
from firstlight.access.serving.forwarder import ForwarderLimits
from firstlight.sim.subscription import Subscription
from firstlight.testing.access_network import LONG, SETTINGS, MemorySim, World, network_world

GREETING = b"\x05\x01\x02"


def run(path: Path, test: Callable[[World], Awaitable[None]], limits: ForwarderLimits | None = None) -> None:
    async def main() -> None:
        settings = replace(SETTINGS, forwarder=limits or ForwarderLimits())
        async with asyncio.timeout(LONG), network_world(path, settings) as world:
            await test(world)

    asyncio.run(main())


async def attached(world: World, slot: int = 1) -> tuple[Subscription, MemorySim, EmbeddedAttachment]:
    subscription, sim = world.subscribe(slot)
    return subscription, sim, await world.access.attach(sim)


def login(proxy: Proxy) -> bytes:
    username, password = proxy.username.encode(), proxy.password.encode()
    return b"\x01" + bytes([len(username)]) + username + bytes([len(password)]) + password


def connect(host: str, port: int) -> bytes:
    return b"\x05\x01\x00\x01" + socket.inet_aton(host) + port.to_bytes(2)


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def dialled(proxy: Proxy) -> Stream:
    """Open a connection to the forwarder and log in."""
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    writer.write(GREETING)
    assert await reader.readexactly(2) == b"\x05\x02"
    writer.write(login(proxy))
    assert await reader.readexactly(2) == b"\x01\x00"
    return reader, writer


async def through(world: World, proxy: Proxy) -> Stream:
    """Open a connection to the far end, and see that it is open."""
    reader, writer = await dialled(proxy)
    writer.write(connect(*world.far))
    assert (await reader.readexactly(10))[:2] == b"\x05\x00"
    writer.write(b"ping")
    assert await reader.readexactly(4) == b"ping"
    return reader, writer


async def answer(proxy: Proxy, *parts: bytes) -> bytes:
    """Send parts and return all that comes back until the forwarder hangs up."""
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    with contextlib.closing(writer):
        writer.write(b"".join(parts))
        with contextlib.suppress(ConnectionError):
            return await reader.read()
        return b""


async def ended(stream: Stream) -> None:
    """Wait until the other side has cut a connection."""
    with contextlib.suppress(ConnectionError):
        assert await stream[0].read() == b""
    stream[1].close()


def test_bytes_pass_both_ways_and_are_counted(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        subscription, _, attachment = await attached(world)
        reader, writer = await through(world, attachment.proxy)
        data = bytes(range(256)) * 4096
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await attachment.close()
        await world.network.close()
        (record,) = world.store.sessions(subscription.credentials.imsi)
        assert (record.sent, record.received) == (len(data) + 4, len(data) + 4)

    run(tmp_path, test)


def test_httpx_goes_through(tmp_path: Path) -> None:
    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
        writer.close()

    async def test(world: World) -> None:
        _, _, attachment = await attached(world)
        server = await asyncio.start_server(page, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with httpx.AsyncClient(proxy=attachment.proxy.url) as client:
            assert (await client.get(f"http://127.0.0.1:{port}/")).text == "hello"
            assert (await client.get(f"http://localhost:{port}/")).text == "hello"
        server.close()

    run(tmp_path, test)


def test_pysocks_goes_through(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        _, _, attachment = await attached(world)
        proxy = attachment.proxy

        def talk() -> bytes:
            with socks.socksocket() as connection:
                connection.set_proxy(
                    socks.SOCKS5, proxy.host, proxy.port, username=proxy.username, password=proxy.password
                )
                connection.connect(world.far)
                connection.sendall(b"ping")
                return bytes(connection.recv(4))

        assert await asyncio.to_thread(talk) == b"ping"

    run(tmp_path, test)


@pytest.mark.parametrize("greeting", [b"\x05\x01\x00", b"\x05\x00", b"\x04\x01\x02", b"\x05\x02\x00\x01"])
def test_nobody_passes_without_credentials(tmp_path: Path, greeting: bytes) -> None:
    async def test(world: World) -> None:
        _, _, attachment = await attached(world)
        assert await answer(attachment.proxy, greeting) == b"\x05\xff"
        assert world.network.outcomes["forwarder-no-credentials"] == 1

    run(tmp_path, test)


def test_nobody_passes_without_a_live_session_of_their_own(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        _, _, one = await attached(world, 1)
        _, _, two = await attached(world, 2)
        false = [
            replace(one.proxy, password="0" * 64),
            replace(one.proxy, password=two.proxy.password),
            replace(one.proxy, password=""),
            replace(one.proxy, username="00" * 16),
            replace(one.proxy, username=""),
            replace(one.proxy, username="not hexadecimal"),
            replace(one.proxy, username="\xe9"),
        ]
        await two.close()
        for proxy in [*false, two.proxy]:
            assert await answer(proxy, GREETING, login(proxy), connect(*world.far)) == b"\x05\x02\x01\x01"
        assert world.network.outcomes["forwarder-no-session"] == len(false) + 1

    run(tmp_path, test)


def test_only_where_the_operator_allows(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        _, _, attachment = await attached(world)
        world.forbidden.add(world.far)
        reply = await answer(attachment.proxy, GREETING, login(attachment.proxy), connect(*world.far))
        assert reply[4:6] == b"\x05\x02"
        assert world.network.outcomes["forwarder-destination-refused"] == 1

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("request_bytes", "reply"),
    [
        (b"\x05\x02\x00\x01", 7),
        (b"\x05\x04\x00\x01", 7),
        (b"\x04\x01\x00\x01", 7),
        (b"\x05\x01\x00\x02", 8),
        (b"\x05\x01\x00\x03\x00", 8),
        (b"\x05\x01\x00\x03\x03a b", 8),
        (b"\x05\x01\x00\x03\x02\xc3\xa9", 8),
    ],
)
def test_what_is_no_connect_is_refused(tmp_path: Path, request_bytes: bytes, reply: int) -> None:
    async def test(world: World) -> None:
        _, _, attachment = await attached(world)
        got = await answer(attachment.proxy, GREETING, login(attachment.proxy), request_bytes, b"\x00\x50")
        assert got[4:6] == bytes([5, reply])
        assert world.network.outcomes["forwarder-bad-request"] == 1

    run(tmp_path, test)


def test_a_destination_that_is_closed(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        _, _, attachment = await attached(world)
        with socket.create_server(("127.0.0.1", 0)) as gone:
            port = gone.getsockname()[1]
        got = await answer(attachment.proxy, GREETING, login(attachment.proxy), connect("127.0.0.1", port))
        assert got[4:6] == b"\x05\x05"
        assert world.network.attached() == 1

    run(tmp_path, test)


async def by_suspension(world: World, subscription: Subscription, sim: MemorySim) -> None:
    world.store.suspend(subscription.grant)


async def by_death(world: World, subscription: Subscription, sim: MemorySim) -> None:
    world.store.end_slot(subscription.slot)


async def by_replacement(world: World, subscription: Subscription, sim: MemorySim) -> None:
    _, successor = world.subscribe()
    await world.access.attach(successor)


async def by_attaching_again(world: World, subscription: Subscription, sim: MemorySim) -> None:
    await world.access.attach(sim)


async def by_expiry(world: World, subscription: Subscription, sim: MemorySim) -> None:
    world.clock.advance(SETTINGS.lifetime_s)


async def by_closing_the_network(world: World, subscription: Subscription, sim: MemorySim) -> None:
    await world.network.close()


@pytest.mark.parametrize(
    "end", [by_suspension, by_death, by_replacement, by_attaching_again, by_expiry, by_closing_the_network]
)
def test_live_connections_are_cut_when_the_session_ends(
    tmp_path: Path, end: Callable[[World, Subscription, MemorySim], Awaitable[None]]
) -> None:
    async def test(world: World) -> None:
        subscription, sim, attachment = await attached(world)
        streams = [await through(world, attachment.proxy) for _ in range(3)]
        waiting = await dialled(attachment.proxy)
        await end(world, subscription, sim)
        for stream in streams:
            await ended(stream)
        waiting[1].write(connect(*world.far))
        await ended(waiting)

    run(tmp_path, test)


def test_other_sessions_stay(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        subscription, _, one = await attached(world, 1)
        _, _, two = await attached(world, 2)
        first, second = await through(world, one.proxy), await through(world, two.proxy)
        world.store.suspend(subscription.grant)
        await ended(first)
        second[1].write(b"still")
        assert await second[0].readexactly(5) == b"still"
        second[1].close()

    run(tmp_path, test)


def test_a_session_has_so_many_connections(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        _, _, attachment = await attached(world)
        held = [await through(world, attachment.proxy) for _ in range(2)]
        got = await answer(attachment.proxy, GREETING, login(attachment.proxy), connect(*world.far))
        assert got[4:6] == b"\x05\x01"
        assert world.network.outcomes["forwarder-too-many-connections"] == 1
        for _, writer in held:
            writer.close()

    run(tmp_path, test, ForwarderLimits(per_session=2))


def test_half_open_connections_are_few_and_short(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        _, _, attachment = await attached(world)
        silent = await asyncio.open_connection(attachment.proxy.host, attachment.proxy.port)
        silent[1].write(b"\x05")
        assert await answer(attachment.proxy, GREETING) == b""
        assert world.network.outcomes["forwarder-busy"] == 1
        await ended(silent)
        (await through(world, attachment.proxy))[1].close()

    run(tmp_path, test, ForwarderLimits(half_open=1, opening_s=0.1))


class Aborted:
    """A writer whose transport was aborted, as it is on the loop that servers run on."""

    def is_closing(self) -> bool:
        return True

    def can_write_eof(self) -> bool:
        return True

    def write(self, data: bytes) -> None:
        raise RuntimeError("the handler is closed")

    def write_eof(self) -> None:
        raise RuntimeError("the handler is closed")


@pytest.mark.parametrize("data", [b"", b"late"])
def test_nothing_is_written_to_what_the_sessions_end_has_closed(data: bytes) -> None:
    async def main() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        await forwarder._pump(reader, Aborted(), lambda _: None)

    asyncio.run(main())
