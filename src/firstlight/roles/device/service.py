"""Getting into a service through the attached network: records proven anew, a certificate, and a session that lasts."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from firstlight.access.device.service_session import ServiceAccess
from firstlight.access.ports import Proxy
from firstlight.enrolment.issue import to_pem
from firstlight.enrolment.request import build_request
from firstlight.errors import (
    AccessError,
    ConfigError,
    ExchangeError,
    FirstlightError,
    ProofError,
    RefusedError,
    StoreError,
    TransportError,
)
from firstlight.ledger.records import Party
from firstlight.onboarding.device import Granted, Rediscover
from firstlight.onboarding.messages import X509Grant
from firstlight.plan.claims import OpenedPlan, PartyClaim, PartyKind
from firstlight.roles.device.certificates import check_certificate
from firstlight.roles.device.exchange import Exchange
from firstlight.roles.device.gateways import Gateway, Http, carrier
from firstlight.roles.device.memory import Acted, StoredGrant
from firstlight.roles.device.pace import Pace, changed, leaving
from firstlight.roles.device.proving import Proven, prove
from firstlight.roles.device.renewal import Renewal
from firstlight.roles.device.tools import ServiceSession, Stage
from firstlight.roles.device.unit import Unit
from firstlight.sealing.receipt import Step

HEARTBEAT = 600.0
"""Seconds between messages once the device is connected."""
SOON = 20.0
"""Seconds until a receipt that no gateway took is tried again."""
STABLE = 60
"""A session that lasted so many seconds counts as one that worked."""
REFUSALS = 2
PATIENCE = 3
"""After so many failures in a row to reach anybody, the attachment itself is in doubt."""
REFUSED = frozenset({"service-refused", "service-untrusted", "service-bad-files"})
GOODBYE = 2.0


@dataclass(frozen=True, slots=True)
class Way:
    """How an attached device reaches the world: through the network's forwarder, if it has one."""

    proxy: Proxy | None
    http: Http
    gateways: Sequence[Gateway]


_Using = tuple[StoredGrant, ServiceSession]


class Service:
    """One service of one device, for as long as the device is attached."""

    def __init__(self, unit: Unit, acted: Acted, plan: OpenedPlan, claim: PartyClaim, way: Way) -> None:
        """Prepare to serve ``claim`` of the plan that the device acts on."""
        self._unit = unit
        self._acted = acted
        self._plan = plan
        self._claim = claim
        self._way = way
        self._refused: Counter[bytes] = Counter()
        self._pace = Pace(unit.tools.random)
        self._unreached = 0

    async def serve(self, connected: Callable[[bytes, bool], None]) -> None:
        """Stay connected, for good; tell ``connected`` whenever that begins or ends.

        Raises what makes a new attachment or a new discovery necessary (:data:`LEAVING`, :func:`changed`, or nobody
        reached several times in a row), and :class:`StoreError`.
        """
        while True:
            began = self._unit.clock.seconds
            try:
                await self._once(connected)
            except FirstlightError as error:
                self._judge(error)
                self._unit.tools.log.refusal(error, step="service", party=self._claim.party)
                self._unit.tools.tell(Stage.WAITING, error.code)
                if self._unit.clock.seconds - began >= STABLE:
                    self._pace.reset()
                await self._unit.tools.sleep(self._pace.after(error))
            finally:
                connected(self._claim.party, False)

    def _judge(self, error: FirstlightError) -> None:
        """Raise ``error`` again if it is not for this service to bear."""
        self._unreached = self._unreached + 1 if isinstance(error, TransportError) else 0
        lasting = isinstance(error, StoreError | ConfigError)
        if lasting or leaving(error) or changed(error) or self._unreached >= PATIENCE:
            raise error

    async def _once(self, connected: Callable[[bytes, bool], None]) -> None:
        """Connect with the newest certificate that may work, or a new one, and stay until that ends.

        A renewed certificate's session takes the place of the one before, which is closed once the new one stands.
        """
        using: _Using | None = await self._connect(self._usable() or await self._obtain())
        while using is not None:
            session = using[1]
            try:
                using = await self._stay(*using, connected)
            finally:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(GOODBYE):
                        await session.close()

    async def _connect(self, stored: StoredGrant) -> _Using:
        try:
            return stored, await self._unit.tools.connect(self._access(stored))
        except AccessError as error:
            if error.code in REFUSED:
                self._refused[stored.grant.id] += 1
            raise

    # --- the certificate --------------------------------------------------------------------------

    def _usable(self) -> StoredGrant | None:
        stored = self._unit.memory.grants.of(self._claim.party, PartyKind.SERVICE, self._acted.origin)
        good = (one for one in stored if self._unit.valid(one) and self._refused[one.grant.id] < REFUSALS)
        return next(good, None)

    async def _obtain(self) -> StoredGrant:
        async with self._unit.turn:
            name, signer = self._unit.memory.operational_key()
            request = build_request(signer)
            event = await self._exchange(await self._prove(), request, again=False)
            if isinstance(event, Rediscover):
                self._unit.tools.log.info("rediscover", detail=event.reason, height=event.height)
                event = await self._exchange(await self._prove(), request, again=True)
            if isinstance(event, Rediscover):
                raise ExchangeError(event.reason, "twice in a row")
            check_certificate(event, signer.public, self._unit.clock.seconds)
            stored = self._unit.memory.grants.add(
                event.grant,
                party=self._claim.party,
                kind=PartyKind.SERVICE,
                origin=self._acted.origin,
                sim=None,
                key=name,
            )
        self._unit.tools.log.info("granted", step="service", party=stored.party, exchange=event.session.th_3)
        self._unit.tools.tell(Stage.SERVICE_GRANTED)
        return stored

    async def _prove(self) -> Proven:
        return await prove(self._unit, self._claim, self._way.gateways)

    async def _exchange(self, proven: Proven, request: bytes, *, again: bool) -> Granted | Rediscover:
        unit, batch = self._unit, proven.view.batch
        if batch is None:
            raise ExchangeError("no-batch", "the view proves no batch")
        acting = unit.acting(self._acted, self._claim, proven.record, proven.view, proven.standing, again=again)
        evidence = unit.attester.towards(self._claim.party, batch.issuer)
        carry = carrier(self._way.http, _endpoint(proven.record, like=proven.gateway.hint))
        exchange = Exchange(unit.identity, acting, carry, evidence, request)
        try:
            return await exchange.run(unit.tools.random, unit.tools.sleep)
        except RefusedError as error:
            await unit.receipts.refused(error, self._acted, self._way.gateways, self._claim.party)
            raise

    # --- the session ------------------------------------------------------------------------------

    def _access(self, stored: StoredGrant) -> ServiceAccess:
        body, memory = stored.grant.body, self._unit.memory
        if not isinstance(body, X509Grant) or stored.key is None:
            raise StoreError("memory-damaged", "a grant of a service without its certificate")
        try:
            broker = urlsplit(body.broker)
            host, port = broker.hostname, broker.port
        except ValueError:
            host, port = None, None
        if not host or not port:
            raise AccessError("service-unreachable", "the grant names no broker")
        levels = body.topic.split("/")
        return ServiceAccess(
            certificate=memory.grants.chain_file(stored, lambda: b"".join(map(to_pem, body.chain))),
            key=memory.key_file(stored.key),
            anchors=body.anchors,
            server_name=body.server,
            host=host,
            port=port,
            name=levels[1] if len(levels) > 1 else "",
            topic=body.topic,
            proxy=self._way.proxy,
            now=self._unit.clock.now,
        )

    async def _stay(
        self, stored: StoredGrant, session: ServiceSession, connected: Callable[[bytes, bool], None]
    ) -> _Using | None:
        """Publish, tell the owner, and go on until the session is lost or the certificate runs out.

        Returns what takes its place, if the certificate was renewed in time.
        """
        unit, lost, message = self._unit, asyncio.ensure_future(session.lost()), 0
        renewal = Renewal(unit, stored)
        try:
            while not lost.done() and unit.valid(stored):
                message += 1
                await session.publish(self._message(message))
                if message == 1:
                    unit.memory.grants.worked(stored)
                    unit.tools.log.info("connected", party=stored.party)
                    unit.tools.tell(Stage.CONNECTED)
                told = await self._tell_owner(stored)
                connected(stored.party, told)
                await self._wait(lost, min(HEARTBEAT if told else SOON, renewal.pause()))
                if not lost.done() and renewal.due():
                    using = await renewal.attempt(lambda: self._renew(stored))
                    if using is not None:
                        return using
        finally:
            lost.cancel()
        if lost.done() and not lost.cancelled() and unit.valid(stored):
            raise AccessError("service-lost", "the connection has ended")
        return None

    async def _renew(self, stored: StoredGrant) -> _Using:
        newest = self._usable()
        if newest is None or newest.number <= stored.number:
            newest = await self._obtain()
        return await self._connect(newest)

    async def _tell_owner(self, stored: StoredGrant) -> bool:
        step = Step.SERVICE_CONNECTED
        return await self._unit.receipts.leave(step, stored, self._acted, self._plan, self._way.gateways)

    async def _wait(self, lost: asyncio.Future[None], seconds: float) -> None:
        pause = asyncio.ensure_future(self._unit.tools.sleep(seconds))
        try:
            await asyncio.wait({lost, pause}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            pause.cancel()

    def _message(self, number: int) -> bytes:
        return json.dumps({"boot": self._unit.attester.boot.count, "message": number}).encode()


def _endpoint(record: Party, *, like: str) -> str:
    """Return where the party is reached, if it can be in the same way as at ``like``; :class:`ProofError`.

    ``no-service``: it has no endpoint over HTTP or CoAP.
    """
    scheme = like.partition("://")[0] + "://"
    known = [one for one in record.endpoints if one.startswith(("http://", "https://", "coap://"))]
    if not known:
        raise ProofError("no-service", "the service has no endpoint over HTTP or CoAP")
    return next((one for one in known if one.startswith(scheme)), known[0])
