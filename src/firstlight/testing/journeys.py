"""Devices' whole journeys in memory: ledger, gateway, MNO and SP at the device's ports, without a socket.

The parties are the real ones (:class:`firstlight.onboarding.party.Party` with the grantors of the roles); the network
asks for the right K and OPc and a fresh SQN, the service for a certificate that it issued with the key that belongs to
it. Whatever is answered over HTTP can be bent or refused.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from firstlight.access.device.service_session import ServiceAccess, client_context
from firstlight.access.ports import Attachment, Naming, Proxy, SimStore, TlsCredentials
from firstlight.attestation.evidence import parse_evidence
from firstlight.custody.file import AgreementKey, SigningKey
from firstlight.discovery.bundle import BundleRequest
from firstlight.discovery.machine import Mail
from firstlight.encoding import encode
from firstlight.enrolment.issue import create_authority
from firstlight.errors import AccessError, TransportError
from firstlight.files import write_atomic
from firstlight.identity.birth import BirthCredential, Leaf
from firstlight.ledger.records import Batch, PartyStatus, Role, Tenure, batch_name, party_name, tenure_name
from firstlight.ledger.records import Party as PartyRecord
from firstlight.ledger.tenure import Tenures
from firstlight.logs import Log
from firstlight.onboarding import token, wire
from firstlight.onboarding.party import Party, Profile
from firstlight.onboarding.ports import Anchor, Appraisal, Facts, Grantor
from firstlight.p256 import coordinates
from firstlight.plan.claims import PartyKind, Plan, new_claim, new_plan
from firstlight.plan.order import Order
from firstlight.roles.device.memory import ATTESTATION, BIRTH, IDENTITY, Memory
from firstlight.roles.device.tools import Stage, Tools
from firstlight.roles.measure import measured
from firstlight.roles.party.mno import SUPI, SimGrantor
from firstlight.roles.party.sp import CertificateGrantor
from firstlight.roles.wire import MailRequest, ReceiptPut
from firstlight.sealing.envelope import EnvelopeContent, seal_envelope
from firstlight.sealing.locator import mailbox_locator, receipt_locator
from firstlight.sealing.receipt import Expected, Receipt, open_receipt
from firstlight.sim.subscription import SoftSim
from firstlight.sim.suci import HomeNetwork, Scheme
from firstlight.stores.exchanges import ExchangeStore, GrantState, StoredGrant
from firstlight.testing.bundles import BATCH, ISSUER, Ledger, origin
from firstlight.testing.chains import GENESIS, P256Key
from firstlight.testing.clock import FakeClock
from firstlight.testing.random import SeededRandom
from firstlight.transports.body import CBOR
from firstlight.trees import rfc6962
from firstlight.trees.ownership import Trie

MODEL = b"model-1"
SIZE = 4
OWNER = 2
GATEWAYS = ("http://gateway-1.example", "http://gateway-2.example")
HOME = HomeNetwork("001", "01", "0", Scheme.PROFILE_A, 1, bytes(range(32)))
AAA = "aaa.network.example"
SERVER = "broker.example"
LEASE = 3_600
IMPATIENT = 5.0
"""Seconds of waiting that pass at once; whoever waits longer waits until it is cancelled, or let go."""
RECEIPTS = P256Key("receipts")
PROXY = Proxy("forwarder.example", 1080, "session", "proof")
Bend = Callable[[str, bytes, bytes], bytes]
"""Given URL, request and honest answer, returns what the device gets, or raises :class:`TransportError`."""


@dataclass(slots=True)
class Facing:
    """The ledger as a party sees it: always the newest, always fresh."""

    ledger: Ledger
    party: bytes
    clock: FakeClock

    def height(self) -> int:
        """Return the newest height."""
        return self.ledger.at

    def facts(self, batch: bytes, index: int) -> Facts | None:
        """Return the facts as they stand."""
        records = self.ledger.records
        found, own = records[batch_name(batch)], records[party_name(self.party)]
        assert isinstance(found, Batch)
        assert isinstance(own, PartyRecord)
        now = self.clock.seconds
        return Facts(self.ledger.at, now, now, found, self.ledger.trie.owner(index), _Tenures(self.ledger), own)

    def facts_of(self, devices: Sequence[tuple[bytes, int]]) -> list[Facts | None]:
        """Return the facts as they stand, for each device."""
        return [self.facts(*device) for device in devices]


@dataclass(slots=True)
class _Tenures(Tenures):
    ledger: Ledger

    def get(self, number: int, /) -> Tenure | None:
        record = self.ledger.records.get(tenure_name(BATCH, number))
        assert record is None or isinstance(record, Tenure)
        return record


class SignedNonce:
    """An appraiser that takes evidence over this exchange by the device's attestation key, of this software."""

    def appraise(self, evidence: bytes, *, nonce: bytes, leaf: Leaf, facts: Facts, now: int) -> Appraisal:  # noqa: ARG002
        """Judge."""
        found, signed = parse_evidence(evidence)
        signed.verify({signed.signatures[0].kid: leaf.attestation_key})
        good = found.nonce == nonce and found.measurements == (measured(),) and found.oemid == facts.batch.issuer
        return Appraisal(None if good else "evidence-bad", b"")


@dataclass(slots=True)
class FakeParty:
    """A party of the world."""

    id: bytes
    kind: PartyKind
    party: Party
    store: ExchangeStore
    random: SeededRandom
    clock: FakeClock
    url: str
    answered: int = 0
    ring: token.KeyRing | None = None

    def answer(self, request: bytes) -> bytes:
        """Answer one leg of an exchange."""
        self.answered += 1
        self.clock.advance(0.001)
        return self.party.handle(request, ring=self._ring(), now_ns=self.clock.now()).data

    def _ring(self) -> token.KeyRing:
        now = self.clock.now()
        if self.ring is None or now - self.ring.current.made_ns > token.LIFETIME_NS // 2:
            self.ring = token.KeyRing(token.TokenKey(self.random.bytes(32), now))
        return self.ring

    def granted(self) -> tuple[StoredGrant, ...]:
        """Return all grants that were ever made."""
        return self.store.grants(*GrantState)


@dataclass(slots=True)
class FakeAttachment:
    """An attachment that is open until closed."""

    open: set[bytes]
    session: bytes
    proxy: Proxy | None = PROXY

    async def lost(self) -> None:
        """Never return."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Leave."""
        self.open.discard(self.session)


@dataclass(slots=True)
class FakeSession:
    """A session with the service; ``end`` ends it from the other side."""

    name: str
    published: list[bytes] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False

    def end(self) -> None:
        """Break the connection."""
        self.over.set()

    async def lost(self) -> None:
        """Wait for the end."""
        await self.over.wait()

    async def publish(self, payload: bytes) -> None:
        """Take a message."""
        if self.over.is_set():
            raise AccessError("service-lost", "the connection has ended")
        self.published.append(payload)

    async def close(self) -> None:
        """Note that the device said goodbye."""
        self.closed = True


class Lines(list[str]):
    """A log in memory."""

    def write(self, line: str, /) -> None:
        """Take a line."""
        self.append(line)


@dataclass(slots=True)
class JourneyWorld:
    """One batch of four devices whose owner chose a network and a service; ``directory(i)`` is device ``i``'s."""

    root: Path
    ledger: Ledger = field(default_factory=lambda: Ledger(size=SIZE))
    gateways: tuple[str, ...] = GATEWAYS
    clock: FakeClock = field(default_factory=lambda: FakeClock(GENESIS + 500))
    random: SeededRandom = field(default_factory=lambda: SeededRandom("journeys"))
    births: list[BirthCredential] = field(default_factory=list)
    mail: dict[bytes, list[bytes]] = field(default_factory=dict)
    receipts: dict[bytes, list[bytes]] = field(default_factory=dict)
    parties: dict[bytes, FakeParty] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    stages: list[tuple[Stage, str]] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    log: Lines = field(default_factory=Lines)
    attached: set[bytes] = field(default_factory=set)
    sqn: dict[str, int] = field(default_factory=dict)
    sessions: list[FakeSession] = field(default_factory=list)
    entered: list[TlsCredentials] = field(default_factory=list)
    """What devices attached with, if that was a certificate."""
    private: bool = False
    """Whether the network is a private one, which grants certificates."""
    refuse_attach: Counter[str] = field(default_factory=Counter)
    """Codes with which the network refuses the next attaches."""
    refuse_service: Counter[str] = field(default_factory=Counter)
    bend: Bend = lambda _url, _request, answer: answer
    plan: Plan = field(init=False)
    mno: FakeParty = field(init=False)
    sp: FakeParty = field(init=False)

    def __post_init__(self) -> None:
        """Make the batch, register the parties and deploy the first plan."""
        self._make_devices()
        self.mno = self._party("mno", PartyKind.NETWORK, self._certifies if self.private else self._subscribes)
        signer = P256Key("authority")
        own = create_authority(signer, title="SP", now=self.clock.seconds, lifetime=86_400, random=self.random)
        self.sp = self._party(
            "sp",
            PartyKind.SERVICE,
            lambda _: CertificateGrantor(
                own, server=SERVER, broker="mqtts://127.0.0.1:8883", lifetime=LEASE, random=self.random
            ),
        )
        self.deploy([self.mno, self.sp])

    def _subscribes(self, party: bytes) -> Grantor:
        chain, endpoint = self.ledger.consortium.chain, "tcp://127.0.0.1:1"
        return SimGrantor(chain, party, HOME, network="WLAN", endpoint=endpoint, lifetime=LEASE, random=self.random)

    def _certifies(self, _: bytes) -> Grantor:
        signer = P256Key("network authority")
        own = create_authority(signer, title="Network", now=self.clock.seconds, lifetime=86_400, random=self.random)
        return CertificateGrantor(
            own, server=AAA, broker="wired://802.1x", lifetime=LEASE, random=self.random, network="WLAN"
        )

    # --- making the world -------------------------------------------------------------------------

    def directory(self, index: int) -> Path:
        """Return a device's directory."""
        return self.root / f"{index:06}"

    def _make_devices(self) -> None:
        leaves = []
        for index in range(SIZE):
            directory = self.directory(index)
            directory.mkdir(mode=0o700)
            keys = AgreementKey.create(directory / IDENTITY), SigningKey.create(directory / ATTESTATION)
            leaves.append(Leaf(self.random.bytes(16), coordinates(keys[0].public), coordinates(keys[1].public), MODEL))
        tree = rfc6962.Tree([leaf.hash() for leaf in leaves])
        self.ledger.leaves = tree.root
        chain, root = self.ledger.consortium.chain, self.ledger.trust.root
        for index, leaf in enumerate(leaves):
            directory = self.directory(index)
            birth = BirthCredential(
                chain,
                root,
                BATCH,
                SIZE,
                index,
                leaf.salt,
                tree.path(index),
                self.random.bytes(32),
                MODEL,
                AgreementKey.load(directory / IDENTITY).public,
                SigningKey.load(directory / ATTESTATION).public,
                self.gateways,
            )
            write_atomic(directory / BIRTH, birth.encode())
            self.births.append(birth)

    def _party(self, name: str, kind: PartyKind, grantor: Callable[[bytes], Grantor]) -> FakeParty:
        identifier = hashlib.sha256(name.encode()).digest()[:16]
        static, store = P256Key(f"{name} agreement"), ExchangeStore.in_memory()
        url = f"http://{name}.example"
        role = Role.MNO if kind is PartyKind.NETWORK else Role.SP
        self.ledger.records[party_name(identifier)] = PartyRecord(
            1, 1, (role,), P256Key(name).public, bytes(32), static.public, (url,), PartyStatus.ACTIVE
        )
        party = Party(
            Profile(self.ledger.consortium.chain, identifier, static, frozenset({kind})),
            ledger=Facing(self.ledger, identifier, self.clock),
            appraiser=SignedNonce(),
            grantor=grantor(identifier),
            orders=store,
            exchanges=store,
            random=self.random,
        )
        made = FakeParty(identifier, kind, party, store, self.random, self.clock, url)
        self.parties[identifier] = made
        return made

    def deploy(self, parties: Sequence[FakeParty], *, tenure: int = OWNER, revision: int = 1) -> None:
        """Let the owner of ``tenure`` order at these parties, leave mail and deploy."""
        chain = self.ledger.consortium.chain
        claims = []
        self.ledger.trie = Trie.uniform(SIZE, tenure)
        self._put_batch()
        for party in parties:
            claim = new_claim(party.kind, party.id, self.random.bytes(16), self.random)
            order = Order(claim.order, chain, party.id, BATCH, tenure, SIZE, self.clock.seconds + 86_400)
            party.store.add_order(order, Anchor(self.ledger.leaves, SIZE), b"signed elsewhere")
            claims.append(claim)
        self.plan = new_plan(RECEIPTS.public, claims, self.random)
        deployed = origin(tenure, SIZE, previous=tenure - 1, plan=self.plan.root)
        self.ledger.records[tenure_name(BATCH, tenure)] = replace(deployed, plan_revision=revision)
        content = EnvelopeContent(tenure, revision, 0, self.plan.digests, self.plan.claims()).padded()
        for birth in self.births:
            for gateway in self.gateways:
                locator = mailbox_locator(birth.mailbox, gateway)
                sealed = seal_envelope(content, identity=birth.identity, chain=chain, locator=locator)
                self.mail.setdefault(locator, []).append(sealed)

    def _put_batch(self) -> None:
        root = self.ledger.trie.root
        self.ledger.records[batch_name(BATCH)] = Batch(
            ISSUER, SIZE, MODEL, self.ledger.leaves, root, (), (ISSUER,), 99, 9
        )

    # --- the device's ports -----------------------------------------------------------------------

    def tools(self) -> Tools:
        """Return the ports of a device in this world."""
        return Tools(
            log=Log("device", self.clock, self.log),
            tell=lambda stage, code="": self.stages.append((stage, code)),
            network=self,
            clock=self.clock,
            random=self.random,
            sleep=self.sleep,
            http=lambda proxy: _Http(self, proxy),
            connect=self.connect,
        )

    def memory(self, index: int = 0) -> Memory:
        """Open a device's memory."""
        return Memory.open(self.directory(index))

    async def sleep(self, seconds: float) -> None:
        """Let short pauses pass at once; hold up whoever waits longer."""
        self.pauses.append(seconds)
        if seconds <= IMPATIENT:
            self.clock.advance(seconds)
            await asyncio.sleep(0)
            return
        self.waiting.set()
        await asyncio.Event().wait()

    async def attach(self, store: SimStore, naming: Naming | None = None) -> Attachment:  # noqa: ARG002
        """Attach, if K and OPc are those of a grant and the sequence number is fresh."""
        for code in list(self.refuse_attach.elements())[:1]:
            self.refuse_attach[code] -= 1
            raise AccessError(code, "as told")
        sim: SoftSim = store.load()
        credentials = sim.credentials
        grant = self.mno.store.by_identifier(SUPI + credentials.imsi)
        if grant is None or self.mno.store.secret(grant.id) != credentials.k + credentials.opc:
            raise AccessError("attach-refused", "not a subscriber")
        if grant.state is GrantState.ENDED:
            raise AccessError("attach-refused", "no longer a subscriber")
        following = self.sqn.get(credentials.imsi, 0) + 32
        sequence = sim.sequence.accept(following)
        if sequence is None:
            raise AccessError("resync-failed", "the sequence number was used before")
        store.save(replace(sim, sequence=sequence))
        self.sqn[credentials.imsi] = following
        self.mno.store.confirm(grant.id, self.clock.now())
        session = self.random.bytes(16)
        self.attached.add(session)
        return FakeAttachment(self.attached, session)

    async def enter(self, own: TlsCredentials) -> Attachment:
        """Attach, if the certificate is that of a grant which stands, and fits its key."""
        for code in list(self.refuse_attach.elements())[:1]:
            self.refuse_attach[code] -= 1
            raise AccessError(code, "as told")
        client_context(own.certificate, own.key, own.anchors)
        grant = self.mno.store.by_identifier(own.name)
        if grant is None or grant.state is GrantState.ENDED:
            raise AccessError("attach-refused", "no longer a subscriber")
        self.mno.store.confirm(grant.id, self.clock.now())
        session = self.random.bytes(16)
        self.attached.add(session)
        self.entered.append(own)
        return FakeAttachment(self.attached, session)

    async def connect(self, access: ServiceAccess) -> FakeSession:
        """Connect, if certificate and key fit each other and everything goes through the forwarder."""
        for code in list(self.refuse_service.elements())[:1]:
            self.refuse_service[code] -= 1
            raise AccessError(code, "as told")
        client_context(access.certificate, access.key, access.anchors)
        grant = self.sp.store.by_identifier(access.name)
        if grant is None or access.proxy != PROXY or not self.attached or access.server_name != SERVER:
            raise AccessError("service-refused", "not a client of this service")
        self.sp.store.confirm(grant.id, self.clock.now())
        self.sessions.append(FakeSession(access.name))
        return self.sessions[-1]

    def answer(self, url: str, body: bytes, proxy: Proxy | None) -> bytes:
        """Answer a request as an honest gateway, or a party, does."""
        path = url.removeprefix("http://").partition("/")[2]
        host = url.removeprefix("http://").partition("/")[0]
        kind = path.partition("/")[0] if path.startswith(("relay", ".")) else path
        self.asked[f"{'proxied' if proxy else 'plain'} {kind}"] += 1
        gateway = any(name.endswith(host) for name in self.gateways)
        if gateway and path == "v1/mail":
            (locator,) = MailRequest.decode(body).locators
            return Mail(tuple(self.mail.get(locator, ()))).encode()
        if gateway and path == "v1/bundles":
            request = BundleRequest.decode(body)
            if request.height:
                return self.ledger.state(request).encode()
            return self.ledger.answer(request, time=self.clock.seconds).encode()
        if gateway and path == "v1/receipts":
            put = ReceiptPut.decode(body)
            self.receipts.setdefault(put.locator, []).append(put.sealed)
            return encode([])
        if gateway and path.startswith("relay/"):
            return self.parties[bytes.fromhex(path.split("/")[1])].answer(body)
        if proxy is None:
            raise TransportError("unreachable", "before it is attached a device reaches its gateways only")
        return next(party for party in self.parties.values() if party.url == f"http://{host}").answer(body)

    # --- what came of it --------------------------------------------------------------------------

    def opened(self, index: int = 0) -> list[Receipt]:
        """Return the receipts that the owner can open, by their counters."""
        birth = self.births[index]
        found = []
        for gateway in self.gateways:
            locator = receipt_locator(birth.mailbox, gateway)
            expected = Expected(birth.chain, locator, BATCH, index, birth.attestation, range(1, 9))
            found += [open_receipt(sealed, RECEIPTS, expected) for sealed in self.receipts.get(locator, ())]
        return sorted(found, key=lambda one: one.counter)

    def seen(self, *which: Stage) -> list[Stage]:
        """Return the stages that were told, or only ``which``."""
        return [stage for stage, _ in self.stages if not which or stage in which]


@dataclass(slots=True)
class _Http:
    world: JourneyWorld
    proxy: Proxy | None

    async def post(self, url: str, body: bytes, *, content_type: str = CBOR, retries: int = 0) -> bytes:
        world = self.world
        await asyncio.sleep(0)
        if url.endswith(wire.PATH):
            assert content_type == wire.MEDIA_TYPE_REQUEST
        failure = TransportError("unreachable", "never tried")
        for _ in range(retries + 1):
            try:
                return world.bend(url, body, world.answer(url, body, self.proxy))
            except TransportError as error:
                failure = error
        raise failure

    async def aclose(self) -> None:
        """Close nothing."""
