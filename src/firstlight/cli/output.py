"""What commands print: for people by default, one JSON value with ``--json``; errors with cause and what to do.

Exit codes: 0 done; 1 refused or failed; 2 wrong usage or settings; 3 something must be installed first; 130 Ctrl-C.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from enum import Enum

from firstlight.errors import ConfigError, FirstlightError

FAILED = 1
USAGE = 2
PREREQUISITE = 3
INTERRUPTED = 130
_JSON: ContextVar[bool] = ContextVar("json", default=False)


class MissingError(ConfigError):
    """Something that must be installed first; ends a command with exit code 3."""


def want_json(wanted: bool) -> None:
    """Say whether this run prints JSON."""
    _JSON.set(wanted)


def json_wanted() -> bool:
    """Return whether this run prints JSON."""
    return _JSON.get()


def emit(value: Mapping[str, object], text: str | None = None) -> None:
    """Print a command's result: ``value`` as one JSON object, or for people ``text`` (without one, a line a key)."""
    if json_wanted():
        line = json.dumps(plain(value))
    else:
        line = text if text is not None else "\n".join(f"{_words(key)}: {_shown(item)}" for key, item in value.items())
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def emit_rows(rows: Iterable[Mapping[str, object]], columns: Sequence[str]) -> None:
    """Print a list of results: a JSON array of objects, or for people a table of ``columns``."""
    listed = [dict(row) for row in rows]
    if json_wanted():
        sys.stdout.write(json.dumps(plain(listed)) + "\n")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*(_words(column) for column in columns), box=None, pad_edge=False)
    for row in listed:
        table.add_row(*(_shown(row.get(column)) for column in columns))
    Console(file=sys.stdout, markup=False, emoji=False).print(table)


def note(text: str) -> None:
    """Tell people what is going on, on stderr; nothing with ``--json``."""
    if not json_wanted():
        sys.stderr.write(text + "\n")


def plain(value: object) -> object:
    """Return ``value`` as JSON can hold it; bytes become hexadecimal."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)


def _words(key: str) -> str:
    return key.replace("_", " ")


def _shown(value: object) -> str:
    value = plain(value)
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value)


def exit_code(error: FirstlightError) -> int:
    """Return the exit code that an error ends a command with."""
    if isinstance(error, MissingError):
        return PREREQUISITE
    return USAGE if isinstance(error, ConfigError) else FAILED


def print_error(error: FirstlightError) -> None:
    """Print an error on stderr: code, cause and what to do; as one JSON object with ``--json``."""
    if json_wanted():
        text = json.dumps({"code": error.code, "detail": error.detail, "hint": error.hint})
    else:
        lines = [f"error: {error.code}"]
        if error.detail:
            lines.append(f"  cause: {error.detail}")
        if error.hint:
            lines.append(f"  what to do: {error.hint}")
        text = "\n".join(lines)
    sys.stderr.write(text + "\n")
