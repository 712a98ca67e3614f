"""What a party's server answers over HTTP: exchanges, orders, and what owners ask.

Exchanges are decided in threads, because a decision asks the ledger and writes to the disk; those that come together
are decided in one round, with one look at the ledger and one durable commit. Whatever the body of an answer says, be it
an EDHOC error, its status is 200: the exchange is not HTTP's business.

Message 1 costs something before anybody is authenticated: so many a second for each address and for all together
(429 beyond), and so many at once (503 beyond), both with Retry-After. Message 3 is not in these bounds: whoever has a
token was let in, and what opens none costs next to nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from firstlight.errors import MalformedError
from firstlight.logs import Log
from firstlight.onboarding import wire
from firstlight.onboarding.party import ANSWERED, GRANTED, Party, Reply
from firstlight.onboarding.together import Outcome, handle_all
from firstlight.plan.order import MAX_ORDER
from firstlight.ports import Clock
from firstlight.roles.party.inquiries import InquiryDesk
from firstlight.roles.party.orders import OrderDesk
from firstlight.roles.party.rounds import HANDS, Rounds
from firstlight.roles.party.tokens import Keys
from firstlight.transports.admission import Admission, OverloadError
from firstlight.transports.body import EDHOC, media_type
from firstlight.transports.http import CBOR_SEQUENCE, cbor, raw, read_body

THREADS = 2 * HANDS + 2
"""As many as rounds can ever want, and some for orders."""
MAX_WAITING = 1_024
"""Requests that are being decided or wait for a thread."""
MAX_BEGINNING = 256
"""How many of them may be a message 1: the rest is kept for those who have come further."""
NOTE_NS = 10_000_000_000
"""How often the log says that requests were refused for being too many."""
RETRY_SECONDS = 2
FORGET_SECONDS = 10.0
"""How often secrets that have had their time are looked for."""
_REQUEST_TYPES = frozenset({wire.MEDIA_TYPE_REQUEST, EDHOC, CBOR_SEQUENCE})
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request, and when it was there (Unix nanoseconds)."""

    data: bytes
    at: int


class Desk:
    """The routes of a party's server."""

    def __init__(
        self,
        party: Party,
        orders: OrderDesk,
        inquiries: InquiryDesk,
        *,
        tokens: Keys,
        admission: Admission,
        clock: Clock,
        log: Log,
        forget: Callable[[], int],
    ) -> None:
        """Answer for ``party`` those whom ``admission`` lets begin, take ``orders``, and answer owners.

        ``forget`` forgets secrets that have had their time, and says how many are left; it is called from time to time
        after an exchange was begun, until there are none.
        """
        self._party = party
        self._orders = orders
        self._inquiries = inquiries
        self._tokens = tokens
        self._clock = clock
        self._log = log
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="exchange")
        self._first: Rounds[_Asked, Reply] = Rounds(self._begin_all, self._threads)
        self._second: Rounds[_Asked, Reply] = Rounds(self._decide_all, self._threads)
        self._waiting = 0
        self._beginning = 0
        self._admission = admission
        self._refused, self._last_note = 0, 0
        self._forget = forget
        self._forgetting: asyncio.TimerHandle | None = None

    def routes(self) -> tuple[BaseRoute, ...]:
        """Return the routes."""
        return (
            Route(wire.PATH, self._exchange, methods=["POST"]),
            Route("/v1/orders", self._order, methods=["POST"]),
            *self._inquiries.routes(),
        )

    def close(self) -> None:
        """Finish what is being decided."""
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._inquiries.close()
        self._threads.shutdown()

    async def _exchange(self, request: Request) -> Response:
        if media_type(request.headers.get("content-type", "")) not in _REQUEST_TYPES:
            raise MalformedError("wrong-media-type", f"EDHOC comes as {wire.MEDIA_TYPE_REQUEST}")
        data = await read_body(request, wire.MAX_REQUEST)
        asked = _Asked(data, self._clock.now())
        try:
            if wire.is_first(data):
                reply = await self._begin(request, asked)
            else:
                reply = await self._waited(lambda: self._second.ask(asked))
        except OverloadError as error:
            self._count_refusal(error, asked.at)
            raise
        return raw(reply.data, wire.MEDIA_TYPE)

    async def _begin(self, request: Request, asked: _Asked) -> Reply:
        """Answer message 1, for which nobody has been authenticated."""
        self._admission.admit(request.client.host if request.client is not None else "")
        if self._beginning >= MAX_BEGINNING:
            raise OverloadError("busy", "too many exchanges are being begun", retry_after=RETRY_SECONDS)
        self._beginning += 1
        try:
            return await self._waited(lambda: self._first.ask(asked))
        finally:
            self._beginning -= 1
            self._forget_later()

    def _forget_later(self) -> None:
        """Have secrets of exchanges that nobody finishes forgotten in time, also if nobody comes any more."""
        if self._forgetting is None:
            self._forgetting = asyncio.get_running_loop().call_later(FORGET_SECONDS, self._forget_now)

    def _forget_now(self) -> None:
        self._forgetting = None
        if self._forget():
            self._forget_later()

    def _count_refusal(self, error: OverloadError, now: int) -> None:
        """Note in the log, from time to time, how many requests were refused for being too many."""
        self._refused += 1
        if not 0 <= now - self._last_note < NOTE_NS:
            self._log.warning(error.code, count=self._refused)
            self._refused, self._last_note = 0, now

    def _begin_all(self, asked: Sequence[_Asked]) -> list[Outcome]:
        """Answer messages 1, each at its own time: that is what orders the exchanges of a device."""
        return self._noted(asked, [outcome for one in asked for outcome in self._handle([one])])

    def _decide_all(self, asked: Sequence[_Asked]) -> list[Outcome]:
        return self._noted(asked, self._handle(asked))

    def _handle(self, asked: Sequence[_Asked]) -> list[Outcome]:
        requests = [one.data for one in asked]
        return handle_all(self._party, requests, ring=self._tokens.ring(), now_ns=self._clock.now())

    def _noted(self, asked: Sequence[_Asked], outcomes: list[Outcome]) -> list[Outcome]:
        """Note all outcomes in the log but errors, which whoever asked gets raised."""
        with self._log.gathered() as log:
            for one, outcome in zip(asked, outcomes, strict=True):
                if isinstance(outcome, Reply):
                    self._note(log, outcome, one.at)
        return outcomes

    def _note(self, log: Log, reply: Reply, began: int) -> None:
        write = log.info if reply.code in (ANSWERED, GRANTED) else log.warning
        milliseconds = round((self._clock.now() - began) / 1_000_000, 1)
        write(reply.code, exchange=reply.th_3 or None, ms=milliseconds, step="repeated" if reply.repeated else None)

    async def _order(self, request: Request) -> Response:
        document = await read_body(request, MAX_ORDER)
        loop = asyncio.get_running_loop()
        placed = await self._waited(lambda: loop.run_in_executor(self._threads, self._orders.place, document))
        self._log.info(f"order-{placed.state}", batch=placed.order.batch, count=placed.order.devices)
        return cbor({"order": placed.order.number, "state": placed.state})

    async def _waited(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Wait for work that is begun only if not too much goes on already."""
        if self._waiting >= MAX_WAITING:
            raise OverloadError("busy", "too many requests at once", retry_after=RETRY_SECONDS)
        self._waiting += 1
        try:
            return await work()
        finally:
            self._waiting -= 1
