"""The roots of both trees by their definitions, word for word and slow, for the fast ones to agree with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256

from firstlight.trees.ownership.nodes import split_hash, uniform_hash
from firstlight.trees.sparse import EMPTY, leaf_hash, node_hash


def state_root(items: Mapping[bytes, bytes], depth: int = 0) -> bytes:
    """Return the root of a sparse Merkle tree: nothing, one key alone however high, or two halves."""
    if not items:
        return EMPTY
    if len(items) == 1:
        ((key, value),) = items.items()
        return leaf_hash(key, sha256(value).digest())
    halves: tuple[dict[bytes, bytes], dict[bytes, bytes]] = ({}, {})
    for key, value in items.items():
        halves[int.from_bytes(key) >> (255 - depth) & 1][key] = value
    return node_hash(state_root(halves[0], depth + 1), state_root(halves[1], depth + 1))


def ownership_root(owners: Sequence[int], depth: int) -> bytes:
    """Return the root over the owner of each index: a uniform subtree is one node, any other is split in halves."""
    padded = [*owners, *[0] * ((1 << depth) - len(owners))]

    def node(low: int, high: int) -> bytes:
        if len(set(padded[low:high])) == 1:
            return uniform_hash(padded[low])
        middle = (low + high) // 2
        return split_hash(node(low, middle), node(middle, high))

    return node(0, 1 << depth)
