from __future__ import annotations

from dataclasses import replace

from firstlight.ledger.records import TenureState, batch_name
from firstlight.ledger.rules import apply
from firstlight.ledger.rules.holding import TRANSACTION_WORK
from firstlight.ledger.transaction import Accept, AddBudget, Deploy, Freeze, Offer, Recover, Retire, Unfreeze
from firstlight.testing.chains import P256Key
from firstlight.testing.ledgers import HOUR, World, digest
from firstlight.trees.ownership import Selection

BUYER, THIEF = P256Key("buyer"), P256Key("thief")
PLAN, PLAN_2 = digest(b"plan 1"), digest(b"plan 2")
SOME = Selection.of([1, 2])


# --- deploy ---------------------------------------------------------------------------------------


def test_deploy_sets_the_plan_and_counts_its_revisions(world: World, seller: P256Key) -> None:
    ledger = world.ledger
    assert not ledger.standing(world.batch, 0).deployed
    assert ledger.deploy(world.batch, 1, seller, PLAN) == 1
    assert ledger.deploy(world.batch, 1, seller, PLAN_2) == 1
    standing = ledger.standing(world.batch, 0)
    assert (standing.plan, standing.plan_revision, standing.deployed) == (PLAN_2, 2, True)


def test_deploy_with_a_selection_splits(world: World, seller: P256Key) -> None:
    ledger = world.ledger
    ledger.deploy(world.batch, 1, seller, PLAN)
    number = ledger.deploy(world.batch, 1, seller, PLAN_2, [1, 2])
    split = ledger.tenure(world.batch, number)
    assert (split.state, split.previous, split.origin, split.count) == (TenureState.ACTIVE, 1, 1, 2)
    assert (split.plan, split.plan_revision, split.key) == (PLAN_2, 1, None)
    assert ledger.owners(world.batch) == [1, 2, 2, 1, 1, 1, 1, 1]
    assert ledger.tenure(world.batch, 1).count == 6
    again = ledger.deploy(world.batch, number, seller, PLAN, [2])
    assert (ledger.tenure(world.batch, again).previous, ledger.tenure(world.batch, again).origin) == (number, 1)
    assert ledger.tenure(world.batch, 1).sequence == 3


def test_who_may_deploy_and_what(world: World, seller: P256Key) -> None:
    ledger = world.ledger
    body = Deploy(world.batch, 1, PLAN, SOME)
    assert ledger.refused(body, THIEF) == "wrong-key"
    assert ledger.refused(Deploy(world.batch, 2, PLAN, None), seller) == "unknown-tenure"
    assert ledger.refused(Deploy(world.batch, 1, PLAN, Selection.of([7, 8])), seller) == "index-beyond-batch"
    pending = ledger.offer(world.batch, 1, seller, BUYER, [1])
    assert ledger.refused(body, seller) == "offer-live"
    ledger.deploy(world.batch, 1, seller, PLAN)
    assert ledger.standing(world.batch, 1).plan == PLAN
    ledger.withdraw(world.batch, pending, seller)
    assert ledger.deploy(world.batch, 1, seller, PLAN, [1, 2]) == 3
    assert (ledger.tenure(world.batch, pending).count, ledger.tenure(world.batch, 1).count) == (0, 6)


def test_a_split_is_sold_by_its_origins_key(world: World, seller: P256Key) -> None:
    ledger = world.ledger
    split = ledger.deploy(world.batch, 1, seller, PLAN, [1, 2])
    sold = ledger.sell(world.batch, split, seller, BUYER, [2])
    assert ledger.owners(world.batch) == [1, split, sold, 1, 1, 1, 1, 1]
    crossing = Offer(world.batch, split, BUYER.public, ledger.time + HOUR, Selection.of([0, 1]))
    assert ledger.refused(crossing, seller) == "wrong-owner"


# --- freeze, unfreeze, retire ---------------------------------------------------------------------


def test_freeze_and_unfreeze(world: World, seller: P256Key) -> None:
    ledger = world.ledger
    root = ledger.batch(world.batch).ownership
    frozen = ledger.do(Freeze(world.batch, 1, SOME), seller).tenure
    assert ledger.standing(world.batch, 1).state is TenureState.FROZEN
    assert (ledger.tenure(world.batch, frozen).count, ledger.tenure(world.batch, 1).count) == (2, 6)
    assert ledger.refused(Freeze(world.batch, frozen, SOME), seller) == "tenure-frozen"
    assert ledger.refused(Deploy(world.batch, frozen, PLAN, None), seller) == "tenure-frozen"
    offer = Offer(world.batch, frozen, BUYER.public, ledger.time + HOUR, SOME)
    assert ledger.refused(offer, seller) == "tenure-frozen"
    assert ledger.refused(Unfreeze(world.batch, frozen, SOME), THIEF) == "wrong-key"
    assert ledger.refused(Unfreeze(world.batch, frozen, Selection.of([2, 3])), seller) == "wrong-owner"
    assert ledger.refused(Unfreeze(world.batch, 1, SOME), seller) == "tenure-active"
    assert ledger.refused(Unfreeze(world.batch, 1, None), seller) == "not-held"
    outcome = ledger.do(Unfreeze(world.batch, frozen, SOME), seller)
    assert outcome.tenure == 1
    assert (ledger.tenure(world.batch, frozen).count, ledger.tenure(world.batch, 1).count) == (0, 8)
    assert ledger.batch(world.batch).ownership == root


def test_retired_is_final(world: World, seller: P256Key) -> None:
    ledger = world.ledger
    frozen = ledger.do(Freeze(world.batch, 1, SOME), seller).tenure
    retired = ledger.do(Retire(world.batch, frozen, Selection.of([1])), seller).tenure
    also = ledger.do(Retire(world.batch, 1, Selection.of([5])), seller).tenure
    assert [ledger.standing(world.batch, one).state for one in (1, 2, 5)] == [
        TenureState.RETIRED,
        TenureState.FROZEN,
        TenureState.RETIRED,
    ]
    for number in (retired, also):
        some = Selection.of([1])
        assert ledger.refused(Unfreeze(world.batch, number, some), seller) == "tenure-retired"
        assert ledger.refused(Freeze(world.batch, number, some), seller) == "tenure-retired"
        assert ledger.refused(Retire(world.batch, number, some), seller) == "tenure-retired"
        assert ledger.refused(Deploy(world.batch, number, PLAN, None), seller) == "tenure-retired"
        offer = Offer(world.batch, number, BUYER.public, ledger.time + HOUR, some)
        assert ledger.refused(offer, seller) == "tenure-retired"


def test_what_is_under_a_live_offer_is_not_frozen_or_retired(world: World, seller: P256Key) -> None:
    ledger = world.ledger
    ledger.offer(world.batch, 1, seller, BUYER, [1])
    assert ledger.refused(Freeze(world.batch, 1, SOME), seller) == "offer-live"
    assert ledger.refused(Retire(world.batch, 1, SOME), seller) == "offer-live"
    ledger.time += HOUR
    ledger.do(Freeze(world.batch, 1, SOME), seller)


def test_a_held_origin_is_released_as_a_whole(world: World, seller: P256Key, recovery: P256Key) -> None:
    ledger, key = world.ledger, P256Key("new key")
    split = ledger.deploy(world.batch, 1, seller, PLAN, [1, 2])
    frozen = ledger.do(Freeze(world.batch, 1, Selection.of([3])), seller).tenure
    body = Recover(world.batch, 1, recovery.public, key.public, digest(b"other"))
    ledger.do(body, recovery)
    assert {ledger.standing(world.batch, index).state for index in range(8)} == {TenureState.FROZEN}
    assert ledger.refused(Unfreeze(world.batch, split, None), key) == "not-an-origin"
    assert ledger.refused(Unfreeze(world.batch, frozen, Selection.of([3])), key) == "tenure-held"
    assert ledger.refused(Unfreeze(world.batch, 1, None), seller) == "wrong-key"
    ledger.do(Unfreeze(world.batch, 1, None), key)
    assert ledger.standing(world.batch, 1).deployed
    assert ledger.standing(world.batch, 3).state is TenureState.FROZEN


# --- budgets and caps -----------------------------------------------------------------------------


def spend(world: World, left: int) -> None:
    """Leave so much of the batch's budget."""
    batch = world.ledger.batch(world.batch)
    record = replace(batch, budget=left)
    world.ledger.state = world.ledger.state.changed({batch_name(world.batch): record.encode()}, {})


def test_work_is_debited(world: World, seller: P256Key) -> None:
    before = world.ledger.batch(world.batch).budget
    outcome = world.ledger.do(Deploy(world.batch, 1, PLAN, Selection.of([0])), seller)
    assert outcome.work == TRANSACTION_WORK + Selection.of([0]).nodes(3)
    assert world.ledger.batch(world.batch).budget == before - outcome.work


def test_without_budget_nothing_goes_until_a_member_adds_to_it(world: World, seller: P256Key) -> None:
    ledger = world.ledger
    ledger.offer(world.batch, 1, seller, BUYER, [1])
    spend(world, TRANSACTION_WORK - 1)
    body = Deploy(world.batch, 1, PLAN, None)
    assert ledger.refused(body, seller) == "budget-exhausted"
    assert ledger.refused(Accept(world.batch, 2, bytes(32), 0), BUYER) == "budget-exhausted"
    ledger.do(AddBudget(world.batch, 1), ledger.consortium.roots[0], sequence=1)
    ledger.do(body, seller)
    assert ledger.batch(world.batch).budget == 0


def test_one_transaction_has_a_cap(world: World, maker: P256Key, seller: P256Key) -> None:
    ledger = world.ledger
    party, size = world.party, 2**32 - 1
    batch = ledger.anchor(maker, party, P256Key("second"), size=size, leaves=digest(b"2"))
    assert ledger.do(Deploy(batch, 1, PLAN, Selection.of([(1, size - 2)])), P256Key("second")).work < 200
    too_much = Selection.of((2**14 * one + 1, 2) for one in range(2**18))
    assert ledger.refused(Deploy(batch, 2, PLAN, too_much), P256Key("second")) == "too-much-work"


def test_the_same_history_makes_the_same_state(world: World, seller: P256Key) -> None:
    ledger = world.ledger
    data = ledger.sign(Deploy(world.batch, 1, PLAN, SOME), seller)
    first, one = apply(ledger.state, data, 7, ledger.time)
    second, two = apply(ledger.state, data, 7, ledger.time)
    assert (first.root, one.outcome, one.values) == (second.root, two.outcome, two.values)
