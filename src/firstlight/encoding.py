"""Deterministic CBOR (RFC 8949 §4.2.1) and records that travel as CBOR arrays.

What is not canonical is refused: :func:`decode` accepts exactly the bytes that :func:`encode` makes.
No floats, no indefinite lengths, no duplicate keys; no tags but those that a caller allows by number.

A :class:`Record` is a frozen dataclass whose fields, in order, are the items of a CBOR array. Every
field states its bounds in its type (``Annotated[bytes, Size(32)]``), so parsing and checking are one
step at the edge and the rest of the program sees values that fit::

    @dataclass(frozen=True, slots=True)
    class Offer(Record):
        batch: Bytes16
        tenure: Uint
        selection: Annotated[tuple[Run, ...], Count(65536)]
"""

from __future__ import annotations

import io
import operator
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from functools import cache, lru_cache
from typing import Annotated, Any, ClassVar, Self, TypeVar

import cbor2

from firstlight.errors import FirstlightError, MalformedError

UINT_MAX = 2**64 - 1
_INT_MIN = -(2**64)
MAX_DEPTH = 16
DEFAULT_LIMIT = 65_536
_ATOMS = frozenset({bytes, str, bool, type(None)})
"""Types whose every value has one encoding only."""
_INTEGERS = frozenset({int})
_NEGATIVE, _BYTES = 1, 2
"""Major types (RFC 8949 §3.1)."""
_DIRECT = 24
"""Arguments below this one stand in the initial byte; the bytes after it hold others (RFC 8949 §3)."""
_ONE_BYTE, _TWO_BYTES = 24, 25
_ABOVE_ONE_BYTE = 2**8
_T = TypeVar("_T")
_FOREIGN = (cbor2.CBORError, ValueError, OverflowError, TypeError, MemoryError)


@dataclass(frozen=True, slots=True)
class Tagged:
    """A tagged value (RFC 8949 §3.4): the tag's number, and what it encloses."""

    number: int
    value: Any


def encode(value: object) -> bytes:
    """Return the deterministic CBOR of ``value`` (int, bytes, str, bool, None, list, tuple, dict, Tagged).

    Raises :class:`MalformedError` (``unencodable``) for anything else.
    """
    kind = type(value)
    if kind in _ATOMS or (kind is int and _INT_MIN <= value <= UINT_MAX):  # type: ignore[operator]
        return cbor2.dumps(value)
    return cbor2.dumps(_normal(value, MAX_DEPTH, "unencodable"))


@dataclass(frozen=True, slots=True)
class Template:
    """The deterministic CBOR of a value in which only byte strings of known lengths change.

    It is encoded once, with a :class:`Blank` for each of them::

        _AAD = Template.of(["Encrypt0", b"", Blank(32)])
        _AAD.fill(th_3)

    ``form`` is what ``%`` takes, ``sizes`` are those of the blanks.
    """

    form: bytes
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, value: object) -> Self:
        """Encode ``value`` around its blanks."""
        blanks: list[bytes] = []
        form = encode(_marked(value, blanks)).replace(b"%", b"%%")
        for blank in blanks:
            form = form.replace(blank, b"%b", 1)
        return cls(form, tuple(map(len, blanks)))

    def fill(self, *values: bytes) -> bytes:
        """Return the encoding with these byte strings, in the order in which they stand in it.

        Raises :class:`MalformedError` (``unencodable``) if one has another length than its blank.
        """
        if tuple(map(len, values)) != self.sizes:
            raise MalformedError("unencodable", f"not byte strings of {self.sizes} bytes")
        return self.form % values


@dataclass(frozen=True, slots=True)
class Blank:
    """The place of a byte string of ``size`` bytes (8 at least) in a :class:`Template`."""

    size: int


def _marked(value: Any, blanks: list[bytes]) -> Any:
    """Return ``value`` with bytes that stand nowhere else for its blanks, and put those into ``blanks``."""
    if type(value) is Blank:
        blanks.append((b"blank %02d" % len(blanks)).ljust(value.size, b"~"))
        return blanks[-1]
    if type(value) is list:
        return [_marked(item, blanks) for item in value]
    if type(value) is dict:
        return {key: _marked(item, blanks) for key, item in value.items()}
    return value


encode_bytes = typing.cast("Callable[[bytes], bytes]", cbor2.dumps)
"""Returns the CBOR of a byte string, of which there is one only: :func:`encode` for what is known to be bytes."""


def encode_byte_strings(*values: bytes) -> bytes:
    """Return the CBOR sequence of byte strings."""
    return b"".join(map(encode_bytes, values))


def encode_sequence(*values: object) -> bytes:
    """Return a CBOR sequence (RFC 8742): the items one after the other."""
    return b"".join(map(encode, values))


def decode(data: bytes, *, limit: int = DEFAULT_LIMIT, depth: int = MAX_DEPTH, tags: Iterable[int] = ()) -> Any:
    """Return the one value that ``data`` is the deterministic CBOR of.

    Arrays come back as lists, maps as dicts, and the allowed ``tags`` as :class:`Tagged`. Raises
    :class:`MalformedError`: ``too-large`` (over ``limit`` bytes), ``not-cbor``, ``not-canonical`` (also for any
    other tag).
    """
    value = _load(data, limit, depth, tags)
    _check_canonical(value, data, depth)
    return value


def decode_as(data: bytes, parse: Callable[[Any], _T], *, limit: int = DEFAULT_LIMIT) -> _T:
    """Return what ``parse`` makes of the one value that ``data`` is the deterministic CBOR of.

    ``parse`` has to take nothing but what :func:`encode` takes, down to the type of every leaf and key (1.0 equals 1),
    and maps only with their keys in their order. Once it has, one encoding tells whether the bytes are canonical.
    Bytes that are not are refused as such, whatever else ``parse`` finds wrong. Errors as :func:`decode`, and its own.
    """
    value = _load(data, limit, MAX_DEPTH)
    try:
        parsed = parse(value)
    except FirstlightError:
        _check_canonical(value, data, MAX_DEPTH)
        raise
    if cbor2.dumps(value) != data:
        raise MalformedError("not-canonical", "bytes are not the deterministic encoding")
    return parsed


def _load(data: bytes, limit: int, depth: int, tags: Iterable[int] = ()) -> Any:
    """Return the one value in ``data``, whichever of its encodings that is."""
    if len(data) > limit:
        raise MalformedError("too-large", f"{len(data)} bytes, at most {limit}")
    decoders = {number: _tagger(number) for number in tags} if tags else None
    try:
        return cbor2.loads(
            data, max_depth=depth, allow_indefinite=False, allow_duplicate_keys=False, semantic_decoders=decoders
        )
    except _FOREIGN as error:
        raise MalformedError("not-cbor", str(error)) from error


def _check_canonical(value: Any, data: bytes, depth: int) -> None:
    if cbor2.dumps(_normal(value, depth, "not-canonical")) != data:
        raise MalformedError("not-canonical", "bytes are not the deterministic encoding")


def decode_sequence(data: bytes, *, items: int, limit: int = DEFAULT_LIMIT, depth: int = MAX_DEPTH) -> list[Any]:
    """Return the values of a CBOR sequence of at most ``items`` items; errors as :func:`decode`."""
    if len(data) > limit:
        raise MalformedError("too-large", f"{len(data)} bytes, at most {limit}")
    values = plain_sequence(data)
    if values is None or len(values) > items:
        return _any_sequence(data, items, depth)
    return values


def plain_sequence(data: bytes) -> list[Any] | None:
    """Return the values of a CBOR sequence of integers and byte strings below 64 KiB; None for any other bytes.

    Such sequences are what EDHOC's messages are made of, for one. It is read in one pass, which sees whether every
    head is in its shortest form; whoever gets None asks :func:`decode_sequence` or :func:`decode` what is wrong.
    """
    values: list[Any] = []
    at, end = 0, len(data)
    try:
        while at < end:
            kind, argument = data[at] >> 5, data[at] & 31
            at += 1
            if argument == _ONE_BYTE:
                argument = data[at]
                at += 1
                if argument < _DIRECT:
                    return None
            elif argument == _TWO_BYTES:
                argument = data[at] << 8 | data[at + 1]
                at += 2
                if argument < _ABOVE_ONE_BYTE:
                    return None
            elif argument >= _DIRECT:
                return None
            if kind == _BYTES:
                values.append(data[at : at + argument])
                at += argument
            elif kind < _BYTES:
                values.append(argument if kind != _NEGATIVE else -1 - argument)
            else:
                return None
    except IndexError:
        return None
    return values if at == end else None


def _any_sequence(data: bytes, items: int, depth: int) -> list[Any]:
    decoder = cbor2.CBORDecoder(io.BytesIO(data), max_depth=depth, allow_indefinite=False, allow_duplicate_keys=False)
    values: list[Any] = []
    canonical = b""
    while len(canonical) < len(data):
        if len(values) == items:
            raise MalformedError("too-many-items", f"more than {items} items in the sequence")
        try:
            values.append(decoder.decode())
        except _FOREIGN as error:
            raise MalformedError("not-cbor", str(error)) from error
        last = values[-1]
        canonical += cbor2.dumps(last if type(last) in _ATOMS else _normal(last, depth, "not-canonical"))
        if not data.startswith(canonical):
            raise MalformedError("not-canonical", "bytes are not the deterministic encoding")
    return values


def _tagger(number: int) -> Callable[[Any, bool], Tagged]:
    return lambda value, _immutable: Tagged(number, _thaw(value))


def _thaw(value: Any) -> Any:
    """Return ``value`` with lists and dicts for the immutable forms that come out of a tag."""
    if isinstance(value, tuple):
        return [_thaw(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _thaw(item) for key, item in value.items()}
    return value


@lru_cache(maxsize=256)
def _ordered(keys: tuple[int, ...]) -> tuple[int, ...]:
    """Return integers in the order of their encodings; maps of one kind come with the same keys over and over."""
    return tuple(sorted(keys, key=_order))


def _order(key: int) -> tuple[bool, int]:
    """Return what sorts integers as the bytes of their encodings do: from 0 up, then from -1 down."""
    return key < 0, abs(key)


def _normal(value: Any, depth: int, code: str) -> Any:
    """Return ``value`` with every map in the bytewise order of its encoded keys, or raise ``code``."""
    kind = type(value)
    if kind in _ATOMS or (kind is int and _INT_MIN <= value <= UINT_MAX):
        return value
    if kind is int:
        raise MalformedError(code, "integer beyond 64 bits")
    if depth <= 0:
        raise MalformedError(code, "nested too deeply")
    if kind is list or kind is tuple:
        return [
            item
            if (type(item) in _ATOMS or (type(item) is int and _INT_MIN <= item <= UINT_MAX))
            else _normal(item, depth - 1, code)
            for item in value
        ]
    if kind is dict and set(map(type, value)) == _INTEGERS and min(value) >= _INT_MIN and max(value) <= UINT_MAX:
        return {key: _normal(value[key], depth - 1, code) for key in _ordered(tuple(value))}
    if kind is dict:
        if any(map(_tagged, value)):
            raise MalformedError(code, "a tag has no place in a map's key")
        pairs = [
            (cbor2.dumps(_normal(key, depth - 1, code)), key, _normal(item, depth - 1, code))
            for key, item in value.items()
        ]
        pairs.sort(key=lambda pair: pair[0])
        return {key: item for _, key, item in pairs}
    if kind is Tagged:
        return cbor2.CBORTag(value.number, _normal(value.value, depth - 1, code))
    if isinstance(value, int) and isinstance(value, Enum):
        return int(value)
    raise MalformedError(code, f"{kind.__name__} has no place in a message")


def _tagged(key: Any) -> bool:
    return type(key) is Tagged or (type(key) is tuple and any(map(_tagged, key)))


# --- bounds -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Size:
    """Length bound of a byte string: exactly ``low``, or ``low`` to ``high`` bytes."""

    low: int
    high: int | None = None


@dataclass(frozen=True, slots=True)
class Range:
    """Inclusive bounds of an integer."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Text:
    """A regular expression that a whole text string must match."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Count:
    """Bounds of a list's length."""

    high: int
    low: int = 0


@dataclass(frozen=True, slots=True)
class Packed:
    """Bounds of a list of byte strings of one ``size``, which travels as one byte string: no framing for each."""

    high: int
    low: int = 0
    size: int = 32


@dataclass(frozen=True, slots=True)
class Gapped:
    """Bounds of a list of byte strings of one ``size``, some of them empty, which travels as one byte string.

    That is: their number (2 bytes, big-endian) ‖ a bit for each, the most significant first, 1 where it is not empty,
    with zeros up to a whole byte ‖ those that are not empty.
    """

    high: int
    size: int = 32


Bytes8 = Annotated[bytes, Size(8)]
Bytes16 = Annotated[bytes, Size(16)]
Bytes32 = Annotated[bytes, Size(32)]
Bytes33 = Annotated[bytes, Size(33)]
Bytes64 = Annotated[bytes, Size(64)]
Uint = Annotated[int, Range(0, UINT_MAX)]
Uint32 = Annotated[int, Range(0, 2**32 - 1)]
Seconds = Annotated[int, Range(0, 2**40)]
"""Unix time or a span, in whole seconds."""
ChainId = Annotated[str, Text(r"[a-z0-9][a-z0-9.-]{0,39}")]
Uri = Annotated[str, Text(r"[a-z][a-z0-9+.-]{1,11}://[A-Za-z0-9.\-\[\]:]{1,80}(/[A-Za-z0-9._~/-]{0,60})?")]


# --- records ----------------------------------------------------------------------------------

_Parse = Callable[[Any], Any]
_Dump = Callable[[Any], Any] | None
"""How a value is made one of CBOR's; None where it is one already."""


class Record:
    """Base of frozen dataclasses that travel as a deterministic CBOR array of their fields."""

    __slots__ = ()
    LIMIT: ClassVar[int] = DEFAULT_LIMIT
    """The most bytes that :meth:`decode` looks at."""

    def to_cbor(self) -> list[Any]:
        """Return the fields as a list of CBOR values."""
        plan = _plan(type(self))
        values = list(plan.fields(self))
        for at, dump in plan.dumps:
            values[at] = dump(values[at])
        return values

    @classmethod
    def from_cbor(cls, value: object) -> Self:
        """Build the record from a decoded array; :class:`MalformedError` (``wrong-shape``) if it does not fit."""
        plan = _plan(cls)
        if type(value) is not list or len(value) != plan.count:
            raise _shape(cls.__name__, f"not an array of {plan.count}")
        try:
            arguments = [parse(item) for parse, item in zip(plan.parsers, value, strict=True)]
        except MalformedError:
            _explain(cls.__name__, plan, value)
            raise
        return cls(*arguments)

    def encode(self) -> bytes:
        """Return the deterministic CBOR of this record, whose fields are what their types say: arrays, and no maps."""
        return cbor2.dumps(self.to_cbor())

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse ``data`` strictly; raises :class:`MalformedError`."""
        return decode_as(data, cls.from_cbor, limit=cls.LIMIT)


def _shape(what: str, why: str) -> MalformedError:
    return MalformedError("wrong-shape", f"{what}: {why}")


@dataclass(frozen=True, slots=True)
class _Plan:
    """How the fields of a record are read and written: ``dumps`` are those that need more than being taken."""

    count: int
    names: tuple[str, ...]
    parsers: tuple[_Parse, ...]
    fields: Callable[[Any], Iterable[Any]]
    dumps: tuple[tuple[int, Callable[[Any], Any]], ...]


def _explain(record: str, plan: _Plan, value: list[Any]) -> None:
    """Raise what the first field that does not fit raises, with its name."""
    for name, parse, item in zip(plan.names, plan.parsers, value, strict=True):
        try:
            parse(item)
        except MalformedError as error:
            raise MalformedError(error.code, f"{record}.{name}: {error.detail}") from None


def _compile(cls: type[Any]) -> _Plan:
    hints = typing.get_type_hints(cls, include_extras=True)
    names = tuple(field.name for field in fields(cls))
    codecs = [_codec(hints[name]) for name in names]
    return _Plan(
        len(names),
        names,
        tuple(parse for _, parse in codecs),
        _getter(names),
        tuple((at, dump) for at, (dump, _) in enumerate(codecs) if dump is not None),
    )


def _getter(names: tuple[str, ...]) -> Callable[[Any], Iterable[Any]]:
    """Return what takes these fields from a record."""
    if len(names) > 1:
        return operator.attrgetter(*names)
    return lambda record: [getattr(record, name) for name in names]


_plan = typing.cast("Callable[[type[Any]], _Plan]", cache(_compile))


def _codec(hint: Any) -> tuple[_Dump, _Parse]:
    """Return how a value of type ``hint`` is written and how it is read."""
    bound: Any = None
    if typing.get_origin(hint) is Annotated:
        hint, bound = typing.get_args(hint)[:2]
    origin = typing.get_origin(hint)
    if hint is bytes and isinstance(bound, Size):
        return None, _bytes_parser(bound)
    if hint is int and isinstance(bound, Range):
        return None, _int_parser(bound)
    if hint is str and isinstance(bound, Text):
        return None, _text_parser(bound)
    if hint is bool:
        return None, _parse_bool
    if origin is tuple:
        return _tuple_codec(typing.get_args(hint), bound)
    if origin in (types.UnionType, typing.Union):
        return _optional_codec(typing.get_args(hint))
    if isinstance(hint, type) and issubclass(hint, Record):
        return (lambda value: value.to_cbor()), hint.from_cbor
    if isinstance(hint, type) and issubclass(hint, Enum):
        return (lambda value: value.value), _enum_parser(hint)
    raise TypeError(f"a record field cannot be {hint!r} with bound {bound!r}")


def _bytes_parser(size: Size) -> _Parse:
    low, high = size.low, size.low if size.high is None else size.high

    def parse(value: Any) -> bytes:
        if type(value) is bytes and low <= len(value) <= high:
            return value
        raise _shape("byte string", f"not of {low} to {high} bytes")

    return parse


def _int_parser(bound: Range) -> _Parse:
    low, high = bound.low, bound.high

    def parse(value: Any) -> int:
        if type(value) is int and low <= value <= high:
            return value
        raise _shape("integer", f"not from {low} to {high}")

    return parse


def _text_parser(text: Text) -> _Parse:
    match = re.compile(text.pattern).fullmatch

    def parse(value: Any) -> str:
        if type(value) is not str or not match(value):
            raise _shape("text", f"not {text.pattern}")
        return value

    return parse


def _parse_bool(value: Any) -> bool:
    if type(value) is not bool:
        raise _shape("bool", "not true or false")
    return value


def _enum_parser(kind: type[Enum]) -> _Parse:
    members = {member.value: member for member in kind}

    def parse(value: Any) -> Enum:
        if type(value) not in (int, str) or value not in members:
            raise _shape(kind.__name__, "not one of its values")
        return members[value]

    return parse


def _optional_codec(arguments: tuple[Any, ...]) -> tuple[_Dump, _Parse]:
    kinds = [argument for argument in arguments if argument is not type(None)]
    if len(kinds) != 1 or len(arguments) != 2:
        raise TypeError(f"a record field cannot be a union of {arguments!r}")
    dump, parse = _codec(kinds[0])
    return (
        None if dump is None else lambda value: None if value is None else dump(value),
        lambda value: None if value is None else parse(value),
    )


def _tuple_codec(arguments: tuple[Any, ...], bound: Any) -> tuple[_Dump, _Parse]:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        if isinstance(bound, Packed) and arguments[0] is bytes:
            return b"".join, _packed_parser(bound)
        if isinstance(bound, Gapped) and arguments[0] is bytes:
            return _dump_gapped, _gapped_parser(bound)
        if not isinstance(bound, Count):
            raise TypeError("a list in a record needs a Count")
        return _list_codec(arguments[0], bound)
    codecs = [_codec(argument) for argument in arguments]

    def parse(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) != len(codecs):
            raise _shape("array", f"not of {len(codecs)} items")
        return tuple(read(item) for (_, read), item in zip(codecs, value, strict=True))

    return (
        lambda value: [item if write is None else write(item) for (write, _), item in zip(codecs, value, strict=True)],
        parse,
    )


def _list_codec(item: Any, count: Count) -> tuple[_Dump, _Parse]:
    dump, parse_item = _codec(item)

    def parse(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or not count.low <= len(value) <= count.high:
            raise _shape("array", f"not of {count.low} to {count.high} items")
        return tuple([parse_item(entry) for entry in value])

    return (list if dump is None else lambda value: [dump(entry) for entry in value]), parse


def _packed_parser(bound: Packed) -> _Parse:
    size, low, high = bound.size, bound.low * bound.size, bound.high * bound.size

    def parse(value: Any) -> tuple[bytes, ...]:
        if type(value) is not bytes or len(value) % size or not low <= len(value) <= high:
            raise _shape("byte string", f"not {bound.low} to {bound.high} times {size} bytes")
        return tuple([value[at : at + size] for at in range(0, len(value), size)])

    return parse


def _dump_gapped(values: tuple[bytes, ...]) -> bytes:
    width = (len(values) + 7) // 8
    bits = 0
    for value in values:
        bits = bits << 1 | bool(value)
    return len(values).to_bytes(2) + (bits << 8 * width - len(values)).to_bytes(width) + b"".join(values)


def _gapped_parser(bound: Gapped) -> _Parse:
    size = bound.size

    def parse(value: Any) -> tuple[bytes, ...]:
        if type(value) is not bytes or len(value) < 2 or int.from_bytes(value[:2]) > bound.high:
            raise _shape("byte string", f"not a list of at most {bound.high}")
        count = int.from_bytes(value[:2])
        at = 2 + (count + 7) // 8
        bits = int.from_bytes(value[2:at]) >> 8 * (at - 2) - count
        items: list[bytes] = []
        for place in range(count - 1, -1, -1):
            length = size if bits >> place & 1 else 0
            items.append(value[at : at + length])
            at += length
        if at != len(value) or _dump_gapped(tuple(items)) != value:
            raise _shape("byte string", "items are missing or left over")
        return tuple(items)

    return parse
