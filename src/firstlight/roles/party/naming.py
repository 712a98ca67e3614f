"""Where an operator answers SUCIs with one-time names (:mod:`firstlight.sim.naming`).

Nobody is authenticated yet: so many a second for each address and for all, as with a message 1. Every SUCI that opens
is answered alike; a name is kept only where there is a subscription, and names are all that an attach shows.
"""

from __future__ import annotations

import asyncio
import contextlib

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from firstlight.access.ports import Names
from firstlight.errors import AccessError, MalformedError, SignatureError
from firstlight.ports import Clock, Random
from firstlight.sim import suci
from firstlight.sim.naming import PATH, SECONDS, OneTimeName, draw_name
from firstlight.sim.suci import HomeKey, Suci
from firstlight.stores.subscriptions import Subscriptions
from firstlight.transports.admission import Admission
from firstlight.transports.http import cbor, read_record

SECOND = 1_000_000_000


class StoredNames(Names):
    """Names as the store keeps them, for the authentication centre."""

    def __init__(self, store: Subscriptions, clock: Clock) -> None:
        """Look names up in ``store``."""
        self._store = store
        self._clock = clock

    async def imsi(self, name: str) -> str:
        """Return the IMSI behind a name.

        1. The name was given out and counts now (``unknown-subscriber``). Raises :class:`AccessError`.
        """
        found = await asyncio.to_thread(self._store.named, name, self._clock.now() // SECOND)
        if found is None:
            raise AccessError("unknown-subscriber", "no name that was given out, or not any more")
        return found

    async def used(self, name: str, where: str) -> None:
        """Bind a name to where it was used first; :class:`AccessError` (``name-used``, ``unknown-subscriber``)."""
        await asyncio.to_thread(self._store.bind_name, name, where, self._clock.now() // SECOND)


class NamingDesk:
    """The route of an operator's server that takes SUCIs."""

    def __init__(
        self, store: Subscriptions, key: HomeKey, *, admission: Admission, clock: Clock, random: Random
    ) -> None:
        """Open SUCIs with ``key`` and keep names in ``store``."""
        self._store = store
        self._key = key
        self._admission = admission
        self._clock = clock
        self._random = random

    def routes(self) -> tuple[BaseRoute, ...]:
        """Return the route."""
        return (Route(PATH, self._name, methods=["POST"]),)

    async def _name(self, request: Request) -> Response:
        self._admission.admit(request.client.host if request.client is not None else "")
        return cbor(await asyncio.to_thread(self._give, await read_record(request, Suci)))

    def _give(self, concealed: Suci) -> OneTimeName:
        """Give out a name.

        1. The SUCI opens with our key (``bad-suci``, whatever is wrong with it). Raises :class:`MalformedError`.
        """
        try:
            imsi = suci.reveal(concealed, self._key)
        except (MalformedError, SignatureError) as error:
            raise MalformedError("bad-suci", "not a SUCI for this operator") from error
        name = draw_name(self._random)
        with contextlib.suppress(AccessError):
            self._store.give_name(imsi, name, self._clock.now() // SECOND, SECONDS)
        return OneTimeName(name, SECONDS)
