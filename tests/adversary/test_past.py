"""Last year's ledger, served by gateways, parties and nodes, alone and together; and parties that lie about it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from firstlight.cli.demo.commands import CommandError, run
from firstlight.custody.file import AgreementKey
from firstlight.custody.system import SystemRandom
from firstlight.discovery.bundle import Bundle, BundleRequest
from firstlight.identity.credential import party_credential
from firstlight.ledger.transaction import parse
from firstlight.onboarding import messages, wire
from firstlight.onboarding.edhoc import responder
from firstlight.onboarding.edhoc.keys import Ead, Ephemeral
from firstlight.onboarding.messages import Head
from firstlight.p256 import kid
from firstlight.roles.device.memory import VIEW, Sight
from firstlight.roles.holdings import find_holding
from firstlight.roles.owner.status import grants as owner_grants
from firstlight.roles.wire import ReceiptPut, TransactionAnswer
from firstlight.stores.exchanges import GrantState
from firstlight.testing.byhand import Hand, say
from firstlight.testing.handheld import Handheld
from firstlight.testing.interceptor import Answered, Asked, Dropped, Forward, Interceptor
from firstlight.testing.lab import Lab
from firstlight.testing.strangers import Market
from firstlight.transports.body import CBOR
from firstlight.transports.endpoint import read_endpoint

pytestmark = pytest.mark.long

BUNDLES = "/v1/bundles"
PATIENCE = 40.0


def silent(asked: Asked, forward: Forward) -> Answered:
    """Say nothing."""
    raise Dropped


def sight(device: Path) -> Sight:
    """Return what a device has stored of the ledger."""
    return Sight.decode((device / VIEW).read_bytes())


def discover_only(lab: Lab, device: Path) -> None:
    """Let a device find its owner's plan, and reach nobody."""
    with lab.interceptor.bending("/relay/", silent):
        lab.switch_on(device, until=lambda one: "discovered" in one.codes)
    assert sight(device).acted is not None


@dataclass(slots=True)
class Yesterday:
    """A gateway that kept what it was asked and answered, and answers that again, without the witnesses of then."""

    kept: dict[bytes | None, bytes] = field(default_factory=dict)
    told: int = 0

    def keep(self, asked: Asked, forward: Forward) -> Answered:
        """Answer honestly, and keep it."""
        given = forward(asked)
        request = BundleRequest.decode(asked.body)
        if not request.height:
            self.kept[request.batch] = replace(Bundle.decode(given.body), freshness=None).encode()
        return given

    def repeat(self, asked: Asked, forward: Forward) -> Answered:
        """Answer as then."""
        request = BundleRequest.decode(asked.body)
        given = forward(asked)
        if request.height or request.batch not in self.kept:
            return given
        self.told += 1
        return given.with_body(self.kept[request.batch])


def test_last_years_state_of_a_gateway_and_a_party_that_is_behind(lab: Lab) -> None:
    """A thief has a device that its owner has frozen since. His gateway shows it last year's state, which it knows,
    and leads it to an operator whose node is his as well, and shows that operator last year's state too.

    The witnesses' times tell the operator that it is behind; one that is not behind sees that the device is frozen.
    """
    honest, device, newborn = lab.device(), lab.device(), lab.device()
    yesterday = Yesterday()
    with Interceptor(lab.ledger.upstream) as node, lab.twin("mno", view_seconds=3, node=json.dumps(node.url)) as behind:
        url = read_endpoint(behind).url

        def lead(asked: Asked, forward: Forward) -> Answered:
            return Answered(200, wire.MEDIA_TYPE, say(url, asked.body))

        with lab.interceptor.bending("/relay/", lead):
            lab.switch_on(honest, until=lambda one: "granted" in one.codes)
        assert Hand(lab, honest).grants("mno") == []
        with lab.interceptor.bending(BUNDLES, yesterday.keep):
            discover_only(lab, device)
        seen = sight(device)
        with node.bending("/", silent):
            assert run("owner", "freeze", lab.places.owner, "--select", int(device.name)).number("devices") == 1
            slept = time.monotonic()
            while time.monotonic() - slept < 4.0:
                time.sleep(0.1)
            lab.settle()
            bundles, relay = (
                lab.interceptor.bending(BUNDLES, yesterday.repeat),
                lab.interceptor.bending("/relay/", lead),
            )
            with bundles, relay, lab.unchanged():
                outcome = lab.switch_on(device, until=lambda one: "view-too-old" in one.codes)
                other = lab.switch_on(newborn, until=lambda one: "not-fresh" in one.codes)
        assert yesterday.told
        assert "view-too-old" in outcome.codes
        assert "not-fresh" in other.codes
        assert "granted" not in outcome.codes + other.codes
        assert sight(device).trust.height == seen.trust.height
    with lab.interceptor.bending(BUNDLES, yesterday.repeat):
        outcome = lab.switch_on(device, until=lambda one: "frozen" in one.codes)
    assert "frozen" in outcome.codes
    assert "granted" not in outcome.codes
    assert Hand(lab, device).grants("mno") == []
    run("owner", "unfreeze", lab.places.owner, "--select", int(device.name))
    lab.connects(device)
    lab.connects(newborn)


@dataclass(slots=True)
class Boaster:
    """The operator itself, with its own key, which claims a head that nobody has."""

    lab: Lab
    height: int
    begun: int = 0
    finished: int = 0
    looks: int = 0

    def relay(self, asked: Asked, forward: Forward) -> Answered:
        """Answer message 1 with the claim; take message 3, and say nothing."""
        first = wire.parse_request(asked.body)
        if not isinstance(first, wire.First):
            self.finished += 1
            raise Dropped
        self.begun += 1
        static = AgreementKey.load(self.lab.places.mno / "agreement.pem")
        chain = Handheld.open(self.lab.spare[0]).birth.chain
        message_2, _ = responder.make_2(
            responder.read_1(first.message_1),
            ephemeral=Ephemeral.draw(SystemRandom()),
            static=static,
            kid_r=kid(static.public),
            cred_r=party_credential(chain, bytes.fromhex(self.lab.parties["mno"]), static.public),
            c_r=messages.C_R,
            ead_2=[Ead(messages.EAD_HEIGHT, False, Head(self.height).encode())],
        )
        return Answered(200, wire.MEDIA_TYPE, wire.Answer(message_2, bytes(64)).encode())

    def bundle(self, asked: Asked, forward: Forward) -> Answered:
        """Count how often the device looks."""
        if not self.finished:
            self.looks += 1
        return forward(asked)


def test_a_head_of_2_63_that_a_party_claims(lab: Lab) -> None:
    """An operator claims a head that is never reached, to keep devices discovering anew, or to spoil their watermark.

    A device looks once more, and goes on with what is proven; what was claimed is stored nowhere.
    """
    for height in (2**63, 2**63 - 1, 2**64 - 1):
        device, boaster = lab.device(), Boaster(lab, height)
        assert Handheld.open(device).discover()
        relay, bundles = (
            lab.interceptor.bending("/relay/", boaster.relay),
            lab.interceptor.bending(BUNDLES, boaster.bundle),
        )
        lab.settle()
        with relay, bundles, lab.unchanged():
            outcome = lab.switch_on(device, until=lambda _: boaster.finished > 0)  # noqa: B023
        assert boaster.finished
        assert (boaster.begun, boaster.looks) == (2, 2)
        assert outcome.codes.count("rediscover") == 1
        assert sight(device).trust.height < 10_000
        assert not list((device / "grants").glob("*"))
    lab.connects(device)


# --- nodes that lie -------------------------------------------------------------------------------


def bare(asked: Asked, forward: Forward) -> Answered:
    """Leave the witnesses out."""
    given = forward(asked)
    return (
        given
        if BundleRequest.decode(asked.body).height
        else given.with_body(replace(Bundle.decode(given.body), freshness=None).encode())
    )


def rewritten(asked: Asked, forward: Forward) -> Answered:
    """Change what the state says of the last record that is proven."""
    given = forward(asked)
    if BundleRequest.decode(asked.body).height:
        return given
    bundle = Bundle.decode(given.body)
    values = [*bundle.state.values[:-1], None]
    return given.with_body(replace(bundle, state=replace(bundle.state, values=tuple(values))).encode())


def code_of(*words: object) -> str:
    """Return the code with which a command fails."""
    with pytest.raises(CommandError) as caught:
        run(*words)
    return caught.value.code


def committed(lab: Lab) -> int:
    """Return how many transactions are committed."""
    return Market(lab.addresses.node, lab.places.consortium).counts()["transactions"]


def test_a_node_that_lies_to_an_owner_is_found_out(lab: Lab) -> None:
    """An owner's node shows him a ledger of its own: without witnesses, with another record, or as it was."""
    device = lab.device()
    freeze = ("owner", "freeze", lab.places.owner, "--select", int(device.name))
    unfreeze = ("owner", "unfreeze", lab.places.owner, "--select", int(device.name))
    old: list[Answered] = []

    def record(asked: Asked, forward: Forward) -> Answered:
        given = forward(asked)
        old.extend([] if BundleRequest.decode(asked.body).height else [given])
        return given

    with lab.ledger.bending(BUNDLES, record):
        run(*freeze)
        run(*unfreeze)
    before = committed(lab)
    told: list[str] = []

    def as_it_was(asked: Asked, forward: Forward) -> Answered:
        told.append(asked.path)
        return old[0]

    for bend, codes in (
        (bare, {"not-fresh"}),
        (rewritten, {"bad-state-proof"}),
        (as_it_was, {"witness-signature", "wrong-values", "bad-state-proof"}),
    ):
        with lab.ledger.bending(BUNDLES, bend):
            assert code_of(*freeze) in codes
    assert told
    assert committed(lab) == before
    assert run(*freeze).number("devices") == 1
    assert run(*unfreeze).number("devices") == 1


def test_a_node_that_says_it_is_done_is_not_believed(lab: Lab) -> None:
    """An owner's node says that a transaction is committed, and drops it: a stolen device would not be frozen, and the
    owner would put away the only key that recovers what he owns."""
    dropped: list[bytes] = []

    def lie(asked: Asked, forward: Forward) -> Answered:
        if asked.method != "POST":
            return forward(asked)
        dropped.append(asked.body)
        one = parse(asked.body)
        return Answered(200, CBOR, TransactionAnswer(one.id, 1, "ok", "", one.kind, b"", 0, 0).encode())

    device, before = lab.device(), committed(lab)
    holding = find_holding(lab.places.owner, bytes.fromhex(lab.batch), lab.holding.tenure).directory
    held = ("--batch", lab.holding.batch, "--tenure", lab.holding.tenure)
    keys = {path.name: path.read_bytes() for path in holding.glob("*.pem")}
    with lab.ledger.bending("/v1/transactions", lie):
        assert code_of("owner", "freeze", lab.places.owner, *held, "--select", int(device.name)) == "not-committed"
        assert code_of("owner", "recover", lab.places.owner, *held) == "not-committed"
    assert len(dropped) == 2
    assert committed(lab) == before
    assert {name: (holding / name).read_bytes() for name in keys} == keys
    lab.connects(device)


@contextmanager
def lied_to(lab: Lab) -> Iterator[tuple[Interceptor, Path, str]]:
    """Run the operator once more, behind a node that can lie; give the node, its directory and its URL."""
    with Interceptor(lab.ledger.upstream) as node, lab.twin("mno", view_seconds=2, node=json.dumps(node.url)) as twin:
        yield node, twin, read_endpoint(twin).url


def test_a_node_that_lies_to_a_party_is_found_out(lab: Lab) -> None:
    """An operator's node shows it a ledger of its own: it grants nothing on that, and says why its view is old."""
    hand = Hand(lab, lab.device())
    with lied_to(lab) as (node, twin, url):
        hand.onboard("mno", at=url)
        for bend in (bare, rewritten):
            fired: list[str] = []

            def fire(asked: Asked, forward: Forward, bend=bend, fired=fired) -> Answered:  # type: ignore[no-untyped-def]
                fired.append(asked.path)
                given: Answered = bend(asked, forward)
                return given

            with node.bending(BUNDLES, fire):
                began = time.monotonic()
                while time.monotonic() - began < 3.0:
                    time.sleep(0.1)
                with lab.only(twin, exchange=1):
                    assert hand.refused("mno", at=url) == "view-too-old"
            assert fired
            hand.onboard("mno", at=url)


# --- receipts -------------------------------------------------------------------------------------


def test_receipts_that_a_gateway_withholds_are_missed(lab: Lab) -> None:
    """A gateway takes a device's receipts and drops them: the owner does not count that device as connected.

    The next start tells him.
    """
    device, taken = lab.device(), list[ReceiptPut]()

    def withhold(asked: Asked, forward: Forward) -> Answered:
        if asked.path != "/v1/receipts":
            return forward(asked)
        taken.append(ReceiptPut.decode(asked.body))
        return Answered(200, CBOR, b"\x80")

    def known() -> set[str]:
        return {str(one["step"]) for one in owner_grants(lab.places.owner) if one["index"] == int(device.name)}

    with lab.interceptor.bending("/v1/receipts", withhold):
        lab.connects(device)
    assert len(taken) >= 2
    lab.settle()
    assert known() == set()
    assert Hand(lab, device).grants("sp") == [GrantState.CONFIRMED]
    lab.connects(device)
    end = time.monotonic() + PATIENCE
    while known() != {"network-attached", "service-connected"}:
        assert time.monotonic() < end, known()
        time.sleep(0.1)
