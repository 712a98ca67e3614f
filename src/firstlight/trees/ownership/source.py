"""Where pages come from: the port to the store, a bounded cache, and the check of what was loaded."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from firstlight.errors import MalformedError, StoreError
from firstlight.trees.ownership.pages import InnerPage, LeafPage, Page, Place


class PageSource(Protocol):
    """Where the stored pages of one batch are."""

    def load(self, level: int, number: int) -> bytes:
        """Return the stored bytes of a page; raises :class:`firstlight.errors.StoreError` if there are none."""
        ...


class PageCache:
    """Keeps the pages used last, by level and hash, for any number of tries; for one thread."""

    __slots__ = ("_capacity", "_pages")

    def __init__(self, capacity: int = 4096) -> None:
        """Keep at most ``capacity`` pages: 5 kB each, but up to 100 kB for the one in a thousand above level 0."""
        self._capacity = capacity
        self._pages: OrderedDict[tuple[int, bytes], Page] = OrderedDict()

    def get(self, level: int, value: bytes) -> Page | None:
        """Return the page of ``level`` with this hash, if it is here."""
        page = self._pages.pop((level, value), None)
        if page is not None:
            self._pages[level, value] = page
        return page

    def put(self, level: int, page: Page) -> None:
        """Keep a page, and drop the one that was not used for longest when there are too many."""
        self._pages.pop((level, page.hash), None)
        self._pages[level, page.hash] = page
        if len(self._pages) > self._capacity:
            self._pages.popitem(last=False)


class NoSource:
    """Stands where a trie lives in memory alone."""

    def load(self, level: int, number: int) -> bytes:
        """Raise :class:`StoreError` (``page-missing``)."""
        raise StoreError("page-missing", f"page {level}/{number} was never stored")


def load_page(source: PageSource, place: Place, value: bytes, width: int) -> Page:
    """Return the page of ``width`` slots at ``place`` whose hash is ``value``.

    Raises :class:`StoreError` (``page-missing``, ``page-mismatch``).
    """
    data = source.load(*place)
    try:
        page = InnerPage.decode(data, width) if place[0] else LeafPage.decode(data, width)
    except MalformedError as error:
        raise StoreError("page-mismatch", f"page {place[0]}/{place[1]} is not a page: {error}") from error
    if page.hash != value:
        raise StoreError("page-mismatch", f"page {place[0]}/{place[1]} is of another version")
    return page
