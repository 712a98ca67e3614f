from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from firstlight.ledger.records import Role, TenureState, batch_id
from firstlight.ledger.rules.holding import BUDGET_BASE, BUDGET_MAX, BUDGET_PER_DEVICE
from firstlight.ledger.transaction import AddBudget
from firstlight.testing.chains import P256Key
from firstlight.testing.ledgers import MODEL, World, anchor_batch, digest

OWNER = P256Key("owner")


def test_anchor_batch(world: World, maker: P256Key) -> None:
    body = anchor_batch(world.party, OWNER.public, size=1000, leaves=digest(b"leaves"), delay=60)
    outcome = world.ledger.do(body, maker)
    assert outcome.subject == batch_id(world.ledger.consortium.chain, world.party, 1000, MODEL, digest(b"leaves"))
    assert outcome.tenure == 1
    batch, tenure = world.ledger.batch(outcome.subject), world.ledger.tenure(outcome.subject, 1)
    assert (batch.size, batch.tenures, batch.budget) == (1000, 1, BUDGET_BASE + 1000 * BUDGET_PER_DEVICE)
    assert batch.ownership == world.ledger.trie(outcome.subject).root
    assert (tenure.state, tenure.count, tenure.origin, tenure.previous) == (TenureState.ACTIVE, 1000, 1, 0)
    assert (tenure.delay, tenure.accepted_at, tenure.sequence) == (60, world.ledger.time, 0)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"key": b"\x02" + b"\xff" * 32}, "bad-point"),
        ({"recovery": digest(OWNER.public)}, "key-reused"),
        ({"trust_anchors": (b"\x01" * 32, b"\x00" * 32)}, "not-ascending"),
        ({"trust_anchors": (b"\x01" * 32, b"\x01" * 32)}, "not-ascending"),
        ({"reference_issuers": (bytes(16),)}, "unknown-party"),
        ({"party": bytes(16)}, "unknown-party"),
        ({"leaves": bytes(32), "size": 8}, "batch-exists"),
    ],
)
def test_a_bad_batch_is_refused(world: World, maker: P256Key, change: dict[str, Any], code: str) -> None:
    body = anchor_batch(world.party, OWNER.public, size=9)
    assert world.ledger.refused(replace(body, **change), maker) == code


def test_only_a_manufacturer_anchors_and_only_for_itself(world: World, maker: P256Key) -> None:
    mno = P256Key("mno")
    party = world.ledger.register(mno, Role.MNO)
    assert world.ledger.refused(anchor_batch(party, OWNER.public, size=9), mno) == "wrong-role"
    assert world.ledger.refused(anchor_batch(world.party, OWNER.public, size=9), mno) == "wrong-key"
    assert world.ledger.refused(anchor_batch(world.party, OWNER.public, size=9), maker, sequence=9) == "wrong-sequence"


def test_add_budget(world: World, seller: P256Key) -> None:
    member = world.ledger.consortium.roots[0]
    before = world.ledger.batch(world.batch).budget
    body = AddBudget(world.batch, 100)
    assert world.ledger.refused(body, seller, sequence=1) == "wrong-key"
    assert world.ledger.refused(AddBudget(bytes(16), 100), member, sequence=1) == "unknown-batch"
    assert world.ledger.refused(body, member, sequence=2) == "wrong-sequence"
    data = world.ledger.sign(body, member, sequence=1)
    assert world.ledger.apply(data).code == "ok"
    assert world.ledger.apply(data).code == "wrong-sequence"
    assert (world.ledger.batch(world.batch).budget, world.ledger.batch(world.batch).grants) == (before + 100, 1)
    for number in range(2, 6):
        world.ledger.do(AddBudget(world.batch, 2**48 - 2**20), member, sequence=number)
    assert world.ledger.refused(AddBudget(world.batch, 2**48), member, sequence=6) == "budget-too-large"
    assert world.ledger.batch(world.batch).budget <= BUDGET_MAX
