"""UDP through the attached network's SOCKS5 forwarder (RFC 1928 §7)."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass

from firstlight.access.datagram_header import parse_header
from firstlight.access.device.service_dial import ask_forwarder, closed_on_failure, open_forwarder, socks_address
from firstlight.access.ports import Proxy

_ASSOCIATE = 3


@dataclass(frozen=True, slots=True)
class Association:
    """A connected UDP socket to the forwarder, good as long as the control connection stands; both non-blocking."""

    datagrams: socket.socket
    control: socket.socket
    header: bytes
    """What goes before everything that is sent to the destination."""

    def wrap(self, data: bytes) -> bytes:
        """Return a datagram as the forwarder takes it."""
        return self.header + data

    def unwrap(self, data: bytes) -> bytes | None:
        """Return what is in a datagram of the forwarder's; None if it is not from the destination."""
        parsed = parse_header(data)
        return None if parsed is None or parsed[0] != self.header else data[len(parsed[0]) :]

    async def ended(self) -> None:
        """Wait until the forwarder ends the association."""
        try:
            await asyncio.get_running_loop().sock_recv(self.control, 1)
        except OSError:
            return

    def close(self) -> None:
        """End the association."""
        self.control.close()


async def associate(host: str, port: int, proxy: Proxy) -> Association:
    """Return an association for datagrams to ``host`` and ``port``.

    Raises :class:`AccessError` as :func:`firstlight.access.device.service_dial.dial`.
    """
    control = await open_forwarder(proxy)
    datagrams = socket.socket(control.family, socket.SOCK_DGRAM)
    with closed_on_failure(control, datagrams):
        own = control.getsockname()[0]
        datagrams.setblocking(False)
        datagrams.bind((own, 0))
        stated = datagrams.getsockname()
        relay_host, relay_port = await ask_forwarder(control, _ASSOCIATE, stated[0], stated[1])
        if ipaddress.ip_address(relay_host).is_unspecified:
            relay_host = proxy.host
        datagrams.connect((relay_host, relay_port))
    return Association(datagrams, control, b"\x00\x00\x00" + socks_address(host) + port.to_bytes(2))
