"""EAP-AKA' and EAP-AKA against hostapd with osmo-hlr behind it: our operator writes subscribers and carries vectors."""

import asyncio
import contextlib
import os
import signal
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from firstlight.access.device.eapol_test import AKA, AKA_PRIME
from firstlight.access.private_network import can_be_private, dial_inside
from firstlight.access.serving.daemons import EAPOL_TEST, HOSTAPD, OSMO_HLR
from firstlight.access.serving.gsup import AskVectors, Cause, Refusal, Vectors
from firstlight.access.serving.gsup_client import GsupClient
from firstlight.access.serving.osmo_hlr import HlrAddress, OsmoHlr, RunningHlr
from firstlight.access.serving.osmo_hlr_centre import OsmoAuthenticationCentre
from firstlight.errors import AccessError
from firstlight.sim import aka
from firstlight.sim.aka import Sequence
from firstlight.sim.subscription import Credentials, Subscriber, Subscription, SubscriptionStatus
from firstlight.stores.osmo_hlr import HlrDatabase
from firstlight.stores.subscriber_changes import SubscriberChanges
from firstlight.stores.subscriptions import Subscriptions
from firstlight.testing.access_network import DATABASE, LONG, MemorySim
from firstlight.testing.clock import FakeClock
from firstlight.testing.hlr_world import HlrWorld, hlr_world
from firstlight.testing.hostapd_world import needs
from firstlight.testing.random import SeededRandom

SECRET_FILES = 0o600
STRANGER = "001019999999999"


@pytest.fixture(autouse=True)
def installed() -> None:
    needs(HOSTAPD, EAPOL_TEST, OSMO_HLR)


def run(path: Path, test: Callable[[HlrWorld], Awaitable[None]], *, private: bool | None = None) -> None:
    async def main() -> None:
        async with hlr_world(path, private=private) as world:
            await test(world)

    asyncio.run(main())


@contextlib.asynccontextmanager
async def switch(world: HlrWorld, name: str = "another"):
    """Another client of the register's, such as a switch that would take vectors from it beside us."""
    client = GsupClient(world.hlr.dial, name=name)
    await client.start()
    await client.ready()
    try:
        yield client
    finally:
        await client.close()


async def honest(world: HlrWorld) -> tuple[Subscription, MemorySim]:
    subscription, sim = world.subscribe()
    assert (await world.attach(sim)).success
    return subscription, sim


def rows(world: HlrWorld) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(world.hlr.database)) as connection:
        query = "SELECT imsi, algo_id_3g, k, opc, op, ind_bitlen, nam_cs, nam_ps FROM subscriber LEFT JOIN auc_3g"
        return connection.execute(f"{query} ON subscriber_id = id ORDER BY imsi").fetchall()


def row(subscription: Subscription, *, suspended: bool = False) -> tuple:
    own = subscription.credentials
    return (own.imsi, 0 if suspended else 5, own.k.hex(), own.opc.hex(), None, 5, 0, 1)


def arguments_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def private_network_of(pid: int) -> Path:
    return Path(f"/proc/{pid}/ns/net").readlink()


async def telnet(pid: int, *lines: str) -> bytes:
    """Type lines at osmo-hlr's telnet port, each after whatever it asked; return all that it said."""
    reader, writer = await dial_inside(pid, "127.0.0.1", 4258)
    said = b""
    for line in lines:
        while not said.endswith(b"Password: ") and (more := await reader.read(1_000)):
            said += more
        writer.write(line.encode() + b"\r\n")
        said += await reader.read(1_000)
    writer.close()
    return said


# --- who is let in --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [AKA_PRIME, AKA])
def test_a_device_is_let_in_by_a_vector_of_the_register(tmp_path: Path, method: str) -> None:
    async def test(world: HlrWorld) -> None:
        subscription, sim = world.subscribe()
        outcome = await world.attach(sim, method=method)
        assert outcome.success
        assert outcome.verdicts == ("accepted",)
        found = world.store.get(subscription.credentials.imsi)
        assert found is not None
        assert found.status is SubscriptionStatus.ACTIVE
        assert world.used == [subscription.grant]
        assert found.sqn == 0, "the register counts, not the operator's store"
        assert sim.sim.sequence.sqn > 0
        with contextlib.closing(world.register()) as register:
            assert register.sqn(subscription.credentials.imsi) == sim.sim.sequence.sqn
        assert rows(world) == [row(subscription)]

    run(tmp_path, test)


def test_a_fleet_that_comes_at_once_is_let_in_while_others_are_granted(tmp_path: Path) -> None:
    async def test(world: HlrWorld) -> None:
        fleet = [world.subscribe(slot) for slot in range(12)]

        async def one(number: int) -> bool:
            world.subscribe(100 + number)
            return (await world.attach(fleet[number][1])).success

        assert all(await asyncio.gather(*(one(number) for number in range(12))))
        await world.settled()
        assert len(rows(world)) == 24

    run(tmp_path, test)


def test_sequence_numbers_stay_in_order_when_one_device_asks_often(tmp_path: Path) -> None:
    async def test(world: HlrWorld) -> None:
        subscription, _ = world.subscribe()
        own = subscription.credentials
        vectors = await asyncio.gather(*(world.centre.vector(own.imsi) for _ in range(20)))
        sequence = Sequence.fresh()
        for vector in vectors:
            answer = aka.answer(own.k, own.opc, sequence, vector.rand, vector.autn)
            assert isinstance(answer, aka.Accepted)
            assert answer.res == vector.xres
            assert aka.separated(vector.autn)
            sequence = answer.sequence
        assert sequence.sqn >> 5 == 20, "the register makes no vectors that nobody uses"

    run(tmp_path, test)


# --- who is refused -------------------------------------------------------------------------------


def test_a_thief_with_another_k_is_refused(tmp_path: Path) -> None:
    async def test(world: HlrWorld) -> None:
        subscription, sim = await honest(world)
        before = rows(world)
        thief = MemorySim(replace(sim.sim, credentials=replace(subscription.credentials, k=bytes(16))))
        outcome = await world.attach(thief)
        assert not outcome.success
        assert outcome.verdicts == ("network-not-authentic",)
        assert rows(world) == before
        assert len(world.used) == 1
        assert (await world.attach(sim)).success

    run(tmp_path, test)


def test_an_imsi_that_was_never_granted_is_refused_and_never_reaches_the_register(tmp_path: Path) -> None:
    async def test(world: HlrWorld) -> None:
        _, sim = await honest(world)
        before = rows(world)
        outcome = await world.attach(sim, name=STRANGER)
        assert not outcome.success
        assert outcome.verdicts == ()
        assert world.outcomes.count("unknown-subscriber") >= 1
        assert rows(world) == before

    run(tmp_path, test)


def test_one_that_only_the_register_knows_is_refused(tmp_path: Path) -> None:
    """An enemy who can write to the register's database but not to the operator's gains nobody a subscription."""

    async def test(world: HlrWorld) -> None:
        _, sim = await honest(world)
        own = Credentials(STRANGER, bytes(16), bytes(16))
        with contextlib.closing(world.register()) as register:
            register.write([Subscriber(STRANGER, own, 0, suspended=False)])
        async with switch(world) as other:
            assert isinstance(await other.ask(AskVectors(STRANGER)), Vectors), "the register itself would serve him"
        outcome = await world.attach(MemorySim(replace(sim.sim, credentials=own)))
        assert not outcome.success
        assert "unknown-subscriber" in world.outcomes

    run(tmp_path, test)


def test_a_suspended_subscription_is_blocked_in_the_register_and_goes_on_where_it_stood(tmp_path: Path) -> None:
    async def test(world: HlrWorld) -> None:
        subscription, sim = await honest(world)
        imsi = subscription.credentials.imsi
        with contextlib.closing(Subscriptions.open(tmp_path / DATABASE)) as another_process:
            another_process.suspend(subscription.grant)
        await world.settled()
        assert rows(world) == [row(subscription, suspended=True)]
        async with switch(world) as other:
            assert await other.ask(AskVectors(imsi)) == Refusal(imsi, Cause.FAILURE)
        outcome = await world.attach(sim)
        assert not outcome.success
        assert outcome.verdicts == ()
        assert "subscription-suspended" in world.outcomes
        world.store.resume(subscription.grant)
        outcome = await world.attach(sim)
        assert outcome.success
        assert "resynchronised" not in world.outcomes, "the sequence number was kept"
        assert rows(world) == [row(subscription)]

    run(tmp_path, test)


def test_a_suspension_counts_at_once_even_before_the_register_is_told(tmp_path: Path) -> None:
    async def test(world: HlrWorld) -> None:
        subscription, sim = await honest(world)
        os.kill(world.hlr.pid, signal.SIGSTOP)
        try:
            world.store.suspend(subscription.grant)
            with pytest.raises(AccessError) as refused:
                await world.centre.vector(subscription.credentials.imsi)
            assert refused.value.code == "subscription-suspended"
        finally:
            os.kill(world.hlr.pid, signal.SIGCONT)
        assert not (await world.attach(sim)).success

    run(tmp_path, test)


def test_fast_re_authentication_of_a_suspended_subscription_is_none(tmp_path: Path) -> None:
    async def test(world: HlrWorld) -> None:
        subscription, sim = world.subscribe()
        outcome = await world.attach(sim, times=2)
        assert outcome.success
        assert outcome.verdicts == ("accepted", "resynchronising", "accepted")
        assert world.outcomes.count("usim-known") == 1, "the second one was looked at whether its USIM is the same"
        world.store.suspend(subscription.grant)
        assert not (await world.attach(sim, times=2)).success

    run(tmp_path, test)


def test_an_ended_subscription_is_deleted_with_its_keys(tmp_path: Path) -> None:
    async def test(world: HlrWorld) -> None:
        subscription, sim = await honest(world)
        other_one, _ = world.subscribe(2)
        world.store.end(subscription.grant)
        await world.settled()
        assert rows(world) == [row(other_one)]
        imsi = subscription.credentials.imsi
        async with switch(world) as other:
            assert await other.ask(AskVectors(imsi)) == Refusal(imsi, Cause.UNKNOWN)
        assert not (await world.attach(sim)).success
        assert "subscription-dead" in world.outcomes

    run(tmp_path, test)


# --- resynchronisation ----------------------------------------------------------------------------


def test_a_register_that_is_behind_the_usim_resynchronises_and_then_serves(tmp_path: Path) -> None:
    async def test(world: HlrWorld) -> None:
        await honest(world)
        subscription, sim = world.subscribe(2)
        ahead = Sequence(tuple(5_000 for _ in range(aka.SLOTS)))
        sim.sim = replace(sim.sim, sequence=ahead)
        outcome = await world.attach(sim)
        assert outcome.success
        assert outcome.verdicts == ("resynchronising", "accepted")
        assert sim.sim.sequence.sqn > ahead.sqn
        assert "resynchronised" in world.outcomes
        with contextlib.closing(world.register()) as register:
            assert register.sqn(subscription.credentials.imsi) == sim.sim.sequence.sqn

    run(tmp_path, test)


def test_an_auts_that_the_usim_never_made_moves_nothing(tmp_path: Path) -> None:
    async def test(world: HlrWorld) -> None:
        subscription, sim = await honest(world)
        own = subscription.credentials
        good = aka.make_auts(own.k, own.opc, bytes(16), 1_000 << 5)
        with contextlib.closing(world.register()) as register:
            before = register.sqn(own.imsi)
            for rand, auts in ((bytes(16), bytes(14)), (bytes(15) + b"\1", good), (bytes(16), good[:-1] + b"\0")):
                with pytest.raises(AccessError) as refused:
                    await world.centre.resynchronise(own.imsi, rand, auts)
                assert refused.value.code == "bad-auts"
            assert register.sqn(own.imsi) == before
            await world.centre.resynchronise(own.imsi, bytes(16), good)
            assert (register.sqn(own.imsi) or 0) >> 5 > 1_000
        assert (await world.attach(sim)).success

    run(tmp_path, test)


def test_a_copy_of_the_usim_is_found_although_the_register_counts(tmp_path: Path) -> None:
    async def test(world: HlrWorld) -> None:
        subscription, sim = world.subscribe()
        thief = MemorySim(sim.sim)
        assert (await world.attach(sim)).success
        assert not (await world.attach(thief)).success
        assert "subscription-copied" in world.outcomes
        assert world.copied == [subscription.credentials.imsi]

    run(tmp_path, test)


# --- failures -------------------------------------------------------------------------------------


def test_nobody_is_let_in_while_the_register_is_down_and_all_again_when_it_returns(tmp_path: Path) -> None:
    async def test(world: HlrWorld) -> None:
        _, sim = await honest(world)
        await world.hlr.close()
        await world.told("hlr-lost")
        outcome = await world.attach(sim)
        assert not outcome.success
        assert outcome.verdicts == ("resynchronising",), "only what needs no register"
        assert "hlr-unreachable" in world.outcomes
        assert world.network.daemon.alive
        await world.hlr.start()
        await world.told("hlr-connected", 2)
        assert (await world.attach(sim)).success

    run(tmp_path, test)


def test_a_register_that_hangs_is_given_up_and_found_again(tmp_path: Path) -> None:
    async def test(world: HlrWorld) -> None:
        subscription, sim = await honest(world)
        os.kill(world.hlr.pid, signal.SIGSTOP)
        try:
            with pytest.raises(AccessError) as refused:
                await world.centre.vector(subscription.credentials.imsi)
            assert refused.value.code == "hlr-timeout"
        finally:
            os.kill(world.hlr.pid, signal.SIGCONT)
        await world.told("hlr-connected", 2)
        assert (await world.attach(sim)).success

    run(tmp_path, test)


def test_a_register_that_crashes_is_started_again_and_told_what_it_missed(tmp_path: Path) -> None:
    async def test(world: HlrWorld) -> None:
        ended, ended_sim = await honest(world)
        suspended, suspended_sim = world.subscribe(2)
        assert (await world.attach(suspended_sim)).success
        world.kill()
        world.store.end(ended.grant)
        world.store.suspend(suspended.grant)
        granted, granted_sim = world.subscribe(3)
        await world.told("hlr-connected", 2)
        assert "daemon-died" in world.outcomes
        assert "hlr-restarted" in world.outcomes
        assert (await world.attach(granted_sim)).success
        assert not (await world.attach(ended_sim)).success
        assert not (await world.attach(suspended_sim)).success
        assert rows(world) == [row(suspended, suspended=True), row(granted)]

    run(tmp_path, test)


def test_what_the_operators_store_says_wins_when_it_comes_back_to_its_register(tmp_path: Path) -> None:
    """The operator crashed between its own commit and the register's; meanwhile somebody has changed that one too."""
    kept: list[Subscription] = []

    async def before(world: HlrWorld) -> None:
        kept.extend(world.subscribe(slot)[0] for slot in (1, 2, 3))
        await world.settled()
        assert rows(world) == [row(one) for one in kept]

    run(tmp_path, before)
    first, second, third = kept
    with contextlib.closing(Subscriptions.open(tmp_path / DATABASE)) as store:
        store.end(first.grant)
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE)) as connection, connection:
        connection.execute("DELETE FROM subscriber_change")  # what was to be told is lost with the rest
    with contextlib.closing(HlrDatabase.open(tmp_path / "hlr" / "hlr.sqlite")) as register:
        wrong = replace(second.credentials, k=bytes(16))
        register.write([Subscriber(wrong.imsi, wrong, 7, suspended=False)])
        register.write([Subscriber(third.credentials.imsi, None, 0, suspended=False)])
        other = Credentials(STRANGER, bytes(16), bytes(16))
        register.write([Subscriber(STRANGER, other, 0, suspended=False)])

    async def after(world: HlrWorld) -> None:
        assert rows(world) == [row(second), row(third)]

    run(tmp_path, after)


def test_a_subscriber_that_the_register_has_lost_is_written_again(tmp_path: Path) -> None:
    async def test(world: HlrWorld) -> None:
        subscription, sim = await honest(world)
        with contextlib.closing(world.register()) as register:
            register.delete([subscription.credentials.imsi])
        outcome = await world.attach(sim)
        assert outcome.success
        assert outcome.verdicts == ("resynchronising", "accepted"), "the register had to count anew"
        assert "hlr-repaired" in world.outcomes
        assert len(rows(world)) == 1

    run(tmp_path, test)


def test_a_register_whose_database_is_locked_fails_cleanly_and_is_asked_again(tmp_path: Path) -> None:
    async def test(world: HlrWorld) -> None:
        subscription, sim = await honest(world)
        with contextlib.closing(sqlite3.connect(world.hlr.database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(AccessError) as refused:
                await world.centre.vector(subscription.credentials.imsi)
            assert refused.value.code == "hlr-failed"
            asking = asyncio.create_task(world.centre.vector(subscription.credentials.imsi))
            await asyncio.sleep(0)
            other.execute("ROLLBACK")
            await asking
        assert (await world.attach(sim)).success

    run(tmp_path, test)


# --- what others see ------------------------------------------------------------------------------


def test_nobody_else_reads_the_keys_or_reaches_the_register(tmp_path: Path) -> None:
    async def test(world: HlrWorld) -> None:
        subscription, _ = await honest(world)
        keys = [subscription.credentials.k.hex(), subscription.credentials.opc.hex()]
        directory = world.hlr.database.parent
        assert directory.stat().st_mode & 0o777 == 0o700
        files = sorted(directory.iterdir())
        assert {one.name for one in files} >= {"hlr.sqlite", "hlr.sqlite-wal", "hlr.sqlite-shm", "osmo-hlr.cfg"}
        assert {one.stat().st_mode & 0o777 for one in files} == {SECRET_FILES}
        arguments = arguments_of(world.hlr.pid)
        assert not any(one in arguments for one in keys)
        assert world.hlr.said() == "", "at the level that it logs at, it says nothing at all"
        if can_be_private():
            assert private_network_of(world.hlr.pid) != private_network_of(os.getpid())
            assert b"OsmoHLR>" not in await telnet(world.hlr.pid, "guessed", "show running-config")

    run(tmp_path, test)


def test_without_a_network_of_its_own_it_serves_and_says_that_others_reach_it(tmp_path: Path) -> None:
    async def test(world: HlrWorld) -> None:
        assert "hlr-open" in world.outcomes
        assert (await world.attach(world.subscribe()[1])).success

    run(tmp_path, test, private=False)


def test_a_register_that_runs_already_keeps_its_other_subscribers(tmp_path: Path) -> None:
    async def test() -> None:
        store = Subscriptions.open(tmp_path / DATABASE)
        theirs = OsmoHlr(tmp_path / "theirs", private=False)
        await theirs.start()
        known = Credentials(STRANGER, bytes(16), bytes(16))
        with contextlib.closing(HlrDatabase.open(theirs.database)) as register:
            register.write([Subscriber(STRANGER, known, 0, suspended=False)])
        ours = Credentials("001010000000001", bytes(16), bytes(16))
        store.add(Subscription(ours, 64, SubscriptionStatus.PENDING, bytes(16), bytes(16)))
        running = RunningHlr(HlrAddress(theirs.host, 4222, theirs.database))
        centre = OsmoAuthenticationCentre(
            store,
            SubscriberChanges.open(tmp_path / DATABASE),
            running,
            lambda: HlrDatabase.open(running.database),
            random=SeededRandom("it"),
            clock=FakeClock(),
            exclusive=False,
        )
        await centre.start()
        try:
            vector = await centre.vector(ours.imsi)
            answer = aka.answer(ours.k, ours.opc, Sequence.fresh(), vector.rand, vector.autn)
            assert isinstance(answer, aka.Accepted)
            assert answer.sequence.sqn >> 5 == 3, "the register went on from the operator's number"
            with contextlib.closing(HlrDatabase.open(theirs.database)) as register:
                assert register.imsis() == {STRANGER, ours.imsi}
        finally:
            await centre.close()
            store.close()
            async with asyncio.timeout(LONG):
                await theirs.close()

    asyncio.run(test())
