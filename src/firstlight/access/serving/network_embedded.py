"""The embedded access network: an authentication server and the port that it opens.

One TCP port speaks the attach protocol (:mod:`firstlight.sim.attach`), another is the forwarder, through
which alone attached devices reach anything. It is not a radio: whoever can read the loopback between a
device and this process can read a session's proof.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from firstlight.access import frames
from firstlight.access.ports import AuthenticationCentre, SessionLog, Traffic
from firstlight.access.serving.forwarder import Allowed, Forwarder, ForwarderLimits
from firstlight.access.serving.network_port import Report, Standing
from firstlight.access.serving.sessions import Session, Sessions
from firstlight.errors import AccessError, FirstlightError, MalformedError
from firstlight.ports import Clock, Random
from firstlight.sim import attach, attach_network
from firstlight.sim.attach import Detach, Detached, Identity, Message, Refusal, Reject, Response, SyncFailure
from firstlight.sim.suci import HomeKey

_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """How the network serves. Ports of 0 are chosen by the system; times are in seconds."""

    network: str
    host: str = "127.0.0.1"
    attach_port: int = 0
    forwarder_port: int = 0
    lifetime_s: int = 86_400
    deadline_s: float = 10.0
    half_open: int = 1024
    attaches_per_s: int = 500
    sweep_s: float = 0.5
    forwarder: ForwarderLimits = field(default_factory=ForwarderLimits)


class EmbeddedNetwork:
    """A running access network; make one with :meth:`start`."""

    def __init__(
        self,
        settings: NetworkSettings,
        *,
        centre: AuthenticationCentre,
        log: SessionLog,
        home_keys: Mapping[int, HomeKey],
        allowed: Allowed,
        clock: Clock,
        random: Random,
        report: Report | None = None,
    ) -> None:
        """Wire it together; nothing listens yet."""
        self._settings = settings
        self._centre = centre
        self._log = log
        self._home_keys = home_keys
        self._clock = clock
        self._random = random
        self._tell = report
        self.outcomes: Counter[str] = Counter()
        """How often each outcome was reported."""
        self._sessions = Sessions(self._session_over)
        self._forwarder = Forwarder(self._sessions, allowed, self._report, settings.forwarder)
        self._bucket = _Bucket(settings.attaches_per_s, clock)
        self._half_open = 0
        self._opened = 0
        self._serving: set[asyncio.Task[object]] = set()
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.Task[None] | None = None
        self._proxy = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self.endpoint = ""
        """Where devices attach: ``tcp://host:port``."""

    async def start(self, standing: Standing | None = None) -> None:
        """Listen; ``standing`` says who may no longer stay. Raises :class:`AccessError` (``port-unavailable``)."""
        own = self._settings
        self._loop = asyncio.get_running_loop()
        try:
            forwarder = await asyncio.start_server(self._forward, own.host, own.forwarder_port, backlog=1024)
            self._servers.append(forwarder)
            self._proxy = f"socks5://{own.host}:{_port(forwarder)}"
            listener = await asyncio.start_server(self._serve, own.host, own.attach_port, backlog=1024)
            self._servers.append(listener)
            self.endpoint = f"tcp://{own.host}:{_port(listener)}"
        except OSError as error:
            await self.close()
            raise AccessError("port-unavailable", f"{own.host}: {error.strerror or error}") from error
        if standing is not None:
            standing.watch(self.drop)
        self._sweeper = self._spawn(self._sweep(standing))

    async def close(self) -> None:
        """Stop listening, end all sessions and wait for what they leave to be recorded."""
        for server in self._servers:
            server.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for task in tuple(self._serving):
            task.cancel()
        self._sessions.drop(self._sessions.imsis())
        if self._serving:
            await asyncio.wait(tuple(self._serving))
        while self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def proxy(self) -> str:
        """Where the forwarder listens: ``socks5://host:port``."""
        return self._proxy

    def listens(self) -> Mapping[str, int]:
        """Return the ports of attaching and of the forwarder."""
        return {"attach": _port(self._servers[1]), "forwarder": _port(self._servers[0])}

    def attached(self) -> int:
        """Return how many devices are attached now."""
        return len(self._sessions)

    def drop(self, imsis: Iterable[str]) -> None:
        """End these subscriptions' sessions at once; from any thread."""
        gone = tuple(imsis)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._sessions.drop, gone)

    # --- attaching --------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        code = "network-closed"
        try:
            with self._tracked(), self._admitted():
                async with asyncio.timeout(self._settings.deadline_s):
                    code = await self._converse(reader, writer)
        except TimeoutError:
            code = "timeout"
        except (OSError, EOFError):
            code = "connection-lost"
        except FirstlightError as error:
            code = error.code
            await _refuse(writer)
        finally:
            self._report(code)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        message = await frames.receive(reader)
        if isinstance(message, Detach):
            known = self._sessions.detach(message.session, message.mac)
            await frames.send(writer, Detached())
            return "detached" if known else "unknown-session"
        if not isinstance(message, Identity):
            raise MalformedError("unexpected-message", "a message out of turn")
        await self._admit(message, reader, writer)
        return "attached"

    async def _admit(self, identity: Identity, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Attach a device.

        1. The identity can be revealed (``bad-suci``).
        2. The subscription may be used (:meth:`firstlight.stores.subscriptions.Subscriptions._usable`).
        3. The device takes the challenge for its network's (``network-rejected``), resynchronising once at most
           (``resync-repeated``).
        4. RES and its MAC hold (``wrong-response``, ``bad-mac``). Then the use is recorded, if 2 still holds.
        """
        imsi = attach_network.identify(identity.suci, self._home_keys)
        pending, message = await self._challenge(imsi, identity, reader, writer)
        if isinstance(message, SyncFailure):
            await self._centre.resynchronise(imsi, pending.vector.rand, message.auts)
            self._report("resynchronised")
            pending, message = await self._challenge(imsi, identity, reader, writer)
        response = _response(message)
        attach_network.check(pending, response)
        session = self._session(pending)
        await self._centre.confirm(imsi, session.id)
        self._sessions.open(session)
        self._opened += 1
        success = attach_network.succeed(pending, response, session.id, self._proxy, self._settings.lifetime_s)
        await frames.send(writer, success)

    async def _challenge(
        self, imsi: str, identity: Identity, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[attach_network.Pending, Message]:
        vector = await self._centre.vector(imsi)
        pending = attach_network.challenge(imsi, identity, vector, self._settings.network)
        await frames.send(writer, pending.challenge)
        return pending, await frames.receive(reader)

    def _session(self, pending: attach_network.Pending) -> Session:
        identifier = self._random.bytes(16)
        msk = pending.keys.msk
        return Session(
            identifier,
            pending.imsi,
            attach.session_proof(msk, identifier),
            attach.detach_mac(msk, identifier),
            self._clock.now() + self._settings.lifetime_s * _SECOND,
        )

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self._tracked():
            await self._forwarder.serve(reader, writer)

    @contextlib.contextmanager
    def _tracked(self) -> Iterator[None]:
        """Have :meth:`close` cancel the running task, which then ends quietly: nobody awaits it."""
        task = asyncio.current_task()
        if task is not None:
            self._serving.add(task)
        try:
            yield
        except asyncio.CancelledError:
            pass
        finally:
            self._serving.discard(task)

    @contextlib.contextmanager
    def _admitted(self) -> Iterator[None]:
        if self._half_open >= self._settings.half_open:
            raise AccessError("network-busy", "too many devices are attaching")
        if not self._bucket.take():
            raise AccessError("rate-limited", "too many attempts")
        self._half_open += 1
        try:
            yield
        finally:
            self._half_open -= 1

    # --- keeping ----------------------------------------------------------------------------------

    async def _sweep(self, standing: Standing | None) -> None:
        seen: object = None
        while True:
            await asyncio.sleep(self._settings.sweep_s)
            self._sessions.expire(self._clock.now())
            if standing is None:
                continue
            opened = self._opened
            try:
                version = (opened, await asyncio.to_thread(standing.version))
                if version != seen:
                    self._sessions.drop(await asyncio.to_thread(standing.unusable, self._sessions.imsis()))
            except FirstlightError as error:
                self._report(error.code)
            else:
                seen = version

    def _session_over(self, session: Session, traffic: Traffic) -> None:
        self._report("session-ended")
        self._spawn(self._record(session.id, traffic))

    async def _record(self, session: bytes, traffic: Traffic) -> None:
        try:
            await self._log.ended(session, traffic)
        except FirstlightError as error:
            self._report(error.code)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _report(self, code: str) -> None:
        self.outcomes[code] += 1
        if self._tell is not None:
            self._tell(code)


class _Bucket:
    """A token bucket: so many a second, four seconds' worth at once."""

    def __init__(self, rate: int, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._level = 4.0 * rate
        self._at = clock.now()

    def take(self) -> bool:
        now = self._clock.now()
        self._level = min(4.0 * self._rate, self._level + max(0, now - self._at) * self._rate / _SECOND)
        self._at = now
        if self._level < 1:
            return False
        self._level -= 1
        return True


def _response(message: Message) -> Response:
    if isinstance(message, Reject):
        raise AccessError("network-rejected", "the device does not take this network for its own")
    if isinstance(message, SyncFailure):
        raise AccessError("resync-repeated", "a second resynchronisation in one attach")
    if not isinstance(message, Response):
        raise MalformedError("unexpected-message", "a message out of turn")
    return message


async def _refuse(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        await frames.send(writer, Refusal())


def _port(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port
