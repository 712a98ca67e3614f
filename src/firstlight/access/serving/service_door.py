"""The door of the embedded broker: who comes in, and as whom, before any of the broker's own code runs.

A connection is taken through TLS (``service_tls``), named by its certificate, and its CONNECT packet is read and
checked here. Behind the door the broker sees a client whose identifier is its certificate's name, with a clean
session, no will and packets of bounded size, and whose stream ends when the client is silent for too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from amqtt.adapters import ReaderAdapter, WriterAdapter

from firstlight.access.serving.service_packets import DISCONNECT, check_packet
from firstlight.access.transport import abort
from firstlight.enrolment.topics import is_credential_name
from firstlight.errors import AccessError, MalformedError

MAX_PACKET = 65_536
"""The most bytes of a packet after its fixed header."""
MAX_CONNECT = 256
CONNECT_SECONDS = 20.0
"""How long a client may take for its handshake, and then for its CONNECT."""
MAX_SILENCE = 3_600
BACKLOG = 1_024
SETTLE_SECONDS = 5.0
_CONNECT_TYPE, _PUBACK_TYPE = 0x10, 0x40
_CLEAN_SESSION = 0x02
_CONNECT_HEAD = b"\x00\x04MQTT\x04"


@dataclass(slots=True)
class Client:
    """A connection that came through TLS: its certificate's name and serial number."""

    name: str
    serial: int
    transport: asyncio.Transport
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    _undecided: int = 0
    _settled: asyncio.Event = field(default_factory=asyncio.Event)
    _acknowledgements: deque[bytes] = field(default_factory=deque)
    _kept: int = 0

    def send(self, data: bytes) -> None:
        """Send a packet of the broker's; an acknowledgement not before its message has been kept.

        The broker acknowledges what it has read, in that order, and has kept nothing by then: after a crash the client
        would take for delivered what nobody knows of.
        """
        if data[0] == _PUBACK_TYPE:
            self._acknowledgements.append(data)
            self._acknowledge()
        else:
            self._write(data)

    def kept(self) -> None:
        """Note that the oldest message that has not been kept yet now is."""
        self._kept += 1
        self._acknowledge()

    def _acknowledge(self) -> None:
        while self._acknowledgements and self._kept:
            self._kept -= 1
            self._write(self._acknowledgements.popleft())

    def _write(self, data: bytes) -> None:
        self.writer.write(data)

    def taken(self) -> None:
        """Note that a message went in which the broker has not decided about yet."""
        self._undecided += 1
        self._settled.clear()

    def decided(self) -> None:
        """Note that the broker has accepted or refused the oldest of them."""
        self._undecided -= 1
        if self._undecided <= 0:
            self._settled.set()

    async def settled(self) -> None:
        """Wait until the broker has decided about every message, for a while at most."""
        if self._undecided > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_SECONDS):
                    await self._settled.wait()

    def drop(self) -> None:
        """End the connection at once."""
        abort(self.transport)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening, non-blocking socket; ``port`` 0 lets the system choose. Raises :class:`OSError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    listener.setblocking(False)
    return listener


async def secure(connection: socket.socket, context: ssl.SSLContext) -> Client:
    """Take an accepted connection through the handshake and name it.

    Raises :class:`OSError` (:class:`ssl.SSLError` among them) if the handshake fails, :class:`AccessError`
    (``certificate-bad-name``) if the certificate names no credential.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=MAX_PACKET, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.connect_accepted_socket(
        lambda: protocol, connection, ssl=context, ssl_handshake_timeout=CONNECT_SECONDS, ssl_shutdown_timeout=1.0
    )
    try:
        name, serial = _named(transport.get_extra_info("peercert"))
    except AccessError:
        abort(transport)
        raise
    return Client(name, serial, transport, reader, asyncio.StreamWriter(transport, protocol, reader, loop))


def _named(certificate: dict[str, object] | None) -> tuple[str, int]:
    """Return name and serial number of a client's certificate.

    1. Its name is that of a credential (``certificate-bad-name``). Raises :class:`AccessError`.
    """
    subject = (certificate or {}).get("subject")
    serial = (certificate or {}).get("serialNumber")
    match subject:
        case ((("commonName", str(name)),),) if is_credential_name(name) and isinstance(serial, str):
            return name, int(serial, 16)
    raise AccessError("certificate-bad-name", "the certificate names no credential")


async def read_connect(client: Client) -> tuple[bytes, int]:
    """Return the bytes of the client's CONNECT packet (MQTT 3.1.1 §3.1) and its keep-alive in seconds.

    1. It is one, of protocol level 4 (``connect-malformed``); 2. it asks for a clean session, without will, user name
    and password, with the certificate's name as client identifier (``connect-refused``). Raises
    :class:`MalformedError` (1), :class:`AccessError` (2), :class:`TimeoutError` and :class:`EOFError`.
    """
    async with asyncio.timeout(CONNECT_SECONDS):
        head = await client.reader.readexactly(2)
        length = head[1]
        if head[0] != _CONNECT_TYPE or not len(_CONNECT_HEAD) + 5 <= length < 0x80:
            raise MalformedError("connect-malformed", "the first packet is not a CONNECT of ours")
        body = await client.reader.readexactly(length)
    if not body.startswith(_CONNECT_HEAD):
        raise MalformedError("connect-malformed", "not MQTT 3.1.1")
    flags, keep_alive, size = body[7], int.from_bytes(body[8:10]), int.from_bytes(body[10:12])
    if flags != _CLEAN_SESSION:
        raise AccessError("connect-refused", "a clean session without will, user name and password is asked for")
    if size != len(body) - 12 or body[12:] != client.name.encode():
        raise AccessError("connect-refused", "the client identifier is not the certificate's name")
    return head + body, keep_alive


class Reader(ReaderAdapter):  # type: ignore[misc]
    """What the broker reads: the checked CONNECT, then one whole packet after the other.

    The stream ends with the connection, with a packet that is too large or not well formed (or of QoS 2), with a
    message to a topic that is not the client's, and when the client is silent for one and a half times its keep-alive
    (MQTT 3.1.1 §3.1.2.10). Neither its end nor a DISCONNECT reaches the broker before that has dealt with the messages
    that came in front: it has acknowledged them, and would forget them.
    """

    def __init__(
        self,
        client: Client,
        connect: bytes,
        keep_alive: int,
        permits: Callable[[str], bool],
        refused: Callable[[MalformedError], None] = lambda _: None,
    ) -> None:
        """Serve ``connect`` before the rest; ``permits`` says whether the client may publish to a topic.

        ``refused`` is told of a packet (``packet-too-large``, ``packet-malformed``) that ends the stream.
        """
        self._client = client
        self._refused = refused
        self._permits = permits
        self._buffer = connect
        self._partial = b""
        self._silence = min(1.5 * keep_alive or MAX_SILENCE, MAX_SILENCE)
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + self._silence
        self._ended = False

    async def read(self, n: int = -1) -> bytes:
        """Return ``n`` bytes of one packet; none at the end, or if the packet has not as many."""
        if n == 1 and not self._buffer and not self._ended:
            await self._next()
        if not 0 <= n <= len(self._buffer):
            self._ended, self._buffer = True, b""
            return b""
        data, self._buffer = self._buffer[:n], self._buffer[n:]
        return data

    def feed_eof(self) -> None:
        """End the stream."""
        self._ended = True

    async def _next(self) -> None:
        try:
            async with asyncio.timeout_at(self._deadline):
                packet, start = await self._packet()
            topic = check_packet(packet, start)
        except (OSError, EOFError, TimeoutError):
            await self._end()
            return
        except MalformedError as error:
            self._refused(error)
            await self._end()
            return
        self._partial = b""
        self._deadline = self._loop.time() + self._silence
        if topic is not None:
            if not self._permits(topic):
                self._ended = True
                return
            self._client.taken()
        elif packet[0] == DISCONNECT:
            await self._client.settled()
        self._buffer = packet

    async def _end(self) -> None:
        self._ended = True
        await self._client.settled()

    async def _packet(self) -> tuple[bytes, int]:
        """Return the next packet and where its fixed header ends; what was read survives a cancellation."""
        while (start := _header_end(self._partial)) is None:
            self._partial += await self._client.reader.readexactly(1)
        length = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(self._partial[1:start]))
        if length > MAX_PACKET:
            raise MalformedError("packet-too-large", f"{length} bytes, at most {MAX_PACKET}")
        return self._partial + await self._client.reader.readexactly(length), start


def _header_end(data: bytes) -> int | None:
    """Return the length of the fixed header (MQTT 3.1.1 §2.2) that ``data`` begins with, if it is complete."""
    for place, byte in enumerate(data[1:5], start=1):
        if byte < 0x80:
            return place + 1
    if len(data) >= 5:
        raise MalformedError("packet-too-large", "a length of more than four bytes")
    return None


class Writer(WriterAdapter):  # type: ignore[misc]
    """What the broker writes to a client."""

    def __init__(self, client: Client) -> None:
        """Write to ``client``."""
        self._client = client
        self._closed = False

    def write(self, data: bytes) -> None:
        """Queue ``data``, unless the connection is closing."""
        if not self._closed:
            self._client.send(data)

    async def drain(self) -> None:
        """Wait until the peer has taken enough."""
        if not self._closed:
            await self._client.writer.drain()

    def get_peer_info(self) -> tuple[str, int] | None:
        """Return the peer's address and port."""
        peer = self._client.transport.get_extra_info("peername")
        return (peer[0], peer[1]) if peer else None

    def get_ssl_info(self) -> ssl.SSLObject | None:
        """Return the TLS object of the connection."""
        found = self._client.transport.get_extra_info("ssl_object")
        return found if isinstance(found, ssl.SSLObject) else None

    async def close(self) -> None:
        """Close the connection; what is queued is still sent."""
        if not self._closed:
            self._closed = True
            self._client.transport.close()
