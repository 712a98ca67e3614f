"""What a party's server answers over HTTP: exchanges, and orders.

Exchanges are decided in threads, because a decision asks the ledger and writes to the disk. Whatever the body of an
answer says, be it an EDHOC error, its status is 200: the exchange is not HTTP's business.

Message 1 costs something before anybody is authenticated: so many a second for each address and for all together
(429 beyond), and so many at once (503 beyond), both with Retry-After. Message 3 is not in these bounds: whoever has a
token was let in, and what opens none costs next to nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from firstlight.errors import MalformedError
from firstlight.logs import Log
from firstlight.onboarding import wire
from firstlight.onboarding.party import ANSWERED, GRANTED, Party, Reply
from firstlight.plan.order import MAX_ORDER
from firstlight.ports import Clock
from firstlight.roles.party.orders import OrderDesk
from firstlight.roles.party.tokens import Keys
from firstlight.transports.admission import Admission, OverloadError
from firstlight.transports.body import EDHOC, media_type
from firstlight.transports.http import CBOR_SEQUENCE, cbor, raw, read_body

THREADS = 12
MAX_WAITING = 1_024
"""Requests that are being decided or wait for a thread."""
MAX_BEGINNING = 256
"""How many of them may be a message 1: the rest is kept for those who have come further."""
NOTE_NS = 10_000_000_000
"""How often the log says that requests were refused for being too many."""
RETRY_SECONDS = 2
_REQUEST_TYPES = frozenset({wire.MEDIA_TYPE_REQUEST, EDHOC, CBOR_SEQUENCE})
_T = TypeVar("_T")


class Desk:
    """The routes of a party's server."""

    def __init__(
        self, party: Party, orders: OrderDesk, *, tokens: Keys, admission: Admission, clock: Clock, log: Log
    ) -> None:
        """Answer for ``party`` those whom ``admission`` lets begin, and take ``orders``."""
        self._party = party
        self._orders = orders
        self._tokens = tokens
        self._clock = clock
        self._log = log
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="exchange")
        self._waiting = 0
        self._beginning = 0
        self._admission = admission
        self._refused, self._noted = 0, 0

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
        began = self._clock.now()
        try:
            reply = await (self._begin(request, data) if data[:1] == b"\xf5" else self._in_thread(self._decide, data))
        except OverloadError as error:
            self._count_refusal(error, began)
            raise
        self._note(reply, began)
        return raw(reply.data, wire.MEDIA_TYPE)

    async def _begin(self, request: Request, data: bytes) -> Reply:
        """Answer message 1, for which nobody has been authenticated."""
        self._admission.admit(request.client.host if request.client is not None else "")
        if self._beginning >= MAX_BEGINNING:
            raise OverloadError("busy", "too many exchanges are being begun", retry_after=RETRY_SECONDS)
        self._beginning += 1
        try:
            return await self._in_thread(self._decide, data)
        finally:
            self._beginning -= 1

    def _count_refusal(self, error: OverloadError, now: int) -> None:
        """Note in the log, from time to time, how many requests were refused for being too many."""
        self._refused += 1
        if not 0 <= now - self._noted < NOTE_NS:
            self._log.warning(error.code, count=self._refused)
            self._refused, self._noted = 0, now

    def _decide(self, data: bytes) -> Reply:
        return self._party.handle(data, ring=self._tokens.ring(), now_ns=self._clock.now())

    def _note(self, reply: Reply, began: int) -> None:
        write = self._log.info if reply.code in (ANSWERED, GRANTED) else self._log.warning
        milliseconds = round((self._clock.now() - began) / 1_000_000, 1)
        write(reply.code, exchange=reply.th_3 or None, ms=milliseconds, step="repeated" if reply.repeated else None)

    async def _order(self, request: Request) -> Response:
        document = await read_body(request, MAX_ORDER)
        placed = await self._in_thread(self._orders.place, document)
        self._log.info(f"order-{placed.state}", batch=placed.order.batch, count=placed.order.devices)
        return cbor({"order": placed.order.number, "state": placed.state})

    async def _in_thread(self, work: Callable[[bytes], _T], data: bytes) -> _T:
        if self._waiting >= MAX_WAITING:
            raise OverloadError("busy", "too many requests at once", retry_after=RETRY_SECONDS)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, data)
        finally:
            self._waiting -= 1
