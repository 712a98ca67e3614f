"""Getting onto the network: a subscription from the operator that the owner chose, and the attach with it.

A private network's operator grants certificates instead. Only the operator knows which; so a device asks as it asked
for what it has, at first for a SIM, and once more in the other way if the operator's protected refusal says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from firstlight.access.ports import Attachment, TlsCredentials
from firstlight.enrolment.issue import certificate_name, to_pem
from firstlight.enrolment.request import build_request
from firstlight.errors import (
    AccessError,
    ExchangeError,
    MalformedError,
    ProofError,
    RefusedError,
    StoreError,
    TransportError,
)
from firstlight.onboarding.device import Granted, Rediscover
from firstlight.onboarding.messages import SimGrant, X509Grant
from firstlight.plan.claims import PartyKind
from firstlight.ports import Signer
from firstlight.roles.device.certificates import check_certificate
from firstlight.roles.device.exchange import Exchange
from firstlight.roles.device.finding import acted_on, find
from firstlight.roles.device.gateways import Gateway
from firstlight.roles.device.memory import Acted, GrantedSim, StoredGrant
from firstlight.roles.device.pace import MOVED
from firstlight.roles.device.proving import Proven, prove
from firstlight.roles.device.tools import Stage
from firstlight.roles.device.unit import Unit
from firstlight.sim import subscription
from firstlight.sim.naming import OneTimeName
from firstlight.sim.subscription import Credentials, SoftSim
from firstlight.sim.suci import Suci

REFUSALS = 2
"""How often a network refuses a subscription before the device gives it up."""
REFUSED = frozenset({"attach-refused", "network-not-authentic", "wrong-network", "separation-missing", "resync-failed"})
MISSING, UNEXPECTED = "request-missing", "request-unexpected"
"""Refusals that tell which kind of grant an operator gives."""
_IMSI = "imsi-"


class Network:
    """One device's way onto its network."""

    def __init__(self, unit: Unit) -> None:
        """Begin with what the device has stored."""
        self._unit = unit
        self._refused: Counter[bytes] = Counter()

    def usable(self) -> tuple[Acted, list[StoredGrant]] | None:
        """Return what the device acts on and the subscriptions that may work, the newest first; None without any."""
        acted = self._unit.memory.sight.acted
        if acted is None:
            return None
        network = acted.plan().network
        stored = self._unit.memory.grants.of(network.party, PartyKind.NETWORK, acted.origin)
        good = [one for one in stored if self._unit.valid(one) and self._refused[one.grant.id] < REFUSALS]
        return (acted, good) if good else None

    async def obtain(self, gateways: Sequence[Gateway]) -> Gateway:
        """Discover, and get a subscription from the network found unless there is one; return the gateway that helped.

        Raises what :func:`find` and :meth:`Exchange.run` raise.
        """
        proven = await self._find(gateways)
        if self.usable() is not None:
            return proven.gateway
        await self._ask(proven, lambda gateway: self._find((gateway,)))
        return proven.gateway

    async def renew(self, gateways: Sequence[Gateway]) -> StoredGrant:
        """Get a new subscription from the network that the device is on, everything proven anew before.

        Raises what :func:`prove` and :meth:`Exchange.run` raise.
        """
        return await self._ask(await self._prove(gateways), lambda gateway: self._prove((gateway,)))

    async def _ask(self, proven: Proven, anew: Callable[[Gateway], Awaitable[Proven]]) -> StoredGrant:
        """Get a grant of the kind that this operator gives."""
        certified = self._certified(proven.acted)
        try:
            return await self._obtain(proven, anew, self._key() if certified else None)
        except RefusedError as error:
            if error.code != (UNEXPECTED if certified else MISSING):
                raise
        return await self._obtain(proven, anew, None if certified else self._key())

    def _certified(self, acted: Acted) -> bool:
        """Say whether the newest grant of this operator is a certificate."""
        stored = self._unit.memory.grants.of(acted.plan().network.party, PartyKind.NETWORK, acted.origin)
        return bool(stored) and stored[0].key is not None

    def _key(self) -> _Key:
        return _Key(*self._unit.memory.operational_key())

    async def _obtain(
        self, proven: Proven, anew: Callable[[Gateway], Awaitable[Proven]], key: _Key | None
    ) -> StoredGrant:
        """Get a certificate for ``key``, or a SIM without one; have everything proven ``anew`` once if need be."""
        request = b"" if key is None else build_request(key.signer)
        event = await self._exchange(proven, request, again=False)
        if isinstance(event, Rediscover):
            self._unit.tools.log.info("rediscover", detail=event.reason, height=event.height)
            proven = await anew(proven.gateway)
            event = await self._exchange(proven, request, again=True)
        return self._store(event, proven.acted, key)

    def newer(self, stored: StoredGrant) -> StoredGrant | None:
        """Return the newest subscription that may work and came after ``stored``."""
        usable = self.usable()
        newest = None if usable is None else usable[1][0]
        return newest if newest is not None and newest.number > stored.number else None

    async def look(self, gateways: Sequence[Gateway]) -> None:
        """Have proven that the device's tenure and plan are still those that it acts on; errors as :func:`prove`."""
        await self._prove(gateways)

    async def _prove(self, gateways: Sequence[Gateway]) -> Proven:
        acted = self._unit.memory.sight.acted
        if acted is None:
            raise ProofError(MOVED, "the device acts on nothing any more")
        return await prove(self._unit, acted.plan().network, gateways)

    async def _find(self, gateways: Sequence[Gateway]) -> Proven:
        found, gateway = await find(self._unit, gateways)
        return Proven(found.network, found.view, found.standing, acted_on(found), gateway)

    async def attach(
        self, stored: Sequence[StoredGrant], gateways: Sequence[Gateway]
    ) -> tuple[StoredGrant, Attachment]:
        """Attach with the first of ``stored`` that the network takes; ``gateways`` lead to its operator before that.

        Raises :class:`AccessError` with the last one's code, or at once if the network cannot be reached.
        """
        failure: AccessError = AccessError("no-subscription", "there is none to attach with")
        for one in stored:
            try:
                attachment = await self._enter(one, gateways)
            except AccessError as error:
                if error.code not in REFUSED:
                    raise
                self._refused[one.grant.id] += 1
                failure = error
                continue
            self._unit.memory.grants.worked(one)
            self._unit.tools.log.info("attached", party=one.party)
            self._unit.tools.tell(Stage.ATTACHED)
            return one, attachment
        raise failure

    async def _enter(self, one: StoredGrant, gateways: Sequence[Gateway]) -> Attachment:
        network, memory = self._unit.tools.network, self._unit.memory
        if one.key is None:
            return await network.attach(GrantedSim(memory.grants, one), _Named(one.party, gateways))
        body = one.grant.body
        if not isinstance(body, X509Grant):
            raise StoreError("memory-damaged", "a grant of a private network without its certificate")
        name = certificate_name(body.chain[0])
        certificate = memory.grants.chain_file(one, lambda: b"".join(map(to_pem, body.chain)))
        key = memory.key_file(one.key)
        return await network.enter(TlsCredentials(name, certificate, key, body.anchors, body.server, body.broker))

    async def _exchange(self, proven: Proven, request: bytes, *, again: bool) -> Granted | Rediscover:
        unit, claim, batch = self._unit, proven.acted.plan().network, proven.view.batch
        if batch is None:
            raise ExchangeError("no-batch", "the view proves no batch")
        acting = unit.acting(proven.acted, claim, proven.record, proven.view, proven.standing, again=again)
        evidence = unit.attester.towards(claim.party, batch.issuer)
        exchange = Exchange(unit.identity, acting, proven.gateway.relay(claim.party), evidence, request)
        try:
            return await exchange.run(unit.tools.random, unit.tools.sleep)
        except RefusedError as error:
            if error.code not in (MISSING, UNEXPECTED):
                await unit.receipts.refused(error, proven.acted, (proven.gateway,), claim.party)
            raise

    def _store(self, event: Granted | Rediscover, acted: Acted, key: _Key | None) -> StoredGrant:
        if isinstance(event, Rediscover):
            raise ExchangeError(event.reason, "twice in a row")
        party = acted.plan().network.party
        sim: SoftSim | None = None
        if key is None:
            try:
                sim = soft_sim(event, self._unit.memory.birth.chain, party)
            except MalformedError as error:
                raise ExchangeError("unusable-grant", error.code) from error
        else:
            check_certificate(event, key.signer.public, self._unit.clock.seconds)
        stored = self._unit.memory.grants.add(
            event.grant,
            party=party,
            kind=PartyKind.NETWORK,
            origin=acted.origin,
            sim=sim,
            key=None if key is None else key.name,
        )
        self._unit.tools.log.info("granted", step="network", party=party, exchange=event.session.th_3)
        self._unit.tools.tell(Stage.NETWORK_GRANTED)
        return stored


@dataclass(frozen=True, slots=True)
class _Key:
    """A key of the device's own, by name."""

    name: str
    signer: Signer


class _Named:
    """Gets one-time names from an operator through gateways (:class:`firstlight.access.ports.Naming`)."""

    def __init__(self, party: bytes, gateways: Sequence[Gateway]) -> None:
        self._party = party
        self._gateways = gateways

    async def name(self, concealed: Suci) -> OneTimeName:
        """Return a name; :class:`TransportError` of the last gateway asked."""
        failure = TransportError("no-gateway", "there is none to ask")
        for gateway in self._gateways:
            try:
                return await gateway.one_time_name(self._party, concealed)
            except TransportError as error:
                failure = error
            except MalformedError as error:
                failure = TransportError("bad-answer", error.code)
        raise failure


def soft_sim(event: Granted, chain: str, party: bytes) -> SoftSim:
    """Return the USIM that a grant makes; :class:`MalformedError` (``not-a-sim``, ``foreign-imsi``)."""
    k, opc = event.subscription_keys(chain, party)
    body = event.grant.body
    assert isinstance(body, SimGrant)
    imsi = body.supi.removeprefix(_IMSI)
    grant = subscription.SimGrant(imsi, body.home, body.network, body.endpoint)
    return SoftSim.from_grant(grant, Credentials(imsi, k, opc))
