"""A client of a home location register over GSUP (:mod:`firstlight.access.serving.gsup`): one connection, kept up.

The protocol numbers no requests: an answer belongs to the oldest request for its IMSI, so there is only one for an
IMSI at a time, and a connection on which an answer failed to come is given up rather than trusted to stay in step.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from firstlight.access.serving.gsup import AskVectors, Link, Message, Other, Refusal, Vectors
from firstlight.errors import AccessError, FirstlightError

NAME = "firstlight"
ANSWER_SECONDS = 1.5
"""How long a request may take, and the wait for a connection before it."""
HANDSHAKE_SECONDS = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
_PIECE = 4_096
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[[], Awaitable[Streams]]
"""Opens a connection to the register; raises :class:`OSError`."""
Before = Callable[[], Awaitable[None]]
"""Done before anybody asks; raises :class:`FirstlightError` if that cannot be yet."""
Report = Callable[[str], None]


@dataclass(slots=True)
class _Turn:
    """Who asks for an IMSI, and who waits to."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class GsupClient:
    """Asks for vectors; connects by itself, again and again."""

    def __init__(
        self,
        dial: Dial,
        *,
        name: str = NAME,
        before: Before | None = None,
        report: Report | None = None,
        seconds: float = ANSWER_SECONDS,
    ) -> None:
        """Ask the register that ``dial`` reaches, under ``name``.

        ``before`` is done whenever it is there again, before anybody asks; ``report`` is told when it comes and goes.
        """
        self._dial = dial
        self._name = name
        self._before = before
        self._report = report or (lambda _code: None)
        self._seconds = seconds
        self._up = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._greeted = False
        self._waiting: dict[str, asyncio.Future[Vectors | Refusal]] = {}
        self._turns: dict[str, _Turn] = {}
        self._task: asyncio.Task[None] | None = None
        self.outcomes: Counter[str] = Counter()
        """How often the connection came up, and what ended it."""

    async def start(self) -> None:
        """Begin to connect; what cannot be reached yet is no error."""
        self._task = asyncio.create_task(self._keep_up())

    async def ready(self) -> None:
        """Wait until the register can be asked; :class:`AccessError` (``hlr-unreachable``) if that takes too long."""
        try:
            async with asyncio.timeout(self._seconds):
                await self._up.wait()
        except TimeoutError as error:
            raise AccessError("hlr-unreachable", "the home location register is not there") from error

    async def close(self) -> None:
        """Hang up."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def ask(self, question: AskVectors) -> Vectors | Refusal:
        """Return the register's answer.

        Raises :class:`AccessError`: ``hlr-unreachable`` if there is no connection or it is lost, ``hlr-timeout``
        after which there is none.
        """
        async with self._turn(question.imsi):
            try:
                async with asyncio.timeout(self._seconds):
                    return await self._exchange(question)
            except TimeoutError as error:
                raise AccessError("hlr-timeout", "the home location register does not answer") from error

    async def _exchange(self, question: AskVectors) -> Vectors | Refusal:
        writer = self._writer
        if writer is None:
            raise AccessError("hlr-unreachable", "the home location register is not there")
        answer: asyncio.Future[Vectors | Refusal] = asyncio.get_running_loop().create_future()
        self._waiting[question.imsi] = answer
        try:
            writer.write(question.encode())
            return await answer
        except asyncio.CancelledError:
            self._hang_up(writer)
            raise
        finally:
            self._waiting.pop(question.imsi, None)

    @contextlib.asynccontextmanager
    async def _turn(self, imsi: str) -> AsyncIterator[None]:
        """Be the only one who asks for ``imsi``."""
        turn = self._turns.setdefault(imsi, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.users -= 1
            if turn.users == 0:
                del self._turns[imsi]

    async def _keep_up(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                await self._converse()
            except (OSError, FirstlightError) as error:
                self._tell(error.code if isinstance(error, FirstlightError) else "hlr-unreachable")
            pause = FIRST_PAUSE if self._lost() else min(2 * pause, LONGEST_PAUSE)
            await asyncio.sleep(pause)

    async def _converse(self) -> None:
        async with asyncio.timeout(HANDSHAKE_SECONDS) as handshake:
            reader, writer = await self._dial()
            try:
                link = Link(self._name)
                while data := await reader.read(_PIECE):
                    heard = link.feed(data)
                    writer.write(heard.reply)
                    if link.up and not self._up.is_set():
                        handshake.reschedule(None)
                        await self._welcome(writer)
                    for message in heard.messages:
                        self._take(message)
            finally:
                writer.close()

    async def _welcome(self, writer: asyncio.StreamWriter) -> None:
        if self._before is not None:
            await self._before()
        self._writer, self._greeted = writer, True
        self._tell("hlr-connected")
        self._up.set()

    def _take(self, message: Message) -> None:
        if isinstance(message, Other):
            return
        answer = self._waiting.get(message.imsi)
        if answer is not None and not answer.done():
            answer.set_result(message)

    def _lost(self) -> bool:
        """Have everyone who waits know that the connection is gone; say whether there was one."""
        was, self._greeted = self._greeted, False
        self._up.clear()
        self._writer = None
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(AccessError("hlr-unreachable", "the home location register has hung up"))
        if was:
            self._tell("hlr-lost")
        return was

    def _hang_up(self, writer: asyncio.StreamWriter) -> None:
        """Give up a connection: an answer that comes too late would be taken for that of another request."""
        if self._writer is writer:
            self._up.clear()
            self._writer = None
        writer.close()

    def _tell(self, code: str) -> None:
        if code != "hlr-unreachable" or self.outcomes[code] == 0:
            self._report(code)
        self.outcomes[code] += 1
