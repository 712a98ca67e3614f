"""What a party does by itself from time to time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Self

from firstlight.errors import FirstlightError
from firstlight.logs import Log


class Keeper:
    """Does its rounds in the background while the block runs: each of ``chores`` in turn, in a thread."""

    def __init__(self, *chores: Callable[[], None], pause: float, log: Log) -> None:
        """Have ``chores`` done, with ``pause`` seconds between two rounds.

        What one of them raises is logged, and it is tried again in the next round.
        """
        self._chores = chores
        self._pause = pause
        self._log = log
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            for chore in self._chores:
                try:
                    await asyncio.to_thread(chore)
                except FirstlightError as error:
                    self._log.refusal(error, step="keeping")
            await asyncio.sleep(self._pause)
