"""The relay under load: so many on their way, others in their turn, and an early word to those who wait in vain."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from firstlight.errors import TransportError
from firstlight.ledger.records import Party, PartyStatus, Role
from firstlight.roles.gateway import relay
from firstlight.roles.gateway.ledger import GatewayLedger
from firstlight.roles.gateway.relay import MAX_RELAYED, Relay
from firstlight.transports.body import Response

PARTY = Party(
    key=bytes(33),
    next_key_hash=bytes(32),
    roles=(Role.MNO,),
    agreement_key=bytes(33),
    endpoints=("http://party",),
    status=PartyStatus.ACTIVE,
    revision=1,
    sequence=1,
)


class OneParty:
    async def record(self, name: str, kind: type[object]) -> Party:
        return PARTY


class Slow:
    """A party that answers when it is told to."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.full = asyncio.Event()
        self.most = self.now = self.served = 0

    async def forward(self, url: str, body: bytes, content_type: str) -> Response:
        self.now += 1
        self.most = max(self.most, self.now)
        if self.now == MAX_RELAYED:
            self.full.set()
        await self.open.wait()
        self.now -= 1
        self.served += 1
        return Response(200, content_type, body)


def made(party: Slow, **options: Any) -> Relay:
    return Relay(cast("GatewayLedger", OneParty()), party, **options)


def test_all_are_served_though_few_are_on_their_way_at_once() -> None:
    async def run() -> None:
        party = Slow()
        one = made(party)
        asked = [asyncio.create_task(one.forward(bytes(16), bytes([at % 256]))) for at in range(5 * MAX_RELAYED)]
        await party.full.wait()
        party.open.set()
        assert [(await task).body for task in asked] == [bytes([at % 256]) for at in range(5 * MAX_RELAYED)]
        assert party.most == MAX_RELAYED

    asyncio.run(run())


def test_who_waits_too_long_is_told_so_and_its_place_is_not_lost() -> None:
    async def run() -> None:
        party = Slow()
        one = made(party, patience=0.0)
        first = [asyncio.create_task(one.forward(bytes(16), b"")) for _ in range(MAX_RELAYED)]
        await party.full.wait()
        with pytest.raises(TransportError) as caught:
            await one.forward(bytes(16), b"")
        assert caught.value.code == "busy"
        party.open.set()
        await asyncio.gather(*first)
        assert (await one.forward(bytes(16), b"again")).body == b"again"
        assert party.served == MAX_RELAYED + 1

    asyncio.run(run())


def test_where_too_many_wait_one_more_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "MAX_WAITING", 2)

    async def run() -> None:
        party = Slow()
        one = made(party)
        asked = [asyncio.create_task(one.forward(bytes(16), b"")) for _ in range(MAX_RELAYED + 2)]
        await party.full.wait()
        with pytest.raises(TransportError) as caught:
            await one.forward(bytes(16), b"")
        assert caught.value.code == "busy"
        party.open.set()
        await asyncio.gather(*asked)

    asyncio.run(run())
