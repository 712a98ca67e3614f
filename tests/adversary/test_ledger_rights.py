"""The ledger: transactions of others, of other chains, out of order, and trade that is not what it seems."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from firstlight import cose, p256
from firstlight.cli.demo.commands import CommandError, run
from firstlight.cli.demo.trade import MODEL
from firstlight.custody.file import AgreementKey, SigningKey
from firstlight.custody.system import SystemClock, SystemRandom
from firstlight.discovery.bundle import BundleRequest
from firstlight.discovery.machine import Discovered, Failed
from firstlight.errors import MalformedError
from firstlight.identity.manifest import ROW, Manifest
from firstlight.ledger.records import Role
from firstlight.ledger.transaction import (
    TYP,
    Accept,
    Deploy,
    Freeze,
    Offer,
    PublishReference,
    RegisterParty,
    Retire,
    Withdraw,
    build,
    parse,
)
from firstlight.onboarding.device import Granted, Refused
from firstlight.plan.claims import PartyClaim, PartyKind, Plan, new_claim, new_plan
from firstlight.roles.holdings import find_holding
from firstlight.roles.ledger_client import LedgerClient
from firstlight.roles.trade import Purchase, Sale
from firstlight.roles.wire import MailAnswer, MailRequest, TransactionAnswer
from firstlight.sealing.deposit import DepositEntry, DepositTarget, sign_deposits
from firstlight.sealing.envelope import EnvelopeContent, seal_envelope
from firstlight.sealing.stream import manifest_info, seal_stream
from firstlight.testing.handheld import Handheld, Said, ask
from firstlight.testing.interceptor import Answered, Asked, Forward
from firstlight.testing.lab import Lab
from firstlight.testing.strangers import Lot, Market, Stranger, accepting, new_key
from firstlight.trees.ownership import Selection

SECOND = 1_000_000_000


def now() -> int:
    """Return Unix time in seconds."""
    return SystemClock().now() // SECOND


@dataclass(slots=True)
class Watched(Market):
    """A market in a world whose stores are watched."""

    lab: Lab = field(kw_only=True)


@pytest.fixture(scope="module")
def market(lab: Lab) -> Watched:
    return Watched(lab.addresses.node, lab.places.consortium, lab=lab)


@pytest.fixture(scope="module")
def maker(market: Watched) -> Stranger:
    return market.join(Role.MANUFACTURER)


def refused(market: Watched, transaction: bytes, code: str, status: int = 409) -> None:
    """Check that a transaction is refused with ``code``, and that neither the ledger nor any store is changed by it."""
    before = market.counts()
    with market.lab.untouched():
        said = market.post(transaction)
    assert (said.status, said.code) == (status, code), said.fields()
    assert market.counts() == before
    assert ask(f"{market.node}/v1/transactions/{_id(transaction)}", method="GET").status == 404


def _id(transaction: bytes) -> str:
    return parse(transaction).id.hex()


def tenure(said: Said) -> int:
    """Return the number of the tenure that a transaction made."""
    return TransactionAnswer.decode(said.body).tenure


def test_a_transaction_counts_once_for_its_chain_its_key_and_its_turn(market: Watched, maker: Stranger) -> None:
    """Somebody replays a transaction, takes one from another chain, skips a turn, and signs for others."""
    lot = market.lot(maker, 8)
    owner, stranger = lot.keys[1], new_key()
    good = market.make(Deploy(lot.batch, 1, bytes(32), None), owner)
    assert market.post(good).status == 200
    market.sequences[owner.public] = 1
    before = market.counts()
    with market.lab.untouched():
        first = market.post(good)
        again = market.post(build(Deploy(lot.batch, 1, bytes(32), None), chain=market.chain, sequence=1, signer=owner))
    assert first.body == again.body
    assert TransactionAnswer.decode(first.body).id == parse(good).id
    assert market.counts() == before
    changed = Deploy(lot.batch, 1, bytes([1]) * 32, None)
    refused(market, market.make(changed, owner, sequence=1), "wrong-sequence")
    refused(market, market.make(changed, owner, sequence=3), "wrong-sequence")
    refused(market, market.make(changed, owner, sequence=0), "wrong-sequence")
    refused(market, market.make(changed, owner, chain="another"), "wrong-chain")
    refused(market, market.make(changed, stranger, sequence=2), "wrong-key")
    honest = market.make(changed, owner)
    refused(market, _with_signature(honest, stranger.sign(b"anything")), "bad-signature")
    refused(market, _with_signature(honest, _high_s(cose.parse(honest, typ=TYP).signatures[0].value)), "bad-signature")
    assert market.post(honest).status == 200


def _with_signature(transaction: bytes, signature: bytes) -> bytes:
    signed = cose.parse(transaction, typ=TYP)
    return replace(signed, signatures=(replace(signed.signatures[0], value=signature),)).encode()


def _high_s(signature: bytes) -> bytes:
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    return signature[:32] + (order - int.from_bytes(signature[32:])).to_bytes(32)


def test_nobody_acts_for_an_owner(market: Watched, maker: Stranger) -> None:
    """A stranger, and the maker's own party key, deploy, offer, freeze and retire devices that are an owner's."""
    lot = market.lot(maker, 8)
    thief, some = new_key(), Selection.of([0, 1])
    body = Offer(lot.batch, 1, thief.public, now() + 60, some)
    attacks = (
        Deploy(lot.batch, 1, bytes(32), None),
        Deploy(lot.batch, 1, bytes(32), some),
        body,
        Freeze(lot.batch, 1, some),
        Retire(lot.batch, 1, some),
    )
    for attack in attacks[1:]:
        own_device = Selection.of([3 + attacks.index(attack)])
        market.do(replace(attack, selection=own_device), lot.keys[1])  # type: ignore[type-var]
    market.do(attacks[0], lot.keys[1])
    for attack in attacks:
        refused(market, market.make(attack, thief, sequence=1), "wrong-key")
        refused(market, market.make(attack, maker.signing), "wrong-key")
    other = market.join(Role.MNO)
    published = PublishReference(maker.party, lot.model, bytes(16), bytes(32), 0, 0, now() + 60)
    market.do(replace(published, identifier=SystemRandom().bytes(16)), maker.signing)
    refused(market, market.make(published, other.signing), "wrong-key")
    own = replace(published, party=other.party)
    refused(market, market.make(own, other.signing), "wrong-role")


def test_one_device_is_sold_to_one_buyer(market: Watched, maker: Stranger) -> None:
    """A seller offers the same devices to two buyers, who both want to accept; others want to accept for them."""
    lot = market.lot(maker, 16)
    seller, first, second, thief = lot.keys[1], new_key(), new_key(), new_key()
    sold_before(market, lot, 15)
    offered = tenure(market.do(market.offer(lot, first.public, Selection.of([(0, 8)]), now=now()), seller))
    for overlap in (Selection.of([(7, 2)]), Selection.of([(0, 8)]), Selection.of([(0, 15)])):
        refused(market, market.make(market.offer(lot, second.public, overlap, now=now()), seller), "offer-live")
    refused(market, market.make(accepting(lot, offered), second, sequence=1), "wrong-key")
    refused(market, market.make(accepting(lot, offered), seller), "wrong-key")
    refused(market, market.make(accepting(lot, 1), thief, sequence=1), "not-an-offer")
    refused(market, market.make(accepting(lot, 99), thief, sequence=1), "unknown-tenure")
    plan = bytes(32)
    refused(market, market.make(Deploy(lot.batch, offered, plan, None), first, sequence=1), "not-accepted")
    refused(market, market.make(Deploy(lot.batch, 1, plan, Selection.of([3])), seller), "offer-live")
    refused(market, market.make(Freeze(lot.batch, 1, Selection.of([3])), seller), "offer-live")
    market.do(accepting(lot, offered), first)
    refused(market, market.make(accepting(lot, offered), first, sequence=2), "already-accepted")
    for sold in (Selection.of([0]), Selection.of([(7, 2)])):
        refused(market, market.make(market.offer(lot, second.public, sold, now=now()), seller), "wrong-owner")
        refused(market, market.make(Deploy(lot.batch, 1, plan, sold), seller), "wrong-owner")
    refused(market, market.make(Deploy(lot.batch, offered, plan, None), seller), "wrong-key")
    refused(market, market.make(Withdraw(lot.batch, offered), seller), "already-accepted")
    market.do(Deploy(lot.batch, offered, plan, None), first)


def sold_before(market: Market, lot: Lot, index: int) -> None:
    """Sell a device as it should be."""
    buyer = new_key()
    number = tenure(market.do(market.offer(lot, buyer.public, Selection.of([index]), now=now()), lot.keys[1]))
    market.do(accepting(lot, number), buyer)


def short_offer(market: Market, lot: Lot, buyer: bytes, selection: Selection) -> tuple[Said, float]:
    """Make an offer that soon expires, in as few seconds as this machine allows; return when (monotonic) it has."""
    for seconds in (2, 4, 8, 16, 32):
        offer = market.offer(lot, buyer, selection, seconds=seconds, now=now())
        said = market.post(market.make(offer, lot.keys[1]))
        if said.status == 200:
            market.sequences[lot.keys[1].public] += 1
            return said, time.monotonic() + seconds + 1.1
        assert said.code == "expiry-past"
    raise AssertionError("never in time")


def test_an_offer_that_has_ended_is_nobodys(market: Watched, maker: Stranger) -> None:
    """A buyer accepts what was withdrawn or has expired; strangers and the buyer withdraw what they did not offer."""
    lot = market.lot(maker, 16)
    seller, buyer, late, thief = lot.keys[1], new_key(), new_key(), new_key()
    sold_before(market, lot, 15)
    short, expires = short_offer(market, lot, late.public, Selection.of([(8, 4)]))
    offered = tenure(market.do(market.offer(lot, buyer.public, Selection.of([(0, 4)]), now=now()), seller))
    withdraw = Withdraw(lot.batch, offered)
    refused(market, market.make(withdraw, thief, sequence=1), "wrong-key")
    refused(market, market.make(withdraw, buyer, sequence=1), "wrong-key")
    market.do(withdraw, seller)
    refused(market, market.make(accepting(lot, offered), buyer), "offer-ended")
    refused(market, market.make(withdraw, seller), "offer-ended")
    past = market.offer(lot, buyer.public, Selection.of([1]), seconds=-1, now=now())
    refused(market, market.make(past, seller), "expiry-past")
    time.sleep(max(0.0, expires - time.monotonic()))
    refused(market, market.make(accepting(lot, tenure(short)), late), "offer-expired")
    refused(market, market.make(Withdraw(lot.batch, tenure(short)), seller), "offer-expired")
    again = market.offer(lot, thief.public, Selection.of([(0, 12)]), now=now())
    market.do(accepting(lot, tenure(market.do(again, seller))), thief)


def test_nobody_registers_without_a_member_and_with_others_keys(market: Watched) -> None:
    """A party registers itself unendorsed, endorsed by nobody, with keys that it does not hold, and a second time."""
    key, following, agreement = new_key(), new_key(), AgreementKey.generate()[0]
    outsider, member = new_key(), market.member()
    market.join(Role.MNO)
    hashed = hashlib.sha256(following.public).digest()
    body = RegisterParty(key.public, hashed, (Role.MNO,), agreement.public, ())

    def make(what: RegisterParty, *signers: SigningKey) -> bytes:
        return build(what, chain=market.chain, sequence=1, signer=signers[0], cosigners=signers[1:])

    refused(market, make(body, key), "not-endorsed")
    refused(market, make(body, key, outsider), "not-endorsed")
    refused(market, make(body, member), "not-possessed")
    refused(market, make(body, key, member, outsider), "unknown-key")
    refused(market, make(replace(body, agreement_key=key.public), key, member), "key-reused")
    refused(market, make(replace(body, agreement_key=_off_curve()), key, member), "bad-point", 400)
    refused(market, make(replace(body, next_key_hash=hashlib.sha256(key.public).digest()), key, member), "key-reused")
    refused(market, make(replace(body, key=member.public), member, market.member(2)), "key-is-root")
    assert market.post(make(body, key, member)).status == 200
    refused(market, make(replace(body, endpoints=("http://127.0.0.1:9",)), key, member), "party-exists")


def _off_curve() -> bytes:
    for x in range(256):
        point = b"\x02" + bytes(31) + bytes([x])
        with contextlib.suppress(MalformedError):
            p256.load(point)
            continue
        return point
    raise AssertionError("all of them are on the curve")


# --- sales that are not what they seem ----------------------------------------------------------


@dataclass(slots=True)
class Counter:
    """Where a dishonest seller deals with an honest buyer, who uses the installed command."""

    lab: Lab
    market: Watched
    lot: Lot
    papers: Path

    def purchase(self) -> Purchase:
        """Let the buyer ask for devices."""
        path = self.papers / f"{SystemRandom().bytes(8).hex()}.purchase"
        run("owner", "request", self.lab.places.distributor, "--out", path)
        return Purchase.decode(path.read_bytes())

    def offer(self, buyer: bytes, selection: Selection) -> tuple[bytes, int]:
        """Offer devices; return the transaction's id and the tenure."""
        said = self.market.do(self.market.offer(self.lot, buyer, selection, now=now()), self.lot.keys[1])
        answer = TransactionAnswer.decode(said.body)
        return answer.id, answer.tenure

    def manifest(self, selection: Selection) -> Manifest:
        """Return what honestly belongs to devices."""
        return self.lot.manifest(self.market.chain, selection)

    def write(self, sale: Sale, manifest: Manifest, key: bytes, change: Callable[[bytes], bytes] = bytes) -> Path:
        """Write a sale file; ``change`` is to its sealed part."""
        head, path = sale.encode(), self.papers / f"{SystemRandom().bytes(8).hex()}.sale"
        sealed = b"".join(seal_stream(manifest.chunks(), key, info=manifest_info(sale.chain, sale.batch)))
        path.write_bytes(len(head).to_bytes(4) + head + change(sealed))
        return path

    def accept(self, sale: Path) -> str:
        """Let the buyer accept; return ``accepted`` or the code of what the command said."""
        try:
            run("owner", "accept", self.lab.places.distributor, sale)
        except CommandError as error:
            return error.code
        return "accepted"


def _flip(sealed: bytes) -> bytes:
    return sealed[:-40] + bytes([sealed[-40] ^ 1]) + sealed[-39:]


def test_a_buyer_takes_nothing_that_is_not_in_the_manifest(
    lab: Lab, market: Watched, maker: Stranger, tmp_path: Path
) -> None:
    """A seller hands over a manifest with fewer or other devices, false keys, of another batch, or for a false offer.

    The buyer would pay for devices that do not exist, are others, or that he could never reach.
    """
    desk = Counter(lab, market, market.lot(maker, 16), tmp_path)
    wanted = Selection.of([(0, 4)])
    honest = desk.purchase()
    transaction, number = desk.offer(honest.buyer, Selection.of([(12, 2)]))
    sale = Sale(market.chain, transaction, desk.lot.batch, number, honest.buyer)
    assert desk.accept(desk.write(sale, desk.manifest(Selection.of([(12, 2)])), honest.manifest_key)) == "accepted"

    asked = desk.purchase()
    transaction, number = desk.offer(asked.buyer, wanted)
    _, others = desk.offer(new_key().public, Selection.of([(4, 4)]))
    sale, good = Sale(market.chain, transaction, desk.lot.batch, number, asked.buyer), desk.manifest(wanted)
    foreign = market.lot(maker, 16).manifest(market.chain, wanted)
    swapped = p256.coordinates(new_key().public)
    false_key = replace(good, rows=good.rows[:20] + swapped + good.rows[84:])
    false_proof = replace(good, proof=bytes([good.proof[0] ^ 1]) + good.proof[1:])
    off_curve = replace(good, rows=good.rows[:20] + bytes(63) + b"\x01" + good.rows[84:])
    renamed = replace(foreign, batch=desk.lot.batch)
    key = asked.manifest_key
    attacks = {
        "fewer devices": ("wrong-count", desk.write(sale, desk.manifest(Selection.of([(0, 3)])), key)),
        "other devices": ("wrong-manifest", desk.write(sale, desk.manifest(Selection.of([(8, 4)])), key)),
        "more devices": ("wrong-count", desk.write(sale, desk.manifest(Selection.of([(0, 5)])), key)),
        "a false identity key": ("not-in-batch", desk.write(sale, false_key, key)),
        "a false proof": ("not-in-batch", desk.write(sale, false_proof, key)),
        "a key off the curve": ("bad-point", desk.write(sale, off_curve, key)),
        "another batch": ("wrong-manifest", desk.write(sale, foreign, key)),
        "another batch in this one's name": ("not-in-batch", desk.write(sale, renamed, key)),
        "somebody else's offer": ("offer-not-ours", desk.write(replace(sale, tenure=others), good, key)),
        "no offer": ("offer-missing", desk.write(replace(sale, tenure=77), good, key)),
        "somebody else's purchase": ("not-our-purchase", desk.write(replace(sale, buyer=new_key().public), good, key)),
        "a changed byte": ("cannot-open", desk.write(sale, good, key, _flip)),
        "the last row cut off": ("truncated", desk.write(sale, good, key, lambda sealed: sealed[:-ROW])),
    }
    before, held = market.counts(), _files(lab.places.distributor / "holdings")
    with lab.untouched():
        assert {name: desk.accept(path) for name, (_, path) in attacks.items()} == {
            name: code for name, (code, _) in attacks.items()
        }
    assert market.counts() == before
    assert _files(lab.places.distributor / "holdings") == held
    assert desk.accept(desk.write(sale, good, key)) == "accepted"


def _files(directory: Path) -> list[str]:
    return sorted(str(path) for path in directory.rglob("*"))


# --- devices between owners ---------------------------------------------------------------------


@dataclass(slots=True)
class Resale:
    """A batch of real devices that are the owner's, some of which he sells to a buyer who is in the test's hands."""

    lab: Lab
    market: Watched
    batch: bytes
    tenure: int
    devices: list[Path]
    owner: SigningKey

    def sell(self, *indices: int) -> tuple[int, SigningKey]:
        """Offer devices; return the tenure and the buyer's key."""
        buyer = new_key()
        with self.reader() as ledger:
            self.market.sequences[self.owner.public] = ledger.tenure(self.batch, self.tenure).sequence
        body = Offer(self.batch, self.tenure, buyer.public, now() + 3_600, Selection.of(indices))
        return tenure(self.market.do(body, self.owner)), buyer

    def reader(self) -> LedgerClient:
        """Return somebody's verified view of the ledger."""
        memory = self.lab.places.root / "papers" / "resale.cbor"
        return LedgerClient(self.market.node, self.market.genesis, memory, random=SystemRandom())

    def take(self, number: int, buyer: SigningKey) -> None:
        """Accept an offer."""
        self.market.do(Accept(self.batch, number, hashlib.sha256(b"recovery").digest(), 0), buyer)

    def plan(self, network: PartyClaim, service: PartyClaim) -> Plan:
        """Return a plan of the buyer's."""
        return new_plan(new_key().public, [network, service], SystemRandom())


@pytest.fixture(scope="module")
def resale(lab: Lab, market: Watched) -> Resale:
    """Make eight devices more, sell them to the owner, and deploy them as the others are."""
    at, out = lab.places, lab.places.root / "resold"
    papers = at.papers / "resale"
    papers.mkdir(mode=0o700)
    made = run(
        "manufacturer", "make", at.manufacturer, "--count", 8, "--model", MODEL, "--out", out,
        "--gateway", lab.addresses.gateway,
    )  # fmt: skip
    batch = made.text("batch")
    run("manufacturer", "anchor", at.manufacturer, "--batch", batch)
    run("owner", "request", at.owner, "--out", papers / "purchase")
    run(
        "manufacturer", "sell", at.manufacturer, "--batch", batch, "--select", "all",
        "--to", papers / "purchase", "--out", papers / "sale",
    )  # fmt: skip
    number = run("owner", "accept", at.owner, papers / "sale").number("tenure")
    held, chosen = ("--batch", batch, "--tenure", number), {}
    for role in ("mno", "sp"):
        party = lab.parties[role]
        order = run("owner", "order", at.owner, *held, "--party", party, "--devices", 8).text("order")
        run(role, "approve", lab.state(role), order)
        chosen[role] = f"{party}:{order}"
    run("owner", "deploy", at.owner, *held, "--network", chosen["mno"], "--service", chosen["sp"])
    key = find_holding(at.owner, bytes.fromhex(batch), number).owner()
    devices = sorted(path for path in out.iterdir() if path.is_dir())
    return Resale(lab, market, bytes.fromhex(batch), number, devices, key)


def left_by(buyer: SigningKey, held: Handheld, number: int, plan: Plan) -> tuple[bytes, bytes]:
    """Return a deposit for one device, and the envelope in it."""
    birth = held.birth
    padded = EnvelopeContent(number, 1, 3, plan.digests, plan.claims()).padded()
    sealed = seal_envelope(padded, identity=birth.identity, chain=birth.chain, locator=held.locator)
    target = DepositTarget(birth.chain, held.gateway, birth.batch, number, 1)
    (deposit,) = sign_deposits(target, [DepositEntry(held.locator, sealed)], buyer)
    return deposit, sealed


def only_mail(sealed: bytes, locator: bytes, bent: list[bytes]) -> Callable[[Asked, Forward], Answered]:
    """Return a bend that shows a device this envelope alone."""

    def bend(asked: Asked, forward: Forward) -> Answered:
        honest = forward(asked)
        if MailRequest.decode(asked.body).locators != (locator,):
            return honest
        bent.append(honest.body)
        return honest.with_body(MailAnswer((sealed,)).encode())

    return bend


def test_a_device_is_not_its_buyers_before_he_has_accepted(lab: Lab, resale: Resale) -> None:
    """A buyer to whom a device was offered puts it under his plan at once, with a gateway that shows his mail only."""
    first, device = resale.devices[0], resale.devices[1]
    lab.connects(first)
    held = Handheld.open(device)
    found = held.found()
    number, buyer = resale.sell(1)
    plan = resale.plan(found.plan.network, found.plan.services[0])
    deposit, sealed = left_by(buyer, held, number, plan)
    lab.settle()
    bent = list[bytes]()
    with lab.untouched():
        said = ask(f"{held.gateway}/v1/deposits", deposit)
        assert (said.status, said.code) == (403, "tenure-not-held")
        deploy = Deploy(resale.batch, number, plan.root, None)
        refused(resale.market, resale.market.make(deploy, buyer), "not-accepted")
        with lab.interceptor.bending("/v1/mail", only_mail(sealed, held.locator, bent)):
            outcome = lab.switch_on(device, until=lambda one: "no-plan" in one.codes)
    assert bent
    assert "no-plan" in outcome.codes
    assert {line["code"] for line in outcome.log if line.get("step") == "envelope"} == {"wrong-plan-root"}
    assert "discovered" not in outcome.codes
    lab.connects(device)


def test_a_device_sold_on_is_no_longer_its_former_owners(lab: Lab, resale: Resale) -> None:
    """A former owner, whose mail still lies there, and a device that acts on what it knew, want to go on as before."""
    device, kept = resale.devices[3], Handheld.open(resale.devices[4])
    found = kept.found()
    assert isinstance(kept.onboard(found, kept.acting(found, found.plan.network)), Granted)
    second = Handheld.open(resale.devices[2])
    before = second.found()
    number, buyer = resale.sell(2, 3)
    resale.take(number, buyer)

    def exchange(**changes: object) -> object:
        with lab.adding("mno", exchange=1):
            return second.onboard(before, second.acting(before, before.plan.network, **changes))

    lab.settle()
    assert exchange() == Refused("not-deployed")
    failed = second.discover()
    assert isinstance(failed, Failed)
    assert replace(failed, standing=None) == Failed("not-deployed", f"tenure {number} has no plan", _trust(second))
    assert failed.standing is not None
    assert failed.standing.number == number
    network = before.plan.network
    plan = resale.plan(network, before.plan.services[0])
    resale.market.do(Deploy(resale.batch, number, plan.root, None), buyer)
    assert exchange() == Refused("stale-view")
    assert exchange(tenure=number) == Refused("bad-plan-opening")
    assert exchange(tenure=number, plan=plan.opening(network)) == Refused("order-foreign")
    own = new_claim(PartyKind.NETWORK, network.party, SystemRandom().bytes(16), SystemRandom())
    other = resale.plan(own, before.plan.services[0])
    resale.market.do(Deploy(resale.batch, number, other.root, None), buyer)
    changes = {"tenure": number, "plan_revision": 2, "plan": other.opening(own)}
    assert exchange(**changes) == Refused("order-unknown")
    with lab.untouched():
        deposit, _ = left_by(resale.owner, second, number, plan)
        said = ask(f"{second.gateway}/v1/deposits", deposit)
        assert (said.status, said.code) == (403, "unknown-key")
    back = Deploy(resale.batch, resale.tenure, bytes(32), Selection.of([2]))
    refused(resale.market, resale.market.make(back, resale.owner), "wrong-owner")
    lab.settle()
    with lab.untouched():
        outcome = lab.switch_on(device, until=lambda one: "no-plan" in one.codes)
    assert "no-plan" in outcome.codes
    assert {line["code"] for line in outcome.log if line.get("step") == "envelope"} == {"wrong-plan-root"}
    assert "discovered" not in outcome.codes


def _trust(held: Handheld) -> object:
    event = held.discover()
    assert isinstance(event, Failed)
    return event.trust


def test_a_neighbours_owner_is_not_the_devices(lab: Lab, resale: Resale) -> None:
    """Somebody buys one device of a batch, and a gateway shows its proof to the devices that are still the owner's."""
    number, buyer = resale.sell(7)
    resale.take(number, buyer)
    found = Handheld.open(resale.devices[5]).found()
    plan = resale.plan(found.plan.network, found.plan.services[0])
    resale.market.do(Deploy(resale.batch, number, plan.root, None), buyer)
    device, held = resale.devices[5], Handheld.open(resale.devices[5])
    assert isinstance(held.discover(), Discovered)
    _, sealed = left_by(buyer, held, number, plan)
    bent, mailed = list[bytes](), list[bytes]()

    def neighbours(asked: Asked, forward: Forward) -> Answered:
        request = BundleRequest.decode(asked.body)
        if request.batch != resale.batch:
            return forward(asked)
        shown = forward(replace(asked, body=replace(request, prefix_bits=7, prefix_length=3).encode()))
        bent.append(shown.body)
        return shown

    lab.settle()
    with (
        lab.untouched(),
        lab.interceptor.bending("/v1/mail", only_mail(sealed, held.locator, mailed)),
        lab.interceptor.bending("/v1/bundles", neighbours),
    ):
        outcome = lab.switch_on(device, until=lambda one: "bad-ownership-proof" in one.codes)
    assert bent
    assert mailed
    assert "bad-ownership-proof" in outcome.codes
    assert "discovered" not in outcome.codes
    lab.connects(device)
