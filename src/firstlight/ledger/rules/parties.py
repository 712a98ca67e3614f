"""Parties: register, update, suspend."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from firstlight.errors import SignatureError
from firstlight.ledger.draft import Draft, Outcome, check_point, require
from firstlight.ledger.records import Party, PartyStatus, Role, party_id, party_name
from firstlight.ledger.transaction import RegisterParty, SuspendParty, UpdateParty


def register_party(draft: Draft, body: RegisterParty) -> Outcome:
    """Register a party.

    1. Its key is a point (``bad-point``) and no root key (``key-is-root``).
    2. It signed (``not-possessed``), a member's root key signed (``not-endorsed``), and nobody else (``unknown-key``,
       ``bad-signature``), with sequence 1 (``wrong-sequence``).
    3. It is not registered yet (``party-exists``).
    4. Roles ascend, each once (``bad-roles``); the key that follows is another (``key-reused``); the key-agreement
       key is a point and does not sign as well (``bad-point``, ``key-reused``).
    """
    check_point(body.key)
    require(body.key not in draft.root().keys, "key-is-root", "a root key cannot be a party's")
    draft.signed_by_root(1, body.key)
    draft.sequence(1)
    party = party_id(body.key)
    require(draft.find(party_name(party), Party) is None, "party-exists", party.hex())
    require(list(body.roles) == sorted(set(body.roles)), "bad-roles", "roles do not ascend, each once")
    _check_keys(body.key, body.next_key_hash, body.agreement_key)
    record = Party(
        revision=1,
        sequence=1,
        roles=body.roles,
        key=body.key,
        next_key_hash=body.next_key_hash,
        agreement_key=body.agreement_key,
        endpoints=body.endpoints,
        status=PartyStatus.ACTIVE,
    )
    draft.put(party_name(party), record)
    return Outcome(party)


def update_party(draft: Draft, body: UpdateParty) -> Outcome:
    """Change a party's key-agreement key and endpoints and, with a rotation, its key.

    1. The party exists (``unknown-party``).
    2. Its key signed, with the next sequence; or the key that its last record committed to by hash signed, as that
       key's sequence 1 (``wrong-key``, ``bad-signature``, ``wrong-sequence``).
    3. It is not suspended (``party-suspended``), and this makes the next revision (``wrong-revision``).
    4. Keys as in a registration (``bad-point``, ``key-reused``).
    """
    party = draft.party(body.party)
    key, following, sequence = party.key, party.next_key_hash, party.sequence + 1
    if body.rotation is not None:
        if hashlib.sha256(body.rotation.key).digest() != party.next_key_hash:
            raise SignatureError("wrong-key", "not the key that was committed to")
        key, following, sequence = body.rotation.key, body.rotation.next_key_hash, 1
    draft.signed_by(key)
    draft.sequence(sequence)
    require(party.status is PartyStatus.ACTIVE, "party-suspended", body.party.hex())
    require(body.revision == party.revision + 1, "wrong-revision", f"the party is at revision {party.revision}")
    _check_keys(key, following, body.agreement_key)
    changed = replace(
        party,
        revision=body.revision,
        sequence=sequence,
        key=key,
        next_key_hash=following,
        agreement_key=body.agreement_key,
        endpoints=body.endpoints,
    )
    draft.put(party_name(body.party), changed)
    return Outcome(body.party)


def suspend_party(draft: Draft, body: SuspendParty) -> Outcome:
    """Set whether a party counts.

    1. The party exists (``unknown-party``).
    2. m root keys signed, and nobody else (``not-endorsed``, ``unknown-key``, ``bad-signature``); the sequence is the
       revision that this makes (``wrong-sequence``).
    3. It changes something (``nothing-to-change``).
    """
    party = draft.party(body.party)
    draft.signed_by_root(draft.root().threshold)
    draft.sequence(party.revision + 1)
    require(party.status is not body.status, "nothing-to-change", f"the party is {party.status.name.lower()} already")
    draft.put(party_name(body.party), replace(party, revision=party.revision + 1, status=body.status))
    return Outcome(body.party)


def signed_by_manufacturer(draft: Draft, party: bytes) -> None:
    """Check that an active manufacturer signed, and count its sequence.

    1. The party exists (``unknown-party``).
    2. Its key signed (``wrong-key``, ``bad-signature``), with the next sequence (``wrong-sequence``).
    3. It is not suspended (``party-suspended``), 4. and a manufacturer (``wrong-role``).
    """
    record = draft.party(party)
    draft.signed_by(record.key)
    draft.sequence(record.sequence + 1)
    require(record.status is PartyStatus.ACTIVE, "party-suspended", party.hex())
    require(Role.MANUFACTURER in record.roles, "wrong-role", "not a manufacturer")
    draft.put(party_name(party), replace(record, sequence=record.sequence + 1))


def strictly_ascending(items: Sequence[bytes]) -> bool:
    """Return whether the items ascend, each once."""
    return list(items) == sorted(set(items))


def _check_keys(key: bytes, next_key_hash: bytes, agreement_key: bytes | None) -> None:
    check_point(key)
    require(hashlib.sha256(key).digest() != next_key_hash, "key-reused", "the next key is the current one")
    if agreement_key is not None:
        check_point(agreement_key)
        require(agreement_key != key, "key-reused", "one key for signing and for key agreement")
