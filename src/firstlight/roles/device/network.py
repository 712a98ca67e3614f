"""Getting onto the network: a subscription from the operator that the owner chose, and the attach with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from firstlight.access.ports import Attachment
from firstlight.discovery.machine import Discovered
from firstlight.errors import AccessError, ExchangeError, MalformedError
from firstlight.onboarding.device import Granted, Rediscover
from firstlight.onboarding.messages import SimGrant
from firstlight.plan.claims import PartyKind
from firstlight.roles.device.exchange import Exchange
from firstlight.roles.device.finding import acted_on, find
from firstlight.roles.device.gateways import Gateway
from firstlight.roles.device.memory import Acted, GrantedSim, StoredGrant
from firstlight.roles.device.tools import Stage
from firstlight.roles.device.unit import Unit
from firstlight.sim import subscription
from firstlight.sim.subscription import Credentials, SoftSim

REFUSALS = 2
"""How often a network refuses a subscription before the device gives it up."""
REFUSED = frozenset({"attach-refused", "network-not-authentic", "wrong-network", "separation-missing", "resync-failed"})
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
        found, gateway = await find(self._unit, gateways)
        if self.usable() is not None:
            return gateway
        event = await self._exchange(found, gateway, again=False)
        if isinstance(event, Rediscover):
            self._unit.tools.log.info("rediscover", detail=event.reason, height=event.height)
            found, gateway = await find(self._unit, (gateway,))
            event = await self._exchange(found, gateway, again=True)
        if isinstance(event, Rediscover):
            raise ExchangeError(event.reason, "twice in a row")
        self._store(event, acted_on(found), found.plan.network.party)
        return gateway

    async def attach(self, stored: Sequence[StoredGrant]) -> tuple[StoredGrant, Attachment]:
        """Attach with the first of ``stored`` that the network takes.

        Raises :class:`AccessError` with the last one's code, or at once if the network cannot be reached.
        """
        failure: AccessError = AccessError("no-subscription", "there is none to attach with")
        for one in stored:
            try:
                attachment = await self._unit.tools.network.attach(GrantedSim(self._unit.memory.grants, one))
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

    async def _exchange(self, found: Discovered, gateway: Gateway, *, again: bool) -> Granted | Rediscover:
        unit, claim, batch = self._unit, found.plan.network, found.view.batch
        if batch is None:
            raise ExchangeError("no-batch", "the view proves no batch")
        acting = unit.acting(acted_on(found), claim, found.network, found.view, found.standing, again=again)
        evidence = unit.attester.towards(claim.party, batch.issuer)
        exchange = Exchange(unit.identity, acting, gateway.relay(claim.party), evidence)
        return await exchange.run(unit.tools.random, unit.tools.sleep)

    def _store(self, event: Granted, acted: Acted, party: bytes) -> None:
        try:
            sim = soft_sim(event, self._unit.memory.birth.chain, party)
        except MalformedError as error:
            raise ExchangeError("unusable-grant", error.code) from error
        self._unit.memory.grants.add(
            event.grant, party=party, kind=PartyKind.NETWORK, origin=acted.origin, sim=sim, key=None
        )
        self._unit.tools.log.info("granted", step="network", party=party, exchange=event.session.th_3)
        self._unit.tools.tell(Stage.NETWORK_GRANTED)


def soft_sim(event: Granted, chain: str, party: bytes) -> SoftSim:
    """Return the USIM that a grant makes; :class:`MalformedError` (``not-a-sim``, ``foreign-imsi``)."""
    k, opc = event.subscription_keys(chain, party)
    body = event.grant.body
    assert isinstance(body, SimGrant)
    imsi = body.supi.removeprefix(_IMSI)
    grant = subscription.SimGrant(imsi, body.home, body.network, body.endpoint)
    return SoftSim.from_grant(grant, Credentials(imsi, k, opc))
