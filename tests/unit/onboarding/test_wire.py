"""Framing, tokens, messages: bounds and refusals."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from firstlight.encoding import encode, encode_sequence
from firstlight.errors import ExchangeError, FirstlightError, MalformedError
from firstlight.onboarding import messages, wire
from firstlight.onboarding.edhoc.keys import Ead
from firstlight.onboarding.edhoc.responder import HalfOpen
from firstlight.onboarding.messages import Claim, Grant, GrantKind, Refusal, SimGrant, X509Grant, collect
from firstlight.onboarding.token import LIFETIME_NS, KeyRing, OpenState, TokenKey, open_token, seal_token
from firstlight.testing.onboarding import HOME, World
from firstlight.testing.random import SeededRandom

STATE = OpenState(HalfOpen(2, b"y" * 32, b"t" * 32, b"p" * 32), 1_000)
KEY = TokenKey(b"k" * 32, 0)
WHERE: dict[str, object] = {"chain": "testnet", "party": bytes(16)}


def sealed(ring: KeyRing) -> bytes:
    return seal_token(STATE, ring, random=SeededRandom(), **WHERE)  # type: ignore[arg-type]


def opened(token: bytes, ring: KeyRing, now_ns: int = 2_000, *, where: dict[str, object] = WHERE) -> OpenState:
    return open_token(token, ring, now_ns=now_ns, **(WHERE | where))  # type: ignore[arg-type]


def test_a_token_opens_under_current_and_previous_key() -> None:
    ring = KeyRing(KEY)
    token = sealed(ring)
    assert opened(token, ring) == STATE
    turned = ring.turned(b"n" * 32, 1_500)
    assert opened(token, turned) == STATE
    with pytest.raises(ExchangeError, match="bad-token"):
        opened(token, turned.turned(b"m" * 32, 1_600))


@pytest.mark.parametrize("where", [{"chain": "other"}, {"party": b"\x01" * 16}])
def test_a_token_is_bound_to_chain_and_party(where: dict[str, object]) -> None:
    ring = KeyRing(KEY)
    assert opened(sealed(ring), ring)
    with pytest.raises(ExchangeError, match="bad-token"):
        opened(sealed(ring), ring, where=where)


def test_token_keys_and_tokens_age() -> None:
    ring = KeyRing(KEY)
    token = sealed(ring)
    assert opened(token, ring, LIFETIME_NS)
    with pytest.raises(ExchangeError, match="bad-token"):
        opened(token, ring, LIFETIME_NS + 1)
    young = KeyRing(TokenKey(KEY.secret, 1_001))
    with pytest.raises(ExchangeError, match="token-expired"):
        opened(token, young, LIFETIME_NS + 1_001)
    late = replace(STATE, opened_ns=LIFETIME_NS + 1)
    with pytest.raises(ExchangeError, match="no-token-key"):
        seal_token(late, ring, random=SeededRandom(), **WHERE)  # type: ignore[arg-type]


def test_no_changed_token_opens() -> None:
    ring = KeyRing(KEY)
    token = sealed(ring)
    assert len(token) <= wire.MAX_TOKEN
    for position in range(len(token)):
        bad = bytearray(token)
        bad[position] ^= 1
        with pytest.raises(ExchangeError, match="bad-token"):
            opened(bytes(bad), ring)
    for length in range(len(token)):
        with pytest.raises(ExchangeError, match="bad-token"):
            opened(token[:length], ring)


def test_requests_and_responses_are_cbor_sequences() -> None:
    first, second = wire.First(b"\x03\x02"), wire.Second(b"token", b"\x01", encode(b"message 3"))
    assert first.encode() == b"\xf5\x03\x02"
    assert second.encode() == encode_sequence(b"token", 1, b"message 3")
    for request in (first, second):
        assert wire.parse_request(request.encode()) == request
    answer = wire.Answer(encode(b"message 2"), b"token")
    assert answer.encode() == encode_sequence(b"message 2", b"token")
    assert wire.parse_answer(answer.encode()) == answer


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xf4",
        encode_sequence(b"token", 1),
        encode_sequence(b"", 1, b"m"),
        encode_sequence(b"token", b"\x01", b"m"),
        encode_sequence(b"token", 1, "m"),
        encode_sequence(1, 1, b"m"),
        encode_sequence(b"token", 1, b"m", b"more"),
        encode_sequence(b"t" * 513, 1, b"m"),
        encode_sequence(b"token", 1, bytes(7000)),
        b"\xf5" + bytes(7000),
        b"\x58\x05token\x01\x41m",
    ],
)
def test_bad_requests(data: bytes) -> None:
    with pytest.raises(MalformedError):
        wire.parse_request(data)


@pytest.mark.parametrize("data", [b"", encode(b"m"), encode_sequence(b"m", 1), encode_sequence(b"m", b"t", b"more")])
def test_bad_answers(data: bytes) -> None:
    with pytest.raises(MalformedError):
        wire.parse_answer(data)


def test_grants_round_trip() -> None:
    sim = SimGrant("imsi-001010000000001", "http://127.0.0.1:80", HOME, "5G:mnc001.mcc001")
    x509 = X509Grant((b"leaf", b"ca"), (b"root",), "broker.example", "mqtts://127.0.0.1:8883", "devices/x")
    for body, kind in ((sim, GrantKind.SIM), (x509, GrantKind.X509)):
        grant = Grant(bytes(16), 1, 2, body)
        assert grant.kind is kind
        assert grant.to_cbor()[1] == int(kind)
        assert Grant.decode(grant.encode()) == grant


@pytest.mark.parametrize(
    "value",
    [
        [],
        [bytes(16), 3, 1, 2, []],
        [bytes(16), 2, 1, 2, ["imsi-001010000000001", "http://h", ["001", "01", "0", 1, 1, bytes(32)], "n"]],
        [bytes(16), 1, 1, 2, ["imsi-1", "http://h", ["001", "01", "0", 1, 1, bytes(32)], "n"]],
        [bytes(16), 1, 1, 2, ["imsi-001010000000001", "nonsense", ["001", "01", "0", 1, 1, bytes(32)], "n"]],
        [bytes(15), 1, 1, 2, ["imsi-001010000000001", "http://h", ["001", "01", "0", 1, 1, bytes(32)], "n"]],
    ],
)
def test_bad_grants(value: list[object]) -> None:
    with pytest.raises(MalformedError, match="wrong-shape"):
        Grant.decode(encode(value))


def test_refusals_hold_a_code_alone() -> None:
    assert Refusal.decode(Refusal("order-full").encode()) == Refusal("order-full")
    for text in ("", "Full", "x" * 41, "no good"):
        with pytest.raises(MalformedError):
            Refusal.decode(encode([text]))


def test_the_evidence_nonce_is_byte_exact() -> None:
    parts = [b"t" * 32, b"firstlight-evidence-1", b"\xa1\x04\x50" + bytes(16), b"ccs", None, None]
    parts[4], parts[5] = hashlib.sha256(b"claim").digest(), hashlib.sha256(b"").digest()
    laid = b"\x86" + b"".join(encode(part) for part in parts)
    expected = hashlib.sha256(laid).digest()
    assert messages.evidence_nonce(b"t" * 32, b"\xa1\x04\x50" + bytes(16), b"ccs", b"claim", b"") == expected
    different = {
        messages.evidence_nonce(*arguments)
        for arguments in (
            (b"u" * 32, b"id", b"ccs", b"claim", b""),
            (b"t" * 32, b"id", b"ccs", b"claim", b""),
            (b"t" * 32, b"id", b"css", b"claim", b""),
            (b"t" * 32, b"id", b"ccs", b"claims", b""),
            (b"t" * 32, b"id", b"ccs", b"claim", b"csr"),
        )
    }
    assert len(different) == 5


def test_labels_of_ead_items() -> None:
    known = {1: True, 2: False}
    assert collect([Ead(1, True, b"a"), Ead(2, False, b"b"), Ead(9, False, None)], known) == {1: b"a", 2: b"b"}
    for items, code in (
        ([Ead(9, True, b"x")], "unknown-critical-ead"),
        ([Ead(1, True, b"a"), Ead(1, True, b"a")], "bad-ead"),
        ([Ead(1, False, b"a")], "bad-ead"),
        ([Ead(2, True, b"a")], "bad-ead"),
        ([Ead(1, True, None)], "bad-ead"),
        ([Ead(1, True, b"")], "bad-ead"),
        ([Ead(2, False, b"b")], "bad-ead"),
    ):
        with pytest.raises(FirstlightError) as caught:
            collect(items, known, required=(1,))
        assert caught.value.code == code


def test_claims_round_trip_and_are_bounded() -> None:
    world = World()
    claim = world.begin()._claim()
    assert Claim.decode(claim.encode()) == claim
    with pytest.raises(MalformedError, match="bad-point"):
        Claim.decode(claim.encode().replace(claim.leaf.identity, bytes(63) + b"\x01"))
    with pytest.raises(MalformedError, match="wrong-shape"):
        Claim.decode(replace(claim, path=(bytes(32),) * 33).encode())
    with pytest.raises(MalformedError, match="too-large"):
        Claim.decode(bytes(Claim.LIMIT + 1))
