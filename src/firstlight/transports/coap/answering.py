"""Who answers a request that came whole: an ASGI application in this process, or a server over HTTP."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, replace
from typing import Any

from starlette.types import ASGIApp

from firstlight.errors import FirstlightError, TransportError
from firstlight.transports.body import CBOR, JSON, RemoteError, error_body, is_cbor
from firstlight.transports.client import HttpClient
from firstlight.transports.coap.asked import Asked


@dataclass(frozen=True, slots=True)
class Call:
    """A whole request: what it asks, its body, and from which address and port it came."""

    asked: Asked
    body: bytes
    client: tuple[str, int]


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer; ``retry_after`` is in seconds."""

    status: int
    content_type: str
    body: bytes
    retry_after: int | None = None


_SECONDS = re.compile(r"[0-9]{1,6}", re.ASCII)
Responder = Callable[[Call], Awaitable[Reply]]


def refusal(error: FirstlightError, accept: str | None, content_type: str | None, status: int) -> Reply:
    """Return the answer that says ``error``, in CBOR or JSON as a server over HTTP would choose."""
    cbor = is_cbor(accept or "") or is_cbor(content_type or "")
    return Reply(status, CBOR if cbor else JSON, error_body(error, cbor=cbor))


def by_application(app: ASGIApp) -> Responder:
    """Return what answers with ``app``: it sees the request as it would see it over HTTP, the same bytes in and out."""

    async def respond(call: Call) -> Reply:
        answer = _Answer()
        task = asyncio.ensure_future(app(_scope(call), _receiving(call.body), answer.send))
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
        if not task.cancelled():
            task.exception()  # an application answers 500 for its mistakes, has logged them, and raises them again
        return answer.reply(call.asked)

    return respond


def by_server(client: HttpClient, url: str) -> Responder:
    """Return what answers by asking the server at ``url`` over HTTP."""

    async def respond(call: Call) -> Reply:
        asked = call.asked
        target = url + asked.path + (f"?{asked.query}" if asked.query else "")
        try:
            if asked.method == "POST":
                answer = await client.forward(target, call.body, asked.content_type or "")
            else:
                answer = await client.request(
                    asked.method, target, body=call.body, content_type=asked.content_type, accept=asked.accept
                )
        except RemoteError as error:
            return replace(_refusal(error, asked, error.status), retry_after=error.retry_after or None)
        except TransportError as error:
            return _refusal(error, asked, 504 if error.code == "timeout" else 502)
        return Reply(answer.status, answer.content_type, answer.body, _seconds(answer.retry_after))

    return respond


class _Answer:
    """Takes what an application sends."""

    def __init__(self) -> None:
        self._status = 0
        self._headers: dict[bytes, bytes] = {}
        self._body = bytearray()

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = {bytes(name).lower(): bytes(value) for name, value in message.get("headers", ())}
        else:
            self._body += message.get("body", b"")

    def reply(self, asked: Asked) -> Reply:
        """Return the answer; 500 if there is none."""
        if not self._status:
            return _refusal(FirstlightError("internal", "the server made a mistake"), asked, 500)
        return Reply(
            self._status,
            self._headers.get(b"content-type", b"").decode("latin-1"),
            bytes(self._body),
            _seconds(self._headers.get(b"retry-after", b"").decode("latin-1")),
        )


def _refusal(error: FirstlightError, asked: Asked, status: int) -> Reply:
    return refusal(error, asked.accept, asked.content_type, status)


def _seconds(retry_after: str) -> int | None:
    """Return the seconds of a Retry-After that is a number of them; who wrote it may be anybody."""
    return int(retry_after) if _SECONDS.fullmatch(retry_after) else None


def _scope(call: Call) -> dict[str, Any]:
    asked = call.asked
    headers = [(b"content-length", str(len(call.body)).encode())]
    for name, value in ((b"content-type", asked.content_type), (b"accept", asked.accept)):
        if value is not None:
            headers.append((name, value.encode()))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": asked.method,
        "scheme": "coap",
        "path": asked.path,
        "raw_path": asked.path.encode(),
        "query_string": asked.query.encode(),
        "root_path": "",
        "headers": headers,
        "client": call.client,
        "server": None,
    }


def _receiving(body: bytes) -> Callable[[], Awaitable[dict[str, Any]]]:
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return left.pop() if left else {"type": "http.disconnect"}

    return receive
