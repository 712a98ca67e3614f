"""The relay: handshake bytes from a device that is not attached yet to the party that it names, and back.

A party is reached at an endpoint of its record on the ledger, the first over HTTP or else over CoAP, and nowhere else.
The bytes are not looked at; sizes and times are bounded. As many are on their way at once as keep parties busy, and
others wait their turn, so that what a party has begun it finishes in time; where too many wait, or one has waited too
long, it is told so.
"""

from __future__ import annotations

import asyncio

from firstlight.errors import MalformedError, RefusedError, TransportError
from firstlight.ledger.records import Party, PartyStatus, Role, party_name
from firstlight.onboarding.wire import MAX_REQUEST, MAX_RESPONSE, MEDIA_TYPE_REQUEST, PATH
from firstlight.roles.gateway.ledger import GatewayLedger
from firstlight.transports.body import Forwarder, Response

MAX_RELAYED = 64
"""How many requests are on their way at once."""
MAX_WAITING = 4_096
"""How many may wait for that."""
PATIENCE = 20.0
"""Seconds for which one waits; a device that asks allows more."""
REQUEST = MAX_REQUEST
RESPONSE = MAX_RESPONSE
_SCHEMES = (("http://", "https://"), "coap://")
_RELAYED = frozenset({Role.MNO, Role.SP})


class Relay:
    """Passes requests on to parties."""

    def __init__(self, ledger: GatewayLedger, client: Forwarder, *, patience: float = PATIENCE) -> None:
        """Look parties up in ``ledger``; ``client`` bounds time and size of an answer."""
        self._ledger = ledger
        self._client = client
        self._patience = patience
        self._places = asyncio.Semaphore(MAX_RELAYED)
        self._waiting = 0

    async def forward(
        self, party: bytes, body: bytes, *, path: str = PATH, media: str = MEDIA_TYPE_REQUEST
    ) -> Response:
        """Return the party's answer, whatever its status.

        Raises :class:`RefusedError` (``unknown-party``, ``party-suspended``, ``not-relayed``: it has no endpoint that a
        gateway reaches), :class:`TransportError` (``busy``, and what the party's side raises), and what reading the
        ledger raises.
        """
        endpoint = await self._endpoint(party) + path
        await self._turn()
        try:
            return await self._client.forward(endpoint, body, media)
        finally:
            self._places.release()

    async def _turn(self) -> None:
        """Wait for a place among those that are on their way; :class:`TransportError` (``busy``)."""
        if self._waiting >= MAX_WAITING:
            raise TransportError("busy", f"{MAX_WAITING} requests are waiting")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience):
                await self._places.acquire()
        except TimeoutError as error:
            raise TransportError("busy", f"{MAX_RELAYED} requests are on their way") from error
        finally:
            self._waiting -= 1

    async def _endpoint(self, party: bytes) -> str:
        """Return where a party's onboarding is reached.

        1. The party is on the ledger (``unknown-party``), 2. active (``party-suspended``), 3. and one that devices
        onboard with, at an endpoint over HTTP or CoAP (``not-relayed``). Raises :class:`RefusedError`.
        """
        record = await self._ledger.record(party_name(party), Party)
        if record is None:
            raise RefusedError("unknown-party", "no such party is on the ledger")
        if record.status is not PartyStatus.ACTIVE:
            raise RefusedError("party-suspended", "the party is suspended")
        ways = [one for scheme in _SCHEMES for one in record.endpoints if one.startswith(scheme)]
        endpoint = ways[0] if ways else None
        if endpoint is None or not _RELAYED & set(record.roles):
            raise RefusedError("not-relayed", "the party onboards no devices through a gateway")
        return endpoint.rstrip("/")


def party_of(text: str) -> bytes:
    """Return the party id in a path; :class:`MalformedError` (``bad-party-id``)."""
    try:
        party = bytes.fromhex(text)
    except ValueError:
        party = b""
    if len(party) != 16:
        raise MalformedError("bad-party-id", "a party's id is 32 hexadecimal digits")
    return party
