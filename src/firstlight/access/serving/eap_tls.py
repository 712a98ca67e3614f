"""EAP-TLS 1.3 (RFC 9190) for a private network: hostapd or FreeRADIUS as the server, with a live revocation list.

Both demand TLS 1.3 and a certificate of the network's own authority that its newest list does not revoke, and resume no
session: one that is resumed would go past the list. hostapd reads a changed list at the next handshake after
:data:`RELOAD_SECONDS`. FreeRADIUS reads it at its start alone: another one is started beside it and takes over, and the
one before ends when those whom it was speaking to are done.

FreeRADIUS holds a device to the name in its certificate. hostapd does not: what it says an identity is, is what the
device has said. So an identity counts as a name for the books alone, and a revocation is a matter of certificates.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from firstlight.access.serving.daemons import FREERADIUS, Daemon, Recipe, put
from firstlight.access.serving.hostapd import EapMethods, EapServer, RadiusClient, free_udp_port
from firstlight.access.serving.network_port import Report
from firstlight.access.serving.service_port import BrokerIdentity
from firstlight.enrolment.issue import crl_serials, crl_to_pem, to_pem
from firstlight.errors import AccessError

TRUST = "trust.pem"
"""The authority's certificate and its revocation list, in one file."""
RELOAD_SECONDS = 1
DRAIN_SECONDS = 2
"""How long a FreeRADIUS goes on after another has taken over."""
_USERS = ("* TLS",)
_FLAGS = "[ENABLE-TLSv1.3][DISABLE-TLSv1.2][DISABLE-TLSv1.1][DISABLE-TLSv1.0]"
_FAILURE = re.compile(r"authsrv: certificate chain failure: reason=(\d+)")
_REASONS: Mapping[int, str] = MappingProxyType(
    {1: "certificate-untrusted", 2: "certificate-revoked", 3: "certificate-not-yet-valid", 4: "certificate-expired"}
)
"""hostapd's reasons (``enum tls_fail_reason``)."""
_WORDS = (
    ("certificate revoked", "certificate-revoked"),
    ("certificate has expired", "certificate-expired"),
    ("not yet valid", "certificate-not-yet-valid"),
    ("Certificate CN", "identity-not-its-own"),
    ("unknown CA", "certificate-untrusted"),
    ("unable to get", "certificate-untrusted"),
    ("self-signed certificate", "certificate-untrusted"),
    ("certificate signature failure", "certificate-untrusted"),
    ("unsupported protocol", "tls-version-refused"),
    ("protocol version", "tls-version-refused"),
    ("did not return a certificate", "certificate-missing"),
)
"""What the servers say of a handshake that failed; the first that fits."""


def refusal(line: str) -> str | None:
    """Return the code for what a server prints of a handshake that failed; None for anything else."""
    found = _FAILURE.search(line)
    if found is not None:
        return _REASONS.get(int(found[1]), "certificate-refused")
    return next((code for words, code in _WORDS if words in line), None)


def trust(identity: BrokerIdentity, crl: bytes) -> bytes:
    """Return authority and list in one PEM file; errors of :func:`firstlight.enrolment.issue.crl_serials`."""
    crl_serials(crl, anchor=identity.authority)
    return to_pem(identity.authority) + crl_to_pem(crl)


class EapTlsServer(Protocol):
    """An EAP-TLS server that answers over RADIUS."""

    port: int
    """The UDP port on which RADIUS is answered."""

    async def start(self) -> None:
        """Start it; errors as :meth:`firstlight.access.serving.daemons.Daemon.start`."""
        ...

    @property
    def daemon(self) -> Daemon:
        """The running program; :class:`AccessError` (``daemon-died``) before :meth:`start`."""
        ...

    async def reload_crl(self, crl: bytes) -> None:
        """Return when no handshake goes by an older list than this DER one any more.

        Errors as :func:`firstlight.enrolment.issue.crl_serials`, and those of :meth:`start`.
        """
        ...

    async def stop(self) -> None:
        """Stop it."""
        ...


class HostapdTls:
    """hostapd as an :class:`EapTlsServer`."""

    def __init__(
        self, directory: Path, identity: BrokerIdentity, crl: bytes, clients: Sequence[RadiusClient], report: Report
    ) -> None:
        """Prepare one in ``directory`` of its own, with a first DER revocation list; ``report`` hears of refusals."""
        self._directory = directory
        self._identity = identity
        self._clients = clients
        self._report = report
        self._methods = tls_methods(identity, crl)
        self._server: EapServer | None = None
        self.port = 0

    async def start(self) -> None:
        """Start it."""
        hear = _heard(self._report)
        self._server = EapServer(self._directory, self._methods, self._clients, port=self.port, hear=hear)
        await self._server.start()
        self.port = self._server.port

    @property
    def daemon(self) -> Daemon:
        """The running program."""
        if self._server is None:
            raise AccessError("daemon-died", "hostapd was not started")
        return self._server.daemon

    async def reload_crl(self, crl: bytes) -> None:
        """Have it read ``crl``."""
        self._methods = tls_methods(self._identity, crl)
        put(self._directory / TRUST, self._methods.files[TRUST])
        await asyncio.sleep(RELOAD_SECONDS)

    async def stop(self) -> None:
        """Stop it."""
        if self._server is not None:
            await self._server.stop()


def tls_methods(identity: BrokerIdentity, crl: bytes) -> EapMethods:
    """Return EAP-TLS 1.3 for hostapd; errors of :func:`trust`."""
    settings: dict[str, str | int] = {
        "ca_cert": TRUST,
        "server_cert": str(identity.certificate.absolute()),
        "private_key": str(identity.key.absolute()),
        "check_crl": 1,
        "crl_reload_interval": RELOAD_SECONDS,
        "tls_flags": _FLAGS,
        "tls_session_lifetime": 0,
    }
    return EapMethods(_USERS, settings, {TRUST: trust(identity, crl)})


class FreeradiusTls:
    """FreeRADIUS as an :class:`EapTlsServer`."""

    def __init__(
        self, directory: Path, identity: BrokerIdentity, crl: bytes, clients: Sequence[RadiusClient], report: Report
    ) -> None:
        """Prepare one in ``directory`` of its own, with a first DER revocation list; ``report`` hears of refusals."""
        self._directory = directory
        self._identity = identity
        self._clients = clients
        self._report = report
        self._trust = trust(identity, crl)
        self._daemon: Daemon | None = None
        self._turn = asyncio.Lock()
        self.port = 0

    async def start(self) -> None:
        """Start it."""
        port = free_udp_port()
        listens, heard = asyncio.Event(), _heard(self._report)

        async def ready() -> bool:
            return listens.is_set()

        def hear(line: str) -> None:
            if "Ready to process requests" in line:
                listens.set()
            heard(line)

        files: dict[str, str | bytes] = {"radiusd.conf": self._configuration(port), TRUST: self._trust}
        arguments = ("-f", "-d", ".", "-n", "radiusd", "-l", "stdout")
        self._daemon = await Daemon.start(Recipe(FREERADIUS, arguments, self._directory, files, ready, hear=hear))
        self.port = port

    @property
    def daemon(self) -> Daemon:
        """The running program."""
        if self._daemon is None:
            raise AccessError("daemon-died", "FreeRADIUS was not started")
        return self._daemon

    async def reload_crl(self, crl: bytes) -> None:
        """Have another one, with ``crl``, take over."""
        following = trust(self._identity, crl)
        async with self._turn:
            self._trust, former = following, self._daemon
            await self.start()
            if former is not None:
                try:
                    await asyncio.sleep(DRAIN_SECONDS)
                finally:
                    await former.stop()

    async def stop(self) -> None:
        """Stop it."""
        if self._daemon is not None:
            await self._daemon.stop()

    def _configuration(self, port: int) -> str:
        clients = "".join(
            f"client c{number} {{\n ipaddr = {one.address}\n secret = {one.secret}\n"
            " require_message_authenticator = yes\n}\n"
            for number, one in enumerate(self._clients)
        )
        own = self._identity
        return _RADIUSD.format(
            clients=clients, port=port, certificate=own.certificate.absolute(), key=own.key.absolute(), trust=TRUST
        )


def _heard(report: Report) -> Callable[[str], None]:
    """Return what listens to a server, and reports the code of each refusal."""

    def hear(line: str) -> None:
        code = refusal(line)
        if code is not None:
            report(code)

    return hear


_RADIUSD = """\
prefix = /usr
libdir = /usr/lib/freeradius
logdir = .
run_dir = .
max_requests = 16384
security {{
 allow_vulnerable_openssl = yes
 max_attributes = 200
 reject_delay = 0
 status_server = no
}}
log {{
 destination = stdout
 auth = no
}}
thread pool {{
 start_servers = 1
 max_servers = 4
 min_spare_servers = 1
 max_spare_servers = 2
 max_requests_per_server = 0
}}
{clients}modules {{
 eap {{
  default_eap_type = tls
  timer_expire = 60
  ignore_unknown_eap_types = no
  max_sessions = 16384
  tls-config own {{
   private_key_file = "{key}"
   certificate_file = "{certificate}"
   ca_file = "{trust}"
   check_crl = yes
   check_cert_cn = "%{{User-Name}}"
   tls_min_version = "1.3"
   tls_max_version = "1.3"
   ecdh_curve = ""
   fragment_size = 1024
   cache {{
    enable = no
   }}
  }}
  tls {{
   tls = own
  }}
 }}
}}
server default {{
 listen {{
  type = auth
  ipaddr = 127.0.0.1
  port = {port}
 }}
 authorize {{
  eap
 }}
 authenticate {{
  eap
 }}
}}
"""
