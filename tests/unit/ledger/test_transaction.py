from __future__ import annotations

import pytest

from firstlight import cose, p256
from firstlight.encoding import encode
from firstlight.errors import FirstlightError, MalformedError
from firstlight.ledger.transaction import BODIES, TYP, Accept, Body, Deploy, Kind, RegisterParty, build, parse
from firstlight.testing.chains import CHAIN, P256Key
from firstlight.testing.ledgers import register_party

KEY, OTHER = P256Key("one"), P256Key("two")
ACCEPT = Accept(bytes(16), 2, bytes(32), 0)


def signed(payload: object) -> bytes:
    return cose.sign1(encode(payload), typ=TYP, signer=KEY)


def code(data: bytes) -> str:
    with pytest.raises(MalformedError) as caught:
        parse(data)
    return caught.value.code


def test_every_kind_has_a_body() -> None:
    assert set(BODIES) == set(Kind)


def test_a_transaction_comes_back_as_it_was_built() -> None:
    transaction = parse(build(ACCEPT, chain=CHAIN, sequence=1, signer=KEY))
    assert (transaction.chain, transaction.kind, transaction.sequence) == (CHAIN, Kind.ACCEPT, 1)
    assert transaction.body == ACCEPT
    transaction.signed.verify({p256.kid(KEY.public): KEY.public})


def test_the_id_does_not_depend_on_the_signatures() -> None:
    body = register_party(KEY)
    first = parse(build(body, chain=CHAIN, sequence=1, signer=KEY, cosigners=[OTHER]))
    second = parse(build(body, chain=CHAIN, sequence=1, signer=KEY, cosigners=[P256Key("three")]))
    assert first.id == second.id
    assert first.id != parse(build(body, chain=CHAIN, sequence=2, signer=KEY, cosigners=[OTHER])).id


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ([CHAIN, 7, 1], "wrong-shape"),
        ({}, "wrong-shape"),
        ([CHAIN, 99, 1, []], "unknown-kind"),
        ([CHAIN, "7", 1, ACCEPT.to_cbor()], "wrong-shape"),
        (["Chain!", 7, 1, ACCEPT.to_cbor()], "wrong-shape"),
        ([CHAIN, 7, -1, ACCEPT.to_cbor()], "wrong-shape"),
        ([CHAIN, 7, 1, [*ACCEPT.to_cbor(), 0]], "wrong-shape"),
        ([CHAIN, 7, 1, [bytes(15), 2, bytes(32), 0]], "wrong-shape"),
        ([CHAIN, 7, 1, [bytes(16), 0, bytes(32), 0]], "wrong-shape"),
        ([CHAIN, 7, 1, [bytes(16), 2, bytes(32), 91 * 86_400]], "wrong-shape"),
        ([CHAIN, 6, 1, [bytes(16), 1, KEY.public, 9, [b"\x00\x80\x00"]]], "bad-varint"),
        ([CHAIN, 6, 1, [bytes(16), 1, KEY.public, 9, [b"\x00\x00\x00\x00"]]], "bad-selection"),
        ([CHAIN, 1, 1, register_party(KEY).to_cbor()], "wrong-signature-form"),
    ],
)
def test_what_does_not_fit_is_refused(payload: object, expected: str) -> None:
    assert code(signed(payload)) == expected


def test_two_signatures_where_one_key_signs_are_refused() -> None:
    payload = encode([CHAIN, 7, 1, ACCEPT.to_cbor()])
    assert code(cose.sign(payload, typ=TYP, signers=[KEY])) == "wrong-signature-form"
    with pytest.raises(MalformedError, match="wrong-signature-form"):
        build(ACCEPT, chain=CHAIN, sequence=1, signer=KEY, cosigners=[OTHER])


def test_another_type_of_signed_object_is_no_transaction() -> None:
    payload = encode([CHAIN, 7, 1, ACCEPT.to_cbor()])
    assert code(cose.sign1(payload, typ="application/firstlight-order+cbor", signer=KEY)) == "wrong-type"


def test_bytes_that_are_not_canonical_are_refused() -> None:
    good = build(ACCEPT, chain=CHAIN, sequence=1, signer=KEY)
    assert code(good + b"\x00") == "not-canonical"
    assert code(b"") == "not-cbor"
    assert code(bytes(1_048_577)) == "too-large"
    long_form = encode([CHAIN, 7])[:-1] + b"\x18\x07"
    loose = b"\x84" + long_form[1:] + encode(1) + encode(ACCEPT.to_cbor())
    assert code(cose.sign1(loose, typ=TYP, signer=KEY)) == "not-canonical"


@pytest.mark.parametrize("body", [ACCEPT, Deploy(bytes(16), 1, bytes(32), None), register_party(KEY)])
def test_no_flipped_bit_leaves_the_same_transaction_under_a_good_signature(body: Body) -> None:
    many = isinstance(body, RegisterParty)
    data = build(body, chain=CHAIN, sequence=1, signer=KEY, cosigners=[OTHER] if many else [])
    keys = {p256.kid(one.public): one.public for one in (KEY, OTHER)}
    parse(data).signed.verify(keys)
    survivors = 0
    for position in range(0, len(data), 3):
        broken = bytearray(data)
        broken[position] ^= 1 << position % 8
        try:
            parse(bytes(broken)).signed.verify(keys)
        except FirstlightError:
            continue
        survivors += 1
    assert survivors == 0
