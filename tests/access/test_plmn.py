"""EAP-AKA' and EAP-AKA against hostapd, with our authentication centre behind it and eapol_test before it."""

import asyncio
import os
import re
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from firstlight.access.device.eapol_test import AKA, AKA_PRIME
from firstlight.access.serving.daemons import EAPOL_TEST, HOSTAPD
from firstlight.access.serving.hostapd import EapMethods
from firstlight.access.serving.network_hostapd import AkaBackend
from firstlight.sim import aka
from firstlight.sim.subscription import Subscription, SubscriptionStatus
from firstlight.testing.access_network import LONG, MemorySim
from firstlight.testing.hostapd_world import HostapdWorld, hostapd_world, needs


@pytest.fixture(autouse=True)
def installed() -> None:
    needs(HOSTAPD, EAPOL_TEST)


def run(path: Path, test: Callable[[HostapdWorld], Awaitable[None]], make: type[AkaBackend] = AkaBackend) -> None:
    async def main() -> None:
        async with hostapd_world(path, make) as world:
            await test(world)

    asyncio.run(main())


@pytest.mark.parametrize("method", [AKA_PRIME, AKA])
def test_an_honest_device_is_let_in_and_its_first_use_recorded_before_it_hears_of_it(
    tmp_path: Path, method: str
) -> None:
    async def test(world: HostapdWorld) -> None:
        subscription, sim = world.subscribe()
        outcome = await world.attach(sim, method=method)
        assert outcome.success
        assert outcome.verdicts == ("accepted",)
        found = world.store.get(subscription.credentials.imsi)
        assert found is not None
        assert found.status is SubscriptionStatus.ACTIVE
        assert world.used == [subscription.grant]
        assert len(sim.saved) == 1
        said = world.network.daemon.said()
        assert "CTRL-EVENT-EAP-SUCCESS" in said
        assert re.search(r"[0-9a-f]{16}|[0-9]{12}", said) is None, "what hostapd says is kept without keys and names"

    run(tmp_path, test)


def status(world: HostapdWorld, subscription: Subscription) -> SubscriptionStatus:
    found = world.store.get(subscription.credentials.imsi)
    assert found is not None
    return found.status


def sqn(world: HostapdWorld, subscription: Subscription) -> int:
    found = world.store.get(subscription.credentials.imsi)
    assert found is not None
    return found.sqn


async def honest(world: HostapdWorld, sim: MemorySim) -> None:
    assert (await world.attach(sim)).success
    assert world.outcomes[-1] == "accepted"


def test_a_device_with_another_key_knows_no_network_and_is_not_let_in(tmp_path: Path) -> None:
    """Somebody has learnt an IMSI and made a card for it: without K neither side believes the other."""

    async def test(world: HostapdWorld) -> None:
        _, sim = world.subscribe()
        await honest(world, sim)
        other, forged = world.subscribe(2)
        keys = replace(other.credentials, k=bytes(16))
        outcome = await world.attach(MemorySim(replace(forged.sim, credentials=keys)))
        assert (outcome.success, outcome.verdicts) == (False, ("network-not-authentic",))
        assert status(world, other) is SubscriptionStatus.PENDING
        assert world.network.attached() == 1
        assert world.outcomes[-1] == "rejected"

    run(tmp_path, test)


def test_a_wrong_res_is_refused_by_hostapd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A card that takes the challenge and answers it wrongly: hostapd compares with what the operator said."""

    async def test(world: HostapdWorld) -> None:
        subscription, sim = world.subscribe()
        other, liar = world.subscribe(2)
        await honest(world, sim)
        bent: list[bytes] = []

        def wrong(*arguments: bytes) -> object:
            found = answer(*arguments)  # type: ignore[arg-type]
            if isinstance(found, aka.Accepted):
                bent.append(found.res)
                return replace(found, res=bytes(8))
            return found

        answer = aka.answer
        monkeypatch.setattr(aka, "answer", wrong)
        outcome = await world.attach(liar)
        assert (outcome.success, outcome.verdicts) == (False, ("accepted",))
        assert len(bent) == 1
        assert status(world, other) is SubscriptionStatus.PENDING
        assert world.used == [subscription.grant]
        assert world.outcomes[-1] == "rejected"

    run(tmp_path, test)


@pytest.mark.parametrize("method", [AKA_PRIME, AKA])
def test_an_operator_whose_numbers_are_behind_resynchronises_and_lets_the_device_in(
    tmp_path: Path, method: str
) -> None:
    """An authentication centre restored from an old backup: the card says where it stands, and the attach succeeds."""

    async def test(world: HostapdWorld) -> None:
        subscription, sim = world.subscribe()
        ahead = replace(sim.sim, sequence=aka.Sequence((1000,) * aka.SLOTS))
        outcome = await world.attach(MemorySim(ahead), method=method)
        assert outcome.success
        assert outcome.verdicts == ("resynchronising", "accepted")
        assert world.outcomes.count("resynchronised") == 1
        assert sqn(world, subscription) >> aka.IND_BITS == 1001

    run(tmp_path, test)


def test_unknown_and_suspended_subscriptions_are_refused_before_any_challenge(tmp_path: Path) -> None:
    async def test(world: HostapdWorld) -> None:
        subscription, sim = world.subscribe()
        await honest(world, sim)
        before = sqn(world, subscription)
        unknown = await world.attach(sim, name="001019999999999")
        assert (unknown.success, unknown.verdicts) == (False, ())
        assert world.outcomes[-2:] == ["unknown-subscriber", "rejected"]
        world.store.suspend(subscription.grant)
        suspended = await world.attach(sim)
        assert (suspended.success, suspended.verdicts) == (False, ())
        assert world.outcomes[-2:] == ["subscription-suspended", "rejected"]
        assert sqn(world, subscription) == before
        world.store.resume(subscription.grant)
        await honest(world, sim)
        world.store.end(subscription.grant)
        assert not (await world.attach(sim)).success
        assert world.outcomes[-2:] == ["subscription-dead", "rejected"]

    run(tmp_path, test)


def test_without_its_authentication_centre_hostapd_lets_nobody_in_and_does_again_when_it_returns(
    tmp_path: Path,
) -> None:
    async def test(world: HostapdWorld) -> None:
        _, sim = world.subscribe()
        await honest(world, sim)
        pid = world.network.daemon.pid
        await world.backend.close()
        outcome = await world.attach(sim)
        assert (outcome.success, outcome.verdicts) == (False, ())
        await world.backend.start(tmp_path / "access" / "eap")
        await honest(world, sim)
        assert world.network.daemon.pid == pid

    run(tmp_path, test)


def test_a_server_that_is_killed_is_started_again_and_lets_devices_in(tmp_path: Path) -> None:
    async def test(world: HostapdWorld) -> None:
        _, sim = world.subscribe()
        await honest(world, sim)
        first = world.network.daemon.pid
        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(LONG):
            while world.network.daemon.pid == first:  # noqa: ASYNC110 - waits for the fact itself
                await asyncio.sleep(0.01)
        assert "daemon-died" in world.outcomes
        await honest(world, sim)

    run(tmp_path, test)


class Generous(AkaBackend):
    """hostapd as it is by default: it gives devices identities for fast re-authentication."""

    async def start(self, directory: Path) -> EapMethods:
        methods = await super().start(directory)
        users = (*methods.users, '"7"* AKA\'', '"8"* AKA\'')
        return replace(methods, users=users, settings=dict(methods.settings) | {"eap_sim_id": 3})


@pytest.mark.parametrize("generous", [False, True], ids=["as-we-run-it", "with-identities-for-it"])
def test_fast_re_authentication_does_not_go_past_a_suspension(tmp_path: Path, *, generous: bool) -> None:
    """A device whose subscription is switched off comes back as one that is known already.

    With identities for fast re-authentication hostapd would let it in without asking anybody. It is told to give none;
    and where it did, the operator's front knows nobody by such an identity.
    """

    async def test(world: HostapdWorld) -> None:
        subscription, sim = world.subscribe()
        outcome = await world.attach(sim, times=1 if generous else 2)
        assert outcome.success
        assert outcome.verdicts == (("accepted",) if generous else ("accepted", "resynchronising", "accepted"))
        begun = len(world.outcomes)
        world.when("accepted", lambda: world.store.suspend(subscription.grant))
        again = await world.attach(sim, times=2)
        assert not again.success
        assert again.verdicts == ("resynchronising", "accepted"), "the first time it was let in"
        after = [one for one in world.outcomes[begun:] if one not in ("session-ended", "vector", "usim-known")]
        refusal = ["unknown-subscriber"] if generous else ["subscription-suspended", "rejected"]
        assert after == ["accepted", *refusal]
        assert status(world, subscription) is SubscriptionStatus.SUSPENDED

    run(tmp_path, test, Generous if generous else AkaBackend)


def test_a_subscription_copied_to_a_second_device_is_found_and_reported(tmp_path: Path) -> None:
    """Somebody reads a card out and uses the copy beside the first: both take turns with one set of numbers."""

    async def test(world: HostapdWorld) -> None:
        subscription, sim = world.subscribe()
        imsi = subscription.credentials.imsi
        await honest(world, sim)
        copy = MemorySim(sim.load())
        for _ in range(3):
            await honest(world, sim)
        assert world.copied == []
        outcome = await world.attach(copy)
        assert (outcome.success, outcome.verdicts) == (False, ("accepted",)), "it takes what the other has used up"
        assert world.copied == [imsi]
        assert world.outcomes[-1] == "subscription-copied"
        await honest(world, sim)
        assert world.copied == [imsi]

    run(tmp_path, test)


def test_whichever_of_two_copies_comes_second_is_found(tmp_path: Path) -> None:
    """The thief comes first: then it is the owner's own device that is refused, and the alarm raised all the same."""

    async def test(world: HostapdWorld) -> None:
        subscription, sim = world.subscribe()
        await honest(world, sim)
        copy = MemorySim(sim.load())
        await honest(world, copy)
        outcome = await world.attach(sim)
        assert not outcome.success
        assert world.copied == [subscription.credentials.imsi]

    run(tmp_path, test)
