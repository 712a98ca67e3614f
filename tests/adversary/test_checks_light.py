"""Headers that only one check of the light client stands in the way of, shown to ``firstlight light verify``."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.sampling import sampled

from firstlight.chain.block import BlockId, Header
from firstlight.chain.commit import Commit, Flag, Validator, ValidatorSet, make_commit
from firstlight.cli.demo.commands import ENVIRONMENT, arguments
from firstlight.testing.chains import GENESIS, SECOND, Block, Consortium, Ed25519Key

HONEST = Consortium.of(validators=4)
THIEVES = replace(HONEST, validators=tuple(Ed25519Key(f"thief {one}") for one in range(4)))
FIRST = HONEST.block(bytes(32))
NEXT = HONEST.block(bytes(32), previous=FIRST)
FAR = HONEST.block(bytes(32), previous=FIRST, height=50)
NOW = (GENESIS + 60) * SECOND
HOUR = 3_600


@dataclass(frozen=True, slots=True)
class Question:
    """What the light client is asked; as it stands, an honest question with an honest answer."""

    header: Header
    commit: Commit
    validators: ValidatorSet = HONEST.validator_set
    addresses: tuple[bytes, ...] | None = None
    next_validators: ValidatorSet | None = None
    trusted_validators: ValidatorSet = HONEST.validator_set
    now: int = NOW

    def text(self) -> str:
        owners = [one.address for one in self.validators.validators]
        addresses = self.addresses or (*owners, *owners)
        untrusted = {
            "signed_header": {"header": _header(self.header), "commit": _commit(self.commit, addresses)},
            "validator_set": _set(self.validators),
        }
        if self.next_validators is not None:
            untrusted["next_validator_set"] = _set(self.next_validators)
        return json.dumps(
            {
                "trusted": {
                    "signed_header": {"header": _header(FIRST.header)},
                    "next_validator_set": _set(self.trusted_validators),
                },
                "untrusted": untrusted,
                "trust_level": "1/3",
                "trusting_period_s": HOUR,
                "max_clock_drift_s": 10,
                "now": _time(self.now),
            }
        )


def _time(moment: int) -> str:
    seconds, rest = divmod(moment, SECOND)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def _block_id(block: BlockId | None) -> Mapping[str, Any]:
    if block is None:
        return {"hash": "", "parts": {"total": 0, "hash": ""}}
    return {"hash": _hex(block.hash), "parts": {"total": block.parts, "hash": _hex(block.parts_hash)}}


def _hex(data: bytes) -> str:
    return data.hex().upper()


def _header(header: Header) -> Mapping[str, Any]:
    return {
        "version": {"block": str(header.block_version), "app": str(header.app_version)},
        "chain_id": header.chain,
        "height": str(header.height),
        "time": _time(header.time),
        "last_block_id": _block_id(header.last_block),
        "last_commit_hash": _hex(header.last_commit_hash),
        "data_hash": _hex(header.data_hash),
        "validators_hash": _hex(header.validators_hash),
        "next_validators_hash": _hex(header.next_validators_hash),
        "consensus_hash": _hex(header.consensus_hash),
        "app_hash": _hex(header.app_hash),
        "last_results_hash": _hex(header.last_results_hash),
        "evidence_hash": _hex(header.evidence_hash),
        "proposer_address": _hex(header.proposer),
    }


def _commit(commit: Commit, addresses: tuple[bytes, ...]) -> Mapping[str, Any]:
    entries = []
    for address, entry in zip(addresses, commit.signatures, strict=False):
        absent = entry.flag is Flag.ABSENT
        entries.append(
            {
                "block_id_flag": int(entry.flag),
                "validator_address": "" if absent else _hex(address),
                "timestamp": "0001-01-01T00:00:00Z" if absent else _time(entry.time),
                "signature": None if absent else base64.b64encode(entry.signature).decode(),
            }
        )
    return {
        "height": str(commit.height),
        "round": commit.round,
        "block_id": _block_id(commit.block),
        "signatures": entries,
    }


def _set(validators: ValidatorSet) -> Mapping[str, Any]:
    return {
        "validators": [
            {
                "address": _hex(one.address),
                "pub_key": {"type": "tendermint/PubKeyEd25519", "value": base64.b64encode(one.public).decode()},
                "voting_power": str(one.power),
                "proposer_priority": "0",
            }
            for one in validators.validators
        ]
    }


def judged(question: Question) -> tuple[str, str]:
    """Return the verdict of the command, and the code in its reason."""
    done = subprocess.run(
        arguments("light", "verify"),
        input=question.text().encode(),
        env=dict(ENVIRONMENT),
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    return said["verdict"], said["reason"].partition(":")[0]


def of(block: Block, **changes: Any) -> Question:
    return replace(Question(block.header, block.commit), **changes)


def closed(block: Block, by: Consortium = HONEST, **changes: Any) -> Question:
    """Return a header with changes that validators have signed."""
    again = by.close(replace(block.header, **changes))
    return of(again, validators=by.validator_set)


def votes(block: Block, *entries: Any) -> Commit:
    return replace(block.commit, signatures=entries)


def half_stolen(kept: int) -> Consortium:
    """Return a set in which so many of the four are still there, among thieves."""
    return replace(HONEST, validators=(*HONEST.validators[:kept], *THIEVES.validators[: 4 - kept]))


def forged() -> Question:
    first, *rest = FAR.commit.signatures
    return of(FAR, commit=votes(FAR, replace(first, signature=bytes(64)), *rest))


def voted_twice() -> Question:
    """One of the trusted validators votes in the places of three."""
    mixed = half_stolen(1)
    block = mixed.block(bytes(32), height=50)
    one = Validator(HONEST.validators[0].public, 10).address
    own = mixed.close(block.header, block.id)
    return of(own, validators=mixed.validator_set, addresses=(one,) * 4)


def doubled() -> Question:
    """A set with one validator four times: his one key would be more than two thirds."""
    one = HONEST.validator_set.validators[0]
    four = ValidatorSet((one,) * 4)
    header = replace(FAR.header, validators_hash=four.hash())
    block = BlockId(header.hash(), 1, bytes(32))
    signers = replace(HONEST, validators=tuple(key for key in HONEST.validators if key.public == one.public) * 4)
    commit = Commit(header.height, 0, block, tuple(_vote(signers.validators[0], header, block) for _ in range(4)))
    return Question(header, commit, four)


def _vote(key: Ed25519Key, header: Header, block: BlockId) -> Any:
    return make_commit(
        header.chain,
        header.height,
        block,
        ValidatorSet((Validator(key.public, 10),)),
        {key.public: key},
        time=header.time + SECOND,
    ).signatures[0]


def weak() -> Question:
    """All four that are trusted sign for a set in which they are four of eight."""
    wide = replace(HONEST, validators=(*HONEST.validators, *THIEVES.validators))
    block = wide.block(bytes(32), height=50)
    theirs = {Validator(one.public, 10).address for one in THIEVES.validators}
    entries = []
    for validator, entry in zip(wide.validator_set.validators, block.commit.signatures, strict=True):
        entries.append(replace(entry, flag=Flag.NIL) if validator.address in theirs else entry)
    return of(replace(block, commit=votes(block, *entries)), validators=wide.validator_set)


def of_thieves(height: int, **changes: Any) -> Question:
    block = THIEVES.block(bytes(32), previous=FIRST, height=height)
    return of(block, validators=THIEVES.validator_set, **changes)


def another_next() -> Question:
    return of(FAR, next_validators=THIEVES.validator_set)


def reordered() -> Question:
    """The votes stand beside each other's addresses: every signature counts under another key."""
    owners = [one.address for one in HONEST.validator_set.validators]
    return of(NEXT, addresses=(*owners[1:], owners[0]))


ATTEMPTS: Mapping[str, tuple[str, Callable[[], Question]]] = {
    "long-ago": ("trusted-expired", lambda: of(NEXT, now=FIRST.header.time + HOUR * SECOND)),
    "trusted-set-exchanged": (
        "trusted-validators",
        lambda: of_thieves(50, trusted_validators=THIEVES.validator_set),
    ),
    "another-protocol": ("bad-header", lambda: closed(FAR, block_version=12)),
    "nobody-voted": ("no-votes", lambda: of(FAR, commit=votes(FAR))),
    "broken-vote": (
        "bad-commit-entry",
        lambda: of(FAR, commit=votes(FAR, *[replace(one, signature=b"x" * 63) for one in FAR.commit.signatures])),
    ),
    "another-chain": ("wrong-chain", lambda: closed(FAR, chain="test-2")),
    "commit-of-another-height": ("commit-height", lambda: of(NEXT, commit=replace(NEXT.commit, height=7))),
    "commit-of-another-block": (
        "commit-block",
        lambda: of(replace(FAR, header=replace(FAR.header, app_hash=b"x" * 32))),
    ),
    "back-in-height": ("height-not-monotonic", lambda: closed(FIRST, time=NOW - SECOND)),
    "back-in-time": ("time-not-monotonic", lambda: closed(FAR, time=FIRST.header.time)),
    "from-the-future": ("header-from-future", lambda: closed(FAR, time=NOW + 11 * SECOND)),
    "one-validator-four-times": ("bad-validators", doubled),
    "set-exchanged": ("validators-hash", lambda: of(FAR, validators=half_stolen(3).validator_set)),
    "next-set-exchanged": ("next-validators-hash", another_next),
    "next-block-by-others": ("next-validators", lambda: of_thieves(2)),
    "one-voter-in-three-places": ("double-vote", voted_twice),
    "forged-vote": ("commit-signature", forged),
    "four-of-eight": ("not-enough-power", weak),
    "too-few-entries": ("commit-size", lambda: of(NEXT, commit=votes(NEXT, *NEXT.commit.signatures[:3]))),
    "votes-reordered": ("commit-address", reordered),
}


@pytest.fixture(scope="module")
def honest() -> None:
    """The honest exchange: the next header, and one far on, are followed."""
    assert judged(of(NEXT)) == judged(of(FAR)) == ("SUCCESS", "")


@pytest.mark.usefixtures("honest")
@pytest.mark.parametrize("name", sampled(ATTEMPTS, 6))
def test_what_the_light_client_must_not_follow(name: str) -> None:
    """Thieves, retired validators and a lying node show headers that an owner's light client is to follow."""
    code, attempt = ATTEMPTS[name]
    assert judged(attempt()) == ("INVALID", code)


@pytest.mark.usefixtures("honest")
def test_too_few_of_those_trusted_bring_no_trust() -> None:
    """One of four trusted validators signs a far header with three thieves: no reason to believe it, or not to."""
    stolen = half_stolen(1)
    verdict, _ = judged(of(stolen.block(bytes(32), height=50), validators=stolen.validator_set))
    assert verdict == "NOT_ENOUGH_TRUST"
