"""Hashes, sign bytes and signatures that CometBFT made; ``tests/vectors/cometbft.json`` names each source."""

import base64
import hashlib
import json
from datetime import datetime
from pathlib import Path

import pytest

from firstlight.chain import ed25519
from firstlight.chain.block import (
    BlockId,
    Header,
    TxResult,
    block_id,
    block_protobuf,
    consensus_hash,
    data_hash,
    evidence_hash,
    results_hash,
)
from firstlight.chain.commit import (
    ABSENT,
    NO_COMMIT_HASH,
    NO_COMMIT_PROTOBUF,
    Commit,
    CommitSig,
    Flag,
    Validator,
    ValidatorSet,
    verify_commit,
    vote_sign_bytes,
)
from firstlight.errors import ProofError

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "cometbft.json").read_text())
NODE = VECTORS["node"]
EMPTY = hashlib.sha256(b"").digest()
SET = ValidatorSet((Validator(base64.b64decode(NODE["validator"]), NODE["power"]),))


def nanoseconds(text: str) -> int:
    whole, fraction = text.removesuffix("Z").split(".")
    return int(datetime.fromisoformat(whole + "+00:00").timestamp()) * 10**9 + int(fraction)


def sha(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def block_of(entry: dict) -> tuple[Header, Commit | None]:
    """Return header and last commit of a recorded block."""
    last = None
    if entry["last"] is not None:
        hash_, parts, parts_hash = entry["last"]
        last = BlockId(bytes.fromhex(hash_), parts, bytes.fromhex(parts_hash))
    header = Header(
        11,
        NODE["app_version"],
        NODE["chain"],
        entry["height"],
        nanoseconds(entry["time"]),
        last,
        bytes.fromhex(entry["lch"]),
        data_hash([]),
        SET.hash(),
        SET.hash(),
        consensus_hash(NODE["max_bytes"], NODE["max_gas"]),
        bytes.fromhex(entry["app"]),
        results_hash([]),
        evidence_hash(),
        SET.validators[0].address,
    )
    if entry["sig"] is None or last is None:
        return header, None
    time, signature = entry["sig"]
    vote = CommitSig(Flag.COMMIT, nanoseconds(time), base64.b64decode(signature))
    return header, Commit(entry["height"] - 1, 0, last, (vote,))


@pytest.mark.parametrize("case", VECTORS["vote_sign_bytes"]["cases"])
def test_vote_sign_bytes(case: dict) -> None:
    made = vote_sign_bytes(
        case["chain"], height=case["height"], round_=case["round"], block=None, time=None, kind=case["kind"]
    )
    assert made.hex() == case["bytes"]


def test_header_hash() -> None:
    vector = VECTORS["header_hash"]
    header = Header(
        1,
        2,
        vector["chain"],
        3,
        nanoseconds(vector["time"]),
        BlockId(bytes(32), 6, bytes(32)),
        sha("last_commit_hash"),
        sha("data_hash"),
        sha("validators_hash"),
        sha("next_validators_hash"),
        sha("consensus_hash"),
        sha("app_hash"),
        sha("last_results_hash"),
        sha("evidence_hash"),
        ed25519.address(b"proposer_address"),
    )
    assert header.hash().hex().upper() == vector["hash"]


def test_validator_sets() -> None:
    vector = VECTORS["validators_hash"]
    several = ValidatorSet(tuple(Validator(bytes.fromhex(key), power) for key, power in vector["validators"]))
    assert several.hash().hex().upper() == vector["hash"]
    assert SET.hash().hex().upper() == NODE["validators_hash"]
    assert SET.validators[0].address.hex().upper() == NODE["address"]


def test_consensus_hash() -> None:
    assert consensus_hash(NODE["max_bytes"], NODE["max_gas"]).hex().upper() == NODE["consensus_hash"]


@pytest.mark.parametrize("case", VECTORS["data_hash"]["cases"])
def test_data_hash(case: dict) -> None:
    transaction = base64.b64decode(case["transaction"])
    assert hashlib.sha256(transaction).hexdigest().upper() == case["id"]
    assert data_hash([transaction]).hex().upper() == case["root"]


def test_results_hash_is_over_the_deterministic_fields() -> None:
    encoded = bytes.fromhex("0807" + "1203616263" + "2805" + "3009")
    leaf = hashlib.sha256(b"\x00" + encoded).digest()
    assert results_hash([TxResult(7, b"abc", 5, 9)]) == leaf
    assert results_hash([TxResult(0)]) == hashlib.sha256(b"\x00").digest()
    assert results_hash([]) == EMPTY


@pytest.mark.parametrize("entry", NODE["blocks"], ids=lambda entry: str(entry["height"]))
def test_blocks_of_a_node(entry: dict) -> None:
    header, last_commit = block_of(entry)
    assert header.hash().hex().upper() == entry["hash"]
    if last_commit is None:
        assert header.last_commit_hash == NO_COMMIT_HASH
        encoded = NO_COMMIT_PROTOBUF
    else:
        assert last_commit.hash(SET) == header.last_commit_hash
        encoded = last_commit.protobuf(SET)
        message = vote_sign_bytes(
            header.chain,
            height=last_commit.height,
            round_=0,
            block=last_commit.block,
            time=last_commit.signatures[0].time,
        )
        ed25519.verify(SET.validators[0].public, message, last_commit.signatures[0].signature)
    block = block_protobuf(header, [], encoded)
    assert block_id(header, block).parts_hash.hex().upper() == entry["parts"]


def test_a_node_s_commit_verifies_and_a_changed_one_does_not() -> None:
    entry = next(one for one in NODE["blocks"] if one["height"] == 10)
    header, _ = block_of(entry)
    block = BlockId(bytes.fromhex(entry["hash"]), 1, bytes.fromhex(entry["parts"]))
    vote = NODE["commit_10"]
    signature = CommitSig(Flag.COMMIT, nanoseconds(vote["time"]), base64.b64decode(vote["signature"]))
    verify_commit(NODE["chain"], SET, header, Commit(10, 0, block, (signature,)))
    with pytest.raises(ProofError) as caught:
        verify_commit(NODE["chain"], SET, header, Commit(10, 1, block, (signature,)))
    assert caught.value.code == "commit-signature"


def test_absent_vote_encodes_with_the_zero_time() -> None:
    assert ABSENT.protobuf(b"ignored").hex() == "08011a0b088092b8c398feffffff01"


def test_blocks_over_64_kib_have_several_parts() -> None:
    header, _ = block_of(NODE["blocks"][0])
    assert block_id(header, bytes(65_537)).parts == 2
    assert block_id(header, bytes(65_536)).parts == 1
