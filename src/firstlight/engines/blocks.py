"""Making blocks as one validator: headers and commits with CometBFT's contents and hashes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from firstlight.chain.block import (
    BLOCK_PROTOCOL,
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
    NO_COMMIT_HASH,
    NO_COMMIT_PROTOBUF,
    Commit,
    ValidatorSet,
    ValidatorSigner,
    make_commit,
)
from firstlight.encoding import encode
from firstlight.ledger.draft import Outcome

APP_VERSION = 1
_CONSENSUS = consensus_hash(22_020_096, -1)
_NO_EVIDENCE = evidence_hash()


@dataclass(frozen=True, slots=True)
class Block:
    """A block that is committed, and the hash of its transactions' results, which the next header carries."""

    header: Header
    commit: Commit
    results: bytes


NO_RESULTS = results_hash([])


def outcome_bytes(outcome: Outcome) -> bytes:
    """Return a result's data: the CBOR array [subject, tenure, work]."""
    return encode([outcome.subject, outcome.tenure, outcome.work])


class BlockMaker:
    """Closes block after block with the one key that there is."""

    __slots__ = ("_chain", "_signer", "_validators", "_validators_hash")

    def __init__(self, chain: str, validators: ValidatorSet, signer: ValidatorSigner) -> None:
        """Make blocks of ``chain``; ``signer`` is its one validator."""
        self._chain = chain
        self._validators = validators
        self._validators_hash = validators.hash()
        self._signer = signer

    def next(
        self,
        previous: Block | None,
        app_hash: bytes,
        time: int,
        transactions: Sequence[bytes] = (),
        outcomes: Sequence[Outcome] = (),
    ) -> Block:
        """Return the block after ``previous`` at ``time`` (ns); ``app_hash`` is of the state before it."""
        height, last_block, last_commit_hash, last = 1, None, NO_COMMIT_HASH, NO_COMMIT_PROTOBUF
        if previous is not None:
            height, last_block = previous.header.height + 1, previous.commit.block
            last_commit_hash = previous.commit.hash(self._validators)
            last = previous.commit.protobuf(self._validators)
        header = Header(
            block_version=BLOCK_PROTOCOL,
            app_version=APP_VERSION,
            chain=self._chain,
            height=height,
            time=time,
            last_block=last_block,
            last_commit_hash=last_commit_hash,
            data_hash=data_hash(transactions),
            validators_hash=self._validators_hash,
            next_validators_hash=self._validators_hash,
            consensus_hash=_CONSENSUS,
            app_hash=app_hash,
            last_results_hash=NO_RESULTS if previous is None else previous.results,
            evidence_hash=_NO_EVIDENCE,
            proposer=self._validators.validators[0].address,
        )
        named = block_id(header, block_protobuf(header, transactions, last))
        signers = {self._signer.public: self._signer}
        commit = make_commit(self._chain, height, named, self._validators, signers, time=time)
        return Block(header, commit, results_hash([TxResult(0, outcome_bytes(one)) for one in outcomes]))
