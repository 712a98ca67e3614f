"""Extended diagnostic notation (RFC 8949 §8, RFC 8610 appendix G) with the names of fields as comments."""

from __future__ import annotations

import textwrap
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any

from scripts.protocol.cddl import kebab

from firstlight.encoding import Packed, Record, Tagged, decode
from firstlight.errors import MalformedError

WIDTH = 110
TAGS = (1, 32, 501, 506, 553, 560)
LIMIT = 1 << 20
_EMBEDDED = 6
_INDENT = "  "


@dataclass(frozen=True, slots=True)
class Items:
    """An array whose items have these names and types."""

    names: tuple[str, ...]
    kinds: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Members:
    """A map whose keys mean this."""

    names: Mapping[Any, str]


HEADER = Members({1: "alg", 4: "kid", 16: "typ"})


@dataclass(frozen=True, slots=True)
class Sealed:
    """A byte string that holds the CBOR of this type."""

    kind: Any


def sign1(content: Any) -> Items:
    """Return the type of a COSE_Sign1 over ``content``."""
    return Items(("protected", "unprotected", "payload", "signature"), (Sealed(HEADER), None, Sealed(content), None))


def many(content: Any) -> Items:
    """Return the type of a COSE_Sign over ``content``."""
    one = Items(("protected", "unprotected", "signature"), (Sealed(HEADER), None, None))
    return Items(
        ("protected", "unprotected", "payload", "signatures"),
        (Sealed(HEADER), None, Sealed(content), Annotated[tuple[Any, ...], one]),
    )


def diagnose(data: bytes, kind: Any = None) -> str:
    """Return the notation of the CBOR ``data``; ``kind`` is a record, :class:`Items` and the like, or None."""
    return _render(decode(data, limit=LIMIT, tags=TAGS), kind)


def _render(value: Any, kind: Any) -> str:
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        kind = next(one for one in typing.get_args(kind) if one is not type(None))
    if isinstance(value, bytes):
        return _bytes(value, kind)
    if isinstance(value, list):
        return _list(value, kind)
    if isinstance(value, dict):
        names = kind.names if isinstance(kind, Members) else {}
        parts = [f"{_note(names.get(key))}{_render(key, None)}: {_render(one, None)}" for key, one in value.items()]
        return _join("{", parts, "}")
    if isinstance(value, Tagged):
        inner = _render(value.value, None)
        return f"{value.number}({inner})"
    if isinstance(value, str):
        return f'"{value}"'
    return {None: "null", True: "true", False: "false"}[value] if value is None or type(value) is bool else str(value)


def _list(value: list[Any], kind: Any) -> str:
    names, kinds = _items(kind, len(value))
    parts = [f"{_note(name)}{_render(one, of)}" for name, of, one in zip(names, kinds, value, strict=True)]
    return _join("[", parts, "]")


def _items(kind: Any, count: int) -> tuple[tuple[str | None, ...], tuple[Any, ...]]:
    """Return names and types of the items of an array."""
    if isinstance(kind, type) and issubclass(kind, Record):
        hints = typing.get_type_hints(kind, include_extras=True)
        names = tuple(field.name for field in fields(kind))  # type: ignore[arg-type]
        return tuple(kebab(name) for name in names), tuple(hints[name] for name in names)
    if isinstance(kind, Items):
        return kind.names, kind.kinds
    inner: Any = None
    if typing.get_origin(kind) is Annotated:
        bare, bound = typing.get_args(kind)[:2]
        inner = bound if isinstance(bound, Items) else (typing.get_args(bare) or (None,))[0]
    return (None,) * count, (inner,) * count


def _bytes(value: bytes, kind: Any) -> str:
    if isinstance(kind, Sealed) or (len(value) >= _EMBEDDED and _is_cbor(value)):
        content = _render(decode(value, limit=LIMIT, tags=TAGS), kind.kind if isinstance(kind, Sealed) else None)
        return _join("<< ", [content], " >>")
    step = 32 if _is_packed(kind) else 48
    if len(value) <= step:
        return f"h'{value.hex()}'"
    rows = [value[at : at + step].hex() for at in range(0, len(value), step)]
    return "h'" + f"\n{_INDENT}".join(rows) + "'"


def _is_packed(kind: Any) -> bool:
    return typing.get_origin(kind) is Annotated and isinstance(typing.get_args(kind)[1], Packed)


def _is_cbor(value: bytes) -> bool:
    """Say whether a byte string holds an array, a map or a tagged value, and nothing more."""
    if not (0x81 <= value[0] <= 0x9B or 0xA1 <= value[0] <= 0xBB or 0xD8 <= value[0] <= 0xD9):
        return False
    try:
        decode(value, limit=LIMIT, tags=TAGS)
    except MalformedError:
        return False
    return True


def _note(name: str | None) -> str:
    return f"/ {name} / " if name else ""


def _join(start: str, parts: list[str], end: str) -> str:
    line = f"{start}{', '.join(parts)}{end}"
    if len(line) <= WIDTH and "\n" not in line:
        return line
    if start == "<< ":
        return f"<<\n{textwrap.indent(parts[0], _INDENT)}\n>>"
    rows = ",\n".join(parts)
    return f"{start}\n{textwrap.indent(rows, _INDENT)}\n{end}"
