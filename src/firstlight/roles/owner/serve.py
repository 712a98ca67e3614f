"""The owner's process: collects receipts until it is stopped; and how the fleet stands, for whoever asks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from firstlight.errors import FirstlightError
from firstlight.logs import Log
from firstlight.roles.holdings import holdings
from firstlight.roles.owner.collect import Collector
from firstlight.roles.owner.mail import DATABASE, open_fleet
from firstlight.roles.workplace import Workplace
from firstlight.sealing.receipt import Step
from firstlight.stores.fleet import FleetStore
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
        return as_json(await asyncio.to_thread(_status, place.directory, fleet))

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


def status(state_dir: Path) -> dict[str, object]:
    """Return how an owner's fleet stands, also while his process runs.

    ``devices`` are deployed, ``held`` were accepted; ``network_attached`` and ``service_connected`` count distinct
    devices with an opened, valid receipt of that step. Raises :class:`StoreError`.
    """
    if not (state_dir / DATABASE).exists():
        return _status(state_dir, None)
    fleet = open_fleet(state_dir)
    try:
        return _status(state_dir, fleet)
    finally:
        fleet.close()


def _status(state_dir: Path, fleet: FleetStore | None) -> dict[str, object]:
    figures = None if fleet is None else fleet.figures()
    return {
        "devices": 0 if figures is None else figures.devices,
        "held": sum(one.record.count for one in holdings(state_dir)),
        "network_attached": 0 if figures is None else figures.steps[Step.NETWORK_ATTACHED],
        "service_connected": 0 if figures is None else figures.steps[Step.SERVICE_CONNECTED],
        "receipts": 0 if figures is None else figures.receipts,
        "rejected": 0 if figures is None else sum(figures.rejected.values()),
        "rejected_by_code": {} if figures is None else dict(figures.rejected),
    }


def grants(state_dir: Path) -> list[dict[str, object]]:
    """Return every receipt with the grant that it names; bytes are for the caller to write as he likes."""
    if not (state_dir / DATABASE).exists():
        return []
    fleet = open_fleet(state_dir)
    try:
        return [
            {
                "batch": one.batch,
                "index": one.index,
                "step": one.step.name.lower().replace("_", "-"),
                "tenure": one.tenure,
                "revision": one.revision,
                "party": one.party,
                "grant": one.grant,
                "counter": one.counter,
                "time": one.time,
            }
            for one in fleet.grants()
        ]
    finally:
        fleet.close()
