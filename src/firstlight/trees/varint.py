"""Lists of small integers as bytes: unsigned LEB128 (DWARF 5 §7.6), always in the shortest form."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from firstlight.errors import MalformedError

MAX_VALUE = 2**32 - 1
_TOKEN = re.compile(rb"[\x80-\xff]*[\x00-\x7f]")
_MAX_BYTES = 5
_ONE_BYTE = 0x80


def pack(values: Sequence[int]) -> bytes:
    """Return the integers, each 0 to 2³²-1 (``bad-varint``), one after the other."""
    if values and min(values) >= 0 and max(values) < _ONE_BYTE:
        return bytes(values)
    return b"".join([_write(value) for value in values])


def unpack(data: bytes) -> list[int]:
    """Return the integers in ``data``.

    Raises :class:`MalformedError`: ``bad-varint`` (cut short, longer than need be, beyond 2³²-1).
    """
    if data.isascii():
        return list(data)
    if data[-1] >= _ONE_BYTE:
        raise MalformedError("bad-varint", "the last integer is cut short")
    return [_read(token) for token in _TOKEN.findall(data)]


@lru_cache(maxsize=4096)
def _write(value: int) -> bytes:
    if not 0 <= value <= MAX_VALUE:
        raise MalformedError("bad-varint", f"{value} is not from 0 to {MAX_VALUE}")
    out = bytearray()
    while value >= _ONE_BYTE:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@lru_cache(maxsize=4096)
def _read(token: bytes) -> int:
    if len(token) > _MAX_BYTES or (len(token) > 1 and token[-1] == 0):
        raise MalformedError("bad-varint", "an integer is longer than need be")
    value = 0
    for byte in reversed(token):
        value = value << 7 | byte & 0x7F
    if value > MAX_VALUE:
        raise MalformedError("bad-varint", f"an integer is beyond {MAX_VALUE}")
    return value
