"""A service on mosquitto: who gets in, what each may do, how fast somebody is out, and that nothing taken is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.access.conftest import MosquittoWorld
from tests.unit.access_service import test_broker as suite
from tests.unit.access_service.test_broker import context_of, ends, mqtt, raw, refusal

from firstlight.access.device import service_wire as wire
from firstlight.access.serving.service_mosquitto import DATABASE, settled
from firstlight.testing.access_network import LONG

SECONDS = 5.0
"""Within which somebody who was revoked must be out."""
SHARED = [
    suite.test_each_message_is_read_once_with_its_name_topic_and_time,
    suite.test_everything_published_before_a_goodbye_is_read,
    suite.test_a_certificate_is_demanded,
    suite.test_a_foreign_authority_is_refused_even_under_the_same_name,
    suite.test_a_server_certificate_is_no_way_in,
    suite.test_tls_1_2_is_refused,
    suite.test_a_list_that_is_not_the_authoritys_changes_nothing,
    suite.test_oversized_and_random_packets_end_the_connection_and_nothing_else,
    suite.test_the_newer_connection_of_a_client_takes_over,
    suite.test_disconnect_drops_one_client,
    suite.test_logs_show_no_more_than_the_start_of_a_name,
]
"""What is asked of every broker behind the port."""


def serve(world: MosquittoWorld, test) -> None:
    """Run an async test with a running broker, after the honest journey has passed."""

    async def work():
        async with world.running():
            await world.honest()
            await test(world)

    asyncio.run(work())


@pytest.mark.parametrize("shared", SHARED, ids=lambda one: one.__name__)
def test_it_does_what_every_broker_does(world, shared):
    serve(world, shared.work)


def test_a_broker_that_cannot_start_says_so(world, tmp_path):
    suite.test_a_broker_that_cannot_start_says_so(world, asyncio.run, tmp_path)


def test_a_revoked_client_is_dropped_within_seconds_and_refused_by_mosquitto_itself(world):
    async def test(world):
        out, stays = world.device(), world.device()
        dropped, kept = await world.connect(out), await world.connect(stays)
        began = time.monotonic()
        await world.broker.reload_crl(world.crl(out))
        async with asyncio.timeout(LONG):
            await dropped.lost()
        assert time.monotonic() - began < SECONDS
        await world.log.wait("certificate-revoked")
        assert await refusal(dropped.publish(b"late")) == "service-lost"
        assert await refusal(world.connect(out)) == "service-refused"
        assert "certificate verify failed" in str((await world.log.wait("certificate-refused"))["detail"])
        await kept.publish(b"still here")
        assert [message.payload for message in await world.read(1)] == [b"still here"]
        await kept.close()

    serve(world, test)


def test_lists_of_one_second_all_count(world):
    async def test(world):
        devices = [world.device() for _ in range(4)]
        for count in range(1, len(devices)):
            await world.broker.reload_crl(world.crl(*devices[:count]))
            assert await refusal(world.connect(devices[count - 1])) == "service-refused"
        session = await world.connect(devices[-1])
        await session.publish(b"not revoked")
        await session.close()

    serve(world, test)


def test_a_revoked_clients_tls_ticket_is_of_no_use(world):
    """A session that is resumed goes past the revocation list: a thief would stay for as long as his ticket lasts."""

    def dial(context, resumed=None):
        end = world.broker.endpoint
        plain = socket.create_connection((end.host, end.port), timeout=LONG)
        return context.wrap_socket(plain, server_hostname="broker.sp.example", session=resumed)

    def talk(link, name, payload):
        link.sendall(wire.connect(name, 60))
        assert link.recv(4) == b"\x20\x02\x00\x00"
        link.sendall(wire.publish(1, f"devices/{name}/data", payload))
        return link.recv(4)

    async def test(world):
        device = world.device()
        name, context = device.issued.name, context_of(world, device)
        with await asyncio.to_thread(dial, context) as link:
            assert await asyncio.to_thread(talk, link, name, b"honest") == b"\x40\x02\x00\x01"
            ticket = link.session
        with await asyncio.to_thread(dial, context, ticket) as link:
            assert link.session_reused, "the attack cannot fire: mosquitto gives no ticket that works"
            assert await asyncio.to_thread(talk, link, name, b"resumed") == b"\x40\x02\x00\x01"
            ticket = link.session
        assert [one.payload for one in await world.read(2)] == [b"honest", b"resumed"]
        await world.broker.reload_crl(world.crl(device))
        with await asyncio.to_thread(dial, context, ticket) as link:
            assert not link.session_reused
            with pytest.raises(OSError):
                await asyncio.to_thread(talk, link, name, b"revoked")
        await world.log.wait("certificate-refused")

    serve(world, test)


def test_who_was_revoked_between_his_handshake_and_his_greeting_may_do_nothing_and_is_put_out(world):
    async def test(world):
        device = world.device()
        topic = f"devices/{device.issued.name}/data"
        reader, writer = await raw(world, context_of(world, device))
        await world.broker.reload_crl(world.crl(device))
        began = time.monotonic()
        writer.write(wire.connect(device.issued.name, 60) + wire.publish(1, topic, b"revoked"))
        assert await reader.readexactly(4) == b"\x20\x02\x00\x00", "the attack did not fire"
        await ends(reader)
        assert time.monotonic() - began < SECONDS
        await world.log.wait("certificate-revoked")
        other = await world.connect(world.device())
        await other.publish(b"after")
        assert [one.payload for one in await world.read(1)] == [b"after"]
        await other.close()

    serve(world, test)


def test_an_expired_certificate_is_refused(world):
    async def test(world):
        old = world.device(now=world.now - 7200, lifetime=3600)
        assert await refusal(world.connect(old)) == "service-refused"
        await world.log.wait("certificate-refused")

    serve(world, test)


def test_an_overdue_list_lets_nobody_in(world):
    async def test(world):
        device = world.device()
        await world.broker.reload_crl(world.crl(lifetime=-60))
        assert await refusal(world.connect(device)) == "service-refused"
        await world.log.wait("certificate-refused")

    serve(world, test)


def test_a_clients_identifier_is_its_certificates_name_whatever_it_says(world):
    async def test(world):
        victim, thief = world.device(), world.device()
        session = await world.connect(victim)
        posing = await world.connect(thief, name=victim.issued.name)
        await session.publish(b"untouched")
        await posing.publish(b"own")
        got = {(one.name, one.payload) for one in await world.read(2)}
        assert got == {(victim.issued.name, b"untouched"), (thief.issued.name, b"own")}
        await session.close()
        await posing.close()

    serve(world, test)


def test_publish_and_subscribe_with_aiomqtt(world):
    async def test(world):
        device = world.device()
        topic = f"devices/{device.issued.name}"
        async with mqtt(world, device, context_of(world, device)) as client:
            await client.subscribe(f"{topic}/commands/#", qos=1)
            await client.publish(f"{topic}/data", b"reading", qos=1)
            await client.publish(f"{topic}/commands/led", b"on", qos=1)
            async with asyncio.timeout(LONG):
                command = await anext(aiter(client.messages))
        assert (command.topic.value, command.payload) == (f"{topic}/commands/led", b"on")
        assert [message.payload for message in await world.read(2)] == [b"reading", b"on"]

    serve(world, test)


def test_a_devices_certificate_is_of_no_use_for_anothers_topic(world):
    """MQTT 3.1.1 has no answer for a refused PUBLISH, and mosquitto none for a SUBSCRIBE: what counts is delivery."""

    async def test(world):
        victim, thief = world.device(), world.device()
        theirs, own = f"devices/{victim.issued.name}", f"devices/{thief.issued.name}"
        async with (
            mqtt(world, thief, context_of(world, thief)) as spy,
            mqtt(world, victim, context_of(world, victim)) as honest,
        ):
            for pattern in (f"{theirs}/#", "devices/+/data", "#", "$SYS/#"):
                await spy.subscribe(pattern, qos=1)
            await honest.subscribe(f"{theirs}/#", qos=1)
            await spy.publish(f"{theirs}/data", b"forged", qos=1)
            await honest.publish(f"{theirs}/data", b"private", qos=1)
            await spy.publish(f"{own}/data", b"own", qos=1)
            assert [(one.name, one.payload) for one in await world.read(2)] == [
                (victim.issued.name, b"private"),
                (thief.issued.name, b"own"),
            ]
            async with asyncio.timeout(LONG):
                assert (await anext(aiter(spy.messages))).payload == b"own"
                assert (await anext(aiter(honest.messages))).payload == b"private"
            assert (len(spy.messages), len(honest.messages)) == (0, 0)

    serve(world, test)


def test_mosquitto_says_not_authorised_where_the_protocol_lets_it(world):
    """MQTT 5.0 §3.4.2.1: reason 0x87 in the PUBACK of a message to another's topic."""

    def text(value):
        return len(value).to_bytes(2) + value.encode()

    async def test(world):
        victim, thief = world.device(), world.device()
        reader, writer = await raw(world, context_of(world, thief))
        head = b"\x00\x04MQTT\x05\x02\x00\x3c\x00" + text(thief.issued.name)
        writer.write(bytes([0x10, len(head)]) + head)
        first = await reader.readexactly(2)
        assert (first[0], (await reader.readexactly(first[1]))[1]) == (0x20, 0)
        for name, reason in ((thief, None), (victim, 0x87)):
            body = text(f"devices/{name.issued.name}/data") + b"\x00\x01\x00" + b"x"
            writer.write(bytes([0x32, len(body)]) + body)
            head = await reader.readexactly(2)
            answer = await reader.readexactly(head[1])
            assert head[0] == 0x40
            assert (answer[2] if len(answer) > 2 else None) == reason
        writer.close()
        assert [one.name for one in await world.read(1)] == [thief.issued.name]

    serve(world, test)


def test_a_retained_message_ends_the_connection(world):
    async def test(world):
        device = world.device()
        reader, writer = await raw(world, context_of(world, device))
        writer.write(wire.connect(device.issued.name, 60))
        assert await reader.readexactly(4) == b"\x20\x02\x00\x00"
        retained = bytearray(wire.publish(1, f"devices/{device.issued.name}/data", b"stays"))
        retained[0] |= 0x01
        writer.write(bytes(retained))
        await ends(reader)
        writer.close()
        session = await world.connect(device)
        await session.publish(b"fine")
        assert [one.payload for one in await world.read(1)] == [b"fine"]
        await session.close()

    serve(world, test)


# --- what was taken is not lost -----------------------------------------------------------------


def test_a_killed_mosquitto_comes_back_on_its_port_with_what_nobody_has_kept(world):
    async def test(world):
        device = world.device()
        world.holding = []
        session = await world.connect(device)
        await session.publish(b"taken")
        assert [one.payload for one in await world.read(1)] == [b"taken"]
        await saved(world, b"taken")
        port, pid = world.broker.endpoint.port, world.broker.pid
        world.published.clear()
        world.holding = None
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(LONG):
            await session.lost()
        assert [one.payload for one in await world.read(1)] == [b"taken"]
        await world.log.wait("broker-restarted")
        assert world.broker.endpoint.port == port
        assert world.broker.pid != pid
        again = await world.connect(device)
        await again.publish(b"new")
        assert [one.payload for one in await world.read(2)] == [b"taken", b"new"]
        await again.close()

    serve(world, test)


def test_a_service_started_again_reads_what_it_had_not_kept(world):
    async def work():
        async with world.running():
            device = await world.honest()
            world.holding = []
            session = await world.connect(device)
            await session.publish(b"taken")
            await world.read(1)
            await session.close()
            again = world.restarted()
        async with again.running():
            message = (await again.read(1))[0]
            assert (message.name, message.payload) == (device.issued.name, b"taken")
            again.published.clear()
            session = await again.connect(device)
            await session.publish(b"kept")
            assert [one.payload for one in await again.read(1)] == [b"kept"]
            await session.close()
            last = again.restarted()
        async with last.running():
            await last.honest()
            assert last.published == []

    asyncio.run(work())


def gone(pid: int) -> bool:
    """Say whether a process has ended, whoever has to bury it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


async def saved(world, payload) -> None:
    """Wait until mosquitto has a message in its file."""
    async with asyncio.timeout(LONG):
        while payload not in (world.directory / "broker" / DATABASE).read_bytes():  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.01)


def test_it_ends_with_its_service_however_that_ends_and_puts_away_what_it_holds(world):
    directory = world.directory / "broker"

    async def wait() -> None:
        await settled(directory)

    database = directory / DATABASE
    program = (
        "import asyncio, os, sys; from pathlib import Path; from tests.access.conftest import MosquittoWorld\n"
        "async def main():\n"
        "    world = MosquittoWorld(Path(sys.argv[1]))\n"
        "    await world.broker.start()\n"
        "    print(world.broker.pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program, world.directory], stdout=subprocess.PIPE, text=True)
    try:
        pid = int(child.stdout.readline())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        assert words[1:] == [b"-c", b"mosquitto.conf", b""]
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    asyncio.run(wait())
    assert gone(pid)
    assert database.exists()


def test_its_directory_is_private(world):
    async def test(world):
        directory = world.directory / "broker"
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        for path in directory.iterdir():
            if not path.is_socket():
                assert stat.S_IMODE(path.stat().st_mode) == 0o600, path

    serve(world, test)
