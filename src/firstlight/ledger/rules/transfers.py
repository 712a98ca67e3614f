"""Transfers: offer, accept, withdraw, and recovery, which undoes the latest of them."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from firstlight.errors import SignatureError
from firstlight.ledger.draft import Draft, Outcome, check_point, require
from firstlight.ledger.records import MAX_RECOVERIES, Tenure, TenureState, tenure_name
from firstlight.ledger.rules.batches import check_owner_key
from firstlight.ledger.rules.holding import add_tenure, debit, held_by_signer, move, next_number, require_state
from firstlight.ledger.tenure import counting, live
from firstlight.ledger.transaction import Accept, Offer, Recover, Withdraw

MAX_OFFER = 366 * 86_400
"""The longest that an offer can stay open, in seconds."""


def offer(draft: Draft, body: Offer) -> Outcome:
    """Offer indices of one active tenure to a buyer.

    1. The owner signed (:func:`held_by_signer`); the tenure is active (``tenure-frozen``, ``tenure-retired``).
    2. The buyer's key is a point and not the seller's (``bad-point``, ``buyer-is-seller``).
    3. The offer ends later than now and not too late (``expiry-past``, ``expiry-too-far``).
    4. No recovery can undo the seller's own purchase any more (``transfer-not-final``), and his own last recovery is
       at least a second ago (``recovered-just-now``), so that its time tells which transfers came before it.
    5. All indices count as this tenure and are under no live offer (:func:`move`).
    """
    holding = held_by_signer(draft, body.batch, body.tenure)
    require_state(holding, TenureState.ACTIVE)
    check_point(body.buyer)
    require(body.buyer != holding.standing.key, "buyer-is-seller", "a fresh key for every purchase")
    require(draft.time < body.expiry, "expiry-past", f"it is {draft.time} already")
    require(body.expiry <= draft.time + MAX_OFFER, "expiry-too-far", f"at most {MAX_OFFER} s from now")
    final_at = holding.standing.final_at
    require(draft.time >= final_at, "transfer-not-final", f"the seller before can undo his sale until {final_at}")
    require(draft.time > holding.holder.recovered_at, "recovered-just-now", "try again in a second")
    number = next_number(draft, body.batch)
    work = move(draft, holding, body.selection, number)
    offered = Tenure(
        state=TenureState.OFFERED,
        previous=body.tenure,
        origin=number,
        count=body.selection.count,
        plan=None,
        plan_revision=0,
        key=body.buyer,
        sequence=0,
        recovery=None,
        delay=0,
        offered_at=draft.time,
        expiry=body.expiry,
        accepted_at=0,
        recovered_at=0,
        held=False,
    )
    add_tenure(draft, holding, number, offered)
    return Outcome(body.batch, number, work)


def accept(draft: Draft, body: Accept) -> Outcome:
    """Take an offer. Only this tenure and the batch's budget change.

    1. Batch and tenure exist (``unknown-batch``, ``unknown-tenure``), and it came from an offer (``not-an-offer``).
    2. The buyer's key signed (``wrong-key``, ``bad-signature``), as its sequence 1 (``wrong-sequence``).
    3. The offer is live: not taken (``already-accepted``), before its expiry (``offer-expired``), not withdrawn and no
       recovery since (``offer-ended``).
    4. The recovery key is another than the buyer's (``key-reused``).
    5. The budget covers it (``budget-exhausted``).
    """
    draft.batch(body.batch)
    tenure = draft.tenure(body.batch, body.tenure)
    require(tenure.origin == body.tenure and tenure.previous != 0, "not-an-offer", f"tenure {body.tenure}")
    key = tenure.key or b""
    draft.signed_by(key)
    draft.sequence(tenure.sequence + 1)
    require(tenure.state is not TenureState.ACTIVE, "already-accepted", f"tenure {body.tenure}")
    require(draft.time < tenure.expiry, "offer-expired", f"at {tenure.expiry}, it is {draft.time}")
    require(live(tenure, draft.tenures(body.batch), draft.time), "offer-ended", f"tenure {body.tenure}")
    check_owner_key(key, body.recovery)
    work = debit(draft, body.batch)
    taken = replace(
        tenure,
        state=TenureState.ACTIVE,
        sequence=1,
        recovery=body.recovery,
        delay=body.delay,
        accepted_at=draft.time,
    )
    draft.put(tenure_name(body.batch, body.tenure), taken)
    return Outcome(body.batch, body.tenure, work)


def withdraw(draft: Draft, body: Withdraw) -> Outcome:
    """Take back a live offer; its indices count as before, as those of the tenure that they were offered from.

    1. Batch and tenure exist (``unknown-batch``, ``unknown-tenure``), and it came from an offer (``not-an-offer``).
    2. The seller signed (:func:`held_by_signer`).
    3. The offer is live (``already-accepted``, ``offer-expired``, ``offer-ended``).
    4. The budget covers it (``budget-exhausted``).
    """
    draft.batch(body.batch)
    tenure = draft.tenure(body.batch, body.tenure)
    require(tenure.origin == body.tenure and tenure.previous != 0, "not-an-offer", f"tenure {body.tenure}")
    held_by_signer(draft, body.batch, tenure.previous)
    require(tenure.state in (TenureState.OFFERED, TenureState.WITHDRAWN), "already-accepted", f"tenure {body.tenure}")
    require(draft.time < tenure.expiry, "offer-expired", f"at {tenure.expiry}, it is {draft.time}")
    require(live(tenure, draft.tenures(body.batch), draft.time), "offer-ended", f"tenure {body.tenure}")
    work = debit(draft, body.batch)
    draft.change_tenure(body.batch, body.tenure, state=TenureState.WITHDRAWN)
    return Outcome(body.batch, body.tenure, work)


def recover(draft: Draft, body: Recover) -> Outcome:
    """Give an origin to a new key, end its live offers, undo its latest transfers, and hold it with all its tenures.

    1. Batch and tenure exist (``unknown-batch``, ``unknown-tenure``); the tenure is an origin and accepted
       (``not-an-origin``, ``not-accepted``).
    2. The key with the recorded recovery hash signed (``wrong-key``, ``bad-signature``); the sequence is the number of
       this recovery (``wrong-sequence``).
    3. The origin has not itself been undone (``tenure-undone``).
    4. Key and recovery hash are new, the key a point and not the recovery key (``key-reused``, ``bad-point``).
    5. It was not recovered too often (``too-many-recoveries``); the budget covers it (``budget-exhausted``).
    """
    draft.batch(body.batch)
    tenure = draft.tenure(body.batch, body.tenure)
    require(tenure.origin == body.tenure, "not-an-origin", f"tenure {body.tenure} is of origin {tenure.origin}")
    require(tenure.state is TenureState.ACTIVE, "not-accepted", f"tenure {body.tenure} is an offer")
    if hashlib.sha256(body.recovery_key).digest() != tenure.recovery:
        raise SignatureError("wrong-key", "not the recovery key that was committed to")
    draft.signed_by(body.recovery_key)
    before = tuple(time for time in (*tenure.recovered_before, tenure.recovered_at) if time)
    draft.sequence(len(before) + 1)
    standing = counting(body.tenure, draft.tenures(body.batch), draft.time)
    require(standing.number == body.tenure, "tenure-undone", f"a recovery undid the sale of tenure {body.tenure}")
    require(body.recovery != tenure.recovery and body.key != tenure.key, "key-reused", "both keys must be new")
    check_owner_key(body.key, body.recovery)
    require(len(before) < MAX_RECOVERIES, "too-many-recoveries", f"{MAX_RECOVERIES} already")
    work = debit(draft, body.batch)
    recovered = replace(
        tenure,
        key=body.key,
        recovery=body.recovery,
        sequence=0,
        recovered_at=draft.time,
        recovered_before=before,
        held=True,
    )
    draft.put(tenure_name(body.batch, body.tenure), recovered)
    return Outcome(body.batch, body.tenure, work)
