"""The ledger as a party has verified it: ``onboarding.ports.LedgerView`` on a node that is not believed.

Every question is answered under a head that was asked for *after* the question came, with a fresh nonce. Questions
that come while the node is being asked share the next request, so that a fleet that wakes at once costs one request
a round trip. What has been proven under a head holds for as long as its header is the newest one.

Any thread may ask. Where the node cannot be reached, the last head answers: how old it is stands in the facts, and
the party decides by that.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from firstlight.discovery.bundle import MAX_NAMES
from firstlight.discovery.verify import View
from firstlight.encoding import Record
from firstlight.errors import FirstlightError, MalformedError, ProofError, StoreError, TransportError
from firstlight.ledger.records import Batch, Party, Tenure, batch_name, party_name, tenure_name
from firstlight.ledger.tenure import Standing, counting
from firstlight.onboarding.ports import Facts
from firstlight.trees.ownership import Uniform, depth_of

HEADS = 8
"""How many heads are kept for exchanges that are being decided."""
MAX_RECORDS = 4_096
MAX_OWNERS = 65_536
_FAILED = (TransportError, ProofError, MalformedError, StoreError)


class Source(Protocol):
    """Where verified views come from (:class:`firstlight.roles.ledger_client.LedgerClient`)."""

    def view(self, *names: str) -> View:
        """Open the newest head with a fresh nonce and prove ``names`` under it."""
        ...

    def follow(self, view: View, *names: str, batch: bytes | None = None, prefix: tuple[int, int] = (0, 0)) -> View:
        """Prove more under the head that ``view`` has opened."""
        ...


@dataclass(frozen=True, slots=True)
class Owned:
    """Who holds a region of indices: the batch's record, the trie's number for it, the tenures that this leads to.

    The region is all indices that begin with the ``length`` bits that the trie's node is reached by.
    """

    batch: Batch
    number: int
    length: int
    tenures: dict[int, Tenure]


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A verified head, and what has been proven under its header so far (shared by views of one header)."""

    view: View
    records: dict[str, Record | None] = field(default_factory=dict)
    owned: dict[tuple[bytes, int, int], Owned] = field(default_factory=dict)
    """Regions by batch, length and bits of their prefix."""
    encoded: dict[str, bytes] = field(default_factory=dict)
    """What :meth:`value` has encoded."""

    @property
    def time(self) -> int:
        """The lowest of the witness times (Unix seconds)."""
        assert self.view.time is not None
        return self.view.time

    def value(self, name: str) -> bytes | None:
        """Return a record's value; :class:`ProofError` (``not-asked``) for one that has not been proven."""
        if name not in self.records:
            raise ProofError("not-asked", f"{name} was not proven")
        record = self.records[name]
        if record is None:
            return None
        value = self.encoded.get(name)
        if value is None:
            if len(self.encoded) >= MAX_RECORDS:
                self.encoded.clear()
            value = self.encoded[name] = record.encode()
        return value


class PartyView:
    """The view of one party; ``source`` is asked by one thread at a time for heads."""

    def __init__(self, source: Source, party: bytes) -> None:
        """See the ledger through ``source``, as ``party`` (16 bytes)."""
        self._source = source
        self._name = party_name(party)
        self._turn = threading.Condition()
        self._started = self._done = 0
        self._head: Head | None = None
        self._failure: FirstlightError | None = None
        self._heads: OrderedDict[int, Head] = OrderedDict()
        self._sizes: dict[bytes, int] = {}
        """Sizes of batches, for good: a batch's id is a hash over its size."""

    def height(self) -> int:
        """Return the height of the newest verified head; 0 if there is none yet."""
        return 0 if self._head is None else self._head.view.height

    def facts(self, batch: bytes, index: int) -> Facts:
        """Return the facts about one device under a fresh head.

        Raises :class:`TransportError`, :class:`ProofError`, :class:`MalformedError`: they cannot be had or proven,
        ``party-unregistered`` among them.
        """
        return self.facts_under(self.fresh(), batch, index)

    def facts_of(self, devices: Sequence[tuple[bytes, int]]) -> list[Facts | None]:
        """Return the facts about several devices under one fresh head; None where they cannot be had or proven."""
        try:
            head = self.fresh()
        except _FAILED:
            return [None] * len(devices)
        return [self._facts_or_none(head, *device) for device in devices]

    def _facts_or_none(self, head: Head, batch: bytes, index: int) -> Facts | None:
        try:
            return self.facts_under(head, batch, index)
        except _FAILED:
            return None

    def facts_under(self, head: Head, batch: bytes, index: int) -> Facts:
        """Return the facts about one device under ``head``; errors as :meth:`facts`."""
        owned = self.owned(head, batch, index)
        return Facts(
            height=head.view.height,
            header_time=head.view.header_time,
            witnessed_at=head.time,
            batch=owned.batch,
            owner=owned.number,
            tenures=owned.tenures,
            party=self._own(head),
        )

    # --- heads ------------------------------------------------------------------------------------

    def fresh(self) -> Head:
        """Return a head that was asked for after this call began, or the last one if none can be had now.

        Raises what the source raises if there is none at all.
        """
        with self._turn:
            wanted = self._started + 1
            while self._done < wanted and self._started != self._done:
                self._turn.wait()
            if self._done >= wanted:
                return self._answer()
            self._started += 1
        failure: FirstlightError | None = None
        view: View | None = None
        try:
            view = self._source.view(self._name)
        except _FAILED as error:
            failure = error
        finally:
            with self._turn:
                if view is not None:
                    self._take(view)
                self._failure = failure
                self._done = self._started
                self._turn.notify_all()
        with self._turn:
            return self._answer()

    def at(self, height: int) -> Head:
        """Return the head of that height, under which facts were given; :class:`ProofError` (``head-forgotten``)."""
        head = self._heads.get(height)
        if head is None:
            raise ProofError("head-forgotten", f"height {height} is not kept")
        return head

    def _answer(self) -> Head:
        if self._head is None:
            raise self._failure or TransportError("unreachable", "no head has been verified yet")
        return self._head

    def _take(self, view: View) -> None:
        old = self._heads.get(view.height)
        if old is not None and old.view.header_hash == view.header_hash:
            head = Head(view, old.records, old.owned, old.encoded)
        else:
            head = Head(view)
        _keep(head.records, dict(view.records), MAX_RECORDS)
        self._head = self._heads[view.height] = head
        self._heads.move_to_end(view.height)
        while len(self._heads) > HEADS:
            self._heads.popitem(last=False)

    # --- what is proven under a head --------------------------------------------------------------

    def prove(self, head: Head, names: Iterable[str]) -> None:
        """Have records proven under ``head``, so that :meth:`Head.value` knows them; errors as :meth:`facts`."""
        missing = [name for name in dict.fromkeys(names) if name not in head.records]
        for at in range(0, len(missing), MAX_NAMES):
            proven = self._source.follow(head.view, *missing[at : at + MAX_NAMES])
            _keep(head.records, dict(proven.records), MAX_RECORDS)

    def batch(self, head: Head, batch: bytes) -> Batch:
        """Return a batch's record; :class:`ProofError` (``unknown-batch``)."""
        name = batch_name(batch)
        self.prove(head, [name])
        record = head.records[name]
        if not isinstance(record, Batch):
            raise ProofError("unknown-batch", "the batch is not on the ledger")
        return record

    def standing(self, head: Head, batch: bytes, number: int) -> Standing:
        """Return what tenure ``number`` of a batch amounts to; :class:`ProofError` (``tenure-missing`` …)."""
        return counting(number, _Proven(self, head, batch), head.view.header_time)

    def _own(self, head: Head) -> Party:
        record = head.records.get(self._name)
        if not isinstance(record, Party):
            raise ProofError("party-unregistered", "this party is not on the ledger")
        return record

    def owned(self, head: Head, batch: bytes, index: int) -> Owned:
        """Return who holds an index, errors as :meth:`facts`; one question answers for all of its region."""
        if batch not in self._sizes:
            self._sizes[batch] = self.batch(head, batch).size
        depth = depth_of(self._sizes[batch])
        for length in range(depth + 1):
            known = head.owned.get((batch, length, index >> depth - length))
            if known is not None:
                return known
        found = _owned(self._source.follow(head.view, batch=batch, prefix=(index, depth)))
        if len(head.owned) >= MAX_OWNERS:
            head.owned.clear()
        head.owned[batch, found.length, index >> depth - found.length] = found
        return found


class _Proven:
    """The tenures of one batch, proven as they are read."""

    def __init__(self, view: PartyView, head: Head, batch: bytes) -> None:
        self._view = view
        self._head = head
        self._batch = batch

    def get(self, number: int, /) -> Tenure | None:
        name = tenure_name(self._batch, number)
        self._view.prove(self._head, [name])
        record = self._head.records[name]
        return record if isinstance(record, Tenure) else None


def _owned(view: View) -> Owned:
    """Return who holds the one index that ``view`` was asked for; :class:`ProofError` (``bad-ownership-proof``)."""
    if view.batch is None or not isinstance(view.owned, Uniform):
        raise ProofError("bad-ownership-proof", "one index is not split")
    tenures = {
        int(name.rsplit("/", 1)[1]): record for name, record in view.records.items() if isinstance(record, Tenure)
    }
    return Owned(view.batch, view.owned.tenure, view.owned.length, tenures)


def _keep(known: dict[str, Record | None], more: dict[str, Record | None], limit: int) -> None:
    if len(known) + len(more) > limit:
        for name in list(known)[: len(known) // 2]:
            known.pop(name, None)
    known.update(more)
