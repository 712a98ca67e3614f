"""Names that stand for a subscriber at an access point, where only one check of the operator looks at them.

Whoever listens at a port hears names; the operator's own code decides what they are worth, on a real store. Beside each
attempt the subscriber's own device is let in.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
from tests.refusals import refused

from firstlight.access.serving.authentication_centre import StoredAuthenticationCentre
from firstlight.access.serving.network_hostapd import AkaBackend, HostapdNetwork, HostapdSettings
from firstlight.access.serving.radius_front import Proven
from firstlight.roles.party.naming import NamingDesk, StoredNames
from firstlight.sim.naming import eap_identity
from firstlight.sim.subscription import Credentials, Subscription, SubscriptionStatus
from firstlight.stores.subscriptions import Subscriptions
from firstlight.testing.access_network import HOME, KEY
from firstlight.testing.clock import FakeClock
from firstlight.testing.random import SeededRandom

IMSI, NAME, NEVER = "001010000000001", "1" * 15, "2" * 15
GRANT = b"G" * 16
HERE, THERE = ("port0", "02:00:00:00:00:01"), ("port1", "02:00:00:00:00:02")
RANDOM = SeededRandom("names")


@dataclass(slots=True)
class Operator:
    """An operator with one subscriber, who has been given one name."""

    root: Path
    store: Subscriptions
    clock: FakeClock

    def seen(self, name: str, place: tuple[str, str]) -> None:
        """Let in who has proven himself under a name at a port, or raise what refuses him."""

        async def main() -> None:
            centre = StoredAuthenticationCentre(self.store, random=RANDOM, clock=self.clock)
            backend = AkaBackend(centre, lambda _: None, StoredNames(self.store, self.clock))
            settings = HostapdSettings(self.root)
            network = HostapdNetwork(settings, backend=backend, users=centre, log=centre, random=RANDOM)
            try:
                await network._admit(Proven(eap_identity(name, "001", "01"), *place))
            finally:
                await centre.close()

        asyncio.run(main())


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    with contextlib.closing(Subscriptions.in_memory()) as store:
        clock = FakeClock()
        store.add(
            Subscription(Credentials(IMSI, bytes(16), bytes(16)), 0, SubscriptionStatus.PENDING, bytes(16), GRANT)
        )
        store.give_name(IMSI, NAME, clock.seconds, 60)
        yield Operator(tmp_path, store, clock)


def switched_off(operator: Operator) -> None:
    operator.store.suspend(GRANT)
    operator.seen(NAME, HERE)


ATTEMPTS: Mapping[str, tuple[str, Callable[[Operator], None]]] = {
    "that-nobody-gave-out": ("unknown-subscriber", lambda one: one.seen(NEVER, HERE)),
    "that-is-the-subscribers-number": ("unknown-subscriber", lambda one: one.seen(IMSI, HERE)),
    "heard-at-another-port": ("name-used", lambda one: one.seen(NAME, THERE)),
    "of-a-subscription-that-is-switched-off": ("subscription-suspended", switched_off),
}


@pytest.mark.parametrize("name", sorted(ATTEMPTS))
def test_nobody_is_let_in_under_a_name(operator: Operator, name: str) -> None:
    """Somebody shows a name that he has overheard or made up, or that stands for nobody any more."""
    code, attempt = ATTEMPTS[name]
    operator.seen(NAME, HERE)
    assert refused(lambda: attempt(operator)) == code
    assert len(operator.store.sessions(IMSI)) == 1


def test_a_name_counts_where_it_was_used_first_and_only_if_that_was_in_time(operator: Operator) -> None:
    """Somebody keeps names for later, or uses one that he has heard."""
    store, now = operator.store, operator.clock.seconds
    store.bind_name(NAME, "here", now)
    assert refused(lambda: store.bind_name(NAME, "there", now)) == "name-used"
    assert refused(lambda: store.bind_name(NEVER, "here", now)) == "unknown-subscriber"
    store.give_name(IMSI, NEVER, now, 60)
    assert refused(lambda: store.bind_name(NEVER, "here", now + 61)) == "unknown-subscriber"


def test_a_name_that_nobody_gave_out_stands_for_nobody(operator: Operator) -> None:
    """Somebody guesses names."""
    names = StoredNames(operator.store, operator.clock)
    assert asyncio.run(names.imsi(NAME)) == IMSI
    assert refused(lambda: asyncio.run(names.imsi(NEVER))) == "unknown-subscriber"


def test_a_name_is_given_for_nothing_but_an_identity_concealed_for_this_operator(operator: Operator) -> None:
    """Somebody has an operator give out names for identities that he has made up, or changed."""
    desk = NamingDesk(operator.store, KEY, admission=cast("Any", None), clock=operator.clock, random=RANDOM)
    good = HOME.conceal(IMSI, RANDOM)
    assert desk._give(good).seconds
    assert refused(lambda: desk._give(replace(good, key_id=9))) == "bad-suci"
    assert refused(lambda: desk._give(replace(good, output=good.output[:-1] + bytes(1)))) == "bad-suci"
