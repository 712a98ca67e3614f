"""A family of child processes that lives and dies with us.

Every child leads a process group of its own, so that Ctrl-C reaches us alone and we end the children in order, and has
a parent-death signal, so that none outlives us even if we are killed. What a child prints goes to a file. Ending takes
at most five seconds: SIGTERM to all, then SIGKILL to what is left of their groups.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from firstlight.errors import FirstlightError, MalformedError, StoreError
from firstlight.files import PRIVATE_FILE, private_directory
from firstlight.logs import LOG_FILE

TERM_SECONDS = 3.0
KILL_SECONDS = 1.5
PAUSE = 0.02
LAST_LINES = 8
_TAIL_BYTES = 8192
_PR_SET_PDEATHSIG = 1
_ENDING_US = (signal.SIGINT, signal.SIGTERM)


class ChildError(FirstlightError):
    """A child that ended by itself (``child-ended``), was not ready in time (``child-late``) or ``child-not-run``."""


@dataclass(frozen=True, slots=True)
class Child:
    """One running child: its name, its process, where its output goes and which directory is its state."""

    name: str
    process: subprocess.Popen[bytes]
    output: Path
    state_dir: Path | None

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def last_lines(self) -> str:
        """Return the last lines of what it printed, or of its log if it printed nothing."""
        tail = _tail(self.output)
        if not tail and self.state_dir is not None:
            tail = _tail(self.state_dir / LOG_FILE)
        return "\n".join(tail.splitlines()[-LAST_LINES:])


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return file.read().decode(errors="replace").strip()
    except OSError:
        return ""


class Family:
    """Starts children, watches them and ends them; a context manager, inside which SIGTERM ends us like Ctrl-C.

    Use from the main thread: the parent-death signal follows the thread that starts a child.
    """

    def __init__(
        self,
        output_dir: Path,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Put what children print into ``output_dir`` as ``<name>.out``."""
        self._output_dir = private_directory(output_dir)
        self._monotonic = monotonic
        self._sleep = sleep
        self._libc = ctypes.CDLL(None)
        self._former: Any = None
        self.children: list[Child] = []

    def __enter__(self) -> Self:
        self._former = signal.signal(signal.SIGTERM, _interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            signal.signal(signal.SIGTERM, self._former)

    def start(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        state_dir: Path | None = None,
    ) -> Child:
        """Start a child with exactly ``environment`` (without it, with ours).

        Raises :class:`ChildError` (``child-not-run``).
        """
        output = self._output_dir / f"{name}.out"
        parent = os.getpid()

        def before_exec() -> None:
            self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)

        with deferred():
            try:
                descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, PRIVATE_FILE)
                try:
                    process = subprocess.Popen(  # noqa: S603 - a list, no shell
                        list(arguments),
                        env=None if environment is None else dict(environment),
                        cwd=directory,
                        stdin=subprocess.DEVNULL,
                        stdout=descriptor,
                        stderr=descriptor,
                        process_group=0,
                        preexec_fn=before_exec,  # noqa: PLW1509 - one thread, and nothing but two system calls
                    )
                finally:
                    os.close(descriptor)
            except (OSError, subprocess.SubprocessError) as error:
                raise ChildError("child-not-run", f"{name}: {error}") from error
            child = Child(name, process, output, state_dir)
            self.children.append(child)
        return child

    def check(self) -> None:
        """Raise :class:`ChildError` (``child-ended``) if a child has ended by itself, with its last lines."""
        for child in self.children:
            if child.process.poll() is not None:
                raise ChildError("child-ended", f"{child.name} {_ending(child.process)}\n{child.last_lines()}")

    def forget(self, child: Child) -> None:
        """Stop watching a child that may end by itself."""
        self.children.remove(child)

    def wait_until(self, fact: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait for ``fact``.

        Raises :class:`ChildError`: ``child-late`` after ``seconds``, ``child-ended`` if a child ends before.
        """
        end = self._monotonic() + seconds
        while not fact():
            self.check()
            if self._monotonic() > end:
                raise ChildError("child-late", f"{what}: not within {seconds:g} s")
            self._sleep(PAUSE)

    def wait_for_endpoint(self, child: Child, seconds: float = 60.0) -> str:
        """Return the URL that a child wrote to ``endpoint`` in its state directory; errors as :meth:`wait_until`."""
        found: list[str] = []
        self.wait_until(lambda: _has_endpoint(child, found), f"{child.name} is ready", seconds)
        return found[0]

    def watch(self) -> None:
        """Wait until a child ends by itself (``child-ended``) or Ctrl-C."""
        while True:
            self.check()
            self._sleep(10 * PAUSE)

    def stop(self) -> None:
        """End all children, at once, within five seconds; Ctrl-C meanwhile does not leave one behind."""
        former = {number: signal.signal(number, signal.SIG_IGN) for number in _ENDING_US}
        try:
            alive = [child for child in self.children if child.process.poll() is None]
            for child in alive:
                child.process.send_signal(signal.SIGTERM)
            self._gone(TERM_SECONDS)
            for child in alive:
                _kill_group(child)
            self._gone(KILL_SECONDS)
            self.children.clear()
        finally:
            for number, handler in former.items():
                signal.signal(number, handler or signal.SIG_DFL)

    def _gone(self, seconds: float) -> None:
        end = self._monotonic() + seconds
        while any(child.process.poll() is None for child in self.children) and self._monotonic() < end:
            self._sleep(PAUSE)


@contextmanager
def deferred() -> Iterator[None]:
    """Put Ctrl-C and SIGTERM off until the block has ended, so that no child is started and forgotten."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    former = {number: signal.signal(number, lambda number, _: came.append(number)) for number in _ENDING_US}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler or signal.SIG_DFL)
        for given in came:
            signal.raise_signal(given)


def _has_endpoint(child: Child, found: list[str]) -> bool:
    from firstlight.transports.endpoint import read_endpoint

    assert child.state_dir is not None
    try:
        endpoint = read_endpoint(child.state_dir)
    except (StoreError, MalformedError):
        return False
    if endpoint.pid == child.pid:
        found.append(endpoint.url)
    return bool(found)


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise KeyboardInterrupt


def _ending(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _kill_group(child: Child) -> None:
    """Kill what is left of a child's group, also where the child itself is gone."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
