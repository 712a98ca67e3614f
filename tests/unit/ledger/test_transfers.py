from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from firstlight.ledger.records import MAX_RECOVERIES, TenureState, batch_name, tenure_name
from firstlight.ledger.rules.holding import TRANSACTION_WORK
from firstlight.ledger.rules.transfers import MAX_OFFER
from firstlight.ledger.transaction import Accept, Deploy, Offer, Recover, Unfreeze, Withdraw
from firstlight.testing.chains import P256Key
from firstlight.testing.ledgers import HOUR, World, digest
from firstlight.trees.ownership import Selection

BUYER, OTHER, THIEF = P256Key("buyer"), P256Key("other buyer"), P256Key("thief")
SECOND_KEY, SECOND_RECOVERY = P256Key("seller's second"), P256Key("seller's second recovery")


def offer_of(world: World, items: list[int], **change: Any) -> Offer:
    body = Offer(world.batch, 1, BUYER.public, world.ledger.time + HOUR, Selection.of(items))
    return replace(body, **change)


# --- offer ----------------------------------------------------------------------------------------


def test_an_offer_moves_the_indices_but_not_what_counts(world: World, seller: P256Key) -> None:
    ledger = world.ledger
    outcome = ledger.do(offer_of(world, [1, 2, 5]), seller)
    assert outcome.tenure == 2
    offered = ledger.tenure(world.batch, 2)
    assert (offered.state, offered.previous, offered.origin, offered.count) == (TenureState.OFFERED, 1, 2, 3)
    assert (offered.key, offered.offered_at, offered.expiry) == (BUYER.public, ledger.time, ledger.time + HOUR)
    assert (ledger.tenure(world.batch, 1).count, ledger.tenure(world.batch, 1).sequence) == (5, 1)
    assert ledger.owners(world.batch) == [1] * 8
    assert [ledger.standing(world.batch, index).offer for index in range(8)] == [0, 2, 2, 0, 0, 2, 0, 0]
    assert ledger.batch(world.batch).ownership == ledger.trie(world.batch).root


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"batch": bytes(16)}, "unknown-batch"),
        ({"tenure": 2}, "unknown-tenure"),
        ({"buyer": b"\x02" + b"\xff" * 32}, "bad-point"),
        ({"selection": Selection.of([8])}, "index-beyond-batch"),
        ({"selection": Selection.of([(0, 9)])}, "index-beyond-batch"),
    ],
)
def test_a_bad_offer_is_refused(world: World, seller: P256Key, change: dict[str, Any], code: str) -> None:
    assert world.ledger.refused(offer_of(world, [1], **change), seller) == code


def test_who_may_offer_and_until_when(world: World, seller: P256Key) -> None:
    ledger, now = world.ledger, world.ledger.time
    assert ledger.refused(offer_of(world, [1]), THIEF) == "wrong-key"
    assert ledger.refused(offer_of(world, [1]), seller, sequence=2) == "wrong-sequence"
    assert ledger.refused(offer_of(world, [1], buyer=seller.public), seller) == "buyer-is-seller"
    assert ledger.refused(offer_of(world, [1], expiry=now), seller) == "expiry-past"
    assert ledger.refused(offer_of(world, [1], expiry=now + MAX_OFFER + 1), seller) == "expiry-too-far"
    data = ledger.sign(offer_of(world, [1], expiry=now + MAX_OFFER), seller)
    assert ledger.apply(data).code == "ok"
    assert ledger.apply(data).code == "wrong-sequence"


def test_what_is_under_a_live_offer_is_offered_to_nobody_else(world: World, seller: P256Key) -> None:
    ledger = world.ledger
    ledger.do(offer_of(world, [1, 2]), seller)
    twice = offer_of(world, [2, 3], buyer=OTHER.public)
    assert ledger.refused(twice, seller) == "offer-live"
    ledger.time += HOUR
    again = ledger.do(replace(twice, expiry=ledger.time + HOUR), seller)
    assert ledger.tenure(world.batch, 2).count == 1
    assert ledger.tenure(world.batch, again.tenure).count == 2
    assert ledger.refused(Accept(world.batch, 2, bytes(32), 0), BUYER) == "offer-expired"
    ledger.accept(world.batch, again.tenure, OTHER)
    assert ledger.owners(world.batch) == [1, 1, 3, 3, 1, 1, 1, 1]


def test_nobody_offers_what_is_anothers(world: World, seller: P256Key) -> None:
    ledger = world.ledger
    ledger.sell(world.batch, 1, seller, BUYER, [1, 2])
    assert ledger.refused(offer_of(world, [2, 3]), seller) == "wrong-owner"
    ledger.time += HOUR
    theirs = Offer(world.batch, 2, OTHER.public, ledger.time + HOUR, Selection.of([2, 3]))
    assert ledger.refused(theirs, BUYER) == "wrong-owner"
    assert ledger.refused(replace(theirs, tenure=1, selection=Selection.of([3])), BUYER) == "wrong-key"


def test_nothing_is_offered_on_before_the_sellers_delay_has_passed(world: World, seller: P256Key) -> None:
    ledger = world.ledger
    ledger.sell(world.batch, 1, seller, BUYER, [1, 2])
    ledger.time += HOUR - 1
    on = Offer(world.batch, 2, OTHER.public, ledger.time + HOUR, Selection.of([2]))
    assert ledger.refused(on, BUYER) == "transfer-not-final"
    ledger.time += 1
    ledger.do(on, BUYER)


# --- accept ---------------------------------------------------------------------------------------


def test_accept_changes_its_tenure_and_the_budget_alone(world: World, seller: P256Key) -> None:
    ledger = world.ledger
    ledger.do(offer_of(world, [1, 2]), seller)
    before, budget = ledger.batch(world.batch), ledger.batch(world.batch).budget
    result = ledger.apply(ledger.sign(Accept(world.batch, 2, digest(b"r"), 60), BUYER))
    assert set(result.values) == {batch_name(world.batch), tenure_name(world.batch, 2)}
    assert ledger.batch(world.batch) == replace(before, budget=budget - TRANSACTION_WORK)
    taken = ledger.tenure(world.batch, 2)
    assert (taken.state, taken.sequence, taken.recovery, taken.delay) == (TenureState.ACTIVE, 1, digest(b"r"), 60)
    assert taken.accepted_at == ledger.time
    assert ledger.owners(world.batch) == [1, 2, 2, 1, 1, 1, 1, 1]
    assert not ledger.standing(world.batch, 1).deployed


def test_accept_is_the_buyers_alone_and_once(world: World, seller: P256Key) -> None:
    ledger = world.ledger
    ledger.do(offer_of(world, [1]), seller)
    body = Accept(world.batch, 2, bytes(32), 0)
    assert ledger.refused(body, seller, sequence=1) == "wrong-key"
    assert ledger.refused(body, OTHER) == "wrong-key"
    assert ledger.refused(body, BUYER, sequence=2) == "wrong-sequence"
    assert ledger.refused(replace(body, tenure=3), BUYER) == "unknown-tenure"
    assert ledger.refused(replace(body, batch=bytes(16)), BUYER) == "unknown-batch"
    assert ledger.refused(replace(body, tenure=1), BUYER) == "not-an-offer"
    assert ledger.refused(replace(body, recovery=digest(BUYER.public)), BUYER) == "key-reused"
    data = ledger.sign(body, BUYER)
    assert ledger.apply(data).code == "ok"
    assert ledger.apply(data).code == "wrong-sequence"
    assert ledger.refused(body, BUYER, sequence=2) == "already-accepted"


def test_an_offer_ends_with_its_expiry_to_the_second(world: World, seller: P256Key) -> None:
    ledger = world.ledger
    ledger.do(offer_of(world, [1]), seller)
    ledger.time += HOUR
    assert ledger.refused(Accept(world.batch, 2, bytes(32), 0), BUYER) == "offer-expired"
    ledger.time -= 1
    ledger.accept(world.batch, 2, BUYER)


def test_a_buyer_signs_nothing_before_he_has_accepted(world: World, seller: P256Key) -> None:
    ledger = world.ledger
    ledger.do(offer_of(world, [1]), seller)
    assert ledger.refused(Deploy(world.batch, 2, bytes(32), None), BUYER) == "not-accepted"
    on = Offer(world.batch, 2, OTHER.public, ledger.time + HOUR, Selection.of([1]))
    assert ledger.refused(on, BUYER) == "not-accepted"


# --- withdraw -------------------------------------------------------------------------------------


def test_withdraw(world: World, seller: P256Key) -> None:
    ledger = world.ledger
    ledger.do(offer_of(world, [1]), seller)
    body = Withdraw(world.batch, 2)
    assert ledger.refused(body, BUYER) == "wrong-key"
    assert ledger.refused(body, seller, sequence=1) == "wrong-sequence"
    assert ledger.refused(Withdraw(world.batch, 3), seller) == "unknown-tenure"
    assert ledger.refused(Withdraw(world.batch, 1), seller) == "not-an-offer"
    ledger.do(body, seller)
    assert ledger.tenure(world.batch, 2).state is TenureState.WITHDRAWN
    assert ledger.refused(body, seller) == "offer-ended"
    assert ledger.refused(Accept(world.batch, 2, bytes(32), 0), BUYER) == "offer-ended"
    assert ledger.owners(world.batch) == [1] * 8
    assert ledger.offer(world.batch, 1, seller, OTHER, [1]) == 3


def test_what_has_been_accepted_or_has_expired_is_not_withdrawn(world: World, seller: P256Key) -> None:
    ledger = world.ledger
    ledger.sell(world.batch, 1, seller, BUYER, [1])
    assert ledger.refused(Withdraw(world.batch, 2), seller) == "already-accepted"
    ledger.offer(world.batch, 1, seller, BUYER, [2])
    ledger.time += HOUR
    assert ledger.refused(Withdraw(world.batch, 3), seller) == "offer-expired"


# --- recovery -------------------------------------------------------------------------------------


def recovery_of(world: World, recovery: P256Key, **change: Any) -> Recover:
    body = Recover(world.batch, 1, recovery.public, SECOND_KEY.public, digest(SECOND_RECOVERY.public))
    return replace(body, **change)


def test_recovery_takes_the_origin_back_from_a_thief(world: World, seller: P256Key, recovery: P256Key) -> None:
    """A thief with the tenure's key sells to himself; the owner's recovery undoes it, and ends what is on offer."""
    ledger = world.ledger
    stolen = ledger.sell(world.batch, 1, seller, THIEF, [1, 2])
    pending = ledger.offer(world.batch, 1, seller, OTHER, [3])
    ledger.do(Deploy(world.batch, stolen, bytes(32), Selection.of([2])), THIEF)
    assert ledger.owners(world.batch) == [1, 2, 4, 1, 1, 1, 1, 1]
    ledger.time += HOUR - 1
    ledger.do(recovery_of(world, recovery), recovery)
    assert ledger.owners(world.batch) == [1] * 8
    assert ledger.standing(world.batch, 0).state is TenureState.FROZEN
    assert ledger.refused(Accept(world.batch, pending, bytes(32), 0), OTHER) == "offer-ended"
    assert ledger.refused(Deploy(world.batch, stolen, bytes(32), None), THIEF) == "tenure-undone"
    assert ledger.refused(offer_of(world, [0]), seller) == "wrong-key"
    assert ledger.refused(offer_of(world, [0]), SECOND_KEY) == "tenure-held"
    assert ledger.refused(Deploy(world.batch, 1, bytes(32), None), SECOND_KEY) == "tenure-held"
    ledger.do(Unfreeze(world.batch, 1, None), SECOND_KEY)
    assert ledger.refused(offer_of(world, [1]), SECOND_KEY) == "recovered-just-now"
    ledger.time += 1
    number = ledger.sell(world.batch, 1, SECOND_KEY, OTHER, [1, 2, 3])
    assert ledger.owners(world.batch) == [1, number, number, number, 1, 1, 1, 1]
    assert [ledger.tenure(world.batch, one).count for one in (stolen, pending, number)] == [0, 0, 3]


def test_a_transfer_older_than_the_delay_stands(world: World, seller: P256Key, recovery: P256Key) -> None:
    ledger = world.ledger
    ledger.sell(world.batch, 1, seller, BUYER, [1, 2])
    ledger.time += HOUR
    ledger.do(recovery_of(world, recovery), recovery)
    assert ledger.owners(world.batch) == [1, 2, 2, 1, 1, 1, 1, 1]
    ledger.do(Deploy(world.batch, 2, bytes(32), None), BUYER)


def test_who_may_recover(world: World, seller: P256Key, recovery: P256Key) -> None:
    ledger = world.ledger
    body = recovery_of(world, recovery)
    assert ledger.refused(body, seller, sequence=1) == "wrong-key"
    assert ledger.refused(replace(body, recovery_key=seller.public), seller) == "wrong-key"
    assert ledger.refused(body, recovery, sequence=2) == "wrong-sequence"
    assert ledger.refused(replace(body, key=seller.public), recovery) == "key-reused"
    assert ledger.refused(replace(body, recovery=digest(recovery.public)), recovery) == "key-reused"
    assert ledger.refused(replace(body, recovery=digest(body.key)), recovery) == "key-reused"
    assert ledger.refused(replace(body, key=b"\x02" + b"\xff" * 32), recovery) == "bad-point"
    assert ledger.refused(replace(body, tenure=9), recovery) == "unknown-tenure"
    split = ledger.deploy(world.batch, 1, seller, bytes(32), [1])
    assert ledger.refused(replace(body, tenure=split), recovery) == "not-an-origin"
    pending = ledger.offer(world.batch, 1, seller, BUYER, [2])
    assert ledger.refused(replace(body, tenure=pending), recovery) == "not-accepted"
    data = ledger.sign(body, recovery)
    assert ledger.apply(data).code == "ok"
    assert ledger.apply(data).code == "wrong-key"


def test_an_old_recovery_does_not_come_back_with_its_hash(world: World, recovery: P256Key) -> None:
    ledger = world.ledger
    first = ledger.sign(recovery_of(world, recovery), recovery, sequence=1)
    assert ledger.apply(first).code == "ok"
    back = Recover(world.batch, 1, SECOND_RECOVERY.public, OTHER.public, digest(recovery.public))
    ledger.do(back, SECOND_RECOVERY, sequence=2)
    assert ledger.apply(first).code == "wrong-sequence"


def test_a_buyer_whose_purchase_was_undone_recovers_nothing(world: World, seller: P256Key, recovery: P256Key) -> None:
    ledger = world.ledger
    ledger.sell(world.batch, 1, seller, THIEF, [1], recovery=digest(OTHER.public))
    ledger.do(recovery_of(world, recovery), recovery)
    body = Recover(world.batch, 2, OTHER.public, BUYER.public, bytes(32))
    assert ledger.refused(body, OTHER) == "tenure-undone"


def test_recoveries_are_counted_and_none_brings_back_what_another_undid(
    world: World, seller: P256Key, recovery: P256Key
) -> None:
    ledger = world.ledger
    ledger.sell(world.batch, 1, seller, THIEF, [1])
    keys = [recovery, *(P256Key(f"recovery {one}") for one in range(MAX_RECOVERIES + 1))]
    for one in range(MAX_RECOVERIES):
        key = P256Key(f"key {one}").public
        body = Recover(world.batch, 1, keys[one].public, key, digest(keys[one + 1].public))
        ledger.do(body, keys[one], sequence=one + 1)
        ledger.time += 10 * HOUR
        assert ledger.owners(world.batch) == [1] * 8
    last = Recover(world.batch, 1, keys[-2].public, BUYER.public, digest(keys[-1].public))
    assert ledger.refused(last, keys[-2], sequence=MAX_RECOVERIES + 1) == "too-many-recoveries"


def test_a_recovery_and_a_transfer_in_the_same_second(world: World, seller: P256Key, recovery: P256Key) -> None:
    """Equal times mean that the transfer came first: after a recovery nothing can be offered in its second."""
    ledger = world.ledger
    ledger.sell(world.batch, 1, seller, BUYER, [1])
    ledger.do(recovery_of(world, recovery), recovery)
    assert ledger.owners(world.batch) == [1] * 8
