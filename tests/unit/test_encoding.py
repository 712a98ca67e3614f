from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

import pytest

from firstlight.encoding import (
    Blank,
    Bytes8,
    Count,
    Gapped,
    Packed,
    Record,
    Template,
    Text,
    Uint,
    decode,
    decode_as,
    decode_sequence,
    encode,
    encode_byte_strings,
    encode_sequence,
)
from firstlight.errors import MalformedError


class Colour(IntEnum):
    RED = 1
    BLUE = 2


@dataclass(frozen=True, slots=True)
class Inner(Record):
    number: Uint


@dataclass(frozen=True, slots=True)
class Outer(Record):
    key: Bytes8
    name: Annotated[str, Text("[a-z]+")]
    colours: Annotated[tuple[Colour, ...], Count(2)]
    inner: Inner | None
    pair: tuple[Uint, Bytes8]
    flag: bool


OUTER = Outer(b"12345678", "abc", (Colour.RED, Colour.BLUE), Inner(2**64 - 1), (0, b"abcdefgh"), True)


def test_maps_are_sorted_by_the_bytes_of_their_keys() -> None:
    # RFC 8949 §4.2.1, its own example
    value = {10: 1, 100: 2, -1: 3, "z": 4, "aa": 5, False: 8}
    assert encode(value).hex() == "a60a011864022003617a0462616105f408"


def test_a_record_survives_the_round_trip() -> None:
    assert Outer.decode(OUTER.encode()) == OUTER


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("1801", "not-canonical"),
        ("5f4161ff", "not-cbor"),
        ("a201010102", "not-cbor"),
        ("a2200101", "not-cbor"),
        ("a220010101", "not-canonical"),
        ("0101", "not-canonical"),
        ("", "not-cbor"),
        ("fb3ff8000000000000", "not-canonical"),
        ("c101", "not-canonical"),
        ("c249010000000000000000", "not-canonical"),
        ("f7", "not-canonical"),
        ("81" * 40 + "00", "not-cbor"),
        ("61ff", "not-cbor"),
        ("9bffffffffffffffff", "not-cbor"),
        ("bbffffffffffffffff", "not-cbor"),
    ],
)
def test_what_is_not_canonical_is_refused(data: str, code: str) -> None:
    with pytest.raises(MalformedError) as caught:
        decode(bytes.fromhex(data))
    assert caught.value.code == code


@pytest.mark.parametrize(
    "value",
    [
        5,
        [],
        [b"1234567", "abc", [1], None, [0, b"abcdefgh"], True],
        [b"12345678", "ABC", [1], None, [0, b"abcdefgh"], True],
        [b"12345678", "abc", [3], None, [0, b"abcdefgh"], True],
        [b"12345678", "abc", [1, 1, 1], None, [0, b"abcdefgh"], True],
        [b"12345678", "abc", [1], [-1], [0, b"abcdefgh"], True],
        [b"12345678", "abc", [1], [True], [0, b"abcdefgh"], True],
        [b"12345678", "abc", [1], None, [0], True],
        [b"12345678", "abc", [1], None, [0, b"abcdefgh"], 1],
        [b"12345678", "abc", [True], None, [0, b"abcdefgh"], True],
    ],
)
def test_a_record_of_another_shape_is_refused(value: object) -> None:
    with pytest.raises(MalformedError) as caught:
        Outer.decode(encode(value))
    assert caught.value.code == "wrong-shape"


def test_sequences() -> None:
    data = encode_sequence(True, b"abc", [1])
    assert decode_sequence(data, items=3) == [True, b"abc", [1]]
    with pytest.raises(MalformedError, match="too-many-items"):
        decode_sequence(data, items=2)
    with pytest.raises(MalformedError, match="not-cbor"):
        decode_sequence(data[:-1], items=3)
    with pytest.raises(MalformedError, match="too-large"):
        decode_sequence(data, items=3, limit=4)


def test_what_has_no_place_in_a_message_cannot_be_encoded() -> None:
    for value in (1.5, {1, 2}, object(), 2**64, bytearray(b"a")):
        with pytest.raises(MalformedError, match="unencodable"):
            encode(value)


@dataclass(frozen=True, slots=True)
class Path(Record):
    hashes: Annotated[tuple[bytes, ...], Packed(2, 1, size=4)]


def test_a_packed_list_travels_as_one_byte_string() -> None:
    assert Path((b"aaaa", b"bbbb")).encode() == encode([b"aaaabbbb"])
    assert Path.decode(encode([b"aaaabbbb"])) == Path((b"aaaa", b"bbbb"))
    for value in (b"", b"aaaab", b"aaaabbbbcccc", [b"aaaa"], "aaaa"):
        with pytest.raises(MalformedError, match="wrong-shape"):
            Path.decode(encode([value]))


@dataclass(frozen=True, slots=True)
class Climb(Record):
    siblings: Annotated[tuple[bytes, ...], Gapped(9, size=4)]


def test_a_gapped_list_travels_as_one_byte_string() -> None:
    climb = Climb((b"aaaa", b"", b"bbbb"))
    assert climb.encode() == encode([b"\x00\x03\xa0aaaabbbb"])
    assert Climb.decode(climb.encode()) == climb
    assert Climb.decode(Climb(()).encode()) == Climb(())
    assert Climb.decode(Climb((b"",) * 9).encode()) == Climb((b"",) * 9)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x00",
        b"\x00\x03",
        b"\x00\x03\xa0aaaabbb",
        b"\x00\x03\xa0aaaabbbbc",
        b"\x00\x03\xb0aaaabbbb",
        b"\x00\x03\xe0aaaabbbb",
        b"\x00\x03\x80aaaabbbb",
        b"\x00\x0a\x00\x00",
        "aaaa",
        [b"aaaa"],
    ],
)
def test_another_gapped_list_is_refused(value: object) -> None:
    with pytest.raises(MalformedError, match="wrong-shape"):
        Climb.decode(encode([value]))


def test_a_template_is_what_encoding_gives() -> None:
    form = Template.of({4: Blank(8), 10: [b"%b%", Blank(32), "100%"], 11: Blank(300)})
    given = (b"a" * 8, b"%" * 32, bytes(300))
    assert form.fill(*given) == encode({4: given[0], 10: [b"%b%", given[1], "100%"], 11: given[2]})
    for wrong in ((b"a" * 7, *given[1:]), given[:2]):
        with pytest.raises(MalformedError, match="unencodable"):
            form.fill(*wrong)


def test_byte_strings() -> None:
    assert encode_byte_strings(b"", b"a" * 24, bytes(256)) == encode_sequence(b"", b"a" * 24, bytes(256))


def test_what_is_parsed_at_once_is_canonical() -> None:
    def one(value: object) -> object:
        if value != [1]:
            raise MalformedError("wrong-shape", "not one")
        return value

    assert decode_as(b"\x81\x01", one) == [1]
    with pytest.raises(MalformedError, match="not-canonical"):
        decode_as(b"\x81\x18\x01", one)
    with pytest.raises(MalformedError, match="wrong-shape"):
        decode_as(b"\x81\x02", one)
