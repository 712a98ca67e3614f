"""An access network that hostapd serves: EAP over RADIUS, for the operator's own ports and for whoever has the secret.

    device ── EAP ── port (NAS) ── RADIUS ── front ── RADIUS ── hostapd ── lines ── authentication centre

The front records each success before the port hears of it (:mod:`firstlight.access.serving.radius_front`). What the
EAP server offers, and whose an identity is, says a :class:`Backend`: for subscriptions that is :class:`AkaBackend`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from firstlight.access.ports import AuthenticationCentre, SessionLog, Traffic
from firstlight.access.serving.aka_socket import AkaSocket, Names, PlainNames
from firstlight.access.serving.daemons import Daemon
from firstlight.access.serving.hostapd import EapMethods, EapServer, RadiusClient, aka_methods
from firstlight.access.serving.network_port import Report, Standing
from firstlight.access.serving.radius_front import RadiusFront
from firstlight.errors import AccessError, FirstlightError, StoreError
from firstlight.files import private_directory, read_limited, write_atomic
from firstlight.ports import Random

RADIUS = "radius.secret"
SIM_DB = "aka"
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
    sweep_s: float = 0.5


class Users(Protocol):
    """Writes down who used what: an :class:`AuthenticationCentre`, or what confirms certificates."""

    async def confirm(self, imsi: str, session: bytes) -> None:
        """Record a successful use durably; raises :class:`AccessError` if it may not be used any more."""
        ...


class Backend(Protocol):
    """What an EAP server asks, and whose identities are."""

    async def start(self, directory: Path) -> EapMethods:
        """Begin to answer, with files and sockets in the server's own ``directory``; return what it offers."""
        ...

    async def subscriber(self, identity: str) -> str:
        """Return who proved himself under an EAP identity; :class:`AccessError` (``unknown-subscriber``)."""
        ...

    async def close(self) -> None:
        """Stop answering."""
        ...


class AkaBackend:
    """EAP-AKA' and EAP-AKA, with an authentication centre of ours behind hostapd's socket."""

    def __init__(self, centre: AuthenticationCentre, report: Report, names: Names | None = None) -> None:
        """Answer from ``centre``; identities hold what ``names`` knows, else IMSIs."""
        self._centre = centre
        self._report = report
        self._names: Names = names or PlainNames()
        self._socket: AkaSocket | None = None

    async def start(self, directory: Path) -> EapMethods:
        """Listen at ``aka`` in ``directory``; :class:`AccessError` (``port-unavailable``)."""
        await self.close()
        self._socket = AkaSocket(private_directory(directory) / SIM_DB, self._centre, self._names, self._report)
        self._socket.start()
        return aka_methods(Path(SIM_DB))

    async def subscriber(self, identity: str) -> str:
        """Return the IMSI behind an identity like ``6<name>@realm``; :class:`AccessError` (``unknown-subscriber``)."""
        found = _IDENTITY.fullmatch(identity)
        if found is None:
            raise AccessError("unknown-subscriber", "not an identity of a subscription")
        return await self._names.imsi(found[1])

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
        self._server: EapServer | None = None
        self._front: RadiusFront | None = None
        self._sessions: dict[str, bytes] = {}
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
        except BaseException:
            await self.close()
            raise
        self._spawn(self._supervise())
        if standing is not None:
            standing.watch(self.drop)
            self._spawn(self._sweep(standing))

    async def close(self) -> None:
        """End everything and record it."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._front is not None:
            await self._front.close()
        if self._server is not None:
            await self._server.stop()
        await self._backend.close()
        for imsi in tuple(self._sessions):
            await self._end(imsi)

    @property
    def endpoint(self) -> str:
        """Where devices attach."""
        return f"radius://{self._settings.host}:{self.radius_port}"

    @property
    def radius_port(self) -> int:
        """The UDP port on which RADIUS is answered; 0 before :meth:`start`."""
        return 0 if self._front is None else self._front.port

    @property
    def secret(self) -> str:
        """What proves a port of this network over RADIUS."""
        return self._secret

    @property
    def daemon(self) -> Daemon:
        """The EAP server; :class:`AccessError` (``daemon-died``) before :meth:`start`."""
        if self._server is None:
            raise AccessError("daemon-died", "hostapd was not started")
        return self._server.daemon

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

    # --- success and its end ----------------------------------------------------------------------

    async def _admit(self, identity: str) -> None:
        """Record a success before anybody hears of it; :class:`FirstlightError` if it counts no longer."""
        imsi = await self._backend.subscriber(identity)
        session = self._random.bytes(16)
        await self._users.confirm(imsi, session)
        self._sessions[imsi] = session

    def _drop(self, imsis: tuple[str, ...]) -> None:
        for imsi in imsis:
            if imsi in self._sessions:
                self._spawn(self._end(imsi))

    async def _end(self, imsi: str) -> None:
        session = self._sessions.pop(imsi, None)
        if session is None:
            return
        self._report("session-ended")
        try:
            await self._log.ended(session, Traffic(0, 0))
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
        directory = self._settings.directory / "eap"
        methods = await self._backend.start(directory)
        self._server = EapServer(directory, methods, [RadiusClient("127.0.0.1", self._secret)])
        await self._server.start()

    async def _supervise(self) -> None:
        """Start the server again when it ends by itself, after a pause that grows."""
        pause = FIRST_PAUSE
        while True:
            self._report((await self.daemon.ended()).code)
            while True:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                try:
                    await self._start_server()
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
