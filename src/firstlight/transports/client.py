"""HTTP clients: bounded in time and size, every failure a :class:`~firstlight.errors.TransportError`.

Codes: ``bad-url``, ``unreachable`` (no connection, or it broke), ``timeout``, ``bad-response`` (not HTTP, not the media
type, not the encoding that was asked for), ``response-too-large``; what a peer itself refused is a
:class:`~firstlight.transports.body.RemoteError` under the peer's code.

Nothing is retried unless asked. Retries are for requests that may arrive twice: they follow ``unreachable``,
``timeout`` and the statuses 502, 503 and 504, after the pause that a peer asks for (Retry-After). One that asks for a
long pause is not asked again here: whoever called knows better how to wait.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

import httpx
from socksio.exceptions import SOCKSError

from firstlight.encoding import encode
from firstlight.errors import TransportError
from firstlight.transports.body import (
    CBOR,
    CBOR_SEQUENCE,
    EDHOC,
    JSON,
    RemoteError,
    Response,
    parse_error,
)

__all__ = [
    "CBOR",
    "CBOR_SEQUENCE",
    "EDHOC",
    "JSON",
    "HttpClient",
    "Limits",
    "RemoteError",
    "Response",
    "SyncClient",
]

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
_PASSING = frozenset({502, 503, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a request may take: seconds in all, seconds to connect, bytes of answer."""

    seconds: float = 10.0
    connect_seconds: float = 3.0
    response: int = 4_194_304


def _checked(status: int, content_type: str, body: bytes, retry_after: str) -> Response:
    """Return the answer, or raise what it says if it is no success."""
    if 200 <= status < 300:
        return Response(status, content_type, body)
    raise parse_error(status, content_type, body, retry_after=retry_after)


def _translate(error: httpx.HTTPError | httpx.InvalidURL | SOCKSError | OSError | ValueError) -> TransportError:
    if isinstance(error, httpx.TimeoutException):
        return TransportError("timeout", "the peer did not answer in time")
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol | ValueError):
        return TransportError("bad-url", str(error)[:200])
    if isinstance(error, httpx.RemoteProtocolError | httpx.DecodingError | httpx.TooManyRedirects):
        return TransportError("bad-response", str(error)[:200])
    return TransportError("unreachable", str(error)[:200] or type(error).__name__)


_FOREIGN = (httpx.HTTPError, httpx.InvalidURL, SOCKSError, OSError, ValueError)


def _passes(error: TransportError) -> bool:
    """Say whether a failure may pass by itself."""
    if isinstance(error, RemoteError):
        return error.status in _PASSING and error.retry_after <= LONGEST_PAUSE
    return error.code in {"unreachable", "timeout"}


def _pause(attempt: int, error: TransportError) -> float:
    asked = error.retry_after if isinstance(error, RemoteError) else 0
    return max(min(FIRST_PAUSE * 2.0**attempt, LONGEST_PAUSE), asked)


def _headers(content_type: str | None, accept: str | None) -> dict[str, str]:
    headers = {"accept-encoding": "identity"}
    if content_type:
        headers["content-type"] = content_type
    if accept:
        headers["accept"] = accept
    return headers


def _refuse_encoded(answer: httpx.Response) -> None:
    """Refuse what would unpack to more than it seems."""
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        raise TransportError("bad-response", "an encoding that was not asked for")


class _Gathered:
    """Bytes of an answer up to a limit."""

    __slots__ = ("_data", "_limit")

    def __init__(self, limit: int) -> None:
        self._data = bytearray()
        self._limit = limit

    def add(self, chunk: bytes) -> None:
        self._data += chunk
        if len(self._data) > self._limit:
            raise TransportError("response-too-large", f"more than {self._limit} bytes")

    def bytes(self) -> bytes:
        return bytes(self._data)


class HttpClient:
    """An asynchronous client; keeps connections, follows no redirects, reads no environment."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        proxy: str | None = None,
        tls: ssl.SSLContext | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Go through the SOCKS5 ``proxy`` (``socks5://host:port``) if given; ``transport`` replaces the network."""
        self._limits = limits or Limits()
        self._sleep = sleep
        verify = tls if tls is not None else _no_tls()
        timeout = httpx.Timeout(self._limits.seconds, connect=self._limits.connect_seconds)
        self._secure = tls is not None
        self._client = httpx.AsyncClient(
            timeout=timeout, proxy=proxy, verify=verify, transport=transport, trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes = b"",
        content_type: str | None = None,
        accept: str | None = None,
        retries: int = 0,
    ) -> Response:
        """Send one request, again up to ``retries`` times if that failure may pass; see the module for errors."""
        headers = _headers(content_type, accept)
        for attempt in range(retries):
            try:
                return await self._once(method, url, body, headers)
            except TransportError as error:
                if not _passes(error):
                    raise
                pause = _pause(attempt, error)
            await self._sleep(pause)
        return await self._once(method, url, body, headers)

    async def forward(self, url: str, body: bytes, content_type: str) -> Response:
        """POST ``body`` for somebody else and return the answer whatever its status; errors of transport as ever."""
        return await self._exchange("POST", url, body, _headers(content_type, None))

    async def _once(self, method: str, url: str, body: bytes, headers: dict[str, str]) -> Response:
        answer = await self._exchange(method, url, body, headers)
        return _checked(answer.status, answer.content_type, answer.body, answer.retry_after)

    async def _exchange(self, method: str, url: str, body: bytes, headers: dict[str, str]) -> Response:
        _refuse_blind_tls(url, secure=self._secure)
        gathered = _Gathered(self._limits.response)
        try:
            async with (
                asyncio.timeout(self._limits.seconds),
                self._client.stream(method, url, content=body, headers=headers) as answer,
            ):
                _refuse_encoded(answer)
                async for chunk in answer.aiter_bytes():
                    gathered.add(chunk)
        except TimeoutError as error:
            raise TransportError("timeout", f"no answer within {self._limits.seconds} s") from error
        except _FOREIGN as error:
            raise _translate(error) from error
        kind, pause = (answer.headers.get(name, "") for name in ("content-type", "retry-after"))
        return Response(answer.status_code, kind, gathered.bytes(), pause)

    async def get(self, url: str, *, accept: str | None = None, retries: int = 0) -> bytes:
        """GET ``url`` and return the body."""
        return (await self.request("GET", url, accept=accept, retries=retries)).body

    async def post(self, url: str, body: bytes, *, content_type: str = CBOR, retries: int = 0) -> bytes:
        """POST ``body`` and return the answer's body."""
        return (await self.request("POST", url, body=body, content_type=content_type, retries=retries)).body

    async def get_json(self, url: str, *, retries: int = 0) -> Any:
        """GET ``url`` and return the JSON in the answer."""
        return (await self.request("GET", url, accept=JSON, retries=retries)).json()

    async def post_json(self, url: str, value: object, *, retries: int = 0) -> Any:
        """POST ``value`` as JSON and return the JSON in the answer."""
        body = json.dumps(value).encode()
        return (await self.request("POST", url, body=body, content_type=JSON, accept=JSON, retries=retries)).json()

    async def get_cbor(self, url: str, *, retries: int = 0) -> Any:
        """GET ``url`` and return the CBOR in the answer."""
        return (await self.request("GET", url, accept=CBOR, retries=retries)).cbor()

    async def post_cbor(self, url: str, value: object, *, retries: int = 0) -> Any:
        """POST ``value`` as CBOR and return the CBOR in the answer."""
        answer = await self.request("POST", url, body=encode(value), content_type=CBOR, accept=CBOR, retries=retries)
        return answer.cbor()


@lru_cache(maxsize=1)
def _no_tls() -> ssl.SSLContext:
    """Return the context of clients that speak plain HTTP: it trusts nobody, and making one for each costs 1.5 ms."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _refuse_blind_tls(url: str, *, secure: bool) -> None:
    if url[:6].lower() == "https:" and not secure:
        raise TransportError("bad-url", "an https URL needs a TLS context that says whom to trust")


class SyncClient:
    """The same for commands: one thing after the other."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Use ``transport`` in place of the network if there is one."""
        self._limits = limits or Limits()
        self._sleep = sleep
        self._monotonic = monotonic
        verify = tls if tls is not None else _no_tls()
        timeout = httpx.Timeout(self._limits.seconds, connect=self._limits.connect_seconds)
        self._secure = tls is not None
        self._client = httpx.Client(timeout=timeout, verify=verify, transport=transport, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes = b"",
        content_type: str | None = None,
        accept: str | None = None,
        retries: int = 0,
    ) -> Response:
        """Send one request, again up to ``retries`` times if that failure may pass; see the module for errors."""
        headers = _headers(content_type, accept)
        for attempt in range(retries):
            try:
                return self._once(method, url, body, headers)
            except TransportError as error:
                if not _passes(error):
                    raise
                pause = _pause(attempt, error)
            self._sleep(pause)
        return self._once(method, url, body, headers)

    def _once(self, method: str, url: str, body: bytes, headers: dict[str, str]) -> Response:
        _refuse_blind_tls(url, secure=self._secure)
        gathered = _Gathered(self._limits.response)
        end = self._monotonic() + self._limits.seconds
        try:
            with self._client.stream(method, url, content=body, headers=headers) as answer:
                _refuse_encoded(answer)
                for chunk in answer.iter_bytes():
                    gathered.add(chunk)
                    if self._monotonic() > end:
                        raise TransportError("timeout", f"no whole answer within {self._limits.seconds} s")
        except _FOREIGN as error:
            raise _translate(error) from error
        kind, pause = (answer.headers.get(name, "") for name in ("content-type", "retry-after"))
        return _checked(answer.status_code, kind, gathered.bytes(), pause)

    def get(self, url: str, *, accept: str | None = None, retries: int = 0) -> bytes:
        """GET ``url`` and return the body."""
        return self.request("GET", url, accept=accept, retries=retries).body

    def post(self, url: str, body: bytes, *, content_type: str = CBOR, retries: int = 0) -> bytes:
        """POST ``body`` and return the answer's body."""
        return self.request("POST", url, body=body, content_type=content_type, retries=retries).body

    def get_json(self, url: str, *, retries: int = 0) -> Any:
        """GET ``url`` and return the JSON in the answer."""
        return self.request("GET", url, accept=JSON, retries=retries).json()

    def post_json(self, url: str, value: object, *, retries: int = 0) -> Any:
        """POST ``value`` as JSON and return the JSON in the answer."""
        body = json.dumps(value).encode()
        return self.request("POST", url, body=body, content_type=JSON, accept=JSON, retries=retries).json()

    def get_cbor(self, url: str, *, retries: int = 0) -> Any:
        """GET ``url`` and return the CBOR in the answer."""
        return self.request("GET", url, accept=CBOR, retries=retries).cbor()

    def post_cbor(self, url: str, value: object, *, retries: int = 0) -> Any:
        """POST ``value`` as CBOR and return the CBOR in the answer."""
        body = encode(value)
        return self.request("POST", url, body=body, content_type=CBOR, accept=CBOR, retries=retries).cbor()
