"""Messages of an exchange that only one check of a party, or of a device, stands in the way of.

The exchange is the real one, with a party whose ledger, appraiser and stores are in memory. Before each attempt the
same device, or another of its batch, is granted something by the same party in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from tests.refusals import refused

from firstlight.encoding import encode, encode_sequence
from firstlight.enrolment import request as certificate_request
from firstlight.enrolment.issue import create_authority
from firstlight.enrolment.request import build_request, check_request
from firstlight.enrolment.signing import SignerKey
from firstlight.identity.birth import Leaf
from firstlight.identity.credential import device_credential
from firstlight.ledger.records import PartyStatus, TenureState
from firstlight.onboarding import messages, wire
from firstlight.onboarding.device import Acting, BackOff, Granted, Rediscover, Refused, Sent
from firstlight.onboarding.edhoc import initiator, responder
from firstlight.onboarding.edhoc.keys import Ead, Ephemeral
from firstlight.onboarding.messages import Claim, collect
from firstlight.onboarding.party import UNIFORM_ERROR, Reply
from firstlight.onboarding.token import LIFETIME_NS, KeyRing, OpenState, TokenKey, open_token, seal_token
from firstlight.plan.claims import (
    DIGESTS,
    ClaimKind,
    PartyKind,
    PlanOpening,
    ProfileClaim,
    claim_digest,
    new_claim,
    open_claim,
    open_plan,
    parse_claim,
    plan_root,
)
from firstlight.plan.order import Order, open_order, sign_order
from firstlight.roles.party.mno import SimGrantor
from firstlight.roles.party.sp import CertificateGrantor
from firstlight.stores.exchanges import GrantState
from firstlight.testing.chains import P256Key
from firstlight.testing.onboarding import BATCH, CHAIN, HOME, ORIGIN, StaticKey, World
from firstlight.testing.random import SeededRandom
from firstlight.trees import rfc6962

GRANTED = "granted"
DEVICE = P256Key("device")
THIEF = P256Key("mallory")


def said(attempt: Callable[[], str]) -> str:
    """Return what an attempt comes to: the party's code, or what breaks."""
    codes: list[str] = []
    broken = refused(lambda: codes.append(attempt()))
    return codes[0] if codes else broken


# --- until MAC_3: one uniform error ---------------------------------------------------------------


def second(world: World, items: list[Ead], leaf: Leaf, *, kid: bytes | None = None, c_r: bytes = messages.C_R) -> bytes:
    """Make request 2 by hand, with the key of device 0, whatever its claim says."""
    begun = world.begin()
    answer = wire.parse_answer(world.send(begun.request_1).data)
    verified = initiator.read_2(begun.started, answer.message_2).verify(
        world.party._credential, world.party_key.public[1:]
    )
    named = kid or leaf.kid
    message_3, _ = initiator.make_3(
        verified,
        static=world.keys[0],
        kid_i=named,
        cred_i=device_credential(leaf.identity, named),
        ead_3=items,
    )
    return wire.Second(answer.token, c_r, message_3).encode()


def claimed(world: World, *, evidence: bytes = b"evidence", kid: bytes | None = None, **changes: object) -> bytes:
    claim: Claim = replace(world.begin()._claim(), **changes)  # type: ignore[arg-type]
    items = [Ead(messages.EAD_CLAIM, True, claim.encode()), Ead(messages.EAD_EVIDENCE, True, evidence)]
    return second(world, items, claim.leaf, kid=kid)


def itemised(*items: Ead) -> Callable[[World], bytes]:
    """Return an attempt with these items beside, or in place of, claim and evidence."""

    def made(world: World) -> bytes:
        claim = Ead(messages.EAD_CLAIM, True, world.begin()._claim().encode())
        return second(world, [claim, *items], world.leaves[0])

    return made


def other_c_r(world: World) -> bytes:
    sent = wire.parse_request(world.open().request_2)
    assert isinstance(sent, wire.Second)
    return replace(sent, c_r=b"\x02").encode()


def other_token(world: World) -> bytes:
    sent = wire.parse_request(world.open().request_2)
    assert isinstance(sent, wire.Second)
    return replace(sent, token=bytes(len(sent.token))).encode()


EVIDENCE = Ead(messages.EAD_EVIDENCE, True, b"evidence")
STRANGERS: Mapping[str, tuple[str, Callable[[World], bytes]]] = {
    "under-another-identifier": ("wrong-identifier", other_c_r),
    "with-evidence-without-end": ("too-large", lambda world: claimed(world, evidence=bytes(messages.MAX_EVIDENCE + 1))),
    "of-a-batch-that-nobody-ordered-for": ("batch-unknown", lambda world: claimed(world, batch=bytes(16))),
    "at-another-place-in-the-batch": ("not-in-batch", lambda world: claimed(world, index=1)),
    "beyond-the-batch": ("bad-path", lambda world: claimed(world, index=9)),
    "named-by-another-kid": ("wrong-credential", lambda world: claimed(world, kid=bytes(16))),
    "in-another-devices-name": (
        "bad-mac",
        lambda world: claimed(world, leaf=world.leaves[1], index=1, path=world.tree.path(1)),
    ),
    "with-a-critical-item-that-nobody-knows": ("unknown-critical-ead", itemised(EVIDENCE, Ead(70, True, b"?"))),
    "with-two-claims": ("bad-ead", itemised(Ead(messages.EAD_CLAIM, True, b"x"), EVIDENCE)),
    "without-evidence": ("bad-ead", itemised()),
    "with-a-token-made-up": ("bad-token", other_token),
}


@pytest.mark.parametrize("name", sorted(STRANGERS))
def test_a_party_tells_no_such_stranger_anything(name: str) -> None:
    """Somebody who cannot prove to be a device of an ordered batch gets one uniform error, and leaves nothing."""
    code, made = STRANGERS[name]
    world = World()
    world.onboard()
    assert world.send(claimed(world)).code == "evidence-nonce"
    request, asked = made(world), world.ledger.asked
    before = list(world.store._connection.iterdump())
    replies: list[Reply] = []
    assert refused(lambda: replies.append(world.send(request))) == "taken"
    assert [(one.code, one.error, one.data) for one in replies] == [(code, True, UNIFORM_ERROR)]
    assert world.ledger.asked == asked
    assert list(world.store._connection.iterdump()) == before


def test_no_leaf_is_in_a_batch_by_a_path_that_does_not_lead_there() -> None:
    """A device of another batch, or nobody's, shows a leaf of its own making."""
    world = World()
    leaf, path, root = world.leaves[0], world.tree.path(0), world.tree.root
    leaf.verify(0, 4, path, root)
    assert refused(lambda: world.leaves[1].verify(0, 4, path, root)) == "not-in-batch"
    assert refused(lambda: leaf.verify(4, 4, path, root)) == "bad-path"
    assert refused(lambda: leaf.verify(0, 4, (path[0], path[1][:31]), root)) == "bad-path"
    assert refused(lambda: leaf.verify(0, 4, path[:1], root)) == "bad-path"


# --- after MAC_3: protected refusals --------------------------------------------------------------

Bend = Callable[[World], Sent]


def opened(bend: Callable[[World], object]) -> Bend:
    """Return an attempt whose exchange is opened before the world changes."""

    def attempt(world: World) -> Sent:
        sent = world.open()
        bend(world)
        return sent

    return attempt


def acting(**changes: object) -> Bend:
    return lambda world: world.open(replace(world.acting(), **changes))  # type: ignore[arg-type]


def old_view(world: World) -> Sent:
    world.clock.advance(61)
    world.ring = KeyRing(TokenKey(b"n" * 32, world.clock.now()))
    return world.open()


def suspended(world: World) -> None:
    assert world.ledger.head
    party = replace(world.ledger.head.party, status=PartyStatus.SUSPENDED)
    world.ledger.head = replace(world.ledger.head, party=party)


def nobodys(world: World) -> None:
    assert world.ledger.head
    world.ledger.head = replace(world.ledger.head, owner=0)


def ordered(**changes: object) -> Bend:
    """Let the order be another one than the owner's."""

    def bend(world: World) -> None:
        body = replace(world.order, **changes).encode()  # type: ignore[arg-type]
        world.store._connection.execute("UPDATE placed SET body = ?", (body,))

    return opened(bend)


def never_ordered(world: World) -> None:
    world.store._connection.execute("DELETE FROM placed")


def overtaken(world: World) -> Sent:
    """An exchange that was opened before the one that brought the newest grant."""
    sent = world.open()
    world.onboard()
    return sent


def of_a_party_for_services(world: World) -> None:
    world.party = world.make_party(replace(world.profile, kinds=frozenset({PartyKind.SERVICE})))


def used_up(world: World) -> Sent:
    for index in (1, 2):
        world.onboard(index=index)
    return world.open(index=3)


def misplaced(world: World) -> Sent:
    own = world.plan.opening(world.mine)
    return world.open(world.acting(plan=replace(own, position=(own.position + 1) % 16)))


def affirmed_by_nobody(world: World) -> None:
    world.appraiser.refusal = "firmware-revoked"


def copied(world: World) -> Sent:
    """A second device with the birth credential, which knows nothing of the grant that the first one uses."""
    (grant,) = [one for one in world.store.grants(*GrantState) if one.index == 0]
    world.store.confirm(grant.id, world.clock.now())
    world.clock.advance(1)
    return world.open()


DEVICES: Mapping[str, tuple[str, Bend]] = {
    "after-a-newer-grant": ("superseded", overtaken),
    "before-a-party-that-is-behind": ("view-too-old", old_view),
    "at-a-party-that-was-suspended": ("party-suspended", opened(suspended)),
    "that-is-nobodys": ("not-accepted", opened(nobodys)),
    "that-was-frozen": ("frozen", opened(lambda world: world.bend(state=TenureState.FROZEN))),
    "that-was-retired": ("retired", opened(lambda world: world.bend(state=TenureState.RETIRED))),
    "that-nobody-deployed": ("not-deployed", opened(lambda world: world.bend(plan=None, plan_revision=0))),
    "with-the-plan-of-yesterday": ("stale-view", opened(lambda world: world.bend(plan_revision=2))),
    "with-a-claim-in-another-place": ("bad-plan-opening", misplaced),
    "with-a-claim-for-another-party": (
        "wrong-party",
        lambda world: world.open(world.acting(plan=world.plan.opening(world.other))),
    ),
    "that-wants-a-network-of-a-service": ("wrong-kind", opened(of_a_party_for_services)),
    "that-nobody-ordered-for": ("order-unknown", opened(never_ordered)),
    "of-another-owners-order": ("order-foreign", ordered(origin=1)),
    "of-an-order-that-ran-out": ("order-expired", ordered(until=1_800_000_000)),
    "one-more-than-were-ordered-for": ("order-full", used_up),
    "whose-evidence-nobody-affirms": ("firmware-revoked", opened(affirmed_by_nobody)),
    "that-was-copied": ("clone-alarm", copied),
}


@pytest.mark.parametrize("name", sorted(DEVICES))
def test_a_party_grants_no_such_device_anything(name: str) -> None:
    """A device that is genuine, and has or shows one thing that it must not."""
    code, attempt = DEVICES[name]
    world = World(devices=3)
    world.onboard()
    sent = attempt(world)
    before = len(world.store.grants(*GrantState))
    assert said(lambda: world.send(sent.request_2).code) == code
    assert len(world.store.grants(*GrantState)) == before


def test_another_message_3_does_not_count_for_an_exchange_that_has() -> None:
    """A device, or a copy of it, has one exchange decided twice: two plaintexts under one key."""
    world = World()
    begun = world.begin()
    response = world.send(begun.request_1).data
    one, two = (begun.read(response, evidence=lambda nonce, end=end: nonce + end) for end in (b"", b"!"))  # type: ignore[misc]
    assert isinstance(one, Sent)
    assert isinstance(two, Sent)
    assert world.finish(one)[0].code == GRANTED
    assert world.finish(two)[1] == Refused("exchange-used")
    assert world.finish(one)[0].repeated


AUTHORITY = create_authority(
    P256Key("authority"), title="SP", now=1_799_000_000, lifetime=10**8, random=SeededRandom(1)
)


def service(world: World, *, ended: bool = False) -> None:
    """Let the party grant certificates."""
    own = AUTHORITY
    if ended:
        own = create_authority(
            P256Key("authority"), title="SP", now=1_700_000_000, lifetime=86_400, random=SeededRandom(1)
        )
    world.grantor = CertificateGrantor(  # type: ignore[assignment]
        own, server="broker.sp.example", broker="mqtts://127.0.0.1:1", lifetime=3_600, random=world.random
    )
    world.party = world.make_party(world.profile)


def test_an_operator_gives_no_subscription_to_who_asks_for_a_certificate() -> None:
    """A device has an operator sign something of its making."""
    world = World()
    world.grantor = SimGrantor(  # type: ignore[assignment]
        CHAIN, world.party_id, HOME, network="WLAN", endpoint="tcp://127.0.0.1:1", lifetime=60, random=world.random
    )
    world.party = world.make_party(world.profile)
    world.onboard()
    _, event = world.finish(world.open(request=build_request(DEVICE)))
    assert event == Refused("request-unexpected")


def requested(
    key: ec.EllipticCurvePrivateKey, *, digest: hashes.HashAlgorithm | None = None, ca: bool = False
) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, digest or hashes.SHA256()).public_bytes(Encoding.DER)


def stolen() -> bytes:
    """A request for somebody else's key, signed by the thief's own."""

    class Claiming:
        public = DEVICE.public

        def sign(self, message: bytes) -> bytes:
            return THIEF.sign(message)

    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(SignerKey(Claiming()), hashes.SHA256()).public_bytes(Encoding.DER)


REQUESTS: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    "none": ("request-missing", lambda: b""),
    "not-in-its-one-encoding": ("request-malformed", lambda: build_request(DEVICE) + b"\x00"),
    "to-be-an-authority": ("request-attributes", lambda: requested(DEVICE.private, ca=True)),
    "on-another-curve": ("request-wrong-key", lambda: requested(ec.generate_private_key(ec.SECP384R1()))),
    "signed-with-another-hash": (
        "request-wrong-algorithm",
        lambda: requested(DEVICE.private, digest=hashes.SHA512()),
    ),
    "for-somebody-elses-key": ("request-bad-signature", stolen),
}


@pytest.mark.parametrize("name", sorted(REQUESTS))
def test_a_provider_certifies_no_such_request(name: str) -> None:
    """A device asks for a certificate that is more than its own, or over a key that is not."""
    code, made = REQUESTS[name]
    world = World()
    service(world)
    assert isinstance(world.finish(world.open(request=build_request(DEVICE)))[1], Granted)
    sent = world.open(request=made())
    assert said(lambda: world.send(sent.request_2).code) == code


def test_a_provider_whose_authority_has_ended_certifies_nothing() -> None:
    """A device is given a certificate by an authority that nobody trusts any more."""
    world = World()
    service(world)
    assert isinstance(world.finish(world.open(request=build_request(DEVICE)))[1], Granted)
    service(world, ended=True)
    sent = world.open(request=build_request(DEVICE))
    assert said(lambda: world.send(sent.request_2).code) == "authority-expired"


def test_no_request_is_longer_than_one_can_be() -> None:
    """Somebody has a provider's parser of requests work through megabytes."""
    assert check_request(build_request(DEVICE)) == DEVICE.public
    assert refused(lambda: check_request(bytes(certificate_request.MAX_REQUEST + 1))) == "request-too-large"


# --- what a device is told ------------------------------------------------------------------------


def read(world: World, acting: Acting) -> Sent | Rediscover | BackOff:
    begun = world.begin(acting)
    return begun.read(world.send(begun.request_1).data, evidence=lambda nonce: nonce)


def test_a_device_goes_on_with_nobody_but_the_party_that_the_ledger_names() -> None:
    """A gateway leads a handshake to another party, or to one that has registered this one's public key."""
    world = World()
    assert isinstance(read(world, world.acting()), Sent)
    other = replace(world.acting(), agreement_key=StaticKey.draw(SeededRandom("other")).public)
    assert read(world, other) == Rediscover("unexpected-credential")
    assert read(world, replace(world.acting(), party=bytes(16))) == BackOff("bad-mac")
    world.ledger.announced = 111
    assert read(world, world.acting()) == Rediscover("party-ahead", 111)


def test_nobody_talks_device_and_party_down_to_another_suite() -> None:
    """A relay forges the error that names suites, or takes the better ones out of message 1."""
    assert initiator.next_proposal((3, 2), (3,), (2,)) == (3, 2)
    assert refused(lambda: initiator.next_proposal((3, 2), (3,), (0,))) == "no-common-suite"
    assert refused(lambda: initiator.next_proposal((3, 2), (3,), (3,))) == "suites-contradict"
    begun = initiator.start(Ephemeral.draw(SeededRandom(2)), c_i=messages.C_I, suites=(2,))
    assert responder.read_1(begun.message_1, suites={2}).suite.number == 2
    assert refused(lambda: responder.read_1(begun.message_1, suites={3})) == "wrong-suite"
    both = initiator.start(Ephemeral.draw(SeededRandom(2)), c_i=messages.C_I, suites=(3, 2))
    assert refused(lambda: responder.read_1(both.message_1, suites={2, 3})) == "wrong-suite"
    method_0 = encode_sequence(0, 2, begun.ephemeral.x) + encode(b"\x00")
    assert refused(lambda: responder.read_1(method_0)) == "wrong-method"


def test_no_item_beside_a_message_is_passed_over_that_says_it_must_not_be() -> None:
    """Somebody adds to a message what one side acts upon and the other does not know."""
    known = Ead(1, True, b"x")
    assert collect([known, Ead(70, False, b"?")], {1: True}) == {1: b"x"}
    assert refused(lambda: collect([known, Ead(70, True, b"?")], {1: True})) == "unknown-critical-ead"
    assert refused(lambda: collect([known, known], {1: True})) == "bad-ead"
    assert refused(lambda: collect([], {1: True}, required=(1,))) == "bad-ead"


def test_a_half_open_state_counts_at_its_own_party_and_for_two_minutes() -> None:
    """Somebody brings a token of another party's, makes one up, or keeps one until the clock was set back."""
    world = World()
    now = world.clock.now()
    begun = initiator.start(Ephemeral.draw(world.random), c_i=messages.C_I)
    _, half = responder.make_2(
        responder.read_1(begun.message_1),
        ephemeral=Ephemeral.draw(world.random),
        static=world.party_key,
        kid_r=b"kid",
        cred_r=b"cred",
        c_r=b"\x00",
    )
    state = OpenState(half, now - LIFETIME_NS - 1)
    token = seal_token(replace(state, opened_ns=now), world.ring, chain=CHAIN, party=b"p", random=world.random)
    old = seal_token(state, world.ring, chain=CHAIN, party=b"p", random=world.random)

    def open_(one: bytes, party: bytes = b"p") -> OpenState:
        return open_token(one, world.ring, chain=CHAIN, party=party, now_ns=now)

    assert open_(token).half == half
    assert refused(lambda: open_(token, b"q")) == "bad-token"
    assert refused(lambda: open_(bytes(len(token)))) == "bad-token"
    assert refused(lambda: open_(old)) == "token-expired"


# --- what an owner has chosen ---------------------------------------------------------------------


def test_no_claim_opens_but_in_the_plan_that_it_is_of() -> None:
    """A device shows a party a claim that its owner has never made, or what is not for parties."""
    world = World()
    root, own = world.plan.root, world.plan.opening(world.mine)
    assert open_claim(root, own) == world.mine
    assert refused(lambda: open_claim(root, replace(own, position=(own.position + 1) % 16))) == "wrong-plan-root"
    profile = next(one for one in world.plan.claims() if isinstance(parse_claim(one), ProfileClaim))
    digests = world.plan.digests
    at = digests.index(claim_digest(profile))
    path = rfc6962.Tree([rfc6962.leaf_hash(one) for one in digests]).path(at)
    assert refused(lambda: open_claim(root, PlanOpening(profile, at, path))) == "profile-shown"


def test_no_plan_is_taken_with_another_number_of_digests_or_a_claim_of_another() -> None:
    """Whoever knows a device's key sends it claims that its owner has not made beside those that he has."""
    world = World()
    digests, claims = world.plan.digests, world.plan.claims()
    assert open_plan(world.plan.root, digests, claims).network == world.mine
    fewer = digests[:-1]
    assert refused(lambda: open_plan(plan_root(fewer), fewer, claims)) == "wrong-digest-count"
    stranger = new_claim(PartyKind.SERVICE, bytes(16), bytes(16), world.random).encode()
    assert refused(lambda: open_plan(world.plan.root, digests, (*claims, stranger))) == "foreign-claim"
    own = [one for one in claims if not isinstance(parse_claim(one), ProfileClaim)]
    listed = tuple(sorted((*map(claim_digest, own), bytes(32))))
    wide = ProfileClaim(bytes(16), int(ClaimKind.PROFILE), world.party_key.public, listed).encode()
    real = [claim_digest(one) for one in (wide, *own)]
    sixteen = sorted([*real, *(world.random.bytes(32) for _ in range(DIGESTS - len(real)))])
    assert refused(lambda: open_plan(plan_root(sixteen), sixteen, (wide, *own))) == "foreign-digest"


OWNER = P256Key("owner")
ORDER = Order(bytes(16), CHAIN, b"P" * 16, BATCH, ORIGIN, 3, 2_000)


def placed(data: bytes, now: int = 1_999) -> Order:
    return open_order(data, key=OWNER.public, chain=CHAIN, party=b"P" * 16, now=now)


def test_no_order_is_taken_but_its_owners_for_this_party_now() -> None:
    """Somebody orders for devices of others, or brings a party an order for another one, or an old one."""
    honest = sign_order(ORDER, OWNER)
    assert placed(honest) == ORDER
    assert refused(lambda: placed(sign_order(ORDER, THIEF))) == "unknown-key"
    assert refused(lambda: placed(honest[:-1] + bytes([honest[-1] ^ 1]))) == "bad-signature"
    assert refused(lambda: placed(sign_order(replace(ORDER, chain="another"), OWNER))) == "wrong-chain"
    assert refused(lambda: placed(sign_order(replace(ORDER, party=bytes(16)), OWNER))) == "wrong-party"
    assert refused(lambda: placed(honest, now=2_000)) == "order-expired"
