from dataclasses import replace

import pytest

from firstlight import cose
from firstlight.chain.witness import (
    MAX_NONCES,
    TYPE,
    NonceProof,
    SeenHead,
    WitnessSignature,
    WitnessStatement,
    choose_head,
    nonce_proofs,
    verify_witnesses,
    witness,
)
from firstlight.encoding import encode
from firstlight.errors import ProofError
from firstlight.testing.chains import CHAIN, Consortium, P256Key

WORLD = Consortium.of()
HEADER = WORLD.block(bytes(32)).header
NONCE = b"n" * 32
TIME = 1_800_000_100


def check(signatures: tuple[WitnessSignature, ...], proof: NonceProof, nonce: bytes = NONCE, height: int = 1) -> int:
    return verify_witnesses(
        signatures, epoch=WORLD.epoch, height=height, header_hash=HEADER.hash(), nonce_root=proof.root(nonce)
    )


def refused(*arguments: object, **named: object) -> str:
    with pytest.raises(ProofError) as caught:
        check(*arguments, **named)  # type: ignore[arg-type]
    return caught.value.code


def signed_at(*times: int) -> tuple[NonceProof, tuple[WitnessSignature, ...]]:
    root, proofs = nonce_proofs([NONCE])
    signers = sorted(WORLD.witnesses, key=lambda one: one.public)
    statements = [WitnessStatement(CHAIN, 1, HEADER.hash(), time, root) for time in times]
    made = (witness(statement, WORLD.epoch, key) for statement, key in zip(statements, signers, strict=False))
    return proofs[0], tuple(made)


def test_the_lowest_time_counts() -> None:
    proof, signatures = signed_at(TIME + 5, TIME)
    assert check(signatures, proof) == TIME
    proof, signatures = signed_at(TIME + 5, TIME + 9, TIME + 7)
    assert check(signatures, proof) == TIME + 5


@pytest.mark.parametrize("others", [1, 2, 6, 99])
def test_one_request_covers_many_nonces(others: int) -> None:
    nonces = [bytes([number]) * 32 for number in range(others)]
    proof, signatures = WORLD.attest(HEADER, NONCE, time=TIME, others=nonces)
    assert check(signatures, proof) == TIME
    assert NonceProof.decode(proof.encode()) == proof
    assert refused(signatures, proof, nonce=b"m" * 32) == "witness-signature"


def test_too_few_too_many_or_the_same_twice() -> None:
    proof, signatures = signed_at(TIME, TIME)
    assert refused(signatures[:1], proof) == "not-enough-witnesses"
    assert refused((), proof) == "not-enough-witnesses"
    assert refused((signatures[0], signatures[0]), proof) == "bad-witness"
    assert refused((signatures[1], signatures[0]), proof) == "bad-witness"
    assert refused((signatures[0], replace(signatures[1], witness=3)), proof) == "bad-witness"


def test_a_statement_over_another_head_time_or_by_another_key() -> None:
    proof, signatures = signed_at(TIME, TIME)
    assert refused(signatures, proof, height=2) == "witness-signature"
    assert refused((signatures[0], replace(signatures[1], time=TIME + 1)), proof) == "witness-signature"
    assert refused((signatures[0], replace(signatures[1], witness=2)), proof) == "witness-signature"


def test_only_the_epoch_s_witnesses_sign() -> None:
    statement = WitnessStatement(CHAIN, 1, HEADER.hash(), TIME, bytes(32))
    with pytest.raises(ProofError) as caught:
        witness(statement, WORLD.epoch, P256Key("stranger"))
    assert caught.value.code == "not-a-witness"


def test_the_signature_is_that_of_a_cose_sign1() -> None:
    key = WORLD.witnesses[0]
    statement = WitnessStatement(CHAIN, 1, HEADER.hash(), TIME, bytes(32))
    made = cose.sign1(statement.encode(), typ=TYPE, signer=key)
    rebuilt = cose.parse(made, typ=TYPE)
    object_ = encode([rebuilt.body, {}, statement.encode(), statement.sign(key)])
    assert cose.open1(object_, typ=TYPE, key=key.public) == statement.encode()


def test_nonces_are_bounded() -> None:
    with pytest.raises(ProofError) as caught:
        nonce_proofs([])
    assert caught.value.code == "too-many-nonces"
    with pytest.raises(ProofError):
        nonce_proofs([b""] * (MAX_NONCES + 1))


def test_a_witness_signs_the_newest_or_one_just_superseded() -> None:
    heads = [SeenHead(5, b"5", 100), SeenHead(6, b"6", 200), SeenHead(7, b"7", 205)]
    assert choose_head(heads, 7, 9_999).header_hash == b"7"
    assert choose_head(heads, 6, 214).header_hash == b"6"
    for height, now, code in ((6, 215, "witness-superseded-head"), (5, 210, "witness-superseded-head")):
        with pytest.raises(ProofError) as caught:
            choose_head(heads, height, now)
        assert caught.value.code == code
    with pytest.raises(ProofError) as caught:
        choose_head(heads, 8, 205)
    assert caught.value.code == "witness-unknown-head"
