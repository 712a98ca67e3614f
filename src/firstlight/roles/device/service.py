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
from firstlight.discovery.bundle import Bundle
from firstlight.discovery.machine import usable
from firstlight.discovery.verify import View, verify_bundle
from firstlight.enrolment.issue import open_client, to_pem
from firstlight.enrolment.request import build_request
from firstlight.errors import (
    AccessError,
    ConfigError,
    ExchangeError,
    FirstlightError,
    MalformedError,
    ProofError,
    SignatureError,
    StoreError,
    TransportError,
)
from firstlight.ledger.records import Party, Role, party_name
from firstlight.ledger.tenure import Standing
from firstlight.onboarding.device import Granted, Rediscover
from firstlight.onboarding.messages import X509Grant
from firstlight.plan.claims import OpenedPlan, PartyClaim, PartyKind
from firstlight.roles.device.exchange import Exchange
from firstlight.roles.device.gateways import Gateway, Http, carrier
from firstlight.roles.device.memory import Acted, StoredGrant
from firstlight.roles.device.pace import Pace
from firstlight.roles.device.tools import ServiceSession, Stage
from firstlight.roles.device.unit import Unit
from firstlight.sealing.receipt import Step
from firstlight.trees.ownership import depth_of

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
MOVED = "moved"
LEAVING = frozenset({"proxy-unreachable", "proxy-refused", MOVED})
"""What is not the service's fault: the attachment, or the view, must be made anew."""
GOODBYE = 2.0
NONCE = 32


@dataclass(frozen=True, slots=True)
class Way:
    """How an attached device reaches the world: everything goes through the network's forwarder."""

    proxy: Proxy
    http: Http
    gateways: Sequence[Gateway]


@dataclass(frozen=True, slots=True)
class _Proven:
    """What was proven about the service before asking it for something."""

    record: Party
    view: View
    standing: Standing


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

        Raises what makes a new attachment or a new discovery necessary (:data:`LEAVING`, or nobody reached several
        times in a row), and :class:`StoreError`.
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
        if lasting or error.code in LEAVING or self._unreached >= PATIENCE:
            raise error

    async def _once(self, connected: Callable[[bytes, bool], None]) -> None:
        """Connect with the newest certificate that may work, or a new one, and stay until that ends."""
        stored = self._usable() or await self._obtain()
        try:
            session = await self._unit.tools.connect(self._access(stored))
        except AccessError as error:
            if error.code in REFUSED:
                self._refused[stored.grant.id] += 1
            raise
        try:
            await self._stay(session, stored, connected)
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE):
                    await session.close()

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
            self._check(event, signer.public)
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

    async def _prove(self) -> _Proven:
        """Return the service's record and the device's tenure, proven with a fresh nonce, and stored.

        Raises :class:`ProofError`: ``moved`` if the device's tenure or plan are no longer those that it acts on, what
        :func:`verify_bundle` raises, ``no-service``; :class:`TransportError`.
        """
        failure: FirstlightError = ProofError("no-gateway", "the device was born without a gateway")
        for gateway in self._way.gateways:
            try:
                return await self._prove_through(gateway)
            except (TransportError, ProofError, MalformedError, SignatureError) as error:
                if error.code == MOVED:
                    raise
                failure = error
        raise failure

    async def _prove_through(self, gateway: Gateway) -> _Proven:
        unit, acted, birth = self._unit, self._acted, self._unit.memory.birth
        trust = unit.memory.sight.trust
        prefix = (birth.index >> (depth_of(birth.size) - acted.prefix_length), acted.prefix_length)
        names = (party_name(self._claim.party),)
        request = trust.request(unit.tools.random.bytes(NONCE), batch=birth.batch, prefix=prefix, names=names)
        bundle = Bundle.decode(await gateway.prove(request))
        view = verify_bundle(bundle, request, trust=trust, batch_size=birth.size)
        standing = view.standing
        now = None if standing is None else (standing.number, standing.plan_revision, standing.plan)
        if standing is None or now != (acted.tenure, acted.revision, acted.root) or not standing.deployed:
            raise ProofError(MOVED, "the device's tenure, or its plan, is another one now")
        record = usable(view, self._claim.party, Role.SP)
        unit.clock.learn(view.time)
        unit.memory.remember(view.trust, acted)
        return _Proven(record, view, standing)

    async def _exchange(self, proven: _Proven, request: bytes, *, again: bool) -> Granted | Rediscover:
        unit, batch = self._unit, proven.view.batch
        if batch is None:
            raise ExchangeError("no-batch", "the view proves no batch")
        acting = unit.acting(self._acted, self._claim, proven.record, proven.view, proven.standing, again=again)
        evidence = unit.attester.towards(self._claim.party, batch.issuer)
        carry = carrier(self._way.http, _endpoint(proven.record))
        exchange = Exchange(unit.identity, acting, carry, evidence, request)
        return await exchange.run(unit.tools.random, unit.tools.sleep)

    def _check(self, event: Granted, public: bytes) -> None:
        """Raise :class:`ExchangeError` (``unusable-grant``) unless the certificate is one for the key ``public``."""
        body = event.grant.body
        try:
            if not isinstance(body, X509Grant):
                raise MalformedError("not-a-certificate", "the grant is for something else")
            issuer = body.chain[1] if len(body.chain) > 1 else body.anchors[0]
            open_client(body.chain[0], anchor=issuer, public=public, now=self._unit.clock.seconds)
        except (MalformedError, SignatureError) as error:
            raise ExchangeError("unusable-grant", error.code) from error

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
        )

    async def _stay(
        self, session: ServiceSession, stored: StoredGrant, connected: Callable[[bytes, bool], None]
    ) -> None:
        """Publish, tell the owner, and go on until the session is lost or the certificate runs out."""
        unit, lost, message = self._unit, asyncio.ensure_future(session.lost()), 0
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
                await self._wait(lost, min(HEARTBEAT if told else SOON, unit.seconds_left(stored)))
        finally:
            lost.cancel()
        if lost.done() and not lost.cancelled() and unit.valid(stored):
            raise AccessError("service-lost", "the connection has ended")

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


def _endpoint(record: Party) -> str:
    """Return where the party is reached over HTTP; :class:`ProofError` (``no-service``)."""
    for endpoint in record.endpoints:
        if endpoint.startswith(("http://", "https://")):
            return endpoint
    raise ProofError("no-service", "the service has no endpoint over HTTP")
