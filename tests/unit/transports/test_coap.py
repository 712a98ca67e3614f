"""CoAP, both ends over real sockets: the same bytes as over HTTP, block by block, and bounded against strangers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response as Answer
from starlette.routing import Route

from firstlight.encoding import decode
from firstlight.errors import ConfigError, MalformedError, RefusedError, TransportError
from firstlight.transports.admission import OverloadError, Rate
from firstlight.transports.body import CBOR, EDHOC, JSON, RemoteError, Response
from firstlight.transports.client import HttpClient, Limits
from firstlight.transports.coap import codes
from firstlight.transports.coap.bounded import Bound
from firstlight.transports.coap.client import CoapClient, Target
from firstlight.transports.coap.client import Path as Way
from firstlight.transports.coap.message import Block, Message, Option, Type, empty, encode_uint, parse
from firstlight.transports.coap.path import open_path
from firstlight.transports.coap.server import AMPLIFICATION, MAX_BODY, Bounds, CoapServer
from firstlight.transports.coap.serving import answering, beside_application, beside_server
from firstlight.transports.endpoint import read_endpoint
from firstlight.transports.http import answering as answering_http
from firstlight.transports.http import application, as_json, cbor, raw, read_body
from firstlight.transports.plain import PlainClient
from firstlight.transports.server import _bind_datagrams, listening_by
from firstlight.transports.web import Web

SECONDS = 30


@dataclass(slots=True)
class Handled:
    """What the application under both transports has seen, and what holds it up."""

    calls: list[tuple[str, str, bytes, str, str]] = field(default_factory=list)
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: asyncio.Event = field(default_factory=asyncio.Event)


def make_app(handled: Handled) -> Starlette:
    async def mirror(request: Request) -> Answer:
        body = await read_body(request)
        head = request.headers
        handled.calls.append(
            (request.method, request.url.path, body, head.get("content-type", ""), head.get("accept", ""))
        )
        return raw(body + bytes(reversed(body)), EDHOC)

    async def big(request: Request) -> Answer:
        return raw(bytes(range(256)) * int(request.path_params["size"]), CBOR)

    async def refuse(request: Request) -> Answer:
        code = request.path_params["code"]
        if code in ("rate-limited", "busy"):
            raise OverloadError(code, "too much", retry_after=7)
        raise (MalformedError if code == "too-large" else RefusedError)(code, "no, and here is why", hint="ask them")

    async def held(_: Request) -> Answer:
        handled.waiting.set()
        await handled.hold.wait()
        return cbor(["at last"])

    async def query(request: Request) -> Answer:
        return as_json({"query": sorted(request.query_params.multi_items()), "from": request.client.host})

    async def wrong(_: Request) -> Answer:
        raise ValueError("a mistake in the program")

    return application(
        "test",
        [
            Route("/mirror", mirror, methods=["POST", "PUT"]),
            Route("/big/{size}", big, methods=["POST", "GET"]),
            Route("/refuse/{code}", refuse, methods=["POST"]),
            Route("/held", held, methods=["POST"]),
            Route("/query", query, methods=["GET"]),
            Route("/wrong", wrong, methods=["POST"]),
        ],
    )


class Lossy:
    """A way on which some datagrams are lost, doubled or seen."""

    def __init__(self, way: Way, lose: Callable[[int], int]) -> None:
        self.way, self.lose = way, lose
        self.sent: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.sent.append(data)
        for _ in range(self.lose(len(self.sent))):
            self.way.send(data)

    async def receive(self) -> bytes:
        return await self.way.receive()

    def close(self) -> None:
        self.way.close()


@dataclass(slots=True)
class World:
    """One application behind both transports."""

    url: str
    coap: str
    server: CoapServer
    handled: Handled
    clients: list[CoapClient | PlainClient | HttpClient] = field(default_factory=list)
    ways: list[Lossy] = field(default_factory=list)

    def client(
        self,
        *,
        limit: int = 300_000,
        seconds: float = SECONDS,
        lose: Callable[[int], int] | None = None,
        ack_seconds: float = 2.0,
    ) -> CoapClient:
        async def open_lossy(host: str, port: int) -> Way:
            way = await open_path(host, port)
            if lose is None:
                return way
            self.ways.append(Lossy(way, lose))
            return self.ways[-1]

        made = CoapClient(open_lossy, seconds=seconds, limit=limit, ack_seconds=ack_seconds)
        self.clients.append(made)
        return made

    def http(self) -> PlainClient:
        self.clients.append(made := PlainClient(seconds=SECONDS, limit=300_000))
        return made


@asynccontextmanager
async def opened(bounds: Bounds | None = None) -> AsyncIterator[World]:
    handled = Handled()
    app = make_app(handled)
    found: list[CoapServer] = []

    @asynccontextmanager
    async def beside(bound: object, _: str) -> AsyncIterator[None]:
        from firstlight.transports.coap.answering import by_application

        async with answering(bound, by_application(app), bounds=bounds) as server:
            found.append(server)
            yield

    async with asyncio.timeout(60), listening_by(answering_http(app), beside=beside) as url:
        world = World(url, "coap" + url.removeprefix("http"), found[0], handled)
        try:
            yield world
        finally:
            handled.hold.set()
            for client in world.clients:
                await client.aclose()


def run(test: Callable[[World], Awaitable[None]], bounds: Bounds | None = None) -> None:
    async def main() -> None:
        async with opened(bounds) as world:
            await test(world)

    asyncio.run(main())


class Raw:
    """One UDP socket and whatever a test wants to send from it."""

    def __init__(self, way: Way) -> None:
        self.way = way
        self.echo: bytes | None = None

    @classmethod
    async def to(cls, world: World, *, verified: bool = False) -> Raw:
        target = Target.of(world.coap)
        made = cls(await open_path(target.host, target.port))
        if verified:
            made.send(message(1, "healthz", mid=60_000, more=((Option.ECHO, b"\x00"),)))
            challenge = parse(await made.receive())
            assert challenge.code == codes.UNAUTHORIZED
            made.echo = challenge.value(Option.ECHO)
            made.send(message(1, "healthz", mid=60_001, more=((Option.ECHO, made.echo),)))
            assert parse(await made.receive()).code == codes.CONTENT
        return made

    def send(self, data: bytes) -> None:
        self.way.send(data)

    async def receive(self) -> bytes:
        async with asyncio.timeout(SECONDS):
            return await self.way.receive()

    async def ask(self, data: bytes) -> Message:
        self.send(data)
        return parse(await self.receive())


def message(
    code: int,
    path: str,
    payload: bytes = b"",
    *,
    mid: int = 1,
    kind: Type = Type.CON,
    token: bytes = b"token",
    more: tuple[tuple[int, bytes], ...] = (),
) -> bytes:
    options = (*((Option.URI_PATH, one.encode()) for one in path.split("/")), *more)
    return Message(kind, code, mid, token, options, payload).encode()


POST, GET = codes.NUMBERS["POST"], codes.NUMBERS["GET"]


# --- the same bytes ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 16, 1_023, 1_024, 1_025, 2_048, 6_144, 40_000])
def test_the_same_bytes_over_both(size: int) -> None:
    body = os.urandom(size)

    async def test(world: World) -> None:
        answers = [
            await client.post(f"{url}/mirror", body, content_type="application/cid-edhoc+cbor-seq")
            for client, url in ((world.http(), world.url), (world.client(), world.coap))
        ]
        assert answers[0] == answers[1] == body + bytes(reversed(body))
        assert world.handled.calls[0][:4] == world.handled.calls[1][:4]

    run(test)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nowhere", 404),
        ("/query", 405),
        ("/refuse/frozen", 403),
        ("/refuse/too-large", 413),
        ("/refuse/order-differs", 409),
        ("/refuse/wrong-media-type", 415),
        ("/refuse/rate-limited", 429),
        ("/refuse/busy", 503),
        ("/refuse/timeout", 504),
        ("/wrong", 500),
    ],
)
@pytest.mark.parametrize("content_type", [CBOR, JSON])
def test_the_same_errors_over_both(path: str, status: int, content_type: str) -> None:
    async def test(world: World) -> None:
        over_http = await world.http().forward(world.url + path, b"x", content_type)
        over_coap = await world.client().forward(world.coap + path, b"x", content_type)
        assert over_http == over_coap
        assert over_coap.status == status
        with pytest.raises(RemoteError) as caught:
            await world.client().post(world.coap + path, b"x", content_type=content_type)
        assert (caught.value.status, caught.value.code != "bad-response") == (status, True)

    run(test)


def test_every_status_of_ours_comes_back_as_it_went() -> None:
    from firstlight.transports.server import _BY_CODE, _BY_KIND

    for status in {*_BY_CODE.values(), *(status for _, status in _BY_KIND), 500}:
        assert codes.status_of(codes.code_of(status, "POST")) == status
    for name, number in codes.FORMATS.items():
        assert codes.type_of(number) == name
    assert (codes.FORMATS[EDHOC], codes.FORMATS["application/cid-edhoc+cbor-seq"]) == (64, 65)
    assert codes.dotted(codes.code("4.29")) == "4.29"


def test_methods_queries_types_and_addresses_arrive() -> None:
    async def test(world: World) -> None:
        raw_ = await Raw.to(world, verified=True)
        query = ((Option.URI_QUERY, b"a=1"), (Option.URI_QUERY, b"b=2"))
        answer = await raw_.ask(message(GET, "query", more=query))
        assert (answer.code, answer.value(Option.CONTENT_FORMAT)) == (codes.CONTENT, encode_uint(50))
        assert answer.payload == b'{"query": [["a", "1"], ["b", "2"]], "from": "127.0.0.1"}'
        named = ((Option.CONTENT_FORMAT, encode_uint(60)), (Option.ACCEPT, encode_uint(50)))
        answer = await raw_.ask(message(codes.NUMBERS["PUT"], "mirror", b"x", mid=2, more=named))
        assert (answer.type, answer.mid, answer.token) == (Type.ACK, 2, b"token")
        assert (answer.code, answer.payload) == (codes.CHANGED, b"xx")
        assert world.handled.calls == [("PUT", "/mirror", b"x", CBOR, JSON)]

    run(test)


def test_retry_after_is_max_age() -> None:
    async def test(world: World) -> None:
        raw_ = await Raw.to(world, verified=True)
        for mid, (code, number) in enumerate((("rate-limited", codes.TOO_MANY), ("busy", codes.UNAVAILABLE))):
            answer = await raw_.ask(message(POST, f"refuse/{code}", mid=mid, more=((Option.ACCEPT, encode_uint(60)),)))
            assert (answer.code, answer.value(Option.MAX_AGE)) == (number, b"\x07")
            assert decode(answer.payload)["code"] == code

    run(test)


# --- requests that break rules ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (((Option.PROXY_URI, b"coap://elsewhere"),), "5.05", "no-proxy"),
        (((Option.PROXY_SCHEME, b"http"),), "5.05", "no-proxy"),
        (((9, b""),), "4.02", "bad-option"),
        (((21, b""),), "4.02", "bad-option"),
        (((1, b"etag"),), "4.02", "bad-option"),
        (((Option.URI_PORT, b"\x00\x16\x33"),), "4.02", "bad-option"),
        (((Option.ACCEPT, b"\x3c"), (Option.ACCEPT, b"\x3c")), "4.02", "bad-option"),
        (((Option.URI_PATH, b".."),), "4.00", "bad-path"),
        (((Option.URI_PATH, b"a/b"),), "4.00", "bad-path"),
        (((Option.URI_PATH, b"%2e%2e"),), "4.00", "bad-path"),
        (((Option.URI_PATH, b"\xff"),), "4.00", "bad-path"),
        (((Option.URI_PATH, b"a?b"),), "4.00", "bad-path"),
        (((Option.URI_QUERY, b"a=1&b=2"),), "4.00", "bad-path"),
        (((Option.BLOCK1, b"\x07"),), "4.00", "bad-block"),
        (((Option.BLOCK2, b"\x0f"),), "4.00", "bad-block"),
        (((Option.BLOCK1, b"\x08"),), "4.00", "bad-block"),
        (((Option.BLOCK1, b"\x10"),), "4.08", "block-missing"),
        (((Option.BLOCK2, b"\x10"),), "4.08", "block-missing"),
        (((Option.SIZE1, encode_uint(MAX_BODY + 1)),), "4.13", "too-large"),
    ],
)
def test_an_option_that_cannot_be_obeyed_is_refused(
    options: tuple[tuple[int, bytes], ...], code: str, said: str
) -> None:
    async def test(world: World) -> None:
        raw_ = await Raw.to(world, verified=True)
        answer = await raw_.ask(message(POST, "mirror", mid=9, more=(*options, (Option.CONTENT_FORMAT, b"\x3c"))))
        assert codes.dotted(answer.code) == code
        fields = answer.payload
        assert said.encode() in fields
        assert world.handled.calls == []

    run(test)


def test_options_that_need_not_be_understood_are_passed_over() -> None:
    async def test(world: World) -> None:
        raw_ = await Raw.to(world, verified=True)
        more = ((Option.URI_HOST, b"gateway"), (6, b""), (258, b"\x02"), (Option.CONTENT_FORMAT, b"\x00\x00\x3c"))
        assert (await raw_.ask(message(POST, "mirror", b"x", more=more))).code == codes.CHANGED
        raw_.send(message(POST, "mirror", b"y", mid=7, kind=Type.NON, more=((9, b""),)))
        answer = await raw_.ask(message(POST, "mirror", b"z", mid=8, kind=Type.NON))
        assert (answer.type, answer.payload) == (Type.NON, b"zz")
        assert [call[2] for call in world.handled.calls] == [b"x", b"z"]

    run(test)


def test_methods_that_do_not_exist() -> None:
    async def test(world: World) -> None:
        raw_ = await Raw.to(world, verified=True)
        for mid, number in enumerate((5, 6, 7, 8, 31)):
            assert codes.dotted((await raw_.ask(message(number, "mirror", mid=mid))).code) == "4.05"

    run(test)


# --- the message layer ------------------------------------------------------------------------


def test_a_duplicate_is_answered_as_before_and_handled_once() -> None:
    async def test(world: World) -> None:
        for verified in (False, True):
            raw_ = await Raw.to(world, verified=verified)
            before, asked = len(world.handled.calls), message(POST, "mirror", b"once", mid=77)
            raw_.send(asked)
            first = await raw_.receive()
            for _ in range(3):
                raw_.send(asked)
                assert await raw_.receive() == first
            assert len(world.handled.calls) == before + 1

    run(test)


def test_a_duplicate_that_is_not_confirmable_is_silent() -> None:
    async def test(world: World) -> None:
        raw_ = await Raw.to(world, verified=True)
        asked = message(POST, "mirror", b"once", mid=77, kind=Type.NON)
        assert (await raw_.ask(asked)).payload == b"onceecno"
        raw_.send(asked)
        assert (await raw_.ask(message(POST, "mirror", b"next", mid=78))).payload == b"nexttxen"
        assert len(world.handled.calls) == 2

    run(test)


def test_pings_and_what_nobody_asked_for_are_reset() -> None:
    async def test(world: World) -> None:
        raw_ = await Raw.to(world)
        for data in (
            empty(Type.CON, 0x0102),
            Message(Type.CON, codes.CONTENT, 0x0102, b"t", (), b"x").encode(),
            Message(Type.CON, codes.code("7.01"), 0x0102).encode(),
            b"\x40\x01\x01\x02\xff",
            b"\x49\x01\x01\x02" + bytes(9),
        ):
            raw_.send(data)
            assert await raw_.receive() == empty(Type.RST, 0x0102)
        oversized = message(POST, "mirror", bytes(2_000), mid=0x0102)
        answer = await raw_.ask(oversized)
        assert (answer.code, answer.token, answer.mid) == (codes.TOO_LARGE, b"token", 0x0102)
        for silent in (
            b"",
            b"\x40",
            b"\x80\x01\x00\x01",
            b"\x50\x01\x01\x02\xff",
            b"\x60\x00\x00\x01",
            b"\x70\x00\x00\x01",
        ):
            raw_.send(silent)
        assert (await raw_.ask(message(POST, "mirror", b"x"))).code == codes.CHANGED

    run(test)


def test_what_takes_long_is_acknowledged_and_answered_apart() -> None:
    async def test(world: World) -> None:
        for verified in (True, False):
            world.handled.hold.clear()
            raw_ = await Raw.to(world, verified=verified)
            asked = message(POST, "held", b"x" * 40, mid=5)
            raw_.send(asked)
            assert await raw_.receive() == empty(Type.ACK, 5)
            raw_.send(asked)
            assert await raw_.receive() == empty(Type.ACK, 5)
            world.handled.hold.set()
            answer = parse(await raw_.receive())
            assert (answer.type, answer.code) == (Type.CON if verified else Type.NON, codes.CHANGED)
            assert (answer.token, decode(answer.payload)) == (b"token", ["at last"])
            if verified:
                raw_.send(empty(Type.ACK, answer.mid))
                raw_.send(empty(Type.CON, 6))
                assert await raw_.receive() == empty(Type.RST, 6)
                assert not world.server._unacknowledged

    run(test)


def test_an_answer_apart_is_repeated_until_it_is_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firstlight.transports.coap.server.ACK_SECONDS", 0.01)

    async def test(world: World) -> None:
        raw_ = await Raw.to(world, verified=True)
        raw_.send(message(POST, "held", mid=5))
        assert await raw_.receive() == empty(Type.ACK, 5)
        world.handled.hold.set()
        first = await raw_.receive()
        assert [await raw_.receive() for _ in range(4)] == [first] * 4
        assert not world.server._unacknowledged

    run(test)


def test_lost_and_doubled_datagrams_change_nothing() -> None:
    body = os.urandom(9_000)

    async def test(world: World) -> None:
        lossy = world.client(lose=lambda number: (0, 1, 2, 1, 1, 2, 1)[number % 7], ack_seconds=0.3)
        assert await lossy.post(f"{world.coap}/mirror", body) == body + bytes(reversed(body))
        assert [call[2] for call in world.handled.calls] == [body]

    run(test)


def test_a_server_that_is_not_there_or_silent() -> None:
    async def test(world: World) -> None:
        with pytest.raises(TransportError) as caught:
            await world.client().post("coap://127.0.0.1:9/x", b"")
        assert caught.value.code == "unreachable"
        with pytest.raises(TransportError) as caught:
            await world.client(lose=lambda _: 0, ack_seconds=0.01).post(f"{world.coap}/mirror", b"")
        assert caught.value.code == "timeout"
        with pytest.raises(TransportError) as caught:
            await world.client(seconds=0.2).post(f"{world.coap}/held", b"")
        assert caught.value.code == "timeout"

    run(test)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/x", "coap://", "coap://h:x/y", "coap://h/y?q", "coap://h/" + "a" * 256]
)
def test_what_is_no_url_for_it(url: str) -> None:
    with pytest.raises(TransportError) as caught:
        Target.of(url)
    assert caught.value.code == "bad-url"


# --- block by block ---------------------------------------------------------------------------


def test_an_answer_that_is_too_large_for_the_client() -> None:
    async def test(world: World) -> None:
        with pytest.raises(TransportError) as caught:
            await world.client(limit=10_000).post(f"{world.coap}/big/64", b"")
        assert caught.value.code == "response-too-large"
        assert len(await world.client(limit=16_384).post(f"{world.coap}/big/64", b"")) == 16_384

    run(test)


def test_smaller_blocks_if_the_client_wants_them() -> None:
    async def test(world: World) -> None:
        raw_, got, number = await Raw.to(world, verified=True), b"", 0
        while True:
            wanted = ((Option.BLOCK2, Block(number, False, 2).encode()),)
            answer = await raw_.ask(message(GET, "big/1", mid=number, more=wanted))
            block = answer.block(Option.BLOCK2)
            assert block is not None
            assert (block.number, block.exponent, answer.code) == (number, 2, codes.CONTENT)
            got += answer.payload
            number += 1
            if not block.more:
                break
        assert (got, number) == (bytes(range(256)), 4)
        beyond = await raw_.ask(message(GET, "big/1", mid=99, more=((Option.BLOCK2, Block(4, False, 2).encode()),)))
        assert codes.dotted(beyond.code) == "4.00"

    run(test)


def block1(number: int, more: bool, exponent: int = 2) -> tuple[tuple[int, bytes], ...]:
    return ((Option.BLOCK1, Block(number, more, exponent).encode()),)


def test_gaps_and_blocks_out_of_order_are_refused_and_forgotten() -> None:
    async def test(world: World) -> None:
        for verified in (True, False):
            raw_ = await Raw.to(world, verified=verified)

            async def put(mid: int, number: int, more: bool, raw_: Raw = raw_) -> str:
                payload = bytes([number]) * (64 if more else 10)
                return codes.dotted(
                    (await raw_.ask(message(POST, "mirror", payload, mid=mid, more=block1(number, more)))).code
                )

            assert [await put(1, 0, True), await put(2, 1, True), await put(3, 3, True)] == ["2.31", "2.31", "4.08"]
            assert await put(4, 2, False) == "4.08"
            assert [await put(5, 0, True), await put(6, 0, True), await put(7, 2, False)] == ["2.31", "2.31", "4.08"]
            before = len(world.handled.calls)
            assert [await put(8, 0, True), await put(9, 1, False)] == ["2.31", "2.04"]
            assert world.handled.calls[before][2] == bytes(64) + b"\x01" * 10
            assert await put(10, 1, False) == "4.08"
            assert len(world.handled.calls) == before + 1
            assert all(len(one) == 0 for one in world.server._bodies)

    run(test)


def test_two_bodies_at_once_do_not_mix() -> None:
    async def test(world: World) -> None:
        raw_ = await Raw.to(world, verified=True)
        for number in range(3):
            for tag in (b"a", b"b"):
                more = (*block1(number, number < 2), (Option.REQUEST_TAG, tag))
                await raw_.ask(message(POST, "mirror", tag * 64, mid=number * 2 + tag[0], more=more))
        assert sorted(call[2] for call in world.handled.calls) == [b"a" * 192, b"b" * 192]

    run(test)


def test_a_body_without_end_is_cut_off() -> None:
    async def test(world: World) -> None:
        raw_ = await Raw.to(world, verified=True)
        for number in range(MAX_BODY // 1_024):
            answer = await raw_.ask(message(POST, "mirror", bytes(1_024), mid=number, more=block1(number, True, 6)))
            assert codes.dotted(answer.code) == "2.31"
        number += 1
        answer = await raw_.ask(message(POST, "mirror", bytes(1_024), mid=number, more=block1(number, True, 6)))
        assert codes.dotted(answer.code) == "4.13"
        assert all(one.size == 0 for one in world.server._bodies)

    run(test)


SMALL = Bounds(
    bodies=(Bound(4, 8_192, 60), Bound(8, 16_384, 60, 0.5)),
    answers=(Bound(4, 8_192, 60), Bound(8, 16_384, 60, 0.5)),
    sent=(Bound(16, 8_192, 60), Bound(32, 16_384, 60, 0.5)),
    unverified=Rate(1_000_000, 1_000_000),
)


@pytest.mark.parametrize("verified", [True, False])
def test_bodies_that_never_end_fill_nothing(verified: bool) -> None:
    async def test(world: World) -> None:
        raw_ = await Raw.to(world, verified=verified)
        for number in range(200):
            more = (*block1(0, True, 6), (Option.REQUEST_TAG, number.to_bytes(2)))
            assert (
                codes.dotted((await raw_.ask(message(POST, "mirror", bytes(1_024), mid=number, more=more))).code)
                == "2.31"
            )
            assert world.server.kept < 3 * (8_192 + 16_384)
        assert (await world.client().post(f"{world.coap}/mirror", b"a" * 3_000)) == b"a" * 6_000

    run(test, SMALL)


def test_answers_that_are_never_fetched_fill_nothing() -> None:
    async def test(world: World) -> None:
        raw_ = await Raw.to(world, verified=True)
        for number in range(100):
            tag = ((Option.REQUEST_TAG, number.to_bytes(2)),)
            assert (await raw_.ask(message(GET, "big/8", mid=number, more=tag))).code == codes.CONTENT
            assert world.server.kept < 3 * (8_192 + 16_384)
        first = ((Option.REQUEST_TAG, b"\x00\x00"), (Option.BLOCK2, Block(1, False, 6).encode()))
        assert codes.dotted((await raw_.ask(message(GET, "big/8", mid=999, more=first))).code) == "4.08"

    run(test, SMALL)


# --- strangers --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["healthz", "big/16", "mirror", "nowhere", "refuse/frozen", "refuse/busy"])
@pytest.mark.parametrize("size", [0, 40, 600])
def test_an_unverified_address_gets_at_most_three_times_what_it_sent(path: str, size: int) -> None:
    async def test(world: World) -> None:
        for token in (b"", b"12345678"):
            raw_ = await Raw.to(world)
            for mid in range(20):
                more = ((Option.BLOCK2, Block(mid, False, 6).encode()),) if mid else ()
                payload = bytes(size) if not mid else b""
                asked = message(GET if path == "healthz" else POST, path, payload, mid=mid, token=token, more=more)
                raw_.send(asked)
                assert len(await raw_.receive()) <= AMPLIFICATION * len(asked)

    run(test)


def test_an_unverified_client_that_knows_no_echo_gets_all_in_small_blocks() -> None:
    async def test(world: World) -> None:
        raw_, got, number, sizes = await Raw.to(world), b"", 0, set()
        exponent = 6
        while True:
            wanted = ((Option.BLOCK2, Block(number, False, exponent).encode()),) if got else ()
            asked = message(GET, "big/4", mid=len(got), more=wanted)
            answer = await raw_.ask(asked)
            block = answer.block(Option.BLOCK2)
            assert block is not None
            assert block.start == len(got)
            got += answer.payload
            number, exponent = len(got) >> block.exponent + 4, block.exponent
            sizes.add(block.size)
            if not block.more:
                break
        assert got == bytes(range(256)) * 4
        assert max(sizes) < 128

    run(test)


def test_where_strangers_ask_too_much_an_echo_comes_first() -> None:
    async def test(world: World) -> None:
        raw_ = await Raw.to(world)
        answers = [await raw_.ask(message(POST, "mirror", b"x" * 50, mid=mid)) for mid in range(10)]
        assert [codes.dotted(one.code) for one in answers] == ["2.04"] * 3 + ["4.01"] * 7
        assert len(world.handled.calls) == 3
        assert await world.client().post(f"{world.coap}/mirror", b"yes") == b"yessey"
        echo = ((Option.ECHO, answers[-1].value(Option.ECHO)),)
        for mid in range(100, 120):
            assert (await raw_.ask(message(POST, "mirror", b"x", mid=mid, more=echo))).code == codes.CHANGED

    run(test, Bounds(unverified=Rate(0, 3)))


def test_a_source_that_is_over_its_rate_is_told_when_to_come_back() -> None:
    async def test(world: World) -> None:
        raw_ = await Raw.to(world, verified=True)
        answers = [await raw_.ask(message(POST, "mirror", b"x" * 50, mid=mid)) for mid in range(10)]
        assert [codes.dotted(one.code) for one in answers] == ["2.04"] * 4 + ["4.29"] * 6
        assert answers[-1].value(Option.MAX_AGE)
        with pytest.raises(RemoteError) as caught:
            await world.client().post(f"{world.coap}/mirror", b"x")
        assert (caught.value.code, caught.value.status) == ("rate-limited", 429)

    run(test, Bounds(source=Rate(0.01, 5)))


def test_too_many_at_once_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firstlight.transports.coap.server.MAX_RUNNING", 1)

    async def test(world: World) -> None:
        first = asyncio.create_task(world.client().post(f"{world.coap}/held", b""))
        await world.handled.waiting.wait()
        with pytest.raises(RemoteError) as caught:
            await world.client().post(f"{world.coap}/mirror", b"x")
        assert (caught.value.code, caught.value.status) == ("busy", 503)
        world.handled.hold.set()
        assert decode(await first) == ["at last"]

    run(test)


# --- a client among liars ---------------------------------------------------------------------


class Liar:
    """A way to a server that is whatever a test says."""

    def __init__(self, answer: Callable[[Message], list[bytes]]) -> None:
        self.answer = answer
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.heard: list[Message] = []

    def send(self, data: bytes) -> None:
        self.heard.append(parse(data))
        if self.heard[-1].is_request:
            for one in self.answer(self.heard[-1]):
                self.queue.put_nowait(one)

    async def receive(self) -> bytes:
        return await self.queue.get()

    def close(self) -> None:
        pass


def lied_to(answer: Callable[[Message], list[bytes]], *, seconds: float = SECONDS) -> tuple[Response | str, Liar]:
    async def main() -> tuple[Response | str, Liar]:
        liar = Liar(answer)

        async def way(_: str, __: int) -> Way:
            return liar

        client = CoapClient(way, seconds=seconds, limit=4_000)
        try:
            return await client.forward("coap://h/x", b"body", CBOR), liar
        except TransportError as error:
            return error.code, liar
        finally:
            await client.aclose()

    return asyncio.run(main())


def says(
    asked: Message,
    code: int = codes.CHANGED,
    payload: bytes = b"",
    *options: tuple[int, bytes],
    kind: Type = Type.ACK,
    token: bytes | None = None,
    mid: int | None = None,
) -> bytes:
    where = asked.mid if mid is None else mid
    return Message(kind, code, where, asked.token if token is None else token, options, payload).encode()


def test_an_answer_with_another_token_or_message_id_is_none() -> None:
    def answer(asked: Message) -> list[bytes]:
        return [
            b"",
            os.urandom(60),
            says(asked, payload=b"spoofed", token=b"12345678"),
            says(asked, payload=b"spoofed", token=b""),
            says(asked, payload=b"spoofed", mid=asked.mid ^ 1),
            says(asked, payload=b"spoofed", kind=Type.RST),
            says(asked, payload=b"spoofed", kind=Type.CON, mid=4, token=b"12345678"),
            says(asked, payload=b"real"),
            says(asked, payload=b"too late"),
        ]

    got, liar = lied_to(answer)
    assert isinstance(got, Response)
    assert got.body == b"real"
    assert liar.heard[-1] == Message(Type.RST, 0, 4)


def test_an_answer_apart_is_acknowledged() -> None:
    got, liar = lied_to(lambda asked: [empty(Type.ACK, asked.mid), says(asked, payload=b"x", kind=Type.CON, mid=9)])
    assert isinstance(got, Response)
    assert (got.body, liar.heard[-1]) == (b"x", Message(Type.ACK, 0, 9))


def test_a_reset_is_an_end() -> None:
    assert lied_to(lambda asked: [empty(Type.RST, asked.mid)])[0] == "unreachable"


@pytest.mark.parametrize(
    "blocks",
    [
        [(1, True, 0)],
        [(0, True, 0), (2, True, 0)],
        [(0, True, 0), (0, True, 0)],
        [(0, True, 0), (1, True, 1)],
        [(0, True, 7)],
        [(0, True, 0), None],
    ],
)
def test_blocks_that_were_not_asked_for(blocks: list[tuple[int, bool, int] | None]) -> None:
    left = list(blocks)

    def answer(asked: Message) -> list[bytes]:
        block = left.pop(0)
        if block is None:
            return [says(asked, payload=b"x" * 16)]
        number, more, exponent = block
        value = encode_uint(number << 4 | more << 3 | exponent)
        return [says(asked, codes.CHANGED, b"x" * (16 << min(exponent, 6)), (Option.BLOCK2, value))]

    assert lied_to(answer)[0] == "bad-response"


def test_an_answer_without_end_is_cut_off() -> None:
    def answer(asked: Message) -> list[bytes]:
        wanted = asked.block(Option.BLOCK2)
        number = 0 if wanted is None else wanted.number
        return [says(asked, codes.CHANGED, b"x" * 1_024, (Option.BLOCK2, Block(number, True, 6).encode()))]

    got, liar = lied_to(answer)
    assert (got, len(liar.heard)) == ("response-too-large", 4)


def test_an_answer_that_changes_meanwhile() -> None:
    tags = iter((b"one", b"two"))

    def answer(asked: Message) -> list[bytes]:
        wanted = asked.block(Option.BLOCK2)
        number = 0 if wanted is None else wanted.number
        options = ((Option.ETAG, next(tags)), (Option.BLOCK2, Block(number, True, 0).encode()))
        return [says(asked, codes.CHANGED, b"x" * 16, *options)]

    assert lied_to(answer)[0] == "bad-response"


def test_a_server_that_asks_for_an_echo_for_ever() -> None:
    def answer(asked: Message) -> list[bytes]:
        return [says(asked, codes.UNAUTHORIZED, b"", (Option.ECHO, os.urandom(8)))]

    got, liar = lied_to(answer)
    assert isinstance(got, Response)
    assert (got.status, len(liar.heard)) == (403, 2)


def test_a_server_that_wants_more_than_there_is() -> None:
    assert lied_to(lambda asked: [says(asked, codes.CONTINUE)])[0] == "bad-response"


# --- serving ----------------------------------------------------------------------------------


def test_both_ports_have_one_number_and_stand_in_the_endpoint_file(tmp_path: Path) -> None:
    async def main() -> None:
        app = application("test", [])
        beside = beside_application(app)
        async with listening_by(answering_http(app), tmp_path, beside=beside) as url:
            endpoint = read_endpoint(tmp_path)
            assert endpoint.urls == (url, "coap" + url.removeprefix("http"))
            async with HttpClient() as client:
                assert (await client.get_json(f"{url}/healthz"))["status"] == "ok"
            port = int(url.rpartition(":")[2])
            with pytest.raises(ConfigError) as caught:
                _bind_datagrams("127.0.0.1", port)
            assert caught.value.code == "cannot-listen"
        assert not (tmp_path / "endpoint").exists()

    asyncio.run(main())


def test_a_fixed_port_that_is_taken_for_datagrams_is_an_error() -> None:
    async def main() -> None:
        taken = _bind_datagrams("127.0.0.1", 0)
        app = application("test", [])
        port = taken.getsockname()[1]
        with taken, pytest.raises(ConfigError) as caught:
            async with listening_by(answering_http(app), port=port, beside=beside_application(app)):
                pass
        assert caught.value.code == "cannot-listen"

    asyncio.run(main())


def test_a_server_whose_workers_answer_over_http() -> None:
    """Where other processes answer connections, datagrams go to them over HTTP, and come back the same."""

    async def main() -> None:
        handled = Handled()
        app = make_app(handled)
        beside = beside_server(Limits(seconds=20))
        async with asyncio.timeout(60), listening_by(answering_http(app), beside=beside) as url:
            coap = "coap" + url.removeprefix("http")
            client, plain = CoapClient(open_path, seconds=20, limit=100_000), PlainClient(seconds=20, limit=100_000)
            for path in ("/mirror", "/refuse/frozen", "/refuse/busy", "/nowhere", "/big/9"):
                over_coap = await client.forward(coap + path, b"abc" * 999, CBOR)
                assert over_coap == await plain.forward(url + path, b"abc" * 999, CBOR)
            await client.aclose()
            await plain.aclose()

    asyncio.run(main())


def test_a_url_says_which_client_carries_it() -> None:
    async def test(world: World) -> None:
        web = Web(http=world.http(), coap=world.client())
        assert await web.post(f"{world.url}/mirror", b"a") == await web.post(f"{world.coap}/mirror", b"a") == b"aa"
        assert (await web.forward(f"{world.coap}/mirror", b"a", CBOR)).body == b"aa"
        with pytest.raises(TransportError) as caught:
            await web.post("gopher://127.0.0.1/x", b"")
        assert caught.value.code == "bad-url"

    run(test)
