"""Messages of CoAP: read and written as an independent codec does, and refused by their own codes."""

from __future__ import annotations

import aiocoap
import pytest
from aiocoap.numbers.optionnumbers import OptionNumber
from hypothesis import given
from hypothesis import strategies as st

from firstlight.errors import MalformedError
from firstlight.transports.coap.message import (
    MAX_DATAGRAM,
    MAX_OPTIONS,
    Block,
    Message,
    Option,
    Type,
    empty,
    encode_uint,
    parse,
)

values = st.binary(max_size=300)
messages = st.builds(
    Message,
    st.sampled_from(Type),
    st.sampled_from([1, 2, 3, 4, 65, 68, 69, 132, 160]),
    st.integers(0, 65_535),
    st.binary(max_size=8),
    st.lists(st.tuples(st.sampled_from([4, 252, 292, 2_049, 65_001]), values), max_size=3).map(
        lambda some: tuple(sorted(some, key=lambda one: one[0]))
    ),
    st.binary(max_size=200),
)


@given(messages)
def test_an_independent_codec_reads_what_is_written_and_the_other_way_round(message: Message) -> None:
    data = message.encode()
    assert parse(data) == message
    theirs = aiocoap.Message.decode(data)
    assert (int(theirs.mtype), int(theirs.code), theirs.mid) == (message.type, message.code, message.mid)
    assert (theirs.token, theirs.payload) == (message.token, message.payload)
    assert [(int(one.number), one.encode()) for one in theirs.opt.option_list()] == list(message.options)
    written = aiocoap.Message(code=message.code, payload=message.payload, _mid=message.mid, _token=message.token)
    written.mtype = aiocoap.Type(message.type)
    for number, value in message.options:
        written.opt.add_option(OptionNumber(number).create_option(decode=value))
    assert written.encode() == data


@given(st.binary(max_size=MAX_DATAGRAM + 10))
def test_no_bytes_do_worse_than_a_refusal(data: bytes) -> None:
    try:
        message = parse(data)
    except MalformedError:
        return
    assert parse(message.encode()) == message


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "too-short"),
        (b"\x40\x01\x00", "too-short"),
        (b"\x80\x01\x00\x01", "wrong-version"),
        (b"\x00\x01\x00\x01", "wrong-version"),
        (b"\x49\x01\x00\x01" + bytes(9), "bad-token"),
        (b"\x4f\x01\x00\x01" + bytes(15), "bad-token"),
        (b"\x44\x01\x00\x01abc", "bad-token"),
        (b"\x40\x00\x00\x01\x00", "not-empty"),
        (b"\x41\x00\x00\x01x", "not-empty"),
        (b"\x40\x01\x00\x01\xff", "empty-payload"),
        (b"\x40\x01\x00\x01\xb5abc", "bad-option"),
        (b"\x40\x01\x00\x01\xbd", "bad-option"),
        (b"\x40\x01\x00\x01\xbe\x01", "bad-option"),
        (b"\x40\x01\x00\x01\xf1a", "bad-option"),
        (b"\x40\x01\x00\x01\x1fa", "bad-option"),
        (b"\x40\x01\x00\x01\xe0\xff\xff", "bad-option"),
        (b"\x40\x01\x00\x01" + b"\xb0" + b"\x00" * MAX_OPTIONS, "too-many-options"),
        (b"\x40\x01\x00\x01\xff" + bytes(MAX_DATAGRAM), "too-large"),
    ],
)
def test_what_breaks_the_format_is_refused_by_its_code(data: bytes, code: str) -> None:
    with pytest.raises(MalformedError) as caught:
        parse(data)
    assert caught.value.code == code


def test_option_numbers_leave_nothing_behind() -> None:
    """A codec that remembers each number that it has ever seen can be filled by anybody: ours keeps none."""
    data = b"\x40\x01\x00\x01" + b"".join(b"\xe0" + number.to_bytes(2) for number in range(1, 40))
    known = {number for number, _ in parse(data).options}
    assert len(known) == 39
    assert all(type(number) is int for number in known)


@pytest.mark.parametrize("exponent", range(7))
@pytest.mark.parametrize("number", [0, 1, 15, 16, 4_095, 2**20 - 1])
def test_blocks(number: int, exponent: int) -> None:
    block = Block(number, more=True, exponent=exponent)
    assert Block.decode(block.encode()) == block
    assert (block.size, block.start) == (2 ** (exponent + 4), number * 2 ** (exponent + 4))


def test_the_reserved_block_size_is_refused() -> None:
    for value in (b"\x07", b"\x0f", b"\x00\x00\x00\x00"):
        with pytest.raises(MalformedError) as caught:
            Block.decode(value)
        assert caught.value.code == "bad-block"


def test_numbers_and_empty_messages() -> None:
    assert [encode_uint(value) for value in (0, 1, 255, 256)] == [b"", b"\x01", b"\xff", b"\x01\x00"]
    assert empty(Type.RST, 0x1234) == b"\x70\x00\x12\x34"
    assert Message(Type.CON, 1, 1, options=((Option.ECHO, b"x"),)).value(Option.ECHO) == b"x"
