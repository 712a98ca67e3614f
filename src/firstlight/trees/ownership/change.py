"""Moving a selection from tenures to another, in one pass over the pages that it touches."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

from firstlight.errors import RuleError
from firstlight.trees.ownership.nodes import NOBODY, PAGE_BITS
from firstlight.trees.ownership.pages import InnerPage, LeafPage, Page, Place, Slot, below, uniform_page

Span = tuple[int, int]
"""First index, and one more than the last."""


class Pass:
    """One pass over a selection: counts whom its indices belong to and, with ``to``, makes the pages anew."""

    __slots__ = ("_expect", "_page", "_to", "changed", "taken")

    def __init__(
        self,
        page: Callable[[Place, bytes], Page],
        changed: Mapping[Place, Page | None],
        to: int | None,
        expect: Callable[[int], bool],
    ) -> None:
        self._page = page
        self._to = to
        self._expect = expect
        self.changed = dict(changed)
        self.taken: dict[int, int] = {}

    def _take(self, tenure: int, count: int) -> None:
        before = self.taken.get(tenure)
        if before is None:
            if not self._expect(tenure):
                raise RuleError("wrong-owner", f"an index is in tenure {tenure}")
            before = 0
        self.taken[tenure] = before + count

    def change(self, place: Place, page: Page, spans: list[Span]) -> Page:
        """Return ``page`` with the spans (relative to it) moved."""
        if isinstance(page, LeafPage):
            return self._change_leaf(page, spans)
        whole, partial = distribute(spans, PAGE_BITS * place[0])
        changes: dict[int, Slot] = {}
        for positions in whole:
            self._take_slots(place, page, positions)
            changes.update(dict.fromkeys(positions, self._to or NOBODY))
        for position, part in partial.items():
            changes[position] = self._change_slot(below(place, position), page.slot(position), part)
        return page if self._to is None else page.replace(changes)

    def _change_slot(self, place: Place, slot: Slot, spans: list[Span]) -> Slot:
        page = uniform_page(place[0], slot) if isinstance(slot, int) else self._page(place, slot)
        page = self.change(place, page, spans)
        if self._to is None:
            return slot
        uniform = page.uniform
        self.changed[place] = page if uniform is None else None
        return page.hash if uniform is None else uniform

    def _change_leaf(self, page: LeafPage, spans: list[Span]) -> LeafPage:
        tenures = page.tenures[:]
        to = self._to or NOBODY
        counts: dict[int, int] = {}
        for start, end in spans:
            if end - start == 1:
                old = tenures[start]
                counts[old] = counts.get(old, 0) + 1
                tenures[start] = to
            else:
                for old, count in Counter(tenures[start:end]).items():
                    counts[old] = counts.get(old, 0) + count
                tenures[start:end] = array("I", (to,)) * (end - start)
        for old, count in counts.items():
            self._take(old, count)
        return page if self._to is None else LeafPage(tenures)

    def _take_slots(self, place: Place, page: InnerPage, positions: range) -> None:
        """Count all indices under some slots of a page, and drop the pages there."""
        span = 1 << PAGE_BITS * place[0]
        slots = page.slots(positions)
        pages = False
        for slot, count in Counter(slots).items():
            if isinstance(slot, int):
                self._take(slot, count * span)
            else:
                pages = True
        if not pages:
            return
        for position, slot in zip(positions, slots, strict=True):
            if isinstance(slot, bytes):
                self._take_page(below(place, position), slot)

    def _take_page(self, place: Place, value: bytes) -> None:
        page = self._page(place, value)
        self.changed[place] = None
        if isinstance(page, InnerPage):
            self._take_slots(place, page, range(page.width))
            return
        for tenure, count in Counter(page.tenures).items():
            self._take(tenure, count)


def distribute(spans: list[Span], shift: int) -> tuple[list[range], dict[int, list[Span]]]:
    """Return the slots of ``2**shift`` indices that spans cover whole, and the parts of others, relative to them."""
    whole: list[range] = []
    partial: defaultdict[int, list[Span]] = defaultdict(list)
    width = 1 << shift
    for start, end in spans:
        first, last = start >> shift, (end - 1) >> shift
        if first == last and end - start < width:
            base = first << shift
            partial[first].append((start - base, end - base))
            continue
        if start & (width - 1):
            partial[first].append((start & (width - 1), width))
            first += 1
        if end & (width - 1):
            partial[last].append((0, end & (width - 1)))
            last -= 1
        if first <= last:
            whole.append(range(first, last + 1))
    return whole, partial
