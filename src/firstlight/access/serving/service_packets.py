"""What a client of the broker may send behind its CONNECT (MQTT 3.1.1 §2.2, §3), checked before the broker sees it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from firstlight.errors import MalformedError

PUBLISH, PUBACK, SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT = 0x30, 0x40, 0x82, 0xA2, 0xC0, 0xE0
_SIZES: Mapping[int, int] = MappingProxyType({PUBACK: 2, PINGREQ: 0, DISCONNECT: 0})
_DUPLICATE, _QOS = 0x08, 0x06
_QOS_1 = 0x02


def check_packet(packet: bytes, start: int) -> str | None:
    """Return the topic of a PUBLISH, nothing for another packet; ``start`` is where its fixed header ends.

    Raises :class:`MalformedError` (``packet-malformed``) for a packet that a client never sends, one whose flags or
    parts are not as they must be, and QoS 2, which is not offered.
    """
    first, body = packet[0], packet[start:]
    if first & 0xF0 == PUBLISH:
        return _publish(first, body)
    if first in (SUBSCRIBE, UNSUBSCRIBE):
        _topics(body, 1 if first == SUBSCRIBE else 0)
    elif _SIZES.get(first) != len(body):
        raise MalformedError("packet-malformed", f"a packet that begins with {first:#04x} and has {len(body)} bytes")
    return None


def _publish(first: int, body: bytes) -> str:
    """Take the topic of a PUBLISH (§3.3): QoS 0, never a duplicate, or QoS 1 with an identifier."""
    quality = first & _QOS
    if quality > _QOS_1 or (quality == 0 and first & _DUPLICATE):
        raise MalformedError("packet-malformed", "a PUBLISH of QoS 2, or a duplicate of QoS 0")
    topic, rest = _text(body)
    if quality and (len(rest) < 2 or not any(rest[:2])):
        raise MalformedError("packet-malformed", "a PUBLISH without an identifier")
    return topic


def _topics(body: bytes, quality: int) -> None:
    """Check what stands in a SUBSCRIBE (§3.8) or UNSUBSCRIBE: an identifier, and topics with ``quality`` bytes each."""
    if len(body) < 2 or not any(body[:2]):
        raise MalformedError("packet-malformed", "no identifier")
    rest = body[2:]
    if not rest:
        raise MalformedError("packet-malformed", "no topic")
    while rest:
        _, rest = _text(rest)
        if len(rest) < quality or any(byte > 2 for byte in rest[:quality]):
            raise MalformedError("packet-malformed", "a topic without a QoS")
        rest = rest[quality:]


def _text(data: bytes) -> tuple[str, bytes]:
    """Return the string (§1.5.3) with which ``data`` begins, and what follows it."""
    end = 2 + int.from_bytes(data[:2])
    if len(data) < 2 or end > len(data):
        raise MalformedError("packet-malformed", "a string that is cut off")
    return data[2:end].decode("utf-8", "replace"), data[end:]
