"""The owner's process: collects receipts until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from firstlight.errors import FirstlightError
from firstlight.logs import Log
from firstlight.roles.owner.collect import Collector
from firstlight.roles.owner.mail import open_fleet
from firstlight.roles.owner.status import status_of
from firstlight.roles.workplace import Workplace
from firstlight.transports.client import HttpClient
from firstlight.transports.http import application, as_json, serve

SHORT, LONG = 0.25, 2.0
"""Seconds between two rounds: while receipts come in, and at most when none do."""


async def serve_owner(place: Workplace, log: Log, *, on_ready: Callable[[str], Awaitable[None]] | None = None) -> None:
    """Collect receipts, and answer ``/healthz`` and ``/v1/status``, until SIGTERM or SIGINT.

    Raises :class:`StoreError`, :class:`ConfigError` (``cannot-listen``).
    """
    fleet = open_fleet(place.directory)

    async def figures(_: Request) -> Response:
        return as_json(await asyncio.to_thread(status_of, place.directory, fleet))

    app = application("owner", [Route("/v1/status", figures)], log=log)
    try:
        async with HttpClient() as client:
            collector = Collector(place.chain, place.directory, fleet, client, log)
            task = asyncio.create_task(collect_for_ever(collector, log))
            try:
                await serve(app, place.directory, on_ready=on_ready)
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
    finally:
        fleet.close()


async def collect_for_ever(
    collector: Collector, log: Log, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Read all watches again and again, more seldom while nothing comes."""
    pause = SHORT
    while True:
        try:
            added = await collector.round()
            pause = SHORT if added else min(pause * 1.5, LONG)
            if added:
                log.info("receipts-read", count=added)
        except FirstlightError as error:
            log.refusal(error)
            pause = LONG
        await sleep(pause)
