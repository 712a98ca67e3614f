"""What a device claims: plans and orders that are not its own, tenures that do not count, leaves of others."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from firstlight.cli.demo.commands import CommandError, run
from firstlight.onboarding.edhoc.keys import Ead
from firstlight.onboarding.messages import EAD_CLAIM, EAD_EVIDENCE, Claim
from firstlight.onboarding.party import UNIFORM_ERROR
from firstlight.plan.claims import PartyClaim, PartyKind, PlanOpening, opening
from firstlight.roles.holdings import find_holding
from firstlight.stores.exchanges import GrantState
from firstlight.testing.byhand import Hand, say
from firstlight.testing.interceptor import Answered, Asked, Dropped, Forward
from firstlight.testing.lab import Lab
from firstlight.transports.endpoint import read_endpoint
from firstlight.trees import rfc6962

COUNT = 16
TRIES = 20


@dataclass(frozen=True, slots=True)
class Owner:
    """An owner of a second batch, or of a part of it."""

    lab: Lab
    state: Path
    batch: str
    tenure: int

    def order(self, role: str, devices: int, *, until: str = "90d", approve: bool = True) -> str:
        """Order at a party."""
        party = self.lab.parties[role]
        words = ("--party", party, "--devices", devices, "--until", until, "--batch", self.batch)
        number = run("owner", "order", self.state, *words, "--tenure", self.tenure).text("order")
        if approve:
            run(role, "approve", self.lab.state(role), number)
        return number

    def deploy(self, select: str, network: str, service: str | None = None, *, tenure: int | None = None) -> int:
        """Deploy a plan that names these orders, for a selection; return the tenure that it makes."""
        parties = self.lab.parties
        words = [*("--batch", self.batch, "--tenure", tenure or self.tenure, "--select", select)]
        words += ["--network", f"{parties['mno']}:{network}"]
        words += ["--service", service] if service else []
        return run("owner", "deploy", self.state, *words).number("tenure")

    def hand(self, index: int) -> Hand:
        """Return a device."""
        return Hand(self.lab, self.lab.places.root / "second" / f"{index:06}")


def open_owner(lab: Lab, name: str) -> Path:
    """Make another owner's directory."""
    state, addresses = lab.places.root / name, lab.addresses
    joined = ("--genesis", lab.places.genesis, "--node", addresses.node, "--gateway", addresses.gateway)
    run("owner", "init", state, *joined)
    return state


def hand_over(lab: Lab, role: str, seller: Path, buyer: Path, *words: object) -> Callable[[], int]:
    """Offer devices to another owner; return what lets him accept, which gives the tenure."""
    papers = lab.places.papers / secrets.token_hex(4)
    papers.mkdir(mode=0o700)
    purchase, sale = papers / "purchase.cbor", papers / "sale.cbor"
    run("owner", "request", buyer, "--out", purchase)
    run(role, "sell", seller, *words, "--to", purchase, "--out", sale)
    return lambda: run("owner", "accept", buyer, sale).number("tenure")


@pytest.fixture(scope="module")
def rival(lab: Lab) -> Owner:
    """Somebody else, who owns a batch of his own."""
    at = lab.places
    words = ("--count", COUNT, "--model", "fl-1", "--out", at.root / "second", "--gateway", lab.addresses.gateway)
    batch = run("manufacturer", "make", at.manufacturer, *words).text("batch")
    run("manufacturer", "anchor", at.manufacturer, "--batch", batch)
    state = open_owner(lab, "rival")
    accept = hand_over(lab, "manufacturer", at.manufacturer, state, "--batch", batch, "--select", "all")
    return Owner(lab, state, batch, accept())


@pytest.fixture(scope="module")
def network(rival: Owner) -> str:
    """The rival's own order at the operator, for all of his devices."""
    return rival.order("mno", COUNT)


@pytest.fixture(scope="module")
def chosen(rival: Owner, network: str) -> int:
    """The tenure of the devices for which the rival has chosen the operator, under his own order."""
    return rival.deploy("0-12", network)


@pytest.fixture
def hand(lab: Lab) -> Hand:
    return Hand(lab, lab.device())


# --- plans --------------------------------------------------------------------------------------


def test_a_claim_shown_to_the_wrong_party_is_refused(lab: Lab, hand: Hand) -> None:
    """A device shows the SP's claim to the MNO and the MNO's to the SP, to be served by somebody else."""
    digests = hand.found.digests
    for role, foreign in (("mno", "sp"), ("sp", "mno")):
        hand.onboard(role)
        with lab.adding(role, exchange=1):
            assert hand.refused(role, plan=opening(digests, hand.claim(foreign))) == "wrong-party"
        assert hand.grants(role) == [GrantState.PENDING]


def test_a_party_chosen_as_something_else_is_refused(lab: Lab, rival: Owner, network: str, chosen: int) -> None:
    """An owner names the MNO as a service; a device shows it that claim, to be served for what was not agreed."""
    rival.deploy("0", network, f"{lab.parties['mno']}:{network}", tenure=chosen)
    hand = rival.hand(0)
    hand.onboard("mno")
    claim = hand.found.plan.services[0]
    assert claim.party.hex() == lab.parties["mno"]
    with lab.adding("mno", exchange=1):
        assert hand.refused("mno", plan=opening(hand.found.digests, claim)) == "wrong-kind"


@pytest.mark.parametrize("role", ["mno", "sp"])
def test_a_claim_that_is_not_in_the_plan_is_refused(lab: Lab, hand: Hand, role: str) -> None:
    """A device makes up a claim that its owner never made: another order, another salt, another place, the profile."""
    hand.onboard(role)
    honest, claim, found = hand.acting(role).plan, hand.claim(role), hand.found
    profile = found.plan.profile
    place = found.digests.index(profile.digest())
    forged = (
        replace(honest, claim=replace(claim, order=secrets.token_bytes(16)).encode()),
        replace(honest, claim=replace(claim, salt=bytes(16)).encode()),
        replace(honest, position=honest.position ^ 1),
        replace(honest, path=(bytes(32), *honest.path[1:])),
        PlanOpening(profile.encode(), place, _path(found.digests, place)),
        replace(honest, claim=PartyClaim(bytes(16), PartyKind.NETWORK, claim.party, claim.order).encode()),
        replace(honest, claim=b"\x00"),
    )
    with lab.adding(role, exchange=len(forged)):
        assert {hand.refused(role, plan=one) for one in forged} == {"bad-plan-opening"}


def _path(digests: tuple[bytes, ...], place: int) -> tuple[bytes, ...]:
    return rfc6962.Tree([rfc6962.leaf_hash(one) for one in digests]).path(place)


# --- orders -------------------------------------------------------------------------------------


def test_an_order_of_another_owner_is_refused(lab: Lab, hand: Hand, rival: Owner, chosen: int) -> None:
    """An owner who has opened somebody's device deploys a plan with that one's order, to be served at his cost."""
    thief = rival.hand(2)
    thief.onboard("mno")
    rival.deploy("2", hand.claim("mno").order.hex(), tenure=chosen)
    thief.discover()
    with lab.adding("mno", exchange=1), lab.heard("mno") as codes:
        assert thief.refused("mno") == "order-foreign"
    assert codes == ["answered", "order-foreign"]


def test_an_order_that_nobody_placed_or_approved_is_refused(lab: Lab, rival: Owner, chosen: int) -> None:
    """An owner deploys a plan with an order number of his own making, or one that the party has not agreed to."""
    hands = rival.hand(3), rival.hand(4)
    waiting = rival.order("mno", 1, approve=False)
    for hand, number in zip(hands, (secrets.token_hex(16), waiting), strict=True):
        hand.onboard("mno")
        rival.deploy(str(hand.birth.index), number, tenure=chosen)
        hand.discover()
        with lab.adding("mno", exchange=1):
            assert hand.refused("mno") == "order-unknown"
    run("mno", "approve", lab.places.mno, waiting)
    hands[1].onboard("mno")


def test_an_order_that_is_used_up_is_refused(lab: Lab, rival: Owner, chosen: int) -> None:
    """An owner who ordered for one device lets two come; the first may come again, it has its slot."""
    first, second = rival.hand(6), rival.hand(7)
    first.onboard("mno")
    second.onboard("mno")
    rival.deploy("6-7", rival.order("mno", 1), tenure=chosen)
    first.discover()
    second.discover()
    first.onboard("mno")
    with lab.adding("mno", exchange=1):
        assert second.refused("mno") == "order-full"
    first.onboard("mno")
    assert (first.slots("mno"), second.slots("mno")) == (2, 1)


def test_an_order_that_has_run_out_is_refused(lab: Lab, rival: Owner, chosen: int) -> None:
    """An owner goes on letting devices come after the time that was agreed."""
    hands = rival.hand(8), rival.hand(9)
    for hand in hands:
        hand.onboard("mno")
    until = short_order(rival, "8-9", chosen)
    for hand in hands:
        hand.discover()
    while time.time() < until:
        time.sleep(0.05)
    with lab.adding("mno", exchange=2):
        assert [hand.refused("mno") for hand in hands] == ["order-expired"] * 2


def short_order(owner: Owner, select: str, tenure: int) -> int:
    """Deploy under an order that soon runs out, in as few seconds as this machine allows; return when it has."""
    for seconds in (2, 4, 8, 16, 32):
        try:
            number = owner.order("mno", 2, until=f"{seconds}s")
            until = int(time.time()) + seconds + 1
            owner.deploy(select, number, tenure=tenure)
        except CommandError:
            assert seconds < 32
            continue
        return until
    raise AssertionError("never in time")


def test_an_order_that_another_key_signed_is_refused(lab: Lab, rival: Owner) -> None:
    """Somebody without the tenure's key places an order for another's devices."""
    rival.order("mno", 1, approve=False)
    holding = find_holding(lab.places.owner, bytes.fromhex(lab.batch), lab.holding.tenure).directory
    stolen = next((rival.state / "holdings").iterdir()) / "owner.pem"
    kept = stolen.read_bytes()
    stolen.write_bytes((holding / "recovery.pem").read_bytes())
    try:
        with lab.untouched(), lab.heard("mno") as codes, pytest.raises(CommandError) as refused:
            rival.order("mno", 1, approve=False)
    finally:
        stolen.write_bytes(kept)
    assert refused.value.code == "unknown-key"
    assert codes == ["unknown-key"]


# --- tenures ------------------------------------------------------------------------------------


def test_a_device_sold_on_is_refused_whatever_it_claims(lab: Lab, rival: Owner, network: str, chosen: int) -> None:
    """A device goes on claiming its former owner's plan after it was sold; its buyer claims the seller's order."""
    hand = rival.hand(10)
    hand.onboard("mno")
    buyer = open_owner(lab, "buyer")
    words = ("--batch", rival.batch, "--tenure", chosen, "--select", "10-11")
    accept = hand_over(lab, "owner", rival.state, buyer, *words)
    hand.discover()
    hand.onboard("mno")
    offer = hand.found.standing.offer
    assert offer > chosen
    with lab.adding("mno", exchange=1):
        assert hand.refused("mno", tenure=offer) == "stale-view"
    with lab.heard("mno", "tenure-over"):
        assert accept() == offer
    assert set(hand.grants("mno")) == {GrantState.ENDED}
    with lab.adding("mno", exchange=2):
        assert hand.refused("mno") == "not-deployed"
        assert hand.refused("mno", tenure=offer) == "not-deployed"
    bought = Owner(lab, buyer, rival.batch, offer)
    bought.deploy("all", network)
    with lab.adding("mno", exchange=2):
        assert hand.refused("mno") == "stale-view"
        assert hand.refused("mno", tenure=offer, plan_revision=1) == "bad-plan-opening"
    hand.discover()
    hand.stored.clear()
    with lab.adding("mno", exchange=1):
        assert hand.refused("mno") == "order-foreign"
    bought.deploy("all", bought.order("mno", 2))
    hand.discover()
    hand.onboard("mno")


@pytest.mark.usefixtures("chosen")
def test_a_device_that_nobody_deployed_is_refused(lab: Lab, rival: Owner) -> None:
    """A device whose owner has not chosen anything claims the plan of another tenure of the same owner."""
    hand, idle = rival.hand(12), rival.hand(13)
    hand.onboard("mno")
    idle._found = hand.found
    with lab.adding("mno", exchange=2):
        assert idle.refused("mno") == "not-deployed"
        assert idle.refused("mno", tenure=rival.tenure, plan_revision=0) == "not-deployed"


def test_an_old_plan_is_refused(lab: Lab, rival: Owner, network: str) -> None:
    """A device is kept from learning of its owner's new plan, and acts on the old one."""
    tenure = rival.deploy("14", network)
    hand = rival.hand(14)
    hand.onboard("mno")
    assert rival.deploy("14", network, f"{lab.parties['sp']}:{network}", tenure=tenure) == tenure
    with lab.adding("mno", exchange=1), lab.heard("mno") as codes:
        assert hand.refused("mno") == "stale-view"
    assert codes == ["answered", "stale-view"]
    hand.discover()
    hand.onboard("mno")


@pytest.mark.parametrize("role", ["mno", "sp"])
def test_a_view_that_differs_from_the_partys_is_refused(lab: Lab, hand: Hand, role: str) -> None:
    """A device acts on another tenure, plan revision or revision of the party's record than those at its head."""
    hand.onboard(role)
    acting = hand.acting(role)
    bent: list[dict[str, int]] = [
        {"tenure": acting.tenure - 1},
        {"tenure": acting.tenure + 1},
        {"plan_revision": acting.plan_revision - 1},
        {"plan_revision": acting.plan_revision + 1},
        {"party_revision": acting.party_revision - 1},
        {"party_revision": acting.party_revision + 1},
    ]
    with lab.adding(role, exchange=len(bent)):
        assert {hand.refused(role, **one) for one in bent} == {"stale-view"}
    hand.onboard(role, height=acting.height - 1)


def test_a_party_whose_own_view_is_old_refuses(lab: Lab, hand: Hand) -> None:
    """A node goes silent towards the party, so that it grants on what the ledger said some time ago."""
    silent: list[str] = []

    def silence(asked: Asked, forward: Forward) -> Answered:
        silent.append(asked.path)
        raise Dropped

    with lab.twin("mno", view_seconds=5) as twin:
        url = read_endpoint(twin).url
        hand.onboard("mno", at=url)
        with lab.ledger.bending("/v1/bundles", silence):
            sent = hand.open("mno", at=url)
            end = time.time() + 6.1
            while time.time() < end:
                time.sleep(0.05)
            with lab.untouched(), lab.only(twin, exchange=1):
                event = hand.finish("mno", sent, at=url)
        assert getattr(event, "code", None) == "view-too-old"
        hand.onboard("mno", at=url)
    assert silent


# --- leaves -------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["mno", "sp"])
def test_a_leaf_that_is_not_in_the_batch_gets_the_uniform_error(lab: Lab, hand: Hand, role: str) -> None:
    """Somebody claims another index, leaf, path or batch; he learns nothing, and nothing is fetched for him."""
    hand.onboard(role)
    other = Hand(lab, lab.device()).identity()
    own = hand.identity()
    stranger = Hand(lab, lab.device())
    bent = {
        "not-in-batch": [
            replace(own, index=own.index ^ 1),
            replace(own, path=other.path[:1] + own.path[1:] if other.path[0] != own.path[0] else own.path[::-1]),
            replace(own, leaf=replace(own.leaf, salt=bytes(16))),
            replace(own, leaf=replace(own.leaf, model=b"fl-2")),
            replace(own, leaf=replace(own.leaf, attestation=other.leaf.attestation)),
        ],
        "bad-path": [
            replace(own, path=own.path[:-1]),
            replace(own, path=(*own.path, bytes(32))),
            replace(own, index=2**32 - 1),
            replace(own, index=hand.birth.size),
        ],
        "batch-unknown": [replace(own, batch=secrets.token_bytes(16)), replace(own, batch=bytes(16))],
        "bad-mac": [replace(stranger.identity(), static=hand.static), replace(other, static=hand.static)],
    }
    hand.acting(role)
    for code, identities in bent.items():
        for identity in identities:
            sent = hand.open(role, identity=identity)
            fetched = True
            for _ in range(TRIES):  # parties and owner also ask by themselves, from time to time
                asked = len(lab.ledger.seen), len(lab.interceptor.seen)
                with lab.untouched(), lab.heard(role) as codes:
                    assert say(hand.url(role), sent.request_2) == UNIFORM_ERROR
                assert codes == [code]
                fetched = (len(lab.ledger.seen), len(lab.interceptor.seen)) != asked
                if not fetched:
                    break
            assert not fetched, "something is fetched each time"
    hand.onboard(role)


@pytest.mark.parametrize("role", ["mno", "sp"])
def test_an_id_cred_that_does_not_name_the_leaf_gets_the_uniform_error(lab: Lab, hand: Hand, role: str) -> None:
    """A device names itself by another kid than that of the leaf in its claim."""
    hand.onboard(role)
    begun = hand.begin(role)
    other = Hand(lab, lab.device())
    claim = Claim.decode(begun._claim().encode())
    response = say(hand.url(role), begun.request_1)
    foreign = replace(begun, identity=replace(other.identity(), static=hand.static))
    request_2, _ = hand.raw_3(
        foreign, response, [Ead(EAD_CLAIM, True, claim.encode()), Ead(EAD_EVIDENCE, True, b"evidence")]
    )
    with lab.untouched(), lab.heard(role) as codes:
        assert say(hand.url(role), request_2) == UNIFORM_ERROR
    assert codes == ["wrong-credential"]
