import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response as Answer
from starlette.responses import StreamingResponse
from starlette.routing import Route

from firstlight import errors
from firstlight.encoding import decode, encode
from firstlight.errors import FirstlightError, MalformedError, RuleError, TransportError
from firstlight.logs import Log
from firstlight.testing.clock import FakeClock
from firstlight.transports import body
from firstlight.transports.http import (
    CBOR,
    JSON,
    HttpClient,
    Limits,
    RemoteError,
    SyncClient,
    application,
    as_json,
    cbor,
    listening,
    read_body,
    read_cbor,
    read_endpoint,
    read_json,
    status_of,
)

Sent = list[str]


async def echo(request: Request) -> Answer:
    return cbor(await read_cbor(request, 100))


async def echo_json(request: Request) -> Answer:
    return as_json(await read_json(request, 100))


async def refuse(_: Request) -> Answer:
    raise RuleError("sequence-gap", "expected 3", hint="send 3")


async def bug(_: Request) -> Answer:
    raise ZeroDivisionError("secret " + "ab" * 32)


async def big(_: Request) -> Answer:
    return Answer(bytes(2000))


async def endless(request: Request) -> Answer:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    await read_body(request)
    return StreamingResponse(chunks())


ROUTES = [
    Route("/echo", echo, methods=["POST"]),
    Route("/echo.json", echo_json, methods=["POST"]),
    Route("/refuse", refuse, methods=["GET", "POST"]),
    Route("/bug", bug),
    Route("/big", big),
    Route("/endless", endless),
]


def run(test: Callable[[str], Awaitable[None]], **options: Any) -> None:
    async def inner() -> None:
        async with listening(application("mno", ROUTES, **options)) as url:
            await test(url)

    asyncio.run(inner())


async def refused(call: Awaitable[object]) -> TransportError:
    with pytest.raises(TransportError) as caught:
        await call
    return caught.value


# --- both ends over a socket ------------------------------------------------------------------


def test_values_go_there_and_back() -> None:
    async def test(url: str) -> None:
        async with HttpClient() as client:
            assert await client.post_cbor(f"{url}/echo", [1, b"x"]) == [1, b"x"]
            assert await client.post_json(f"{url}/echo.json", {"a": [1]}) == {"a": [1]}
            assert await client.get_json(f"{url}/healthz") == {"status": "ok", "role": "mno"}

    run(test)


def test_our_errors_keep_code_detail_hint_and_status_in_both_encodings() -> None:
    async def test(url: str) -> None:
        async with HttpClient() as client:
            for call in (client.get_json(f"{url}/refuse"), client.post(f"{url}/refuse", b"")):
                error = await refused(call)
                assert isinstance(error, RemoteError)
                assert (error.status, error.code, error.detail, error.hint) == (
                    409,
                    "sequence-gap",
                    "expected 3",
                    "send 3",
                )
        async with httpx.AsyncClient(trust_env=False) as plain:
            answer = await plain.get(f"{url}/refuse", headers={"accept": CBOR})
            assert decode(answer.content) == {"code": "sequence-gap", "detail": "expected 3", "hint": "send 3"}
            answer = await plain.get(f"{url}/refuse")
            assert answer.headers["content-type"] == JSON
            assert answer.json()["code"] == "sequence-gap"

    run(test)


def test_bodies_are_bounded_declared_or_not() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield bytes(50)

    async def test(url: str) -> None:
        async with httpx.AsyncClient(trust_env=False) as plain:
            for content in (bytes(101), chunks()):
                answer = await plain.post(f"{url}/echo", content=content)
                assert (answer.status_code, answer.json()["code"]) == (413, "too-large")

    run(test)


def test_bodies_are_parsed_strictly() -> None:
    async def test(url: str) -> None:
        async with HttpClient() as client:
            assert (await refused(client.post(f"{url}/echo", b"\x18\x01"))).code == "not-canonical"
            assert (await refused(client.post(f"{url}/echo", b"\xff"))).code == "not-cbor"
            for text in (b"{", b"NaN", b"\xff", b"[" * 100):
                error = await refused(client.post(f"{url}/echo.json", text, content_type=JSON))
                assert error.code == "not-json"

    run(test)


def test_routes_that_are_not_there() -> None:
    async def test(url: str) -> None:
        async with HttpClient() as client:
            error = await refused(client.get(f"{url}/none"))
            assert isinstance(error, RemoteError)
            assert (error.code, error.status) == ("not-found", 404)
            assert (await refused(client.get(f"{url}/echo"))).code == "wrong-method"

    run(test)


def test_a_bug_says_nothing_outside_and_its_kind_in_the_log() -> None:
    lines: Sent = []

    class Sink:
        def write(self, line: str, /) -> None:
            lines.append(line)

    async def test(url: str) -> None:
        async with HttpClient() as client:
            error = await refused(client.get(f"{url}/bug"))
            assert isinstance(error, RemoteError)
            assert (error.status, error.code, error.detail) == (500, "internal", "the server made a mistake")

    run(test, log=Log("mno", FakeClock(), Sink()))
    assert json.loads(lines[0])["error"] == "ZeroDivisionError"
    assert "ab" * 8 not in "".join(lines)


def test_an_answer_is_bounded_in_size_and_time() -> None:
    async def test(url: str) -> None:
        async with HttpClient(Limits(response=1999)) as client:
            assert (await refused(client.get(f"{url}/big"))).code == "response-too-large"
        async with HttpClient(Limits(response=2000)) as client:
            assert len(await client.get(f"{url}/big")) == 2000
        async with HttpClient(Limits(response=2000, seconds=0.1)) as client:
            assert (await refused(client.get(f"{url}/endless"))).code == "timeout"

    run(test)


def test_nobody_listening_is_unreachable() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"

        async def test() -> None:
            async with HttpClient() as client:
                assert (await refused(client.get(url))).code == "unreachable"

        asyncio.run(test())
        with SyncClient() as client, pytest.raises(TransportError) as caught:
            client.get(url)
        assert caught.value.code == "unreachable"


@pytest.mark.parametrize("url", ["ftp://h/", "nonsense", "http://[::1", "https://127.0.0.1/"])
def test_urls_that_lead_nowhere(url: str) -> None:
    async def test() -> None:
        async with HttpClient() as client:
            assert (await refused(client.get(url))).code == "bad-url"

    asyncio.run(test())


# --- the client alone -------------------------------------------------------------------------


def answers(*given: httpx.Response | Exception) -> tuple[httpx.MockTransport, Sent]:
    left = list(given)
    seen: Sent = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.method)
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return httpx.MockTransport(handle), seen


def with_sync(transport: httpx.MockTransport, retries: int, pauses: list[float]) -> bytes:
    with SyncClient(transport=transport, sleep=pauses.append) as client:
        return client.get("http://h/", retries=retries)


def with_async(transport: httpx.MockTransport, retries: int, pauses: list[float]) -> bytes:
    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def inner() -> bytes:
        async with HttpClient(transport=transport, sleep=sleep) as client:
            return await client.get("http://h/", retries=retries)

    return asyncio.run(inner())


BOTH = pytest.mark.parametrize("get", [with_sync, with_async])


def busy() -> httpx.Response:
    return httpx.Response(503, json={"code": "busy", "detail": "", "hint": ""})


@BOTH
def test_retries_happen_where_asked_with_growing_pauses(get: Callable[..., bytes]) -> None:
    transport, seen = answers(
        httpx.ConnectError("x"), httpx.ReadTimeout("x"), busy(), httpx.Response(200, content=b"ok")
    )
    pauses: list[float] = []
    assert get(transport, 3, pauses) == b"ok"
    assert len(seen) == 4
    assert pauses == [0.1, 0.2, 0.4]


def asking(seconds: str) -> httpx.Response:
    return httpx.Response(503, json={"code": "busy", "detail": "", "hint": ""}, headers={"retry-after": seconds})


@BOTH
def test_a_pause_that_a_peer_asks_for_is_kept(get: Callable[..., bytes]) -> None:
    transport, seen = answers(asking("1"), asking("x"), asking("2"), httpx.Response(200, content=b"ok"))
    pauses: list[float] = []
    assert get(transport, 3, pauses) == b"ok"
    assert pauses == [1, 0.2, 2]
    transport, seen = answers(asking("30"), httpx.Response(200, content=b"ok"))
    with pytest.raises(RemoteError) as caught:
        get(transport, 3, pauses)
    assert (caught.value.code, caught.value.retry_after, len(seen)) == ("busy", 30, 1)


@BOTH
def test_nothing_is_retried_unasked(get: Callable[..., bytes]) -> None:
    transport, seen = answers(httpx.ConnectError("x"), httpx.Response(200))
    with pytest.raises(TransportError) as caught:
        get(transport, 0, [])
    assert (caught.value.code, len(seen)) == ("unreachable", 1)


@BOTH
def test_a_refusal_is_not_retried(get: Callable[..., bytes]) -> None:
    transport, seen = answers(httpx.Response(409, json={"code": "sequence-gap"}), httpx.Response(200))
    with pytest.raises(RemoteError) as caught:
        get(transport, 5, [])
    assert (caught.value.code, len(seen)) == ("sequence-gap", 1)


@BOTH
@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500, content=b"<html>"),
        httpx.Response(400, json={"code": "Bad Code!"}),
        httpx.Response(400, json={"code": 3}),
        httpx.Response(400, json=["code"]),
        httpx.Response(400, json={"code": "fine", "detail": 7}),
        httpx.Response(400, content=b"\xff", headers={"content-type": CBOR}),
        httpx.Response(302, headers={"location": "http://elsewhere/"}),
        httpx.Response(200, headers={"content-encoding": "br"}),
    ],
)
def test_an_improper_error_is_a_bad_response(get: Callable[..., bytes], answer: httpx.Response) -> None:
    transport, _ = answers(httpx.Response(answer.status_code, content=answer.content, headers=answer.headers))
    with pytest.raises(TransportError) as caught:
        get(transport, 0, [])
    assert caught.value.code == "bad-response"


def test_bodies_that_are_not_what_was_asked_for() -> None:
    transport, _ = answers(
        httpx.Response(200, content=b"\x18\x01"), httpx.Response(200, content=b"{"), httpx.Response(200)
    )
    with SyncClient(transport=transport) as client:
        for call in (client.get_cbor, client.get_json):
            with pytest.raises(TransportError) as caught:
                call("http://h/")
            assert caught.value.code == "bad-response"
        with pytest.raises(TransportError) as caught:
            client.request("GET", "http://h/").of_type(CBOR)
        assert caught.value.code == "bad-response"


def test_the_synchronous_client_sends_and_reads_both_encodings() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=request.content, headers={"content-type": request.headers["content-type"]})

    with SyncClient(transport=httpx.MockTransport(handle)) as client:
        assert client.post_cbor("http://h/", {1: b""}) == {1: b""}
        assert client.post_json("http://h/", {"a": 1}) == {"a": 1}
        assert client.post("http://h/", b"raw") == b"raw"


def test_a_dripping_answer_times_out_in_the_synchronous_client_too() -> None:
    clock = iter([0.0, 5.0, 11.0])

    class Drip(httpx.SyncByteStream):
        def __iter__(self) -> Any:
            return iter([b"a", b"b", b"c"])

    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Drip()))
    with (
        SyncClient(transport=transport, monotonic=lambda: next(clock)) as client,
        pytest.raises(TransportError) as caught,
    ):
        client.get("http://h/")
    assert caught.value.code == "timeout"


def test_the_proxy_is_used() -> None:
    async def test() -> None:
        async def on_connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            greeting.append(await reader.readexactly(3))
            writer.close()

        greeting: list[bytes] = []
        server = await asyncio.start_server(on_connect, "127.0.0.1", 0)
        async with server, HttpClient(proxy=f"socks5://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
            assert (await refused(client.get("http://10.255.255.1/"))).code == "unreachable"
        assert greeting == [b"\x05\x01\x00"]

    asyncio.run(test())


# --- mapping ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.MalformedError("x"), 400),
        (errors.MalformedError("too-large"), 413),
        (errors.ExchangeError("x"), 400),
        (errors.SignatureError("x"), 403),
        (errors.RefusedError("x"), 403),
        (errors.AccessError("x"), 403),
        (errors.RuleError("x"), 409),
        (errors.ProofError("x"), 422),
        (errors.TransportError("x"), 502),
        (errors.TransportError("timeout"), 504),
        (errors.StoreError("x"), 503),
        (errors.StoreError("not-found"), 404),
        (errors.StoreError("slots-full"), 409),
        (errors.StoreError("revision-not-current"), 409),
        (errors.StoreError("order-differs"), 409),
        (errors.ConfigError("x"), 500),
        (errors.FirstlightError("x"), 500),
        (errors.RefusedError("rate-limited"), 429),
    ],
)
def test_every_kind_of_error_has_its_status(error: FirstlightError, status: int) -> None:
    assert status_of(error) == status


def test_no_kind_of_error_is_forgotten() -> None:
    for kind in FirstlightError.__subclasses__():
        if kind.__module__ == "firstlight.errors" and kind is not errors.ConfigError:
            assert status_of(kind("some-code")) != 500


def test_what_a_peer_writes_cannot_steer_a_terminal() -> None:
    data = encode({"code": "x", "detail": "a\x1b[2Jb", "hint": "c\nd" + "e" * 1000})
    error = body.parse_error(400, CBOR, data)
    assert error.detail == "a [2Jb"
    assert error.hint.startswith("c de")
    assert len(error.hint) == 400


# --- a server process -------------------------------------------------------------------------

SERVER = """
import asyncio, pathlib, sys
from firstlight.transports.http import application, run, serve

async def ready(url):
    print(url, flush=True)

run(lambda: serve(application("sp", []), pathlib.Path(sys.argv[1]), on_ready=ready))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_process_says_where_it_is_and_ends_when_told(tmp_path: Path, number: signal.Signals) -> None:
    state = tmp_path / "state"
    with subprocess.Popen([sys.executable, "-c", SERVER, str(state)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        endpoint = read_endpoint(state)
        assert (endpoint.url, endpoint.pid) == (url, process.pid)
        with SyncClient() as client:
            assert client.get_json(f"{url}/healthz")["role"] == "sp"
            process.send_signal(number)
            assert process.wait(60) == 0
    assert not (state / "endpoint").exists()


def test_a_taken_port_is_a_clear_error() -> None:
    async def test(url: str) -> None:
        with pytest.raises(errors.ConfigError) as caught:
            async with listening(application("x", []), port=int(url.rsplit(":", 1)[1])):
                pass
        assert caught.value.code == "cannot-listen"

    run(test)


def test_the_endpoint_file_comes_and_goes(tmp_path: Path) -> None:
    async def inner() -> None:
        async with listening(application("x", []), tmp_path) as url:
            assert read_endpoint(tmp_path).url == url
            assert read_endpoint(tmp_path).pid == os.getpid()
        assert not (tmp_path / "endpoint").exists()

    asyncio.run(inner())


@pytest.mark.parametrize("text", ["", "[]", '{"url": 1, "pid": 1}', '{"url": "http://h", "pid": true}'])
def test_an_endpoint_file_is_parsed_strictly(tmp_path: Path, text: str) -> None:
    (tmp_path / "endpoint").write_text(text)
    with pytest.raises(MalformedError):
        read_endpoint(tmp_path)
