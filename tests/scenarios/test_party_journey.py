"""Devices with a real MNO and a real SP: HTTP, exchange, attach, certificate, broker; the ledger's node is a fake."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from firstlight.access.device.service_session import Session
from firstlight.attestation.evidence import Measurement
from firstlight.errors import AccessError, TransportError
from firstlight.ledger.records import (
    Batch,
    Revocation,
    RevocationKind,
    TenureState,
    batch_name,
    revocation_name,
    tenure_name,
)
from firstlight.onboarding import wire
from firstlight.onboarding.device import Granted, Refused, Sent
from firstlight.onboarding.edhoc.error import is_error
from firstlight.roles.party.status import grant_rows, mno_status, sp_status
from firstlight.settings import MnoSettings, PartySettings, SpSettings
from firstlight.testing.bundles import BATCH, ISSUER, origin
from firstlight.testing.parties import OWNER, PartyWorld, Server, new_key, party_world
from firstlight.transports.client import HttpClient

LONG = 120.0
"""Seconds after which what is waited for will not come."""


async def until(fact: object, expected: object) -> None:
    """Wait for a fact in a party's own records."""
    assert callable(fact)
    async with asyncio.timeout(LONG):
        while fact() != expected:  # noqa: ASYNC110 - waits for the fact itself
            await asyncio.sleep(0.01)


def codes(server: Server, kind: str) -> dict[str, int]:
    status = mno_status(server.directory) if kind == "mno" else sp_status(server.directory)
    return status.refused


def test_from_the_first_message_to_a_message_read(tmp_path: Path) -> None:
    async def journey() -> None:
        async with party_world(tmp_path) as (world, network, service), HttpClient() as http:
            device = world.devices[0]
            granted = await device.onboard(network, http)
            assert isinstance(granted, Granted), granted
            assert (mno_status(network.directory).granted, mno_status(network.directory).attached) == (1, 0)
            attachment = await device.attach(network, granted)
            assert mno_status(network.directory).attached == 1
            await until(lambda: [one.state for one in grant_rows(MnoSettings, network.directory)], ["confirmed"])

            key, request = new_key(tmp_path / "operational.pem")
            async with HttpClient(proxy=attachment.proxy.url) as inside:
                certificate = await device.onboard(service, inside, request=request)
            assert isinstance(certificate, Granted), certificate
            session = await device.connect(certificate, key, attachment.proxy)
            await session.publish(b"21.5")
            await until(lambda: sp_status(service.directory).connected, 1)
            await until(lambda: [one.state for one in grant_rows(SpSettings, service.directory)], ["confirmed"])
            status = sp_status(service.directory)
            assert (status.authenticated, status.granted, status.messages, status.refused) == (1, 1, 1, {})
            assert status.heard == {certificate.grant.id}
            await session.close()
            await attachment.close()

    asyncio.run(journey())


def test_a_predecessor_dies_when_its_successor_is_used(tmp_path: Path) -> None:
    async def journey() -> None:
        async with party_world(tmp_path) as (world, network, service), HttpClient() as http:
            device = world.devices[1]
            first = await device.onboard(network, http)
            assert isinstance(first, Granted)
            await (await device.attach(network, first)).close()
            await until(lambda: [one.state for one in grant_rows(MnoSettings, network.directory)], ["confirmed"])
            second = await device.onboard(network, http)
            assert isinstance(second, Granted), second
            assert mno_status(network.directory).attached == 0
            attachment = await device.attach(network, first)
            await attachment.close()
            await (await device.attach(network, second)).close()
            assert (mno_status(network.directory).attached, mno_status(network.directory).granted) == (1, 1)
            with pytest.raises(AccessError, match="attach-refused"):
                await device.attach(network, first)

            old_key, request = new_key(tmp_path / "old.pem")
            old = await device.onboard(service, http, request=request)
            assert isinstance(old, Granted)
            session = await device.connect(old, old_key, None)
            await session.publish(b"1")
            await until(lambda: sp_status(service.directory).connected, 1)
            await until(lambda: [one.state for one in grant_rows(SpSettings, service.directory)], ["confirmed"])
            new, request = new_key(tmp_path / "new.pem")
            following = await device.onboard(service, http, request=request)
            assert isinstance(following, Granted)
            successor = await device.connect(following, new, None)
            await successor.publish(b"2")
            await asyncio.wait_for(session.lost(), LONG)
            with pytest.raises(AccessError, match="service-refused"):
                await device.connect(old, old_key, None)
            await successor.close()

    asyncio.run(journey())


def test_message_4_lost_and_asked_for_again(tmp_path: Path) -> None:
    async def journey() -> None:
        async with party_world(tmp_path) as (world, network, _), HttpClient() as http:
            sent = await world.devices[0].open(network, http)
            assert isinstance(sent, Sent)
            answers = [await world.devices[0].post(network, http, sent.request_2) for _ in range(4)]
            assert len(set(answers)) == 1
            assert isinstance(sent.read(answers[0]), Granted)
            assert len(grant_rows(MnoSettings, network.directory)) == 1

    asyncio.run(journey())


def test_a_restart_keeps_ports_and_what_was_granted(tmp_path: Path) -> None:
    async def journey() -> None:
        async with party_world(tmp_path) as (world, network, service), HttpClient() as http:
            granted = await world.devices[0].onboard(network, http)
            assert isinstance(granted, Granted)
            key, request = new_key(tmp_path / "operational.pem")
            certificate = await world.devices[0].onboard(service, http, request=request)
            assert isinstance(certificate, Granted)
            await network.stop()
            await service.stop()
            again = await world.start(MnoSettings, network.directory, network.keys)
            other = await world.start(SpSettings, service.directory, service.keys)
            assert (again.url, other.url) == (network.url, service.url)
            attachment = await world.devices[0].attach(again, granted)
            session = await world.devices[0].connect(certificate, key, attachment.proxy)
            await session.close()
            await attachment.close()

    asyncio.run(journey())


def test_a_burst_of_devices_shares_views(tmp_path: Path) -> None:
    async def journey() -> None:
        async with party_world(tmp_path) as (world, network, _), HttpClient() as http:
            asked = world.node.asked
            events = await asyncio.gather(*(one.onboard(network, http) for one in world.devices))
            assert all(isinstance(event, Granted) for event in events), events
            assert mno_status(network.directory).granted == len(world.devices)
            assert world.node.asked - asked <= 4 + 3 * len(world.devices)

    asyncio.run(journey())


def test_credentials_end_with_the_tenure(tmp_path: Path) -> None:
    """The device is sold on; its old operator and provider switch off what they gave, by themselves."""

    async def journey() -> None:
        async with party_world(tmp_path) as (world, network, service), HttpClient() as http:
            device = world.devices[0]
            granted = await device.onboard(network, http)
            assert isinstance(granted, Granted)
            attachment = await device.attach(network, granted)
            key, request = new_key(tmp_path / "operational.pem")
            certificate = await device.onboard(service, http, request=request)
            assert isinstance(certificate, Granted)
            session = await device.connect(certificate, key, attachment.proxy)
            stays = await world.devices[1].onboard(network, http)
            assert isinstance(stays, Granted)

            world.ledger.split(0, 1, 3, origin(3, 1, previous=OWNER))
            batch = world.ledger.records[batch_name(BATCH)]
            assert isinstance(batch, Batch)
            world.ledger.records[batch_name(BATCH)] = replace(batch, ownership=world.ledger.trie.root)
            world.ledger.at += 1
            await network.stop()
            again = await world.start(MnoSettings, network.directory, network.keys)
            await until(lambda: states(MnoSettings, network), ["ended", "pending"])
            with pytest.raises(AccessError, match="attach-refused"):
                await device.attach(again, granted)
            await (await world.devices[1].attach(again, stays)).close()
            assert await device.onboard(again, http) == Refused("not-deployed")

            await session.lost()
            await service.stop()
            await world.start(SpSettings, service.directory, service.keys)
            await until(lambda: states(SpSettings, service), ["ended"])
            await until_refused(lambda: device.connect(certificate, key, None))

    asyncio.run(journey())


def states(kind: type[PartySettings], server: Server) -> list[str]:
    return [one.state for one in grant_rows(kind, server.directory)]


async def until_refused(attempt: Callable[[], Awaitable[Session]]) -> None:
    """Wait until the new revocation list counts."""
    async with asyncio.timeout(LONG):
        while True:
            try:
                await (await attempt()).close()
            except AccessError as error:
                assert error.code == "service-refused"  # noqa: PT017 - until then it succeeds
                return


# --- refusals -----------------------------------------------------------------------------------


def test_refusals_leave_no_grant(tmp_path: Path) -> None:
    """Each bends one thing, sees its exact code, and puts it right again."""

    async def journey() -> None:
        async with party_world(tmp_path, devices=1) as (world, network, service), HttpClient() as http:
            device = world.devices[0]

            async def refused(server: Server, code: str, *, request: bytes = b"", index: int = 0) -> None:
                event = await world.devices[index].onboard(server, http, request=request)
                assert event == Refused(code)
                assert codes(server, server.directory.name)[code] >= 1

            await refused(network, "request-unexpected", request=b"csr")
            await refused(service, "request-missing")
            await refused(service, "request-malformed", request=b"csr")
            good = device.measured
            device.measured = replace(good, svn=0)
            await refused(network, "svn-too-low")
            device.measured = Measurement("firstlight", hashlib.sha256(b"other").digest(), 1)
            await refused(network, "component-changed")
            device.measured = good
            await bent(world, network, refused)
            assert mno_status(network.directory).granted == 0
            assert isinstance(await device.onboard(network, http), Granted)
            await refused(network, "order-full", index=1)
            assert mno_status(network.directory).authenticated == 2

    async def bent(world: PartyWorld, network: Server, refused: object) -> None:
        assert callable(refused)
        records = world.ledger.records
        name = revocation_name(ISSUER, world.devices[0].measured.digest)
        records[name] = Revocation(RevocationKind.FIRMWARE, 1)
        world.ledger.at += 1
        await refused(network, "firmware-revoked")
        del records[name]
        world.ledger.at += 1

        mine = tenure_name(BATCH, OWNER)
        held = records[mine]
        records[mine] = replace(origin(OWNER, 4, previous=1, plan=world.plan.root), state=TenureState.FROZEN)
        world.ledger.at += 1
        await refused(network, "frozen")
        records[mine] = replace(origin(OWNER, 4, previous=1, plan=world.plan.root), plan_revision=2)
        world.ledger.at += 1
        await refused(network, "stale-view")
        records[mine] = held
        world.ledger.at += 1

    asyncio.run(journey())


def test_a_body_with_another_hash_is_unknown(tmp_path: Path) -> None:
    async def journey() -> None:
        async with party_world(tmp_path) as (world, network, _), HttpClient() as http:
            bodies = dict(world.node.bodies)
            for bad in ({}, {name: body + b"x" for name, body in bodies.items()}):
                world.node.bodies = bad
                assert await world.devices[0].onboard(network, http) == Refused("reference-unknown")
            world.node.bodies = bodies
            assert isinstance(await world.devices[0].onboard(network, http), Granted)

    asyncio.run(journey())


def test_an_old_view_grants_nothing(tmp_path: Path) -> None:
    async def journey() -> None:
        async with party_world(tmp_path) as (world, network, _), HttpClient() as http:
            world.node.time = 1_700_000_000
            assert await world.devices[0].onboard(network, http) == Refused("view-too-old")

    asyncio.run(journey())


def test_nonsense_is_an_error_and_nothing_else(tmp_path: Path) -> None:
    async def journey() -> None:
        async with party_world(tmp_path) as (_, network, _), HttpClient() as http:
            url = network.url + wire.PATH
            for data in (b"\xf5" + bytes(40), bytes(3), b"\xf5", b"\x83"):
                assert is_error(await http.post(url, data, content_type=wire.MEDIA_TYPE_REQUEST))
            with pytest.raises(TransportError, match="too-large"):
                await http.post(url, bytes(7000), content_type=wire.MEDIA_TYPE_REQUEST)
            with pytest.raises(TransportError, match="wrong-media-type"):
                await http.post(url, b"\xf5", content_type="text/plain")
            assert mno_status(network.directory).authenticated == 0

    asyncio.run(journey())


def test_logs_hold_no_secrets(tmp_path: Path) -> None:
    async def journey() -> None:
        async with party_world(tmp_path) as (world, network, _), HttpClient() as http:
            granted = await world.devices[0].onboard(network, http)
            assert isinstance(granted, Granted)
            with contextlib.suppress(AccessError):
                await (await world.devices[0].attach(network, granted)).close()
            log = (network.directory / "log.jsonl").read_text()
            k, opc = granted.subscription_keys(world.ledger.consortium.chain, network.keys.party)
            assert '"code":"granted"' in log
            assert '"code":"attached"' in log
            for secret in (k.hex(), opc.hex(), granted.grant.body.supi[5:], world.leaves[0].salt.hex()):  # type: ignore[union-attr]
                assert secret not in log

    asyncio.run(journey())
