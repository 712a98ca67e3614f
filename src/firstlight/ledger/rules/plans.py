"""Plans: deploy."""

from __future__ import annotations

from firstlight.ledger.draft import Draft, Outcome
from firstlight.ledger.records import TenureState
from firstlight.ledger.rules.holding import debit, held_by_signer, require_state, split
from firstlight.ledger.transaction import Deploy


def deploy(draft: Draft, body: Deploy) -> Outcome:
    """Set a tenure's plan; with a selection, that of a new tenure of the same origin to which it is moved.

    1. The owner signed (:func:`held_by_signer`); the tenure is active (``tenure-frozen``, ``tenure-retired``).
    2. The budget covers it (``budget-exhausted``, ``too-much-work``).
    3. All selected indices count as this tenure and are under no live offer (:func:`move`).
    """
    holding = held_by_signer(draft, body.batch, body.tenure)
    require_state(holding, TenureState.ACTIVE)
    if body.selection is not None:
        number, work = split(draft, holding, body.selection, TenureState.ACTIVE, body.plan)
        return Outcome(body.batch, number, work)
    work = debit(draft, body.batch)
    revision = holding.tenure.plan_revision + 1
    draft.change_tenure(body.batch, body.tenure, plan=body.plan, plan_revision=revision)
    return Outcome(body.batch, body.tenure, work)
