"""A compact sparse Merkle tree: the ledger's state.

Keys are 32 bytes, values are byte strings. Bit 0 of a key is its most significant one; a 0 goes left.

- empty subtree: SHA-256(0x02)
- one key in a subtree: the leaf, SHA-256(0x00 ‖ key ‖ SHA-256(value)), however high that subtree is
- two keys or more: SHA-256(0x01 ‖ left ‖ right)

So a lone leaf sits at the shallowest depth at which it is alone, and the root is a function of the map: no
order of insertion, and no insertion undone, leaves a trace. That a key is absent is shown by an empty subtree,
or by another key's leaf, in the place where it would have to be.

Nodes are immutable and shared between versions: an old :class:`Tree` stays valid and costs only what differs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated

from firstlight.encoding import Bytes32, Count, Gapped, Range, Record
from firstlight.errors import MalformedError, ProofError
from firstlight.trees.collector import collector_paused

KEY_SIZE = 32
MAX_CLAIMS = 64
EMPTY = sha256(b"\x02").digest()
"""The hash of an empty subtree, and so the root of the empty tree."""

_DEPTH = 8 * KEY_SIZE
_GC_BATCH = 512
"""So many changes are a large batch, for which the garbage collector is paused."""

# A leaf is (hash, key ‖ value), a branch (hash, left, right); an empty subtree is None. Plain tuples of
# different length are the fastest immutable nodes that the interpreter has.
_Leaf = tuple[bytes, bytes]
_Branch = tuple[bytes, "_Node", "_Node"]
_Node = _Leaf | _Branch | None
_Change = tuple[bytes, _Leaf | None]


def leaf_hash(key: bytes, value_hash: bytes) -> bytes:
    """Return the hash of the leaf of ``key`` whose value has SHA-256 ``value_hash``."""
    return sha256(b"\x00" + key + value_hash).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a subtree with at least two keys over the hashes of its halves."""
    return sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Stranger(Record):
    """The leaf of a key that nobody asked for, which stands where an absent key would have to be."""

    key: Bytes32
    value_hash: Bytes32


@dataclass(frozen=True, slots=True)
class Multiproof(Record):
    """What leads from claims about several keys to the root.

    The claimed keys, sorted, fall into *places*: a place is the leaf or the empty subtree at which the way down
    to a key ends. ``depths`` gives the depth of each place from left to right, ``strangers`` (sorted) the leaves
    found there that are not claimed. ``siblings`` are the other hashes, an empty string for :data:`EMPTY`, in the
    order in which the root is computed: the left half of what is claimed, its right half, then upwards.
    """

    depths: Annotated[tuple[Annotated[int, Range(0, _DEPTH)], ...], Count(MAX_CLAIMS, 1)]
    strangers: Annotated[tuple[Stranger, ...], Count(MAX_CLAIMS)]
    siblings: Annotated[tuple[bytes, ...], Gapped(MAX_CLAIMS * _DEPTH)]


class Tree:
    """An immutable map from 32-byte keys to byte strings with a 32-byte root."""

    __slots__ = ("_node", "root")

    def __init__(self, node: _Node = None) -> None:
        """Wrap a node; use :meth:`empty` and :meth:`update`."""
        self._node = node
        self.root = EMPTY if node is None else node[0]

    @classmethod
    def empty(cls) -> Tree:
        """Return the tree without keys."""
        return cls()

    def update(self, items: Mapping[bytes, bytes | None]) -> Tree:
        """Return the tree with these values set, and those keys removed whose value is None.

        Raises :class:`MalformedError` (``bad-key``) for a key that is not 32 bytes.
        """
        if not items:
            return self
        if any(len(key) != KEY_SIZE for key in items):
            raise MalformedError("bad-key", f"a key is not {KEY_SIZE} bytes")
        with collector_paused(when=len(items) >= _GC_BATCH):
            changes = [(key, None if items[key] is None else _leaf(key, items[key])) for key in sorted(items)]
            return Tree(_update(self._node, changes, 0))

    def get(self, key: bytes) -> bytes | None:
        """Return the value of ``key``, or None."""
        node, _ = _descend(self._node, key)
        return node[1][KEY_SIZE:] if node is not None and node[1][:KEY_SIZE] == key else None

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over keys and values in the order of keys."""
        stack = [self._node]
        while stack:
            node = stack.pop()
            if node is None:
                continue
            if len(node) == 2:
                yield node[1][:KEY_SIZE], node[1][KEY_SIZE:]
            else:
                stack += (node[2], node[1])

    def prove(self, keys: Iterable[bytes]) -> Multiproof:
        """Return the proof of what the tree says about 1 to 64 ``keys``, present or absent.

        Raises :class:`MalformedError`: ``bad-key``, ``bad-claims`` (none, or too many).
        """
        wanted = sorted(set(keys))
        if not 1 <= len(wanted) <= MAX_CLAIMS:
            raise MalformedError("bad-claims", f"{len(wanted)} keys, not 1 to {MAX_CLAIMS}")
        if any(len(key) != KEY_SIZE for key in wanted):
            raise MalformedError("bad-key", f"a key is not {KEY_SIZE} bytes")
        places: list[tuple[int, Stranger | None]] = []
        siblings: list[bytes] = []
        _prove(self._node, wanted, 0, places, siblings)
        return Multiproof(
            depths=tuple(depth for depth, _ in places),
            strangers=tuple(stranger for _, stranger in places if stranger is not None),
            siblings=tuple(siblings),
        )


def _leaf(key: bytes, value: bytes | None) -> _Leaf:
    value = value or b""
    return sha256(b"\x00" + key + sha256(value).digest()).digest(), key + value


def _bit(key: bytes, depth: int) -> int:
    return key[depth >> 3] >> (7 - (depth & 7)) & 1


def _descend(node: _Node, key: bytes) -> tuple[_Leaf | None, int]:
    """Return the leaf or empty subtree at which the way down to ``key`` ends, and its depth."""
    depth = 0
    while node is not None and len(node) == 3:
        node = node[2] if key[depth >> 3] >> (7 - (depth & 7)) & 1 else node[1]
        depth += 1
    return node, depth


def _split(changes: Sequence[_Change], depth: int) -> int:
    """Return how many of these sorted changes, alike in their first ``depth`` bits, go left."""
    byte, mask = depth >> 3, 0x80 >> (depth & 7)
    if changes[0][0][byte] & mask:
        return 0
    if not changes[-1][0][byte] & mask:
        return len(changes)
    return bisect_left(changes, mask, key=lambda change: change[0][byte] & mask)


def _update(node: _Node, changes: list[_Change], depth: int) -> _Node:
    if len(changes) == 1:
        return _update_one(node, changes[0], depth)
    if node is None or len(node) == 2:
        return _build(_merged(node, changes), depth)
    middle = _split(changes, depth)
    left, right = node[1], node[2]
    if middle:
        left = _update(left, changes[:middle], depth + 1)
    if middle < len(changes):
        right = _update(right, changes[middle:], depth + 1)
    return _join(left, right)


def _update_one(node: _Node, change: _Change, depth: int) -> _Node:
    """Do what :func:`_update` does for a single change, down and up again without recursion."""
    key = change[0]
    rights: list[_Node] = []
    lefts: list[_Node] = []
    start = depth
    while node is not None and len(node) == 3:
        _, left, right = node
        node = right if key[depth >> 3] >> (7 - (depth & 7)) & 1 else left
        lefts.append(left)
        rights.append(right)
        depth += 1
    below = _build(_merged(node, [change]), depth)
    while depth > start:
        depth -= 1
        left, right = lefts.pop(), rights.pop()
        below = _join(left, below) if key[depth >> 3] >> (7 - (depth & 7)) & 1 else _join(below, right)
    return below


def _merged(leaf: _Leaf | None, changes: list[_Change]) -> list[_Change]:
    """Return the keys present, sorted, in a subtree that held at most ``leaf``."""
    present = [change for change in changes if change[1] is not None]
    if leaf is None:
        return present
    key = leaf[1][:KEY_SIZE]
    at = bisect_left(changes, key, key=lambda change: change[0])
    if at == len(changes) or changes[at][0] != key:
        present.insert(bisect_left(present, key, key=lambda change: change[0]), (key, leaf))
    return present


def _build(leaves: list[_Change], depth: int) -> _Node:
    if not leaves:
        return None
    if len(leaves) == 1:
        return leaves[0][1]
    middle = _split(leaves, depth)
    return _join(_build(leaves[:middle], depth + 1), _build(leaves[middle:], depth + 1))


def _join(left: _Node, right: _Node) -> _Node:
    """Return the canonical subtree over two halves: a lone leaf moves up."""
    if left is None:
        if right is None or len(right) == 2:
            return right
        return sha256(b"\x01" + EMPTY + right[0]).digest(), None, right
    if right is None:
        if len(left) == 2:
            return left
        return sha256(b"\x01" + left[0] + EMPTY).digest(), left, None
    return sha256(b"\x01" + left[0] + right[0]).digest(), left, right


def _prove(
    node: _Node, keys: list[bytes], depth: int, places: list[tuple[int, Stranger | None]], siblings: list[bytes]
) -> None:
    """Append the places of ``keys`` below ``node`` and the siblings on the way, in the order of the verifier."""
    upwards: list[bytes] = []
    while node is not None and len(node) == 3:
        first, last = _bit(keys[0], depth), _bit(keys[-1], depth)
        if first != last:
            middle = bisect_left(keys, 1, key=lambda key: _bit(key, depth))
            _prove(node[1], keys[:middle], depth + 1, places, siblings)
            _prove(node[2], keys[middle:], depth + 1, places, siblings)
            break
        node, other = (node[2], node[1]) if first else (node[1], node[2])
        upwards.append(b"" if other is None else other[0])
        depth += 1
    else:
        places.append((depth, _stranger(node, keys)))
    siblings += reversed(upwards)


def _stranger(leaf: _Leaf | None, keys: list[bytes]) -> Stranger | None:
    if leaf is None or leaf[1][:KEY_SIZE] in keys:
        return None
    return Stranger(leaf[1][:KEY_SIZE], sha256(leaf[1][KEY_SIZE:]).digest())


# --- verification -------------------------------------------------------------------------------


def verify(root: bytes, claims: Mapping[bytes, bytes | None], proof: Multiproof) -> None:
    """Check that the tree with ``root`` says of every claimed key exactly this: a value, or None for absent.

    1. There are 1 to 64 claims and every key is 32 bytes.
    2. The claimed keys fall into exactly the places that the proof names, none inside another.
    3. At most one claimed key is present in a place, and no place without one takes a stranger twice.
    4. Siblings are 32 bytes or empty, none missing, none left over; no stranger is left over.
    5. No subtree with fewer than two keys is written as a branch.
    6. The root computed from claims and proof is ``root``.

    Raises :class:`ProofError` (``bad-state-proof``).
    """
    keys = sorted(claims)
    if not 1 <= len(keys) <= MAX_CLAIMS or any(len(key) != KEY_SIZE for key in keys):
        raise _bad(1, "claims are none, too many, or not under 32-byte keys")
    places = _places(keys, claims, proof)
    fold = _Fold(places, proof.siblings)
    if fold.root() != root:
        raise _bad(6, "the proof leads to another root")


def _bad(check: int, why: str) -> ProofError:
    """Return the refusal by check number ``check`` of :func:`verify`."""
    return ProofError("bad-state-proof", f"{why} ({check})")


@dataclass(frozen=True, slots=True)
class _Place:
    bits: int
    depth: int
    hash: bytes


def _places(keys: list[bytes], claims: Mapping[bytes, bytes | None], proof: Multiproof) -> list[_Place]:
    """Group the sorted claimed keys into the places of the proof."""
    numbers = [int.from_bytes(key) for key in keys]
    strangers = list(reversed(proof.strangers))
    places: list[_Place] = []
    at = 0
    for depth in proof.depths:
        if at == len(keys):
            raise _bad(2, "places are left over")
        shift = _DEPTH - depth
        prefix = numbers[at] >> shift
        start = at
        while at < len(keys) and numbers[at] >> shift == prefix:
            at += 1
        held = _held(keys[start:at], claims)
        if held is None and strangers and int.from_bytes(strangers[-1].key) >> shift == prefix:
            held = _stranger_hash(strangers.pop(), claims)
        places.append(_Place(numbers[start], depth, EMPTY if held is None else held))
    if at != len(keys):
        raise _bad(2, "places are missing")
    if strangers:
        raise _bad(4, "strangers are left over or out of order")
    return places


def _held(keys: list[bytes], claims: Mapping[bytes, bytes | None]) -> bytes | None:
    """Return the hash of the claimed leaf among ``keys``, which share one place."""
    held = None
    for key in keys:
        value = claims[key]
        if value is None:
            continue
        if held is not None:
            raise _bad(3, "two present keys in one place")
        held = leaf_hash(key, sha256(value).digest())
    return held


def _stranger_hash(stranger: Stranger, claims: Mapping[bytes, bytes | None]) -> bytes:
    if stranger.key in claims:
        raise _bad(3, "a claimed key poses as a stranger")
    return leaf_hash(stranger.key, stranger.value_hash)


class _Fold:
    """Computes the root from places and siblings."""

    __slots__ = ("_lone", "_places", "_siblings", "_used")

    def __init__(self, places: list[_Place], siblings: tuple[bytes, ...]) -> None:
        if EMPTY in siblings:
            raise _bad(4, "the empty subtree is written out")
        self._places = places
        self._siblings = siblings
        self._used = 0
        self._lone = {place.hash for place in places} | {EMPTY}

    def root(self) -> bytes:
        result = self._subtree(0, len(self._places), 0)
        if self._used != len(self._siblings):
            raise _bad(4, "siblings are left over")
        return result

    def _subtree(self, low: int, high: int, depth: int) -> bytes:
        """Return the hash of the subtree at ``depth`` that holds places ``low`` to ``high``."""
        bits = self._places[low].bits
        if high - low == 1:
            current, at = self._places[low].hash, self._places[low].depth
        else:
            at = _DEPTH - (bits ^ self._places[high - 1].bits).bit_length()
            shift = _DEPTH - 1 - at
            middle = bisect_left(self._places, 1, low, high, key=lambda place: place.bits >> shift & 1)
            left = self._subtree(low, middle, at + 1)
            right = self._subtree(middle, high, at + 1)
            self._check_branch(left, right)
            current = sha256(b"\x01" + left + right).digest()
        if at < depth:
            raise _bad(2, "a place lies inside another")
        return self._climb(current, bits >> (_DEPTH - at), at - depth)

    def _climb(self, current: bytes, bits: int, levels: int) -> bytes:
        """Return the hash of the ancestor ``levels`` higher up; ``bits`` end in the way down to ``current``."""
        siblings = self._siblings[self._used : self._used + levels]
        self._used += levels
        if len(siblings) != levels:
            raise _bad(4, "siblings are missing")
        for sibling in siblings:
            other = sibling or EMPTY
            if len(other) != KEY_SIZE:
                raise _bad(4, "a sibling is not 32 bytes")
            if not sibling or current == EMPTY:
                self._check_branch(current, other)
            pair = other + current if bits & 1 else current + other
            current = sha256(b"\x01" + pair).digest()
            bits >>= 1
        return current

    def _check_branch(self, one: bytes, other: bytes) -> None:
        if (one == EMPTY and other in self._lone) or (other == EMPTY and one in self._lone):
            raise _bad(5, "a branch with fewer than two keys")
