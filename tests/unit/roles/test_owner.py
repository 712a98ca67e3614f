"""The owner: orders, plans for devices, receipts from them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from firstlight.custody.file import AgreementKey, SigningKey
from firstlight.errors import ConfigError, FirstlightError, ProofError, TransportError
from firstlight.identity.birth import BirthCredential
from firstlight.ledger.records import Role
from firstlight.logs import Log
from firstlight.plan.claims import OpenedPlan, open_plan
from firstlight.plan.order import open_order
from firstlight.roles.holdings import Holding, find_holding, read_selection
from firstlight.roles.owner.collect import Collector
from firstlight.roles.owner.deploy import Asked, Choice, deploy
from firstlight.roles.owner.mail import open_fleet
from firstlight.roles.owner.orders import Wanted, order
from firstlight.roles.owner.status import grants, status
from firstlight.roles.wire import ReceiptFound, ReceiptPage, ReceiptQuery
from firstlight.roles.workplace import Workplace
from firstlight.sealing.envelope import EnvelopeContent, open_envelope
from firstlight.sealing.locator import mailbox_locator, receipt_locator
from firstlight.sealing.receipt import Receipt, Step, seal_receipt
from firstlight.testing.clock import FakeClock
from firstlight.transports.client import RemoteError

from .trading import GATEWAY, Market, quick_disk, register, workplace

__all__ = ["quick_disk"]

Sealed = tuple[bytes, bytes]
"""A locator, and the receipt under it."""
NETWORK, SERVICE = Choice(b"N" * 16, b"n" * 16), Choice(b"S" * 16, b"s" * 16)


@dataclass(slots=True)
class Fleet:
    """An owner who has bought devices 4 to 11 of 12, and those devices."""

    market: Market
    owner: Workplace
    holding: Holding

    @classmethod
    def open(cls, root: Path) -> Fleet:
        market = Market.open(root)
        owner = market.owner("owner")
        maker = find_holding(root / "maker", market.made.batch, 1)
        return cls(market, owner, market.hand_over(market.maker, maker, owner, "4-11").holding)

    def deploy(self, select: str = "all", service: Choice = SERVICE) -> int:
        self.market.node.ledger.time += 1
        asked = Asked(NETWORK, (service,), None, read_selection(select))
        return deploy(self.owner, self.holding, asked, lambda _: None).tenure

    def device(self, index: int) -> Device:
        return Device(self.market.root / "devices" / f"{index:06}")

    def plan_of(self, index: int) -> tuple[EnvelopeContent, OpenedPlan]:
        """Do what device ``index`` does: try the envelopes, check the plan against the ledger."""
        device, ledger = self.device(index), self.market.node.ledger
        standing = ledger.standing(device.birth.batch, index)
        assert standing.plan is not None
        for listed in reversed(self.market.node.deposits):
            for entry in listed.entries:
                if entry.locator != mailbox_locator(device.birth.mailbox, GATEWAY):
                    continue
                content = open_envelope(entry.envelope, device.identity, chain="test-1", locator=entry.locator)
                if (content.tenure, content.revision) == (standing.number, standing.plan_revision):
                    return content, open_plan(standing.plan, content.digests, content.claims)
        raise AssertionError(f"no mail for device {index}")


class Device:
    def __init__(self, directory: Path) -> None:
        self.birth = BirthCredential.decode((directory / "birth.cbor").read_bytes())
        self.identity = AgreementKey.load(directory / "identity.pem")
        self.attestation = SigningKey.load(directory / "attestation.pem")

    def receipt(self, owner: bytes, counter: int, *, step: Step = Step.NETWORK_ATTACHED, tenure: int = 2) -> Sealed:
        receipt = Receipt(
            chain="test-1",
            batch=self.birth.batch,
            index=self.birth.index,
            tenure=tenure,
            revision=1,
            party=b"N" * 16,
            grant=counter.to_bytes(16),
            step=step,
            counter=counter,
            time=7,
        )
        locator = receipt_locator(self.birth.mailbox, GATEWAY)
        return locator, seal_receipt(receipt, signer=self.attestation, owner=owner, locator=locator)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet.open(tmp_path)


# --- orders -----------------------------------------------------------------------------------


def test_an_order_is_signed_by_the_tenure_and_left_with_the_party(fleet: Fleet) -> None:
    place = workplace(fleet.market.root / "mno", fleet.market.node, type(fleet.owner.settings))
    party = register(place, fleet.market.node, Role.MNO, "http://127.0.0.1:7002")
    made = order(fleet.owner, fleet.holding, Wanted(party, 5, 60))
    sent = fleet.market.node.left["POST /v1/orders"]
    key = fleet.market.node.ledger.tenure(fleet.holding.batch, 2).key
    assert key is not None
    opened = open_order(sent, key=key, chain="test-1", party=party, now=fleet.owner.now())
    assert opened == made
    assert (opened.origin, opened.devices, opened.until) == (2, 5, fleet.owner.now() + 60)
    assert (fleet.owner.directory / "orders" / f"{made.number.hex()}.cose").read_bytes() == sent


def test_an_order_goes_to_registered_parties_only(fleet: Fleet) -> None:
    with pytest.raises(ProofError) as unknown:
        order(fleet.owner, fleet.holding, Wanted(bytes(16), 5, 60))
    assert unknown.value.code == "unknown-party"
    with pytest.raises(ConfigError) as silent:
        order(fleet.owner, fleet.holding, Wanted(fleet.market.made.issuer, 5, 60))
    assert silent.value.code == "no-endpoint"


# --- plans ------------------------------------------------------------------------------------


def test_every_device_of_a_deployed_tenure_can_open_its_plan(fleet: Fleet) -> None:
    fleet.deploy()
    trie = fleet.market.node.ledger.trie(fleet.holding.batch)
    for index in range(4, 12):
        content, plan = fleet.plan_of(index)
        assert plan.profile.receipt_key == fleet.holding.receipts().public
        assert (plan.network.party, plan.network.order) == (NETWORK.party, NETWORK.order)
        assert [(one.party, one.order) for one in plan.services] == [(SERVICE.party, SERVICE.order)]
        assert content.prefix_length == trie.covering_prefix(index)[1]
    assert sum(len(one.entries) for one in fleet.market.node.deposits) == 8
    assert status(fleet.owner.directory)["devices"] == 8


def test_mail_lies_there_before_the_plan_counts(fleet: Fleet) -> None:
    seen: list[int] = []
    asked = Asked(NETWORK, (SERVICE,))
    height = fleet.market.node.ledger.height

    def look(_: int) -> None:
        seen.append(fleet.market.node.ledger.height)

    deploy(fleet.owner, fleet.holding, asked, look)
    assert set(seen) == {height}
    assert fleet.market.node.ledger.height == height + 1


def test_deploying_the_same_again_changes_nothing(fleet: Fleet) -> None:
    fleet.deploy()
    before, mail = fleet.market.node.ledger.state.root, len(fleet.market.node.deposits)
    fleet.deploy()
    assert fleet.market.node.ledger.state.root == before
    assert len(fleet.market.node.deposits) == mail
    fleet.deploy(service=Choice(b"T" * 16, b"t" * 16))
    content, plan = fleet.plan_of(4)
    assert (content.revision, plan.services[0].party) == (2, b"T" * 16)


@pytest.mark.parametrize("cut", ["/v1/deposits", "/v1/transactions"])
def test_an_interrupted_deployment_goes_on_with_the_same_plan(fleet: Fleet, cut: str) -> None:
    fleet.market.node.cut.append(cut)
    with pytest.raises(TransportError):
        fleet.deploy()
    fleet.deploy()
    roots = {open_plan_root(fleet, index) for index in range(4, 12)}
    assert len(roots) == 1
    assert fleet.market.node.ledger.tenure(fleet.holding.batch, 2).plan_revision == 1


def open_plan_root(fleet: Fleet, index: int) -> tuple[bytes, ...]:
    return fleet.plan_of(index)[0].digests


@pytest.mark.parametrize("cut", [None, "/v1/deposits", "/v1/transactions"])
def test_a_part_becomes_a_tenure_of_its_own(fleet: Fleet, cut: str | None) -> None:
    fleet.deploy()
    if cut is not None:
        fleet.market.node.cut.append(cut)
        with pytest.raises(TransportError):
            fleet.deploy("5-6,9", Choice(b"T" * 16, b"t" * 16))
    assert fleet.deploy("5-6,9", Choice(b"T" * 16, b"t" * 16)) == 3
    ledger = fleet.market.node.ledger
    assert ledger.owners(fleet.holding.batch)[4:] == [2, 3, 3, 2, 2, 3, 2, 2]
    assert fleet.plan_of(9)[1].services[0].party == b"T" * 16
    assert fleet.plan_of(8)[1].services[0].party == SERVICE.party
    assert ledger.batch(fleet.holding.batch).tenures == 3
    assert status(fleet.owner.directory)["devices"] == 8


def test_what_is_not_held_is_not_deployed(fleet: Fleet) -> None:
    root = fleet.market.node.ledger.state.root
    with pytest.raises(ConfigError) as caught:
        fleet.deploy("3-5")
    assert caught.value.code == "not-held"
    assert (fleet.market.node.ledger.state.root, fleet.market.node.deposits) == (root, [])


def test_a_gateways_refusal_ends_the_deployment(fleet: Fleet) -> None:
    root = fleet.market.node.ledger.state.root
    fleet.market.node.refusals.append(RemoteError(403, "slots-full"))
    with pytest.raises(TransportError) as caught:
        fleet.deploy()
    assert caught.value.code == "slots-full"
    assert fleet.market.node.ledger.state.root == root


# --- receipts ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Mailbox:
    """A gateway that holds receipts; ``lost`` answers are."""

    found: list[Sealed] = field(default_factory=list)
    lost: int = 0

    async def post(self, url: str, body: bytes) -> bytes:
        if self.lost:
            self.lost -= 1
            raise TransportError("unreachable", url)
        query = ReceiptQuery.decode(body)
        after = [
            ReceiptFound(cursor, locator, sealed)
            for cursor, (locator, sealed) in enumerate(self.found, 1)
            if cursor > query.after and locator in query.locators
        ]
        return ReceiptPage(tuple(after[:3])).encode()


def collect(fleet: Fleet, mailbox: Mailbox, rounds: int = 1) -> int:
    """Run a collector anew, as after a restart."""
    store = open_fleet(fleet.owner.directory)
    log = Log("owner", FakeClock())
    collector = Collector("test-1", fleet.owner.directory, store, mailbox, log)  # type: ignore[arg-type]
    try:
        return sum(asyncio.run(collector.round()) for _ in range(rounds))
    finally:
        store.close()


def figures(fleet: Fleet, *names: str) -> Iterable[object]:
    found = status(fleet.owner.directory)
    return tuple(found[name] for name in names)


def test_receipts_are_read_once_over_restarts(fleet: Fleet) -> None:
    fleet.deploy()
    owner = fleet.holding.receipts().public
    mailbox = Mailbox([fleet.device(index).receipt(owner, 1) for index in range(4, 12)], lost=1)
    assert collect(fleet, mailbox) == 0
    assert collect(fleet, mailbox) == 8
    assert collect(fleet, mailbox) == 0
    mailbox.found += [fleet.device(index).receipt(owner, 2, step=Step.SERVICE_CONNECTED) for index in (4, 5)]
    mailbox.found += [fleet.device(4).receipt(owner, 3, step=Step.SERVICE_CONNECTED)]
    assert collect(fleet, mailbox, rounds=3) == 3
    assert figures(fleet, "network_attached", "service_connected", "receipts", "rejected") == (8, 2, 11, 0)
    rows = grants(fleet.owner.directory)
    assert [(row["index"], row["counter"]) for row in rows[:3]] == [(4, 1), (4, 2), (4, 3)]
    assert rows[1]["step"] == "service-connected"
    assert rows[1]["grant"] == (2).to_bytes(16)


def test_what_a_gateway_forges_or_repeats_counts_for_nothing(fleet: Fleet) -> None:
    fleet.deploy()
    owner = fleet.holding.receipts().public
    honest = fleet.device(4).receipt(owner, 1)
    mailbox = Mailbox([honest])
    assert collect(fleet, mailbox) == 1
    stranger = fleet.device(5)
    locator, sealed = fleet.device(6).receipt(owner, 1)
    other_locator, _ = fleet.device(7).receipt(owner, 1)
    stranger.birth = fleet.device(4).birth
    mailbox.found += [
        honest,
        (other_locator, sealed),
        (locator, sealed[:-1] + bytes([sealed[-1] ^ 1])),
        stranger.receipt(owner, 9),
        fleet.device(8).receipt(owner, 1, tenure=1),
        fleet.device(9).receipt(fleet.device(9).identity.public, 1),
        (locator, sealed),
    ]
    assert collect(fleet, mailbox) == 1
    assert figures(fleet, "network_attached", "receipts", "rejected") == (2, 2, 6)
    assert status(fleet.owner.directory)["rejected_by_code"] == {
        "cannot-open": 3,
        "receipt-replayed": 1,
        "unknown-key": 1,
        "wrong-tenure": 1,
    }


def test_a_late_receipt_counts_whatever_its_counter(fleet: Fleet) -> None:
    fleet.deploy()
    owner, device = fleet.holding.receipts().public, fleet.device(4)
    mailbox = Mailbox([device.receipt(owner, 5, step=Step.SERVICE_CONNECTED), device.receipt(owner, 4)])
    assert collect(fleet, mailbox) == 2
    assert figures(fleet, "network_attached", "service_connected", "rejected") == (1, 1, 0)


def test_a_gateway_whose_cursor_stands_still_does_not_hold_up_the_rest(fleet: Fleet) -> None:
    fleet.deploy()

    class Stuck(Mailbox):
        async def post(self, url: str, body: bytes) -> bytes:
            await asyncio.sleep(0)
            return ReceiptPage((ReceiptFound(0, *fleet.device(4).receipt(owner, 1)),)).encode()

    owner = fleet.holding.receipts().public
    assert collect(fleet, Stuck()) == 0


def test_selling_on_leaves_the_sold_devices_out_of_the_next_plan(fleet: Fleet) -> None:
    fleet.deploy()
    market = fleet.market
    market.hand_over(fleet.owner, fleet.holding, market.owner("next"), "10-11")
    fleet.deploy(service=Choice(b"T" * 16, b"t" * 16))
    newest = [one for one in market.node.deposits if one.revision == 2]
    assert sum(len(one.entries) for one in newest) == 6
    with pytest.raises(AssertionError):
        fleet.plan_of(11)


def test_an_owner_without_a_gateway_is_told_so(fleet: Fleet) -> None:
    lonely = replace(fleet.owner, settings=replace(fleet.owner.settings, gateways=()))
    with pytest.raises(FirstlightError) as caught:
        deploy(lonely, fleet.holding, Asked(NETWORK, ()), lambda _: None)
    assert caught.value.code == "no-gateway"
