"""Mutations by a seed: what the bounded run grows its inputs by."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

_Change = Callable[[bytearray, random.Random], None]
_HEADS = bytes(
    [0x00, 0x17, 0x18, 0x1B, 0x20, 0x3B, 0x40, 0x58, 0x5F, 0x60, 0x80, 0x9B, 0x9F, 0xA0, 0xBB, 0xF6, 0xF9, 0xFF]
)
"""First bytes of CBOR items that lie at an edge; 0x7f and 0x80 bound lengths and varints elsewhere too."""


def _flip(data: bytearray, dice: random.Random) -> None:
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _edge(data: bytearray, dice: random.Random) -> None:
    data[dice.randrange(len(data))] = dice.choice(_HEADS)


def _step(data: bytearray, dice: random.Random) -> None:
    place = dice.randrange(len(data))
    data[place] = (data[place] + dice.choice((-1, 1))) & 0xFF


def _cut(data: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(data))
    del data[start : start + dice.randrange(1, 40)]


def _end(data: bytearray, dice: random.Random) -> None:
    del data[dice.randrange(len(data)) :]


def _insert(data: bytearray, dice: random.Random) -> None:
    place = dice.randrange(len(data))
    data[place:place] = dice.randbytes(dice.randrange(1, 12))


def _double(data: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(data))
    data[start:start] = data[start : start + dice.randrange(1, 80)]


def _nest(data: bytearray, dice: random.Random) -> None:
    place = dice.randrange(len(data))
    data[place:place] = dice.choice((b"\x81", b"[", b"\xd8\x20", b"\xa1\x00", b'{"a":')) * dice.randrange(1, 2000)


_CHANGES: Sequence[_Change] = (_flip, _flip, _edge, _edge, _step, _step, _cut, _end, _insert, _double)


def mutated(seeds: Sequence[bytes], dice: random.Random) -> bytes:
    """Return one of ``seeds``, changed in one to four places, rarely spliced with another or nested deeply."""
    data = bytearray(dice.choice(seeds))
    if dice.random() < 0.05:
        other = dice.choice(seeds)
        data[dice.randrange(len(data) + 1) :] = other[dice.randrange(len(other) + 1) :]
    for _ in range(dice.randrange(1, 5)):
        if not data:
            data += dice.randbytes(dice.randrange(1, 16))
        (_nest if dice.random() < 0.01 else dice.choice(_CHANGES))(data, dice)
    return bytes(data)
