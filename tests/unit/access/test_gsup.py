"""GSUP's codec: frames and messages as osmo-hlr 1.5 sent and took them, and everything broken refused by its code."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight.access.serving.gsup import (
    MAX_PAYLOAD,
    AskVectors,
    Link,
    Other,
    Refusal,
    Vectors,
    frame,
    pack_imsi,
    parse,
    unpack_imsi,
)
from firstlight.errors import MalformedError

IMSI = "001010000000001"
PACKED = "00010100000000f1"
ID_GET = bytes.fromhex("0011fe0401080107010201030104010501010100")
ID_ACK = bytes.fromhex("0001fe06")
ONE = bytes.fromhex(
    "0a010800010100000000f1036220102f306f7b831d3beab33891a249687e0e2104fa6ab28d220858d2b1ba4e24947f"
    "2310077999e858ff5a6357a540bfebd6e1722410eee7f3c1c3bacec8e6e99b2c3eb7e1a625105cd808922d5680002762fc5b6d585e0c"
    "270806876becfcedd961"
)
"""What osmo-hlr 1.5.0 answered for K 11…, OPc 22…, SQN 161, IND 1 (a key of that test alone)."""
UNKNOWN = bytes.fromhex("09010800010100000000f1020102")


def element(tag: int, value: bytes) -> bytes:
    return bytes([tag, len(value)]) + value


def vector(**changed: bytes | None) -> bytes:
    parts = {"rand": bytes(16), "ik": bytes(16), "ck": bytes(16), "autn": bytes(16), "res": bytes(8)} | changed
    tags = {"rand": 0x20, "ik": 0x23, "ck": 0x24, "autn": 0x25, "res": 0x27}
    return b"".join(element(tags[name], value) for name, value in parts.items() if value is not None)


def result(*elements: bytes, kind: int = 0x0A) -> bytes:
    return bytes([kind]) + b"".join(elements)


WHO = element(1, bytes.fromhex(PACKED))


def up() -> Link:
    link = Link("it")
    assert link.feed(ID_GET + ID_ACK).messages == ()
    assert link.up
    return link


def refused(code: str, work) -> None:
    with pytest.raises(MalformedError) as error:
        work()
    assert error.value.code == code


def test_an_answer_of_osmo_hlr_gives_its_vector() -> None:
    found = parse(ONE)
    assert isinstance(found, Vectors)
    assert found.imsi == IMSI
    (one,) = found.vectors
    assert one.rand.hex() == "2f306f7b831d3beab33891a249687e0e"
    assert one.autn.hex() == "5cd808922d5680002762fc5b6d585e0c"
    assert one.ck.hex() == "eee7f3c1c3bacec8e6e99b2c3eb7e1a6"
    assert one.ik.hex() == "077999e858ff5a6357a540bfebd6e172"
    assert one.xres.hex() == "06876becfcedd961"
    assert IMSI not in repr(found)
    assert one.ck.hex() not in repr(found)


def test_a_refusal_of_osmo_hlr_gives_its_cause() -> None:
    assert parse(UNKNOWN) == Refusal(IMSI, 2)


def test_requests_are_the_bytes_that_osmo_hlr_takes() -> None:
    assert AskVectors(IMSI).encode().hex() == "0012ee0508010800010100000000f12a010352 0101".replace(" ", "")
    rand, auts = bytes(range(16)), bytes(range(14))
    asked = AskVectors(IMSI, resync=(rand, auts)).encode()
    assert element(0x26, auts) + element(0x20, rand) in asked
    assert int.from_bytes(asked[:2]) == len(asked) - 3


def test_a_link_says_who_it_is_and_answers_pings() -> None:
    link = Link("it")
    heard = link.feed(ID_GET)
    name = b"\x05" + b"\x00\x07\x08" + b"0/0/0\0" + b"\x00\x0c\x01" + b"Firstlight\0" + b"\x00\x04\x00" + b"it\0"
    assert heard.reply == frame(0xFE, name) + ID_ACK
    assert not link.up
    assert link.feed(ID_ACK + frame(0xEE, b"\x05" + UNKNOWN)).messages == (Refusal(IMSI, 2),)
    assert link.feed(frame(0xFE, b"\x00")).reply == frame(0xFE, b"\x01")
    assert link.feed(frame(0xFE, b"\x01")).reply == b""


@given(st.lists(st.integers(1, 30), min_size=1))
def test_frames_may_come_in_any_pieces(sizes: list[int]) -> None:
    data = ID_GET + ID_ACK + frame(0xEE, b"\x05" + UNKNOWN) + frame(0xEE, b"\x05" + ONE) + frame(0xFE, b"\x00")
    link, messages, reply = Link("it"), [], b""
    for size in [*sizes, len(data)]:
        piece, data = data[:size], data[size:]
        heard = link.feed(piece)
        messages += heard.messages
        reply += heard.reply
    assert messages == [Refusal(IMSI, 2), parse(ONE)]
    assert reply.endswith(frame(0xFE, b"\x01"))


def test_what_is_not_for_us_is_passed_over() -> None:
    link = up()
    assert link.feed(frame(0xEE, b"\x01anything")).messages == ()
    assert link.feed(frame(0x00, b"abis")).messages == ()
    assert link.feed(frame(0xEE, b"\x05" + bytes([0x10]) + WHO)).messages == (Other(0x10),)
    unknown = element(0x7E, b"later") + element(0x7E, b"twice")
    assert parse(result(WHO, unknown, element(3, vector() + unknown[:7]))) == parse(result(WHO, element(3, vector())))


@pytest.mark.parametrize(
    ("code", "data"),
    [
        ("ipa-too-long", (MAX_PAYLOAD + 1).to_bytes(2) + b"\xfe"),
        ("ipa-empty", b"\x00\x00\xfe"),
        ("ccm-malformed", frame(0xFE, b"\x04\x01")),
        ("ccm-malformed", frame(0xFE, b"\x04\x02\x08")),
        ("ccm-malformed", frame(0xFE, b"\x05\x00\x02\x00x")),
        ("ccm-malformed", frame(0xFE, b"\x00\x00")),
        ("ccm-malformed", frame(0xFE, b"\x07")),
        ("ccm-unexpected", ID_ACK),
        ("ccm-unexpected", ID_GET + ID_GET),
        ("gsup-early", frame(0xEE, b"\x05" + ONE)),
        ("gsup-early", ID_GET + frame(0xEE, b"\x05" + ONE)),
        ("gsup-truncated", ID_GET + ID_ACK + frame(0xEE, b"\x05")),
    ],
)
def test_a_broken_connection_is_refused(code: str, data: bytes) -> None:
    refused(code, lambda: Link("it").feed(data))


@pytest.mark.parametrize(
    ("code", "content"),
    [
        ("gsup-truncated", b""),
        ("gsup-truncated", ONE[:-1]),
        ("gsup-truncated", ONE + b"\x01"),
        ("gsup-truncated", result(WHO, element(3, vector()[:-1]))),
        ("gsup-twice", result(WHO, WHO, element(3, vector()))),
        ("gsup-twice", result(WHO, element(3, vector() + element(0x20, bytes(16))))),
        ("gsup-missing", result(element(3, vector()))),
        ("gsup-missing", result(WHO)),
        ("gsup-missing", result(WHO, kind=9)),
        ("gsup-missing", result(WHO, element(3, vector(rand=None)))),
        ("gsup-missing", result(WHO, element(3, vector(autn=None)))),
        ("gsup-missing", result(WHO, element(3, vector(res=None)))),
        ("gsup-length", result(WHO, element(2, b""), kind=9)),
        ("gsup-length", result(WHO, element(2, b"\x00\x02"), kind=9)),
        ("gsup-length", result(WHO, element(3, vector(ck=bytes(15))))),
        ("gsup-length", result(WHO, element(3, vector(res=bytes(3))))),
        ("gsup-length", result(WHO, element(3, vector(res=bytes(17))))),
        ("gsup-too-many", result(WHO, *[element(3, vector())] * 6)),
        ("gsup-imsi", result(element(1, b""), element(3, vector()))),
        ("gsup-imsi", result(element(1, bytes.fromhex("00f1010000000001")), element(3, vector()))),
        ("gsup-imsi", result(element(1, bytes.fromhex("0a010100000000f1")), element(3, vector()))),
        ("gsup-imsi", result(element(1, bytes(9)), element(3, vector()))),
    ],
)
def test_a_broken_message_is_refused(code: str, content: bytes) -> None:
    refused(code, lambda: parse(content))


@given(st.from_regex(r"[0-9]{6,15}", fullmatch=True))
def test_an_imsi_survives_its_packing(imsi: str) -> None:
    assert unpack_imsi(pack_imsi(imsi)) == imsi


@pytest.mark.parametrize("imsi", ["", "12345", "1" * 16, "00101000000000a", "00101\n00000", "\u0660" * 15])
def test_what_is_no_imsi_is_not_packed(imsi: str) -> None:
    refused("gsup-imsi", lambda: AskVectors(imsi).encode())
