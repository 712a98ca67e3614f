"""Enemies over CoAP: whatever datagrams reach gateway, MNO and SP, they answer exactly, keep little, and go on."""

from __future__ import annotations

import random
import secrets
from pathlib import Path

import pytest

from firstlight.encoding import decode, encode
from firstlight.onboarding import wire
from firstlight.onboarding.device import Granted
from firstlight.roles.wire import MailAnswer, MailRequest, ReceiptPut, ReceiptQuery
from firstlight.sealing.receipt import SEALED_SIZE
from firstlight.testing.byhand import Hand, ask, say
from firstlight.testing.datagrams import PATIENCE, Sender, ask_coap
from firstlight.testing.interceptor import Asked
from firstlight.testing.lab import Lab
from firstlight.transports.body import CBOR, JSON
from firstlight.transports.coap import codes
from firstlight.transports.coap.message import Block, Option, Type, encode_uint, parse
from firstlight.transports.coap.server import AMPLIFICATION
from firstlight.transports.endpoint import read_endpoint

SEED = 20_261_122
ROLES = ("gateway", "mno", "sp")
MEBIBYTE = 1_048_576
GROWTH = 48 * MEBIBYTE
"""What a server may have grown by: what its stores hold at most, and some of what Python does not give back."""


def resident(state: Path) -> int:
    """Return how much memory the server of a state directory has, in bytes."""
    return int(Path(f"/proc/{read_endpoint(state).pid}/statm").read_text().split()[1]) * 4_096


def alive(lab: Lab, role: str) -> None:
    """Check that a server answers over both transports, and is still the same process."""
    assert ask(lab.url(role), Asked("GET", "/healthz", b"")).status == 200
    with Sender(lab.coap(role)) as sender:
        sender.verify()


def mail() -> bytes:
    return MailRequest((secrets.token_bytes(16),)).encode()


# --- the same bytes ---------------------------------------------------------------------------


def requests() -> list[tuple[str, bytes, str]]:
    """Return requests whose answers do not depend on when they are asked: path, body, type."""
    locator, digest = secrets.token_bytes(16), secrets.token_bytes(32).hex()
    put = ReceiptPut(locator, bytes(SEALED_SIZE)).encode()
    party, edhoc = secrets.token_hex(16), wire.MEDIA_TYPE_REQUEST
    return [
        ("/v1/mail", mail(), CBOR),
        ("/v1/mail", b"\xff", CBOR),
        ("/v1/mail", b"{}", JSON),
        ("/v1/mail", encode([[b"short"]]), CBOR),
        ("/v1/mail", bytes(70_000 // 16), CBOR),
        ("/v1/receipts", put, CBOR),
        ("/v1/receipts/read", ReceiptQuery((locator,), 0).encode(), CBOR),
        ("/v1/bundles", b"\x80", CBOR),
        ("/v1/deposits", b"\x84\x40\xa0\x40\x40", CBOR),
        (f"/v1/blobs/{digest}", b"x", CBOR),
        ("/v1/nowhere", b"", CBOR),
        ("/v1/nowhere", b"", JSON),
        ("/v1/name", b"", CBOR),
        (f"/relay/{party}/.well-known/edhoc", b"\xf5\x03\x02", edhoc),
        ("/relay/not-a-party/.well-known/edhoc", b"\xf5\x03\x02", edhoc),
        (f"/relay/{party}/.well-known/edhoc", bytes(wire.MAX_REQUEST + 1), edhoc),
    ]


def test_a_gateway_says_the_same_bytes_over_both(lab: Lab) -> None:
    for path, body, content_type in requests():
        over_http = ask(lab.url("gateway"), Asked("POST", path, body, content_type))
        over_coap = ask_coap(lab.coap("gateway") + path, body, content_type)
        assert (over_http.status, over_http.content_type, over_http.body) == (
            over_coap.status,
            over_coap.content_type,
            over_coap.body,
        ), path


@pytest.mark.parametrize("role", ["mno", "sp"])
def test_an_exchange_is_the_same_bytes_over_both(lab: Lab, role: str) -> None:
    """Begun over either, finished over the other, and asked for again over both: one message 4, one grant."""
    for begun, finished in ((lab.coap(role), lab.url(role)), (lab.url(role), lab.coap(role))):
        hand = Hand(lab, lab.device())
        sent = hand.open(role, at=begun)
        first = say(finished, sent.request_2)
        assert isinstance(sent.read(first), Granted)
        lab.settle()
        with lab.unchanged():
            assert [say(at, sent.request_2) for at in (begun, finished, begun)] == [first] * 3
    for bad in (
        b"",
        b"\xf5",
        b"\x00",
        b"\xf5\x03\x02\x41\x00\x00",
        bytes(wire.MAX_REQUEST),
        bytes(wire.MAX_REQUEST + 1),
    ):
        over_http = ask(lab.url(role), Asked("POST", wire.PATH, bad, wire.MEDIA_TYPE_REQUEST))
        over_coap = ask_coap(lab.coap(role) + wire.PATH, bad, wire.MEDIA_TYPE_REQUEST)
        assert (over_http.status, over_http.body) == (over_coap.status, over_coap.body)


def test_worker_processes_answer_datagrams_too(lab: Lab) -> None:
    """Their parent takes the datagrams, and any worker may answer: over HTTP and CoAP the exchange is one."""
    with lab.twin("mno", workers=2, coap="true") as twin:
        at = read_endpoint(twin)
        assert at.coap is not None
        hand = Hand(lab, lab.device())
        sent = hand.open("mno", at=at.coap)
        first = say(at.coap, sent.request_2)
        assert isinstance(sent.read(first), Granted)
        assert [say(url, sent.request_2) for url in at.urls] == [first] * 2
        bad = ask_coap(at.coap + wire.PATH, b"\xf5\x03", CBOR)
        assert (bad.status, decode(bad.body)["code"]) == (415, "wrong-media-type")


# --- requests ---------------------------------------------------------------------------------


def test_each_fault_of_a_request_has_its_code(lab: Lab) -> None:
    cbor = (Option.CONTENT_FORMAT, encode_uint(60))
    with Sender(lab.coap("gateway")) as sender, lab.unchanged(lab.places.gateway):
        sender.verify()
        honest = sender.ask(sender.message("/v1/mail", mail(), cbor))
        assert (honest.code, MailAnswer.decode(honest.payload)) == (codes.CHANGED, MailAnswer(()))
        for message, code, said in (
            (sender.message("/v1/mail", b"\xff", cbor), "4.00", "not-cbor"),
            (sender.message("/v1/nowhere", b"", cbor), "4.04", "not-found"),
            (sender.message("/v1/mail", b"", cbor, code=codes.NUMBERS["GET"]), "4.05", "wrong-method"),
            (sender.message("/v1/mail", mail(), cbor, (9, b"oscore")), "4.02", "bad-option"),
            (sender.message("/v1/mail", mail(), cbor, (Option.PROXY_URI, b"coap://h/")), "5.05", "no-proxy"),
            (sender.message("/v1/mail", mail(), cbor, (Option.BLOCK1, b"\x0f")), "4.00", "bad-block"),
            (sender.message("/v1/mail", mail(), cbor, (Option.BLOCK1, b"\x16")), "4.08", "block-missing"),
            (sender.message("/v1/mail", b"", cbor, (Option.BLOCK2, b"\x16")), "4.08", "block-missing"),
            (sender.message("/v1/mail", mail(), cbor, (Option.SIZE1, b"\x02\x00\x00")), "4.13", "too-large"),
            (sender.message("/v1/mail/../mail", mail(), cbor), "4.00", "bad-path"),
        ):
            answer = sender.ask(message)
            assert (codes.dotted(answer.code), decode(answer.payload)["code"]) == (code, said)
    with Sender(lab.coap("mno")) as sender, lab.unchanged():
        sender.verify()
        answer = sender.ask(sender.message(wire.PATH, b"\xf5\x03", cbor))
        assert (codes.dotted(answer.code), decode(answer.payload)["code"]) == ("4.15", "wrong-media-type")


def test_the_same_message_id_again_is_one_request(lab: Lab) -> None:
    """A request whose answer was lost is sent again as it was: the party decides once, and says the same."""
    hand = Hand(lab, lab.device())
    with Sender(lab.coap("mno")) as sender:
        sender.verify()
        edhoc = (Option.CONTENT_FORMAT, encode_uint(65))
        first = sender.message(wire.PATH, hand.begin("mno").request_1, edhoc)
        lab.settle()
        with lab.unchanged(), lab.heard("mno", "answered") as heard:
            answers = [sender.ask(first) for _ in range(4)]
        assert heard.count("answered") == 1
        assert [one.payload for one in answers] == [answers[0].payload] * 4
        assert wire.parse_answer(answers[0].payload)


# --- datagrams --------------------------------------------------------------------------------


def bent(chance: random.Random, honest: bytes) -> bytes:
    """Return a datagram that is truncated, changed, prolonged, or nothing but chance."""
    match chance.randrange(5):
        case 0:
            return honest[: chance.randrange(len(honest))]
        case 1:
            at = chance.randrange(len(honest))
            return honest[:at] + bytes([honest[at] ^ 1 << chance.randrange(8)]) + honest[at + 1 :]
        case 2:
            return honest + chance.randbytes(chance.randrange(1, 2_000))
        case 3:
            at = chance.randrange(len(honest))
            return honest[:at] + chance.randbytes(chance.randrange(8)) + honest[at:]
        case _:
            return bytes([0x40 | chance.randrange(64)]) + chance.randbytes(chance.randrange(80))


@pytest.mark.parametrize("role", ROLES)
def test_any_datagrams_do_no_harm(lab: Lab, role: str, full: bool) -> None:
    chance, before = random.Random(f"{SEED} {role}"), resident(lab.state(role))
    path, edhoc = ("/v1/mail", 60) if role == "gateway" else (wire.PATH, 65)
    lab.settle()
    with lab.unchanged(lab.places.gateway, lab.places.mno, lab.places.sp, lab.places.owner):
        for _ in range(100 if full else 4):
            with Sender(lab.coap(role)) as sender:
                honest = sender.message(path, mail(), (Option.CONTENT_FORMAT, encode_uint(edhoc)))
                assert sender.ask(honest).is_response
                for _ in range(100):
                    data = bent(chance, honest.encode())
                    sender.send(data)
                    while (answer := sender.hear(0.0005)) is not None:
                        assert parse(answer).type in (Type.ACK, Type.RST, Type.NON)
                        assert len(answer) <= AMPLIFICATION * max(len(data), len(honest.encode()))
        alive(lab, role)
    assert resident(lab.state(role)) - before < GROWTH


@pytest.mark.parametrize("verified", [True, False])
def test_bodies_without_end_exhaust_nothing(lab: Lab, verified: bool, full: bool) -> None:
    """Many begun bodies, from many sources, none of which is ever finished: the oldest are dropped, and said to be."""
    before, honest = resident(lab.places.gateway), mail()
    with lab.unchanged(lab.places.gateway), Sender(lab.coap("gateway")) as first:
        if verified:
            first.verify()
        block = (Option.BLOCK1, Block(0, True, 6).encode())
        begun = first.message("/v1/mail", bytes(1_024), block, (Option.REQUEST_TAG, b"first"))
        assert codes.dotted(first.ask(begun).code) in ("2.31", "4.01")
        for source in range(40 if full else 4):
            with Sender(lab.coap("gateway")) as sender:
                if verified:
                    sender.verify()
                for number in range(800):
                    tag = (Option.REQUEST_TAG, source.to_bytes(2) + number.to_bytes(2))
                    sender.send(sender.message("/v1/mail", bytes(1_024), block, tag, kind=Type.NON).encode())
                    sender.hear(0.5)
        following = first.message(
            "/v1/mail", bytes(10), (Option.BLOCK1, Block(1, False, 6).encode()), (Option.REQUEST_TAG, b"first")
        )
        assert codes.dotted(first.ask(following).code) in (("4.08",) if verified else ("4.08", "4.01"))
        answered = ask_coap(lab.coap("gateway") + "/v1/mail", honest)
        assert (answered.status, answered.body) == (200, MailAnswer(()).encode())
    assert resident(lab.places.gateway) - before < GROWTH


def test_strangers_get_no_more_than_three_times_what_they_send(lab: Lab) -> None:
    """Whose address is not verified may be spoofed: nobody is flooded with what he did not ask for."""
    locator = secrets.token_bytes(16)
    for _ in range(4):
        put = ReceiptPut(locator, secrets.token_bytes(SEALED_SIZE)).encode()
        assert ask_coap(lab.coap("gateway") + "/v1/receipts", put).status == 200
    query = ReceiptQuery((locator,), 0).encode()
    whole = ask_coap(lab.coap("gateway") + "/v1/receipts/read", query).body
    assert len(whole) > 4 * SEALED_SIZE
    with Sender(lab.coap("gateway")) as sender:
        for _ in range(5):
            asked = sender.message("/v1/receipts/read", query, (Option.CONTENT_FORMAT, encode_uint(60))).encode()
            sender.send(asked)
            first = sender.hear(PATIENCE)
            assert first is not None
            heard = [first, *iter(lambda: sender.hear(0.1), None)]
            assert sum(map(len, heard)) <= AMPLIFICATION * len(asked)


def test_a_flood_from_strangers_leaves_the_verified_alone(lab: Lab) -> None:
    """Message 1 from addresses that nobody has verified: a little is done for them, and then they are asked first."""
    hand, tally = Hand(lab, lab.device()), dict[str, int]()
    with Sender(lab.coap("mno")) as sender:
        request = hand.begin("mno").request_1
        for _ in range(700):
            sender.send(sender.message(wire.PATH, request, (Option.CONTENT_FORMAT, encode_uint(65))).encode())
            while (data := sender.hear(0.0005)) is not None:
                code = codes.dotted(parse(data).code)
                tally[code] = tally.get(code, 0) + 1
        while (data := sender.hear(1.0)) is not None:
            code = codes.dotted(parse(data).code)
            tally[code] = tally.get(code, 0) + 1
        event = hand.onboard("mno", at=lab.coap("mno"))
        assert isinstance(event, Granted)
    assert tally.get("4.01", 0) > 100, tally
    assert set(tally) <= {"2.04", "4.01", "0.00"}, tally
    lab.settle()
