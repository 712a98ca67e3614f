"""Ownership tries of the embedded engine: opened from the file as of a height, through caches shared by all heights."""

from __future__ import annotations

import contextlib
from collections import OrderedDict

from firstlight.engines.store import PagesAt, Store
from firstlight.ledger.records import Batch
from firstlight.trees.ownership import PageCache, Trie

MAX_TRIES = 64
CACHED_PAGES = 8_192


class Library:
    """The tries as the file holds them at ``height`` (:class:`firstlight.ledger.state.Tries`)."""

    __slots__ = ("_pages", "_store", "_tries", "height")

    def __init__(self, store: Store, height: int) -> None:
        """Begin with empty caches."""
        self.height = height
        self._store = store
        self._tries: OrderedDict[tuple[bytes, bytes], Trie] = OrderedDict()
        self._pages = PageCache(CACHED_PAGES)

    def open(self, batch: bytes, record: Batch) -> Trie:
        """Return the trie whose root ``record`` names; :class:`firstlight.errors.StoreError` as the trie raises it."""
        trie = self._tries.pop((batch, record.ownership), None)
        if trie is None:
            trie = Trie.open(record.size, record.ownership, PagesAt(self._store, batch, self.height), self._pages)
        self._keep(batch, trie)
        return trie

    def settle(self, batch: bytes, trie: Trie) -> None:
        """Hold on to a trie whose pages were stored at this height."""
        self._keep(batch, trie.saved(PagesAt(self._store, batch, self.height)))

    def at(self, height: int) -> Library:
        """Return the library as of another height, with the same caches."""
        other = Library(self._store, height)
        other._tries, other._pages = self._tries, self._pages
        return other

    def _keep(self, batch: bytes, trie: Trie) -> None:
        self._tries.pop((batch, trie.root), None)
        self._tries[batch, trie.root] = trie
        if len(self._tries) > MAX_TRIES:
            with contextlib.suppress(KeyError):
                self._tries.popitem(last=False)
