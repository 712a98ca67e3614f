"""Programs that others wrote, run as our children for as long as we live.

Each runs in a private directory (0700) that holds its configuration (0600), which is also its working directory, so
that names in its configuration may be short and relative. What it prints is kept in memory alone, the last lines of
it, with everything cut out that could be a key or an identity. ``setpriv`` (util-linux) has the kernel kill it when
the thread that started it dies, by whatever; a program that ends by itself is said so, once, to whoever asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from firstlight.errors import AccessError
from firstlight.files import PRIVATE_FILE, private_directory

START_SECONDS = 15.0
STOP_SECONDS = 3.0
PAUSE = 0.01
LAST_LINES = 40
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SECRET = re.compile(
    r"(?:[0-9a-fA-F]{2}[ :]?){8,}|[0-9]{12,}"
    r"|(?=[A-Za-z+/_=-]*[0-9])(?=[a-z0-9+/_=-]*[A-Z])(?=[A-Z0-9+/_=-]*[a-z])[A-Za-z0-9+/_=-]{22,}"
)
Ready = Callable[[], Awaitable[bool]]
"""Says whether a daemon serves now; asked again and again until it does."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program, and the Debian package that brings it."""

    name: str
    package: str

    def find(self) -> str:
        """Return its path; :class:`AccessError` (``daemon-missing``)."""
        found = shutil.which(self.name, path=_PATH)
        if found is None:
            hint = f"apt-get install {self.package}"
            raise AccessError("daemon-missing", f"there is no {self.name} on this machine", hint=hint)
        return found

    @property
    def there(self) -> bool:
        """Whether it is installed."""
        return shutil.which(self.name, path=_PATH) is not None


HOSTAPD = Program("hostapd", "hostapd")
EAPOL_TEST = Program("eapol_test", "eapoltest")
WPA_SUPPLICANT = Program("wpa_supplicant", "wpasupplicant")
FREERADIUS = Program("freeradius", "freeradius")
OSMO_HLR = Program("osmo-hlr", "osmo-hlr")
MOSQUITTO = Program("mosquitto", "mosquitto")
NFT = Program("nft", "nftables")
IP = Program("ip", "iproute2")
_SETPRIV = Program("setpriv", "util-linux")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to run a daemon: its arguments, its directory, and when it serves.

    ``files`` are written into the directory first, by name; secrets belong there, never among the arguments.
    ``ready`` is asked until it says yes; a daemon without one serves as soon as it runs.
    """

    program: Program
    arguments: Sequence[str]
    directory: Path
    files: Mapping[str, str | bytes] = field(default_factory=dict, repr=False)
    ready: Ready | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    seconds: float = START_SECONDS
    """How long it may take until it serves."""
    reload: signal.Signals | None = signal.SIGHUP
    """What makes it read its files again."""
    death: str = "KILL"
    """What the kernel sends it when we die: ``TERM`` for one that must put something away first."""
    hear: Callable[[str], None] | None = field(default=None, repr=False)
    """Told each line that it prints, as it is."""
    inherits: Sequence[int] = ()
    """File descriptors that stay open in it."""


class Daemon:
    """A running child; make one with :meth:`start`."""

    def __init__(self, recipe: Recipe, process: asyncio.subprocess.Process) -> None:
        """Look after ``process``."""
        self._recipe = recipe
        self._process = process
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self._stopping = False
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, recipe: Recipe) -> Daemon:
        """Write its files, run it and wait until it serves.

        Raises :class:`AccessError`: ``daemon-missing``, ``daemon-died`` with the last that it said, ``daemon-late``;
        :class:`firstlight.errors.StoreError` of the files.
        """
        program = recipe.program.find()
        private_directory(recipe.directory)
        for name, content in recipe.files.items():
            put(recipe.directory / name, content)
        try:
            process = await asyncio.create_subprocess_exec(
                *(_SETPRIV.find(), "--pdeathsig", recipe.death, "--", program, *recipe.arguments),
                cwd=recipe.directory,
                env={"PATH": _PATH, "LC_ALL": "C.UTF-8", **recipe.environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                pass_fds=recipe.inherits,
            )
        except OSError as error:
            raise AccessError("daemon-died", f"{recipe.program.name}: {error.strerror or error}") from error
        daemon = cls(recipe, process)
        try:
            await daemon._wait_ready()
        except BaseException:
            await daemon.stop()
            raise
        return daemon

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.returncode is None

    @property
    def stopping(self) -> bool:
        """Whether it was told to end."""
        return self._stopping

    def said(self) -> str:
        """Return the last lines that it printed, without anything that could be a secret."""
        return "\n".join(self._lines)

    async def ended(self) -> AccessError:
        """Wait until it ends by itself, and return what to say of it (``daemon-died``)."""
        await self._process.wait()
        await self._reader
        return self._death()

    async def wait(self) -> int:
        """Wait until it ends, and return its exit code."""
        return await self._process.wait()

    def reload(self) -> None:
        """Have it read its files again, if it can; one that has ended is left alone."""
        if self._recipe.reload is not None and self.alive:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(self._recipe.reload)

    async def stop(self) -> None:
        """End it: politely, and after :data:`STOP_SECONDS` for certain, with all that it started."""
        self._stopping = True
        try:
            if self.alive:
                with contextlib.suppress(ProcessLookupError):
                    self._process.terminate()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STOP_SECONDS):
                        await self._process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def _wait_ready(self) -> None:
        ready = self._recipe.ready
        if ready is None:
            return
        try:
            async with asyncio.timeout(self._recipe.seconds):
                while not await ready():
                    if not self.alive:
                        await self._reader
                        raise self._death()
                    await asyncio.sleep(PAUSE)
        except TimeoutError as error:
            detail = f"{self._recipe.program.name} did not serve within {self._recipe.seconds:g} s: {self.said()}"
            raise AccessError("daemon-late", detail) from error

    def _death(self) -> AccessError:
        code = self._process.returncode
        return AccessError("daemon-died", f"{self._recipe.program.name} ended with {code}: {self.said()}")

    async def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(OSError, asyncio.LimitOverrunError):
            while line := await _line(self._process.stdout):
                self._lines.append(redacted(line))
                if self._recipe.hear is not None:
                    self._recipe.hear(line.rstrip("\n"))


async def _line(stream: asyncio.StreamReader) -> str:
    try:
        return (await stream.readline()).decode(errors="replace")
    except ValueError:
        return "(a line too long)\n"


def redacted(line: str) -> str:
    """Return a line with everything cut out that could be a key, an identity or a certificate."""
    return _SECRET.sub("…", line.rstrip("\n"))


def put(path: Path, content: str | bytes) -> None:
    """Replace a file that a daemon reads by ``content`` (0600), as a whole."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_FILE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
    temporary.replace(path)


@contextlib.asynccontextmanager
async def running(recipe: Recipe) -> AsyncIterator[Daemon]:
    """Have a daemon run while the block does; errors as :meth:`Daemon.start`."""
    daemon = await Daemon.start(recipe)
    try:
        yield daemon
    finally:
        await daemon.stop()
