"""Broken bytes behind the exchange: in attach frames, at the broker's door, and in the files that sellers hand over."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from firstlight.access.device import service_wire
from firstlight.access.device.network_embedded import EmbeddedNetworkAccess
from firstlight.access.device.service_session import client_context
from firstlight.cli.demo.commands import CommandError, run
from firstlight.custody.file import SigningKey
from firstlight.custody.system import SystemClock, SystemRandom
from firstlight.enrolment.issue import to_pem
from firstlight.errors import AccessError, MalformedError
from firstlight.ledger.records import Role
from firstlight.onboarding.messages import X509Grant
from firstlight.roles.trade import Purchase, Sale
from firstlight.roles.wire import TransactionAnswer
from firstlight.sealing.stream import manifest_info, seal_stream
from firstlight.sim import attach_device
from firstlight.sim.attach import (
    FRAME_LIMIT,
    Challenge,
    Detach,
    Detached,
    Message,
    Refusal,
    Reject,
    Response,
    Success,
    SyncFailure,
    frame,
    parse,
)
from firstlight.stores.exchanges import GrantState
from firstlight.testing.access_network import MemorySim
from firstlight.testing.byhand import Hand, attach
from firstlight.testing.handheld import eventually
from firstlight.testing.lab import Lab
from firstlight.testing.strangers import Lot, Market
from firstlight.trees.ownership import Selection

SEED = 20_261_122
SECOND = 1_000_000_000


@pytest.fixture
def hand(lab: Lab) -> Hand:
    return Hand(lab, lab.device())


def framed(body: bytes) -> bytes:
    """Return a frame with whatever body."""
    return len(body).to_bytes(2) + body


def longer(body: bytes) -> bytes:
    """Return a body whose array says how long it is in more bytes than it needs."""
    return body[:1] + b"\x98" + bytes([body[1] & 0x1F]) + body[2:]


def never_parsed(body: bytes) -> str:
    """Return the code with which a body cannot be parsed."""
    with pytest.raises(MalformedError) as why:
        parse(body)
    return why.value.code


def spoilt(message: Message, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """Iterate over what is no frame of a message any more, with the code that it must bring."""
    good = frame(message)
    body = good[2:]
    yield from (("connection-lost", good[:size]) for size in {0, 1, 2, 3, len(good) // 2, len(good) - 1})
    yield from (("bad-frame", size.to_bytes(2) + body) for size in (0, 1, FRAME_LIMIT + 1, 65_535))
    yield from (("bad-frame", framed(bytes([kind]) + body[1:])) for kind in (0, 10, 255))
    yield "not-canonical", framed(longer(body))
    yield "not-cbor", framed(body[:-1])
    yield never_parsed(body + b"\x00"), framed(body + b"\x00")
    yield "wrong-shape", framed(body[:1] + b"\x80")
    yield "wrong-shape", framed(body[:1] + b"\xa0")
    for size in (1, 7, 60, 400, FRAME_LIMIT - 1):
        noise = body[:1] + chance.randbytes(size)
        yield never_parsed(noise), framed(noise)


# --- attach frames, towards the network ---------------------------------------------------------


def converse(lab: Lab, *pieces: bytes | Callable[[bytes], bytes]) -> bytes:
    """Send frames to the network's attach port, each after the answer to the one before; return what comes last.

    A piece may be made of the answer before it. After the last one nothing more is sent.
    """
    answer = b""
    with socket.create_connection(("127.0.0.1", lab.port("mno", "attach")), timeout=20) as connection:
        for place, piece in enumerate(pieces):
            connection.sendall(piece(answer) if callable(piece) else piece)
            if place < len(pieces) - 1:
                answer = _frame(connection)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while more := connection.recv(4_096):
                answer += more
    return answer


def _frame(connection: socket.socket) -> bytes:
    head = connection.recv(2, socket.MSG_WAITALL)
    return connection.recv(int.from_bytes(head), socket.MSG_WAITALL)


@contextlib.contextmanager
def only_challenged(lab: Lab, imsi: str) -> Iterator[None]:
    """Check that nothing changes in any store but the SQN of one subscription, which every challenge uses up."""
    query = "SELECT k, opc, status, slot, grant_id, confirmed_at FROM subscription WHERE imsi = ?"
    states = "SELECT issued.state, status FROM issued JOIN subscription ON grant_id = id WHERE imsi = ?"
    eventually(lambda: lab.query("mno", states, imsi)[0] in {(1, 1), (2, 2)}, "an attach before this is on record")
    before, own = lab.rows(lab.places.mno), lab.query("mno", query, imsi)
    with lab.unchanged(lab.places.sp, lab.places.owner, lab.places.gateway, lab.places.node):
        yield
    after = lab.rows(lab.places.mno)
    assert {name for name, rows in after.items() if rows != before[name]} == {"subscription"}
    assert (before["subscription"] - after["subscription"]).total() == 1
    assert lab.query("mno", query, imsi) == own


def test_broken_first_frames_attach_nobody(lab: Lab, hand: Hand) -> None:
    """Anybody sends the access network what is no identity: pieces, too much, other messages, bent or random ones."""
    store, chance = hand.sim(hand.onboard("mno")), random.Random(SEED)
    attach(store)
    honest = attach_device.identify(store.sim, SystemRandom())
    key, nonce = bytes(16), bytes(16)
    others: tuple[Message, ...] = (
        Challenge(key, nonce, "WLAN", bytes(16)),
        Response(bytes(8), bytes(16)),
        SyncFailure(bytes(14)),
        Reject(),
        Success(key, "socks5://127.0.0.1:1", 1, bytes(16)),
        Refusal(),
        Detached(),
    )
    sealed = honest.suci
    hidden = replace(honest, suci=replace(sealed, output=sealed.output[:-1] + bytes([sealed.output[-1] ^ 1])))
    cases = [
        *spoilt(honest, chance),
        *(("unexpected-message", frame(one)) for one in others),
        ("unknown-session", frame(Detach(key, nonce))),
        ("bad-suci", frame(hidden)),
    ]
    with lab.untouched(), lab.heard("mno", *(code for code, _ in cases)) as codes:
        for code, data in cases:
            answer = converse(lab, data)
            expected = {"connection-lost": b"", "unknown-session": frame(Detached())}.get(code, frame(Refusal()))
            assert answer == expected, (code, data.hex())
    assert codes == [code for code, _ in cases]
    attach(store)


def test_broken_second_frames_attach_nobody(lab: Lab, hand: Hand) -> None:
    """Somebody who has a device's SUCI, or the device itself, breaks off or answers the challenge with nonsense."""
    store, chance = hand.sim(hand.onboard("mno")), random.Random(SEED)
    attach(store)
    eventually(lambda: hand.grants("mno") == [GrantState.CONFIRMED], "the use is on record")
    sim = store.sim
    identity = attach_device.identify(sim, SystemRandom())

    def answered(challenge: bytes) -> Response:
        message = parse(challenge)
        assert isinstance(message, Challenge)
        result = attach_device.respond(sim, identity, message)
        assert isinstance(result, attach_device.Answered)
        return result.response

    def bent(**changes: bytes) -> Callable[[bytes], bytes]:
        return lambda challenge: frame(replace(answered(challenge), **changes))  # type: ignore[arg-type]

    cases: list[tuple[str, bytes | Callable[[bytes], bytes]]] = [
        *spoilt(Response(bytes(8), bytes(16)), chance),
        ("unexpected-message", frame(identity)),
        ("unexpected-message", frame(Detach(bytes(16), bytes(16)))),
        ("wrong-response", frame(Response(bytes(8), bytes(16)))),
        ("wrong-response", bent(res=bytes(4))),
        ("bad-mac", bent(mac=bytes(16))),
        ("bad-auts", frame(SyncFailure(chance.randbytes(14)))),
        ("network-rejected", frame(Reject())),
    ]
    with only_challenged(lab, sim.credentials.imsi), lab.heard("mno", *(code for code, _ in cases)) as codes:
        for code, data in cases:
            answer = converse(lab, frame(identity), data)
            assert answer == (b"" if code == "connection-lost" else frame(Refusal())), code
    assert codes == [code for code, _ in cases]
    attach(store)


# --- attach frames, towards the device ----------------------------------------------------------


async def through(lab: Lab, store: MemorySim, bend: Callable[[int, bytes], bytes]) -> str:
    """Attach through a relay that bends the network's frames, by their number; return the code of what comes of it."""
    at = lab.port("mno", "attach")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        network_reader, network_writer = await asyncio.open_connection("127.0.0.1", at)
        with contextlib.closing(network_writer), contextlib.closing(writer), contextlib.suppress(EOFError, OSError):
            for number in range(2):
                network_writer.write(await _read(reader))
                writer.write(bend(number, await _read(network_reader)))
                await writer.drain()
            writer.write_eof()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        endpoint = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            await EmbeddedNetworkAccess(SystemRandom(), endpoint=endpoint).attach(store)
        except AccessError as error:
            return error.code
    return ""


async def _read(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(2)
    return head + await reader.readexactly(int.from_bytes(head))


def broken_answers(chance: random.Random) -> Iterator[tuple[str, Callable[[bytes], bytes]]]:
    """Iterate over what may become of a challenge or a success, with what the device makes of it."""
    yield from (("attach-malformed", lambda good, n=n: n.to_bytes(2) + good[2:]) for n in (0, 1, FRAME_LIMIT + 1))  # type: ignore[misc]
    yield "attach-malformed", lambda good: framed(longer(good[2:]))
    yield "attach-malformed", lambda good: framed(good[2:-1])
    yield "attach-malformed", lambda good: framed(good[2:] + b"\x00")
    yield "attach-malformed", lambda good: framed(b"\x00" + good[3:])
    yield "attach-malformed", lambda good: framed(good[2:3] + chance.randbytes(90))
    yield "attach-malformed", lambda _: frame(Detached())
    yield "attach-malformed", lambda _: frame(Reject())
    yield "attach-refused", lambda _: frame(Refusal())
    yield "network-not-authentic", lambda good: good[:-1] + bytes([good[-1] ^ 1])


@contextlib.contextmanager
def only_attached(lab: Lab) -> Iterator[None]:
    """Check that nothing changes but that the network has opened a session, of which the device does not know."""
    before = lab.rows(lab.places.mno)
    with lab.unchanged(lab.places.sp, lab.places.owner, lab.places.gateway, lab.places.node):
        yield
    after = lab.rows(lab.places.mno)
    assert {name for name, rows in after.items() if rows != before[name]} == {"subscription", "session"}
    assert after["session"].total() == before["session"].total() + 1


@pytest.mark.parametrize("which", [0, 1], ids=["challenge", "success"])
def test_a_device_takes_no_broken_frame(lab: Lab, hand: Hand, which: int) -> None:
    """Somebody between device and network breaks a challenge or a success: the device is not attached."""
    store, chance = hand.sim(hand.onboard("mno")), random.Random(SEED)
    imsi = store.sim.credentials.imsi
    assert asyncio.run(through(lab, store, lambda _, good: good)) == ""
    eventually(lambda: hand.grants("mno") == [GrantState.CONFIRMED], "the use is on record")
    fired = list[bytes]()
    for code, change in broken_answers(chance):

        def bend(number: int, good: bytes, change: Callable[[bytes], bytes] = change) -> bytes:
            if number != which:
                return good
            fired.append(change(good))
            assert fired[-1] != good
            return fired[-1]

        before = len(fired)
        with only_challenged(lab, imsi) if which == 0 else only_attached(lab):
            assert asyncio.run(through(lab, store, bend)) == code, fired[-1].hex()
        assert len(fired) == before + 1
    assert hand.grants("mno") == [GrantState.CONFIRMED]
    attach(store)


# --- the broker's door --------------------------------------------------------------------------


class Client:
    """A device with a certificate of the service, which says to its broker whatever a test wants."""

    def __init__(self, lab: Lab, hand: Hand, place: Path) -> None:
        """Enrol."""
        self.lab, self.certificate, self.key = lab, place / "own.crt", place / "own.pem"
        hand.key = SigningKey.create(self.key)
        body = hand.onboard("sp").grant.body
        assert isinstance(body, X509Grant)
        self.certificate.write_bytes(b"".join(map(to_pem, body.chain)))
        self.body, self.name = body, body.topic.split("/")[1]

    def say(self, *pieces: bytes, end: bool = True) -> bytes:
        """Send pieces over a TLS connection of its own; return all that the broker says until it hangs up.

        Without ``end`` the client says nothing more, and waits.
        """
        context = client_context(self.certificate, self.key, self.body.anchors)
        with (
            socket.create_connection(("127.0.0.1", self.lab.port("sp", "broker")), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname=self.body.server) as secure,
        ):
            answer = b""
            with contextlib.suppress(OSError):
                for place, piece in enumerate(pieces):
                    secure.sendall(piece)
                    if place < len(pieces) - 1:
                        answer += secure.recv(100)
                if end:
                    plain.shutdown(socket.SHUT_WR)
                while more := secure.recv(1_000):
                    answer += more
            return answer

    @property
    def connect(self) -> bytes:
        """Its CONNECT."""
        return service_wire.connect(self.name, 60)

    def publishes(self) -> bool:
        """Publish a message as it should be; tell whether the broker takes it."""
        body = len(self.body.topic).to_bytes(2) + self.body.topic.encode() + b"\x00\x01hello"
        said = self.say(self.connect, b"\x32" + bytes([len(body)]) + body, b"\xe0\x00", end=False)
        return b"\x40\x02\x00\x01" in said


def connected(client: Client, flags: int = 2, name: str | None = None, tail: bytes = b"", level: int = 4) -> bytes:
    """Return a CONNECT with something changed in it."""
    own = (client.name if name is None else name).encode()
    body = b"\x00\x04MQTT" + bytes([level, flags]) + b"\x00\x3c" + len(own).to_bytes(2) + own + tail
    return b"\x10" + bytes([len(body)]) + body


def test_a_broker_survives_any_first_packet(lab: Lab, hand: Hand, tmp_path: Path) -> None:
    """A device with a valid certificate says what is no CONNECT, or one that would give it more than it may have."""
    client, chance = Client(lab, hand, tmp_path), random.Random(SEED)
    with lab.heard("sp", "client-connected", "message-read"):
        assert client.publishes()
    good = client.connect
    assert good == connected(client)
    cases = [
        *(("connect-aborted", good[:size]) for size in (0, 1, 2, 20, len(good) - 1)),
        *(("connect-malformed", bytes([first]) + good[1:]) for first in (0x00, 0x11, 0x20, 0x30, 0xC0, 0xF0)),
        *(("connect-malformed", b"\x10" + size + good[2:]) for size in (b"\x00", b"\x0b", b"\x80\x01", b"\xff\x7f")),
        ("connect-malformed", connected(client, level=3)),
        ("connect-malformed", connected(client, level=5)),
        ("connect-malformed", good[:4] + b"MQIsdp" + good[8:]),
        *(("connect-refused", connected(client, flags=flags)) for flags in (0, 1, 3, 0x06, 0x42, 0x82, 0xC2, 0xFF)),
        *(("connect-refused", connected(client, name=one)) for one in ("", "00" * 16, client.name[1:])),
        ("connect-refused", connected(client, tail=b"\x00\x01x")),
        *(("connect-malformed", b"\xa5" + chance.randbytes(size)) for size in (1, 40, 3_000)),
    ]  # fmt: skip
    with lab.untouched(), lab.heard("sp", *(code for code, _ in cases)) as codes:
        for code, data in cases:
            assert client.say(data) == b"", code
    assert codes == [code for code, _ in cases]
    assert client.publishes()


def test_a_broker_survives_any_later_packet(lab: Lab, hand: Hand, tmp_path: Path) -> None:
    """A device that is connected sends packets that are none, too much, or of kinds that no client sends."""
    client, chance = Client(lab, hand, tmp_path), random.Random(SEED)
    with lab.heard("sp", "client-connected", "message-read"):
        assert client.publishes()
    topic = len(client.body.topic).to_bytes(2) + client.body.topic.encode()
    malformed = [
        *(bytes([first]) + b"\x00" for first in (0x00, 0x10, 0x20, 0x50, 0x62, 0x70, 0x90, 0xB0, 0xD0, 0xF0)),
        *(bytes([first, len(topic) + 2]) + topic + b"\x00\x01" for first in (0x34, 0x36, 0x38)),
        b"\x30\x00",
        b"\x30\x02\xff\xff",
        b"\x32" + bytes([len(topic)]) + topic,
        b"\x32" + bytes([len(topic) + 2]) + topic + b"\x00\x00",
        b"\x82\x02\x00\x01",
        b"\x82" + bytes([len(topic) + 2]) + b"\x00\x01" + topic,
        b"\x80" + bytes([len(topic) + 3]) + b"\x00\x01" + topic + b"\x00",
        b"\xc1\x00",
        b"\xc0\x01\x00",
        *(b"\xf5" + bytes([size]) + chance.randbytes(size) for size in (1, 40, 120)),
    ]
    cases = [
        *(("packet-malformed", one) for one in malformed),
        ("packet-too-large", b"\x30\xff\xff\xff\xff\x01"),
        ("packet-too-large", b"\x30\xff\xff\xff\x7f"),
        ("packet-too-large", b"\x30\x81\x80\x04"),
        ("topic-malformed", b"\x30\x04\x00\x02\xff\xfe"),
        ("topic-not-yours", b"\x30\x03\x00\x01x"),
    ]
    wanted = [one for code, _ in cases for one in ("client-connected", code)]
    with lab.untouched(), lab.heard("sp", *wanted) as codes:
        for code, data in cases:
            assert client.say(client.connect, data, end=False) == b"\x20\x02\x00\x00", (code, data.hex())
    assert codes == wanted
    cut = [(b"\x30" + bytes([len(topic) + 5]) + topic)[:size] for size in (1, 2, 20)]
    with lab.untouched(), lab.heard("sp", *["client-connected"] * len(cut)) as codes:
        for data in cut:
            assert client.say(client.connect, data) == b"\x20\x02\x00\x00"
    assert codes == ["client-connected"] * len(cut)
    assert client.publishes()


def test_a_broker_survives_what_is_not_even_tls(lab: Lab, hand: Hand, tmp_path: Path) -> None:
    """Anybody connects to the broker's port and says nothing, noise, plain MQTT, or pieces of a handshake."""
    client, chance = Client(lab, hand, tmp_path), random.Random(SEED)
    with lab.heard("sp", "client-connected", "message-read"):
        assert client.publishes()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = client_context(client.certificate, client.key, client.body.anchors).wrap_bio(
        incoming, outgoing, server_hostname=client.body.server
    )
    with contextlib.suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    good = outgoing.read()
    cases = [
        *(("tls-aborted", good[:size]) for size in (0, 1, 5, 60, len(good) - 1)),
        ("tls-failed", client.connect),
        ("tls-failed", b"GET / HTTP/1.1\r\n\r\n" * 20),
        ("tls-failed", b"\xa5" + chance.randbytes(600)),
        ("tls-failed", good[:5] + b"\xff" + good[6:]),
        ("tls-failed", b"\x16\x03\x01\xff\xff" + good[5:]),
    ]  # fmt: skip
    with lab.untouched(), lab.heard("sp", *(code for code, _ in cases)) as codes:
        for _, data in cases:
            broker = socket.create_connection(("127.0.0.1", lab.port("sp", "broker")), timeout=20)
            with broker, contextlib.suppress(OSError):
                broker.sendall(data)
                broker.shutdown(socket.SHUT_WR)
                while broker.recv(1_000):
                    pass
    assert codes == [code for code, _ in cases]
    assert client.publishes()


# --- the files of a sale ------------------------------------------------------------------------


def sold(market: Market, lot: Lot, purchase: Purchase, at: int) -> tuple[Sale, bytes]:
    """Offer a device to whoever asked; return the sale and its sealed manifest."""
    selection, seller = Selection.of([at]), lot.keys[1]
    offer = market.offer(lot, purchase.buyer, selection, now=SystemClock().now() // SECOND)
    answer = TransactionAnswer.decode(market.do(offer, seller).body)
    sale = Sale(market.chain, answer.id, lot.batch, answer.tenure, purchase.buyer)
    sealed = seal_stream(
        lot.manifest(market.chain, selection).chunks(),
        purchase.manifest_key,
        info=manifest_info(sale.chain, sale.batch),
    )
    return sale, b"".join(sealed)


def files_of(state: Path) -> dict[str, bytes]:
    """Return all files of a role's directory but its log."""
    found = (path for path in state.rglob("*") if path.is_file() and path.suffix != ".jsonl")
    return {str(path.relative_to(state)): path.read_bytes() for path in found}


def test_a_buyer_reads_no_broken_sale(lab: Lab, tmp_path: Path) -> None:
    """A seller, or whoever carries his file, cuts it, bends it, writes it otherwise, swells it, or sends noise."""
    market, state = Market(lab.addresses.node, lab.places.consortium), lab.places.distributor
    lot = market.lot(market.join(Role.MANUFACTURER), 4)

    def ask_for() -> Purchase:
        path = tmp_path / f"{secrets.token_hex(4)}.purchase"
        run("owner", "request", state, "--out", path)
        return Purchase.decode(path.read_bytes())

    def accept(*parts: bytes) -> str:
        path = tmp_path / f"{secrets.token_hex(4)}.sale"
        path.write_bytes(b"".join(parts))
        try:
            run("owner", "accept", state, path)
        except CommandError as error:
            return error.code
        return "accepted"

    sale, sealed = sold(market, lot, ask_for(), 0)
    head = sale.encode()
    size = len(head).to_bytes(4)
    assert accept(size, head, sealed) == "accepted"
    sale, sealed = sold(market, lot, ask_for(), 1)
    head, chance = sale.encode(), random.Random(SEED)
    size, chunk = len(head).to_bytes(4), 65 + 4
    cases: Sequence[tuple[str, tuple[bytes, ...]]] = (
        ("not-cbor", (b"",)),
        ("truncated", (size, head, sealed[:-1])),
        ("not-canonical", (b"\xff\xff\xff\xff", head, sealed)),
        ("not-canonical", ((len(head) + 1).to_bytes(4), b"\x98" + bytes([head[0] & 0x1F]) + head[1:], sealed)),
        ("cannot-open", (size, head, sealed[:-20], bytes([sealed[-20] ^ 1]), sealed[-19:])),
        ("bad-point", (size, head, sealed[:9], bytes([sealed[9] ^ 1]), sealed[10:])),
        ("too-large", (size, head, sealed[:65], b"\xff\xff\xff\xff", sealed[chunk:])),
        ("cannot-open", (size, head, sealed, sealed[65:])),
        ("not-cbor", (b"\x00\x00\x01\x00\x1f", chance.randbytes(2_000))),
    )
    before = files_of(state)
    with lab.untouched():
        assert [accept(*parts) for _, parts in cases] == [code for code, _ in cases]
    assert files_of(state) == before
    assert accept(size, head, sealed) == "accepted"
