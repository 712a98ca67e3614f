"""What a false service, a revoked device or a careless provider says where only one check stands in the way.

Certificates are made by the product's own authority with the keys that the enemy has. TLS runs over real sockets; what
comes behind it is given to the broker's door and gate as they take it from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from amqtt.contexts import Action
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.refusals import refused

from firstlight.access.device.service_session import ServiceAccess, connect
from firstlight.access.serving import service_door
from firstlight.access.serving.service_broker import Gate
from firstlight.access.serving.service_door import Client, read_connect
from firstlight.enrolment.issue import (
    Authority,
    Issued,
    Revocation,
    create_authority,
    crl_serials,
    issue_client,
    issue_crl,
    issue_server,
    open_client,
    to_pem,
)
from firstlight.enrolment.topics import check_publish, check_subscribe
from firstlight.logs import Log
from firstlight.onboarding.device import Granted
from firstlight.onboarding.messages import Grant, SimGrant, X509Grant
from firstlight.roles.device.certificates import check_certificate
from firstlight.testing.chains import P256Key
from firstlight.testing.clock import FakeClock
from firstlight.testing.onboarding import HOME
from firstlight.testing.random import SeededRandom

NOW, DAY = 1_800_000_000, 86_400
HOST = "broker.sp.example"
RANDOM = SeededRandom("service")
DEVICE, THIEF = P256Key("device"), P256Key("mallory")


def authority(name: str) -> Authority:
    return create_authority(P256Key(name), title="SP", now=NOW, lifetime=365 * DAY, random=RANDOM)


OWN, FOREIGN = authority("authority"), authority("mallory's authority")
"""Two authorities of one name: that of the provider, and a thief's."""
NAME = "0" * 31 + "1"
OTHERS = "0" * 31 + "2"


def client(by: Authority = OWN, key: P256Key = DEVICE, now: int = NOW) -> Issued:
    return issue_client(by, key.public, now=now, lifetime=DAY, random=RANDOM)


def server(by: Authority = OWN, host: str = HOST, now: int = NOW) -> Issued:
    return issue_server(by, P256Key("broker").public, host=host, now=now, lifetime=DAY, random=RANDOM)


def anchor_on_another_curve() -> bytes:
    key, name = ec.generate_private_key(ec.SECP384R1()), x509.load_der_x509_certificate(OWN.certificate).subject
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
    return (
        builder.not_valid_after(datetime(2040, 1, 1, tzinfo=UTC)).sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    )


# --- a device and its certificate -----------------------------------------------------------------


def opened(certificate: bytes, *, anchor: bytes = OWN.certificate, now: int = NOW, key: P256Key = DEVICE) -> Issued:
    return open_client(certificate, anchor=anchor, public=key.public, now=now)


CERTIFICATES: Mapping[str, tuple[str, Callable[[], object]]] = {
    "that-is-none": ("certificate-malformed", lambda: opened(b"\x30\x00")),
    "for-another-key": ("certificate-wrong-key", lambda: opened(client(key=THIEF).certificate)),
    "by-another-authority": ("certificate-untrusted", lambda: opened(client(FOREIGN).certificate)),
    "of-a-server": (
        "certificate-wrong-use",
        lambda: opened(server().certificate, key=P256Key("broker")),
    ),
    "of-yesterday": ("certificate-not-valid", lambda: opened(client().certificate, now=NOW + DAY + 1)),
}


@pytest.mark.parametrize("name", sorted(CERTIFICATES))
def test_a_device_takes_no_certificate(name: str) -> None:
    """A provider, or who poses as one, gives a device what it cannot use, or what makes it somebody else's."""
    code, attempt = CERTIFICATES[name]
    assert opened(client().certificate)
    assert refused(attempt) == code


def granted(body: SimGrant | X509Grant) -> Granted:
    return Granted(Grant(bytes(16), NOW, NOW + DAY, body), cast("Any", None))


def certified(issued: Issued) -> X509Grant:
    return X509Grant((issued.certificate,), (OWN.certificate,), HOST, "mqtts://127.0.0.1:1", f"devices/{issued.name}/x")


def test_a_device_keeps_no_grant_that_is_not_for_its_own_key() -> None:
    """A provider grants a device a certificate for a key of the provider's, or something else altogether."""
    check_certificate(granted(certified(client())), DEVICE.public, NOW)
    for wrong in (certified(client(key=THIEF)), SimGrant("imsi-001010000000001", "tcp://127.0.0.1:1", HOME, "WLAN")):
        attempt = partial(check_certificate, granted(wrong), DEVICE.public, NOW)
        assert refused(attempt) == "unusable-grant"


# --- a device and who answers where its service should be -----------------------------------------


async def greets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve as a broker that lets everybody in, and hangs up."""
    with contextlib.suppress(OSError, EOFError):
        await reader.readexactly(2)
        writer.write(b"\x20\x02\x00\x00")
    writer.close()


def pem(root: Path, name: str, issued: Issued, key: P256Key) -> tuple[Path, Path]:
    files = root / f"{name}.crt", root / f"{name}.pem"
    files[0].write_bytes(to_pem(issued.certificate))
    files[1].write_bytes(key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


def reached(root: Path, issued: Issued, *, now: int = NOW) -> str:
    """Return what comes of connecting to a service that has this certificate, at this time."""

    async def main() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pem(root, "broker", issued, P256Key("broker")))
        listening = await asyncio.start_server(greets, "127.0.0.1", 0, ssl=context)
        own = client()
        certificate, key = pem(root, "device", own, DEVICE)
        host, port = listening.sockets[0].getsockname()[:2]
        topic = f"devices/{own.name}/x"
        access = ServiceAccess(certificate, key, (OWN.certificate,), HOST, host, port, own.name, topic)
        try:
            session = await connect(replace(access, now=lambda: now * 10**9))
            await session.lost()
        finally:
            listening.close()

    return refused(lambda: asyncio.run(main()))


def test_a_device_talks_to_no_service_but_the_one_that_its_grant_names(tmp_path: Path) -> None:
    """Somebody on the way answers with a certificate of his own, of another service, or with a stolen old one."""
    assert reached(tmp_path, server()) == "taken"
    assert reached(tmp_path, server(FOREIGN)) == "service-untrusted"
    assert reached(tmp_path, server(host="other.sp.example")) == "service-untrusted"
    assert reached(tmp_path, server(), now=NOW + 2 * DAY) == "service-untrusted"


# --- a broker and its devices ---------------------------------------------------------------------


def crl(by: Authority, *serials: int) -> bytes:
    return issue_crl(by, [Revocation(one, NOW) for one in serials], number=1, now=NOW, lifetime=DAY)


LISTS: Mapping[str, tuple[str, Callable[[], object]]] = {
    "that-is-none": ("crl-malformed", lambda: crl_serials(b"\x30\x00", anchor=OWN.certificate)),
    "by-another-authority": ("crl-untrusted", lambda: crl_serials(crl(FOREIGN), anchor=OWN.certificate)),
    "by-an-authority-that-is-none": ("certificate-malformed", lambda: crl_serials(crl(OWN), anchor=b"\x30\x00")),
    "by-an-authority-on-another-curve": (
        "certificate-wrong-key",
        lambda: crl_serials(crl(OWN), anchor=anchor_on_another_curve()),
    ),
}


@pytest.mark.parametrize("name", sorted(LISTS))
def test_a_broker_goes_by_no_revocation_list(name: str) -> None:
    """Whoever can write a broker's list brings one in which his own certificate is not."""
    code, attempt = LISTS[name]
    assert crl_serials(crl(OWN, 7), anchor=OWN.certificate) == {7}
    assert refused(attempt) == code


class Transport:
    """A connection that a broker can cut."""

    def __init__(self) -> None:
        self.cut = False

    def abort(self) -> None:
        self.cut = True


class Lines(list[str]):
    """A log in memory."""

    def write(self, line: str, /) -> None:
        self.append(line)


def connected(name: str, serial: int, said: bytes = b"") -> Client:
    reader = asyncio.StreamReader()
    reader.feed_data(said)
    reader.feed_eof()
    return Client(name, serial, cast("Any", Transport()), reader, cast("Any", None))


def test_a_revoked_device_is_out_and_stays_out() -> None:
    """A device whose grant has ended goes on over its open connection, or slips in while it is being revoked."""

    async def main() -> None:
        gate = Gate(FakeClock(NOW), Log("sp", FakeClock(NOW), log))
        honest, ended = connected(NAME, 1), connected(OTHERS, 2)
        for one in (honest, ended):
            await gate.enter(one)
            assert gate.permits(one, f"devices/{one.name}/x", Action.SUBSCRIBE)
        gate.revoke(frozenset({2}))
        assert gate.permits(honest, f"devices/{NAME}/x", Action.SUBSCRIBE)
        assert not gate.permits(ended, f"devices/{OTHERS}/x", Action.SUBSCRIBE)
        assert '"certificate-revoked"' in log[-1]
        gate.leave(ended)
        codes.append(await outcome(gate, connected(OTHERS, 2)))
        codes.append(await outcome(gate, connected("0" * 31 + "3", 3)))

    async def outcome(gate: Gate, one: Client) -> str:
        try:
            await gate.enter(one)
        except Exception as error:  # noqa: BLE001 - what breaks is told from what is refused
            return str(getattr(error, "code", repr(error)))
        return "taken"

    log, codes = Lines(), list[str]()
    asyncio.run(main())
    assert codes == ["certificate-revoked", "taken"]


def test_a_device_publishes_and_reads_below_its_own_name_alone() -> None:
    """A device reads what others report, or reports in their name."""

    async def main() -> None:
        gate = Gate(FakeClock(NOW), Log("sp", FakeClock(NOW), log))
        own = connected(NAME, 1)
        await gate.enter(own)
        for action in (Action.PUBLISH, Action.SUBSCRIBE):
            assert gate.permits(own, f"devices/{NAME}/x", action)
            assert not gate.permits(own, f"devices/{OTHERS}/x", action)
            assert '"topic-not-yours"' in log[-1]

    log = Lines()
    asyncio.run(main())
    check_publish(NAME, f"devices/{NAME}/a/b")
    check_subscribe(NAME, f"devices/{NAME}/+/#")
    assert refused(lambda: check_publish(NAME, f"devices/{OTHERS}/a")) == "topic-not-yours"
    assert refused(lambda: check_publish(NAME, f"devices/{NAME}/#")) == "topic-malformed"
    assert refused(lambda: check_subscribe(NAME, f"devices/+/{NAME}")) == "topic-not-yours"
    assert refused(lambda: check_subscribe(NAME, f"devices/{NAME}/#/a")) == "topic-malformed"


def test_a_certificate_that_names_no_credential_opens_no_door() -> None:
    """Somebody with another certificate of the authority, the broker's own, comes in as a device."""

    def subject(*names: tuple[str, str]) -> dict[str, object]:
        return {"subject": tuple((one,) for one in names), "serialNumber": "07"}

    assert service_door._named(subject(("commonName", NAME))) == (NAME, 7)
    assert refused(lambda: service_door._named(subject(("commonName", HOST)))) == "certificate-bad-name"
    assert refused(lambda: service_door._named(None)) == "certificate-bad-name"


def hello(name: str = NAME, flags: int = 2, level: int = 4) -> bytes:
    body = b"\x00\x04MQTT" + bytes((level, flags)) + b"\x00\x3c" + len(name).to_bytes(2) + name.encode()
    return bytes((0x10, len(body))) + body


HELLOS: Mapping[str, tuple[str, bytes]] = {
    "of-another-version": ("connect-malformed", hello(level=5)),
    "that-leaves-a-will": ("connect-refused", hello(flags=0x06)),
    "that-goes-on-with-an-old-session": ("connect-refused", hello(flags=0)),
    "in-anothers-name": ("connect-refused", hello(OTHERS)),
}


@pytest.mark.parametrize("name", sorted(HELLOS))
def test_a_broker_greets_no_device(name: str) -> None:
    """A device comes in under another's name, or leaves with the broker what outlives its certificate."""
    code, said = HELLOS[name]

    async def read(data: bytes) -> None:
        assert (await read_connect(connected(NAME, 1, data)))[0] == data

    asyncio.run(read(hello()))
    assert refused(lambda: asyncio.run(read(said))) == code
