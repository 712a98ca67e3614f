"""Attaching over real sockets: what is let in, what is refused and why, and what is stored before what is sent."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from firstlight.access import frames
from firstlight.access.device.network_embedded import EmbeddedNetworkAccess
from firstlight.errors import AccessError, StoreError
from firstlight.sim import aka, attach, attach_device
from firstlight.sim.attach import Challenge, Detach, Detached, Identity, Message, Refusal, Reject, Success, SyncFailure
from firstlight.sim.attach_device import Answered
from firstlight.sim.subscription import Credentials, SoftSim, Subscription, SubscriptionStatus
from firstlight.stores.subscriptions import Subscriptions
from firstlight.testing.access_network import DATABASE, LONG, SETTINGS, Conversation, MemorySim, World, network_world
from firstlight.testing.random import SeededRandom


def run(path: Path, test: Callable[[World], Awaitable[None]], **settings: float) -> None:
    async def main() -> None:
        async with asyncio.timeout(LONG), network_world(path, replace(SETTINGS, **settings)) as world:  # type: ignore[arg-type]
            await test(world)

    asyncio.run(main())


async def refused(world: World, sim: MemorySim) -> str:
    with pytest.raises(AccessError) as caught:
        await world.access.attach(sim)
    return caught.value.code


async def challenged(talk: Conversation, sim: MemorySim) -> tuple[Identity, Challenge]:
    identity = attach_device.identify(sim.sim, SeededRandom("device"))
    challenge = await talk.say(identity)
    assert isinstance(challenge, Challenge)
    return identity, challenge


async def answer(talk: Conversation, sim: MemorySim, **changes: bytes) -> Message:
    identity, challenge = await challenged(talk, sim)
    answered = attach_device.respond(sim.sim, identity, challenge)
    assert isinstance(answered, Answered)
    return await talk.say(replace(answered.response, **changes))


def standing(world: World, subscription: Subscription) -> SubscriptionStatus:
    found = world.store.get(subscription.credentials.imsi)
    assert found is not None
    return found.status


def test_an_honest_device_is_attached_and_its_first_use_told_once(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        subscription, sim = world.subscribe()
        attachment = await world.access.attach(sim)
        assert world.network.attached() == 1
        assert world.used == [subscription.grant]
        assert standing(world, subscription) is SubscriptionStatus.ACTIVE
        assert world.store.confirmed_at(subscription.grant) == world.clock.seconds
        (record,) = world.store.sessions(subscription.credentials.imsi)
        assert (record.id, record.closed_at) == (attachment.session, None)
        await attachment.close()
        await attachment.close()
        assert world.network.attached() == 0
        await world.access.attach(sim)
        assert world.used == [subscription.grant]
        assert [one.sequence.sqn for one in sim.saved] == [aka.next_sqn(0), aka.next_sqn(aka.next_sqn(0))]

    run(tmp_path, test)


def test_the_sqn_is_durable_before_the_challenge_leaves(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        subscription, sim = world.subscribe()
        async with world.conversation() as talk:
            await challenged(talk, sim)
            other = sqlite3.connect(tmp_path / DATABASE)
            assert other.execute("SELECT sqn FROM subscription").fetchall() == [(aka.next_sqn(0),)]
            other.close()
        assert standing(world, subscription) is SubscriptionStatus.PENDING

    run(tmp_path, test)


def test_no_res_leaves_before_the_usim_is_stored(tmp_path: Path) -> None:
    class FullDisk(MemorySim):
        def save(self, sim: SoftSim) -> None:
            raise StoreError("file-not-written", "no space left")

    async def test(world: World) -> None:
        subscription, sim = world.subscribe()
        with pytest.raises(StoreError, match="file-not-written"):
            await world.access.attach(FullDisk(sim.sim))
        await world.until_outcome("connection-lost")
        assert standing(world, subscription) is SubscriptionStatus.PENDING
        assert world.network.attached() == 0

    run(tmp_path, test)


def test_a_device_whose_store_lost_its_numbers_resynchronises_over_the_wire(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        subscription, sim = world.subscribe()
        ahead = aka.Sequence((900,) * aka.SLOTS)
        sim.sim = replace(sim.sim, sequence=ahead)
        await world.access.attach(sim)
        assert world.network.outcomes == {"resynchronised": 1, "attached": 1}
        assert sim.sim.sequence.sqn == aka.next_sqn(ahead.sqn)
        assert world.store.allocate(subscription.credentials.imsi).sqn == aka.next_sqn(sim.sim.sequence.sqn)

    run(tmp_path, test)


def test_a_usim_that_lost_its_state_is_just_ahead_of_nothing(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        _, sim = world.subscribe()
        fresh = sim.sim
        await world.access.attach(sim)
        await world.access.attach(MemorySim(fresh))
        assert world.network.outcomes["resynchronised"] == 0

    run(tmp_path, test)


def test_resynchronisation_is_done_once_and_only_with_a_genuine_auts(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        subscription, sim = world.subscribe()
        own = subscription.credentials
        async with world.conversation() as talk:
            _, challenge = await challenged(talk, sim)
            again = await talk.say(SyncFailure(aka.make_auts(own.k, own.opc, challenge.rand, 999)))
            assert isinstance(again, Challenge)
            assert await talk.say(SyncFailure(aka.make_auts(own.k, own.opc, again.rand, 5000))) == Refusal()
        before = world.store.get(own.imsi)
        async with world.conversation() as talk:
            await challenged(talk, sim)
            assert await talk.say(SyncFailure(bytes(14))) == Refusal()
        after = world.store.get(own.imsi)
        assert before is not None
        assert after is not None
        assert after.sqn == aka.next_sqn(before.sqn)
        await world.until_outcome("bad-auts")
        assert world.network.outcomes == {"resynchronised": 1, "resync-repeated": 1, "bad-auts": 1}

    run(tmp_path, test)


@pytest.mark.parametrize(
    "wrong",
    [lambda own: replace(own, k=bytes(16)), lambda own: replace(own, opc=bytes(16))],
    ids=["k", "opc"],
)
def test_a_device_with_another_key_takes_the_network_for_a_foreign_one(
    tmp_path: Path, wrong: Callable[[Credentials], Credentials]
) -> None:
    async def test(world: World) -> None:
        subscription, sim = world.subscribe()
        sim.sim = replace(sim.sim, credentials=wrong(sim.sim.credentials))
        assert await refused(world, sim) == "network-not-authentic"
        await world.until_outcome("network-rejected")
        assert sim.saved == []
        assert standing(world, subscription) is SubscriptionStatus.PENDING

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("changes", "reason"), [({"res": bytes(8)}, "wrong-response"), ({"mac": bytes(16)}, "bad-mac")]
)
def test_a_wrong_response_is_refused(tmp_path: Path, changes: dict[str, bytes], reason: str) -> None:
    async def test(world: World) -> None:
        subscription, sim = world.subscribe()
        async with world.conversation() as talk:
            assert await answer(talk, sim, **changes) == Refusal()
        await world.until_outcome(reason)
        assert standing(world, subscription) is SubscriptionStatus.PENDING
        assert world.store.sessions(subscription.credentials.imsi) == []
        assert world.used == []
        await world.access.attach(sim)

    run(tmp_path, test)


def unknown(world: World, subscription: Subscription, sim: MemorySim) -> None:
    sim.sim = replace(sim.sim, credentials=replace(sim.sim.credentials, imsi="001019999999999"))


def suspended(world: World, subscription: Subscription, sim: MemorySim) -> None:
    world.store.suspend(subscription.grant)


def dead(world: World, subscription: Subscription, sim: MemorySim) -> None:
    world.store.end(subscription.grant)


def replaced(world: World, subscription: Subscription, sim: MemorySim) -> None:
    world.subscribe()


def concealed_for_another(world: World, subscription: Subscription, sim: MemorySim) -> None:
    sim.sim = replace(sim.sim, home=replace(sim.sim.home, key=bytes(range(32))))


def other_key_number(world: World, subscription: Subscription, sim: MemorySim) -> None:
    sim.sim = replace(sim.sim, home=replace(sim.sim.home, key_id=9))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (unknown, "unknown-subscriber"),
        (suspended, "subscription-suspended"),
        (dead, "subscription-dead"),
        (replaced, "subscription-dead"),
        (concealed_for_another, "bad-suci"),
        (other_key_number, "bad-suci"),
    ],
)
def test_every_reason_has_its_code_and_the_device_learns_none(
    tmp_path: Path, change: Callable[[World, Subscription, MemorySim], None], reason: str
) -> None:
    async def test(world: World) -> None:
        subscription, sim = world.subscribe()
        change(world, subscription, sim)
        assert await refused(world, sim) == "attach-refused"
        await world.until_outcome(reason)
        async with world.conversation() as talk:
            frame = attach.frame(attach_device.identify(sim.sim, SeededRandom("device")))
            assert await talk.raw(frame) == attach.frame(Refusal())

    run(tmp_path, test)


def test_a_subscription_switched_off_between_challenge_and_response_stays_out(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        subscription, sim = world.subscribe()
        async with world.conversation() as talk:
            identity, challenge = await challenged(talk, sim)
            answered = attach_device.respond(sim.sim, identity, challenge)
            assert isinstance(answered, Answered)
            world.store.suspend(subscription.grant)
            assert await talk.say(answered.response) == Refusal()
        assert world.network.attached() == 0

    run(tmp_path, test)


def test_a_response_counts_on_its_own_connection_only(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        _, sim = world.subscribe()
        async with world.conversation() as talk:
            identity, challenge = await challenged(talk, sim)
        answered = attach_device.respond(sim.sim, identity, challenge)
        assert isinstance(answered, Answered)
        async with world.conversation() as talk:
            assert isinstance(await talk.say(identity), Challenge)
            assert await talk.say(answered.response) == Refusal()
        await world.until_outcome("wrong-response")

    run(tmp_path, test)


def test_a_new_grant_ends_the_session_of_its_predecessor(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        old, old_sim = world.subscribe()
        await world.access.attach(old_sim)
        new, new_sim = world.subscribe()
        assert world.network.attached() == 1
        await world.access.attach(new_sim)
        await world.until_attached(1)
        assert world.used == [old.grant, new.grant]
        assert standing(world, old) is SubscriptionStatus.DEAD
        assert await refused(world, old_sim) == "attach-refused"
        (record,) = world.store.sessions(old.credentials.imsi)
        assert record.closed_at is not None

    run(tmp_path, test)


def test_one_session_for_each_subscription(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        subscription, sim = world.subscribe()
        first = await world.access.attach(sim)
        second = await world.access.attach(sim)
        assert world.network.attached() == 1
        await first.close()
        assert world.network.attached() == 1
        assert [one.id for one in world.store.sessions(subscription.credentials.imsi)] != []
        await second.close()
        assert world.network.attached() == 0

    run(tmp_path, test)


def test_a_detach_needs_its_mac_and_tells_nothing(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        _, sim = world.subscribe()
        attachment = await world.access.attach(sim)
        for session in (attachment.session, bytes(16)):
            async with world.conversation() as talk:
                assert await talk.say(Detach(session, bytes(16))) == Detached()
        assert world.network.attached() == 1
        await world.until_outcome("unknown-session", 2)

    run(tmp_path, test)


def test_a_session_ends_with_its_time(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        _, sim = world.subscribe()
        attachment = await world.access.attach(sim)
        assert attachment.lifetime == 60
        world.clock.advance(59)
        await world.until_attached(1)
        world.clock.advance(1)
        await world.until_attached(0)

    run(tmp_path, test, lifetime_s=60)


def test_what_another_process_switches_off_is_dropped(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        subscription, sim = world.subscribe()
        await world.access.attach(sim)
        other = Subscriptions.open(tmp_path / DATABASE)
        other.suspend(subscription.grant)
        other.close()
        await world.until_attached(0)

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\xff" + bytes(100), "bad-frame"),
        (b"\x00\x00", "bad-frame"),
        (b"\x00\x03\x01\x80\x00", "not-canonical"),
        (b"\x00\x02\x01\x80", "wrong-shape"),
        (attach.frame(Reject()), "unexpected-message"),
        (attach.frame(Refusal()), "unexpected-message"),
        (b"GET / HTTP/1.1\r\n\r\n", "bad-frame"),
    ],
    ids=["long", "empty", "trailing", "shape", "reject", "refusal", "http"],
)
def test_nonsense_gets_the_uniform_refusal(tmp_path: Path, data: bytes, reason: str) -> None:
    async def test(world: World) -> None:
        async with world.conversation() as talk:
            assert await talk.raw(data) in (attach.frame(Refusal()), b"")
        await world.until_outcome(reason)

    run(tmp_path, test)


def test_a_message_out_of_turn_instead_of_a_response(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        _, sim = world.subscribe()
        async with world.conversation() as talk:
            identity, _ = await challenged(talk, sim)
            assert await talk.say(identity) == Refusal()
        await world.until_outcome("unexpected-message")

    run(tmp_path, test)


def test_a_silent_device_is_cut_off(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        async with world.conversation() as talk:
            assert await talk.reader.read() == b""
        assert world.network.outcomes == {"timeout": 1}

    run(tmp_path, test, deadline_s=0.02)


def test_no_more_half_open_attaches_than_allowed(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        _, sim = world.subscribe()
        async with world.conversation() as talk:
            await challenged(talk, sim)
            assert await refused(world, sim) == "attach-refused"
            await world.until_outcome("network-busy")
        await world.until_outcome("connection-lost")
        await world.access.attach(sim)

    run(tmp_path, test, half_open=1)


def test_no_more_attempts_than_allowed(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        _, sim = world.subscribe()
        for _ in range(4):
            await world.access.attach(sim)
        assert await refused(world, sim) == "attach-refused"
        assert world.network.outcomes["rate-limited"] == 1
        world.clock.advance(1)
        await world.access.attach(sim)

    run(tmp_path, test, attaches_per_s=1)


def test_two_hundred_devices_at_once(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        fleet = [world.subscribe(slot=number) for number in range(200)]
        attachments = await asyncio.gather(*(world.access.attach(sim) for _, sim in fleet))
        assert len({one.session for one in attachments}) == world.network.attached() == world.store.confirmed() == 200
        assert sorted(world.used) == sorted(subscription.grant for subscription, _ in fleet)

    run(tmp_path, test)


# --- a network that is not what it should be --------------------------------------------------------


def against(path: Path, sim: MemorySim, reply: Callable[[Message], bytes], code: str) -> None:
    """Attach to a network that answers each message with ``reply``."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(EOFError):
            while True:
                writer.write(reply(await frames.receive(reader)))
        writer.close()
        await writer.wait_closed()
        gone.set()

    gone = asyncio.Event()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        access = EmbeddedNetworkAccess(
            SeededRandom(1), endpoint=f"tcp://127.0.0.1:{port}", deadline_s=0.3 if code == "attach-timeout" else LONG
        )
        with pytest.raises(AccessError) as caught:
            await access.attach(sim)
        await gone.wait()
        server.close()
        assert caught.value.code == code

    asyncio.run(main())


@pytest.fixture
def sim(tmp_path: Path) -> MemorySim:
    async def make() -> MemorySim:
        async with network_world(tmp_path) as world:
            return world.subscribe()[1]

    return asyncio.run(make())


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (b"\xff\xff", "attach-malformed"),
        (attach.frame(Detached()), "attach-malformed"),
        (attach.frame(Success(bytes(16), "socks5://127.0.0.1:9", 60, bytes(16))), "attach-malformed"),
        (attach.frame(Refusal()), "attach-refused"),
        (attach.frame(Challenge(bytes(16), bytes(16), "HRPD", bytes(16))), "wrong-network"),
        (attach.frame(Challenge(bytes(16), bytes(16), "WLAN", bytes(16))), "separation-missing"),
        (attach.frame(Challenge(bytes(16), b"\xff" * 16, "WLAN", bytes(16))), "network-not-authentic"),
        (b"", "attach-timeout"),
    ],
    ids=["noise", "turn", "early-success", "refusal", "name", "amf", "autn", "silence"],
)
def test_what_a_device_makes_of_a_false_network(tmp_path: Path, sim: MemorySim, reply: bytes, code: str) -> None:
    against(tmp_path, sim, lambda _: reply, code)
    assert sim.saved == []


def test_a_forged_success_opens_nothing(tmp_path: Path, sim: MemorySim) -> None:
    own = sim.sim.credentials

    def reply(message: Message) -> bytes:
        if not isinstance(message, Identity):
            return attach.frame(Success(bytes(16), "socks5://127.0.0.1:9", 60, bytes(16)))
        vector = aka.make_vector(own.k, own.opc, aka.next_sqn(0), bytes(16))
        keys = attach.session_keys(own.imsi, "WLAN", vector.autn, vector.ck, vector.ik)
        mac = attach.challenge_mac(keys.k_aut, message, vector.rand, vector.autn, "WLAN")
        return attach.frame(Challenge(vector.rand, vector.autn, "WLAN", mac))

    against(tmp_path, sim, reply, "network-not-authentic")
    assert len(sim.saved) == 1


def test_a_network_that_never_resynchronises(tmp_path: Path, sim: MemorySim) -> None:
    own = sim.sim.credentials
    sim.sim = replace(sim.sim, sequence=aka.Sequence((900,) * aka.SLOTS))
    vector = aka.make_vector(own.k, own.opc, aka.next_sqn(0), bytes(16))
    challenge = Challenge(vector.rand, vector.autn, "WLAN", bytes(16))
    against(tmp_path, sim, lambda _: attach.frame(challenge), "resync-failed")


def test_nobody_there(tmp_path: Path, sim: MemorySim) -> None:
    # the world that made this USIM is gone, its port closed
    with pytest.raises(AccessError) as caught:
        asyncio.run(EmbeddedNetworkAccess(SeededRandom(1)).attach(sim))
    assert caught.value.code == "attach-unreachable"


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:80", "tcp://127.0.0.1", "tcp://127.0.0.1:99999"])
def test_an_endpoint_that_is_none(tmp_path: Path, sim: MemorySim, endpoint: str) -> None:
    with pytest.raises(AccessError) as caught:
        asyncio.run(EmbeddedNetworkAccess(SeededRandom(1), endpoint=endpoint).attach(sim))
    assert caught.value.code == "attach-malformed"
