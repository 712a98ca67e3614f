"""Batches: anchor one, and add to its work budget."""

from __future__ import annotations

import hashlib

from firstlight import p256
from firstlight.errors import SignatureError
from firstlight.ledger.draft import Draft, Outcome, check_point, require
from firstlight.ledger.records import (
    Batch,
    Party,
    Tenure,
    TenureState,
    batch_id,
    batch_name,
    party_name,
    tenure_name,
)
from firstlight.ledger.rules.holding import BUDGET_BASE, BUDGET_MAX, BUDGET_PER_DEVICE
from firstlight.ledger.rules.parties import signed_by_manufacturer, strictly_ascending
from firstlight.ledger.transaction import AddBudget, AnchorBatch
from firstlight.trees.ownership import Trie


def anchor_batch(draft: Draft, body: AnchorBatch) -> Outcome:
    """Anchor a batch and give all of it to tenure 1.

    1. An active manufacturer signed (:func:`signed_by_manufacturer`).
    2. There is no such batch yet (``batch-exists``).
    3. Tenure 1's key is a point (``bad-point``) and not its own recovery key (``key-reused``).
    4. Trust anchors and reference issuers ascend, each once (``not-ascending``), and the issuers are registered
       (``unknown-party``).
    """
    signed_by_manufacturer(draft, body.party)
    batch = batch_id(draft.chain, body.party, body.size, body.model, body.leaves)
    require(draft.find(batch_name(batch), Batch) is None, "batch-exists", batch.hex())
    check_owner_key(body.key, body.recovery)
    for items in (body.trust_anchors, body.reference_issuers):
        require(strictly_ascending(items), "not-ascending", "anchors or issuers do not ascend, each once")
    for issuer in body.reference_issuers:
        require(draft.find(party_name(issuer), Party) is not None, "unknown-party", issuer.hex())
    trie = Trie.uniform(body.size, 1)
    record = Batch(
        issuer=body.party,
        size=body.size,
        model=body.model,
        leaves=body.leaves,
        ownership=trie.root,
        trust_anchors=body.trust_anchors,
        reference_issuers=body.reference_issuers,
        budget=BUDGET_BASE + BUDGET_PER_DEVICE * body.size,
        tenures=1,
    )
    draft.put_trie(batch, trie)
    draft.put(batch_name(batch), record)
    draft.put(tenure_name(batch, 1), _first_tenure(body, draft.time))
    return Outcome(batch, 1)


def add_budget(draft: Draft, body: AddBudget) -> Outcome:
    """Add to a batch's work budget.

    1. The batch exists (``unknown-batch``).
    2. A root key in force signed (``wrong-key``, ``bad-signature``); the sequence is the number of this grant
       (``wrong-sequence``).
    3. The budget stays below its ceiling (``budget-too-large``).
    """
    batch = draft.batch(body.batch)
    members = {p256.kid(key): key for key in draft.root().keys}
    signer = members.get(draft.transaction.signed.signatures[0].kid)
    if signer is None:
        raise SignatureError("wrong-key", "no member of the consortium signed")
    draft.signed_by(signer)
    draft.sequence(batch.grants + 1)
    require(batch.budget + body.amount <= BUDGET_MAX, "budget-too-large", f"more than {BUDGET_MAX} nodes")
    draft.change_batch(body.batch, budget=batch.budget + body.amount, grants=batch.grants + 1)
    return Outcome(body.batch)


def check_owner_key(key: bytes, recovery: bytes) -> None:
    """Check an owner's key beside the hash of his recovery key; ``bad-point``, ``key-reused``."""
    check_point(key)
    require(hashlib.sha256(key).digest() != recovery, "key-reused", "the tenure's key is its own recovery key")


def _first_tenure(body: AnchorBatch, time: int) -> Tenure:
    return Tenure(
        state=TenureState.ACTIVE,
        previous=0,
        origin=1,
        count=body.size,
        plan=None,
        plan_revision=0,
        key=body.key,
        sequence=0,
        recovery=body.recovery,
        delay=body.delay,
        offered_at=0,
        expiry=0,
        accepted_at=time,
        recovered_at=0,
        held=False,
    )
