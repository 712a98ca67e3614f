"""Messages of CoAP (RFC 7252 §3): parsed strictly, bounded before anything else.

A message that breaks the format raises :class:`MalformedError`: ``too-short``, ``wrong-version``, ``too-large``,
``bad-token``, ``bad-option``, ``too-many-options``, ``empty-payload``, ``not-empty``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from firstlight.errors import MalformedError

MAX_DATAGRAM = 1_280
"""Bytes of a message: a block of 1,024 and its options fit (RFC 7252 §4.6 has 1,152)."""
MAX_OPTIONS = 48
MAX_TOKEN = 8
BIGGEST = 6
"""The exponent of blocks of 1,024 bytes, the biggest over UDP (RFC 7959 §2.2)."""
_MARKER = 0xFF
_EXTENDED_1, _EXTENDED_2, _RESERVED = 13, 14, 15


class Type(IntEnum):
    """RFC 7252 §4.2, §4.3."""

    CON = 0
    NON = 1
    ACK = 2
    RST = 3


class Option(IntEnum):
    """Options that are understood (RFC 7252 §5.10, RFC 7959, RFC 9175)."""

    URI_HOST = 3
    ETAG = 4
    URI_PORT = 7
    URI_PATH = 11
    CONTENT_FORMAT = 12
    MAX_AGE = 14
    URI_QUERY = 15
    ACCEPT = 17
    BLOCK2 = 23
    BLOCK1 = 27
    SIZE2 = 28
    PROXY_URI = 35
    PROXY_SCHEME = 39
    SIZE1 = 60
    ECHO = 252
    REQUEST_TAG = 292


EMPTY = 0


@dataclass(frozen=True, slots=True)
class Block:
    """The value of a Block option: number, whether more follow, exponent of the size (RFC 7959 §2.2)."""

    number: int
    more: bool
    exponent: int

    @property
    def size(self) -> int:
        """Bytes of a block."""
        return 16 << self.exponent

    @property
    def start(self) -> int:
        """Where the block begins."""
        return self.number * self.size

    def encode(self) -> bytes:
        """Return the value."""
        return encode_uint(self.number << 4 | self.more << 3 | self.exponent)

    @classmethod
    def decode(cls, value: bytes) -> Block:
        """Return the block; :class:`MalformedError` (``bad-block``) for the reserved size."""
        number = int.from_bytes(value)
        if len(value) > 3 or number & 7 > BIGGEST:
            raise MalformedError("bad-block", "a block size that UDP does not have")
        return cls(number >> 4, bool(number & 8), number & 7)


@dataclass(frozen=True, slots=True)
class Message:
    """A message; ``code`` is class · 32 + detail, options are pairs of number and value."""

    type: Type
    code: int
    mid: int
    token: bytes = b""
    options: tuple[tuple[int, bytes], ...] = ()
    payload: bytes = b""

    @property
    def is_request(self) -> bool:
        """Whether the code is a method."""
        return 0 < self.code < 32

    @property
    def is_response(self) -> bool:
        """Whether the code is that of a response."""
        return 64 <= self.code < 192

    def value(self, number: Option) -> bytes | None:
        """Return the value of an option's first occurrence."""
        return next((value for known, value in self.options if known == number), None)

    def values(self, number: Option) -> Iterator[bytes]:
        """Iterate over the values of an option."""
        return (value for known, value in self.options if known == number)

    def block(self, number: Option) -> Block | None:
        """Return the value of a Block option; :class:`MalformedError` (``bad-block``)."""
        value = self.value(number)
        return None if value is None else Block.decode(value)

    def encode(self) -> bytes:
        """Return the bytes of the message."""
        data = bytearray((0x40 | self.type << 4 | len(self.token), self.code))
        data += self.mid.to_bytes(2) + self.token
        last = 0
        for number, value in sorted(self.options, key=lambda one: one[0]):
            delta, more_delta = _nibble(number - last)
            length, more_length = _nibble(len(value))
            data.append(delta << 4 | length)
            data += more_delta + more_length + value
            last = number
        if self.payload:
            data.append(_MARKER)
            data += self.payload
        return bytes(data)


def encode_uint(value: int) -> bytes:
    """Return a number in as few bytes as it needs (RFC 7252 §3.2)."""
    return value.to_bytes((value.bit_length() + 7) // 8)


def empty(kind: Type, mid: int) -> bytes:
    """Return an empty message: an acknowledgement, a reset, or a ping."""
    return Message(kind, EMPTY, mid).encode()


def parse(data: bytes) -> Message:
    """Parse a datagram; :class:`MalformedError` as the module says."""
    if len(data) < 4:
        raise MalformedError("too-short", f"{len(data)} bytes")
    if data[0] >> 6 != 1:
        raise MalformedError("wrong-version", "not version 1")
    if len(data) > MAX_DATAGRAM:
        raise MalformedError("too-large", f"{len(data)} bytes, at most {MAX_DATAGRAM}")
    length, code = data[0] & 15, data[1]
    if length > MAX_TOKEN or len(data) < 4 + length:
        raise MalformedError("bad-token", "longer than it may be, or than the message")
    if code == EMPTY and len(data) > 4:
        raise MalformedError("not-empty", "an empty message with something in it")
    options, at = _options(data, 4 + length)
    if at == len(data) - 1:
        raise MalformedError("empty-payload", "a marker with nothing behind it")
    token, payload = data[4 : 4 + length], data[at + 1 :]
    return Message(Type(data[0] >> 4 & 3), code, int.from_bytes(data[2:4]), token, options, payload)


def _options(data: bytes, at: int) -> tuple[tuple[tuple[int, bytes], ...], int]:
    """Return the options, and where the payload marker is or the message ends."""
    found: list[tuple[int, bytes]] = []
    number = 0
    while at < len(data) and data[at] != _MARKER:
        if len(found) == MAX_OPTIONS:
            raise MalformedError("too-many-options", f"more than {MAX_OPTIONS}")
        first = data[at]
        delta, at = _extended(data, at + 1, first >> 4)
        length, at = _extended(data, at, first & 15)
        number += delta
        if len(data) < at + length or number > 65_535:
            raise MalformedError("bad-option", "longer than the message, or of no number")
        found.append((number, data[at : at + length]))
        at += length
    return tuple(found), at


def _extended(data: bytes, at: int, nibble: int) -> tuple[int, int]:
    """Return a delta or length, and where it ends."""
    if nibble < _EXTENDED_1:
        return nibble, at
    size = nibble - 12
    if nibble == _RESERVED or len(data) < at + size:
        raise MalformedError("bad-option", "reserved, or cut short")
    return int.from_bytes(data[at : at + size]) + (13 if size == 1 else 269), at + size


def _nibble(value: int) -> tuple[int, bytes]:
    if value < 13:
        return value, b""
    if value < 269:
        return _EXTENDED_1, (value - 13).to_bytes(1)
    return _EXTENDED_2, (value - 269).to_bytes(2)
