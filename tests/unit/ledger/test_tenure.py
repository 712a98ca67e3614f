from __future__ import annotations

from dataclasses import replace

import pytest

from firstlight.errors import ProofError
from firstlight.ledger.records import Tenure, TenureState
from firstlight.ledger.tenure import counted, counting, needed

BASE = Tenure(
    state=TenureState.ACTIVE,
    previous=0,
    origin=1,
    count=1,
    plan=None,
    plan_revision=0,
    key=b"\x02" + bytes(32),
    sequence=0,
    recovery=bytes(32),
    delay=100,
    offered_at=0,
    expiry=0,
    accepted_at=1_000,
    recovered_at=0,
    held=False,
)
OFFER = replace(BASE, state=TenureState.OFFERED, previous=1, origin=2, offered_at=2_000, expiry=2_500, accepted_at=0)
SOLD = replace(OFFER, state=TenureState.ACTIVE, accepted_at=2_100, delay=7)


def test_an_origin_counts_as_itself() -> None:
    standing = counting(1, {1: BASE}, 1_000)
    assert (standing.number, standing.origin, standing.state, standing.offer) == (1, 1, TenureState.ACTIVE, 0)
    assert standing.final_at == 1_000
    assert not standing.deployed


@pytest.mark.parametrize(("time", "offer"), [(2_000, 2), (2_499, 2), (2_500, 0), (9_999, 0)])
def test_an_offer_counts_as_what_was_offered_whether_live_or_not(time: int, offer: int) -> None:
    standing = counting(2, {1: BASE, 2: OFFER}, time)
    assert (standing.number, standing.offer) == (1, offer)


def test_a_withdrawn_offer_is_not_live() -> None:
    standing = counting(2, {1: BASE, 2: replace(OFFER, state=TenureState.WITHDRAWN)}, 2_001)
    assert (standing.number, standing.offer) == (1, 0)


def test_a_recovery_ends_offers_made_before_it_and_in_its_second() -> None:
    assert counting(2, {1: replace(BASE, recovered_at=2_000), 2: OFFER}, 2_001).offer == 0
    assert counting(2, {1: replace(BASE, recovered_at=1_999), 2: OFFER}, 2_001).offer == 2


@pytest.mark.parametrize(
    ("recovered_at", "number"), [(2_099, 2), (2_100, 1), (2_199, 1), (2_200, 2), (9_999, 2), (0, 2)]
)
def test_a_recovery_undoes_what_was_accepted_less_than_the_delay_before(recovered_at: int, number: int) -> None:
    standing = counting(2, {1: replace(BASE, recovered_at=recovered_at), 2: SOLD}, 10_000)
    assert standing.number == number


def test_without_a_delay_nothing_is_undone() -> None:
    assert counting(2, {1: replace(BASE, delay=0, recovered_at=2_100), 2: SOLD}, 2_100).number == 2


def test_a_later_recovery_does_not_bring_back_what_an_earlier_one_undid() -> None:
    seller = replace(BASE, recovered_at=50_000, recovered_before=(2_150,))
    assert counting(2, {1: seller, 2: SOLD}, 60_000).number == 1


def test_splits_of_an_undone_purchase_are_undone_with_it() -> None:
    split = replace(BASE, previous=2, origin=2, key=None)
    tenures = {1: replace(BASE, recovered_at=2_150), 2: SOLD, 3: split}
    assert counting(3, tenures, 3_000).number == 1
    assert counting(3, {**tenures, 1: BASE}, 3_000).number == 3


def test_a_purchase_is_final_when_the_sellers_delay_has_passed() -> None:
    assert counting(2, {1: BASE, 2: SOLD}, 2_100).final_at == 2_200


def test_a_held_origin_freezes_its_tenures_but_retired_stays_retired() -> None:
    tenures = {
        1: replace(BASE, held=True, recovered_at=5_000),
        2: replace(BASE, previous=1, key=None, plan=bytes(32)),
        3: replace(BASE, previous=1, key=None, state=TenureState.RETIRED),
    }
    states = [counting(number, tenures, 6_000).state for number in (1, 2, 3)]
    assert states == [TenureState.FROZEN, TenureState.FROZEN, TenureState.RETIRED]
    assert not counting(2, tenures, 6_000).deployed


def test_needed_names_origin_previous_and_that_ones_origin() -> None:
    tenures = {
        1: BASE,
        2: replace(BASE, previous=1, key=None),
        3: replace(SOLD, previous=2, origin=3),
        4: replace(BASE, previous=3, origin=3, key=None),
        5: replace(OFFER, previous=4, origin=5),
    }
    assert needed(0, tenures) == ()
    assert needed(1, tenures) == (1,)
    assert needed(2, tenures) == (1, 2)
    assert needed(3, tenures) == (1, 2, 3)
    assert needed(4, tenures) == (1, 2, 3, 4)
    assert needed(5, tenures) == (1, 2, 3, 4, 5)


def test_exactly_the_needed_records_suffice() -> None:
    tenures = {1: BASE, 2: SOLD, 3: replace(BASE, previous=2, origin=2, key=None), 4: BASE}
    wanted = needed(3, tenures)
    assert wanted == (1, 2, 3)
    for missing in wanted:
        with pytest.raises(ProofError) as caught:
            counting(3, {one: tenures[one] for one in wanted if one != missing}, 5_000)
        assert caught.value.code == "tenure-missing"


@pytest.mark.parametrize(
    ("number", "tenures", "code"),
    [
        (0, {}, "no-tenure"),
        (1, {}, "tenure-missing"),
        (2, {2: replace(OFFER, previous=2)}, "tenure-malformed"),
        (2, {2: replace(OFFER, previous=3), 3: BASE}, "tenure-malformed"),
        (2, {2: replace(BASE, origin=3), 3: BASE}, "tenure-malformed"),
        (3, {1: BASE, 2: replace(BASE, previous=1), 3: replace(BASE, origin=2, previous=2)}, "tenure-malformed"),
    ],
)
def test_records_that_contradict_each_other_are_refused(number: int, tenures: dict[int, Tenure], code: str) -> None:
    with pytest.raises(ProofError) as caught:
        counting(number, tenures, 5_000)
    assert caught.value.code == code


def test_devices_under_offers_and_undone_transfers_are_counted_to_the_seller() -> None:
    tenures = {
        1: replace(BASE, count=3, recovered_at=2_150),
        2: replace(SOLD, count=10),
        3: replace(OFFER, origin=3, count=20, state=TenureState.WITHDRAWN),
        4: replace(SOLD, origin=4, count=40, accepted_at=2_160),
    }
    assert counted(1, tenures, 4, 5_000) == 33
    assert counted(4, tenures, 4, 5_000) == 40
    assert counted(2, tenures, 4, 5_000) == 0
