"""The operator's own authentication centre: vectors from the subscriptions in its store.

Requests that come in while a transaction is being written share the next one, so that a thousand devices
that wake at once do not wait for a thousand disk flushes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from firstlight.access.ports import Traffic
from firstlight.errors import AccessError, FirstlightError, SignatureError
from firstlight.ports import Clock, Random
from firstlight.sim import aka
from firstlight.sim.aka import Vector
from firstlight.sim.subscription import Subscription

_SECOND = 1_000_000_000
_BATCH = 256
T = TypeVar("T")


class Confirmation(Protocol):
    """A successful use of a subscription."""

    @property
    def grant(self) -> bytes:
        """The id of the grant that it came with."""
        ...

    @property
    def first(self) -> bool:
        """Whether it is the first."""
        ...


class SubscriptionStore(Protocol):
    """What the centre needs of a store (:class:`firstlight.stores.subscriptions.Subscriptions`).

    Raises :class:`firstlight.errors.AccessError` as the port, :class:`firstlight.errors.StoreError`.
    """

    def transaction(self) -> AbstractContextManager[object]:
        """Hold a transaction that the calls inside join, each on its own kept or undone."""
        ...

    def allocate(self, imsi: str) -> Subscription:
        """Use up the next SQN and return the subscription with it."""
        ...

    def resynchronise(self, imsi: str, rand: bytes, auts: bytes) -> None:
        """Go on from where the USIM stands; :class:`firstlight.errors.SignatureError` (``bad-auts``)."""
        ...

    def confirm(self, imsi: str, session: bytes, now: int) -> Confirmation:
        """Record a successful use and its session."""
        ...

    def session_ended(self, session: bytes, sent: int, received: int, now: int) -> None:
        """Record the end of a session."""
        ...


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[], Any]
    done: asyncio.Future[Any]


class StoredAuthenticationCentre:
    """An AuthenticationCentre and SessionLog (:mod:`firstlight.access.ports`) on a :class:`SubscriptionStore`.

    ``on_first_use`` is told the id of each grant at its first successful use, after the commit.
    """

    def __init__(
        self,
        store: SubscriptionStore,
        *,
        random: Random,
        clock: Clock,
        on_first_use: Callable[[bytes], None] | None = None,
    ) -> None:
        """Serve from ``store``."""
        self._store = store
        self._random = random
        self._clock = clock
        self._on_first_use = on_first_use
        self._jobs: list[_Job] = []
        self._writer: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="authentication-centre")

    async def start(self) -> None:
        """Nothing is to be started; a centre with a register outside has more to do."""

    async def vector(self, imsi: str) -> Vector:
        """Return a vector for the next SQN, which is durable by then; errors as the port."""
        found = await self._commit(lambda: self._store.allocate(imsi))
        own = found.credentials
        return aka.make_vector(own.k, own.opc, found.sqn, self._random.bytes(16))

    async def resynchronise(self, imsi: str, rand: bytes, auts: bytes) -> None:
        """Go on from the USIM's sequence number; errors as the port."""
        try:
            await self._commit(lambda: self._store.resynchronise(imsi, rand, auts))
        except SignatureError as error:
            raise AccessError(error.code, error.detail) from error

    async def confirm(self, imsi: str, session: bytes) -> None:
        """Record a successful use; errors as the port."""
        confirmation = await self._commit(lambda: self._store.confirm(imsi, session, self._now()))
        if confirmation.first and self._on_first_use is not None:
            self._on_first_use(confirmation.grant)

    async def ended(self, session: bytes, traffic: Traffic) -> None:
        """Record the end of a session."""
        await self._commit(lambda: self._store.session_ended(session, traffic.sent, traffic.received, self._now()))

    async def close(self) -> None:
        """Finish what is being written."""
        while self._writer is not None:
            await asyncio.wait([self._writer])
        self._thread.shutdown()

    def _now(self) -> int:
        return self._clock.now() // _SECOND

    async def _commit(self, work: Callable[[], T]) -> T:
        """Run ``work`` in a transaction shared with others; return when that is durable."""
        loop = asyncio.get_running_loop()
        job = _Job(work, loop.create_future())
        self._jobs.append(job)
        if self._writer is None:
            self._writer = loop.create_task(self._write())
        result: T = await job.done
        return result

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._jobs:
                jobs, self._jobs = self._jobs[:_BATCH], self._jobs[_BATCH:]
                try:
                    results = await loop.run_in_executor(self._thread, self._run, [job.work for job in jobs])
                except FirstlightError as error:
                    results = [error] * len(jobs)
                for job, result in zip(jobs, results, strict=True):
                    _settle(job.done, result)
        finally:
            self._writer = None
            for job in self._jobs:
                job.done.cancel()

    def _run(self, works: list[Callable[[], Any]]) -> list[Any]:
        with self._store.transaction():
            return [_attempt(work) for work in works]


def _attempt(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except (AccessError, SignatureError) as error:
        return error


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if future.done():
        return
    if isinstance(result, FirstlightError):
        future.set_exception(result)
    else:
        future.set_result(result)
