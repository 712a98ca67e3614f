"""A CoAP client that posts: block-wise both ways, confirmable, with the errors and codes of the clients over HTTP.

Codes are those of :mod:`firstlight.transports.client`. To a server that it knows nothing of it shows an Echo (RFC 9175)
that is none; one that verifies addresses answers with a real one, and with that in the request it answers at full size.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from firstlight.encoding import encode
from firstlight.errors import MalformedError, TransportError
from firstlight.transports.body import CBOR, RemoteError, Response, parse_error
from firstlight.transports.coap import codes
from firstlight.transports.coap.message import (
    BIGGEST,
    EMPTY,
    Block,
    Message,
    Option,
    Type,
    empty,
    encode_uint,
    parse,
)

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
ACK_SECONDS, MAX_RETRANSMIT = 2.0, 4
"""RFC 7252 §4.8."""
NO_ECHO = b"\x00"
"""What asks for an Echo: a value that no server has given."""
DEFAULT_PORT = 5_683
MAX_BLOCKS = 16_384
_PASSING = frozenset({408, 502, 503, 504})
_SAID = {codes.TOO_LARGE: "too-large", codes.TOO_MANY: "rate-limited", codes.UNAVAILABLE: "busy"}
"""What is meant by a code that comes without a body, because there was no room for one."""
_CHANCE = random.SystemRandom()


class Path(Protocol):
    """A way for datagrams to one server and back."""

    def send(self, data: bytes) -> None:
        """Send a datagram; one that is lost is lost."""
        ...

    async def receive(self) -> bytes:
        """Return the next datagram; :class:`TransportError` (``unreachable``) where there is nobody."""
        ...

    def close(self) -> None:
        """End."""
        ...


OpenPath = Callable[[str, int], Awaitable[Path]]
"""Opens the way to a host and port; :class:`TransportError`."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes."""

    host: str
    port: int
    path: tuple[bytes, ...]

    @classmethod
    def of(cls, url: str) -> Target:
        """Parse a coap URL without a query; :class:`TransportError` (``bad-url``)."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or DEFAULT_PORT
        except ValueError as error:
            raise TransportError("bad-url", str(error)[:200]) from error
        if parts.scheme != "coap" or not host or parts.query or not parts.path.isascii():
            raise TransportError("bad-url", "not a coap URL without a query")
        path = tuple(one.encode() for one in parts.path.split("/") if one)
        if any(len(one) > 255 for one in path):
            raise TransportError("bad-url", "a segment of more than 255 bytes")
        return cls(host, port, path)


@dataclass(frozen=True, slots=True)
class _Ask:
    """A request before it is cut into blocks."""

    code: int
    options: tuple[tuple[int, bytes], ...]
    body: bytes


class CoapClient:
    """A client that posts."""

    def __init__(
        self,
        open_path: OpenPath,
        *,
        seconds: float,
        limit: int,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = _CHANCE.random,
        ack_seconds: float = ACK_SECONDS,
    ) -> None:
        """Allow ``seconds`` for a request in all and ``limit`` bytes for an answer; ``chance`` is from 0 to 1."""
        self._open = open_path
        self._seconds = seconds
        self._limit = limit
        self._sleep = sleep
        self._chance = chance
        self._ack_seconds = ack_seconds
        self._links: dict[tuple[str, int], _Link] = {}

    async def aclose(self) -> None:
        """Close all ways."""
        for link in self._links.values():
            link.close()
        self._links.clear()

    async def post(self, url: str, body: bytes, *, content_type: str = CBOR, retries: int = 0) -> bytes:
        """POST ``body`` and return the answer's body; again up to ``retries`` times if that failure may pass."""
        target = Target.of(url)
        for attempt in range(retries):
            try:
                return _checked(await self._once(target, body, content_type)).body
            except TransportError as error:
                if not _passes(error):
                    raise
                asked = error.retry_after if isinstance(error, RemoteError) else 0
            chance = 0.5 + self._chance() / 2
            await self._sleep(max(min(FIRST_PAUSE * 2.0**attempt, LONGEST_PAUSE) * chance, asked * 2 * chance))
        return _checked(await self._once(target, body, content_type)).body

    async def forward(self, url: str, body: bytes, content_type: str) -> Response:
        """POST ``body`` for somebody else and return the answer whatever its status; errors of transport as ever."""
        return await self._once(Target.of(url), body, content_type)

    async def _once(self, target: Target, body: bytes, content_type: str) -> Response:
        number = codes.format_of(content_type)
        named = ((Option.CONTENT_FORMAT, encode_uint(number)),) if number is not None else ()
        tag = (Option.REQUEST_TAG, os.urandom(4))
        ask = _Ask(codes.NUMBERS["POST"], (*_path(target.path), *named, tag), body)
        try:
            async with asyncio.timeout(self._seconds):
                link = await self._link(target)
                return await self._transfer(link, ask)
        except TimeoutError as error:
            self._drop(target)
            raise TransportError("timeout", f"no answer within {self._seconds} s") from error
        except TransportError as error:
            if not isinstance(error, RemoteError):
                self._drop(target)
            raise

    def _drop(self, target: Target) -> None:
        """Give up a way that did not work, unless others are on it."""
        link = self._links.get((target.host, target.port))
        if link is not None and link.idle:
            link.close()
            del self._links[target.host, target.port]

    async def _link(self, target: Target) -> _Link:
        where = (target.host, target.port)
        link = self._links.get(where)
        if link is None or link.broken:
            link = self._links[where] = _Link(await self._open(*where), self._chance, self._ack_seconds)
        return link

    # --- block by block ---------------------------------------------------------------------------

    async def _transfer(self, link: _Link, ask: _Ask) -> Response:
        first = await self._upload(link, ask)
        status, body = codes.status_of(first.code), await self._download(link, ask, first)
        pause = _pause(first)
        if not body and first.code in _SAID:
            return Response(status, CBOR, encode({"code": _SAID[first.code], "detail": "", "hint": ""}), pause)
        return Response(status, _type(first), body, pause)

    async def _upload(self, link: _Link, ask: _Ask) -> Message:
        """Send a body and return the answer to its last part; ``bad-response`` if the peer loses its thread."""
        exponent, at, blockwise = BIGGEST, 0, len(ask.body) > 16 << BIGGEST
        while True:
            size = 16 << exponent
            more = at + size < len(ask.body)
            block = Block(at // size, more, exponent)
            options = (*ask.options, (Option.BLOCK1, block.encode())) if blockwise else ask.options
            if blockwise and not at:
                options = (*options, (Option.SIZE1, encode_uint(len(ask.body))))
            answer = await link.exchange(ask.code, options, ask.body[at : at + size])
            if not more or answer.code != codes.CONTINUE:
                break
            at += size
            wanted = _block(answer, Option.BLOCK1)
            if wanted is not None and wanted.exponent < exponent:
                exponent = wanted.exponent
        if answer.code == codes.CONTINUE:
            raise TransportError("bad-response", "the peer wants more than there is")
        return answer

    async def _download(self, link: _Link, ask: _Ask, first: Message) -> bytes:
        """Return the whole body of an answer; ``bad-response``, ``response-too-large``."""
        data, block, tag = bytearray(first.payload), _block(first, Option.BLOCK2), first.value(Option.ETAG)
        if block is not None and (block.number or (block.more and len(data) != block.size)):
            raise TransportError("bad-response", "an answer that begins in its middle")
        while block is not None and block.more:
            if len(data) > self._limit:
                break
            wanted = Block(len(data) // block.size, False, block.exponent)
            answer = await link.exchange(ask.code, (*ask.options, (Option.BLOCK2, wanted.encode())), b"")
            following = _block(answer, Option.BLOCK2)
            if answer.code != first.code or answer.value(Option.ETAG) != tag or following is None:
                raise _changed(answer)
            fits = len(answer.payload) == following.size if following.more else len(answer.payload) > 0
            if following.start != len(data) or following.exponent > block.exponent or not fits:
                raise TransportError("bad-response", "a block that was not asked for")
            data += answer.payload
            block = following
        if len(data) > self._limit:
            raise TransportError("response-too-large", f"more than {self._limit} bytes")
        return bytes(data)


@dataclass(slots=True)
class _Pending:
    """A request on its way."""

    mid: int
    acknowledged: asyncio.Event = field(default_factory=asyncio.Event)
    answer: asyncio.Future[Message] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class _Link:
    """One way to one server: message ids, tokens, retransmission; one request at a time awaits its acknowledgement."""

    def __init__(self, path: Path, chance: Callable[[], float], ack_seconds: float) -> None:
        self._path = path
        self._chance = chance
        self._ack_seconds = ack_seconds
        self._mid = int.from_bytes(os.urandom(2))
        self._pending: dict[bytes, _Pending] = {}
        self._turn = asyncio.Semaphore()
        self._echo = NO_ECHO
        self._reading = asyncio.create_task(self._read())

    @property
    def broken(self) -> bool:
        return self._reading.done()

    @property
    def idle(self) -> bool:
        return not self._pending

    def close(self) -> None:
        self._reading.cancel()
        self._path.close()

    async def exchange(self, code: int, options: tuple[tuple[int, bytes], ...], payload: bytes) -> Message:
        """Send one request and return its answer, once more if the server first wants to see an Echo."""
        shown = self._echo
        answer = await self._exchange(code, options, payload)
        if answer.code == codes.UNAUTHORIZED and self._echo != shown:
            answer = await self._exchange(code, options, payload)
        return answer

    async def _exchange(self, code: int, options: tuple[tuple[int, bytes], ...], payload: bytes) -> Message:
        token = os.urandom(8)
        async with self._turn:
            self._mid = (self._mid + 1) & 0xFFFF
            pending = self._pending[token] = _Pending(self._mid)
            shown = (*options, (Option.ECHO, self._echo))
            data = Message(Type.CON, code, pending.mid, token, shown, payload).encode()
            try:
                await self._deliver(data, pending)
            except BaseException:
                del self._pending[token]
                raise
        try:
            answer = await pending.answer
        finally:
            del self._pending[token]
        self._echo = answer.value(Option.ECHO) or self._echo
        return answer

    async def _deliver(self, data: bytes, pending: _Pending) -> None:
        """Send until it is acknowledged; :class:`TransportError` (``unreachable``, ``timeout``)."""
        pause = self._ack_seconds * (1 + self._chance() / 2)
        for _ in range(MAX_RETRANSMIT + 1):
            if self.broken:
                raise TransportError("unreachable", "the way is closed")
            self._path.send(data)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await pending.acknowledged.wait()
                return
            pause *= 2
        raise TransportError("timeout", "the peer acknowledges nothing")

    async def _read(self) -> None:
        try:
            while True:
                self._take(await self._path.receive())
        except TransportError as error:
            for pending in self._pending.values():
                if not pending.answer.done():
                    pending.answer.set_exception(error)
                pending.acknowledged.set()

    def _take(self, data: bytes) -> None:
        """Take a datagram: what is no answer to a request on its way is reset or passed over."""
        try:
            message = parse(data)
        except MalformedError:
            return
        if message.code == EMPTY:
            self._settle(message)
            return
        pending = self._pending.get(message.token)
        fits = message.is_response and message.type is not Type.RST
        if pending is None or not fits or (message.type is Type.ACK and message.mid != pending.mid):
            if message.type is Type.CON:
                self._path.send(empty(Type.RST, message.mid))
            return
        if message.type is Type.CON:
            self._path.send(empty(Type.ACK, message.mid))
        pending.acknowledged.set()
        if not pending.answer.done():
            pending.answer.set_result(message)

    def _settle(self, message: Message) -> None:
        for pending in self._pending.values():
            if pending.mid == message.mid and message.type in (Type.ACK, Type.RST):
                pending.acknowledged.set()
                if message.type is Type.RST and not pending.answer.done():
                    pending.answer.set_exception(TransportError("unreachable", "the peer resets the request"))


def _path(segments: tuple[bytes, ...]) -> tuple[tuple[int, bytes], ...]:
    return tuple((int(Option.URI_PATH), one) for one in segments)


def _block(message: Message, number: Option) -> Block | None:
    try:
        return message.block(number)
    except MalformedError as error:
        raise TransportError("bad-response", error.detail) from error


def _changed(answer: Message) -> TransportError:
    if answer.is_response and answer.code >= codes.BAD_REQUEST:
        return parse_error(codes.status_of(answer.code), _type(answer), answer.payload)
    return TransportError("bad-response", "the answer changed while it was fetched")


def _type(answer: Message) -> str:
    number = answer.value(Option.CONTENT_FORMAT)
    return "" if number is None else codes.type_of(int.from_bytes(number))


def _pause(answer: Message) -> str:
    """Return for how many seconds the peer asks to be left alone, as Retry-After says it."""
    value = answer.value(Option.MAX_AGE) if answer.code in (codes.TOO_MANY, codes.UNAVAILABLE) else None
    return "" if value is None else str(int.from_bytes(value))


def _checked(answer: Response) -> Response:
    if 200 <= answer.status < 300:
        return answer
    raise parse_error(answer.status, answer.content_type, answer.body, retry_after=answer.retry_after)


def _passes(error: TransportError) -> bool:
    """Say whether a failure may pass by itself."""
    if isinstance(error, RemoteError):
        return error.status in _PASSING and error.retry_after <= LONGEST_PAUSE
    return error.code in {"unreachable", "timeout"}
