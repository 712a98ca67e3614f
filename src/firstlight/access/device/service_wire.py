"""What a device speaks to its service: the part of MQTT 3.1.1 that publishing needs, as bytes in and events out."""

from __future__ import annotations

from dataclasses import dataclass

from firstlight.errors import AccessError

PINGREQ = b"\xc0\x00"
DISCONNECT = b"\xe0\x00"
MAX_PAYLOAD = 60_000
_CONNECT_HEAD = b"\x00\x04MQTT\x04\x02"
_REPLIES = {0x20: 2, 0x40: 2, 0xD0: 0}
"""First byte and remaining length of what a broker may say: CONNACK, PUBACK, PINGRESP."""


@dataclass(frozen=True, slots=True)
class Connected:
    """CONNACK (§3.2) with its return code; 0 is accepted."""

    code: int


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """PUBACK (§3.4) of the packet with that identifier."""

    packet: int


@dataclass(frozen=True, slots=True)
class Pong:
    """PINGRESP (§3.13)."""


Event = Connected | Acknowledged | Pong


def connect(name: str, keep_alive: int) -> bytes:
    """Return CONNECT (§3.1) with a clean session; ``keep_alive`` in seconds."""
    return _packet(0x10, _CONNECT_HEAD + keep_alive.to_bytes(2) + _text(name))


def publish(packet: int, topic: str, payload: bytes) -> bytes:
    """Return PUBLISH (§3.3) at QoS 1 with the identifier ``packet``, 1 to 65,535.

    Raises :class:`AccessError` (``payload-too-large``) over :data:`MAX_PAYLOAD` bytes.
    """
    if len(payload) > MAX_PAYLOAD:
        raise AccessError("payload-too-large", f"{len(payload)} bytes, at most {MAX_PAYLOAD}")
    return _packet(0x32, _text(topic) + packet.to_bytes(2) + payload)


class Decoder:
    """Takes what a broker sends, in pieces of any size."""

    def __init__(self) -> None:
        """Start at the beginning of a stream."""
        self._rest = b""

    def feed(self, data: bytes) -> list[Event]:
        """Return the events in ``data`` and what came before; :class:`AccessError` (``service-malformed``)."""
        self._rest += data
        events: list[Event] = []
        while len(self._rest) >= 2:
            kind, length = self._rest[0], self._rest[1]
            if _REPLIES.get(kind) != length:
                raise AccessError("service-malformed", f"unexpected packet {kind:#04x} of {length} bytes")
            if len(self._rest) < 2 + length:
                break
            events.append(_event(kind, self._rest[2 : 2 + length]))
            self._rest = self._rest[2 + length :]
        return events


def _event(kind: int, body: bytes) -> Event:
    if kind == 0x20:
        return Connected(body[1])
    return Acknowledged(int.from_bytes(body)) if kind == 0x40 else Pong()


def _packet(kind: int, body: bytes) -> bytes:
    length, rest = bytearray(), len(body)
    while True:
        rest, low = divmod(rest, 128)
        length.append(low | (0x80 if rest else 0))
        if not rest:
            return bytes([kind]) + bytes(length) + body


def _text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2) + data
