"""The little of protobuf that CometBFT's hashes and sign bytes need (proto3 wire format, writing only).

Fields of value zero or empty are left out, as proto3 prescribes; an embedded message that CometBFT
declares non-nullable is written even when it is empty.
"""

from __future__ import annotations

_VARINT, _FIXED64, _BYTES = 0, 1, 2
_YEAR_ONE = -62_135_596_800
"""Unix seconds of 0001-01-01T00:00:00Z, which is how Go writes a time that was never set."""


def varint(value: int) -> bytes:
    """Return a base-128 varint; a negative number as its 64-bit two's complement."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def integer(number: int, value: int) -> bytes:
    """Return an integer or enum field, or nothing for zero."""
    return varint(number << 3 | _VARINT) + varint(value) if value else b""


def fixed64(number: int, value: int) -> bytes:
    """Return an sfixed64 field, or nothing for zero."""
    return varint(number << 3 | _FIXED64) + value.to_bytes(8, "little", signed=True) if value else b""


def blob(number: int, value: bytes) -> bytes:
    """Return a bytes or string field, or nothing when it is empty."""
    return message(number, value) if value else b""


def message(number: int, value: bytes) -> bytes:
    """Return an embedded message field, even when it is empty."""
    return varint(number << 3 | _BYTES) + varint(len(value)) + value


def timestamp(time: int | None) -> bytes:
    """Return a ``google.protobuf.Timestamp`` of Unix nanoseconds; ``None`` is a time never set."""
    seconds, nanos = (_YEAR_ONE, 0) if time is None else divmod(time, 1_000_000_000)
    return integer(1, seconds) + integer(2, nanos)


def delimited(value: bytes) -> bytes:
    """Return the message with its length in front."""
    return varint(len(value)) + value
