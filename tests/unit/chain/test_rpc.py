"""The JSON forms of CometBFT's RPC: what is read, what is refused, and what the verdict is for."""

import base64
import copy
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from firstlight.chain.block import BlockId, Header
from firstlight.chain.commit import Commit, CommitSig, Flag, ValidatorSet
from firstlight.chain.light import Invalid, NotEnoughTrust, Success, Verdict
from firstlight.chain.rpc import parse_question
from firstlight.errors import MalformedError, ProofError
from firstlight.testing.chains import GENESIS, SECOND, Block, Consortium, Ed25519Key

CHAIN = Consortium.of(validators=4)
FIRST = CHAIN.block(bytes(32))
NEXT = CHAIN.block(bytes(32), previous=FIRST)
FAR = CHAIN.block(bytes(32), previous=FIRST, height=50)
Form = dict[str, Any]


def stamp(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, SECOND)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def block_json(block: BlockId | None) -> Form:
    block = block or BlockId(b"", 0, b"")
    return {"hash": block.hash.hex().upper(), "parts": {"total": block.parts, "hash": block.parts_hash.hex().upper()}}


def header_json(header: Header) -> Form:
    hashes = (
        "last_commit_hash data_hash validators_hash next_validators_hash consensus_hash app_hash"
        " last_results_hash evidence_hash"
    )
    return {
        "version": {"block": str(header.block_version), "app": str(header.app_version)},
        "chain_id": header.chain,
        "height": str(header.height),
        "time": stamp(header.time),
        "last_block_id": block_json(header.last_block),
        **{name: getattr(header, name).hex().upper() for name in hashes.split()},
        "proposer_address": header.proposer.hex().upper(),
    }


def vote_json(entry: CommitSig, address: bytes) -> Form:
    if entry.flag is Flag.ABSENT:
        return {
            "block_id_flag": 1,
            "validator_address": "",
            "timestamp": "0001-01-01T00:00:00Z",
            "signature": None,
        }
    return {
        "block_id_flag": int(entry.flag),
        "validator_address": address.hex().upper(),
        "timestamp": stamp(entry.time),
        "signature": base64.b64encode(entry.signature).decode(),
    }


def commit_json(commit: Commit, validators: ValidatorSet) -> Form:
    return {
        "height": str(commit.height),
        "round": commit.round,
        "block_id": block_json(commit.block),
        "signatures": [
            vote_json(entry, one.address) for entry, one in zip(commit.signatures, validators.validators, strict=True)
        ],
    }


def set_json(validators: ValidatorSet) -> Form:
    return {
        "validators": [
            {
                "address": one.address.hex().upper(),
                "pub_key": {"type": "tendermint/PubKeyEd25519", "value": base64.b64encode(one.public).decode()},
                "voting_power": str(one.power),
                "proposer_priority": "-12",
            }
            for one in validators.validators
        ]
    }


def form(block: Block = FAR, validators: ValidatorSet = CHAIN.validator_set) -> Form:
    return {
        "trusted": {
            "signed_header": {"header": header_json(FIRST.header), "commit": None},
            "next_validator_set": set_json(CHAIN.validator_set),
        },
        "untrusted": {
            "signed_header": {"header": header_json(block.header), "commit": commit_json(block.commit, validators)},
            "validator_set": set_json(validators),
            "next_validator_set": set_json(validators),
        },
        "trust_level": "1/3",
        "trusting_period_s": 3600,
        "max_clock_drift_s": 10,
        "now": stamp((GENESIS + 60) * SECOND),
    }


def judge(question: Form) -> Verdict:
    return parse_question(json.dumps(question).encode()).verdict()


def code(question: Form) -> str:
    verdict = judge(question)
    assert isinstance(verdict, Invalid), verdict
    return verdict.code


def changed(path: str, value: object, of: Form | None = None) -> Form:
    whole = copy.deepcopy(form() if of is None else of)
    place: Any = whole
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    for step in way:
        place = place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return whole


HEADER = "untrusted.signed_header.header"
COMMIT = "untrusted.signed_header.commit"
VOTE = f"{COMMIT}.signatures.0"
VALIDATOR = "untrusted.validator_set.validators.0"


@pytest.mark.parametrize("block", [NEXT, FAR])
def test_next_and_far_headers(block: Block) -> None:
    assert judge(form(block)) == Success()


def test_the_next_validators_may_be_missing() -> None:
    assert judge(changed("untrusted.next_validator_set", ...)) == Success()
    assert judge(changed("untrusted.next_validator_set", None)) == Success()


def test_other_members_are_passed_over() -> None:
    assert judge(changed(f"{COMMIT}.bit_array", [])) == Success()
    assert judge(changed("untrusted.provider", "n1")) == Success()


def test_both_names_of_the_parts() -> None:
    renamed = changed(f"{COMMIT}.block_id.parts", ...)
    renamed["untrusted"]["signed_header"]["commit"]["block_id"]["part_set_header"] = block_json(FAR.commit.block)[
        "parts"
    ]
    assert judge(renamed) == Success()


def test_an_absent_vote_has_no_time() -> None:
    nobody = vote_json(CommitSig(Flag.ABSENT, 0, b""), b"")
    assert judge(changed(VOTE, nobody)) == Success()
    assert code(changed(VOTE, nobody | {"timestamp": "2024-01-01T00:00:00Z"})) == "bad-commit-entry"
    assert code(changed(VOTE, nobody | {"validator_address": "00" * 20})) == "bad-commit-entry"


def test_too_little_trust() -> None:
    mixed = replace(CHAIN, validators=(*CHAIN.validators[:1], *(Ed25519Key(f"fresh {one}") for one in range(3))))
    block = mixed.block(bytes(32), previous=None, height=50)
    assert judge(form(block, mixed.validator_set)) == NotEnoughTrust(10, 40)


def test_too_little_trust_is_said_before_the_number_of_votes_is_looked_at() -> None:
    """As CometBFT does: it counts the trusted votes first, wherever they stand."""
    question = form()
    del question["untrusted"]["signed_header"]["commit"]["signatures"][1:]
    assert judge(question) == NotEnoughTrust(10, 40)
    adjacent = form(NEXT)
    del adjacent["untrusted"]["signed_header"]["commit"]["signatures"][1:]
    assert code(adjacent) == "commit-size"


def test_too_little_trust_is_said_whatever_the_signatures_are() -> None:
    question = form()
    votes = question["untrusted"]["signed_header"]["commit"]["signatures"]
    votes[0]["signature"] = base64.b64encode(bytes(64)).decode()
    assert code(question) == "commit-signature"
    for vote in votes[1:]:
        vote["block_id_flag"] = 3
    assert judge(question) == NotEnoughTrust(10, 40)


def test_nobody_votes_twice() -> None:
    question = form()
    votes = question["untrusted"]["signed_header"]["commit"]["signatures"]
    votes[1] = votes[0]
    assert code(question) == "double-vote"
    adjacent = form(NEXT)
    votes = adjacent["untrusted"]["signed_header"]["commit"]["signatures"]
    votes[1] = votes[0]
    assert code(adjacent) == "commit-address"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (f"{HEADER}.version.block", "10", "bad-header"),
        (f"{HEADER}.height", "-1", "bad-header"),
        (f"{HEADER}.chain_id", "x" * 51, "bad-header"),
        (f"{HEADER}.data_hash", "AA", "bad-header"),
        (f"{HEADER}.proposer_address", "", "bad-header"),
        (f"{HEADER}.last_block_id.hash", "AB", "bad-header"),
        (f"{HEADER}.chain_id", "other", "wrong-chain"),
        (f"{HEADER}.app_hash", "AA", "commit-block"),
        (f"{HEADER}.last_results_hash", None, "commit-block"),
        (f"{COMMIT}.height", "51", "commit-height"),
        (f"{COMMIT}.signatures", None, "no-votes"),
        (f"{COMMIT}.signatures", [], "no-votes"),
        (f"{COMMIT}.block_id.parts.hash", "AA", "commit-block"),
        (f"{COMMIT}.block_id.parts.total", 2, "commit-signature"),
        (f"{COMMIT}.round", 1, "commit-signature"),
        (f"{VOTE}.signature", "", "bad-commit-entry"),
        (f"{VOTE}.validator_address", "AA", "bad-commit-entry"),
        (f"{VOTE}.validator_address", "AA" * 20, "commit-address"),
        (f"{VOTE}.timestamp", "2024-01-01T00:00:00Z", "commit-signature"),
        (f"{VALIDATOR}.voting_power", "11", "validators-hash"),
        (f"{VALIDATOR}.voting_power", "-1", "bad-validators"),
        (f"{VALIDATOR}.voting_power", str(2**63 - 1), "bad-validators"),
        (f"{VALIDATOR}.address", "AA" * 20, "bad-validators"),
        ("untrusted.validator_set.validators", [], "validators-hash"),
        ("untrusted.next_validator_set.validators", [], "next-validators-hash"),
        ("trusted.next_validator_set.validators", None, "trusted-validators"),
        ("trusting_period_s", 59, "trusted-expired"),
        ("now", "2001-01-01T00:00:00Z", "header-from-future"),
    ],
)
def test_what_the_verdict_is_for(path: str, value: object, expected: str) -> None:
    assert code(changed(path, value)) == expected


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("trusted", ...),
        ("untrusted", []),
        (f"{HEADER}.height", 50),
        (f"{HEADER}.height", "050"),
        (f"{HEADER}.height", "+50"),
        (f"{HEADER}.height", "\u0665"),
        (f"{HEADER}.height", str(2**63)),
        (f"{HEADER}.version.block", "-1"),
        (f"{HEADER}.chain_id", None),
        (f"{HEADER}.chain_id", "\ud800"),
        (f"{HEADER}.data_hash", "aa" * 32),
        (f"{HEADER}.data_hash", "A"),
        (f"{HEADER}.data_hash", 0),
        (f"{HEADER}.data_hash", ...),
        (f"{HEADER}.time", "2024-01-01"),
        (f"{HEADER}.time", "2024-01-01T00:00:00"),
        (f"{HEADER}.time", "2024-02-30T00:00:00Z"),
        (f"{HEADER}.time", "2024-01-01T00:00:00.0000000001Z"),
        (f"{HEADER}.time", "0000-01-01T00:00:00Z"),
        (f"{HEADER}.time", "2024-01-01T24:00:00Z"),
        (f"{HEADER}.time", 0),
        (f"{COMMIT}.round", "0"),
        (f"{COMMIT}.round", -1),
        (f"{COMMIT}.round", True),
        (f"{COMMIT}.round", 2**31),
        (f"{COMMIT}.block_id.parts", ...),
        (f"{COMMIT}.block_id.part_set_header", {"total": 1, "hash": ""}),
        (f"{COMMIT}.signatures", {}),
        (f"{VOTE}.block_id_flag", 0),
        (f"{VOTE}.block_id_flag", 4),
        (f"{VOTE}.signature", "AA"),
        (f"{VOTE}.signature", "AA=="[:3] + "\n="),
        (f"{VOTE}.signature", "AB=="),
        (f"{VALIDATOR}.pub_key.value", "AAAA"),
        (f"{VALIDATOR}.voting_power", 10),
        ("trust_level", "1"),
        ("trust_level", 0.33),
        ("trusting_period_s", "3600"),
        ("trusting_period_s", -1),
        ("trusting_period_s", 1e300),
        ("max_clock_drift_s", 1e-10),
        ("max_clock_drift_s", True),
        ("now", 1),
    ],
)
def test_what_is_not_of_the_form(path: str, value: object) -> None:
    with pytest.raises(MalformedError) as caught:
        judge(changed(path, value))
    assert caught.value.code == "bad-form"


def test_other_kinds_of_keys() -> None:
    with pytest.raises(MalformedError) as caught:
        judge(changed(f"{VALIDATOR}.pub_key.type", "tendermint/PubKeySecp256k1"))
    assert caught.value.code == "key-type"


def test_a_trust_level_below_a_third() -> None:
    with pytest.raises(ProofError) as caught:
        judge(changed("trust_level", "1/4"))
    assert caught.value.code == "bad-trust-level"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "not-json"),
        (b"\xff", "not-json"),
        (b"{", "not-json"),
        (b"[" * 100_000, "not-json"),
        (b'{"now": NaN}', "not-json"),
        (b"1" * 5000, "not-json"),
        (b'{"now": 1e99999999999999999999}', "not-json"),
        (b'{"a": 1, "a": 1}', "duplicate-member"),
        (b"[]", "bad-form"),
        (b"{}", "bad-form"),
    ],
)
def test_what_is_no_json(data: bytes, expected: str) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_question(data)
    assert caught.value.code == expected


def test_times_with_offsets_and_parts_of_a_second() -> None:
    later: Callable[[str], int] = lambda now: parse_question(json.dumps(changed("now", now)).encode()).now  # noqa: E731
    assert later("1970-01-01T01:00:00.5+01:00") == SECOND // 2
    assert later("0001-01-01T00:00:00Z") == -62_135_596_800 * SECOND
    assert later("2262-04-12T00:00:00.000000001Z") == 9_223_372_800 * SECOND + 1


@pytest.mark.parametrize(("text", "expected"), [("0.5", SECOND // 2), ("1e2", 100 * SECOND), ("0e999999999", 0)])
def test_seconds_may_have_decimals(text: str, expected: int) -> None:
    data = json.dumps(changed("trusting_period_s", 77)).replace(": 77,", f": {text},").encode()
    assert parse_question(data).policy.trusting_period == expected


@pytest.mark.parametrize("text", ["1e-10", "1e-999999999", "1.0000000001", "1e999999999", "-1e-999999999"])
def test_seconds_that_are_too_fine_or_too_many(text: str) -> None:
    data = json.dumps(changed("trusting_period_s", 77)).replace(": 77,", f": {text},").encode()
    with pytest.raises(MalformedError) as caught:
        parse_question(data)
    assert caught.value.code == "bad-form"
