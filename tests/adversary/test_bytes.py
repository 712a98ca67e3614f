"""Broken bytes in every message of an exchange: towards the parties, and towards devices."""

from __future__ import annotations

import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from firstlight.encoding import decode, encode
from firstlight.errors import MalformedError
from firstlight.onboarding import messages, wire
from firstlight.onboarding.device import Granted
from firstlight.onboarding.edhoc.error import ErrorMessage
from firstlight.onboarding.edhoc.keys import Ead, point
from firstlight.onboarding.party import UNIFORM_ERROR
from firstlight.stores.exchanges import GrantState
from firstlight.testing.byhand import Hand, ask, say
from firstlight.testing.interceptor import Answered, Asked, Forward
from firstlight.testing.lab import Lab

ROLES = ("mno", "sp")
WRONG_SUITE = ErrorMessage(2, suites=(3, 2)).encode()
PARSING = {"not-cbor", "not-canonical", "wrong-shape", "too-many-items", "too-large", "bad-identifier"}


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


def truncated(data: bytes) -> Iterator[bytes]:
    """Iterate over beginnings of ``data``: all short ones, and every seventh."""
    yield from (data[:size] for size in range(len(data)) if size < 40 or size % 37 == 0)
    yield data[:-1]


def flipped(data: bytes, count: int) -> Iterator[bytes]:
    """Iterate over copies of ``data`` with one bit changed."""
    chance = random.Random(data)
    for at in chance.sample(range(len(data)), min(count, len(data))):
        yield data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]


def noise(count: int) -> Iterator[bytes]:
    """Iterate over random bytes of many lengths."""
    return (secrets.token_bytes(size) for size in range(1, 40 * count, 40))


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
    with lab.unchanged(lab.state(role)), lab.heard(role) as codes:
        for one in broken:
            assert say(hand.url(role), one) == UNIFORM_ERROR, one.hex()
    assert len(codes) == len(broken)
    assert set(codes) <= PARSING | {"bad-token", "bad-ciphertext", "wrong-identifier"}
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
    with lab.unchanged(lab.state(role)), lab.heard(role) as codes:
        for one in suites:
            assert say(hand.url(role), one) == WRONG_SUITE
        for one, code in expected.items():
            assert (say(hand.url(role), one) == UNIFORM_ERROR) is (code is not None), one.hex()
        for one in truncated(good):
            assert say(hand.url(role), one) == UNIFORM_ERROR, one.hex()
        for one in (b"\xf5" + some for some in noise(20)):
            assert say(hand.url(role), one) in (UNIFORM_ERROR, WRONG_SUITE), one.hex()
    assert codes[:4] == ["wrong-suite"] * 4
    assert codes[4 : 4 + len(expected)] == [code or "answered" for code in expected.values()]
    assert set(codes[4 + len(expected) :]) <= PARSING | {"wrong-method", "wrong-suite", "bad-point", "bad-ead"}
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
    with lab.unchanged(lab.state(role)):
        for code, one in asked.items():
            answered = ask(hand.url(role), one)
            assert answered.status == statuses[code]
            assert code.encode() in answered.body
    hand.onboard(role)


@pytest.mark.parametrize("role", ROLES)
def test_a_device_that_breaks_what_is_inside_message_3_gets_the_uniform_error(lab: Lab, hand: Hand, role: str) -> None:
    """A real device, whose MAC holds, sends a claim, evidence or request that is not what it must be."""
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
    with lab.unchanged(lab.state(role)), lab.heard(role) as codes:
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
        with lab.only(lab.places.mno, exchange=1):
            assert hand.refused("mno", evidence=lambda _, bad=bad: bad) == "evidence-malformed"
    with lab.only(lab.places.mno, exchange=1):
        assert hand.refused("mno", request=hand.request("sp")) == "request-unexpected"
    request = hand.request("sp")
    bent = request[:-1] + bytes([request[-1] ^ 1])
    for code, bad in (
        ("request-missing", b""),
        ("request-malformed", b"x"),
        ("request-malformed", request[:-1]),
        ("request-bad-signature", bent),
    ):
        with lab.only(lab.places.sp, exchange=1):
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
    devices = [lab.device() for _ in ways]
    breaking = Breaking(ways, first=first)
    with lab.interceptor.bending("/relay/", breaking):
        outcomes = lab.switch_on_all(devices)
    assert len(breaking.fired) == len(ways)
    assert all(outcome.lines[-1]["stage"] == "connected" for outcome in outcomes.values()), outcomes
    waited = Counter(line["code"] for outcome in outcomes.values() for line in outcome.lines if line.get("code"))
    assert waited == Counter(code for code, _ in ways)
    lost = [] if first else [GrantState.ENDED]
    for device in devices:
        hand = Hand(lab, device)
        assert hand.grants("mno") == [*lost, GrantState.CONFIRMED]
        assert hand.slots("mno") == 1


def test_a_forged_suite_error_does_not_bring_a_weaker_suite(lab: Lab) -> None:
    """A relay says in the party's name that it has suite 2 only, so that MACs are half as long."""
    device, asked = lab.device(), list[bytes]()

    def downgrade(request: Asked, forward: Forward) -> Answered:
        given = forward(request)
        if request.body[:1] != b"\xf5":
            return given
        asked.append(request.body[:5])
        return given.with_body(ErrorMessage(2, suites=(2,)).encode()) if len(asked) == 1 else given

    with lab.interceptor.bending("/relay/", downgrade):
        outcome = lab.connects(device)
    preferred, listed = b"\xf5\x03\x03\x58\x20", b"\xf5\x03\x82\x03\x02"
    assert asked == [preferred, listed, preferred]
    assert [line["code"] for line in outcome.lines if line["stage"] == "waiting"] == ["edhoc-error-2"]
    assert Hand(lab, device).grants("mno") == [GrantState.CONFIRMED]


def test_a_device_reads_no_broken_message_2_or_4(lab: Lab, hand: Hand) -> None:
    """A relay breaks any bit or cuts anywhere: what the device makes of it is to back off, never a grant or refusal."""
    begun = hand.begin("mno")
    response_1 = say(hand.url("mno"), begun.request_1)
    message_2 = wire.parse_answer(response_1).message_2
    for broken in [*flipped(message_2, 90), *truncated(message_2), *noise(20)]:
        answer = broken + response_1[len(message_2) :]
        event = begun.read(answer, evidence=hand.evidence(), request=b"")
        assert type(event).__name__ in ("BackOff", "Rediscover"), broken.hex()
    sent = hand.read(begun, "mno", response_1)
    response_2 = say(hand.url("mno"), sent.request_2)
    for broken in [*flipped(response_2, 90), *truncated(response_2), *noise(20)]:
        assert type(sent.read(broken)).__name__ == "BackOff", broken.hex()
    assert isinstance(sent.read(response_2), Granted)
