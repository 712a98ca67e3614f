"""Which devices of a batch: a canonical list of runs of indices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from operator import xor
from typing import Annotated, Self

from firstlight.encoding import Record, Size
from firstlight.errors import MalformedError
from firstlight.trees import varint
from firstlight.trees.ownership.nodes import PAGE_BITS, PAGE_SIZE

MAX_RUNS = 262_144
MAX_PACKED = 1_048_576
MAX_INDEX = 2**32 - 1

Run = tuple[int, int]
"""First index and length."""


class _Parsed(Record):
    """Room beside the one field that travels for what it was parsed into."""

    __slots__ = ("_lengths", "_starts", "_work")
    _starts: list[int]
    _lengths: list[int]
    _work: dict[int, int]


@dataclass(frozen=True, slots=True)
class Selection(_Parsed):
    """Device indices as runs, in order, none empty, none touching the next.

    ``packed`` is a list of (gap, length-1) pairs of shortest LEB128 integers; the gap is counted from the end of
    the run before (the first from 0) and is 0 in the first pair only. One set of indices has one encoding.
    Building one raises :class:`MalformedError`: ``bad-selection`` (empty, half a pair, adjacent runs, too many
    runs, an index beyond 2³²-1), ``bad-varint``.
    """

    packed: Annotated[bytes, Size(2, MAX_PACKED)]

    LIMIT = MAX_PACKED + 16

    def __post_init__(self) -> None:
        """Parse and check the pairs."""
        starts, lengths = _parse(self.packed)
        object.__setattr__(self, "_starts", starts)
        object.__setattr__(self, "_lengths", lengths)
        object.__setattr__(self, "_work", {})

    @classmethod
    def of(cls, items: Iterable[int | Run]) -> Self:
        """Return the selection of these indices and (start, length) runs, in any order, none overlapping.

        Raises :class:`MalformedError` (``bad-selection``), also when two items overlap.
        """
        if isinstance(items, range) and items.step == 1:
            items = [(items.start, len(items))]
        runs: list[Run] = []
        singles: list[int] = []
        for item in items:
            if isinstance(item, int):
                singles.append(item)
            else:
                runs.append(item)
        singles.sort()
        runs += [(index, 1) for index in singles]
        runs.sort()
        return cls(_pack(runs))

    @property
    def count(self) -> int:
        """How many devices are selected."""
        return sum(self._lengths)

    @property
    def end(self) -> int:
        """One more than the highest selected index."""
        return self._starts[-1] + self._lengths[-1]

    def runs(self) -> Sequence[Run]:
        """Return the runs as (start, length), in order."""
        return list(zip(self._starts, self._lengths, strict=True))

    def indices(self) -> Iterator[int]:
        """Iterate over the selected indices, in order."""
        for start, length in zip(self._starts, self._lengths, strict=True):
            yield from range(start, start + length)

    def nodes(self, depth: int) -> int:
        """Return the number of nodes of a trie of ``depth`` levels on or above the largest aligned blocks selected.

        This is the work that changing the owner of the selection takes, whatever the trie holds.
        """
        if depth not in self._work:
            self._work[depth] = _nodes(depth, self._starts, self._lengths)
        return self._work[depth]

    def pages(self) -> int:
        """Return how many pages of 1,024 indices are selected in part; each is read, hashed and written anew."""
        ends = [start + length for start, length in zip(self._starts, self._lengths, strict=True)]
        return len({edge >> PAGE_BITS for edge in chain(self._starts, ends) if edge % PAGE_SIZE})


def _nodes(depth: int, starts: list[int], lengths: list[int]) -> int:
    lasts = [start + length - 1 for start, length in zip(starts, lengths, strict=True)]
    apart = sum(map(int.bit_length, map(xor, starts[1:], lasts)))
    wide = zip(starts, lasts, strict=True)
    return depth + 1 + apart + sum([_inner_nodes(start, last) for start, last in wide if last > start])


def _inner_nodes(start: int, last: int) -> int:
    """Return how many more nodes a run needs than the way down to its first index alone."""
    total = 0
    for level in range((start ^ last).bit_length() + 1):
        touched = (last >> level) - (start >> level) + 1
        covered = ((last + 1) >> (level + 1)) - (((start - 1) >> (level + 1)) + 1)
        total += touched - 2 * max(covered, 0) - 1
    return total


def _parse(packed: bytes) -> tuple[list[int], list[int]]:
    values = varint.unpack(packed)
    gaps = values[::2]
    lengths = [value + 1 for value in values[1::2]]
    if not values or len(gaps) != len(lengths):
        raise MalformedError("bad-selection", "no runs, or half a run")
    if len(gaps) > MAX_RUNS:
        raise MalformedError("bad-selection", f"{len(gaps)} runs, at most {MAX_RUNS}")
    if not all(gaps[1:]):
        raise MalformedError("bad-selection", "two runs touch")
    ends = list(accumulate([gap + length for gap, length in zip(gaps, lengths, strict=True)]))
    if ends[-1] > MAX_INDEX:
        raise MalformedError("bad-selection", f"an index is beyond {MAX_INDEX}")
    return [end - length for end, length in zip(ends, lengths, strict=True)], lengths


def _pack(runs: list[Run]) -> bytes:
    """Join sorted runs that touch, and write them."""
    gaps: list[int] = []
    lengths: list[int] = []
    end = 0
    for start, length in runs:
        if start < end or length < 1:
            raise MalformedError("bad-selection", f"run ({start}, {length}) is empty, negative or overlaps")
        if start == end and gaps:
            lengths[-1] += length
        else:
            gaps.append(start - end)
            lengths.append(length)
        end = start + length
    values = [0] * (2 * len(gaps))
    values[::2] = gaps
    values[1::2] = [length - 1 for length in lengths]
    return varint.pack(values)
