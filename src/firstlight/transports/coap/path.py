"""Ways for datagrams: straight to a server, or through whatever wraps and unwraps them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from firstlight.errors import TransportError

MAX_QUEUED = 64
"""Datagrams that wait to be read; more are lost, as datagrams are."""
Wrap = Callable[[bytes], bytes]
Unwrap = Callable[[bytes], bytes | None]
"""Returns what is in a datagram, None if it is not one for us."""


class DatagramPath(asyncio.DatagramProtocol):
    """A connected UDP socket (:class:`firstlight.transports.coap.client.Path`)."""

    def __init__(self, wrap: Wrap, unwrap: Unwrap, on_close: Callable[[], None]) -> None:
        """Pass everything through ``wrap`` and ``unwrap``; call ``on_close`` in the end."""
        self._wrap = wrap
        self._unwrap = unwrap
        self._on_close = on_close
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_QUEUED)
        self._failure = ""
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002 - the kernel has checked it
        """Take a datagram."""
        inner = self._unwrap(data)
        if inner is not None and not self._queue.full():
            self._queue.put_nowait(inner)

    def error_received(self, exc: Exception) -> None:
        """Take what the network says: there is nobody."""
        self._fail(str(exc) or "nobody is there")

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note of the end."""
        self._fail(str(exc) if exc else "closed")

    def fail(self, why: str) -> None:
        """End with a failure."""
        self._fail(why)

    def _fail(self, why: str) -> None:
        self._failure = why
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    def send(self, data: bytes) -> None:
        """Send a datagram."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(self._wrap(data))

    async def receive(self) -> bytes:
        """Return the next datagram; :class:`TransportError` (``unreachable``)."""
        data = await self._queue.get()
        if data is None:
            raise TransportError("unreachable", self._failure[:200])
        return data

    def close(self) -> None:
        """End."""
        if self._transport is not None:
            self._transport.close()
        self._on_close()


async def open_path(host: str, port: int) -> DatagramPath:
    """Open the way straight to a server; :class:`TransportError` (``unreachable``)."""
    loop = asyncio.get_running_loop()
    try:
        family, kind, protocol, _, address = (await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM))[0]
        connected = socket.socket(family, kind, protocol)
        connected.setblocking(False)
        connected.connect(address)
    except OSError as error:
        raise TransportError("unreachable", str(error)[:200]) from error
    return await path_over(connected, lambda data: data, lambda data: data)


async def path_over(
    connected: socket.socket, wrap: Wrap, unwrap: Unwrap, on_close: Callable[[], None] = lambda: None
) -> DatagramPath:
    """Return the way over a connected UDP socket."""
    loop = asyncio.get_running_loop()
    _, path = await loop.create_datagram_endpoint(lambda: DatagramPath(wrap, unwrap, on_close), sock=connected)
    return path
