"""The device's events."""

from __future__ import annotations

from dataclasses import replace

import pytest

from firstlight.encoding import encode, encode_sequence
from firstlight.errors import MalformedError
from firstlight.onboarding import messages, wire
from firstlight.onboarding.device import Acting, BackOff, Begun, Granted, Rediscover, Refused, Sent
from firstlight.onboarding.edhoc import responder
from firstlight.onboarding.edhoc.keys import Ead
from firstlight.onboarding.messages import Grant, Head, Refusal, X509Grant
from firstlight.testing.onboarding import StaticKey, World
from firstlight.testing.random import SeededRandom


def same(nonce: bytes) -> bytes:
    return nonce


def read(world: World, acting: Acting) -> Sent | Rediscover | BackOff:
    begun = world.begin(acting)
    return begun.read(world.send(begun.request_1).data, evidence=same)


def test_message_3_is_made_once_and_sent_again() -> None:
    world = World()
    sent = world.open()
    assert isinstance(sent.read(b"\x01\x67refused"), BackOff)
    assert isinstance(sent.read(encode(bytes(40))), BackOff)
    replies = {world.send(sent.request_2).data for _ in range(3)}
    assert len(replies) == 1
    assert isinstance(sent.read(replies.pop()), Granted)


@pytest.mark.parametrize(("ahead", "rediscovers"), [(0, False), (10, False), (11, True), (-50, False)])
def test_a_party_far_ahead_means_rediscovery_once(ahead: int, rediscovers: bool) -> None:
    world = World()
    world.ledger.announced = 100 + ahead
    event = read(world, world.acting())
    if not rediscovers:
        assert isinstance(event, Sent)
        return
    assert event == Rediscover("party-ahead", 100 + ahead)
    assert isinstance(read(world, replace(world.acting(), rediscovered=True)), Sent)


def test_an_unexpected_credential_means_rediscovery_once() -> None:
    world = World()
    acting = replace(world.acting(), agreement_key=StaticKey.draw(SeededRandom("new")).public)
    assert read(world, acting) == Rediscover("unexpected-credential")
    assert read(world, replace(acting, rediscovered=True)) == BackOff("unexpected-credential")


@pytest.mark.parametrize("change", [{"chain": "other"}, {"party": bytes(16)}])
def test_another_partys_key_helps_nobody(change: dict[str, object]) -> None:
    """Whoever registers this party's public key under another id, or on another chain, has another credential."""
    world = World()
    assert isinstance(read(world, world.acting()), Sent)
    assert read(world, replace(world.acting(), **change)) == BackOff("bad-mac")  # type: ignore[arg-type]


def test_plain_errors_cause_back_off_alone() -> None:
    world = World()
    begun = world.begin()
    for data, code in (
        (b"\x01\x67refused", "edhoc-error-1"),
        (b"\x02\x03", "edhoc-error-2"),
        (b"\x03\xf5", "edhoc-error-3"),
        (b"\x07\xf5", "wrong-shape"),
        (b"", "wrong-shape"),
        (b"\xff", "not-cbor"),
        (encode_sequence(b"message 2", b"token"), "bad-point"),
        (encode_sequence(b"m", b"t" * 600), "wrong-shape"),
    ):
        assert begun.read(data, evidence=same) == BackOff(code)
    assert isinstance(begun.read(world.send(begun.request_1).data, evidence=same), Sent)


def answer_2(world: World, begun: Begun, ead_2: list[Ead]) -> bytes:
    first = wire.parse_request(begun.request_1)
    assert isinstance(first, wire.First)
    message_2, _ = responder.make_2(
        responder.read_1(first.message_1),
        ephemeral=StaticKey.draw(world.random).ephemeral,
        static=world.party_key,
        kid_r=world.party._kid,
        cred_r=world.party._credential,
        c_r=b"\x01",
        ead_2=ead_2,
    )
    return wire.Answer(message_2, b"token").encode()


def test_items_of_ead_2() -> None:
    world = World()
    height = Ead(messages.EAD_HEIGHT, False, Head(100).encode())
    for items, expected in (
        ([height], None),
        ([height, Ead(70, False, None)], None),
        ([height, Ead(70, True, None)], "unknown-critical-ead"),
        ([], "bad-ead"),
        ([Ead(messages.EAD_HEIGHT, True, Head(100).encode())], "bad-ead"),
        ([Ead(messages.EAD_HEIGHT, False, b"\x00")], "wrong-shape"),
    ):
        begun = world.begin()
        event = begun.read(answer_2(world, begun, items), evidence=same)
        assert isinstance(event, Sent) if expected is None else event == BackOff(expected)


def test_items_of_ead_4() -> None:
    world = World()
    sent = world.open()
    grant = Ead(
        messages.EAD_GRANT, True, Grant(bytes(16), 1, 2, X509Grant((b"c",), (b"a",), "s", "mqtts://h", "t")).encode()
    )
    refusal = Ead(messages.EAD_REFUSAL, True, Refusal("frozen").encode())
    assert isinstance(sent.read(sent.session.message_4([grant])), Granted)
    assert sent.read(sent.session.message_4([refusal])) == Refused("frozen")
    for items, code in (
        ([], "bad-ead"),
        ([grant, refusal], "bad-ead"),
        ([replace(grant, critical=False)], "bad-ead"),
        ([grant, Ead(70, True, b"")], "unknown-critical-ead"),
        ([replace(grant, value=b"\x80")], "wrong-shape"),
        ([replace(refusal, value=b"\xff")], "not-cbor"),
    ):
        assert sent.read(sent.session.message_4(items)) == BackOff(code)


def test_only_a_sim_grant_has_subscription_keys() -> None:
    world = World()
    granted = world.onboard()
    k, opc = granted.subscription_keys("testnet", world.party_id)
    assert len(k) == len(opc) == 16
    assert granted.subscription_keys("testnet", bytes(16)) != (k, opc)
    x509 = replace(granted, grant=replace(granted.grant, body=X509Grant((b"c",), (b"a",), "s", "mqtts://h", "t")))
    with pytest.raises(MalformedError, match="not-a-sim"):
        x509.subscription_keys("testnet", world.party_id)


def test_keys_are_not_shown_or_sent() -> None:
    world = World()
    sent = world.open()
    reply = world.send(sent.request_2)
    granted = sent.read(reply.data)
    assert isinstance(granted, Granted)
    for secret in granted.subscription_keys("testnet", world.party_id):
        assert secret not in sent.request_2 + reply.data
        assert repr(secret) not in repr(granted)
