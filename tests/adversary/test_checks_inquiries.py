"""Questions and answers about devices that only one check of a party, or of the owner who asks, stands in the way of.

The party reads a ledger in memory through the real proofs and keeps real stores. Beside each attempt the owner asks and
is answered.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
from tests.refusals import refused

from firstlight import cose
from firstlight.encoding import encode
from firstlight.ledger.records import Tenure, TenureState, tenure_name
from firstlight.plan.order import Order, sign_order
from firstlight.roles.ledger_client import LedgerClient
from firstlight.roles.party.inquiries import Inquiries, Stores
from firstlight.roles.party.orders import OrderDesk, approve
from firstlight.roles.party.view import PartyView
from firstlight.sealing import hpke
from firstlight.sealing.inquiry import (
    PLAIN_SIZE,
    QUESTION,
    WINDOW,
    Asked,
    Question,
    open_answer,
    seal_inquiry,
    sign_inquiry,
    unseal_inquiry,
)
from firstlight.sealing.padding import pad
from firstlight.stores.exchanges import ExchangeStore
from firstlight.stores.pending_orders import PendingOrders
from firstlight.testing.bundles import BATCH, NETWORK, Ledger
from firstlight.testing.chains import CHAIN, GENESIS, P256Key
from firstlight.testing.clock import FakeClock
from firstlight.testing.parties import FakeNode, genesis_of
from firstlight.testing.random import SeededRandom
from firstlight.transports.client import SyncClient

NOW = GENESIS + 500
OWNER, REPLY, PARTY, THIEF = P256Key("tenure 2"), P256Key("reply"), P256Key("party"), P256Key("mallory")
ORDER = Order(b"\x07" * 16, CHAIN, NETWORK, BATCH, 2, 100, GENESIS + 9_000)
ASKED = Question(CHAIN, NETWORK, BATCH, 2, ORDER.number, None, b"N" * 16, NOW, REPLY.public)
OFF_CURVE = b"\x04" + b"\xff" * 64


@dataclass(slots=True)
class Scene:
    """A party with an approved order of the owner's, and the ledger that it reads."""

    ledger: Ledger
    party: Inquiries


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    ledger = Ledger(size=1_000)
    node = FakeNode(ledger, time=NOW)
    answering = httpx.MockTransport(lambda asked: httpx.Response(200, content=node.answer(asked.read())))
    http = SyncClient(transport=answering)
    client = LedgerClient("http://node", genesis_of(ledger), tmp_path / "memory", random=SeededRandom(), http=http)
    database, clock = tmp_path / "mno.sqlite", FakeClock(NOW)
    exchanges, pending = ExchangeStore.open(database), PendingOrders.open(database)
    with contextlib.closing(exchanges), contextlib.closing(pending):
        view = PartyView(client, NETWORK)
        desk = OrderDesk(CHAIN, NETWORK, view=view, pending=pending, exchanges=exchanges, clock=clock)
        desk.place(sign_order(ORDER, OWNER))
        approve(ORDER.number, pending, exchanges)
        stores = Stores(database, pending, exchanges)
        yield Scene(ledger, Inquiries(CHAIN, NETWORK, PARTY, view=view, stores=stores, clock=clock))


def sealed(signed: bytes) -> bytes:
    return seal_inquiry(signed, chain=CHAIN, party=NETWORK, agreement=PARTY.public)


def asking(signer: P256Key = OWNER, **changes: object) -> bytes:
    return sealed(sign_inquiry(replace(ASKED, **changes), signer))  # type: ignore[arg-type]


def padded(plain: bytes) -> bytes:
    return hpke.seal(PARTY.public, plain, info=encode(["firstlight-asked-1", CHAIN, NETWORK]))


def forged() -> bytes:
    signed = sign_inquiry(ASKED, OWNER)
    return sealed(signed[:-1] + bytes([signed[-1] ^ 1]))


def of_another_type() -> bytes:
    return sealed(cose.sign1(ASKED.encode(), typ="application/firstlight-order+cbor", signer=OWNER))


def offered(ledger: Ledger) -> None:
    record = ledger.records[tenure_name(BATCH, 2)]
    assert isinstance(record, Tenure)
    ledger.records[tenure_name(BATCH, 2)] = replace(record, state=TenureState.OFFERED, expiry=GENESIS + 8_000)
    ledger.at += 1


def as_it_is(_: Ledger) -> None:
    """Change nothing."""


QUESTIONS: Mapping[str, tuple[str, Callable[[Ledger], None], Callable[[], bytes]]] = {
    "longer-than-others": ("wrong-size", as_it_is, lambda: asking() + b"\x00"),
    "sealed-to-somebody-else": (
        "cannot-open",
        as_it_is,
        lambda: seal_inquiry(sign_inquiry(ASKED, OWNER), chain=CHAIN, party=NETWORK, agreement=THIEF.public),
    ),
    "to-a-point-off-the-curve": ("bad-point", as_it_is, lambda: OFF_CURVE + asking()[65:]),
    "with-more-than-it-says": (
        "bad-padding",
        as_it_is,
        lambda: padded(pad(sign_inquiry(ASKED, OWNER), PLAIN_SIZE)[:-4] + b"more"),
    ),
    "that-was-signed-as-something-else": ("wrong-type", as_it_is, of_another_type),
    "of-who-has-not-accepted": ("tenure-not-accepted", offered, asking),
    "of-somebody-else": ("unknown-key", as_it_is, lambda: asking(THIEF)),
    "forged": ("bad-signature", as_it_is, forged),
    "signed-for-another-chain": ("wrong-chain", as_it_is, lambda: asking(chain="test-2")),
    "signed-for-another-party": ("wrong-party", as_it_is, lambda: asking(party=bytes(16))),
    "of-long-ago": ("question-stale", as_it_is, lambda: asking(at=NOW - WINDOW)),
    "about-an-order-of-nobodys": ("order-unknown", as_it_is, lambda: asking(order=bytes(16))),
}


@pytest.mark.parametrize("name", sorted(QUESTIONS))
def test_a_party_answers_no_question(scene: Scene, name: str) -> None:
    """Somebody wants to know what became of devices that are not, or no longer, his."""
    code, bend, made = QUESTIONS[name]
    assert scene.party.tell(asking())
    bend(scene.ledger)
    assert refused(lambda: scene.party.tell(made())) == code


def test_an_owner_believes_no_answer_but_the_partys_to_this_question(scene: Scene) -> None:
    """A gateway answers in a party's place, or with what the party has said before."""
    question = Asked(ASKED, sign_inquiry(ASKED, OWNER))
    honest = scene.party.tell(sealed(question.signed))
    assert open_answer(honest, REPLY, asked=question)
    other = replace(ASKED, nonce=b"O" * 16)
    another = Asked(other, sign_inquiry(other, OWNER))
    assert refused(lambda: open_answer(honest + b"\x00", REPLY, asked=question)) == "wrong-size"
    assert refused(lambda: open_answer(honest, REPLY, asked=another)) == "cannot-open"
    assert refused(lambda: open_answer(OFF_CURVE + honest[65:], REPLY, asked=question)) == "bad-point"


def test_nothing_is_a_question_that_was_signed_as_something_else() -> None:
    """Whoever has something else by an owner's hand has it read as his question."""

    def opened(made: bytes) -> Asked:
        return unseal_inquiry(made, PARTY, typ=QUESTION, chain=CHAIN, party=NETWORK)

    assert opened(asking()).said == ASKED
    assert refused(lambda: opened(of_another_type())) == "wrong-type"
