"""A ledger in memory that answers bundle requests honestly: for tests that then change what it answered."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from firstlight.chain.root import EpochStatement, RootStatement
from firstlight.discovery.bundle import Bundle, BundleRequest, Freshness, HeadProof, StateProof, prove_state
from firstlight.discovery.verify import Trust
from firstlight.encoding import Record
from firstlight.ledger.records import (
    GOVERNANCE,
    Batch,
    Governance,
    Party,
    PartyStatus,
    Role,
    Tenure,
    TenureState,
    batch_name,
    party_name,
    tenure_name,
    tree_key,
)
from firstlight.testing.chains import GENESIS, Block, Consortium, P256Key
from firstlight.trees import sparse
from firstlight.trees.ownership import Selection, Trie

BATCH = hashlib.sha256(b"batch").digest()[:16]
ISSUER = hashlib.sha256(b"issuer").digest()[:16]
NETWORK = hashlib.sha256(b"network").digest()[:16]
PLAN = hashlib.sha256(b"plan").digest()


def a_party(name: str, role: Role, revision: int = 1) -> Party:
    """Return an active party's record whose keys follow from its name."""
    following = hashlib.sha256(P256Key(f"{name} next").public).digest()
    endpoints = (f"http://127.0.0.1:8080/{name}", f"coap://127.0.0.1:5683/{name}")
    agreement = P256Key(f"{name} agreement").public
    return Party(revision, 7, (role,), P256Key(name).public, following, agreement, endpoints, PartyStatus.ACTIVE)


def governance(root: RootStatement, epoch: EpochStatement) -> Governance:
    """Return the record that names these statements."""
    return Governance(root.version, root.hash(), epoch.number, epoch.hash(), 0, None)


def origin(number: int, count: int, *, previous: int = 0, plan: bytes | None = None) -> Tenure:
    """Return an accepted tenure that is its own origin."""
    return Tenure(
        state=TenureState.ACTIVE,
        previous=previous,
        origin=number,
        count=count,
        plan=plan,
        plan_revision=0 if plan is None else 1,
        key=P256Key(f"tenure {number}").public,
        sequence=1,
        recovery=hashlib.sha256(b"recovery").digest(),
        delay=0,
        offered_at=GENESIS if previous else 0,
        expiry=GENESIS + 3600 if previous else 0,
        accepted_at=GENESIS + 1 if previous else 0,
        recovered_at=0,
        held=False,
    )


@dataclass(slots=True)
class Ledger:
    """Records by name and one batch's trie under a chain in memory; ``at`` is the height of its newest head."""

    consortium: Consortium = field(default_factory=Consortium.of)
    size: int = 1024
    at: int = 10
    begun: int = GENESIS
    """When the chain began (Unix seconds): a block a second since."""
    records: dict[str, Record] = field(default_factory=dict)
    leaves: bytes = bytes(32)
    trie: Trie = field(init=False)
    fillers: int = 0

    def __post_init__(self) -> None:
        """Sell the whole batch from tenure 1 to tenure 2, which deploys a plan; register a network."""
        self.trie = Trie.uniform(self.size, 2)
        self.records |= {
            GOVERNANCE: governance(self.consortium.root, self.consortium.epoch),
            tenure_name(BATCH, 1): origin(1, 0),
            tenure_name(BATCH, 2): origin(2, self.size, previous=1, plan=PLAN),
            party_name(NETWORK): a_party("network", Role.MNO),
            party_name(ISSUER): a_party("issuer", Role.MANUFACTURER),
        }

    @property
    def trust(self) -> Trust:
        """What a device of this chain is born with."""
        return Trust.at_birth(self.consortium.chain, self.consortium.signed_root())

    def split(self, start: int, count: int, number: int, tenure: Tenure) -> None:
        """Move indices to another tenure."""
        self.trie = self.trie.assign(Selection.of([(start, count)]), number, expect=range(1, 100)).trie
        self.records[tenure_name(BATCH, number)] = tenure

    def tree(self) -> sparse.Tree:
        """Return the state as a tree."""
        batch = Batch(ISSUER, self.size, b"model-1", self.leaves, self.trie.root, (), (ISSUER,), 1000, 9)
        records: Mapping[str, Record] = {batch_name(BATCH): batch, **self.records}
        values = {tree_key(name): record.encode() for name, record in records.items()}
        values |= {hashlib.sha256(f"filler {one}".encode()).digest(): bytes(100) for one in range(self.fillers)}
        return sparse.Tree.empty().update(values)

    def block(self) -> Block:
        """Return the newest head."""
        tree = self.tree()
        previous = self.consortium.block(bytes(32), height=self.at - 1, time=self.begun + self.at - 1)
        return self.consortium.block(tree.root, previous=previous, time=self.begun + self.at)

    def state(self, request: BundleRequest) -> StateProof:
        """Return what the state proves."""
        return prove_state(self.tree(), self.trie if request.batch == BATCH else None, request)

    def answer(self, request: BundleRequest, *, time: int = GENESIS + 500, block: Block | None = None) -> Bundle:
        """Return the honest answer, with witnesses at ``time``."""
        head = block or self.block()
        epoch = None if request.known_epoch == self.consortium.number else self.consortium.signed_epoch()
        proof = HeadProof.of(head.header, head.commit, self.consortium.validator_set, epoch=epoch)
        nonce, witnesses = self.consortium.attest(head.header, request.nonce, time=time)
        return Bundle(proof, Freshness(nonce, witnesses), self.state(request))


def under(ledger: Ledger, bundle: Bundle, **changes: object) -> Bundle:
    """Return ``bundle`` under a changed header that the validators have signed, and no witness."""
    block = ledger.block()
    other = ledger.consortium.close(replace(block.header, **changes))  # type: ignore[arg-type]
    head = HeadProof.of(other.header, other.commit, ledger.consortium.validator_set, epoch=bundle.head.epoch)
    return replace(bundle, head=head)
