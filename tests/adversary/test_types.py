"""A signature that was made for one thing is brought as another: at every server that takes anything signed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from firstlight import cose
from firstlight.attestation import evidence, reference
from firstlight.chain import root, witness
from firstlight.custody.file import AgreementKey
from firstlight.encoding import encode
from firstlight.ledger import transaction
from firstlight.ledger.transaction import Freeze, build
from firstlight.plan import order
from firstlight.plan.order import parse_order, sign_order
from firstlight.ports import Signer
from firstlight.roles.holdings import find_holding
from firstlight.roles.wire import ReceiptPut
from firstlight.sealing import deposit, hpke, inquiry, receipt
from firstlight.sealing.deposit import DepositEntry, DepositTarget, sign_deposits
from firstlight.sealing.envelope import SEALED_SIZE
from firstlight.sealing.inquiry import Clearance, Question, seal_inquiry, sign_inquiry
from firstlight.sealing.padding import pad
from firstlight.sealing.receipt import Receipt, Step
from firstlight.stores.exchanges import GrantState
from firstlight.testing.byhand import Hand
from firstlight.testing.handheld import Handheld, Said, ask
from firstlight.testing.lab import Lab
from firstlight.trees.ownership import Selection

TYPES = (
    *(transaction.TYP, root.ROOT_TYPE, root.EPOCH_TYPE, witness.TYPE, order.TYP, deposit.TYP),
    *(inquiry.QUESTION, inquiry.CLEARANCE, receipt.TYP, evidence.TYP, reference.TYP),
)


def owners_objects(lab: Lab, held: Handheld) -> tuple[Mapping[str, bytes], Signer]:
    """Return one good object of each type that an owner signs, and his key; none of them has been sent."""
    holding = find_holding(lab.places.owner, bytes.fromhex(lab.batch), lab.holding.tenure)
    key, now, party = holding.owner(), int(time.time()), bytes.fromhex(lab.parties["mno"])
    placed = [parse_order(path.read_bytes()) for path in (lab.places.owner / "orders").glob("*.cose")]
    known = next(one for one in placed if (one.party, one.origin) == (party, lab.holding.tenure))
    target = DepositTarget(known.chain, held.gateway, known.batch, known.origin, held.found().standing.plan_revision)
    (left,) = sign_deposits(target, (DepositEntry(held.locator, bytes(SEALED_SIZE)),), key)
    words = (known.chain, party, known.batch, known.origin)
    reply = AgreementKey.generate()[0].public
    body = Freeze(known.batch, known.origin, Selection.of([(held.birth.index, 1)]))
    return {
        transaction.TYP: build(body, chain=known.chain, sequence=10_000, signer=key),
        order.TYP: sign_order(replace(known, number=bytes(16)), key),
        deposit.TYP: left,
        inquiry.QUESTION: sign_inquiry(Question(*words, known.number, None, bytes(16), now, reply), key),
        inquiry.CLEARANCE: sign_inquiry(Clearance(*words, 0, 1, bytes(16), now, reply), key),
    }, key


def test_what_an_owner_signed_is_nothing_else(lab: Lab) -> None:
    """Somebody has an owner's order, deposit, question or transaction, and brings it where something else is taken."""
    hand, held = Hand(lab, lab.device()), Handheld.open(lab.device())
    objects, key = owners_objects(lab, held)
    chain = held.birth.chain

    def asked(role: str, what: str) -> Callable[[bytes], Said]:
        party = bytes.fromhex(lab.parties[role])
        agreement = hand.record(party).agreement_key
        assert agreement is not None

        def post(signed: bytes) -> Said:
            small = signed if len(signed) <= inquiry.PLAIN_SIZE - 2 else cose.sign1(b"", typ=deposit.TYP, signer=key)
            return ask(f"{lab.url(role)}/v1/{what}", seal_inquiry(small, chain=chain, party=party, agreement=agreement))

        return post

    def posted(url: str, limit: int = 1 << 20) -> Callable[[bytes], Said]:
        return lambda signed: ask(url, signed if len(signed) <= limit else cose.sign1(b"", typ=deposit.TYP, signer=key))

    servers: tuple[tuple[str, Callable[[bytes], Said]], ...] = (
        (transaction.TYP, posted(f"{lab.addresses.node}/v1/transactions")),
        (deposit.TYP, posted(f"{held.gateway}/v1/deposits")),
        *((order.TYP, posted(f"{lab.url(role)}/v1/orders", order.MAX_ORDER)) for role in ("mno", "sp")),
        (inquiry.QUESTION, asked("mno", "questions")),
        (inquiry.CLEARANCE, asked("mno", "clearances")),
    )
    limits = {transaction.TYP: transaction.MAX_BYTES, deposit.TYP: deposit.MAX_DEPOSIT}
    with lab.untouched():
        for typ, send in servers:
            if typ == inquiry.QUESTION:
                assert send(objects[typ]).status == 200, "the honest one is taken"
            for other, signed in objects.items():
                if other == typ:
                    continue
                said = send(signed)
                assert (said.status, said.code) == (400, "wrong-type"), (typ, other, said.fields())
            good = cose.parse(objects[typ], typ=typ, limit=limits.get(typ, 512)).payload
            for other in TYPES:
                if other != typ and len(good) < 300:
                    said = send(cose.sign1(good, typ=other, signer=key))
                    assert (said.status, said.code) == (400, "wrong-type"), (typ, other, said.fields())


def test_what_a_device_signed_is_nothing_else(lab: Lab) -> None:
    """Somebody brings a device's receipt as evidence, and its evidence as a receipt, signed by the device itself."""
    hand = Hand(lab, lab.device())
    held = Handheld.open(hand.directory)
    found = held.found()
    said = Receipt(
        chain=hand.birth.chain,
        batch=hand.birth.batch,
        index=hand.birth.index,
        tenure=found.standing.number,
        revision=found.standing.plan_revision,
        party=found.plan.network.party,
        grant=bytes(16),
        step=Step.SERVICE_CONNECTED,
        counter=900,
        time=int(time.time()),
    ).encode()

    def as_evidence(typ: str) -> Callable[[bytes], bytes]:
        def make(nonce: bytes) -> bytes:
            good = cose.parse(hand.evidence()(nonce), typ=evidence.TYP).payload
            return cose.sign1(good if typ != receipt.TYP else said, typ=typ, signer=hand.attestation)

        return make

    for role in ("mno", "sp"):
        for typ in TYPES:
            if typ != evidence.TYP:
                assert hand.refused(role, evidence=as_evidence(typ)) == "evidence-malformed", typ
        assert hand.grants(role) == []
        hand.onboard(role)
        assert hand.grants(role) == [GrantState.PENDING]

    def leave(signed: bytes) -> None:
        info = encode(["firstlight-receipt-1", hand.birth.chain, held.receipts])
        key = found.plan.profile.receipt_key
        sealed = hpke.seal(key, pad(signed, receipt.PLAIN_SIZE), info=info)
        left = ask(f"{held.gateway}/v1/receipts", ReceiptPut(held.receipts, sealed).encode())
        assert left.status == 200

    def rejected() -> int:
        rows = lab.query("owner", "SELECT count FROM rejected WHERE code = 'wrong-type'")
        return int(rows[0][0]) if rows else 0

    before, kept = rejected(), lab.query("owner", "SELECT count(*) FROM receipt")
    others = [typ for typ in TYPES if typ != receipt.TYP]
    for typ in others:
        leave(cose.sign1(said, typ=typ, signer=hand.attestation))
    lab.settle()
    assert rejected() == before + len(others)
    assert lab.query("owner", "SELECT count(*) FROM receipt") == kept
    leave(cose.sign1(said, typ=receipt.TYP, signer=hand.attestation))
    lab.settle()
    assert lab.query("owner", "SELECT count(*) FROM receipt") == [(kept[0][0] + 1,)]
