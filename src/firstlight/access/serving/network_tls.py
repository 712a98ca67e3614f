"""What an EAP server of a private network offers: EAP-TLS by certificates that its operator has granted."""

from __future__ import annotations

import asyncio
from pathlib import Path

from firstlight.access.serving.eap_tls import EapTlsServer, FreeradiusTls, HostapdTls
from firstlight.access.serving.hostapd import RadiusClient
from firstlight.access.serving.network_port import Report
from firstlight.access.serving.service_port import BrokerIdentity
from firstlight.enrolment.topics import is_credential_name
from firstlight.errors import AccessError

SERVERS: dict[str, type[HostapdTls] | type[FreeradiusTls]] = {"hostapd": HostapdTls, "freeradius": FreeradiusTls}


class TlsBackend:
    """A :class:`firstlight.access.serving.network_hostapd.Backend` for certificates."""

    def __init__(self, kind: str, identity: BrokerIdentity, crl: bytes, report: Report) -> None:
        """Serve by a program of :data:`SERVERS`, with a first DER revocation list; ``report`` hears of refusals."""
        self._kind = SERVERS[kind]
        self._identity = identity
        self._crl = crl
        self._report = report
        self._server: EapTlsServer | None = None
        self._turn = asyncio.Lock()

    @property
    def names_are_proven(self) -> bool:
        """Whether an identity is the name in the certificate that was shown, and not just what a device says."""
        return self._kind is FreeradiusTls

    async def serve(self, directory: Path, client: RadiusClient) -> EapTlsServer:
        """Run the server, unless it runs already; errors as the port."""
        async with self._turn:
            running = self._server
            if running is None or not running.daemon.alive:
                running = self._kind(directory, self._identity, self._crl, [client], self._report)
                await running.start()
                self._server = running
        return running

    async def subscriber(self, identity: str, where: str) -> str:  # noqa: ARG002 - a certificate serves anywhere
        """Return the name of the certificate behind an identity; :class:`AccessError` (``unknown-subscriber``).

        Whether there is such a certificate, and whether it counts, says whoever writes down that it was used.
        """
        if not is_credential_name(identity):
            raise AccessError("unknown-subscriber", "not the name of a certificate")
        return identity

    async def reload_crl(self, crl: bytes) -> None:
        """Return when nobody gets in by an older list any more; errors as :meth:`EapTlsServer.reload_crl`."""
        async with self._turn:
            if self._server is not None:
                await self._server.reload_crl(crl)
            self._crl = crl

    async def close(self) -> None:
        """Nothing is left to close: whoever runs the server stops it."""
