"""Frames between a party's processes."""

from __future__ import annotations

import asyncio

import pytest

from firstlight.encoding import encode
from firstlight.errors import MalformedError
from firstlight.onboarding.token import KeyRing, TokenKey
from firstlight.roles.party.channel import Ended, Frame, Have, Listening, Ring, Setup, frame, read_frame


def read(data: bytes) -> Frame | None:
    async def scene() -> Frame | None:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        return await read_frame(reader)

    return asyncio.run(scene())


def test_frames_come_back() -> None:
    ring = KeyRing(TokenKey(b"\x01" * 32, 5), TokenKey(b"\x02" * 32, 4))
    for message in (
        Setup("tcp://127.0.0.1:4711"),
        Ring.of(7, ring),
        Listening(42),
        Have(7),
        Ended((bytes(16), b"\x01" * 16)),
    ):
        assert read(frame(message)) == message
    assert Ring.of(7, ring).keys() == ring
    assert Ring.of(7, KeyRing(ring.current)).keys() == KeyRing(ring.current)


def test_keys_do_not_show() -> None:
    assert "xab" not in repr(Ring.of(7, KeyRing(TokenKey(b"\xab" * 32, 5))))


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00\x00\x00\x09\x82"])
def test_the_end(data: bytes) -> None:
    assert read(data) is None


@pytest.mark.parametrize(
    "body",
    [encode([9, b""]), encode([-1, b""]), encode({}), encode([0, Setup("tcp://a:1").encode() + b"\x00"]), b"\xff"],
)
def test_nonsense(body: bytes) -> None:
    with pytest.raises(MalformedError):
        read(len(body).to_bytes(4) + body)


def test_a_frame_that_is_too_long() -> None:
    with pytest.raises(MalformedError, match="too-large"):
        read(b"\xff\xff\xff\xff")
