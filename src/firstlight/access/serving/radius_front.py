"""What stands before an EAP server: passes RADIUS on, unread but for who asks and how it ends (RFC 2865, 3579).

Packets go through as they are, under the identifiers and authenticators that both sides chose, so nothing is signed
anew. Only an Access-Accept waits until the operator has written down that the subscription was used; where that is
refused, the Accept is turned into a Reject, and the port stays shut.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from firstlight.access.serving.network_port import Report
from firstlight.errors import AccessError, FirstlightError, MalformedError

REQUEST, ACCEPT, REJECT, CHALLENGE = 1, 2, 3, 11
USER_NAME, CALLING_STATION, NAS_IDENTIFIER, EAP_MESSAGE, MESSAGE_AUTHENTICATOR = 1, 31, 32, 79, 80
STATE = 24
_HEADER = 20
_MOST_CLIENTS = 4_096
_IDLE_SECONDS = 120.0
_EAP_FAILURE = 4


@dataclass(frozen=True, slots=True)
class Proven:
    """An identity that has proven itself, at a port (NAS-Identifier) with a hardware address, as the port says."""

    identity: str = field(repr=False)
    port: str
    mac: str


Admit = Callable[[Proven], Awaitable[None]]
"""Takes an identity that has proven itself; refuses it by a :class:`FirstlightError`."""


@dataclass(frozen=True, slots=True)
class Packet:
    """A RADIUS packet: code, identifier, authenticator (16 bytes), attributes in order."""

    code: int
    identifier: int
    authenticator: bytes
    attributes: tuple[tuple[int, bytes], ...] = field(repr=False)

    @classmethod
    def decode(cls, data: bytes) -> Packet:
        """Parse a packet; :class:`MalformedError` (``bad-radius``)."""
        length = int.from_bytes(data[2:4])
        if not _HEADER <= length <= len(data) <= 4_096:
            raise MalformedError("bad-radius", "not the length that it says")
        attributes, at = [], _HEADER
        while at < length:
            size = data[at + 1] if at + 1 < length else 0
            if size < 2 or at + size > length:
                raise MalformedError("bad-radius", "an attribute of impossible length")
            attributes.append((data[at], data[at + 2 : at + size]))
            at += size
        return cls(data[0], data[1], data[4:_HEADER], tuple(attributes))

    def all(self, kind: int) -> bytes:
        """Return the values of all attributes of a kind, joined; nothing if there is none."""
        return b"".join(value for one, value in self.attributes if one == kind)


def reject(secret: bytes, request: Packet, accept: Packet) -> bytes:
    """Return the Reject, with an EAP Failure, that takes the place of an Accept (RFC 2865 §3, RFC 3579 §3.2)."""
    number = accept.all(EAP_MESSAGE)[1:2] or b"\0"
    failure = bytes([EAP_MESSAGE, 6, _EAP_FAILURE]) + number + b"\x00\x04"
    body = failure + bytes([MESSAGE_AUTHENTICATOR, 18])
    head = bytes([REJECT, request.identifier]) + (_HEADER + len(body) + 16).to_bytes(2)
    body += hmac.digest(secret, head + request.authenticator + body + bytes(16), hashlib.md5)
    return head + hashlib.md5(head + request.authenticator + body + secret, usedforsecurity=False).digest() + body


class RadiusFront:
    """Listens for a network's ports and passes on to an EAP server."""

    def __init__(self, server: Callable[[], int], secret: str, admit: Admit, report: Report) -> None:
        """Pass on to the UDP port ``server()`` of this machine, which shares ``secret`` with those who ask."""
        self._server = server
        self._secret = secret.encode()
        self._admit = admit
        self._report = report
        self._transport: asyncio.DatagramTransport | None = None
        self._clients: dict[Any, _Client] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        """The UDP port on which it listens."""

    async def start(self, host: str, port: int) -> None:
        """Listen; a ``port`` of 0 is chosen by the system. Raises :class:`AccessError` (``port-unavailable``)."""
        front = self

        class Receiver(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                front._spawn(front._asked(data, addr))

        try:
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                Receiver, local_addr=(host, port), family=socket.AF_INET
            )
        except OSError as error:
            raise AccessError("port-unavailable", f"{host}: {error.strerror or error}") from error
        self._transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    async def close(self) -> None:
        """Stop listening."""
        for client in tuple(self._clients.values()):
            client.close()
        self._clients.clear()
        if self._transport is not None:
            self._transport.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _asked(self, data: bytes, address: Any) -> None:
        try:
            packet = Packet.decode(data)
            if packet.code != REQUEST:
                raise MalformedError("bad-radius", "not a request")
            client = self._client(address, begins=not packet.all(STATE))
        except (FirstlightError, OSError) as error:
            self._report(error.code if isinstance(error, FirstlightError) else "server-unreachable")
            return
        client.requests[packet.identifier] = packet
        client.used = asyncio.get_running_loop().time()
        client.send(data)

    def _client(self, address: Any, *, begins: bool) -> _Client:
        """Return what passes on for one who asks; each has a socket of his own, so answers find their way back.

        What has begun with one server goes on there, also when another has taken over meanwhile.
        """
        found = self._clients.get(address)
        port = self._server()
        if found is not None and (found.port == port or not begins):
            return found
        if found is not None:
            found.close()
        self._forget_idle()
        client = _Client(port, lambda data: self._spawn(self._answered(address, data)))
        self._clients[address] = client
        return client

    def _forget_idle(self) -> None:
        now = asyncio.get_running_loop().time()
        for address, client in tuple(self._clients.items()):
            if now - client.used > _IDLE_SECONDS:
                client.close()
                del self._clients[address]
        if len(self._clients) >= _MOST_CLIENTS:
            raise AccessError("network-busy", "too many ports ask at once")

    async def _answered(self, address: Any, data: bytes) -> None:
        client = self._clients.get(address)
        if client is None or self._transport is None:
            return
        try:
            answer = Packet.decode(data)
        except MalformedError as error:
            self._report(error.code)
            return
        request = client.requests.get(answer.identifier)
        if answer.code in (ACCEPT, REJECT):
            client.requests.pop(answer.identifier, None)
        if answer.code == ACCEPT:
            data = await self._accepted(request, answer, data)
        elif answer.code == REJECT:
            self._report("rejected")
        self._transport.sendto(data, address)

    async def _accepted(self, request: Packet | None, accept: Packet, data: bytes) -> bytes:
        if request is None:
            raise MalformedError("bad-radius", "an answer to nothing")
        try:
            await self._admit(_proven(request))
        except UnicodeDecodeError:
            self._report("bad-identity")
        except FirstlightError as error:
            self._report(error.code)
        else:
            self._report("accepted")
            return data
        return reject(self._secret, request, accept)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Awaitable[None]) -> None:
        try:
            await work
        except MalformedError as error:
            self._report(error.code)


def _proven(request: Packet) -> Proven:
    """Return who asks where; :class:`UnicodeDecodeError`."""
    mac = request.all(CALLING_STATION).decode("ascii").lower().replace("-", ":")
    return Proven(request.all(USER_NAME).decode("ascii"), request.all(NAS_IDENTIFIER).decode("ascii"), mac)


class _Client:
    """The way to the server for one address that asks."""

    def __init__(self, port: int, heard: Callable[[bytes], None]) -> None:
        self.port = port
        self.requests: dict[int, Packet] = {}
        self.used = asyncio.get_running_loop().time()
        self._heard = heard
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.connect(("127.0.0.1", port))
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def send(self, data: bytes) -> None:
        """Pass a request on; one that is lost comes again."""
        with contextlib.suppress(OSError):
            self._socket.send(data)

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._heard(self._socket.recv(4_096))
