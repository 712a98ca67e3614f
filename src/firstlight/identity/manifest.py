"""The manifest: what a seller hands a buyer about the devices sold, off the ledger.

For each device its leaf's opening and its mailbox secret, and one RFC 6962 multiproof for all of them. Entries
are rows of 180 bytes, ascending by index: index (4, big-endian) ‖ salt (16) ‖ identity x ‖ y (64) ‖ attestation
x ‖ y (64) ‖ mailbox secret (32). A manifest travels in chunks, so that 10⁶ devices can be sealed as they pass
by: a :class:`Head`, then the proof's nodes, then the rows, :data:`NODES_PER_CHUNK` and :data:`ROWS_PER_CHUNK`
at a time, full chunks but the last.

A buyer of a part gets :meth:`Manifest.subset`: the proof for any part follows from the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain as concat
from itertools import pairwise
from typing import Self

from firstlight.encoding import Bytes16, ChainId, Record, Uint32
from firstlight.errors import MalformedError, ProofError
from firstlight.identity.birth import Leaf, check_point
from firstlight.ledger.records import BatchSize, Model
from firstlight.trees import rfc6962

ROW = 180
ROWS_PER_CHUNK = 4_096
NODES_PER_CHUNK = 16_384
_KEYS = slice(20, 148)
_NODE = 32


@dataclass(frozen=True, slots=True)
class Entry:
    """One device of a manifest: index, salt (16 bytes), two keys (x ‖ y, 64 each), mailbox secret (32)."""

    index: int
    salt: bytes
    identity: bytes
    attestation: bytes
    mailbox: bytes

    def leaf(self, model: bytes) -> Leaf:
        """Return the opening of this device's leaf; errors as :class:`Leaf`."""
        return Leaf(self.salt, self.identity, self.attestation, model)

    def row(self) -> bytes:
        """Return the 180 bytes of this entry."""
        return self.index.to_bytes(4) + self.salt + self.identity + self.attestation + self.mailbox

    @classmethod
    def of(cls, row: bytes) -> Self:
        """Read the entry of a row."""
        return cls(int.from_bytes(row[:4]), row[4:20], row[20:84], row[84:148], row[148:])


@dataclass(frozen=True, slots=True)
class Head(Record):
    """The first chunk of a manifest: whose devices, how many rows and how many nodes of proof follow."""

    chain: ChainId
    batch: Bytes16
    size: BatchSize
    model: Model
    count: Uint32
    nodes: Uint32


@dataclass(frozen=True, slots=True)
class Manifest:
    """Entries of one batch with one multiproof; ``rows`` and ``proof`` are flat (180 and 32 bytes each).

    Raises :class:`firstlight.errors.MalformedError`: ``empty-manifest``, ``bad-manifest`` (cut rows or nodes),
    ``unsorted-entries``, ``bad-index``.
    """

    chain: str
    batch: bytes
    size: int
    model: bytes
    rows: bytes
    proof: bytes

    def __post_init__(self) -> None:
        """Check shape, order and range of the entries."""
        if not self.rows:
            raise MalformedError("empty-manifest", "a manifest without devices")
        if len(self.rows) % ROW or len(self.proof) % _NODE:
            raise MalformedError("bad-manifest", "rows or proof are cut")
        if any(left >= right for left, right in pairwise(self.indices())):
            raise MalformedError("unsorted-entries", "entries do not ascend by index")
        if int.from_bytes(self.rows[-ROW : 4 - ROW]) >= self.size:
            raise MalformedError("bad-index", f"an index is not below {self.size}")

    @classmethod
    def build(cls, head: tuple[str, bytes, bytes], entries: Iterable[Entry], tree: rfc6962.Tree) -> Self:
        """Make the manifest of ``entries`` from the batch's whole tree; ``head`` is (chain, batch, model)."""
        chain, batch, model = head
        rows = b"".join([entry.row() for entry in sorted(entries, key=lambda one: one.index)])
        indices = [int.from_bytes(rows[at : at + 4]) for at in range(0, len(rows), ROW)]
        return cls(chain, batch, tree.size, model, rows, b"".join(tree.multiproof(indices)))

    def __len__(self) -> int:
        return len(self.rows) // ROW

    def indices(self) -> Iterator[int]:
        """Return the indices of the devices, ascending."""
        rows = self.rows
        return (int.from_bytes(rows[at : at + 4]) for at in range(0, len(rows), ROW))

    def entries(self) -> Iterator[Entry]:
        """Return the entries, ascending by index."""
        return (Entry.of(self.rows[at : at + ROW]) for at in range(0, len(self.rows), ROW))

    def entry(self, index: int) -> Entry:
        """Return the entry of device ``index``; :class:`MalformedError` (``not-in-manifest``) if there is none."""
        return Entry.of(self._row(index))

    def _row(self, index: int) -> bytes:
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if int.from_bytes(self.rows[middle * ROW : middle * ROW + 4]) < index:
                low = middle + 1
            else:
                high = middle
        row = self.rows[low * ROW : low * ROW + ROW]
        if int.from_bytes(row[:4]) != index or not row:
            raise MalformedError("not-in-manifest", f"no device {index} in the manifest")
        return row

    def leaf_hashes(self) -> Iterator[bytes]:
        """Return the hashes of the leaves, ascending by index."""
        rows, model = self.rows, self.model
        return (rfc6962.leaf_hash(rows[at + 4 : at + 148] + model) for at in range(0, len(rows), ROW))

    def verify(self, leaves_root: bytes, size: int) -> None:
        """Check every device against the ledger's record of the batch.

        1. The batch has ``size`` devices (``wrong-size``); 2. each pair of keys are two different points of P-256
        (MalformedError ``bad-point``, ``same-keys``); 3. the leaves hash into ``leaves_root`` with the proof and
        nothing left over (``bad-multiproof``, ``not-in-batch``). Mailbox secrets are in no leaf: a wrong one shows
        only in that the device finds no mail. Raises :class:`ProofError` where nothing else is said.
        """
        if size != self.size:
            raise ProofError("wrong-size", f"a manifest for a batch of {self.size}, the ledger says {size}")
        for at in range(0, len(self.rows), ROW):
            _check_keys(self.rows[at : at + ROW][_KEYS])
        if self._root() != leaves_root:
            raise ProofError("not-in-batch", "the manifest does not hash into the batch's leaves root")

    def _root(self) -> bytes:
        if len(self) == self.size and not self.proof:
            return rfc6962.Tree.from_flat(b"".join(self.leaf_hashes())).root
        return rfc6962.root_from_multiproof(self._leaves(), self.size, _split(self.proof))

    def _leaves(self) -> dict[int, bytes]:
        return dict(zip(self.indices(), self.leaf_hashes(), strict=True))

    def subset(self, indices: Iterable[int]) -> Manifest:
        """Return the manifest of a part of these devices, its proof derived from this one's.

        Raises :class:`MalformedError` (``not-in-manifest``, ``empty-manifest``) and :class:`ProofError`
        (``bad-multiproof``, if this manifest's own proof does not fit).
        """
        wanted = sorted(set(indices))
        rows = b"".join([self._row(index) for index in wanted])
        if not rows:
            raise MalformedError("empty-manifest", "a manifest without devices")
        return Manifest(self.chain, self.batch, self.size, self.model, rows, b"".join(self._prove(wanted)))

    def _prove(self, wanted: list[int]) -> Sequence[bytes]:
        if len(self) == self.size and not self.proof:
            return rfc6962.Tree.from_flat(b"".join(self.leaf_hashes())).multiproof(wanted)
        return _narrow(self._leaves(), self.size, _split(self.proof), wanted)

    def chunks(self) -> Iterator[bytes]:
        """Return the chunks in which the manifest travels, each to be sealed."""
        nodes = len(self.proof) // _NODE
        head = Head(self.chain, self.batch, self.size, self.model, len(self), nodes)
        return concat(
            (head.encode(),),
            _cut(self.proof, NODES_PER_CHUNK * _NODE),
            _cut(self.rows, ROWS_PER_CHUNK * ROW),
        )

    @classmethod
    def from_chunks(cls, chunks: Iterable[bytes]) -> Self:
        """Put the manifest together; ``bad-manifest`` (MalformedError) if chunks lack or are left over."""
        stream = iter(chunks)
        head = Head.decode(next(stream, b""))
        proof = _gather(stream, head.nodes * _NODE, NODES_PER_CHUNK * _NODE)
        rows = _gather(stream, head.count * ROW, ROWS_PER_CHUNK * ROW)
        if next(stream, None) is not None:
            raise MalformedError("bad-manifest", "chunks are left over")
        return cls(head.chain, head.batch, head.size, head.model, rows, proof)


def _check_keys(keys: bytes) -> None:
    check_point(keys[:64])
    check_point(keys[64:])
    if keys[:32] == keys[64:96]:
        raise MalformedError("same-keys", "identity and attestation key are one")


def _split(proof: bytes) -> tuple[bytes, ...]:
    return tuple([proof[at : at + _NODE] for at in range(0, len(proof), _NODE)])


def _cut(data: bytes, width: int) -> Iterator[bytes]:
    return (data[at : at + width] for at in range(0, len(data), width))


def _gather(stream: Iterator[bytes], total: int, width: int) -> bytes:
    """Return the next ``total`` bytes of the stream, which must come in pieces of ``width`` but the last."""
    parts = []
    left = total
    while left:
        part = next(stream, b"")
        if len(part) != min(width, left):
            raise MalformedError("bad-manifest", "a chunk is missing or has the wrong length")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _narrow(leaves: dict[int, bytes], size: int, proof: tuple[bytes, ...], wanted: list[int]) -> list[bytes]:
    """Return the multiproof for ``wanted``, a part of ``leaves``, whose own multiproof is ``proof``."""
    parts = iter(proof)
    narrowed = []
    level, width = leaves, size
    while width > 1:
        for at in list(level):
            if at ^ 1 < width and at ^ 1 not in level:
                sibling = next(parts, None)
                if sibling is None:
                    raise ProofError("bad-multiproof", "hashes are missing")
                level[at ^ 1] = sibling
        have = set(wanted)
        narrowed += [level[at ^ 1] for at in wanted if at ^ 1 < width and at ^ 1 not in have]
        above: dict[int, bytes] = {}
        for at in sorted(level):
            if not at & 1:
                above[at >> 1] = rfc6962.node_hash(level[at], level[at + 1]) if at + 1 < width else level[at]
        level, width = above, (width + 1) // 2
        wanted = list(dict.fromkeys([at >> 1 for at in wanted]))
    return narrowed
