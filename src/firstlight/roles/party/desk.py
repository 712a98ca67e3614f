"""What a party's server answers over HTTP: exchanges, and orders.

Exchanges are decided in threads, because a decision asks the ledger and writes to the disk. Whatever the body of an
answer says, be it an EDHOC error, its status is 200: the exchange is not HTTP's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from firstlight.errors import MalformedError, TransportError
from firstlight.logs import Log
from firstlight.onboarding import wire
from firstlight.onboarding.party import ANSWERED, GRANTED, Party, Reply
from firstlight.plan.order import MAX_ORDER
from firstlight.ports import Clock
from firstlight.roles.party.orders import OrderDesk
from firstlight.roles.party.tokens import Keys
from firstlight.transports.body import EDHOC, media_type
from firstlight.transports.http import CBOR_SEQUENCE, cbor, raw, read_body

THREADS = 12
MAX_WAITING = 1_024
"""Requests that are being decided or wait for a thread."""
FIRST_PER_SECOND = 500
BURST = 2_000
SECOND = 1_000_000_000
_REQUEST_TYPES = frozenset({wire.MEDIA_TYPE_REQUEST, EDHOC, CBOR_SEQUENCE})
_T = TypeVar("_T")


class Desk:
    """The routes of a party's server."""

    def __init__(self, party: Party, orders: OrderDesk, *, tokens: Keys, clock: Clock, log: Log) -> None:
        """Answer for ``party``, and take ``orders``."""
        self._party = party
        self._orders = orders
        self._tokens = tokens
        self._clock = clock
        self._log = log
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="exchange")
        self._waiting = 0
        self._firsts = _Bucket(clock)

    def routes(self) -> tuple[BaseRoute, ...]:
        """Return the routes."""
        return (
            Route(wire.PATH, self._exchange, methods=["POST"]),
            Route("/v1/orders", self._order, methods=["POST"]),
        )

    def close(self) -> None:
        """Finish what is being decided."""
        self._threads.shutdown()

    async def _exchange(self, request: Request) -> Response:
        if media_type(request.headers.get("content-type", "")) not in _REQUEST_TYPES:
            raise MalformedError("wrong-media-type", f"EDHOC comes as {wire.MEDIA_TYPE_REQUEST}")
        data = await read_body(request, wire.MAX_REQUEST)
        if data[:1] == b"\xf5" and not self._firsts.take():
            raise TransportError("rate-limited", "too many exchanges are begun")
        began = self._clock.now()
        reply = await self._in_thread(lambda: self._decide(data))
        self._note(reply, began)
        return raw(reply.data, wire.MEDIA_TYPE)

    def _decide(self, data: bytes) -> Reply:
        return self._party.handle(data, ring=self._tokens.ring(), now_ns=self._clock.now())

    def _note(self, reply: Reply, began: int) -> None:
        write = self._log.info if reply.code in (ANSWERED, GRANTED) else self._log.warning
        milliseconds = round((self._clock.now() - began) / 1_000_000, 1)
        write(reply.code, exchange=reply.th_3 or None, ms=milliseconds, step="repeated" if reply.repeated else None)

    async def _order(self, request: Request) -> Response:
        document = await read_body(request, MAX_ORDER)
        placed = await self._in_thread(lambda: self._orders.place(document))
        self._log.info(f"order-{placed.state}", batch=placed.order.batch, count=placed.order.devices)
        return cbor({"order": placed.order.number, "state": placed.state})

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        if self._waiting >= MAX_WAITING:
            raise TransportError("busy", "too many requests at once")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1


class _Bucket:
    """A token bucket for beginnings, which cost the party something before anybody is authenticated."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._level = float(BURST)
        self._at = clock.now()

    def take(self) -> bool:
        now = self._clock.now()
        self._level = min(BURST, self._level + max(0, now - self._at) * FIRST_PER_SECOND / SECOND)
        self._at = now
        if self._level < 1:
            return False
        self._level -= 1
        return True
