"""A network of their own for programs that anybody who reaches them may command.

As root such a program runs in a fresh network namespace, whose loopback nobody else on the machine reaches
(``network_namespaces(7)``); we reach into it by the kernel's file for it in ``/proc``.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import threading
from pathlib import Path

_NEW_NETWORK = 0x4000_0000
"""CLONE_NEWNET (``setns(2)``)."""
LOOPBACK_UP = 'ip link set lo up && exec "$0" "$@"'
"""What a shell in a fresh namespace runs, the program and its arguments being its own."""


def can_be_private() -> bool:
    """Whether this process may make such a network and enter it."""
    return os.geteuid() == 0


async def dial_inside(pid: int, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a TCP connection inside the network of process ``pid``; raises :class:`OSError`."""
    loop = asyncio.get_running_loop()
    made: asyncio.Future[socket.socket] = loop.create_future()
    # A thread of its own: it never comes back from the other network.
    threading.Thread(target=_enter, args=(pid, loop, made), daemon=True).start()
    one = await made
    try:
        await loop.sock_connect(one, (host, port))
        return await asyncio.open_connection(sock=one)
    except BaseException:
        one.close()
        raise


def _enter(pid: int, loop: asyncio.AbstractEventLoop, made: asyncio.Future[socket.socket]) -> None:
    try:
        one = _socket_inside(pid)
    except OSError as error:
        loop.call_soon_threadsafe(_fail, made, error)
    else:
        loop.call_soon_threadsafe(_give, made, one)


def _socket_inside(pid: int) -> socket.socket:
    descriptor = os.open(Path("/proc") / str(pid) / "ns" / "net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_ino == Path("/proc/self/ns/net").stat().st_ino:
            raise ConnectionRefusedError(f"process {pid} has no network of its own yet")
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, _NEW_NETWORK) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)
    one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    one.setblocking(False)
    return one


def _give(made: asyncio.Future[socket.socket], one: socket.socket) -> None:
    if made.done():
        one.close()
    else:
        made.set_result(one)


def _fail(made: asyncio.Future[socket.socket], error: OSError) -> None:
    if not made.done():
        made.set_exception(error)
