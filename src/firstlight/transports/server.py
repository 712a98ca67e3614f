"""HTTP servers of the roles: Starlette on uvicorn, bounded bodies, one mapping of errors to statuses.

A server binds a port that the system chooses and writes ``{"url", "pid"}`` to ``endpoint`` in its state directory,
atomically, once it accepts connections; the file goes when the server ends. One that serves over CoAP as well has the
UDP port of the same number, so that a gateway has one name, and writes ``"coap"`` too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response as Answer
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from firstlight.encoding import Record, decode, encode
from firstlight.errors import (
    AccessError,
    ConfigError,
    ExchangeError,
    FirstlightError,
    MalformedError,
    ProofError,
    RefusedError,
    RuleError,
    SignatureError,
    StoreError,
    TransportError,
)
from firstlight.files import sweep
from firstlight.logs import Log
from firstlight.transports.admission import OverloadError
from firstlight.transports.body import CBOR, DEFAULT_BODY, JSON, error_body, is_cbor, parse_json
from firstlight.transports.endpoint import Endpoint, remove_endpoint, write_endpoint

GRACE_SECONDS = 2
BACKLOG = 2048
_BY_CODE = {
    "too-large": 413,
    "not-found": 404,
    "wrong-method": 405,
    "wrong-media-type": 415,
    "order-differs": 409,
    "revision-not-current": 409,
    "slots-full": 409,
    "rate-limited": 429,
    "busy": 503,
    "timeout": 504,
}
_BY_KIND: tuple[tuple[type[FirstlightError], int], ...] = (
    (MalformedError, 400),
    (ExchangeError, 400),
    (SignatureError, 403),
    (RefusedError, 403),
    (AccessError, 403),
    (RuleError, 409),
    (ProofError, 422),
    (TransportError, 502),
    (StoreError, 503),
    (ConfigError, 500),
)
_R = TypeVar("_R", bound=Record)
Answering = Callable[[socket.socket], contextlib.AbstractAsyncContextManager[None]]
"""Answers the connections to a bound socket while the block runs."""


Beside = Callable[[socket.socket, str], contextlib.AbstractAsyncContextManager[None]]
"""Answers the datagrams to a bound UDP socket while the block runs, beside a server at a URL."""
PORTS = 32
"""How many ports are tried to find one that is free for both."""


# --- requests and answers ---------------------------------------------------------------------


async def read_body(request: Request, limit: int = DEFAULT_BODY) -> bytes:
    """Return the body of at most ``limit`` bytes; :class:`MalformedError` (``too-large``, ``cut-short``)."""
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limit:
        raise MalformedError("too-large", f"{declared} bytes, at most {limit}")
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > limit:
                raise MalformedError("too-large", f"more than {limit} bytes")
    except ClientDisconnect as error:
        raise MalformedError("cut-short", "the body ended early") from error
    return bytes(data)


async def read_cbor(request: Request, limit: int = DEFAULT_BODY) -> Any:
    """Return the body's deterministic CBOR; :class:`MalformedError` as :func:`read_body` and ``decode``."""
    return decode(await read_body(request, limit), limit=limit)


async def read_record(request: Request, kind: type[_R]) -> _R:
    """Return the body as a record of ``kind``, bounded by its ``LIMIT``; :class:`MalformedError`."""
    return kind.decode(await read_body(request, kind.LIMIT))


async def read_json(request: Request, limit: int = DEFAULT_BODY) -> Any:
    """Return the body's JSON; :class:`MalformedError` (``too-large``, ``not-json``)."""
    return parse_json(await read_body(request, limit), limit=limit)


def raw(body: bytes, media_type: str = CBOR, status: int = 200) -> Answer:
    """Answer with bytes as they are."""
    return Answer(body, status, media_type=media_type)


def cbor(value: object, status: int = 200) -> Answer:
    """Answer with a value, or a record, as deterministic CBOR."""
    return raw(value.encode() if isinstance(value, Record) else encode(value), CBOR, status)


def as_json(value: object, status: int = 200) -> Answer:
    """Answer with a value as JSON."""
    return raw(json.dumps(value).encode(), JSON, status)


def status_of(error: FirstlightError) -> int:
    """Decide the HTTP status of an error: by its code where that has one of its own, else by its kind."""
    if error.code in _BY_CODE:
        return _BY_CODE[error.code]
    return next((status for kind, status in _BY_KIND if isinstance(error, kind)), 500)


# --- applications -----------------------------------------------------------------------------


def application(role: str, routes: Sequence[BaseRoute], *, log: Log | None = None) -> Starlette:
    """Return the web application of ``role``: its routes, ``/healthz``, and errors as {"code", "detail", "hint"}.

    What is refused because there is too much of it carries Retry-After and is not logged line by line: a flood of
    requests must not become one of log lines.
    """

    def refuse(request: Request, error: FirstlightError) -> Answer:
        in_cbor = is_cbor(request.headers.get("accept", "")) or is_cbor(request.headers.get("content-type", ""))
        status = status_of(error)
        if log is not None and status != 404 and not isinstance(error, OverloadError):
            log.refusal(error, method=request.method, path=request.url.path, status=status)
        answer = raw(error_body(error, cbor=in_cbor), CBOR if in_cbor else JSON, status)
        if isinstance(error, OverloadError):
            answer.headers["retry-after"] = str(error.retry_after)
        return answer

    async def on_ours(request: Request, error: Exception) -> Answer:
        assert isinstance(error, FirstlightError)
        return refuse(request, error)

    async def on_http(request: Request, error: Exception) -> Answer:
        assert isinstance(error, HTTPException)
        codes = {404: "not-found", 405: "wrong-method", 413: "too-large"}
        return refuse(request, MalformedError(codes.get(error.status_code, "bad-request"), str(error.detail)))

    async def on_bug(request: Request, error: Exception) -> Answer:
        if log is not None:
            log.error("internal", error=type(error).__name__, method=request.method, path=request.url.path)
        return refuse(request, FirstlightError("internal", "the server made a mistake"))

    async def healthz(_: Request) -> Answer:
        return as_json({"status": "ok", "role": role})

    return Starlette(
        routes=[*routes, Route("/healthz", healthz)],
        exception_handlers={FirstlightError: on_ours, HTTPException: on_http, Exception: on_bug},
    )


# --- running ----------------------------------------------------------------------------------


class _Server(uvicorn.Server):
    """A server whose signals are ours, and that says when it accepts connections."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready
        self._stop = asyncio.Event()

    def stop(self) -> None:
        self._stop.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def main_loop(self) -> None:
        await self._stop.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise ConfigError("cannot-listen", f"{host} port {port}: {error.strerror or error}") from error
    return bound


def _bind_datagrams(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        bound.setblocking(False)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise ConfigError("cannot-listen", f"{host} UDP port {port}: {error.strerror or error}") from error
    return bound


def _bind_both(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Return two sockets, for connections and for datagrams, on ports of one number."""
    for left in reversed(range(PORTS)):
        bound = _bind(host, port)
        try:
            return bound, _bind_datagrams(host, bound.getsockname()[1])
        except ConfigError:
            bound.close()
            if port or not left:
                raise
    raise AssertionError


def _url_of(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def answering(app: ASGIApp) -> Answering:
    """Return what answers with ``app``, in this process."""

    @contextlib.asynccontextmanager
    async def run(bound: socket.socket) -> AsyncIterator[None]:
        accepting = asyncio.Event()
        server = _Server(_configuration(app), accepting.set)
        task = asyncio.create_task(server.serve([bound]))
        try:
            await _until(accepting.wait(), task)
            yield
        finally:
            server.stop()
            await task

    return run


@contextlib.asynccontextmanager
async def listening_by(
    by: Answering,
    state_dir: Path | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    beside: Beside | None = None,
) -> AsyncIterator[str]:
    """Have ``by`` serve while the block runs, which gets the URL; the endpoint file is written if there is a directory.

    ``beside`` serves over CoAP too. Raises :class:`ConfigError` (``cannot-listen``).
    """
    bound, datagrams = (_bind(host, port), None) if beside is None else _bind_both(host, port)
    url = _url_of(bound)
    coap = "coap" + url.removeprefix("http") if beside is not None else None
    try:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(by(bound))
            if beside is not None and datagrams is not None:
                await stack.enter_async_context(beside(datagrams, url))
            if state_dir is not None:
                write_endpoint(state_dir, Endpoint(url, os.getpid(), coap))
                stack.callback(remove_endpoint, state_dir)
            yield url
    finally:
        bound.close()
        if datagrams is not None:
            datagrams.close()


def listening(
    app: ASGIApp, state_dir: Path | None = None, *, host: str = "127.0.0.1", port: int = 0
) -> contextlib.AbstractAsyncContextManager[str]:
    """Serve ``app`` while the block runs; as :func:`listening_by`."""
    return listening_by(answering(app), state_dir, host=host, port=port)


def _configuration(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


async def _until(fact: Awaitable[object], task: asyncio.Task[None]) -> None:
    """Wait for a fact, or raise what ended the task before it."""
    waiting = asyncio.ensure_future(fact)
    await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
    if not waiting.done():
        waiting.cancel()
        await task


async def serve(
    app: ASGIApp,
    state_dir: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    on_ready: Callable[[str], Awaitable[None]] | None = None,
) -> None:
    """Serve ``app`` until SIGTERM or SIGINT; as :func:`serve_by`."""
    await serve_by(answering(app), state_dir, host=host, port=port, on_ready=on_ready)


async def serve_by(
    by: Answering,
    state_dir: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    on_ready: Callable[[str], Awaitable[None]] | None = None,
    beside: Beside | None = None,
) -> None:
    """Have ``by`` serve until SIGTERM or SIGINT; requests under way have two seconds to finish.

    ``on_ready`` is awaited with the URL once connections are accepted; what it raises ends the server. What was being
    written when the one before was killed is cleared away first.
    """
    sweep(state_dir)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        async with listening_by(by, state_dir, host=host, port=port, beside=beside) as url:
            if on_ready is not None:
                await on_ready(url)
            await stop.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run ``main`` on uvloop until it ends."""
    import uvloop

    async def start() -> None:
        await main()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(start())
