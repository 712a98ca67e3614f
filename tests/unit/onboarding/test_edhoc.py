"""EDHOC: what must not pass, in both roles and both suites."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from firstlight.encoding import encode, encode_sequence
from firstlight.errors import ExchangeError, FirstlightError, MalformedError
from firstlight.onboarding.edhoc import error, initiator, keys, responder
from firstlight.onboarding.edhoc.keys import Ead, Ephemeral
from firstlight.testing.random import SeededRandom

INITIATOR, RESPONDER = Ephemeral.draw(SeededRandom("i")), Ephemeral.draw(SeededRandom("r"))
CRED_I, CRED_R = encode({8: b"initiator"}), encode({8: b"responder"})
KID_I, KID_R = bytes(16), b"\x27"
OFF_CURVE = next(
    x for x in (n.to_bytes(32) for n in range(1, 50)) if pow(int.from_bytes(x) ** 3 - 3 * int.from_bytes(x)
    + 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B, (2**256 - 2**224 + 2**192 + 2**96 - 1) // 2,
    2**256 - 2**224 + 2**192 + 2**96 - 1) != 1
)  # fmt: skip


@dataclass
class Run:
    """An honest run up to message 3."""

    started: initiator.Started
    message_2: bytes
    half: responder.HalfOpen
    message_3: bytes
    session: keys.Session


def run(suite: int = 2, ead_2: tuple[Ead, ...] = (), ead_3: tuple[Ead, ...] = (), kid_i: bytes = KID_I) -> Run:
    started = initiator.start(Ephemeral.draw(SeededRandom("x")), c_i=b"\x00", suites=(suite,))
    message_2, half = responder.make_2(
        responder.read_1(started.message_1),
        ephemeral=Ephemeral.draw(SeededRandom("y")),
        static=RESPONDER,
        kid_r=KID_R,
        cred_r=CRED_R,
        c_r=b"\x01",
        ead_2=ead_2,
    )
    verified = initiator.read_2(started, message_2).verify(CRED_R, RESPONDER.x)
    message_3, session = initiator.make_3(verified, static=INITIATOR, kid_i=kid_i, cred_i=CRED_I, ead_3=ead_3)
    return Run(started, message_2, half, message_3, session)


def code_of(call: object, *arguments: object) -> str:
    with pytest.raises(FirstlightError) as caught:
        call(*arguments)  # type: ignore[operator]
    return caught.value.code


@pytest.mark.parametrize(("suite", "sizes"), [(2, (37, 45, 36, 9)), (3, (37, 53, 52, 17))])
def test_both_suites_agree(suite: int, sizes: tuple[int, ...]) -> None:
    honest = run(suite)
    session = responder.read_3(honest.half, honest.message_3).verify(CRED_I, INITIATOR.x)
    assert session == honest.session
    message_4 = session.message_4()
    assert honest.session.open_4(message_4, limit=64) == ()
    lengths = tuple(map(len, (honest.started.message_1, honest.message_2, honest.message_3, message_4)))
    assert lengths == sizes
    assert session.export(32768, b"context", 300) == honest.session.export(32768, b"context", 300)
    assert session.export(32768, b"context", 16) != session.export(32769, b"context", 16)


def test_ead_items_pass_as_they_are() -> None:
    padding, plain, critical = Ead(0, False, b"\x00" * 9), Ead(65001, False, None), Ead(65002, True, b"claim")
    honest = run(ead_2=(padding, plain), ead_3=(critical, padding))
    assert initiator.read_2(honest.started, honest.message_2).ead_2 == (padding, plain)
    unverified = responder.read_3(honest.half, honest.message_3)
    assert unverified.ead_3 == (critical, padding)
    session = unverified.verify(CRED_I, INITIATOR.x)
    assert honest.session.open_4(session.message_4([critical]), limit=64) == (critical,)


def test_ead_of_every_size() -> None:
    for size in (0, 23, 24, 255, 256, 1500, 3500):
        honest = run(ead_3=(Ead(65002, True, bytes(size)),))
        assert responder.read_3(honest.half, honest.message_3).verify(CRED_I, INITIATOR.x) == honest.session


def test_long_message_2_uses_a_long_keystream() -> None:
    honest = run(ead_2=(Ead(65001, False, bytes(1900)),))
    assert len(honest.message_2) > 1900
    assert code_of(keys.kdf, bytes(32), 0, b"", keys.MAX_KDF + 1) == "too-large"


@pytest.mark.parametrize("which", ["message_2", "message_3", "message_4"])
def test_no_flipped_bit_passes(which: str) -> None:
    honest = run()
    session = responder.read_3(honest.half, honest.message_3).verify(CRED_I, INITIATOR.x)
    good = {"message_2": honest.message_2, "message_3": honest.message_3, "message_4": session.message_4()}[which]

    def receive(message: bytes) -> None:
        if which == "message_2":
            initiator.read_2(honest.started, message).verify(CRED_R, RESPONDER.x)
        elif which == "message_3":
            responder.read_3(honest.half, message).verify(CRED_I, INITIATOR.x)
        else:
            honest.session.open_4(message, limit=64)

    receive(good)
    for bit in range(0, 8 * len(good), 3):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises((MalformedError, ExchangeError)):
            receive(bytes(bad))
    for length in range(len(good)):
        with pytest.raises((MalformedError, ExchangeError)):
            receive(good[:length])


def test_wrong_keys_and_credentials_fail_the_macs() -> None:
    honest = run()
    other = Ephemeral.draw(SeededRandom("other"))
    unverified = initiator.read_2(honest.started, honest.message_2)
    assert code_of(unverified.verify, CRED_R, other.x) == "bad-mac"
    assert code_of(unverified.verify, CRED_I, RESPONDER.x) == "bad-mac"
    assert code_of(unverified.verify, CRED_R, OFF_CURVE) == "bad-point"
    third = responder.read_3(honest.half, honest.message_3)
    assert code_of(third.verify, CRED_I, other.x) == "bad-mac"
    assert code_of(third.verify, CRED_R, INITIATOR.x) == "bad-mac"
    assert code_of(third.verify, CRED_I, OFF_CURVE) == "bad-point"


def test_message_3_of_another_exchange() -> None:
    honest = run()
    started = initiator.start(Ephemeral.draw(SeededRandom("x2")), c_i=b"\x00")
    hello = responder.read_1(started.message_1)
    _, half = responder.make_2(
        hello, ephemeral=Ephemeral.draw(SeededRandom("y")), static=RESPONDER, kid_r=KID_R, cred_r=CRED_R, c_r=b"\x01"
    )
    assert code_of(responder.read_3, half, honest.message_3) == "bad-ciphertext"


def message_1(
    method: object = 3, suites: object = 2, g_x: object = INITIATOR.x, c_i: object = 0, *rest: object
) -> bytes:
    return encode_sequence(method, suites, g_x, c_i, *rest)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"", "wrong-shape"),
        (message_1()[:-1], "wrong-shape"),
        (message_1(0), "wrong-method"),
        (message_1(b"3"), "wrong-shape"),
        (message_1(3, 0), "wrong-suite"),
        (message_1(3, [2]), "wrong-shape"),
        (message_1(3, []), "wrong-shape"),
        (message_1(3, [3, 2]), "wrong-suite"),
        (message_1(3, [2, 0]), "wrong-suite"),
        (message_1(3, [*range(9)]), "wrong-shape"),
        (message_1(3, [b"", 2]), "wrong-shape"),
        (message_1(3, True), "wrong-shape"),
        (message_1(3, 2, "text"), "wrong-shape"),
        (message_1(3, 2, bytes(31)), "bad-point"),
        (message_1(3, 2, OFF_CURVE), "bad-point"),
        (message_1(3, 2, b"\xff" * 32), "bad-point"),
        (message_1(3, 2, INITIATOR.x, 24), "bad-identifier"),
        (message_1(3, 2, INITIATOR.x, b"\x00"), "bad-identifier"),
        (message_1(3, 2, INITIATOR.x, bytes(17)), "bad-identifier"),
        (message_1(3, 2, INITIATOR.x, 0, b"value first"), "bad-ead"),
        (message_1(3, 2, INITIATOR.x, 0, 1, b"a", b"b"), "bad-ead"),
        (message_1(3, 2, INITIATOR.x, 0, 65_536), "bad-ead"),
        (message_1(3, 2, INITIATOR.x, 0, "text"), "bad-ead"),
        (b"\x18\x03" + message_1()[1:], "not-canonical"),
        (b"\x03\x02\x5f\x58\x20" + INITIATOR.x + b"\xff\x00", "not-cbor"),
        (message_1(3, 2, INITIATOR.x, 0, 1, bytes(1100)), "too-large"),
        (message_1(3, 2, INITIATOR.x, 0, *[1] * 40), "too-many-items"),
    ],
)
def test_bad_message_1(message: bytes, code: str) -> None:
    def answer() -> None:
        hello = responder.read_1(message)
        responder.make_2(hello, ephemeral=RESPONDER, static=RESPONDER, kid_r=KID_R, cred_r=CRED_R, c_r=b"\x01")

    assert code_of(answer) == code


def test_off_curve_g_y() -> None:
    honest = run()
    assert code_of(initiator.read_2, honest.started, encode(OFF_CURVE + bytes(10))) == "bad-point"
    assert code_of(initiator.read_2, honest.started, encode(bytes(5))) == "bad-point"


def test_identifiers_have_one_encoding() -> None:
    """RFC 9528 §3.3.2: a byte string that is itself a one-byte integer goes as that integer."""
    for value in range(-24, 24):
        raw = encode(value)
        assert keys.encode_identifier(raw) == raw
        assert keys.parse_identifier(value, limit=16) == raw
        assert code_of(lambda raw=raw: keys.parse_identifier(raw, limit=16)) == "bad-identifier"
    for raw in (b"", b"\x18", b"\x38", b"\xff", b"\x00\x00", bytes(16)):
        assert keys.encode_identifier(raw) == encode(raw)
        assert keys.parse_identifier(raw, limit=16) == raw
    for kid in (b"\x2b", b"\x40", bytes(8), bytes(16)):
        honest = run(kid_i=kid)
        assert responder.read_3(honest.half, honest.message_3).kid_i == kid


@pytest.mark.parametrize("number", [0, 2**256 - 1])
def test_scalars_are_bounded(number: int) -> None:
    assert code_of(Ephemeral.from_secret, number.to_bytes(32)) == "bad-scalar"


def test_draw_passes_over_what_is_no_scalar() -> None:
    class Stubborn:
        def __init__(self) -> None:
            self.drawn = [bytes(32), b"\xff" * 32, b"\x01" * 32]

        def bytes(self, count: int) -> bytes:
            return self.drawn.pop(0)

    assert Ephemeral.draw(Stubborn()).secret == b"\x01" * 32


def test_secrets_are_not_shown() -> None:
    honest = run()
    for shown in (repr(honest.half), repr(honest.session), repr(honest.started)):
        for secret in (
            honest.half.y,
            honest.half.prk_3e2m,
            honest.session.prk_exporter,
            honest.started.ephemeral.secret,
        ):
            assert repr(secret) not in shown


@pytest.mark.parametrize(
    "message",
    [
        error.ErrorMessage(1, text="refused"),
        error.ErrorMessage(2, suites=(2,)),
        error.ErrorMessage(2, suites=(2, 3)),
        error.ErrorMessage(3),
    ],
)
def test_error_messages(message: error.ErrorMessage) -> None:
    data = message.encode()
    assert error.is_error(data)
    assert error.parse_error(data) == message


@pytest.mark.parametrize(
    "data", ["01", "0102", "0240", "028102", "03f4", "04f5", "0340", "f561 61", "0161610101", "20"]
)
def test_bad_error_messages(data: str) -> None:
    assert code_of(error.parse_error, bytes.fromhex(data)) in ("wrong-shape", "too-many-items", "not-cbor")


def test_no_message_looks_like_an_error() -> None:
    honest = run()
    assert not error.is_error(honest.message_2)
    assert not error.is_error(responder.read_3(honest.half, honest.message_3).verify(CRED_I, INITIATOR.x).message_4())
    assert not error.is_error(b"")
