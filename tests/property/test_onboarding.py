"""No bytes from a peer make a party or a device do worse than answer with a clear error."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight.encoding import encode, encode_sequence
from firstlight.errors import MalformedError
from firstlight.onboarding.device import BackOff, Granted, Rediscover, Sent
from firstlight.onboarding.edhoc import initiator, keys
from firstlight.onboarding.edhoc.keys import Ead
from firstlight.onboarding.messages import Claim, Grant
from firstlight.onboarding.party import UNIFORM_ERROR
from firstlight.testing.onboarding import World

WORLD = World()
BEGUN = WORLD.begin()
RESPONSE_1 = WORLD.send(BEGUN.request_1).data
SENT = WORLD.open()
RESPONSE_2 = WORLD.send(SENT.request_2).data
CLAIM = BEGUN._claim().encode()

items = st.one_of(st.integers(-(2**64), 2**64 - 1), st.binary(max_size=80), st.text(max_size=20), st.booleans())
sequences = st.lists(items | st.lists(items, max_size=4), max_size=6).map(lambda values: encode_sequence(*values))
noise = st.one_of(st.binary(max_size=200), sequences)


def mutated(good: bytes) -> st.SearchStrategy[bytes]:
    """Bytes cut, changed or extended somewhere."""
    where, byte = st.integers(0, len(good) - 1), st.integers(1, 255)
    changed = st.tuples(where, byte).map(lambda t: good[: t[0]] + bytes([good[t[0]] ^ t[1]]) + good[t[0] + 1 :])
    return st.one_of(changed, where.map(lambda cut: good[:cut]), st.binary(min_size=1, max_size=8).map(good.__add__))


@settings(max_examples=300, deadline=None)
@given(noise | noise.map(b"\xf5".__add__) | mutated(SENT.request_2))
def test_requests(data: bytes) -> None:
    before = WORLD.store.outcomes()
    reply = WORLD.send(data)
    assert reply.error
    assert reply.data == UNIFORM_ERROR or reply.code == "wrong-suite"
    assert WORLD.store.outcomes() == before


@settings(max_examples=200, deadline=None)
@given(mutated(BEGUN.request_1))
def test_changed_first_requests_end_nowhere(data: bytes) -> None:
    """A changed message 1 may be answered, but its sender cannot read the answer as one to its own."""
    reply = WORLD.send(data)
    event = BEGUN.read(reply.data, evidence=lambda nonce: nonce)
    assert isinstance(event, BackOff | Rediscover)


@settings(max_examples=200, deadline=None)
@given(noise | mutated(RESPONSE_1))
def test_first_responses(data: bytes) -> None:
    event = BEGUN.read(data, evidence=lambda nonce: nonce)
    if isinstance(event, Sent):  # the token is opaque to the device: the party refuses a changed one
        assert WORLD.send(event.request_2).code in ("bad-token", "wrong-shape")
    else:
        assert isinstance(event, BackOff | Rediscover)


@settings(max_examples=200, deadline=None)
@given(noise | mutated(RESPONSE_2))
def test_second_responses(data: bytes) -> None:
    assert isinstance(SENT.read(data), BackOff)
    assert isinstance(SENT.read(RESPONSE_2), Granted)


@settings(max_examples=300, deadline=None)
@given(noise | mutated(CLAIM))
def test_claims_have_one_encoding(data: bytes) -> None:
    for kind in (Claim, Grant):
        try:
            parsed = kind.decode(data)
        except MalformedError:
            continue
        assert parsed.encode() == data


eads = st.builds(Ead, st.integers(1, 65_535), st.booleans(), st.none() | st.binary(max_size=300))


@given(st.lists(eads, max_size=8))
def test_ead_items_round_trip(ead: list[Ead]) -> None:
    session = SENT.session
    assert session.open_4(session.message_4(ead), limit=20_000) == tuple(ead)


@given(st.binary(max_size=16))
def test_identifiers_round_trip(raw: bytes) -> None:
    encoded = keys.encode_identifier(raw)
    (value,) = keys.parts(encoded, 1, 1, 64)
    assert keys.parse_identifier(value, limit=16) == raw
    assert initiator.MAX_KID >= 16
    assert encoded == (raw if keys.is_short(raw) else encode(raw))
