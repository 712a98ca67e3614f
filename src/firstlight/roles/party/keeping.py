"""What a party does by itself from time to time: grants that run out end, exchanges that nobody can reopen go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Self

from firstlight.errors import FirstlightError
from firstlight.logs import Log
from firstlight.ports import Clock
from firstlight.stores.exchanges import ExchangeStore, GrantState

PAUSE = 30.0
SECOND = 1_000_000_000


def keep(exchanges: ExchangeStore, now_ns: int) -> int:
    """End the grants whose time is over and forget old exchanges; return how many grants ended."""
    live = exchanges.grants(GrantState.PENDING, GrantState.CONFIRMED)
    ended = exchanges.end([grant.id for grant in live if grant.expires <= now_ns // SECOND])
    exchanges.prune(now_ns)
    return len(ended)


class Keeper:
    """Keeps house in the background while the block runs; ``also`` is called each time, in the same thread."""

    def __init__(
        self, exchanges: ExchangeStore, clock: Clock, log: Log, *, also: Callable[[], None] | None = None
    ) -> None:
        """Keep ``exchanges``."""
        self._exchanges = exchanges
        self._clock = clock
        self._log = log
        self._also = also
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
            try:
                await asyncio.to_thread(self._once)
            except FirstlightError as error:
                self._log.refusal(error, step="keeping")
            await asyncio.sleep(PAUSE)

    def _once(self) -> None:
        ended = keep(self._exchanges, self._clock.now())
        if ended:
            self._log.info("grants-ended", count=ended)
        if self._also is not None:
            self._also()
