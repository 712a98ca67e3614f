"""EAP-TLS 1.3 against hostapd and FreeRADIUS themselves, with eapol_test as the device: who is let in, and who not."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.unit.access_service.conftest import Key, SystemRandom

from firstlight.access.device.eapol_test import RadiusServer
from firstlight.access.device.eapol_tls import TlsOutcome, authenticate_tls
from firstlight.access.ports import TlsCredentials
from firstlight.access.serving.daemons import EAPOL_TEST, FREERADIUS, HOSTAPD
from firstlight.access.serving.eap_tls import EapTlsServer, FreeradiusTls, HostapdTls
from firstlight.access.serving.hostapd import RadiusClient
from firstlight.access.serving.service_port import BrokerIdentity
from firstlight.enrolment.issue import (
    Authority,
    Issued,
    Revocation,
    create_authority,
    issue_client,
    issue_crl,
    issue_server,
    to_pem,
)
from firstlight.errors import MalformedError
from firstlight.testing.access_network import LONG
from firstlight.testing.hostapd_world import needs

DAY = 86_400
SERVER, OTHER = "aaa.network.example", "aaa.other.example"
SECRET = "0123456789abcdef"
SECONDS = 5.0
"""Within which a revocation must be in force."""
KINDS: dict[str, type[HostapdTls] | type[FreeradiusTls]] = {"hostapd": HostapdTls, "freeradius": FreeradiusTls}


@dataclass
class World:
    """A private network's authority and server, and devices with certificates of it."""

    directory: Path
    kind: str
    now: int = field(default_factory=lambda: int(time.time()))
    codes: Counter[str] = field(default_factory=Counter)
    numbers: int = 0

    def __post_init__(self) -> None:
        self.authority = self.new_authority()
        self.identity = self.new_server(self.authority, "server")
        self.server = self.serve(self.identity, self.crl())

    def new_authority(self) -> Authority:
        return create_authority(Key(), title="Network", now=self.now, lifetime=30 * DAY, random=SystemRandom())

    def new_server(self, authority: Authority, stem: str, name: str = SERVER) -> BrokerIdentity:
        key = Key()
        issued = issue_server(authority, key.public, host=name, now=self.now, lifetime=DAY, random=SystemRandom())
        return BrokerIdentity(*self._store(stem, issued, key), authority.certificate)

    def serve(self, identity: BrokerIdentity, crl: bytes, name: str = "radius") -> EapTlsServer:
        def report(code: str) -> None:
            self.codes[code] += 1

        clients = [RadiusClient("127.0.0.0/8", SECRET)]
        return KINDS[self.kind](self.directory / name, identity, crl, clients, report)

    def _store(self, stem: str, issued: Issued, key: Key) -> tuple[Path, Path]:
        certificate, private = self.directory / f"{stem}.crt", self.directory / f"{stem}.key"
        certificate.write_bytes(to_pem(issued.certificate))
        private.touch(mode=0o600)
        private.write_bytes(key.pem())
        return certificate, private

    def device(self, authority: Authority | None = None, **times: int) -> tuple[TlsCredentials, Issued]:
        key = Key()
        values = {"now": self.now, "lifetime": DAY, **times}
        issued = issue_client(authority or self.authority, key.public, random=SystemRandom(), **values)
        certificate, private = self._store(issued.name, issued, key)
        anchors = (self.authority.certificate,)
        return TlsCredentials(issued.name, certificate, private, anchors, SERVER), issued

    def crl(self, *revoked: Issued) -> bytes:
        self.numbers += 1
        entries = [Revocation(one.serial, self.now) for one in revoked]
        return issue_crl(self.authority, entries, number=self.numbers, now=self.now, lifetime=DAY)

    async def attach(self, own: TlsCredentials, server: EapTlsServer | None = None, **options) -> TlsOutcome:
        at = RadiusServer("127.0.0.1", (server or self.server).port, SECRET)
        async with asyncio.timeout(LONG):
            return await authenticate_tls(at, own, **options)

    async def honest(self) -> None:
        outcome = await self.attach(self.device()[0])
        assert (outcome.success, outcome.version) == (True, "TLSv1.3")
        assert not self.codes, self.codes

    async def refused(self, code: str, outcome: TlsOutcome) -> None:
        """Check that the server refused with exactly this reason."""
        assert not outcome.success
        async with asyncio.timeout(LONG):
            while not self.codes:  # noqa: ASYNC110 - what another process prints
                await asyncio.sleep(0.01)
        assert set(self.codes) == {code}
        self.codes.clear()


@pytest.fixture(params=KINDS)
def world(request, tmp_path: Path) -> World:
    needs(EAPOL_TEST, HOSTAPD if request.param == "hostapd" else FREERADIUS)
    return World(tmp_path, request.param)


def served(world: World, test: Callable[[], Awaitable[None]]) -> None:
    """Run a test beside the server, after the honest exchange has passed."""

    async def main() -> None:
        await world.server.start()
        try:
            await world.honest()
            await test()
        finally:
            await world.server.stop()

    asyncio.run(main())


def test_a_certificate_that_is_revoked_is_refused_within_seconds_and_no_other(world):
    async def test():
        out, issued = world.device()
        stays, _ = world.device()
        assert (await world.attach(out)).success
        began = time.monotonic()
        await world.server.reload_crl(world.crl(issued))
        assert time.monotonic() - began < SECONDS
        world.codes.clear()
        await world.refused("certificate-revoked", await world.attach(out))
        assert (await world.attach(stays)).success
        again, second = world.device()
        await world.server.reload_crl(world.crl(issued, second))
        await world.refused("certificate-revoked", await world.attach(again))
        assert (await world.attach(stays)).success

    served(world, test)


def test_no_session_is_resumed(world):
    """A resumed session would go past the revocation list."""

    async def test():
        assert (await world.attach(world.device()[0], times=3)).success
        full = await world.attach(world.device()[0], times=2)
        assert full.success
        assert full.handshakes == 2

    served(world, test)


def test_a_certificate_of_a_rogue_authority_is_refused_even_under_the_same_name(world):
    async def test():
        rogue, _ = world.device(world.new_authority())
        await world.refused("certificate-untrusted", await world.attach(rogue))

    served(world, test)


def test_an_expired_certificate_is_refused(world):
    async def test():
        old, _ = world.device(now=world.now - 7_200, lifetime=3_600)
        await world.refused("certificate-expired", await world.attach(old))

    served(world, test)


def test_a_peer_of_tls_1_2_is_refused(world):
    async def test():
        own, _ = world.device()
        outcome = await world.attach(own, change=("tls_disable_tlsv1_3=0", "tls_disable_tlsv1_3=1"))
        assert outcome.version == "TLSv1.2", "the attack did not fire"
        await world.refused("tls-version-refused", outcome)

    served(world, test)


def test_a_server_certificate_is_no_way_in(world):
    async def test():
        own, _ = world.device()
        posing = replace(own, name=SERVER, certificate=world.identity.certificate, key=world.identity.key)
        assert not (await world.attach(posing)).success

    served(world, test)


def test_a_device_refuses_a_network_of_a_rogue_authority(world):
    async def test():
        own, _ = world.device()
        rogue = world.new_authority()
        crl = issue_crl(rogue, [], number=1, now=world.now, lifetime=DAY)
        server = world.serve(world.new_server(rogue, "rogue"), crl, "rogue")
        await server.start()
        try:
            outcome = await world.attach(own, server)
        finally:
            await server.stop()
        assert (outcome.success, outcome.distrusted) == (False, True)

    served(world, test)


def test_a_device_refuses_another_servers_name_under_the_right_authority(world):
    async def test():
        own, _ = world.device()
        server = world.serve(world.new_server(world.authority, "other", OTHER), world.crl(), "other")
        await server.start()
        try:
            outcome = await world.attach(own, server)
            assert (outcome.success, outcome.distrusted) == (False, True)
            assert (await world.attach(replace(own, server=OTHER), server)).success
        finally:
            await server.stop()

    served(world, test)


def test_the_key_is_no_argument_and_no_file_of_others(world):
    async def test():
        own, _ = world.device()
        assert own.key.stat().st_mode & 0o077 == 0
        for path in (world.directory / "radius").rglob("*"):
            if path.is_file():
                assert path.stat().st_mode & 0o077 == 0, path
        words = (Path("/proc") / str(world.server.daemon.pid) / "cmdline").read_bytes()
        assert SECRET.encode() not in words
        assert os.fsencode(world.directory) not in words

    served(world, test)


def test_freeradius_holds_a_device_to_the_name_in_its_certificate(tmp_path):
    needs(EAPOL_TEST, FREERADIUS)
    world = World(tmp_path, "freeradius")

    async def test():
        own, _ = world.device()
        victim, _ = world.device()
        await world.refused("identity-not-its-own", await world.attach(replace(own, name=victim.name)))

    served(world, test)


def test_a_list_that_is_none_changes_nothing(world):
    async def test():
        own, issued = world.device()
        with pytest.raises(MalformedError, match="crl-malformed"):
            await world.server.reload_crl(world.crl(issued)[:-1])
        assert (await world.attach(own)).success

    served(world, test)
