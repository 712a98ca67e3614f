"""The bytes between a device and its service, record by record: forged, lost, doubled, out of order, cut, repeated.

Somebody stands on the way from devices to their network's forwarder, or from there to the broker, where MQTT travels in
TLS and TLS in SOCKS5. Whatever he does: nothing counts that no device has published, nothing is lost that was
acknowledged, and when he stops all goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import socket
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from firstlight.access.device import service_session
from firstlight.access.device.datagram_dial import Association, associate
from firstlight.access.device.network_embedded import EmbeddedAttachment
from firstlight.access.device.service_session import ServiceAccess
from firstlight.access.ports import Proxy
from firstlight.custody.file import SigningKey
from firstlight.enrolment.issue import to_pem
from firstlight.errors import AccessError
from firstlight.onboarding.messages import X509Grant
from firstlight.plan.claims import PartyKind
from firstlight.roles.device.memory import Memory
from firstlight.testing.byhand import Hand, attach
from firstlight.testing.lab import Lab

SEED = 20_261_122
UP, DOWN = "up", "down"
LATE = 10**6
"""The number of no record."""
SOCKS_MESSAGES = 3
"""How many messages each side says before the forwarder carries bytes."""
RECORDS = 9
"""Up to which record of a direction is bent: SOCKS5, the handshake of TLS, and what MQTT says first."""
ACTS = ("forged", "lost", "doubled", "swapped", "cut", "sent back", "repeated")
DEVICES = 8
PUBLISHED = 3
PATIENCE, HONEST = 3.0, 60.0
CODES = {
    *("proxy-refused", "proxy-unreachable", "service-unreachable"),
    *("service-refused", "service-timeout", "service-lost", "service-malformed", "service-untrusted"),
}
"""How a session may end of it."""
HEADER = 5
"""Bytes of a TLS record's header; the last two are its length."""


@dataclass(slots=True)
class Wire:
    """Passes connections on to a port, and does one thing to one record of the first of them."""

    upstream: int
    act: str = "nothing"
    way: str = UP
    number: int = LATE
    socks: bool = True
    chance: random.Random = field(default_factory=lambda: random.Random(SEED))
    fired: int = 0
    connections: int = 0
    said: list[bytes] = field(default_factory=list)
    """All that went up on the first connection."""
    _seen: dict[str, list[bytes]] = field(default_factory=lambda: {UP: [], DOWN: []})
    _held: dict[str, bytes] = field(default_factory=dict)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[int]:
        """Stand in between; give the port."""
        tasks: set[asyncio.Task[None]] = set()

        async def came(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            await self.carry(reader, writer)

        server = await asyncio.start_server(came, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def carry(self, near: asyncio.StreamReader, near_end: asyncio.StreamWriter) -> None:
        """Pass one connection on."""
        self.connections += 1
        mine = self.connections == 1
        far, far_end = await asyncio.open_connection("127.0.0.1", self.upstream)
        ways = (
            asyncio.create_task(self._pass(UP, near, far_end, near_end, mine=mine)),
            asyncio.create_task(self._pass(DOWN, far, near_end, far_end, mine=mine)),
        )
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (near_end, far_end):
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    async def _pass(
        self,
        way: str,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
        *,
        mine: bool,
    ) -> None:
        with contextlib.suppress(OSError, EOFError):
            count = 0
            while record := await self._record(source, count):
                count += 1
                if not mine:
                    target.write(record)
                elif not self._bent(way, count, record, target, back):
                    await target.drain()
                    return
                await target.drain()

    async def _record(self, source: asyncio.StreamReader, count: int) -> bytes:
        if self.socks and count < SOCKS_MESSAGES:
            return await source.read(1_024)
        header = await source.readexactly(HEADER)
        return header + await source.readexactly(int.from_bytes(header[3:]))

    def _bent(
        self, way: str, count: int, record: bytes, target: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> bool:
        """Write what becomes of a record; return whether the connection goes on."""
        seen = self._seen[way]
        seen.append(record)
        if way == UP:
            self.said.append(record)
        if way != self.way or count != self.number:
            target.write(record + self._held.pop(way, b""))
            return True
        self.fired += 1
        match self.act:
            case "forged":
                changed = bytearray(record)
                changed[self.chance.randrange(len(record))] ^= 1 << self.chance.randrange(8)
                target.write(bytes(changed))
            case "lost":
                pass
            case "doubled":
                target.write(record + record)
            case "swapped":
                self._held[way] = record
            case "cut":
                target.write(record[: len(record) // 2])
                return False
            case "sent back":
                back.write(record)
            case "repeated":
                target.write(record + seen[self.chance.randrange(len(seen))])
        return True


@dataclass(slots=True)
class Client:
    """A device by hand with all it needs, and what it has tried to publish: each message is known by its size."""

    lab: Lab
    attachment: EmbeddedAttachment
    access: ServiceAccess
    size: int = 1
    tried: set[int] = field(default_factory=set)
    acknowledged: set[int] = field(default_factory=set)

    @classmethod
    def make(cls, lab: Lab, place: Path) -> Client:
        """Get a subscription and a certificate, and attach."""
        hand = Hand(lab, lab.device())
        attachment = attach(hand.sim(hand.onboard("mno")))
        path = place / f"{secrets.token_hex(8)}.pem"
        hand.key = SigningKey.create(path)
        granted = hand.onboard("sp").grant
        body = granted.body
        assert isinstance(body, X509Grant)
        certificate = path.with_suffix(".crt")
        certificate.write_bytes(b"".join(map(to_pem, body.chain)))
        port, name = int(body.broker.rpartition(":")[2]), body.topic.split("/")[1]
        access = ServiceAccess(certificate, path, body.anchors, body.server, "127.0.0.1", port, name, body.topic)
        return cls(lab, attachment, replace(access, proxy=attachment.proxy))

    @property
    def proxy(self) -> Proxy:
        """The forwarder."""
        assert self.access.proxy is not None
        return self.access.proxy

    async def publish(self, patience: float, *, through: int | None = None) -> str:
        """Connect and publish some messages; return how that ended, empty if well."""
        proxy = self.proxy if through is None else replace(self.proxy, port=through)
        try:
            session = await service_session.connect(replace(self.access, proxy=proxy), patience=patience)
        except AccessError as error:
            return error.code
        try:
            for _ in range(PUBLISHED):
                self.size += 1
                self.tried.add(self.size)
                await session.publish(secrets.token_bytes(self.size), patience=patience)
                self.acknowledged.add(self.size)
        except AccessError as error:
            return error.code
        finally:
            await session.close()
        return ""

    def kept(self) -> Counter[int]:
        """Return the sizes of the messages that the service has read of this device, each as often as it is there."""
        rows = self.lab.query("sp", "SELECT size, topic FROM message WHERE name = ?", self.access.name)
        assert {topic for _, topic in rows} <= {self.access.topic}
        return Counter(size for size, _ in rows)


def attempts(chance: random.Random, *, full: bool) -> list[tuple[str, str, int]]:
    """Return what to try: each act in each direction at some record, a forged bit at every one; or everything."""
    every = [(act, way, number) for act in ACTS for way in (UP, DOWN) for number in range(1, RECORDS + 1)]
    some = [(act, way, chance.randrange(1, RECORDS + 1)) for act in ACTS for way in (UP, DOWN) for _ in range(2)]
    chosen = every if full else [one for one in every if one[0] == "forged"] + some
    chance.shuffle(chosen)
    return chosen


def test_what_happens_to_records_loses_and_adds_no_message(lab: Lab, tmp_path: Path, full: bool) -> None:
    """Somebody before the forwarder bends SOCKS5 and TLS: no session, or one in which every message is as it was."""
    clients = [Client.make(lab, tmp_path) for _ in range(DEVICES)]
    chance, came, fired = random.Random(SEED), Counter[str](), Counter[str]()
    left = attempts(chance, full=full)

    async def endure(client: Client, tried: Sequence[tuple[str, str, int]]) -> None:
        honest = Wire(client.proxy.port)
        async with honest.open() as port:
            assert await client.publish(HONEST, through=port) == ""
        for act, way, number in tried:
            wire = Wire(client.proxy.port, act, way, number, chance=chance)
            async with wire.open() as port:
                came[await client.publish(PATIENCE, through=port)] += 1
            fired[act] += wire.fired
        assert await client.publish(HONEST) == "", "he has stopped"

    async def all_of_them() -> None:
        await asyncio.gather(*(endure(one, left[at::DEVICES]) for at, one in enumerate(clients)))

    asyncio.run(all_of_them())
    assert set(fired) == set(ACTS)
    assert all(fired[act] for act in ACTS), fired
    assert fired.total() >= len(left) // 2
    assert set(came) - {""} <= CODES, came
    assert sum(came.values()) - came[""] >= len(ACTS)
    for client in clients:
        kept = client.kept()
        assert client.acknowledged <= set(kept), "what was acknowledged is there"
        assert set(kept) <= client.tried, "nothing is there that the device did not publish"
        assert max(kept.values()) == 1, "and nothing twice"
        assert len(client.acknowledged) >= 2 * PUBLISHED


def test_an_earlier_connection_sent_again_brings_nothing(lab: Lab, tmp_path: Path) -> None:
    """Somebody has written down a whole connection, and says it again: to the forwarder, and to the broker itself."""
    client = Client.make(lab, tmp_path)

    async def recorded() -> Wire:
        wire = Wire(client.proxy.port)
        async with wire.open() as port:
            assert await client.publish(HONEST, through=port) == ""
        return wire

    said = asyncio.run(recorded()).said
    assert len(said) > SOCKS_MESSAGES + PUBLISHED
    with lab.unchanged(lab.places.sp):
        assert asyncio.run(_say(client.proxy.port, said))[:4] == b"\x05\x02\x01\x00", "who reads a password has it"
        answer = asyncio.run(_say(client.access.port, said[SOCKS_MESSAGES:]))
        assert answer[:1] == b"\x16", "a handshake of its own, which nobody can finish"
    before = client.kept()
    with lab.heard("mno", "session-ended"):
        asyncio.run(client.attachment.close())
    with lab.unchanged(lab.places.sp), lab.heard("mno", "forwarder-no-session") as codes:
        assert asyncio.run(_say(client.proxy.port, said)) == b"\x05\x02\x01\x01"
    assert codes == ["forwarder-no-session"]
    assert client.kept() == before


async def _say(port: int, pieces: Sequence[bytes]) -> bytes:
    """Say what was recorded, piece by piece, and return what is answered until the other side hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answered = bytearray()
    try:
        async with asyncio.timeout(HONEST):
            with contextlib.suppress(OSError):
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.2):
                            answered += await reader.read(65_536)
                answered += await reader.read()
    finally:
        writer.close()
    return bytes(answered)


def test_a_device_comes_through_whatever_happens_behind_the_forwarder(lab: Lab) -> None:
    """Somebody between forwarder and broker spoils connections, until the device gets another certificate."""
    device = lab.device()
    lab.connects(device)
    before = lab.query("sp", "SELECT count(*) FROM message")[0][0]
    memory = Memory.open(device)
    acted = memory.sight.acted
    assert acted is not None
    (claim,) = acted.plan().services
    (stored,) = memory.grants.of(claim.party, PartyKind.SERVICE, acted.origin)
    body = stored.grant.body
    assert isinstance(body, X509Grant)
    broker = int(body.broker.rpartition(":")[2])
    bends = iter([("forged", DOWN, 3), ("cut", UP, 1)])
    wires: list[Wire] = []

    async def journey() -> None:
        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            act, way, number = next(bends, ("nothing", UP, LATE))
            wire = Wire(broker, act, way, number, socks=False)
            wires.append(wire)
            await wire.carry(reader, writer)

        server = await asyncio.start_server(carry, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        bent = replace(body, broker=f"mqtts://127.0.0.1:{port}")
        memory.grants.save(replace(stored, data=replace(stored.grant, body=bent).encode()))
        memory.close()
        try:
            outcome = await asyncio.to_thread(lab.switch_on, device)
            assert outcome.code == 0, outcome.lines[-5:]
        finally:
            server.close()

    asyncio.run(journey())
    assert [wire.fired for wire in wires[:2]] == [1, 1]
    assert lab.query("sp", "SELECT count(*) FROM message")[0][0] > before


def test_datagrams_pass_for_a_live_session_and_to_where_the_operator_allows(lab: Lab, tmp_path: Path) -> None:
    """Somebody without a session, with a dead one, or beside a device that has one, wants datagrams carried."""
    client = Client.make(lab, tmp_path)

    async def heard(association: Association, seconds: float) -> bytes:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await loop.sock_recv(association.datagrams, 2_048)
        return b""

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far, socket.socket(type=socket.SOCK_DGRAM) as beside:
            far.bind(("127.0.0.1", 0))
            far.setblocking(False)
            association = await associate("127.0.0.1", far.getsockname()[1], client.proxy)
            await loop.sock_sendall(association.datagrams, association.wrap(b"hello"))
            async with asyncio.timeout(HONEST):
                data, relay = await loop.sock_recvfrom(far, 2_048)
                assert data == b"hello"
                await loop.sock_sendto(far, b"back", relay)
                assert association.unwrap(await loop.sock_recv(association.datagrams, 2_048)) == b"back"
            beside.sendto(association.wrap(b"not his"), association.datagrams.getpeername())
            beside.sendto(b"not from there", relay)
            elsewhere = b"\x00\x00\x00\x01\x7f\x00\x00\x02" + far.getsockname()[1].to_bytes(2)
            await loop.sock_sendall(association.datagrams, elsewhere + b"to where he may not")
            await loop.sock_sendall(association.datagrams, association.wrap(b"again"))
            async with asyncio.timeout(HONEST):
                assert await loop.sock_recv(far, 2_048) == b"again", "and nothing before it"
            assert await heard(association, 0.2) == b""
            for proxy in (
                replace(client.proxy, username="00" * 16),
                replace(client.proxy, password="00" * 32),
                replace(client.proxy, username="", password=""),
            ):
                with pytest.raises(AccessError) as refused:
                    await associate("127.0.0.1", far.getsockname()[1], proxy)
                assert refused.value.code == "proxy-refused"
            await client.attachment.close()
            async with asyncio.timeout(HONEST):
                await association.ended()
            with pytest.raises(AccessError, match="proxy-refused"):
                await associate("127.0.0.1", far.getsockname()[1], client.proxy)

    asyncio.run(scene())
