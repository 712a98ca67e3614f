"""One client for every scheme: a URL says which transport carries a request."""

from __future__ import annotations

from typing import Protocol

from firstlight.errors import TransportError
from firstlight.transports.body import CBOR, Response


class Client(Protocol):
    """A client that posts, for itself and for others, and is closed in the end."""

    async def post(self, url: str, body: bytes, *, content_type: str = CBOR, retries: int = 0) -> bytes:
        """POST ``body`` and return the answer's body, again up to ``retries`` times; :class:`TransportError`."""
        ...

    async def forward(self, url: str, body: bytes, content_type: str) -> Response:
        """POST ``body`` and return the answer whatever its status; :class:`TransportError`."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


class Web:
    """Clients by scheme; :class:`TransportError` (``bad-url``) for a scheme that none is for."""

    def __init__(self, **clients: Client) -> None:
        """Take a client for each scheme."""
        self._clients = clients

    async def post(self, url: str, body: bytes, *, content_type: str = CBOR, retries: int = 0) -> bytes:
        """POST ``body`` and return the answer's body, again up to ``retries`` times; :class:`TransportError`."""
        return await self._for(url).post(url, body, content_type=content_type, retries=retries)

    async def forward(self, url: str, body: bytes, content_type: str) -> Response:
        """POST ``body`` and return the answer whatever its status; :class:`TransportError`."""
        return await self._for(url).forward(url, body, content_type)

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.aclose()

    def _for(self, url: str) -> Client:
        scheme = url.partition("://")[0]
        client = self._clients.get(scheme)
        if client is None:
            raise TransportError("bad-url", f"nothing here speaks {scheme[:20]!r}")
        return client
