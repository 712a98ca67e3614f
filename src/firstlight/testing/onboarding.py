"""A small world for onboarding: devices of one batch, one party, a ledger that a test may bend.

The evidence here is the nonce signed by nobody, and the appraiser looks at the nonce alone: a stand-in at a port,
not an appraisal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives.asymmetric import ec

from firstlight import p256
from firstlight.errors import RefusedError
from firstlight.identity.birth import Leaf
from firstlight.ledger.records import Batch, PartyStatus, Role, Tenure, TenureState
from firstlight.ledger.records import Party as PartyRecord
from firstlight.onboarding import device, token
from firstlight.onboarding.device import Acting, Begun, Granted, Identity, Sent
from firstlight.onboarding.edhoc.keys import Ephemeral
from firstlight.onboarding.messages import Exporter, SimGrant, subscription_keys
from firstlight.onboarding.party import Party, Profile, Reply
from firstlight.onboarding.ports import Anchor, Appraisal, Asked, Facts, Issue
from firstlight.plan.claims import PartyKind, Plan, PlanOpening, new_claim, new_plan
from firstlight.plan.order import Order
from firstlight.sim.suci import HomeNetwork, Scheme
from firstlight.stores.exchanges import ExchangeStore
from firstlight.testing.clock import FakeClock
from firstlight.testing.random import SeededRandom
from firstlight.trees import rfc6962

CHAIN = "testnet"
BATCH = b"\x0b" * 16
MODEL = b"meter-1"
ORIGIN = 2
HOME = HomeNetwork("001", "01", "0", Scheme.PROFILE_A, 1, bytes(range(32)))


@dataclass(frozen=True, slots=True)
class StaticKey:
    """A key-agreement key in memory (:class:`firstlight.ports.KeyAgreement`)."""

    public: bytes
    ephemeral: Ephemeral

    @classmethod
    def draw(cls, random: SeededRandom) -> StaticKey:
        """Draw a key."""
        secret = Ephemeral.draw(random)
        number = int.from_bytes(secret.secret)
        public = ec.derive_private_key(number, ec.SECP256R1()).public_key()
        return cls(p256.compress(public), secret)

    def exchange(self, peer: bytes) -> bytes:
        """Return the ECDH x-coordinate."""
        return self.ephemeral.exchange(peer[-32:])


@dataclass(slots=True)
class BentLedger:
    """A ledger view whose facts a test may change; ``asked`` counts how often facts were fetched."""

    head: Facts | None
    asked: int = 0
    announced: int = 100

    def height(self) -> int:
        """Return the announced height."""
        return self.announced

    def facts(self, batch: bytes, index: int) -> Facts | None:  # noqa: ARG002
        """Return the facts as they stand."""
        self.asked += 1
        return self.head

    def facts_of(self, devices: Sequence[tuple[bytes, int]]) -> list[Facts | None]:
        """Return the facts as they stand, for each device."""
        return [self.facts(*device) for device in devices]


@dataclass(slots=True)
class NonceAppraiser:
    """Passes evidence that is the nonce; ``refusal`` makes it refuse everything."""

    refusal: str | None = None

    def appraise(self, evidence: bytes, *, nonce: bytes, leaf: Leaf, facts: Facts, now: int) -> Appraisal:  # noqa: ARG002
        """Compare evidence and nonce."""
        if evidence != nonce:
            return Appraisal("evidence-nonce", b"nonce")
        return Appraisal(self.refusal, b"fine" if self.refusal is None else b"not fine")


@dataclass(slots=True)
class SimMaker:
    """Grants subscriptions with consecutive SUPIs; keeps K and OPc by grant id in what it hands the store."""

    party: bytes
    next: int = 1
    refusal: str | None = None
    made: list[bytes] = field(default_factory=list)

    def grant(self, asked: Asked, exporter: Exporter) -> Issue:
        """Make a subscription."""
        if self.refusal is not None or asked.request:
            raise RefusedError(self.refusal or "request-unexpected")
        supi = f"imsi-00101{self.next:010d}"
        self.next += 1
        self.made.append(asked.id)
        k, opc = subscription_keys(exporter, chain=CHAIN, party=self.party, supi=supi)
        body = SimGrant(supi, "tcp://127.0.0.1:8080", HOME, "WLAN")
        return Issue(body, min(asked.now + 3600, asked.until), supi, k + opc)


class World:
    """One batch of four devices, sold to tenure 2 with a plan that names the party, which holds an order."""

    def __init__(self, *, seed: int = 0, devices: int = 3, kind: PartyKind = PartyKind.NETWORK, size: int = 4) -> None:
        """Make the world."""
        self.random, self.clock = SeededRandom(seed), FakeClock()
        self.party_id = self.random.bytes(16)
        self.party_key = StaticKey.draw(self.random)
        self._identities(size)
        self._plan(kind, devices)
        self.ledger = BentLedger(self._facts())
        self.appraiser, self.grantor = NonceAppraiser(), SimMaker(self.party_id)
        self.store = ExchangeStore.in_memory()
        self.store.add_order(self.order, Anchor(self.batch.leaves, size), b"signed elsewhere")
        self.profile = Profile(CHAIN, self.party_id, self.party_key, frozenset({kind}))
        self.party = self.make_party(self.profile)
        self.ring = token.KeyRing(token.TokenKey(self.random.bytes(32), self.clock.now()))

    def _identities(self, size: int) -> None:
        self.keys = [StaticKey.draw(self.random) for _ in range(min(size, 4))]
        attest = [StaticKey.draw(self.random) for _ in self.keys]
        self.leaves = [
            Leaf(self.random.bytes(16), p256.coordinates(one.public), p256.coordinates(other.public), MODEL)
            for one, other in zip(self.keys, attest, strict=True)
        ]
        filler = [hashlib.sha256(b"%d" % n).digest() for n in range(len(self.leaves), size)]
        self.tree = rfc6962.Tree([*(leaf.hash() for leaf in self.leaves), *filler])
        self.batch = Batch(
            issuer=b"\x01" * 16,
            size=size,
            model=MODEL,
            leaves=self.tree.root,
            ownership=bytes(32),
            trust_anchors=(),
            reference_issuers=(b"\x01" * 16,),
            budget=0,
            tenures=2,
        )

    def _plan(self, kind: PartyKind, devices: int) -> None:
        number = self.random.bytes(16)
        mine = new_claim(kind, self.party_id, number, self.random)
        others = [new_claim(PartyKind.SERVICE, self.random.bytes(16), self.random.bytes(16), self.random)]
        if kind is not PartyKind.NETWORK:
            others.append(new_claim(PartyKind.NETWORK, self.random.bytes(16), self.random.bytes(16), self.random))
        self.plan: Plan = new_plan(self.party_key.public, [mine, *others], self.random)
        self.mine, self.other = mine, others[0]
        until = self.clock.seconds + 86_400
        self.order = Order(number, CHAIN, self.party_id, BATCH, ORIGIN, devices, until)

    def _facts(self) -> Facts:
        first = Tenure(
            state=TenureState.ACTIVE,
            previous=0,
            origin=1,
            count=0,
            plan=None,
            plan_revision=0,
            key=self.party_key.public,
            sequence=2,
            recovery=bytes(32),
            delay=0,
            offered_at=0,
            expiry=0,
            accepted_at=1,
            recovered_at=0,
            recovered_before=(),
            held=False,
        )
        mine = replace(first, previous=1, origin=ORIGIN, count=4, plan=self.plan.root, plan_revision=1, accepted_at=2)
        party = PartyRecord(
            revision=1,
            sequence=1,
            roles=(Role.MNO,),
            key=self.party_key.public,
            next_key_hash=bytes(32),
            agreement_key=self.party_key.public,
            endpoints=(),
            status=PartyStatus.ACTIVE,
        )
        now = self.clock.seconds
        return Facts(100, now, now, self.batch, ORIGIN, {1: first, ORIGIN: mine}, party)

    def bend(self, **changes: object) -> None:
        """Change tenure 2 on the ledger."""
        assert self.ledger.head is not None
        tenures = dict(self.ledger.head.tenures)  # type: ignore[call-overload]
        tenures[ORIGIN] = replace(tenures[ORIGIN], **changes)
        self.ledger.head = replace(self.ledger.head, tenures=tenures)

    def make_party(self, profile: Profile) -> Party:
        """Return a worker of the party; all of them share store and ledger."""
        return Party(
            profile,
            ledger=self.ledger,
            appraiser=self.appraiser,
            grantor=self.grantor,
            orders=self.store,
            exchanges=self.store,
            random=self.random,
        )

    # --- one exchange, step by step -------------------------------------------------------------

    def identity(self, index: int = 0) -> Identity:
        """Return who device ``index`` is."""
        return Identity(BATCH, index, self.leaves[index], self.tree.path(index), self.keys[index])

    def acting(self, *, stored: bytes | None = None, plan: PlanOpening | None = None) -> Acting:
        """Return what an honest device acts on."""
        opening = plan or self.plan.opening(self.mine)
        return Acting(CHAIN, self.party_id, self.party_key.public, 1, 100, ORIGIN, 1, opening, stored)

    def begin(self, acting: Acting | None = None, *, index: int = 0, suite: int = 2) -> Begun:
        """Make message 1."""
        drawn = Ephemeral.draw(self.random)
        return device.begin(self.identity(index), acting or self.acting(), ephemeral=drawn, suites=(suite,))

    def send(self, request: bytes) -> Reply:
        """Let the party answer a request."""
        return self.party.handle(request, ring=self.ring, now_ns=self.clock.now())

    def open(self, acting: Acting | None = None, *, index: int = 0, suite: int = 2, request: bytes = b"") -> Sent:
        """Go as far as message 3, which is made and not sent."""
        begun = self.begin(acting, index=index, suite=suite)
        sent = begun.read(self.send(begun.request_1).data, evidence=lambda nonce: nonce, request=request)
        assert isinstance(sent, Sent), sent
        self.clock.advance(0.001)
        return sent

    def finish(self, sent: Sent) -> tuple[Reply, object]:
        """Send message 3; return the party's reply and the device's event."""
        reply = self.send(sent.request_2)
        return reply, sent.read(reply.data)

    def onboard(self, *, index: int = 0, stored: bytes | None = None) -> Granted:
        """Let a device be granted something."""
        _, event = self.finish(self.open(self.acting(stored=stored), index=index))
        assert isinstance(event, Granted), event
        return event
