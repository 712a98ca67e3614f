"""The documentation is true: every command in the README runs, every page of help in the docs is the real one.

``python tests/test_docs.py`` writes ``docs/commands.md`` anew.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from firstlight.cli import main

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "commands.md"
# The checks are what is running already; inside a test they run over one small file.
SMALL = "tests/unit/test_files.py"
WIDTH = 100


def readme_commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("command", readme_commands())
def test_every_command_of_the_readme_runs(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "bin/test":
        words.append(SMALL)
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "FIRSTLIGHT_"))}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1_200, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_the_readme_starts_with_the_two_commands() -> None:
    assert readme_commands()[:2] == ["bin/demo", "bin/test"]
    assert (ROOT / "README.md").read_text().index("bin/demo") < 400


def test_links_and_paths_of_the_readme_are_there() -> None:
    for path in re.findall(r"`((?:docs|src|tests|bench|bin)/[a-z./]*)`", (ROOT / "README.md").read_text()):
        assert (ROOT / path).exists(), path


def pages() -> Iterator[list[str]]:
    """Yield the words that lead to every page of help."""
    yield []
    for group in main.GROUPS:
        if main.present(group):
            yield from _below(typer.main.get_command(main.build(group.name)).commands[group.name], [group.name])  # type: ignore[attr-defined]


def _below(command: Any, words: list[str]) -> Iterator[list[str]]:
    yield words
    for name, inner in getattr(command, "commands", {}).items():
        yield from _below(inner, [*words, name])


def page(words: list[str], environment: dict[str, str]) -> str:
    runner = CliRunner(env={**environment, "_TYPER_FORCE_DISABLE_TERMINAL": "1"})
    app = main.build(words[0] if words else None)
    done = runner.invoke(app, [*words, "--help"], prog_name="firstlight")
    assert done.exit_code == 0, done.output
    return "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines())


def render() -> str:
    parts = ["# Commands\n", "Every page of `firstlight --help`; a test keeps this file current.\n"]
    environment = {"COLUMNS": str(WIDTH), "NO_COLOR": "1", "TERM": "dumb"}
    parts += [f"## {' '.join(['firstlight', *words])}\n\n```\n{page(words, environment)}\n```\n" for words in pages()]
    return "\n".join(parts)


def test_the_installed_command_prints_those_pages() -> None:
    program = str(Path(sys.executable).with_name("firstlight"))
    environment = {"PATH": "/usr/bin:/bin", "COLUMNS": str(WIDTH), "NO_COLOR": "1", "TERM": "dumb", "LC_ALL": "C.UTF-8"}
    for words in ([], ["owner", "deploy"]):
        done = subprocess.run([program, *words, "--help"], env=environment, capture_output=True, text=True, check=True)
        text = "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines())
        assert f"```\n{text}\n```" in PAGES.read_text()


def test_every_page_of_help_in_the_docs_is_the_real_one() -> None:
    assert PAGES.read_text() == render(), "write it anew: python tests/test_docs.py"


def test_every_command_says_what_it_does() -> None:
    for words in pages():
        command: Any = typer.main.get_command(main.build(words[0] if words else None))
        for word in words:
            command = command.commands[word]
        assert command.help, f"firstlight {' '.join(words)} has no help"


if __name__ == "__main__":
    PAGES.write_text(render())
