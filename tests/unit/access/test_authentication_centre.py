import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from firstlight.access.ports import Traffic
from firstlight.access.serving.authentication_centre import StoredAuthenticationCentre
from firstlight.errors import AccessError, StoreError
from firstlight.sim import aka
from firstlight.sim.subscription import Credentials, Subscription, SubscriptionStatus
from firstlight.stores.subscriptions import Subscriptions
from firstlight.testing.clock import FakeClock
from firstlight.testing.random import SeededRandom

OWN = Credentials("001010000000001", bytes(range(16)), bytes(range(16, 32)))
GRANT = b"grant-id-16bytes"
SESSION = b"session-16-bytes"
Test = Callable[[Subscriptions, StoredAuthenticationCentre, list[bytes]], Awaitable[None]]


def run(path: Path, test: Test) -> None:
    async def main() -> None:
        store, used = Subscriptions.open(path / "subscriptions.db"), list[bytes]()
        store.add(Subscription(OWN, 0, SubscriptionStatus.PENDING, bytes(16), GRANT))
        centre = StoredAuthenticationCentre(store, random=SeededRandom(1), clock=FakeClock(), on_first_use=used.append)
        await test(store, centre, used)
        await centre.close()
        store.close()

    asyncio.run(main())


def test_vectors_are_those_of_the_subscription_each_with_its_own_number(tmp_path: Path) -> None:
    async def test(store: Subscriptions, centre: StoredAuthenticationCentre, used: list[bytes]) -> None:
        vectors = await asyncio.gather(*(centre.vector(OWN.imsi) for _ in range(40)))
        assert len({vector.rand for vector in vectors}) == 40
        sequence = aka.Sequence.fresh()
        for vector in vectors:
            answer = aka.answer(OWN.k, OWN.opc, sequence, vector.rand, vector.autn)
            assert isinstance(answer, aka.Accepted)
            assert answer.res == vector.xres
            sequence = answer.sequence
        found = store.get(OWN.imsi)
        assert found is not None
        assert found.sqn == sequence.sqn

    run(tmp_path, test)


def test_a_refusal_among_others_spoils_nothing(tmp_path: Path) -> None:
    async def test(store: Subscriptions, centre: StoredAuthenticationCentre, used: list[bytes]) -> None:
        results = await asyncio.gather(
            centre.vector(OWN.imsi), centre.vector("001010000000002"), centre.vector(OWN.imsi), return_exceptions=True
        )
        codes = [getattr(result, "code", "vector") for result in results]
        assert codes == ["vector", "unknown-subscriber", "vector"]

    run(tmp_path, test)


def test_resynchronisation_over_the_port(tmp_path: Path) -> None:
    async def test(store: Subscriptions, centre: StoredAuthenticationCentre, used: list[bytes]) -> None:
        vector = await centre.vector(OWN.imsi)
        await centre.resynchronise(OWN.imsi, vector.rand, aka.make_auts(OWN.k, OWN.opc, vector.rand, 4711))
        with pytest.raises(AccessError) as caught:
            await centre.resynchronise(OWN.imsi, vector.rand, bytes(14))
        assert caught.value.code == "bad-auts"
        found = store.get(OWN.imsi)
        assert found is not None
        assert found.sqn == 4711

    run(tmp_path, test)


def test_the_first_use_is_told_once_and_after_it_is_durable(tmp_path: Path) -> None:
    async def test(store: Subscriptions, centre: StoredAuthenticationCentre, used: list[bytes]) -> None:
        await centre.confirm(OWN.imsi, SESSION)
        assert used == [GRANT]
        assert store.confirmed_at(GRANT) == FakeClock().seconds
        await centre.confirm(OWN.imsi, bytes(16))
        assert used == [GRANT]
        await centre.ended(bytes(16), Traffic(3, 4))
        assert {(one.id, one.sent, one.received) for one in store.sessions(OWN.imsi)} == {
            (SESSION, 0, 0),
            (bytes(16), 3, 4),
        }

    run(tmp_path, test)


def test_a_database_that_fails_fails_everybody_who_waits_and_nobody_later(tmp_path: Path) -> None:
    async def test(store: Subscriptions, centre: StoredAuthenticationCentre, used: list[bytes]) -> None:
        with store.transaction() as connection:
            connection.execute("ALTER TABLE subscription RENAME TO elsewhere")
        results = await asyncio.gather(*(centre.vector(OWN.imsi) for _ in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [StoreError] * 3
        with store.transaction() as connection:
            connection.execute("ALTER TABLE elsewhere RENAME TO subscription")
        await centre.vector(OWN.imsi)

    run(tmp_path, test)
