"""CometBFT as a child process: started, watched, started again when it ends by itself.

It ends with us: when its connections to our application break, it stops by itself, and nothing of it outlives us.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

from firstlight.engines.cometbft_home import RPC_SOCKET
from firstlight.errors import ConfigError, StoreError
from firstlight.files import PRIVATE_FILE
from firstlight.logs import Log

OUTPUT = "output.log"
LEAST_VERSION = (0, 38, 25)
TERM_SECONDS = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
STEADY_SECONDS = 30.0
_MAX_OUTPUT = 8 * 2**20
_TAIL = 400
HINT = (
    "go install github.com/cometbft/cometbft/cmd/cometbft@v0.38.25, then put it on PATH or name it (setting cometbft)"
)


def find(named: str) -> Path:
    """Return the program: a path, or a name on PATH or in the places where Go and ``bin/test`` put it.

    Raises :class:`ConfigError` (``cometbft-missing``, ``cometbft-version``).
    """
    places = (os.environ.get("PATH", ""), str(cache_directory()), str(Path.home() / "go" / "bin"))
    found = shutil.which(named, path=os.pathsep.join(places))
    if found is None:
        raise ConfigError("cometbft-missing", f"there is no {named}", hint=HINT)
    try:
        answer = subprocess.run([found, "version"], capture_output=True, text=True, timeout=20, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError("cometbft-missing", f"{found} does not run: {error}", hint=HINT) from error
    stated = answer.stdout.strip().partition("+")[0]
    numbers = tuple(int(one) for one in stated.split(".") if one.isdecimal())
    if len(numbers) != len(LEAST_VERSION) or numbers[:2] != LEAST_VERSION[:2] or numbers < LEAST_VERSION:
        raise ConfigError(
            "cometbft-version", f"{found} is {stated!r:.40}, not 0.38.25 or newer of that line", hint=HINT
        )
    return Path(found)


def cache_directory() -> Path:
    """Return where ``bin/test`` keeps the CometBFT that it has built."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "firstlight" / "bin"


class Supervisor:
    """Keeps one CometBFT running over a home directory until it is closed."""

    def __init__(self, program: Path, home: Path, log: Log) -> None:
        """Start it; :class:`StoreError` (``cometbft-not-run``)."""
        self._program = program
        self._home = home
        self._log = log
        self._closing = threading.Event()
        self._process = self._start()
        self._thread = threading.Thread(target=self._watch, name="firstlight-cometbft", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """The process id of the one that runs, or ran last."""
        return self._process.pid

    def close(self) -> None:
        """End it: SIGTERM, and SIGKILL if it does not follow. Closing twice does nothing."""
        self._closing.set()
        self._end()
        self._thread.join()

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(TERM_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        # One that was killed leaves its socket behind, and the next could not listen there.
        (self._home / RPC_SOCKET).unlink(missing_ok=True)
        path = self._home / OUTPUT
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        if path.exists() and path.stat().st_size > _MAX_OUTPUT:
            flags |= os.O_TRUNC
        try:
            output = os.open(path, flags, PRIVATE_FILE)
        except OSError as error:
            raise StoreError("cometbft-not-run", f"{path}: {error.strerror}") from error
        try:
            process = subprocess.Popen(  # noqa: S603 - the program that the settings name
                [self._program, "start", "--home", "."],
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            raise StoreError("cometbft-not-run", f"{self._program}: {error.strerror}") from error
        finally:
            os.close(output)
        self._log.info("cometbft-started", pid=process.pid)
        return process

    def _watch(self) -> None:
        pause = FIRST_PAUSE
        while not self._closing.is_set():
            began = time.monotonic()
            status = self._process.wait()
            if self._closing.is_set():
                return
            if time.monotonic() - began > STEADY_SECONDS:
                pause = FIRST_PAUSE
            self._log.error("cometbft-ended", status=status, pid=self._process.pid, detail=self._last_words())
            if self._closing.wait(pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE)
            try:
                self._process = self._start()
            except StoreError as error:
                self._log.refusal(error)
                continue
            if self._closing.is_set():
                self._end()

    def _last_words(self) -> str:
        try:
            with (self._home / OUTPUT).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
                return file.read().decode(errors="replace")
        except OSError:
            return ""
