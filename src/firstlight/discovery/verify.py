"""Verifying a proof bundle: all that a device or a party takes on trust is in :class:`Trust`.

Pure: no clock, no network. The checks are numbered in :func:`verify_bundle`; :data:`CHECKS` names them with
the codes that each can raise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeVar

from firstlight.chain.block import BLOCK_PROTOCOL
from firstlight.chain.commit import verify_votes
from firstlight.chain.root import (
    EpochStatement,
    RootStatement,
    StatementBytes,
    known_epoch,
    known_root,
    open_epoch,
    walk,
)
from firstlight.chain.witness import verify_witnesses
from firstlight.discovery.bundle import Bundle, BundleRequest, Freshness, HeadProof, StateProof, proven_names
from firstlight.encoding import ChainId, Record, Uint, Uint32
from firstlight.errors import MalformedError, ProofError
from firstlight.ledger.records import (
    GOVERNANCE,
    Batch,
    Governance,
    Party,
    Reference,
    Revocation,
    Tenure,
    batch_name,
    party_name,
    tenure_name,
    tree_key,
)
from firstlight.ledger.tenure import Standing, counting, needed
from firstlight.trees import ownership, sparse

SECOND = 1_000_000_000
_R = TypeVar("_R", bound=Record)

CHECKS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "root-walk": ("wrong-chain", "root-walk-too-long", "root-version", "root-signature", "bad-root-statement"),
        "epoch": ("epoch-missing", "wrong-chain", "epoch-signature", "bad-epoch-statement", "epoch-back"),
        "header": (
            "block-version",
            "epoch-validators",
            "before-epoch",
            "bad-validators",
            "commit-size",
            "bad-commit-entry",
            "commit-signature",
            "not-enough-power",
        ),
        "witnesses": ("bad-path", "bad-witness", "not-enough-witnesses", "witness-signature"),
        "watermark": ("height-back",),
        "state": ("wrong-values", "bad-state-proof"),
        "governance": ("no-governance", "governance-root", "governance-epoch"),
        "batch": ("unknown-batch", "batch-size"),
        "ownership": ("no-ownership-proof", "bad-ownership-proof"),
        "tenure": (
            "wrong-tenures",
            "tenure-missing",
            "tenure-malformed",
            "not-fresh",
            "plan-revision-back",
        ),
    }
)
"""The checks of :func:`verify_bundle` in their order, with the codes that each raises."""


@dataclass(frozen=True, slots=True)
class Trust(Record):
    """What somebody takes on trust, and stores: at first its root statement, then what it has verified since.

    ``root`` and ``epoch`` are signed statements (the epoch may be missing at first). ``height`` is the watermark below
    which no head is accepted. ``tenure`` (0: none) and ``revision`` are the tenure that counted and its plan's
    revision.
    """

    chain: ChainId
    root: StatementBytes
    epoch: StatementBytes | None
    height: Uint
    tenure: Uint32
    revision: Uint

    @classmethod
    def at_birth(cls, chain: str, root: bytes) -> Trust:
        """Return what a device takes on trust on its first day."""
        return cls(chain, root, None, 0, 0, 0)

    def request(
        self,
        nonce: bytes,
        *,
        batch: bytes | None = None,
        prefix: tuple[int, int] = (0, 0),
        names: tuple[str, ...] = (),
    ) -> BundleRequest:
        """Return a request for the newest head that leaves out what is known; ``prefix`` is (bits, length)."""
        root = known_root(self.root).version
        epoch = 0 if self.epoch is None else known_epoch(self.epoch).number
        return BundleRequest(nonce, 0, root, epoch, batch, *prefix, names)


@dataclass(frozen=True, slots=True)
class View:
    """What has been proven under one head.

    ``header_time`` and ``time`` are Unix seconds: of the header, and the lowest of the witnesses' (None without
    them). ``records`` are those asked for by name, None for one that does not exist. ``owned`` says whether
    the prefix is in one tenure (then ``standing`` is the tenure that counts) or split (ask with a longer prefix).
    ``trust`` is what to store.
    """

    trust: Trust
    root: RootStatement
    epoch: EpochStatement
    height: int
    header_hash: bytes
    header_time: int
    app_hash: bytes
    time: int | None
    batch_id: bytes | None
    batch: Batch | None
    owned: ownership.Uniform | ownership.Split | None
    standing: Standing | None
    records: Mapping[str, Record | None]

    @property
    def split(self) -> bool:
        """Whether the prefix covers more than one tenure, so that a longer one is needed."""
        return isinstance(self.owned, ownership.Split)

    def party(self, party: bytes) -> Party | None:
        """Return a party's record, which must have been asked for (``not-asked``)."""
        return self._record(party_name(party), Party)

    def reference(self, name: str) -> Reference | None:
        """Return a reference-value set's record, which must have been asked for (``not-asked``)."""
        return self._record(name, Reference)

    def revocation(self, name: str) -> Revocation | None:
        """Return a revocation, which must have been asked for (``not-asked``)."""
        return self._record(name, Revocation)

    def _record(self, name: str, kind: type[_R]) -> _R | None:
        if name not in self.records:
            raise ProofError("not-asked", f"{name} was not asked for")
        record = self.records[name]
        if record is not None and not isinstance(record, kind):
            raise ProofError("not-asked", f"{name} is not a {kind.__name__}")
        return record


def verify_bundle(bundle: Bundle, request: BundleRequest, *, trust: Trust, batch_size: int | None = None) -> View:
    """Return what ``bundle`` proves, in answer to ``request``, to somebody who starts from ``trust``.

    1. root-walk: every newer root is the next version, signed by the threshold of the one before and its own;
    2. epoch: the epoch statement is signed by the newest root, and not older than the known one;
    3. header: its validators are the epoch's, its height is in the epoch, more than two thirds of their power signed;
    4. witnesses: as many as the epoch asks for signed this header over *this* nonce; without any, nothing can be
       proven but a tenure that is known already (10);
    5. watermark: the head is not below one that was verified before;
    6. state: the values are what the state under the header's application hash says, present or absent;
    7. governance: the ledger's own record names this root and this epoch (the current one, or the next);
    8. batch: it exists, and its size is ``batch_size``, with which the asker was born (None: not known);
    9. ownership: the prefix is in one tenure, or split;
    10. tenure: the records given are exactly those that the tenure that counts reads; without witnesses it is the
        known one; the plan's revision does not go back within one tenure.

    The codes of each stand in :data:`CHECKS`. Raises :class:`ProofError`, :class:`MalformedError`.
    """
    head = bundle.head
    root, root_bytes = _check_roots(head, trust)
    epoch, epoch_bytes = _check_epoch(head, trust, root)
    header_hash = _check_header(head, epoch)
    time = _check_witnesses(bundle, request, epoch, header_hash)
    if head.header.height < trust.height:
        raise ProofError("height-back", f"height {head.header.height} is below {trust.height}")
    records = _check_state(bundle.state, request, head.header.app_hash)
    _check_governance(records, root, epoch)
    view = View(
        trust=replace(trust, root=root_bytes, epoch=epoch_bytes, height=head.header.height),
        root=root,
        epoch=epoch,
        height=head.header.height,
        header_hash=header_hash,
        header_time=head.header.time // SECOND,
        app_hash=head.header.app_hash,
        time=time,
        batch_id=None,
        batch=None,
        owned=None,
        standing=None,
        records=MappingProxyType(records),
    )
    return _check_batch(view, bundle.state, request, batch_size)


def verify_follow_up(state: StateProof, request: BundleRequest, *, view: View, batch_size: int | None = None) -> View:
    """Return ``view`` with what ``state`` proves under the head that it opened: checks 6 and 8 to 10.

    Records proven before stay; with a batch in ``request``, who owns the prefix is that of ``state``. Raises as
    :func:`verify_bundle`, and :class:`ProofError` (``other-head``) if ``request`` is not for that head.
    """
    if request.height != view.height:
        raise ProofError("other-head", f"asked under {request.height}, opened {view.height}")
    records = _check_state(state, request, view.app_hash)
    view = replace(view, records=MappingProxyType({**view.records, **records}))
    return _check_batch(view, state, request, batch_size)


def _check_roots(head: HeadProof, trust: Trust) -> tuple[RootStatement, bytes]:
    known = known_root(trust.root)
    if known.chain != trust.chain:
        raise ProofError("wrong-chain", f"a root of {known.chain}")
    return walk(known, head.roots), head.roots[-1] if head.roots else trust.root


def _check_epoch(head: HeadProof, trust: Trust, root: RootStatement) -> tuple[EpochStatement, bytes]:
    known = None if trust.epoch is None else known_epoch(trust.epoch)
    if head.epoch is not None:
        epoch = open_epoch(head.epoch, root)
        if known is not None and epoch.number < known.number:
            raise ProofError("epoch-back", f"epoch {epoch.number} after {known.number}")
        return epoch, head.epoch
    if known is None or trust.epoch is None or head.roots:
        raise ProofError("epoch-missing", "the epoch is not known, or not under the newest root")
    return known, trust.epoch


def _check_header(head: HeadProof, epoch: EpochStatement) -> bytes:
    """Return the header's hash, as the votes for it confirm it."""
    header = head.header
    if header.block_version != BLOCK_PROTOCOL:
        raise ProofError("block-version", f"block protocol {header.block_version}")
    if head.validators.hash() != epoch.validators_hash:
        raise ProofError("epoch-validators", "not the validators of the epoch")
    if header.height < epoch.first_height:
        raise ProofError("before-epoch", f"height {header.height} is before {epoch.first_height}")
    header_hash = header.hash(epoch.chain, epoch.validators_hash)
    verify_votes(epoch.chain, head.validators, head.votes.commit(header.height, header_hash))
    return header_hash


def _check_witnesses(bundle: Bundle, request: BundleRequest, epoch: EpochStatement, header_hash: bytes) -> int | None:
    fresh: Freshness | None = bundle.freshness
    if fresh is None:
        if request.batch is None:
            raise ProofError("not-enough-witnesses", "no witnesses, and no tenure that could be known")
        return None
    return verify_witnesses(
        fresh.witnesses,
        epoch=epoch,
        height=bundle.head.header.height,
        header_hash=header_hash,
        nonce_root=fresh.nonce.root(request.nonce),
    )


def _check_state(state: StateProof, request: BundleRequest, app_hash: bytes) -> dict[str, Record | None]:
    names = proven_names(request, state.tenures)
    if len(names) != len(state.values) or list(state.tenures) != sorted(set(state.tenures)):
        raise ProofError("wrong-values", "not one value for each name, or tenures out of order")
    if request.batch is None and (state.tenures or state.ownership is not None):
        raise ProofError("wrong-values", "ownership, and no batch was asked for")
    values = dict(zip(names, state.values, strict=True))
    sparse.verify(app_hash, {tree_key(name): value for name, value in values.items()}, state.proof)
    return {name: None if value is None else _parse(name, value) for name, value in values.items()}


def _parse(name: str, value: bytes) -> Record:
    namespace, *rest = name.split("/")
    if namespace == "reference" and rest[1:2] == ["revoked"]:
        return Revocation.decode(value)
    kind = _KINDS.get(namespace)
    if kind is None:
        raise MalformedError("unknown-namespace", f"no record is called {name}")
    return kind.decode(value)


_KINDS: Mapping[str, type[Record]] = {
    "governance": Governance,
    "party": Party,
    "batch": Batch,
    "tenure": Tenure,
    "reference": Reference,
}


def _check_governance(records: Mapping[str, Record | None], root: RootStatement, epoch: EpochStatement) -> None:
    record = records[GOVERNANCE]
    if not isinstance(record, Governance):
        raise ProofError("no-governance", "the ledger has no governance record")
    if (record.root_version, record.root_hash) != (root.version, root.hash()):
        raise ProofError("governance-root", f"the ledger names root version {record.root_version}")
    named = ((record.epoch, record.epoch_hash), (record.next_epoch, record.next_epoch_hash))
    if (epoch.number, epoch.hash()) not in named:
        raise ProofError("governance-epoch", f"the ledger names epoch {record.epoch}, not this {epoch.number}")


def _check_batch(view: View, state: StateProof, request: BundleRequest, batch_size: int | None) -> View:
    if request.batch is None:
        return view
    batch = view.records[batch_name(request.batch)]
    if not isinstance(batch, Batch):
        raise ProofError("unknown-batch", "the batch is not on the ledger")
    if batch_size is not None and batch.size != batch_size:
        raise ProofError("batch-size", f"{batch.size} devices, born among {batch_size}")
    if state.ownership is None:
        raise ProofError("no-ownership-proof", "nothing says who owns the prefix")
    owned = ownership.verify(batch.ownership, batch.size, request.prefix_bits, request.prefix_length, state.ownership)
    view = replace(view, batch_id=request.batch, batch=batch, owned=owned, standing=None)
    if isinstance(owned, ownership.Split):
        if state.tenures:
            raise ProofError("wrong-tenures", "tenures, and the prefix is in several")
        return view
    return _check_tenure(view, request.batch, owned.tenure, state.tenures)


def _check_tenure(view: View, batch: bytes, number: int, given: tuple[int, ...]) -> View:
    records = {one: view.records[tenure_name(batch, one)] for one in given}
    tenures = {one: record for one, record in records.items() if isinstance(record, Tenure)}
    standing = counting(number, tenures, view.header_time)
    if needed(number, tenures) != given:
        raise ProofError("wrong-tenures", "not exactly the tenures that the one that counts reads")
    trust = view.trust
    same = standing.number == trust.tenure
    if view.time is None and not same:
        raise ProofError("not-fresh", "without witnesses, only a tenure that is known already counts")
    if same and standing.plan_revision < trust.revision:
        raise ProofError("plan-revision-back", f"revision {standing.plan_revision} after {trust.revision}")
    trust = replace(trust, tenure=standing.number, revision=standing.plan_revision)
    return replace(view, trust=trust, standing=standing)
