"""Serving over CoAP beside HTTP: the same application, or a server's own HTTP port where others answer there."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

from starlette.types import ASGIApp

from firstlight.logs import Log
from firstlight.transports.client import HttpClient, Limits
from firstlight.transports.coap.answering import Responder, by_application, by_server
from firstlight.transports.coap.server import Bounds, CoapServer

Beside = Callable[[socket.socket, str], contextlib.AbstractAsyncContextManager[None]]
"""As :data:`firstlight.transports.server.Beside`."""


@contextlib.asynccontextmanager
async def answering(
    bound: socket.socket, responder: Responder, *, bounds: Bounds | None = None, log: Log | None = None
) -> AsyncIterator[CoapServer]:
    """Answer what comes to a bound UDP socket while the block runs."""
    loop = asyncio.get_running_loop()
    _, server = await loop.create_datagram_endpoint(lambda: CoapServer(responder, bounds=bounds, log=log), sock=bound)
    try:
        yield server
    finally:
        await server.close()


def beside_application(app: ASGIApp, log: Log | None = None) -> Beside:
    """Return what answers datagrams with ``app``."""

    @contextlib.asynccontextmanager
    async def run(bound: socket.socket, _: str) -> AsyncIterator[None]:
        async with answering(bound, by_application(app), log=log):
            yield

    return run


def beside_server(limits: Limits, log: Log | None = None) -> Beside:
    """Return what answers datagrams by asking the server beside which it runs."""

    @contextlib.asynccontextmanager
    async def run(bound: socket.socket, url: str) -> AsyncIterator[None]:
        async with HttpClient(limits) as client, answering(bound, by_server(client, url), log=log):
            yield

    return run
