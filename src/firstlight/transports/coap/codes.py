"""How HTTP and CoAP say the same: methods, statuses and codes (RFC 8075 §7, RFC 8132 §2, RFC 8516), content formats."""

from __future__ import annotations

from collections.abc import Mapping

from firstlight.transports.body import CBOR, CBOR_SEQUENCE, EDHOC, JSON, media_type


def code(dotted: str) -> int:
    """Return the number of a code written like ``4.04``."""
    kind, detail = dotted.split(".")
    return int(kind) * 32 + int(detail)


def dotted(number: int) -> str:
    """Return a code as it is written."""
    return f"{number >> 5}.{number & 31:02}"


METHODS: Mapping[int, str] = {1: "GET", 2: "POST", 3: "PUT", 4: "DELETE", 5: "FETCH", 6: "PATCH", 7: "IPATCH"}
NUMBERS: Mapping[str, int] = {name: number for number, name in METHODS.items()}
CHANGED, CONTENT, CONTINUE = code("2.04"), code("2.05"), code("2.31")
BAD_REQUEST, UNAUTHORIZED, BAD_OPTION = code("4.00"), code("4.01"), code("4.02")
INCOMPLETE, TOO_LARGE, TOO_MANY = code("4.08"), code("4.13"), code("4.29")
UNAVAILABLE, NO_PROXY = code("5.03"), code("5.05")
_TO_COAP: Mapping[int, int] = {
    400: BAD_REQUEST,
    401: BAD_REQUEST,
    403: code("4.03"),
    404: code("4.04"),
    405: code("4.05"),
    406: code("4.06"),
    408: INCOMPLETE,
    409: code("4.09"),
    412: code("4.12"),
    413: TOO_LARGE,
    415: code("4.15"),
    422: code("4.22"),
    429: TOO_MANY,
    500: code("5.00"),
    501: code("5.01"),
    502: code("5.02"),
    503: UNAVAILABLE,
    504: code("5.04"),
}
_TO_HTTP: Mapping[int, int] = {number: status for status, number in _TO_COAP.items() if status != 401} | {
    UNAUTHORIZED: 403,
    BAD_OPTION: 400,
    NO_PROXY: 502,
}
FORMATS: Mapping[str, int] = {
    "text/plain": 0,
    "application/octet-stream": 42,
    JSON: 50,
    CBOR: 60,
    CBOR_SEQUENCE: 63,
    EDHOC: 64,
    "application/cid-edhoc+cbor-seq": 65,
}
"""Content formats by media type; 64 and 65 are those of RFC 9528 §10.11."""
_TYPES: Mapping[int, str] = {number: name for name, number in FORMATS.items()}


def code_of(status: int, method: str) -> int:
    """Return the code for an HTTP status in answer to ``method``."""
    if 200 <= status < 300:
        return CONTENT if method in {"GET", "FETCH"} else CHANGED
    return _TO_COAP.get(status, BAD_REQUEST if status < 500 else code("5.00"))


def status_of(number: int) -> int:
    """Return the HTTP status for a response's code; 502 for what is none of an answer."""
    if number >> 5 == 2 and number != CONTINUE:
        return 200
    return _TO_HTTP.get(number, {4: 400, 5: 500}.get(number >> 5, 502))


def format_of(content_type: str) -> int | None:
    """Return the content format of a media type, None if it has none here."""
    return FORMATS.get(media_type(content_type))


def type_of(content_format: int) -> str:
    """Return the media type of a content format; one that nobody knows has a name that no handler takes."""
    return _TYPES.get(content_format, f"application/coap-format-{content_format}")
