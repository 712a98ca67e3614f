"""Floods: of a device's mailbox by somebody who once held it, and of message 1 by many at once."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import time
from collections import Counter
from urllib.parse import urlsplit

import pytest

from firstlight.cli.demo.commands import run
from firstlight.discovery.machine import MAX_ENVELOPES
from firstlight.ledger.records import Role
from firstlight.ledger.transaction import Freeze
from firstlight.onboarding import wire
from firstlight.onboarding.device import Granted
from firstlight.roles.gateway import server
from firstlight.roles.party import place
from firstlight.roles.wire import MailAnswer, MailRequest, TransactionAnswer
from firstlight.sealing.deposit import DepositEntry, DepositTarget, sign_deposits
from firstlight.sealing.envelope import SEALED_SIZE
from firstlight.testing.byhand import Hand, say
from firstlight.testing.handheld import Handheld, ask
from firstlight.testing.lab import Lab
from firstlight.testing.strangers import Market
from firstlight.transports.endpoint import read_endpoint
from firstlight.trees.ownership import Selection

PATIENCE = 40.0
RATE = 40
"""How many exchanges may be begun a second, by all together."""
BURST = max(place.BURST_SECONDS, server.BURST_SECONDS)
"""Seconds' worth of that which may be begun at once."""


# --- mailboxes ----------------------------------------------------------------------------------


def flood(lab: Lab, device: Handheld, market: Market) -> int:
    """Fill a device's mailbox from as many tenures as that takes; return how many envelopes lie there then.

    Whoever held the manifest knows the locator; each tenure of his own, of whatever batch, has a slot under it.
    """
    count = MAX_ENVELOPES + 1
    lot = market.lot(market.join(Role.MANUFACTURER), 2 * count, model=b"flood-of-mail")
    mine = [1]
    for index in range(count):
        body = Freeze(lot.batch, 1, Selection.of([index]))
        mine.append(TransactionAnswer.decode(market.do(body, lot.keys[1]).body).tenure)
    for number, tenure in enumerate(mine):
        entry = DepositEntry(device.locator, bytes([number]) * SEALED_SIZE)
        target = DepositTarget(market.chain, lab.addresses.gateway, lot.batch, tenure, 1)
        (deposit,) = sign_deposits(target, [entry], lot.keys[1])
        said = ask(f"{lab.addresses.gateway}/v1/deposits", deposit)
        assert said.status == 200, said.fields()
    return len(lab.query("gateway", "SELECT id FROM envelope WHERE locator = ?", device.locator))


def test_a_mailbox_that_a_former_owner_has_filled_is_found_all_the_same(lab: Lab) -> None:
    """A former owner fills a device's mailbox before its new owner leaves his plan there, to keep it from him for good.

    The device learns from the ledger whose it is, and asks for that owner's envelopes alone.
    """
    lab.connects(lab.device())
    bought = lab.device()
    device, market = Handheld.open(bought), Market(lab.addresses.node, lab.places.consortium)
    assert flood(lab, device, market) > MAX_ENVELOPES
    held = ("--batch", lab.holding.batch, "--tenure", lab.holding.tenure)
    chosen = []
    for kind, role in (("network", "mno"), ("service", "sp")):
        party = lab.parties[role]
        number = run("owner", "order", lab.places.owner, *held, "--party", party, "--devices", 1).text("order")
        run(role, "approve", lab.state(role), number)
        chosen += [f"--{kind}", f"{party}:{number}"]
    run("owner", "deploy", lab.places.owner, *held, *chosen, "--select", int(bought.name))
    answer = ask(f"{lab.addresses.gateway}/v1/mail", MailRequest((device.locator,)).encode())
    newest = lab.query("gateway", "SELECT sealed FROM envelope WHERE locator = ? ORDER BY id DESC", device.locator)
    envelopes = MailAnswer.decode(answer.body).envelopes
    assert len(envelopes) == MAX_ENVELOPES
    assert newest[0][0] not in envelopes
    lab.connects(bought)


# --- message 1 ----------------------------------------------------------------------------------


class Flood:
    """Sends message 1 from many addresses at once until it is told to stop."""

    def __init__(self, url: str, path: str, body: bytes, sources: int) -> None:
        """Flood ``path`` at ``url`` from so many addresses of the loopback network."""
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 0
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {wire.MEDIA_TYPE_REQUEST}\r\n"
        self.request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
        self.sources = [f"127.0.{1 + number // 200}.{1 + number % 200}" for number in range(sources)]
        self.statuses: Counter[int] = Counter()
        self.pauses: set[str] = set()

    async def pour(self, source: str) -> None:
        """Keep one connection busy from one address."""
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection(self.host, self.port, local_addr=(source, 0))
                try:
                    while True:
                        writer.write(self.request)
                        head = (await reader.readuntil(b"\r\n\r\n")).lower()
                        await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
                        self.statuses[int(head.split(b" ", 2)[1])] += 1
                        if b"retry-after:" in head:
                            self.pauses.add(head.partition(b"retry-after:")[2].split(b"\r\n")[0].strip().decode())
                finally:
                    writer.close()

    async def reach(self, status: int, count: int) -> None:
        """Wait until so many were answered so."""
        async with asyncio.timeout(PATIENCE):
            while self.statuses[status] < count:  # noqa: ASYNC110 - waits for the fact itself
                await asyncio.sleep(0.02)


def begun(url: str, path: str, body: bytes) -> bytes:
    """Begin an exchange as a device does, which waits and asks again when it is told to."""
    parts, end = urlsplit(url), time.monotonic() + PATIENCE
    while True:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)
        try:
            connection.request("POST", path, body, {"content-type": wire.MEDIA_TYPE_REQUEST})
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        if response.status == 200:
            return data
        assert response.status in {429, 503}, response.status
        assert json.loads(data)["code"] in {"rate-limited", "busy"} if data[:1] == b"{" else data
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("through", ["party", "gateway"])
def test_many_sources_flood_message_1_together(lab: Lab, through: str) -> None:
    """A hundred addresses send message 1 as fast as they can: to a party, and through a gateway.

    None of them is authenticated. What they cost is bounded in all, a device gets in between them, and an exchange that
    was begun is finished at once.
    """
    device, victim = Hand(lab, lab.device()), Hand(lab, lab.device())
    role = "mno" if through == "party" else "gateway"
    with lab.twin(role, begins_per_source=4, begins_per_second=RATE) as twin:
        began = time.monotonic()
        url = read_endpoint(twin).url
        path = wire.PATH if through == "party" else f"/relay/{lab.parties['mno']}{wire.PATH}"
        message_1 = device.begin("mno").request_1

        def onboard() -> object:
            start = victim.begin("mno")
            sent = victim.read(start, "mno", begun(url, path, start.request_1))
            answer = ask(url + path, sent.request_2, content_type=wire.MEDIA_TYPE_REQUEST)
            assert answer.status == 200, answer.fields()
            return sent.read(answer.body)

        async def scene() -> Flood:
            pouring = Flood(url, path, message_1, 100)
            tasks = [asyncio.create_task(pouring.pour(source)) for source in pouring.sources]
            try:
                await pouring.reach(429, 400)
                event = await asyncio.to_thread(onboard)
                assert isinstance(event, Granted), event
                await pouring.reach(429, 800)
            finally:
                for one in tasks:
                    one.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            return pouring

        first = onboard()
        assert isinstance(first, Granted), first
        victim.stored["mno"] = first.grant.id
        pouring = asyncio.run(scene())
        assert set(pouring.statuses) <= {200, 429, 503}
        assert pouring.statuses[200] <= BURST * RATE + RATE * (time.monotonic() - began + 1)
        assert pouring.pauses
        assert "rate-limited" in (twin / "log.jsonl").read_text() or through == "gateway"
        assert len((twin / "log.jsonl").read_bytes().splitlines()) < 4_000
    assert say(lab.url("mno"), device.begin("mno").request_1)
