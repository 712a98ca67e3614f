"""A gateway that tampers with mail: plans of others, plans with something missing, mail of another device."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from firstlight.custody.system import SystemRandom
from firstlight.discovery.machine import Discovered, Failed
from firstlight.encoding import encode
from firstlight.errors import FirstlightError
from firstlight.ledger.records import Role
from firstlight.plan.claims import PartyKind, Plan, ProfileClaim, claim_digest, new_claim, new_plan, open_plan
from firstlight.roles.device.memory import GRANTS, VIEW, Sight
from firstlight.roles.wire import MailAnswer, MailRequest
from firstlight.sealing.envelope import PLAIN_SIZE, EnvelopeContent, seal_envelope
from firstlight.sealing.hpke import ENC
from firstlight.sealing.padding import pad
from firstlight.testing.handheld import Handheld
from firstlight.testing.interceptor import Answered, Asked, Bend, Forward
from firstlight.testing.lab import Lab, Outcome
from firstlight.testing.strangers import Market, new_key

MAIL = "/v1/mail"


@dataclass(frozen=True, slots=True)
class Opened:
    """The fleet's plan, as whoever has opened one of its devices knows it."""

    tenure: int
    revision: int
    prefix: int
    root: bytes
    digests: tuple[bytes, ...]
    profile: bytes
    network: bytes
    services: tuple[bytes, ...]

    @classmethod
    def by(cls, thief: Handheld) -> Opened:
        """Open a device."""
        found = thief.found()
        assert found.standing.plan is not None
        services = tuple(one.encode() for one in found.plan.services)
        parts = found.digests, found.plan.profile.encode(), found.plan.network.encode(), services
        return cls(found.standing.number, found.standing.plan_revision, found.prefix[1], found.standing.plan, *parts)

    @property
    def claims(self) -> tuple[bytes, ...]:
        """All real claims."""
        return (self.profile, self.network, *self.services)

    def saying(self, digests: Sequence[bytes], claims: Sequence[bytes]) -> bytes:
        """Return the padded contents of an envelope that says something else."""
        content = EnvelopeContent(self.tenure, self.revision, self.prefix, tuple(digests), tuple(claims))
        return content.padded()


def _plan(foreign: Plan) -> tuple[Sequence[bytes], Sequence[bytes]]:
    return foreign.digests, foreign.claims()


def _instead(opened: Opened, honest: bytes, foreign: Plan, which: int) -> tuple[Sequence[bytes], Sequence[bytes]]:
    return opened.digests, [foreign.parties[which].encode() if one == honest else one for one in opened.claims]


def _decoyed(opened: Opened, dropped: bytes) -> tuple[Sequence[bytes], Sequence[bytes]]:
    gone = claim_digest(dropped)
    digests = sorted([*(one for one in opened.digests if one != gone), SystemRandom().bytes(32)])
    return digests, [one for one in opened.claims if one != dropped]


def _other_profile(opened: Opened) -> tuple[Sequence[bytes], Sequence[bytes]]:
    real = ProfileClaim.decode(opened.profile)
    profile = ProfileClaim(real.salt, real.kind, new_key().public, (claim_digest(opened.network),)).encode()
    gone = claim_digest(opened.profile)
    digests = sorted([*(one for one in opened.digests if one != gone), claim_digest(profile)])
    return digests, [profile, opened.network]


FORGERIES: Mapping[str, tuple[str, Callable[[Opened, Plan], tuple[Sequence[bytes], Sequence[bytes]]]]] = {
    "the whole plan of another owner": ("wrong-plan-root", lambda _, p: _plan(p)),
    "another network in this plan": ("foreign-claim", lambda o, p: _instead(o, o.network, p, 0)),
    "another service in this plan": ("foreign-claim", lambda o, p: _instead(o, o.services[0], p, 1)),
    "the service dropped": ("claim-dropped", lambda o, _: (o.digests, [o.profile, o.network])),
    "the network dropped": ("claim-dropped", lambda o, _: (o.digests, [o.profile, *o.services])),
    "the owner's profile dropped": ("no-profile", lambda o, _: (o.digests, [o.network, *o.services])),
    "the service exchanged for a decoy": ("wrong-plan-root", lambda o, _: _decoyed(o, o.services[0])),
    "a profile that lists fewer claims": ("wrong-plan-root", lambda o, _: _other_profile(o)),
    "a claim shown twice": ("claim-twice", lambda o, _: (o.digests, [*o.claims, o.network])),
}  # fmt: skip


def forget_nothing(device: Path) -> None:
    """Check that a device acts on nothing and holds no grant."""
    if (device / VIEW).exists():
        assert Sight.decode((device / VIEW).read_bytes()).acted is None
    assert not list((device / GRANTS).glob("*"))


def answering(mail: Mapping[bytes, bytes], answered: list[bytes]) -> Bend:
    """Return a bend that hands out ``mail`` by locator instead of what lies there, and notes each locator."""

    def bend(asked: Asked, forward: Forward) -> Answered:
        honest = forward(asked)
        (locator,) = MailRequest.decode(asked.body).locators
        if locator not in mail:
            return honest
        answered.append(locator)
        forged = MailAnswer((mail[locator],)).encode()
        assert forged != honest.body
        return honest.with_body(forged)

    return bend


def sealed_to(victim: Handheld, padded: bytes) -> bytes:
    """Seal mail to a device, as anybody can who knows its identity key."""
    birth = victim.birth
    return seal_envelope(padded, identity=birth.identity, chain=birth.chain, locator=victim.locator)


def ignored(outcome: Outcome) -> set[str]:
    """Return why a device, as its own log says, did not act on the mail that it was shown."""
    return {str(line["code"]) for line in outcome.log if line.get("step") == "envelope"}


def test_mail_that_names_others_or_drops_a_claim_is_ignored(lab: Lab) -> None:
    """A gateway that has bought and opened one device of the fleet knows its plan, and every identity key.

    It would put devices under another owner's plan, onto another network, at another service, or keep them from one.
    """
    opened = Opened.by(Handheld.open(lab.device()))
    market = Market(lab.addresses.node, lab.places.consortium)
    network, service = market.join(Role.MNO), market.join(Role.SP)
    parties = ((PartyKind.NETWORK, network), (PartyKind.SERVICE, service))
    claims = [new_claim(kind, party.party, bytes(16), SystemRandom()) for kind, party in parties]
    foreign = new_plan(new_key().public, claims, SystemRandom())
    victims, mail, answered = dict[Path, str](), dict[bytes, bytes](), list[bytes]()
    for code, forge in FORGERIES.values():
        digests, shown = forge(opened, foreign)
        with pytest.raises(FirstlightError) as why:
            open_plan(opened.root, digests, shown)
        assert why.value.code == code
        victims[device := lab.device()] = code
        victim = Handheld.open(device)
        assert victim.found().standing.plan == opened.root
        mail[victim.locator] = sealed_to(victim, opened.saying(digests, shown))
    lab.settle()
    with lab.untouched(), lab.interceptor.bending(MAIL, answering(mail, answered)):
        outcomes = lab.switch_on_together([*victims], until=lambda one: "no-plan" in one.codes)
    assert set(answered) == set(mail)
    for device, code in victims.items():
        assert ignored(outcomes[device.name]) == {code}
        assert {"discovered", "granted"}.isdisjoint(outcomes[device.name].codes)
        forget_nothing(device)
    lab.connects(next(iter(victims)))


def test_mail_of_another_device_or_of_the_wrong_shape_is_no_mail(lab: Lab) -> None:
    """A gateway hands a device its neighbour's envelope, one with fewer decoys, noise, and bytes changed in transit."""
    thief = Handheld.open(lab.device())
    opened = Opened.by(thief)
    short = encode([opened.tenure, opened.revision, opened.prefix, b"".join(opened.digests[:15]), list(opened.claims)])
    chance = random.Random(20_261_122)
    victims = [lab.device() for _ in range(4)]
    held = [Handheld.open(one) for one in victims]
    genuine = [sealed_to(one, opened.saying(opened.digests, opened.claims)) for one in held]
    flipped = bytearray(genuine[3])
    flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
    forged = [
        sealed_to(thief, opened.saying(opened.digests, opened.claims)),
        sealed_to(held[1], pad(short, PLAIN_SIZE)),
        chance.randbytes(len(genuine[0])),
        bytes(flipped),
    ]
    mail = {one.locator: sealed for one, sealed in zip(held, forged, strict=True)}
    for one in held:
        assert isinstance(one.discover(), Discovered)
    lab.settle()
    answered = list[bytes]()
    with lab.untouched(), lab.interceptor.bending(MAIL, answering(mail, answered)):
        outcomes = lab.switch_on_together(victims, until=lambda one: "no-mail" in one.codes)
    assert set(answered) == set(mail)
    told = ("cannot-open", "wrong-shape", "bad-point", code_of(forged[3], genuine[3]))
    for device, code in zip(victims, told, strict=True):
        assert ignored(outcomes[device.name]) == {code}
        assert {"discovered", "granted"}.isdisjoint(outcomes[device.name].codes)
        forget_nothing(device)
    # What lies in the bend's way is all that was wrong: mail that anybody seals opens, if it says what the owner says.
    with lab.interceptor.bending(MAIL, answering({held[3].locator: genuine[3]}, answered)):
        assert isinstance(held[3].discover(), Discovered)


def code_of(changed: bytes, genuine: bytes) -> str:
    """Return how a changed envelope is refused: it begins with a point, x and y, which is then none."""
    return "bad-point" if changed[:ENC] != genuine[:ENC] else "cannot-open"


def test_every_changed_byte_of_an_envelope_is_noticed(lab: Lab) -> None:
    """A gateway changes one bit of an envelope, anywhere (a seeded sample)."""
    victim = Handheld.open(lab.device())
    assert isinstance(victim.discover(), Discovered)
    chance, shown, codes = random.Random(7), list[bytes](), set[str]()

    def flip(path: str, answer: bytes) -> bytes:
        if path != MAIL:
            return answer
        (genuine,) = MailAnswer.decode(answer).envelopes
        sealed = bytearray(genuine)
        sealed[(chance.randrange(ENC) if chance.random() < 0.3 else chance.randrange(ENC, len(sealed)))] ^= (
            1 << chance.randrange(8)
        )
        shown[:] = [genuine, bytes(sealed)]
        return MailAnswer((shown[1],)).encode()

    with lab.untouched():
        for _ in range(24):
            event = victim.discover(bend=flip)
            assert isinstance(event, Failed)
            code = code_of(shown[1], shown[0])
            assert (event.code, event.ignored) == ("no-mail", (code,))
            codes.add(code)
    assert codes == {"cannot-open", "bad-point"}
