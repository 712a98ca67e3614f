"""A device's life: from whatever its directory holds it goes on to where its owner wants it, and stays there.

    discover → grant of the network → attach → receipt → for each service: grant → connect → publish → receipt

What is stored already is not asked for again: with a subscription the device attaches, with a certificate it connects.
Grants are leases: each is renewed in good time, all proven anew before, and its predecessor is kept until the new one
has been used. Where the ledger, a party or the network says that things have changed, the device discovers anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine

from firstlight.access.ports import Attachment, Proxy
from firstlight.errors import (
    AccessError,
    ConfigError,
    FirstlightError,
    MalformedError,
    ProofError,
    SignatureError,
    StoreError,
    TransportError,
)
from firstlight.roles.device.gateways import Gateway, Http
from firstlight.roles.device.memory import Acted, Memory, StoredGrant
from firstlight.roles.device.network import Network
from firstlight.roles.device.pace import Pace, changed, moved
from firstlight.roles.device.renewal import Renewal
from firstlight.roles.device.service import GOODBYE, HEARTBEAT, SOON, STABLE, Service, Way
from firstlight.roles.device.tools import Stage, Tools
from firstlight.roles.device.unit import Unit
from firstlight.sealing.receipt import Step

_Using = tuple[StoredGrant, Attachment]


class Journey:
    """One device's journey; ``connected`` is set while all its services are, and their receipts are left."""

    def __init__(self, memory: Memory, tools: Tools) -> None:
        """Wake the device; raises :class:`StoreError`."""
        self._unit = Unit.wake(memory, tools)
        self._network = Network(self._unit)
        self._gateways = list(memory.birth.gateways)
        self._pace = Pace(tools.random)
        self._up: set[bytes] = set()
        self.connected = asyncio.Event()

    async def travel(self) -> None:
        """Go on for good; raises :class:`StoreError` or :class:`ConfigError` if the directory is of no use."""
        tools = self._unit.tools
        tools.log.info("started", count=self._unit.attester.boot.count)
        tools.tell(Stage.STARTED)
        while True:
            began = self._unit.clock.seconds
            try:
                await self._once()
                self._pace.reset()
            except (StoreError, ConfigError):
                raise
            except FirstlightError as error:
                tools.log.refusal(error)
                if changed(error):
                    memory = self._unit.memory
                    memory.remember(memory.sight.trust, None)
                tools.tell(Stage.WAITING, error.code)
                if self._unit.clock.seconds - began >= STABLE:
                    self._pace.reset()
                await tools.sleep(self._pace.after(error))

    async def _once(self) -> None:
        """Get a subscription if there is none, attach, and stay attached until something ends that."""
        if self._network.usable() is None:
            async with self._http(None) as http:
                self._prefer(await self._network.obtain(self._through(http)))
        usable = self._network.usable()
        if usable is None:
            return
        acted, subscriptions = usable
        using: _Using | None = await self._attach(subscriptions)
        while using is not None:
            stored, attachment = using
            try:
                async with self._http(attachment.proxy) as http:
                    way = Way(attachment.proxy, http, self._through(http))
                    newest = await self._until_lost(attachment, self._attached(acted, stored, way))
                using = None if newest is None else await self._hand_over(newest, stored)
            finally:
                self._up.clear()
                self.connected.clear()
                await _leave(attachment)

    async def _hand_over(self, newest: StoredGrant, stored: StoredGrant) -> _Using:
        """Attach with a renewed subscription, or again with the one before if the network does not take it."""
        using = await self._attach([newest, stored])
        if using[0] is not newest:
            await self._unit.tools.sleep(self._pace.after(AccessError("attach-refused", "a renewed subscription")))
        return using

    async def _until_lost(
        self, attachment: Attachment, work: Coroutine[object, object, StoredGrant | None]
    ) -> StoredGrant | None:
        """Run ``work`` while the network lets the device in; :class:`AccessError` (``attach-lost``)."""

        async def lost() -> StoredGrant | None:
            await attachment.lost()
            raise AccessError("attach-lost", "the network has shut its port")

        return await _first(work, lost())

    async def _attach(self, subscriptions: list[StoredGrant]) -> _Using:
        async with self._http(None) as http:
            return await self._network.attach(subscriptions, self._through(http))

    async def _attached(self, acted: Acted, stored: StoredGrant, way: Way) -> StoredGrant | None:
        """Use an attachment until something ends it; return the grant that takes its place if it was renewed."""
        await self._look(way)
        plan = acted.plan()
        told = await self._unit.receipts.leave(Step.NETWORK_ATTACHED, stored, acted, plan, way.gateways)
        parties = {claim.party for claim in plan.services}

        def connected(party: bytes, up: bool) -> None:
            (self._up.add if up else self._up.discard)(party)
            self._settle(parties)

        self._settle(parties)
        services = [Service(self._unit, acted, plan, claim, way) for claim in plan.services]
        return await _first(self._lease(acted, stored, way, told=told), *(one.serve(connected) for one in services))

    def _settle(self, parties: set[bytes]) -> None:
        """Say whether the device is connected: to all ``parties``, with nothing left that its owner is to be told."""
        whole = self._up == parties and not self._unit.receipts.owing
        (self.connected.set if whole else self.connected.clear)()

    async def _look(self, way: Way) -> None:
        """Look once after each start whether all is as it was, and what time it is; if nobody can say, go on as before.

        Raises :class:`ProofError` (``moved``), :class:`StoreError`.
        """
        if self._unit.clock.known:
            return
        try:
            await self._network.look(way.gateways)
        except (TransportError, ProofError, MalformedError, SignatureError) as error:
            if moved(error):
                raise
            self._unit.tools.log.refusal(error, step="look")

    async def _lease(self, acted: Acted, stored: StoredGrant, way: Way, *, told: bool) -> StoredGrant | None:
        """Renew the subscription in time, and return the new one; None once it has run out.

        Meanwhile leave the receipt that could not be left at once.
        """
        plan, renewal = acted.plan(), Renewal(self._unit, stored)
        while self._unit.valid(stored):
            await self._unit.tools.sleep(min(HEARTBEAT if told else SOON, renewal.pause()))
            if not told:
                told = await self._unit.receipts.leave(Step.NETWORK_ATTACHED, stored, acted, plan, way.gateways)
                self._settle({claim.party for claim in plan.services})
            if renewal.due():
                newest = await renewal.attempt(lambda: self._renew(stored, way))
                if newest is not None:
                    return newest
        return None

    async def _renew(self, stored: StoredGrant, way: Way) -> StoredGrant:
        return self._network.newer(stored) or await self._network.renew(way.gateways)

    def _through(self, http: Http) -> list[Gateway]:
        return [Gateway(hint, http) for hint in self._gateways]

    def _prefer(self, gateway: Gateway) -> None:
        """Ask the gateway that helped first from now on."""
        self._gateways.sort(key=lambda hint: hint != gateway.hint)

    @contextlib.asynccontextmanager
    async def _http(self, proxy: Proxy | None) -> AsyncIterator[Http]:
        client = self._unit.tools.http(proxy)
        try:
            yield client
        finally:
            await client.aclose()


async def _first(*works: Coroutine[object, object, StoredGrant | None]) -> StoredGrant | None:
    """Run ``works`` until the first ends, end the others, and return or raise what it did."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return next((found for task in done if (found := task.result()) is not None), None)


async def _leave(attachment: Attachment) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GOODBYE):
            await attachment.close()
