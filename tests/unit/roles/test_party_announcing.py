"""A party's server and what the ledger says of it: registered by a member, kept true by the server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from firstlight.errors import TransportError
from firstlight.ledger.records import Party, party_name
from firstlight.roles import registration
from firstlight.roles.party.announcing import ANNOUNCED, REQUEST, Announcer
from firstlight.roles.party.place import Place, make_place
from firstlight.settings import MnoSettings
from firstlight.testing.memory_node import MemoryNode
from firstlight.transports.endpoint import Endpoint, remove_endpoint, write_endpoint

FIRST, SECOND = "http://127.0.0.1:4001", "http://127.0.0.1:4002"


class Lines:
    """A log that remembers its codes."""

    def __init__(self) -> None:
        self.codes: list[str] = []

    def info(self, code: str, **_: Any) -> None:
        self.codes.append(code)

    warning = info


class Scene:
    def __init__(self, root: Path) -> None:
        self.node = MemoryNode()
        genesis = root / "genesis.cbor"
        genesis.write_bytes(self.node.genesis.encode())
        chain = self.node.genesis.chain
        settings = MnoSettings(chain=chain, node="http://node", gateway="http://gateway")
        self.place: Place[MnoSettings] = make_place(settings, root / "mno", genesis)
        self.log = Lines()
        self.announcer = self.restarted()

    def restarted(self) -> Announcer:
        self.announcer = Announcer(self.place, self.log, http=lambda: self.node)  # type: ignore[arg-type]
        return self.announcer

    def serve(self, url: str, coap: str | None = None) -> None:
        write_endpoint(self.place.directory, Endpoint(url, os.getpid(), coap))

    def endorse(self) -> None:
        data = (self.place.directory / REQUEST).read_bytes()
        endorsed = registration.endorse(data, self.node.ledger.consortium.roots[0], chain=self.place.chain)
        assert self.node.ledger.apply(endorsed.transaction).outcome is not None

    @property
    def record(self) -> Party:
        record = self.node.ledger.state.read(party_name(self.place.keys.party), Party)
        assert record is not None
        return record


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def registered(scene: Scene) -> Scene:
    scene.serve(FIRST)
    assert not scene.announcer.look()
    scene.endorse()
    assert scene.announcer.look()
    return scene


def test_one_that_is_not_registered_asks_a_member_once(scene: Scene) -> None:
    assert not scene.announcer.look()
    assert not (scene.place.directory / REQUEST).exists(), "nothing listens yet"
    scene.serve(FIRST)
    assert not scene.announcer.look()
    before = (scene.place.directory / REQUEST).read_bytes()
    assert not scene.announcer.look()
    assert (scene.place.directory / REQUEST).read_bytes() == before
    scene.endorse()
    assert scene.announcer.look()
    assert scene.log.codes == ["registration-wanted", "registered"]
    assert (scene.record.endpoints, scene.record.revision) == ((FIRST,), 1)


def test_a_restart_where_it_was_changes_nothing(scene: Scene) -> None:
    registered(scene).log.codes.clear()
    height = scene.node.ledger.height
    assert scene.restarted().look()
    assert (scene.log.codes, scene.node.ledger.height) == ([], height)


def test_who_serves_elsewhere_tells_the_ledger_once(scene: Scene) -> None:
    registered(scene).log.codes.clear()
    scene.serve(SECOND, "coap://127.0.0.1:4002")
    for _ in range(2):
        assert scene.restarted().look()
        assert (scene.record.endpoints, scene.record.revision) == ((SECOND, "coap://127.0.0.1:4002"), 2)
    assert scene.log.codes == ["endpoints-announced"]


def test_an_answer_that_is_lost_is_made_up_for(scene: Scene) -> None:
    registered(scene)
    scene.serve(SECOND)
    scene.node.cut.append("/v1/transactions")
    with pytest.raises(TransportError):
        scene.announcer.look()
    assert scene.record.endpoints == (SECOND,)
    assert scene.restarted().look()
    assert scene.record.revision == 2
    scene.serve(FIRST)
    assert scene.restarted().look()
    assert (scene.record.endpoints, scene.record.revision) == ((FIRST,), 3)


def test_what_somebody_named_by_hand_is_left_alone(scene: Scene) -> None:
    registered(scene).log.codes.clear()
    (scene.place.directory / ANNOUNCED).write_text('["https://operator.example"]')
    scene.serve(SECOND)
    assert scene.restarted().look()
    (scene.place.directory / ANNOUNCED).write_text("nonsense")
    assert scene.restarted().look()
    assert scene.log.codes == ["endpoints-kept"] * 2
    assert (scene.record.endpoints, scene.record.revision) == ((FIRST,), 1)


def test_one_that_has_ended_says_nothing(scene: Scene) -> None:
    registered(scene)
    remove_endpoint(scene.place.directory)
    asked = len(scene.node.asked)
    assert not scene.restarted().look()
    assert len(scene.node.asked) == asked
