from __future__ import annotations

from dataclasses import replace

import pytest

from firstlight.ledger.records import (
    Reference,
    ReferenceStatus,
    Revocation,
    RevocationKind,
    Role,
    reference_name,
    revocation_name,
)
from firstlight.ledger.transaction import PublishReference, Revoked, RevokeReference, SetName
from firstlight.testing.chains import GENESIS, P256Key
from firstlight.testing.ledgers import MODEL, World, digest

SET = bytes(range(16))


def publication(party: bytes) -> PublishReference:
    return PublishReference(party, MODEL, SET, digest(b"corim"), 3, GENESIS - 10, GENESIS + 10_000)


def test_publish_and_revoke_a_set(world: World, maker: P256Key) -> None:
    ledger = world.ledger
    name = reference_name(world.party, MODEL, SET)
    ledger.do(publication(world.party), maker)
    record = ledger.state.read(name, Reference)
    assert record == Reference(digest(b"corim"), 3, GENESIS - 10, GENESIS + 10_000, ReferenceStatus.LIVE)
    assert ledger.refused(publication(world.party), maker) == "reference-exists"
    revoke = RevokeReference(world.party, SetName(MODEL, SET), None)
    ledger.do(revoke, maker)
    assert ledger.state.read(name, Reference) == replace(record, status=ReferenceStatus.REVOKED)
    assert ledger.refused(revoke, maker) == "already-revoked"
    assert ledger.refused(publication(world.party), maker) == "reference-exists"


@pytest.mark.parametrize("kind", list(RevocationKind))
def test_revoke_by_hash(world: World, maker: P256Key, kind: RevocationKind) -> None:
    body = RevokeReference(world.party, None, Revoked(kind, digest(b"bad")))
    world.ledger.do(body, maker)
    found = world.ledger.state.read(revocation_name(world.party, digest(b"bad")), Revocation)
    assert found == Revocation(kind, world.ledger.time)
    assert world.ledger.refused(body, maker) == "already-revoked"


def test_what_does_not_hold_together_is_refused(world: World, maker: P256Key) -> None:
    ledger, good = world.ledger, publication(world.party)
    assert ledger.refused(replace(good, not_after=GENESIS - 11), maker) == "bad-validity"
    assert ledger.refused(replace(good, not_before=0, not_after=GENESIS - 1), maker) == "bad-validity"
    assert ledger.refused(RevokeReference(world.party, None, None), maker) == "wrong-target"
    both = RevokeReference(world.party, SetName(MODEL, SET), Revoked(RevocationKind.SIGNER, bytes(32)))
    assert ledger.refused(both, maker) == "wrong-target"
    assert ledger.refused(RevokeReference(world.party, SetName(MODEL, SET), None), maker) == "unknown-reference"


def test_nobody_publishes_or_revokes_under_another_name(world: World, maker: P256Key) -> None:
    other, operator = P256Key("other"), P256Key("operator")
    theirs = world.ledger.register(other)
    mno = world.ledger.register(operator, Role.MNO)
    world.ledger.do(publication(world.party), maker)
    assert world.ledger.refused(publication(world.party), other) == "wrong-key"
    assert world.ledger.refused(RevokeReference(world.party, SetName(MODEL, SET), None), other) == "wrong-key"
    assert world.ledger.refused(RevokeReference(theirs, SetName(MODEL, SET), None), other) == "unknown-reference"
    assert world.ledger.refused(publication(mno), operator) == "wrong-role"
