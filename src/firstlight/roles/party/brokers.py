"""Which broker a provider runs: its settings say so."""

from __future__ import annotations

from firstlight.access.serving.service_broker import EmbeddedBroker
from firstlight.access.serving.service_mosquitto import MosquittoBroker, settled
from firstlight.access.serving.service_port import BrokerIdentity, ServiceBroker
from firstlight.logs import Log
from firstlight.roles.party.place import Place, last_ports
from firstlight.settings import SpSettings
from firstlight.stores.certificates import Certificates

DIRECTORY = "broker"
"""Where mosquitto has its files, in the provider's state directory."""


async def broker_of(
    place: Place[SpSettings], identity: BrokerIdentity, crl: bytes, store: Certificates, log: Log
) -> ServiceBroker:
    """Return the broker that the settings ask for, not started yet; one of a former run has ended by then.

    Raises :class:`firstlight.errors.AccessError` (``broker-busy``).
    """
    settings = place.settings
    directory, other = place.directory / DIRECTORY, settings.broker == "mosquitto"
    if other:
        await settled(directory)
    port = last_ports(place.directory, settings.host, {"broker": settings.broker_port})["broker"]
    if not other:
        return EmbeddedBroker(identity, crl, clock=place.clock, log=log, host=settings.host, port=port)
    return MosquittoBroker(
        directory,
        identity,
        crl,
        named=store.names,
        clock=place.clock,
        random=place.random,
        log=log,
        host=settings.host,
        port=port,
    )
