"""Devices at ports by certificate: what takes another's place there, what is revoked, and who must prove himself."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any, cast

import pytest

from firstlight.access.serving.eap_tls import refusal
from firstlight.access.serving.network_hostapd import HostapdNetwork, HostapdSettings
from firstlight.access.serving.network_tls import TlsBackend
from firstlight.access.serving.radius_front import Proven
from firstlight.errors import FirstlightError
from firstlight.roles.party.snpn import Certified, PrivateNetwork
from firstlight.stores.certificates import Certificates, NewCertificate
from firstlight.stores.exchanges import ExchangeStore
from firstlight.testing.clock import FakeClock
from firstlight.testing.random import SeededRandom

PORT, MAC, ELSEWHERE = "port0", "02:00:00:00:00:01", "02:00:00:00:00:02"
DEVICE = bytes(16)


def named(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Guard:
    """Notes which ports are shut."""

    def __init__(self) -> None:
        self.shuts: list[str] = []

    async def shut(self, port: str) -> None:
        self.shuts.append(port)


class Network:
    """A network without a server: sessions, and the store of certificates behind them."""

    def __init__(self, directory: Path, kind: str = "hostapd") -> None:
        self.clock = FakeClock()
        self.store, self.codes = Certificates.in_memory(), list[str]()
        exchanges = cast("Any", ExchangeStore.in_memory())
        exchanges.confirm = lambda *_: None  # these certificates were granted in no exchange
        self.users = Certified(self.store, exchanges, self.clock)
        self.backend = TlsBackend(kind, cast("Any", None), b"", self.codes.append)
        self.network = HostapdNetwork(
            HostapdSettings(directory, ports=(PORT,)),
            backend=self.backend,
            users=self.users,
            log=self.users,
            random=SeededRandom("ports"),
            report=self.codes.append,
        )
        self.guard = Guard()
        self.network._guard = cast("Any", self.guard)
        self.network._loop = asyncio.get_running_loop()
        self.users.watch(self.network.drop)

    def certify(self, name: str, slot: bytes = DEVICE) -> str:
        grant = hashlib.sha256(name.encode()).digest()[:16]
        now = self.clock.seconds
        self.store.add(NewCertificate(named(name), int.from_bytes(grant), grant, slot, now, now + 1_000))
        return named(name)

    async def admitted(self, name: str, mac: str = MAC) -> str:
        try:
            await self.network._admit(Proven(name, PORT, mac))
        except FirstlightError as error:
            return error.code
        finally:
            await self.rest()
        return "admitted"

    async def rest(self) -> None:
        """Let what was called from other threads, and what that began, come to its end."""
        for _ in range(3):
            await asyncio.sleep(0)
            await asyncio.gather(*self.network._tasks)

    @property
    def sessions(self) -> set[str]:
        return set(self.network._sessions)


def run(directory: Path, test: Any, kind: str = "hostapd") -> None:
    async def main() -> None:
        await test(Network(directory, kind))

    asyncio.run(main())


def test_a_renewed_certificate_takes_the_place_of_the_one_before_and_its_end_shuts_no_port(tmp_path: Path) -> None:
    async def test(world: Network) -> None:
        first = world.certify("first")
        assert await world.admitted(first) == "admitted"
        second = world.certify("second")
        assert await world.admitted(second) == "admitted"
        assert world.sessions == {second}
        assert (world.codes, world.guard.shuts) == (["session-ended"], [])
        assert await world.admitted(first) == "certificate-revoked"
        assert world.sessions == {second}, "who is refused changes nothing"

    run(tmp_path, test)


def test_what_is_revoked_is_out_and_does_not_come_back(tmp_path: Path) -> None:
    async def test(world: Network) -> None:
        name, other = world.certify("one"), world.certify("other", bytes(15) + b"\x01")
        assert await world.admitted(name) == "admitted"
        (found,) = world.store.revoke([hashlib.sha256(b"one").digest()[:16]], world.clock.seconds)
        assert found.name == name
        await world.rest()
        assert (world.sessions, world.guard.shuts) == (set(), [PORT])
        assert world.codes == ["port-shut", "session-ended"]
        assert await world.admitted(name) == "certificate-revoked"
        assert await world.admitted(other) == "admitted"
        assert world.users.unusable([name, other, named("nobody's")]) == {name, named("nobody's")}

    run(tmp_path, test)


def test_names_that_were_never_given_out_are_nobodys(tmp_path: Path) -> None:
    async def test(world: Network) -> None:
        assert await world.admitted(named("guessed")) == "certificate-unknown"
        assert await world.admitted("6001010000000001@wlan") == "unknown-subscriber"
        assert world.sessions == set()

    run(tmp_path, test)


@pytest.mark.parametrize(("kind", "times"), [("hostapd", 1), ("freeradius", 0)])
def test_after_a_revocation_all_must_prove_themselves_where_nobody_checks_their_names(
    tmp_path: Path, kind: str, times: int
) -> None:
    """Who was revoked may have come in under another's name: by his certificate he is out, by the name he is not."""

    async def test(world: Network) -> None:
        asked: list[tuple[str, str]] = []

        class Ports:
            async def authenticate_again(self, port: str, mac: str) -> None:
                asked.append((port, mac))

        world.network._ports = cast("Any", Ports())
        assert await world.admitted(world.certify("honest")) == "admitted"
        await PrivateNetwork(world.network, world.backend).reload_crl(b"a list")
        assert asked == [(PORT, MAC)] * times

    run(tmp_path, test, kind)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("authsrv: certificate chain failure: reason=2 depth=0 subject='/CN=x' err='x'", "certificate-revoked"),
        ("authsrv: certificate chain failure: reason=1 depth=0 subject='/CN=x' err='x'", "certificate-untrusted"),
        ("authsrv: certificate chain failure: reason=9 depth=0 subject='/CN=x' err='x'", "certificate-refused"),
        ("Auth: tls: Certificate CN (x) does not match specified value (y)!", "identity-not-its-own"),
        (
            "OpenSSL: openssl_handshake - SSL_connect error:0A000102:SSL routines::unsupported protocol",
            "tls-version-refused",
        ),
        ("lo: CTRL-EVENT-EAP-SUCCESS 00:00:00:00:00:00", None),
    ],
)
def test_what_servers_say_becomes_codes(line: str, code: str | None) -> None:
    assert refusal(line) == code
