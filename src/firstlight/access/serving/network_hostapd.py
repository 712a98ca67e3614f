"""An access network that hostapd serves: EAP over RADIUS, for the operator's own ports and for whoever has the secret.

    device ── EAP ── port (NAS) ── RADIUS ── front ── RADIUS ── hostapd ── lines ── authentication centre

The front records each success before the port hears of it (:mod:`firstlight.access.serving.radius_front`). What the
EAP server offers, and whose an identity is, says a :class:`Backend`: for subscriptions that is :class:`AkaBackend`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from firstlight.access.ports import AuthenticationCentre, Names, SessionLog, Traffic
from firstlight.access.serving.aka_socket import AkaSocket, PlainNames
from firstlight.access.serving.copies import CopyWatch
from firstlight.access.serving.daemons import Daemon
from firstlight.access.serving.hostapd import EapMethods, EapServer, RadiusClient, aka_methods
from firstlight.access.serving.network_port import Report, Standing
from firstlight.access.serving.port_guard import PortGuard, moved
from firstlight.access.serving.radius_front import Proven, RadiusFront
from firstlight.access.serving.wired_ports import Authenticator, WiredPorts
from firstlight.errors import AccessError, FirstlightError, StoreError
from firstlight.files import private_directory, read_limited, write_atomic
from firstlight.ports import Random

RADIUS = "radius.secret"
SIM_DB = "aka"
PLACES = "places.json"
MAX_PLACES = 65_536
WIRED = "wired://802.1x"
"""The endpoint of a grant whose device attaches at the port that it is plugged into."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
_IDENTITY = re.compile(r"[06]([0-9]{1,20})(@[A-Za-z0-9.-]{1,200})?")


@dataclass(frozen=True, slots=True)
class HostapdSettings:
    """Where it serves. ``port`` is RADIUS's; 0: the system chooses. Times are in seconds."""

    directory: Path
    """The network's own directory: configurations, sockets and the RADIUS secret."""
    host: str = "127.0.0.1"
    port: int = 0
    clients: Sequence[str] = ("127.0.0.0/8",)
    """Who may ask over RADIUS."""
    ports: Sequence[str] = ()
    """Interfaces that are 802.1X ports of this network; without any, it only answers over RADIUS."""
    lobby: Sequence[str] = ()
    """Where devices at those ports may go before they are attached, as ``host:port``."""
    destinations: Sequence[str] = ()
    """Where they may go once they are, as ``host:port`` and ``host:*``."""
    sweep_s: float = 0.5


@dataclass(slots=True)
class _Session:
    """A subscription in use; ``port`` is one of ours, or empty."""

    id: bytes
    port: str
    mac: str
    before: Traffic
    """What the port had moved when the session began."""


class Users(Protocol):
    """Writes down who used what: an :class:`AuthenticationCentre`, or what confirms certificates."""

    async def confirm(self, imsi: str, session: bytes) -> None:
        """Record a successful use durably; raises :class:`AccessError` if it may not be used any more."""
        ...


class Server(Protocol):
    """A running EAP server."""

    @property
    def port(self) -> int:
        """The UDP port on which RADIUS is answered."""
        ...

    @property
    def daemon(self) -> Daemon:
        """The program."""
        ...

    async def stop(self) -> None:
        """Stop it."""
        ...


class Backend(Protocol):
    """What an EAP server asks, and whose identities are."""

    async def serve(self, directory: Path, client: RadiusClient) -> Server:
        """Run the server for ``client``, with files and sockets in a ``directory`` of its own, if it does not run yet.

        Errors as :meth:`firstlight.access.serving.daemons.Daemon.start`, ``port-unavailable``.
        """
        ...

    async def subscriber(self, identity: str, where: str) -> str:
        """Return who proved himself under an EAP identity at a place (port and hardware address).

        Raises :class:`AccessError`: ``unknown-subscriber``, ``name-used``, ``subscription-copied``.
        """
        ...

    async def close(self) -> None:
        """Stop answering."""
        ...


class AkaBackend:
    """EAP-AKA' and EAP-AKA, with an authentication centre of ours behind hostapd's socket."""

    def __init__(
        self,
        centre: AuthenticationCentre,
        report: Report,
        names: Names | None = None,
        *,
        copies: CopyWatch | None = None,
    ) -> None:
        """Answer from ``centre``; identities hold what ``names`` knows, else IMSIs; ``copies`` looks for those."""
        self._copies = copies
        self._centre = centre
        self._report = report
        self._names: Names = names or PlainNames()
        self._socket: AkaSocket | None = None

    async def serve(self, directory: Path, client: RadiusClient) -> EapServer:
        """Run hostapd with what :meth:`start` returns; errors as the port."""
        server = EapServer(directory, await self.start(directory), [client])
        await server.start()
        return server

    async def start(self, directory: Path) -> EapMethods:
        """Listen at ``aka`` in ``directory``; :class:`AccessError` (``port-unavailable``)."""
        await self.close()
        self._socket = AkaSocket(
            private_directory(directory) / SIM_DB, self._centre, self._names, self._report, copies=self._copies
        )
        self._socket.start()
        return aka_methods(Path(SIM_DB))

    async def subscriber(self, identity: str, where: str) -> str:
        """Return the IMSI behind an identity like ``6<name>@realm``, whose name is bound to the place; errors: port."""
        found = _IDENTITY.fullmatch(identity)
        if found is None:
            raise AccessError("unknown-subscriber", "not an identity of a subscription")
        imsi = await self._names.imsi(found[1])
        await self._names.used(found[1], where)
        if self._socket is not None:
            await self._socket.proven(found[1], imsi)
        return imsi

    async def close(self) -> None:
        """Stop listening."""
        if self._socket is not None:
            await self._socket.close()
            self._socket = None


class HostapdNetwork:
    """A running network (:class:`firstlight.access.serving.network_port.NetworkServing`)."""

    def __init__(
        self,
        settings: HostapdSettings,
        *,
        backend: Backend,
        users: Users,
        log: SessionLog,
        random: Random,
        report: Report | None = None,
    ) -> None:
        """Wire it together; nothing runs yet."""
        self._settings = settings
        self._backend = backend
        self._users = users
        self._log = log
        self._random = random
        self._tell = report
        self.outcomes: Counter[str] = Counter()
        """How often each outcome was reported."""
        self._secret = ""
        self._server: Server | None = None
        self._front: RadiusFront | None = None
        self._sessions: dict[str, _Session] = {}
        self._guard: PortGuard | None = None
        self._ports: WiredPorts | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self, standing: Standing | None = None) -> None:
        """Serve; errors as the port."""
        own = self._settings
        self._loop = asyncio.get_running_loop()
        self._secret = radius_secret(own.directory, self._random)
        try:
            await self._start_server()
            self._front = RadiusFront(self._server_port, self._secret, self._admit, self._report)
            await self._front.start(own.host, own.port)
            if own.ports:
                self._guard = PortGuard(own.ports, lobby=own.lobby, destinations=own.destinations)
                await self._start_ports(self._guard)
        except BaseException:
            await self.close()
            raise
        self._spawn(self._supervise(lambda: self.daemon, self._start_server))
        if self._ports is not None and self._guard is not None:
            guard, ports = self._guard, self._ports
            self._spawn(self._supervise(lambda: ports.daemon, lambda: self._start_ports(guard)))
        if standing is not None:
            standing.watch(self.drop)
            self._spawn(self._sweep(standing))

    async def close(self) -> None:
        """End everything and record it."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._ports is not None:
            await self._ports.stop()
        if self._guard is not None:
            await self._shut(self._guard.shut_all())
        if self._front is not None:
            await self._front.close()
        if self._server is not None:
            await self._server.stop()
        await self._backend.close()
        for imsi in tuple(self._sessions):
            await self._end(imsi)

    @property
    def endpoint(self) -> str:
        """Where devices attach: at a wired port, or wherever somebody asks over RADIUS."""
        return WIRED if self._settings.ports else f"radius://{self._settings.host}:{self.radius_port}"

    @property
    def radius_port(self) -> int:
        """The UDP port on which RADIUS is answered; 0 before :meth:`start`."""
        return 0 if self._front is None else self._front.port

    @property
    def secret(self) -> str:
        """What proves a port of this network over RADIUS."""
        return self._secret

    @property
    def server(self) -> Server:
        """The EAP server; :class:`AccessError` (``daemon-died``) before :meth:`start`."""
        if self._server is None:
            raise AccessError("daemon-died", "hostapd was not started")
        return self._server

    @property
    def daemon(self) -> Daemon:
        """The EAP server's process; errors as :attr:`server`."""
        return self.server.daemon

    def listens(self) -> Mapping[str, int]:
        """Return the port of RADIUS."""
        return {"radius": self.radius_port}

    def attached(self) -> int:
        """Return how many subscriptions are in use."""
        return len(self._sessions)

    def drop(self, imsis: Iterable[str]) -> None:
        """End these subscriptions' sessions at once; from any thread."""
        gone = tuple(imsis)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._drop, gone)

    async def authenticate_all(self) -> None:
        """Have every device at a port prove itself anew; hostapd shuts the ports of those that cannot."""
        if self._ports is not None:
            for session in tuple(self._sessions.values()):
                if session.port:
                    await self._ports.authenticate_again(session.port, session.mac)

    # --- success and its end ----------------------------------------------------------------------

    async def _admit(self, proven: Proven) -> None:
        """Record a success before anybody hears of it.

        1. The identity is somebody's, here and nowhere else, and no copy's (``unknown-subscriber``, ``name-used``).
        2. The subscription may be used still (:meth:`firstlight.stores.subscriptions.Subscriptions._usable`).
        Raises :class:`FirstlightError`.
        """
        imsi = await self._backend.subscriber(proven.identity, f"{proven.port} {proven.mac}")
        port = proven.port if proven.port in self._settings.ports else ""
        session = _Session(self._random.bytes(16), port, proven.mac, moved(port) if port else Traffic(0, 0))
        with self._handing_over(imsi, session):
            await self._users.confirm(imsi, session.id)
        elsewhere = self._sessions.get(imsi)
        if elsewhere is not None and (elsewhere.port, elsewhere.mac) != (port, proven.mac):
            await self._throw_out(imsi)
        former = next((other for other, one in self._sessions.items() if port and one.port == port), None)
        if former is not None and former != imsi:
            self._spawn(self._end(former, shut=False))
        self._sessions[imsi] = session

    @contextlib.contextmanager
    def _handing_over(self, imsi: str, session: _Session) -> Iterator[None]:
        """Have what the device has used at its port so far out of the way; if the block fails, it stands.

        It may end with the first use of what takes its place, and that must not shut the port.
        """
        place = (session.port, session.mac)
        former = next(
            (
                (other, one)
                for other, one in self._sessions.items()
                if session.port and other != imsi and (one.port, one.mac) == place
            ),
            None,
        )
        if former is None:
            yield
            return
        del self._sessions[former[0]]
        try:
            yield
        except BaseException:
            self._sessions[former[0]] = former[1]
            raise
        self._spawn(self._record(former[1]))

    async def _port_changed(self, port: str, mac: str, authorised: bool) -> None:
        """Open a port for whoever has just proven himself there, and shut it to whoever is authorised no more."""
        guard = self._guard
        if guard is None:
            return
        imsi = next(
            (one for one, session in self._sessions.items() if (session.port, session.mac) == (port, mac)), None
        )
        if imsi is None:
            await self._shut(guard.shut(port))
        elif authorised:
            await self._shut(guard.open(port, mac))
            await asyncio.to_thread(_keep_places, self._settings.directory, guard.places())
            self._report("port-open")
        else:
            await self._end(imsi)

    def _drop(self, imsis: tuple[str, ...]) -> None:
        for imsi in imsis:
            if imsi in self._sessions:
                self._spawn(self._throw_out(imsi))

    async def _throw_out(self, imsi: str) -> None:
        """Shut the port, then have hostapd ask: the device cannot answer any more, and learns that it is out."""
        session = self._sessions.get(imsi)
        await self._end(imsi)
        if session is not None and session.port and self._ports is not None:
            await self._ports.authenticate_again(session.port, session.mac)

    async def _end(self, imsi: str, *, shut: bool = True) -> None:
        session = self._sessions.pop(imsi, None)
        if session is None:
            return
        if shut and session.port and self._guard is not None:
            await self._shut(self._guard.shut(session.port))
            self._report("port-shut")
        await self._record(session)

    async def _record(self, session: _Session) -> None:
        """Write down that a session is over."""
        traffic = Traffic(0, 0)
        if session.port and self._guard is not None:
            now = moved(session.port)
            traffic = Traffic(max(0, now.sent - session.before.sent), max(0, now.received - session.before.received))
        self._report("session-ended")
        try:
            await self._log.ended(session.id, traffic)
        except FirstlightError as error:
            self._report(error.code)

    async def _shut(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except FirstlightError as error:
            self._report(error.code)

    async def _sweep(self, standing: Standing) -> None:
        seen: object = None
        while True:
            await asyncio.sleep(self._settings.sweep_s)
            known = tuple(self._sessions)
            try:
                version = (known, await asyncio.to_thread(standing.version))
                if version != seen:
                    self._drop(tuple(await asyncio.to_thread(standing.unusable, known)))
            except FirstlightError as error:
                self._report(error.code)
            else:
                seen = version

    # --- the server -------------------------------------------------------------------------------

    async def _start_server(self) -> None:
        client = RadiusClient("127.0.0.1", self._secret)
        self._server = await self._backend.serve(self._settings.directory / "eap", client)

    async def _start_ports(self, guard: PortGuard) -> None:
        """Shut all ports, have hostapd guard them, and ask the devices that were there before to prove themselves."""
        before = guard.places() or _read_places(self._settings.directory)
        await guard.shut_all()
        if self._ports is None:
            asked = Authenticator(self.radius_port, self._secret)
            self._ports = WiredPorts(
                self._settings.directory / "ports", self._settings.ports, asked, self._port_changed
            )
        else:
            await self._ports.stop()
            for imsi in tuple(self._sessions):
                await self._end(imsi)
        await self._ports.start()
        for port, mac in before.items():
            await self._ports.ask_again(port, mac)

    async def _supervise(self, daemon: Callable[[], Daemon], start: Callable[[], Awaitable[None]]) -> None:
        """Start a program again when it ends by itself, after a pause that grows."""
        pause = FIRST_PAUSE
        while True:
            running = daemon()
            death = await running.ended()
            if not running.stopping:
                self._report(death.code)
            while True:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                try:
                    await start()
                except FirstlightError as error:
                    self._report(error.code)
                else:
                    break

    def _server_port(self) -> int:
        return 0 if self._server is None else self._server.port

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _report(self, code: str) -> None:
        self.outcomes[code] += 1
        if self._tell is not None:
            self._tell(code)


def _keep_places(directory: Path, places: Mapping[str, str]) -> None:
    """Write down who is where, for the next start; without it devices notice in time that their port is shut."""
    with contextlib.suppress(StoreError):
        write_atomic(directory / PLACES, json.dumps(dict(places)).encode())


def _read_places(directory: Path) -> dict[str, str]:
    try:
        found = json.loads(read_limited(directory / PLACES, MAX_PLACES))
    except (StoreError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def radius_secret(directory: Path, random: Random) -> str:
    """Return the secret of a network's ports, made at the first start and kept in ``directory`` (0600).

    Raises :class:`StoreError`.
    """
    path = private_directory(directory) / RADIUS
    try:
        return read_limited(path, 64, private=True).decode("ascii")
    except StoreError as error:
        if error.code != "file-missing":
            raise
    with contextlib.suppress(StoreError):
        write_atomic(path, random.bytes(24).hex().encode(), exclusive=True)
    return read_limited(path, 64, private=True).decode("ascii")
