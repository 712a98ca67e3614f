"""A party's place: its state directory, opened, and the exchange room that stands in it.

    <role>.toml     settings
    <role>.sqlite   orders, exchanges, grants, and what the role adds
    ledger.cbor     what has been learnt of the ledger: roots, epochs, heights
    chain.cbor      the newest header that was followed to
    ports           on which ports its access network or broker listened last

and what :mod:`firstlight.roles.registration` keeps.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from firstlight.chain.light import Policy
from firstlight.custody.ephemeral import SystemEphemerals
from firstlight.custody.system import SteadyClock, SystemClock, SystemRandom
from firstlight.engines.port import Genesis
from firstlight.errors import ConfigError, MalformedError, StoreError
from firstlight.files import read_limited, write_atomic
from firstlight.ledger.records import Role
from firstlight.logs import Log
from firstlight.onboarding.party import Party, Profile
from firstlight.onboarding.ports import Grantor, LedgerView
from firstlight.plan.claims import PartyKind
from firstlight.ports import Clock, KeyAgreement, Random
from firstlight.roles import registration, tracking
from firstlight.roles.ledger_client import MEMORY, LedgerClient
from firstlight.roles.party.appraiser import Bodies, LedgerAppraiser
from firstlight.roles.party.desk import Desk
from firstlight.roles.party.inquiries import Inquiries, InquiryDesk, Stores
from firstlight.roles.party.leases import Leases
from firstlight.roles.party.orders import OrderDesk
from firstlight.roles.party.status import database_of
from firstlight.roles.party.tokens import Keys, TokenKeys
from firstlight.roles.party.view import PartyView
from firstlight.roles.registration import GENESIS, PartyKeys
from firstlight.roles.tracking import Followed
from firstlight.settings import MnoSettings, PartySettings, SpSettings, load, write_initial
from firstlight.stores.exchanges import ExchangeStore
from firstlight.stores.pending_orders import PendingOrders
from firstlight.transports.admission import Admission, Rate
from firstlight.transports.body import parse_json
from firstlight.transports.client import Limits, SyncClient
from firstlight.transports.endpoint import read_endpoint

PORTS = "ports"
BURST_SECONDS = 4
"""For how many seconds' worth of exchanges may be begun at once after a silence: a fleet wakes together."""
NODE_LIMITS = Limits(seconds=5.0, connect_seconds=2.0)
KINDS: Mapping[type[PartySettings], tuple[Role, PartyKind]] = {
    MnoSettings: (Role.MNO, PartyKind.NETWORK),
    SpSettings: (Role.SP, PartyKind.SERVICE),
}
"""As what each role is registered, and for what a plan names it."""
_S = TypeVar("_S", bound=PartySettings)
_S_co = TypeVar("_S_co", bound=PartySettings, covariant=True)


@dataclass(frozen=True, slots=True)
class Place(Generic[_S_co]):
    """A state directory, opened."""

    directory: Path
    settings: _S_co
    genesis: Genesis
    keys: PartyKeys
    clock: Clock
    random: Random

    @property
    def chain(self) -> str:
        """The chain's id."""
        return self.genesis.chain

    @property
    def agreement(self) -> KeyAgreement:
        """EDHOC's static key; :class:`StoreError` (``file-missing``)."""
        if self.keys.agreement is None:
            raise StoreError("file-missing", f"there is no {self.directory / registration.AGREEMENT}")
        return self.keys.agreement

    @property
    def database(self) -> Path:
        """Where the role's database is."""
        return database_of(type(self.settings), self.directory)

    def now(self) -> int:
        """Return Unix time in seconds."""
        return self.clock.now() // 1_000_000_000


def make_place(settings: _S, state_dir: Path, genesis: Path) -> Place[_S]:
    """Make a party's state directory with settings, genesis and keys, and open it.

    Raises :class:`ConfigError` (``settings-exist``, ``wrong-setting``), :class:`StoreError` (``file-exists``), and what
    :func:`firstlight.roles.registration.keep_genesis` raises.
    """
    registration.keep_genesis(genesis, state_dir)
    write_initial(settings, state_dir)
    registration.create(state_dir, agreement=True)
    return open_place(type(settings), state_dir)


def open_place(
    kind: type[_S], state_dir: Path, *, clock: Clock | None = None, random: Random | None = None
) -> Place[_S]:
    """Open a party's state directory.

    Raises :class:`ConfigError` of :mod:`firstlight.settings`, ``wrong-chain`` if settings and genesis disagree, and
    what :mod:`firstlight.roles.registration` raises.
    """
    settings = load(kind, state_dir)
    genesis = registration.read_genesis(state_dir / GENESIS)
    if settings.chain != genesis.chain:
        raise ConfigError("wrong-chain", f"settings say {settings.chain}, the genesis {genesis.chain}")
    keys = registration.load(state_dir)
    return Place(state_dir, settings, genesis, keys, clock or SystemClock(), random or SystemRandom())


def request(kind: type[PartySettings], state_dir: Path) -> bytes:
    """Return the party's request to be registered, with the endpoints at which it serves now.

    Raises :class:`ConfigError` (``not-serving``) if it does not.
    """
    place = open_place(kind, state_dir)
    try:
        urls = read_endpoint(state_dir).urls
    except StoreError as error:
        hint = f"start it with: firstlight {kind.ROLE} serve {state_dir}"
        raise ConfigError("not-serving", "a party is registered where it can be reached", hint=hint) from error
    role, _ = KINDS[kind]
    return registration.request(place.keys, [role], chain=place.chain, endpoints=urls)


class Room(contextlib.ExitStack):
    """What decides a party's exchanges: the stores, the ledger view, the verifier and the protocol.

    A context manager; leaving it closes everything.
    """

    def __init__(
        self, place: Place[PartySettings], exchanges: ExchangeStore, log: Log, *, process: int | None = None
    ) -> None:
        """Put it together; ``exchanges`` is closed with it. Each ``process`` keeps what it learns of the ledger."""
        super().__init__()
        self.place = place
        self.log = log
        self.exchanges = exchanges
        self.callback(exchanges.close)
        self.pending = PendingOrders.open(place.database)
        self.callback(self.pending.close)
        http = SyncClient(NODE_LIMITS)
        ledger = LedgerClient(
            place.settings.node, place.genesis, _own(place, MEMORY, process), random=place.random, http=http
        )
        self.callback(ledger.close)
        policy = Policy.of_days(place.settings.trusting_days)
        followed = Followed(ledger, _own(place, tracking.MEMORY, process), policy=policy, clock=place.clock)
        self.view = PartyView(followed, place.keys.party)
        self._bodies = Bodies(place.settings.gateway, http.get, log)
        self._ephemerals = SystemEphemerals(SteadyClock())

    def tokens(self) -> TokenKeys:
        """Return fresh token keys."""
        return TokenKeys(self.place.clock, self.place.random, self.place.settings.exchange_seconds)

    def party(self, grantor: Grantor, *, ledger: LedgerView | None = None) -> Party:
        """Return what decides exchanges, with credentials that ``grantor`` makes; ``ledger`` in place of the view."""
        place, settings = self.place, self.place.settings
        _, kind = KINDS[type(settings)]
        profile = Profile(
            place.chain,
            place.keys.party,
            place.agreement,
            frozenset({kind}),
            frozenset(settings.suites),
            max_view_age=settings.view_seconds,
        )
        return Party(
            profile,
            ledger=ledger or self.view,
            appraiser=LedgerAppraiser(self.view, self._bodies),
            grantor=grantor,
            orders=self.exchanges,
            exchanges=self.exchanges,
            random=place.random,
            ephemerals=self._ephemerals,
        )

    def desk(self, grantor: Grantor, tokens: Keys | None = None) -> Desk:
        """Return the server's routes for a party whose credentials ``grantor`` makes; the caller closes it.

        Without ``tokens`` it has token keys of its own.
        """
        place = self.place
        orders = OrderDesk(
            place.chain,
            place.keys.party,
            view=self.view,
            pending=self.pending,
            exchanges=self.exchanges,
            clock=place.clock,
        )
        inquiries = InquiryDesk(self.inquiries(), clock=place.clock, log=self.log)
        party, admission, keys = self.party(grantor), self.admission(), tokens or self.tokens()
        return Desk(
            party,
            orders,
            inquiries,
            tokens=keys,
            admission=admission,
            clock=place.clock,
            log=self.log,
            forget=self._ephemerals.forget,
        )

    def inquiries(self) -> Inquiries:
        """Return what answers owners."""
        place = self.place
        stores = Stores(place.database, self.pending, self.exchanges)
        return Inquiries(
            place.chain, place.keys.party, place.agreement, view=self.view, stores=stores, clock=place.clock
        )

    def admission(self) -> Admission:
        """Return what bounds requests of those whom nobody has authenticated yet."""
        settings = self.place.settings
        return Admission(
            self.place.clock, source=_rate(settings.begins_per_source), total=_rate(settings.begins_per_second)
        )

    def leases(self) -> Leases:
        """Return what ends grants in time."""
        grace = self.place.settings.plan_seconds
        return Leases(self.exchanges, self.view, clock=self.place.clock, log=self.log, grace=grace)


def _own(place: Place[PartySettings], name: str, process: int | None) -> Path:
    """Return the file called ``name``, or that of one process of several: ``ledger.cbor``, ``ledger-2.cbor``."""
    path = place.directory / name
    return path if process is None else path.with_stem(f"{path.stem}-{process}")


def _rate(per_second: int) -> Rate:
    return Rate(per_second, BURST_SECONDS * per_second)


# --- ports that outlive the process -------------------------------------------------------------


def last_ports(state_dir: Path, host: str, wanted: Mapping[str, int]) -> dict[str, int]:
    """Return for each name in ``wanted`` the port to listen on: that of the settings, else the last one if it is free.

    Devices have been told these ports in their grants; a restart must not change them.
    """
    try:
        value = parse_json(read_limited(state_dir / PORTS, 1_024))
    except (StoreError, MalformedError):
        value = {}
    last = value if isinstance(value, dict) else {}
    return {name: port or _free(host, last.get(name)) for name, port in wanted.items()}


def keep_ports(state_dir: Path, ports: Mapping[str, int]) -> None:
    """Write down on which ports it listens."""
    write_atomic(state_dir / PORTS, json.dumps(dict(ports)).encode())


def port_of(uri: str) -> int:
    """Return the port in ``scheme://host:port``."""
    return int(uri.rpartition(":")[2])


def _free(host: str, port: object) -> int:
    if type(port) is not int or not 0 < port < 65_536:
        return 0
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError:
        return 0
    return port


Ready = Callable[[str], None]
"""Told the URL once a server accepts requests."""


def announce(ready: Ready) -> Callable[[str], Awaitable[None]]:
    """Return ``ready`` as a server wants it."""

    async def on_ready(url: str) -> None:
        ready(url)

    return on_ready
