"""The bounds of a party's server: how many beginnings a second, how much waits at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from firstlight.errors import TransportError
from firstlight.onboarding import wire
from firstlight.roles.party import desk
from firstlight.roles.party.desk import _Bucket
from firstlight.testing.clock import FakeClock
from firstlight.testing.parties import party_world
from firstlight.transports.client import HttpClient


def test_so_many_beginnings_and_then_so_many_a_second() -> None:
    clock = FakeClock()
    bucket = _Bucket(clock)
    assert sum(bucket.take() for _ in range(desk.BURST + 50)) == desk.BURST
    clock.advance(0.1)
    assert sum(bucket.take() for _ in range(desk.BURST)) == desk.FIRST_PER_SECOND // 10
    clock.advance(-5)
    assert not bucket.take()


def test_who_asks_too_much_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "BURST", 1)
    monkeypatch.setattr(desk, "FIRST_PER_SECOND", 0)

    async def scene() -> None:
        async with party_world(tmp_path) as (world, network, _), HttpClient() as http:
            begun = world.devices[0]
            assert await begun.open(network, http) is not None
            with pytest.raises(TransportError, match="rate-limited"):
                await http.post(network.url + wire.PATH, b"\xf5", content_type=wire.MEDIA_TYPE_REQUEST)
            monkeypatch.setattr(desk, "MAX_WAITING", 0)
            with pytest.raises(TransportError, match="busy"):
                await http.post(network.url + wire.PATH, b"\x40", content_type=wire.MEDIA_TYPE_REQUEST)
            with pytest.raises(TransportError, match="too-large"):
                await http.post(f"{network.url}/v1/orders", bytes(513))
            assert (await http.get_json(f"{network.url}/healthz"))["role"] == "mno"

    asyncio.run(scene())
