"""Running devices: several in one process, each failing alone; and the command line."""

from __future__ import annotations

import gc
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from firstlight.cli.main import run as command
from firstlight.errors import ConfigError
from firstlight.logs import Log
from firstlight.roles.device.memory import VIEW
from firstlight.roles.device.run import Plan, directories, one_directory, run
from firstlight.roles.device.tools import Event, Stage, Tools
from firstlight.testing.journeys import SIZE, JourneyWorld


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JourneyWorld:
    monkeypatch.setattr(os, "umask", lambda _: 0)
    monkeypatch.setattr(gc, "freeze", lambda: None)
    return JourneyWorld(tmp_path)


def tools_of(world: JourneyWorld) -> Callable[[Log, Callable[..., None]], Tools]:
    def make(log: Log, tell: Callable[..., None]) -> Tools:
        tools = world.tools()
        return Tools(log, tell, tools.network, tools.clock, tools.random, tools.sleep, tools.http, tools.connect)

    return make


def play(world: JourneyWorld, places: list[Path], plan: Plan) -> tuple[bool, list[Event]]:
    heard: list[Event] = []
    return run(places, plan, heard.append, make=tools_of(world)), heard


def stages(events: list[Event], device: str) -> list[Stage]:
    return [event.stage for event in events if event.device == device]


def test_a_fleet_comes_up_in_one_process(world: JourneyWorld) -> None:
    well, heard = play(world, directories([world.root]), Plan(once=True, seconds=240))
    assert well
    for index in range(SIZE):
        assert stages(heard, f"{index:06}")[-1] is Stage.CONNECTED
        assert len(world.opened(index)) == 2
        lines = [json.loads(line) for line in (world.directory(index) / "log.jsonl").read_text().splitlines()]
        assert [line["code"] for line in lines][0::6] == ["started", "stopped"]


def test_a_broken_device_fails_alone(world: JourneyWorld) -> None:
    (world.directory(1) / VIEW).write_bytes(b"\x00")
    (world.directory(1) / VIEW).chmod(0o644)
    well, heard = play(world, directories([world.root]), Plan(once=True, seconds=240))
    assert not well
    assert [event for event in heard if event.stage is Stage.FAILED] == [
        Event("000001", Stage.FAILED, "file-not-private")
    ]
    assert sum(event.stage is Stage.CONNECTED for event in heard) == SIZE - 1


def test_a_mistake_in_one_device_does_not_end_the_others(world: JourneyWorld) -> None:
    make, broken = tools_of(world), Tools.__name__

    def sometimes(log: Log, tell: Callable[..., None]) -> Tools:
        tools = make(log, tell)
        if not world.stages:
            world.stages.append((Stage.STARTED, broken))
            raise ZeroDivisionError
        return tools

    heard: list[Event] = []
    well = run(directories([world.root]), Plan(once=True, seconds=240), heard.append, make=sometimes)
    assert not well
    assert [event.code for event in heard if event.stage is Stage.FAILED] == ["internal-error"]
    assert sum(event.stage is Stage.CONNECTED for event in heard) == SIZE - 1


def test_time_runs_out(world: JourneyWorld) -> None:
    world.mail.clear()
    well, heard = play(world, [world.directory(0)], Plan(once=True, seconds=0.3))
    assert not well
    assert heard[-1].stage is Stage.STOPPED


def test_a_signal_ends_all_cleanly(world: JourneyWorld) -> None:
    heard: list[Event] = []

    def hear(event: Event) -> None:
        heard.append(event)
        if sum(event.stage is Stage.CONNECTED for event in heard) == SIZE:
            os.kill(os.getpid(), signal.SIGTERM)

    well = run(directories([world.root]), Plan(seconds=240), hear, make=tools_of(world))
    assert well
    assert sum(event.stage is Stage.STOPPED for event in heard) == SIZE
    assert all(session.closed for session in world.sessions)
    assert not world.attached


def test_places(world: JourneyWorld, tmp_path: Path) -> None:
    assert directories([world.root]) == [world.directory(index) for index in range(SIZE)]
    assert one_directory(world.directory(0)) == world.directory(0)
    empty = tmp_path / "empty"
    empty.mkdir()
    for wrong, code in (
        ([empty], "not-a-device"),
        ([], "no-devices"),
        ([world.directory(0), world.root], "device-twice"),
    ):
        with pytest.raises(ConfigError) as caught:
            directories(wrong)
        assert caught.value.code == code
    with pytest.raises(ConfigError, match="not-a-device"):
        one_directory(world.root)


def test_at_most_64_in_one_process(tmp_path: Path) -> None:
    for index in range(65):
        (tmp_path / f"{index:06}").mkdir()
        (tmp_path / f"{index:06}" / "birth.cbor").touch()
    with pytest.raises(ConfigError, match="too-many-devices"):
        directories([tmp_path])


def test_the_command_shows_a_device(world: JourneyWorld, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["device", "show", str(world.directory(2)), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["index"], shown["discovered"], shown["boots"]) == (2, False, 0)


def test_the_command_says_why_a_device_cannot_run(world: JourneyWorld, capsys: pytest.CaptureFixture[str]) -> None:
    (world.directory(0) / "identity.pem").unlink()
    assert command(["device", "run", str(world.directory(0)), "--once", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"device": "000000", "stage": "failed", "code": "file-missing"}
    assert command(["device", "fleet", "--from-file", str(world.root / "nothing")]) == 2
    assert "bad-list" in capsys.readouterr().err


def test_the_command_tells_people_too(world: JourneyWorld, capsys: pytest.CaptureFixture[str]) -> None:
    (world.directory(0) / "identity.pem").unlink()
    listed = world.root / "list"
    listed.write_text(f"{world.directory(0)}\n")
    assert command(["device", "fleet", "--from-file", str(listed)]) == 1
    assert capsys.readouterr().out == "000000 cannot run (file-missing)\n"
