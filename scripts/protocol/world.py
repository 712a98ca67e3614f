"""One small world in bytes: a batch of five, of which three are sold and one comes online. Everything is checked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from scripts.protocol.keys import Key, named, seal

from firstlight.attestation import appraisal
from firstlight.attestation.appraisal import Subject, View
from firstlight.attestation.evidence import Debug, Evidence, Measurement, ReferenceName, pseudonym, sign_evidence
from firstlight.attestation.reference import ReferenceSet, body_digest, sign_reference
from firstlight.discovery.bundle import Bundle, BundleRequest, Freshness, HeadProof, prove_state
from firstlight.discovery.machine import AskBundle, AskMailbox, Discovered, Discovery, Mail
from firstlight.discovery.verify import Trust, verify_bundle
from firstlight.encoding import encode
from firstlight.enrolment.issue import Authority, create_authority, issue_client
from firstlight.enrolment.request import build_request, check_request
from firstlight.enrolment.topics import topic_of
from firstlight.identity.birth import BirthCredential, Leaf, derive_mailbox, derive_salt
from firstlight.ledger.records import Role, batch_id, party_id, party_name
from firstlight.ledger.tenure import needed
from firstlight.ledger.transaction import (
    Accept,
    AnchorBatch,
    Body,
    Deploy,
    Offer,
    PublishReference,
    RegisterParty,
    build,
)
from firstlight.onboarding import device
from firstlight.onboarding.device import Acting, Granted, Identity, Sent
from firstlight.onboarding.edhoc.keys import Ephemeral
from firstlight.onboarding.messages import Exporter, SimGrant, X509Grant, subscription_keys
from firstlight.onboarding.party import Party, Profile
from firstlight.onboarding.ports import Anchor, Appraisal, Asked, Facts, Issue
from firstlight.onboarding.token import KeyRing, TokenKey
from firstlight.plan.claims import PartyClaim, PartyKind, Plan, new_claim, new_plan
from firstlight.plan.order import Order
from firstlight.sealing.deposit import DepositEntry, DepositList
from firstlight.sealing.envelope import SEALED_SIZE, EnvelopeContent, open_envelope
from firstlight.sealing.locator import mailbox_locator
from firstlight.sim import suci
from firstlight.sim.suci import HomeNetwork, Scheme
from firstlight.stores.exchanges import ExchangeStore
from firstlight.testing.chains import GENESIS, SECOND, Block, Consortium, Ed25519Key
from firstlight.testing.ledgers import MemoryLedger
from firstlight.testing.random import SeededRandom
from firstlight.trees import rfc6962
from firstlight.trees.ownership import Selection

CHAIN = "example-1"
MODEL = b"meter-1"
SIZE = 5
INDEX = 2
GATEWAY = "https://gateway.example"
IMSI = "001010000000001"
DAY = 86_400
NOW = GENESIS + 100
"""When the device is switched on, in Unix seconds."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One exchange with a party, byte by byte."""

    request_1: bytes
    response_1: bytes
    sent: Sent
    response_2: bytes
    granted: Granted
    evidence: bytes
    nonce: bytes
    request: bytes


@dataclass(frozen=True, slots=True)
class _Appraiser:
    """The appraisal of :mod:`firstlight.attestation`, at the example's head."""

    world: World

    def appraise(self, evidence: bytes, *, nonce: bytes, leaf: Leaf, facts: Facts, now: int) -> Appraisal:
        batch = facts.batch
        subject = Subject(leaf.attestation_key, nonce, batch.issuer, batch.model, batch.reference_issuers)
        view = View(facts.height, self.world.ledger.state.value)
        result = appraisal.appraise(evidence, subject, view, self.world.reference_body, now)
        return Appraisal(None if result.affirmed else result.codes[0], result.encode())


@dataclass(frozen=True, slots=True)
class _View:
    """The example's ledger, as a party has verified it."""

    world: World
    party: bytes

    def height(self) -> int:
        return Journey(self.world).block.header.height

    def facts(self, batch: bytes, index: int) -> Facts:
        ledger, world = self.world.ledger, self.world
        trie = ledger.state.trie(batch)
        assert trie is not None
        owner = trie.owner(index)
        tenures = {one: ledger.tenure(batch, one) for one in needed(owner, ledger.state.tenures(batch))}
        time = Journey(world).block.header.time // SECOND
        return Facts(self.height(), time, NOW, ledger.batch(batch), owner, tenures, ledger.party(self.party))

    def facts_of(self, devices: Sequence[tuple[bytes, int]]) -> list[Facts | None]:
        return [self.facts(*device) for device in devices]


@dataclass(frozen=True, slots=True)
class _SimGrantor:
    """Grants the example's subscription."""

    world: World

    def grant(self, asked: Asked, exporter: Exporter) -> Issue:
        k, opc = subscription_keys(exporter, chain=CHAIN, party=self.world.mno, supi=f"imsi-{IMSI}")
        body = SimGrant(f"imsi-{IMSI}", "tcp://access.example:4500", self.world.home, "WLAN")
        return Issue(body, asked.now + DAY, IMSI, k + opc)


@dataclass(frozen=True, slots=True)
class _CertificateGrantor:
    """Grants a certificate of the example's authority."""

    authority: Authority

    def grant(self, asked: Asked, exporter: Exporter) -> Issue:  # noqa: ARG002
        public = check_request(asked.request)
        random = SeededRandom("example certificate")
        issued = issue_client(self.authority, public, now=asked.now, lifetime=DAY, random=random)
        anchor = self.authority.certificate
        topic = topic_of(issued.name, "telemetry")
        body = X509Grant((issued.certificate,), (anchor,), "broker.example", "mqtts://broker.example:8883", topic)
        return Issue(body, issued.expires, f"{issued.serial:x}", b"")


class World:
    """The example; made once, from names alone."""

    def __init__(self) -> None:
        """Make keys and devices, and write the ledger."""
        self.transactions: dict[str, tuple[bytes, type[Body]]] = {}
        self.sequences: dict[bytes, int] = {}
        self.consortium = Consortium(
            validators=(Ed25519Key("example validator"),),
            witnesses=tuple(Key(f"witness {one}") for one in (1, 2, 3)),
            roots=tuple(Key(f"root {one}") for one in (1, 2, 3)),
            root_threshold=2,
            witness_threshold=2,
            chain=CHAIN,
        )
        self.ledger = MemoryLedger(self.consortium)
        self.makers = {name: Key(name) for name in ("manufacturer", "network", "service")}
        self.manufacturer, self.mno, self.sp = (party_id(key.public) for key in self.makers.values())
        self.secret = named("batch secret")
        self.identities = [Key(f"identity key of device {index}") for index in range(SIZE)]
        self.attesters = [Key(f"attestation key of device {index}") for index in range(SIZE)]
        self.leaves = [
            Leaf(derive_salt(self.secret, index), identity.xy, attester.xy, MODEL)
            for index, (identity, attester) in enumerate(zip(self.identities, self.attesters, strict=True))
        ]
        self.tree = rfc6962.Tree([leaf.hash() for leaf in self.leaves])
        self.batch = batch_id(CHAIN, self.manufacturer, SIZE, MODEL, self.tree.root)
        self.seller, self.owner = Key("tenure 1"), Key("tenure 2")
        self.receipt_key = Key("receipt key")
        self.home_key = suci.generate(Scheme.PROFILE_A, 1, SeededRandom("example home network"))
        self.home = HomeNetwork("001", "01", "0", Scheme.PROFILE_A, 1, self.home_key.public)
        self._plan()
        self._reference()
        self._write()

    def _plan(self) -> None:
        self.order = Order(named("network's order")[:16], CHAIN, self.mno, self.batch, 2, 3, GENESIS + 90 * DAY)
        self.service_order = Order(named("service's order")[:16], CHAIN, self.sp, self.batch, 2, 3, GENESIS + 90 * DAY)
        random = SeededRandom("example plan")
        self.network_claim = new_claim(PartyKind.NETWORK, self.mno, self.order.number, random)
        self.service_claim = new_claim(PartyKind.SERVICE, self.sp, self.service_order.number, random)
        self.plan: Plan = new_plan(self.receipt_key.public, [self.network_claim, self.service_claim], random)

    def _reference(self) -> None:
        self.measured = (
            Measurement("application", named("application"), 3),
            Measurement("bootloader", named("bootloader"), 1),
        )
        self.reference = ReferenceSet(named("reference set")[:16], MODEL, self.measured, GENESIS, GENESIS + 365 * DAY)
        self.reference_body = sign_reference(self.reference, self.makers["manufacturer"])

    def _write(self) -> None:
        for name, role in (("manufacturer", Role.MANUFACTURER), ("network", Role.MNO), ("service", Role.SP)):
            self._register(name, role)
        maker, recovery = self.makers["manufacturer"], hashlib.sha256(Key("recovery 1").public).digest()
        issuers = (self.manufacturer,)
        self._submit(
            "anchor_batch",
            AnchorBatch(self.manufacturer, SIZE, MODEL, self.tree.root, (), issuers, self.seller.public, recovery, 0),
            maker,
        )
        published = self.reference
        self._submit(
            "publish_reference",
            PublishReference(
                self.manufacturer,
                MODEL,
                published.identifier,
                body_digest(self.reference_body),
                1,
                published.not_before,
                published.not_after,
            ),
            maker,
        )
        sold = Selection.of([(1, 3)])
        self._submit("offer", Offer(self.batch, 1, self.owner.public, GENESIS + DAY, sold), self.seller)
        recovery = hashlib.sha256(Key("recovery 2").public).digest()
        self._submit("accept", Accept(self.batch, 2, recovery, 0), self.owner)
        self._submit("deploy", Deploy(self.batch, 2, self.plan.root, None), self.owner)

    def _register(self, name: str, role: Role) -> None:
        key, agreement = self.makers[name], role is not Role.MANUFACTURER
        body = RegisterParty(
            key.public,
            hashlib.sha256(Key(f"{name}, next key").public).digest(),
            (role,),
            Key(f"{name}, key agreement").public if agreement else None,
            (f"https://{name}.example",) if agreement else (),
        )
        self._submit(f"register_party {name}", body, key, self.consortium.roots[0])  # type: ignore[arg-type]

    def _submit(self, name: str, body: Body, *signers: Key) -> None:
        sequence = self.sequences[signers[0].public] = self.sequences.get(signers[0].public, 0) + 1
        data = build(body, chain=CHAIN, sequence=sequence, signer=signers[0], cosigners=signers[1:])
        result = self.ledger.apply(data)
        assert result.code == "ok", f"{name}: {result.code} {result.detail}"
        self.transactions[name] = data, type(body)


class Journey:
    """What one device of the world sends and gets; each part is made when it is asked for."""

    def __init__(self, world: World) -> None:
        """Follow device 2 of ``world``."""
        self.world = world
        self.identity, self.attester = world.identities[INDEX], world.attesters[INDEX]
        self.leaf = world.leaves[INDEX]
        self.mailbox = derive_mailbox(world.secret, INDEX)
        self.nonce = named("nonce of the bundle request")
        self.locator = mailbox_locator(self.mailbox, GATEWAY)

    @cached_property
    def birth(self) -> BirthCredential:
        """The birth credential, verified against the batch's root."""
        world = self.world
        birth = BirthCredential(
            chain=CHAIN,
            root=world.consortium.signed_root(),
            batch=world.batch,
            size=SIZE,
            index=INDEX,
            salt=self.leaf.salt,
            path=world.tree.path(INDEX),
            mailbox=self.mailbox,
            model=MODEL,
            identity=self.identity.public,
            attestation=self.attester.public,
            gateways=(GATEWAY,),
        )
        birth.verify(world.tree.root)
        return birth

    @cached_property
    def block(self) -> Block:
        """The newest head."""
        consortium, ledger = self.world.consortium, self.world.ledger
        before = consortium.block(bytes(32), height=ledger.height)
        return consortium.block(ledger.state.root, previous=before)

    @cached_property
    def content(self) -> EnvelopeContent:
        """What the envelope holds."""
        return EnvelopeContent(2, 1, 2, self.world.plan.digests, self.world.plan.claims())

    @cached_property
    def envelope(self) -> bytes:
        """The envelope, opened again."""
        info = envelope_info(self.locator)
        sealed = seal(self.identity.public, self.content.padded(), info, Key("ephemeral key of the envelope"))
        assert len(sealed) == SEALED_SIZE
        assert open_envelope(sealed, self.identity, chain=CHAIN, locator=self.locator) == self.content
        return sealed

    @cached_property
    def deposit(self) -> DepositList:
        """The list that brings the envelope to the gateway."""
        entry = DepositEntry(self.locator, self.envelope)
        return DepositList(CHAIN, GATEWAY, self.world.batch, 2, 1, (entry,))

    @cached_property
    def request(self) -> BundleRequest:
        """What the device asks the gateway to prove."""
        trust = Trust.at_birth(CHAIN, self.birth.root)
        names = (party_name(self.world.mno),)
        return trust.request(self.nonce, batch=self.world.batch, prefix=(1, 2), names=names)

    @cached_property
    def bundle(self) -> Bundle:
        """The gateway's answer, verified."""
        world = self.world
        block, state = self.block, world.ledger.state
        proof = HeadProof.of(
            block.header, block.commit, world.consortium.validator_set, epoch=world.consortium.signed_epoch()
        )
        others = [named("another device's nonce"), named("a third device's nonce")]
        nonce, witnesses = world.consortium.attest(block.header, self.nonce, time=NOW, others=others)
        trie = state.trie(world.batch)
        bundle = Bundle(proof, Freshness(nonce, witnesses), prove_state(state.tree, trie, self.request))
        verify_bundle(bundle, self.request, trust=Trust.at_birth(CHAIN, self.birth.root), batch_size=SIZE)
        return bundle

    @cached_property
    def discovered(self) -> Discovered:
        """What the device's machine makes of all that."""
        trust = Trust.at_birth(CHAIN, self.birth.root)
        machine = Discovery(self.birth, self.identity, gateway=GATEWAY, trust=trust, nonce=self.nonce)
        assert machine.start() == AskMailbox(self.locator)
        assert machine.receive(Mail((self.envelope,)).encode()) == AskBundle(self.request)
        found = machine.receive(self.bundle.encode())
        assert isinstance(found, Discovered), found
        return found

    @cached_property
    def network(self) -> Exchange:
        """The exchange with the network."""
        grantor = _SimGrantor(self.world)
        return self._exchange("network", self.world.mno, self.world.network_claim, grantor, b"")

    @cached_property
    def service(self) -> Exchange:
        """The exchange with the service."""
        grantor = _CertificateGrantor(self.authority)
        request = build_request(Key("operational key"))
        return self._exchange("service", self.world.sp, self.world.service_claim, grantor, request)

    @cached_property
    def authority(self) -> Authority:
        """The service's certificate authority."""
        random = SeededRandom("example authority")
        return create_authority(
            Key("service's authority"), title="Example service", now=GENESIS, lifetime=365 * DAY, random=random
        )

    def evidence(self, party: bytes, nonce: bytes) -> bytes:
        """Return the device's evidence for one party."""
        world = self.world
        claims = Evidence(
            nonce=nonce,
            pseudonym=pseudonym(self.mailbox, party),
            oemid=world.manufacturer,
            model=MODEL,
            hardware_version="1",
            secure_boot=True,
            debug=Debug.DISABLED,
            boot_count=1,
            boot_seed=named("boot seed")[:16],
            software_version="1.0.0",
            measurements=world.measured,
            reference=ReferenceName(world.manufacturer, world.reference.identifier),
        )
        return sign_evidence(claims, self.attester)

    def _exchange(
        self, name: str, party: bytes, claim: PartyClaim, grantor: _SimGrantor | _CertificateGrantor, request: bytes
    ) -> Exchange:
        world, found = self.world, self.discovered
        responder, ring = self._responder(name, party, claim, grantor)
        record = world.ledger.party(party)
        assert record.agreement_key is not None
        acting = Acting(
            chain=CHAIN,
            party=party,
            agreement_key=record.agreement_key,
            party_revision=record.revision,
            height=found.view.height,
            tenure=found.standing.number,
            plan_revision=found.standing.plan_revision,
            plan=world.plan.opening(claim),
        )
        identity = Identity(world.batch, INDEX, self.leaf, world.tree.path(INDEX), self.identity)
        begun = device.begin(identity, acting, ephemeral=Ephemeral.from_secret(named(f"ephemeral key for the {name}")))
        first = responder.handle(begun.request_1, ring=ring, now_ns=NOW * SECOND)
        nonces: list[bytes] = []
        made: list[bytes] = []

        def attest(nonce: bytes) -> bytes:
            nonces.append(nonce)
            made.append(self.evidence(party, nonce))
            return made[0]

        sent = begun.read(first.data, evidence=attest, request=request)
        assert isinstance(sent, Sent), sent
        second = responder.handle(sent.request_2, ring=ring, now_ns=NOW * SECOND + 1)
        granted = sent.read(second.data)
        assert isinstance(granted, Granted), (granted, second.code)
        return Exchange(begun.request_1, first.data, sent, second.data, granted, made[0], nonces[0], request)

    def _responder(
        self, name: str, party: bytes, claim: PartyClaim, grantor: _SimGrantor | _CertificateGrantor
    ) -> tuple[Party, KeyRing]:
        world = self.world
        store = ExchangeStore.in_memory()
        order = world.order if claim.kind is PartyKind.NETWORK else world.service_order
        store.add_order(order, Anchor(world.tree.root, SIZE), b"signed elsewhere")
        static = Key(f"{name}, key agreement")
        responder = Party(
            Profile(CHAIN, party, static, frozenset({claim.kind})),
            ledger=_View(world, party),
            appraiser=_Appraiser(world),
            grantor=grantor,
            orders=store,
            exchanges=store,
            random=SeededRandom(f"example {name}"),
        )
        return responder, KeyRing(TokenKey(named(f"token key of the {name}"), NOW * SECOND))


def envelope_info(locator: bytes) -> bytes:
    """Return the HPKE info of an envelope."""
    return encode(["firstlight-envelope-1", CHAIN, locator])
