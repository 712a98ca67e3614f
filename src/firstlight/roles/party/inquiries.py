"""What a party tells owners of their orders and devices, and takes their word that an alarm is over.

Whoever asks has nothing but a key on the ledger, so what he costs is bounded for each address and in all, and decided
in threads of its own: devices that onboard wait for nobody who asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from firstlight.errors import ProofError, StoreError
from firstlight.ledger.tenure import Standing, counting
from firstlight.logs import Log
from firstlight.plan.order import Order
from firstlight.ports import Clock, KeyAgreement
from firstlight.roles.party.view import Head, PartyView
from firstlight.sealing.inquiry import (
    CLEARANCE,
    QUESTION,
    SEALED_SIZE,
    Asked,
    Clearance,
    Cleared,
    Question,
    check_inquiry,
    seal_answer,
    unseal_inquiry,
)
from firstlight.stores.exchanges import ExchangeStore
from firstlight.stores.inquiries import told
from firstlight.stores.pending_orders import PendingOrders
from firstlight.transports.admission import Admission, OverloadError, Rate
from firstlight.transports.http import raw, read_body

SECOND = 1_000_000_000
THREADS = 2
WAITING = 32
"""Questions that are being answered or wait for a thread."""
PER_SOURCE, IN_ALL = Rate(20, 100), Rate(50, 200)
RETRY_SECONDS = 2
QUESTIONS, CLEARANCES = "/v1/questions", "/v1/clearances"
SEALED = "application/octet-stream"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Stores:
    """Where a party keeps what it is asked about."""

    database: Path
    pending: PendingOrders
    exchanges: ExchangeStore


class Inquiries:
    """Answers owners for one party."""

    def __init__(
        self, chain: str, party: bytes, agreement: KeyAgreement, *, view: PartyView, stores: Stores, clock: Clock
    ) -> None:
        """Answer for ``party`` (16 bytes) on ``chain``, whose key-agreement key opens what is asked."""
        self._chain = chain
        self._party = party
        self._agreement = agreement
        self._view = view
        self._stores = stores
        self._clock = clock

    def tell(self, sealed: bytes) -> bytes:
        """Answer a question; it changes nothing.

        1. It opens (:func:`firstlight.sealing.inquiry.unseal_inquiry`). 2. Its tenure is one that somebody has
        received and still counts as its own (``tenure-not-accepted``). 3. That tenure's key has signed it, for this
        chain and party, just now (:func:`firstlight.sealing.inquiry.check_inquiry`). 4. Its order is here, and of that
        tenure (``order-unknown``).

        Raises :class:`ProofError` where nothing else is said, :class:`TransportError` where the ledger is out of reach.
        """
        asked, head = self._asked(sealed, QUESTION)
        question = asked.said
        assert isinstance(question, Question)
        order, approved = self._order(question)
        held = self._held(head, order)
        answer = told(self._stores.database, order, approved=approved, start=question.start, held=held)
        return seal_answer(answer, asked)

    def clear(self, sealed: bytes) -> tuple[bytes, bool]:
        """Take an owner's word that one alarm is over; return the answer, and whether the alarm stood until now.

        Checked as a question is, up to its signature. An alarm is known by the time when it was raised: what arrives
        twice, or too late, clears no other. Raises what :meth:`tell` raises.
        """
        asked, _ = self._asked(sealed, CLEARANCE)
        said = asked.said
        assert isinstance(said, Clearance)
        stood = True
        try:
            self._stores.exchanges.clear_alarm(said.batch, said.index, said.origin, self._clock.now(), said.raised_ns)
        except StoreError as error:
            if error.code != "no-alarm":
                raise
            stood = False
        return seal_answer(Cleared(stood), asked), stood

    def _asked(self, sealed: bytes, typ: str) -> tuple[Asked, Head]:
        asked = unseal_inquiry(sealed, self._agreement, typ=typ, chain=self._chain, party=self._party)
        head = self._view.fresh()
        batch, origin = asked.said.batch, asked.said.origin
        standing = self._view.standing(head, batch, origin)
        if (standing.number, standing.origin) != (origin, origin):
            raise ProofError("tenure-not-accepted", f"tenure {origin} is nobody's own")
        now = self._clock.now() // SECOND
        check_inquiry(asked, typ=typ, key=standing.key, chain=self._chain, party=self._party, now=now)
        return asked, head

    def _order(self, question: Question) -> tuple[Order, bool]:
        """Return an order of the tenure that asks, and whether it is approved."""
        found = self._stores.exchanges.order(question.order, question.batch, 0)
        waiting = None if found is not None else self._stores.pending.get(question.order)
        order = found.order if found is not None else None if waiting is None else waiting.order
        if order is None or (order.batch, order.origin) != (question.batch, question.origin):
            raise ProofError("order-unknown", "no such order of this tenure")
        return order, found is not None

    def _held(self, head: Head, order: Order) -> Callable[[int, int], bool]:
        """Return what says whether a device counts as the asker's, and was so at a time already."""

        def held(index: int, at_ns: int) -> bool:
            owned = self._view.owned(head, order.batch, index)
            try:
                standing: Standing = counting(owned.number, owned.tenures, head.view.header_time)
            except ProofError:
                return False
            return standing.origin == order.origin and at_ns >= standing.holder.accepted_at * SECOND

        return held


class InquiryDesk:
    """The routes for owners."""

    def __init__(self, inquiries: Inquiries, *, clock: Clock, log: Log) -> None:
        """Answer with ``inquiries``."""
        self._inquiries = inquiries
        self._log = log
        self._admission = Admission(clock, source=PER_SOURCE, total=IN_ALL)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="inquiry")
        self._waiting = 0

    def routes(self) -> tuple[BaseRoute, ...]:
        """Return the routes."""
        return (
            Route(QUESTIONS, self._question, methods=["POST"]),
            Route(CLEARANCES, self._clearance, methods=["POST"]),
        )

    def close(self) -> None:
        """Finish what is being answered."""
        self._threads.shutdown()

    async def _question(self, request: Request) -> Response:
        answer = await self._answered(request, self._inquiries.tell)
        self._log.info("owner-told")
        return raw(answer, SEALED)

    async def _clearance(self, request: Request) -> Response:
        answer, stood = await self._answered(request, self._inquiries.clear)
        self._log.info("alarm-cleared" if stood else "no-alarm")
        return raw(answer, SEALED)

    async def _answered(self, request: Request, answer: Callable[[bytes], _T]) -> _T:
        """Have one request answered in a thread."""
        self._admission.admit(request.client.host if request.client is not None else "")
        if self._waiting >= WAITING:
            raise OverloadError("busy", "too many questions at once", retry_after=RETRY_SECONDS)
        self._waiting += 1
        try:
            sealed = await read_body(request, SEALED_SIZE)
            return await asyncio.get_running_loop().run_in_executor(self._threads, answer, sealed)
        finally:
            self._waiting -= 1
