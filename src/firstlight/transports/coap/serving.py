"""Serving over CoAP beside HTTP, on the UDP port of the same number."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from firstlight.errors import ConfigError
from firstlight.logs import Log
from firstlight.transports.coap.answering import Responder
from firstlight.transports.coap.server import Bounds, CoapServer


def bind(host: str, port: int) -> socket.socket:
    """Return a UDP socket; :class:`ConfigError` (``cannot-listen``)."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise ConfigError("cannot-listen", f"{host} UDP port {port}: {error.strerror or error}") from error
    bound.setblocking(False)
    return bound


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
