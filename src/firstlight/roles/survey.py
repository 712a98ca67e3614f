"""Who owns these devices, proven: a walk over a batch's ownership trie that asks for as little as it can.

A node whose hash is what it must be if *only* the wanted devices are in the tenure that one expects, and all
others in the one that they were taken from, proves the whole subtree under it: 100,000 units picked at random out of
a batch that was one owner's cost one question. Where that guess is wrong, the walk goes down, one node a question.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from firstlight.discovery.verify import View
from firstlight.errors import ProofError
from firstlight.ledger.records import Batch
from firstlight.ledger.tenure import Standing
from firstlight.trees import ownership
from firstlight.trees.ownership import Selection, Trie
from firstlight.trees.ownership.nodes import depth_of, split_hash, uniform_hash


class Ledger(Protocol):
    """What is needed of the ledger (:class:`firstlight.roles.ledger_client.LedgerClient`)."""

    def view(self, *names: str, batch: bytes | None = None, prefix: tuple[int, int] = (0, 0)) -> View:
        """Open the newest head."""
        ...

    def follow(self, view: View, *names: str, batch: bytes | None = None, prefix: tuple[int, int] = (0, 0)) -> View:
        """Ask more under the same head."""
        ...


@dataclass(frozen=True, slots=True)
class Guess:
    """What the walk expects: the wanted devices in tenure ``number``, all others in tenure ``rest``."""

    number: int
    rest: int


@dataclass(frozen=True, slots=True)
class Region:
    """Neighbouring devices under one uniform node: its prefix length, and what its tenure amounts to."""

    start: int
    count: int
    prefix_length: int
    number: int
    standing: Standing


@dataclass(frozen=True, slots=True)
class Survey:
    """Regions that cover all wanted devices (and neighbours under the same nodes), in order, under one head.

    ``questions`` is how many proofs it took.
    """

    view: View
    batch: Batch
    regions: tuple[Region, ...]
    questions: int


def survey(ledger: Ledger, batch: bytes, wanted: Selection, guess: Guess) -> Survey:
    """Return who owns the ``wanted`` devices of ``batch``.

    Raises :class:`ProofError`: ``index-beyond-batch``, ``unknown-batch``, and what verifying raises.
    """
    view = ledger.view(batch=batch)
    record = view.batch
    if record is None:
        raise ProofError("unknown-batch", "the batch is not on the ledger")
    if wanted.end > record.size:
        raise ProofError("index-beyond-batch", f"device {wanted.end - 1} of {record.size}")
    walk = _Walk(ledger, batch, view, record.size, wanted, guess)
    regions = tuple(walk.under(view, 0, 0))
    return Survey(view, record, regions, walk.questions)


def spans_of(regions: Iterable[Region]) -> list[tuple[int, int]]:
    """Return where each region begins and ends."""
    return [(region.start, region.start + region.count) for region in regions]


@dataclass(slots=True)
class _Walk:
    """One walk: what it asks, expects and has learnt."""

    ledger: Ledger
    batch: bytes
    view: View
    size: int
    wanted: Selection
    guess: Guess
    questions: int = 1
    starts: Sequence[int] = ()
    ends: Sequence[int] = ()
    expected: Trie | None = None
    standings: dict[int, Standing] = field(default_factory=dict)

    def __post_init__(self) -> None:
        runs = self.wanted.runs()
        self.starts = [start for start, _ in runs]
        self.ends = [start + count for start, count in runs]

    @property
    def depth(self) -> int:
        """The depth of the trie."""
        return depth_of(self.size)

    def under(self, view: View, bits: int, length: int) -> Iterator[Region]:
        """Return the regions under a node about which ``view`` tells."""
        owned, standing = view.owned, view.standing
        if isinstance(owned, ownership.Uniform) and standing is not None:
            self.standings[owned.tenure] = standing
            yield self._region(bits, length, owned.tenure, standing)
        elif isinstance(owned, ownership.Split):
            yield from self._child(2 * bits, length + 1, owned.left)
            yield from self._child(2 * bits + 1, length + 1, owned.right)

    def _child(self, bits: int, length: int, value: bytes) -> Iterator[Region]:
        shift = self.depth - length
        start, end = bits << shift, min((bits + 1) << shift, self.size)
        if not self._wants(start, end):
            return
        if self._expects(bits, length) == value:
            yield from self._expected_regions(bits, length)
        else:
            yield from self.under(self._ask(bits, length), bits, length)

    def _ask(self, bits: int, length: int) -> View:
        self.questions += 1
        return self.ledger.follow(self.view, batch=self.batch, prefix=(bits, length))

    def _wants(self, start: int, end: int) -> bool:
        at = bisect_left(self.ends, start + 1)
        return at < len(self.starts) and self.starts[at] < end

    def _hypothesis(self) -> Trie:
        if self.expected is None:
            rest = Trie.uniform(self.size, self.guess.rest)
            self.expected = rest.assign(self.wanted, self.guess.number, expect=(self.guess.rest,)).trie
        return self.expected

    def _expects(self, bits: int, length: int) -> bytes:
        proof = self._hypothesis().prove(bits, length)
        return split_hash(*proof.children) if proof.tenure is None else uniform_hash(proof.tenure)

    def _expected_regions(self, bits: int, length: int) -> Iterator[Region]:
        """Return the regions of the wanted devices in a subtree that is just as expected.

        No region is larger than the subtree: the node above it has been proven to be split.
        """
        trie, shift = self._hypothesis(), self.depth - length
        for first, last in self._spans(bits << shift, min((bits + 1) << shift, self.size)):
            at = first
            while at < last:
                node = max(trie.covering_prefix(at), (bits, length), key=lambda one: one[1])
                yield self._region(*node, self.guess.number, self._standing(*node))
                at = (node[0] + 1) << (self.depth - node[1])

    def _spans(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        for at in range(bisect_left(self.ends, start + 1), len(self.starts)):
            if self.starts[at] >= end:
                return
            yield max(self.starts[at], start), min(self.ends[at], end)

    def _standing(self, bits: int, length: int) -> Standing:
        """Return what the expected tenure amounts to, proven once at a node that is known to be its."""
        known = self.standings.get(self.guess.number)
        if known is not None:
            return known
        view = self._ask(bits, length)
        if view.standing is None or view.owned != ownership.Uniform(self.guess.number):
            raise ProofError("bad-ownership-proof", "two proofs under one head disagree")
        self.standings[self.guess.number] = view.standing
        return view.standing

    def _region(self, bits: int, length: int, number: int, standing: Standing) -> Region:
        start = bits << (self.depth - length)
        return Region(start, min(1 << (self.depth - length), self.size - start), length, number, standing)
