"""Serving ABCI 2.0 on a socket: messages with their length as a varint in front, answered in order.

CometBFT opens four connections (consensus, mempool, queries, snapshots) and sends without waiting. One event loop
answers them all, one request at a time, so that the application needs no locks. What is no request is answered with
an exception that says so, and that connection ends; the others and the application go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any, Protocol

from firstlight.engines import abci_messages as messages
from firstlight.errors import FirstlightError, MalformedError
from firstlight.logs import Log

MAX_MESSAGE = 64 * 2**20
"""Bytes of one message: a block of 4 MiB, or a chunk of a snapshot (16 MiB), and room."""
_LONGEST_VARINT = 5


class Handler(Protocol):
    """What answers requests."""

    def answer(self, method: str, request: Any) -> Any:
        """Return the message that answers a request; raises :class:`FirstlightError` if the node cannot go on."""
        ...


async def read_message(reader: asyncio.StreamReader) -> bytes | None:
    """Return the next message, or nothing at the end of the stream.

    Raises :class:`MalformedError`: ``bad-length`` (no varint), ``too-large``, ``cut-short``.
    """
    size = shift = 0
    while True:
        byte = await reader.read(1)
        if not byte:
            if shift:
                raise MalformedError("cut-short", "the stream ends within a length")
            return None
        size |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            break
        if shift >= 7 * _LONGEST_VARINT:
            raise MalformedError("bad-length", "the length is no varint of 32 bits")
    if size > MAX_MESSAGE:
        raise MalformedError("too-large", f"a message of {size} bytes, at most {MAX_MESSAGE}")
    try:
        return await reader.readexactly(size)
    except asyncio.IncompleteReadError as error:
        raise MalformedError("cut-short", f"{len(error.partial)} of {size} bytes") from error


def delimited(message: bytes) -> bytes:
    """Return a message with its length in front."""
    size, out = len(message), bytearray()
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    out.append(size)
    return bytes(out) + message


class AbciServer:
    """Answers the connections to a listening socket, in a thread and an event loop of its own."""

    def __init__(self, listener: socket.socket, handler: Handler, log: Log) -> None:
        """Begin to answer; ``listener`` is taken over."""
        self._handler = handler
        self._log = log
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        listener.setblocking(False)
        self._thread = threading.Thread(target=self._loop.run_forever, name="firstlight-abci", daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._start(listener), self._loop).result()

    def close(self) -> None:
        """End all connections and stop listening. Closing twice does nothing."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self, listener: socket.socket) -> asyncio.Server:
        serve = asyncio.start_unix_server if listener.family == socket.AF_UNIX else asyncio.start_server
        server: asyncio.Server = await serve(self._serve, sock=listener, limit=2**20)
        return server

    async def _stop(self) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while (data := await read_message(reader)) is not None:
                method, request = messages.read(data)
                writer.write(delimited(messages.write(method, self._handler.answer(method, request))))
                await writer.drain()
        except FirstlightError as error:
            self._log.refusal(error)
            exception = messages.kind("ResponseException")(error=str(error))
            writer.write(delimited(messages.write("exception", exception)))
        except ConnectionError:
            pass
        finally:
            self._writers.discard(writer)
            with contextlib.suppress(ConnectionError):
                writer.close()
                await writer.wait_closed()


@contextlib.contextmanager
def serving(listener: socket.socket, handler: Handler, log: Log) -> Iterator[AbciServer]:
    """Serve while the block runs."""
    server = AbciServer(listener, handler, log)
    try:
        yield server
    finally:
        server.close()
