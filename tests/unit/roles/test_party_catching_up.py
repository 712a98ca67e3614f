"""What a crash between two commits left in one store only is made good at the next start."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from firstlight.custody.file import SigningKey
from firstlight.enrolment.issue import create_authority, crl_serials
from firstlight.logs import Log
from firstlight.onboarding.ports import Anchor, Answered, Entry, NewGrant
from firstlight.plan.claims import PartyKind
from firstlight.plan.order import Order
from firstlight.roles.party.mno import Subscribers, keep_subscription
from firstlight.roles.party.sp import SERIAL_BYTES, Revoker, keep_certificate
from firstlight.sim.subscription import SubscriptionStatus
from firstlight.stores.certificates import Certificates, CertificateState
from firstlight.stores.exchanges import ExchangeStore, GrantHook, GrantState
from firstlight.stores.subscriptions import Subscriptions
from firstlight.testing.clock import FakeClock
from firstlight.testing.random import SeededRandom

BATCH, NUMBER = b"b" * 16, b"n" * 16
ORDER = Order(NUMBER, "testnet", b"p" * 16, BATCH, 2, 8, 2_000)
ENDED, GOING_ON = b"\x01" * 16, b"\x02" * 16


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000)


def exchanges_with_two_grants(path: Path, kind: PartyKind, hook: GrantHook) -> ExchangeStore:
    store = ExchangeStore.open(path, on_grant=hook)
    store.add_order(ORDER, Anchor(b"l" * 32, 8), b"document")
    for number in (1, 2):
        name = f"imsi-00101000000000{number}" if kind is PartyKind.NETWORK else f"device-{number}"
        secret = bytes(32) if kind is PartyKind.NETWORK else number.to_bytes(SERIAL_BYTES)
        new = NewGrant(
            id=bytes([number]) * 16,
            origin=2,
            order=NUMBER,
            kind=kind,
            issued_at=1,
            expires=5_000,
            identifier=name,
            body=b"body",
            secret=secret,
        )
        th_3 = bytes([number]) * 32
        entry = Entry(th_3, Answered(th_3, b"4"), BATCH, number, 1, 2, "granted", 0, new)
        assert store.commit(entry) is not None
    return store


@contextlib.contextmanager
def cut_after_ending_a_grant(path: Path, kind: PartyKind, hook: GrantHook) -> Iterator[ExchangeStore]:
    """Give the exchanges as they are when a grant was ended, and nobody was told before the process died."""
    before = exchanges_with_two_grants(path, kind, hook)
    before.end([ENDED])
    before.close()
    with contextlib.closing(ExchangeStore.open(path, on_grant=hook)) as store:
        yield store


def test_a_subscription_whose_grant_has_ended_does_not_outlive_a_crash(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "mno.sqlite"
    with contextlib.closing(Subscriptions.open(path)) as store:
        with cut_after_ending_a_grant(path, PartyKind.NETWORK, keep_subscription) as exchanges:
            assert store.living() == {ENDED, GOING_ON}
            room = SimpleNamespace(place=SimpleNamespace(clock=clock), log=Log("mno", clock, SimpleNamespace()))
            Subscribers(exchanges, store, room).close()
        assert store.living() == {GOING_ON}
        found = store.by_grant(ENDED)
        assert found is not None
        assert found.status is SubscriptionStatus.DEAD


def test_a_use_noted_by_the_network_only_is_confirmed_after_a_crash(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "mno.sqlite"
    with (
        contextlib.closing(Subscriptions.open(path)) as store,
        contextlib.closing(exchanges_with_two_grants(path, PartyKind.NETWORK, keep_subscription)) as exchanges,
    ):
        store.confirm("001010000000002", b"s" * 16, 7)
        room = SimpleNamespace(place=SimpleNamespace(clock=clock), log=Log("mno", clock, SimpleNamespace()))
        Subscribers(exchanges, store, room).close()
        assert [one.id for one in exchanges.grants(GrantState.CONFIRMED)] == [GOING_ON]


def test_a_certificate_whose_grant_has_ended_is_revoked_after_a_crash(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "sp.sqlite"

    async def start(store: Certificates, exchanges: ExchangeStore) -> bytes:
        own = create_authority(key, title="SP", now=1, lifetime=9_000, random=SeededRandom(1))
        revoker = Revoker(own, store, exchanges, clock=clock, log=Log("sp", clock, SimpleNamespace()))
        return revoker.crl()

    key = SigningKey.create(tmp_path / "authority.key")
    with contextlib.closing(Certificates.open(path)) as store:
        with cut_after_ending_a_grant(path, PartyKind.SERVICE, keep_certificate) as exchanges:
            assert store.living() == {ENDED, GOING_ON}
            own = create_authority(key, title="SP", now=1, lifetime=9_000, random=SeededRandom(1))
            assert crl_serials(asyncio.run(start(store, exchanges)), anchor=own.certificate) == {1}
        found = store.by_grant(ENDED)
        assert found is not None
        assert found.state is CertificateState.REVOKED
        assert store.living() == {GOING_ON}
