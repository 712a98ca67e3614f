"""CDDL (RFC 8610) from the classes that define the messages, so that the page cannot say anything else."""

from __future__ import annotations

import re
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Annotated, Any

from firstlight.encoding import (
    UINT_MAX,
    Bytes8,
    Bytes16,
    Bytes32,
    Bytes33,
    Bytes64,
    ChainId,
    Count,
    Gapped,
    Packed,
    Range,
    Record,
    Seconds,
    Size,
    Text,
    Uint32,
    Uri,
)
from firstlight.ledger.records import Model

Entry = type | str
"""A class to write a rule for, or CDDL as it stands."""
ALIASES: Mapping[Any, str] = {
    Bytes8: "bytes8",
    Bytes16: "bytes16",
    Bytes32: "bytes32",
    Bytes33: "bytes33",
    Bytes64: "bytes64",
    ChainId: "chain-id",
    Uri: "uri-text",
    Uint32: "uint32",
    Seconds: "seconds",
    Model: "model",
}
WIDTH = 110


def kebab(name: str) -> str:
    """Return a class's or field's name as CDDL writes it: ``BundleRequest`` and ``known_root`` with hyphens."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", "-", name.strip("_")).lower()


class Rules:
    """Which class has which rule; a class must have one before others may refer to it."""

    def __init__(self, sections: Mapping[str, Sequence[Entry]], names: Mapping[type, str]) -> None:
        """Take the sections of the page; ``names`` are of classes that cannot go by their own."""
        self._names = {
            entry: names.get(entry, kebab(entry.__name__))
            for entries in sections.values()
            for entry in entries
            if isinstance(entry, type)
        }
        taken = list(self._names.values())
        doubled = {name for name in taken if taken.count(name) > 1}
        if doubled:
            raise ValueError(f"two classes with one rule: {sorted(doubled)}")
        self._sections = sections

    @property
    def classes(self) -> set[type]:
        """All classes that have a rule."""
        return set(self._names)

    def section(self, name: str) -> str:
        """Return the rules of one section."""
        return "\n\n".join(self._rule(entry) for entry in self._sections[name])

    def _rule(self, entry: Entry) -> str:
        if isinstance(entry, str):
            return textwrap.dedent(entry).strip("\n")
        name = self._names[entry]
        if issubclass(entry, Enum):
            members = ", ".join(f"{kebab(member.name)}: {_literal(member.value)}" for member in entry)
            return "\n".join([*comment(entry), f"{name} = &({members})"])
        hints = typing.get_type_hints(entry, include_extras=True)
        rows = [self._field(name, hints[name]) for name in field_names(entry)]
        return "\n".join([*comment(entry), f"{name} = [", *rows, "]"]) if rows else f"{name} = []"

    def _field(self, name: str, hint: Any) -> str:
        row = f"  {kebab(name)}: {self.type(hint)},"
        note = _note(hint)
        return f"{row} ; {note}" if note else row

    def type(self, hint: Any) -> str:
        """Return the CDDL type of a field of type ``hint``."""
        if hint in ALIASES:
            return ALIASES[hint]
        bound: Any = None
        if typing.get_origin(hint) is Annotated:
            hint, bound = typing.get_args(hint)[:2]
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin is tuple:
            return self._tuple(arguments, bound)
        if origin in (types.UnionType, typing.Union):
            (kind,) = [one for one in arguments if one is not type(None)]
            return f"{self.type(kind)} / null"
        if hint in self._names:
            return self._names[hint]
        return _plain(hint, bound)

    def _tuple(self, arguments: tuple[Any, ...], bound: Any) -> str:
        if isinstance(bound, Packed):
            return f"bytes .size {_span(bound.low * bound.size, bound.high * bound.size)}"
        if isinstance(bound, Gapped):
            return f"bytes .size (2..{2 + (bound.high + 7) // 8 + bound.high * bound.size})"
        if isinstance(bound, Count):
            inner = self.type(arguments[0])
            inner = f"({inner})" if " / " in inner else inner
            times = str(bound.low) if bound.low == bound.high else f"{bound.low}*{bound.high}"
            return f"[{times if '*' in times else f'{times}*{times}'} {inner}]"
        return f"[{', '.join(self.type(one) for one in arguments)}]"


def field_names(entry: type) -> tuple[str, ...]:
    """Return the names of a record's fields, in order; none for what is no record."""
    return tuple(field.name for field in fields(entry)) if is_dataclass(entry) else ()


def comment(entry: type) -> list[str]:
    """Return the docstring of a class as comment lines, without what it raises and how it is marked up."""
    names = field_names(entry)
    paragraphs = [" ".join(one.split()) for one in textwrap.dedent(entry.__doc__ or "").split("\n\n")]
    lines: list[str] = []
    for paragraph in paragraphs:
        text = re.sub(r"\s*(?:Building one raises|Raises) :class:.*$", "", paragraph)
        text = re.sub(r":class:`~?(?:[\w.]*\.)?(\w+)`", lambda match: kebab(match[1]), text)
        text = re.sub(r":[a-z]+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text)
        text = re.sub(r"``(\w+)``", lambda match: kebab(match[1]) if match[1] in names else match[1], text)
        text = text.replace("``", "")
        if text and not text.startswith(f"{entry.__name__}("):
            lines += textwrap.wrap(text, WIDTH, initial_indent="; ", subsequent_indent="; ")
    return lines


def _plain(hint: Any, bound: Any) -> str:
    if hint is bytes and isinstance(bound, Size):
        return f"bytes .size {_span(bound.low, bound.low if bound.high is None else bound.high)}"
    if hint is int and isinstance(bound, Range):
        return _integer(bound)
    if hint is str and isinstance(bound, Text):
        return "tstr" if "(?" in bound.pattern else f"tstr .regexp {_quoted(bound.pattern)}"
    if hint is bool:
        return "bool"
    raise TypeError(f"no rule for {hint!r} with bound {bound!r}")


def _integer(bound: Range) -> str:
    if bound.low == bound.high:
        return str(bound.low)
    if bound.low == 0 and bound.high == UINT_MAX:
        return "uint"
    return f"{bound.low}..{bound.high}"


def _note(hint: Any) -> str:
    """Return what CDDL cannot say about a field."""
    if typing.get_origin(hint) is Annotated:
        bound = typing.get_args(hint)[1]
        if isinstance(bound, Packed):
            count = str(bound.low) if bound.low == bound.high else f"{bound.low} to {bound.high}"
            return f"{count} times {bound.size} bytes, one after the other"
        if isinstance(bound, Gapped):
            return f"a gapped list of at most {bound.high} times {bound.size} bytes"
        if isinstance(bound, Text) and "(?" in bound.pattern:
            return f"matches {bound.pattern}"
    return ""


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"({low}..{high})"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _literal(value: object) -> str:
    return _quoted(value) if isinstance(value, str) else str(value)


def records(module: types.ModuleType) -> list[type[Record]]:
    """Return the records that a module defines."""
    return [
        one
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, Record) and one.__module__ == module.__name__
    ]
