"""Orders, requests and messages that only one check of a party, a gateway or the consortium stands in the way of."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from firstlight.cli.demo.commands import CommandError, run
from firstlight.custody.file import AgreementKey, SigningKey
from firstlight.custody.system import SystemRandom
from firstlight.enrolment.signing import SignerKey
from firstlight.ledger.records import PartyStatus, Role
from firstlight.ledger.transaction import Offer, RegisterParty, Retire, SuspendParty, build
from firstlight.plan.order import Order, sign_order
from firstlight.sealing.deposit import DepositEntry, DepositTarget, sign_deposits
from firstlight.sealing.envelope import SEALED_SIZE
from firstlight.testing.byhand import Hand
from firstlight.testing.handheld import ask
from firstlight.testing.lab import Lab
from firstlight.testing.strangers import Lot, Market, Stranger, new_key
from firstlight.trees.ownership import Selection

HOUR = 3_600


@dataclass(slots=True)
class Estate:
    """Devices on paper on the world's ledger, all keys of which are in the test's hands."""

    lab: Lab
    market: Market
    maker: Stranger
    lot: Lot
    offered: int
    retired: int

    @property
    def owner(self) -> SigningKey:
        return self.lot.keys[1]


@pytest.fixture(scope="module")
def estate(lab: Lab) -> Estate:
    market = Market(lab.addresses.node, lab.places.consortium)
    maker = market.join(Role.MANUFACTURER)
    lot = market.lot(maker, 8)
    owner = lot.keys[1]
    market.do(Offer(lot.batch, 1, new_key().public, int(time.time()) + HOUR, Selection.of([0])), owner)
    market.do(Retire(lot.batch, 1, Selection.of([1])), owner)
    return Estate(lab, market, maker, lot, offered=2, retired=3)


# --- orders ---------------------------------------------------------------------------------------


def order(estate: Estate, **changes: object) -> Order:
    party = bytes.fromhex(estate.lab.parties["mno"])
    number, until = SystemRandom().bytes(16), int(time.time()) + HOUR
    made = Order(number, estate.market.chain, party, estate.lot.batch, 1, 4, until)
    return replace(made, **changes)  # type: ignore[arg-type]


def bent(document: bytes) -> bytes:
    """Return a document with its signature changed."""
    return document[:-1] + bytes([document[-1] ^ 1])


ORDERS: Mapping[str, tuple[str, Callable[[Estate], bytes]]] = {
    "of-no-batch": ("unknown-batch", lambda one: sign_order(order(one, batch=bytes(16)), one.owner)),
    "of-an-offer": ("tenure-not-accepted", lambda one: sign_order(order(one, origin=one.offered), one.owner)),
    "of-no-tenure": ("tenure-missing", lambda one: sign_order(order(one, origin=99), one.owner)),
    "by-a-thief": ("unknown-key", lambda one: sign_order(order(one), new_key())),
    "forged": ("bad-signature", lambda one: bent(sign_order(order(one), one.owner))),
    "for-another-chain": ("wrong-chain", lambda one: sign_order(order(one, chain="another"), one.owner)),
    "for-another-party": ("wrong-party", lambda one: sign_order(order(one, party=bytes(16)), one.owner)),
    "run-out": ("order-expired", lambda one: sign_order(order(one, until=int(time.time()) - 1), one.owner)),
    "for-more-devices-than-there-are": (
        "too-many-devices",
        lambda one: sign_order(order(one, devices=9), one.owner),
    ),
}


@pytest.mark.parametrize("name", sorted(ORDERS))
def test_an_operator_takes_no_such_order(lab: Lab, estate: Estate, name: str) -> None:
    """Somebody has an operator expect devices that are not his, or that nobody has."""
    code, made = ORDERS[name]
    honest = ask(f"{lab.url('mno')}/v1/orders", sign_order(order(estate), estate.owner))
    assert honest.status == 200
    with lab.unchanged(lab.places.mno):
        said = ask(f"{lab.url('mno')}/v1/orders", made(estate))
    assert (said.status >= 400, said.code) == (True, code)


def test_an_operator_takes_no_order_of_a_retired_batch(lab: Lab, estate: Estate) -> None:
    """An owner orders for a tenure that he has retired for good."""
    market = estate.market
    lot = market.lot(estate.maker, 4)
    document = sign_order(order(estate, batch=lot.batch, devices=2), lot.keys[1])
    assert ask(f"{lab.url('mno')}/v1/orders", document).status == 200
    market.do(Retire(lot.batch, 1, Selection.of([(0, 4)])), lot.keys[1])
    retired = sign_order(order(estate, batch=lot.batch, origin=2, devices=2), lot.keys[1])
    with lab.unchanged(lab.places.mno):
        said = ask(f"{lab.url('mno')}/v1/orders", retired)
    assert (said.status >= 400, said.code) == (True, "tenure-not-accepted")


def test_an_operator_keeps_the_first_order_of_a_number(lab: Lab, estate: Estate) -> None:
    """An owner places another order under a number that has been approved, for more devices than were agreed."""
    first = order(estate, devices=2)
    assert ask(f"{lab.url('mno')}/v1/orders", sign_order(first, estate.owner)).status == 200
    run("mno", "approve", lab.places.mno, first.number.hex())
    with lab.unchanged(lab.places.mno):
        said = ask(f"{lab.url('mno')}/v1/orders", sign_order(replace(first, devices=8), estate.owner))
    assert (said.status >= 400, said.code) == (True, "order-differs")
    assert ask(f"{lab.url('mno')}/v1/orders", sign_order(first, estate.owner)).status == 200


# --- a gateway ------------------------------------------------------------------------------------


def deposit(estate: Estate, signer: SigningKey | None = None, **changes: object) -> bytes:
    target = DepositTarget(estate.market.chain, estate.lab.addresses.gateway, estate.lot.batch, 1, 1)
    target = replace(target, **changes)  # type: ignore[arg-type]
    (made,) = sign_deposits(target, [DepositEntry(bytes(16), bytes(SEALED_SIZE))], signer or estate.owner)
    return made


DEPOSITS: Mapping[str, tuple[str, Callable[[Estate], bytes]]] = {
    "of-no-batch": ("unknown-batch", lambda one: deposit(one, batch=bytes(16))),
    "of-no-tenure": ("unknown-tenure", lambda one: deposit(one, tenure=99)),
    "of-an-offer": ("tenure-not-held", lambda one: deposit(one, tenure=one.offered)),
    "of-a-retired-tenure": ("tenure-retired", lambda one: deposit(one, tenure=one.retired)),
    "by-a-thief": ("unknown-key", lambda one: deposit(one, new_key())),
    "forged": ("bad-signature", lambda one: bent(deposit(one))),
    "for-another-chain": ("wrong-chain", lambda one: deposit(one, chain="another")),
    "for-another-gateway": ("wrong-gateway", lambda one: deposit(one, gateway="http://127.0.0.1:9")),
}


@pytest.mark.parametrize("name", sorted(DEPOSITS))
def test_a_gateway_takes_no_such_deposit(lab: Lab, estate: Estate, name: str) -> None:
    """Somebody leaves mail at a gateway for devices that are not his, or leaves it where it is not for."""
    code, made = DEPOSITS[name]
    url = f"{lab.addresses.gateway}/v1/deposits"
    assert ask(url, deposit(estate)).status == 200
    with lab.unchanged(lab.places.gateway):
        said = ask(url, made(estate))
    assert (said.status >= 400, said.code) == (True, code)


def test_a_gateway_relays_to_active_operators_and_services_alone(lab: Lab, estate: Estate) -> None:
    """Somebody has a gateway carry his requests to whom he likes."""
    market = estate.market
    reached = []

    def relay(party: bytes) -> str:
        url = f"{lab.addresses.gateway}/relay/{party.hex()}/.well-known/edhoc"
        said = ask(url, b"x", content_type="application/edhoc+cbor-seq")
        reached.append(said.status)
        return said.code

    operator = market.join(Role.MNO)
    honest = relay(bytes.fromhex(lab.parties["mno"]))
    assert honest not in ("unknown-party", "party-suspended", "not-relayed")
    assert relay(operator.party) not in ("unknown-party", "party-suspended", "not-relayed")
    assert relay(SystemRandom().bytes(16)) == "unknown-party"
    assert relay(estate.maker.party) == "not-relayed"
    suspension = build(
        SuspendParty(operator.party, PartyStatus.SUSPENDED),
        chain=market.chain,
        sequence=2,
        signer=market.member(1),
        cosigners=[market.member(2)],
    )
    assert market.post(suspension).status == 200
    end = time.monotonic() + 60
    while (code := relay(operator.party)) != "party-suspended":
        assert time.monotonic() < end, code
        time.sleep(0.1)


# --- certificates ---------------------------------------------------------------------------------


def requested(
    key: ec.EllipticCurvePrivateKey, *, digest: hashes.HashAlgorithm | None = None, wish: bool = False
) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if wish:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, digest or hashes.SHA256()).public_bytes(Encoding.DER)


def p256_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def of_another() -> bytes:
    """A request for the key of a provider's customer, signed by the thief's own."""
    victim, thief = new_key(), new_key()

    class Claiming:
        public = victim.public

        def sign(self, message: bytes) -> bytes:
            return thief.sign(message)

    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(SignerKey(Claiming()), hashes.SHA256()).public_bytes(Encoding.DER)


REQUESTS: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    "to-be-an-authority": ("request-attributes", lambda: requested(p256_key(), wish=True)),
    "for-another-curve": ("request-wrong-key", lambda: requested(ec.generate_private_key(ec.SECP384R1()))),
    "signed-with-another-hash": ("request-wrong-algorithm", lambda: requested(p256_key(), digest=hashes.SHA512())),
    "for-anothers-key": ("request-bad-signature", of_another),
    "not-in-its-one-encoding": ("request-malformed", lambda: requested(p256_key()) + b"\x00"),
}


@pytest.fixture(scope="module")
def hand(lab: Lab) -> Hand:
    """A device that has its grants: the honest exchange."""
    made = Hand(lab, lab.device())
    made.onboard("mno")
    made.onboard("sp")
    return made


@pytest.mark.parametrize("name", sorted(REQUESTS))
def test_a_provider_certifies_no_such_request(lab: Lab, hand: Hand, name: str) -> None:
    """A device asks for a certificate that is more than its own, or over a key that is not."""
    code, made = REQUESTS[name]
    with lab.only(lab.places.sp, exchange=1):
        assert hand.refused("sp", request=made()) == code


# --- the consortium -------------------------------------------------------------------------------


def registering(chain: str, key: SigningKey, *more: SigningKey) -> bytes:
    body = RegisterParty(key.public, bytes(32), (Role.SP,), AgreementKey.generate()[0].public, ())
    return build(body, chain=chain, sequence=1, signer=key, cosigners=list(more))


def for_anothers_key(chain: str) -> bytes:
    """A request for the key of somebody who did not ask, signed by the asker's own."""
    thief = new_key()
    body = RegisterParty(new_key().public, bytes(32), (Role.SP,), None, ())
    return build(body, chain=chain, sequence=1, signer=thief)


def an_update(chain: str) -> bytes:
    key = new_key()
    return registering(chain, key, new_key())


APPLICATIONS: Mapping[str, tuple[str, Callable[[str], bytes]]] = {
    "signed-by-two": ("not-a-request", an_update),
    "for-another-chain": ("wrong-chain", lambda _: registering("another", new_key())),
    "for-anothers-key": ("unknown-key", for_anothers_key),
    "forged": ("bad-signature", lambda chain: bent(registering(chain, new_key()))),
}


@pytest.mark.parametrize("name", sorted(APPLICATIONS))
def test_a_member_endorses_no_such_request(lab: Lab, tmp_path: Path, name: str) -> None:
    """Somebody has a member put his name under what is not a request, or not the asker's."""
    code, made = APPLICATIONS[name]
    chain = Market(lab.addresses.node, lab.places.consortium).chain
    request = tmp_path / "request"
    request.write_bytes(registering(chain, new_key()))
    run("consortium", "endorse", lab.places.consortium, request, "--out", tmp_path / "honest")
    request.write_bytes(made(chain))
    with pytest.raises(CommandError) as refused:
        run("consortium", "endorse", lab.places.consortium, request, "--out", tmp_path / "out")
    assert refused.value.code == code
    assert not (tmp_path / "out").exists()
