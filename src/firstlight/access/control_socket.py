"""The control interface of hostapd and wpa_supplicant: commands and events over a UNIX datagram socket.

Lines that begin with ``<n>`` or ``CTRL-REQ-`` are events, everything else answers the last command.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

from firstlight.errors import AccessError

SECONDS = 5.0
_MOST = 65_536
_LONGEST = 100
"""Bytes of a path that fit into a socket's address."""
_EVENT = re.compile(r"<\d+>")


@contextlib.contextmanager
def reachable(path: Path) -> Iterator[str]:
    """Have a name for a socket's path that fits into an address, however long the path is."""
    if len(os.fsencode(path)) < _LONGEST:
        yield str(path)
        return
    descriptor = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)


class ControlSocket:
    """One connection to a daemon's control interface; used by one event loop."""

    def __init__(self, path: Path) -> None:
        """Connect to the socket at ``path``; :class:`AccessError` (``daemon-silent``) if nobody listens there.

        Our own address is a file beside it, where its path is short enough, else one that the kernel chooses and that
        is no file; the latter is reached from the same network namespace only. Nobody else can send to either.
        """
        own = path.parent / f".{secrets.token_hex(6)}"
        self._own = own if len(os.fsencode(own)) < _LONGEST else None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._answers: asyncio.Queue[str] = asyncio.Queue()
        self._turn = asyncio.Lock()
        self.events: asyncio.Queue[str] = asyncio.Queue()
        """What happened, in order, without the level in front; after :meth:`attach`."""
        try:
            self._socket.bind("" if self._own is None else str(self._own))
            with reachable(path) as there:
                self._socket.connect(there)
        except OSError as error:
            self.close()
            raise AccessError("daemon-silent", f"{path.name}: {error.strerror or error}") from error
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)

    async def attach(self) -> None:
        """Be told of events from now on; :class:`AccessError` (``daemon-silent``, ``daemon-refused``)."""
        if await self.ask("ATTACH") != "OK":
            raise AccessError("daemon-refused", "ATTACH")

    async def ask(self, command: str, *, seconds: float = SECONDS) -> str:
        """Return the answer to a command, without its last newline; :class:`AccessError` (``daemon-silent``)."""
        async with self._turn:
            while not self._answers.empty():
                self._answers.get_nowait()
            self._send(command)
            try:
                async with asyncio.timeout(seconds):
                    return await self._answers.get()
            except TimeoutError as error:
                raise AccessError("daemon-silent", f"no answer to {command.split(' ', maxsplit=1)[0]}") from error

    def tell(self, command: str) -> None:
        """Send a command whose answer nobody waits for; :class:`AccessError` (``daemon-silent``)."""
        self._send(command)

    def close(self) -> None:
        """Let go of it."""
        if self._socket.fileno() >= 0:
            with contextlib.suppress(AttributeError):
                self._loop.remove_reader(self._socket)
            self._socket.close()
        if self._own is not None:
            with contextlib.suppress(OSError):
                self._own.unlink()

    def _send(self, command: str) -> None:
        try:
            self._socket.send(command.encode())
        except OSError as error:
            raise AccessError("daemon-silent", error.strerror or str(error)) from error

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                text = self._socket.recv(_MOST).decode(errors="replace").rstrip("\n")
                event = _EVENT.match(text)
                if event is not None or text.startswith("CTRL-"):
                    self.events.put_nowait(text[event.end() if event else 0 :])
                else:
                    self._answers.put_nowait(text)


async def answers(path: Path, command: str = "PING", expected: str = "PONG") -> bool:
    """Say whether a daemon answers on its control interface at ``path``."""
    try:
        control = ControlSocket(path)
    except AccessError:
        return False
    try:
        return await control.ask(command, seconds=0.5) == expected
    except AccessError:
        return False
    finally:
        control.close()
