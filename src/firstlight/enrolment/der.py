"""DER (X.690 §10) of the few things that differ between the certificates of one authority (RFC 5280 §4.1).

The builders of ``cryptography`` encode everything anew for every certificate, which costs several times its signature.
What an authority's certificates have in common is taken from one that they have built.
"""

from __future__ import annotations

from datetime import UTC, datetime

INTEGER, BIT_STRING, OCTET_STRING, OID, UTF8_STRING, SEQUENCE, SET = 0x02, 0x03, 0x04, 0x06, 0x0C, 0x30, 0x31
UTC_TIME, GENERALIZED_TIME = 0x17, 0x18
TRUE = b"\x01\x01\xff"
_LAST_OF_UTC_TIME = 2049
"""Years after this one are written in full (RFC 5280 §4.1.2.5)."""


def element(tag: int, *contents: bytes) -> bytes:
    """Return an element: tag, length, contents."""
    content = b"".join(contents)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length + content


def integer(value: int) -> bytes:
    """Return an INTEGER that is not negative."""
    return element(INTEGER, value.to_bytes(value.bit_length() // 8 + 1))


def time(seconds: int) -> bytes:
    """Return a Time of Unix ``seconds``."""
    when = datetime.fromtimestamp(seconds, UTC)
    if when.year <= _LAST_OF_UTC_TIME:
        return element(UTC_TIME, when.strftime("%y%m%d%H%M%SZ").encode())
    return element(GENERALIZED_TIME, when.strftime("%Y%m%d%H%M%SZ").encode())


def common_name(name: str) -> bytes:
    """Return a Name that is one common name."""
    attribute = element(SEQUENCE, b"\x06\x03\x55\x04\x03", element(UTF8_STRING, name.encode()))
    return element(SEQUENCE, element(SET, attribute))
