"""Sales, orders, deposits and requests that only one check of a buyer, an operator, a gateway or a member refuses.

Buyers run the real steps against a node in memory, whose ledger applies the real rules; gateways and operators read a
ledger in memory through the real proofs. Beside each attempt there is an honest one that is taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from tests.refusals import refused
from tests.unit.roles.trading import Market, quick_disk

from firstlight.custody.file import AgreementKey
from firstlight.engines.port import Genesis
from firstlight.identity.manifest import Manifest
from firstlight.ledger.records import (
    PartyStatus,
    Reference,
    ReferenceStatus,
    Role,
    Tenure,
    TenureState,
    party_name,
    reference_name,
    tenure_name,
)
from firstlight.ledger.transaction import RegisterParty, Withdraw, build
from firstlight.plan.order import Order, sign_order
from firstlight.roles import registration
from firstlight.roles.bundles import BundleService
from firstlight.roles.gateway.blobs import SetNamed, check_blob
from firstlight.roles.gateway.deposits import check_deposit
from firstlight.roles.gateway.ledger import GatewayLedger
from firstlight.roles.gateway.relay import Relay
from firstlight.roles.holdings import Holding, find_holding, holdings
from firstlight.roles.ledger_client import LedgerClient
from firstlight.roles.party.orders import OrderDesk, approve
from firstlight.roles.party.view import PartyView
from firstlight.roles.trade import Purchase, Sale, accept, read_purchase, withdraw
from firstlight.roles.workplace import Workplace
from firstlight.sealing.deposit import DepositEntry, DepositTarget, parse_deposit, sign_deposits
from firstlight.sealing.envelope import SEALED_SIZE
from firstlight.sealing.stream import manifest_info, seal_stream
from firstlight.stores.exchanges import ExchangeStore
from firstlight.stores.pending_orders import PendingOrders
from firstlight.testing.bundles import BATCH, ISSUER, NETWORK, Ledger, a_party, origin
from firstlight.testing.chains import CHAIN, GENESIS, SECOND, P256Key
from firstlight.testing.clock import FakeClock
from firstlight.testing.parties import FakeNode, genesis_of
from firstlight.testing.random import SeededRandom
from firstlight.transports.client import SyncClient

__all__ = ["quick_disk"]

THIEF = P256Key("mallory")


def gone(work: Coroutine[Any, Any, object]) -> str:
    return refused(lambda: asyncio.run(work))


def bent(document: bytes) -> bytes:
    return document[:-1] + bytes([document[-1] ^ 1])


# --- buyers ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class Deal:
    """A sale of four devices that a buyer may take, in a file that anybody on its way may change."""

    market: Market
    buyer: Workplace
    file: Path
    seller: Holding
    tenure: int

    @classmethod
    def of(cls, root: Path) -> Deal:
        market = Market.open(root)
        seller = find_holding(market.maker.directory, market.made.batch, 1)
        buyer = market.owner("buyer")
        sold, file = market.offer(market.maker, seller, buyer, "0-3")
        return cls(market, buyer, file, seller, sold.tenure)

    @property
    def purchase(self) -> Purchase:
        return read_purchase(self.market.root / "buyer.purchase", self.buyer.chain)

    @property
    def honest(self) -> Manifest:
        return self.seller.manifest().subset(range(4))

    def head(self, **changes: object) -> None:
        """Write another head in front of what was sealed."""
        data = self.file.read_bytes()
        length = int.from_bytes(data[:4])
        head = replace(Sale.decode(data[4 : 4 + length]), **changes).encode()  # type: ignore[arg-type]
        self.file.write_bytes(len(head).to_bytes(4) + head + data[4 + length :])

    def seal(self, manifest: Manifest) -> None:
        """Put another manifest in, properly sealed."""
        data = self.file.read_bytes()
        info = manifest_info(self.market.maker.chain, self.market.made.batch)
        sealed = seal_stream(manifest.chunks(), self.purchase.manifest_key, info=info)
        self.file.write_bytes(data[: 4 + int.from_bytes(data[:4])] + b"".join(sealed))

    def taken(self) -> str:
        return refused(lambda: accept(self.buyer, self.file, delay=0))


def row(manifest: Manifest, **parts: bytes) -> Manifest:
    """Return a manifest whose first row has other keys."""
    rows = manifest.rows
    identity, attestation = parts.get("identity", rows[20:84]), parts.get("attestation", rows[84:148])
    return replace(manifest, rows=rows[:20] + identity + attestation + rows[148:])


def on_another_chain(deal: Deal) -> None:
    deal.head(chain="test-2")


def to_somebody_else(deal: Deal) -> None:
    deal.head(buyer=THIEF.public)


def of_another_batch(deal: Deal) -> None:
    deal.seal(replace(deal.honest, batch=bytes(16)))


def with_a_key_exchanged(deal: Deal) -> None:
    deal.seal(row(deal.honest, identity=deal.honest.rows[180 + 20 : 180 + 84]))


def of_an_offer_that_is_not_there(deal: Deal) -> None:
    deal.head(tenure=9)


def of_anothers_offer(deal: Deal) -> None:
    other, _ = deal.market.offer(deal.market.maker, deal.seller, deal.market.owner("rival"), "4-7")
    deal.head(tenure=other.tenure)


def withdrawn(deal: Deal) -> None:
    withdraw(deal.market.maker, None, deal.tenure)


def expired(deal: Deal) -> None:
    deal.buyer = deal.market.later(deal.buyer, 4_000)


def of_what_nobody_may_sell(deal: Deal) -> None:
    """The seller's holding is frozen, and validators have let the offer stand all the same."""
    ledger = deal.market.node.ledger
    batch = deal.market.made.batch
    frozen = replace(ledger.tenure(batch, 1), state=TenureState.FROZEN)
    ledger.state = ledger.state.changed({tenure_name(batch, 1): frozen.encode()}, {})


def of_fewer(deal: Deal) -> None:
    deal.seal(deal.seller.manifest().subset(range(3)))


def of_others(deal: Deal) -> None:
    deal.seal(deal.seller.manifest().subset([0, 1, 2, 4]))


SALES: Mapping[str, tuple[str, Callable[[Deal], None]]] = {
    "on-another-chain": ("wrong-chain", on_another_chain),
    "to-somebody-else": ("not-our-purchase", to_somebody_else),
    "with-a-manifest-of-another-batch": ("wrong-manifest", of_another_batch),
    "with-anothers-key-in-the-manifest": ("not-in-batch", with_a_key_exchanged),
    "of-an-offer-that-is-not-there": ("offer-missing", of_an_offer_that_is_not_there),
    "of-an-offer-to-somebody-else": ("offer-not-ours", of_anothers_offer),
    "that-was-taken-back": ("offer-ended", withdrawn),
    "that-is-over": ("offer-expired", expired),
    "of-what-nobody-may-sell": ("seller-not-active", of_what_nobody_may_sell),
    "of-fewer-than-are-in-the-offer": ("wrong-count", of_fewer),
    "of-others-than-are-in-the-offer": ("wrong-manifest", of_others),
}


@pytest.mark.parametrize("name", sorted(SALES))
def test_a_buyer_takes_no_such_sale(tmp_path: Path, name: str) -> None:
    """A seller, or whoever carries his file, has a buyer take what he has not bought, or cannot have."""
    code, bend = SALES[name]
    honest = Deal.of(tmp_path / "honest")
    assert honest.taken() == "taken"
    deal = Deal.of(tmp_path / "bent")
    bend(deal)
    before = deal.market.node.ledger.state.root
    assert deal.taken() == code
    assert deal.market.node.ledger.state.root == before
    assert list(holdings(deal.buyer.directory)) == []


def test_a_buyer_sees_each_device_of_a_manifest_in_the_batch(tmp_path: Path) -> None:
    """A seller hands over devices with keys that are none, with one key twice, or that are in no batch."""
    deal = Deal.of(tmp_path)
    honest, root = deal.honest, deal.market.node.ledger.batch(deal.market.made.batch).leaves
    honest.verify(root, 12)
    assert refused(lambda: honest.verify(root, 13)) == "wrong-size"
    off_curve = row(honest, identity=b"\x01" * 64)
    assert refused(lambda: off_curve.verify(root, 12)) == "bad-point"
    twice = row(honest, attestation=honest.rows[20:84])
    assert refused(lambda: twice.verify(root, 12)) == "same-keys"
    more = replace(honest, proof=honest.proof + bytes(32))
    assert refused(lambda: more.verify(root, 12)) == "bad-multiproof"
    exchanged = row(honest, identity=honest.rows[180 + 20 : 180 + 84])
    assert refused(lambda: exchanged.verify(root, 12)) == "not-in-batch"


# --- members --------------------------------------------------------------------------------------


def applying(key: P256Key, *more: P256Key, chain: str = CHAIN, named: P256Key | None = None) -> bytes:
    agreement = AgreementKey.generate()[0].public
    body = RegisterParty((named or key).public, bytes(32), (Role.SP,), agreement, ())
    return build(body, chain=chain, sequence=1, signer=key, cosigners=list(more))


APPLICATIONS: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    "for-something-else": (
        "not-a-request",
        lambda: build(Withdraw(BATCH, 2), chain=CHAIN, sequence=1, signer=P256Key("sp")),
    ),
    "signed-by-another-beside": ("not-a-request", lambda: applying(P256Key("sp"), THIEF)),
    "on-another-chain": ("wrong-chain", lambda: applying(P256Key("sp"), chain="test-2")),
    "for-somebody-elses-key": ("unknown-key", lambda: applying(THIEF, named=P256Key("sp"))),
    "forged": ("bad-signature", lambda: bent(applying(P256Key("sp")))),
}


@pytest.mark.parametrize("name", sorted(APPLICATIONS))
def test_a_member_puts_his_name_under_no_such_request(name: str) -> None:
    """Somebody has a member endorse what is no request, or not the asker's."""
    code, made = APPLICATIONS[name]
    member = P256Key("root 0")
    assert registration.endorse(applying(P256Key("sp")), member, chain=CHAIN).body.key == P256Key("sp").public
    assert refused(lambda: registration.endorse(made(), member, chain=CHAIN)) == code


# --- operators ------------------------------------------------------------------------------------

OWNER = P256Key("tenure 2")
ORDER = Order(b"\x07" * 16, CHAIN, NETWORK, BATCH, 2, 100, GENESIS + 9_000)
Bend = Callable[[Ledger], None]


def tenure(**changes: object) -> Bend:
    def bend(ledger: Ledger) -> None:
        record = ledger.records[tenure_name(BATCH, 2)]
        assert isinstance(record, Tenure)
        ledger.records[tenure_name(BATCH, 2)] = replace(record, **changes)  # type: ignore[arg-type]

    return bend


def as_it_is(_: Ledger) -> None:
    """Change nothing."""


@contextlib.contextmanager
def desk(ledger: Ledger, root: Path) -> Iterator[tuple[OrderDesk, Callable[[], None]]]:
    """Open an operator's desk for orders; also give what approves the order."""
    node = FakeNode(ledger, time=GENESIS + 500)
    answering = httpx.MockTransport(lambda asked: httpx.Response(200, content=node.answer(asked.read())))
    http = SyncClient(transport=answering)
    client = LedgerClient("http://node", genesis_of(ledger), root / "memory", random=SeededRandom(), http=http)
    exchanges, pending = ExchangeStore.open(root / "mno.sqlite"), PendingOrders.open(root / "mno.sqlite")
    view, clock = PartyView(client, NETWORK), FakeClock(GENESIS + 500)
    with contextlib.closing(exchanges), contextlib.closing(pending):
        made = OrderDesk(CHAIN, NETWORK, view=view, pending=pending, exchanges=exchanges, clock=clock)
        yield made, lambda: cast("None", approve(ORDER.number, pending, exchanges))


ORDERS: Mapping[str, tuple[str, Bend, Mapping[str, object], P256Key]] = {
    "of-no-batch": ("unknown-batch", as_it_is, {"batch": bytes(16)}, OWNER),
    "of-no-tenure": ("tenure-missing", as_it_is, {"origin": 9}, OWNER),
    "of-an-offer": ("tenure-not-accepted", tenure(state=TenureState.OFFERED, expiry=GENESIS + 8_000), {}, OWNER),
    "of-what-is-retired": ("tenure-retired", tenure(state=TenureState.RETIRED), {}, OWNER),
    "by-somebody-else": ("unknown-key", as_it_is, {}, THIEF),
    "for-another-party": ("wrong-party", as_it_is, {"party": bytes(16)}, OWNER),
    "for-more-devices-than-there-are": ("too-many-devices", as_it_is, {"devices": 1_001}, OWNER),
    "under-a-number-that-was-approved": ("order-differs", as_it_is, {"devices": 5}, OWNER),
}


@pytest.mark.parametrize("name", sorted(ORDERS))
def test_an_operator_takes_no_such_order(tmp_path: Path, name: str) -> None:
    """Somebody has an operator expect devices that are not his, or that nobody has."""
    code, bend, changes, signer = ORDERS[name]
    ledger = Ledger(size=1_000)
    with desk(ledger, tmp_path) as (own, approved):
        own.place(sign_order(ORDER, OWNER))
        approved()
        bend(ledger)
        ledger.at += 1
        document = sign_order(replace(ORDER, **changes), signer)  # type: ignore[arg-type]
        assert refused(lambda: own.place(document)) == code


# --- gateways -------------------------------------------------------------------------------------

GATEWAY = "http://gateway.example"


class Bundles:
    """Proves what a ledger in memory says."""

    height = 0

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    async def answer(self, request: Any) -> bytes:
        return self.ledger.answer(request).encode()


def gateway_of(ledger: Ledger, root: Path) -> GatewayLedger:
    begun = Genesis(
        CHAIN, GENESIS * SECOND, ledger.trust.root, ledger.consortium.signed_epoch(), ledger.consortium.validator_set
    )
    service = cast("BundleService", Bundles(ledger))
    return GatewayLedger(begun, service, FakeClock(GENESIS + 600), SeededRandom("gateway"), root / "view.cbor")


def left(signer: P256Key = OWNER, **changes: object) -> bytes:
    target = replace(DepositTarget(CHAIN, GATEWAY, BATCH, 2, 1), **changes)  # type: ignore[arg-type]
    (made,) = sign_deposits(target, [DepositEntry(bytes(16), bytes(SEALED_SIZE))], signer)
    return made


DEPOSITS: Mapping[str, tuple[str, Bend, Callable[[], bytes]]] = {
    "of-no-batch": ("unknown-batch", as_it_is, lambda: left(batch=bytes(16))),
    "of-no-tenure": ("unknown-tenure", as_it_is, lambda: left(tenure=99)),
    "of-an-offer": ("tenure-not-held", tenure(state=TenureState.OFFERED, expiry=GENESIS + 8_000), left),
    "of-what-is-retired": ("tenure-retired", tenure(state=TenureState.RETIRED), left),
    "by-a-former-owner": ("unknown-key", as_it_is, lambda: left(P256Key("tenure 1"))),
}


@pytest.mark.parametrize("name", sorted(DEPOSITS))
def test_a_gateway_keeps_no_such_deposit(tmp_path: Path, name: str) -> None:
    """Somebody leaves mail at a gateway for devices that are not, or no longer, his."""
    code, bend, made = DEPOSITS[name]
    ledger = two_tenures()
    own = gateway_of(ledger, tmp_path)
    assert gone(check_deposit(parse_deposit(left()), own, GATEWAY)) == "taken"
    bend(ledger)
    ledger.at += 1
    assert gone(check_deposit(parse_deposit(made()), own, GATEWAY)) == code


def two_tenures() -> Ledger:
    """Return a ledger whose batch has no more tenures than are there."""
    ledger = Ledger(size=8)
    for number in range(3, 10):
        ledger.records[tenure_name(BATCH, number)] = origin(number, 0, previous=1)
    return ledger


BODY = b"what an issuer has published"
DIGEST = hashlib.sha256(BODY).digest()
NAMED = SetNamed(ISSUER, b"model-1", b"R" * 16)


def published(**changes: object) -> Bend:
    def bend(ledger: Ledger) -> None:
        record = Reference(DIGEST, 1, 0, GENESIS * 2, ReferenceStatus.LIVE)
        name = reference_name(ISSUER, NAMED.model, NAMED.identifier)
        ledger.records[name] = replace(record, **changes)  # type: ignore[arg-type]

    return bend


def taken_off(ledger: Ledger) -> None:
    del ledger.records[reference_name(ISSUER, NAMED.model, NAMED.identifier)]


BODIES: Mapping[str, tuple[str, Bend, bytes, str]] = {
    "under-another-digest": ("wrong-digest", as_it_is, BODY, bytes(32).hex()),
    "of-a-set-that-is-not-there": ("reference-unknown", taken_off, BODY, DIGEST.hex()),
    "of-a-set-that-was-revoked": ("reference-revoked", published(status=ReferenceStatus.REVOKED), BODY, DIGEST.hex()),
    "of-another-set": ("wrong-digest", as_it_is, b"mine", hashlib.sha256(b"mine").hexdigest()),
}


@pytest.mark.parametrize("name", sorted(BODIES))
def test_a_gateway_keeps_no_such_body(tmp_path: Path, name: str) -> None:
    """Somebody uses a gateway as his store, or has it hand out what an issuer has not published, or no longer."""
    code, bend, body, digest = BODIES[name]
    ledger = Ledger()
    published()(ledger)
    own = gateway_of(ledger, tmp_path)
    assert gone(check_blob(DIGEST.hex(), BODY, NAMED, own)) == "taken"
    bend(ledger)
    ledger.at += 1
    assert gone(check_blob(digest, body, NAMED, own)) == code


def test_a_gateway_carries_requests_to_active_operators_and_services_alone(tmp_path: Path) -> None:
    """Somebody has a gateway carry his requests to whom he likes."""
    ledger = Ledger()
    maker, ended = b"M" * 16, b"E" * 16
    ledger.records[party_name(maker)] = a_party("maker", Role.MANUFACTURER)
    ledger.records[party_name(ended)] = replace(a_party("ended", Role.SP), status=PartyStatus.SUSPENDED)
    relay = Relay(gateway_of(ledger, tmp_path), cast("Any", None))

    def towards(party: bytes) -> str:
        return gone(relay._endpoint(party))

    assert towards(NETWORK) == "taken"
    assert towards(bytes(16)) == "unknown-party"
    assert towards(ended) == "party-suspended"
    assert towards(maker) == "not-relayed"
