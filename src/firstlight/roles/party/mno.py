"""A mobile network operator: subscriptions granted in exchanges, and the network that devices attach to with them.

Its directory holds beside the rest (:mod:`firstlight.roles.party.place`) ``home-network.key``, with which it reveals
concealed identities.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from starlette.routing import BaseRoute

from firstlight.encoding import Bytes32, Record, encode
from firstlight.errors import FirstlightError, RefusedError
from firstlight.files import read_limited, write_atomic
from firstlight.logs import adopt_libraries, open_log
from firstlight.onboarding.messages import Exporter, SimGrant, subscription_keys
from firstlight.onboarding.ports import Asked, Entry, Issue, NewGrant
from firstlight.ports import Random
from firstlight.roles.party.announcing import announcing
from firstlight.roles.party.centres import centre_of
from firstlight.roles.party.keeping import Keeper
from firstlight.roles.party.naming import NamingDesk
from firstlight.roles.party.networks import Operator, network_of
from firstlight.roles.party.place import (
    Place,
    Ready,
    Room,
    announce,
    keep_ports,
    make_place,
    open_place,
)
from firstlight.roles.party.workers import answered_by
from firstlight.roles.serving import serve_role_by
from firstlight.settings import MnoSettings
from firstlight.sim import suci
from firstlight.sim.subscription import Credentials, Subscription, SubscriptionStatus, draw_imsi
from firstlight.sim.suci import HomeKey, HomeNetwork, KeyId, Scheme
from firstlight.stores import subscriptions
from firstlight.stores.exchanges import ExchangeStore, GrantState, StoredGrant
from firstlight.stores.subscriptions import Subscriptions

HOME_KEY = "home-network.key"
ROUTING = "0"
SUPI = "imsi-"
MAX_KEY_FILE = 256


@dataclass(frozen=True, slots=True)
class HomeKeyFile(Record):
    """The home-network key as it is kept."""

    scheme: Scheme
    key_id: KeyId
    private: Bytes32 = field(repr=False)


def init(settings: MnoSettings, state_dir: Path, genesis: Path) -> Place[MnoSettings]:
    """Make an operator's state directory; errors as :func:`firstlight.roles.party.place.make_place`."""
    place = make_place(settings, state_dir, genesis)
    key = suci.generate(Scheme.PROFILE_A, 1, place.random)
    data = HomeKeyFile(key.scheme, key.key_id, key.private).encode()
    write_atomic(state_dir / HOME_KEY, data, exclusive=True)
    return place


def home_key(state_dir: Path) -> HomeKey:
    """Return the home-network key; :class:`firstlight.errors.StoreError`, :class:`MalformedError`."""
    kept = HomeKeyFile.decode(read_limited(state_dir / HOME_KEY, MAX_KEY_FILE, private=True))
    return HomeKey(kept.scheme, kept.key_id, kept.private)


def home_network(settings: MnoSettings, key: HomeKey) -> HomeNetwork:
    """Return what devices are told of the home network."""
    return HomeNetwork(settings.mcc, settings.mnc, ROUTING, key.scheme, key.key_id, key.public)


def slot_of(batch: bytes, index: int, origin: int) -> bytes:
    """Return the slot (16 bytes) in which a device under one origin tenure has its subscriptions."""
    return hashlib.sha256(encode(["firstlight-slot-1", batch, index, origin])).digest()[:16]


class SimGrantor:
    """Makes subscriptions (``onboarding.ports.Grantor``): a fresh SUPI, K and OPc from the exchange's exporter."""

    def __init__(
        self, chain: str, party: bytes, home: HomeNetwork, *, network: str, endpoint: str, lifetime: int, random: Random
    ) -> None:
        """Grant for ``lifetime`` seconds at most; devices attach at ``endpoint`` to ``network``."""
        self._chain = chain
        self._party = party
        self._home = home
        self._network = network
        self._endpoint = endpoint
        self._lifetime = lifetime
        self._random = random

    def grant(self, asked: Asked, exporter: Exporter) -> Issue:
        """Make a subscription.

        1. No certificate is asked for (``request-unexpected``). Raises :class:`RefusedError`.
        """
        if asked.request:
            raise RefusedError("request-unexpected")
        supi = SUPI + draw_imsi(self._home, self._random)
        k, opc = subscription_keys(exporter, chain=self._chain, party=self._party, supi=supi)
        body = SimGrant(supi, self._endpoint, self._home, self._network)
        return Issue(body, min(asked.now + self._lifetime, asked.until), supi, k + opc)


def keep_subscription(connection: sqlite3.Connection, entry: Entry, grant: NewGrant) -> None:
    """Keep a new grant's subscription in the transaction that commits its exchange (``stores.exchanges.GrantHook``)."""
    credentials = Credentials(grant.identifier.removeprefix(SUPI), grant.secret[:16], grant.secret[16:])
    slot = slot_of(entry.batch, entry.index, grant.origin)
    subscription = Subscription(credentials, 0, SubscriptionStatus.PENDING, slot, grant.id)
    subscriptions.insert(connection, subscription, first=entry.version == 0)


def open_exchanges(database: Path) -> ExchangeStore:
    """Open an operator's exchanges; errors as :meth:`ExchangeStore.open`."""
    return ExchangeStore.open(database, on_grant=keep_subscription)


class Subscribers:
    """Keeps grants and subscriptions in step: what is first used is confirmed, what ends can no longer attach."""

    def __init__(self, exchanges: ExchangeStore, store: Subscriptions, room: Room) -> None:
        """Follow what happens in both from now on, and catch up with what a crash left in one of them only."""
        self._exchanges = exchanges
        self._store = store
        self._room = room
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="confirm")
        exchanges.watch(self._ended)
        for grant in exchanges.grants(GrantState.PENDING):
            if store.confirmed_at(grant.id) is not None:
                self._confirm(grant.id)
        for over in store.living() - exchanges.living():
            store.end(over)

    def used(self, grant: bytes) -> None:
        """Note, from the event loop, that a grant was used for the first time."""
        self._thread.submit(self._confirm, grant)

    def copied(self, imsi: str) -> None:
        """Raise the clone alarm for a device whose subscription is in use twice."""
        try:
            found = self._store.get(imsi)
            if found is not None:
                self._exchanges.raise_alarm(found.grant, self._room.place.clock.now())
        except FirstlightError as error:
            self._room.log.refusal(error, step="alarm")

    def close(self) -> None:
        """Finish what is being written."""
        self._thread.shutdown()

    def _confirm(self, grant: bytes) -> None:
        try:
            self._exchanges.confirm(grant, self._room.place.clock.now())
        except FirstlightError as error:
            self._room.log.refusal(error, step="confirm")

    def _ended(self, ended: tuple[StoredGrant, ...]) -> None:
        try:
            for grant in ended:
                self._store.end(grant.id)
        except FirstlightError as error:
            self._room.log.refusal(error, step="end")


def grantor(place: Place[MnoSettings], endpoint: str) -> SimGrantor:
    """Return what makes an operator's subscriptions, with which devices attach at ``endpoint``."""
    settings = place.settings
    return SimGrantor(
        place.chain,
        place.keys.party,
        home_network(settings, home_key(place.directory)),
        network=settings.network,
        endpoint=endpoint,
        lifetime=settings.grant_seconds,
        random=place.random,
    )


def naming_routes(room: Room, key: HomeKey, store: Subscriptions) -> tuple[BaseRoute, ...]:
    """Return the route where SUCIs are answered with one-time names, if the network that serves takes no SUCI."""
    place = room.place
    own = place.settings
    if not isinstance(own, MnoSettings) or own.access == "embedded" or own.mode == "snpn":
        return ()
    desk = NamingDesk(store, key, admission=room.admission(), clock=place.clock, random=place.random)
    return desk.routes()


async def serve(
    state_dir: Path, *, ready: Ready, quiet: bool = False, workers: int | None = None, coap: bool = False
) -> None:
    """Run the operator until SIGTERM or SIGINT: onboarding, orders, and the access network.

    ``workers`` and ``coap`` are for the settings of these names. Raises what opening the directory raises,
    :class:`firstlight.errors.AccessError` (``port-unavailable``),
    :class:`firstlight.errors.ConfigError` (``cannot-listen``).
    """
    place = open_place(MnoSettings, state_dir)
    settings = place.settings
    log = open_log(state_dir, settings.ROLE, place.clock, quiet=quiet)
    adopt_libraries(log)
    if settings.mode == "snpn":
        from firstlight.roles.party import snpn

        await snpn.serve(place, log, ready=ready, workers=workers, coap=coap)
        return
    key = home_key(state_dir)
    exchanges = open_exchanges(place.database)
    with Room(place, exchanges, log) as room, contextlib.ExitStack() as inner:
        store = inner.enter_context(contextlib.closing(Subscriptions.open(place.database)))
        store.close_sessions(place.now())
        subscribers = inner.enter_context(contextlib.closing(Subscribers(exchanges, store, room)))
        centre = centre_of(place, store, log, subscribers.used)
        network = network_of(Operator(place, key, store, centre, subscribers.copied), log)
        try:
            await centre.start()
            await network.start(store)
            keep_ports(state_dir, network.listens())
            async with Keeper(room.leases().keep, pause=settings.round_seconds, log=log), announcing(place, log):
                by, beside = answered_by(
                    room,
                    inner,
                    lambda: grantor(place, network.endpoint),
                    where=network.endpoint,
                    workers=workers,
                    coap=coap,
                    more=naming_routes(room, key, store),
                )
                await serve_role_by(by, state_dir, settings, on_ready=announce(ready), beside=beside)
        finally:
            await network.close()
            await centre.close()
