"""EDHOC against an independent implementation: lakers (Rust), method 3, suite 2, in both roles.

Its exporter is compared at label 0, where its encoding is that of RFC 9528. Its contexts end at 255 bytes, so
EAD_3 is short here.
"""

from __future__ import annotations

import hashlib

import lakers
import pytest

from firstlight.encoding import encode
from firstlight.errors import ExchangeError
from firstlight.onboarding.edhoc import initiator, responder
from firstlight.onboarding.edhoc.keys import Ead, Ephemeral
from firstlight.testing.random import SeededRandom

KID_I, KID_R = bytes(range(16)), bytes(range(8))


def make(seed: str, kid: bytes, subject: str | None) -> tuple[Ephemeral, bytes]:
    """A static key and its CCS."""
    key = Ephemeral.draw(SeededRandom(seed))
    xy = key._key.public_key().public_numbers()
    cose = {1: 2, 2: kid, -1: 1, -2: xy.x.to_bytes(32), -3: xy.y.to_bytes(32)}
    claims: dict[int, object] = {8: {1: cose}}
    if subject:
        claims[2] = subject
    return key, encode(claims)


INITIATOR, CRED_I = make("initiator", KID_I, None)
RESPONDER, CRED_R = make("responder", KID_R, "testnet/000102030405060708090a0b0c0d0e0f")
EAD_2 = Ead(65001, False, b"\x18\x2a")
EAD_3 = Ead(65002, True, b"claim" * 20)
EAD_4 = Ead(65005, True, b"grant" * 30)


def peers(item: lakers.EADItem) -> Ead:
    value = item.value()
    return Ead(item.label(), item.is_critical(), None if value is None else bytes(value))


def item(ead: Ead) -> lakers.EADItem:
    return lakers.EADItem(ead.label, ead.critical, ead.value)


def first(items: list[lakers.EADItem]) -> Ead:
    (one,) = items
    return peers(one)


@pytest.mark.parametrize("seed", range(4))
def test_we_respond(seed: int) -> None:
    peer = lakers.EdhocInitiator()
    message_1 = peer.prepare_message_1(b"\x00")
    hello = responder.read_1(bytes(message_1))
    message_2, half = responder.make_2(
        hello,
        ephemeral=Ephemeral.draw(SeededRandom(seed)),
        static=RESPONDER,
        kid_r=KID_R,
        cred_r=CRED_R,
        c_r=b"\x01",
        ead_2=[EAD_2],
    )
    _, _, ead_2 = peer.parse_message_2(message_2)
    assert first(ead_2) == EAD_2
    peer.verify_message_2(INITIATOR.secret, CRED_I, CRED_R)
    message_3, _ = peer.prepare_message_3(lakers.CredentialTransfer.ByReference, [item(EAD_3)])
    unverified = responder.read_3(half, bytes(message_3))
    assert unverified.kid_i == KID_I
    assert unverified.ead_3 == (EAD_3,)
    session = unverified.verify(CRED_I, INITIATOR.x)
    ead_4 = peer.process_message_4(session.message_4([EAD_4]))
    assert first(ead_4) == EAD_4
    for context, length in ((b"", 16), (b"context", 32)):
        assert bytes(peer.edhoc_exporter(0, context, length)) == session.export(0, context, length)


@pytest.mark.parametrize("seed", range(4))
def test_we_initiate(seed: int) -> None:
    peer = lakers.EdhocResponder(RESPONDER.secret, CRED_R)
    started = initiator.start(Ephemeral.draw(SeededRandom(seed)), c_i=b"\x00")
    peer.process_message_1(started.message_1)
    message_2 = bytes(peer.prepare_message_2(lakers.CredentialTransfer.ByReference, b"\x01", [item(EAD_2)]))
    unverified = initiator.read_2(started, message_2)
    assert (unverified.c_r, unverified.kid_r, unverified.ead_2) == (b"\x01", KID_R, (EAD_2,))
    verified = unverified.verify(CRED_R, RESPONDER.x)
    message_3, session = initiator.make_3(verified, static=INITIATOR, kid_i=KID_I, cred_i=CRED_I, ead_3=[EAD_3])
    _, ead_3 = peer.parse_message_3(message_3)
    assert first(ead_3) == EAD_3
    peer.verify_message_3(CRED_I)
    message_4 = bytes(peer.prepare_message_4([item(EAD_4)]))
    assert session.open_4(message_4, limit=512) == (EAD_4,)
    assert bytes(peer.edhoc_exporter(0, b"context", 32)) == session.export(0, b"context", 32)


def test_a_wrong_y_in_the_credential_fails_the_mac() -> None:
    """Both sides must hold the full point: x alone gives the same secret but not the same CCS."""
    peer = lakers.EdhocResponder(RESPONDER.secret, CRED_R)
    started = initiator.start(Ephemeral.draw(SeededRandom("y")), c_i=b"\x00")
    peer.process_message_1(started.message_1)
    message_2 = bytes(peer.prepare_message_2(lakers.CredentialTransfer.ByReference, b"\x01"))
    y = RESPONDER._key.public_key().public_numbers().y.to_bytes(32)
    other = CRED_R.replace(y, hashlib.sha256(y).digest())
    assert other != CRED_R
    with pytest.raises(ExchangeError) as caught:
        initiator.read_2(started, message_2).verify(other, RESPONDER.x)
    assert caught.value.code == "bad-mac"
