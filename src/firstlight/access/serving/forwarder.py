"""The forwarder: a SOCKS5 server (RFC 1928, RFC 1929) that opens for attached devices only.

A username is a session's id in hexadecimal, the password its proof. CONNECT and UDP ASSOCIATE are served, only to
where the operator allows. Without a live session nothing passes; when one ends all that hangs on it is cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from firstlight.access.serving.datagrams import Passing, associate
from firstlight.access.serving.sessions import Session, Sessions

Allowed = Callable[[str, int], bool]
"""Whether devices may go to a host (a name or a literal address, as the device gave it) and port."""

_VERSION = 5
_PASSWORD_METHOD = 2
_NO_METHOD = b"\x05\xff"
_CONNECT, _ASSOCIATE = 1, 3
_IPV4, _NAME, _IPV6 = 1, 3, 4
_CHUNK = 65_536


class _Reply(IntEnum):
    """RFC 1928 §6."""

    SUCCEEDED = 0
    FAILED = 1
    NOT_ALLOWED = 2
    UNREACHABLE = 4
    REFUSED = 5
    NO_SUCH_COMMAND = 7
    NO_SUCH_ADDRESS = 8


@dataclass(frozen=True, slots=True)
class ForwarderLimits:
    """Bounds: half-open connections in all, connections of a session, seconds for the opening and for connecting."""

    half_open: int = 512
    per_session: int = 32
    opening_s: float = 10.0
    connecting_s: float = 10.0


class _Closed(Exception):  # noqa: N818 - not an error of ours: a conversation that ends here
    """The client is told no, or says nonsense."""

    def __init__(self, code: str, answer: bytes = b"") -> None:
        super().__init__(code)
        self.code = code
        self.answer = answer


class Forwarder:
    """Serves connections; give :meth:`serve` to :func:`asyncio.start_server`."""

    def __init__(
        self, sessions: Sessions, allowed: Allowed, report: Callable[[str], None], limits: ForwarderLimits
    ) -> None:
        """Forward for ``sessions`` to where ``allowed`` says; ``report`` is told why something was refused."""
        self._sessions = sessions
        self._allowed = allowed
        self._report = report
        self._limits = limits
        self._half_open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end.

        1. The client has credentials (``forwarder-no-credentials``), 2. of a session that is live
        (``forwarder-no-session``), 3. and asks to be connected (``forwarder-bad-request``) 4. to where the operator
        allows (``forwarder-destination-refused``).
        """
        try:
            await self._serve(reader, writer)
        except _Closed as closed:
            self._report(closed.code)
            await _farewell(writer, closed.answer)
        except (OSError, EOFError, TimeoutError):
            pass
        finally:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._half_open >= self._limits.half_open:
            raise _Closed("forwarder-busy")
        self._half_open += 1
        try:
            async with asyncio.timeout(self._limits.opening_s):
                session = await self._authenticate(reader, writer)
                command, host, port = await self._request(reader)
        except (EOFError, TimeoutError):
            raise _Closed("forwarder-incomplete") from None
        finally:
            self._half_open -= 1
        with self._counted(session), _held(session, writer.transport):
            if command == _CONNECT:
                await self._forward(session, (host, port), reader, writer)
            else:
                await self._associate(session, port, reader, writer)

    async def _authenticate(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Session:
        version, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        if version != _VERSION or _PASSWORD_METHOD not in methods:
            raise _Closed("forwarder-no-credentials", _NO_METHOD)
        writer.write(bytes((_VERSION, _PASSWORD_METHOD)))
        version, size = await reader.readexactly(2)
        username = await reader.readexactly(size)
        password = await reader.readexactly((await reader.readexactly(1))[0])
        session = self._sessions.authenticate(username, password) if version == 1 else None
        if session is None:
            raise _Closed("forwarder-no-session", b"\x01\x01")
        writer.write(b"\x01\x00")
        return session

    async def _request(self, reader: asyncio.StreamReader) -> tuple[int, str, int]:
        version, command, _, kind = await reader.readexactly(4)
        if version != _VERSION or command not in (_CONNECT, _ASSOCIATE):
            raise _Closed("forwarder-bad-request", _reply(_Reply.NO_SUCH_COMMAND))
        host = await _host(reader, kind)
        port = int.from_bytes(await reader.readexactly(2))
        if command == _CONNECT and not self._allowed(host, port):
            raise _Closed("forwarder-destination-refused", _reply(_Reply.NOT_ALLOWED))
        return command, host, port

    async def _forward(
        self, session: Session, target: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            async with asyncio.timeout(self._limits.connecting_s):
                far_reader, far_writer = await asyncio.open_connection(*target)
        except ConnectionRefusedError:
            raise _Closed("forwarder-destination-closed", _reply(_Reply.REFUSED)) from None
        except (OSError, TimeoutError):
            raise _Closed("forwarder-destination-unreachable", _reply(_Reply.UNREACHABLE)) from None
        try:
            with _held(session, far_writer.transport):
                writer.write(_reply(_Reply.SUCCEEDED))
                await asyncio.gather(
                    _pump(reader, far_writer, session.count_sent),
                    _pump(far_reader, writer, session.count_received),
                )
        finally:
            far_writer.transport.abort()

    async def _associate(
        self, session: Session, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Carry datagrams from and to the UDP port that the device named, until it hangs up."""
        if not port:
            raise _Closed("forwarder-bad-request", _reply(_Reply.FAILED))
        own, peer = writer.get_extra_info("sockname")[0], writer.get_extra_info("peername")[0]
        passing = Passing(self._allowed, self._report, session.count_sent, session.count_received)
        try:
            association = await associate(own, (peer, port), passing)
        except OSError:
            raise _Closed("forwarder-destination-unreachable", _reply(_Reply.FAILED)) from None
        try:
            assert association.transport is not None
            with _held(session, association.transport):
                writer.write(_reply(_Reply.SUCCEEDED, association.transport.get_extra_info("sockname")))
                await reader.read(1)
        finally:
            association.close()

    @contextlib.contextmanager
    def _counted(self, session: Session) -> Iterator[None]:
        if session.connections >= self._limits.per_session:
            raise _Closed("forwarder-too-many-connections", _reply(_Reply.FAILED))
        session.connections += 1
        try:
            yield
        finally:
            session.connections -= 1


@contextlib.contextmanager
def _held(session: Session, transport: asyncio.WriteTransport | asyncio.DatagramTransport) -> Iterator[None]:
    """Let a transport live while the session does: the session's end aborts it."""
    if not session.live:
        raise _Closed("forwarder-no-session")
    session.transports.add(transport)
    try:
        yield
    finally:
        session.transports.discard(transport)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: Callable[[int], None]) -> None:
    """Carry bytes to the end of ``reader``, then close the writing half; stop where the session's end has closed it."""
    while (data := await reader.read(_CHUNK)) and not writer.is_closing():
        count(len(data))
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof() and not writer.is_closing():
        writer.write_eof()


async def _host(reader: asyncio.StreamReader, kind: int) -> str:
    if kind == _IPV4:
        return str(ipaddress.IPv4Address(await reader.readexactly(4)))
    if kind == _IPV6:
        return str(ipaddress.IPv6Address(await reader.readexactly(16)))
    if kind != _NAME:
        raise _Closed("forwarder-bad-request", _reply(_Reply.NO_SUCH_ADDRESS))
    name = await reader.readexactly((await reader.readexactly(1))[0])
    if not name or not all(0x21 <= byte < 0x7F for byte in name):
        raise _Closed("forwarder-bad-request", _reply(_Reply.NO_SUCH_ADDRESS))
    return name.decode("ascii")


def _reply(reply: _Reply, bound: tuple[str, int] | None = None) -> bytes:
    """Return a reply; where it is bound is told only for associations, which need it."""
    if bound is None:
        return bytes((_VERSION, reply, 0, _IPV4)) + bytes(6)
    address = ipaddress.ip_address(bound[0])
    kind = _IPV4 if address.version == 4 else _IPV6
    return bytes((_VERSION, reply, 0, kind)) + address.packed + bound[1].to_bytes(2)


async def _farewell(writer: asyncio.StreamWriter, answer: bytes) -> None:
    """Send a last answer and let it out before the connection is cut."""
    if not answer:
        return
    with contextlib.suppress(OSError, TimeoutError):
        writer.write(answer)
        writer.close()
        async with asyncio.timeout(1.0):
            await writer.wait_closed()
