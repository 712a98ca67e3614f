"""Proofs of who owns the indices under a prefix, and their verification."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from firstlight.encoding import Packed, Range, Record
from firstlight.errors import ProofError
from firstlight.trees.ownership.nodes import MAX_TENURE, NOBODY, depth_of, split_hash, uniform_hash

MAX_DEPTH = 32
NOBODY_HASH = uniform_hash(NOBODY)


@dataclass(frozen=True, slots=True)
class OwnershipProof(Record):
    """What the trie holds at a prefix.

    ``path`` are the sibling hashes from the root down to the node that answers. That node is uniform and
    ``tenure`` is set (it may be higher up than the prefix asked for), or it is the prefix's own node, it is split,
    and ``children`` are the hashes of its halves.
    """

    tenure: Annotated[int, Range(1, MAX_TENURE)] | None
    children: Annotated[tuple[bytes, ...], Packed(2)]
    path: Annotated[tuple[bytes, ...], Packed(MAX_DEPTH)]


@dataclass(frozen=True, slots=True)
class Uniform:
    """All indices under the prefix are in one tenure.

    ``length`` is how many bits of the prefix lead to the node that says so: it holds all indices that begin with these.
    """

    tenure: int
    length: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Split:
    """The indices under the prefix are not all in one tenure: ask with a longer prefix."""

    left: bytes
    right: bytes


def verify(root: bytes, size: int, prefix_bits: int, prefix_length: int, proof: OwnershipProof) -> Uniform | Split:
    """Return what a trie with ``root`` over ``size`` indices holds under the ``prefix_length``-bit prefix.

    1. The size is 1 to 2³²-1; the prefix is no longer than the depth, fits its length, and holds an index below size.
    2. The proof answers one way: a tenure, or two children.
    3. A uniform node is not below the prefix; a split node is the prefix's own and above the lowest level.
    4. No real index is nobody's, no padding is somebody's.
    5. No split node has two uniform halves of one tenure, as far as that can be seen.
    6. The root computed from the answer and the path, hashes of 32 bytes, is ``root``.

    The size says how deep the trie is and is not in its root: it must come from the same proven record as the root.
    Raises :class:`ProofError` (``bad-ownership-proof``).
    """
    depth = _check_prefix(size, prefix_bits, prefix_length)
    length = len(proof.path)
    if len(proof.children) != (2 if proof.tenure is None else 0):
        raise _bad(2, "neither a tenure nor two children")
    if length > prefix_length or (proof.tenure is None and (length != prefix_length or length == depth)):
        raise _bad(3, f"a node of depth {length} does not answer a prefix of {prefix_length} bits")
    bits = prefix_bits >> (prefix_length - length)
    current = _answer(size, depth, bits, proof)
    if _climb(current, bits, size, depth, proof) != root:
        raise _bad(6, "the proof leads to another root")
    return Split(*proof.children) if proof.tenure is None else Uniform(proof.tenure, length)


def _bad(check: int, why: str) -> ProofError:
    """Return the refusal by check number ``check`` of :func:`verify`."""
    return ProofError("bad-ownership-proof", f"{why} ({check})")


def _check_prefix(size: int, bits: int, length: int) -> int:
    if not 1 <= size <= MAX_TENURE:
        raise _bad(1, f"no batch has {size} devices")
    depth = depth_of(size)
    if not 0 <= length <= depth or not 0 <= bits < 1 << length:
        raise _bad(1, f"prefix {bits:b} of {length} bits in a trie of depth {depth}")
    if bits << (depth - length) >= size:
        raise _bad(1, "the prefix holds padding only")
    return depth


def _answer(size: int, depth: int, bits: int, proof: OwnershipProof) -> bytes:
    """Return the hash of the node that answers."""
    shift = depth - len(proof.path)
    if proof.tenure is not None:
        if proof.tenure == NOBODY or (bits + 1) << shift > size:
            raise _bad(4, "a tenure holds padding, or nobody holds an index")
        return uniform_hash(proof.tenure)
    left, right = proof.children
    _check_padding(left, 2 * bits, shift - 1, size)
    _check_padding(right, 2 * bits + 1, shift - 1, size)
    if left == right and (shift == 1 or left == NOBODY_HASH):
        raise _bad(5, "a split node has two equal halves")
    return split_hash(left, right)


def _check_padding(value: bytes, bits: int, shift: int, size: int) -> None:
    """Check that a node is nobody's exactly if it holds padding only."""
    if (bits << shift >= size) != (value == NOBODY_HASH):
        raise _bad(4, "padding is somebody's, or an index is nobody's")


def _climb(current: bytes, bits: int, size: int, depth: int, proof: OwnershipProof) -> bytes:
    for at in range(len(proof.path), 0, -1):
        sibling = proof.path[at - 1]
        if len(sibling) != 32:
            raise _bad(6, "a hash is not 32 bytes")
        _check_padding(sibling, bits ^ 1, depth - at, size)
        if sibling == current and proof.tenure is not None and at == len(proof.path):
            raise _bad(5, "a split node has two equal halves")
        current = split_hash(sibling, current) if bits & 1 else split_hash(current, sibling)
        bits >>= 1
    return current
