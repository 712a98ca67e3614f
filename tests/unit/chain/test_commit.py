from dataclasses import replace

import pytest

from firstlight.chain.block import PartialHeader
from firstlight.chain.commit import (
    ABSENT,
    MAX_TOTAL_POWER,
    Commit,
    CommitSig,
    Flag,
    Validator,
    ValidatorSet,
    Votes,
    make_commit,
    verify_commit,
    vote_sign_bytes,
)
from firstlight.errors import MalformedError, ProofError
from firstlight.testing.chains import CHAIN, Block, Consortium, Ed25519Key

FOUR = Consortium.of(validators=4)
BLOCK = FOUR.block(bytes(32))


def refused(block: Block, *, validators: ValidatorSet | None = None, chain: str = CHAIN) -> str:
    with pytest.raises(ProofError) as caught:
        verify_commit(chain, validators or FOUR.validator_set, block.header, block.commit)
    return caught.value.code


def with_votes(*votes: CommitSig) -> Block:
    return replace(BLOCK, commit=replace(BLOCK.commit, signatures=votes))


def test_all_and_three_of_four_are_enough_and_two_are_not() -> None:
    verify_commit(CHAIN, FOUR.validator_set, BLOCK.header, BLOCK.commit)
    three = FOUR.close(BLOCK.header, absent=1)
    assert three.commit.signatures.count(ABSENT) == 1
    verify_commit(CHAIN, FOUR.validator_set, three.header, three.commit)
    assert refused(FOUR.close(BLOCK.header, absent=2)) == "not-enough-power"


def test_exactly_two_thirds_are_not_enough() -> None:
    three = Consortium.of(validators=3)
    block = three.block(bytes(32))
    verify_commit(CHAIN, three.validator_set, block.header, block.commit)
    assert refused(three.close(block.header, absent=1), validators=three.validator_set) == "not-enough-power"


def test_votes_for_nil_count_nothing() -> None:
    votes = BLOCK.commit.signatures
    nil = tuple(replace(vote, flag=Flag.NIL) for vote in votes)
    verify_commit(CHAIN, FOUR.validator_set, BLOCK.header, replace(BLOCK.commit, signatures=(*votes[:3], nil[3])))
    assert refused(with_votes(*votes[:2], *nil[2:])) == "not-enough-power"


def test_a_real_vote_for_nil_does_not_pass_as_one_for_the_block() -> None:
    time = BLOCK.commit.signatures[0].time
    message = vote_sign_bytes(CHAIN, height=1, round_=0, block=None, time=time)
    keys = {one.public: one for one in FOUR.validators}
    votes = [CommitSig(Flag.COMMIT, time, keys[one.public].sign(message)) for one in FOUR.validator_set.validators]
    assert refused(with_votes(*votes)) == "commit-signature"


def test_one_vote_does_not_count_for_another_validator() -> None:
    first = BLOCK.commit.signatures[0]
    assert refused(with_votes(first, first, first, first)) == "commit-signature"


def test_changed_time_round_height_and_block() -> None:
    votes = BLOCK.commit.signatures
    later = tuple(replace(vote, time=vote.time + 1) for vote in votes)
    assert refused(with_votes(*later)) == "commit-signature"
    assert refused(replace(BLOCK, commit=replace(BLOCK.commit, round=1))) == "commit-signature"
    assert refused(replace(BLOCK, commit=replace(BLOCK.commit, height=2))) == "commit-height"
    assert refused(replace(BLOCK, header=replace(BLOCK.header, app_hash=b"\1" * 32))) == "commit-block"


def test_other_chain() -> None:
    assert refused(BLOCK, chain="test-2") == "wrong-chain"


def test_other_validators() -> None:
    assert refused(BLOCK, validators=Consortium.of(validators=3).validator_set) == "validators-hash"


def test_number_and_form_of_entries() -> None:
    votes = BLOCK.commit.signatures
    assert refused(with_votes(*votes[:3])) == "commit-size"
    assert refused(with_votes(*votes, votes[0])) == "commit-size"
    assert refused(with_votes(*votes[:3], replace(votes[3], signature=b""))) == "bad-commit-entry"
    assert refused(with_votes(*votes[:3], replace(votes[3], flag=Flag.ABSENT))) == "bad-commit-entry"
    assert refused(with_votes(*votes[:3], CommitSig(Flag.ABSENT, 1, b""))) == "bad-commit-entry"


def test_validator_sets_are_in_order_each_once_within_the_power_limit() -> None:
    validators = FOUR.validator_set.validators
    for wrong in (
        (validators[1], validators[0]),
        (validators[0], validators[0]),
        (replace(validators[0], power=11), validators[0]),
        (replace(validators[0], power=MAX_TOTAL_POWER), validators[1]),
    ):
        with pytest.raises(ProofError) as caught:
            ValidatorSet(wrong).check()
        assert caught.value.code == "bad-validators"
    strong = Validator(Ed25519Key("strong").public, 11)
    assert ValidatorSet.of([*validators, strong]).validators[0] == strong


def test_records_travel_and_stay_small() -> None:
    one = Consortium.of()
    block = one.block(bytes(32), previous=one.block(bytes(32)))
    parts = [block.header.encode(), block.commit.encode(), one.validator_set.encode()]
    assert type(block.header).decode(parts[0]) == block.header
    assert Commit.decode(parts[1]) == block.commit
    assert ValidatorSet.decode(parts[2]) == one.validator_set
    assert sum(map(len, parts)) < 660


def test_a_partial_header_hashes_like_the_whole_one() -> None:
    header = FOUR.block(bytes(32), previous=BLOCK).header
    partial = header.partial()
    assert partial.hash(CHAIN, header.validators_hash) == header.hash()
    assert partial.hash("test-2", header.validators_hash) != header.hash()
    assert partial.hash(CHAIN, bytes(32)) != header.hash()
    assert PartialHeader.decode(partial.encode()) == partial


def test_votes_make_up_their_commit() -> None:
    votes = Votes.of(BLOCK.commit)
    assert Votes.decode(votes.encode()).commit(1, BLOCK.header.hash()) == BLOCK.commit


def test_a_commit_with_a_strange_flag_is_malformed() -> None:
    encoded = BLOCK.commit.to_cbor()
    encoded[3][0][0] = 4
    with pytest.raises(MalformedError) as caught:
        Commit.from_cbor(encoded)
    assert caught.value.code == "wrong-shape"


def test_make_commit_leaves_out_who_does_not_sign() -> None:
    commit = make_commit(CHAIN, 1, BLOCK.id, FOUR.validator_set, {}, time=5)
    assert commit.signatures == (ABSENT,) * 4
