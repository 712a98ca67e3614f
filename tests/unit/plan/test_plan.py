"""Plans: that nothing in them can be changed, added or dropped; orders: that they serve once and in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight.custody.file import SigningKey
from firstlight.errors import FirstlightError
from firstlight.plan import claims
from firstlight.plan.claims import (
    DIGESTS,
    MAX_CLAIM,
    PartyClaim,
    PartyKind,
    Plan,
    ProfileClaim,
    new_claim,
    new_plan,
    open_claim,
    open_plan,
    parse_claim,
    plan_root,
)
from firstlight.plan.order import Order, open_order, parse_order, sign_order
from firstlight.testing.random import SeededRandom
from firstlight.trees import rfc6962

OWNER = SigningKey(ec.derive_private_key(11, ec.SECP256R1()))
STRANGER = SigningKey(ec.derive_private_key(12, ec.SECP256R1()))
RANDOM = SeededRandom("plan")


def claim(kind: PartyKind, party: int) -> PartyClaim:
    return new_claim(kind, party.to_bytes(16), RANDOM.bytes(16), RANDOM)


NETWORK = claim(PartyKind.NETWORK, 1)
SERVICES = (claim(PartyKind.SERVICE, 2), claim(PartyKind.SERVICE, 3))
PLAN = new_plan(OWNER.public, (NETWORK, *SERVICES), RANDOM)


def plan_of(profile: ProfileClaim, parties: Sequence[PartyClaim], *also: bytes) -> Plan:
    """A plan as a careless or hostile owner might make it."""
    real = {profile.digest(), *(one.digest() for one in parties), *also}
    decoys = [RANDOM.bytes(32) for _ in range(DIGESTS - len(real))]
    return Plan(tuple(sorted([*real, *decoys])), profile, tuple(parties))


def profile_of(parties: Sequence[PartyClaim], *also: bytes) -> ProfileClaim:
    return ProfileClaim(RANDOM.bytes(16), 0, OWNER.public, tuple(sorted([*(one.digest() for one in parties), *also])))


def refused(plan: Plan, shown: Sequence[bytes] | None = None, *, root: bytes | None = None) -> str:
    with pytest.raises(FirstlightError) as error:
        open_plan(root or plan.root, plan.digests, plan.claims() if shown is None else shown)
    return error.value.code


# --- the device's side --------------------------------------------------------------------------


def test_a_plan_opens_whole() -> None:
    opened = open_plan(PLAN.root, PLAN.digests, PLAN.claims())
    assert opened.profile.receipt_key == OWNER.public
    assert opened.network == NETWORK
    assert set(opened.services) == set(SERVICES)
    assert Plan.decode(PLAN.encode()) == PLAN


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 14), st.randoms())
def test_any_number_of_services_makes_sixteen_digests(count: int, shuffler: object) -> None:
    services = [claim(PartyKind.SERVICE, 100 + n) for n in range(count)]
    plan = new_plan(OWNER.public, [NETWORK, *services], RANDOM)
    assert len(plan.digests) == DIGESTS
    assert list(plan.digests) == sorted(set(plan.digests))
    shown = list(plan.claims())
    shuffler.shuffle(shown)  # type: ignore[attr-defined]
    opened = open_plan(plan.root, plan.digests, shown)
    assert {one.party for one in opened.services} == {one.party for one in services}
    assert max(len(one) for one in shown) <= MAX_CLAIM


def test_two_plans_for_the_same_choice_share_nothing() -> None:
    again = [new_claim(one.kind, one.party, one.order, RANDOM) for one in (NETWORK, *SERVICES)]
    assert not set(new_plan(OWNER.public, again, RANDOM).digests) & set(PLAN.digests)


def test_the_digests_are_sixteen_ascending_and_those_of_the_tenure() -> None:
    with pytest.raises(FirstlightError) as error:
        open_plan(PLAN.root, PLAN.digests[:-1], PLAN.claims())
    assert error.value.code == "wrong-digest-count"
    swapped = (PLAN.digests[1], PLAN.digests[0], *PLAN.digests[2:])
    doubled = (PLAN.digests[0], PLAN.digests[0], *PLAN.digests[2:])
    for bad in (swapped, doubled):
        with pytest.raises(FirstlightError) as error:
            open_plan(plan_root(bad), bad, PLAN.claims())
        assert error.value.code == "unsorted-digests"
    assert refused(PLAN, root=bytes(32)) == "wrong-plan-root"
    with pytest.raises(FirstlightError) as error:
        replace(PLAN, digests=swapped)
    assert error.value.code == "unsorted-digests"


@pytest.mark.parametrize("dropped", [NETWORK, *SERVICES], ids=["network", "service", "service"])
def test_no_claim_can_be_dropped(dropped: PartyClaim) -> None:
    assert refused(PLAN, [one for one in PLAN.claims() if one != dropped.encode()]) == "claim-dropped"


def test_no_claim_can_be_added_or_changed() -> None:
    other = replace(NETWORK, party=b"X" * 16)
    assert refused(PLAN, [*PLAN.claims(), other.encode()]) == "foreign-claim"
    assert refused(PLAN, [*PLAN.claims(), PLAN.claims()[0]]) == "claim-twice"
    changed = [other.encode() if one == NETWORK.encode() else one for one in PLAN.claims()]
    assert refused(PLAN, changed) == "foreign-claim"


def test_there_is_one_profile() -> None:
    assert refused(PLAN, [one for one in PLAN.claims() if one != PLAN.profile.encode()]) == "no-profile"
    second = profile_of([NETWORK])
    two = plan_of(PLAN.profile, (NETWORK, *SERVICES), second.digest())
    assert refused(two, [*two.claims(), second.encode()]) == "two-profiles"


def test_the_profile_lists_digests_of_this_plan_in_order() -> None:
    assert refused(plan_of(profile_of([NETWORK], b"\x55" * 32), [NETWORK])) == "foreign-digest"
    listed = profile_of([NETWORK, *SERVICES])
    turned = replace(listed, others=listed.others[::-1])
    assert refused(plan_of(turned, [NETWORK, *SERVICES])) == "unsorted-digests"


def test_a_claim_that_the_profile_does_not_list_is_refused() -> None:
    assert refused(plan_of(profile_of([NETWORK]), [NETWORK, SERVICES[0]])) == "claim-unlisted"


def test_there_is_one_network_and_no_party_twice() -> None:
    second = claim(PartyKind.NETWORK, 9)
    assert refused(plan_of(profile_of(SERVICES), SERVICES)) == "no-network"
    assert refused(plan_of(profile_of([NETWORK, second]), [NETWORK, second])) == "two-networks"
    again = claim(PartyKind.SERVICE, 2)
    assert refused(plan_of(profile_of([NETWORK, SERVICES[0], again]), [NETWORK, SERVICES[0], again])) == "party-twice"
    both = claim(PartyKind.SERVICE, 1)
    assert open_plan((fine := plan_of(profile_of([NETWORK, both]), [NETWORK, both])).root, fine.digests, fine.claims())


def test_a_receipt_key_that_is_no_key_is_refused() -> None:
    profile = replace(profile_of([NETWORK]), receipt_key=b"\x02" + b"\xff" * 32)
    assert refused(plan_of(profile, [NETWORK])) == "bad-point"


def test_a_hostile_claim_is_a_clear_error() -> None:
    for data in (b"\x01", b"\x80", PLAN.profile.encode()[:-1], b"\x84\x50" + bytes(16) + b"\x05\x40\x40"):
        plan = plan_of(profile_of([NETWORK]), [NETWORK], claims.claim_digest(data))
        assert refused(plan, [*plan.claims(), data]) in {"wrong-shape", "not-cbor", "not-canonical"}


@pytest.mark.parametrize(
    ("parties", "code"),
    [
        ([], "no-network"),
        (SERVICES, "no-network"),
        ([NETWORK, claim(PartyKind.NETWORK, 9)], "two-networks"),
        ([NETWORK, SERVICES[0], SERVICES[0]], "party-twice"),
        ([NETWORK, *(claim(PartyKind.SERVICE, 100 + n) for n in range(15))], "too-many-claims"),
    ],
)
def test_an_owner_cannot_make_a_plan_that_devices_would_refuse(parties: Sequence[PartyClaim], code: str) -> None:
    with pytest.raises(FirstlightError) as error:
        new_plan(OWNER.public, parties, RANDOM)
    assert error.value.code == code


# --- the party's side ---------------------------------------------------------------------------


def test_a_party_is_shown_its_claim_alone() -> None:
    shown = PLAN.opening(NETWORK)
    assert open_claim(PLAN.root, shown) == NETWORK
    assert len(shown.path) == 4
    assert not any(one.encode() in shown.encode() for one in SERVICES)
    assert len(shown.encode()) < 200


def test_an_opening_that_does_not_fit_is_refused() -> None:
    shown = PLAN.opening(NETWORK)
    changed = replace(NETWORK, party=b"X" * 16).encode()
    for bad in (
        replace(shown, claim=changed),
        replace(shown, position=shown.position ^ 1),
        replace(shown, path=(bytes(32), *shown.path[1:])),
    ):
        with pytest.raises(FirstlightError) as error:
            open_claim(PLAN.root, bad)
        assert error.value.code == "wrong-plan-root"
    with pytest.raises(FirstlightError) as error:
        PLAN.opening(replace(NETWORK, party=b"X" * 16))
    assert error.value.code == "foreign-claim"


def test_the_profile_is_not_for_parties() -> None:
    shown = PLAN.opening(NETWORK)
    position = PLAN.digests.index(PLAN.profile.digest())
    path = rfc6962.Tree([rfc6962.leaf_hash(one) for one in PLAN.digests]).path(position)
    with pytest.raises(FirstlightError) as error:
        open_claim(PLAN.root, replace(shown, claim=PLAN.profile.encode(), position=position, path=path))
    assert error.value.code == "profile-shown"
    assert parse_claim(PLAN.profile.encode()) == PLAN.profile


# --- orders -------------------------------------------------------------------------------------

ORDER = Order(b"N" * 16, "test-1", b"P" * 16, b"B" * 16, 3, 50, 2_000)
SIGNED = sign_order(ORDER, OWNER)


def test_an_order_opens_for_its_party() -> None:
    assert parse_order(SIGNED) == ORDER
    assert open_order(SIGNED, key=OWNER.public, chain="test-1", party=b"P" * 16, now=1_999) == ORDER


@pytest.mark.parametrize(
    ("data", "key", "chain", "party", "now", "code"),
    [
        (SIGNED, STRANGER.public, "test-1", b"P" * 16, 0, "unknown-key"),
        (SIGNED[:-1] + bytes([SIGNED[-1] ^ 1]), OWNER.public, "test-1", b"P" * 16, 0, "bad-signature"),
        (SIGNED, OWNER.public, "other-1", b"P" * 16, 0, "wrong-chain"),
        (SIGNED, OWNER.public, "test-1", b"Q" * 16, 0, "wrong-party"),
        (SIGNED, OWNER.public, "test-1", b"P" * 16, 2_000, "order-expired"),
        (sign_order(replace(ORDER, devices=0), OWNER), OWNER.public, "test-1", b"P" * 16, 0, "wrong-shape"),
    ],
)
def test_an_order_that_does_not_fit_is_refused(
    data: bytes, key: bytes, chain: str, party: bytes, now: int, code: str
) -> None:
    with pytest.raises(FirstlightError) as error:
        open_order(data, key=key, chain=chain, party=party, now=now)
    assert error.value.code == code
