"""Logs as JSON lines, into a file of the state directory and to stderr.

A line says when, which role, which exchange and which code. Fields come from an allow-list, so that a key, a
plan, a salt or an IMSI has no way in: identifiers are shown by their first eight bytes, free text has every
long run of hexadecimal or decimal digits and of base64 cut out.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Protocol, TextIO

from firstlight.errors import ConfigError, FirstlightError, StoreError
from firstlight.files import PRIVATE_FILE, private_directory
from firstlight.ports import Clock

LOG_FILE = "log.jsonl"
IDENTIFIERS = frozenset({"exchange", "transaction", "party", "batch", "peer"})
"""Fields that take bytes or their hexadecimal; the first eight bytes are shown."""
NUMBERS = frozenset({"height", "tenure", "revision", "count", "status", "ms", "attempt", "pid", "size", "version"})
WORDS = frozenset({"step", "method", "path", "url", "error", "logger"})
"""Fields that take short names, never values."""
TEXT = frozenset({"detail", "hint"})
FIELDS = IDENTIFIERS | NUMBERS | WORDS | TEXT
_AS_JSON = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode
_SHOWN = 8
_LONGEST = 240
_HEX = re.compile(r"([0-9a-f]{2}){8,}")
_CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_DIGITS = re.compile(r"[0-9A-Fa-f]{14,}")
_BASE64 = re.compile(r"(?=[A-Za-z+/_=-]*[0-9])(?=[a-z0-9+/_=-]*[A-Z])(?=[A-Z0-9+/_=-]*[a-z])[A-Za-z0-9+/_=-]{22,}")


class Sink(Protocol):
    """Where a rendered line goes."""

    def write(self, line: str, /) -> object:
        """Take one line, or several, newlines included."""
        ...


class Log:
    """One role's log. Levels: info, warning, error."""

    def __init__(self, role: str, clock: Clock, *sinks: Sink) -> None:
        """Write lines of ``role`` to all ``sinks``."""
        self._role = role
        self._clock = clock
        self._sinks = sinks

    def info(self, code: str, **fields: object) -> None:
        """Say that something happened as it should."""
        self._write("info", code, fields)

    def warning(self, code: str, **fields: object) -> None:
        """Say that something was refused or tried again."""
        self._write("warning", code, fields)

    def error(self, code: str, **fields: object) -> None:
        """Say that something went wrong that should not."""
        self._write("error", code, fields)

    def refusal(self, error: FirstlightError, **fields: object) -> None:
        """Log an error of our own tree by its code and detail."""
        self._write("warning", error.code, {"error": type(error).__name__, "detail": error.detail, **fields})

    @contextlib.contextmanager
    def gathered(self) -> Iterator[Log]:
        """Have a log whose lines are written at the end of the block, at once: a write costs more than a line."""
        lines = _Lines()
        yield Log(self._role, self._clock, lines)
        for sink in self._sinks if lines.lines else ():
            sink.write("".join(lines.lines))

    def _write(self, level: str, code: str, fields: dict[str, object]) -> None:
        line = render(self._clock.now(), level, self._role, code, fields)
        for sink in self._sinks:
            sink.write(line)


class _Lines:
    """A sink that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str, /) -> None:
        self.lines.append(line)


def render(now_ns: int, level: str, role: str, code: str, fields: dict[str, object]) -> str:
    """Return one line of log, newline included.

    Raises :class:`ConfigError` (``unloggable``) for a field that is not on the list or a value that does not
    belong in it: that is a mistake in the program, and no log is better than a leaking one.
    """
    if not _CODE.fullmatch(code):
        raise ConfigError("unloggable", "a code is lower-case words joined by hyphens")
    seconds, rest = divmod(now_ns, 1_000_000_000)
    line: dict[str, object] = {
        "time": f"{_stamp(seconds)}.{rest // 1000:06d}Z",
        "level": level,
        "role": role,
        "code": code,
    }
    for name, value in fields.items():
        if value is not None:
            line[name] = _shown(name, value)
    return _AS_JSON(line) + "\n"


@lru_cache(maxsize=4)
def _stamp(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _shown(name: str, value: object) -> str | int | float:
    if name in IDENTIFIERS and isinstance(value, bytes):
        return value[:_SHOWN].hex()
    if name in IDENTIFIERS and isinstance(value, str) and _HEX.fullmatch(value):
        return value[: 2 * _SHOWN]
    if name in NUMBERS and isinstance(value, int | float):
        return value
    if name in WORDS | TEXT | IDENTIFIERS and isinstance(value, str):
        return masked(value)
    raise ConfigError("unloggable", f"no field {name!r} of {type(value).__name__} in a log")


def masked(text: str) -> str:
    """Return ``text``, cut to 240 characters, without anything long enough to be a key, a salt or an IMSI."""
    return _BASE64.sub("…", _DIGITS.sub("…", text[: 4 * _LONGEST]))[:_LONGEST]


class LogFile:
    """A file, 0600, that lines are appended to; no line is ever cut in two by another process's."""

    def __init__(self, path: Path) -> None:
        """Open ``path`` for appending; :class:`StoreError` (``file-not-written``)."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._descriptor = os.open(path, flags, PRIVATE_FILE)
            os.fchmod(self._descriptor, PRIVATE_FILE)
        except OSError as error:
            raise StoreError("file-not-written", f"{path}: {error.strerror or error}") from error

    def write(self, line: str, /) -> None:
        """Append ``line``, or several, in one write."""
        os.write(self._descriptor, line.encode())

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def open_log(state_dir: Path, role: str, clock: Clock, *, stderr: TextIO | None = None, quiet: bool = False) -> Log:
    """Return the log of ``role`` in ``state_dir`` (``log.jsonl``); also to ``stderr`` unless ``quiet``."""
    file = LogFile(private_directory(state_dir) / LOG_FILE)
    return Log(role, clock, file) if quiet else Log(role, clock, file, stderr or sys.stderr)


class _Bridge(logging.Handler):
    """Carries what libraries log, from warnings up, into a :class:`Log`."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        detail = record.getMessage()
        error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        write = self._log.error if record.levelno >= logging.ERROR else self._log.warning
        write("library", logger=record.name, detail=detail, error=error)


def adopt_libraries(log: Log) -> None:
    """Send what libraries log through Python's ``logging`` to ``log``; nothing below a warning, no tracebacks."""
    root = logging.getLogger()
    root.handlers[:] = [_Bridge(log)]
    root.setLevel(logging.WARNING)
