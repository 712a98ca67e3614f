"""What a target is, and what its inputs are grown from."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firstlight.encoding import Record
from firstlight.errors import FirstlightError

VECTORS = Path(__file__).parents[2] / "docs" / "vectors"
Parser = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Target:
    """A family of parsers, each of which gets every input, and the vectors (file names) that show it good ones."""

    name: str
    parsers: tuple[Parser, ...]
    vectors: tuple[str, ...] = ()
    more: tuple[bytes, ...] = ()

    def __call__(self, data: bytes) -> None:
        """Give ``data`` to every parser; whatever is no FirstlightError goes through."""
        for parser in self.parsers:
            try:
                parser(data)
            except FirstlightError:
                continue

    def seeds(self) -> list[bytes]:
        """Return good inputs, each once and in a fixed order."""
        found = [data for name in self.vectors for data in _strings(json.loads((VECTORS / f"{name}.json").read_text()))]
        return list(dict.fromkeys([*self.more, *found])) or [b""]


def _strings(value: Any) -> Iterator[bytes]:
    """Yield the byte strings, written as hexadecimal, anywhere in a vector."""
    if isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, str) and len(value) % 2 == 0 and not set(value) - set("0123456789abcdef"):
        yield bytes.fromhex(value)


def records(*modules: str) -> tuple[Parser, ...]:
    """Return the ``decode`` of every record that these modules, or those in these packages, define."""
    found: list[Parser] = []
    for name in modules:
        for module in _walk(name):
            members = vars(importlib.import_module(module)).values()
            kinds: list[Any] = [one for one in members if inspect.isclass(one) and issubclass(one, Record)]
            found += [kind.decode for kind in kinds if kind.__module__ == module and dataclasses.is_dataclass(kind)]
    return tuple(found)


def _walk(name: str) -> Iterator[str]:
    yield name
    for one in pkgutil.walk_packages(getattr(importlib.import_module(name), "__path__", ()), f"{name}."):
        yield one.name
