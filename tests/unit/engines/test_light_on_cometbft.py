"""The light client on blocks that a real CometBFT made: what it follows, and every lie that it must not.

One validator, and four; their keys are known here, so that what they could sign can be forged as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest

from firstlight.chain.block import BlockId, Header
from firstlight.chain.commit import (
    ABSENT,
    Commit,
    CommitSig,
    Flag,
    Validator,
    ValidatorSet,
    verify_commit,
    vote_sign_bytes,
)
from firstlight.chain.light import Invalid, NotEnoughTrust, Policy, SignedHeader, Success, Trusted, Verdict, verify
from firstlight.engines.cometbft import CometEngine
from firstlight.engines.port import SignedBlock
from firstlight.errors import ProofError
from firstlight.ledger.transaction import build
from firstlight.testing.chains import SECOND, Ed25519Key, P256Key
from firstlight.testing.comet import Network, network
from firstlight.testing.ledgers import register_party

DAY = 86_400 * SECOND
BLOCKS = 8


@dataclass(frozen=True)
class Made:
    """Blocks of a real chain, by height from 1, and the keys of its validators."""

    chain: str
    blocks: tuple[SignedBlock, ...]
    keys: dict[bytes, Ed25519Key]

    def at(self, height: int) -> SignedBlock:
        return self.blocks[height - 1]

    def whole(self, height: int) -> SignedBlock:
        """Return a block for which all voted: where a validator was late, its vote is made up for with its key."""
        found = self.at(height)
        if all(one.flag is Flag.COMMIT for one in found.commit.signatures):
            return found
        flags = [Flag.COMMIT] * len(found.commit.signatures)
        return replace(found, commit=self.signed(found.header, flags, block=found.commit.block, of=height))

    @property
    def now(self) -> int:
        return self.blocks[-1].header.time + SECOND

    def judge(self, trusted: int, untrusted: SignedBlock, *, days: int = 1, level: tuple[int, int] = (1, 3)) -> Verdict:
        known = self.at(trusted)
        return verify(
            Trusted(known.header, known.next_validators),
            SignedHeader(untrusted.header, untrusted.commit, untrusted.validators, None, untrusted.next_validators),
            Policy(days * DAY, trust_level=level),
            self.now,
        )

    def signed(self, header: Header, flags: list[Flag], *, block: BlockId | None = None, of: int) -> Commit:
        """Return the commit that the validators would sign for ``header``, each with that flag."""
        honest = self.at(of).commit
        named = block or replace(honest.block, hash=header.hash())
        entries = []
        for flag, validator in zip(flags, self.at(of).validators.validators, strict=True):
            what = named if flag is Flag.COMMIT else None
            message = vote_sign_bytes(
                self.chain, height=header.height, round_=honest.round, block=what, time=header.time + 1
            )
            signature = self.keys[validator.public].sign(message)
            entries.append(ABSENT if flag is Flag.ABSENT else CommitSig(flag, header.time + 1, signature))
        return Commit(header.height, honest.round, named, tuple(entries))


@pytest.fixture(scope="module", params=[1, 4])
def made(request: pytest.FixtureRequest, cometbft: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """Blocks of one validator, and of four."""
    with network(tmp_path_factory.mktemp("light"), cometbft, request.param) as net:
        engine = net.engines[0]
        for number in range(BLOCKS // 2):
            engine.submit(registration(net, f"party {number}"))
        found = [block(engine, height) for height in range(1, BLOCKS + 1)]
        keys = {one.public: one for one in net.consortium.validators}
        yield Made(net.consortium.chain, tuple(found), keys)


def registration(net: Network, name: str) -> bytes:
    key = P256Key(name)
    return build(
        register_party(key), chain=net.consortium.chain, sequence=1, signer=key, cosigners=[net.consortium.roots[0]]
    )


def block(engine: CometEngine, height: int) -> SignedBlock:
    found = engine.signed(height)
    assert found is not None
    return found


def code(verdict: Verdict) -> str:
    return verdict.code if isinstance(verdict, Invalid) else type(verdict).__name__


# --- what is true ---------------------------------------------------------------------------------


def test_every_header_follows_from_every_earlier_one(made: Made) -> None:
    for trusted in range(1, BLOCKS):
        for height in range(trusted + 1, BLOCKS + 1):
            assert isinstance(made.judge(trusted, made.at(height)), Success), (trusted, height)


def test_what_the_hashes_say_is_what_the_blocks_are(made: Made) -> None:
    for before, after in zip(made.blocks, made.blocks[1:], strict=False):
        assert after.header.last_block is not None
        assert after.header.last_block.hash == before.header.hash()
        assert after.header.height == before.header.height + 1
        if all(one.flag is Flag.COMMIT for one in before.commit.signatures):
            assert after.header.time > before.header.time
    hashes = [one.header.app_hash for one in made.blocks]
    assert len(set(hashes)) == BLOCKS // 2


def test_a_commit_is_hashed_as_cometbft_hashes_it(made: Made) -> None:
    """The last block's commit may be one that has been seen; those before it are the ones that headers name."""
    for before, after in zip(made.blocks[:-2], made.blocks[1:-1], strict=True):
        assert after.header.last_commit_hash == before.commit.hash(before.validators)


# --- lies -----------------------------------------------------------------------------------------


def changed(header: Header, name: str) -> Header:
    """Return the header with one field that lies."""
    value = getattr(header, name)
    match value:
        case bytes():
            return replace(header, **{name: bytes([value[0] ^ 1]) + value[1:]})
        case int():
            return replace(header, **{name: value + 1})
        case str():
            return replace(header, **{name: value + "x"})
        case _:
            return replace(header, **{name: replace(value, parts=value.parts + 1)})


# Judged in the order of the checks: what is not the field itself is found by the commit, which is for another block.
LIES = {one.name: "commit-block" for one in fields(Header)} | {
    "block_version": "bad-header",
    "chain": "wrong-chain",
    "height": "commit-height",
}


@pytest.mark.parametrize("trusted", [BLOCKS - 3, 1], ids=["adjacent", "skipping"])
@pytest.mark.parametrize("name", [one.name for one in fields(Header)])
def test_a_header_that_lies_about_one_field(made: Made, name: str, trusted: int) -> None:
    honest = made.at(BLOCKS - 2)
    assert isinstance(made.judge(trusted, honest), Success)
    assert code(made.judge(trusted, replace(honest, header=changed(honest.header, name)))) == LIES[name]


@pytest.mark.parametrize("name", [one.name for one in fields(Header)])
def test_a_lie_with_a_commit_that_names_it_but_that_nobody_signed(made: Made, name: str) -> None:
    honest = made.at(BLOCKS - 2)
    header = changed(honest.header, name)
    commit = replace(honest.commit, block=replace(honest.commit.block, hash=header.hash()), height=header.height)
    expected = {
        "block_version": "bad-header",
        "chain": "wrong-chain",
        "validators_hash": "validators-hash",
        "next_validators_hash": "next-validators-hash",
    }
    verdict = made.judge(BLOCKS - 3, replace(honest, header=header, commit=commit))
    if name == "height":  # no longer adjacent: a leap whose votes do not verify
        assert code(verdict) == "commit-signature"
    else:
        assert code(verdict) == expected.get(name, "commit-signature")


@pytest.mark.parametrize("name", ["height", "time", "app_hash", "data_hash", "last_block", "proposer"])
def test_even_all_validators_cannot_turn_time_or_height_back(made: Made, name: str) -> None:
    """What two thirds sign is believed; but never a header that is not later than the one that is trusted."""
    honest = made.at(BLOCKS - 2)
    flags = [Flag.COMMIT] * len(honest.validators.validators)
    header = changed(honest.header, name)
    commit = made.signed(header, flags, of=BLOCKS - 2)
    assert isinstance(made.judge(1, replace(honest, header=header, commit=commit)), Success)
    for change, refusal in (
        ({"height": 1}, "height-not-monotonic"),
        ({"time": made.at(1).header.time}, "time-not-monotonic"),
        ({"time": made.now + 60 * SECOND}, "header-from-future"),
    ):
        header = replace(honest.header, **change)
        commit = made.signed(header, flags, of=BLOCKS - 2)
        assert code(made.judge(1, replace(honest, header=header, commit=commit))) == refusal


# --- votes ----------------------------------------------------------------------------------------


def votes(made: Made, change: Callable[[tuple[CommitSig, ...]], tuple[CommitSig, ...]], trusted: int = 1) -> str:
    honest = made.whole(BLOCKS - 2)
    commit = replace(honest.commit, signatures=change(honest.commit.signatures))
    return code(made.judge(trusted, replace(honest, commit=commit)))


@pytest.mark.parametrize("trusted", [BLOCKS - 3, 1], ids=["adjacent", "skipping"])
def test_votes_that_are_not_what_was_signed(made: Made, trusted: int) -> None:
    first = made.whole(BLOCKS - 2).commit.signatures[0]
    flipped = replace(first, signature=bytes([first.signature[0] ^ 1]) + first.signature[1:])
    assert votes(made, lambda all_: (flipped, *all_[1:]), trusted) == "commit-signature"
    assert votes(made, lambda all_: (replace(first, time=first.time + 1), *all_[1:]), trusted) == "commit-signature"
    assert votes(made, lambda all_: (replace(first, signature=b""), *all_[1:]), trusted) == "bad-commit-entry"
    assert votes(made, lambda _: (), trusted) == "no-votes"
    assert votes(made, lambda all_: (*all_, first), trusted) == "commit-size"
    other = made.whole(BLOCKS - 3).commit.signatures[0]
    assert votes(made, lambda all_: (other, *all_[1:]), trusted) == "commit-signature"


@pytest.mark.parametrize("trusted", [BLOCKS - 3, 1], ids=["adjacent", "skipping"])
def test_votes_of_too_few(made: Made, trusted: int) -> None:
    """Nil and absent votes count for nobody. Three of four equal validators are enough, two are not."""
    honest = made.at(BLOCKS - 2)
    count = len(honest.validators.validators)
    for flag in (Flag.NIL, Flag.ABSENT):
        for missing in range(count + 1):
            flags = [flag] * missing + [Flag.COMMIT] * (count - missing)
            commit = made.signed(honest.header, flags, block=honest.commit.block, of=BLOCKS - 2)
            verdict = made.judge(trusted, replace(honest, commit=commit))
            if (count - missing) * 3 > count * 2:
                assert isinstance(verdict, Success)
            elif trusted == 1 and (count - missing) * 3 <= count:
                assert isinstance(verdict, NotEnoughTrust)
            else:
                assert code(verdict) == "not-enough-power"


def test_a_vote_for_nil_is_none_for_the_block(made: Made) -> None:
    honest = made.at(BLOCKS - 2)
    count = len(honest.validators.validators)
    nil = made.signed(honest.header, [Flag.NIL] * count, block=honest.commit.block, of=BLOCKS - 2)
    posing = replace(nil, signatures=tuple(replace(one, flag=Flag.COMMIT) for one in nil.signatures))
    assert code(made.judge(BLOCKS - 3, replace(honest, commit=posing))) == "commit-signature"


def test_votes_in_another_order_or_twice(made: Made) -> None:
    count = len(made.at(1).validators.validators)
    if count == 1:
        assert votes(made, lambda all_: (all_[0], all_[0])) == "commit-size"
        return
    assert votes(made, lambda all_: tuple(reversed(all_))) == "commit-signature"
    assert votes(made, lambda all_: (all_[1], all_[0], *all_[2:])) == "commit-signature"
    assert votes(made, lambda all_: (all_[0],) * count) == "commit-signature"
    assert votes(made, lambda all_: (all_[0], all_[0], *all_[2:])) == "commit-signature"


def test_addresses_that_are_not_the_validators(made: Made) -> None:
    """The form in which CometBFT sends commits has addresses beside the votes."""
    honest = made.whole(BLOCKS - 2)
    addresses = [one.address for one in honest.validators.validators]
    verify_commit(made.chain, honest.validators, honest.header, honest.commit, addresses)
    with pytest.raises(ProofError) as caught:
        verify_commit(made.chain, honest.validators, honest.header, honest.commit, [bytes(20), *addresses[1:]])
    assert caught.value.code == "commit-address"
    if len(addresses) > 1:
        known = made.at(1)
        doubled = SignedHeader(
            honest.header, honest.commit, honest.validators, (addresses[0], *addresses[:-1]), honest.next_validators
        )
        verdict = verify(Trusted(known.header, known.next_validators), doubled, Policy(DAY), made.now)
        assert code(verdict) in {"double-vote", "commit-signature"}


# --- validators, trust and time -------------------------------------------------------------------


def test_other_validators(made: Made) -> None:
    honest = made.at(BLOCKS - 2)
    stranger = Ed25519Key("stranger")
    others = ValidatorSet.of([Validator(stranger.public, 10)])
    for validators in (
        others,
        ValidatorSet.of([*honest.validators.validators, Validator(stranger.public, 1)]),
        ValidatorSet.of([replace(honest.validators.validators[0], power=11), *honest.validators.validators[1:]]),
    ):
        assert code(made.judge(1, replace(honest, validators=validators))) in {"validators-hash", "commit-size"}
        assert code(made.judge(1, replace(honest, next_validators=validators))) == "next-validators-hash"
    header = replace(honest.header, validators_hash=others.hash(), next_validators_hash=others.hash())
    named = replace(honest.commit.block, hash=header.hash())
    message = vote_sign_bytes(made.chain, height=header.height, round_=0, block=named, time=header.time)
    commit = Commit(header.height, 0, named, (CommitSig(Flag.COMMIT, header.time, stranger.sign(message)),))
    forged = SignedBlock(header, commit, others, others)
    assert code(made.judge(BLOCKS - 3, forged)) == "next-validators"
    assert isinstance(made.judge(1, forged), NotEnoughTrust)


def test_the_trusting_period_ends_to_the_nanosecond(made: Made) -> None:
    known, honest = made.at(1), made.at(3)
    trusted = Trusted(known.header, known.next_validators)
    untrusted = SignedHeader(honest.header, honest.commit, honest.validators)
    end = known.header.time + DAY
    assert isinstance(verify(trusted, untrusted, Policy(DAY), end - 1), Success)
    assert code(verify(trusted, untrusted, Policy(DAY), end)) == "trusted-expired"


def test_the_clock_may_be_behind_by_the_drift_and_no_more(made: Made) -> None:
    known, honest = made.at(1), made.at(3)
    trusted = Trusted(known.header, known.next_validators)
    untrusted = SignedHeader(honest.header, honest.commit, honest.validators)
    drift = 5 * SECOND
    now = honest.header.time - drift
    assert code(verify(trusted, untrusted, Policy(DAY, drift), now)) == "header-from-future"
    assert isinstance(verify(trusted, untrusted, Policy(DAY, drift), now + 1), Success)


@pytest.mark.parametrize(("level", "enough"), [((1, 3), 2), ((1, 2), 3), ((2, 3), 3), ((3, 4), 4), ((1, 1), 5)])
def test_trust_levels(made: Made, level: tuple[int, int], enough: int) -> None:
    """More than the level of the trusted power must have signed: of four, and of one."""
    honest = made.at(BLOCKS - 2)
    count = len(honest.validators.validators)
    for signing in range(count + 1):
        flags = [Flag.COMMIT] * signing + [Flag.ABSENT] * (count - signing)
        commit = made.signed(honest.header, flags, block=honest.commit.block, of=BLOCKS - 2)
        verdict = made.judge(1, replace(honest, commit=commit), level=level)
        trusted_enough = signing * level[1] > count * level[0]
        assert trusted_enough == (signing >= enough) or count == 1
        if not trusted_enough:
            assert isinstance(verdict, NotEnoughTrust)
        else:
            assert code(verdict) == ("Success" if signing * 3 > count * 2 else "not-enough-power")
