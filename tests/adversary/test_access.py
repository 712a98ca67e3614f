"""The network's port and the service's broker, as the real MNO and SP run them: nobody else gets in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from firstlight.access import frames
from firstlight.access.device import service_session
from firstlight.access.device.network_embedded import EmbeddedNetworkAccess
from firstlight.access.device.service_dial import dial
from firstlight.access.device.service_session import ServiceAccess
from firstlight.access.ports import Proxy
from firstlight.cli.demo.commands import arguments
from firstlight.custody.file import SigningKey
from firstlight.custody.system import SystemRandom
from firstlight.enrolment.issue import create_authority, issue_client, to_pem
from firstlight.errors import AccessError
from firstlight.onboarding.device import Granted
from firstlight.onboarding.messages import X509Grant
from firstlight.sim import suci
from firstlight.sim.aka import SLOTS, Sequence
from firstlight.sim.attach import Challenge, Message, Refusal, Response
from firstlight.sim.attach_device import identify
from firstlight.sim.subscription import draw_imsi
from firstlight.stores.exchanges import GrantState
from firstlight.testing.access_network import MemorySim
from firstlight.testing.byhand import Hand, attach
from firstlight.testing.lab import STORES, Lab, copy_device

SOCKS_REFUSED = b"\x05\x02\x01\x01"


@pytest.fixture
def hand(lab: Lab) -> Hand:
    return Hand(lab, lab.device())


def say(to: int, data: bytes) -> bytes:
    """Send bytes to a port and return all that comes back until it hangs up."""
    with socket.create_connection(("127.0.0.1", to), timeout=120) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(1_000):
                answer += piece
        return answer


def login(username: bytes, password: bytes, target: int) -> bytes:
    """Return what a SOCKS5 client sends to reach a port of this host."""
    own = b"\x01" + bytes([len(username)]) + username + bytes([len(password)]) + password
    return b"\x05\x01\x02" + own + b"\x05\x01\x00\x01\x7f\x00\x00\x01" + target.to_bytes(2)


def passes(proxy: Proxy, target: int) -> bool:
    """Tell whether a forwarder lets somebody through to a port of this host."""
    answer = say(proxy.port, login(proxy.username.encode(), proxy.password.encode(), target))
    assert answer == SOCKS_REFUSED or answer.startswith(b"\x05\x02\x01\x00\x05\x00"), answer
    return answer != SOCKS_REFUSED


def service_port(lab: Lab) -> int:
    """Return where the SP answers exchanges."""
    return int(lab.url("sp").rpartition(":")[2])


@contextlib.contextmanager
def challenged(lab: Lab, imsi: str) -> Iterator[None]:
    """Check that no row of any store changes but a subscription's SQN, which every challenge uses up."""
    others = [lab.state(role) for role in STORES if role != "mno"]
    rest = "SELECT imsi, k, opc, status, slot, grant_id, confirmed_at FROM subscription ORDER BY imsi"
    number = "SELECT sqn FROM subscription WHERE imsi = ?"
    states = "SELECT issued.state, status FROM issued JOIN subscription ON grant_id = id WHERE imsi = ?"
    wait_for(lambda: lab.query("mno", states, imsi)[0] in {(1, 1), (2, 2)})  # an attach before this is on record
    before, rows, sqn = lab.rows(lab.places.mno), lab.query("mno", rest), lab.query("mno", number, imsi)
    with lab.unchanged(*others):
        yield
    after = lab.rows(lab.places.mno)
    assert {name for name in after if after[name] != before[name]} == {"subscription"}
    assert lab.query("mno", rest) == rows
    assert (before["subscription"] - after["subscription"]).total() == 1
    assert lab.query("mno", number, imsi) > sqn


# --- the network's port -------------------------------------------------------------------------


def test_nothing_passes_the_forwarder_without_a_session(lab: Lab, hand: Hand) -> None:
    """Somebody who is not attached asks the forwarder for the way: without, with guessed and with old credentials."""
    target = service_port(lab)
    attachment = attach(hand.sim(hand.onboard("mno")))
    proxy = attachment.proxy
    assert proxy.port == lab.port("mno", "forwarder")
    assert passes(proxy, target)
    guesses = [
        (proxy.username, secrets.token_hex(32)),
        (proxy.username, ""),
        (proxy.username, proxy.password[:-1]),
        (proxy.username.upper() + "00", proxy.password),
        (secrets.token_hex(16), proxy.password),
        (secrets.token_hex(16), "00" * 32),
        ("", ""),
        ("not hexadecimal", proxy.password),
    ]
    refused = ["forwarder-no-session"] * len(guesses)
    with lab.untouched(), lab.heard("mno", *refused) as codes:
        for username, password in guesses:
            assert say(proxy.port, login(username.encode(), password.encode(), target)) == SOCKS_REFUSED
    assert codes == refused
    with lab.untouched(), lab.heard("mno", *["forwarder-no-credentials"] * 3) as codes:
        for data in (b"\x05\x01\x00", b"\x05\x00", b"\x04\x01" + login(b"", b"", target)):
            assert say(proxy.port, data) == b"\x05\xff"
    assert codes == ["forwarder-no-credentials"] * 3
    noise = b"\x04\x02" + secrets.token_bytes(500)
    broken = {
        "forwarder-incomplete": (b"", b"\x05", b"\x05\x03\x02", login(b"", b"", target)[:5]),
        "forwarder-no-credentials": (noise,),
    }
    for code, pieces in broken.items():
        with lab.untouched(), lab.heard("mno", *[code] * len(pieces)) as codes:
            for data in pieces:
                assert say(proxy.port, data) in (b"", b"\x05\x02", b"\x05\xff")
        assert codes == [code] * len(pieces)
    assert passes(proxy, target)
    with lab.heard("mno", "detached", "session-ended"):
        asyncio.run(attachment.close())
    assert not passes(proxy, target)


def test_an_attached_device_goes_only_where_the_operator_allows(lab: Lab, hand: Hand) -> None:
    """A device that is attached tries to reach what its operator has not opened."""
    proxy = attach(hand.sim(hand.onboard("mno"))).proxy

    async def reach(host: str, number: int) -> None:
        (await dial(host, number, proxy)).close()

    asyncio.run(reach("127.0.0.1", service_port(lab)))
    for host in ("10.0.0.1", "127.0.0.2", "example.org", "::1"):
        with (
            lab.untouched(),
            lab.heard("mno", "forwarder-destination-refused") as codes,
            pytest.raises(AccessError, match="does not allow") as refused,
        ):
            asyncio.run(reach(host, service_port(lab)))
        assert refused.value.code == "proxy-refused"
        assert codes == ["forwarder-destination-refused"]


def test_a_sim_with_another_key_does_not_attach(lab: Lab, hand: Hand) -> None:
    """Somebody knows an IMSI, but not K or OPc: he neither takes the network for his own, nor is he let in."""
    store = hand.sim(hand.onboard("mno"))
    assert passes(attach(store).proxy, service_port(lab))
    sim = store.sim
    own = sim.credentials
    for credentials in (replace(own, k=secrets.token_bytes(16)), replace(own, opc=secrets.token_bytes(16))):
        with (
            challenged(lab, own.imsi),
            lab.heard("mno", "network-rejected") as codes,
            pytest.raises(AccessError) as refused,
        ):
            attach(replace(sim, credentials=credentials))
        assert refused.value.code == "network-not-authentic"
        assert codes == ["network-rejected"]

    async def guess() -> Message:
        async with _conversation(lab) as (reader, writer):
            await frames.send(writer, identify(sim, SystemRandom()))
            assert isinstance(await frames.receive(reader), Challenge)
            await frames.send(writer, Response(secrets.token_bytes(8), secrets.token_bytes(16)))
            return await frames.receive(reader)

    with challenged(lab, own.imsi), lab.heard("mno", "wrong-response") as codes:
        assert asyncio.run(guess()) == Refusal()
    assert codes == ["wrong-response"]
    assert hand.grants("mno") == [GrantState.CONFIRMED]
    assert passes(attach(store).proxy, service_port(lab))


def test_a_sequence_number_that_is_behind_is_resynchronised(lab: Lab, hand: Hand) -> None:
    """An operator restored an old database: the USIM says where it stands, and is served."""
    store = hand.sim(hand.onboard("mno"))
    assert passes(attach(store).proxy, service_port(lab))
    ahead = replace(store.sim, sequence=Sequence((1_000,) * SLOTS))
    with lab.heard("mno", "resynchronised", "attached"):
        assert passes(attach(ahead).proxy, service_port(lab))


def test_a_replayed_challenge_gets_no_answer(lab: Lab, hand: Hand) -> None:
    """Somebody between device and network recorded a challenge, and plays the network with it."""
    store = hand.sim(hand.onboard("mno"))
    attach(store)
    imsi = store.sim.credentials.imsi
    recorded: list[Message] = []

    async def play() -> str:
        identity = identify(store.sim, SystemRandom())
        async with _conversation(lab) as (reader, writer):
            await frames.send(writer, identity)
            recorded.append(await frames.receive(reader))
        heard: list[Message] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(EOFError, ConnectionError, asyncio.CancelledError):
                for _ in range(3):
                    heard.append(await frames.receive(reader))
                    await frames.send(writer, recorded[0])
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            endpoint = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            with pytest.raises(AccessError) as refused:
                await EmbeddedNetworkAccess(SystemRandom(), endpoint=endpoint).attach(store)
        assert not any(isinstance(one, Response) for one in heard)
        assert heard
        return refused.value.code

    with challenged(lab, imsi), lab.heard("mno", "connection-lost") as codes:
        assert asyncio.run(play()) == "network-not-authentic"
    assert codes == ["connection-lost"]
    attach(store)
    assert asyncio.run(play_used(lab, store)) == "resync-failed"


async def play_used(lab: Lab, store: MemorySim) -> str:
    """Attach through a relay that records the challenge, then play the network with it; return the device's code."""
    recorded: list[Message] = []

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with _conversation(lab) as (network_reader, network_writer):
            with contextlib.suppress(EOFError, ConnectionError, asyncio.CancelledError):
                while True:
                    if not recorded or not replaying:
                        await frames.send(network_writer, await frames.receive(reader))
                        answer = await frames.receive(network_reader)
                        if isinstance(answer, Challenge):
                            recorded.append(answer)
                        await frames.send(writer, answer)
                    else:
                        await frames.receive(reader)
                        await frames.send(writer, recorded[0])
        writer.close()

    replaying = False
    server = await asyncio.start_server(record, "127.0.0.1", 0)
    async with server:
        access = EmbeddedNetworkAccess(SystemRandom(), endpoint=f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await access.attach(store)
        replaying = True
        with lab.untouched(), pytest.raises(AccessError) as refused:
            await access.attach(store)
    return refused.value.code


def test_an_unknown_or_hidden_imsi_is_refused(lab: Lab, hand: Hand) -> None:
    """Somebody tries IMSIs, or conceals one for another operator's key."""
    sim = hand.sim(hand.onboard("mno")).sim
    store = MemorySim(sim)
    assert passes(attach(store).proxy, service_port(lab))
    stranger = replace(sim.credentials, imsi=draw_imsi(sim.home, SystemRandom()))
    key = suci.generate(sim.home.scheme, sim.home.key_id, SystemRandom())
    foreign = replace(sim, home=replace(sim.home, key=key.public))
    for code, bent in (("unknown-subscriber", replace(sim, credentials=stranger)), ("bad-suci", foreign)):
        with lab.untouched(), lab.heard("mno", code), pytest.raises(AccessError) as refused:
            attach(bent)
        assert refused.value.code == "attach-refused"
    assert passes(attach(store).proxy, service_port(lab))


def test_a_copied_sim_never_has_a_session_beside_the_first(lab: Lab, hand: Hand) -> None:
    """A thief copies a device's SIM: whoever attaches last is in, and the other's traffic is cut."""
    target = service_port(lab)
    store = hand.sim(hand.onboard("mno"))
    copy = MemorySim(store.sim)
    first = attach(store).proxy
    assert passes(first, target)
    second = attach(copy).proxy
    assert passes(second, target)
    refused(lab, first, target)
    third = attach(store).proxy
    assert passes(third, target)
    refused(lab, second, target)
    imsi = store.sim.credentials.imsi
    with lab.heard("mno"):
        wait_for(lambda: lab.query("mno", _OPEN, imsi) == [(1,)])


def refused(lab: Lab, proxy: Proxy, target: int) -> None:
    """Check that the forwarder does not know a session any more."""
    with lab.heard("mno", "forwarder-no-session"):
        assert not passes(proxy, target)


_OPEN = "SELECT count(*) FROM session WHERE imsi = ? AND closed_at IS NULL"


def test_a_subscription_that_was_replaced_is_refused(lab: Lab, hand: Hand) -> None:
    """A thief has a copy of a SIM that the device has replaced since."""
    old = hand.sim(hand.onboard("mno"))
    proxy = attach(old).proxy
    new = hand.sim(hand.onboard("mno"))
    assert passes(proxy, service_port(lab))
    with lab.heard("mno", "attached", "session-ended"):
        attach(new)
    wait_for(lambda: hand.grants("mno") == [GrantState.ENDED, GrantState.CONFIRMED])
    refused(lab, proxy, service_port(lab))
    wait_for(lambda: lab.query("mno", _OPEN, old.sim.credentials.imsi) == [(0,)])
    with lab.untouched(), lab.heard("mno", "subscription-dead") as codes, pytest.raises(AccessError) as dead:
        attach(old)
    assert dead.value.code == "attach-refused"
    assert codes == ["subscription-dead"]


def test_a_copied_device_raises_the_clone_alarm(lab: Lab) -> None:
    """A thief has copied a device's directory before its first day; once that has connected, his copy has lost."""
    device = lab.device()
    copy = copy_device(device, lab.places.root / "copies" / device.name)
    lab.connects(device)
    hand = Hand(lab, device)
    wait_for(lambda: hand.grants("mno") == [GrantState.CONFIRMED])
    with lab.growth() as grown, lab.heard("mno", "clone-alarm"):
        outcome = lab.switch_on(copy, until=lambda outcome: "waiting" in (line.get("stage") for line in outcome.lines))
    grown.pop("owner.rejected", None)
    told = "a receipt of the copy's refusal, under a counter that the owner knows from the device"
    assert grown == {"mno.exchange": 1, "mno.alarm": 1, "gateway.receipt": 1}, told
    assert [line["stage"] for line in outcome.lines] == ["started", "discovered", "waiting"]
    assert hand.grants("mno") == [GrantState.CONFIRMED]
    lab.connects(device)


# --- the way to the service ---------------------------------------------------------------------


def test_a_device_reaches_its_service_only_through_the_forwarder(lab: Lab) -> None:
    """Somebody watches which servers a device talks to: its gateway, the network's two ports, and nobody else."""
    device = lab.device()
    seen = len(lab.interceptor.seen)
    process = subprocess.Popen(arguments("device", "run", device, "--json"), env={}, stdout=subprocess.PIPE, cwd=device)
    talked: set[int] = set()
    try:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        heard, end = b"", time.monotonic() + 180
        while b'"connected"' not in heard:
            assert time.monotonic() < end, heard
            talked |= peers(process.pid)
            heard += process.stdout.read() or b""
        talked |= peers(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()  # type: ignore[union-attr]
    forwarder, gateway = lab.port("mno", "forwarder"), int(lab.interceptor.url.rpartition(":")[2])
    assert talked <= {gateway, lab.port("mno", "attach"), forwarder}
    assert talked >= {gateway, forwarder}
    assert not {service_port(lab), lab.port("sp", "broker")} & talked
    paths = [asked.path for asked, _ in lab.interceptor.seen[seen:]]
    assert any(f"/relay/{lab.parties['mno']}" in path for path in paths)
    assert not any(f"/relay/{lab.parties['sp']}" in path for path in paths)


def peers(pid: int) -> set[int]:
    """Return the ports to which a process has TCP connections."""
    owned = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            name = descriptor.readlink().name
            if name.startswith("socket:["):
                owned.add(name[8:-1])
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {int(row[2].partition(":")[2], 16) for row in rows if row[9] in owned} - {0}


# --- the broker ---------------------------------------------------------------------------------


def access_of(lab: Lab, hand: Hand, granted: Granted, place: Path) -> ServiceAccess:
    """Return what a device needs for the broker, in files at ``place``, straight to it."""
    body = granted.grant.body
    assert isinstance(body, X509Grant)
    certificate, key = place / f"{granted.grant.id.hex()}.crt", place / f"{granted.grant.id.hex()}.pem"
    certificate.write_bytes(b"".join(map(to_pem, body.chain)))
    hand.key = SigningKey.create(key) if not key.exists() else hand.key
    return ServiceAccess(
        certificate=certificate,
        key=key,
        anchors=body.anchors,
        server_name=body.server,
        host="127.0.0.1",
        port=lab.port("sp", "broker"),
        name=body.topic.split("/")[1],
        topic=body.topic,
    )


def enrolled(lab: Lab, hand: Hand, place: Path) -> ServiceAccess:
    """Get a certificate, for a key in a file."""
    path = place / f"{secrets.token_hex(4)}.pem"
    hand.key = SigningKey.create(path)
    granted = hand.onboard("sp")
    path.rename(place / f"{granted.grant.id.hex()}.pem")
    return access_of(lab, hand, granted, place)


async def publish(access: ServiceAccess, topic: str | None = None) -> None:
    """Connect, publish one message, and leave."""
    session = await service_session.connect(access)
    try:
        await session.publish(b"hello", topic=topic)
    finally:
        await session.close()


def messages(lab: Lab) -> int:
    """Return how many messages the SP has read."""
    ((count,),) = lab.query("sp", "SELECT count(*) FROM message")
    return int(count)


def test_a_broker_takes_no_foreign_certificate(lab: Lab, hand: Hand, tmp_path: Path) -> None:
    """Somebody comes without a certificate, with one of his own making, by another version or under another name."""
    access = enrolled(lab, hand, tmp_path)
    with lab.heard("sp", "client-connected", "message-read"):
        asyncio.run(publish(access))
    key = SigningKey.create(tmp_path / "thief.pem")
    now = int(time.time())
    authority = create_authority(
        SigningKey.generate()[0], title="SP", now=now - 60, lifetime=86_400, random=SystemRandom()
    )
    forged = issue_client(authority, key.public, now=now, lifetime=3_600, random=SystemRandom())
    own = tmp_path / "thief.crt"
    own.write_bytes(to_pem(forged.certificate))
    thief = replace(access, certificate=own, key=tmp_path / "thief.pem", name=forged.name)
    with lab.untouched(), lab.heard("sp", "certificate-refused"), pytest.raises(AccessError) as refused:
        asyncio.run(publish(thief))
    assert refused.value.code == "service-refused"
    other = enrolled(lab, Hand(lab, lab.device()), tmp_path)
    with lab.untouched(), lab.heard("sp", "connect-refused"), pytest.raises(AccessError) as refused:
        asyncio.run(publish(replace(access, name=other.name)))
    assert refused.value.code == "service-refused"
    for version, code in ((ssl.TLSVersion.TLSv1_3, "certificate-missing"), (ssl.TLSVersion.TLSv1_2, _OLD_TLS)):
        with lab.untouched(), lab.heard("sp", code) as codes:
            assert not greeted(access.port, version)
        assert codes == [code]
    before = messages(lab)
    asyncio.run(publish(access))
    wait_for(lambda: messages(lab) == before + 1)


_OLD_TLS = "tls-version-refused"


def greeted(to: int, version: ssl.TLSVersion) -> bool:
    """Come to a broker without a certificate; return whether it says anything but goodbye."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    try:
        with (
            socket.create_connection(("127.0.0.1", to), timeout=120) as plain,
            context.wrap_socket(plain) as secure,
        ):
            secure.sendall(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00")
            return bool(secure.recv(100))
    except OSError:
        return False


def test_a_broker_takes_nothing_for_another_devices_topic(lab: Lab, hand: Hand, tmp_path: Path) -> None:
    """A device publishes under another device's topic, or listens there: it is dropped, and nothing is read."""
    mine = enrolled(lab, hand, tmp_path)
    theirs = enrolled(lab, Hand(lab, lab.device()), tmp_path)
    for access in (mine, theirs):
        with lab.heard("sp", "message-read"):
            asyncio.run(publish(access))
    count = messages(lab)
    for topic, code in (
        (theirs.topic, "topic-not-yours"),
        ("devices", "topic-not-yours"),
        (f"devices/{mine.name}", "topic-not-yours"),
        (f"devices/{mine.name[:-1]}{theirs.name[-1]}0/telemetry", "topic-not-yours"),
        ("#", "topic-malformed"),
        (f"devices/{mine.name}/#", "topic-malformed"),
        ("$SYS/broker", "topic-not-yours"),
    ):
        with lab.untouched(), lab.heard("sp", code), pytest.raises(AccessError) as refused:
            asyncio.run(publish(mine, topic))
        assert refused.value.code == "service-lost", topic

    async def listen(pattern: str) -> None:
        session = await service_session.connect(mine)
        text = pattern.encode()
        packet = b"\x00\x01" + len(text).to_bytes(2) + text + b"\x00"
        session._writer.write(b"\x82" + bytes([len(packet)]) + packet)
        await asyncio.wait_for(session.lost(), 120)

    for pattern in (theirs.topic, "#", "devices/#", "+/+/telemetry"):
        with lab.untouched(), lab.heard("sp", "topic-not-yours"):
            asyncio.run(listen(pattern))
    assert messages(lab) == count


def test_a_broker_takes_no_revoked_certificate(lab: Lab, hand: Hand, tmp_path: Path) -> None:
    """A thief has a certificate that its device has replaced since; an open connection with it ends too."""
    old = enrolled(lab, hand, tmp_path)

    async def replaced() -> None:
        session = await service_session.connect(old)
        await session.publish(b"hello")
        new = await asyncio.to_thread(enrolled, lab, hand, tmp_path)
        await publish(old)
        await publish(new)
        await asyncio.wait_for(session.lost(), 120)
        await session.close()

    asyncio.run(replaced())
    wait_for(lambda: hand.grants("sp") == [GrantState.ENDED, GrantState.CONFIRMED])
    with lab.heard("sp", "certificate-revoked"):
        wait_for(lambda: publishes(old) == "service-refused")
    with lab.untouched(), lab.heard("sp", "certificate-revoked") as codes:
        assert publishes(old) == "service-refused"
    assert codes == ["certificate-revoked"]


def publishes(access: ServiceAccess) -> str:
    """Try to publish; return the code of what came of it."""
    try:
        asyncio.run(publish(access))
    except AccessError as error:
        return error.code
    return ""


def wait_for(fact: object, seconds: float = 120.0) -> None:
    """Wait for a fact."""
    assert callable(fact)
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end
        time.sleep(0.02)


@contextlib.asynccontextmanager
async def _conversation(lab: Lab) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection to the network's attach port."""
    reader, writer = await asyncio.open_connection("127.0.0.1", lab.port("mno", "attach"))
    with contextlib.closing(writer):
        yield reader, writer
