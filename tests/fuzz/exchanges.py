"""Parsers that hold a key or a state: sealed mail, EDHOC's messages, tokens, and what speaks over a stream."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Awaitable, Callable
from typing import Any

from tests.fuzz.target import VECTORS, Target, records
from tests.unit.access.test_gsup import ID_ACK, ID_GET, ONE, UNKNOWN

from firstlight import p256
from firstlight.access.device import service_wire
from firstlight.access.frames import receive
from firstlight.access.serving import gsup, service_door
from firstlight.access.serving.forwarder import Forwarder, ForwarderLimits
from firstlight.encoding import encode, encode_sequence
from firstlight.errors import MalformedError, SignatureError
from firstlight.onboarding import wire
from firstlight.onboarding.device import Begun, Sent
from firstlight.onboarding.edhoc import error, initiator, keys, responder
from firstlight.onboarding.edhoc.keys import Ephemeral
from firstlight.onboarding.messages import Grant
from firstlight.onboarding.token import open_token
from firstlight.sealing import deposit, envelope, hpke, receipt, stream
from firstlight.sealing.receipt import Expected
from firstlight.testing.onboarding import CHAIN, World
from firstlight.testing.random import SeededRandom

LOCATOR = bytes(16)
WORLD = World(devices=100)


# --- sealed mail ----------------------------------------------------------------------------------


class _Key:
    """The party's key-agreement key, strict about points as real ones are."""

    public = WORLD.party_key.public

    def exchange(self, peer: bytes) -> bytes:
        if len(peer) not in (32, 33):
            raise MalformedError("bad-point", "not a P-256 key")
        (p256.from_x if len(peer) == 32 else p256.load)(peer)
        return WORLD.party_key.exchange(peer)


KEY = _Key()
EXPECTED = Expected(CHAIN, LOCATOR, bytes(16), 0, KEY.public, range(1, 9))


def _envelope(data: bytes) -> object:
    return envelope.open_envelope(data, KEY, chain=CHAIN, locator=LOCATOR)


def _within_envelope(data: bytes) -> object:
    """Open an envelope that holds ``data``, filled up to its size."""
    filled = data[: envelope.PLAIN_SIZE].ljust(envelope.PLAIN_SIZE, b"\0")
    return _envelope(envelope.seal_envelope(filled, identity=KEY.public, chain=CHAIN, locator=LOCATOR))


def _receipt(data: bytes) -> object:
    return receipt.open_receipt(data, KEY, EXPECTED)


def _within_receipt(data: bytes) -> object:
    filled = data[: receipt.PLAIN_SIZE].ljust(receipt.PLAIN_SIZE, b"\0")
    info = encode(["firstlight-receipt-1", CHAIN, LOCATOR])
    return _receipt(hpke.seal(KEY.public, filled, info=info))


def _stream(data: bytes) -> None:
    for piece in (len(data) + 1, 7):
        pieces = (data[at : at + piece] for at in range(0, len(data), piece))
        with contextlib.suppress(SignatureError, MalformedError):
            for _ in stream.open_stream(pieces, KEY, info=b""):
                pass


_SEALED = tuple(stream.seal_stream([b"first", b"second"], KEY.public, info=b""))


# --- EDHOC ----------------------------------------------------------------------------------------

BEGUN: Begun = WORLD.begin()
RESPONSE_1 = WORLD.send(BEGUN.request_1).data
_READ = BEGUN.read(RESPONSE_1, evidence=lambda nonce: nonce)
assert isinstance(_READ, Sent)
SENT = _READ
ANSWER = wire.parse_answer(RESPONSE_1)
STATE = open_token(ANSWER.token, WORLD.ring, chain=CHAIN, party=WORLD.party_id, now_ns=WORLD.clock.now())
SECOND = wire.parse_request(SENT.request_2)
assert isinstance(SECOND, wire.Second)
PLAIN_3 = responder.read_3(STATE.half, SECOND.message_3).plaintext
PLAIN_2 = initiator.read_2(BEGUN.started, ANSWER.message_2).plaintext
RESPONSE_2 = WORLD.send(SENT.request_2).data


def _request(data: bytes) -> object:
    """Whatever comes, a party answers."""
    return WORLD.send(data).data[:1]


def _within_message_3(data: bytes) -> object:
    """Hand the party a message 3 whose plaintext is ``data``, in an exchange of its own."""
    suite = keys.SUITES[STATE.half.suite]
    sealed = keys.seal(suite, STATE.half.prk_3e2m, (keys.K_3, keys.IV_3), STATE.half.th_3, data)
    with contextlib.suppress(MalformedError):
        responder.read_3(STATE.half, encode(sealed))
    return _request(wire.Second(SECOND.token, SECOND.c_r, encode(sealed)).encode())


def _response_1(data: bytes) -> object:
    return BEGUN.read(data, evidence=lambda nonce: nonce)


def _within_message_2(data: bytes) -> object:
    """Hand the device a message 2 whose plaintext is ``data``."""
    party = Ephemeral.draw(SeededRandom(9))
    th_2 = keys.th_2(BEGUN.started.message_1, party.x)
    prk = keys.extract(th_2, party.exchange(BEGUN.started.ephemeral.x))
    masked = keys.xor(data, keys.kdf(prk, keys.KEYSTREAM_2, th_2, len(data)))
    return _response_1(encode(party.x + masked) + encode(b"token"))


def _response_2(data: bytes) -> object:
    return SENT.read(data)


def _within_message_4(data: bytes) -> object:
    session = SENT.session
    sealed = keys.seal(session.suite, session.prk_4e3m, (keys.K_4, keys.IV_4), session.th_4, data)
    return SENT.read(encode(sealed))


def _token(data: bytes) -> object:
    return open_token(data, WORLD.ring, chain=CHAIN, party=WORLD.party_id, now_ns=WORLD.clock.now())


def _grant(data: bytes) -> object:
    return Grant.decode(data)


# --- streams --------------------------------------------------------------------------------------

_LOOP = asyncio.new_event_loop()


class _Writer:
    """Takes what is written and throws it away; both its ends are on loopback."""

    def __init__(self) -> None:
        self.transport = self

    def get_extra_info(self, _: str) -> tuple[str, int]:
        return "127.0.0.1", 9

    def write(self, data: bytes) -> None:
        pass

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass

    async def wait_closed(self) -> None:
        pass

    async def drain(self) -> None:
        pass


class _Session:
    """A live session with nothing connected yet."""

    def __init__(self) -> None:
        self.live, self.connections, self.transports = True, 0, set[object]()

    def count_sent(self, size: int) -> None:
        pass

    def count_received(self, size: int) -> None:
        pass


class _Sessions:
    """Lets everybody in whose password is not empty."""

    def authenticate(self, _: bytes, password: bytes) -> object:
        return _Session() if password else None


@dataclasses.dataclass
class _Client:
    """A broker's client that has ``reader`` and a name."""

    reader: asyncio.StreamReader
    name: str = "0" * 32

    def taken(self) -> None:
        pass

    async def settled(self) -> None:
        pass


def _over_stream(use: Callable[[asyncio.StreamReader], Awaitable[object]]) -> Callable[[bytes], object]:
    """Return a parser that feeds ``use`` a stream of the bytes, which then ends."""

    async def run(data: bytes) -> object:
        reader = asyncio.StreamReader(limit=1 << 20)
        reader.feed_data(data)
        reader.feed_eof()
        try:
            return await use(reader)
        except (EOFError, OSError):
            return None

    return lambda data: _LOOP.run_until_complete(run(data))


async def _forwarder(reader: asyncio.StreamReader) -> None:
    sessions: Any = _Sessions()
    writer: Any = _Writer()
    await Forwarder(sessions, lambda _host, _port: False, lambda _code: None, ForwarderLimits()).serve(reader, writer)


async def _frames(reader: asyncio.StreamReader) -> None:
    while True:
        await receive(reader)


async def _connect(reader: asyncio.StreamReader) -> None:
    client: Any = _Client(reader)
    await service_door.read_connect(client)


async def _packets(reader: asyncio.StreamReader) -> None:
    client: Any = _Client(reader)
    door = service_door.Reader(client, b"", 60, lambda topic: topic.startswith("devices/"))
    while await door.read(1):
        await door.read(4)
        door._buffer = b""


def _decoder(data: bytes) -> None:
    decoder = service_wire.Decoder()
    for at in range(0, len(data), 3):
        decoder.feed(data[at : at + 3])


def _gsup(data: bytes) -> None:
    for content in (data, data[1:]):
        with contextlib.suppress(MalformedError):
            gsup.parse(content)
    for piece in (len(data) + 1, 7):
        link = gsup.Link("it")
        with contextlib.suppress(MalformedError):
            for at in range(0, len(data), piece):
                link.feed(data[at : at + piece])


_NAME = "0" * 32
_SOCKS = b"\x05\x01\x02\x01\x02ab\x03xyz\x05\x01\x00"
_FRAMES = tuple(
    bytes.fromhex(one["frame"])
    for one in json.loads((VECTORS / "attach.json").read_text())["vectors"]
    if "frame" in one
)

TARGETS = (
    Target("envelopes", (_envelope, _within_envelope), ("mail",)),
    Target("deposits", (deposit.parse_deposit, *records("firstlight.sealing")), ("mail",)),
    Target("receipts", (_receipt, _within_receipt), ("receipt",)),
    Target("streams", (_stream,), ("manifest",), (b"".join(_SEALED),)),
    Target("edhoc-1", (_request, responder.read_1, wire.parse_request), ("onboarding-network",), (BEGUN.request_1,)),
    Target(
        "edhoc-2", (_response_1, _within_message_2, wire.parse_answer), ("onboarding-network",), (RESPONSE_1, PLAIN_2)
    ),
    Target("edhoc-3", (_request, _within_message_3), ("onboarding-network",), (PLAIN_3, SENT.request_2)),
    Target(
        "edhoc-4",
        (_response_2, _within_message_4, error.parse_error),
        ("refusals", "onboarding-network"),
        (RESPONSE_2,),
    ),
    Target("tokens", (_token, *records("firstlight.onboarding")), (), (ANSWER.token, STATE.encode())),
    Target("grants", (_grant,), ("onboarding-network", "onboarding-service")),
    Target("attach", (_over_stream(_frames),), ("attach",), (*_FRAMES, b"".join(_FRAMES))),
    Target(
        "socks",
        (_over_stream(_forwarder),),
        (),
        (
            _SOCKS + b"\x01\x7f\x00\x00\x01\x00\x50",
            _SOCKS + b"\x03\x04host\x00\x50",
            _SOCKS + b"\x04" + bytes(18),
            encode_sequence(),
        ),
    ),
    Target("gsup", (_gsup,), (), (b"\x05" + ONE, UNKNOWN, ID_GET + ID_ACK + gsup.frame(0xEE, b"\x05" + ONE))),
    Target(
        "mqtt",
        (_decoder, _over_stream(_connect), _over_stream(_packets)),
        (),
        (
            service_wire.connect(_NAME, 60),
            service_wire.publish(1, "devices/a", b"hello") + service_wire.PINGREQ + service_wire.DISCONNECT,
            b"\x20\x02\x00\x00\x40\x02\x00\x01\xd0\x00",
        ),
    ),
)
