"""A network that cannot be trusted, for datagrams: it stands before a real server's UDP port, and does as it is told.

Each client gets a socket of its own towards the server, so that answers find their way. A test hands it a :data:`Bend`,
which sees every datagram and says what is passed on in its place; without one all pass. ``seen`` remembers them.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

MAX_DATAGRAM = 65_536
TURN = 0.2


@dataclass(frozen=True, slots=True)
class Passed:
    """A datagram as it came: from whom (a client's port), whether towards the server, and its bytes."""

    client: int
    up: bool
    data: bytes


Bend = Callable[[Passed], Iterable[bytes]]
"""Says what goes on in the place of a datagram: nothing, itself, others."""


class DatagramTap:
    """The network; a context manager. ``upstream`` is the server's port, which may be named later."""

    def __init__(self, port: int, upstream: int = 0) -> None:
        """Bind 127.0.0.1 ``port``; :class:`OSError` if that is taken."""
        self.upstream = upstream
        self.seen: list[Passed] = []
        self.url = f"coap://127.0.0.1:{port}"
        self._bend: Bend | None = None
        self._front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._front.bind(("127.0.0.1", port))
        except OSError:
            self._front.close()
            raise
        self._backs: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._front, selectors.EVENT_READ, None)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._selector.close()
        for one in (self._front, *self._backs.values()):
            one.close()

    @contextmanager
    def bending(self, bend: Bend) -> Iterator[None]:
        """Bend what passes, as long as the context lasts."""
        self._bend = bend
        try:
            yield
        finally:
            self._bend = None

    def _run(self) -> None:
        while not self._over.is_set():
            for key, _ in self._selector.select(TURN):
                try:
                    if key.data is None:
                        data, address = self._front.recvfrom(MAX_DATAGRAM)
                        self._pass(Passed(address[1], True, data))
                    else:
                        self._pass(Passed(key.data, False, self._backs[key.data].recv(MAX_DATAGRAM)))
                except OSError:
                    continue

    def _pass(self, passed: Passed) -> None:
        self.seen.append(passed)
        bend = self._bend
        for data in (passed.data,) if bend is None else bend(passed):
            if passed.up:
                self._back(passed.client).send(data)
            else:
                self._front.sendto(data, ("127.0.0.1", passed.client))

    def _back(self, client: int) -> socket.socket:
        if client not in self._backs:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.connect(("127.0.0.1", self.upstream))
            self._backs[client] = made
            self._selector.register(made, selectors.EVENT_READ, client)
        return self._backs[client]
