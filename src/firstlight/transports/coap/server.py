"""A CoAP endpoint that answers: message layer, block-wise transfer both ways, and what protects them.

A datagram goes through, in this order: parsing (a message that breaks the format is reset, or ignored), duplicates
(answered as before), the Echo option, admission, options, assembly of the body, the responder, the answer in blocks.

What a stranger can make the server do is bounded. No answer is larger than three times what came from an address that
is not verified; the bodies that are being assembled, the answers that are being fetched and those that are kept for
duplicates live in :class:`Bounded` stores, those of strangers apart from those of the verified. Where strangers ask
for more work than is set aside for them, they are asked for an Echo first (4.01), which costs next to nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, cast

from firstlight.errors import FirstlightError, MalformedError
from firstlight.logs import Log
from firstlight.transports.admission import Admission, Bucket, OverloadError, Rate, source_of
from firstlight.transports.coap import codes
from firstlight.transports.coap.answering import Call, Reply, Responder, refusal
from firstlight.transports.coap.asked import Asked, AskedError, type_in, understand
from firstlight.transports.coap.bounded import Bound, Bounded
from firstlight.transports.coap.freshness import Address, Freshness
from firstlight.transports.coap.message import (
    BIGGEST,
    EMPTY,
    MAX_TOKEN,
    Block,
    Message,
    Option,
    Type,
    empty,
    encode_uint,
    parse,
)

MAX_BODY = 65_536
"""Bytes of a request; whoever has more to say says it over HTTP."""
PIGGYBACK = 1.0
"""Seconds after which a request is acknowledged before its answer is there."""
AMPLIFICATION = 3
"""How many times as much as came from an unverified address goes back to it at most (RFC 9175 §2.4)."""
ACK_SECONDS, MAX_RETRANSMIT = 2.0, 4
"""RFC 7252 §4.8."""
MAX_RUNNING = 512
MAX_UNACKNOWLEDGED = 1_024
RETRY_SECONDS = 2
NOTE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What may be kept: bodies under way, answers being fetched, answers for duplicates; for strangers, for others."""

    bodies: tuple[Bound, Bound] = (Bound(64, 1_048_576, 20), Bound(2_048, 16_777_216, 60, 0.5))
    answers: tuple[Bound, Bound] = (Bound(512, 2_097_152, 20), Bound(4_096, 16_777_216, 60, 0.5))
    sent: tuple[Bound, Bound] = (Bound(4_096, 1_048_576, 60), Bound(16_384, 8_388_608, 247, 0.5))
    unverified: Rate = field(default_factory=lambda: Rate(50, 200))
    source: Rate = field(default_factory=lambda: Rate(2_000, 8_000))
    total: Rate = field(default_factory=lambda: Rate(4_000, 16_000))


@dataclass(frozen=True, slots=True)
class _Received:
    """A request that came in: who sent it, whether that is verified, and how much it was."""

    message: Message
    source: Address
    verified: bool
    size: int


@dataclass(frozen=True, slots=True)
class _Body:
    """An answer that is fetched block by block."""

    code: int
    content_format: int | None
    data: bytes

    @property
    def etag(self) -> bytes:
        return hashlib.sha256(self.data).digest()[:4]


_V = TypeVar("_V")
_Options = tuple[tuple[int, bytes], ...]
_EMPTY = empty(Type.ACK, 0)
_Key = tuple[Address, tuple[object, ...]]
"""Who sends or fetches, and what all messages of that transfer have in common."""
_Seen = tuple[Address, int]
_Stores = tuple[Bounded[_Key, _V], Bounded[_Key, _V]]
"""One for those whose address is not verified, one for the others."""


class _Steady:
    def now(self) -> int:
        return time.monotonic_ns()


class CoapServer(asyncio.DatagramProtocol):
    """Answers the datagrams of one socket with what ``responder`` says."""

    def __init__(
        self,
        responder: Responder,
        *,
        bounds: Bounds | None = None,
        log: Log | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep no more than ``bounds``; ``now`` counts seconds."""
        own = bounds or Bounds()
        self._responder = responder
        self._log = log
        self._now = now
        self._bodies: _Stores[bytes] = (Bounded(own.bodies[0]), Bounded(own.bodies[1]))
        self._answers: _Stores[_Body] = (Bounded(own.answers[0]), Bounded(own.answers[1]))
        self._sent: tuple[Bounded[_Seen, bytes], Bounded[_Seen, bytes]] = (Bounded(own.sent[0]), Bounded(own.sent[1]))
        self._freshness = Freshness(os.urandom(32))
        self._admission = Admission(_Steady(), source=own.source, total=own.total)
        self._strangers = Bucket(own.unverified, time.monotonic_ns())
        self._transport: asyncio.DatagramTransport | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._unacknowledged: dict[tuple[Address, int], asyncio.TimerHandle] = {}
        self._mid = int.from_bytes(os.urandom(2))
        self._noted = now()
        self.refused = 0
        """Datagrams that were no messages, and requests that were too many, since the log was told last."""

    @property
    def kept(self) -> int:
        """Bytes that are kept for others now."""
        bodies, answers, sent = self._bodies, self._answers, self._sent
        return sum(one.size for one in (*bodies, *answers, *sent))

    # --- datagrams --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Take a datagram."""
        source = (addr[0], addr[1])
        try:
            message = parse(data)
        except MalformedError as error:
            self._count()
            self._malformed(error, data, source)
            return
        if message.is_request and message.type in (Type.CON, Type.NON):
            self._request(message, source, len(data))
        elif message.type in (Type.ACK, Type.RST):
            self._settle(source, message.mid)
        elif message.type is Type.CON:
            self._send(empty(Type.RST, message.mid), source)

    def _malformed(self, error: MalformedError, data: bytes, source: Address) -> None:
        """Reset what is confirmable and breaks the format (RFC 7252 §4.2); say so if it was only too large."""
        if len(data) < 4 or data[0] >> 4 != 4 or data[1] == EMPTY:
            return
        mid, length = int.from_bytes(data[2:4]), data[0] & 15
        if error.code == "too-large" and data[1] < 32 and length <= MAX_TOKEN:
            answer = Message(Type.ACK, codes.TOO_LARGE, mid, data[4 : 4 + length])
            self._send(answer.encode(), source)
        else:
            self._send(empty(Type.RST, mid), source)

    def error_received(self, exc: Exception) -> None:
        """Pass over what the network says of an answer that reached nobody."""

    def _send(self, data: bytes, source: Address) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data, source)

    def _count(self) -> None:
        self.refused += 1
        now = self._now()
        if self._log is not None and now - self._noted > NOTE_SECONDS:
            self._log.warning("coap-refused", count=self.refused)
            self.refused, self._noted = 0, now

    # --- requests ---------------------------------------------------------------------------------

    def _request(self, message: Message, source: Address, size: int) -> None:
        now = self._now()
        echo = message.value(Option.ECHO)
        verified = self._freshness.verify(source, echo, now)
        received = _Received(message, source, verified, size)
        known = next((found for one in self._sent if (found := one.get((source, message.mid), now)) is not None), None)
        if known is not None:
            if known and message.type is Type.CON:
                self._send(known, source)
            return
        self._remember(received, b"")
        try:
            self._admit(received)
        except OverloadError as error:
            self._count()
            reply = _refusal(error, received.message, 429)
            self._answer(received, self._body(Reply(429, reply.content_type, reply.body), "POST"), error.retry_after)
            return
        if not verified and (echo is not None or self._strangers.wait(time.monotonic_ns())):
            self._challenge(received)
            return
        self._take(received)

    def _admit(self, received: _Received) -> None:
        if received.verified:
            self._admission.admit(received.source[0])

    def _take(self, received: _Received) -> None:
        """Find out what a request asks and whether it is whole, and have it answered."""
        asked: Asked | None = None
        try:
            asked = understand(received.message)
            later = asked.block2
            if later is not None and later.number and not received.message.payload:
                self._another(received, asked, later)
                return
            body = self._assemble(received, asked)
        except AskedError as error:
            if received.message.type is Type.NON and error.answer == codes.BAD_OPTION:
                return
            reply = _refusal(error, received.message, codes.status_of(error.answer))
            self._answer(received, _Body(error.answer, codes.format_of(reply.content_type), reply.body))
            return
        if body is None:
            return
        if len(self._running) >= MAX_RUNNING:
            busy = FirstlightError("busy", "too many requests at once")
            self._answer(received, self._body(_refusal(busy, received.message, 503), asked.method), RETRY_SECONDS)
            return
        if not received.verified:
            self._strangers.take()
        task = asyncio.ensure_future(self._work(received, asked, body))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    # --- bodies -----------------------------------------------------------------------------------

    def _assemble(self, received: _Received, asked: Asked) -> bytes | None:
        """Return the whole body; None if more must come, which has been acknowledged.

        Raises :class:`AskedError`: ``bad-block``, ``block-missing`` (4.08), ``too-large`` (4.13).
        """
        payload, block = received.message.payload, asked.block1
        if asked.size1 > MAX_BODY:
            raise AskedError("too-large", f"{asked.size1} bytes, at most {MAX_BODY}", codes.TOO_LARGE)
        if block is None:
            return payload
        if len(payload) > block.size or (block.more and len(payload) != block.size):
            raise AskedError("bad-block", "a payload that is not of the block's size", codes.BAD_REQUEST)
        key, now = (received.source, asked.key), self._now()
        known = self._so_far(key, now) if block.number else b""
        if block.start != len(known):
            raise AskedError("block-missing", "a block without the ones before it", codes.INCOMPLETE)
        if block.start + len(payload) > MAX_BODY:
            raise AskedError("too-large", f"more than {MAX_BODY} bytes", codes.TOO_LARGE)
        whole = known + payload
        if not block.more:
            return whole
        self._bodies[received.verified].put(key, whole, size=len(whole) + 256, now=now, source=_owner(received))
        self._fits(received, codes.CONTINUE, ((Option.BLOCK1, block.encode()),), b"")
        return None

    def _so_far(self, key: _Key, now: float) -> bytes:
        """Take what has come of a body, whether its sender was verified before or not; empty if nothing has."""
        found = next((one for bodies in self._bodies if (one := bodies.get(key, now)) is not None), b"")
        for bodies in self._bodies:
            bodies.pop(key)
        return found

    # --- answers ----------------------------------------------------------------------------------

    async def _work(self, received: _Received, asked: Asked, body: bytes) -> None:
        """Have a whole request answered; one that takes long is acknowledged meanwhile."""
        call = Call(asked, body, received.source)
        answering = asyncio.ensure_future(self._responder(call))
        try:
            await asyncio.wait({answering}, timeout=PIGGYBACK)
            separate = not answering.done() and received.message.type is Type.CON
            if separate:
                acknowledgement = empty(Type.ACK, received.message.mid)
                self._remember(received, acknowledgement)
                self._send(acknowledgement, received.source)
            reply = await answering
        finally:
            answering.cancel()
        self._answer(received, self._body(reply, asked.method), reply.retry_after, asked=asked, separate=separate)

    def _body(self, reply: Reply, method: str) -> _Body:
        return _Body(codes.code_of(reply.status, method), codes.format_of(reply.content_type), reply.body)

    def _another(self, received: _Received, asked: Asked, block: Block) -> None:
        """Answer with a later block of an answer that is kept; :class:`AskedError` (``block-missing``)."""
        key, now = (received.source, asked.key), self._now()
        found = self._answers[True].get(key, now) or self._answers[False].get(key, now)
        if found is None:
            raise AskedError("block-missing", "the answer is not kept any longer", codes.INCOMPLETE)
        if block.start >= len(found.data):
            raise AskedError("bad-block", "beyond the end", codes.BAD_REQUEST)
        self._slice(received, found, (), start=block.start, biggest=block.exponent)

    def _answer(
        self,
        received: _Received,
        body: _Body,
        retry_after: int | None = None,
        *,
        asked: Asked | None = None,
        separate: bool = False,
    ) -> None:
        """Send an answer, or its first block if it is too large for one message or for an unverified address."""
        options: _Options = ()
        if retry_after is not None:
            options = ((Option.MAX_AGE, encode_uint(retry_after)),)
        if asked is not None and asked.block1 is not None:
            options = (*options, (Option.BLOCK1, asked.block1.encode()))
        biggest = BIGGEST if asked is None or asked.block2 is None else asked.block2.exponent
        whole = len(body.data) <= 16 << biggest
        if whole and self._fits(received, body.code, (*options, *_format(body)), body.data, separate=separate):
            return
        if asked is None:
            if not self._fits(received, body.code, options, b""):
                self._challenge(received)
            return
        key, size = (received.source, asked.key), len(body.data) + 256
        self._answers[received.verified].put(key, body, size=size, now=self._now(), source=_owner(received))
        self._slice(received, body, options, start=0, biggest=biggest, separate=separate)

    def _slice(
        self,
        received: _Received,
        body: _Body,
        options: _Options,
        *,
        start: int,
        biggest: int,
        separate: bool = False,
    ) -> None:
        """Send the block that begins at ``start``, of the biggest size that is wanted and allowed."""
        for exponent in range(biggest, -1, -1):
            data = body.data[start : start + (16 << exponent)]
            block = Block(start >> exponent + 4, start + len(data) < len(body.data), exponent)
            etag = ((Option.ETAG, body.etag),) if received.verified else ()
            named = (*etag, (Option.BLOCK2, block.encode()), *_format(body))
            if self._fits(received, body.code, (*options, *named), data, separate=separate):
                return
        self._challenge(received, separate=separate)

    def _challenge(self, received: _Received, *, separate: bool = False) -> None:
        """Ask for an Echo, and do nothing else."""
        self._fits(received, codes.UNAUTHORIZED, (), b"", separate=separate)

    def _fits(
        self, received: _Received, code: int, options: _Options, payload: bytes, *, separate: bool = False
    ) -> bool:
        """Send one message in answer, unless it is more than may go to an address that is not verified.

        Such an address finds an Echo in it, if there is room.
        """
        asked, now = received.message, self._now()
        kind, mid = Type.NON, self._mid
        if asked.type is Type.CON:
            kind, mid = (Type.CON if received.verified else Type.NON, self._mid) if separate else (Type.ACK, asked.mid)
        tries: list[_Options] = [options]
        if not received.verified:
            tries.insert(0, (*options, (Option.ECHO, self._freshness.challenge(received.source, now))))
        for some in tries:
            data = Message(kind, code, mid, asked.token, some, payload).encode()
            if received.verified or len(data) + len(_EMPTY) <= AMPLIFICATION * received.size:
                self._finish(received, data, separate=separate)
                return True
        return False

    def _finish(self, received: _Received, data: bytes, *, separate: bool) -> None:
        if data[0] >> 4 & 3 != Type.ACK:
            self._mid = (self._mid + 1) & 0xFFFF
        if not separate:
            self._remember(received, data)
        self._send(data, received.source)
        if separate and received.verified:
            self._repeat(received.source, data, 0)

    def _remember(self, received: _Received, data: bytes) -> None:
        """Keep what answers a duplicate; nothing for one that came as non-confirmable but that it came."""
        kept = data if received.message.type is Type.CON else b""
        self._sent[received.verified].put(
            (received.source, received.message.mid),
            kept,
            size=len(kept) + 128,
            now=self._now(),
            source=_owner(received),
        )

    # --- confirmable answers ----------------------------------------------------------------------

    def _repeat(self, source: Address, data: bytes, attempt: int) -> None:
        """Send an answer again until it is acknowledged."""
        key = (source, int.from_bytes(data[2:4]))
        self._settle(*key)
        if attempt:
            self._send(data, source)
        if attempt < MAX_RETRANSMIT and len(self._unacknowledged) < MAX_UNACKNOWLEDGED:
            pause = ACK_SECONDS * random.uniform(1, 1.5) * 2.0**attempt  # noqa: S311 - when, not what
            again = asyncio.get_running_loop().call_later(pause, self._repeat, source, data, attempt + 1)
            self._unacknowledged[key] = again

    def _settle(self, source: Address, mid: int) -> None:
        handle = self._unacknowledged.pop((source, mid), None)
        if handle is not None:
            handle.cancel()

    async def close(self) -> None:
        """Give what is being answered a moment, then end."""
        if self._running:
            await asyncio.wait(self._running, timeout=PIGGYBACK)
        for handle in self._unacknowledged.values():
            handle.cancel()
        for task in list(self._running):
            task.cancel()
        if self._transport is not None:
            self._transport.close()


def _owner(received: _Received) -> str:
    return source_of(received.source[0])


def _refusal(error: FirstlightError, message: Message, status: int) -> Reply:
    """Return what says ``error`` in the format that a request asks for, whatever else is wrong with it."""
    return refusal(error, type_in(message, Option.ACCEPT), type_in(message, Option.CONTENT_FORMAT), status)


def _format(body: _Body) -> _Options:
    number = body.content_format
    return () if number is None or not body.data else ((Option.CONTENT_FORMAT, encode_uint(number)),)
