"""EAP-AKA' and EAP-AKA against hostapd, with our authentication centre behind it and eapol_test before it."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from firstlight.access.device.eapol_test import AKA, AKA_PRIME
from firstlight.access.serving.daemons import EAPOL_TEST, HOSTAPD
from firstlight.sim.subscription import SubscriptionStatus
from firstlight.testing.hostapd_world import HostapdWorld, hostapd_world, needs


@pytest.fixture(autouse=True)
def installed() -> None:
    needs(HOSTAPD, EAPOL_TEST)


def run(path: Path, test: Callable[[HostapdWorld], Awaitable[None]]) -> None:
    async def main() -> None:
        async with hostapd_world(path) as world:
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

    run(tmp_path, test)
