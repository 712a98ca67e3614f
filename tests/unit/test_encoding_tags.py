"""Tags: refused unless a caller allows them by number, and strict then too."""

from __future__ import annotations

import pytest

from firstlight.encoding import Tagged, decode, encode
from firstlight.errors import MalformedError

NESTED = Tagged(501, {0: "id", 1: [Tagged(506, b"x"), Tagged(1, 5)]})


def test_allowed_tags_survive_the_round_trip() -> None:
    data = encode(NESTED)
    assert data.hex() == "d901f5a2006269640182d901fa4178c105"
    assert decode(data, tags=(1, 501, 506)) == NESTED


@pytest.mark.parametrize("tags", [(), (501,), (501, 506), (1, 506)])
def test_any_other_tag_is_refused(tags: tuple[int, ...]) -> None:
    with pytest.raises(MalformedError) as error:
        decode(encode(NESTED), tags=tags)
    assert error.value.code == "not-canonical"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("d801 05", "not-canonical"),  # tag 1 in two bytes
        ("d901f5 a2 01 00 00 00", "not-canonical"),  # keys not in order inside a tag
        ("d901f5 1801", "not-canonical"),
        ("d901f5 a2 00 00 00 00", "not-cbor"),  # a key twice
        ("d901f5 9f ff", "not-cbor"),
        ("d901f5", "not-cbor"),
        ("c1 f90000", "not-canonical"),  # a float
        ("d9d9f7 00", "not-canonical"),
        ("d901f5" * 20 + "00", "not-cbor"),
        ("a1 c1 05 00", "not-canonical"),  # a tag for a key
        ("a1 81 c1 05 00", "not-canonical"),  # and within one
    ],
)
def test_what_is_tagged_is_as_strict_as_anything(data: str, code: str) -> None:
    with pytest.raises(MalformedError) as error:
        decode(bytes.fromhex(data), tags=(1, 501))
    assert error.value.code == code
