"""What the rules about tenures share: whose right it is, the work that it costs, and the move of a selection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from firstlight.errors import RuleError
from firstlight.ledger.draft import Draft, require
from firstlight.ledger.records import Batch, Tenure, TenureState, tenure_name
from firstlight.ledger.tenure import Standing, counting
from firstlight.trees.ownership import Selection

BUDGET_BASE = 4_096
BUDGET_PER_DEVICE = 64
"""The work, in trie nodes, that ``anchor_batch`` grants a batch: so much, and so much more for each device."""
BUDGET_MAX = 2**50
TRANSACTION_WORK = 8
"""What every transaction about a tenure costs besides the trie nodes that it touches."""
MAX_WORK = 4_194_304
"""The most work of one transaction."""
MAX_TENURES = 2**32 - 2


@dataclass(frozen=True, slots=True)
class Holding:
    """A tenure that a transaction is about, once its owner's signature and sequence have been checked."""

    id: bytes
    batch: Batch
    number: int
    tenure: Tenure
    standing: Standing

    @property
    def origin(self) -> int:
        """The number of the tenure's origin."""
        return self.standing.origin

    @property
    def holder(self) -> Tenure:
        """The origin's record."""
        return self.standing.holder


def held_by_signer(draft: Draft, batch: bytes, number: int, *, held: bool = False) -> Holding:
    """Return tenure ``number`` of ``batch``, on which the transaction's signer has a right to act.

    1. Batch and tenure exist (``unknown-batch``, ``unknown-tenure``).
    2. The tenure is nobody's offer (``not-accepted``).
    3. The key of its origin signed (``wrong-key``, ``bad-signature``), with the next sequence (``wrong-sequence``).
    4. No recovery by the seller has undone the purchase (``tenure-undone``).
    5. No recovery holds the origin (``tenure-held``) or, with ``held``, one does (``not-held``).
    """
    record = draft.batch(batch)
    tenure = draft.tenure(batch, number)
    require(
        tenure.state not in (TenureState.OFFERED, TenureState.WITHDRAWN), "not-accepted", f"tenure {number} is an offer"
    )
    holder = draft.tenure(batch, tenure.origin)
    draft.signed_by(holder.key or b"")
    draft.sequence(holder.sequence + 1)
    standing = counting(number, draft.tenures(batch), draft.time)
    require(standing.number == number, "tenure-undone", f"a recovery undid the sale of tenure {tenure.origin}")
    if held:
        require(holder.held, "not-held", f"no recovery holds tenure {tenure.origin}")
    else:
        require(not holder.held, "tenure-held", f"a recovery holds tenure {tenure.origin} until it is unfrozen")
    draft.change_tenure(batch, tenure.origin, sequence=holder.sequence + 1)
    return Holding(batch, record, number, draft.tenure(batch, number), standing)


def require_state(holding: Holding, *allowed: TenureState) -> None:
    """Raise :class:`RuleError` (``tenure-active``, ``tenure-frozen``, ``tenure-retired``) unless allowed."""
    state = holding.tenure.state
    require(state in allowed, f"tenure-{state.name.lower()}", f"tenure {holding.number}")


def debit(draft: Draft, batch: bytes, nodes: int = 0) -> int:
    """Take the work of a transaction that touches ``nodes`` from the batch's budget, and return it.

    1. It is not too much for one transaction (``too-much-work``), 2. nor for the budget (``budget-exhausted``).
    """
    work = TRANSACTION_WORK + nodes
    budget = draft.batch(batch).budget
    require(work <= MAX_WORK, "too-much-work", f"{work} nodes, at most {MAX_WORK}")
    require(work <= budget, "budget-exhausted", f"{work} nodes, {budget} are left")
    draft.change_batch(batch, budget=budget - work)
    return work


def next_number(draft: Draft, batch: bytes) -> int:
    """Return the number of a new tenure of ``batch``, which it counts; :class:`RuleError` (``too-many-tenures``)."""
    tenures = draft.batch(batch).tenures
    require(tenures < MAX_TENURES, "too-many-tenures", f"{tenures} already")
    draft.change_batch(batch, tenures=tenures + 1)
    return tenures + 1


def move(draft: Draft, holding: Holding, selection: Selection, to: int) -> int:
    """Move a selection of ``holding`` to tenure ``to``, out of the tenure itself or out of ended offers of it.

    The counts of those it comes from are brought down; that of ``to`` is the caller's. Returns the work.

    1. All indices are in the batch (``index-beyond-batch``).
    2. The budget covers it (:func:`debit`).
    3. All indices count as this tenure (``wrong-owner``), and none is under a live offer (``offer-live``).
    """
    require(selection.end <= holding.batch.size, "index-beyond-batch", f"{selection.end - 1}")
    trie = draft.trie(holding.id)
    work = debit(draft, holding.id, selection.nodes(trie.depth))
    moved = trie.assign(selection, to, expect=_counts_as(draft, holding))
    for number, count in moved.taken.items():
        draft.change_tenure(holding.id, number, count=draft.tenure(holding.id, number).count - count)
    draft.put_trie(holding.id, moved.trie)
    draft.change_batch(holding.id, ownership=moved.trie.root)
    return work


def _counts_as(draft: Draft, holding: Holding) -> Callable[[int], bool]:
    """Return the test whether a tenure's indices count as ``holding`` and are free."""
    tenures = draft.tenures(holding.id)

    def test(number: int) -> bool:
        standing = counting(number, tenures, draft.time)
        if standing.number == holding.number and standing.offer:
            raise RuleError("offer-live", f"an index is under offer {standing.offer}")
        return standing.number == holding.number

    return test


def add_tenure(draft: Draft, holding: Holding, number: int, tenure: Tenure) -> None:
    """Put tenure ``number`` into the batch of ``holding``."""
    draft.put(tenure_name(holding.id, number), tenure)


def split(
    draft: Draft, holding: Holding, selection: Selection, state: TenureState, plan: bytes | None
) -> tuple[int, int]:
    """Move a selection to a new tenure of the same origin; return its number and the work. Errors as :func:`move`."""
    number = next_number(draft, holding.id)
    work = move(draft, holding, selection, number)
    tenure = Tenure(
        state=state,
        previous=holding.number,
        origin=holding.origin,
        count=selection.count,
        plan=plan,
        plan_revision=0 if plan is None else 1,
        key=None,
        sequence=0,
        recovery=None,
        delay=0,
        offered_at=0,
        expiry=0,
        accepted_at=0,
        recovered_at=0,
        held=False,
    )
    add_tenure(draft, holding, number, tenure)
    return number, work
