"""The trie itself: who owns which device of a batch."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import NamedTuple

from firstlight.errors import MalformedError
from firstlight.trees.ownership.change import Pass
from firstlight.trees.ownership.nodes import MAX_TENURE, NOBODY, PAGE_BITS, PAGE_SIZE, depth_of
from firstlight.trees.ownership.pages import InnerPage, Page, Place, Slot, below, make_page
from firstlight.trees.ownership.proof import OwnershipProof
from firstlight.trees.ownership.selection import MAX_INDEX, Selection
from firstlight.trees.ownership.source import NoSource, PageCache, PageSource, load_page

Expect = Container[int] | Callable[[int], bool]
"""Which tenures an index may be taken from."""


class Assigned(NamedTuple):
    """What an assignment did."""

    trie: Trie
    touched: int
    """The work, in trie nodes (:meth:`Selection.nodes`)."""
    taken: dict[int, int]
    """How many indices came from which tenure."""


class Trie:
    """An immutable map from the indices ``0…size-1`` to tenures, with a 32-byte root.

    Versions share their pages. Pages changed since the last :meth:`saved` are held by the trie, all others are
    loaded from its source through its cache when they are needed, and checked against their hash: methods that
    read raise :class:`StoreError` (``page-missing``, ``page-mismatch``) if the store does not have them.
    """

    __slots__ = ("_cache", "_changed", "_level", "_source", "_top", "depth", "size")

    def __init__(
        self, size: int, top: Page, changed: Mapping[Place, Page | None], source: PageSource, cache: PageCache
    ) -> None:
        """Put the parts together; use :meth:`uniform` or :meth:`open`."""
        self.size = size
        self.depth = depth_of(size)
        self._level = _top_level(self.depth)
        self._top = top
        self._changed = changed
        self._source = source
        self._cache = cache

    @classmethod
    def uniform(cls, size: int, tenure: int) -> Trie:
        """Return the trie in which all of ``size`` indices are in ``tenure``.

        Raises :class:`MalformedError`: ``bad-size``, ``bad-tenure``.
        """
        _check_size(size)
        _check_tenure(tenure)
        level = _top_level(depth_of(size))
        changed: dict[Place, Page | None] = {}
        top = changed[level, 0] = _fresh_page(size, tenure, level, changed)
        return cls(size, top, changed, NoSource(), PageCache())

    @classmethod
    def open(cls, size: int, root: bytes, source: PageSource, cache: PageCache | None = None) -> Trie:
        """Return the stored trie over ``size`` indices with this root; reads its topmost page only.

        Raises :class:`MalformedError` (``bad-size``) and :class:`StoreError` as the class says.
        """
        _check_size(size)
        depth = depth_of(size)
        level = _top_level(depth)
        top = load_page(source, (level, 0), root, 1 << (depth - PAGE_BITS * level))
        return cls(size, top, {}, source, cache or PageCache())

    @property
    def root(self) -> bytes:
        """The 32-byte root."""
        return self._top.hash

    def unsaved(self) -> list[tuple[int, int, bytes | None]]:
        """Return what to store: (level, number, bytes) of each changed page, None for one that is gone."""
        return [
            (level, number, None if page is None else page.encode())
            for (level, number), page in sorted(self._changed.items(), key=lambda item: item[0])
        ]

    def saved(self, source: PageSource) -> Trie:
        """Return this version once ``source`` holds all that :meth:`unsaved` told."""
        for (level, _), page in self._changed.items():
            if page is not None:
                self._cache.put(level, page)
        return Trie(self.size, self._top, {}, source, self._cache)

    def owner(self, index: int) -> int:
        """Return the tenure of ``index``; MalformedError (``bad-index``) outside ``0…size-1``."""
        self._check_index(index)
        place, page = (self._level, 0), self._top
        while isinstance(page, InnerPage):
            position = index >> PAGE_BITS * place[0] & (page.width - 1)
            slot = page.slot(position)
            if isinstance(slot, int):
                return slot
            place = below(place, position)
            page = self._page(place, slot)
        return page.tenures[index & (len(page.tenures) - 1)]

    def covering_prefix(self, index: int) -> tuple[int, int]:
        """Return (bits, length) of the largest uniform node over ``index``.

        Raises :class:`MalformedError` (``bad-index``) outside ``0…size-1``.
        """
        self._check_index(index)
        place, page, above = (self._level, 0), self._top, 0
        while True:
            rest = self.depth - above - page.bits
            position = index >> rest & ((1 << page.bits) - 1)
            length = page.covering(position)
            if length is not None:
                return index >> (self.depth - above - length), above + length
            above += page.bits
            place = below(place, position)
            page = self._page(place, page.node(position, page.bits))

    def owners(self, selection: Selection | None = None) -> dict[int, int]:
        """Return how many indices of the selection (of the batch, if None) are in which tenure.

        Raises :class:`MalformedError` (``bad-index``) if the selection does not lie in ``0…size-1``.
        """
        return self._pass(selection or Selection.of([(0, self.size)]), None, _anybody)[1].taken

    def assign(self, selection: Selection, to: int, *, expect: Expect) -> Assigned:
        """Move the selection to tenure ``to`` and return the new trie, the work and whom it came from.

        ``expect`` says for a tenure whether indices may be taken from it. Raises :class:`RuleError`
        (``wrong-owner``) if one of them may not, :class:`MalformedError`: ``bad-tenure``, or ``bad-index`` if the
        selection does not lie in ``0…size-1``. This trie stays as it is.
        """
        _check_tenure(to)
        top, change = self._pass(selection, to, expect if callable(expect) else expect.__contains__)
        change.changed[self._level, 0] = top
        trie = Trie(self.size, top, change.changed, self._source, self._cache)
        return Assigned(trie, selection.nodes(self.depth), change.taken)

    def _pass(self, selection: Selection, to: int | None, expect: Callable[[int], bool]) -> tuple[Page, Pass]:
        if selection.end > self.size:
            raise MalformedError("bad-index", f"{selection.end - 1} is not below {self.size}")
        spans = [(start, start + length) for start, length in selection.runs()]
        change = Pass(self._page, self._changed, to, expect)
        return change.change((self._level, 0), self._top, spans), change

    def prove(self, prefix_bits: int, prefix_length: int) -> OwnershipProof:
        """Return the proof of what the trie holds under a prefix.

        Raises :class:`MalformedError` (``bad-prefix``) if the prefix is longer than the depth or padding only.
        """
        if not 0 <= prefix_length <= self.depth or not 0 <= prefix_bits < 1 << prefix_length:
            raise MalformedError("bad-prefix", f"{prefix_length} bits in a trie of depth {self.depth}")
        if prefix_bits << (self.depth - prefix_length) >= self.size:
            raise MalformedError("bad-prefix", "padding only")
        path: list[bytes] = []
        place, page, prefix, length = (self._level, 0), self._top, 0, 0
        for rest in range(prefix_length, -1, -1):
            tenure = page.tenure_at(prefix, length)
            if tenure is not None:
                return OwnershipProof(tenure, (), tuple(path))
            if length == page.bits:
                place = below(place, prefix)
                page, prefix, length = self._page(place, page.node(prefix, length)), 0, 0
            prefix, length = 2 * prefix, length + 1
            if rest:
                prefix |= prefix_bits >> (rest - 1) & 1
                path.append(page.node(prefix ^ 1, length))
        return OwnershipProof(None, (page.node(prefix, length), page.node(prefix + 1, length)), tuple(path))

    def _check_index(self, index: int) -> None:
        if not 0 <= index < self.size:
            raise MalformedError("bad-index", f"{index} is not below {self.size}")

    def _page(self, place: Place, value: bytes) -> Page:
        """Return the page at ``place`` whose hash is ``value``."""
        page = self._changed.get(place)
        if page is None:
            page = self._cache.get(place[0], value)
        if page is None:
            page = load_page(self._source, place, value, PAGE_SIZE)
            self._cache.put(place[0], page)
        return page


def _anybody(_: int) -> bool:
    return True


def _check_size(size: int) -> None:
    if not 1 <= size <= MAX_INDEX:
        raise MalformedError("bad-size", f"{size} is not from 1 to {MAX_INDEX}")


def _check_tenure(tenure: int) -> None:
    if not NOBODY < tenure < MAX_TENURE:
        raise MalformedError("bad-tenure", f"{tenure} is not a tenure's number")


def _top_level(depth: int) -> int:
    return max(depth - 1, 0) // PAGE_BITS


def _fresh_page(size: int, tenure: int, level: int, changed: dict[Place, Page | None]) -> Page:
    """Return the page of ``level`` in which the padding begins; put those below it into ``changed``."""
    depth = depth_of(size)
    shift = PAGE_BITS * level
    width = min(PAGE_SIZE, 1 << (depth - shift))
    number = size >> shift
    slots: list[Slot] = [tenure] * (number if level == _top_level(depth) else number % PAGE_SIZE)
    if size & ((1 << shift) - 1):
        lower = changed[level - 1, number] = _fresh_page(size, tenure, level - 1, changed)
        slots.append(lower.hash)
    slots += [NOBODY] * (width - len(slots))
    return make_page(level, slots)
