"""The broker mosquitto as a service's broker: a child process whose configuration is written here.

mosquitto itself does mutual TLS 1.3 with the revocation list, names each client by its certificate and keeps it to its
own topics. The service reads as a subscriber over a UNIX socket (``service_subscriber``). Its directory holds

    mosquitto.conf, acl, password, authority.pem, crl.pem   what mosquitto reads; acl and crl.pem again with SIGHUP
    mosquitto.db   what it has taken and the service has not kept yet
    reader.sock    where the service connects
    lock           held for as long as a mosquitto uses the directory

A new revocation list counts for handshakes alone, and mosquitto drops nobody for it. So whoever is revoked stands in
the access list too, and may do nothing from then on, and is put out, as whoever greets later than he was revoked: the
service connects under his client identifier, which a broker must then take from the older connection (MQTT-3.1.4-2).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import pwd
import re
import socket
from base64 import b64encode
from collections.abc import Callable, Iterable
from pathlib import Path

from firstlight.access.serving.daemons import MOSQUITTO, Daemon, Recipe, put
from firstlight.access.serving.service_port import BrokerIdentity, Endpoint, Kept, Published
from firstlight.access.serving.service_subscriber import DISCONNECT, USER, Entrance, Subscriber
from firstlight.enrolment.issue import crl_serials, crl_to_pem, to_pem
from firstlight.enrolment.topics import ROOT, is_credential_name
from firstlight.errors import AccessError, FirstlightError
from firstlight.files import PRIVATE_FILE, private_directory
from firstlight.logs import Log
from firstlight.ports import Clock, Random

Named = Callable[[frozenset[int]], Iterable[str]]
"""Returns the names of the certificates with these serial numbers."""
CONFIGURATION, ACCESS, PASSWORD, TRUST, REVOKED = "mosquitto.conf", "acl", "password", "authority.pem", "crl.pem"
DATABASE, SOCKET, LOCK = "mosquitto.db", "reader.sock", "lock"
MAX_CLIENTS = 8_192
MAX_PAYLOAD = 65_536
MAX_QUEUED = 65_536
MAX_QUEUED_BYTES = 67_108_864
MAX_IN_FLIGHT = 1_000
MEMORY = 1_073_741_824
PASSWORD_BYTES, SALT_BYTES, ROUNDS = 16, 12, 101
ATTEMPTS = 5
"""How often another port is tried if somebody was faster."""
PATIENCE = 15.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
_PROBE = "service-probe"
_CONNECTED = re.compile(r"New client connected from \S+ as (\S+) \(.*\bu'([^']*)'\)\.")
_TAKEN_OVER = re.compile(r"Client (\S+) already connected, closing old connection\.")
_GONE = re.compile(
    r"Client (\S+) (?:closed|disconnected|has exceeded|been disconnected)|Bad socket \w+ on client (\S+?):"
)
_CODES = (
    ("peer did not return a certificate", "certificate-missing"),
    ("unsupported protocol", "tls-version-refused"),
    ("certificate verify failed", "certificate-refused"),
    ("messages are being dropped", "message-dropped"),
    ("max_connections", "broker-full"),
    ("OpenSSL Error", "tls-failed"),
    ("Error:", "broker-error"),
)
"""What of the broker's own log is passed on, under which code; the first that fits."""

_GENERAL = f"""\
user {{user}}
allow_anonymous false
acl_file {ACCESS}
password_file {PASSWORD}
persistence true
persistence_location ./
persistence_file {DATABASE}
autosave_interval 1
sys_interval 0
retain_available false
allow_zero_length_clientid false
message_size_limit {MAX_PAYLOAD}
memory_limit {MEMORY}
max_inflight_messages {MAX_IN_FLIGHT}
max_queued_messages {MAX_QUEUED}
max_queued_bytes {MAX_QUEUED_BYTES}
connection_messages true
log_dest stderr
log_timestamp false
log_type error
log_type warning
log_type notice
log_type information
listener 0 {SOCKET}
"""
_DEVICES = f"""\
listener {{port}} {{host}}
max_connections {MAX_CLIENTS}
cafile {TRUST}
crlfile {REVOKED}
certfile {{certificate}}
keyfile {{key}}
tls_version tlsv1.3
require_certificate true
use_identity_as_username true
use_username_as_clientid true
"""


async def settled(directory: Path) -> None:
    """Wait until no mosquitto uses ``directory`` any more: one whose service was killed puts its messages away first.

    Raises :class:`AccessError` (``broker-busy``).
    """
    os.close(await _lock(directory))


async def _lock(directory: Path) -> int:
    path = private_directory(directory) / LOCK
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        async with asyncio.timeout(PATIENCE):
            while not _locked(descriptor):  # noqa: ASYNC110 - another process's
                await asyncio.sleep(FIRST_PAUSE)
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, TimeoutError):
            raise AccessError("broker-busy", f"another mosquitto uses {directory}") from error
        raise
    return descriptor


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class MosquittoBroker:
    """A :class:`firstlight.access.serving.service_port.ServiceBroker` in a process of its own.

    What the port says of acknowledgements holds with one difference: mosquitto tells a client that its message has
    arrived when it has taken it, before the service has kept it. Until that has, mosquitto keeps it too, and puts it on
    its disk within a second and when it ends.
    """

    def __init__(
        self,
        directory: Path,
        identity: BrokerIdentity,
        crl: bytes,
        *,
        named: Named,
        clock: Clock,
        random: Random,
        log: Log,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """Prepare a broker in ``directory`` with a first DER revocation list; ``port`` 0 lets the system choose.

        ``named`` says whose certificates a list revokes.
        """
        self._directory = directory
        self._identity = identity
        self._crl = crl
        self._named = named
        self._log = log
        self._host = host
        self._wanted = port
        self._port = 0
        self._entrance = Entrance(directory, SOCKET, random.bytes(PASSWORD_BYTES).hex())
        self._salt = random.bytes(SALT_BYTES)
        self._subscriber = Subscriber(self._entrance, clock=clock, log=log)
        self._daemon: Daemon | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._lock: int | None = None
        self._live: set[str] = set()
        self._revoked: frozenset[str] = frozenset()
        self._running = asyncio.Event()
        self._reloading = asyncio.Event()
        self._putting_out = asyncio.Lock()
        self._out: _Out | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def messages(self, callback: Callable[[Published, Kept], None]) -> None:
        """Call ``callback`` with every message; it runs in the event loop and must not block.

        What it is given with the message it calls once that is kept: until then the broker keeps it too.
        """
        self._subscriber.listen(callback)

    @property
    def endpoint(self) -> Endpoint:
        """Where the broker listens."""
        if self._daemon is None:
            raise AccessError("broker-not-started", "the broker does not listen")
        return Endpoint(self._host, self._port)

    @property
    def pid(self) -> int:
        """The process that serves now; ``broker-not-started``."""
        if self._daemon is None:
            raise AccessError("broker-not-started", "the broker does not listen")
        return self._daemon.pid

    async def start(self) -> None:
        """Listen; raises as the port says, and the errors of a bad revocation list.

        At the first time the service subscribes before any device can connect: what a device said before would have
        gone to nobody.
        """
        self._lock = await _lock(self._directory)
        try:
            self._write(self._crl)
            if not (self._directory / DATABASE).exists():
                await self._launch("")
                await self._subscriber.start()
                await self._subscriber.stop()
                await self._end()
            await self._listen()
            await self._subscriber.start()
        except BaseException:
            await self.stop()
            raise
        self._keeping = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """End every connection and stop listening."""
        tasks = [*self._tasks, *([self._keeping] if self._keeping else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._keeping = None
        await self._subscriber.stop()
        await self._end()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def reload_crl(self, crl: bytes) -> None:
        """Use ``crl`` for every handshake from now on, and put out whom it revokes.

        Raises :class:`AccessError` (``broker-not-reloaded``) too; one that ended meanwhile begins with the new list.
        """
        try:
            self._write(crl)
        except OSError as error:
            raise AccessError("broker-not-reloaded", str(error)) from error
        self._crl = crl
        daemon = self._daemon
        if daemon is None or not daemon.alive:
            return
        self._reloading.clear()
        daemon.reload()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._reloading.wait()
                await self._answered()
        except (OSError, EOFError, TimeoutError) as error:
            raise AccessError("broker-not-reloaded", type(error).__name__) from error
        for name in self._live & self._revoked:
            await self._put_out_revoked(name)

    async def disconnect(self, name: str) -> bool:
        """Drop the client ``name``; tell whether it was connected."""
        return is_credential_name(name) and await self._put_out(name)

    # --- the process ------------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Start it with its port; raises :class:`AccessError` (``broker-not-started``)."""
        for attempt in range(ATTEMPTS):
            self._port = self._wanted or _free_port(self._host)
            try:
                await self._launch(self._listener())
            except AccessError as error:
                taken = "Address already in use" in error.detail
                if self._wanted or not taken or attempt == ATTEMPTS - 1:
                    code = "broker-bad-files" if "Unable to load" in error.detail else "broker-not-started"
                    raise AccessError(code, error.detail, hint=error.hint) from error
            else:
                return

    def _listener(self) -> str:
        own = self._identity
        return _DEVICES.format(
            port=self._port, host=self._host, certificate=own.certificate.absolute(), key=own.key.absolute()
        )

    async def _launch(self, listener: str) -> None:
        self._running.clear()
        self._live.clear()

        async def ready() -> bool:
            return self._running.is_set()

        general = _GENERAL.format(user=pwd.getpwuid(os.geteuid()).pw_name)
        self._daemon = await Daemon.start(
            Recipe(
                MOSQUITTO,
                ("-c", CONFIGURATION),
                self._directory,
                {CONFIGURATION: general + listener, PASSWORD: _password_line(self._entrance.password, self._salt)},
                ready,
                death="TERM",
                hear=self._hear,
                inherits=() if self._lock is None else (self._lock,),
            )
        )

    async def _end(self) -> None:
        daemon, self._daemon = self._daemon, None
        if daemon is not None:
            await daemon.stop()
        self._live.clear()

    async def _keep(self) -> None:
        """Start it again whenever it ends by itself, on the same port: devices were told that."""
        pause = FIRST_PAUSE
        while True:
            daemon = self._daemon
            if daemon is not None:
                self._log.refusal(await daemon.ended(), step="broker")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            try:
                await self._launch(self._listener())
                self._log.info("broker-restarted")
                pause = FIRST_PAUSE
            except FirstlightError as error:
                self._daemon = None
                self._log.refusal(error, step="broker")

    def _write(self, crl: bytes) -> None:
        """Write what mosquitto reads again; errors of :func:`crl_serials`, and then nothing is written."""
        authority = self._identity.authority
        serials = crl_serials(crl, anchor=authority)
        self._revoked = frozenset(self._named(serials))
        denied = "".join(f"user {name}\ntopic deny {ROOT}/{name}/#\n" for name in sorted(self._revoked))
        own = f"user {USER}\ntopic read {ROOT}/#\n"
        directory = private_directory(self._directory)
        put(directory / ACCESS, f"{own}{denied}pattern readwrite {ROOT}/%u/#\n")
        put(directory / TRUST, to_pem(authority))
        put(directory / REVOKED, crl_to_pem(crl))

    # --- what it says -----------------------------------------------------------------------------

    def _hear(self, line: str) -> None:
        if line.startswith("mosquitto version") and line.endswith("running"):
            self._running.set()
        elif line == "Reloading config.":
            self._reloading.set()
        elif found := _CONNECTED.match(line):
            self._came(found[1], found[2])
        elif found := _TAKEN_OVER.match(line):
            if self._out is not None and self._out.name == found[1]:
                self._out.was_in = True
        elif found := _GONE.match(line):
            self._live.discard(found[1] or found[2])
        else:
            code = next((code for words, code in _CODES if words in line), None)
            if code is not None:
                self._log.warning(code, detail=line[:200], step="broker")

    def _came(self, client: str, user: str) -> None:
        if user == USER:
            if self._out is not None and self._out.name == client:
                self._out.done.set()
            return
        self._live.add(client)
        if client in self._revoked:
            task = asyncio.create_task(self._put_out_revoked(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._log.info("client-connected", peer=client, count=len(self._live))

    # --- putting clients out ----------------------------------------------------------------------

    async def _put_out_revoked(self, name: str) -> None:
        self._log.warning("certificate-revoked", peer=name, detail="live connection dropped")
        try:
            await self._put_out(name)
        except (FirstlightError, OSError, EOFError, TimeoutError) as error:
            self._log.error("client-not-dropped", peer=name, error=type(error).__name__)

    async def _put_out(self, name: str) -> bool:
        """Take a client's place for a moment; tell whether there was one."""
        async with self._putting_out, asyncio.timeout(PATIENCE):
            self._out = out = _Out(name)
            try:
                _, writer = await self._entrance.enter(name, clean=True)
                await out.done.wait()
                await _leave(writer)
            finally:
                self._out = None
        self._live.discard(name)
        return out.was_in

    async def _answered(self) -> None:
        """Wait until the broker has answered once: it has done by then what it was told to before."""
        _, writer = await self._entrance.enter(_PROBE, clean=True)
        await _leave(writer)


class _Out:
    """Somebody who is being put out: whether he was in, and when the broker has said so."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.was_in = False
        self.done = asyncio.Event()


async def _leave(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.write(DISCONNECT)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


def _password_line(password: str, salt: bytes) -> str:
    """Return a line of mosquitto's password file: PBKDF2 with SHA-512, as mosquitto_passwd writes it."""
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ROUNDS)
    return f"{USER}:$7${ROUNDS}${b64encode(salt).decode()}${b64encode(key).decode()}\n"


def _free_port(host: str) -> int:
    """Return a port that nobody listens on; :class:`AccessError` (``broker-not-started``)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, 0), family=family) as taken:
            port: int = taken.getsockname()[1]
            return port
    except OSError as error:
        raise AccessError("broker-not-started", str(error)) from error
