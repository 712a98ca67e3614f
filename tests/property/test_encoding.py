"""What is quick at encoding and decoding says the same as what is not: values, codes, and all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import cbor2
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight import cose, encoding
from firstlight.encoding import Bytes16, Count, Packed, Record, Text, Uint, decode, decode_sequence, encode
from firstlight.errors import MalformedError
from firstlight.testing.chains import P256Key

integers = st.integers(-(2**64), 2**64 - 1) | st.integers(-300, 300)
atoms = st.one_of(integers, st.binary(max_size=300), st.text(max_size=8), st.booleans(), st.none(), st.floats())
values = st.recursive(
    atoms,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(integers | st.text(max_size=3), inner, max_size=3),
)


@dataclass(frozen=True, slots=True)
class Inner(Record):
    name: Annotated[str, Text("[a-z]*")]
    flag: bool


@dataclass(frozen=True, slots=True)
class Outer(Record):
    id: Bytes16
    number: Uint
    inner: tuple[Inner, Bytes16 | None]
    many: Annotated[tuple[Uint, ...], Count(3)]
    path: Annotated[tuple[bytes, ...], Packed(3, size=2)]


records = st.builds(
    Outer,
    st.binary(min_size=16, max_size=16),
    st.integers(0, 2**64 - 1),
    st.tuples(st.builds(Inner, st.text("abc", max_size=3), st.booleans()), st.none() | st.just(bytes(16))),
    st.lists(st.integers(0, 2**64 - 1), max_size=3).map(tuple),
    st.lists(st.binary(min_size=2, max_size=2), max_size=3).map(tuple),
)


def changed(data: bytes, where: int, byte: int) -> bytes:
    """Return bytes of which one is another, or the last are missing, or one is too many."""
    at = where % (len(data) + 1)
    return (data[:at], data + bytes([byte]), data[:at] + bytes([byte]) + data[at + 1 :])[where % 3]


def outcome(read: object, data: bytes) -> object:
    try:
        return read(data)  # type: ignore[operator]
    except MalformedError as error:
        return error.code


@settings(max_examples=400, deadline=None)
@given(
    st.lists(integers | st.binary(max_size=300), max_size=5), st.integers(0, 2000), st.integers(0, 255), st.booleans()
)
def test_a_plain_sequence_is_read_as_any_other(items: list[object], where: int, byte: int, change: bool) -> None:
    data = b"".join(map(encode, items))
    data = changed(data, where, byte) if change else data
    expected = outcome(lambda given: encoding._any_sequence(given, 6, 16), data)
    assert outcome(lambda given: decode_sequence(given, items=6), data) == expected
    assert change or expected == items


@settings(max_examples=400, deadline=None)
@given(records, st.integers(0, 2000), st.integers(0, 255))
def test_a_record_is_read_as_a_value_and_then_as_a_record(record: Outer, where: int, byte: int) -> None:
    data = record.encode()
    assert data == encode(record.to_cbor())
    assert Outer.decode(data) == record
    broken = changed(data, where, byte)
    assert outcome(Outer.decode, broken) == outcome(lambda given: Outer.from_cbor(decode(given)), broken)


@settings(max_examples=400, deadline=None)
@given(values)
def test_whatever_else_comes_is_refused_with_the_same_code(value: object) -> None:
    data = cbor2.dumps(value)
    assert outcome(Outer.decode, data) == outcome(lambda given: Outer.from_cbor(decode(given)), data)


SIGNED = cose.sign1(b"payload", typ="application/x+cbor", signer=P256Key("signer"))


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2000), st.integers(0, 255))
def test_a_signed_object_in_its_usual_form_is_read_as_any_other(where: int, byte: int) -> None:
    def slowly(given: bytes) -> object:
        quick, cose._parse1 = cose._parse1, lambda *_: None
        try:
            return cose.parse(given, typ="application/x+cbor")
        finally:
            cose._parse1 = quick

    def quickly(given: bytes) -> object:
        return cose.parse(given, typ="application/x+cbor")

    for data in (SIGNED, changed(SIGNED, where, byte)):
        assert outcome(quickly, data) == outcome(slowly, data)
    assert cose._parse1(SIGNED, "application/x+cbor") is not None
