"""How the messages of one exchange are framed: the same CBOR sequences over HTTP and CoAP.

    request 1    true, message_1                 response 1   message_2, token
    request 2    token, C_R, message_3           response 2   message_4

A token is one byte string that the device hands back unread. Where something went wrong before the device
was authenticated, the response is an EDHOC error message (RFC 9528 §6).
"""

from __future__ import annotations

from dataclasses import dataclass

from firstlight.encoding import decode_sequence, encode_bytes, encode_sequence
from firstlight.errors import MalformedError
from firstlight.onboarding.edhoc import keys

MEDIA_TYPE = "application/edhoc+cbor-seq"
"""Media type of responses (RFC 9528 §10.10)."""
MEDIA_TYPE_REQUEST = "application/cid-edhoc+cbor-seq"
"""Media type of requests, which start with ``true`` or an identifier (RFC 9528 §10.10)."""
PATH = "/.well-known/edhoc"

MAX_REQUEST = 6_144
MAX_RESPONSE = 20_480
MAX_TOKEN = 512
_TRUE = b"\xf5"


@dataclass(frozen=True, slots=True)
class First:
    """Request 1."""

    message_1: bytes

    def encode(self) -> bytes:
        """Return the bytes of the request."""
        return _TRUE + self.message_1


@dataclass(frozen=True, slots=True)
class Second:
    """Request 2."""

    token: bytes
    c_r: bytes
    message_3: bytes

    def encode(self) -> bytes:
        """Return the bytes of the request."""
        return encode_bytes(self.token) + keys.encode_identifier(self.c_r) + self.message_3


@dataclass(frozen=True, slots=True)
class Answer:
    """Response 1."""

    message_2: bytes
    token: bytes

    def encode(self) -> bytes:
        """Return the bytes of the response."""
        return self.message_2 + encode_bytes(self.token)


def is_first(data: bytes) -> bool:
    """Tell whether a request, if it is one, is request 1."""
    return data[:1] == _TRUE


def parse_request(data: bytes) -> First | Second:
    """Parse a request; :class:`MalformedError`. Message 1 is parsed by EDHOC itself."""
    if len(data) > MAX_REQUEST:
        raise MalformedError("too-large", f"{len(data)} bytes, at most {MAX_REQUEST}")
    if is_first(data):
        return First(data[1:])
    values = decode_sequence(data, items=3, limit=MAX_REQUEST)
    if len(values) != 3:
        raise MalformedError("wrong-shape", f"{len(values)} items in a request, not 3")
    c_r = keys.parse_identifier(values[1], limit=16)
    return Second(_token(values[0]), c_r, encode_bytes(keys.as_bytes(values[2])))


def parse_answer(data: bytes) -> Answer:
    """Parse response 1; :class:`MalformedError`."""
    values = decode_sequence(data, items=2, limit=MAX_RESPONSE)
    if len(values) != 2:
        raise MalformedError("wrong-shape", f"{len(values)} items in a response, not 2")
    return Answer(encode_sequence(keys.as_bytes(values[0])), _token(values[1]))


def _token(value: object) -> bytes:
    token = keys.as_bytes(value)
    if not 0 < len(token) <= MAX_TOKEN:
        raise MalformedError("wrong-shape", "a token that is empty or too long")
    return token
