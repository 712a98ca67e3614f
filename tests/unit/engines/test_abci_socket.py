"""The socket: framing, order, several connections, and bytes that are no requests."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firstlight.engines import abci_server
from firstlight.engines.abci_messages import PACKAGE, Request, Response, kind, nanoseconds, timestamp
from firstlight.engines.abci_server import AbciServer, delimited
from firstlight.errors import MalformedError, StoreError
from firstlight.logs import Log
from firstlight.testing.abci import Silent
from firstlight.testing.clock import FakeClock


class Echoing:
    """Answers echo, and fails where the message says so."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def answer(self, method: str, request: Any) -> Any:
        self.asked.append(method)
        if method == "flush":
            return kind("ResponseFlush")()
        if method != "echo":
            raise MalformedError("unknown-method", method)
        if request.message == "disk":
            raise StoreError("ledger-not-written", "disk full")
        return kind("ResponseEcho")(message=request.message)


class Client:
    """One connection."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(path))
        self.file = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, **value: Any) -> Any:
        self.send(delimited(Request(**value).SerializeToString()))
        return self.answer()

    def answer(self) -> Any:
        size = shift = 0
        while True:
            byte = self.file.read(1)
            if not byte:
                return None
            size |= (byte[0] & 0x7F) << shift
            shift += 7
            if byte[0] < 0x80:
                break
        response = Response()
        response.ParseFromString(self.file.read(size))
        return response

    def refused(self) -> str:
        """Return the code of the exception after which the connection has ended."""
        answer = self.answer()
        assert answer.WhichOneof("value") == "exception"
        assert self.answer() is None
        return str(answer.exception.error).partition(":")[0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "abci.sock"


@pytest.fixture
def log() -> Silent:
    return Silent()


@pytest.fixture
def server(path: Path, log: Silent) -> Iterator[AbciServer]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    server = AbciServer(listener, Echoing(), Log("test", FakeClock(), log))
    yield server
    server.close()
    server.close()


def echo(text: str) -> dict[str, Any]:
    return {"echo": kind("RequestEcho")(message=text)}


def test_requests_are_answered_in_order_on_each_of_several_connections(server: AbciServer, path: Path) -> None:
    clients = [Client(path) for _ in range(4)]
    for number, client in enumerate(clients):
        requests = [Request(**echo(f"{number}/{one}" * 50)) for one in range(300)]
        client.send(b"".join(delimited(one.SerializeToString()) for one in requests))
        client.send(delimited(Request(flush=kind("RequestFlush")()).SerializeToString()))
    for number, client in enumerate(clients):
        assert [client.answer().echo.message for _ in range(300)] == [f"{number}/{one}" * 50 for one in range(300)]
        assert client.answer().WhichOneof("value") == "flush"


def test_a_large_message(server: AbciServer, path: Path) -> None:
    text = "x" * 3_000_000
    assert Client(path).ask(**echo(text)).echo.message == text


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xff" * 11, "bad-length"),
        (delimited(b"\xff\xff\xff"), "not-protobuf"),
        (delimited(b""), "unknown-method"),
        (delimited(b"\x22\x00"), "unknown-method"),
        (delimited(b"\x7a\x00"), "unknown-method"),
        (b"\xff\xff\xff\xff\x0f", "too-large"),
        (delimited(b"\x0a\x03\x0a\x01\xff"), "not-protobuf"),
        (delimited(b"\x0a\x7f\x00"), "not-protobuf"),
        (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" + bytes(80), "not-protobuf"),
    ],
)
def test_what_is_no_request_is_refused_and_the_others_go_on(
    server: AbciServer, path: Path, log: Silent, data: bytes, code: str
) -> None:
    other = Client(path)
    assert other.ask(**echo("before")).echo.message == "before"
    client = Client(path)
    assert client.ask(**echo("mine")).echo.message == "mine"
    client.send(data)
    assert client.refused() == code
    assert any(f'"code":"{code}"' in line for line in log.lines)
    assert other.ask(**echo("after")).echo.message == "after"
    assert Client(path).ask(**echo("new")).echo.message == "new"


@pytest.mark.parametrize("data", [b"\x80", delimited(b"\x0a\x03")[:2]])
def test_a_message_that_is_cut_short(server: AbciServer, path: Path, data: bytes) -> None:
    client = Client(path)
    client.send(data)
    client.socket.shutdown(socket.SHUT_WR)
    assert client.refused() == "cut-short"


def test_a_connection_that_breaks_off_harms_nobody(server: AbciServer, path: Path) -> None:
    for _ in range(20):
        client = Client(path)
        client.send(delimited(Request(**echo("x" * 100_000)).SerializeToString()) * 5)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.file.close()
        client.socket.close()
    assert Client(path).ask(**echo("still")).echo.message == "still"


def test_a_node_that_cannot_go_on_says_so(server: AbciServer, path: Path) -> None:
    client = Client(path)
    client.send(delimited(Request(**echo("disk")).SerializeToString()))
    assert client.refused() == "ledger-not-written"


def test_a_message_is_bounded(server: AbciServer, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abci_server, "MAX_MESSAGE", 100)
    client = Client(path)
    client.send(delimited(bytes(101)))
    assert client.refused() == "too-large"


def test_tcp(log: Silent) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    server = AbciServer(listener, Echoing(), Log("test", FakeClock(), log))
    try:
        with socket.create_connection(address) as client:
            client.sendall(delimited(Request(**echo("tcp")).SerializeToString()))
            assert b"tcp" in client.recv(100)
    finally:
        server.close()


def test_closing_ends_connections(path: Path, log: Silent) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    server = AbciServer(listener, Echoing(), Log("test", FakeClock(), log))
    client = Client(path)
    assert client.ask(**echo("x")).echo.message == "x"
    server.close()
    assert client.answer() is None


def test_the_messages_have_a_package_and_a_pool_of_their_own() -> None:
    from google.protobuf import descriptor_pool

    assert Request.DESCRIPTOR.full_name == f"{PACKAGE}.Request"
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName(f"{PACKAGE}.Request")
    assert nanoseconds(timestamp(1_234_567_890_123_456_789)) == 1_234_567_890_123_456_789


def test_field_numbers() -> None:
    """The bytes of one message of each kind of field, written out by hand from the wire format."""
    info = kind("ResponseInfo")(data="d", version="v", app_version=1, last_block_height=2, last_block_app_hash=b"h")
    assert Response(info=info).SerializeToString().hex() == "220d0a0164120176180120022a0168"
    final = kind("ResponseFinalizeBlock")(
        tx_results=[kind("ExecTxResult")(code=4, data=b"d", log="l", codespace="c")], app_hash=b"h"
    )
    assert Response(finalize_block=final).SerializeToString().hex() == ("aa0110120b08041201641a016c4201632a0168")
    assert Response(commit=kind("ResponseCommit")()).SerializeToString().hex() == "6200"
    fields = bytes.fromhex("0a01742202484828073204080110023a0178420170")
    request = Request()
    request.ParseFromString(b"\xa2\x01" + delimited(fields))
    block = request.finalize_block
    assert (list(block.txs), block.hash, block.height) == ([b"t"], b"HH", 7)
    assert (block.time.seconds, block.time.nanos) == (1, 2)
