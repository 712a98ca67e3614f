"""A party's checks, one by one, in their order. Each starts from the exchange that passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from firstlight.encoding import encode
from firstlight.errors import (
    FirstlightError,
    MalformedError,
    ProofError,
    RefusedError,
    SignatureError,
    TransportError,
)
from firstlight.identity.credential import device_credential
from firstlight.ledger.records import PartyStatus, TenureState
from firstlight.onboarding import messages, party, wire
from firstlight.onboarding.device import Acting, BackOff, Begun, Granted, Refused, Sent
from firstlight.onboarding.edhoc import initiator, responder
from firstlight.onboarding.edhoc.error import parse_error
from firstlight.onboarding.edhoc.keys import Ead
from firstlight.onboarding.messages import Claim
from firstlight.onboarding.party import UNIFORM_ERROR, is_clone
from firstlight.onboarding.ports import Entry, Facts, History, PastGrant
from firstlight.onboarding.token import LIFETIME_NS, KeyRing, TokenKey
from firstlight.plan.claims import PartyKind
from firstlight.stores.exchanges import GrantState
from firstlight.testing.onboarding import BATCH, ORIGIN, World


def forge(world: World, change: Callable[[Claim], bytes | Claim], *, kid: bytes | None = None, **kw: object) -> bytes:
    """Make request 2 as a device would that lies in its claim (and has the key of device 0)."""
    begun = world.begin(**kw)  # type: ignore[arg-type]
    answer = wire.parse_answer(world.send(begun.request_1).data)
    verified = initiator.read_2(begun.started, answer.message_2).verify(
        world.party._credential, world.party_key.public[1:]
    )
    changed = change(begun._claim())
    leaf = changed.leaf if isinstance(changed, Claim) else world.leaves[0]
    ead = [
        Ead(messages.EAD_CLAIM, True, changed.encode() if isinstance(changed, Claim) else changed),
        Ead(messages.EAD_EVIDENCE, True, b"evidence"),
    ]
    message_3, _ = initiator.make_3(
        verified,
        static=world.keys[0],
        kid_i=kid or leaf.kid,
        cred_i=device_credential(leaf.identity, kid or leaf.kid),
        ead_3=ead,
    )
    return wire.Second(answer.token, messages.C_R, message_3).encode()


def dump(world: World) -> list[str]:
    """Everything in the store."""
    return list(world.store._connection.iterdump())


def test_the_honest_exchange() -> None:
    world = World()
    sent = world.open()
    assert world.ledger.asked == 0
    reply, event = world.finish(sent)
    assert (reply.code, reply.error, reply.repeated) == ("granted", False, False)
    assert (reply.batch, reply.index, reply.th_3) == (BATCH, 0, sent.th_3)
    assert isinstance(event, Granted)
    assert event.grant.id == world.grantor.made[0]
    k, opc = event.subscription_keys("testnet", world.party_id)
    assert world.store.secret(event.grant.id) == k + opc
    assert k != opc
    assert world.store.result(sent.th_3) == b"fine"
    (granted,) = world.store.grants(GrantState.PENDING)
    assert (granted.id, granted.index, granted.origin, granted.kind) == (event.grant.id, 0, ORIGIN, PartyKind.NETWORK)


@pytest.mark.parametrize("suite", [2, 3])
def test_both_suites(suite: int) -> None:
    world = World()
    assert world.finish(world.open(suite=suite))[0].code == "granted"


def test_a_suite_that_the_party_has_not_is_named() -> None:
    world = World()
    request = world.begin(suite=3).request_1
    world.party = world.make_party(replace(world.profile, suites=frozenset({2})))
    reply = world.send(request)
    assert (reply.code, parse_error(reply.data).suites) == ("wrong-suite", (2,))


# --- checks 1 to 4: one uniform error, nothing fetched, nothing stored ----------------------------


def lie(**changes: object) -> Callable[[World], bytes]:
    return lambda world: forge(world, lambda claim: replace(claim, **changes))  # type: ignore[arg-type]


BEFORE_MAC_3: dict[str, tuple[str, Callable[[World], bytes]]] = {
    "claim that does not parse": ("not-cbor", lambda world: forge(world, lambda _: b"\xff")),
    "claim of another shape": ("wrong-shape", lambda world: forge(world, lambda _: encode([1, 2]))),
    "claim that is not canonical": ("not-canonical", lambda world: forge(world, lambda _: b"\x98\x01\x00")),
    "claim that is too long": ("too-large", lambda world: forge(world, lambda _: bytes(3000))),
    "batch without an order": ("batch-unknown", lie(batch=bytes(16))),
    "index beyond the batch": ("bad-path", lie(index=9)),
    "another index": ("not-in-batch", lie(index=1)),
    "path too short": ("bad-path", lie(path=())),
    "leaf of another device": (
        "bad-mac",
        lambda world: forge(
            world, lambda claim: replace(claim, leaf=world.leaves[1], index=1, path=world.tree.path(1))
        ),
    ),
    "kid of another leaf": ("wrong-credential", lambda world: forge(world, lambda claim: claim, kid=bytes(16))),
}


@pytest.mark.parametrize("name", BEFORE_MAC_3)
def test_until_mac_3_one_uniform_error(name: str) -> None:
    code, make = BEFORE_MAC_3[name]
    world = World()
    assert world.send(forge(world, lambda claim: claim)).code == "evidence-nonce"
    world.ledger.asked = 0
    request, before = make(world), dump(world)
    reply = world.send(request)
    assert (reply.code, reply.error, reply.data) == (code, True, UNIFORM_ERROR)
    assert world.ledger.asked == 0
    assert dump(world) == before


def send_ead(world: World, ead: list[Ead]) -> str:
    begun = world.begin()
    answer = wire.parse_answer(world.send(begun.request_1).data)
    verified = initiator.read_2(begun.started, answer.message_2).verify(
        world.party._credential, world.party_key.public[1:]
    )
    leaf = world.leaves[0]
    message_3, _ = initiator.make_3(
        verified, static=world.keys[0], kid_i=leaf.kid, cred_i=device_credential(leaf.identity, leaf.kid), ead_3=ead
    )
    reply = world.send(wire.Second(answer.token, messages.C_R, message_3).encode())
    assert reply.error is (reply.data == UNIFORM_ERROR)
    return reply.code


def test_items_of_ead_3() -> None:
    world = World()
    claim = Ead(messages.EAD_CLAIM, True, world.begin()._claim().encode())
    evidence = Ead(messages.EAD_EVIDENCE, True, b"evidence")
    assert send_ead(world, [claim, evidence]) == "evidence-nonce"
    assert send_ead(world, [claim, evidence, Ead(70, False, b"?")]) == "evidence-nonce"
    assert send_ead(world, [claim, evidence, Ead(70, True, b"?")]) == "unknown-critical-ead"
    assert send_ead(world, [claim]) == "bad-ead"
    assert send_ead(world, [evidence]) == "bad-ead"
    assert send_ead(world, [claim, claim, evidence]) == "bad-ead"
    assert send_ead(world, [claim, replace(evidence, critical=False)]) == "bad-ead"
    assert send_ead(world, [claim, evidence, Ead(messages.EAD_REQUEST, True, b"")]) == "bad-ead"
    assert send_ead(world, [claim, replace(evidence, value=bytes(messages.MAX_EVIDENCE + 1))]) == "too-large"
    assert send_ead(world, [claim, evidence, Ead(messages.EAD_REQUEST, True, bytes(1025))]) == "too-large"


def test_requests_that_are_none() -> None:
    world = World()
    sent = world.open()
    second = wire.parse_request(sent.request_2)
    assert isinstance(second, wire.Second)
    for request, code in (
        (b"", "wrong-shape"),
        (b"\xf5", "wrong-shape"),
        (bytes(7000), "too-large"),
        (replace(second, token=b"token").encode(), "bad-token"),
        (replace(second, c_r=b"\x02").encode(), "wrong-identifier"),
        (replace(second, message_3=encode(b"m")).encode(), "bad-ciphertext"),
    ):
        reply = world.send(request)
        assert (reply.code, reply.data) == (code, UNIFORM_ERROR)
        assert isinstance(sent.read(reply.data), BackOff)
    assert world.finish(sent)[0].code == "granted"


def test_a_token_serves_one_party_and_two_minutes() -> None:
    world = World()
    sent = world.open()
    world.clock.advance(LIFETIME_NS / 1e9 + 1)
    world.ring = KeyRing(TokenKey(b"n" * 32, world.clock.now()), world.ring.current)
    assert world.send(sent.request_2).code == "bad-token"


def test_any_worker_finishes_any_exchange() -> None:
    world = World()
    sent = world.open()
    world.party = world.make_party(world.profile)
    world.ring = world.ring.turned(b"n" * 32, world.clock.now())
    assert world.finish(sent)[0].code == "granted"


# --- checks 6 to 15: protected refusals -----------------------------------------------------------


def old_view(world: World) -> None:
    world.clock.advance(61)
    world.ring = KeyRing(TokenKey(b"n" * 32, world.clock.now()))


def no_view(world: World) -> None:
    world.ledger.head = None


def suspended(world: World) -> None:
    assert world.ledger.head
    world.ledger.head = replace(world.ledger.head, party=replace(world.ledger.head.party, status=PartyStatus.SUSPENDED))


def newer_record(world: World) -> None:
    assert world.ledger.head
    world.ledger.head = replace(world.ledger.head, party=replace(world.ledger.head.party, revision=2))


def nobodys(world: World) -> None:
    assert world.ledger.head
    world.ledger.head = replace(world.ledger.head, owner=0)


def offered(world: World) -> None:
    world.bend(state=TenureState.OFFERED, expiry=2**40)


def sold_on(world: World) -> None:
    assert world.ledger.head
    tenures = dict(world.ledger.head.tenures)  # type: ignore[call-overload]
    tenures[3] = replace(tenures[ORIGIN], previous=ORIGIN, origin=3, accepted_at=3)
    world.ledger.head = replace(world.ledger.head, owner=3, tenures=tenures)


def replace_order(**changes: object) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.store._connection.execute("UPDATE placed SET body = ?", (replace(world.order, **changes).encode(),))  # type: ignore[arg-type]

    return change


def no_order(world: World) -> None:
    world.store._connection.execute("DELETE FROM placed")


def bad_evidence(world: World) -> None:
    world.appraiser.refusal = "reference-unknown"


def bad_request(world: World) -> None:
    world.grantor.refusal = "request-refused"


REFUSALS: dict[str, tuple[str, Callable[[World], None]]] = {
    "old view": ("view-too-old", old_view),
    "no view": ("view-too-old", no_view),
    "suspended": ("party-suspended", suspended),
    "nobody's": ("not-accepted", nobodys),
    "offered, not accepted": ("not-deployed", offered),
    "frozen": ("frozen", lambda world: world.bend(state=TenureState.FROZEN)),
    "held after a recovery": ("frozen", lambda world: world.bend(held=True)),
    "retired": ("retired", lambda world: world.bend(state=TenureState.RETIRED)),
    "no plan": ("not-deployed", lambda world: world.bend(plan=None, plan_revision=0)),
    "sold on": ("stale-view", sold_on),
    "another plan revision": ("stale-view", lambda world: world.bend(plan_revision=2)),
    "another revision of the party": ("stale-view", newer_record),
    "another plan": ("bad-plan-opening", lambda world: world.bend(plan=bytes(32))),
    "no such order": ("order-unknown", no_order),
    "order of another owner": ("order-foreign", replace_order(origin=1)),
    "order of another batch": ("order-foreign", replace_order(batch=bytes(16))),
    "order at another party": ("order-foreign", replace_order(party=bytes(16))),
    "order on another chain": ("order-foreign", replace_order(chain="other")),
    "order that ran out": ("order-expired", replace_order(until=1_800_000_000)),
    "evidence": ("reference-unknown", bad_evidence),
    "request": ("request-refused", bad_request),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_protected_refusals_consume_the_exchange(name: str) -> None:
    code, bend = REFUSALS[name]
    world = World()
    assert world.finish(world.open(index=1))[0].code == "granted"
    if bend is old_view:
        bend(world)
        sent = world.open()
    else:
        sent = world.open()
        bend(world)
    reply, event = world.finish(sent)
    assert (reply.code, reply.error) == (code, False)
    assert event == Refused(code)
    assert world.store.granted_devices() == 1
    assert world.store.outcomes() == {"granted": 1, code: 1}
    assert world.store.alarms() == ()
    again = world.send(sent.request_2)
    assert (again.data, again.repeated) == (reply.data, True)


def test_every_refusal_is_in_the_table_and_tested() -> None:
    elsewhere = {"exchange-used", "superseded", "wrong-party", "wrong-kind", "order-full", "clone-alarm"}
    ports = {"reference-unknown", "request-refused"}
    assert {code for code, _ in REFUSALS.values()} - ports == set(party.REFUSALS) - elsewhere


def test_a_claim_shown_to_the_wrong_party() -> None:
    world = World()
    assert world.finish(world.open())[0].code == "granted"
    other = world.acting(plan=world.plan.opening(world.other))
    assert world.finish(world.open(other, index=1))[1] == Refused("wrong-party")
    world.party = world.make_party(replace(world.profile, kinds=frozenset({PartyKind.SERVICE})))
    assert world.finish(world.open(index=1))[1] == Refused("wrong-kind")


def test_the_opening_of_a_claim_must_fit() -> None:
    world = World()
    good = world.plan.opening(world.mine)
    bad = replace(good, position=(good.position + 1) % 16)
    assert world.finish(world.open(world.acting(plan=bad)))[1] == Refused("bad-plan-opening")
    assert world.finish(world.open(world.acting(plan=good)))[0].code == "granted"


def test_evidence_of_another_exchange_or_device() -> None:
    world = World()
    begun = world.begin()
    nonces: list[bytes] = []

    def spy(nonce: bytes) -> bytes:
        nonces.append(nonce)
        return nonce

    sent = begun.read(world.send(begun.request_1).data, evidence=spy)
    assert isinstance(sent, Sent)
    assert world.finish(sent)[0].code == "granted"
    for index in (0, 1):
        begun = world.begin(index=index)
        stolen = begun.read(world.send(begun.request_1).data, evidence=lambda _: nonces[0])
        assert isinstance(stolen, Sent)
        assert world.finish(stolen)[1] == Refused("evidence-nonce")


def test_an_order_serves_so_many_devices() -> None:
    world = World(devices=2)
    world.onboard(index=0)
    world.onboard(index=1)
    assert world.finish(world.open(index=2))[1] == Refused("order-full")
    world.onboard(index=1)
    assert [state.used for state in world.store.orders()] == [2]


def test_the_view_may_fail_to_come() -> None:
    world = World()

    class Down:
        def height(self) -> int:
            return 1

        def facts(self, batch: bytes, index: int) -> None:
            raise TransportError("unreachable")

        def facts_of(self, devices: Sequence[tuple[bytes, int]]) -> list[Facts | None]:
            raise TransportError("unreachable")

    world.party._ledger = Down()
    assert world.finish(world.open())[1] == Refused("view-too-old")


@pytest.mark.parametrize("error", [MalformedError, SignatureError, ProofError, TransportError, RefusedError])
@pytest.mark.parametrize("port", ["appraiser", "grantor"])
def test_whatever_a_port_raises_refuses(port: str, error: type[FirstlightError]) -> None:
    world = World()

    class Raising:
        def appraise(self, *_: object, **__: object) -> object:
            raise error("no-good")

        grant = appraise

    assert world.finish(world.open(index=1))[0].code == "granted"
    setattr(world.party, f"_{port}", Raising())
    assert world.finish(world.open())[1] == Refused("no-good")
    assert world.store.granted_devices() == 1


# --- an exchange counts once ----------------------------------------------------------------------


def test_the_same_message_3_gets_the_same_message_4() -> None:
    world = World()
    sent = world.open()
    first, event = world.finish(sent)
    before = dump(world)
    world.bend(state=TenureState.FROZEN)
    again, second_event = world.finish(sent)
    assert (again.data, again.repeated, again.code) == (first.data, True, "answered")
    assert second_event == event
    assert dump(world) == before
    assert len(world.grantor.made) == 1


def test_another_message_3_for_the_same_exchange() -> None:
    world = World()
    begun = world.begin()
    response = world.send(begun.request_1).data
    one, two = (begun.read(response, evidence=lambda nonce: nonce), begun.read(response, evidence=lambda n: n + b"!"))
    assert isinstance(one, Sent)
    assert isinstance(two, Sent)
    assert one.th_3 == two.th_3
    assert world.finish(one)[0].code == "granted"
    before = dump(world)
    reply, event = world.finish(two)
    assert event == Refused("exchange-used")
    assert world.finish(two)[0].data == reply.data
    assert dump(world) == before
    assert world.finish(one)[0].repeated


def test_message_4_lost_three_times() -> None:
    world = World()
    ids = [world.onboard().grant.id for _ in range(4)]
    assert len(set(ids)) == 4
    (pending,) = world.store.grants(GrantState.PENDING)
    assert pending.id == ids[3]
    assert [state.used for state in world.store.orders()] == [1]
    assert world.store.alarms() == ()


def test_an_older_exchange_is_superseded() -> None:
    world = World()
    old = world.open()
    new = world.onboard()
    world.store.confirm(new.grant.id, world.clock.now())
    reply, event = world.finish(old)
    assert event == Refused("superseded")
    assert world.store.alarms() == ()
    assert world.store.grant(new.grant.id).state is GrantState.CONFIRMED  # type: ignore[union-attr]
    assert world.finish(old)[0].data == reply.data
    assert world.onboard(index=1)


def test_the_loser_of_a_race_answers_what_was_stored() -> None:
    """Two workers hold the same message 3 and have both decided; one of them commits first."""
    world = World()
    sent = world.open()
    second = wire.parse_request(sent.request_2)
    assert isinstance(second, wire.Second)
    asked = world.party.authenticate(second, ring=world.ring, now_ns=world.clock.now())
    known = world.store.known(sent.th_3, BATCH, 0)
    facts = world.party.facts(asked.claim)
    winner = world.party.settle(asked, facts, now_ns=world.clock.now())

    class Late:
        """Says what was known before the other worker committed."""

        def known(self, *_: object) -> object:
            return known

        def history(self, *arguments: int) -> History:
            return world.store.history(*arguments)  # type: ignore[arg-type]

        def commit(self, entry: Entry) -> object:
            return world.store.commit(entry)

    before = dump(world)
    world.party._exchanges = Late()  # type: ignore[assignment]
    loser = world.party.settle(asked, facts, now_ns=world.clock.now())
    assert (loser.data, loser.repeated) == (winner.data, True)
    assert dump(world) == before


def test_a_moved_ground_is_decided_upon_anew() -> None:
    """Between decision and commit another exchange of the device is granted: the older one is superseded."""
    world = World()
    sent = world.open()
    real, moved = world.store.commit, False

    def commit(entry: Entry) -> object:
        nonlocal moved
        if not moved:
            moved = True
            world.onboard()
        return real(entry)

    world.store.commit = commit  # type: ignore[method-assign,assignment]
    assert world.finish(sent)[1] == Refused("superseded")
    assert len(world.store.grants(GrantState.PENDING)) == 1


def test_ground_that_never_rests() -> None:
    world = World()
    sent = world.open()
    world.store.commit = lambda entry: None  # type: ignore[method-assign]
    reply = world.send(sent.request_2)
    assert (reply.code, reply.data, reply.error) == ("contended", UNIFORM_ERROR, True)


def test_an_identifier_that_is_taken_is_made_anew() -> None:
    world = World()
    first = world.onboard()
    world.grantor.next = 1
    second = world.onboard(index=1)
    assert first.grant.body != second.grant.body


# --- the clone alarm ------------------------------------------------------------------------------


def use(world: World, granted: Granted) -> bytes:
    """Use a grant successfully; a moment passes."""
    world.clock.advance(0.001)
    world.store.confirm(granted.grant.id, world.clock.now())
    world.clock.advance(0.001)
    return granted.grant.id


def refused(world: World, stored: bytes | None, index: int = 0) -> str:
    event = world.finish(world.open(world.acting(stored=stored), index=index))[1]
    assert isinstance(event, Refused)
    return event.code


@pytest.mark.parametrize("named", ["none", "never issued", "older"])
def test_clone_alarm(named: str) -> None:
    world = World()
    first = use(world, world.onboard())
    second = use(world, world.onboard(stored=first))
    third = world.onboard(stored=second)
    assert world.onboard(stored=second)
    stored = {"none": None, "never issued": bytes(16), "older": first}[named]
    assert refused(world, stored) == "clone-alarm"
    (alarm,) = world.store.alarms()
    assert (alarm.index, alarm.origin) == (0, ORIGIN)
    # It stops new grants only, whoever asks, until the owner clears it.
    assert world.store.grant(second).state is GrantState.CONFIRMED  # type: ignore[union-attr]
    assert refused(world, second) == "clone-alarm"
    assert world.onboard(index=1)
    world.store.clear_alarm(BATCH, 0, ORIGIN, world.clock.now())
    assert world.onboard(stored=stored)
    assert third


def test_no_alarm_before_anything_was_used() -> None:
    world = World()
    granted = world.onboard()
    for stored in (None, bytes(16), granted.grant.id):
        assert world.onboard(stored=stored)
    assert world.store.alarms() == ()


def test_no_alarm_for_a_use_after_the_exchange_was_opened() -> None:
    """The device opened an exchange before it used its first grant; it cannot be blamed for naming none."""
    world = World()
    granted = world.onboard()
    sent = world.open()
    use(world, granted)
    assert world.finish(sent)[0].code == "granted"
    assert world.store.alarms() == ()


def test_no_alarm_without_evidence() -> None:
    """Somebody without the attestation key cannot stop a device's grants."""
    world = World()
    granted = use(world, world.onboard())
    world.appraiser.refusal = "bad-signature"
    assert refused(world, None) == "bad-signature"
    assert world.store.alarms() == ()
    world.appraiser.refusal = None
    assert world.onboard(stored=granted)


def test_no_alarm_under_another_origin() -> None:
    """After a resale the new owner's device names no grant of the earlier tenure."""
    world = World()
    use(world, world.onboard())
    sold_on(world)
    number = world.order.number
    replace_order(origin=3)(world)
    reply, event = world.finish(world.open(replace(world.acting(), tenure=3)))
    assert reply.code == "granted"
    assert isinstance(event, Granted)
    assert world.store.grant(event.grant.id).origin == 3  # type: ignore[union-attr]
    assert number


def past(name: int, confirmed_ns: int | None) -> PastGrant:
    return PastGrant(bytes([name]) * 16, name, confirmed_ns)


GRANTS = (past(1, 10), past(2, 20), past(3, 60), past(4, None))


@pytest.mark.parametrize(
    ("named", "history", "verdict"),
    [
        (None, History((), False, 0), False),
        (None, History((past(1, None),), False, 0), False),
        (None, History((past(1, 50),), False, 0), False),
        (None, History((past(1, 49),), False, 0), True),
        (None, History((past(1, 49),), False, 49), False),
        (None, History((past(1, 49),), False, 48), True),
        (bytes([1]) * 16, History(GRANTS, False, 0), True),
        (bytes([2]) * 16, History(GRANTS, False, 0), False),
        (bytes([3]) * 16, History(GRANTS, False, 0), False),
        (bytes([4]) * 16, History(GRANTS, False, 0), False),
        (bytes([9]) * 16, History(GRANTS, False, 0), True),
        (bytes([4]) * 16, History(GRANTS, True, 0), True),
    ],
)
def test_is_clone(named: bytes | None, history: History, verdict: bool) -> None:
    assert is_clone(named, history, 50) is verdict


# --- splices --------------------------------------------------------------------------------------


def test_a_relay_that_splices_two_devices_messages() -> None:
    world = World()
    one, two = world.begin(index=0), world.begin(index=1)
    first, second = world.send(one.request_1).data, world.send(two.request_1).data
    for begun, foreign, own in ((one, second, first), (two, first, second)):
        assert isinstance(begun.read(foreign, evidence=lambda nonce: nonce), BackOff)
        sent = begun.read(own, evidence=lambda nonce: nonce)
        assert isinstance(sent, Sent)
        mine, other = wire.parse_request(sent.request_2), wire.parse_answer(foreign)
        assert isinstance(mine, wire.Second)
        assert world.send(replace(mine, token=other.token).encode()).code == "bad-ciphertext"
        assert world.finish(sent)[0].code == "granted"


def test_message_sizes() -> None:
    """A path of 20 levels, 400 bytes of evidence: message 3 stays within 1,800 bytes."""
    world = World()
    begun = world.begin()
    deep = replace(begun, identity=replace(begun.identity, path=(bytes(32),) * 20))
    sent = deep.read(world.send(begun.request_1).data, evidence=lambda _: bytes(400), request=bytes(250))
    assert isinstance(sent, Sent)
    second = wire.parse_request(sent.request_2)
    assert isinstance(second, wire.Second)
    assert len(second.message_3) <= 1_800
    assert len(begun.request_1) == 38
    assert isinstance(begun, Begun)
    assert len(second.message_3) < responder.MAX_MESSAGE_3
    assert isinstance(begun.acting, Acting)
