import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Annotated

import pytest
import typer

from firstlight.cli import main, output
from firstlight.errors import ConfigError, RuleError

Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a group of commands where `firstlight.cli.<name>` is looked for."""

    def put(name: str, **members: object) -> None:
        module = ModuleType(f"firstlight.cli.{name}")
        module.__dict__.update(members)
        module.__spec__ = importlib.util.spec_from_loader(module.__name__, loader=None)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(main, "GROUPS", (main.Group(name, "What it is for."),))

    return put


@pytest.fixture
def role(install: Install) -> None:
    app = typer.Typer()

    @app.command()
    def fine() -> None:
        """Do well."""
        output.emit({"party": b"\x01\xff", "height": 7, "names": ["a"]})

    @app.command()
    def refused() -> None:
        raise RuleError("sequence-gap", "expected 3", hint="send 3")

    @app.command()
    def wrong() -> None:
        raise ConfigError("no-settings", "nothing there")

    @app.command()
    def lacking() -> None:
        raise output.MissingError("missing-package", "mosquitto")

    @app.command()
    def interrupted() -> None:
        raise KeyboardInterrupt

    @app.command()
    def report(json: Annotated[str, typer.Option("--json")] = "") -> None:
        output.emit({"file": json})

    install("role", app=app)


Printed = pytest.CaptureFixture[str]


@pytest.mark.usefixtures("role")
def test_results_are_for_people_or_for_programs(capsys: Printed) -> None:
    assert main.run(["role", "fine"]) == 0
    assert capsys.readouterr().out == 'party: 01ff\nheight: 7\nnames: ["a"]\n'
    for line in (["--json", "role", "fine"], ["role", "--json", "fine"], ["role", "fine", "--json"]):
        assert main.run(line) == 0
        assert json.loads(capsys.readouterr().out) == {"party": "01ff", "height": 7, "names": ["a"]}


@pytest.mark.usefixtures("role")
def test_a_run_does_not_inherit_json_from_the_one_before(capsys: Printed) -> None:
    main.run(["role", "fine", "--json"])
    capsys.readouterr()
    main.run(["role", "fine"])
    assert capsys.readouterr().out.startswith("party: ")


@pytest.mark.usefixtures("role")
def test_a_command_with_a_json_option_of_its_own_gets_it(capsys: Printed) -> None:
    assert main.run(["role", "report", "--json", "x.json"]) == 0
    assert capsys.readouterr().out == "file: x.json\n"


@pytest.mark.usefixtures("role")
@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        ("refused", 1, "error: sequence-gap\n  cause: expected 3\n  what to do: send 3\n"),
        ("wrong", 2, "error: no-settings\n  cause: nothing there\n"),
        ("lacking", 3, "error: missing-package\n  cause: mosquitto\n"),
        ("interrupted", 130, ""),
    ],
)
def test_errors_say_what_why_and_what_to_do(capsys: Printed, command: str, status: int, message: str) -> None:
    assert main.run(["role", command]) == status
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", message)


@pytest.mark.usefixtures("role")
def test_errors_are_json_too(capsys: Printed) -> None:
    assert main.run(["role", "refused", "--json"]) == 1
    assert json.loads(capsys.readouterr().err) == {"code": "sequence-gap", "detail": "expected 3", "hint": "send 3"}


@pytest.mark.usefixtures("role")
@pytest.mark.parametrize("line", [["none"], ["role", "none"], ["role", "fine", "--none"], ["--none"]])
def test_wrong_usage_is_exit_code_2(capsys: Printed, line: list[str]) -> None:
    assert main.run(line) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Usage: firstlight" in captured.err


@pytest.mark.usefixtures("role")
@pytest.mark.parametrize("line", [[], ["--help"], ["-h"]])
def test_help_lists_what_there_is(capsys: Printed, line: list[str]) -> None:
    assert main.run(line) == 0
    text = capsys.readouterr().out
    assert "role" in text
    assert "What it is for." in text
    assert main.run(["role", "--help"]) == 0
    assert "Do well." in capsys.readouterr().out


def test_a_single_command_can_be_a_group(capsys: Printed, install: Install) -> None:
    def command(count: int = 2) -> None:
        output.emit({"count": count})

    install("role", command=command)
    assert main.run(["role", "--count", "3"]) == 0
    assert capsys.readouterr().out == "count: 3\n"


def test_the_version(capsys: Printed) -> None:
    assert main.run(["--version", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"version"}


def test_rows_are_a_table_or_an_array(capsys: Printed) -> None:
    rows: list[dict[str, object]] = [{"name": "a", "size_bytes": 1, "live": True}, {"name": "[b]", "size_bytes": None}]
    output.want_json(False)
    output.emit_rows(rows, ["name", "size_bytes", "live"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [["name", "size", "bytes", "live"], ["a", "1", "yes"], ["[b]", "-", "-"]]
    output.want_json(True)
    output.emit_rows(rows, ["name"])
    assert json.loads(capsys.readouterr().out) == rows
    output.want_json(False)


def test_notes_are_for_people_only(capsys: Printed) -> None:
    output.want_json(True)
    output.note("hello")
    output.want_json(False)
    output.note("there")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "there\n")


def test_every_group_that_is_there_offers_commands() -> None:
    for group in main.GROUPS:
        if main.present(group):
            module = importlib.import_module(group.module)
            assert isinstance(getattr(module, "app", None), typer.Typer) or callable(module.command), group.name


def test_starting_loads_nothing_that_it_does_not_need() -> None:
    code = (
        "import sys; from firstlight.cli.main import run; run([]); "
        "heavy = {'cryptography', 'httpx', 'starlette', 'uvicorn', 'amqtt', 'asyncio', 'sqlite3'} & set(sys.modules); "
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_it_runs_as_a_module_and_as_a_command() -> None:
    installed = Path(sys.executable).with_name("firstlight")
    for program in ([sys.executable, "-m", "firstlight"], [str(installed)]):
        done = subprocess.run(
            [*program, "--version"], capture_output=True, text=True, env=dict(os.environ), check=False
        )
        assert done.stdout.startswith("version: ")
