"""A ledger on loopback: real servers of node, witnesses and gateway in one event loop, on ports that the system chose.

The clock is a fake one that all of them share, so that tests decide what time it is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from starlette.types import ASGIApp

from firstlight.custody.file import SigningKey
from firstlight.engines.embedded import EmbeddedEngine
from firstlight.engines.port import Committed
from firstlight.ledger.records import Role, party_id
from firstlight.ledger.transaction import Body, RegisterParty, build
from firstlight.logs import Log
from firstlight.ports import Signer
from firstlight.roles import consortium
from firstlight.roles.attesters import write_witnesses
from firstlight.roles.gateway import server as gateway_server
from firstlight.roles.gateway.server import Gateway
from firstlight.roles.node import Node, node_app, open_engine
from firstlight.roles.node import running as running_node
from firstlight.roles.witness import Witness, open_witness, witness_app
from firstlight.settings import ConsortiumSettings
from firstlight.testing.chains import P256Key
from firstlight.testing.clock import FakeClock
from firstlight.testing.ledgers import register_party
from firstlight.testing.random import SeededRandom
from firstlight.transports.client import HttpClient, Limits
from firstlight.transports.server import listening

CHAIN = "test-1"


@dataclass(slots=True)
class Lines:
    """A log that a test can read."""

    lines: list[str] = field(default_factory=list)

    def write(self, line: str, /) -> None:
        """Take one line."""
        self.lines.append(line)

    def has(self, code: str) -> bool:
        """Say whether a line with that code was written."""
        return any(f'"code":"{code}"' in line for line in self.lines)


@dataclass(slots=True)
class World:
    """Running servers, what stands behind them, and the keys of the consortium."""

    directory: Path
    clock: FakeClock
    made: consortium.Created
    engine: EmbeddedEngine
    node: Node
    node_url: str
    witnesses: list[Witness]
    witness_urls: list[str]
    gateway: Gateway
    gateway_url: str
    client: HttpClient
    log: Lines
    sequences: dict[bytes, int] = field(default_factory=dict)

    def member(self, number: int = 1) -> Signer:
        """Return the root key of a member."""
        return SigningKey.load(consortium.root_key(self.directory, number))

    def sign(self, body: Body, *signers: Signer, sequence: int | None = None) -> bytes:
        """Return a transaction; its sequence is the first signer's next one unless given."""
        number = self.sequences.get(signers[0].public, 0) + 1 if sequence is None else sequence
        return build(body, chain=CHAIN, sequence=number, signer=signers[0], cosigners=signers[1:])

    def do(self, body: Body, *signers: Signer, sequence: int | None = None) -> Committed:
        """Sign a transaction and commit it in the engine, not over HTTP."""
        done = self.engine.submit(self.sign(body, *signers, sequence=sequence))
        if sequence is None:
            self.sequences[signers[0].public] = self.sequences.get(signers[0].public, 0) + 1
        return done

    def register(self, key: P256Key, *roles: Role, body: RegisterParty | None = None) -> bytes:
        """Register a party and return its id."""
        self.do(body or register_party(key, roles=roles), key, self.member())
        return party_id(key.public)


class Servers:
    """Servers that start one after the other and end all at once; an asynchronous context manager."""

    def __init__(self) -> None:
        """Begin with none."""
        self._open: list[contextlib.AbstractAsyncContextManager[str]] = []

    async def start(self, app: ASGIApp, state_dir: Path | None = None) -> str:
        """Serve ``app`` and return its URL."""
        server = listening(app, state_dir)
        url = await server.__aenter__()
        self._open.append(server)
        return url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(server.__aexit__(None, None, None) for server in self._open))


@contextlib.asynccontextmanager
async def world(directory: Path, *, witnesses: int = 3, threshold: int = 2) -> AsyncIterator[World]:
    """Run a new chain's node, ``witnesses`` of which ``threshold`` must sign, and a gateway."""
    clock, lines = FakeClock(), Lines()
    settings = ConsortiumSettings(
        chain=CHAIN, members=3, root_threshold=2, witnesses=witnesses, witness_threshold=threshold
    )
    made = consortium.create(directory, settings, clock)
    log = Log("test", clock, lines)
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(HttpClient(Limits(seconds=5.0)))
        engine = stack.enter_context(open_engine(made.node, clock))
        node = await stack.enter_async_context(running_node(engine, made.node, log))
        servers = await stack.enter_async_context(Servers())
        node_url = await servers.start(node_app(node, log), made.node)
        attesting = [open_witness(place, node_url, client, log, clock) for place in made.witnesses]
        urls = [await servers.start(witness_app(one, log)) for one in attesting]
        write_witnesses(made.node, urls)
        place = directory / "gateway"
        gateway_settings = gateway_server.create(place, directory / consortium.GENESIS, node_url, urls, "north")
        gateway = await stack.enter_async_context(
            gateway_server.running(place, gateway_settings, log, clock=clock, random=SeededRandom("gateway"))
        )
        gateway_url = await servers.start(gateway_server.gateway_app(gateway, log), place)
        yield World(
            directory=directory,
            clock=clock,
            made=made,
            engine=engine,
            node=node,
            node_url=node_url,
            witnesses=attesting,
            witness_urls=urls,
            gateway=gateway,
            gateway_url=gateway_url,
            client=client,
            log=lines,
        )
