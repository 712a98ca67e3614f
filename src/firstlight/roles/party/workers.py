"""Several processes that answer a party's devices: one parent, who binds, pushes token keys, supervises and restarts.

The parent alone runs the access network or the broker, ends grants and keeps the house; it accepts no connection to
the shared socket. Workers share nothing but that socket, the party's database and the token keys, which travel over a
socket pair and are in memory only. So any worker finishes any exchange, and one that dies takes only the requests with
it that it was answering.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from starlette.routing import BaseRoute

from firstlight.errors import AccessError, FirstlightError, MalformedError
from firstlight.onboarding.ports import Grantor
from firstlight.onboarding.token import KeyRing
from firstlight.onboarding.wire import MAX_RESPONSE
from firstlight.roles.party.channel import Ended, Frame, Have, Listening, Ring, Setup, frame, read_frame
from firstlight.roles.party.place import Room
from firstlight.transports.client import Limits
from firstlight.transports.coap.serving import beside_application, beside_server
from firstlight.transports.http import Answering, Beside, answering, application

START_SECONDS = 60.0
STOP_SECONDS = 4.0
ACCEPT_SECONDS = 5.0
"""How long a worker may take to take a key ring before the others go on without it."""
FIRST_PAUSE, LONGEST_PAUSE, STEADY = 0.1, 5.0, 10.0
"""Seconds before a worker is started again: the first time, at most; and how long one must have lived to begin anew."""
BACKLOG = 2_048
TO_WORKERS = Limits(seconds=20.0, connect_seconds=2.0, response=MAX_RESPONSE)
"""For requests that came over CoAP."""


def answered_by(
    room: Room,
    inner: contextlib.ExitStack,
    grantor: Callable[[], Grantor],
    *,
    where: str,
    workers: int | None = None,
    coap: bool = False,
    more: Sequence[BaseRoute] = (),
) -> tuple[Answering, Beside | None]:
    """Return what answers a party's devices: this process, or as many workers as are asked for (else by the settings).

    The other is for devices over CoAP, if they are to be answered. ``more`` are routes beside those of every party.
    ``inner`` closes what this process needs for that.
    """
    settings = room.place.settings
    count = settings.workers if workers is None else workers
    over_coap = coap or settings.coap
    if count > 1:
        return Workers(room, count, where).answering, beside_server(TO_WORKERS, room.log) if over_coap else None
    desk = inner.enter_context(contextlib.closing(room.desk(grantor())))
    app = application(settings.ROLE, (*desk.routes(), *more), log=room.log)
    return answering(app), beside_application(app, room.log) if over_coap else None


@dataclass(eq=False)
class _Worker:
    """A running worker."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    has: int = -1
    """The number of the ring that it uses."""
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def say(self, message: Frame) -> None:
        """Send a message; one that is lost to a dead worker matters to nobody."""
        if not self.writer.is_closing():
            self.writer.write(frame(message))

    async def accepts(self, number: int) -> None:
        """Wait until the worker uses ring ``number`` or a later one."""
        while self.has < number:
            self.moved.clear()
            await self.moved.wait()

    async def end(self) -> None:
        """Let it finish, then make it end."""
        self.writer.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


class Workers:
    """The parent's side."""

    def __init__(self, room: Room, count: int, where: str) -> None:
        """Run ``count`` workers of the party in ``room``, whose devices connect at the URI ``where`` afterwards."""
        self._room = room
        self._count = count
        self._where = where
        self._tokens = room.tokens()
        self._ring: KeyRing = self._tokens.ring()
        self._number = 0
        self._running: dict[int, _Worker] = {}
        self._started = [asyncio.Event() for _ in range(count)]

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that run now."""
        return tuple(one.process.pid for one in self._running.values())

    @contextlib.asynccontextmanager
    async def answering(self, bound: socket.socket) -> AsyncIterator[None]:
        """Have the workers answer connections to ``bound`` while the block runs.

        Raises :class:`AccessError` (``workers-not-started``).
        """
        bound.listen(BACKLOG)
        tasks = [asyncio.create_task(self._keep(number, bound)) for number in range(self._count)]
        tasks.append(asyncio.create_task(self._turn()))
        try:
            try:
                async with asyncio.timeout(START_SECONDS):
                    for started in self._started:
                        await started.wait()
            except TimeoutError as error:
                raise AccessError("workers-not-started", f"not all of {self._count} workers listen") from error
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # --- processes --------------------------------------------------------------------------------

    async def _keep(self, number: int, bound: socket.socket) -> None:
        """Keep worker ``number`` running."""
        loop, pause, log = asyncio.get_running_loop(), FIRST_PAUSE, self._room.log
        while True:
            began = loop.time()
            try:
                await self._live(number, bound)
            except (OSError, MalformedError) as error:
                log.error("worker-failed", error=type(error).__name__, detail=str(error))
            log.error("worker-ended", count=number)
            if loop.time() - began > STEADY:
                pause = FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _live(self, number: int, bound: socket.socket) -> None:
        """Start worker ``number`` and listen to it until it ends."""
        worker = await self._start(number, bound)
        self._running[number] = worker
        worker.say(Setup(self._where))
        worker.say(Ring.of(self._number, self._ring))
        try:
            while (message := await read_frame(worker.reader)) is not None:
                await self._heard(number, worker, message)
        finally:
            del self._running[number]
            worker.has = sys.maxsize
            worker.moved.set()
            await worker.end()

    async def _start(self, number: int, bound: socket.socket) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            place = self._room.place
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "firstlight.roles.party.worker",
                place.settings.ROLE,
                str(number),
                str(place.directory),
                str(bound.fileno()),
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                pass_fds=(bound.fileno(), theirs.fileno()),
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        return _Worker(process, reader, writer)

    async def _heard(self, number: int, worker: _Worker, message: Frame) -> None:
        match message:
            case Listening():
                worker.has = max(worker.has, 0)
                self._started[number].set()
                self._room.log.info("worker-listens", count=number)
            case Have(ring):
                worker.has = ring
                worker.moved.set()
            case Ended(grants):
                try:
                    await asyncio.to_thread(self._room.exchanges.ended_elsewhere, grants)
                except FirstlightError as error:
                    self._room.log.refusal(error, step="end")

    # --- keys -------------------------------------------------------------------------------------

    async def _turn(self) -> None:
        """Give the workers new token keys in time: every one of them opens with a key before any seals with it."""
        while True:
            await asyncio.sleep(self._tokens.pace)
            following = self._tokens.following()
            if following is not None:
                for ring in following:
                    await self._push(ring)

    async def _push(self, ring: KeyRing) -> None:
        """Give all workers a ring, and wait until they use it."""
        self._number += 1
        self._ring = ring
        workers = list(self._running.values())
        for worker in workers:
            worker.say(Ring.of(self._number, ring))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ACCEPT_SECONDS):
                for worker in workers:
                    await worker.accepts(self._number)
