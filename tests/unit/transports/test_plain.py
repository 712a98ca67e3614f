"""The small client: what it sends, what it refuses, and that connections are kept."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from firstlight.errors import TransportError
from firstlight.transports.body import CBOR, RemoteError
from firstlight.transports.plain import FIRST_PAUSE, PlainClient

Handle = Callable[[bytes], bytes | None]


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"content-length: "))
    return head + await reader.readexactly(length)


class Peer:
    """A server that answers with whatever bytes a test wants; None hangs up."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.connections = 0
        self.requests: list[bytes] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.requests.append(await _read_request(reader))
                answer = self.handle(self.requests[-1])
                if answer is None:
                    return
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def with_peer(handle: Handle, use: Callable[[Peer, PlainClient], Awaitable[None]], **options: float) -> Peer:
    async def run() -> Peer:
        peer = Peer(handle)
        server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
        peer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

        async def at_once(_: float) -> None:
            await asyncio.sleep(0)

        client = PlainClient(seconds=options.get("seconds", 120.0), limit=1_000, sleep=at_once)
        try:
            await use(peer, client)
        finally:
            await client.aclose()
            server.close()
        return peer

    return asyncio.run(run())


def answer(body: bytes, status: str = "200 OK", *more: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "content-type: application/cbor", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def code_of(handle: Handle, path: str = "/x", **options: float) -> str:
    found: list[str] = []

    async def use(peer: Peer, client: PlainClient) -> None:
        with pytest.raises(TransportError) as caught:
            await client.post(peer.url + path, b"body")
        found.append(caught.value.code)

    with_peer(handle, use, **options)
    return found[0]


def test_it_posts_and_keeps_the_connection() -> None:
    async def use(peer: Peer, client: PlainClient) -> None:
        for _ in range(3):
            assert await client.post(peer.url + "/a/b", b"body", content_type="application/x") == b"body"

    peer = with_peer(lambda request: answer(request[-4:]), use)
    assert peer.connections == 1
    assert peer.requests[0].startswith(b"POST /a/b HTTP/1.1\r\nhost: 127.0.0.1:")
    assert b"\r\ncontent-type: application/x\r\n" in peer.requests[0]


def test_two_at_once_use_two_connections() -> None:
    async def use(peer: Peer, client: PlainClient) -> None:
        await asyncio.gather(client.post(peer.url, b"1"), client.post(peer.url, b"2"))
        await asyncio.gather(client.post(peer.url, b"3"), client.post(peer.url, b"4"))

    assert with_peer(lambda _: answer(b""), use).connections == 2


def test_a_connection_that_the_peer_closed_meanwhile_is_replaced() -> None:
    count = [0]

    def handle(_: bytes) -> bytes | None:
        count[0] += 1
        return None if count[0] == 2 else answer(b"fine")

    async def use(peer: Peer, client: PlainClient) -> None:
        assert await client.post(peer.url, b"1") == b"fine"
        assert await client.post(peer.url, b"2") == b"fine"

    assert with_peer(handle, use).connections == 2


def test_a_connection_that_is_not_to_be_kept_is_not() -> None:
    async def use(peer: Peer, client: PlainClient) -> None:
        for _ in range(2):
            await client.post(peer.url, b"1")

    assert with_peer(lambda _: answer(b"", "200 OK", "connection: close"), use).connections == 2


def test_chunks_are_put_together() -> None:
    data = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"

    async def use(peer: Peer, client: PlainClient) -> None:
        assert await client.post(peer.url, b"") == b"abcde"

    with_peer(lambda _: data, use)


def test_what_a_peer_refuses_is_its_own_code() -> None:
    body = b'{"code":"no-such-party","detail":"x","hint":""}'
    data = b"HTTP/1.1 404 No\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)

    async def use(peer: Peer, client: PlainClient) -> None:
        with pytest.raises(RemoteError) as caught:
            await client.post(peer.url, b"", retries=3)
        assert (caught.value.code, caught.value.status) == ("no-such-party", 404)

    assert len(with_peer(lambda _: data, use).requests) == 1


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"nonsense\r\n\r\n", "bad-response"),
        (answer(b"x" * 1_001), "response-too-large"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 20_000, "response-too-large"),
        (answer(b"x", "200 OK", "content-encoding: gzip"), "bad-response"),
        (answer(b"x", "302 Found", "location: http://elsewhere"), "bad-response"),
        (answer(b"", "500 Oops"), "bad-response"),
        (None, "unreachable"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab", "timeout"),
    ],
)
def test_bad_answers(data: bytes | None, code: str) -> None:
    assert code_of(lambda _: data, seconds=0.2 if code == "timeout" else 120.0) == code


def test_what_may_pass_is_tried_again() -> None:
    async def use(peer: Peer, client: PlainClient) -> None:
        assert await client.post(peer.url, b"", retries=2) == b"fine"

    count = [0]

    def handle(_: bytes) -> bytes | None:
        count[0] += 1
        return None if count[0] < 3 else answer(b"fine")

    assert len(with_peer(handle, use).requests) == 3


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "ftp://127.0.0.1/",
        "http:///x",
        "http://h:99999/",
        "http://h/a b",
        "http://h/?q",
        "http://h/é",
    ],
)
def test_bad_urls(url: str) -> None:
    async def run() -> str:
        with pytest.raises(TransportError) as caught:
            await PlainClient(seconds=1, limit=10).post(url, b"", content_type=CBOR)
        return caught.value.code

    assert asyncio.run(run()) == "bad-url"


def test_nobody_there() -> None:
    async def run() -> str:
        server = await asyncio.start_server(lambda _, __: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        with pytest.raises(TransportError) as caught:
            await PlainClient(seconds=120, limit=10).post(f"http://127.0.0.1:{port}", b"")
        return caught.value.code

    assert asyncio.run(run()) == "unreachable"


def test_what_is_forwarded_comes_back_whatever_its_status() -> None:
    async def use(peer: Peer, client: PlainClient) -> None:
        got = await client.forward(peer.url + "/x", b"body", "application/x")
        assert (got.status, got.content_type, got.body) == (418, "application/cbor", b"no")
        with pytest.raises(TransportError) as caught:
            await client.forward("https://127.0.0.1/x", b"", "application/x")
        assert caught.value.code == "bad-url"

    with_peer(lambda _: answer(b"no", "418 Teapot"), use)


def test_pauses_are_half_chance_and_grow() -> None:
    pauses: list[float] = []
    chances = iter((0.0, 1.0, 0.5))

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def run() -> None:
        client = PlainClient(seconds=5.0, limit=10, sleep=sleep, chance=lambda: next(chances), dial=_refuse)
        with pytest.raises(TransportError):
            await client.post("http://127.0.0.1:1/x", b"", retries=3)

    asyncio.run(run())
    assert pauses == pytest.approx([FIRST_PAUSE / 2, FIRST_PAUSE * 2, FIRST_PAUSE * 3])


async def _refuse(host: str, port: int) -> socket.socket:
    raise TransportError("unreachable", f"{host}:{port}")


def test_it_keeps_the_pause_that_a_peer_asks_for() -> None:
    """Half to the whole of it is added by chance, so that those who were refused together come one by one."""

    def asking(seconds: str) -> bytes:
        body = b'{"code":"rate-limited","detail":"","hint":""}'
        head = f"HTTP/1.1 503 x\r\ncontent-type: application/json\r\nretry-after: {seconds}\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    done = b"HTTP/1.1 200 OK\r\ncontent-type: application/cbor\r\ncontent-length: 0\r\n\r\n"
    script, pauses = [asking("2"), asking("-1"), done, asking("3600")], list[float]()

    async def run() -> None:
        peer = Peer(lambda _: script.pop(0))
        server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)

        client = PlainClient(seconds=5.0, limit=1_000, sleep=sleep, chance=lambda: 0.5)
        try:
            assert await client.post(url, b"", retries=2) == b""
            with pytest.raises(RemoteError) as caught:
                await client.post(url, b"", retries=2)
            assert (caught.value.code, caught.value.retry_after) == ("rate-limited", 3_600)
        finally:
            await client.aclose()
            server.close()

    asyncio.run(run())
    assert pauses == [3.0, 0.15000000000000002]
