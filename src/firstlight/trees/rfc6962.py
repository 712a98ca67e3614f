"""The Merkle tree of Certificate Transparency (RFC 6962 §2.1; the same as RFC 9162 §2.1).

Leaf hash = SHA-256(0x00 ‖ data), node hash = SHA-256(0x01 ‖ left ‖ right), the empty tree is SHA-256 of
nothing. An odd node at the end of a level is promoted as it is, which is what the split at the largest
power of two below the size amounts to. CometBFT's header, validator-set and result hashes are this tree too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import islice
from typing import Self

from firstlight.errors import MalformedError, ProofError

WIDTH = 32
EMPTY = sha256(b"").digest()
"""The root of the tree without leaves."""

_CHUNK = 8_192
_ONLY_WIDTH = frozenset({WIDTH})


def leaf_hash(data: bytes) -> bytes:
    """Return the 32-byte hash of a leaf's data."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the 32-byte hash of an inner node over its children's hashes."""
    return sha256(b"\x01" + left + right).digest()


def root(leaf_hashes: Sequence[bytes]) -> bytes:
    """Return the 32-byte root over leaf hashes, in order; :data:`EMPTY` over none."""
    level = list(leaf_hashes)
    if not level:
        return EMPTY
    while len(level) > 1:
        above = [sha256(b"\x01" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)]
        if len(level) % 2:
            above.append(level[-1])
        level = above
    return level[0]


class Tree:
    """A tree over leaf hashes, its levels held flat: 64 bytes of memory a leaf."""

    __slots__ = ("_levels", "size")

    def __init__(self, leaf_hashes: Sequence[bytes]) -> None:
        """Build the tree over 32-byte ``leaf_hashes``; ``wrong-shape`` (MalformedError) for another length."""
        flat = b"".join(leaf_hashes)
        if len(flat) != len(leaf_hashes) * WIDTH:
            raise MalformedError("wrong-shape", f"{len(flat)} bytes are not {len(leaf_hashes)} hashes")
        self._levels = _levels(flat)
        self.size = len(leaf_hashes)

    @classmethod
    def from_leaves(cls, leaves: Iterable[bytes]) -> Self:
        """Build the tree over the data of the leaves, hashing them as they come."""
        flat = bytearray()
        stream = iter(leaves)
        while chunk := b"".join([sha256(b"\x00" + data).digest() for data in islice(stream, _CHUNK)]):
            flat += chunk
        return cls.from_flat(flat)

    @classmethod
    def from_flat(cls, leaf_hashes: bytes | bytearray) -> Self:
        """Build the tree over leaf hashes that stand one after the other; ``wrong-shape`` if the last is cut."""
        if len(leaf_hashes) % WIDTH:
            raise MalformedError("wrong-shape", f"{len(leaf_hashes)} bytes are not whole hashes")
        tree = cls(())
        tree._levels = _levels(bytes(leaf_hashes))
        tree.size = len(leaf_hashes) // WIDTH
        return tree

    @property
    def root(self) -> bytes:
        """The 32-byte root."""
        return self._levels[-1] if self.size else EMPTY

    def leaf(self, index: int) -> bytes:
        """Return the hash of leaf ``index``; IndexError outside ``0…size-1``."""
        self._check(index)
        return self._at(0, index)

    def path(self, index: int) -> tuple[bytes, ...]:
        """Return the audit path of leaf ``index``, lowest sibling first; IndexError outside ``0…size-1``."""
        self._check(index)
        path = []
        for height, level in enumerate(self._levels[:-1]):
            sibling = (index >> height) ^ 1
            if sibling * WIDTH < len(level):
                path.append(self._at(height, sibling))
        return tuple(path)

    def multiproof(self, indices: Iterable[int]) -> tuple[bytes, ...]:
        """Return the hashes that lead from these leaves together to the root.

        Order: level by level from the leaves up, left to right, and only what cannot be computed.
        IndexError outside ``0…size-1``.
        """
        known = sorted(set(indices))
        if known:
            self._check(known[0])
            self._check(known[-1])
        proof = []
        for height, level in enumerate(self._levels[:-1]):
            width = len(level) // WIDTH
            have = set(known)
            proof += [self._at(height, at ^ 1) for at in known if at ^ 1 < width and at ^ 1 not in have]
            known = _parents(known)
        return tuple(proof)

    def _check(self, index: int) -> None:
        if not 0 <= index < self.size:
            raise IndexError(f"leaf {index} of {self.size}")

    def _at(self, height: int, position: int) -> bytes:
        return self._levels[height][position * WIDTH : position * WIDTH + WIDTH]


def _levels(flat: bytes) -> list[bytes]:
    """Return all levels of the tree, from the leaves to the root."""
    levels = [flat]
    while len(levels[-1]) > WIDTH:
        levels.append(_level_above(levels[-1]))
    return levels


def _level_above(flat: bytes) -> bytes:
    """Return the level above ``flat``, made in chunks so that little lives beside it."""
    pairs = len(flat) // (2 * WIDTH) * 2 * WIDTH
    above = bytearray()
    stride = 2 * WIDTH * _CHUNK
    for start in range(0, pairs, stride):
        part = flat[start : min(start + stride, pairs)]
        above += b"".join([sha256(b"\x01" + part[at : at + 64]).digest() for at in range(0, len(part), 64)])
    above += flat[pairs:]
    return bytes(above)


def _parents(positions: list[int]) -> list[int]:
    return list(dict.fromkeys([position >> 1 for position in positions]))


def root_from_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """Return the root that ``path`` leads to from the hash of leaf ``index`` of ``size`` (RFC 9162 §2.1.3.2).

    1. ``index < size``; 2. every part of the path is 32 bytes; 3. the path is as long as index and size demand.
    Raises :class:`ProofError` (``bad-path``). The caller compares the root.
    """
    if not 0 <= index < size:
        raise _bad_path(1, f"index {index} is not below size {size}")
    if len(leaf) != WIDTH or not _ONLY_WIDTH.issuperset(map(len, path)):
        raise _bad_path(2, "a hash is not 32 bytes")
    last, current = size - 1, leaf
    for sibling in path:
        if not last:
            raise _bad_path(3, f"{len(path)} hashes are too many")
        while index == last and not index & 1:  # an odd node at the end is promoted as it is
            index, last = index >> 1, last >> 1
        pair = sibling + current if index & 1 else current + sibling
        current = sha256(b"\x01" + pair).digest()
        index, last = index >> 1, last >> 1
    if last:
        raise _bad_path(3, f"{len(path)} hashes are too few")
    return current


def root_from_multiproof(leaves: Mapping[int, bytes], size: int, proof: Sequence[bytes]) -> bytes:
    """Return the root that ``proof`` leads to from several leaf hashes by index.

    1. There is a leaf, and every index is below ``size``; 2. every hash is 32 bytes; 3. no hash of the proof
    is missing or left over. Raises :class:`ProofError` (``bad-multiproof``). The caller compares the root.
    """
    if not leaves or min(leaves) < 0 or max(leaves) >= size:
        raise _bad_multiproof(1, f"leaves do not lie in a tree of {size}")
    if any(len(part) != WIDTH for part in proof) or any(len(leaf) != WIDTH for leaf in leaves.values()):
        raise _bad_multiproof(2, "a hash is not 32 bytes")
    level = dict(sorted(leaves.items()))
    parts = iter(proof)
    width = size
    while width > 1:
        level = _raise_level(level, width, parts)
        width = (width + 1) // 2
    if next(parts, None) is not None:
        raise _bad_multiproof(3, "hashes are left over")
    return level[0]


def _raise_level(level: dict[int, bytes], width: int, parts: Iterable[bytes]) -> dict[int, bytes]:
    """Return the parents (in order) of the nodes of one level, with siblings from ``level`` or ``parts``."""
    above: dict[int, bytes] = {}
    stream = iter(parts)
    for position, value in level.items():
        parent = position >> 1
        if parent in above:
            continue
        other = position ^ 1
        if other >= width:
            above[parent] = value
            continue
        sibling = level.get(other)
        if sibling is None:
            sibling = next(stream, None)
            if sibling is None:
                raise _bad_multiproof(3, "hashes are missing")
        above[parent] = node_hash(sibling, value) if position & 1 else node_hash(value, sibling)
    return above


def _bad_path(check: int, why: str) -> ProofError:
    """Return the refusal by check number ``check`` of :func:`root_from_path`."""
    return ProofError("bad-path", f"{why} ({check})")


def _bad_multiproof(check: int, why: str) -> ProofError:
    """Return the refusal by check number ``check`` of :func:`root_from_multiproof`."""
    return ProofError("bad-multiproof", f"{why} ({check})")
