"""Rounds: what comes in while one round of work goes on makes the next one, so that many share what one costs.

A round is worked on in a thread. As long as rounds are quick there is one thread; where one takes long, because the
ledger is slow to answer, others go on beside it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

MOST = 64
"""The most that one round takes."""
HANDS = 8
"""The most rounds that go on at a time."""
PATIENCE = 0.1
"""Seconds that a round may take before another one begins beside it."""
_A = TypeVar("_A")
_Q = TypeVar("_Q")


class Rounds(Generic[_Q, _A]):
    """Work on questions in rounds; used in one event loop."""

    def __init__(
        self,
        work: Callable[[Sequence[_Q]], Sequence[_A | Exception]],
        threads: Executor,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Have ``work`` answer rounds in ``threads``; an exception in the place of an answer is raised to who asked."""
        self._work = work
        self._threads = threads
        self._monotonic = monotonic
        self._waiting: deque[tuple[_Q, asyncio.Future[_A]]] = deque()
        self._rounds: dict[int, float] = {}
        """When each of the rounds that go on now began."""
        self._number = 0

    async def ask(self, question: _Q) -> _A:
        """Return the answer to one question."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_A] = loop.create_future()
        self._waiting.append((question, answer))
        self._go_on(loop)
        return await answer

    def _go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin a round if one is wanted, and none goes on but such as take long."""
        now = self._monotonic()
        if len(self._rounds) >= HANDS or any(now - began < PATIENCE for began in self._rounds.values()):
            return
        taken: list[tuple[_Q, asyncio.Future[_A]]] = []
        while self._waiting and len(taken) < MOST:
            one = self._waiting.popleft()
            if not one[1].done():  # or who asked has gone
                taken.append(one)
        if taken:
            self._number += 1
            self._rounds[self._number] = now
            self._threads.submit(self._round, self._number, taken, loop)
            loop.call_later(PATIENCE, self._go_on, loop)

    def _round(
        self, number: int, taken: Sequence[tuple[_Q, asyncio.Future[_A]]], loop: asyncio.AbstractEventLoop
    ) -> None:
        answers = self._answers([question for question, _ in taken])
        loop.call_soon_threadsafe(self._end, number, [future for _, future in taken], answers, loop)

    def _answers(self, questions: Sequence[_Q]) -> Sequence[_A | Exception]:
        """Work on all; what nobody foresaw in one of them must not be the others' misfortune."""
        try:
            return self._work(questions)
        except Exception as error:  # noqa: BLE001 - it is raised to whoever asked
            if len(questions) == 1:
                return [error]
        return [answer for question in questions for answer in self._answers([question])]

    def _end(
        self,
        number: int,
        futures: Sequence[asyncio.Future[_A]],
        answers: Sequence[_A | Exception],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        del self._rounds[number]
        self._go_on(loop)
        for future, answer in zip(futures, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
