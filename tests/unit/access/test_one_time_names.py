"""One-time names: who gets one, what it stands for, and where it may be used."""

import asyncio
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from firstlight.access.serving.authentication_centre import StoredAuthenticationCentre
from firstlight.access.serving.network_hostapd import AkaBackend, HostapdNetwork, HostapdSettings
from firstlight.access.serving.radius_front import Proven
from firstlight.errors import AccessError, FirstlightError, MalformedError
from firstlight.roles.party.naming import NamingDesk, StoredNames
from firstlight.sim.naming import PATH, SECONDS, OneTimeName, draw_name, eap_identity
from firstlight.sim.subscription import Credentials, Subscription, SubscriptionStatus
from firstlight.sim.suci import Suci
from firstlight.stores.subscriptions import MOST_NAMES, Subscriptions
from firstlight.testing.access_network import HOME, KEY
from firstlight.testing.clock import FakeClock
from firstlight.testing.random import SeededRandom
from firstlight.transports.admission import Admission, Rate
from firstlight.transports.http import application

IMSI = "001010000000001"
HERE, THERE = "port0 02:00:00:00:00:01", "port1 02:00:00:00:00:02"
RANDOM = SeededRandom("names")


def subscribed(imsi: str = IMSI) -> tuple[Subscriptions, Subscription]:
    store = Subscriptions.in_memory()
    credentials = Credentials(imsi, RANDOM.bytes(16), RANDOM.bytes(16))
    one = Subscription(credentials, 0, SubscriptionStatus.PENDING, bytes(16), RANDOM.bytes(16))
    store.add(one)
    return store, one


def code(store: Subscriptions, name: str, place: str, now: int) -> str:
    with pytest.raises(AccessError) as caught:
        store.bind_name(name, place, now)
    return caught.value.code


def test_a_name_stands_for_its_subscription_and_is_bound_to_where_it_is_used_first() -> None:
    store, _ = subscribed()
    store.give_name(IMSI, "1" * 15, 100, 60)
    assert store.named("1" * 15, 160) == IMSI
    store.bind_name("1" * 15, HERE, 150)
    store.bind_name("1" * 15, HERE, 10_000)
    assert store.named("1" * 15, 10_000) == IMSI
    assert code(store, "1" * 15, THERE, 150) == "name-used"


def test_a_name_that_nobody_used_in_time_or_that_nobody_gave_out_stands_for_nothing() -> None:
    store, _ = subscribed()
    store.give_name(IMSI, "1" * 15, 100, 60)
    assert store.named("1" * 15, 161) is None
    assert code(store, "1" * 15, HERE, 161) == "unknown-subscriber"
    assert code(store, "2" * 15, HERE, 100) == "unknown-subscriber"
    clock = FakeClock()
    with pytest.raises(AccessError) as caught:
        asyncio.run(StoredNames(store, clock).imsi("2" * 15))
    assert caught.value.code == "unknown-subscriber"


def test_a_subscription_has_so_many_unused_names_and_one_in_use() -> None:
    store, _ = subscribed()
    names = [f"{number:015}" for number in range(3 * MOST_NAMES)]
    for at, name in enumerate(names):
        store.give_name(IMSI, name, 100 + at, 60)
    assert [name for name in names if store.named(name, 120)] == names[-MOST_NAMES:]
    for name in names[-2:]:
        store.bind_name(name, HERE, 150)
    assert store.named(names[-2], 10_000) is None
    assert store.named(names[-1], 10_000) == IMSI


def ask(store: Subscriptions, body: bytes) -> tuple[int, bytes]:
    clock = FakeClock()
    admission = Admission(clock, source=Rate(100, 100), total=Rate(100, 100))
    desk = NamingDesk(store, KEY, admission=admission, clock=clock, random=RANDOM)
    app: Starlette = application("mno", desk.routes())

    async def main() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://mno") as client:
            return await client.post(PATH, content=body, headers={"content-type": "application/cbor"})

    answer = asyncio.run(main())
    return answer.status_code, answer.content


def test_a_suci_is_answered_with_a_name_whether_there_is_such_a_subscription_or_not() -> None:
    store, _ = subscribed()
    now = FakeClock().now() // 1_000_000_000
    for imsi, known in ((IMSI, IMSI), ("001019999999999", None)):
        status, body = ask(store, HOME.conceal(imsi, RANDOM).encode())
        named = OneTimeName.decode(body)
        assert (status, named.seconds) == (200, SECONDS)
        assert store.named(named.name, now) == known
        assert imsi not in body.hex()


def test_a_suci_that_does_not_open_gets_nothing_whatever_is_wrong_with_it() -> None:
    store, _ = subscribed()
    good = HOME.conceal(IMSI, RANDOM)
    bent = Suci(good.mcc, good.mnc, good.routing, good.scheme, good.key_id, good.output[:-1] + b"\0")
    foreign = Suci(good.mcc, good.mnc, good.routing, good.scheme, 7, good.output)
    for one in (bent, foreign):
        status, body = ask(store, one.encode())
        assert status == 400
        assert b"bad-suci" in body
    desk = NamingDesk(store, KEY, admission=None, clock=FakeClock(), random=RANDOM)  # type: ignore[arg-type]
    with pytest.raises(MalformedError) as caught:
        desk._give(foreign)
    assert caught.value.code == "bad-suci"


def admitted(tmp_path: Path, store: Subscriptions, identity: str, place: tuple[str, str]) -> str:
    async def main() -> str:
        clock = FakeClock()
        centre = StoredAuthenticationCentre(store, random=RANDOM, clock=clock)
        backend = AkaBackend(centre, lambda _: None, StoredNames(store, clock))
        network = HostapdNetwork(HostapdSettings(tmp_path), backend=backend, users=centre, log=centre, random=RANDOM)
        try:
            await network._admit(Proven(identity, *place))
        except FirstlightError as error:
            return error.code
        finally:
            await centre.close()
        return "admitted"

    return asyncio.run(main())


def test_only_a_name_that_counts_is_admitted_where_it_was_used_while_the_subscription_may_be(tmp_path: Path) -> None:
    store, one = subscribed()
    now = FakeClock().now() // 1_000_000_000
    name = draw_name(RANDOM)
    store.give_name(IMSI, name, now, 60)
    here, there = ("port0", "02:00:00:00:00:01"), ("port1", "02:00:00:00:00:02")
    identity = eap_identity(name, "001", "01")
    assert identity == f"6{name}@wlan.mnc001.mcc001.3gppnetwork.org"
    assert admitted(tmp_path, store, eap_identity(IMSI, "001", "01"), here) == "unknown-subscriber"
    assert admitted(tmp_path, store, "nobody", here) == "unknown-subscriber"
    assert admitted(tmp_path, store, identity, here) == "admitted"
    assert admitted(tmp_path, store, identity, there) == "name-used"
    store.suspend(one.grant)
    assert admitted(tmp_path, store, identity, here) == "subscription-suspended"
    assert len(store.sessions(IMSI)) == 1
