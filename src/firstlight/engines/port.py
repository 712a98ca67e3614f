"""What an engine is to the rest of the house: it orders transactions, makes them durable, and proves its state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from firstlight.chain.block import Header, Nanoseconds
from firstlight.chain.commit import Commit, ValidatorSet
from firstlight.chain.root import MAX_WALK, StatementBytes, known_epoch
from firstlight.discovery.bundle import BundleRequest, HeadProof, StateProof, prove_state
from firstlight.encoding import ChainId, Record
from firstlight.errors import StoreError
from firstlight.ledger.records import batch_name, epoch_name, root_name, tenure_name, tree_key
from firstlight.ledger.state import State
from firstlight.ledger.tenure import needed
from firstlight.ledger.transaction import Kind
from firstlight.trees.ownership import OwnershipProof
from firstlight.trees.sparse import Multiproof


@dataclass(frozen=True, slots=True)
class Genesis(Record):
    """What a chain begins with: its id, the time of its first header (Unix ns), statements and validators."""

    chain: ChainId
    time: Nanoseconds
    root: StatementBytes
    epoch: StatementBytes
    validators: ValidatorSet


@dataclass(frozen=True, slots=True)
class Committed:
    """A transaction that is durable, and what it did.

    ``height`` is that of its block, ``subject`` the party or batch made or changed (else empty), ``tenure`` the
    number of the tenure made or changed (else 0), ``work`` what it took from the batch's budget, in trie nodes.
    """

    id: bytes
    kind: Kind
    height: int
    position: int
    subject: bytes
    tenure: int
    work: int


@dataclass(frozen=True, slots=True)
class Counts:
    """How many transactions of each kind are committed, how many records the state has, and the head's height."""

    transactions: Mapping[Kind, int]
    records: int
    height: int

    @property
    def total(self) -> int:
        """How many transactions are committed."""
        return sum(self.transactions.values())


@dataclass(frozen=True, slots=True)
class ProofParts:
    """What the state under ``head`` says of some records, and of the prefix of a batch.

    ``values`` holds what was asked for by name, the batch and every tenure that the tenure that counts reads
    (``tenures``); nothing for a record that does not exist. ``proof`` is over the tree keys of all of them.
    """

    head: View
    values: Mapping[str, bytes | None]
    proof: Multiproof
    ownership: OwnershipProof | None
    tenures: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class View:
    """A signed head and the state that its header's application hash is of. It stays valid, and may be shared."""

    header: Header
    commit: Commit
    validators: ValidatorSet
    state: State

    def head_proof(self, known_root: int, known_epoch_number: int) -> HeadProof:
        """Return the head with the roots after version ``known_root`` and the epoch, unless it is the one known.

        Of more than 64 roots the first 64 come; the asker learns them and asks again.
        """
        governance = self.state.governance()
        first = known_root + 1
        versions = range(first, min(governance.root_version, first + MAX_WALK - 1) + 1)
        roots = tuple(self._statement(root_name(version)) for version in versions)
        number = governance.epoch
        if governance.next_epoch:
            following = known_epoch(self._statement(epoch_name(governance.next_epoch)))
            number = following.number if following.first_height <= self.header.height else number
        epoch = None if number == known_epoch_number and not roots else self._statement(epoch_name(number))
        return HeadProof.of(self.header, self.commit, self.validators, roots=roots, epoch=epoch)

    def state_proof(self, request: BundleRequest) -> StateProof:
        """Return what the state proves of a bundle request; errors as :func:`discovery.bundle.prove_state`."""
        trie = None if request.batch is None else self.state.trie(request.batch)
        return prove_state(self.state.tree, trie, request)

    def prove(
        self, names: Iterable[str], batch: bytes | None = None, prefix_bits: int = 0, prefix_length: int = 0
    ) -> ProofParts:
        """Return the proof of records and, with ``batch``, of who owns the indices under a prefix.

        Raises :class:`firstlight.errors.MalformedError` (``bad-prefix``, ``bad-claims``).
        """
        wanted = list(names)
        ownership: OwnershipProof | None = None
        tenures: tuple[int, ...] = ()
        if batch is not None:
            wanted.append(batch_name(batch))
            trie = self.state.trie(batch)
            ownership = None if trie is None else trie.prove(prefix_bits, prefix_length)
            if ownership is not None and ownership.tenure is not None:
                tenures = needed(ownership.tenure, self.state.tenures(batch))
            wanted += [tenure_name(batch, number) for number in tenures]
        values = {name: self.state.value(name) for name in wanted}
        return ProofParts(self, values, self.state.tree.prove(tree_key(name) for name in values), ownership, tenures)

    def _statement(self, name: str) -> bytes:
        statement = self.state.statement(name)
        if statement is None:
            raise StoreError("statement-missing", f"the state has no {name}")
        return statement


@dataclass(frozen=True, slots=True)
class SignedBlock:
    """A header with its commit, the validators of its height and those that it names for the next."""

    header: Header
    commit: Commit
    validators: ValidatorSet
    next_validators: ValidatorSet


class Engine(Protocol):
    """Runs the ledger's state machine. All methods may be called from any thread."""

    @property
    def chain(self) -> str:
        """The chain's id."""
        ...

    @property
    def genesis(self) -> Genesis:
        """What the chain began with."""
        ...

    def submit_soon(self, data: bytes) -> Future[Committed]:
        """Hand a transaction in; the future is done when it is durable and its proof verifies, or refused."""
        ...

    def head(self) -> View:
        """Return the newest head and the state that it proves."""
        ...

    def view(self, height: int = 0) -> View:
        """Return the newest head, or that of a height not long ago."""
        ...

    def signed(self, height: int = 0) -> SignedBlock | None:
        """Return what closes the block at ``height`` (0: the newest head); nothing if there is no such block."""
        ...

    def counts(self) -> Counts:
        """Return how much there is."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...

    def status(self, transaction: bytes) -> Committed | None:
        """Return what became of a transaction by its id; nothing if it is not committed."""
        ...
