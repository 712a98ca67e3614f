"""The tenure that counts: one pure function for the state machine, devices and parties.

The ownership trie points an index at a tenure; that tenure may be an offer that nobody has accepted, or a
transfer that its seller's recovery has undone. :func:`counting` answers which tenure stands in its place
and in what state. It reads recorded facts only, and :func:`needed` names the records that it reads, which
are those that a proof must carry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from firstlight.errors import ProofError
from firstlight.ledger.records import Tenure, TenureState

_NOT_TAKEN = (TenureState.OFFERED, TenureState.WITHDRAWN)


class Tenures(Protocol):
    """Whatever knows the tenures of one batch by number; a ``dict`` will do."""

    def get(self, number: int, /) -> Tenure | None:
        """Return the tenure's record, or nothing if there is none or it is not at hand."""
        ...


@dataclass(frozen=True, slots=True)
class Standing:
    """What an index's tenure amounts to at one time.

    ``number`` and ``tenure`` are the tenure that counts, ``origin`` and ``holder`` its origin (whose key, sequence
    and recovery hash are the owner's). ``state`` is ACTIVE, FROZEN or RETIRED: FROZEN too while the origin is held
    after a recovery. ``offer`` is the number of the offer that is live over the index, or 0. ``final_at`` is the time
    (Unix seconds) from which no recovery by the seller can undo the owner's holding any more.
    """

    number: int
    tenure: Tenure
    origin: int
    holder: Tenure
    state: TenureState
    offer: int
    final_at: int

    @property
    def plan(self) -> bytes | None:
        """The plan root, or nothing while there is no plan."""
        return self.tenure.plan

    @property
    def plan_revision(self) -> int:
        """The revision of the plan, from 1; 0 while there is none."""
        return self.tenure.plan_revision

    @property
    def count(self) -> int:
        """How many indices the trie points at the tenure that counts (those of its offers are not among them)."""
        return self.tenure.count

    @property
    def key(self) -> bytes:
        """The owner's key (compressed): it signs for every tenure of the origin."""
        if self.holder.key is None:
            raise ProofError("tenure-malformed", f"origin {self.origin} has no key")
        return self.holder.key

    @property
    def deployed(self) -> bool:
        """Whether a device of this tenure may onboard: accepted, active and with a plan."""
        return self.state is TenureState.ACTIVE and self.plan is not None


def counting(number: int, tenures: Tenures, time: int) -> Standing:
    """Return what tenure ``number`` of the trie amounts to at header time ``time`` (Unix seconds).

    - An offer that is not accepted, be it live, withdrawn or expired, counts as its ``previous``.
    - A tenure whose origin was received by a transfer that the seller's recovery has undone counts as the
      tenure that was sold.
    - Anything else counts as itself; a held origin freezes its active tenures.

    Raises :class:`ProofError`: ``no-tenure`` for number 0 (padding), ``tenure-missing`` if a record that must be read
    is not in ``tenures`` (see :func:`needed`), ``tenure-malformed`` if records contradict each other.
    """
    offer = 0
    while True:
        tenure = _read(tenures, number)
        if tenure.state in _NOT_TAKEN:
            previous = _earlier(number, tenure.previous)
            if live(tenure, tenures, time):
                offer = number
            number = previous
            continue
        holder = _origin(tenures, number, tenure)
        seller = _seller(tenures, tenure.origin, holder)
        if seller is not None and undone(holder, seller):
            number = _earlier(tenure.origin, holder.previous)
            continue
        held = holder.held and tenure.state is TenureState.ACTIVE
        return Standing(
            number=number,
            tenure=tenure,
            origin=tenure.origin,
            holder=holder,
            state=TenureState.FROZEN if held else tenure.state,
            offer=offer,
            final_at=holder.accepted_at + (seller.delay if seller is not None else 0),
        )


def needed(number: int, tenures: Tenures) -> tuple[int, ...]:
    """Return the numbers of all tenures that :func:`counting` reads for ``number``, in increasing order.

    Empty for 0, which is nobody's. Errors as :func:`counting`.
    """
    if number == 0:
        return ()
    reading = _Reading(tenures, set())
    counting(number, reading, 0)
    return tuple(sorted(reading.numbers))


def counted(number: int, tenures: Tenures, last: int, time: int) -> int:
    """Return how many devices count as tenure ``number`` at ``time``: its own, and those of what counts as it.

    These are live offers out of it, offers that have ended, and transfers that a recovery has undone; ``last`` is the
    batch's number of tenures so far. Errors as :func:`counting`.
    """
    later = range(number, last + 1)
    return sum(_read(tenures, one).count for one in later if counting(one, tenures, time).number == number)


def live(offer: Tenure, tenures: Tenures, time: int) -> bool:
    """Return whether ``offer`` can be accepted at ``time``: not taken, before its expiry, no recovery since.

    The seller's records are always read, so that what is read does not depend on the time.
    """
    sold = _read(tenures, offer.previous)
    seller = _origin(tenures, offer.previous, sold)
    return offer.state is TenureState.OFFERED and time < offer.expiry and offer.offered_at > seller.recovered_at


def undone(holder: Tenure, seller: Tenure) -> bool:
    """Return whether one of ``seller``'s recoveries undid the transfer by which ``holder`` was received.

    That is so if it was accepted at or before a recovery and less than the seller's transfer delay earlier.
    An offer is always later than its seller's last recovery, so equal seconds mean "before" here.
    """
    recoveries = (*seller.recovered_before, seller.recovered_at)
    return any(0 <= time - holder.accepted_at < seller.delay for time in recoveries if time)


def _read(tenures: Tenures, number: int) -> Tenure:
    if number == 0:
        raise ProofError("no-tenure", "index beyond the batch")
    tenure = tenures.get(number)
    if tenure is None:
        raise ProofError("tenure-missing", f"the record of tenure {number} is not at hand")
    return tenure


def _origin(tenures: Tenures, number: int, tenure: Tenure) -> Tenure:
    if tenure.origin == number:
        return tenure
    holder = _read(tenures, _earlier(number, tenure.origin))
    if holder.origin != tenure.origin:
        raise ProofError("tenure-malformed", f"tenure {tenure.origin} is not an origin")
    return holder


def _seller(tenures: Tenures, number: int, holder: Tenure) -> Tenure | None:
    """Return the origin that origin ``number`` was bought from; nothing for the manufacturer's tenure."""
    if holder.previous == 0:
        return None
    sold = _earlier(number, holder.previous)
    return _origin(tenures, sold, _read(tenures, sold))


def _earlier(number: int, other: int) -> int:
    if not 0 < other < number:
        raise ProofError("tenure-malformed", f"tenure {number} refers to tenure {other}")
    return other


class _Reading:
    """Remembers which tenures were read."""

    __slots__ = ("_tenures", "numbers")

    def __init__(self, tenures: Tenures, numbers: set[int]) -> None:
        self._tenures = tenures
        self.numbers = numbers

    def get(self, number: int, /) -> Tenure | None:
        self.numbers.add(number)
        return self._tenures.get(number)
