"""How a service reads the messages of a broker that is a process of its own: as a subscriber whose session lasts.

MQTT 3.1.1 over a UNIX socket in the broker's private directory, with a password that is made anew at each start. The
session outlives every connection, and a message is acknowledged to the broker only once it has been kept:
what the broker has taken and the service has not kept comes again after any restart of either.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from firstlight.access.serving.service_port import Kept, Published
from firstlight.enrolment.topics import ROOT, is_credential_name
from firstlight.errors import AccessError, MalformedError
from firstlight.logs import Log
from firstlight.ports import Clock

USER = "service"
"""As whom the service itself connects; no certificate's name, since those are hexadecimal."""
FILTER = f"{ROOT}/+/#"
PATIENCE = 10.0
KEEP_ALIVE = 30
PAUSE = 0.05
LONGEST_PAUSE = 1.0
_CONNACK, _PUBLISH, _SUBACK, _PINGRESP = 0x20, 0x30, 0x90, 0xD0
_PINGREQ, DISCONNECT = b"\xc0\x00", b"\xe0\x00"
_QOS, _QOS_1 = 0x06, 0x02
_USER_NAME, _PASSWORD, _CLEAN = 0x80, 0x40, 0x02
_SUBSCRIBE_ID = 1


@dataclass(frozen=True, slots=True)
class Entrance:
    """Where the service itself gets in: the socket ``name`` in a directory, and its password there."""

    directory: Path
    name: str
    password: str = field(repr=False)

    async def enter(self, client: str, *, clean: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect under the client identifier ``client``, and return the connection once it was accepted.

        Raises :class:`AccessError` (``broker-refused``), :class:`OSError`, :class:`EOFError`, :class:`TimeoutError`.
        """
        reader, writer = await _open(self.directory, self.name)
        try:
            async with asyncio.timeout(PATIENCE):
                writer.write(_connect(client, self.password, clean=clean))
                kind, body = await read_packet(reader)
            if kind != _CONNACK or len(body) != 2 or body[1]:
                raise AccessError("broker-refused", f"answered {kind:#04x} {body[:2].hex()}")
        except BaseException:
            writer.close()
            raise
        return reader, writer


def _connect(client: str, password: str, *, clean: bool) -> bytes:
    """Return CONNECT (MQTT 3.1.1 §3.1) as the service."""
    flags = _USER_NAME | _PASSWORD | (_CLEAN if clean else 0)
    head = b"\x00\x04MQTT\x04" + bytes([flags]) + KEEP_ALIVE.to_bytes(2)
    return _packet(0x10, head + _text(client) + _text(USER) + _text(password))


async def _open(directory: Path, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection to the UNIX socket ``name`` in ``directory``, however long its path is; :class:`OSError`."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return await asyncio.open_unix_connection(f"/proc/self/fd/{descriptor}/{name}")
    finally:
        os.close(descriptor)


async def read_packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Return first byte and body of the next packet (§2.2); :class:`OSError`, :class:`EOFError`."""
    (kind,) = await reader.readexactly(1)
    length = shift = 0
    while True:
        (byte,) = await reader.readexactly(1)
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return kind, await reader.readexactly(length)


class Subscriber:
    """Reads all devices' messages, for as long as it is told to."""

    def __init__(self, entrance: Entrance, *, clock: Clock, log: Log) -> None:
        """Read from the broker behind ``entrance``."""
        self._entrance = entrance
        self._clock = clock
        self._log = log
        self._callback: Callable[[Published, Kept], None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._subscribed = asyncio.Event()

    def listen(self, callback: Callable[[Published, Kept], None]) -> None:
        """Tell ``callback`` of every message, with what it calls once that is kept."""
        self._callback = callback

    async def start(self) -> None:
        """Subscribe, and read from then on; :class:`AccessError` (``broker-not-started``) if that does not succeed."""
        self._task = asyncio.create_task(self._run())
        try:
            async with asyncio.timeout(PATIENCE):
                await self._subscribed.wait()
        except TimeoutError as error:
            await self.stop()
            raise AccessError("broker-not-started", "the service cannot subscribe at its own broker") from error

    async def stop(self) -> None:
        """End the connection; the session stays."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run(self) -> None:
        pause = PAUSE
        while True:
            try:
                await self._once()
            except (OSError, EOFError, TimeoutError, AccessError, MalformedError) as error:
                if self._subscribed.is_set():
                    self._log.warning("subscription-lost", error=type(error).__name__)
            pause = PAUSE if self._subscribed.is_set() else min(2 * pause, LONGEST_PAUSE)
            self._subscribed.clear()
            await asyncio.sleep(pause)

    async def _once(self) -> None:
        reader, writer = await self._entrance.enter(USER, clean=False)
        pinging = asyncio.create_task(_ping(writer))
        try:
            writer.write(_packet(0x82, _SUBSCRIBE_ID.to_bytes(2) + _text(FILTER) + b"\x01"))
            while True:
                async with asyncio.timeout(KEEP_ALIVE):
                    kind, body = await read_packet(reader)
                self._took(kind, body, writer)
        finally:
            pinging.cancel()
            with contextlib.suppress(OSError):
                writer.write(DISCONNECT)
            writer.close()

    def _took(self, kind: int, body: bytes, writer: asyncio.StreamWriter) -> None:
        if kind & 0xF0 == _PUBLISH:
            self._message(kind, body, writer)
        elif kind == _SUBACK:
            if body != _SUBSCRIBE_ID.to_bytes(2) + b"\x01":
                raise AccessError("broker-refused", "the broker does not let its service subscribe")
            self._subscribed.set()
        elif kind != _PINGRESP:
            raise MalformedError("packet-malformed", f"a packet that begins with {kind:#04x}")

    def _message(self, kind: int, body: bytes, writer: asyncio.StreamWriter) -> None:
        """Hand on a message; its sender is who may write to its topic."""
        end = 2 + int.from_bytes(body[:2])
        topic, at = body[2:end].decode("utf-8", "replace"), end
        kept: Kept = _nothing
        if kind & _QOS == _QOS_1:
            at += 2
            kept = partial(_from_any_thread, asyncio.get_running_loop(), partial(_acknowledge, writer, body[end:at]))
        _, _, rest = topic.partition("/")
        name = rest.partition("/")[0]
        if self._callback is None or not is_credential_name(name):
            kept()
        else:
            self._callback(Published(name, topic, body[at:], self._clock.now()), kept)


async def _ping(writer: asyncio.StreamWriter) -> None:
    while True:
        await asyncio.sleep(KEEP_ALIVE / 3)
        writer.write(_PINGREQ)


def _acknowledge(writer: asyncio.StreamWriter, packet: bytes) -> None:
    """Send PUBACK over the connection that brought the message: over another it would mean another one."""
    if not writer.is_closing():
        writer.write(b"\x40\x02" + packet)


def _nothing() -> None:
    """Tell nobody: the sender awaits no acknowledgement."""


def _from_any_thread(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call)


def _packet(kind: int, body: bytes) -> bytes:
    length, rest = bytearray(), len(body)
    while True:
        rest, low = divmod(rest, 128)
        length.append(low | (0x80 if rest else 0))
        if not rest:
            return bytes([kind]) + bytes(length) + body


def _text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2) + data
