"""A service provider: certificates issued in exchanges, and the broker that devices connect to with them.

Its directory holds beside the rest (:mod:`firstlight.roles.party.place`)

    authority.pem, authority.der   its own certificate authority
    broker.pem, broker.crt         what its broker proves itself with
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from firstlight.access.serving.service_port import BrokerIdentity
from firstlight.custody.file import SigningKey
from firstlight.enrolment.issue import (
    MAX_CERTIFICATE,
    Authority,
    create_authority,
    issue_client,
    issue_crl,
    issue_server,
    to_pem,
)
from firstlight.enrolment.request import check_request
from firstlight.enrolment.topics import topic_of
from firstlight.errors import ConfigError, FirstlightError, RefusedError
from firstlight.files import read_limited, write_atomic
from firstlight.logs import Log, adopt_libraries, open_log
from firstlight.onboarding.messages import Exporter, X509Grant
from firstlight.onboarding.ports import Asked, Entry, Issue, NewGrant
from firstlight.ports import Clock, Random
from firstlight.roles.party.announcing import announcing
from firstlight.roles.party.brokers import broker_of
from firstlight.roles.party.keeping import Keeper
from firstlight.roles.party.mno import slot_of
from firstlight.roles.party.place import Place, Ready, Room, announce, keep_ports, make_place, open_place
from firstlight.roles.party.readers import Reader
from firstlight.roles.party.workers import answered_by
from firstlight.roles.serving import serve_role_by
from firstlight.settings import SpSettings
from firstlight.stores import certificates
from firstlight.stores.certificates import Certificates, NewCertificate, StoredCertificate
from firstlight.stores.exchanges import ExchangeStore, StoredGrant
from firstlight.stores.messages import Messages

AUTHORITY_KEY, AUTHORITY = "authority.pem", "authority.der"
BROKER_KEY, BROKER = "broker.pem", "broker.crt"
AUTHORITY_SECONDS = 20 * 365 * 86_400
BROKER_SECONDS = 5 * 365 * 86_400
CRL_SECONDS = 86_400
"""How long a revocation list stands; a new one is made twice in that time, and with every revocation."""
RETRY_SECONDS = 1.0
"""Until a list that the broker did not take is given to it again."""
MESSAGE_SECONDS = 30 * 86_400
"""How long notes of messages are kept."""
TOPIC = "telemetry"
SERIAL_BYTES = 20
SECOND = 1_000_000_000


def init(settings: SpSettings, state_dir: Path, genesis: Path) -> Place[SpSettings]:
    """Make a provider's state directory; errors as :func:`firstlight.roles.party.place.make_place`."""
    place = make_place(settings, state_dir, genesis)
    now, random = place.now(), place.random
    title = f"SP {place.keys.party.hex()[:16]}"
    signer = SigningKey.create(state_dir / AUTHORITY_KEY)
    own = create_authority(signer, title=title, now=now, lifetime=AUTHORITY_SECONDS, random=random)
    write_atomic(state_dir / AUTHORITY, own.certificate, exclusive=True)
    key = SigningKey.create(state_dir / BROKER_KEY)
    issued = issue_server(own, key.public, host=settings.server_name, now=now, lifetime=BROKER_SECONDS, random=random)
    write_atomic(state_dir / BROKER, to_pem(issued.certificate), exclusive=True)
    return place


def authority(state_dir: Path) -> Authority:
    """Return the provider's authority; :class:`firstlight.errors.StoreError`."""
    certificate = read_limited(state_dir / AUTHORITY, MAX_CERTIFICATE)
    return Authority(certificate, SigningKey.load(state_dir / AUTHORITY_KEY))


class CertificateGrantor:
    """Issues certificates (``onboarding.ports.Grantor``) for the key in a device's request."""

    def __init__(
        self, own: Authority, *, server: str, broker: str, lifetime: int, random: Random, network: str = ""
    ) -> None:
        """Grant for ``lifetime`` seconds at most; devices find ``server`` (its name) at ``broker`` (a URI).

        ``network`` is the name of a private network; without it devices get a topic of their own.
        """
        self._network = network
        self._authority = own
        self._server = server
        self._broker = broker
        self._lifetime = lifetime
        self._random = random

    def grant(self, asked: Asked, exporter: Exporter) -> Issue:  # noqa: ARG002 - the key is the device's own
        """Issue a certificate.

        1. One is asked for (``request-missing``), 2. in a request that holds
        (:func:`firstlight.enrolment.request.check_request`). Raises :class:`RefusedError`, ``authority-expired`` too.
        """
        if not asked.request:
            raise RefusedError("request-missing")
        public = check_request(asked.request)
        lifetime = min(self._lifetime, asked.until - asked.now)
        try:
            issued = issue_client(self._authority, public, now=asked.now, lifetime=lifetime, random=self._random)
        except ConfigError as error:
            raise RefusedError(error.code, error.detail) from error
        body = X509Grant(
            (issued.certificate,),
            (self._authority.certificate,),
            self._server,
            self._broker,
            self._network or topic_of(issued.name, TOPIC),
        )
        return Issue(body, issued.expires, issued.name, issued.serial.to_bytes(SERIAL_BYTES))


def keep_certificate(connection: sqlite3.Connection, entry: Entry, grant: NewGrant) -> None:
    """Keep a new grant's certificate in the transaction that commits its exchange (``stores.exchanges.GrantHook``)."""
    serial = int.from_bytes(grant.secret)
    slot = slot_of(entry.batch, entry.index, grant.origin)
    certificate = NewCertificate(grant.identifier, serial, grant.id, slot, grant.issued_at, grant.expires)
    certificates.insert(connection, certificate, first=entry.version == 0)


def open_exchanges(database: Path) -> ExchangeStore:
    """Open a provider's exchanges; errors as :meth:`ExchangeStore.open`."""
    return ExchangeStore.open(database, on_grant=keep_certificate)


class Revocable(Protocol):
    """What goes by a revocation list: a broker, or a private network."""

    async def reload_crl(self, crl: bytes) -> None:
        """Use this DER revocation list from now on."""
        ...


class Revoker:
    """Keeps a revocation list current: revokes what ends, and issues a new list in time."""

    def __init__(
        self, own: Authority, store: Certificates, exchanges: ExchangeStore, *, clock: Clock, log: Log
    ) -> None:
        """Follow what happens in both stores from now on; call :meth:`run` in the event loop.

        What a crash left of a grant that has ended is revoked at once.
        """
        self._authority = own
        self._store = store
        self._clock = clock
        self._log = log
        self._due = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        exchanges.watch(self._ended)
        store.watch(self._revoked)
        store.revoke(sorted(store.living() - exchanges.living()), clock.now() // SECOND)

    def crl(self) -> bytes:
        """Return a new revocation list."""
        now = self._clock.now() // SECOND
        following = self._store.next_list(now)
        return issue_crl(self._authority, following.entries, number=following.number, now=now, lifetime=CRL_SECONDS)

    async def run(self, broker: Revocable) -> None:
        """Give ``broker`` a new list whenever something was revoked, and before the old one is overdue."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CRL_SECONDS / 2):
                    await self._due.wait()
            self._due.clear()
            try:
                await broker.reload_crl(await asyncio.to_thread(self.crl))
            except FirstlightError as error:
                self._log.refusal(error, step="crl")
                self._loop.call_later(RETRY_SECONDS, self._due.set)

    def _ended(self, ended: tuple[StoredGrant, ...]) -> None:
        try:
            self._store.revoke([grant.id for grant in ended], self._clock.now() // SECOND)
        except FirstlightError as error:
            self._log.refusal(error, step="revoke")
        self._revoked(())

    def _revoked(self, _: tuple[StoredCertificate, ...]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._due.set)


def grantor(place: Place[SpSettings], broker: str) -> CertificateGrantor:
    """Return what makes a provider's certificates, with which devices connect to ``broker``."""
    return CertificateGrantor(
        authority(place.directory),
        server=place.settings.server_name,
        broker=broker,
        lifetime=place.settings.grant_seconds,
        random=place.random,
    )


async def serve(
    state_dir: Path, *, ready: Ready, quiet: bool = False, workers: int | None = None, coap: bool = False
) -> None:
    """Run the provider until SIGTERM or SIGINT: onboarding, orders, and the broker.

    ``workers`` and ``coap`` are for the settings of these names. Raises what opening the directory raises,
    :class:`firstlight.errors.AccessError` (``broker-not-started``),
    :class:`firstlight.errors.ConfigError` (``cannot-listen``).
    """
    place = open_place(SpSettings, state_dir)
    settings, clock = place.settings, place.clock
    log = open_log(state_dir, settings.ROLE, clock, quiet=quiet)
    adopt_libraries(log)
    own = authority(state_dir)
    exchanges = open_exchanges(place.database)
    with Room(place, exchanges, log) as room, contextlib.ExitStack() as inner:
        store = inner.enter_context(contextlib.closing(Certificates.open(place.database)))
        messages = inner.enter_context(contextlib.closing(Messages.open(place.database)))
        reader = inner.enter_context(contextlib.closing(Reader(messages, store, exchanges, clock=clock, log=log)))
        revoker = Revoker(own, store, exchanges, clock=clock, log=log)
        identity = BrokerIdentity(state_dir / BROKER, state_dir / BROKER_KEY, own.certificate)
        broker = await broker_of(place, identity, revoker.crl(), store, log)
        broker.messages(reader.take)
        await broker.start()
        renewing = asyncio.create_task(revoker.run(broker))
        try:
            where = broker.endpoint
            keep_ports(state_dir, {"broker": where.port})
            uri = f"mqtts://{where.host}:{where.port}"
            async with (
                Keeper(room.leases().keep, _pruning(store, messages, clock), pause=settings.round_seconds, log=log),
                announcing(place, log),
            ):
                by, beside = answered_by(
                    room, inner, lambda: grantor(place, uri), where=uri, workers=workers, coap=coap
                )
                await serve_role_by(by, state_dir, settings, on_ready=announce(ready), beside=beside)
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])
            await broker.stop()


def _pruning(store: Certificates, messages: Messages, clock: Clock) -> Callable[[], None]:
    def prune() -> None:
        store.prune(clock.now() // SECOND)
        messages.prune(clock.now() - MESSAGE_SECONDS * SECOND)

    return prune
