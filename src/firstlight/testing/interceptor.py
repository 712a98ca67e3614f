"""A gateway that lies: it stands before a real server on loopback, passes everything on, and bends what it is told to.

A test hands it a :data:`Bend` for a path; the bend sees each request and the real answer, and returns what the asker
gets instead. Without bends it is honest, so the same fixture shows the honest exchange first.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

PATIENCE = 120


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: its path with the query, its body and the body's type."""

    method: str
    path: str
    body: bytes
    content_type: str = "application/cbor"


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer."""

    status: int
    content_type: str
    body: bytes

    def with_body(self, body: bytes) -> Answered:
        """Return the answer with another body."""
        return replace(self, body=body)


class Dropped(Exception):  # noqa: N818 - not an error but what a bend wants
    """Raised by a bend that wants the connection to end without an answer."""


Forward = Callable[[Asked], Answered]
"""Asks the real server."""
Bend = Callable[[Asked, Forward], Answered]
"""Answers a request, with the real server's help or without."""


class Interceptor:
    """The lying server; a context manager. It remembers all that went through it in ``seen``."""

    def __init__(self, upstream: str = "") -> None:
        """Stand before the server at URL ``upstream``, which may be named later."""
        self.upstream = upstream
        self._bends: dict[str, Bend] = {}
        self.seen: list[tuple[Asked, Answered | None]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def close(self) -> None:
        """Let the port go; for one that has not begun to serve."""
        self._server.server_close()

    @contextmanager
    def bending(self, part: str, bend: Bend) -> Iterator[None]:
        """Bend all requests whose path contains ``part``, as long as the context lasts."""
        self._bends[part] = bend
        try:
            yield
        finally:
            del self._bends[part]

    def answer(self, asked: Asked) -> Answered:
        """Return what the asker gets; raises :class:`Dropped`."""
        bend = next((bend for part, bend in self._bends.items() if part in asked.path), None)
        given: Answered | None = None
        try:
            given = self.forward(asked) if bend is None else bend(asked, self.forward)
        finally:
            self.seen.append((asked, given))
        return given

    def forward(self, asked: Asked) -> Answered:
        """Ask the real server."""
        parts = urlsplit(self.upstream)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)
        try:
            connection.request(asked.method, asked.path, asked.body, {"content-type": asked.content_type})
            response = connection.getresponse()
            body = response.read()
            return Answered(response.status, response.getheader("content-type", ""), body)
        finally:
            connection.close()


def _handler(interceptor: Interceptor) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            asked = Asked(self.command, self.path, self.rfile.read(length), self.headers.get("content-type", ""))
            try:
                given = interceptor.answer(asked)
            except (Dropped, OSError):
                self.close_connection = True
                return
            self.send_response(given.status)
            self.send_header("content-type", given.content_type)
            self.send_header("content-length", str(len(given.body)))
            self.end_headers()
            self.wfile.write(given.body)

        do_GET = do_POST = do_PUT = _serve  # noqa: N815 - the names that http.server calls

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    return Handler
