"""What a device's journey is given from outside: time, chance, waiting, and ears for what happens."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from firstlight.access.device import service_session
from firstlight.access.device.datagram_dial import associate
from firstlight.access.device.network_any import AnyNetworkAccess
from firstlight.access.device.service_dial import dial
from firstlight.access.device.service_session import ServiceAccess
from firstlight.access.ports import NetworkAccess, Proxy
from firstlight.custody.system import SteadyClock, SystemClock, SystemRandom
from firstlight.errors import AccessError, TransportError
from firstlight.logs import Log
from firstlight.ports import Clock, Random
from firstlight.roles.device.gateways import Http
from firstlight.transports.coap.client import CoapClient, OpenPath
from firstlight.transports.coap.path import DatagramPath, open_path, path_over
from firstlight.transports.plain import PlainClient
from firstlight.transports.web import Web

SECOND = 1_000_000_000
SECONDS = 30.0
"""A gateway that serves a thousand devices at once may take its time."""
MAX_ANSWER = 262_144


class Stage(Enum):
    """How far a device is."""

    STARTED = "started"
    DISCOVERED = "discovered"
    NETWORK_GRANTED = "network-granted"
    ATTACHED = "attached"
    SERVICE_GRANTED = "service-granted"
    CONNECTED = "connected"
    WAITING = "waiting"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Event:
    """A device, named by its directory, came to a stage; ``code`` says why it waits or failed."""

    device: str
    stage: Stage
    code: str = ""


class Tell(Protocol):
    """Hears of a device's stages."""

    def __call__(self, stage: Stage, code: str = "", /) -> None:
        """Take note."""
        ...


class ServiceSession(Protocol):
    """An open session with a service (:class:`firstlight.access.device.service_session.Session`)."""

    async def lost(self) -> None:
        """Wait until the connection has ended."""
        ...

    async def publish(self, payload: bytes) -> None:
        """Publish to the device's topic and wait for the acknowledgement."""
        ...

    async def close(self) -> None:
        """Say goodbye and close."""
        ...


class HttpClient(Http, Protocol):
    """A client that is closed in the end."""

    async def aclose(self) -> None:
        """Close all connections."""
        ...


async def connect(access: ServiceAccess) -> ServiceSession:
    """Connect to a service for real."""
    return await service_session.connect(access)


def http_client(proxy: Proxy | None) -> HttpClient:
    """Return a real client for HTTP and CoAP, through the network's forwarder if there is one."""

    async def through(host: str, port: int) -> socket.socket:
        try:
            return await dial(host, port, proxy)
        except AccessError as error:
            code = "unreachable" if error.code == "service-unreachable" else error.code
            raise TransportError(code, error.detail) from error

    return Web(
        http=PlainClient(seconds=SECONDS, limit=MAX_ANSWER, dial=through),
        coap=CoapClient(_ways(proxy), seconds=SECONDS, limit=MAX_ANSWER),
    )


def _ways(proxy: Proxy | None) -> OpenPath:
    """Return how ways for datagrams are opened: straight, or through the network's forwarder."""
    if proxy is None:
        return open_path

    async def through(host: str, port: int) -> DatagramPath:
        try:
            association = await associate(host, port, proxy)
        except AccessError as error:
            code = "unreachable" if error.code == "service-unreachable" else error.code
            raise TransportError(code, error.detail) from error
        watching = asyncio.create_task(association.ended())

        def close() -> None:
            watching.cancel()
            association.close()

        path = await path_over(association.datagrams, association.wrap, association.unwrap, close)
        watching.add_done_callback(lambda _: path.fail("the network has ended the association"))
        return path

    return through


@dataclass(frozen=True, slots=True)
class Tools:
    """The ports of one device; the defaults are the real world."""

    log: Log
    tell: Tell
    network: NetworkAccess
    clock: Clock
    random: Random
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    http: Callable[[Proxy | None], HttpClient] = http_client
    connect: Callable[[ServiceAccess], Awaitable[ServiceSession]] = connect
    steady: Clock | None = None
    """Counts nanoseconds since some moment, and nobody sets it; without one, ``clock`` has to do."""

    @classmethod
    def real(cls, log: Log, tell: Tell) -> Tools:
        """Return those of a real device."""
        random = SystemRandom()
        return cls(log, tell, AnyNetworkAccess.real(random), SystemClock(), random, steady=SteadyClock())


class WitnessedClock:
    """The device's own clock: set by nobody but the ledger's witnesses.

    Until they have spoken the machine's clock has to do; from then on not even that can move it, only time itself.
    """

    def __init__(self, clock: Clock, steady: Clock | None = None) -> None:
        """Go by ``clock`` until witnesses say better, and from then on by what ``steady`` counts."""
        self._clock = clock
        self._steady = steady or clock
        self._ahead: int | None = None

    @property
    def known(self) -> bool:
        """Whether witnesses have said what time it is."""
        return self._ahead is not None

    def learn(self, seconds: int | None) -> None:
        """Take the lowest of the witnesses' times (Unix seconds), if there is one."""
        if seconds is not None:
            self._ahead = seconds * SECOND - self._steady.now()

    def now(self) -> int:
        """Return Unix time in nanoseconds."""
        return self._clock.now() if self._ahead is None else self._steady.now() + self._ahead

    @property
    def seconds(self) -> int:
        """Unix time in whole seconds."""
        return self.now() // SECOND
