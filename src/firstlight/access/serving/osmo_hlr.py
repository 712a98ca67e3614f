"""osmo-hlr, an operator's home location register, run as a child of ours, or one that runs already.

Nobody has to prove anything to osmo-hlr: whoever reaches its GSUP port gets vectors, its control port tells keys, its
telnet port takes commands (behind a password that is drawn anew here each time). As root it therefore runs in a network
of its own, into which only its parent reaches. Elsewhere it listens on a loopback address that nobody else uses, and
everybody on the machine can talk to it there: ``hlr-open`` is reported.

It logs nothing: at its levels below `fatal` it would write IMSIs, and keys at the lowest.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from firstlight.access.private_network import LOOPBACK_UP, can_be_private, dial_inside
from firstlight.access.serving.daemons import OSMO_HLR, PAUSE, START_SECONDS, Daemon, Program, Recipe
from firstlight.access.serving.gsup import HEADER
from firstlight.access.serving.gsup_client import Streams
from firstlight.errors import AccessError, StoreError
from firstlight.files import private_directory

PORT = 4222
DATABASE = "hlr.sqlite"
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
_CONFIGURATION = "osmo-hlr.cfg"
_UNSHARE = Program("unshare", "util-linux")
Report = Callable[[str], None]


def configuration(host: str, password: str) -> str:
    """Return osmo-hlr's configuration: everything on the one address, nothing logged, no telnet without password."""
    return f"""password {password}
enable password {password}
log stderr
 logging filter all 1
 logging color 0
 logging print category 0
 logging level set-all fatal
line vty
 login
 bind {host}
ctrl
 bind {host}
hlr
 gsup
  bind ip {host}
"""


def draw_loopback() -> str:
    """Return a loopback address that nobody else is likely to use: osmo-hlr's ports are the same everywhere."""
    return f"127.{64 + secrets.randbelow(64)}.{secrets.randbelow(256)}.{secrets.randbelow(256)}"


@dataclass(frozen=True, slots=True)
class HlrAddress:
    """A register that runs already: its GSUP port, and its database on this machine."""

    host: str
    port: int
    database: Path


class OsmoHlr:
    """A register that is a child of ours, started again whenever it ends by itself."""

    def __init__(self, directory: Path, report: Report | None = None, *, private: bool | None = None) -> None:
        """Run it in ``directory``; ``private`` says whether in a network of its own, without it wherever that works."""
        self._directory = directory
        self._report = report or (lambda _code: None)
        self._private = can_be_private() if private is None else private
        self.host = "127.0.0.1" if self._private else draw_loopback()
        """The address on which it listens; in a network of its own that is another's."""
        self._daemon: Daemon | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def database(self) -> Path:
        """Where its database is."""
        return self._directory / DATABASE

    @property
    def pid(self) -> int:
        """The process id; :class:`AccessError` (``daemon-died``) before :meth:`start`."""
        if self._daemon is None:
            raise AccessError("daemon-died", "osmo-hlr was not started")
        return self._daemon.pid

    def said(self) -> str:
        """Return the last lines that it printed, without anything that could be a secret."""
        return "" if self._daemon is None else self._daemon.said()

    async def start(self) -> None:
        """Run it, and from now on again and again; errors as :meth:`Daemon.start`."""
        if not self._private:
            self._report("hlr-open")
        await self._run()
        self._task = asyncio.create_task(self._supervise())

    async def close(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._daemon is not None:
            await self._daemon.stop()

    async def dial(self) -> Streams:
        """Open a connection to its GSUP port; raises :class:`OSError`."""
        daemon = self._daemon
        if daemon is None or not daemon.alive:
            raise ConnectionRefusedError("osmo-hlr does not run")
        if self._private:
            return await dial_inside(daemon.pid, self.host, PORT)
        return await asyncio.open_connection(self.host, PORT)

    async def _run(self) -> None:
        OSMO_HLR.find()
        try:
            private_directory(self._directory)
            self.database.touch(mode=0o600)  # osmo-hlr would make it as open as its umask says
            self.database.chmod(0o600)
        except OSError as error:
            raise StoreError("file-not-written", f"{self.database}: {error.strerror or error}") from error
        program, arguments = self._command()
        files = {_CONFIGURATION: configuration(self.host, secrets.token_hex(16))}
        self._daemon = await Daemon.start(Recipe(program, arguments, self._directory, files, reload=None))
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await _answers(self.dial):
                    if not self._daemon.alive:
                        raise await self._daemon.ended()
                    await asyncio.sleep(PAUSE)
        except TimeoutError as error:
            await self._daemon.stop()
            raise AccessError("daemon-late", f"osmo-hlr did not serve within {START_SECONDS:g} s") from error
        except BaseException:
            await self._daemon.stop()
            raise

    def _command(self) -> tuple[Program, tuple[str, ...]]:
        own = ("-c", _CONFIGURATION, "-l", DATABASE)
        if not self._private:
            return OSMO_HLR, own
        return _UNSHARE, ("--net", "--", "sh", "-c", LOOPBACK_UP, OSMO_HLR.find(), *own)

    async def _supervise(self) -> None:
        pause = FIRST_PAUSE
        while True:
            assert self._daemon is not None
            self._report((await self._daemon.ended()).code)
            await self._daemon.stop()
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            try:
                await self._run()
            except (AccessError, StoreError) as error:
                self._report(error.code)
            else:
                pause = FIRST_PAUSE
                self._report("hlr-restarted")


class RunningHlr:
    """A register that somebody else runs."""

    def __init__(self, address: HlrAddress) -> None:
        """Talk to the one at ``address``."""
        self._address = address

    @property
    def database(self) -> Path:
        """Where its database is."""
        return self._address.database

    async def start(self) -> None:
        """Nothing is to be started."""

    async def close(self) -> None:
        """Nothing is to be ended."""

    async def dial(self) -> Streams:
        """Open a connection to its GSUP port; raises :class:`OSError`."""
        return await asyncio.open_connection(self._address.host, self._address.port)


async def _answers(dial: Callable[[], Awaitable[Streams]]) -> bool:
    """Say whether a register is there: it speaks first."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        reader, writer = await dial()
        try:
            await reader.readexactly(HEADER)
            return True
        finally:
            writer.close()
    return False
