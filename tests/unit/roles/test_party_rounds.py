"""Rounds: what comes while one goes on makes the next one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from firstlight.roles.party.rounds import HANDS, MOST, Rounds


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(HANDS) as pool:
        yield pool


class Gate:
    """Work whose first round waits until it is let go."""

    def __init__(self) -> None:
        self.rounds: list[list[int]] = []
        self.begun, self.open = threading.Event(), threading.Event()

    def work(self, questions: Sequence[int]) -> list[int]:
        self.rounds.append(list(questions))
        if len(self.rounds) == 1:
            self.begun.set()
            assert self.open.wait(30)
        return [10 * one for one in questions]


def test_what_comes_meanwhile_makes_the_next_round(threads: ThreadPoolExecutor) -> None:
    gate = Gate()

    async def scene() -> list[int]:
        rounds = Rounds[int, int](gate.work, threads, monotonic=lambda: 0.0)  # no round ever takes long
        first = asyncio.ensure_future(rounds.ask(1))
        await asyncio.to_thread(gate.begun.wait, 30)
        others = [asyncio.ensure_future(rounds.ask(number)) for number in range(2, MOST + 4)]
        await asyncio.sleep(0)
        gate.open.set()
        return await asyncio.gather(first, *others)

    assert asyncio.run(scene()) == [10 * number for number in range(1, MOST + 4)]
    assert [len(one) for one in gate.rounds] == [1, MOST, 2]


def test_a_round_that_takes_long_has_others_beside_it(threads: ThreadPoolExecutor) -> None:
    gate = Gate()

    async def scene() -> list[int]:
        rounds = Rounds[int, int](gate.work, threads)
        first = asyncio.ensure_future(rounds.ask(1))
        await asyncio.to_thread(gate.begun.wait, 30)
        second = await rounds.ask(2)
        assert not first.done()
        gate.open.set()
        return [await first, second]

    assert list(asyncio.run(scene())) == [10, 20]
    assert gate.rounds == [[1], [2]]


def test_errors_go_to_those_whom_they_concern(threads: ThreadPoolExecutor) -> None:
    """An exception in the place of an answer is one; one that nobody foresaw ends only its own question."""
    gate = threading.Event()

    def work(questions: Sequence[int]) -> list[int | Exception]:
        assert gate.wait(30)
        if 3 in questions:
            raise ZeroDivisionError
        return [ValueError("odd") if one % 2 else one for one in questions]

    async def scene() -> list[int | BaseException]:
        rounds = Rounds[int, int](work, threads, monotonic=lambda: 0.0)
        asked = [asyncio.ensure_future(rounds.ask(number)) for number in range(5)]
        await asyncio.sleep(0)
        gate.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(scene())
    assert [answers[number] for number in (0, 2, 4)] == [0, 2, 4]
    assert isinstance(answers[1], ValueError)
    assert isinstance(answers[3], ZeroDivisionError)


def test_who_has_gone_is_not_worked_for(threads: ThreadPoolExecutor) -> None:
    gate = Gate()

    async def scene() -> None:
        rounds = Rounds[int, int](gate.work, threads, monotonic=lambda: 0.0)
        first, gone, last = (asyncio.ensure_future(rounds.ask(number)) for number in (1, 2, 3))
        await asyncio.to_thread(gate.begun.wait, 30)
        gone.cancel()
        await asyncio.sleep(0)
        gate.open.set()
        assert list(await asyncio.gather(first, last)) == [10, 30]

    asyncio.run(scene())
    assert gate.rounds == [[1], [3]]
