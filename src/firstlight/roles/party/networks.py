"""Which access network an operator runs: its settings say so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from firstlight.access.serving.authentication_centre import StoredAuthenticationCentre
from firstlight.access.serving.copies import CopyWatch
from firstlight.access.serving.network_embedded import EmbeddedNetwork, NetworkSettings
from firstlight.access.serving.network_hostapd import AkaBackend, HostapdNetwork, HostapdSettings
from firstlight.access.serving.network_port import NetworkServing
from firstlight.logs import Log
from firstlight.roles.party.naming import StoredNames
from firstlight.roles.party.place import Place, last_ports
from firstlight.settings import MnoSettings
from firstlight.sim.suci import HomeKey
from firstlight.stores.subscriptions import Subscriptions

DIRECTORY = "access"
"""Where what others wrote has its files, in the operator's state directory."""


@dataclass(frozen=True, slots=True)
class Operator:
    """What a network serves from; ``copied`` is told the IMSI of a subscription that two devices have."""

    place: Place[MnoSettings]
    key: HomeKey
    store: Subscriptions
    centre: StoredAuthenticationCentre
    copied: Callable[[str], None]


def network_of(operator: Operator, log: Log) -> NetworkServing:
    """Return the network that the settings ask for, not started yet."""

    def report(code: str) -> None:
        log.info(code, step="access")

    if operator.place.settings.access == "hostapd":
        return _hostapd(operator, report)
    return _embedded(operator, report)


def _embedded(operator: Operator, report: Callable[[str], None]) -> EmbeddedNetwork:
    place, settings = operator.place, operator.place.settings
    ports = last_ports(place.directory, settings.host, {"attach": settings.access_port, "forwarder": 0})
    return EmbeddedNetwork(
        NetworkSettings(
            settings.network, settings.host, attach_port=ports["attach"], forwarder_port=ports["forwarder"]
        ),
        centre=operator.centre,
        log=operator.centre,
        home_keys={operator.key.key_id: operator.key},
        allowed=destinations(settings.destinations),
        clock=place.clock,
        random=place.random,
        report=report,
    )


def _hostapd(operator: Operator, report: Callable[[str], None]) -> HostapdNetwork:
    place, settings = operator.place, operator.place.settings
    ports = last_ports(place.directory, settings.host, {"radius": settings.access_port})
    names = StoredNames(operator.store, place.clock)
    copies = CopyWatch(operator.store, place.random, operator.copied)
    return HostapdNetwork(
        HostapdSettings(
            place.directory / DIRECTORY,
            settings.host,
            ports["radius"],
            ports=settings.ports,
            lobby=settings.lobby,
            destinations=settings.destinations,
        ),
        backend=AkaBackend(operator.centre, report, names, copies=copies),
        users=operator.centre,
        log=operator.centre,
        random=place.random,
        report=report,
    )


def destinations(patterns: tuple[str, ...]) -> Callable[[str, int], bool]:
    """Return whether devices may go to a host and port, by patterns like ``host:port`` and ``host:*``."""
    allowed = frozenset(patterns)
    return lambda host, port: f"{host}:{port}" in allowed or f"{host}:*" in allowed
