"""Broken bytes in every message of an exchange: towards the parties, and towards devices."""

from __future__ import annotations

import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from firstlight.encoding import decode, encode
from firstlight.errors import FirstlightError, MalformedError
from firstlight.onboarding import messages, wire
from firstlight.onboarding.device import BackOff, Granted, Rediscover
from firstlight.onboarding.edhoc import responder
from firstlight.onboarding.edhoc.error import ErrorMessage
from firstlight.onboarding.edhoc.keys import Ead, point
from firstlight.onboarding.party import UNIFORM_ERROR
from firstlight.stores.exchanges import GrantState
from firstlight.testing.byhand import Hand, ask, say
from firstlight.testing.interceptor import Answered, Asked, Forward
from firstlight.testing.lab import Lab

ROLES = ("mno", "sp")
WRONG_SUITE = ErrorMessage(2, suites=(3, 2)).encode()
SEED = 20_261_122


@pytest.fixture
def hand(lab: Lab) -> Hand:
    return Hand(lab, lab.device())


def off_curve() -> bytes:
    """Return an x-coordinate that no point of P-256 has."""
    while True:
        x = secrets.token_bytes(32)
        try:
            point(x)
        except MalformedError:
            return x


def truncated(data: bytes) -> list[bytes]:
    """Return beginnings of ``data``: all short ones, and some others."""
    return [*(data[:size] for size in range(len(data) - 1) if size < 40 or size % 37 == 0), data[:-1]]


def flipped(data: bytes, count: int) -> Iterator[bytes]:
    """Iterate over copies of ``data`` with one bit changed."""
    chance = random.Random(data)
    for at in chance.sample(range(len(data)), min(count, len(data))):
        yield data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]


def noise(count: int) -> Iterator[bytes]:
    """Iterate over random bytes of many lengths."""
    return (secrets.token_bytes(size) for size in range(1, 40 * count, 40))


def said_of(parse: Callable[[bytes], object], data: bytes) -> str:
    """Return the code with which ``data`` cannot be parsed, nothing if it can."""
    try:
        parse(data)
    except FirstlightError as error:
        return error.code
    return ""


def code_2(data: bytes, honest: wire.Second) -> str:
    """Return the code of a request 2 that is not the honest one, by the first part in which it differs."""
    code = said_of(wire.parse_request, data)
    if code:
        return code
    second = wire.parse_request(data)
    assert isinstance(second, wire.Second)
    if second.token != honest.token:
        return "bad-token"
    return "wrong-identifier" if second.c_r != honest.c_r else "bad-ciphertext"


def code_1(data: bytes) -> str:
    """Return the code of a request 1."""
    first = wire.parse_request(data)
    assert isinstance(first, wire.First)
    return said_of(responder.read_1, first.message_1) or said_of(
        lambda one: point(responder.read_1(one).g_x), first.message_1
    )


def longer(data: bytes) -> bytes:
    """Return a byte string's encoding with a length that takes more bytes than it needs."""
    if data[0] == 0x58:
        return b"\x59\x00" + data[1:]
    assert data[0] == 0x59
    return b"\x5a\x00\x00" + data[1:]


# --- towards the party --------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_broken_requests_2_change_nothing(lab: Lab, hand: Hand, role: str) -> None:
    """Anybody sends a party pieces of request 2, or what looks like one; the real one still counts afterwards."""
    hand.onboard(role)
    sent = hand.open(role)
    good = sent.request_2
    second = wire.parse_request(good)
    assert isinstance(second, wire.Second)
    token, message = encode(second.token), second.message_3
    c_r = good[len(token) : -len(message)]
    non_canonical = [
        longer(token) + c_r + message,
        token + b"\x18" + c_r + message,
        token + b"\x41" + c_r + message,
        token + c_r + longer(message),
        b"\x5f" + token + b"\xff" + c_r + message,
        token + c_r + b"\x5f" + message + b"\xff",
    ]
    shapes = [good + b"\x00", good + good, message + c_r + token, token + message, encode([second.token, 1, message])]
    broken = [*truncated(good), *non_canonical, *shapes, *flipped(good, 60), *(n for n in noise(40) if n[0] != 0xF5)]
    assert good not in broken
    with lab.untouched(), lab.heard(role) as codes:
        for one in broken:
            assert say(hand.url(role), one) == UNIFORM_ERROR, one.hex()
    assert codes == [code_2(one, second) for one in broken]
    assert set(codes) >= {"not-cbor", "not-canonical", "wrong-shape", "bad-token", "bad-ciphertext"}
    assert isinstance(hand.finish(role, sent), Granted)


@pytest.mark.parametrize("role", ROLES)
def test_broken_requests_1_change_nothing(lab: Lab, hand: Hand, role: str) -> None:
    """Anybody sends a party pieces of request 1, points off the curve, other methods and suites, unknown EADs."""
    hand.onboard(role)
    good = hand.begin(role).request_1
    g_x = encode(good[5:37])
    assert good == b"\xf5\x03\x02" + g_x + messages.C_I
    tail = g_x + messages.C_I
    expected = {
        b"\xf5\x03\x02" + encode(off_curve()) + messages.C_I: "bad-point",
        b"\xf5\x03\x02" + encode(bytes(32)) + messages.C_I: None,
        b"\xf5\x03\x02" + encode(b"\xff" * 32) + messages.C_I: "bad-point",
        b"\xf5\x03\x02" + encode(good[5:36]) + messages.C_I: "bad-point",
        b"\xf5\x03\x02" + encode(good[5:37] + b"\x00") + messages.C_I: "bad-point",
        b"\xf5\x00\x02" + tail: "wrong-method",
        b"\xf5\x01\x02" + tail: "wrong-method",
        b"\xf5\x04\x02" + tail: "wrong-method",
        b"\xf5\xf5\x02" + tail: "wrong-shape",
        b"\xf5\x18\x03\x02" + tail: "not-canonical",
        b"\xf5\x03\x18\x02" + tail: "not-canonical",
        b"\xf5\x03\x81\x02" + tail: "wrong-shape",
        b"\xf5\x03\x02" + longer(g_x) + messages.C_I: "not-canonical",
        b"\xf5\x03\x02" + g_x + encode(bytes(17)): "bad-identifier",
        b"\xf5\x03\x02" + g_x + b"\x41\x00": "bad-identifier",
        good + encode(-7): "unknown-critical-ead",
        good + encode(-messages.EAD_CLAIM) + encode(b"x"): "unknown-critical-ead",
        good + b"\x60": "bad-ead",
        good + b"\x00" * 40: "too-many-items",
        good + encode(bytes(1_100)): "too-large",
    }
    suites = [b"\xf5\x03\x00" + tail, b"\xf5\x03\x06" + tail, b"\xf5\x03\x20" + tail, b"\xf5\x03\x82\x02\x03" + tail]
    others = [*truncated(good)[1:], *(b"\xf5" + some for some in noise(20))]
    with lab.untouched(), lab.heard(role) as codes:
        for one in suites:
            assert say(hand.url(role), one) == WRONG_SUITE
        for one, code in expected.items():
            assert (say(hand.url(role), one) == UNIFORM_ERROR) is (code is not None), one.hex()
        assert say(hand.url(role), b"") == UNIFORM_ERROR
        for one in others:
            error = WRONG_SUITE if code_1(one) == "wrong-suite" else UNIFORM_ERROR
            assert say(hand.url(role), one) == error, one.hex()
    assert codes[:4] == ["wrong-suite"] * 4
    assert codes[4 : 4 + len(expected)] == [code or "answered" for code in expected.values()]
    assert codes[4 + len(expected) :] == [said_of(wire.parse_request, b""), *map(code_1, others)]
    assert isinstance(hand.finish(role, hand.open(role, suite=3)), Granted)


@pytest.mark.parametrize("role", ROLES)
def test_what_is_no_request_at_all_gets_a_clear_error(lab: Lab, hand: Hand, role: str) -> None:
    """Anybody sends too much, or something of another kind."""
    hand.onboard(role)
    big = b"\xf5" + secrets.token_bytes(wire.MAX_REQUEST)
    asked = {
        "too-large": Asked("POST", wire.PATH, big, wire.MEDIA_TYPE_REQUEST),
        "wrong-media-type": Asked("POST", wire.PATH, b"\xf5", "text/plain"),
        "wrong-method": Asked("GET", wire.PATH, b"", wire.MEDIA_TYPE_REQUEST),
        "not-found": Asked("POST", wire.PATH + "/other", b"\xf5", wire.MEDIA_TYPE_REQUEST),
    }
    statuses = {"too-large": 413, "wrong-media-type": 415, "wrong-method": 405, "not-found": 404}
    with lab.untouched():
        for code, one in asked.items():
            answered = ask(hand.url(role), one)
            assert answered.status == statuses[code]
            assert code.encode() in answered.body
    hand.onboard(role)


@pytest.mark.parametrize("role", ROLES)
def test_a_device_that_breaks_what_is_inside_message_3_gets_the_uniform_error(lab: Lab, hand: Hand, role: str) -> None:
    """A real device, whose MAC holds, sends a claim, evidence or request that is not what it must be."""
    hand.onboard(role)
    sent = hand.open(role)
    begun = hand.begin(role)
    claim, evidence = begun._claim().encode(), hand.evidence()(bytes(32))
    good = [Ead(messages.EAD_CLAIM, True, claim), Ead(messages.EAD_EVIDENCE, True, evidence)]
    values = decode(claim)

    def with_claim(data: bytes) -> list[Ead]:
        return [Ead(messages.EAD_CLAIM, True, data), good[1]]

    broken: list[tuple[str, list[Ead]]] = [
        ("bad-ead", good[:1]),
        ("bad-ead", good[1:]),
        ("bad-ead", []),
        ("bad-ead", [*good, good[0]]),
        ("bad-ead", [Ead(messages.EAD_CLAIM, False, claim), good[1]]),
        ("bad-ead", [Ead(messages.EAD_CLAIM, True, b""), good[1]]),
        ("bad-ead", [Ead(messages.EAD_CLAIM, True, None), good[1]]),
        ("unknown-critical-ead", [*good, Ead(messages.EAD_GRANT, True, b"x")]),
        ("unknown-critical-ead", [*good, Ead(1, True, None)]),
        ("too-large", with_claim(encode([bytes(2_048)]))),
        ("too-large", [good[0], Ead(messages.EAD_EVIDENCE, True, bytes(2_049))]),
        ("too-large", [*good, Ead(messages.EAD_REQUEST, True, bytes(1_025))]),
        ("not-cbor", with_claim(claim[:-1])),
        ("not-canonical", with_claim(b"\x98\x0a" + claim[1:])),
        ("wrong-shape", with_claim(encode(values[:-1]))),
        ("wrong-shape", with_claim(encode([*values, None]))),
        ("wrong-shape", with_claim(encode({0: values}))),
    ]
    for place, value in ((0, bytes(15)), (1, -1), (1, 2**32), (3, b"x" * 33), (5, "7"), (6, 2**32), (9, b"")):
        bent = list(values)
        bent[place] = value
        broken.append(("wrong-shape", with_claim(encode(bent))))
    leaf = list(values[2])
    leaf[1] = off_curve() + bytes(32)
    broken.append(("bad-point", with_claim(encode([*values[:2], leaf, *values[3:]]))))
    with lab.untouched(), lab.heard(role) as codes:
        for _, items in broken:
            response = say(hand.url(role), begun.request_1)
            request_2, _ = hand.raw_3(begun, response, items)
            assert say(hand.url(role), request_2) == UNIFORM_ERROR
    assert codes[1::2] == [code for code, _ in broken]
    assert isinstance(hand.finish(role, sent), Granted)


def test_broken_evidence_and_requests_are_refused(lab: Lab, hand: Hand) -> None:
    """A device sends evidence that is none, or a request for what this party does not give."""
    hand.onboard("mno")
    hand.onboard("sp")
    good = hand.evidence()(bytes(32))
    for bad in (b"x", good[:-1], good + b"\x00", b"\x00" * 2_048, b"\x98\x04" + good[1:], secrets.token_bytes(300)):
        with lab.adding("mno", exchange=1):
            assert hand.refused("mno", evidence=lambda _, bad=bad: bad) == "evidence-malformed"
    with lab.adding("mno", exchange=1):
        assert hand.refused("mno", request=hand.request("sp")) == "request-unexpected"
    request = hand.request("sp")
    bent = request[:-1] + bytes([request[-1] ^ 1])
    for code, bad in (
        ("request-missing", b""),
        ("request-malformed", b"x"),
        ("request-malformed", request[:-1]),
        ("request-bad-signature", bent),
    ):
        with lab.adding("sp", exchange=1):
            assert hand.refused("sp", request=bad) == code


# --- towards the device -------------------------------------------------------------------------


def html(given: Answered) -> Answered:
    """Return what a broken proxy answers."""
    return Answered(500, "text/html", b"<html>" + given.body[:10])


def refusal(given: Answered) -> Answered:
    """Return an error of HTTP's that names a refusal, with nothing to prove it."""
    return Answered(403, "application/json", b'{"code": "clone-alarm", "detail": "", "hint": ""}')


def body(make: Callable[[bytes], bytes]) -> Callable[[Answered], Answered]:
    """Return what replaces an answer's body."""
    return lambda given: given.with_body(make(given.body))


def cut_token(data: bytes) -> bytes:
    return wire.parse_answer(data).message_2


def other_point(data: bytes) -> bytes:
    answer = wire.parse_answer(data)
    message: bytes = decode(answer.message_2)
    return wire.Answer(encode(off_curve() + message[32:]), answer.token).encode()


def last_bit(data: bytes) -> bytes:
    answer = wire.parse_answer(data)
    return wire.Answer(answer.message_2[:-1] + bytes([answer.message_2[-1] ^ 1]), answer.token).encode()


def error(number: int) -> bytes:
    return ErrorMessage(number, text="clone-alarm", suites=(0, 1)).encode()


FIRST: tuple[tuple[str, Callable[[Answered], Answered]], ...] = (
    ("wrong-shape", body(lambda _: b"")),
    ("edhoc-error-1", body(lambda _: error(1))),
    ("no-common-suite", body(lambda _: error(2))),
    ("edhoc-error-3", body(lambda _: error(3))),
    ("too-many-items", body(lambda _: b"\x01\x02\x03")),
    ("not-cbor", body(lambda data: data[:-1])),
    ("wrong-shape", body(cut_token)),
    ("not-cbor", body(lambda _: b"\xff" * 100)),
    ("bad-point", body(other_point)),
    ("bad-mac", body(last_bit)),
    ("too-many-items", body(lambda data: data + data)),
    ("not-canonical", body(longer)),
    ("too-large", body(lambda data: data + bytes(60_000))),
    ("response-too-large", body(lambda data: data + bytes(300_000))),
    ("bad-response", html),
    ("clone-alarm", refusal),
)
"""What becomes of response 1, and the code with which the device waits."""

FOURTH: tuple[tuple[str, Callable[[Answered], Answered]], ...] = (
    ("edhoc-error-1", body(lambda _: error(1))),
    ("edhoc-error-3", body(lambda _: error(3))),
    ("wrong-shape", body(lambda _: b"")),
    ("not-cbor", body(lambda data: data[:-1])),
    ("bad-ciphertext", body(lambda data: data[:-1] + bytes([data[-1] ^ 1]))),
    ("bad-ciphertext", body(lambda data: encode(secrets.token_bytes(len(data))))),
    ("not-canonical", body(longer)),
    ("too-many-items", body(lambda data: data + data)),
    ("clone-alarm", refusal),
)
"""What becomes of response 2, all of the first exchange's."""


class Breaking:
    """Gives each of the first exchanges an answer that is broken in a way of its own."""

    def __init__(self, ways: tuple[tuple[str, Callable[[Answered], Answered]], ...], *, first: bool) -> None:
        self.ways = list(ways)
        self.first = first
        self.fired: Counter[bytes] = Counter()
        self.chosen: dict[bytes, Callable[[Answered], Answered]] = {}

    def __call__(self, asked: Asked, forward: Forward) -> Answered:
        given = forward(asked)
        if (asked.body[:1] == b"\xf5") is not self.first:
            return given
        if asked.body not in self.chosen and self.ways:
            self.chosen[asked.body] = self.ways.pop(0)[1]
        way = self.chosen.get(asked.body)
        if way is None:
            return given
        self.fired[asked.body] += 1
        broken = way(given)
        assert broken != given
        return broken


@pytest.mark.parametrize(("ways", "first"), [(FIRST, True), (FOURTH, False)])
def test_devices_survive_whatever_a_relay_answers(
    lab: Lab, ways: tuple[tuple[str, Callable[[Answered], Answered]], ...], first: bool
) -> None:
    """A relay breaks message 2 or message 4, or forges errors and refusals: devices back off, and connect later."""
    left = honest(lab, Breaking((), first=first))
    devices = [lab.device() for _ in ways]
    breaking = Breaking(ways, first=first)
    with lab.growth() as grown, lab.interceptor.bending("/relay/", breaking):
        outcomes = lab.switch_on_all(devices)
    assert len(breaking.fired) == len(ways)
    assert all(outcome.lines[-1]["stage"] == "connected" for outcome in outcomes.values()), outcomes
    waited = Counter(line["code"] for outcome in outcomes.values() for line in outcome.lines if line.get("code"))
    assert waited == Counter(code for code, _ in ways)
    again = ("mno.exchange", "mno.issued", "mno.subscription")
    expected = Counter({name: count * len(ways) for name, count in parties(left).items()})
    assert parties(grown) == expected + Counter({} if first else dict.fromkeys(again, len(ways)))
    lost = [] if first else [GrantState.ENDED]
    for device in devices:
        hand = Hand(lab, device)
        assert hand.grants("mno") == [*lost, GrantState.CONFIRMED]
        assert hand.slots("mno") == 1


def parties(grown: Counter[str]) -> Counter[str]:
    """Return what has grown at MNO and SP: a fleet is stopped once it is connected, receipts are still to come."""
    return Counter({name: count for name, count in grown.items() if not name.startswith(("owner.", "gateway."))})


def honest(lab: Lab, relay: Breaking) -> Counter[str]:
    """Let a device connect through a relay that breaks nothing yet; return what that leaves in all stores."""
    with lab.growth() as grown, lab.interceptor.bending("/relay/", relay):
        lab.connects(lab.device())
    assert (grown["mno.issued"], grown["mno.exchange"], grown["sp.issued"], grown["sp.exchange"]) == (1, 1, 1, 1)
    return grown


def test_a_forged_suite_error_does_not_bring_a_weaker_suite(lab: Lab) -> None:
    """A relay says in the party's name that it has suite 2 only, so that MACs are half as long."""
    left = honest(lab, Breaking((), first=True))
    device, asked = lab.device(), list[bytes]()

    def downgrade(request: Asked, forward: Forward) -> Answered:
        given = forward(request)
        if request.body[:1] != b"\xf5":
            return given
        asked.append(request.body[:5])
        return given.with_body(ErrorMessage(2, suites=(2,)).encode()) if len(asked) == 1 else given

    with lab.growth() as grown, lab.interceptor.bending("/relay/", downgrade):
        outcome = lab.connects(device)
    assert grown == left
    preferred, listed = b"\xf5\x03\x03\x58\x20", b"\xf5\x03\x82\x03\x02"
    assert asked == [preferred, listed, preferred]
    assert [line["code"] for line in outcome.lines if line["stage"] == "waiting"] == ["edhoc-error-2"]
    assert Hand(lab, device).grants("mno") == [GrantState.CONFIRMED]


def test_a_device_reads_no_broken_message_2_or_4(lab: Lab, hand: Hand) -> None:
    """A relay breaks any part or cuts anywhere: the device backs off, and takes nothing for a grant or refusal."""
    hand.onboard("mno")
    begun = hand.begin("mno")
    response_1 = say(hand.url("mno"), begun.request_1)
    with lab.untouched():
        for broken, event in broken_responses_1(response_1):
            assert begun.read(broken, evidence=hand.evidence(), request=b"") == event, broken.hex()
    sent = hand.read(begun, "mno", response_1)
    response_2 = say(hand.url("mno"), sent.request_2)
    with lab.untouched():
        for broken, code in broken_responses_2(response_2):
            assert sent.read(broken) == BackOff(code), broken.hex()
    assert isinstance(sent.read(response_2), Granted)


def broken_responses_1(honest: bytes) -> Iterator[tuple[bytes, BackOff | Rediscover]]:
    """Iterate over what a relay makes of response 1, with what the device makes of that.

    PLAINTEXT_2 is C_R, the kid and the MAC with one byte each that says how long they are, and EAD_2; a stream
    encrypts it, so that whoever changes a bit of the ciphertext changes that bit of the plaintext.
    """
    chance, answer = random.Random(SEED), wire.parse_answer(honest)
    both: bytes = decode(answer.message_2)
    mac = 32 + 1 + 9 + 1
    kid, short = range(34, 42), len(both)
    assert short > mac + 8
    regions: tuple[tuple[range, int, BackOff | Rediscover], ...] = (
        (range(32, 33), 4, BackOff("bad-mac")),
        (kid, 8, Rediscover("unexpected-credential")),
        (range(mac, mac + 8), 8, BackOff("bad-mac")),
    )
    for places, bits, event in regions:
        for at in places:
            for bit in range(bits):
                yield with_message_2(answer, both[:at] + bytes([both[at] ^ (1 << bit)]) + both[at + 1 :]), event
    for at in (33, 42):  # a length that is none: 0x48 with its upper bits changed
        for bit in (5, 6, 7):
            bent = both[:at] + bytes([both[at] ^ (1 << bit)]) + both[at + 1 :]
            yield with_message_2(answer, bent), BackOff("bad-plaintext")
    for at in chance.sample(range(32), 16):
        g_y = both[:at] + bytes([both[at] ^ (1 << chance.randrange(8))]) + both[at + 1 : 32]
        yield with_message_2(answer, g_y + both[32:]), BackOff(said_of(point, g_y) or "bad-plaintext")
    for size in range(32):
        yield with_message_2(answer, both[:size]), BackOff("bad-point")
    for size in range(32, mac + 8):
        yield with_message_2(answer, both[:size]), BackOff("bad-plaintext")
    for some in (chance.randbytes(size) for size in range(1, 400, 20)):
        code = said_of(point, some[:32]) or "bad-plaintext"
        yield with_message_2(answer, some), BackOff(code)
        parsed = said_of(wire.parse_answer, some)
        assert parsed
        yield some, BackOff(parsed)
    cut = len(answer.message_2)
    yield from (
        (honest[:size], BackOff("wrong-shape" if size == cut else "not-cbor")) for size in range(1, len(honest))
    )


def with_message_2(answer: wire.Answer, both: bytes) -> bytes:
    """Return response 1 with another G_Y and ciphertext."""
    return replace(answer, message_2=encode(both)).encode()


def broken_responses_2(honest: bytes) -> Iterator[tuple[bytes, str]]:
    """Iterate over what a relay makes of response 2, with the code that the device logs."""
    chance = random.Random(SEED)
    ciphertext: bytes = decode(honest)
    head = len(honest) - len(ciphertext)
    for at in chance.sample(range(len(ciphertext)), min(90, len(ciphertext))):
        bent = ciphertext[:at] + bytes([ciphertext[at] ^ (1 << chance.randrange(8))]) + ciphertext[at + 1 :]
        yield honest[:head] + bent, "bad-ciphertext"
    for size in range(1, len(honest)):
        yield honest[:size], "not-cbor"
    for size in range(len(ciphertext)):
        yield encode(ciphertext[:size]), "bad-ciphertext"
    yield b"", "wrong-shape"
    yield honest + b"\x00", "too-many-items"
    yield longer(honest), "not-canonical"
    yield encode("text"), "wrong-shape"
    for some in (chance.randbytes(size) for size in range(1, 400, 20)):
        yield encode(some), "bad-ciphertext"
