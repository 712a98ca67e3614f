"""GSUP, the protocol of an Osmocom home location register, without input or output: bytes in, messages and bytes out.

Frames (IPA; OsmoHLR user manual, chapter "Generic Subscriber Update Protocol") stand behind three bytes on TCP:

    length of the payload (2 bytes) ‖ stream (1 byte) ‖ payload

- Stream 0xfe, CCM: one byte of type. The server sends ID_GET (4) with the tags that it wants to know, pairs of length
  and tag; the client answers ID_RESP (5), each tag behind a length of two bytes and with a text that ends in a zero,
  and ID_ACK (6), and the server ID_ACK. Either side answers PING (0) by PONG (1).
- Stream 0xee, Osmocom's extensions: a byte 5 for GSUP, the message type, and information elements, each a tag, a length
  of one byte and a value.

Numbers are those of libosmocore's ``gsup.h``; an IMSI is TBCD (3GPP TS 29.002, §17.7.8), its digits in pairs with the
first in the lower half. Elements that are not known are skipped, as that protocol asks; known ones stand once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, IntEnum

from firstlight.errors import MalformedError
from firstlight.sim.aka import Vector

HEADER = 3
MAX_PAYLOAD = 4_096
"""The longest payload that is read; five vectors take 521 bytes."""
MAX_VECTORS = 5
_CCM, _OSMO, _GSUP = 0xFE, 0xEE, 0x05
_PING, _PONG, _ID_GET, _ID_RESP, _ID_ACK = 0, 1, 4, 5, 6
_SERIAL, _UNIT_NAME, _UNIT_ID = 0, 1, 8
_IMSI_TEXT = re.compile(r"[0-9]{6,15}")
_EPS = b"\x03"
"""E-UTRAN as the current radio access: vectors come with the separation bit (TS 33.102 Annex H), as AKA' demands."""


class _Type(IntEnum):
    REQUEST = 0x08
    ERROR = 0x09
    RESULT = 0x0A


class _Tag(IntEnum):
    IMSI = 0x01
    CAUSE = 0x02
    VECTOR = 0x03
    RAND = 0x20
    SRES = 0x21
    KC = 0x22
    IK = 0x23
    CK = 0x24
    AUTN = 0x25
    AUTS = 0x26
    RES = 0x27
    RADIO = 0x2A
    VECTORS = 0x52


class Cause(IntEnum):
    """Causes that an authentication centre gives (3GPP TS 24.008, §10.5.5.14)."""

    UNKNOWN = 2
    """There is no such IMSI, it has no key, or an AUTS does not fit."""
    FAILURE = 17
    """It has failed: its database was locked, or the subscriber is blocked."""


@dataclass(frozen=True, slots=True)
class AskVectors:
    """A request for vectors; with ``resync``, RAND and AUTS, the register goes on from where the USIM stands."""

    imsi: str = field(repr=False)
    count: int = 1
    resync: tuple[bytes, bytes] | None = None

    def encode(self) -> bytes:
        """Return the frame; :class:`MalformedError` (``gsup-imsi``) if the IMSI is none."""
        elements = _element(_Tag.IMSI, pack_imsi(self.imsi)) + _element(_Tag.RADIO, _EPS)
        if self.resync is not None:
            rand, auts = self.resync
            elements += _element(_Tag.AUTS, auts) + _element(_Tag.RAND, rand)
        elements += _element(_Tag.VECTORS, bytes([self.count]))
        return frame(_OSMO, bytes([_GSUP, _Type.REQUEST]) + elements)


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors for an IMSI, in the order of their sequence numbers."""

    imsi: str = field(repr=False)
    vectors: tuple[Vector, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer without vectors; ``cause`` may be one that :class:`Cause` does not name."""

    imsi: str = field(repr=False)
    cause: int


@dataclass(frozen=True, slots=True)
class Other:
    """A message of another kind, which an authentication centre does not need."""

    kind: int


Message = Vectors | Refusal | Other


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of some bytes: messages, and what to send back."""

    messages: tuple[Message, ...]
    reply: bytes


class _Stage(Enum):
    NEW = "new"
    NAMED = "named"
    UP = "up"


class Link:
    """The client's side of one connection.

    1. No payload is longer than :data:`MAX_PAYLOAD` (``ipa-too-long``), 2. none is empty (``ipa-empty``). 3. CCM is
    whole and of a kind that a server sends (``ccm-malformed``), 4. and comes in its turn (``ccm-unexpected``). 5. GSUP
    comes after both have said who they are (``gsup-early``), 6. and parses (:func:`parse`).
    """

    def __init__(self, name: str) -> None:
        """Speak under ``name``, which the register counts sequence numbers' IND by (printable ASCII, 1 to 60)."""
        self._name = name
        self._stage = _Stage.NEW
        self._rest = b""

    @property
    def up(self) -> bool:
        """Whether both sides have said who they are."""
        return self._stage is _Stage.UP

    def feed(self, data: bytes) -> Heard:
        """Take bytes from the server; raises :class:`MalformedError`, after which the connection is of no more use."""
        self._rest += data
        messages: list[Message] = []
        reply = b""
        while (payload := self._next()) is not None:
            stream, content = payload
            if stream == _CCM:
                reply += self._ccm(content)
            elif stream == _OSMO:
                messages += self._osmo(content)
        return Heard(tuple(messages), reply)

    def _next(self) -> tuple[int, bytes] | None:
        if len(self._rest) < HEADER:
            return None
        size = int.from_bytes(self._rest[:2])
        if size > MAX_PAYLOAD:
            raise MalformedError("ipa-too-long", f"{size} bytes")
        if size == 0:
            raise MalformedError("ipa-empty")
        end = HEADER + size
        if len(self._rest) < end:
            return None
        stream, content, self._rest = self._rest[2], self._rest[HEADER:end], self._rest[end:]
        return stream, content

    def _ccm(self, content: bytes) -> bytes:
        kind, rest = content[0], content[1:]
        if kind == _PING and not rest:
            return frame(_CCM, bytes([_PONG]))
        if kind == _PONG and not rest:
            return b""
        if kind == _ID_GET:
            if self._stage is not _Stage.NEW:
                raise MalformedError("ccm-unexpected", "asked twice who we are")
            self._stage = _Stage.NAMED
            return _identity(_wanted(rest), self._name) + frame(_CCM, bytes([_ID_ACK]))
        if kind == _ID_ACK and not rest:
            if self._stage is _Stage.NEW:
                raise MalformedError("ccm-unexpected", "acknowledged before it asked")
            self._stage = _Stage.UP
            return b""
        raise MalformedError("ccm-malformed", f"type {kind}")

    def _osmo(self, content: bytes) -> list[Message]:
        if content[0] != _GSUP:
            return []
        if self._stage is not _Stage.UP:
            raise MalformedError("gsup-early")
        return [parse(content[1:])]


def parse(content: bytes) -> Message:
    """Return the GSUP message in ``content``, from its type on.

    1. There is a type, and each element is whole (``gsup-truncated``). 2. No element that may stand once comes twice
    (``gsup-twice``). 3. An IMSI is there (``gsup-missing``) and has 6 to 15 digits (``gsup-imsi``). 4. An error has a
    cause, a result a vector (``gsup-missing``) and :data:`MAX_VECTORS` at most (``gsup-too-many``). 5. A vector holds
    RAND, AUTN, CK, IK and RES (``gsup-missing``), of 16 bytes each, RES of 4 to 16 (``gsup-length``). Raises
    :class:`MalformedError`.
    """
    if not content:
        raise MalformedError("gsup-truncated", "no message type")
    kind = int.from_bytes(content[:1])
    if kind not in (_Type.ERROR, _Type.RESULT):
        return Other(kind)
    found: dict[int, bytes] = {}
    vectors: list[Vector] = []
    for tag, value in _elements(content[1:]):
        if tag == _Tag.VECTOR:
            if len(vectors) == MAX_VECTORS:
                raise MalformedError("gsup-too-many", "vectors")
            vectors.append(_vector(value))
        elif tag in (_Tag.IMSI, _Tag.CAUSE):
            _once(found, tag, value)
    imsi = unpack_imsi(_needed(found, _Tag.IMSI))
    if kind == _Type.ERROR:
        return Refusal(imsi, int.from_bytes(_needed(found, _Tag.CAUSE, 1, 1)))
    if not vectors:
        raise MalformedError("gsup-missing", "no vector in a result")
    return Vectors(imsi, tuple(vectors))


def pack_imsi(imsi: str) -> bytes:
    """Return an IMSI as TBCD; :class:`MalformedError` (``gsup-imsi``)."""
    if not _IMSI_TEXT.fullmatch(imsi):
        raise MalformedError("gsup-imsi", "not an IMSI")
    digits = imsi + "f" * (len(imsi) % 2)
    return bytes(int(digits[at + 1] + digits[at], 16) for at in range(0, len(digits), 2))


def unpack_imsi(data: bytes) -> str:
    """Return the IMSI in TBCD; :class:`MalformedError` (``gsup-imsi``). Only the last half byte may be filler."""
    digits = "".join(f"{one & 0xF:x}{one >> 4:x}" for one in data[:8])
    imsi = digits.removesuffix("f")
    if len(data) > 8 or not _IMSI_TEXT.fullmatch(imsi):
        raise MalformedError("gsup-imsi", "not an IMSI")
    return imsi


def frame(stream: int, payload: bytes) -> bytes:
    """Return a payload behind its header."""
    return len(payload).to_bytes(2) + bytes([stream]) + payload


def _wanted(data: bytes) -> tuple[int, ...]:
    """Return the tags in an ID_GET, pairs of the length 1 and a tag."""
    if len(data) % 2 or any(size != 1 for size in data[::2]):
        raise MalformedError("ccm-malformed", "an ID_GET is pairs of length 1 and tag")
    return tuple(data[1::2])


def _identity(wanted: tuple[int, ...], name: str) -> bytes:
    """Return an ID_RESP with those of our names that were asked for; the serial number is what registers go by."""
    ours = {_UNIT_ID: "0/0/0", _UNIT_NAME: "Firstlight", _SERIAL: name}
    texts = [(tag, text.encode("ascii") + b"\0") for tag, text in ours.items() if tag in wanted or tag == _SERIAL]
    body = b"".join((len(text) + 1).to_bytes(2) + bytes([tag]) + text for tag, text in texts)
    return frame(_CCM, bytes([_ID_RESP]) + body)


def _element(tag: _Tag, value: bytes) -> bytes:
    return bytes([tag, len(value)]) + value


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        tag, size = data[at], data[at + 1 : at + 2]
        end = at + 2 + int.from_bytes(size)
        if not size or end > len(data):
            raise MalformedError("gsup-truncated", "an element is not whole")
        yield tag, data[at + 2 : end]
        at = end


def _once(found: dict[int, bytes], tag: int, value: bytes) -> None:
    if tag in found:
        raise MalformedError("gsup-twice", f"element {tag:#04x}")
    found[tag] = value


def _needed(found: dict[int, bytes], tag: _Tag, least: int = 0, most: int = 255) -> bytes:
    if tag not in found:
        raise MalformedError("gsup-missing", f"element {tag:#04x}")
    value = found.get(tag, b"")
    if not least <= len(value) <= most:
        raise MalformedError("gsup-length", f"element {tag:#04x} of {len(value)} bytes")
    return value


def _vector(data: bytes) -> Vector:
    found: dict[int, bytes] = {}
    for tag, value in _elements(data):
        _once(found, tag, value)
    return Vector(
        rand=_needed(found, _Tag.RAND, 16, 16),
        autn=_needed(found, _Tag.AUTN, 16, 16),
        xres=_needed(found, _Tag.RES, 4, 16),
        ck=_needed(found, _Tag.CK, 16, 16),
        ik=_needed(found, _Tag.IK, 16, 16),
    )
