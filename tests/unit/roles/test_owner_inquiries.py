"""An owner asks his parties, and clears alarms at all of them: what one of them does is nobody else's trouble."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from firstlight.custody.file import AgreementKey
from firstlight.errors import ConfigError, FirstlightError, TransportError
from firstlight.ledger.records import Role
from firstlight.roles import registration
from firstlight.roles.holdings import Holding, find_holding, read_selection
from firstlight.roles.owner.deploy import Asked, Choice, deploy
from firstlight.roles.owner.inquiries import at_parties, clear
from firstlight.roles.owner.orders import Wanted, order
from firstlight.roles.workplace import Workplace
from firstlight.sealing.inquiry import (
    CLEARANCE,
    QUESTION,
    Answer,
    Clearance,
    Cleared,
    DeviceLine,
    Ending,
    Holds,
    Question,
    RaisedAlarm,
    Told,
    seal_answer,
    unseal_inquiry,
)
from firstlight.settings import ManufacturerSettings
from firstlight.testing.memory_node import MemoryNode
from firstlight.transports.client import Response

from .trading import Market, quick_disk, register, workplace

__all__ = ["quick_disk"]
RAISED = 77


@dataclass(slots=True)
class FakeParty:
    """A party that tells of some alarms, and takes clearances."""

    party: bytes
    key: AgreementKey
    alarms: set[int]
    failure: FirstlightError | None = None
    more: bool = False

    def answer(self, body: bytes, what: str) -> bytes:
        typ = QUESTION if what == "questions" else CLEARANCE
        asked = unseal_inquiry(body, self.key, typ=typ, chain="test-1", party=self.party)
        if self.failure is not None and (what == "clearances" or self.failure.code == "unreachable"):
            raise self.failure
        answer: Answer
        match asked.said:
            case Clearance(index=index, raised_ns=raised):
                answer = Cleared(index in self.alarms and raised == RAISED)
                self.alarms.discard(index)
            case Question(start=start):
                answer = self._told(start)
        return seal_answer(answer, asked)

    def _told(self, start: int | None) -> Told:
        listed = () if self.more else tuple(RaisedAlarm(index, RAISED) for index in sorted(self.alarms))
        counts = Told(True, 8, 3, 9, 0, 3, 0, len(self.alarms), listed, (), None)
        if start is None:
            return counts
        line = DeviceLine(start, Holds.CONFIRMED, 1, 9, 1, 1, 0, Ending.UNSAID, "", 0, 0)
        line = replace(line, alarm_ns=RAISED if start in self.alarms else 0)
        return replace(counts, lines=(line,), following=start + 1 if start < 11 else None)


@dataclass(slots=True)
class Web:
    """The node in memory, and parties beside it."""

    node: MemoryNode
    parties: dict[str, FakeParty] = field(default_factory=dict)

    def request(
        self, method: str, url: str, *, body: bytes = b"", content_type: str | None = None, retries: int = 0
    ) -> Response:
        at, _, what = url.rpartition("/v1/")
        if at in self.parties and what in ("questions", "clearances"):
            return Response(200, "application/octet-stream", self.parties[at].answer(body, what))
        return self.node.request(method, url, body=body, content_type=content_type, retries=retries)

    def close(self) -> None:
        """Close nothing."""


@dataclass(slots=True)
class Scene:
    owner: Workplace
    holding: Holding
    mno: FakeParty
    sp: FakeParty


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    market = Market.open(tmp_path)
    web = Web(market.node)
    owner = replace(market.owner("owner"), http=web)
    maker = find_holding(tmp_path / "maker", market.made.batch, 1)
    holding = market.hand_over(market.maker, maker, owner, "4-11").holding
    made, choices = [], []
    for name, role, port in (("mno", Role.MNO, 7_002), ("sp", Role.SP, 7_003), ("old", Role.MNO, 7_004)):
        place = workplace(tmp_path / name, market.node, ManufacturerSettings)
        party = register(place, market.node, role, f"http://127.0.0.1:{port}")
        key = registration.load(place.directory).agreement
        assert isinstance(key, AgreementKey)
        made.append(FakeParty(party, key, {5, 6}))
        web.parties[f"http://127.0.0.1:{port}"] = made[-1]
        choices.append(Choice(party, order(owner, holding, Wanted(party, 8, 60)).number))
    market.node.ledger.time += 1
    deploy(owner, holding, Asked(choices[0], (choices[1],), None, read_selection("all")), lambda _: None)
    made[2].failure = TransportError("unreachable", "long gone")
    return Scene(owner, holding, made[0], made[1])


def test_every_party_is_asked_whatever_another_one_does(scene: Scene) -> None:
    found = {(one.role, one.error): one.told for one in at_parties(scene.owner)}
    assert set(found) == {("mno", ""), ("sp", ""), ("mno", "unreachable")}
    told = found["sp", ""]
    assert told is not None
    assert (told.confirmed, told.lines) == (3, ())
    lines = next(one.told for one in at_parties(scene.owner, scene.holding, lines=True) if one.role == "sp")
    assert lines is not None
    assert [line.index for line in lines.lines] == list(range(12))


@pytest.mark.parametrize("more", [False, True])
def test_alarms_are_cleared_at_the_parties_of_the_plan(scene: Scene, more: bool) -> None:
    scene.mno.more = more
    done = {one.role: (one.indices, one.error) for one in clear(scene.owner, scene.holding, read_selection("5"))}
    assert done == {"mno": ((5,), ""), "sp": ((5,), "")}
    assert (scene.mno.alarms, scene.sp.alarms) == ({6}, {6})
    done = {one.role: (one.indices, one.error) for one in clear(scene.owner, scene.holding, None)}
    assert done == {"mno": ((6,), ""), "sp": ((6,), "")}


def test_where_one_party_fails_the_others_clear_and_it_is_told(scene: Scene) -> None:
    scene.mno.failure = TransportError("timeout", "not now")
    done = {one.role: (one.indices, one.error) for one in clear(scene.owner, scene.holding, read_selection("5,6"))}
    assert done == {"mno": ((), "timeout"), "sp": ((5, 6), "")}
    scene.mno.failure = None
    done = {one.role: (one.indices, one.error) for one in clear(scene.owner, scene.holding, read_selection("5,6"))}
    assert done == {"mno": ((5, 6), ""), "sp": ((), "")}


def test_without_a_plan_there_is_nobody_to_tell(scene: Scene) -> None:
    for path in scene.holding.directory.glob("deployments/*/plan.cbor"):
        path.unlink()
    with pytest.raises(ConfigError, match="no-plan"):
        clear(scene.owner, scene.holding, read_selection("5"))
