"""RFC 9529 section 3, byte for byte, in both roles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from firstlight.errors import ExchangeError
from firstlight.onboarding.edhoc import initiator, keys, responder
from firstlight.onboarding.edhoc.error import WRONG_SUITE, ErrorMessage, parse_error
from firstlight.onboarding.edhoc.keys import Ephemeral, Session

_JSON = json.loads(Path(__file__).with_name("edhoc_rfc9529.json").read_text())
TRACE = {name: bytes.fromhex(value) for name, value in _JSON.items() if isinstance(value, str) and name != "source"}


def check_session(session: Session) -> None:
    assert session.th_3 == TRACE["th_3"]
    assert session.th_4 == TRACE["th_4"]
    assert session.prk_4e3m == TRACE["prk_4e3m"]
    assert session.prk_exporter == TRACE["prk_exporter"]
    assert session.export(0, b"", 16) == TRACE["oscore_master_secret"]
    assert session.export(1, b"", 8) == TRACE["oscore_master_salt"]


def test_initiator() -> None:
    ephemeral = Ephemeral.from_secret(TRACE["x"])
    assert ephemeral.x == TRACE["g_x"]
    started = initiator.start(ephemeral, c_i=TRACE["c_i"], suites=_JSON["suites_i"])
    assert started.message_1 == TRACE["message_1"]

    unverified = initiator.read_2(started, TRACE["message_2"])
    assert (unverified.c_r, unverified.kid_r) == (TRACE["c_r"], TRACE["kid_r"])
    assert keys.id_cred(unverified.kid_r) == TRACE["id_cred_r"]
    assert (unverified.th_2, unverified.prk_2e, unverified.mac) == (TRACE["th_2"], TRACE["prk_2e"], TRACE["mac_2"])

    verified = unverified.verify(TRACE["cred_r"], TRACE["g_r"])
    assert (verified.th_3, verified.prk_3e2m) == (TRACE["th_3"], TRACE["prk_3e2m"])
    message_3, session = initiator.make_3(
        verified, static=Ephemeral.from_secret(TRACE["i"]), kid_i=TRACE["kid_i"], cred_i=TRACE["cred_i"]
    )
    assert message_3 == TRACE["message_3"]
    check_session(session)
    assert session.open_4(TRACE["message_4"], limit=64) == ()


def test_responder() -> None:
    hello = responder.read_1(TRACE["message_1"])
    assert (hello.suite.number, hello.g_x, hello.c_i) == (2, TRACE["g_x"], TRACE["c_i"])
    message_2, half = responder.make_2(
        hello,
        ephemeral=Ephemeral.from_secret(TRACE["y"]),
        static=Ephemeral.from_secret(TRACE["r"]),
        kid_r=TRACE["kid_r"],
        cred_r=TRACE["cred_r"],
        c_r=TRACE["c_r"],
    )
    assert message_2 == TRACE["message_2"]
    assert (half.th_3, half.prk_3e2m) == (TRACE["th_3"], TRACE["prk_3e2m"])
    assert responder.HalfOpen.decode(half.encode()) == half

    unverified = responder.read_3(half, TRACE["message_3"])
    assert (unverified.kid_i, unverified.mac) == (TRACE["kid_i"], TRACE["mac_3"])
    assert keys.id_cred(unverified.kid_i) == TRACE["id_cred_i"]
    session = unverified.verify(TRACE["cred_i"], TRACE["g_i"])
    check_session(session)
    assert session.message_4() == TRACE["message_4"]


def test_refused_suite() -> None:
    """The first message 1 of the trace selects suite 6; the answer is the trace's error message."""
    with pytest.raises(ExchangeError) as caught:
        responder.read_1(TRACE["message_1_first"], suites=(2,))
    assert caught.value.code == "wrong-suite"
    assert ErrorMessage(WRONG_SUITE, suites=(2,)).encode() == TRACE["error"]
    assert parse_error(TRACE["error"]) == ErrorMessage(WRONG_SUITE, suites=(2,))
