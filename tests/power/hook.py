"""Loaded into a process at its start: numbers its durable writes and its messages, and kills it at one of them.

A point is a kind, what it is about, and which occurrence of that since the process was armed. ``power/<name>.order``
beside the interpreter says what to do, where the name is that of the process's state directory: to record all points
in ``<name>.points``, or to die before or after one of them. Whoever dies leaves ``<name>.died``, so that a point that
was never reached is seen. A new order, told by its serial number, starts the counting anew.

    create, fsync, rename, link, unlink, mkdir, fsync-directory    of files in the state directory
    commit                                                         of SQLite, by database and tables
    request-out, answer-in, request-in, answer-out                 HTTP, by method and path
    frame-out, frame-in                                            the attach protocol, by message
    tunnel-out, tunnel-in                                          connections through the network's forwarder
    mqtt-out, mqtt-in                                              MQTT, by packet

What a process sends it dies before having sent, and after: when it has left the process. What it receives it dies
after, with nothing done about it yet; before it, the sender is at the point after sending.
"""

from __future__ import annotations

import asyncio
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import re
import signal
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{16}")
_NAMED = re.compile(r"[0-9a-f]{16,}")
_WRITES = re.compile(
    r"\s*(?:INSERT(?:\s+OR\s+\w+)?\s+INTO|REPLACE\s+INTO|UPDATE|DELETE\s+FROM)\s+\"?(\w+)", re.IGNORECASE
)
_PACKETS = {0x10: "CONNECT", 0x20: "CONNACK", 0x30: "PUBLISH", 0x40: "PUBACK", 0xE0: "DISCONNECT"}
_lock = threading.RLock()


class Point(NamedTuple):
    """One occurrence of something; ``fatal`` is the moment at which the process dies here, if it does."""

    kind: str
    what: str
    occurrence: int
    fatal: str


class Watch:
    """Counts the points of this process, and does what it is ordered."""

    def __init__(self, home: Path, name: str, directory: Path) -> None:
        self.directory = str(directory)
        self._order = home / f"{name}.order"
        self._points = home / f"{name}.points"
        self._died = home / f"{name}.died"
        self._stamp = 0
        self._orders: dict[str, Any] = {}
        self._seen: Counter[tuple[str, str]] = Counter()

    def arrive(self, kind: str, what: str, *moments: str) -> Point:
        """Count a point at which the process can die at any of ``moments``; die if it is to die before it."""
        with _lock:
            self._read()
            self._seen[kind, what] += 1
            occurrence = self._seen[kind, what]
            orders = self._orders
            if orders.get("record"):
                with self._points.open("a") as file:
                    file.write(json.dumps([kind, what, occurrence, moments]) + "\n")
            fatal = orders["when"] if orders.get("point") == [kind, what, occurrence] else ""
        point = Point(kind, what, occurrence, fatal)
        self.passed(point, "before")
        return point

    def passed(self, point: Point, moment: str) -> None:
        """Die if this is the moment."""
        if point.fatal == moment:
            self._died.write_text(json.dumps({**self._orders, "pid": os.getpid()}))
            os.kill(os.getpid(), signal.SIGKILL)

    def _read(self) -> None:
        try:
            stamp = self._order.stat().st_mtime_ns
        except FileNotFoundError:
            return
        if stamp == self._stamp:
            return
        orders = json.loads(self._order.read_bytes())
        if orders.get("serial") != self._orders.get("serial"):
            self._seen.clear()
        spent = self._died.exists() and json.loads(self._died.read_bytes()).get("serial") == orders.get("serial")
        self._stamp, self._orders = stamp, {"serial": orders.get("serial")} if spent else orders


async def _gone(transport: Any) -> None:
    """Wait until what was written has left the process."""
    for _ in range(4):
        await asyncio.sleep(0)
    while transport.get_write_buffer_size() and not transport.is_closing():  # noqa: ASYNC110 - waits for the fact
        await asyncio.sleep(0)


class _Connection(sqlite3.Connection):
    """Tells of what it makes durable."""

    watch: Watch
    database = ""
    tables: tuple[str, ...] = ()
    before = 0

    def execute(self, sql: str, *arguments: Any) -> Any:
        if sql.startswith("BEGIN"):
            self.tables, self.before = (), self.total_changes
        if sql == "COMMIT" and self.total_changes != self.before:
            return self._durable(lambda: sqlite3.Connection.execute(self, sql), ",".join(self.tables))
        return self._written(sql, lambda: sqlite3.Connection.execute(self, sql, *arguments))

    def executemany(self, sql: str, *arguments: Any) -> Any:
        return self._written(sql, lambda: sqlite3.Connection.executemany(self, sql, *arguments))

    def _written(self, sql: str, run: Callable[[], Any]) -> Any:
        found = _WRITES.match(sql)
        if found is None:
            return run()
        if not self.in_transaction:
            return self._durable(run, found[1])
        result = run()
        if found[1] not in self.tables:
            self.tables += (found[1],)
        return result

    def _durable(self, run: Callable[[], Any], tables: str) -> Any:
        point = self.watch.arrive("commit", f"{self.database} {tables}", "before", "after")
        result = run()
        self.watch.passed(point, "after")
        return result


class _Hooks:
    """What is put around the primitives."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self._tasks: set[Any] = set()

    def sent_soon(self, point: Point, transport: Any) -> None:
        """Die, if it is to be after this point, as soon as what was written has left the process."""
        if point.fatal == "after":
            self._tasks.add(asyncio.ensure_future(self.sent(point, transport)))

    async def sent(self, point: Point, transport: Any) -> None:
        if point.fatal == "after":
            await _gone(transport)
            self.watch.passed(point, "after")

    def received(self, kind: str, what: str) -> None:
        self.watch.passed(self.watch.arrive(kind, what, "after"), "after")

    def sending(self, kind: str, what: str) -> Point:
        return self.watch.arrive(kind, what, "before", "after")

    # --- files --------------------------------------------------------------------------------------

    def files(self) -> None:
        self._file("mkdir", "mkdir", 0)
        self._file("unlink", "unlink", 0)
        self._file("replace", "rename", 1)
        self._file("link", "link", 1)
        opening, syncing, watch = os.open, os.fsync, self.watch

        def create(path: Any, flags: int, *rest: Any, **named: Any) -> int:
            what = self._name(path) if flags & os.O_EXCL else None
            if what is None:
                return opening(path, flags, *rest, **named)
            point = watch.arrive("create", what, "before", "after")
            descriptor = opening(path, flags, *rest, **named)
            watch.passed(point, "after")
            return descriptor

        def fsync(descriptor: int) -> None:
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            what = self._name(path)
            if what is None:
                syncing(descriptor)
                return
            kind = "fsync-directory" if path.is_dir() else "fsync"
            point = watch.arrive(kind, what, "before", "after")
            syncing(descriptor)
            watch.passed(point, "after")

        os.open, os.fsync = create, fsync  # type: ignore[assignment]

    def _file(self, function: str, kind: str, argument: int) -> None:
        original = getattr(os, function)

        def traced(*arguments: Any, **named: Any) -> Any:
            what = self._name(arguments[argument])
            exists = function in {"mkdir", "unlink"} and what is not None and Path(arguments[0]).exists()
            if what is None or (function == "mkdir" and exists) or (function == "unlink" and not exists):
                return original(*arguments, **named)
            point = self.watch.arrive(kind, what, "before", "after")
            result = original(*arguments, **named)
            self.watch.passed(point, "after")
            return result

        setattr(os, function, traced)

    def _name(self, path: Any) -> str | None:
        """Return the name of a file in the state directory without what chance has given it; None for others."""
        text = os.path.realpath(os.fspath(path))
        if not text.startswith(self.watch.directory):
            return None
        relative = text[len(self.watch.directory) :].strip("/") or "."
        head, _, tail = relative.rpartition("/")
        found = _TEMPORARY.fullmatch(tail)
        return _NAMED.sub("*", f"{head}/{found[1] if found else tail}".strip("/"))

    # --- databases ----------------------------------------------------------------------------------

    def databases(self) -> None:
        connecting = sqlite3.connect

        def connect(database: Any, *arguments: Any, **named: Any) -> sqlite3.Connection:
            if str(database) == ":memory:":
                return connecting(database, *arguments, **named)
            made: _Connection = connecting(database, *arguments, factory=_Connection, **named)
            made.watch = self.watch
            made.database = Path(database).name
            return made

        sqlite3.connect = connect  # type: ignore[assignment]

    # --- messages -----------------------------------------------------------------------------------

    def plain_client(self, module: Any) -> None:
        exchanging = module._Connection.exchange

        async def exchange(connection: Any, request: bytes, limit: int) -> Any:
            what = _line(request.split(b" HTTP/1.1", 1)[0].decode())
            point = self.sending("request-out", what)
            connection.writer.write(request)
            await self.sent(point, connection.writer.transport)
            answer = await exchanging(connection, b"", limit)
            self.received("answer-in", what)
            return answer

        module._Connection.exchange = exchange

    def sync_client(self, module: Any) -> None:
        kind = module.HTTP11Connection
        head, body, answer = kind._send_request_headers, kind._send_request_body, kind._receive_response_headers

        def what(request: Any) -> str:
            return _line(f"{request.method.decode()} {request.url.target.decode()}")

        def send_head(connection: Any, request: Any) -> None:
            connection.power = self.sending("request-out", what(request))
            head(connection, request)

        def send_body(connection: Any, request: Any) -> None:
            body(connection, request)
            self.watch.passed(connection.power, "after")

        def hear(connection: Any, request: Any) -> Any:
            heard = answer(connection, request)
            self.received("answer-in", what(request))
            return heard

        kind._send_request_headers, kind._send_request_body, kind._receive_response_headers = send_head, send_body, hear

    def server(self, module: Any) -> None:
        kind = module.RequestResponseCycle
        running, answering = kind.run_asgi, kind.send

        def what(cycle: Any) -> str:
            return _line(f"{cycle.scope['method']} {cycle.scope['path']}")

        async def run_asgi(cycle: Any, app: Any) -> None:
            self.received("request-in", what(cycle))
            await running(cycle, app)

        async def send(cycle: Any, message: Any) -> None:
            if message["type"] == "http.response.start":
                cycle.power = self.sending("answer-out", what(cycle))
            await answering(cycle, message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                await self.sent(cycle.power, cycle.transport)

        kind.run_asgi, kind.send = run_asgi, send

    def frames(self, module: Any) -> None:
        sending, receiving = module.send, module.receive

        async def send(writer: Any, message: Any) -> None:
            point = self.sending("frame-out", type(message).__name__)
            await sending(writer, message)
            await self.sent(point, writer.transport)

        async def receive(reader: Any) -> Any:
            message = await receiving(reader)
            self.received("frame-in", type(message).__name__)
            return message

        module.send, module.receive = send, receive

    def dial(self, module: Any) -> None:
        dialling = module.dial

        async def dial(host: str, port: int, proxy: Any = None) -> Any:
            point = self.sending("tunnel-out", "connect")
            connection = await dialling(host, port, proxy)
            self.watch.passed(point, "after")
            return connection

        module.dial = dial

    def forwarder(self, module: Any) -> None:
        serving = module.Forwarder.serve

        async def serve(forwarder: Any, reader: Any, writer: Any) -> None:
            self.received("tunnel-in", "connect")
            await serving(forwarder, reader, writer)

        module.Forwarder.serve = serve

    def session(self, module: Any) -> None:
        greeting, settling = module._greet, module.Session._settle
        hooks = self

        class Writer:
            """A stream writer that tells of packets."""

            def __init__(self, writer: Any) -> None:
                self._writer = writer

            def __getattr__(self, name: str) -> Any:
                return getattr(self._writer, name)

            def write(self, data: bytes) -> None:
                point = hooks.sending("mqtt-out", _packet(data))
                self._writer.write(data)
                hooks.sent_soon(point, self._writer.transport)

        async def greet(reader: Any, writer: Any, access: Any) -> Any:
            session = await greeting(reader, Writer(writer), access)
            self.received("mqtt-in", "CONNACK")
            return session

        def settle(session: Any, event: Any) -> None:
            if type(event).__name__ == "Acknowledged":
                self.received("mqtt-in", "PUBACK")
            settling(session, event)

        module._greet, module.Session._settle = greet, settle

    def door(self, module: Any) -> None:
        writing, reading, greeting = module.Client._write, module.Reader._next, module.read_connect

        def write(client: Any, data: bytes) -> None:
            point = self.sending("mqtt-out", _packet(data))
            writing(client, data)
            self.sent_soon(point, client.transport)

        async def following(reader: Any) -> None:
            await reading(reader)
            if reader._buffer:
                self.received("mqtt-in", _packet(reader._buffer))

        async def read_connect(client: Any) -> Any:
            found = await greeting(client)
            self.received("mqtt-in", "CONNECT")
            return found

        module.Client._write, module.Reader._next, module.read_connect = write, following, read_connect


def _line(text: str) -> str:
    return _NAMED.sub("*", text.partition("?")[0])


def _packet(data: bytes) -> str:
    return _PACKETS.get(data[0] & 0xF0, "other")


class _Finder(importlib.abc.MetaPathFinder):
    """Finds modules as ever, and has something done to some of them once they are loaded."""

    def __init__(self, changes: dict[str, Callable[[ModuleType], None]]) -> None:
        self._changes = changes

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        change = self._changes.get(fullname)
        spec = None if change is None else importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if change is None or spec is None or spec.loader is None:
            return None
        loader: Any = spec.loader
        executing = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            executing(module)
            change(module)

        loader.exec_module = exec_module
        return spec


def _whose() -> Path | None:
    """Return the state directory of a device or server that this process is to be; None for anything else."""
    words = sys.orig_argv
    if "firstlight" not in words:
        return None
    words = words[words.index("firstlight") + 1 :]
    if len(words) < 3 or (words[:2] != ["device", "run"] and words[1] != "serve"):
        return None
    return Path(words[2]).resolve()


def install() -> None:
    """Watch this process if it is one that may be watched."""
    directory = _whose()
    if directory is None:
        return
    hooks = _Hooks(Watch(Path(sys.prefix) / "power", directory.name, directory))
    hooks.files()
    hooks.databases()
    sys.meta_path.insert(
        0,
        _Finder(
            {
                "firstlight.transports.plain": hooks.plain_client,
                "httpcore._sync.http11": hooks.sync_client,
                "uvicorn.protocols.http.httptools_impl": hooks.server,
                "firstlight.access.frames": hooks.frames,
                "firstlight.access.device.service_dial": hooks.dial,
                "firstlight.access.device.service_session": hooks.session,
                "firstlight.access.serving.forwarder": hooks.forwarder,
                "firstlight.access.serving.service_door": hooks.door,
            }
        ),
    )


if __name__ == "power_hook":
    install()
