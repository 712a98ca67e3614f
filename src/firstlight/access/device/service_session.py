"""A device's session with its service: MQTT over mutual TLS 1.3, under the device's own topic."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from firstlight.access.device import service_wire as wire
from firstlight.access.device.service_dial import dial
from firstlight.access.ports import Proxy
from firstlight.access.transport import abort
from firstlight.errors import AccessError

NO_CHECK_TIME = 0x200000
"""OpenSSL's ``X509_V_FLAG_NO_CHECK_TIME``: it would go by the machine's clock."""
SECOND = 1_000_000_000
KEEP_ALIVE = 60
"""Seconds between signs of life."""
PATIENCE = 20.0
"""Seconds that a connect, or an acknowledgement, may take."""


@dataclass(frozen=True, slots=True)
class ServiceAccess:
    """What a grant and a device's own directory say about a service.

    ``certificate`` and ``key`` are PEM files of the device (the key 0600, made and stored by it), ``anchors`` the DER
    certificates that the service's own must lead to, ``server_name`` the DNS name that it must carry. ``name`` is the
    common name of the device's certificate, ``topic`` where it publishes. ``proxy`` is the network's forwarder.
    """

    certificate: Path
    key: Path
    anchors: tuple[bytes, ...]
    server_name: str
    host: str
    port: int
    name: str
    topic: str
    proxy: Proxy | None = None
    now: Callable[[], int] = time.time_ns
    """Unix time in nanoseconds by which the service's certificate is judged: the machine's clock may be anything."""


async def connect(access: ServiceAccess, *, patience: float = PATIENCE) -> Session:
    """Connect to the service and return the session.

    Raises :class:`AccessError`: ``service-bad-files`` (the device's own), ``service-unreachable``,
    ``proxy-unreachable``, ``proxy-refused``, ``service-untrusted`` (its certificate or its name), ``service-refused``
    (it does not take this device's certificate, or the device), ``service-malformed``, ``service-timeout``.
    """
    context = client_context(access.certificate, access.key, access.anchors)
    try:
        async with asyncio.timeout(patience):
            connection = await dial(access.host, access.port, access.proxy)
            reader, writer = await _secure(connection, context, access)
            return await _greet(reader, writer, access)
    except TimeoutError as error:
        raise AccessError("service-timeout", f"no answer within {patience:g} s") from error


def client_context(certificate: Path, key: Path, anchors: Sequence[bytes]) -> ssl.SSLContext:
    """Return a TLS 1.3 client context that checks the server's name; ``service-bad-files`` if a file is unusable.

    It checks no times: :func:`connect` does.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VerifyFlags(NO_CHECK_TIME)
    try:
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(cadata=b"".join(anchors))
    except (OSError, ValueError) as error:
        raise AccessError("service-bad-files", f"certificate, key or anchors: {error}") from error
    return context


async def _secure(
    connection: object, context: ssl.SSLContext, access: ServiceAccess
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a TLS connection to a service that is the one which the grant named.

    1. Its certificate leads to an anchor of the grant, and names the server (OpenSSL; ``service-untrusted``); 2. it is
    valid now (:func:`_check_time`). Raises :class:`AccessError`.
    """
    try:
        reader, writer = await asyncio.open_connection(
            sock=connection, ssl=context, server_hostname=access.server_name, ssl_shutdown_timeout=1.0
        )
    except ssl.SSLCertVerificationError as error:
        raise AccessError("service-untrusted", error.verify_message) from error
    except OSError as error:
        raise AccessError("service-refused", f"during the handshake: {error}") from error
    _check_time(writer, access.now() // SECOND)
    return reader, writer


def _check_time(writer: asyncio.StreamWriter, now: int) -> None:
    """Raise :class:`AccessError` (``service-untrusted``) unless the service's certificate is valid at ``now``."""
    certificate = x509.load_der_x509_certificate(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
    begins, ends = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    if not begins <= now <= ends:
        writer.transport.abort()
        raise AccessError("service-untrusted", "the service's certificate is not valid at this time")


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, access: ServiceAccess) -> Session:
    """Say CONNECT and hear CONNACK. In TLS 1.3 a server judges the client's certificate after the client is done."""
    try:
        writer.write(wire.connect(access.name, KEEP_ALIVE))
        decoder = wire.Decoder()
        events = decoder.feed(await reader.readexactly(4))
    except (OSError, EOFError) as error:
        abort(writer.transport)
        raise AccessError("service-refused", "closed before it was greeted") from error
    except BaseException:
        abort(writer.transport)
        raise
    if events != [wire.Connected(0)]:
        abort(writer.transport)
        raise AccessError("service-refused", f"answered {events}")
    return Session(reader, writer, decoder, access.topic)


class Session:
    """An open session. It keeps itself alive; when it is lost, whoever waits is told so (``service-lost``)."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, decoder: wire.Decoder, topic: str
    ) -> None:
        """Take over a connection that has been greeted."""
        self._reader = reader
        self._writer = writer
        self._decoder = decoder
        self._topic = topic
        self._packet = 0
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._listener = asyncio.create_task(self._listen())

    @property
    def alive(self) -> bool:
        """Whether the connection still stands, as far as the device knows."""
        return not self._listener.done()

    async def lost(self) -> None:
        """Wait until the connection has ended."""
        await asyncio.wait([self._listener])

    async def publish(self, payload: bytes, *, topic: str | None = None, patience: float = PATIENCE) -> None:
        """Publish ``payload`` to the device's topic and wait for the broker's acknowledgement (QoS 1).

        Raises :class:`AccessError`: ``payload-too-large``, ``service-lost``, ``service-timeout``.
        """
        if not self.alive:
            raise AccessError("service-lost", "the connection has ended")
        self._packet = self._packet % 65_535 + 1
        packet = self._packet
        data = wire.publish(packet, self._topic if topic is None else topic, payload)
        waiter = self._waiting[packet] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(patience):
                self._writer.write(data)
                await self._writer.drain()
                await waiter
        except TimeoutError as error:
            raise AccessError("service-timeout", f"no acknowledgement within {patience:g} s") from error
        except OSError as error:
            raise AccessError("service-lost", str(error)) from error
        finally:
            del self._waiting[packet]

    async def close(self) -> None:
        """Say goodbye and close; harmless if the connection has ended."""
        if self.alive:
            self._writer.write(wire.DISCONNECT)
            self._listener.cancel()
            await asyncio.wait([self._listener])
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _listen(self) -> None:
        reason = "closed by the service"
        try:
            while data := await self._hear():
                for event in self._decoder.feed(data):
                    self._settle(event)
        except AccessError as error:
            reason = str(error)
        except OSError as error:
            reason = type(error).__name__
        finally:
            for waiter in self._waiting.values():
                if not waiter.done():
                    waiter.set_exception(AccessError("service-lost", reason))
            self._writer.close()

    async def _hear(self) -> bytes:
        """Return what comes next; after half the keep-alive ask for a sign of life, after the other half give up."""
        try:
            async with asyncio.timeout(KEEP_ALIVE / 2):
                return await self._reader.read(4096)
        except TimeoutError:
            self._writer.write(wire.PINGREQ)
        async with asyncio.timeout(KEEP_ALIVE / 2):
            return await self._reader.read(4096)

    def _settle(self, event: wire.Event) -> None:
        if isinstance(event, wire.Acknowledged):
            waiter = self._waiting.get(event.packet)
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
