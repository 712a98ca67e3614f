"""An operator of a private network: certificates granted in exchanges, and EAP-TLS 1.3 at the ports of its network.

Its directory holds beside what every operator's does

    authority.pem, authority.der   the network's own certificate authority
    aaa.pem, aaa.crt               what its authentication server proves itself with
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable

from firstlight.access.ports import Traffic
from firstlight.access.serving.network_hostapd import HostapdNetwork, HostapdSettings
from firstlight.access.serving.network_tls import TlsBackend
from firstlight.access.serving.service_port import BrokerIdentity
from firstlight.custody.file import SigningKey
from firstlight.enrolment.issue import create_authority, issue_server, to_pem
from firstlight.files import write_atomic
from firstlight.logs import Log
from firstlight.ports import Clock
from firstlight.roles.party.announcing import announcing
from firstlight.roles.party.keeping import Keeper
from firstlight.roles.party.networks import DIRECTORY
from firstlight.roles.party.place import Place, Ready, Room, announce, keep_ports, last_ports
from firstlight.roles.party.sp import (
    AUTHORITY,
    AUTHORITY_KEY,
    AUTHORITY_SECONDS,
    BROKER_SECONDS,
    CertificateGrantor,
    Revoker,
    authority,
    open_exchanges,
)
from firstlight.roles.party.workers import answered_by
from firstlight.roles.serving import serve_role_by
from firstlight.settings import MnoSettings
from firstlight.stores.certificates import Certificates, CertificateState, StoredCertificate
from firstlight.stores.exchanges import ExchangeStore, GrantState

SERVER_KEY, SERVER = "aaa.pem", "aaa.crt"
SECOND = 1_000_000_000


def prepare(place: Place[MnoSettings]) -> None:
    """Make authority and server certificate where there are none yet; :class:`StoreError`."""
    at, now, random = place.directory, place.now(), place.random
    if not (at / AUTHORITY).exists():
        signer = SigningKey.create(at / AUTHORITY_KEY)
        title = f"Network {place.keys.party.hex()[:16]}"
        own = create_authority(signer, title=title, now=now, lifetime=AUTHORITY_SECONDS, random=random)
        write_atomic(at / AUTHORITY, own.certificate, exclusive=True)
    if not (at / SERVER).exists():
        key, name = SigningKey.create(at / SERVER_KEY), place.settings.server_name
        issued = issue_server(authority(at), key.public, host=name, now=now, lifetime=BROKER_SECONDS, random=random)
        write_atomic(at / SERVER, to_pem(issued.certificate), exclusive=True)


def grantor(place: Place[MnoSettings], endpoint: str) -> CertificateGrantor:
    """Return what makes a private network's certificates, with which devices attach at ``endpoint``."""
    settings = place.settings
    return CertificateGrantor(
        authority(place.directory),
        server=settings.server_name,
        broker=endpoint,
        lifetime=settings.grant_seconds,
        random=place.random,
        network=settings.network,
    )


class Certified:
    """Writes down which certificates were used, and says which may be (``Users``, ``Standing``, ``SessionLog``)."""

    def __init__(self, store: Certificates, exchanges: ExchangeStore, clock: Clock) -> None:
        """Keep both in step."""
        self._store = store
        self._exchanges = exchanges
        self._clock = clock

    async def confirm(self, imsi: str, session: bytes) -> None:  # noqa: ARG002 - no certificate is bound to a session
        """Record a successful use of the certificate of that name; its first revokes what it replaces.

        Raises :class:`StoreError` (``certificate-unknown``, ``certificate-revoked``).
        """
        await asyncio.to_thread(self._confirm, imsi)

    async def ended(self, session: bytes, traffic: Traffic) -> None:
        """Keep no record of sessions."""

    def watch(self, watcher: Callable[[tuple[str, ...]], None]) -> None:
        """Tell ``watcher`` which certificates are revoked."""

        def revoked(gone: tuple[StoredCertificate, ...]) -> None:
            watcher(tuple(one.name for one in gone))

        self._store.watch(revoked)

    def version(self) -> object:
        """Return something that differs whenever anything may have changed."""
        return self._store.version()

    def unusable(self, imsis: Iterable[str]) -> set[str]:
        """Return those names whose certificates are revoked, or unknown."""
        return self._store.unusable(imsis)

    def _confirm(self, name: str) -> None:
        now = self._clock.now()
        confirmation = self._store.confirm(name, now // SECOND)
        self._exchanges.confirm(confirmation.grant, now)


class PrivateNetwork:
    """A network together with its revocation list."""

    def __init__(self, network: HostapdNetwork, backend: TlsBackend) -> None:
        """Put them together."""
        self._network = network
        self._backend = backend

    async def reload_crl(self, crl: bytes) -> None:
        """Use this DER revocation list from now on.

        Where nobody has checked that a device is who it says, all must prove themselves anew: one that was revoked may
        have come in under another's name.
        """
        await self._backend.reload_crl(crl)
        if not self._backend.names_are_proven:
            await self._network.authenticate_all()


async def serve(
    place: Place[MnoSettings], log: Log, *, ready: Ready, workers: int | None = None, coap: bool = False
) -> None:
    """Run the operator until SIGTERM or SIGINT; errors as :func:`firstlight.roles.party.mno.serve`."""
    settings, clock, state_dir = place.settings, place.clock, place.directory

    def report(code: str) -> None:
        log.info(code, step="access")

    prepare(place)
    own = authority(state_dir)
    exchanges = open_exchanges(place.database)
    with Room(place, exchanges, log) as room, contextlib.ExitStack() as inner:
        store = inner.enter_context(contextlib.closing(Certificates.open(place.database)))
        revoker = Revoker(own, store, exchanges, clock=clock, log=log)
        _catch_up(store, exchanges, clock)
        identity = BrokerIdentity(state_dir / SERVER, state_dir / SERVER_KEY, own.certificate)
        backend = TlsBackend(settings.aaa, identity, revoker.crl(), report)
        users = Certified(store, exchanges, clock)
        ports = last_ports(state_dir, settings.host, {"radius": settings.access_port})
        network = HostapdNetwork(
            HostapdSettings(
                state_dir / DIRECTORY,
                settings.host,
                ports["radius"],
                ports=settings.ports,
                lobby=settings.lobby,
                destinations=settings.destinations,
            ),
            backend=backend,
            users=users,
            log=users,
            random=place.random,
            report=report,
        )
        renewing: asyncio.Task[None] | None = None
        try:
            await network.start(users)
            renewing = asyncio.create_task(revoker.run(PrivateNetwork(network, backend)))
            keep_ports(state_dir, network.listens())
            async with (
                Keeper(room.leases().keep, _pruning(store, clock), pause=settings.round_seconds, log=log),
                announcing(place, log),
            ):
                where = network.endpoint
                by, beside = answered_by(
                    room, inner, lambda: grantor(place, where), where=where, workers=workers, coap=coap
                )
                await serve_role_by(by, state_dir, settings, on_ready=announce(ready), beside=beside)
        finally:
            if renewing is not None:
                renewing.cancel()
                await asyncio.wait([renewing])
            await network.close()


def _pruning(store: Certificates, clock: Clock) -> Callable[[], None]:
    def prune() -> None:
        store.prune(clock.now() // SECOND)

    return prune


def _catch_up(store: Certificates, exchanges: ExchangeStore, clock: Clock) -> None:
    """Confirm what a crash left confirmed in one of the two stores only."""
    for grant in exchanges.grants(GrantState.PENDING):
        found = store.by_grant(grant.id)
        if found is not None and found.state is CertificateState.ACTIVE:
            exchanges.confirm(grant.id, clock.now())
