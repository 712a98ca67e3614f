"""A gateway as a device sees it: it carries mail, proofs, handshakes and receipts, and is trusted with nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from firstlight.discovery.bundle import BundleRequest
from firstlight.onboarding import wire
from firstlight.roles.wire import MailRequest, ReceiptPut
from firstlight.sealing.locator import gateway_name
from firstlight.sim import naming
from firstlight.sim.naming import OneTimeName
from firstlight.sim.suci import Suci
from firstlight.transports.body import CBOR

Carry = Callable[[bytes], Awaitable[bytes]]
"""Takes an EDHOC request to a party and brings its response; :class:`TransportError`."""
RETRIES = 2


class Http(Protocol):
    """What is needed of a client (:class:`firstlight.transports.web.Web`)."""

    async def post(self, url: str, body: bytes, *, content_type: str = CBOR, retries: int = 0) -> bytes:
        """POST ``body`` and return the answer's body."""
        ...


class Gateway:
    """One gateway, over one way to reach it; everything raises :class:`TransportError`."""

    def __init__(self, url: str, http: Http) -> None:
        """Talk to the gateway at ``url``, over HTTP or CoAP."""
        self.hint = url
        """Its URL as the device was born with it."""
        self.name = gateway_name(url)
        """The name that locators are bound to, the same over both."""
        self._url = url.rstrip("/")
        self._http = http

    async def mail(self, locator: bytes, tenure: tuple[bytes, int] | None = None) -> bytes:
        """Return what lies under ``locator``: all, or what was left for a tenure (batch, number)."""
        return await self._post("/v1/mail", MailRequest.of(locator, tenure).encode())

    async def prove(self, request: BundleRequest) -> bytes:
        """Return the answer to ``request``."""
        return await self._post("/v1/bundles", request.encode())

    async def leave(self, locator: bytes, sealed: bytes) -> None:
        """Leave a receipt."""
        await self._post("/v1/receipts", ReceiptPut(locator, sealed).encode())

    def relay(self, party: bytes) -> Carry:
        """Return the way to a party through the gateway."""
        return carrier(self._http, f"{self._url}/relay/{party.hex()}")

    async def one_time_name(self, party: bytes, concealed: Suci) -> OneTimeName:
        """Return a one-time name from an operator, to attach with; :class:`MalformedError` too."""
        body = await self._post(f"/relay/{party.hex()}{naming.PATH}", concealed.encode())
        return OneTimeName.decode(body)

    async def _post(self, path: str, body: bytes) -> bytes:
        return await self._http.post(self._url + path, body, retries=RETRIES)


def carrier(http: Http, url: str) -> Carry:
    """Return the way to the party whose onboarding endpoint is ``url``."""

    async def carry(request: bytes) -> bytes:
        address = url.rstrip("/") + wire.PATH
        return await http.post(address, request, content_type=wire.MEDIA_TYPE_REQUEST, retries=RETRIES)

    return carry
