"""Pages: 1,024 neighbouring indices, or 1,024 neighbouring pages, of the ownership trie.

A page of level 0 holds the tenures of 1,024 indices. A page of level n holds 1,024 *slots*, each the whole range
of a page of level n-1: a tenure where that range is uniform, else the hash of its page. The topmost page may be
narrower. A page that is all of one tenure exists at the top only; below, its slot says it all.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import chain, compress, pairwise, repeat
from operator import ne
from typing import Annotated

from firstlight.encoding import Record, Size
from firstlight.errors import MalformedError
from firstlight.trees import varint
from firstlight.trees.ownership.nodes import PAGE_BITS, PAGE_SIZE, split_hash, uniform_hash

Slot = int | bytes
"""A tenure, or the hash of a page one level down."""
Place = tuple[int, int]
"""Level of a page, and its number from the left within the level."""

_WORD = array("I").itemsize
_GROUP = 8
_MANY = 16
_TYPE = "I"


@dataclass(frozen=True, slots=True)
class PageRecord(Record):
    """How a page is stored.

    ``runs`` is a list of (what, length-1) pairs of shortest LEB128 integers over the slots in order; *what* is 0
    for pages one level down, whose hashes follow in ``hashes``, else the tenure plus one. Neighbouring runs differ.
    """

    runs: Annotated[bytes, Size(2, 8 * PAGE_SIZE)]
    hashes: Annotated[bytes, Size(0, 32 * PAGE_SIZE)]


# --- level 0 -------------------------------------------------------------------------------------


class LeafPage:
    """The tenures of up to 1,024 indices; immutable."""

    __slots__ = ("hash", "tenures", "uniform")

    def __init__(self, tenures: array[int]) -> None:
        """Take over ``tenures`` (type ``I``, a power of two many)."""
        present = set(tenures)
        self.tenures = tenures
        self.uniform: int | None = tenures[0] if len(present) == 1 else None
        self.hash = range_hash(tenures.tobytes(), frozenset(map(uniform_hash, present)))

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        return PageRecord(_pack([tenure + 1 for tenure in self.tenures]), b"").encode()

    @classmethod
    def decode(cls, data: bytes, width: int) -> LeafPage:
        """Parse a page of ``width`` indices; :class:`MalformedError` (``bad-page`` and those of the record)."""
        record = PageRecord.decode(data)
        if record.hashes:
            raise MalformedError("bad-page", "pages below level 0")
        runs = _runs(record.runs, width)
        if any(not what for what, _ in runs):
            raise MalformedError("bad-page", "pages below level 0")
        return cls(array(_TYPE, chain.from_iterable([repeat(what - 1, length) for what, length in runs])))

    @property
    def bits(self) -> int:
        """How many levels of the trie this page holds."""
        return len(self.tenures).bit_length() - 1

    def node(self, prefix: int, length: int) -> bytes:
        """Return the hash of the node at the ``length``-bit ``prefix`` within this page."""
        part = self._part(prefix, length)
        return range_hash(part.tobytes(), frozenset(map(uniform_hash, set(part))))

    def tenure_at(self, prefix: int, length: int) -> int | None:
        """Return the tenure of that node if it is uniform."""
        part = self._part(prefix, length)
        return part[0] if part.count(part[0]) == len(part) else None

    def covering(self, position: int) -> int | None:
        """Return the depth, within this page, of the largest uniform node over ``position``."""
        tenure = self.tenures[position]
        length = self.bits
        while length:
            part = self._part(position >> (self.bits - length + 1), length - 1)
            if part.count(tenure) != len(part):
                break
            length -= 1
        return length

    def _part(self, prefix: int, length: int) -> array[int]:
        span = len(self.tenures) >> length
        return self.tenures[prefix * span : (prefix + 1) * span]


def range_hash(words: bytes, uniform: frozenset[bytes]) -> bytes:
    """Return the hash of the subtree over native 4-byte tenures, ``uniform`` the hashes of those that occur."""
    step = _GROUP * _WORD
    if len(words) <= step:
        return _group_hash(words)
    if len(uniform) == 1:
        return next(iter(uniform))
    level = [_group_hash(words[at : at + step]) for at in range(0, len(words), step)]
    while len(level) > 1:
        level = [
            left if left == right and left in uniform else sha256(b"\x01" + left + right).digest()
            for left, right in zip(level[::2], level[1::2], strict=True)
        ]
    return level[0]


@lru_cache(maxsize=16_384)
def _group_hash(words: bytes) -> bytes:
    """Return the hash over a few tenures; the same few patterns fill a page that is shared by few owners."""
    tenures = array(_TYPE)
    tenures.frombytes(words)
    uniform = {uniform_hash(tenure) for tenure in tenures}
    level = [uniform_hash(tenure) for tenure in tenures]
    while len(level) > 1:
        level = [
            left if left == right and left in uniform else split_hash(left, right)
            for left, right in zip(level[::2], level[1::2], strict=True)
        ]
    return level[0]


# --- levels above --------------------------------------------------------------------------------


class InnerPage:
    """Up to 1,024 slots and the hashes of all nodes over them; immutable.

    ``heap[1]`` is the hash of the page, ``heap[i]`` has the children ``heap[2i]`` and ``heap[2i+1]``, the slots
    are the second half. ``tenures`` gives the tenure of every hash in it that is a uniform subtree's.
    """

    __slots__ = ("heap", "tenures")

    def __init__(self, heap: list[bytes], tenures: dict[bytes, int]) -> None:
        """Take over a complete heap; use :meth:`of` and :meth:`replace`."""
        self.heap = heap
        self.tenures = tenures

    @classmethod
    def of(cls, slots: Sequence[Slot]) -> InnerPage:
        """Return the page with these slots, a power of two many."""
        tenures: dict[bytes, int] = {}
        heap = [b""] * len(slots)
        for slot in slots:
            heap.append(_slot_hash(slot, tenures))
        _fold(heap, range(len(slots) - 1, 0, -1), tenures)
        return cls(heap, tenures)

    def replace(self, changes: dict[int, Slot]) -> InnerPage:
        """Return the page with some slots replaced."""
        heap = self.heap.copy()
        tenures = self.tenures.copy()
        width = len(heap) // 2
        for slot in set(changes.values()):
            _slot_hash(slot, tenures)
        hashes = {tenure: value for value, tenure in tenures.items()}
        for position, slot in changes.items():
            heap[width + position] = slot if isinstance(slot, bytes) else hashes[slot]
        if len(changes) > width // _MANY:
            _fold(heap, range(width - 1, 0, -1), tenures)
            return InnerPage(heap, tenures)
        dirty: Iterable[int] = [width + position for position in changes]
        while width > 1:
            dirty = sorted({node >> 1 for node in dirty})
            _fold(heap, dirty, tenures)
            width >>= 1
        return InnerPage(heap, tenures)

    @property
    def hash(self) -> bytes:
        """The hash of the node that this page is."""
        return self.heap[1]

    @property
    def uniform(self) -> int | None:
        """The tenure that the whole page is in, or None."""
        return self.tenures.get(self.heap[1])

    @property
    def width(self) -> int:
        """The number of slots."""
        return len(self.heap) // 2

    def covering(self, position: int) -> int | None:
        """Return the depth, within this page, of the largest uniform node over ``position``; None if it is below."""
        at = self.width | position
        for length in range(self.bits + 1):
            if self.heap[at >> (self.bits - length)] in self.tenures:
                return length
        return None

    def slot(self, position: int) -> Slot:
        """Return one slot."""
        value = self.heap[len(self.heap) // 2 + position]
        return self.tenures.get(value, value)

    def slots(self, positions: range) -> list[Slot]:
        """Return neighbouring slots in order."""
        tenures = self.tenures
        width = self.width
        return [tenures.get(value, value) for value in self.heap[width + positions.start : width + positions.stop]]

    @property
    def bits(self) -> int:
        """How many levels of the trie this page holds."""
        return self.width.bit_length() - 1

    def node(self, prefix: int, length: int) -> bytes:
        """Return the hash of the node at the ``length``-bit ``prefix`` within this page."""
        return self.heap[1 << length | prefix]

    def tenure_at(self, prefix: int, length: int) -> int | None:
        """Return the tenure of that node if it is uniform."""
        return self.tenures.get(self.heap[1 << length | prefix])

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        slots = self.heap[self.width :]
        whats = {value: tenure + 1 for value, tenure in self.tenures.items()}
        hashes = b"".join([value for value in slots if value not in whats])
        return PageRecord(_pack([whats.get(value, 0) for value in slots]), hashes).encode()

    @classmethod
    def decode(cls, data: bytes, width: int) -> InnerPage:
        """Parse a page of ``width`` slots; :class:`MalformedError` (``bad-page`` and those of the record)."""
        record = PageRecord.decode(data)
        slots: list[Slot] = []
        at = 0
        for what, length in _runs(record.runs, width):
            if what:
                slots += [what - 1] * length
                continue
            if len(record.hashes) < at + 32 * length:
                raise MalformedError("bad-page", "hashes are missing")
            slots += [record.hashes[start : start + 32] for start in range(at, at + 32 * length, 32)]
            at += 32 * length
        if at != len(record.hashes):
            raise MalformedError("bad-page", "hashes are left over")
        return cls.of(slots)


Page = LeafPage | InnerPage


def below(place: Place, position: int) -> Place:
    """Return the place of the page in slot ``position`` of the page at ``place``."""
    return place[0] - 1, place[1] << PAGE_BITS | position


def make_page(level: int, slots: Sequence[Slot]) -> Page:
    """Return the page of ``level`` with these slots."""
    return InnerPage.of(slots) if level else LeafPage(array("I", [slot for slot in slots if isinstance(slot, int)]))


@lru_cache(maxsize=64)
def uniform_page(level: int, tenure: int) -> Page:
    """Return a full page that is all of one tenure, as it is just before it changes."""
    return make_page(level, [tenure] * PAGE_SIZE)


def _slot_hash(slot: Slot, tenures: dict[bytes, int]) -> bytes:
    if isinstance(slot, bytes):
        return slot
    value = uniform_hash(slot)
    tenures[value] = slot
    return value


def _fold(heap: list[bytes], nodes: Iterable[int], tenures: dict[bytes, int]) -> None:
    """Compute nodes of a heap from their children."""
    for node in nodes:
        left, right = heap[2 * node], heap[2 * node + 1]
        heap[node] = left if left == right and left in tenures else sha256(b"\x01" + left + right).digest()


# --- bytes ---------------------------------------------------------------------------------------


def _pack(whats: list[int]) -> bytes:
    """Return the runs of equal neighbours."""
    starts = [0, *compress(range(1, len(whats)), map(ne, whats, whats[1:]))]
    values = [0] * (2 * len(starts))
    values[::2] = [whats[start] for start in starts]
    values[1::2] = [end - start - 1 for start, end in pairwise([*starts, len(whats)])]
    return varint.pack(values)


def _runs(packed: bytes, width: int) -> list[tuple[int, int]]:
    """Return the (what, length) runs of a page of ``width`` slots."""
    values = varint.unpack(packed)
    runs = [(what, length + 1) for what, length in zip(values[::2], values[1::2], strict=False)]
    if len(values) % 2 or sum(length for _, length in runs) != width:
        raise MalformedError("bad-page", f"runs do not make {width} slots")
    if any(before[0] == after[0] for before, after in pairwise(runs)):
        raise MalformedError("bad-page", "neighbouring runs are alike")
    return runs
