"""A gateway that tampers with proofs and handshakes: other owners, other parties, old states, changed bytes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from firstlight.chain.root import known_root, open_epoch
from firstlight.chain.witness import WitnessRequest, WitnessSignature, nonce_proofs
from firstlight.custody.file import AgreementKey
from firstlight.custody.system import SystemRandom
from firstlight.discovery.bundle import Bundle, BundleRequest, Freshness, proven_names
from firstlight.discovery.machine import Discovered, Failed
from firstlight.errors import FirstlightError
from firstlight.identity.credential import party_credential
from firstlight.ledger.records import Party, Role, party_name
from firstlight.onboarding import messages, wire
from firstlight.onboarding.device import BackOff, Granted
from firstlight.onboarding.edhoc import responder
from firstlight.onboarding.edhoc.keys import Ead, Ephemeral
from firstlight.onboarding.messages import Head
from firstlight.p256 import kid
from firstlight.roles.device.memory import GRANTS, VIEW, Sight
from firstlight.testing.handheld import Handheld, ask
from firstlight.testing.interceptor import Answered, Asked, Dropped, Forward
from firstlight.testing.lab import Lab, Outcome
from firstlight.testing.strangers import Market

BUNDLES = "/v1/bundles"
SEED = 20_261_122


@dataclass(slots=True)
class Lie:
    """Bends the answers to bundle requests that name ``name``; counts how often what came out was not the truth."""

    name: str
    tell: Callable[[BundleRequest, Asked, Forward], bytes]
    told: int = 0

    def bend(self, asked: Asked, forward: Forward) -> Answered:
        """Lie about the named record, and pass on what else is asked."""
        honest, request = forward(asked), BundleRequest.decode(asked.body)
        if self.name not in request.names:
            return honest
        forged = self.tell(request, asked, forward)
        assert forged != honest.body
        self.told += 1
        return honest.with_body(forged)


def market(lab: Lab) -> Market:
    """Return the ledger in the hands of strangers."""
    return Market(lab.addresses.node, lab.places.consortium)


def asking_instead(
    change: Callable[[BundleRequest], BundleRequest],
) -> Callable[[BundleRequest, Asked, Forward], bytes]:
    """Return a lie: the honest answer, with the asker's nonce, to another question."""

    def tell(request: BundleRequest, asked: Asked, forward: Forward) -> bytes:
        return forward(replace(asked, body=change(request).encode())).body

    return tell


def rewriting(name: str, change: Callable[[Party], Party]) -> Callable[[BundleRequest, Asked, Forward], bytes]:
    """Return a lie: the honest answer with a party's record rewritten."""

    def tell(request: BundleRequest, asked: Asked, forward: Forward) -> bytes:
        bundle = Bundle.decode(forward(asked).body)
        at = proven_names(request, bundle.state.tenures).index(name)
        values = list(bundle.state.values)
        values[at] = change(Party.decode(values[at] or b"")).encode()
        return replace(bundle, state=replace(bundle.state, values=tuple(values))).encode()

    return tell


def refuses(lab: Lab, device: Path, lie: Lie, code: str) -> None:
    """Check that a device that is lied to stops with ``code``, goes to nobody, and connects when nobody lies."""
    assert isinstance(Handheld.open(device).discover(), Discovered)
    lab.settle()
    with lab.untouched(), lab.interceptor.bending(BUNDLES, lie.bend):
        outcome = lab.switch_on(device, until=lambda one: code in one.codes)
    assert lie.told
    assert code in outcome.codes
    assert {"discovered", "granted"}.isdisjoint(outcome.codes)
    assert not (device / VIEW).exists() or Sight.decode((device / VIEW).read_bytes()).acted is None
    assert not list((device / GRANTS).glob("*"))


def test_another_operators_record_is_not_the_operators(lab: Lab) -> None:
    """A gateway answers with the record of an MNO of its own, genuine and proven, to take the device's traffic."""
    stranger, honest = market(lab).join(Role.MNO), party_name(bytes.fromhex(lab.parties["mno"]))
    device = lab.device()
    swap = asking_instead(lambda request: replace(request, names=(party_name(stranger.party),)))
    refuses(lab, device, Lie(honest, swap), "bad-state-proof")
    lab.connects(device)


def test_an_operators_endpoint_and_key_cannot_be_changed(lab: Lab) -> None:
    """A gateway writes its own endpoint, or its own key, into the operator's record, to be its man in the middle."""
    name, mine = party_name(bytes.fromhex(lab.parties["mno"])), AgreementKey.generate()[0].public
    for change in (
        lambda record: replace(record, endpoints=("http://127.0.0.1:9",)),
        lambda record: replace(record, agreement_key=mine),
        lambda record: replace(record, revision=record.revision + 1),
    ):
        refuses(lab, lab.device(), Lie(name, rewriting(name, change)), "bad-state-proof")


def test_another_services_record_is_not_the_services(lab: Lab) -> None:
    """A gateway reached through the network answers with another SP's record, or one with its own endpoint."""
    stranger, name = market(lab).join(Role.SP), party_name(bytes.fromhex(lab.parties["sp"]))
    with lab.growth() as left:
        lab.connects(lab.device())
    lies = (
        asking_instead(lambda request: replace(request, names=(party_name(stranger.party),))),
        rewriting(name, lambda record: replace(record, endpoints=("http://127.0.0.1:9",))),
    )
    attached = Counter({one: count for one, count in left.items() if one.startswith("mno.")})
    for tell in lies:
        device, lie = lab.device(), Lie(name, tell)
        with lab.growth() as grown, lab.interceptor.bending(BUNDLES, lie.bend):
            outcome = lab.switch_on(device, until=lambda one: "bad-state-proof" in one.codes)
        assert lie.told
        assert "attached" in outcome.codes
        assert "bad-state-proof" in outcome.codes
        assert "connected" not in outcome.codes
        receipts = {"gateway.receipt", "owner.receipt"}
        assert Counter({one: count for one, count in grown.items() if one not in receipts}) == attached
    lab.connects(device)


def test_another_batch_is_not_the_devices(lab: Lab) -> None:
    """A gateway that owns a batch of its own proves with the device's nonce who owns *that*: itself."""
    own = market(lab)
    lot = own.lot(own.join(Role.MANUFACTURER), 8)
    name = party_name(bytes.fromhex(lab.parties["mno"]))
    refuses(lab, lab.device(), Lie(name, asking_instead(lambda one: replace(one, batch=lot.batch))), "bad-state-proof")


@dataclass(slots=True)
class Recorded:
    """What a gateway kept: the newest bundle as it was at some time, for the question that all devices ask first."""

    bundle: Bundle
    data: bytes

    @classmethod
    def now(cls, lab: Lab, device: Path) -> Recorded:
        """Record one, with the help of a device that was bought and opened."""
        kept: list[bytes] = []

        def keep(path: str, answer: bytes) -> bytes:
            kept.extend([answer] if path == BUNDLES else [])
            return answer

        assert isinstance(Handheld.open(device).discover(bend=keep), Discovered)
        return cls(Bundle.decode(kept[0]), kept[0])


def test_yesterdays_bundle_is_not_fresh(lab: Lab) -> None:
    """A gateway serves a recorded state, under which a device may be another owner's: as it was; with the device's
    nonce put where the old one was; and without witnesses, as if none could be reached."""
    old = Recorded.now(lab, lab.device())
    market(lab).join(Role.SP)
    name = party_name(bytes.fromhex(lab.parties["mno"]))
    assert old.bundle.freshness is not None

    def renewed(request: BundleRequest, _: Asked, __: Forward) -> bytes:
        assert old.bundle.freshness is not None
        (proof,) = nonce_proofs([request.nonce])[1]
        return replace(old.bundle, freshness=Freshness(proof, old.bundle.freshness.witnesses)).encode()

    bare = replace(old.bundle, freshness=None).encode()
    refuses(lab, lab.device(), Lie(name, lambda *_: old.data), "witness-signature")
    refuses(lab, lab.device(), Lie(name, renewed), "witness-signature")
    refuses(lab, lab.device(), Lie(name, lambda *_: bare), "not-fresh")


def test_a_device_never_goes_back_behind_what_it_has_seen(lab: Lab) -> None:
    """A gateway serves a state older than the device has seen: bare, and with witnesses that have signed it just now.

    Witnesses sign a head for ten seconds after it was superseded, and so their freshness alone does not help.
    """
    device, own = lab.device(), market(lab)
    name = party_name(bytes.fromhex(lab.parties["mno"]))
    assert isinstance(Handheld.open(device).discover(), Discovered)
    old = Recorded.now(lab, lab.device())
    own.join(Role.SP)
    with lab.interceptor.bending("/relay/", _silent):
        outcome = lab.switch_on(device, until=lambda one: "discovered" in one.codes)
    seen = Sight.decode((device / VIEW).read_bytes())
    assert seen.trust.height > old.bundle.head.header.height
    assert seen.acted is not None

    def attested(request: BundleRequest, _: Asked, __: Forward) -> bytes:
        root, (proof,) = nonce_proofs([request.nonce])
        wanted = WitnessRequest(own.chain, old.bundle.head.header.height, root).encode()
        said = [ask(f"{url}/v1/witness", wanted) for url in lab.addresses.witnesses]
        assert {one.status for one in said} == {200}, [one.fields() for one in said]
        signatures = sorted((WitnessSignature.decode(one.body) for one in said), key=lambda one: one.witness)
        return replace(old.bundle, freshness=Freshness(proof, tuple(signatures))).encode()

    bare = replace(old.bundle, freshness=None).encode()
    lab.settle()
    for tell in (attested, lambda *_: bare):
        lie = Lie(name, tell)
        with lab.untouched(), lab.interceptor.bending(BUNDLES, lie.bend):
            before = len(outcome.log)
            outcome = lab.switch_on(device, until=lambda one: "height-back" in _codes_since(one.log, before))  # noqa: B023
        assert lie.told
        assert "height-back" in _codes_since(outcome.log, before)
        after = Sight.decode((device / VIEW).read_bytes())
        assert (after.trust.height, after.acted) == (seen.trust.height, seen.acted)
    lab.connects(device)


def _codes_since(log: tuple[object, ...], before: int) -> list[str]:
    return [str(line["code"]) for line in log[before:] if isinstance(line, dict)]


def _silent(asked: Asked, forward: Forward) -> Answered:
    raise Dropped


def test_every_changed_bit_of_a_bundle_is_noticed(lab: Lab) -> None:
    """A gateway changes one bit of a bundle, anywhere (a seeded sample): nothing that it says is believed."""
    held, chance, bent = Handheld.open(lab.device()), random.Random(SEED), list[Bent]()
    assert isinstance(held.discover(), Discovered)

    def bend(asked: Asked, forward: Forward) -> Answered:
        honest = forward(asked)
        bent.append(Bent(BundleRequest.decode(asked.body), honest.body, _flipped(honest.body, chance)))
        return honest.with_body(bent[-1].shown)

    with lab.untouched(), lab.interceptor.bending(BUNDLES, bend):
        for _ in range(60):
            event = held.discover()
            assert isinstance(event, Failed), event
            assert event.code == bent[-1].code(held.trust.root)
    victims, before = [lab.device() for _ in range(6)], len(bent)
    with lab.untouched(), lab.interceptor.bending(BUNDLES, bend):
        outcomes = lab.switch_on_together(victims, until=lambda one: bool(_refusals(one)))
    assert len(bent) - before >= len(victims)
    told = Counter(one.code(held.trust.root) for one in bent[before:])
    assert sum((_refusals(one) for one in outcomes.values()), Counter[str]()) <= told
    for device in victims:
        assert {"discovered", "granted"}.isdisjoint(outcomes[device.name].codes)
    lab.connects(victims[0])


def _refusals(outcome: Outcome) -> Counter[str]:
    """Return the codes with which a device, as its log says, refused a gateway's answers."""
    return Counter(str(line["code"]) for line in outcome.log if "url" in line)


@dataclass(frozen=True, slots=True)
class Bent:
    """A bundle of which a gateway has changed a bit."""

    request: BundleRequest
    honest: bytes
    shown: bytes

    def code(self, root: bytes) -> str:
        """Return the code with which it must be refused: that of the first check that reads what was changed."""
        try:
            shown = Bundle.decode(self.shown)
        except FirstlightError as error:
            return error.code
        honest = Bundle.decode(self.honest)
        assert shown != honest
        if shown.head.epoch != honest.head.epoch:
            return _said_of(lambda: open_epoch(shown.head.epoch or b"", known_root(root)))
        if (shown.freshness and shown.freshness.nonce) != (honest.freshness and honest.freshness.nonce):
            nonce = shown.freshness and shown.freshness.nonce
            return _said_of(lambda: nonce and nonce.root(self.request.nonce)) or "witness-signature"
        if list(shown.state.tenures) != sorted(set(shown.state.tenures)):
            return "wrong-values"
        return next(code for what, code in READ if what(shown) != what(honest))


READ: tuple[tuple[Callable[[Bundle], object], str], ...] = (
    (lambda one: one.head.header.block_version, "block-version"),
    (lambda one: one.head.validators, "epoch-validators"),
    (lambda one: [vote.flag for vote in one.head.votes.signatures], "bad-commit-entry"),
    (lambda one: (one.head.header, one.head.votes), "commit-signature"),
    (lambda one: one.freshness and [signed.witness for signed in one.freshness.witnesses], "bad-witness"),
    (lambda one: one.freshness, "witness-signature"),
    (lambda one: (one.state.tenures, one.state.values, one.state.proof), "bad-state-proof"),
    (lambda one: one.state.ownership, "bad-ownership-proof"),
)
"""What a device reads of a bundle, in that order, and the code for a change of it."""


def _said_of(check: Callable[[], object]) -> str:
    try:
        check()
    except FirstlightError as error:
        return error.code
    return ""


def _flipped(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


# --- handshakes ---------------------------------------------------------------------------------


def test_a_handshake_led_to_another_registered_party_comes_to_nothing(lab: Lab) -> None:
    """A gateway relays the handshake that is for the MNO to a party that is registered too, which would learn of it."""
    device, bent = lab.device(), list[str]()
    assert isinstance(served(lab), Granted)

    def bend(asked: Asked, forward: Forward) -> Answered:
        bent.append(asked.path)
        return forward(replace(asked, path=asked.path.replace(lab.parties["mno"], lab.parties["sp"])))

    lab.settle()
    with lab.untouched(), lab.interceptor.bending("/relay/", bend):
        outcome = lab.switch_on(device, until=lambda one: "unexpected-credential" in one.codes)
    assert bent
    assert "rediscover" in outcome.codes
    assert "granted" not in outcome.codes
    lab.connects(device)


def served(lab: Lab) -> object:
    """Let a device of its own kind be granted something through the gateway: the honest exchange."""
    held = Handheld.open(lab.device())
    found = held.found()
    return held.onboard(found, held.acting(found, found.plan.network))


@dataclass(slots=True)
class Impostor:
    """Answers message 1 in a party's name with a key of its own; ``claimed`` is the kid that it shows."""

    chain: str
    party: bytes
    claimed: bytes
    static: AgreementKey = field(default_factory=lambda: AgreementKey.generate()[0])
    answered: int = 0

    def bend(self, asked: Asked, forward: Forward) -> Answered:
        """Answer as a party would, and forward nothing."""
        first = wire.parse_request(asked.body)
        assert isinstance(first, wire.First), "the device has answered an impostor"
        hello = responder.read_1(first.message_1)
        message_2, _ = responder.make_2(
            hello,
            ephemeral=Ephemeral.draw(SystemRandom()),
            static=self.static,
            kid_r=self.claimed,
            cred_r=party_credential(self.chain, self.party, self.static.public),
            c_r=messages.C_R,
            ead_2=[Ead(messages.EAD_HEIGHT, False, Head(1).encode())],
        )
        self.answered += 1
        return Answered(200, wire.MEDIA_TYPE, wire.Answer(message_2, bytes(64)).encode())


def test_a_gateway_cannot_answer_in_the_operators_name(lab: Lab) -> None:
    """A gateway answers message 1 itself, with its own key under its own kid, and under the operator's."""
    party = bytes.fromhex(lab.parties["mno"])
    assert isinstance(served(lab), Granted)
    found = Handheld.open(lab.device()).found()
    assert found.network.agreement_key is not None
    own = AgreementKey.generate()[0]
    for claimed, code in ((kid(own.public), "unexpected-credential"), (kid(found.network.agreement_key), "bad-mac")):
        device = lab.device()
        impostor = Impostor(market(lab).chain, party, claimed, own)
        lab.settle()
        with lab.untouched(), lab.interceptor.bending("/relay/", impostor.bend):
            outcome = lab.switch_on(device, until=lambda one: code in one.codes)  # noqa: B023
        assert impostor.answered
        assert code in outcome.codes
        assert "granted" not in outcome.codes
    lab.connects(device)


def test_registering_another_partys_agreement_key_gains_nothing(lab: Lab) -> None:
    """A stranger registers with the MNO's public key, and leads devices that are sent to him on to the MNO.

    He would have the MNO serve, and answer for, devices that agreed on *him*.
    """
    held = Handheld.open(lab.device())
    found = held.found()
    assert found.network.agreement_key is not None
    thief = market(lab).join(Role.MNO, agreement=found.network.agreement_key)
    assert isinstance(held.onboard(found, held.acting(found, found.plan.network)), Granted)
    acting = held.acting(found, found.plan.network, party=thief.party)
    lab.settle()
    with lab.untouched():
        event = held.open_exchange(found, acting, via=lab.url("mno"))
    assert event == BackOff("bad-mac")
