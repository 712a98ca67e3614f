"""The embedded broker: who gets in, what each may do, and how fast somebody is out."""

import asyncio
import contextlib
import os
import shutil
import ssl
import time
from functools import wraps
from pathlib import Path

import aiomqtt
import pytest
import uvloop

from firstlight.access.device import service_wire as wire
from firstlight.access.device.service_session import client_context
from firstlight.enrolment.issue import create_authority
from firstlight.errors import FirstlightError
from firstlight.testing.access_network import LONG

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def run(request):
    def runner(work):
        with asyncio.Runner(loop_factory=request.param) as one:
            return one.run(work)

    return runner


def served(test):
    """Run an async test with a running broker, after the honest journey has passed."""

    @wraps(test)
    def wrapped(world, run):
        async def work():
            async with world.running():
                await world.honest()
                await test(world)

        run(work())

    del wrapped.__wrapped__
    wrapped.work = test  # type: ignore[attr-defined]
    return wrapped


async def refusal(attempt) -> str:
    with pytest.raises(FirstlightError) as caught:
        await attempt
    return caught.value.code


async def raw(world, context, name="broker.sp.example"):
    endpoint = world.broker.endpoint
    return await asyncio.open_connection(endpoint.host, endpoint.port, ssl=context, server_hostname=name)


def context_of(world, device):
    return client_context(device.certificate, device.key, (world.authority.certificate,))


async def ends(reader) -> None:
    async with asyncio.timeout(LONG):
        with contextlib.suppress(OSError):
            while await reader.read(4096):
                pass


@served
async def test_each_message_is_read_once_with_its_name_topic_and_time(world):
    before = time.time_ns()
    one, two = world.device(), world.device()
    first, second = await world.connect(one), await world.connect(two)
    await first.publish(b"a")
    await second.publish(b"b", topic=f"devices/{two.issued.name}/deep/er")
    await first.publish(os.urandom(wire.MAX_PAYLOAD))
    got = await world.read(3)
    assert {(message.name, message.topic) for message in got} == {
        (one.issued.name, f"devices/{one.issued.name}/data"),
        (two.issued.name, f"devices/{two.issued.name}/deep/er"),
    }
    assert all(before <= message.time_ns <= time.time_ns() for message in got)
    await first.close()
    await second.close()
    assert len(world.published) == 3


@served
async def test_everything_published_before_a_goodbye_is_read(world):
    device = world.device()
    session = await world.connect(device)
    await asyncio.gather(*(session.publish(b"%d" % number) for number in range(50)))
    await session.close()
    assert sorted(int(message.payload) for message in await world.read(50)) == list(range(50))


@served
async def test_a_certificate_is_demanded(world):
    context = context_of(world, world.device())
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.load_verify_locations(cadata=world.authority.certificate)
    for one, code in ((context, None), (bare, "certificate-missing")):
        reader, writer = await raw(world, one)
        writer.transport.abort() if code is None else await ends(reader)
        if code is not None:
            await world.log.wait(code)


@served
async def test_a_foreign_authority_is_refused_even_under_the_same_name(world):
    foreign = create_authority(
        type(world).key(), title="SP", now=world.now, lifetime=86_400, random=type(world).random()
    )
    assert await refusal(world.connect(world.device(foreign))) == "service-refused"
    await world.log.wait("certificate-refused")


@served
async def test_an_expired_certificate_is_refused(world):
    old = world.device(now=world.now - 7200, lifetime=3600)
    assert await refusal(world.connect(old)) == "service-refused"
    await world.log.wait("certificate-expired")


@served
async def test_a_server_certificate_is_no_way_in(world):
    assert await refusal(world.connect(world.server)) == "service-refused"
    await world.log.wait("certificate-refused")


@served
async def test_tls_1_2_is_refused(world):
    context = context_of(world, world.device())
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(OSError):
        await raw(world, context)
    await world.log.wait("tls-version-refused")


@served
async def test_plain_text_is_refused(world):
    endpoint = world.broker.endpoint
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    writer.write(wire.connect("a" * 32, 60))
    await ends(reader)
    await world.log.wait("tls-failed")


@served
async def test_a_revoked_client_is_dropped_and_stays_out(world):
    out, stays = world.device(), world.device()
    dropped, kept = await world.connect(out), await world.connect(stays)
    await world.broker.reload_crl(world.crl(out))
    async with asyncio.timeout(LONG):
        await dropped.lost()
    assert await refusal(dropped.publish(b"late")) == "service-lost"
    assert await refusal(world.connect(out)) == "service-refused"
    assert world.log.codes().count("certificate-revoked") == 2
    await kept.publish(b"still here")
    assert [message.payload for message in await world.read(1)] == [b"still here"]
    await kept.close()


@served
async def test_a_list_that_is_not_the_authoritys_changes_nothing(world):
    device = world.device()
    session = await world.connect(device)
    assert await refusal(world.broker.reload_crl(world.crl(device)[:-1])) == "crl-malformed"
    spoilt = bytearray(world.crl(device))
    spoilt[-1] ^= 1
    assert await refusal(world.broker.reload_crl(bytes(spoilt))) in {"crl-malformed", "crl-untrusted"}
    await session.publish(b"x")
    await session.close()


@served
async def test_an_overdue_list_lets_nobody_in(world):
    device = world.device()
    await world.broker.reload_crl(world.crl(lifetime=-60))
    assert await refusal(world.connect(device)) == "service-refused"
    await world.log.wait("crl-overdue")


@served
async def test_another_devices_topic_is_refused_and_not_delivered(world):
    victim, thief = world.device(), world.device()
    topic = f"devices/{victim.issued.name}/data"
    session = await world.connect(thief)
    assert await refusal(session.publish(b"forged", topic=topic)) == "service-lost"
    async with asyncio.timeout(LONG):
        await session.lost()
    await world.log.wait("topic-not-yours")
    honest = await world.connect(victim)
    await honest.publish(b"mine")
    assert [message.payload for message in await world.read(1)] == [b"mine"]
    await honest.close()


@served
async def test_another_devices_topic_cannot_be_listened_to(world):
    victim, thief = world.device(), world.device()
    context = context_of(world, thief)
    async with mqtt(world, thief, context) as spy:
        for pattern in (f"devices/{victim.issued.name}/#", "#", "devices/+/data", "$SYS/#"):
            assert [code.value for code in await spy.subscribe(pattern, qos=1)] == [0x80]
        own = f"devices/{thief.issued.name}/#"
        assert [code.value for code in await spy.subscribe(own, qos=1)] == [1]
        session = await world.connect(victim)
        await session.publish(b"private")
        await world.read(1)
        await spy.publish(f"devices/{thief.issued.name}/echo", b"own", qos=1)
        async with asyncio.timeout(LONG):
            assert (await anext(aiter(spy.messages))).payload == b"own"
        assert len(spy.messages) == 0
        await session.close()


@served
async def test_an_independent_client_is_read_too(world):
    device = world.device()
    async with mqtt(world, device, context_of(world, device)) as client:
        await client.publish(f"devices/{device.issued.name}/data", b"paho", qos=1)
        await client.publish(f"devices/{device.issued.name}/data", b"kept?", qos=1, retain=True)
    assert [message.payload for message in await world.read(2)] == [b"paho", b"kept?"]
    async with mqtt(world, device, context_of(world, device)) as client:
        await client.subscribe(f"devices/{device.issued.name}/#")
        await client.publish(f"devices/{device.issued.name}/data", b"new")
        async with asyncio.timeout(LONG):
            assert (await anext(aiter(client.messages))).payload == b"new"


def mqtt(world, device, context):
    named = _Named(context, "broker.sp.example")
    endpoint = world.broker.endpoint
    return aiomqtt.Client(endpoint.host, endpoint.port, identifier=device.issued.name, tls_context=named)


class _Named:
    """Gives paho a TLS context that checks another name than the address it connects to."""

    check_hostname = True

    def __init__(self, context, name):
        self._context, self._name = context, name

    def wrap_socket(self, sock, *, server_hostname, do_handshake_on_connect):
        return self._context.wrap_socket(
            sock, server_hostname=self._name, do_handshake_on_connect=do_handshake_on_connect
        )


@served
async def test_a_client_goes_by_its_certificates_name_alone(world):
    victim, thief = world.device(), world.device()
    session = await world.connect(victim)
    assert await refusal(world.connect(thief, name=victim.issued.name)) == "service-refused"
    await world.log.wait("connect-refused")
    await session.publish(b"untouched")
    assert (await world.read(1))[0].name == victim.issued.name
    await session.close()


@served
async def test_wills_passwords_and_odd_greetings_are_refused(world):
    device = world.device()
    honest = wire.connect(device.issued.name, 60)
    will = bytearray(honest)
    will[9] |= 0x04
    cases = {
        bytes(will): "connect-refused",
        honest.replace(b"\x04MQTT\x04", b"\x04MQTT\x05"): "connect-malformed",
        honest.replace(b"MQTT", b"MQXX"): "connect-malformed",
        b"\x30" + honest[1:]: "connect-malformed",
        b"\x10\xff\xff\xff\x7f": "connect-malformed",
    }
    for data, code in cases.items():
        world.log.lines.clear()
        reader, writer = await raw(world, context_of(world, device))
        writer.write(data)
        await ends(reader)
        await world.log.wait(code)
        writer.transport.abort()


@served
async def test_oversized_and_random_packets_end_the_connection_and_nothing_else(world):
    device = world.device()
    for data in (
        b"\x32\xff\xff\xff\x7f" + bytes(64),
        b"\x32\xff\xff\xff\xff\xff",
        b"\xf0\x00",
        b"\x34\x02\x00\x00",
        os.urandom(512),
    ):
        reader, writer = await raw(world, context_of(world, device))
        writer.write(wire.connect(device.issued.name, 60))
        assert await reader.readexactly(4) == b"\x20\x02\x00\x00"
        writer.write(data)
        writer.write_eof() if writer.can_write_eof() else writer.close()
        await ends(reader)
        writer.transport.abort()
    session = await world.connect(device)
    await session.publish(b"fine")
    assert (await world.read(1))[-1].payload == b"fine"
    await session.close()


@served
async def test_the_newer_connection_of_a_client_takes_over(world):
    device = world.device()
    older = await world.connect(device)
    newer = await world.connect(device)
    async with asyncio.timeout(LONG):
        await older.lost()
    await newer.publish(b"new")
    assert (await world.read(1))[0].payload == b"new"
    await newer.close()


@served
async def test_disconnect_drops_one_client(world):
    device = world.device()
    session = await world.connect(device)
    assert await world.broker.disconnect(device.issued.name)
    async with asyncio.timeout(LONG):
        await session.lost()
    assert not await world.broker.disconnect(device.issued.name)
    again = await world.connect(device)
    await again.close()


@served
async def test_logs_show_no_more_than_the_start_of_a_name(world):
    device = world.device()
    session = await world.connect(device)
    await session.publish(b"payload-marker")
    await session.close()
    text = repr(world.log.lines)
    assert device.issued.name not in text
    assert "payload-marker" not in text


def test_a_broker_that_cannot_start_says_so(world, run, tmp_path):
    async def work():
        assert await refusal(_property(world)) == "broker-not-started"
        moved = tmp_path / "moved"
        shutil.move(world.server.key, moved)
        assert await refusal(world.broker.start()) == "broker-bad-files"
        shutil.move(moved, world.server.key)
        async with world.running():
            taken = type(world)(_made(tmp_path / "other"), port=world.broker.endpoint.port)
            assert await refusal(taken.broker.start()) == "broker-not-started"
            await world.honest()
        assert await refusal(_property(world)) == "broker-not-started"

    run(work())


async def _property(world):
    return world.broker.endpoint


def _made(path: Path) -> Path:
    path.mkdir()
    return path
