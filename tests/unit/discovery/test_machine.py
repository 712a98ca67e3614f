import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from firstlight import p256
from firstlight.discovery.bundle import BundleRequest
from firstlight.discovery.machine import (
    MAX_ENVELOPES,
    TRANSITIONS,
    AskBundle,
    AskMailbox,
    AskMore,
    Discovered,
    Discovery,
    Event,
    Failed,
    Mail,
    State,
    read_services,
    services_request,
)
from firstlight.discovery.verify import Trust
from firstlight.errors import ProofError
from firstlight.identity.birth import BirthCredential, Leaf
from firstlight.ledger.records import PartyStatus, Role, TenureState, party_name, tenure_name
from firstlight.plan.claims import PartyKind, Plan, new_claim, new_plan
from firstlight.roles.wire import MailAnswer
from firstlight.sealing.envelope import SEALED_SIZE, EnvelopeContent, seal_envelope
from firstlight.sealing.locator import mailbox_locator
from firstlight.testing.bundles import BATCH, NETWORK, Ledger, a_party, origin
from firstlight.testing.chains import CHAIN, P256Key
from firstlight.testing.random import SeededRandom
from firstlight.trees import rfc6962

GATEWAY = "gateway-1"
NONCE = b"n" * 32
SERVICE = hashlib.sha256(b"service").digest()[:16]
INDEX, SIZE = 700, 1024
IDENTITY, ATTESTATION = P256Key("device identity"), P256Key("device attestation")
MAILBOX = b"m" * 32
LOCATOR = mailbox_locator(MAILBOX, GATEWAY)


def a_plan(seed: int = 0, *parties: tuple[PartyKind, bytes]) -> Plan:
    random = SeededRandom(seed)
    chosen = parties or ((PartyKind.NETWORK, NETWORK), (PartyKind.SERVICE, SERVICE))
    claims = [new_claim(kind, party, bytes(16), random) for kind, party in chosen]
    return new_plan(P256Key("receipts").public, claims, random)


PLAN = a_plan()
OTHER_PLAN = a_plan(1)


def birth_in(ledger: Ledger) -> BirthCredential:
    leaf = Leaf(bytes(16), p256.coordinates(IDENTITY.public), p256.coordinates(ATTESTATION.public), b"model-1")
    hashes = [hashlib.sha256(bytes([one >> 8, one & 255])).digest() for one in range(SIZE)]
    hashes[INDEX] = leaf.hash()
    tree = rfc6962.Tree(hashes)
    ledger.leaves = tree.root
    return BirthCredential(
        CHAIN,
        ledger.trust.root,
        BATCH,
        SIZE,
        INDEX,
        bytes(16),
        tree.path(INDEX),
        MAILBOX,
        b"model-1",
        IDENTITY.public,
        ATTESTATION.public,
        (),
    )


def envelope(plan: Plan = PLAN, *, tenure: int = 2, length: int = 0, claims: tuple[bytes, ...] = ()) -> bytes:
    content = EnvelopeContent(tenure, 1, length, plan.digests, claims or plan.claims())
    return seal_envelope(content.padded(), identity=IDENTITY.public, chain=CHAIN, locator=LOCATOR)


@dataclass(slots=True)
class World:
    """A ledger, a device and a gateway that answers honestly unless told otherwise."""

    ledger: Ledger
    mail: tuple[bytes, ...]
    trust: Trust
    asked: list[Event]
    named: tuple[bytes, ...] = ()
    """What was left for the tenure that counts, if it is asked for by name."""

    @classmethod
    def new(cls, *mail: bytes) -> "World":
        ledger = Ledger(size=SIZE)
        ledger.records[tenure_name(BATCH, 2)] = origin(2, SIZE, previous=1, plan=PLAN.root)
        ledger.records[party_name(SERVICE)] = a_party("service", Role.SP)
        return cls(ledger, mail or (envelope(),), ledger.trust, [])

    def discovery(self) -> Discovery:
        return Discovery(birth_in(self.ledger), IDENTITY, gateway=GATEWAY, trust=self.trust, nonce=NONCE)

    def answer(self, event: Event) -> bytes:
        if isinstance(event, AskMailbox) and event.tenure is not None:
            assert event == AskMailbox(LOCATOR, (BATCH, 2))
            return Mail(self.named).encode()
        if isinstance(event, AskMailbox):
            return Mail(self.mail if event.locator == LOCATOR else ()).encode()
        if isinstance(event, AskBundle):
            return self.ledger.answer(event.request).encode()
        assert isinstance(event, AskMore)
        return self.ledger.state(event.request).encode()

    def run(self, tamper: Callable[[Event, bytes], bytes] = lambda _, answer: answer) -> Discovered | Failed:
        discovery = self.discovery()
        event = discovery.start()
        while not isinstance(event, Discovered | Failed):
            self.asked.append(event)
            event = discovery.receive(tamper(event, self.answer(event)))
        assert discovery.state is State.OVER
        return event

    def failure(self, **named: object) -> str:
        result = self.run(**named)  # type: ignore[arg-type]
        assert isinstance(result, Failed)
        return result.code

    def success(self) -> Discovered:
        result = self.run()
        assert isinstance(result, Discovered), result
        return result


def test_from_birth_to_the_network_in_two_requests() -> None:
    world = World.new()
    found = world.success()
    assert found.plan.network.party == NETWORK
    assert [claim.party for claim in found.plan.services] == [SERVICE]
    assert found.network.endpoints[0].endswith("/network")
    assert found.digests == PLAN.digests
    assert [type(event) for event in world.asked] == [AskMailbox, AskBundle]
    assert (found.view.trust.height, found.view.trust.tenure) == (10, 2)


def test_what_was_learnt_makes_the_next_discovery_cheaper() -> None:
    world = World.new()
    world.trust = world.success().view.trust
    world.asked.clear()
    world.success()
    request = world.asked[1]
    assert isinstance(request, AskBundle)
    assert request.request.known_epoch == 1


def test_a_region_split_since_the_envelope_was_sealed() -> None:
    world = World.new()
    world.ledger.split(0, 256, 3, origin(3, 256, previous=2))
    found = world.success()
    assert found.standing.number == 2
    assert [type(event) for event in world.asked] == [AskMailbox, AskBundle, AskMore]
    assert found.prefix == (INDEX >> 6, 4)


GARBAGE = bytes(SEALED_SIZE)


@pytest.mark.parametrize("crowd", [(GARBAGE,) * MAX_ENVELOPES, (envelope(OTHER_PLAN),) * MAX_ENVELOPES])
def test_a_crowded_mailbox_is_asked_for_the_owners_mail_alone(crowd: tuple[bytes, ...]) -> None:
    """Others fill the mailbox, with what does not open or with what was once deployed; the region is split besides."""
    world = World.new(*crowd)
    world.ledger.split(0, 256, 3, origin(3, 256, previous=2))
    world.named = (envelope(),)
    found = world.success()
    assert found.standing.number == 2
    assert [type(event) for event in world.asked] == [AskMailbox, AskBundle, AskMore, AskMailbox] + (
        [AskMore] if crowd[0] == GARBAGE else []
    )
    world.named = ()
    assert world.failure() == "no-plan"
    assert [type(event) for event in world.asked].count(AskMailbox) == 4


def test_a_mailbox_with_room_is_not_asked_twice() -> None:
    """Where nothing can be hidden, the gateway is not told which tenure is meant."""
    assert World.new(*(GARBAGE,) * (MAX_ENVELOPES - 1)).failure() == "no-mail"
    world = World.new(*(envelope(OTHER_PLAN),) * (MAX_ENVELOPES - 1))
    assert world.failure() == "no-plan"
    assert [type(event) for event in world.asked] == [AskMailbox, AskBundle]


def test_the_next_longer_prefix_is_one_that_an_envelope_names() -> None:
    world = World.new(envelope(), envelope(length=2), envelope(length=1))
    world.ledger.split(0, 256, 3, origin(3, 256, previous=2))
    assert world.success().prefix == (INDEX >> 9, 1)


def test_prefixes_grow_until_the_region_is_whole() -> None:
    world = World.new()
    for neighbour in (INDEX ^ 1,):
        world.ledger.split(neighbour, 1, 3, origin(3, 1, previous=2))
    found = world.success()
    assert found.prefix == (INDEX, 10)
    assert len(world.asked) == 5


def test_an_envelope_that_does_not_fit_is_ignored() -> None:
    other = a_plan(1)
    stray = seal_envelope(
        EnvelopeContent(9, 9, 0, other.digests, other.claims()).padded(),
        identity=P256Key("another device").public,
        chain=CHAIN,
        locator=LOCATOR,
    )
    found = World.new(stray, envelope(other, tenure=9), bytes(2048), b"x", envelope()).success()
    assert found.plan.network == PLAN.parties[0]


def test_a_network_that_only_the_fitting_envelope_names_is_asked_for() -> None:
    strangers = [envelope(a_plan(one, (PartyKind.NETWORK, bytes([one]) * 16)), tenure=9) for one in range(1, 5)]
    world = World.new(*strangers, envelope())
    found = world.success()
    assert found.network.endpoints[0].endswith("/network")
    assert isinstance(world.asked[-1], AskMore)
    assert world.asked[-1].request.names == (party_name(NETWORK),)


def test_no_mail_or_none_that_opens() -> None:
    world = World.new()
    world.mail = ()
    assert world.failure() == "no-mail"
    assert World.new(bytes(2048)).failure() == "no-mail"
    far = EnvelopeContent(2, 1, 11, PLAN.digests, PLAN.claims())
    too_long = seal_envelope(far.padded(), identity=IDENTITY.public, chain=CHAIN, locator=LOCATOR)
    assert World.new(too_long).failure() == "no-mail"


def test_why_envelopes_do_not_count_is_told() -> None:
    far = EnvelopeContent(2, 1, 11, PLAN.digests, PLAN.claims())
    too_long = seal_envelope(far.padded(), identity=IDENTITY.public, chain=CHAIN, locator=LOCATOR)
    closed = World.new(b"x", too_long, b"xx").run()
    assert isinstance(closed, Failed)
    assert (closed.code, closed.ignored) == ("no-mail", ("wrong-size", "bad-prefix"))
    fitting = World.new(b"x", envelope(a_plan(1)), envelope(claims=PLAN.claims()[:-1])).run()
    assert isinstance(fitting, Failed)
    assert (fitting.code, fitting.ignored) == ("no-plan", ("wrong-size", "wrong-plan-root", "claim-dropped"))


def test_a_plan_that_is_not_the_owner_s() -> None:
    world = World.new(envelope(a_plan(1)))
    result = world.run()
    assert isinstance(result, Failed)
    assert result.code == "no-plan"
    assert result.trust is not None
    assert result.trust.height == 10


def test_a_dropped_claim() -> None:
    assert World.new(envelope(claims=PLAN.claims()[:-1])).failure() == "no-plan"


@pytest.mark.parametrize(
    ("state", "plan", "held", "code"),
    [
        (TenureState.ACTIVE, None, False, "not-deployed"),
        (TenureState.FROZEN, PLAN.root, False, "tenure-frozen"),
        (TenureState.RETIRED, PLAN.root, False, "tenure-retired"),
        (TenureState.ACTIVE, PLAN.root, True, "tenure-frozen"),
    ],
)
def test_tenures_that_nobody_onboards_for(state: TenureState, plan: bytes | None, held: bool, code: str) -> None:
    world = World.new()
    tenure = replace(origin(2, SIZE, previous=1, plan=plan), state=state, held=held)
    world.ledger.records[tenure_name(BATCH, 2)] = tenure
    assert world.failure() == code


@pytest.mark.parametrize(
    "change",
    [
        {"status": PartyStatus.SUSPENDED},
        {"roles": (Role.SP,)},
        {"agreement_key": None},
        {"endpoints": ()},
    ],
    ids=lambda change: next(iter(change)),
)
def test_networks_that_cannot_be_used(change: dict[str, object]) -> None:
    world = World.new()
    record = a_party("network", Role.MNO)
    world.ledger.records[party_name(NETWORK)] = replace(record, **change)  # type: ignore[arg-type]
    assert world.failure() == "no-network"


def test_a_network_that_is_not_registered() -> None:
    world = World.new()
    del world.ledger.records[party_name(NETWORK)]
    assert world.failure() == "no-network"


def test_a_device_that_is_not_in_the_batch() -> None:
    world = World.new()
    discovery = world.discovery()
    world.ledger.leaves = bytes(32)
    event = discovery.start()
    while not isinstance(event, Discovered | Failed):
        event = discovery.receive(world.answer(event))
    assert isinstance(event, Failed)
    assert event.code == "not-in-batch"


@pytest.mark.parametrize("stage", [AskMailbox, AskBundle, AskMore])
@pytest.mark.parametrize("garbage", [b"", b"\x80", b"\xff" * 40, bytes(100_000)], ids=len)
def test_garbage_from_the_gateway_ends_it_with_a_code(stage: type[Event], garbage: bytes) -> None:
    world = World.new()
    world.ledger.split(0, 256, 3, origin(3, 256, previous=2))
    code = world.failure(tamper=lambda event, answer: garbage if isinstance(event, stage) else answer)
    assert code in {"not-cbor", "wrong-shape", "too-large", "not-canonical"}


def test_answers_out_of_turn() -> None:
    discovery = World.new().discovery()
    for call in (lambda: discovery.receive(b""), lambda: (discovery.start(), discovery.start())):
        with pytest.raises(ProofError) as caught:
            call()
        assert caught.value.code == "answer-out-of-turn"


def test_every_state_can_be_reached_and_left() -> None:
    reached = {State.NEW}.union(*TRANSITIONS.values())
    assert reached == set(State)
    assert not TRANSITIONS[State.OVER]


# --- services, once attached ----------------------------------------------------------------------


def again(world: World, found: Discovered) -> BundleRequest:
    return services_request(found, found.view.trust, b"o" * 32)


def test_services_are_read_under_a_newer_head() -> None:
    world = World.new()
    found = world.success()
    world.ledger.at = 20
    request = again(world, found)
    view, services = read_services(world.ledger.answer(request), request, found, found.view.trust)
    assert view.height == 20
    assert services[SERVICE].endpoints[0].endswith("/service")


def test_a_suspended_service_is_left_out() -> None:
    world = World.new()
    found = world.success()
    world.ledger.records[party_name(SERVICE)] = replace(a_party("service", Role.SP), status=PartyStatus.SUSPENDED)
    request = again(world, found)
    assert not read_services(world.ledger.answer(request), request, found, found.view.trust)[1]


def test_a_device_that_was_sold_or_replanned_discovers_anew() -> None:
    for change in ("plan", "tenure"):
        world = World.new()
        found = world.success()
        if change == "plan":
            record = world.ledger.records[tenure_name(BATCH, 2)]
            world.ledger.records[tenure_name(BATCH, 2)] = replace(record, plan=bytes(32), plan_revision=2)  # type: ignore[call-arg]
        else:
            world.ledger.split(INDEX, 1, 3, origin(3, 1, previous=2, plan=PLAN.root))
        request = again(world, found)
        with pytest.raises(ProofError) as caught:
            read_services(world.ledger.answer(request), request, found, found.view.trust)
        assert caught.value.code == "moved"


def test_a_device_reads_as_many_envelopes_as_a_gateway_may_hand_over() -> None:
    full = Mail(tuple(bytes([one]) * 2048 for one in range(MAX_ENVELOPES)))
    assert Mail.decode(MailAnswer(full.envelopes).encode()) == full
