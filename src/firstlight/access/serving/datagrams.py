"""UDP through the forwarder (RFC 1928 §7): what an attached device sends goes where it may, and answers come back.

The socket towards the device is connected to the address of its control connection and the port that it named there;
each destination has a socket of its own that is connected too. So nobody else's datagrams pass in either direction.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from firstlight.access.datagram_header import parse_header

MAX_DESTINATIONS = 8
MAX_WAITING = 16
"""Datagrams that wait while a destination is looked up; more are lost, as datagrams are."""


@dataclass(frozen=True, slots=True)
class Passing:
    """What may pass, what is told of what may not, and what is counted: bytes from the device, and to it."""

    allowed: Callable[[str, int], bool]
    report: Callable[[str], None]
    sent: Callable[[int], None]
    received: Callable[[int], None]


class Association(asyncio.DatagramProtocol):
    """The end towards one device."""

    def __init__(self, passing: Passing) -> None:
        """Let pass what ``passing`` says."""
        self._passing = passing
        self._far: dict[bytes, _Far | None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket."""
        self.transport = cast(asyncio.DatagramTransport, transport)

    def error_received(self, exc: Exception) -> None:
        """Pass over what the network says of a device that does not listen."""

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002 - the kernel has checked it
        """Take a datagram of the device."""
        parsed = parse_header(data)
        if parsed is None:
            return
        header, host, port = parsed
        far = self._far.get(header)
        if header not in self._far:
            if len(self._far) >= MAX_DESTINATIONS:
                return
            far = self._admit(header, host, port)
        if far is not None:
            self._passing.sent(len(data) - len(header))
            far.send(data[len(header) :])

    def _admit(self, header: bytes, host: str, port: int) -> _Far | None:
        if not self._passing.allowed(host, port):
            self._far[header] = None
            self._passing.report("forwarder-destination-refused")
            return None
        far = self._far[header] = _Far(lambda data: self._back(header, data))
        task = asyncio.create_task(far.open(host, port))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return far

    def _back(self, header: bytes, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self._passing.received(len(data))
            self.transport.sendto(header + data)

    def close(self) -> None:
        """End, with everything that hangs on it."""
        for task in tuple(self._tasks):
            task.cancel()
        for far in self._far.values():
            if far is not None:
                far.close()
        if self.transport is not None:
            self.transport.abort()


class _Far(asyncio.DatagramProtocol):
    """The end towards one destination."""

    def __init__(self, back: Callable[[bytes], None]) -> None:
        self._back = back
        self._waiting: list[bytes] = []
        self._transport: asyncio.DatagramTransport | None = None

    async def open(self, host: str, port: int) -> None:
        """Look the destination up and send what waits; a destination that cannot be reached is silent."""
        loop = asyncio.get_running_loop()
        try:
            await loop.create_datagram_endpoint(lambda: self, remote_addr=(host, port))
        except OSError:
            self._waiting.clear()
            return
        for data in self._waiting:
            self.send(data)
        self._waiting.clear()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002 - the kernel has checked it
        self._back(data)

    def error_received(self, exc: Exception) -> None:
        pass

    def send(self, data: bytes) -> None:
        if self._transport is None:
            if len(self._waiting) < MAX_WAITING:
                self._waiting.append(data)
        elif not self._transport.is_closing():
            self._transport.sendto(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


async def associate(own: str, peer: tuple[str, int], passing: Passing) -> Association:
    """Return an association with the device at ``peer``, whose socket has the address ``own``; :class:`OSError`."""
    near = socket.socket(socket.AF_INET6 if ":" in own else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        near.setblocking(False)
        near.bind((own, 0))
        near.connect(peer)
    except OSError:
        near.close()
        raise
    loop = asyncio.get_running_loop()
    _, association = await loop.create_datagram_endpoint(lambda: Association(passing), sock=near)
    return association
