"""Runs ``firstlight …`` commands as a person would, and reads their JSON."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
    done = subprocess.run(  # noqa: S603 - our own program, arguments as a list
        arguments(*words, "--json"),
        env=dict(ENVIRONMENT),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode != 0:
        raise _failure(words, done.stdout, done.stderr)
    return Answer(_last_object(done.stdout))


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
