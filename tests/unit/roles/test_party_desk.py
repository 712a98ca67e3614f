"""The bounds of a party's server: how many beginnings a second, how much waits at once."""

from __future__ import annotations

import asyncio
import http.client
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from firstlight.errors import TransportError
from firstlight.onboarding import wire
from firstlight.onboarding.device import Sent
from firstlight.roles.party import desk, place
from firstlight.testing.parties import party_world
from firstlight.transports.admission import Rate
from firstlight.transports.client import HttpClient


def post(url: str, body: bytes) -> tuple[int, str | None]:
    """Return status and Retry-After."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    try:
        connection.request("POST", wire.PATH, body, {"content-type": wire.MEDIA_TYPE_REQUEST})
        answer = connection.getresponse()
        return answer.status, answer.getheader("retry-after")
    finally:
        connection.close()


def test_who_asks_too_much_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "_rate", lambda _: Rate(0.1, 2))

    async def scene() -> None:
        async with party_world(tmp_path) as (world, network, _), HttpClient() as http_client:
            begun = world.devices[0]
            sent = await begun.open(network, http_client)
            assert isinstance(sent, Sent)
            await begun.open(network, http_client)
            with pytest.raises(TransportError, match="rate-limited"):
                await http_client.post(network.url + wire.PATH, b"\xf5", content_type=wire.MEDIA_TYPE_REQUEST)
            for _ in range(20):
                assert await asyncio.to_thread(post, network.url, b"\xf5") == (429, "10")
            answer = await begun.post(network, http_client, sent.request_2)
            assert sent.read(answer).__class__.__name__ == "Granted"
            log = (network.directory / "log.jsonl").read_text()
            assert log.count('"rate-limited"') == 1

            monkeypatch.setattr(desk, "MAX_WAITING", 0)
            with pytest.raises(TransportError, match="busy"):
                await http_client.post(network.url + wire.PATH, b"\x40", content_type=wire.MEDIA_TYPE_REQUEST)
            assert await asyncio.to_thread(post, network.url, b"\x40") == (503, "2")
            with pytest.raises(TransportError, match="too-large"):
                await http_client.post(f"{network.url}/v1/orders", bytes(513))
            assert (await http_client.get_json(f"{network.url}/healthz"))["role"] == "mno"

    asyncio.run(scene())


def test_beginnings_leave_room_for_those_who_came_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "MAX_BEGINNING", 0)

    async def scene() -> None:
        async with party_world(tmp_path) as (_, network, _), HttpClient():
            assert await asyncio.to_thread(post, network.url, b"\xf5") == (503, "2")
            assert (await asyncio.to_thread(post, network.url, b"\x40"))[0] == 200

    asyncio.run(scene())
