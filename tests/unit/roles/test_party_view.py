"""What a party believes of the ledger, and how rarely it has to ask."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest

from firstlight.discovery.bundle import BundleRequest
from firstlight.discovery.verify import View
from firstlight.errors import ProofError, TransportError
from firstlight.ledger.records import Party, PartyStatus, party_name
from firstlight.ledger.tenure import counting
from firstlight.roles.ledger_client import LedgerClient
from firstlight.roles.party import view as view_module
from firstlight.roles.party.view import PartyView
from firstlight.testing.bundles import BATCH, NETWORK, Ledger, origin
from firstlight.testing.chains import GENESIS
from firstlight.testing.parties import genesis_of
from firstlight.testing.random import SeededRandom
from firstlight.transports.client import SyncClient


@dataclass(slots=True)
class Node:
    """Answers a client's requests from a ledger in memory."""

    ledger: Ledger
    time: int = GENESIS + 500
    asked: list[BundleRequest] = field(default_factory=list)
    down: bool = False
    gate: threading.Event | None = None
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def __call__(self, asked: httpx.Request) -> httpx.Response:
        request = BundleRequest.decode(asked.read())
        self.asked.append(request)
        self.arrived.release()
        if self.gate is not None:
            assert self.gate.wait(120)
        if self.down:
            raise httpx.ConnectError("the node is down")
        if request.height:
            return httpx.Response(200, content=self.ledger.state(request).encode())
        return httpx.Response(200, content=self.ledger.answer(request, time=self.time).encode())


@dataclass(slots=True)
class Scene:
    ledger: Ledger
    node: Node
    view: PartyView


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    ledger = Ledger(size=1000)
    node = Node(ledger)
    http = SyncClient(transport=httpx.MockTransport(node), sleep=lambda _: None)
    client = LedgerClient("http://node", genesis_of(ledger), tmp_path / "ledger.cbor", random=SeededRandom(), http=http)
    return Scene(ledger, node, PartyView(client, NETWORK))


def test_facts_are_what_the_ledger_says(scene: Scene) -> None:
    assert scene.view.height() == 0
    facts = scene.view.facts(BATCH, 7)
    assert (facts.height, scene.view.height(), facts.owner) == (10, 10, 2)
    assert (facts.witnessed_at, facts.header_time) == (GENESIS + 500, GENESIS + 10)
    assert facts.party == scene.ledger.records[party_name(NETWORK)]
    assert counting(facts.owner, facts.tenures, facts.header_time).deployed


def test_one_head_serves_a_whole_fleet_of_one_tenure(scene: Scene) -> None:
    for index in (0, 1, 511):
        assert scene.view.facts(BATCH, index).owner == 2
    assert [bool(one.height) for one in scene.node.asked] == [False, True, True, False, False]


def test_every_question_gets_a_head_asked_for_after_it(scene: Scene) -> None:
    scene.view.facts(BATCH, 0)
    scene.ledger.at += 1
    scene.node.time += 7
    facts = scene.view.facts(BATCH, 0)
    assert (facts.height, facts.witnessed_at) == (11, GENESIS + 507)
    assert len({one.nonce for one in scene.node.asked}) == len(scene.node.asked)


def test_a_split_batch_is_asked_about_region_by_region(scene: Scene) -> None:
    scene.ledger.split(3, 1, 3, origin(3, 1, previous=2))
    assert [scene.view.facts(BATCH, index).owner for index in (2, 3, 4, 3, 7)] == [2, 3, 2, 3, 2]
    followed = [one for one in scene.node.asked if one.height and one.batch]
    assert [(one.prefix_bits, one.prefix_length) for one in followed] == [(2, 10), (3, 10), (4, 10)]


def test_a_change_under_a_new_header_is_seen(scene: Scene) -> None:
    assert scene.view.facts(BATCH, 3).owner == 2
    scene.ledger.split(3, 1, 3, origin(3, 1, previous=2))
    scene.ledger.at += 1
    assert scene.view.facts(BATCH, 3).owner == 3


def test_questions_that_come_together_share_the_next_head(scene: Scene) -> None:
    scene.node.gate = threading.Event()
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(scene.view.fresh)
        scene.node.arrived.acquire()
        others = [pool.submit(scene.view.fresh) for _ in range(5)]
        while len(scene.view._turn._waiters) < 5:  # type: ignore[attr-defined]
            threading.Event().wait(0.001)
        scene.node.gate.set()
        heads = {id(one.result(120)) for one in others}
        assert len(heads) == 1
        assert id(first.result(120)) not in heads
    assert len(scene.node.asked) == 2


def test_without_a_node_the_last_head_answers_and_tells_its_age(scene: Scene) -> None:
    scene.view.facts(BATCH, 0)
    scene.node.down = True
    assert scene.view.facts(BATCH, 1).witnessed_at == GENESIS + 500
    scene.node.down = False
    scene.node.time += 100
    assert scene.view.facts(BATCH, 1).witnessed_at == GENESIS + 600


def test_without_a_head_there_are_no_facts(scene: Scene) -> None:
    scene.node.down = True
    with pytest.raises(TransportError, match="unreachable"):
        scene.view.facts(BATCH, 0)


def test_a_party_that_is_not_on_the_ledger(scene: Scene) -> None:
    del scene.ledger.records[party_name(NETWORK)]
    with pytest.raises(ProofError, match="party-unregistered"):
        scene.view.facts(BATCH, 0)


def test_an_unknown_batch(scene: Scene) -> None:
    with pytest.raises(ProofError, match="unknown-batch"):
        scene.view.facts(bytes(16), 0)


def test_nothing_is_read_that_was_not_proven(scene: Scene) -> None:
    head = scene.view.fresh()
    with pytest.raises(ProofError, match="not-asked"):
        head.value("party/" + "00" * 16)
    scene.view.prove(head, ["party/" + "00" * 16])
    assert head.value("party/" + "00" * 16) is None
    own = head.value(party_name(NETWORK))
    assert own is not None
    assert Party.decode(own).status is PartyStatus.ACTIVE


def test_heads_are_kept_for_a_while(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_module, "HEADS", 2)
    for height in (10, 11, 12):
        scene.ledger.at = height
        scene.view.fresh()
    assert scene.view.at(11).view.height == 11
    with pytest.raises(ProofError, match="head-forgotten"):
        scene.view.at(10)


def test_what_is_kept_is_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_module, "MAX_RECORDS", 20)
    monkeypatch.setattr(view_module, "MAX_OWNERS", 3)
    scene.ledger.split(3, 1, 3, origin(3, 1, previous=2))
    head = scene.view.fresh()
    for index in range(8):
        scene.view.prove(head, [f"party/{number:032x}" for number in range(index * 8, index * 8 + 8)])
        scene.view.owned(head, BATCH, index)
    assert len(head.records) <= 20
    assert len(head.owned) <= 3


def test_a_lie_is_no_head(scene: Scene) -> None:
    honest = scene.view.fresh()
    assert isinstance(honest.view, View)
    scene.ledger.at = 9
    assert scene.view.fresh() is honest
    scene.ledger.consortium = replace(scene.ledger.consortium, chain="other")
    scene.ledger.at = 20
    assert scene.view.fresh() is honest
