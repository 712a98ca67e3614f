"""An MNO and an SP as they really serve, on loopback sockets, beside a ledger in memory that a fake node answers for.

Also two devices that do by hand what a device does, step by step, so that a test can stop anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from firstlight import p256
from firstlight.access.device.network_embedded import EmbeddedAttachment, EmbeddedNetworkAccess
from firstlight.access.device.service_session import ServiceAccess, Session, connect
from firstlight.access.ports import Proxy
from firstlight.attestation.evidence import Debug, Evidence, Measurement, ReferenceName, sign_evidence
from firstlight.attestation.reference import ReferenceSet, body_digest, sign_reference
from firstlight.custody.file import SigningKey
from firstlight.custody.system import SystemClock, SystemRandom
from firstlight.discovery.bundle import BundleRequest
from firstlight.engines.port import Genesis
from firstlight.enrolment.issue import to_pem
from firstlight.enrolment.request import build_request
from firstlight.identity.birth import Leaf
from firstlight.ledger.records import (
    Batch,
    Party,
    PartyStatus,
    Reference,
    ReferenceStatus,
    Role,
    batch_name,
    party_name,
    reference_name,
    tenure_name,
)
from firstlight.onboarding import device, wire
from firstlight.onboarding.device import Acting, BackOff, Granted, Identity, Rediscover, Refused, Sent
from firstlight.onboarding.edhoc.keys import Ephemeral
from firstlight.onboarding.messages import SimGrant, X509Grant
from firstlight.plan.claims import PartyClaim, PartyKind, Plan, new_claim, new_plan
from firstlight.plan.order import Order, sign_order
from firstlight.roles.party import mno, sp
from firstlight.roles.party.orders import approve
from firstlight.roles.registration import PartyKeys
from firstlight.roles.wire import HeaderAnswer
from firstlight.settings import MnoSettings, SpSettings
from firstlight.sim.subscription import Credentials, SoftSim
from firstlight.sim.subscription import SimGrant as Subscribed
from firstlight.stores.pending_orders import PendingOrders
from firstlight.testing.access_network import MemorySim
from firstlight.testing.bundles import BATCH, ISSUER, Ledger, origin
from firstlight.testing.chains import GENESIS, SECOND, P256Key
from firstlight.testing.onboarding import StaticKey
from firstlight.testing.random import SeededRandom
from firstlight.transports.client import CBOR, HttpClient
from firstlight.transports.http import listening
from firstlight.trees import rfc6962

MODEL = b"model-1"
SIZE = 4
OWNER = 2
"""The owner's tenure."""
REFERENCE = hashlib.sha256(b"reference").digest()[:16]
DAY = 86_400


@dataclass(slots=True)
class FakeNode:
    """Answers for a ledger in memory, and for a gateway's bodies; ``asked`` counts requests for bundles."""

    ledger: Ledger
    bodies: dict[str, bytes] = field(default_factory=dict)
    asked: int = 0
    down: bool = False
    time: int | None = None
    """What the witnesses' clocks say (Unix seconds); None: the truth."""

    def answer(self, data: bytes) -> bytes:
        """Return the bundle, or the state proof, that a request asks for."""
        self.asked += 1
        request = BundleRequest.decode(data)
        if request.height:
            return self.ledger.state(request).encode()
        now = SystemClock().now() // SECOND if self.time is None else self.time
        return self.ledger.answer(request, time=now).encode()

    def header(self, height: int) -> HeaderAnswer | None:
        """Return the newest header, if that is the one of ``height``."""
        block, validators = self.ledger.block(), self.ledger.consortium.validator_set
        answer = HeaderAnswer(block.header, block.commit, validators, validators)
        return answer if height == block.header.height else None

    def app(self) -> Starlette:
        """Return the server."""

        async def bundles(request: Request) -> Response:
            if self.down:
                return Response(status_code=503)
            return Response(self.answer(await request.body()), media_type=CBOR)

        async def headers(request: Request) -> Response:
            answer = self.header(request.path_params["height"])
            return Response(status_code=404) if answer is None else Response(answer.encode(), media_type=CBOR)

        async def blobs(request: Request) -> Response:
            body = self.bodies.get(request.path_params["digest"])
            return Response(status_code=404) if body is None else Response(body, media_type=CBOR)

        return Starlette(
            routes=[
                Route("/v1/bundles", bundles, methods=["POST"]),
                Route("/v1/headers/{height:int}", headers),
                Route("/v1/blobs/{digest}", blobs),
            ]
        )


@dataclass(frozen=True, slots=True)
class Server:
    """A running party: who it is, where it serves, its directory and what runs it."""

    keys: PartyKeys
    url: str
    directory: Path
    task: asyncio.Task[None]

    async def stop(self) -> None:
        """End it as a signal would."""
        self.task.cancel()
        await asyncio.wait([self.task])


@dataclass(slots=True)
class FakeDevice:
    """A device that has discovered already. What it measures, and with which key it attests, can be bent."""

    world: PartyWorld
    index: int
    static: StaticKey
    attestation: P256Key
    measured: Measurement
    stored: dict[bytes, bytes] = field(default_factory=dict)
    """The newest grant by party."""

    @property
    def identity(self) -> Identity:
        """Its place in the batch."""
        world = self.world
        return Identity(BATCH, self.index, world.leaves[self.index], world.tree.path(self.index), self.static)

    def acting(self, server: Server, **changes: Any) -> Acting:
        """Return what an honest device acts on."""
        party = server.keys.party
        agreement = server.keys.agreement
        assert agreement is not None
        claim = self.world.claims[party]
        acting = Acting(
            chain=self.world.ledger.consortium.chain,
            party=party,
            agreement_key=agreement.public,
            party_revision=1,
            height=self.world.ledger.at,
            tenure=OWNER,
            plan_revision=1,
            plan=self.world.plan.opening(claim),
            stored_grant=self.stored.get(party),
        )
        return replace(acting, **changes)

    def evidence(self, nonce: bytes) -> bytes:
        """Attest."""
        evidence = Evidence(
            nonce=nonce,
            pseudonym=bytes(16),
            oemid=ISSUER,
            model=MODEL,
            hardware_version="1",
            secure_boot=True,
            debug=Debug.DISABLED,
            boot_count=1,
            boot_seed=bytes(16),
            software_version="1",
            measurements=(self.measured,),
            reference=ReferenceName(ISSUER, REFERENCE),
        )
        return sign_evidence(evidence, self.attestation)

    async def open(
        self, server: Server, http: HttpClient, *, request: bytes = b"", **changes: Any
    ) -> Sent | Rediscover | BackOff:
        """Go as far as message 3, which is made and not sent."""
        ephemeral = Ephemeral.draw(SystemRandom())
        begun = device.begin(self.identity, self.acting(server, **changes), ephemeral=ephemeral)
        answer = await self.post(server, http, begun.request_1)
        return begun.read(answer, evidence=self.evidence, request=request)

    async def post(self, server: Server, http: HttpClient, data: bytes) -> bytes:
        """Send one request of an exchange."""
        return await http.post(server.url + wire.PATH, data, content_type=wire.MEDIA_TYPE_REQUEST)

    async def onboard(
        self, server: Server, http: HttpClient, *, request: bytes = b"", **changes: Any
    ) -> Granted | Refused | BackOff | Rediscover:
        """Run one whole exchange."""
        sent = await self.open(server, http, request=request, **changes)
        if not isinstance(sent, Sent):
            return sent
        event = sent.read(await self.post(server, http, sent.request_2))
        if isinstance(event, Granted):
            self.stored[server.keys.party] = event.grant.id
        return event

    async def attach(self, server: Server, granted: Granted) -> EmbeddedAttachment:
        """Attach with a subscription."""
        body = granted.grant.body
        assert isinstance(body, SimGrant)
        k, opc = granted.subscription_keys(self.world.ledger.consortium.chain, server.keys.party)
        imsi = body.supi.removeprefix("imsi-")
        grant = Subscribed(imsi, body.home, body.network, body.endpoint)
        sim = MemorySim(SoftSim.from_grant(grant, Credentials(imsi, k, opc)))
        return await EmbeddedNetworkAccess(SystemRandom()).attach(sim)

    async def connect(self, granted: Granted, key: Path, proxy: Proxy | None) -> Session:
        """Connect to the service with a certificate for the key in the file ``key``."""
        body = granted.grant.body
        assert isinstance(body, X509Grant)
        certificate = key.with_suffix(".crt")
        certificate.write_bytes(b"".join(to_pem(one) for one in body.chain))
        host, _, port = body.broker.rpartition("/")[2].rpartition(":")
        access = ServiceAccess(
            certificate=certificate,
            key=key,
            anchors=body.anchors,
            server_name=body.server,
            host=host,
            port=int(port),
            name=body.topic.split("/")[1],
            topic=body.topic,
            proxy=proxy,
        )
        return await connect(access)


@dataclass(slots=True)
class PartyWorld:
    """One batch of four devices whose owner chose this MNO and this SP."""

    root: Path
    ledger: Ledger
    node: FakeNode
    url: str
    random: SeededRandom
    devices: list[FakeDevice] = field(default_factory=list)
    leaves: list[Leaf] = field(default_factory=list)
    tree: rfc6962.Tree = field(init=False)
    plan: Plan = field(init=False)
    claims: dict[bytes, PartyClaim] = field(default_factory=dict)
    orders: dict[bytes, Order] = field(default_factory=dict)
    servers: list[Server] = field(default_factory=list)

    def make_devices(self) -> None:
        """Make the batch and put it on the ledger."""
        good = Measurement("firstlight", hashlib.sha256(b"software").digest(), 1)
        for index in range(SIZE):
            static, attestation = StaticKey.draw(self.random), P256Key(f"attestation {index}")
            xy = p256.coordinates(static.public), p256.coordinates(attestation.public)
            self.leaves.append(Leaf(self.random.bytes(16), *xy, MODEL))
            self.devices.append(FakeDevice(self, index, static, attestation, good))
        self.tree = rfc6962.Tree([leaf.hash() for leaf in self.leaves])
        root = self.ledger.trie.root
        batch = Batch(ISSUER, SIZE, MODEL, self.tree.root, root, (), (ISSUER,), 1000, 2)
        self.ledger.records[batch_name(BATCH)] = batch
        today = SystemClock().now() // SECOND
        self.publish(ReferenceSet(REFERENCE, MODEL, (good,), today - 10 * 365 * DAY, today + 365 * DAY))

    def publish(self, values: ReferenceSet) -> None:
        """Publish a reference-value set, and put its body where it is fetched from."""
        body = sign_reference(values, P256Key("issuer"))
        name = reference_name(ISSUER, MODEL, values.identifier)
        self.ledger.records[name] = Reference(
            body_digest(body), 1, values.not_before, values.not_after, ReferenceStatus.LIVE
        )
        self.node.bodies[body_digest(body).hex()] = body

    def register(self, keys: PartyKeys, role: Role) -> None:
        """Put a party on the ledger."""
        assert keys.agreement is not None
        following = hashlib.sha256(keys.following.public).digest()
        record = Party(1, 1, (role,), keys.signing.public, following, keys.agreement.public, (), PartyStatus.ACTIVE)
        self.ledger.records[party_name(keys.party)] = record

    def choose(self, parties: Sequence[tuple[PartyKeys, PartyKind]], devices: int) -> None:
        """Let the owner choose these parties: a plan, and an order for each."""
        until = SystemClock().now() // SECOND + DAY
        for keys, kind in parties:
            claim = new_claim(kind, keys.party, self.random.bytes(16), self.random)
            self.claims[keys.party] = claim
            chain = self.ledger.consortium.chain
            self.orders[keys.party] = Order(claim.order, chain, keys.party, BATCH, OWNER, devices, until)
        self.plan = new_plan(P256Key("receipts").public, list(self.claims.values()), self.random)
        tenure = origin(OWNER, SIZE, previous=1, plan=self.plan.root)
        self.ledger.records[tenure_name(BATCH, OWNER)] = tenure

    def order(self, server: Server) -> bytes:
        """Return the owner's signed order for a party."""
        return sign_order(self.orders[server.keys.party], P256Key(f"tenure {OWNER}"))

    async def start(
        self,
        kind: type[MnoSettings] | type[SpSettings],
        directory: Path,
        keys: PartyKeys,
        *,
        workers: int | None = None,
    ) -> Server:
        """Start a party's server."""
        loop = asyncio.get_running_loop()
        listens: asyncio.Future[str] = loop.create_future()
        run = mno.serve if kind is MnoSettings else sp.serve
        task = asyncio.create_task(run(directory, ready=listens.set_result, quiet=True, workers=workers))
        task.add_done_callback(lambda _: listens.cancel())
        with contextlib.suppress(asyncio.CancelledError):
            await listens
        if listens.cancelled():
            await task
        server = Server(keys, await listens, directory, task)
        self.servers.append(server)
        return server


def genesis_of(ledger: Ledger) -> Genesis:
    """Return what the chain of a ledger in memory begins with."""
    own = ledger.consortium
    return Genesis(own.chain, GENESIS * SECOND, own.signed_root(), own.signed_epoch(), own.validator_set)


@contextlib.asynccontextmanager
async def party_world(
    root: Path, *, devices: int = SIZE, broker: str = "embedded"
) -> AsyncIterator[tuple[PartyWorld, Server, Server]]:
    """Run an MNO and an SP, whose ``broker`` is that one, with approved orders for so many ``devices``."""
    ledger = Ledger(size=SIZE, begun=SystemClock().now() // SECOND - DAY)
    node = FakeNode(ledger)
    async with listening(node.app()) as url:
        world = PartyWorld(root, ledger, node, url, SeededRandom("parties"))
        world.make_devices()
        genesis = root / "genesis.cbor"
        genesis.write_bytes(genesis_of(ledger).encode())
        chain = ledger.consortium.chain
        network = mno.init(MnoSettings(chain=chain, node=url, gateway=url), root / "mno", genesis)
        service = sp.init(SpSettings(chain=chain, node=url, gateway=url, broker=broker), root / "sp", genesis)
        world.register(network.keys, Role.MNO)
        world.register(service.keys, Role.SP)
        world.choose([(network.keys, PartyKind.NETWORK), (service.keys, PartyKind.SERVICE)], devices)
        try:
            first = await world.start(MnoSettings, root / "mno", network.keys)
            second = await world.start(SpSettings, root / "sp", service.keys)
            async with HttpClient() as http:
                for server in (first, second):
                    await http.post(f"{server.url}/v1/orders", world.order(server))
            let_count(world, first, network.database)
            let_count(world, second, service.database)
            yield world, first, second
        finally:
            for server in world.servers:
                await server.stop()


def let_count(world: PartyWorld, server: Server, database: Path) -> None:
    """Approve the order of a party."""
    exchanges = (mno if database.name.startswith("mno") else sp).open_exchanges(database)
    pending = PendingOrders.open(database)
    with contextlib.closing(exchanges), contextlib.closing(pending):
        approve(world.orders[server.keys.party].number, pending, exchanges)


def new_key(path: Path) -> tuple[Path, bytes]:
    """Make an operational key in a file; return the file, and the request for a certificate."""
    return path, build_request(SigningKey.create(path))
