"""A service provider with its authority and its broker, and devices with certificates, all in one process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from firstlight import p256
from firstlight.access.device.service_session import ServiceAccess, Session, connect
from firstlight.access.ports import Proxy
from firstlight.access.serving.service_broker import EmbeddedBroker
from firstlight.access.serving.service_port import BrokerIdentity, Kept, Published, ServiceBroker
from firstlight.enrolment.issue import (
    Issued,
    Revocation,
    create_authority,
    issue_client,
    issue_crl,
    issue_server,
    to_pem,
)
from firstlight.logs import Log
from firstlight.testing.access_network import LONG

HOST = "broker.sp.example"
DAY = 86_400


class SystemRandom:
    def bytes(self, count: int) -> bytes:
        return os.urandom(count)


class SystemClock:
    def now(self) -> int:
        return time.time_ns()


@dataclass(frozen=True)
class Key:
    private: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def public(self) -> bytes:
        return p256.compress(self.private.public_key())

    def sign(self, message: bytes) -> bytes:
        return p256.sign(self.private, message)

    def pem(self) -> bytes:
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True)
class Device:
    issued: Issued
    certificate: Path
    key: Path


class Lines:
    """A log sink that a test can wait on."""

    def __init__(self) -> None:
        self.lines: list[dict[str, object]] = []
        self._changed = asyncio.Event()

    def write(self, line: str, /) -> None:
        self.lines.append(json.loads(line))
        self._changed.set()

    def codes(self) -> list[object]:
        return [line["code"] for line in self.lines]

    async def wait(self, code: str) -> dict[str, object]:
        async with asyncio.timeout(LONG):
            while code not in self.codes():
                self._changed.clear()
                await self._changed.wait()
        return next(line for line in self.lines if line["code"] == code)


class World:
    """One SP. ``published`` is what it read from its broker."""

    key = Key
    random = SystemRandom

    def __init__(self, directory: Path, *, port: int = 0) -> None:
        self.directory = directory
        self.now = int(time.time())
        self.authority = create_authority(Key(), title="SP", now=self.now, lifetime=365 * DAY, random=SystemRandom())
        self.log = Lines()
        self.published: list[Published] = []
        self.holding: list[Kept] | None = None
        """Where there is a list, what says that messages were kept goes there and is not called."""
        self._arrived = asyncio.Event()
        key = Key()
        server = issue_server(self.authority, key.public, host=HOST, now=self.now, lifetime=DAY, random=SystemRandom())
        self.server = self._store("server", server, key)
        self.identity = BrokerIdentity(self.server.certificate, self.server.key, self.authority.certificate)
        self._number = 0
        self.names: dict[int, str] = {}
        self.broker = self.make_broker(self.identity, port)
        self.broker.messages(self._take)

    def make_broker(self, identity: BrokerIdentity, port: int) -> ServiceBroker:
        log = Log("sp", SystemClock(), self.log)
        return EmbeddedBroker(identity, self.crl(), clock=SystemClock(), log=log, port=port)

    def _take(self, message: Published, kept: Kept) -> None:
        self.published.append(message)
        self._arrived.set()
        if self.holding is None:
            kept()
        else:
            self.holding.append(kept)

    async def read(self, count: int) -> list[Published]:
        async with asyncio.timeout(LONG):
            while len(self.published) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return self.published

    def _store(self, stem: str, issued: Issued, key: Key) -> Device:
        certificate, private = self.directory / f"{stem}.pem", self.directory / f"{stem}.key"
        certificate.write_bytes(to_pem(issued.certificate))
        private.write_bytes(key.pem())
        return Device(issued, certificate, private)

    def device(self, authority=None, *, now: int | None = None, lifetime: int = DAY) -> Device:
        key = Key()
        issued = issue_client(
            authority or self.authority,
            key.public,
            now=self.now if now is None else now,
            lifetime=lifetime,
            random=SystemRandom(),
        )
        self.names[issued.serial] = issued.name
        return self._store(issued.name, issued, key)

    def crl(self, *revoked: Device, lifetime: int = DAY) -> bytes:
        self._number += 1
        entries = [Revocation(one.issued.serial, self.now) for one in revoked]
        return issue_crl(self.authority, entries, number=self._number, now=self.now, lifetime=lifetime)

    def access(self, device: Device, *, proxy: Proxy | None = None, **changes: object) -> ServiceAccess:
        endpoint = self.broker.endpoint
        values: dict[str, object] = {
            "certificate": device.certificate,
            "key": device.key,
            "anchors": (self.authority.certificate,),
            "server_name": HOST,
            "host": endpoint.host,
            "port": endpoint.port,
            "name": device.issued.name,
            "topic": f"devices/{device.issued.name}/data",
            "proxy": proxy,
        }
        return ServiceAccess(**{**values, **changes})

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[World]:
        await self.broker.start()
        try:
            yield self
        finally:
            await self.broker.stop()

    async def connect(self, device: Device, **changes: Any) -> Session:
        return await connect(self.access(device, **changes), patience=LONG)

    async def honest(self) -> Device:
        """Pass the honest journey once: a device connects, publishes and is read."""
        device = self.device()
        session = await self.connect(device)
        await session.publish(b"honest")
        await session.close()
        message = (await self.read(1))[-1]
        assert (message.name, message.payload) == (device.issued.name, b"honest")
        self.published.clear()
        return device


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)
