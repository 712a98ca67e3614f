"""Runs ``firstlight …`` commands as a person would, and reads their JSON."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from firstlight.cli.processes import deferred
from firstlight.errors import FirstlightError, TransportError

PROGRAM = (sys.executable, "-m", "firstlight")
ENVIRONMENT: Mapping[str, str] = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
TIMEOUT = 600


class CommandError(FirstlightError):
    """A command of the demo that failed; ``code`` is the command's own."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command printed with ``--json``."""

    values: Mapping[str, Any]

    def text(self, key: str) -> str:
        """Return a string; :class:`TransportError` (``bad-answer``) if there is none."""
        value = self.values.get(key)
        if not isinstance(value, str):
            raise TransportError("bad-answer", f"no text {key!r} in {sorted(self.values)}")
        return value

    def number(self, key: str) -> int:
        """Return an integer; ``bad-answer`` if there is none."""
        value = self.values.get(key)
        if not isinstance(value, int):
            raise TransportError("bad-answer", f"no number {key!r} in {sorted(self.values)}")
        return value


def arguments(*words: object) -> list[str]:
    """Return the command line of ``firstlight`` with ``words``."""
    return [*PROGRAM, *(str(word) for word in words)]


def run(*words: object) -> Answer:
    """Run one command to its end and return its answer; :class:`CommandError` with what it said if it failed."""
    (answer,) = run_together(words)
    return answer


def run_together(*commands: tuple[object, ...]) -> list[Answer]:
    """Run commands beside each other and return their answers, in order; none of them outlives an interruption.

    Raises :class:`CommandError` with what the first one said that failed, or ``command-late``.
    """
    started: list[subprocess.Popen[bytes]] = []
    try:
        for words in commands:
            with deferred():
                started.append(_start(words))
        said = [process.communicate(timeout=TIMEOUT) for process in started]
    except subprocess.TimeoutExpired as error:
        raise CommandError("command-late", f"not within {TIMEOUT} s: {' '.join(error.cmd)}") from error
    finally:
        for process in started:
            process.kill()
        for process in started:
            with process:
                process.wait()
    for words, process, (output, errors) in zip(commands, started, said, strict=True):
        if process.returncode != 0:
            raise _failure(words, output, errors)
    return [Answer(_last_object(output)) for output, _ in said]


def _start(words: tuple[object, ...]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own program, arguments as a list
        arguments(*words, "--json"),
        env=dict(ENVIRONMENT),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _last_object(output: bytes) -> dict[str, Any]:
    try:
        value = json.loads(output)
    except ValueError as error:
        raise TransportError("bad-answer", f"not JSON: {output[:200]!r}") from error
    return value if isinstance(value, dict) else {"items": value}


def _failure(words: tuple[object, ...], output: bytes, errors: bytes) -> CommandError:
    name = " ".join(str(word) for word in words[:2])
    said = (errors.strip() or output.strip()).decode(errors="replace")
    for line in reversed(said.splitlines()):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            value = json.loads(line)
            return CommandError(value["code"], f"firstlight {name}: {value['detail']}", hint=value["hint"])
    return CommandError("command-failed", f"firstlight {name}: {said[-1500:]}")
