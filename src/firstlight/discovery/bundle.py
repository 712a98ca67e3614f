"""Proof bundles: what somebody who trusts nobody asks a gateway for, and what it gets.

A bundle opens a head (root versions, epoch, signed header), shows that it is fresh (witnesses over the
asker's nonce) and proves what the state says under it. Further prefixes and records under the same head
cost a :class:`StateProof` only: the request then names the head by its height.

Names of records do not travel where the asker can tell them: the values stand in the order of
:func:`proven_names`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Protocol

from firstlight.chain.block import Header, PartialHeader
from firstlight.chain.commit import Commit, ValidatorSet, Votes
from firstlight.chain.root import MAX_KEYS, MAX_WALK, StatementBytes
from firstlight.chain.witness import NonceProof, WitnessSignature
from firstlight.encoding import Bytes16, Bytes32, Count, Range, Record, Size, Text, Uint, Uint32
from firstlight.errors import MalformedError, ProofError
from firstlight.ledger.records import GOVERNANCE, Tenure, batch_name, tenure_name, tree_key
from firstlight.ledger.tenure import needed
from firstlight.trees.ownership import OwnershipProof
from firstlight.trees.sparse import Multiproof

MAX_NAMES = 32
MAX_TENURES = 24
MAX_VALUE = 16_384
Name = Annotated[str, Text(r"[a-z]{1,12}(/[0-9a-z]{1,64}){0,3}")]
Value = Annotated[bytes, Size(0, MAX_VALUE)]
TenureNumber = Annotated[int, Range(1, 2**32 - 1)]


@dataclass(frozen=True, slots=True)
class BundleRequest(Record):
    """What to prove: a batch and the prefix of device indices in it, and further records by name.

    ``known_root`` and ``known_epoch`` (0: none) need not be sent again. ``height`` is 0 for the newest head, or that
    of a head which the asker has verified: then the answer is a :class:`StateProof` under it.
    Raises :class:`MalformedError`: ``bad-prefix``, ``name-twice``.
    """

    LIMIT: ClassVar[int] = 4096

    nonce: Bytes32
    height: Uint
    known_root: Uint32
    known_epoch: Uint32
    batch: Bytes16 | None
    prefix_bits: Uint32
    prefix_length: Annotated[int, Range(0, 32)]
    names: Annotated[tuple[Name, ...], Count(MAX_NAMES)]

    def __post_init__(self) -> None:
        """Check what the bounds of single fields do not say."""
        if self.prefix_bits >> self.prefix_length or (self.batch is None and self.prefix_length):
            raise MalformedError("bad-prefix", f"{self.prefix_bits} does not fit {self.prefix_length} bits of a batch")
        if len(set(self.names)) != len(self.names):
            raise MalformedError("name-twice", "a record is asked for twice")


@dataclass(frozen=True, slots=True)
class HeadProof(Record):
    """A signed header and what leads to its validators: newer roots, and the epoch unless it is known."""

    roots: Annotated[tuple[StatementBytes, ...], Count(MAX_WALK)]
    epoch: StatementBytes | None
    header: PartialHeader
    votes: Votes
    validators: ValidatorSet

    @classmethod
    def of(
        cls,
        header: Header,
        commit: Commit,
        validators: ValidatorSet,
        *,
        roots: Sequence[bytes] = (),
        epoch: bytes | None = None,
    ) -> HeadProof:
        """Return the proof of a whole header with its commit."""
        return cls(tuple(roots), epoch, header.partial(), Votes.of(commit), validators)

    def hash(self, chain: str) -> bytes:
        """Return the hash of the header, if it is of ``chain`` and of these validators."""
        return self.header.hash(chain, self.validators.hash())


@dataclass(frozen=True, slots=True)
class Freshness(Record):
    """Witnesses' signatures over the header and the asker's nonce."""

    nonce: NonceProof
    witnesses: Annotated[tuple[WitnessSignature, ...], Count(MAX_KEYS, 1)]


@dataclass(frozen=True, slots=True)
class StateProof(Record):
    """What the state under a header says.

    ``values`` are those of :func:`proven_names`, nothing for a record that does not exist; ``tenures`` are the numbers
    of those that the tenure that counts reads. ``ownership`` goes with a batch that exists.
    """

    tenures: Annotated[tuple[TenureNumber, ...], Count(MAX_TENURES)]
    values: Annotated[tuple[Value | None, ...], Count(2 + MAX_TENURES + MAX_NAMES)]
    proof: Multiproof
    ownership: OwnershipProof | None


@dataclass(frozen=True, slots=True)
class Bundle(Record):
    """The answer to a :class:`BundleRequest` for the newest head; without witnesses where none could be reached."""

    head: HeadProof
    freshness: Freshness | None
    state: StateProof


def proven_names(request: BundleRequest, tenures: Sequence[int]) -> tuple[str, ...]:
    """Return the names of a state proof's records in order: governance (with a head), batch, tenures, the rest."""
    names = [] if request.height else [GOVERNANCE]
    if request.batch is not None:
        names.append(batch_name(request.batch))
        names += [tenure_name(request.batch, number) for number in tenures]
    return (*names, *(name for name in request.names if name not in names))


class StateTree(Protocol):
    """The ledger's state as one map (:class:`firstlight.trees.sparse.Tree`)."""

    def get(self, key: bytes, /) -> bytes | None:
        """Return a value."""
        ...

    def prove(self, keys: Iterable[bytes], /) -> Multiproof:
        """Return the proof of what the tree says about ``keys``."""
        ...


class OwnershipTrie(Protocol):
    """A batch's ownership trie (:class:`firstlight.trees.ownership.Trie`)."""

    @property
    def root(self) -> bytes:
        """The trie's root."""
        ...

    def prove(self, prefix_bits: int, prefix_length: int, /) -> OwnershipProof:
        """Return what the trie holds under a prefix."""
        ...


class _BatchTenures:
    """The tenures of one batch, read from the state."""

    def __init__(self, tree: StateTree, batch: bytes) -> None:
        self._tree = tree
        self._batch = batch

    def get(self, number: int, /) -> Tenure | None:
        value = self._tree.get(tree_key(tenure_name(self._batch, number)))
        return None if value is None else Tenure.decode(value)


def prove_state(tree: StateTree, trie: OwnershipTrie | None, request: BundleRequest) -> StateProof:
    """Return what ``tree`` and the ``trie`` of the requested batch (None if there is no such batch) prove.

    Raises what the trees raise for a prefix that does not fit, and :class:`ProofError` (``too-many-tenures``).
    """
    ownership: OwnershipProof | None = None
    tenures: tuple[int, ...] = ()
    if request.batch is not None and trie is not None:
        ownership = trie.prove(request.prefix_bits, request.prefix_length)
        if ownership.tenure is not None:
            tenures = needed(ownership.tenure, _BatchTenures(tree, request.batch))
    if len(tenures) > MAX_TENURES:
        raise ProofError("too-many-tenures", f"{len(tenures)} tenures behind one device")
    keys = [tree_key(name) for name in proven_names(request, tenures)]
    return StateProof(tenures, tuple(tree.get(key) for key in keys), tree.prove(keys), ownership)
