"""A small client for plain HTTP/1.1, for those who run by the thousand: a tenth of what a full one costs a request.

It posts, keeps connections, tries again after pauses that are half chance, and knows neither TLS nor redirects nor the
environment: what Firstlight's devices exchange is proven or sealed by itself. How connections are opened is the
caller's to say, so they may go through a forwarder.
Errors and their codes are those of :mod:`firstlight.transports.client`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import httptools

from firstlight.errors import TransportError
from firstlight.transports.body import CBOR, RemoteError, Response, parse_error

Dial = Callable[[str, int], Awaitable[socket.socket]]
"""Opens a connection to host and port and returns it connected and non-blocking; :class:`TransportError`."""
MAX_HEADERS = 16_384
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
_PASSING = frozenset({502, 503, 504})
_PIECE = 65_536
_CHANCE = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class _Origin:
    host: str
    port: int


class _Answer:
    """Takes an answer in pieces; told by the parser."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._body = bytearray()
        self._parser = httptools.HttpResponseParser(self)
        self._heard = 0
        self.content_type = ""
        self.retry_after = ""
        self.complete = False
        self.keeps = False
        """Whether the connection may be used again."""

    def feed(self, data: bytes) -> None:
        self._heard += len(data)
        if self._heard > self._limit + MAX_HEADERS:
            raise TransportError("response-too-large", f"more than {self._limit} bytes")
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise TransportError("bad-response", str(error)[:200]) from error

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-type":
            self.content_type = value.decode("latin-1")
        elif name == b"retry-after":
            self.retry_after = value.decode("latin-1")
        elif name == b"content-encoding" and value.lower() != b"identity":
            self.content_type = "encoded"

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        self.complete = True
        self.keeps = bool(self._parser.should_keep_alive())

    def response(self) -> Response:
        """Return the answer, whatever its status; ``bad-response``, ``response-too-large``."""
        if self.content_type == "encoded":
            raise TransportError("bad-response", "an encoding that was not asked for")
        if len(self._body) > self._limit:
            raise TransportError("response-too-large", f"more than {self._limit} bytes")
        return Response(self._parser.get_status_code(), self.content_type, bytes(self._body), self.retry_after)

    def body(self) -> bytes:
        """Return the body of a success, or raise what the answer says."""
        answer = self.response()
        if not 200 <= answer.status < 300:
            raise parse_error(answer.status, answer.content_type, answer.body, retry_after=answer.retry_after)
        return answer.body


@dataclass(slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def exchange(self, request: bytes, limit: int) -> _Answer:
        """Send a request and return the whole answer; :class:`EOFError` if the peer hangs up before."""
        self.writer.write(request)
        answer = _Answer(limit)
        while not answer.complete:
            data = await self.reader.read(_PIECE)
            if not data:
                raise EOFError
            answer.feed(data)
        return answer


async def dial(host: str, port: int) -> socket.socket:
    """Open a connection straight to ``host``; :class:`TransportError` (``unreachable``)."""
    loop = asyncio.get_running_loop()
    connection: socket.socket | None = None
    try:
        family, kind, protocol, _, address = (await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))[0]
        connection = socket.socket(family, kind, protocol)
        connection.setblocking(False)
        await loop.sock_connect(connection, address)
    except OSError as error:
        if connection is not None:
            connection.close()
        raise TransportError("unreachable", str(error)[:200]) from error
    except BaseException:
        if connection is not None:
            connection.close()
        raise
    return connection


class PlainClient:
    """A client that posts."""

    def __init__(
        self,
        *,
        seconds: float,
        limit: int,
        dial: Dial = dial,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = _CHANCE.random,
    ) -> None:
        """Allow ``seconds`` for a request in all and ``limit`` bytes for an answer; ``chance`` is from 0 to 1."""
        self._seconds = seconds
        self._limit = limit
        self._dial = dial
        self._sleep = sleep
        self._chance = chance
        self._idle: dict[_Origin, list[_Connection]] = {}

    async def aclose(self) -> None:
        """Close all idle connections."""
        for connections in self._idle.values():
            for connection in connections:
                connection.writer.close()
        self._idle.clear()

    async def post(self, url: str, body: bytes, *, content_type: str = CBOR, retries: int = 0) -> bytes:
        """POST ``body`` and return the answer's body; again up to ``retries`` times if that failure may pass.

        The pauses between are half chance: those who were refused together do not come back together.
        """
        origin, request = _request(url, body, content_type)
        for attempt in range(retries):
            try:
                return (await self._once(origin, request)).body()
            except TransportError as error:
                if not _passes(error):
                    raise
                asked = error.retry_after if isinstance(error, RemoteError) else 0
            chance = 0.5 + self._chance() / 2
            await self._sleep(max(min(FIRST_PAUSE * 2.0**attempt, LONGEST_PAUSE) * chance, asked * 2 * chance))
        return (await self._once(origin, request)).body()

    async def forward(self, url: str, body: bytes, content_type: str) -> Response:
        """POST ``body`` for somebody else and return the answer whatever its status; errors of transport as ever."""
        origin, request = _request(url, body, content_type)
        return (await self._once(origin, request)).response()

    async def _once(self, origin: _Origin, request: bytes) -> _Answer:
        try:
            async with asyncio.timeout(self._seconds):
                return await self._reuse(origin, request) or await self._anew(origin, request)
        except TimeoutError as error:
            raise TransportError("timeout", f"no answer within {self._seconds} s") from error

    async def _reuse(self, origin: _Origin, request: bytes) -> _Answer | None:
        """Ask over an idle connection; None if there is none, or the peer has closed it meanwhile."""
        while idle := self._idle.get(origin):
            with contextlib.suppress(OSError, EOFError):
                return await self._ask(origin, idle.pop(), request)
        return None

    async def _anew(self, origin: _Origin, request: bytes) -> _Answer:
        connection = await self._dial(origin.host, origin.port)
        try:
            reader, writer = await asyncio.open_connection(sock=connection)
            return await self._ask(origin, _Connection(reader, writer), request)
        except (OSError, EOFError) as error:
            raise TransportError("unreachable", str(error)[:200] or "the peer closed the connection") from error

    async def _ask(self, origin: _Origin, connection: _Connection, request: bytes) -> _Answer:
        keep = False
        try:
            answer = await connection.exchange(request, self._limit)
            keep = answer.keeps
        finally:
            if keep:
                self._idle.setdefault(origin, []).append(connection)
            else:
                connection.writer.close()
        return answer


def _request(url: str, body: bytes, content_type: str) -> tuple[_Origin, bytes]:
    """Return where a POST goes and its bytes (RFC 9112); :class:`TransportError` (``bad-url``)."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError as error:
        raise TransportError("bad-url", str(error)[:200]) from error
    path = parts.path or "/"
    if parts.scheme != "http" or not host or parts.query or not path.isascii() or not path.isprintable() or " " in path:
        raise TransportError("bad-url", "not a plain http URL without a query")
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {parts.netloc.rpartition('@')[2]}\r\ncontent-type: {content_type}\r\n"
        f"accept: */*\r\naccept-encoding: identity\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return _Origin(host, port), head.encode("ascii", "replace") + body


def _passes(error: TransportError) -> bool:
    """Say whether a failure may pass by itself."""
    if isinstance(error, RemoteError):
        return error.status in _PASSING and error.retry_after <= LONGEST_PAUSE
    return error.code in {"unreachable", "timeout"}
