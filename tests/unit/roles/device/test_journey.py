"""A device's journey over a world in memory: its order, its durability, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from firstlight.errors import StoreError, TransportError
from firstlight.ledger.records import PartyStatus, TenureState, party_name, tenure_name
from firstlight.roles.device.journey import Journey
from firstlight.roles.device.memory import GRANTS, OPERATIONAL, VIEW, Memory
from firstlight.roles.device.tools import Stage
from firstlight.sealing.receipt import NOBODY, Step
from firstlight.testing.bundles import BATCH
from firstlight.testing.journeys import GATEWAYS, LEASE, OWNER, JourneyWorld

FIRST = [Stage.STARTED, Stage.DISCOVERED, Stage.NETWORK_GRANTED, Stage.ATTACHED, Stage.SERVICE_GRANTED, Stage.CONNECTED]
AGAIN = [Stage.STARTED, Stage.ATTACHED, Stage.CONNECTED]


@pytest.fixture
def world(tmp_path: Path) -> JourneyWorld:
    return JourneyWorld(tmp_path)


async def live(world: JourneyWorld, index: int, until: Callable[[Journey], asyncio.Future[bool]]) -> None:
    memory = world.memory(index)
    try:
        journey = Journey(memory, world.tools())
        travelling = asyncio.ensure_future(journey.travel())
        reached = until(journey)
        async with asyncio.timeout(120):
            await asyncio.wait({travelling, reached}, return_when=asyncio.FIRST_COMPLETED)
        for task in (reached, travelling):
            task.cancel()
        await asyncio.gather(reached, travelling, return_exceptions=True)
        if not travelling.cancelled():
            travelling.result()
    finally:
        memory.close()


def connect(world: JourneyWorld, index: int = 0) -> None:
    """Switch a device on until it is connected, and off again."""
    asyncio.run(live(world, index, lambda journey: asyncio.ensure_future(journey.connected.wait())))


def wait(world: JourneyWorld, index: int = 0) -> None:
    """Switch a device on until it waits for longer than a moment, and off again."""
    world.waiting.clear()
    asyncio.run(live(world, index, lambda _: asyncio.ensure_future(world.waiting.wait())))


def codes(world: JourneyWorld) -> list[str]:
    return [code for stage, code in world.stages if stage is Stage.WAITING]


def only_at(place: str, bend: Callable[[bytes], bytes]) -> Callable[[str, bytes, bytes], bytes]:
    return lambda url, _, answer: bend(answer) if place in url else answer


def lost(_: bytes) -> bytes:
    raise TransportError("unreachable", "as told")


def test_from_the_box_to_connected(world: JourneyWorld) -> None:
    connect(world)
    assert world.seen() == FIRST
    assert world.asked == {
        "plain v1/mail": 1,
        "plain v1/bundles": 1,
        "plain relay": 2,
        "proxied v1/receipts": 2,
        "proxied v1/bundles": 1,
        "proxied .well-known": 2,
    }
    (session,) = world.sessions
    assert len(session.published) == 1
    assert session.closed
    assert not world.attached


def test_the_owner_reads_what_the_device_did(world: JourneyWorld) -> None:
    connect(world, 3)
    first, second = world.opened(3)
    assert (first.step, second.step) == (Step.NETWORK_ATTACHED, Step.SERVICE_CONNECTED)
    assert (first.party, second.party) == (world.mno.id, world.sp.id)
    assert [one.counter for one in (first, second)] == [1, 2]
    assert {(one.tenure, one.revision, one.index) for one in (first, second)} == {(OWNER, 1, 3)}
    assert world.mno.store.grant(first.grant) is not None
    assert world.sp.store.grant(second.grant) is not None
    assert abs(first.time - world.clock.seconds) < 5


def test_nothing_secret_is_logged(world: JourneyWorld) -> None:
    connect(world)
    text = "".join(world.log)
    assert '"code":"connected"' in text
    birth = world.births[0]
    memory = world.memory()
    stored = memory.grants.of(world.mno.id, world.mno.kind, OWNER)
    memory.close()
    sim = stored[0].sim
    assert sim is not None
    for secret in (birth.mailbox, birth.salt, sim.credentials.k, sim.credentials.opc):
        assert secret.hex() not in text
    assert sim.credentials.imsi not in text


def test_the_view_is_on_disk_before_message_1_and_no_grant_before_message_4(world: JourneyWorld) -> None:
    there: list[tuple[bool, int]] = []

    def look(answer: bytes) -> bytes:
        directory = world.directory(0)
        there.append(((directory / VIEW).exists(), len(list((directory / GRANTS).glob("*.cbor")))))
        return answer

    world.bend = only_at("/relay/", look)
    connect(world)
    assert there == [(True, 0), (True, 0)]


def test_the_operational_key_is_on_disk_before_the_request_leaves(world: JourneyWorld) -> None:
    there: list[int] = []

    def look(answer: bytes) -> bytes:
        there.append(len(list((world.directory(0) / OPERATIONAL).glob("*.pem"))))
        return answer

    world.bend = only_at("sp.example", look)
    connect(world)
    assert there == [1, 1]


def test_what_is_stored_is_not_asked_for_again(world: JourneyWorld) -> None:
    connect(world)
    world.asked.clear()
    world.stages.clear()
    connect(world)
    assert world.seen() == AGAIN
    assert world.asked == {"proxied v1/bundles": 1, "proxied v1/receipts": 2}
    assert [one.counter for one in world.opened()] == [1, 2, 3, 4]
    assert (world.mno.answered, world.sp.answered) == (2, 2)


def test_with_a_subscription_alone_it_goes_on_from_there(world: JourneyWorld) -> None:
    world.bend = only_at("sp.example", lost)
    wait(world)
    assert Stage.ATTACHED in world.seen()
    assert Stage.SERVICE_GRANTED not in world.seen()
    keys = list((world.directory(0) / OPERATIONAL).glob("*.pem"))
    world.bend = lambda _url, _request, answer: answer
    world.stages.clear()
    connect(world)
    assert world.seen() == [Stage.STARTED, Stage.ATTACHED, Stage.SERVICE_GRANTED, Stage.CONNECTED]
    assert list((world.directory(0) / OPERATIONAL).glob("*.pem")) == keys, "the key that it had made is used"


def test_a_lost_message_4_is_asked_for_with_the_same_bytes(world: JourneyWorld) -> None:
    sent: list[bytes] = []

    def drop(url: str, request: bytes, answer: bytes) -> bytes:
        if "/relay/" in url and request[:1] != b"\xf5":
            sent.append(request)
            if len(sent) < 6:
                raise TransportError("timeout", "as told")
        return answer

    world.bend = drop
    connect(world)
    assert len(sent) == 6
    assert len(set(sent)) == 1
    assert len(world.mno.granted()) == 1


def test_message_4_lost_for_good_costs_an_exchange_and_nothing_else(world: JourneyWorld) -> None:
    exchanges: set[bytes] = set()

    def drop(url: str, request: bytes, answer: bytes) -> bytes:
        if "/relay/" in url and request[:1] != b"\xf5":
            exchanges.add(request)
            if len(exchanges) <= 2:
                raise TransportError("timeout", "as told")
        return answer

    world.bend = drop
    connect(world)
    assert len(exchanges) == 3
    assert codes(world) == ["timeout", "timeout"]
    assert len(world.opened()) == 2
    assert not world.mno.store.alarms()


def test_a_lying_gateway_is_passed_over_for_another(world: JourneyWorld) -> None:
    def tamper(url: str, _: bytes, answer: bytes) -> bytes:
        if url == f"{GATEWAYS[0]}/v1/bundles":
            return answer[:-1] + bytes([answer[-1] ^ 1])
        return answer

    world.bend = tamper
    connect(world)
    assert world.seen() == FIRST
    assert world.asked["plain v1/bundles"] == 2


def test_where_all_gateways_lie_nobody_is_asked_for_anything(world: JourneyWorld) -> None:
    world.bend = only_at("/v1/bundles", lambda answer: answer[:-1] + bytes([answer[-1] ^ 1]))
    wait(world)
    assert world.mno.answered == 0
    assert world.seen(Stage.DISCOVERED) == []
    assert world.pauses == sorted(world.pauses), "it waits longer each time"


def test_without_mail_it_waits(world: JourneyWorld) -> None:
    world.mail.clear()
    wait(world)
    assert set(codes(world)) == {"no-mail"}


@pytest.mark.parametrize("state", [TenureState.FROZEN, TenureState.RETIRED])
def test_a_frozen_or_retired_device_stays_out(world: JourneyWorld, state: TenureState) -> None:
    record = world.ledger.records[tenure_name(BATCH, OWNER)]
    world.ledger.records[tenure_name(BATCH, OWNER)] = replace(record, state=state)  # type: ignore[type-var]
    wait(world)
    assert set(codes(world)) == {f"tenure-{state.name.lower()}"}
    assert world.mno.answered == 0


@pytest.mark.parametrize("state", [TenureState.FROZEN, TenureState.RETIRED])
def test_the_owner_who_stops_a_device_reads_that_it_knows(world: JourneyWorld, state: TenureState) -> None:
    connect(world)
    record = world.ledger.records[tenure_name(BATCH, OWNER)]
    world.ledger.records[tenure_name(BATCH, OWNER)] = replace(record, state=state)  # type: ignore[type-var]
    for end in ("attach-refused", "attach-refused"):
        world.refuse_attach[end] += 1
    wait(world)
    told = [(one.step, one.code, one.party, one.grant) for one in world.opened() if one.step is Step.REFUSED]
    assert told == [(Step.REFUSED, f"tenure-{state.name.lower()}", NOBODY, NOBODY)]


def test_a_former_owner_reads_nothing_of_what_the_next_one_does(world: JourneyWorld) -> None:
    connect(world)
    world.deploy([world.mno, world.sp], tenure=OWNER + 1)
    name = tenure_name(BATCH, OWNER + 1)
    world.ledger.records[name] = replace(world.ledger.records[name], state=TenureState.FROZEN)  # type: ignore[type-var]
    world.refuse_attach["attach-refused"] = 2
    wait(world)
    assert "tenure-frozen" in codes(world)
    assert not [one for one in world.opened() if one.step is Step.REFUSED]


def test_a_protected_refusal_makes_it_wait_long(world: JourneyWorld) -> None:
    name = party_name(world.mno.id)
    facts = world.ledger.records[name]

    def suspend(answer: bytes) -> bytes:
        world.ledger.records[name] = replace(facts, status=PartyStatus.SUSPENDED)  # type: ignore[type-var]
        return answer

    world.bend = only_at("/v1/bundles", suspend)
    wait(world)
    assert codes(world) == ["party-suspended"]
    assert 30 <= world.pauses[-1] <= 60
    assert not (list((world.directory(0) / GRANTS).glob("*.cbor")))


def test_a_stale_view_is_renewed_soon(world: JourneyWorld) -> None:
    name, changed = party_name(world.mno.id), [False]

    def change(url: str, _: bytes, answer: bytes) -> bytes:
        if "/v1/bundles" in url and not changed[0]:
            changed[0] = True
            record = world.ledger.records[name]
            world.ledger.records[name] = replace(record, revision=2)  # type: ignore[type-var]
        return answer

    world.bend = change
    connect(world)
    assert codes(world) == ["stale-view"]
    assert world.pauses[0] <= 1


@pytest.mark.parametrize(
    ("place", "proofs"), [("/relay/", ("plain v1/bundles", 2)), ("sp.example", ("proxied v1/bundles", 2))]
)
def test_a_party_far_ahead_makes_it_discover_once_more(
    world: JourneyWorld, place: str, proofs: tuple[str, int]
) -> None:
    grown: list[bool] = []

    def grow(url: str, request: bytes, answer: bytes) -> bytes:
        if "/v1/bundles" in url and not grown and (place == "/relay/" or (world.sp.answered == 0 and world.attached)):
            grown.append(True)
            world.ledger.at += 11
        return answer

    world.bend = grow
    connect(world)
    assert world.asked[proofs[0]] == proofs[1]
    assert codes(world) == []


def test_a_subscription_that_the_network_refuses_is_replaced(world: JourneyWorld) -> None:
    connect(world)
    (old,) = world.mno.granted()
    world.stages.clear()
    world.refuse_attach["attach-refused"] = 2
    connect(world)
    assert codes(world) == ["attach-refused", "attach-refused"]
    assert world.seen(Stage.NETWORK_GRANTED) == [Stage.NETWORK_GRANTED]
    memory = world.memory()
    (kept,) = memory.grants.of(world.mno.id, world.mno.kind, OWNER)
    memory.close()
    assert kept.grant.id != old.id, "the predecessor goes at the first success of the new one"
    assert not world.mno.store.alarms()


def test_an_unreachable_network_is_tried_again_with_the_same_subscription(world: JourneyWorld) -> None:
    world.refuse_attach["attach-unreachable"] = 3
    connect(world)
    assert codes(world) == ["attach-unreachable"] * 3
    assert len(world.mno.granted()) == 1


def test_a_certificate_that_the_service_refuses_is_replaced(world: JourneyWorld) -> None:
    connect(world)
    world.stages.clear()
    world.refuse_service["service-refused"] = 2
    connect(world)
    assert codes(world) == ["service-refused", "service-refused"]
    assert world.seen(Stage.SERVICE_GRANTED) == [Stage.SERVICE_GRANTED]
    assert len(list((world.directory(0) / OPERATIONAL).glob("*.pem"))) == 1, "the old key is gone with its grant"


def test_a_lost_forwarder_makes_it_attach_again(world: JourneyWorld) -> None:
    world.refuse_service["proxy-refused"] = 1
    connect(world)
    assert world.seen(Stage.ATTACHED) == [Stage.ATTACHED, Stage.ATTACHED]
    assert len(world.sp.granted()) == 1


def test_a_lost_session_is_taken_up_again(world: JourneyWorld) -> None:
    async def run() -> None:
        async def twice(journey: Journey) -> bool:
            await journey.connected.wait()
            world.sessions[0].end()
            while len(world.sessions) < 2 or not journey.connected.is_set():  # noqa: ASYNC110 - waits for the fact
                await asyncio.sleep(0)
            return True

        await live(world, 0, lambda journey: asyncio.ensure_future(twice(journey)))

    asyncio.run(run())
    assert codes(world) == ["service-lost"]
    assert world.sp.answered == 2
    assert len(world.opened()) == 2, "each step is told once"


def test_a_changed_plan_is_found_on_the_way(world: JourneyWorld) -> None:
    def change(url: str, _: bytes, answer: bytes) -> bytes:
        if "/relay/" in url and world.mno.answered == 2:
            world.deploy([world.mno, world.sp], revision=2)
        return answer

    world.bend = change
    connect(world)
    assert codes(world) == ["moved"]
    assert [one.revision for one in world.opened()] == [1, 2, 2] or [one.revision for one in world.opened()] == [1, 2]
    assert len(world.mno.granted()) == 1, "the subscription is good under the new revision"


def test_when_its_grants_run_out_it_finds_its_new_owner(world: JourneyWorld) -> None:
    connect(world)
    world.clock.advance(LEASE + 1)
    world.deploy([world.mno, world.sp], tenure=3)
    world.stages.clear()
    connect(world)
    assert world.seen() == FIRST
    assert world.opened()[-1].tenure == 3
    memory = world.memory()
    assert memory.grants.of(world.mno.id, world.mno.kind, OWNER) == []
    assert memory.sight.trust.tenure == 3
    memory.close()


def test_renewal_names_the_grant_before(world: JourneyWorld) -> None:
    connect(world)
    world.clock.advance(LEASE + 1)
    connect(world)
    assert not world.mno.store.alarms()
    assert not world.sp.store.alarms()


def test_a_wiped_device_is_taken_for_a_clone(world: JourneyWorld) -> None:
    connect(world)
    for file in (world.directory(0) / GRANTS).glob("*"):
        file.unlink()
    world.clock.advance(1)
    wait(world)
    assert codes(world) == ["clone-alarm"]
    told = [(one.code, one.party, one.tenure) for one in world.opened() if one.step is Step.REFUSED]
    assert told == [("clone-alarm", world.mno.id, OWNER)]


def test_a_passing_refusal_is_nothing_to_tell(world: JourneyWorld) -> None:
    test_a_stale_view_is_renewed_soon(world)
    assert [one.step for one in world.opened()] == [Step.NETWORK_ATTACHED, Step.SERVICE_CONNECTED]


def test_a_receipt_that_one_gateway_refuses_goes_to_the_other(world: JourneyWorld) -> None:
    world.bend = only_at(f"{GATEWAYS[0]}/v1/receipts", lost)
    connect(world)
    steps = {one.counter: one.step for one in world.opened()}
    assert (steps[2], steps[4]) == (Step.NETWORK_ATTACHED, Step.SERVICE_CONNECTED), "each attempt has its own counter"
    assert world.asked["proxied v1/receipts"] == 2 * 3 + 2


def test_a_receipt_that_nobody_took_goes_with_the_next(world: JourneyWorld) -> None:
    def lost_at_first(url: str, request: bytes, answer: bytes) -> bytes:
        if "/v1/receipts" in url and world.sp.answered == 0:
            raise TransportError("unreachable", "lost")
        return answer

    world.bend = lost_at_first
    connect(world)
    *lost_ones, last, owed = [one.step for one in world.opened()]
    assert (set(lost_ones), last, owed) == ({Step.NETWORK_ATTACHED}, Step.SERVICE_CONNECTED, Step.NETWORK_ATTACHED)


def test_without_a_gateway_for_receipts_it_is_not_done(world: JourneyWorld) -> None:
    world.bend = only_at("/v1/receipts", lost)
    wait(world)
    assert world.sessions
    assert max(world.pauses) == 20


def test_a_device_that_serves_nobody_else_shares_nothing(world: JourneyWorld) -> None:
    async def run() -> None:
        await asyncio.gather(
            *(live(world, index, lambda journey: asyncio.ensure_future(journey.connected.wait())) for index in range(4))
        )

    asyncio.run(run())
    assert all(len(world.opened(index)) == 2 for index in range(4))
    assert len(world.mno.granted()) == 4


def test_a_foreign_certificate_is_not_stored(world: JourneyWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = world.memory(1)
    name, signer = foreign.operational_key()
    foreign.close()
    monkeypatch.setattr("firstlight.roles.device.service.build_request", _request_of(signer))
    wait(world)
    assert set(codes(world)) == {"unusable-grant"}
    assert name
    assert world.seen(Stage.SERVICE_GRANTED) == []


def _request_of(signer: object) -> Callable[[object], bytes]:
    from firstlight.enrolment.request import build_request

    return lambda _: build_request(signer)  # type: ignore[arg-type]


def test_a_damaged_memory_is_an_error(world: JourneyWorld) -> None:
    connect(world)
    path = world.directory(0) / VIEW
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError) as caught:
        Memory.open(world.directory(0))
    assert caught.value.code == "memory-damaged"
