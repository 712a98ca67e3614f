"""What both ends of an HTTP leg agree on: media types, and the body of an error."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Protocol

from firstlight.encoding import decode, encode
from firstlight.errors import FirstlightError, MalformedError, TransportError

CBOR = "application/cbor"
CBOR_SEQUENCE = "application/cbor-seq"
EDHOC = "application/edhoc+cbor-seq"
JSON = "application/json"
DEFAULT_BODY = 65_536
"""Bytes of a request that a server reads unless told otherwise."""
_CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+){0,12}")
_LONGEST = 400
_SECONDS = re.compile(r"[0-9]{1,6}", re.ASCII)


def media_type(content_type: str) -> str:
    """Return a content type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def is_cbor(content_type: str) -> bool:
    """Say whether a content type is CBOR of some kind."""
    kind = media_type(content_type)
    return kind in {CBOR, CBOR_SEQUENCE} or kind.endswith(("+cbor", "+cbor-seq"))


def parse_json(data: bytes, *, limit: int = DEFAULT_BODY) -> Any:
    """Return the value of strict JSON; :class:`MalformedError`: ``too-large``, ``not-json``."""
    if len(data) > limit:
        raise MalformedError("too-large", f"{len(data)} bytes, at most {limit}")
    try:
        return json.loads(data.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedError("not-json", "the body is not JSON") from error


def _refuse_constant(name: str) -> object:
    raise ValueError(name)


def error_body(error: FirstlightError, *, cbor: bool) -> bytes:
    """Return {"code", "detail", "hint"} of an error in CBOR or JSON."""
    fields = {"code": error.code, "detail": error.detail[:_LONGEST], "hint": error.hint[:_LONGEST]}
    return encode(fields) if cbor else json.dumps(fields).encode()


def parse_error(status: int, content_type: str, data: bytes, *, retry_after: str = "") -> TransportError:
    """Return what a peer's error answer says, as its own code; ``bad-response`` if it says nothing proper.

    ``retry_after`` is the header of that name (RFC 9110 §10.2.3); what is no number of seconds counts as none.
    """
    try:
        fields = decode(data) if is_cbor(content_type) else parse_json(data)
    except MalformedError:
        fields = None
    if isinstance(fields, dict):
        code, detail, hint = (fields.get(name, "") for name in ("code", "detail", "hint"))
        if all(isinstance(one, str) for one in (code, detail, hint)) and _CODE.fullmatch(code):
            pause = int(retry_after) if _SECONDS.fullmatch(retry_after) else 0
            return RemoteError(status, code, _printable(detail), hint=_printable(hint), retry_after=pause)
    return TransportError("bad-response", f"status {status} without a proper error")


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else " " for one in text[:_LONGEST])


class RemoteError(TransportError):
    """A peer answered with an error of its own: ``code`` is the peer's word, to be trusted as far as the peer is."""

    def __init__(self, status: int, code: str, detail: str = "", *, hint: str = "", retry_after: int = 0) -> None:
        """Keep the HTTP ``status`` too, and for how many seconds the peer asks to be left alone (0: it does not)."""
        super().__init__(code, detail, hint=hint)
        self.status = status
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; one that is an error comes from ``forward`` of a client only."""

    status: int
    content_type: str
    body: bytes
    retry_after: str = ""
    """The header of that name; empty if there is none."""

    def cbor(self) -> Any:
        """Return the body as deterministic CBOR; :class:`TransportError` (``bad-response``)."""
        try:
            return decode(self.body, limit=len(self.body))
        except MalformedError as error:
            raise TransportError("bad-response", str(error)) from error

    def json(self) -> Any:
        """Return the body as JSON; :class:`TransportError` (``bad-response``)."""
        try:
            return parse_json(self.body, limit=len(self.body))
        except MalformedError as error:
            raise TransportError("bad-response", str(error)) from error

    def of_type(self, *types: str) -> bytes:
        """Return the body if its media type is one of ``types``, else raise ``bad-response``."""
        if media_type(self.content_type) not in types:
            raise TransportError("bad-response", f"got {self.content_type[:60]!r}, not {' or '.join(types)}")
        return self.body


class Poster(Protocol):
    """What posts: an HTTP client, however it does that."""

    async def post(self, url: str, body: bytes, *, content_type: str = CBOR, retries: int = 0) -> bytes:
        """POST ``body`` and return the answer's body, again up to ``retries`` times; :class:`TransportError`."""
        ...


class Forwarder(Protocol):
    """What posts for somebody else."""

    async def forward(self, url: str, body: bytes, content_type: str) -> Response:
        """POST ``body`` and return the answer whatever its status; :class:`TransportError`."""
        ...
