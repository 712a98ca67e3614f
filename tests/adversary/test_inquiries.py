"""Owners ask parties about their devices, and clear alarms: everybody else who would ask, clear, read or answer."""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from firstlight.cli.demo.commands import CommandError, arguments, run
from firstlight.custody.file import AgreementKey
from firstlight.custody.system import SystemRandom
from firstlight.encoding import encode
from firstlight.ledger.records import Role
from firstlight.ledger.transaction import Freeze
from firstlight.plan.order import Order, parse_order, sign_order
from firstlight.ports import Signer
from firstlight.roles import registration
from firstlight.roles.holdings import Holding, find_holding
from firstlight.roles.ledger_client import LedgerClient
from firstlight.sealing import hpke
from firstlight.sealing.inquiry import (
    ANSWER_SIZES,
    CLEARANCE,
    PLAIN_SIZE,
    QUESTION,
    SEALED_SIZE,
    Asked,
    Clearance,
    Cleared,
    Holds,
    Question,
    Told,
    open_answer,
    seal_inquiry,
    sign_inquiry,
)
from firstlight.stores.exchanges import GrantState
from firstlight.testing.byhand import Hand, attach
from firstlight.testing.handheld import Said, ask
from firstlight.testing.interceptor import Answered, Dropped, Forward, Interceptor
from firstlight.testing.interceptor import Asked as Request
from firstlight.testing.lab import Lab
from firstlight.testing.strangers import Market, new_key
from firstlight.trees.ownership import Selection

Inquiry = Question | Clearance


@dataclass(slots=True)
class Asker:
    """Somebody who asks one party, over a socket: with keys of his choice, and words of his choice."""

    url: str
    party: bytes
    agreement: bytes
    chain: str
    holding: Holding
    order: Order

    @classmethod
    def of(cls, lab: Lab, role: str, place: Path) -> Asker:
        """Return the owner of ``place``, who asks about the order under which the world's plan is served."""
        party = bytes.fromhex(lab.parties[role])
        origin = lab.holding.tenure if place == lab.places.owner else None
        holding = find_holding(place, bytes.fromhex(lab.batch), origin)
        oldest_first = sorted((lab.places.owner / "orders").glob("*.cose"), key=lambda path: path.stat().st_mtime_ns)
        placed = [parse_order(path.read_bytes()) for path in oldest_first]
        order = next(one for one in placed if (one.party, one.origin) == (party, lab.holding.tenure))
        genesis = registration.read_genesis(lab.places.owner / "genesis.cbor")
        memory = lab.places.root / f"asker-{secrets.token_hex(4)}"
        with LedgerClient(lab.addresses.node, genesis, memory, random=SystemRandom()) as ledger:
            agreement = ledger.party(party).agreement_key
        assert agreement is not None
        return cls(lab.url(role), party, agreement, genesis.chain, holding, order)

    def question(self, reply: AgreementKey, **changes: Any) -> Question:
        """Return a question of its holder's, with ``changes``."""
        order, number = self.order, secrets.token_bytes(16)
        words = Question(
            self.chain, self.party, order.batch, self.holding.origin, order.number, 0, number, now(), reply.public
        )
        return replace(words, **changes)

    def clearance(self, reply: AgreementKey, index: int, raised_ns: int, **changes: Any) -> Clearance:
        """Return a clearance of its holder's, with ``changes``."""
        batch, origin, number = self.order.batch, self.holding.origin, secrets.token_bytes(16)
        words = Clearance(self.chain, self.party, batch, origin, index, raised_ns, number, now(), reply.public)
        return replace(words, **changes)

    def sealed(self, signed: bytes, **to: Any) -> bytes:
        """Return what is sent, sealed for the party, or as ``to`` says."""
        return seal_inquiry(signed, **{"chain": self.chain, "party": self.party, "agreement": self.agreement, **to})

    def post(self, sealed: bytes, what: str = "questions") -> Said:
        """Send it."""
        return ask(f"{self.url}/v1/{what}", sealed)

    def told(self, signer: Signer | None = None, **changes: Any) -> Told:
        """Ask what must be answered."""
        reply = AgreementKey.generate()[0]
        question = self.question(reply, **changes)
        signed = sign_inquiry(question, signer or self.holding.owner())
        said = self.post(self.sealed(signed))
        assert said.status == 200, said.fields()
        answer = open_answer(said.body, reply, asked=Asked(question, signed))
        assert isinstance(answer, Told)
        return answer

    def clears(self, sealed: bytes, reply: AgreementKey, asked: Asked) -> bool:
        """Send a clearance that must be answered; return whether an alarm stood until then."""
        said = self.post(sealed, "clearances")
        assert said.status == 200, said.fields()
        answer = open_answer(said.body, reply, asked=asked)
        assert isinstance(answer, Cleared)
        return answer.stood


def now() -> int:
    """Return Unix time."""
    return int(time.time())


def stands(lab: Lab, role: str, index: int) -> int:
    """Return when the alarm of a device was raised (Unix ns); 0 if none stands."""
    rows = lab.query(role, "SELECT raised_ns FROM alarm WHERE idx = ?", index)
    return int(rows[0][0]) if rows else 0


def alarmed(lab: Lab, role: str, hand: Hand | None = None) -> Hand:
    """Return a device whose copy was noticed: it used a grant, and then somebody without any came in its name."""
    hand = hand or Hand(lab, lab.device())
    if hand.grants("mno")[-1:] != [GrantState.CONFIRMED]:
        attach(hand.sim(hand.onboard("mno")))
        end = time.monotonic() + 60
        while hand.grants("mno")[-1] is not GrantState.CONFIRMED:
            assert time.monotonic() < end
            time.sleep(0.02)
    before = stands(lab, role, hand.birth.index)
    assert hand.refused(role, stored_grant=None) == "clone-alarm"
    assert stands(lab, role, hand.birth.index) not in (0, before)
    return hand


def test_nobody_but_the_owner_is_answered(lab: Lab) -> None:
    """A stranger, the former owner, another party and the owner beyond his rights ask; each would learn of devices."""
    device = lab.device()
    lab.connects(device)
    index = int(device.name)
    owner, former = Asker.of(lab, "mno", lab.places.owner), Asker.of(lab, "mno", lab.places.distributor)
    service = Asker.of(lab, "sp", lab.places.owner)
    market = Market(lab.addresses.node, lab.places.consortium)
    lot = market.lot(market.join(Role.MANUFACTURER), 4, b"asks")
    market.do(Freeze(lot.batch, 1, Selection.of([(0, 1)])), lot.keys[1])
    line = next(one for one in owner.told().lines if one.index == index)
    assert (line.holds, line.grants, line.refused, line.alarm_ns) == (Holds.CONFIRMED, 1, "", 0)

    reply = AgreementKey.generate()[0]
    asked = owner.question(reply)
    key, stranger = owner.holding.owner(), new_key()

    def sent(question: Inquiry | None = None, signer: Signer = key, **to: Any) -> bytes:
        return owner.sealed(sign_inquiry(question or asked, signer), **to)

    def typed(typ: str) -> bytes:
        order = sign_order(owner.order, key)
        other = {QUESTION: order, CLEARANCE: sign_inquiry(owner.clearance(reply, index, 1), key)}
        return owner.sealed(other[typ])

    broken = bytearray(sign_inquiry(asked, key))
    broken[-1] ^= 1
    edited = bytearray(sign_inquiry(asked, key))
    edited[edited.index(asked.nonce)] ^= 1
    attacks: Sequence[tuple[str, bytes, tuple[int, str]]] = (
        ("a stranger", sent(signer=stranger), (403, "unknown-key")),
        ("the former owner", sent(signer=former.holding.owner()), (403, "unknown-key")),
        (
            "the former owner in his own tenure, about what came after",
            sent(former.question(reply), former.holding.owner()),
            (422, "order-unknown"),
        ),
        (
            "another owner about this owner's order",
            sent(replace(asked, batch=lot.batch, origin=1), lot.keys[1]),
            (422, "order-unknown"),
        ),
        ("the owner about an order that is not there", sent(replace(asked, order=bytes(16))), (422, "order-unknown")),
        (
            "the owner about his order with another",
            sent(replace(asked, order=service.order.number)),
            (422, "order-unknown"),
        ),
        ("a tenure that is not there", sent(replace(asked, origin=9_999)), (422, "tenure-missing")),
        (
            "another owner by a tenure that was split off",
            sent(replace(asked, batch=lot.batch, origin=2), lot.keys[1]),
            (422, "tenure-not-accepted"),
        ),
        ("a batch that is not there", sent(replace(asked, batch=bytes(16))), (422, "tenure-missing")),
        ("for another chain inside", sent(replace(asked, chain="another")), (422, "wrong-chain")),
        (
            "what another party was asked, sealed anew by it",
            sent(replace(asked, party=service.party)),
            (422, "wrong-party"),
        ),
        ("sealed for another party", sent(agreement=service.agreement), (403, "cannot-open")),
        ("sealed under another party's name", sent(party=service.party), (403, "cannot-open")),
        ("sealed under another chain's name", sent(chain="another"), (403, "cannot-open")),
        ("from long ago", sent(replace(asked, at=now() - 301)), (422, "question-stale")),
        ("from the future", sent(replace(asked, at=now() + 400)), (422, "question-stale")),
        ("changed in its signature", owner.sealed(bytes(broken)), (403, "bad-signature")),
        ("changed under its signature", owner.sealed(bytes(edited)), (403, "bad-signature")),
        ("an order in place of a question", typed(QUESTION), (400, "wrong-type")),
        ("a clearance in place of a question", typed(CLEARANCE), (400, "wrong-type")),
        ("nothing", b"", (400, "wrong-size")),
        ("cut", sent()[:-1], (400, "wrong-size")),
        ("too much", sent() + b"\x00", (413, "too-large")),
        ("no signed object", seal_plain(owner, b"\x80"), (400, "not-cose")),
        ("not padded", seal_raw(owner, bytes([0xFF]) * PLAIN_SIZE), (400, "bad-padding")),
        ("an enc off the curve", b"\x04" + bytes(SEALED_SIZE - 1), (400, "bad-point")),
    )
    with lab.untouched():
        assert owner.post(sent()).status == 200
        for name, sealed, expected in attacks:
            said = owner.post(sealed)
            assert (said.status, said.code) == expected, name
        for name, sealed, expected in attacks:
            if expected[1] not in ("order-unknown", "wrong-type"):
                said = owner.post(sealed, "clearances")
                code = expected if expected[1] in BEFORE_ITS_TYPE else (400, "wrong-type")
                assert (said.status, said.code) == code, name


BEFORE_ITS_TYPE = ("cannot-open", "wrong-size", "too-large", "not-cose", "bad-padding", "bad-point")
"""What is found out about any bytes, whatever they are for."""


def seal_plain(asker: Asker, data: bytes) -> bytes:
    """Return bytes that are no signed object, padded and sealed as one."""
    return asker.sealed(data)


def seal_raw(asker: Asker, plain: bytes) -> bytes:
    """Return a plaintext as it is, sealed as if it had been padded."""
    return hpke.seal(asker.agreement, plain, info=encode(["firstlight-asked-1", asker.chain, asker.party]))


def test_who_listens_learns_nothing_and_replays_in_vain(lab: Lab) -> None:
    """Somebody on the way writes down a question, sends it again, and swaps keys and answers."""
    lab.connects(lab.device())
    owner = Asker.of(lab, "mno", lab.places.owner)
    reply, thief = AgreementKey.generate()[0], AgreementKey.generate()[0]
    question = owner.question(reply)
    signed = sign_inquiry(question, owner.holding.owner())
    sealed = owner.sealed(signed)
    with lab.untouched():
        first = owner.post(sealed)
        answer = open_answer(first.body, reply, asked=Asked(question, signed))
        assert isinstance(answer, Told)
        assert answer.used >= 1
        again = owner.post(sealed)
    assert len({len(first.body), len(again.body)}) == 1
    assert len(first.body) - hpke.OVERHEAD in ANSWER_SIZES
    for body in (first.body, again.body, sealed):
        for secret in (owner.order.number, owner.order.batch, owner.party, reply.public):
            assert secret not in body
    refused(lambda: open_answer(first.body, thief, asked=Asked(question, signed)), "cannot-open")
    other = owner.question(reply)
    signed_other = sign_inquiry(other, owner.holding.owner())
    refused(lambda: open_answer(first.body, reply, asked=Asked(other, signed_other)), "cannot-open")
    swapped = replace(question, reply=thief.public)
    said = owner.post(owner.sealed(sign_inquiry(swapped, new_key())))
    assert (said.status, said.code) == (403, "unknown-key")


def refused(work: Callable[[], object], code: str) -> None:
    """Check that something ends with a code."""
    with pytest.raises(Exception, match=code):
        work()


def test_a_clearance_clears_the_alarm_that_it_names_and_no_other(lab: Lab) -> None:
    """Somebody keeps an owner's clearance and sends it when the next copy shows up; others clear alarms themselves."""
    owner, former = Asker.of(lab, "mno", lab.places.owner), Asker.of(lab, "mno", lab.places.distributor)
    hand = alarmed(lab, "mno")
    index, raised = hand.birth.index, stands(lab, "mno", hand.birth.index)
    assert [(one.index, one.raised_ns) for one in owner.told(start=None).alarms if one.index == index] == [
        (index, raised)
    ]
    key, reply = owner.holding.owner(), AgreementKey.generate()[0]
    clearance = owner.clearance(reply, index, raised)
    theirs = former.clearance(reply, index, raised)
    attacks = (
        ("a stranger", clearance, new_key(), (403, "unknown-key")),
        ("the former owner", clearance, former.holding.owner(), (403, "unknown-key")),
        ("for another party", replace(clearance, party=bytes(16)), key, (422, "wrong-party")),
        ("for another chain", replace(clearance, chain="another"), key, (422, "wrong-chain")),
        ("kept for long", replace(clearance, at=now() - 301), key, (422, "question-stale")),
    )
    with lab.untouched():
        for name, words, signer, expected in attacks:
            said = owner.post(owner.sealed(sign_inquiry(words, signer)), "clearances")
            assert (said.status, said.code) == expected, name
        said = owner.post(owner.sealed(sign_inquiry(owner.question(reply), key)), "clearances")
        assert (said.status, said.code) == (400, "wrong-type")
        for words, signer in (
            (theirs, former.holding.owner()),
            (replace(clearance, index=index + 1), key),
            (replace(clearance, raised_ns=raised - 1), key),
            (replace(clearance, raised_ns=2**63 - 1), key),
        ):
            signed = sign_inquiry(words, signer)
            assert not owner.clears(owner.sealed(signed), reply, Asked(words, signed))
    assert stands(lab, "mno", index) == raised

    signed = sign_inquiry(clearance, key)
    sealed = owner.sealed(signed)
    assert owner.clears(sealed, reply, Asked(clearance, signed))
    assert stands(lab, "mno", index) == 0
    with lab.untouched():
        assert not owner.clears(sealed, reply, Asked(clearance, signed))
    attach(hand.sim(hand.onboard("mno")))
    alarmed(lab, "mno", hand)
    with lab.untouched():
        assert not owner.clears(sealed, reply, Asked(clearance, signed))
    assert stands(lab, "mno", index) > raised
    held = ("--batch", lab.holding.batch, "--tenure", lab.holding.tenure)
    run("owner", "clear-alarm", lab.places.owner, "--select", index, *held)
    assert stands(lab, "mno", index) == 0


@contextmanager
def between(lab: Lab, role: str) -> Iterator[Interceptor]:
    """Put somebody before a party, whom it takes for its own front."""
    with Interceptor(lab.url(role)) as interceptor:
        run(role, "update", lab.state(role), "--endpoint", interceptor.url)
        try:
            yield interceptor
        finally:
            run(role, "update", lab.state(role))


def status(lab: Lab, orders: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what the owner's command says of these orders, by role."""
    try:
        found = run("owner", "status", lab.places.owner, "--at-parties").values["parties"]
    except CommandError as error:
        pytest.fail(f"whatever a party answers is that party's error, and no crash: {error}")
    return {one["role"]: one for one in found if one["order"] in orders}


def test_a_liar_in_between_is_found_out(lab: Lab) -> None:
    """Somebody before a party forges, repeats, reflects, loses and swaps what it answers to its owners."""
    lab.connects(lab.device())
    orders = [Asker.of(lab, role, lab.places.owner).order.number.hex() for role in ("mno", "sp")]
    with between(lab, "mno") as liar:
        honest = status(lab, orders)
        assert (honest["mno"]["error"], honest["sp"]["error"]) == (None, None)
        assert honest["mno"]["confirmed"] >= 1
        earlier = next(given for asked, given in reversed(liar.seen) if asked.path == "/v1/questions")
        assert earlier is not None

        def flipped(asked: Request, forward: Forward) -> Answered:
            given = forward(asked)
            at = hpke.ENC + secrets.randbelow(len(given.body) - hpke.ENC)
            return given.with_body(given.body[:at] + bytes([given.body[at] ^ 1]) + given.body[at + 1 :])

        def repeated(asked: Request, forward: Forward) -> Answered:
            forward(asked)
            return earlier

        def reflected(asked: Request, forward: Forward) -> Answered:
            return forward(asked).with_body(asked.body)

        def another(asked: Request, forward: Forward) -> Answered:
            return forward(replace(asked, body=forged))

        def lost(asked: Request, forward: Forward) -> Answered:
            raise Dropped

        def nowhere(asked: Request, forward: Forward) -> Answered:
            given = forward(asked)
            return given.with_body(b"\x04" + bytes(hpke.ENC - 1) + given.body[hpke.ENC :])

        def clear(asked: Request, forward: Forward) -> Answered:
            return Answered(200, "application/octet-stream", Told(True, 1, 1, 1, 0, 1, 0, 0, (), (), None).encode())

        asker = Asker.of(lab, "mno", lab.places.owner)
        forged = asker.sealed(sign_inquiry(asker.question(AgreementKey.generate()[0]), asker.holding.owner()))
        for bend, codes in (
            (flipped, {"cannot-open"}),
            (repeated, {"cannot-open"}),
            (reflected, {"wrong-size"}),
            (nowhere, {"bad-point"}),
            (another, {"cannot-open"}),
            (lost, {"bad-response"}),
            (clear, {"wrong-size"}),
        ):
            fired = len(liar.seen)
            with liar.bending("/v1/questions", bend):
                found = status(lab, orders)
            assert len(liar.seen) > fired
            assert found["mno"]["error"] in codes, (bend.__name__, found["mno"])
            assert "confirmed" not in found["mno"]
            assert found["sp"]["error"] is None
        assert status(lab, orders)["mno"]["error"] is None


def test_an_alarm_is_cleared_everywhere_or_the_owner_is_told_where_not(lab: Lab) -> None:
    """Somebody keeps an owner from one party, so that he takes his device for cleared everywhere."""
    hand = alarmed(lab, "mno")
    index = hand.birth.index
    held = ("--batch", lab.holding.batch, "--tenure", lab.holding.tenure)
    words = ("owner", "clear-alarm", lab.places.owner, "--select", index, *held)

    def lost(asked: Request, forward: Forward) -> Answered:
        raise Dropped

    with between(lab, "mno") as liar:
        with liar.bending("/v1/clearances", lost), lab.untouched():
            done = subprocess.run([*arguments(*words), "--json"], capture_output=True, check=False, timeout=300)
        assert done.returncode == 1
        assert json.loads(done.stderr.splitlines()[-1])["code"] == "not-everywhere"
        said = {one["role"]: one for one in json.loads(done.stdout)}
        assert (said["mno"]["devices"], said["mno"]["error"]) == ([], "bad-response")
        assert said["sp"]["error"] is None
        assert stands(lab, "mno", index)
        again = {one["role"]: one for one in run(*words).values["items"]}
        assert (again["mno"]["devices"], again["mno"]["error"]) == ([index], None)
    assert stands(lab, "mno", index) == 0
