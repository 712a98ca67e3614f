"""Strangers: parties, sellers and buyers of a test's own on a real ledger, who try whatever their keys allow."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from firstlight import p256
from firstlight.custody.file import AgreementKey, SigningKey
from firstlight.custody.system import SystemRandom
from firstlight.engines.port import Genesis
from firstlight.identity.birth import Leaf, derive_mailbox, derive_salt
from firstlight.identity.manifest import Entry, Manifest
from firstlight.ledger.records import Role, Tenure, batch_id, party_id, tenure_name
from firstlight.ledger.transaction import Accept, AnchorBatch, Body, Offer, RegisterParty, build
from firstlight.ports import Signer
from firstlight.roles.ledger_client import LedgerClient
from firstlight.roles.registration import read_genesis
from firstlight.testing.handheld import Said, ask
from firstlight.trees import rfc6962
from firstlight.trees.ownership import Selection


@dataclass(frozen=True, slots=True)
class Stranger:
    """A registered party whose keys are in the test's hands."""

    party: bytes
    signing: SigningKey
    agreement: AgreementKey


@dataclass(slots=True)
class Lot:
    """A batch that a stranger has made: its id, the keys of its tenures by number, and what its manifest is made of."""

    batch: bytes
    size: int
    model: bytes
    tree: rfc6962.Tree
    entries: Mapping[int, Entry]
    keys: dict[int, SigningKey] = field(default_factory=dict)

    def manifest(self, chain: str, indices: Selection) -> Manifest:
        """Return the honest manifest of some devices."""
        return Manifest.build(
            (chain, self.batch, self.model), [self.entries[one] for one in indices.indices()], self.tree
        )


def new_key() -> SigningKey:
    """Return a key that nobody has seen before."""
    return SigningKey.generate()[0]


@dataclass(slots=True)
class Market:
    """The ledger as somebody with keys and no manners uses it, through the node at a URL."""

    node: str
    consortium: Path
    genesis: Genesis = field(init=False)
    sequences: dict[bytes, int] = field(default_factory=dict)
    """The last sequence that counted, by public key."""

    def __post_init__(self) -> None:
        """Read what the chain began with."""
        self.genesis = read_genesis(self.consortium / "genesis.cbor")

    @property
    def chain(self) -> str:
        """The chain's id."""
        return self.genesis.chain

    def member(self, number: int = 1) -> SigningKey:
        """Return a member's root key."""
        return SigningKey.load(self.consortium / f"root-{number}.pem")

    def post(self, transaction: bytes) -> Said:
        """Submit bytes as a transaction."""
        return ask(f"{self.node}/v1/transactions", transaction)

    def make(self, body: Body, signer: Signer, *, sequence: int | None = None, chain: str | None = None) -> bytes:
        """Return a transaction, by default with the sequence that is next for its signer."""
        number = self.sequences.get(signer.public, 0) + 1 if sequence is None else sequence
        return build(body, chain=chain or self.chain, sequence=number, signer=signer)

    def do(self, body: Body, signer: Signer) -> Said:
        """Submit what must succeed."""
        said = self.post(self.make(body, signer))
        assert said.status == 200, said.fields()
        self.sequences[signer.public] = self.sequences.get(signer.public, 0) + 1
        return said

    def height(self) -> int:
        """Return the height of the newest block."""
        return int(self.counts()["height"])

    def counts(self) -> Mapping[str, int]:
        """Return how much there is on the ledger."""
        return ask(f"{self.node}/v1/counts", method="GET").fields()

    def join(
        self, role: Role, *, agreement: bytes | None = None, endpoints: tuple[str, ...] = ("http://127.0.0.1:1",)
    ) -> Stranger:
        """Register a stranger whom a careless member endorses; ``agreement`` is somebody else's public key."""
        signing, following, own = new_key(), new_key(), AgreementKey.generate()[0]
        hashed = hashlib.sha256(following.public).digest()
        body = RegisterParty(signing.public, hashed, (role,), agreement or own.public, endpoints)
        said = self.post(build(body, chain=self.chain, sequence=1, signer=signing, cosigners=[self.member()]))
        assert said.status == 200, said.fields()
        self.sequences[signing.public] = 1
        return Stranger(party_id(signing.public), signing, own)

    def lot(self, maker: Stranger, size: int, model: bytes = b"lot-1") -> Lot:
        """Anchor a batch of devices that exist on paper; tenure 1 is its maker's."""
        secret, entries = SystemRandom().bytes(32), {}
        for index in range(size):
            identity, attestation = (p256.coordinates(new_key().public) for _ in range(2))
            salt, mailbox = derive_salt(secret, index), derive_mailbox(secret, index)
            entries[index] = Entry(index, salt, identity, attestation, mailbox)
        tree = rfc6962.Tree([Leaf(one.salt, one.identity, one.attestation, model).hash() for one in entries.values()])
        key = new_key()
        body = AnchorBatch(
            maker.party, size, model, tree.root, (), (maker.party,), key.public, hashlib.sha256(b"recovery").digest(), 0
        )
        self.do(body, maker.signing)
        batch = batch_id(self.chain, maker.party, size, model, tree.root)
        return Lot(batch, size, model, tree, entries, {1: key})

    def offer(
        self, lot: Lot, buyer: bytes, selection: Selection, *, tenure: int = 1, seconds: int = 3_600, now: int
    ) -> Offer:
        """Return an offer, not submitted."""
        return Offer(lot.batch, tenure, buyer, now + seconds, selection)


def accepting(lot: Lot, tenure: int) -> Accept:
    """Return what takes an offer."""
    return Accept(lot.batch, tenure, hashlib.sha256(b"another recovery").digest(), 0)


def tenure_of(ledger: LedgerClient, batch: bytes, number: int) -> Tenure | None:
    """Return a tenure as the ledger proves it; nothing if there is none."""
    record = ledger.records(tenure_name(batch, number))[tenure_name(batch, number)]
    assert record is None or isinstance(record, Tenure)
    return record
