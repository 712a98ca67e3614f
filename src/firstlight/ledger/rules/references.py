"""Reference values: publish a set by its hash, revoke a set or whatever has a hash."""

from __future__ import annotations

from dataclasses import replace

from firstlight.ledger.draft import Draft, Outcome, require
from firstlight.ledger.records import (
    Reference,
    ReferenceStatus,
    Revocation,
    reference_name,
    revocation_name,
)
from firstlight.ledger.rules.parties import signed_by_manufacturer
from firstlight.ledger.transaction import PublishReference, Revoked, RevokeReference, SetName


def publish_reference(draft: Draft, body: PublishReference) -> Outcome:
    """Publish a reference-value set.

    1. An active manufacturer signed (:func:`signed_by_manufacturer`); it publishes under its own name only.
    2. Its validity does not end before it begins, nor has it ended (``bad-validity``).
    3. There is no set of that name yet (``reference-exists``).
    """
    signed_by_manufacturer(draft, body.party)
    valid = body.not_before <= body.not_after and draft.time <= body.not_after
    require(valid, "bad-validity", f"from {body.not_before} to {body.not_after}")
    name = reference_name(body.party, body.model, body.identifier)
    require(draft.find(name, Reference) is None, "reference-exists", name)
    record = Reference(body.digest, body.minimum_svn, body.not_before, body.not_after, ReferenceStatus.LIVE)
    draft.put(name, record)
    return Outcome(body.party)


def revoke_reference(draft: Draft, body: RevokeReference) -> Outcome:
    """Revoke a set, or a firmware digest, signer, device CA or vendor root by its hash.

    1. An active manufacturer signed (:func:`signed_by_manufacturer`); it revokes under its own name only.
    2. Exactly one thing is revoked (``wrong-target``).
    3. A set is known (``unknown-reference``); nothing is revoked twice (``already-revoked``).
    """
    signed_by_manufacturer(draft, body.party)
    if body.set is not None and body.revoked is None:
        _revoke_set(draft, body.party, body.set)
    elif body.revoked is not None and body.set is None:
        _revoke_hash(draft, body.party, body.revoked)
    else:
        require(False, "wrong-target", "exactly one of a set and a hash")
    return Outcome(body.party)


def _revoke_set(draft: Draft, party: bytes, named: SetName) -> None:
    name = reference_name(party, named.model, named.identifier)
    record = draft.find(name, Reference)
    if record is None:
        require(False, "unknown-reference", name)
        return
    require(record.status is ReferenceStatus.LIVE, "already-revoked", name)
    draft.put(name, replace(record, status=ReferenceStatus.REVOKED))


def _revoke_hash(draft: Draft, party: bytes, revoked: Revoked) -> None:
    name = revocation_name(party, revoked.digest)
    require(draft.find(name, Revocation) is None, "already-revoked", name)
    draft.put(name, Revocation(revoked.kind, draft.time))
