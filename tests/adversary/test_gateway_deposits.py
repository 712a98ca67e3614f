"""Deposits, receipts and bodies at the gateway: forged, replayed, for others, by former owners, exchanged."""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace

import pytest

from firstlight import cose
from firstlight.attestation.evidence import ReferenceName
from firstlight.attestation.reference import ReferenceSet, body_digest, sign_reference
from firstlight.custody.file import SigningKey
from firstlight.custody.system import SystemClock, SystemRandom
from firstlight.discovery.machine import Discovered
from firstlight.errors import FirstlightError
from firstlight.ledger.transaction import PublishReference
from firstlight.onboarding.device import Granted, Refused
from firstlight.roles import registration
from firstlight.roles.holdings import find_holding
from firstlight.roles.ledger_client import LedgerClient
from firstlight.roles.measure import measured
from firstlight.roles.wire import (
    MailAnswer,
    MailRequest,
    ReceiptFound,
    ReceiptPage,
    ReceiptPut,
    ReceiptQuery,
)
from firstlight.sealing.deposit import DepositEntry, DepositTarget, sign_deposits
from firstlight.sealing.envelope import SEALED_SIZE, open_envelope
from firstlight.sealing.receipt import SEALED_SIZE as RECEIPT_SIZE
from firstlight.sealing.receipt import Receipt, Step, seal_receipt
from firstlight.testing.handheld import Handheld, ask, eventually
from firstlight.testing.interceptor import Answered, Asked, Forward
from firstlight.testing.lab import Lab
from firstlight.testing.strangers import Market, new_key

DAY = 86_400
SECOND = 1_000_000_000


def owner_key(lab: Lab) -> SigningKey:
    """Return the key of the tenure that counts."""
    return find_holding(lab.places.owner, bytes.fromhex(lab.batch), lab.holding.tenure).owner()


def former_key(lab: Lab) -> SigningKey:
    """Return the key of the distributor's tenure, from which all devices were sold on."""
    return find_holding(lab.places.distributor, bytes.fromhex(lab.batch), None).owner()


def genuine(held: Handheld, found: Discovered) -> bytes:
    """Return the envelope, still sealed, in which the device finds its owner's plan."""
    said = ask(f"{held.gateway}/v1/mail", MailRequest((held.locator,)).encode())
    for sealed in MailAnswer.decode(said.body).envelopes:
        content = open_envelope(sealed, held.identity, chain=held.birth.chain, locator=held.locator)
        if content.digests == found.digests:
            return sealed
    raise AssertionError("no envelope with the plan")


def test_only_the_owner_fills_a_devices_mailbox(lab: Lab) -> None:
    """A stranger, the former owner, and the owner himself beyond his rights, leave mail for devices.

    They would crowd out the owner's plan, or wait there for the day on which the tenure is theirs.
    """
    held = Handheld.open(lab.device())
    found, chain = held.found(), Market(lab.addresses.node, lab.places.consortium).chain
    revision, batch = found.standing.plan_revision, held.birth.batch
    target = DepositTarget(chain, held.gateway, batch, found.standing.number, revision)
    entry = DepositEntry(held.locator, genuine(held, found))
    owner, former, stranger = owner_key(lab), former_key(lab), new_key()

    def signed(signer: SigningKey, *entries: DepositEntry, **changes: object) -> bytes:
        (deposit,) = sign_deposits(replace(target, **changes), entries or (entry,), signer)  # type: ignore[arg-type]
        return deposit

    def leave(deposit: bytes) -> tuple[int, str]:
        said = ask(f"{held.gateway}/v1/deposits", deposit)
        return said.status, said.code

    good = signed(owner)
    assert leave(good) == (200, "")
    many = [
        DepositEntry(b"\x01" + one.to_bytes(2) + bytes(13), bytes(SEALED_SIZE)) for one in range(held.birth.size + 1)
    ]
    broken = bytearray(good)
    broken[-80] ^= 1
    former_tenure = find_holding(lab.places.distributor, batch, None).origin
    attacks = {
        "a stranger": (signed(stranger), (403, "unknown-key")),
        "the former owner": (signed(former), (403, "unknown-key")),
        "the former owner for his tenure": (signed(former, tenure=former_tenure, revision=1), (409, "slots-full")),
        "the owner for another's tenure": (signed(owner, tenure=former_tenure, revision=1), (403, "unknown-key")),
        "a tenure that is not there": (signed(owner, tenure=9_999), (403, "unknown-tenure")),
        "a batch that is not there": (signed(owner, batch=bytes(16)), (403, "unknown-batch")),
        "for another gateway": (signed(owner, gateway="http://127.0.0.1:9"), (422, "wrong-gateway")),
        "for another chain": (signed(owner, chain="another"), (422, "wrong-chain")),
        "replayed from an earlier revision": (signed(owner, revision=revision - 1), (409, "revision-not-current")),
        "for a far revision": (signed(owner, revision=revision + 2), (409, "revision-not-current")),
        "more than there are devices": (signed(owner, *many, revision=revision + 1), (409, "slots-full")),
        "changed under its signature": (bytes(broken), (403, "bad-signature")),
        "signed as something else": (
            cose.sign1(cose.parse(good, typ="application/firstlight-deposit+cbor", limit=8_192).payload,
                       typ="application/firstlight-order+cbor", signer=owner),
            (400, "wrong-type"),
        ),
    }  # fmt: skip
    before = ask(f"{held.gateway}/v1/mail", MailRequest((held.locator,)).encode()).body
    with lab.untouched():
        assert {who: leave(deposit) for who, (deposit, _) in attacks.items()} == {
            who: expected for who, (_, expected) in attacks.items()
        }
    assert ask(f"{held.gateway}/v1/mail", MailRequest((held.locator,)).encode()).body == before
    assert isinstance(held.discover(), Discovered)


def figures(lab: Lab) -> Mapping[str, object]:
    """Return what the owner's process says of his fleet."""
    return ask(f"{lab.url('owner')}/v1/status", method="GET").fields()


def test_receipts_that_no_device_made_count_for_nothing(lab: Lab) -> None:
    """A gateway, helped by an opened device of the fleet, invents receipts, moves them, and changes who they are of.

    The owner would believe devices to be at work that are not.
    """
    honest, other = lab.device(), lab.device()
    lab.connects(honest)
    lab.connects(other)
    victim, thief = Handheld.open(honest), Handheld.open(other)
    found = thief.found()
    key = found.plan.profile.receipt_key
    claimed = Receipt(
        chain=victim.birth.chain,
        batch=victim.birth.batch,
        index=victim.birth.index,
        tenure=found.standing.number,
        revision=found.standing.plan_revision,
        party=found.plan.network.party,
        grant=bytes(16),
        step=Step.SERVICE_CONNECTED,
        counter=900,
        time=SystemClock().now() // SECOND,
    )
    own = replace(claimed, index=thief.birth.index)

    def sealed(receipt: Receipt, signer: SigningKey, locator: bytes) -> bytes:
        return seal_receipt(receipt, signer=signer, owner=key, locator=locator)

    lab.settle()
    before, moved = figures(lab), _receipts(lab, thief.receipts)[0]
    forged = [
        ("unknown-key", victim.receipts, sealed(claimed, new_key(), victim.receipts)),
        ("unknown-key", victim.receipts, sealed(claimed, thief.attestation, victim.receipts)),
        ("unknown-key", victim.receipts, sealed(own, thief.attestation, victim.receipts)),
        ("cannot-open", victim.receipts, moved),
        ("bad-point", victim.receipts, SystemRandom().bytes(RECEIPT_SIZE)),
        ("wrong-device", thief.receipts, sealed(claimed, thief.attestation, thief.receipts)),
        ("wrong-tenure", thief.receipts, sealed(replace(own, tenure=1), thief.attestation, thief.receipts)),
        ("cannot-open", thief.receipts, sealed(replace(own, chain="another"), thief.attestation, thief.receipts)),
    ]
    with lab.growth() as grown, lab.unchanged(lab.places.mno, lab.places.sp, lab.places.node):
        for _, locator, receipt in forged:
            assert ask(f"{victim.gateway}/v1/receipts", ReceiptPut(locator, receipt).encode()).status == 200
        wanted = Counter(code for code, _, _ in forged)
        eventually(lambda: _rejected(lab) - _codes(before) == wanted, "the owner has looked at all of them")
    after = figures(lab)
    assert {name: after[name] for name in HONEST} == {name: before[name] for name in HONEST}
    assert all(after[name] for name in HONEST)
    assert {name: count for name, count in grown.items() if name != "owner.rejected"} == {
        "gateway.receipt": len(forged)
    }


HONEST = ("devices", "network_attached", "service_connected", "receipts")


def test_replayed_receipts_count_once(lab: Lab) -> None:
    """A gateway shows genuine receipts again, under new cursors, and a counter that was used for another one."""
    device = lab.device()
    lab.connects(device)
    lab.settle()
    held = Handheld.open(device)
    found, old = held.found(), _receipts(lab, held.receipts)
    assert len(old) == 2
    lying = lab.rows(lab.places.gateway)["receipt"]
    with lab.untouched():
        for one in old:
            assert ask(f"{held.gateway}/v1/receipts", ReceiptPut(held.receipts, one).encode()).status == 200
    assert lab.rows(lab.places.gateway)["receipt"] == lying
    again = Receipt(
        held.birth.chain,
        held.birth.batch,
        held.birth.index,
        found.standing.number,
        found.standing.plan_revision,
        found.plan.network.party,
        bytes(16),
        Step.SERVICE_CONNECTED,
        1,
        0,
    )
    key = found.plan.profile.receipt_key
    shown = [*old, seal_receipt(again, signer=held.attestation, owner=key, locator=held.receipts)]
    nowhere = SystemRandom().bytes(16)
    for _ in shown:  # use up cursors that no honest receipt will have
        assert ask(f"{held.gateway}/v1/receipts", ReceiptPut(nowhere, _noise()).encode()).status == 200
    with closing(sqlite3.connect(f"file:{lab.places.gateway / 'gateway.sqlite'}?mode=ro", uri=True)) as gateway:
        rows = gateway.execute("SELECT id FROM receipt WHERE locator = ? ORDER BY id", (nowhere,)).fetchall()
    cursors = [row[0] for row in rows]
    before, lied = figures(lab), list[int]()

    def bend(asked: Asked, forward: Forward) -> Answered:
        honest, query = forward(asked), ReceiptQuery.decode(asked.body)
        page = ReceiptPage.decode(honest.body)
        if lied or page.receipts or held.receipts not in query.locators or query.after >= cursors[0]:
            return honest
        lied.append(query.after)
        found = [ReceiptFound(at, held.receipts, one) for at, one in zip(cursors, shown, strict=True)]
        return honest.with_body(ReceiptPage(tuple(found)).encode())

    with lab.growth() as grown, lab.interceptor.bending("/v1/receipts/read", bend):
        eventually(
            lambda: _rejected(lab) - _codes(before) == Counter({"receipt-replayed": 3}), "the owner has seen through it"
        )
    assert len(lied) == 1
    assert set(grown) <= {"owner.rejected"}
    after = figures(lab)
    assert {name: after[name] for name in HONEST} == {name: before[name] for name in HONEST}


def _noise() -> bytes:
    return SystemRandom().bytes(RECEIPT_SIZE)


def _codes(said: Mapping[str, object]) -> Counter[str]:
    codes = said["rejected_by_code"]
    assert isinstance(codes, dict)
    return Counter(codes)


def _rejected(lab: Lab) -> Counter[str]:
    return _codes(figures(lab))


def _receipts(lab: Lab, locator: bytes) -> list[bytes]:
    said = ask(f"{lab.interceptor.url}/v1/receipts/read", ReceiptQuery((locator,), 0).encode())
    return [one.sealed for one in ReceiptPage.decode(said.body).receipts]


# --- bodies by hash -----------------------------------------------------------------------------


def publish(lab: Lab) -> tuple[bytes, bytes]:
    """Publish a fresh set of reference values for the software that runs; return its id and body."""
    keys = registration.load(lab.places.manufacturer)
    market = Market(lab.addresses.node, lab.places.consortium)
    with LedgerClient(
        lab.addresses.node, market.genesis, lab.places.root / "papers" / "reader.cbor", random=SystemRandom()
    ) as ledger:
        market.sequences[keys.signing.public] = ledger.party(keys.party).sequence
    now, identifier = SystemClock().now() // SECOND, SystemRandom().bytes(16)
    values = ReferenceSet(identifier, b"fl-1", (measured(),), now - 60, now + DAY)
    body = sign_reference(values, keys.signing)
    market.do(
        PublishReference(keys.party, b"fl-1", identifier, body_digest(body), measured().svn, now - 60, now + DAY),
        keys.signing,
    )
    name = f"issuer={keys.party.hex()}&model={b'fl-1'.hex()}&identifier={identifier.hex()}"
    put = ask(f"{lab.addresses.gateway}/v1/blobs/{body_digest(body).hex()}?{name}", body, method="PUT")
    assert put.status == 200, put.fields()
    return identifier, body


def onboard(lab: Lab, held: Handheld, identifier: bytes) -> object:
    """Let a device onboard with the MNO, naming a set of reference values."""
    found = held.found()
    assert found.view.batch is not None
    acting = held.acting(found, found.plan.network)
    return held.onboard(found, acting, reference=ReferenceName(found.view.batch.issuer, identifier))


def test_reference_values_are_what_the_ledger_says_whatever_the_gateway_serves(lab: Lab) -> None:
    """A gateway answers with another body than the one that was asked for by its hash: another genuine one, a
    changed one, none. Firmware that the set does not allow would pass."""
    identifier, genuine_body = publish(lab)
    assert isinstance(onboard(lab, Handheld.open(lab.device()), identifier), Granted)
    identifier, body = publish(lab)
    changed = bytearray(body)
    changed[len(body) // 2] ^= 1
    held = Handheld.open(lab.device())
    bends: tuple[Callable[[Answered], Answered], ...] = (
        lambda answered: answered.with_body(genuine_body),
        lambda answered: answered.with_body(bytes(changed)),
        lambda answered: answered.with_body(b""),
        lambda answered: answered.with_body(body + bytes(20_000)),
        lambda answered: replace(answered, status=404, body=b"{}", content_type="application/json"),
    )
    for change in bends:
        bent = list[str]()

        def bend(asked: Asked, forward: Forward) -> Answered:
            bent.append(asked.path)  # noqa: B023
            return change(forward(asked))  # noqa: B023

        with (
            lab.interceptor.bending(f"/v1/blobs/{hashlib.sha256(body).hexdigest()}", bend),
            lab.adding("mno", exchange=1),
        ):
            assert onboard(lab, held, identifier) == Refused("reference-unknown")
        assert bent
    assert isinstance(onboard(lab, held, identifier), Granted)


def test_a_gateway_keeps_no_body_that_the_ledger_does_not_name(lab: Lab) -> None:
    """Somebody stores bodies at a gateway that are no live reference values, to have them fetched, or to fill it."""
    identifier, body = publish(lab)
    issuer = registration.load(lab.places.manufacturer).party
    url = f"{lab.addresses.gateway}/v1/blobs"

    def put(data: bytes, digest: str | None = None, **changes: bytes) -> tuple[int, str]:
        named = {"issuer": issuer, "model": b"fl-1", "identifier": identifier} | changes
        query = "&".join(f"{name}={value.hex()}" for name, value in named.items())
        said = ask(f"{url}/{digest or hashlib.sha256(data).hexdigest()}?{query}", data, method="PUT")
        return said.status, said.code

    assert put(body) == (200, "")
    with lab.untouched():
        assert put(b"another body") == (403, "wrong-digest")
        assert put(b"another body", hashlib.sha256(body).hexdigest()) == (400, "wrong-digest")
        assert put(body, identifier=bytes(16)) == (403, "reference-unknown")
        assert put(body, issuer=bytes(16)) == (403, "reference-unknown")
        assert put(body, model=b"fl-2") == (403, "reference-unknown")
        assert put(body, model=b"") == (400, "bad-reference-name")
        assert put(bytes(20_000)) == (413, "too-large")
        assert ask(f"{url}/{'zz' * 32}", method="GET").code == "not-found"
        assert ask(f"{url}/{bytes(32).hex()}", method="GET").code == "not-found"


def test_an_envelope_is_bound_to_its_place(lab: Lab) -> None:
    """Somebody takes sealed mail elsewhere: it opens for its device, on its chain, at its gateway only."""
    held, other = Handheld.open(lab.device()), Handheld.open(lab.device())
    sealed = genuine(held, held.found())
    assert open_envelope(sealed, held.identity, chain=held.birth.chain, locator=held.locator)
    with lab.untouched():
        for identity, chain, locator in (
            (other.identity, held.birth.chain, held.locator),
            (held.identity, "another", held.locator),
            (held.identity, held.birth.chain, other.locator),
        ):
            with pytest.raises(FirstlightError) as why:
                open_envelope(sealed, identity, chain=chain, locator=locator)
            assert why.value.code == "cannot-open"
