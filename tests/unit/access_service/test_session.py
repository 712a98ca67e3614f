"""The device's side: whom it trusts, which way it goes, and what it says when it is not let in."""

import asyncio
import contextlib
import socket
import ssl
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight.access.device import service_wire as wire
from firstlight.access.device.service_session import connect
from firstlight.access.ports import Proxy
from firstlight.access.serving import service_door as door
from firstlight.errors import AccessError, FirstlightError
from firstlight.testing.access_network import LONG

USER, PASSWORD = "session", "proof"


async def refusal(attempt) -> str:
    with pytest.raises(FirstlightError) as caught:
        await attempt
    return caught.value.code


class Forwarder:
    """A SOCKS5 server (RFC 1928, RFC 1929) that answers as it is told."""

    def __init__(self, *, reply: int = 0, method: int = 2, version: int = 5, silent: bool = False) -> None:
        self.reply, self.method, self.version, self.silent = reply, method, version, silent
        self.asked: list[tuple[str, int]] = []
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader, writer):
        self.tasks.add(asyncio.current_task())
        with contextlib.suppress(OSError, EOFError), contextlib.closing(writer):
            assert (await reader.readexactly(3))[:2] == b"\x05\x01"
            if self.silent:
                await reader.read()
            writer.write(bytes([5, self.method]))
            if self.method == 2:
                await reader.readexactly(1)
                user = await reader.readexactly((await reader.readexactly(1))[0])
                password = await reader.readexactly((await reader.readexactly(1))[0])
                writer.write(b"\x01" + (b"\x00" if (user, password) == (b"session", b"proof") else b"\x01"))
            await self.forward(reader, writer)

    async def forward(self, reader, writer):
        head = await reader.readexactly(4)
        assert head[:3] == b"\x05\x01\x00"
        if head[3] == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            host = ".".join(str(byte) for byte in await reader.readexactly(4))
        port = int.from_bytes(await reader.readexactly(2))
        self.asked.append((host, port))
        writer.write(bytes([self.version, self.reply, 0, 1]) + bytes(6))
        if self.reply or self.version != 5:
            await writer.drain()
            return
        there, back = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.closing(back):
            await asyncio.wait(
                [asyncio.create_task(pump(reader, back)), asyncio.create_task(pump(there, writer))],
                return_when=asyncio.FIRST_COMPLETED,
            )


async def pump(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


@contextlib.asynccontextmanager
async def forwarded(**behaviour):
    forwarder = Forwarder(**behaviour)
    server = await asyncio.start_server(forwarder.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield forwarder, Proxy("127.0.0.1", port, USER, PASSWORD)
    finally:
        server.close()
        for task in forwarder.tasks:
            task.cancel()
        await asyncio.gather(*forwarder.tasks, return_exceptions=True)


def test_through_the_forwarder(world):
    async def work():
        async with world.running(), forwarded() as (forwarder, proxy):
            device = world.device()
            session = await world.connect(device, proxy=proxy)
            await session.publish(b"through")
            assert [message.payload for message in await world.read(1)] == [b"through"]
            await session.close()
            assert forwarder.asked == [("127.0.0.1", world.broker.endpoint.port)]
            session = await world.connect(device, proxy=proxy, host="broker.sp.example")
            await session.close()
            assert forwarder.asked[-1][0] == "broker.sp.example"

    asyncio.run(work())


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        ({"reply": 2}, "proxy-refused"),
        ({"reply": 5}, "service-unreachable"),
        ({"reply": 4}, "service-unreachable"),
        ({"method": 0}, "proxy-refused"),
        ({"method": 255}, "proxy-refused"),
        ({"version": 4}, "proxy-refused"),
        ({"silent": True}, "service-timeout"),
    ],
)
def test_what_the_forwarder_refuses(world, behaviour, code):
    async def work():
        async with world.running(), forwarded(**behaviour) as (_, proxy):
            await world.honest()
            attempt = connect(
                world.access(world.device(), proxy=proxy), patience=0.2 if "silent" in behaviour else LONG
            )
            assert await refusal(attempt) == code

    asyncio.run(work())


def test_a_wrong_proof_and_an_absent_forwarder(world):
    async def work():
        async with world.running(), forwarded() as (_, proxy):
            wrong = Proxy(proxy.host, proxy.port, USER, "guess")
            assert await refusal(world.connect(world.device(), proxy=wrong)) == "proxy-refused"
            long = Proxy(proxy.host, proxy.port, "x" * 256, PASSWORD)
            assert await refusal(world.connect(world.device(), proxy=long)) == "proxy-refused"
            with closed_port() as port:
                gone = Proxy("127.0.0.1", port, USER, PASSWORD)
                assert await refusal(world.connect(world.device(), proxy=gone)) == "proxy-unreachable"
                assert await refusal(world.connect(world.device(), port=port)) == "service-unreachable"

    asyncio.run(work())


@contextlib.contextmanager
def closed_port():
    """A port that is taken, so that nobody else gets it, and on which nobody listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def test_whom_a_device_does_not_trust(world, tmp_path):
    async def work():
        async with world.running():
            device = await world.honest()
            other = type(world)(made(tmp_path / "other"))
            foreign = (other.authority.certificate,)
            assert await refusal(world.connect(device, anchors=foreign)) == "service-untrusted"
            assert await refusal(world.connect(device, server_name="other.sp.example")) == "service-untrusted"
            assert await refusal(world.connect(device, anchors=(b"junk",))) == "service-bad-files"
            assert await refusal(world.connect(device, key=other.server.key)) == "service-bad-files"
            assert await refusal(world.connect(device, certificate=tmp_path / "none.pem")) == "service-bad-files"

    asyncio.run(work())


def made(path):
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"\x20\x02\x00\x05", "service-refused"),
        (b"\x20\x02\x00", "service-refused"),
        (b"", "service-refused"),
        (b"\x31\x02\x00\x00", "service-malformed"),
        (b"\x40\x02\x00\x01", "service-refused"),
        (None, "service-timeout"),
    ],
)
def test_a_service_that_greets_oddly(world, answer, code):
    async def serve(reader, writer):
        with contextlib.suppress(OSError), contextlib.closing(writer):
            await reader.read(64)
            writer.write(answer or b"")
            await (reader.read() if answer is None else writer.drain())

    async def work():
        async with world.running():
            access = world.access(await world.honest())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(world.server.certificate, world.server.key)
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        access = replace(access, port=server.sockets[0].getsockname()[1])
        assert await refusal(connect(access, patience=0.3 if answer is None else LONG)) == code
        server.close()

    asyncio.run(work())


def test_a_session_that_is_lost_says_so(world):
    async def work():
        async with world.running():
            device = await world.honest()
            session = await world.connect(device)
            assert session.alive
            assert await refusal(session.publish(bytes(wire.MAX_PAYLOAD + 1))) == "payload-too-large"
        await session.lost()
        assert not session.alive
        assert await refusal(session.publish(b"x")) == "service-lost"
        await session.close()

    asyncio.run(work())


def test_sixty_four_devices_in_one_process(world):
    async def work():
        async with world.running():
            devices = [world.device() for _ in range(64)]
            sessions = await asyncio.gather(*(world.connect(device) for device in devices))
            await asyncio.gather(*(session.publish(b"up") for session in sessions))
            got = await world.read(64)
            assert {message.name for message in got} == {device.issued.name for device in devices}
            await asyncio.gather(*(session.close() for session in sessions))

    asyncio.run(work())


def test_a_client_that_falls_silent_is_let_go():
    async def work():
        stream = asyncio.StreamReader()
        client = door.Client("a" * 32, 1, None, stream, None)
        reader = door.Reader(client, b"C", 0.02, lambda _: True)
        assert await reader.read(1) == b"C"
        stream.feed_data(b"\xc0\x00")
        assert [await reader.read(1), await reader.read(1)] == [b"\xc0", b"\x00"]
        assert [await reader.read(1), await reader.read(1)] == [b"", b""]

    asyncio.run(work())


@given(st.lists(st.sampled_from([b"\x20\x02\x00\x00", b"\x40\x02\x01\x02", b"\xd0\x00"]), max_size=5), st.data())
@settings(max_examples=40)
def test_pieces_of_any_size_give_the_same_events(packets, data):
    stream = b"".join(packets)
    whole, pieces, got = wire.Decoder().feed(stream), wire.Decoder(), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        got += pieces.feed(stream[:cut])
        stream = stream[cut:]
    assert got == whole
    assert len(whole) == len(packets)


@given(st.binary(max_size=40))
@settings(max_examples=60)
def test_nonsense_from_a_service_is_an_error_with_a_code(data):
    decoder, known = wire.Decoder(), (b"\x20\x02", b"\x40\x02", b"\xd0\x00")
    if len(data) < 2 or data[:2] in known:
        decoder.feed(data[:2])
    else:
        with pytest.raises(AccessError) as caught:
            decoder.feed(data)
        assert caught.value.code == "service-malformed"
