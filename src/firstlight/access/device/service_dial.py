"""A TCP connection to a service, straight or through the attached network's SOCKS5 forwarder (RFC 1928, RFC 1929)."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Iterator

from firstlight.access.ports import Proxy
from firstlight.errors import AccessError

_VERSION, _CONNECT = 5, 1
_NO_AUTHENTICATION, _PASSWORD = 0, 2
_NOT_ALLOWED = 2
_ADDRESS_BYTES = {1: 4, 4: 16}


async def dial(host: str, port: int, proxy: Proxy | None) -> socket.socket:
    """Return a connected, non-blocking socket to ``host`` and ``port``.

    A forwarder without a user name is asked for no authentication.
    Raises :class:`AccessError`: ``service-unreachable``, ``proxy-unreachable`` (the forwarder itself),
    ``proxy-refused`` (it does not let this device through).
    """
    if proxy is None:
        return await _open(host, port, "service-unreachable")
    connection = await open_forwarder(proxy)
    with closed_on_failure(connection):
        await ask_forwarder(connection, _CONNECT, host, port)
    return connection


async def open_forwarder(proxy: Proxy) -> socket.socket:
    """Return a connection to the forwarder that knows who we are; :class:`AccessError` as :func:`dial`."""
    connection = await _open(proxy.host, proxy.port, "proxy-unreachable")
    with closed_on_failure(connection):
        await _negotiate(connection, proxy)
    return connection


@contextlib.contextmanager
def closed_on_failure(*connections: socket.socket) -> Iterator[None]:
    """Close sockets if what is done with them fails.

    A forwarder that hangs up or answers nonsense is :class:`AccessError` (``proxy-refused``).
    """
    try:
        yield
    except BaseException as error:
        for connection in connections:
            connection.close()
        if isinstance(error, OSError | EOFError | ValueError):
            raise AccessError("proxy-refused", f"the forwarder does not serve this: {error}") from error
        raise


async def _open(host: str, port: int, code: str) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        family, kind, protocol, _, address = (await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))[0]
        connection = socket.socket(family, kind, protocol)
    except OSError as error:
        raise AccessError(code, f"{host}:{port}: {error}") from error
    connection.setblocking(False)
    try:
        await loop.sock_connect(connection, address)
    except OSError as error:
        connection.close()
        raise AccessError(code, f"{host}:{port}: {error}") from error
    except BaseException:
        connection.close()
        raise
    return connection


async def _negotiate(connection: socket.socket, proxy: Proxy) -> None:
    method = _PASSWORD if proxy.username else _NO_AUTHENTICATION
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, bytes([_VERSION, 1, method]))
    if await _take(connection, 2) != bytes([_VERSION, method]):
        raise AccessError("proxy-refused", "the forwarder wants another way of authentication")
    if method == _PASSWORD:
        user, password = proxy.username.encode(), proxy.password.encode()
        if len(user) > 255 or len(password) > 255:
            raise AccessError("proxy-refused", "user name or password is longer than SOCKS5 carries")
        await loop.sock_sendall(connection, bytes([1, len(user)]) + user + bytes([len(password)]) + password)
        if (await _take(connection, 2))[1] != 0:
            raise AccessError("proxy-refused", "the forwarder does not know this device")


async def ask_forwarder(connection: socket.socket, command: int, host: str, port: int) -> tuple[str, int]:
    """Send a command (RFC 1928 §4) and return the address in the reply (§6); "" for a name.

    Raises :class:`AccessError` as :func:`dial`, :class:`OSError`, :class:`EOFError`.
    """
    loop = asyncio.get_running_loop()
    request = bytes([_VERSION, command, 0]) + socks_address(host) + port.to_bytes(2)
    await loop.sock_sendall(connection, request)
    version, reply, _, kind = await _take(connection, 4)
    if version != _VERSION:
        raise AccessError("proxy-refused", "the forwarder does not speak SOCKS5")
    if reply == _NOT_ALLOWED:
        raise AccessError("proxy-refused", "the forwarder does not allow this")
    if reply != 0:
        raise AccessError("service-unreachable", f"the forwarder cannot reach it (reply {reply})")
    length = _ADDRESS_BYTES.get(kind) or (await _take(connection, 1))[0]
    bound = await _take(connection, length + 2)
    known = kind in _ADDRESS_BYTES
    return str(ipaddress.ip_address(bound[:-2])) if known else "", int.from_bytes(bound[-2:])


def socks_address(host: str) -> bytes:
    """Return a host's address type and address (RFC 1928 §5); :class:`AccessError` for what is no host."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode("ascii", "replace")
        if not 0 < len(name) < 256:
            raise AccessError("service-unreachable", "not a host name") from None
        return bytes([3, len(name)]) + name
    return bytes([1 if address.version == 4 else 4]) + address.packed


async def _take(connection: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < count:
        piece = await loop.sock_recv(connection, count - len(data))
        if not piece:
            raise EOFError("closed")
        data += piece
    return data
