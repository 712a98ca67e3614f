"""Grants end with their time and with their tenure, and not before."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from firstlight.ledger.records import (
    Reference,
    ReferenceStatus,
    Revocation,
    RevocationKind,
    Tenure,
    TenureState,
    reference_name,
    revocation_name,
    tenure_name,
)
from firstlight.logs import Log
from firstlight.onboarding.ports import Anchor, Answered, Entry, NewGrant
from firstlight.plan.claims import PartyKind
from firstlight.plan.order import Order
from firstlight.roles.ledger_client import LedgerClient
from firstlight.roles.party.leases import Leases
from firstlight.roles.party.view import PartyView
from firstlight.stores.exchanges import ExchangeStore, GrantState
from firstlight.testing.bundles import BATCH, ISSUER, NETWORK, Ledger, origin
from firstlight.testing.chains import GENESIS
from firstlight.testing.clock import FakeClock
from firstlight.testing.parties import FakeNode, genesis_of
from firstlight.testing.random import SeededRandom
from firstlight.transports.client import SyncClient

ORDER = Order(b"\x07" * 16, "test-1", NETWORK, BATCH, 2, 100, GENESIS + 9_000)
GRACE = 200
Names = tuple[str, ...]


class Lines(list[str]):
    def write(self, line: str, /) -> None:
        self.append(json.loads(line)["code"])


@dataclass(slots=True)
class Scene:
    ledger: Ledger
    node: FakeNode
    store: ExchangeStore
    clock: FakeClock
    leases: Leases
    lines: Lines
    down: bool = False

    def grant(self, index: int, *, expires: int = GENESIS + 1_000, revision: int = 1, basis: Names = ()) -> bytes:
        identifier = bytes([index + 1]) * 16
        new = NewGrant(
            id=identifier,
            origin=2,
            order=ORDER.number,
            kind=PartyKind.NETWORK,
            issued_at=1,
            expires=expires,
            identifier=identifier.hex(),
            body=b"",
            secret=b"",
            tenure=2,
            revision=revision,
            basis=basis,
        )
        th_3 = bytes([index + 1]) * 32
        entry = Entry(th_3, Answered(th_3, b"4"), BATCH, index, 1, self.clock.now(), "granted", 0, new)
        assert self.store.commit(entry) is not None
        return identifier

    def live(self) -> set[bytes]:
        return {one.id for one in self.store.grants(GrantState.PENDING, GrantState.CONFIRMED)}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    ledger = Ledger(size=1024)
    node, clock, lines = FakeNode(ledger, time=GENESIS + 500), FakeClock(GENESIS + 500), Lines()

    def answer(request: httpx.Request) -> httpx.Response:
        if made.down:
            raise httpx.ConnectError("down")
        return httpx.Response(200, content=node.answer(request.read()))

    http = SyncClient(transport=httpx.MockTransport(answer), sleep=lambda _: None)
    client = LedgerClient("http://node", genesis_of(ledger), tmp_path / "memory", random=SeededRandom(), http=http)
    store = ExchangeStore.in_memory()
    store.add_order(ORDER, Anchor(bytes(32), 1024), b"")
    leases = Leases(store, PartyView(client, NETWORK), clock=clock, log=Log("mno", clock, lines), grace=GRACE)
    made = Scene(ledger, node, store, clock, leases, lines)
    return made


def test_what_stands_goes_on(scene: Scene) -> None:
    scene.leases.keep()
    assert scene.node.asked == 0
    kept = {scene.grant(0), scene.grant(1)}
    scene.leases.keep()
    assert (scene.live(), scene.lines) == (kept, [])


def test_a_grant_runs_out(scene: Scene) -> None:
    scene.grant(0, expires=GENESIS + 500)
    later = scene.grant(1, expires=GENESIS + 501)
    scene.leases.keep()
    assert (scene.live(), scene.lines) == ({later}, ["grant-expired"])


@pytest.mark.parametrize("state", [TenureState.FROZEN, TenureState.RETIRED])
def test_a_device_that_was_frozen_or_retired(scene: Scene, state: TenureState) -> None:
    _, other = scene.grant(0), scene.grant(7)
    scene.ledger.split(0, 1, 3, replace(origin(3, 1, previous=2), origin=2, state=state))
    scene.leases.keep()
    assert (scene.live(), scene.lines) == ({other}, ["tenure-over"])


def test_a_device_that_was_sold_on_counts_from_its_acceptance(scene: Scene) -> None:
    grant = scene.grant(0)
    offered = replace(origin(3, 1, previous=2), state=TenureState.OFFERED)
    scene.ledger.split(0, 1, 3, offered)
    scene.leases.keep()
    assert scene.live() == {grant}
    scene.ledger.records[tenure_name(BATCH, 3)] = origin(3, 1, previous=2)
    scene.ledger.at += 1
    scene.leases.keep()
    assert scene.live() == set()


def test_a_new_plan_of_the_same_owner_leaves_time_to_follow_it(scene: Scene) -> None:
    grant, other = scene.grant(0), scene.grant(7)
    scene.ledger.split(0, 1, 3, replace(origin(3, 1, previous=2, plan=bytes(32)), origin=2))
    scene.leases.keep()
    scene.clock.advance(GRACE / 2 - 1)
    scene.leases.keep()
    assert scene.live() == {grant, other}
    scene.clock.advance(GRACE / 2 + 1)
    scene.leases.keep()
    assert (scene.live(), scene.lines) == ({other}, ["plan-changed"])


def test_a_grant_that_came_too_late_for_a_head_is_looked_at_under_it(scene: Scene) -> None:
    other = scene.grant(7)
    scene.ledger.split(0, 1, 3, origin(3, 1, previous=2))
    scene.leases.keep()
    scene.grant(0)
    scene.leases.keep()
    assert (scene.live(), scene.lines) == ({other}, ["tenure-over"])


def test_a_grant_under_the_new_plan_goes_on(scene: Scene) -> None:
    name = tenure_name(BATCH, 2)
    tenure = scene.ledger.records[name]
    assert isinstance(tenure, Tenure)
    scene.ledger.records[name] = replace(tenure, plan_revision=2)
    grant = scene.grant(0, revision=2)
    scene.leases.keep()
    scene.clock.advance(2 * GRACE)
    scene.leases.keep()
    assert scene.live() == {grant}


def test_what_an_appraisal_rested_upon_is_revoked(scene: Scene) -> None:
    digest, model = bytes(32), b"model-1"
    live = Reference(digest, 0, 1, GENESIS + 9_000, ReferenceStatus.LIVE)
    reference, revocation = reference_name(ISSUER, model, bytes(16)), revocation_name(ISSUER, digest)
    scene.ledger.records[reference] = live
    scene.grant(0, basis=(reference, revocation))
    other, without = scene.grant(1, basis=(reference,)), scene.grant(2)
    scene.leases.keep()
    assert scene.lines == []
    scene.ledger.records[revocation] = Revocation(RevocationKind.FIRMWARE, GENESIS)
    scene.ledger.at += 1
    scene.leases.keep()
    assert (scene.live(), scene.lines) == ({other, without}, ["appraisal-over"])
    scene.ledger.records[reference] = replace(live, status=ReferenceStatus.REVOKED)
    scene.ledger.at += 1
    scene.leases.keep()
    assert (scene.live(), scene.lines[1:]) == ({without}, ["appraisal-over"])


def test_without_the_ledger_nothing_is_concluded_from_it(scene: Scene) -> None:
    grant = scene.grant(0)
    scene.down = True
    scene.leases.keep()
    assert (scene.live(), scene.lines) == ({grant}, ["unreachable"])
    scene.down = False
    scene.ledger.split(0, 1, 3, origin(3, 1, previous=2))
    scene.leases.keep()
    assert scene.live() == set()
