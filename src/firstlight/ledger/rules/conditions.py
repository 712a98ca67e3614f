"""The condition of devices: freeze, unfreeze, retire."""

from __future__ import annotations

from firstlight.ledger.draft import Draft, Outcome, require
from firstlight.ledger.records import TenureState
from firstlight.ledger.rules.holding import Holding, debit, held_by_signer, move, require_state, split
from firstlight.ledger.transaction import Freeze, Retire, Unfreeze
from firstlight.trees.ownership import Selection


def freeze(draft: Draft, body: Freeze) -> Outcome:
    """Move a selection to a new, frozen tenure of the same origin.

    1. The owner signed (:func:`held_by_signer`); the tenure is active (``tenure-frozen``, ``tenure-retired``).
    2. All indices count as this tenure and are under no live offer (:func:`move`).
    """
    holding = held_by_signer(draft, body.batch, body.tenure)
    require_state(holding, TenureState.ACTIVE)
    number, work = split(draft, holding, body.selection, TenureState.FROZEN, None)
    return Outcome(body.batch, number, work)


def retire(draft: Draft, body: Retire) -> Outcome:
    """Move a selection to a new, retired tenure of the same origin, for good.

    1. The owner signed (:func:`held_by_signer`); the tenure is active or frozen (``tenure-retired``).
    2. All indices count as this tenure and are under no live offer (:func:`move`).
    """
    holding = held_by_signer(draft, body.batch, body.tenure)
    require_state(holding, TenureState.ACTIVE, TenureState.FROZEN)
    number, work = split(draft, holding, body.selection, TenureState.RETIRED, None)
    return Outcome(body.batch, number, work)


def unfreeze(draft: Draft, body: Unfreeze) -> Outcome:
    """Move a selection of a frozen tenure back to where it came from; without one, end the hold (:func:`_release`).

    1. The owner signed (:func:`held_by_signer`); the tenure is frozen (``tenure-active``, ``tenure-retired``).
    2. All indices are in it (:func:`move`).
    """
    if body.selection is None:
        return _release(draft, body)
    holding = held_by_signer(draft, body.batch, body.tenure)
    require_state(holding, TenureState.FROZEN)
    return _move_back(draft, holding, body.selection)


def _move_back(draft: Draft, holding: Holding, selection: Selection) -> Outcome:
    back = holding.tenure.previous
    work = move(draft, holding, selection, back)
    draft.change_tenure(holding.id, back, count=draft.tenure(holding.id, back).count + selection.count)
    return Outcome(holding.id, back, work)


def _release(draft: Draft, body: Unfreeze) -> Outcome:
    """End the hold of a recovery.

    1. The owner signed, and the tenure's origin is held (:func:`held_by_signer`, ``not-held``).
    2. The tenure is that origin (``not-an-origin``).
    """
    holding = held_by_signer(draft, body.batch, body.tenure, held=True)
    require(holding.origin == body.tenure, "not-an-origin", f"tenure {body.tenure} is of origin {holding.origin}")
    work = debit(draft, body.batch)
    draft.change_tenure(body.batch, body.tenure, held=False)
    return Outcome(body.batch, body.tenure, work)
