"""A store for what strangers make us keep: bounded in entries, bytes and time, and in what one source may hold."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class Bound:
    """The most entries and bytes, seconds that an entry lives, and which part of the bytes one source may hold."""

    entries: int
    size: int
    seconds: float
    share: float = 1.0


@dataclass(slots=True)
class _Entry(Generic[_V]):
    value: _V
    size: int
    until: float
    source: str


class Bounded(Generic[_K, _V]):
    """Entries by key; where there is no room the oldest goes, of the same source if that holds its share already."""

    def __init__(self, bound: Bound) -> None:
        """Begin empty."""
        self._bound = bound
        self._entries: OrderedDict[_K, _Entry[_V]] = OrderedDict()
        self._sources: dict[str, OrderedDict[_K, int]] = {}
        self._held: dict[str, int] = {}
        self.size = 0

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: _K, value: _V, *, size: int, now: float, source: str = "") -> None:
        """Keep ``value``, which takes ``size`` bytes, in place of what was there."""
        self.pop(key)
        bound = self._bound
        while self._entries and (oldest := next(iter(self._entries.items())))[1].until <= now:
            self.pop(oldest[0])
        while source in self._sources and self._held[source] + size > bound.share * bound.size:
            self.pop(next(iter(self._sources[source])))
        while self._entries and (len(self._entries) >= bound.entries or self.size + size > bound.size):
            self.pop(next(iter(self._entries)))
        self._entries[key] = _Entry(value, size, now + bound.seconds, source)
        self._sources.setdefault(source, OrderedDict())[key] = size
        self._held[source] = self._held.get(source, 0) + size
        self.size += size

    def get(self, key: _K, now: float) -> _V | None:
        """Return what is kept under ``key``."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.until <= now:
            self.pop(key)
            return None
        return entry.value

    def pop(self, key: _K) -> None:
        """Forget an entry, if it is there."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self.size -= entry.size
        mine = self._sources[entry.source]
        del mine[key]
        self._held[entry.source] -= entry.size
        if not mine:
            del self._sources[entry.source], self._held[entry.source]
