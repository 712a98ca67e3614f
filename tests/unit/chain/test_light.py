from dataclasses import replace

import pytest

from firstlight.chain.commit import Validator, ValidatorSet
from firstlight.chain.light import (
    Invalid,
    NotEnoughTrust,
    Policy,
    SignedHeader,
    Success,
    Trusted,
    Verdict,
    verify,
)
from firstlight.errors import ProofError
from firstlight.testing.chains import GENESIS, SECOND, Block, Consortium, Ed25519Key

CHAIN = Consortium.of(validators=4)
FIRST = CHAIN.block(bytes(32))
SECOND_BLOCK = CHAIN.block(bytes(32), previous=FIRST)
FAR = CHAIN.block(bytes(32), previous=FIRST, height=50)
POLICY = Policy(3600 * SECOND)
NOW = (GENESIS + 60) * SECOND
TRUSTED = Trusted(FIRST.header, CHAIN.validator_set)


def judge(block: Block, *, chain: Consortium = CHAIN, policy: Policy = POLICY, now: int = NOW) -> Verdict:
    return verify(TRUSTED, SignedHeader(block.header, block.commit, chain.validator_set), policy, now)


def code(verdict: Verdict) -> str:
    assert isinstance(verdict, Invalid)
    return verdict.code


def reheaded(block: Block, **changes: object) -> Block:
    return CHAIN.close(replace(block.header, **changes))


def test_adjacent_and_far_headers() -> None:
    assert judge(SECOND_BLOCK) == Success()
    assert judge(FAR) == Success()


def test_an_expired_trusted_header_proves_nothing() -> None:
    at_the_end = FIRST.header.time + POLICY.trusting_period
    assert code(judge(SECOND_BLOCK, now=at_the_end)) == "trusted-expired"
    assert judge(SECOND_BLOCK, now=at_the_end - 1) == Success()


def test_height_and_time_move_forward_and_not_into_the_future() -> None:
    assert code(judge(FIRST)) == "height-not-monotonic"
    assert code(judge(reheaded(SECOND_BLOCK, time=FIRST.header.time))) == "time-not-monotonic"
    late = NOW + POLICY.clock_drift
    assert code(judge(reheaded(SECOND_BLOCK, time=late))) == "header-from-future"
    assert judge(reheaded(SECOND_BLOCK, time=late - 1)) == Success()


def test_adjacent_validators_must_have_been_announced() -> None:
    other = replace(CHAIN, validators=tuple(Ed25519Key(f"other {one}") for one in range(4)))
    assert code(judge(other.block(bytes(32), previous=FIRST), chain=other)) == "next-validators"


def mixed(kept: int, fresh: int) -> Consortium:
    keys = (*CHAIN.validators[:kept], *(Ed25519Key(f"fresh {one}") for one in range(fresh)))
    return replace(CHAIN, validators=keys)


def test_jumping_needs_more_than_a_third_of_the_trusted_power() -> None:
    two_of_four = mixed(2, 2)
    assert judge(two_of_four.block(bytes(32), previous=None, height=50), chain=two_of_four) == Success()
    one_of_four = mixed(1, 3)
    verdict = judge(one_of_four.block(bytes(32), previous=None, height=50), chain=one_of_four)
    assert verdict == NotEnoughTrust(10, 40)


def test_a_higher_trust_level() -> None:
    two_of_four = mixed(2, 2)
    block = two_of_four.block(bytes(32), previous=None, height=50)
    assert judge(block, chain=two_of_four, policy=replace(POLICY, trust_level=(1, 2))) == NotEnoughTrust(20, 40)


def test_two_thirds_of_its_own_validators_must_sign_too() -> None:
    wide = mixed(4, 4)
    block = wide.block(bytes(32), previous=None, height=50)
    four_of_eight = wide.close(block.header)
    votes = list(four_of_eight.commit.signatures)
    fresh = {one.public for one in wide.validators[4:]}
    for index, validator in enumerate(wide.validator_set.validators):
        if validator.public in fresh:
            votes[index] = replace(votes[index], flag=type(votes[index].flag).NIL)
    weak = replace(four_of_eight, commit=replace(four_of_eight.commit, signatures=tuple(votes)))
    assert code(judge(weak, chain=wide)) == "not-enough-power"


def test_shape_is_checked_first() -> None:
    assert code(judge(reheaded(SECOND_BLOCK, chain="test-2"))) == "wrong-chain"
    assert code(judge(replace(SECOND_BLOCK, commit=FAR.commit))) == "commit-height"
    assert code(judge(SECOND_BLOCK, chain=mixed(3, 1))) == "validators-hash"
    votes = replace(SECOND_BLOCK.commit, signatures=SECOND_BLOCK.commit.signatures[:3])
    assert code(judge(replace(SECOND_BLOCK, commit=votes))) == "commit-size"
    unordered = ValidatorSet(tuple(reversed(CHAIN.validator_set.validators)))
    signed = SignedHeader(SECOND_BLOCK.header, SECOND_BLOCK.commit, unordered)
    assert code(verify(TRUSTED, signed, POLICY, NOW)) == "bad-validators"


def test_the_trusted_validators_must_be_the_named_ones() -> None:
    foreign = ValidatorSet((Validator(Ed25519Key("x").public, 1),))
    signed = SignedHeader(FAR.header, FAR.commit, CHAIN.validator_set)
    assert code(verify(Trusted(FIRST.header, foreign), signed, POLICY, NOW)) == "trusted-validators"


@pytest.mark.parametrize("level", [(1, 4), (4, 3), (1, 0)])
def test_trust_levels_outside_a_third_to_one(level: tuple[int, int]) -> None:
    with pytest.raises(ProofError) as caught:
        Policy(1, trust_level=level)
    assert caught.value.code == "bad-trust-level"
