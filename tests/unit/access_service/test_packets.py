"""What may stand behind a CONNECT: each kind of packet as it must be, and as it must not."""

from __future__ import annotations

import pytest

from firstlight.access.serving.service_packets import check_packet
from firstlight.errors import MalformedError

TOPIC = b"\x00\x03a/b"


def packet(first: int, body: bytes) -> bytes:
    assert len(body) < 0x80
    return bytes([first, len(body)]) + body


@pytest.mark.parametrize(
    ("first", "body", "topic"),
    [
        (0x30, TOPIC + b"payload", "a/b"),
        (0x31, TOPIC, "a/b"),
        (0x32, TOPIC + b"\x00\x01payload", "a/b"),
        (0x3A, TOPIC + b"\x01\x00", "a/b"),
        (0x30, b"\x00\x01\xff", "\ufffd"),
        (0x82, b"\x00\x01" + TOPIC + b"\x01", None),
        (0x82, b"\x00\x01" + (TOPIC + b"\x02") * 2, None),
        (0xA2, b"\x00\x01" + TOPIC * 2, None),
        (0x40, b"\x00\x01", None),
        (0xC0, b"", None),
        (0xE0, b"", None),
    ],
)
def test_what_clients_send_passes(first: int, body: bytes, topic: str | None) -> None:
    assert check_packet(packet(first, body), 2) == topic


@pytest.mark.parametrize(
    ("first", "body"),
    [
        *((first, b"") for first in (0x00, 0x10, 0x20, 0x30, 0x50, 0x62, 0x70, 0x82, 0x90, 0xA2, 0xB0, 0xD0, 0xF0)),
        *((first, b"\x00\x01" + TOPIC + b"\x00") for first in (0x80, 0x81, 0x8A, 0x92)),
        (0x82, b"\x00\x00" + TOPIC + b"\x00"),
        *((0x82, b"\x00\x01" + bad) for bad in (b"", TOPIC, TOPIC + b"\x03", TOPIC + b"\x80", b"\x00", b"\0\x04a/b\0")),
        *((0xA2, b"\x00\x01" + bad) for bad in (b"", TOPIC[:-1], TOPIC + b"\x00")),
        (0xA2, b"\x00\x00" + TOPIC),
        *((0x30, bad) for bad in (b"\x00", b"\x00\x04a/b", b"\xff\xff")),
        *((first, TOPIC + b"\x00\x01") for first in (0x34, 0x36, 0x38)),
        *((0x32, TOPIC + bad) for bad in (b"", b"\x00\x00")),
        (0x41, b"\x00\x01"),
        (0x40, b"\x00"),
        (0xC0, b"\x00"),
        (0xE1, b""),
    ],
)  # fmt: skip
def test_what_they_never_send_is_refused(first: int, body: bytes) -> None:
    with pytest.raises(MalformedError) as refused:
        check_packet(packet(first, body), 2)
    assert refused.value.code == "packet-malformed"
