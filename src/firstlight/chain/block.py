"""Block headers with the hashes that CometBFT v0.38 gives them (``types/block.go``, ``types/tx.go``).

What travels is a :class:`Header` as a compact CBOR record; what is hashed is CometBFT's protobuf of
the same fields, so that a header means the same whichever engine made it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from firstlight.chain import protobuf as pb
from firstlight.encoding import Bytes32, ChainId, Range, Record, Size, Uint
from firstlight.trees import rfc6962

BLOCK_PROTOCOL = 11
PART_SIZE = 65_536
Height = Annotated[int, Range(1, 2**63 - 1)]
Nanoseconds = Annotated[int, Range(0, 2**63 - 1)]
"""Unix time in nanoseconds."""
Address = Annotated[bytes, Size(20)]


@dataclass(frozen=True, slots=True)
class BlockId(Record):
    """Names a block: its header's hash, and number and Merkle root of the parts that it is gossiped in."""

    hash: Bytes32
    parts: Annotated[int, Range(1, 2**32 - 1)]
    parts_hash: Bytes32

    def protobuf(self) -> bytes:
        """Return ``BlockID`` (and, field for field the same, ``CanonicalBlockID``)."""
        return pb.blob(1, self.hash) + pb.message(2, pb.integer(1, self.parts) + pb.blob(2, self.parts_hash))


@dataclass(frozen=True, slots=True)
class Header(Record):
    """A block's header. ``last_block`` is missing at the first height; ``app_hash`` is of the state *before* it."""

    block_version: Uint
    app_version: Uint
    chain: ChainId
    height: Height
    time: Nanoseconds
    last_block: BlockId | None
    last_commit_hash: Bytes32
    data_hash: Bytes32
    validators_hash: Bytes32
    next_validators_hash: Bytes32
    consensus_hash: Bytes32
    app_hash: Bytes32
    last_results_hash: Bytes32
    evidence_hash: Bytes32
    proposer: Address

    def hash(self) -> bytes:
        """Return the block's hash: the RFC 6962 root over the fourteen encoded fields."""
        return merkle(self.leaves())

    def partial(self) -> PartialHeader:
        """Return the little of this header that a light verifier needs."""
        tree = rfc6962.Tree([rfc6962.leaf_hash(leaf) for leaf in self.leaves()])
        rest = b"".join(tree.multiproof(_SHOWN))
        return PartialHeader(self.block_version, self.app_version, self.height, self.time, self.app_hash, rest)

    def leaves(self) -> tuple[bytes, ...]:
        """Return the fourteen encoded fields in CometBFT's order."""
        return (
            _version(self.block_version, self.app_version),
            pb.blob(1, self.chain.encode()),
            pb.integer(1, self.height),
            pb.timestamp(self.time),
            block_id_protobuf(self.last_block),
            pb.blob(1, self.last_commit_hash),
            pb.blob(1, self.data_hash),
            pb.blob(1, self.validators_hash),
            pb.blob(1, self.next_validators_hash),
            pb.blob(1, self.consensus_hash),
            pb.blob(1, self.app_hash),
            pb.blob(1, self.last_results_hash),
            pb.blob(1, self.evidence_hash),
            pb.blob(1, self.proposer),
        )

    def protobuf(self) -> bytes:
        """Return CometBFT's ``Header`` message."""
        return b"".join(
            (
                pb.message(1, _version(self.block_version, self.app_version)),
                pb.blob(2, self.chain.encode()),
                pb.integer(3, self.height),
                pb.message(4, pb.timestamp(self.time)),
                pb.message(5, block_id_protobuf(self.last_block)),
                pb.blob(6, self.last_commit_hash),
                pb.blob(7, self.data_hash),
                pb.blob(8, self.validators_hash),
                pb.blob(9, self.next_validators_hash),
                pb.blob(10, self.consensus_hash),
                pb.blob(11, self.app_hash),
                pb.blob(12, self.last_results_hash),
                pb.blob(13, self.evidence_hash),
                pb.blob(14, self.proposer),
            )
        )


@dataclass(frozen=True, slots=True)
class PartialHeader(Record):
    """A header without what its reader knows (chain, validators) or has no use for.

    ``rest`` are the five hashes (32 bytes each) that stand for the other fields in the header's Merkle tree.
    """

    block_version: Uint
    app_version: Uint
    height: Height
    time: Nanoseconds
    app_hash: Bytes32
    rest: Annotated[bytes, Size(160)]

    def hash(self, chain: str, validators_hash: bytes) -> bytes:
        """Return the hash of the header of which this is a part, if it is of that chain and those validators."""
        shown = (
            _version(self.block_version, self.app_version),
            pb.blob(1, chain.encode()),
            pb.integer(1, self.height),
            pb.timestamp(self.time),
            pb.blob(1, validators_hash),
            pb.blob(1, self.app_hash),
        )
        leaves = {place: rfc6962.leaf_hash(leaf) for place, leaf in zip(_SHOWN, shown, strict=True)}
        rest = [self.rest[start : start + 32] for start in range(0, len(self.rest), 32)]
        return rfc6962.root_from_multiproof(leaves, _FIELDS, rest)


_SHOWN = (0, 1, 2, 3, 7, 10)
_FIELDS = 14


def _version(block: int, app: int) -> bytes:
    return pb.integer(1, block) + pb.integer(2, app)


@dataclass(frozen=True, slots=True)
class TxResult:
    """The part of a transaction's result that all validators must agree on (``ExecTxResult``)."""

    code: int
    data: bytes = b""
    gas_wanted: int = 0
    gas_used: int = 0

    def protobuf(self) -> bytes:
        """Return the deterministic ``ExecTxResult``."""
        return (
            pb.integer(1, self.code)
            + pb.blob(2, self.data)
            + pb.integer(5, self.gas_wanted)
            + pb.integer(6, self.gas_used)
        )


def merkle(items: Iterable[bytes]) -> bytes:
    """Return the RFC 6962 root over ``items`` as leaf data."""
    return rfc6962.root([rfc6962.leaf_hash(item) for item in items])


def block_id_protobuf(block: BlockId | None) -> bytes:
    """Return ``BlockID``; a missing one still holds its empty part-set header."""
    return pb.message(2, b"") if block is None else block.protobuf()


def data_hash(transactions: Sequence[bytes]) -> bytes:
    """Return the root over the SHA-256 of each transaction."""
    return merkle(hashlib.sha256(one).digest() for one in transactions)


def results_hash(results: Sequence[TxResult]) -> bytes:
    """Return the root over the deterministic results of a block's transactions."""
    return merkle(one.protobuf() for one in results)


def evidence_hash(evidence: Sequence[bytes] = ()) -> bytes:
    """Return the root over the encoded pieces of evidence of misbehaviour."""
    return merkle(evidence)


def consensus_hash(max_bytes: int, max_gas: int) -> bytes:
    """Return the hash of the consensus parameters that CometBFT hashes (``HashedParams``)."""
    return hashlib.sha256(pb.integer(1, max_bytes) + pb.integer(2, max_gas)).digest()


def block_protobuf(header: Header, transactions: Sequence[bytes], last_commit: bytes) -> bytes:
    """Return CometBFT's ``Block`` without evidence; ``last_commit`` is that commit's protobuf."""
    data = b"".join(pb.message(1, one) for one in transactions)
    return pb.message(1, header.protobuf()) + pb.message(2, data) + pb.message(3, b"") + pb.message(4, last_commit)


def block_id(header: Header, block: bytes) -> BlockId:
    """Return the id of the block whose protobuf is ``block``, in parts of 64 KiB."""
    parts = [block[start : start + PART_SIZE] for start in range(0, len(block), PART_SIZE)]
    return BlockId(header.hash(), len(parts), merkle(parts))
