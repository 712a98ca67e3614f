"""Devices with a real SP that runs mosquitto: exchange, attach, certificate, messages read, and what replaces what."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from tests.scenarios.test_party_journey import until

from firstlight.access.serving.daemons import MOSQUITTO
from firstlight.errors import AccessError
from firstlight.onboarding.device import Granted
from firstlight.roles.party.status import grant_rows, sp_status
from firstlight.settings import SpSettings
from firstlight.testing.access_network import LONG
from firstlight.testing.hostapd_world import needs
from firstlight.testing.parties import new_key, party_world
from firstlight.transports.client import HttpClient

SECONDS = 5.0
"""Within which a credential that has ended must stop working."""


@pytest.fixture(autouse=True)
def installed() -> None:
    needs(MOSQUITTO)


def states(directory: Path) -> list[str]:
    return [one.state for one in grant_rows(SpSettings, directory)]


def test_from_the_first_message_to_a_message_read_in_mosquitto(tmp_path: Path) -> None:
    async def journey() -> None:
        async with party_world(tmp_path, broker="mosquitto") as (world, network, service), HttpClient() as http:
            device = world.devices[0]
            granted = await device.onboard(network, http)
            assert isinstance(granted, Granted), granted
            attachment = await device.attach(network, granted)
            key, request = new_key(tmp_path / "operational.pem")
            async with HttpClient(proxy=attachment.proxy.url) as inside:
                certificate = await device.onboard(service, inside, request=request)
            assert isinstance(certificate, Granted), certificate
            session = await device.connect(certificate, key, attachment.proxy)
            await session.publish(b"21.5")
            await until(lambda: sp_status(service.directory).connected, 1)
            await until(lambda: states(service.directory), ["confirmed"])
            status = sp_status(service.directory)
            assert (status.authenticated, status.granted, status.messages, status.refused) == (1, 1, 1, {})
            assert status.heard == {certificate.grant.id}
            await session.close()
            await attachment.close()

    asyncio.run(journey())


def test_a_certificate_stops_working_when_its_successor_is_used(tmp_path: Path) -> None:
    async def journey() -> None:
        async with party_world(tmp_path, broker="mosquitto") as (world, _, service), HttpClient() as http:
            device = world.devices[1]
            old_key, request = new_key(tmp_path / "old.pem")
            old = await device.onboard(service, http, request=request)
            assert isinstance(old, Granted), old
            session = await device.connect(old, old_key, None)
            await session.publish(b"1")
            await until(lambda: states(service.directory), ["confirmed"])
            new_file, request = new_key(tmp_path / "new.pem")
            new = await device.onboard(service, http, request=request)
            assert isinstance(new, Granted), new
            successor = await device.connect(new, new_file, None)
            await successor.publish(b"2")
            began = time.monotonic()
            await asyncio.wait_for(session.lost(), LONG)
            assert time.monotonic() - began < SECONDS
            with pytest.raises(AccessError, match="service-refused"):
                await device.connect(old, old_key, None)
            await successor.publish(b"3")
            await service.stop()
            await asyncio.wait_for(successor.lost(), LONG)

    asyncio.run(journey())
