"""An authentication centre whose keys and vectors are an Osmocom home location register's.

The operator's own store says who may be served, as ever; the register is told of it and makes the vectors. What the
store says wins: whenever the register is there again, all of it is compared, and before every vector what has changed
since is written. So a subscription that was suspended a moment ago gets none, whatever the register still thinks.

One vector is asked for at a time and none is kept: sequence numbers stay in order, and nothing outlives a suspension.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol, TypeVar

from firstlight.access.serving.authentication_centre import StoredAuthenticationCentre, SubscriptionStore
from firstlight.access.serving.gsup import AskVectors, Cause, Refusal, Vectors
from firstlight.access.serving.gsup_client import GsupClient, Report, Streams
from firstlight.errors import AccessError, FirstlightError
from firstlight.ports import Clock, Random
from firstlight.sim.aka import Vector
from firstlight.sim.subscription import Subscriber, Subscription

LOOK_SECONDS = 0.1
"""How often it is looked whether subscriptions have changed while nobody asks."""
PAUSES = (0.002, 0.01, 0.05)
"""Seconds before a register that has failed is asked again: somebody else may have been writing to its database."""
T = TypeVar("T")


class Told(Protocol):
    """Entries of an outbox, with the subscribers they are about."""

    @property
    def subscribers(self) -> tuple[Subscriber, ...]:
        """As they are now."""
        ...


T_Told = TypeVar("T_Told", bound=Told)


class Outbox(Protocol[T_Told]):
    """Who has changed (:class:`firstlight.stores.subscriber_changes.SubscriberChanges`)."""

    def settled(self) -> bool:
        """Say whether there are no entries."""
        ...

    def pending(self) -> T_Told | None:
        """Return the oldest entries, or None."""
        ...

    def done(self, changes: T_Told, /) -> None:
        """Forget them."""
        ...

    def named(self, imsis: Iterable[str]) -> Iterator[Subscriber]:
        """Return the subscribers of some IMSIs."""
        ...

    def everybody(self) -> Iterator[tuple[Subscriber, ...]]:
        """Return all subscribers, some at a time."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class Register(Protocol):
    """The register's database (:class:`firstlight.stores.osmo_hlr.HlrDatabase`)."""

    def write(self, subscribers: Iterable[Subscriber]) -> int:
        """Have subscribers stand there as told, durably; return how many did not."""
        ...

    def imsis(self) -> set[str]:
        """Return everybody's IMSI."""
        ...

    def delete(self, imsis: Iterable[str]) -> None:
        """Delete subscribers."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class Hlr(Protocol):
    """A register's server (:mod:`firstlight.access.serving.osmo_hlr`)."""

    async def start(self) -> None:
        """Run it, if it is ours to run; raises :class:`FirstlightError`."""
        ...

    async def close(self) -> None:
        """End it, if it is ours."""
        ...

    async def dial(self) -> Streams:
        """Open a connection; raises :class:`OSError`."""
        ...


class Standing(SubscriptionStore, Protocol):
    """The operator's own store."""

    def usable(self, imsi: str) -> Subscription:
        """Return a subscription that may be used now; raises :class:`AccessError`."""
        ...


class Door:
    """Lets many ask at once, or one write alone."""

    def __init__(self) -> None:
        """Nobody is inside."""
        self._open, self._empty = asyncio.Event(), asyncio.Event()
        self._open.set()
        self._empty.set()
        self._inside = 0
        self._writer = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Be one of those who ask."""
        while not self._open.is_set():
            await self._open.wait()
        self._inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if self._inside == 0:
                self._empty.set()

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Be alone; who comes meanwhile waits."""
        async with self._writer:
            self._open.clear()
            try:
                await self._empty.wait()
                yield
            finally:
                self._open.set()


class OsmoAuthenticationCentre(StoredAuthenticationCentre):
    """An AuthenticationCentre (:mod:`firstlight.access.ports`) on a register that others wrote."""

    def __init__(
        self,
        store: Standing,
        outbox: Outbox[T_Told],
        hlr: Hlr,
        register: Callable[[], Register],
        *,
        random: Random,
        clock: Clock,
        on_first_use: Callable[[bytes], None] | None = None,
        report: Report | None = None,
        exclusive: bool = True,
    ) -> None:
        """Serve those in ``store`` from ``hlr``, whose database ``register`` opens.

        With ``exclusive`` the register is ours alone, and whoever the store does not know is deleted from it.
        """
        super().__init__(store, random=random, clock=clock, on_first_use=on_first_use)
        self._standing = store
        self._outbox: Outbox[T_Told] = outbox
        self._hlr = hlr
        self._open = register
        self._register: Register | None = None
        self._report = report or (lambda _code: None)
        self._exclusive = exclusive
        self._client = GsupClient(hlr.dial, before=self._compare, report=self._report)
        self._door = Door()
        self._settling = asyncio.Lock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="hlr")
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Run the register if it is ours, and talk to it; raises what :class:`Hlr` raises."""
        await self._hlr.start()
        await self._client.start()
        self._watcher = asyncio.create_task(self._watch())

    async def ready(self) -> None:
        """Wait until the register can be asked; :class:`AccessError` (``hlr-unreachable``)."""
        await self._client.ready()

    async def close(self) -> None:
        """End all of it."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await self._client.close()
        await self._hlr.close()
        self._worker.shutdown()
        if self._register is not None:
            self._register.close()
        self._outbox.close()
        await super().close()

    async def vector(self, imsi: str) -> Vector:
        """Return a vector of the register's, whose SQN it has written down.

        Errors as the port, and :class:`AccessError`: ``hlr-unreachable``, ``hlr-timeout``, ``hlr-failed``.
        """
        answer = await self._ask(AskVectors(imsi))
        if isinstance(answer, Refusal):
            raise AccessError("unknown-subscriber", "the register has no keys for this subscription")
        return answer.vectors[0]

    async def resynchronise(self, imsi: str, rand: bytes, auts: bytes) -> None:
        """Have the register go on from where the USIM stands; errors as :meth:`vector`, and ``bad-auts``.

        The vector that comes with its answer is not used.
        """
        if isinstance(await self._ask(AskVectors(imsi, resync=(rand, auts))), Refusal):
            raise AccessError("bad-auts", "the register does not take this AUTS")

    # --- asking -----------------------------------------------------------------------------------

    async def _ask(self, question: AskVectors) -> Vectors | Refusal:
        """Ask for somebody who may be served; a Refusal says that he has no keys there, or that AUTS does not fit."""
        await self._client.ready()
        if not await self._aside(partial(self._look, question.imsi)):
            await self._settle()
            await self._aside(partial(self._standing.usable, question.imsi))
        answer = await self._try(question)
        if isinstance(answer, Refusal) and await self._repaired(question.imsi):
            answer = await self._try(question)
        return answer

    async def _try(self, question: AskVectors) -> Vectors | Refusal:
        for pause in (*PAUSES, None):
            async with self._door.asking():
                answer = await self._client.ask(question)
            if isinstance(answer, Vectors) or answer.cause == Cause.UNKNOWN:
                return answer
            if pause is not None:
                await asyncio.sleep(pause)
        raise AccessError("hlr-failed", "the home location register has failed")

    def _look(self, imsi: str) -> bool:
        """Say whether the register knows all that is new; raises as the port for whoever may not be served."""
        self._standing.usable(imsi)
        return self._outbox.settled()

    # --- telling ----------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Tell the register what changes while nobody asks."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if self._register is not None and not await self._aside(self._outbox.settled):
                    await self._settle()
            except FirstlightError as error:
                self._report(error.code)

    async def _settle(self) -> None:
        """Write all that has changed; one after the other, so that nobody writes what has become old."""
        async with self._settling:
            while (changes := await self._aside(self._outbox.pending)) is not None:
                await self._tell(changes.subscribers)
                await self._aside(partial(self._outbox.done, changes))

    async def _repaired(self, imsi: str) -> bool:
        """Write somebody whom the register does not know; say whether he was not there as he should be."""
        async with self._settling:
            wanted = await self._aside(lambda: tuple(self._outbox.named((imsi,))))
            repaired = await self._tell(wanted) > 0
        if repaired:
            self._report("hlr-repaired")
        return repaired

    async def _tell(self, subscribers: tuple[Subscriber, ...]) -> int:
        register = self._register
        if register is None:
            raise AccessError("hlr-unreachable", "the register's database is not open")
        async with self._door.writing():
            return await self._aside(partial(register.write, subscribers))

    async def _compare(self) -> None:
        """Open the register's database and have all of it stand there as in the store; nobody asks meanwhile."""
        async with self._settling:
            await self._aside(self._compare_all)

    def _compare_all(self) -> None:
        if self._register is not None:
            self._register.close()
            self._register = None
        register = self._open()
        known: set[str] = set()
        for page in self._outbox.everybody():
            register.write(page)
            known.update(one.imsi for one in page)
        if self._exclusive:
            strangers = register.imsis() - known
            if strangers:
                register.delete(strangers)
        self._register = register

    async def _aside(self, work: Callable[[], T]) -> T:
        """Do ``work`` in the thread that has the register's database to itself."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)
