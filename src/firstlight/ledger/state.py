"""The ledger's state: one sparse Merkle tree of records, and an ownership trie for each batch.

A :class:`State` is immutable; old ones stay valid and share all that has not changed. Its ``root`` is the
application hash. The trees hold nothing else: an ownership trie's root stands in its batch's record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Protocol, TypeVar

from firstlight.chain.root import EpochStatement, RootStatement, known_root, open_epoch, open_root
from firstlight.encoding import Record, decode, encode
from firstlight.errors import ProofError, StoreError
from firstlight.ledger.records import (
    GOVERNANCE,
    Batch,
    Governance,
    Tenure,
    batch_name,
    epoch_name,
    root_name,
    tenure_name,
    tree_key,
)
from firstlight.trees import sparse
from firstlight.trees.ownership import Trie

_R = TypeVar("_R", bound=Record)


class Tries(Protocol):
    """Where the ownership tries of settled batches are."""

    def open(self, batch: bytes, record: Batch) -> Trie:
        """Return the trie whose root ``record`` names; :class:`StoreError` if the store does not have it."""
        ...


class NoTries:
    """Stands where every trie lives in the state itself."""

    def open(self, batch: bytes, record: Batch) -> Trie:
        """Raise :class:`StoreError` (``trie-missing``)."""
        raise StoreError("trie-missing", f"no trie with root {record.ownership.hex()} for batch {batch.hex()}")


@dataclass(frozen=True, slots=True)
class State:
    """What the ledger holds after some block.

    ``fresh`` are the tries of batches that changed since the state was last settled; all others are opened from
    ``library``, which answers the version that the batch's record names.
    """

    chain: str
    tree: sparse.Tree
    fresh: Mapping[bytes, Trie] = field(default_factory=lambda: MappingProxyType({}))
    library: Tries = field(default_factory=NoTries)

    @property
    def root(self) -> bytes:
        """The application hash."""
        return self.tree.root

    def value(self, name: str) -> bytes | None:
        """Return the value of the record ``name``, or nothing."""
        return self.tree.get(tree_key(name))

    def read(self, name: str, kind: type[_R]) -> _R | None:
        """Return the record ``name``, or nothing."""
        value = self.value(name)
        return None if value is None else kind.decode(value)

    def trie(self, batch: bytes) -> Trie | None:
        """Return a batch's ownership trie, or nothing if there is no such batch; errors as :meth:`Tries.open`."""
        trie = self.fresh.get(batch)
        if trie is not None:
            return trie
        record = self.read(batch_name(batch), Batch)
        return None if record is None else self.library.open(batch, record)

    def tenures(self, batch: bytes) -> TenuresOf:
        """Return the tenures of a batch, for :func:`firstlight.ledger.tenure.counting`."""
        return TenuresOf(self, batch)

    def governance(self) -> Governance:
        """Return the governance record; every state has one."""
        record = self.read(GOVERNANCE, Governance)
        if record is None:
            raise StoreError("no-governance", "a state without a governance record")
        return record

    def statement(self, name: str) -> bytes | None:
        """Return the signed statement kept under a ``root/…`` or ``epoch/…`` name, or nothing."""
        value = self.value(name)
        return None if value is None else bytes(decode(value))

    def current_root(self) -> RootStatement:
        """Return the root statement in force."""
        statement = self.statement(root_name(self.governance().root_version))
        if statement is None:
            raise StoreError("no-root-statement", "a state without its root statement")
        return known_root(statement)

    def changed(self, values: Mapping[str, bytes], tries: Mapping[bytes, Trie]) -> State:
        """Return the state with these records and tries in place of the old."""
        tree = self.tree.update({tree_key(name): value for name, value in values.items()})
        fresh = MappingProxyType({**self.fresh, **tries}) if tries else self.fresh
        return replace(self, tree=tree, fresh=fresh)

    def settled(self, library: Tries) -> State:
        """Return this state once ``library`` holds all its tries."""
        return replace(self, fresh=MappingProxyType({}), library=library)


class TenuresOf:
    """The tenures of one batch, read from a state."""

    __slots__ = ("_batch", "_state")

    def __init__(self, state: State, batch: bytes) -> None:
        """Read those of ``batch`` from ``state``."""
        self._state = state
        self._batch = batch

    def get(self, number: int, /) -> Tenure | None:
        """Return the tenure's record, or nothing."""
        return self._state.read(tenure_name(self._batch, number), Tenure)


def genesis(chain: str, root_statement: bytes, epoch_statement: bytes) -> State:
    """Return the first state of ``chain``: its signed root and epoch statements and the governance record.

    Raises :class:`ProofError` (``wrong-chain`` and what :mod:`firstlight.chain.root` raises), :class:`MalformedError`.
    """
    return State(chain, sparse.Tree.empty()).changed(genesis_records(chain, root_statement, epoch_statement), {})


def genesis_records(chain: str, root_statement: bytes, epoch_statement: bytes) -> dict[str, bytes]:
    """Return the records of :func:`genesis` by name; errors as there."""
    root = open_root(root_statement)
    if root.chain != chain:
        raise ProofError("wrong-chain", f"a root of {root.chain}")
    epoch = open_epoch(epoch_statement, root)
    return {
        GOVERNANCE: in_force(root, epoch).encode(),
        root_name(root.version): encode(root_statement),
        epoch_name(epoch.number): encode(epoch_statement),
    }


def in_force(root: RootStatement, epoch: EpochStatement) -> Governance:
    """Return the governance record under which ``root`` and ``epoch`` are in force and no epoch is to follow."""
    return Governance(root.version, root.hash(), epoch.number, epoch.hash(), 0, None)
