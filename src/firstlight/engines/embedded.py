"""The embedded engine: one validator inside the process, one SQLite file.

It writes the headers, commits and proofs that the distributed engine writes. A block and its empty successor, whose
header carries the new application hash, go into one database transaction; whoever submitted is told only when that
is durable and the proof of what he changed verifies against that header.

Any thread may call any method. One thread of the engine's own makes the blocks; what is submitted while it is at
work shares the next one.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Self

from firstlight.chain.commit import ValidatorSet, ValidatorSigner, verify_commit
from firstlight.chain.root import known_epoch
from firstlight.discovery.bundle import BundleRequest, StateProof
from firstlight.engines.blocks import Block, BlockMaker, outcome_bytes
from firstlight.engines.library import Library
from firstlight.engines.port import Committed, Counts, Genesis, ProofParts, SignedBlock, View
from firstlight.engines.store import PageRow, Step, Store
from firstlight.errors import ConfigError, FirstlightError, MalformedError, ProofError, RuleError, StoreError
from firstlight.ledger.draft import Outcome
from firstlight.ledger.records import GOVERNANCE, tree_key
from firstlight.ledger.rules import apply_parsed, begin_block
from firstlight.ledger.state import State, genesis_records
from firstlight.ledger.transaction import SetEpoch, Transaction, parse
from firstlight.ports import Clock
from firstlight.trees import sparse
from firstlight.trees.collector import collector_paused

MAX_BLOCK_BYTES = 4_194_304
MAX_BLOCK_TRANSACTIONS = 1_000
MAX_BLOCK_WORK = 8_388_608
MAX_PENDING = 10_000
HEADS_SECONDS = 120
"""How long, in block time, heads before the newest are still served."""
MAX_HEADS = 4_096
SECOND = 1_000_000_000
_LARGE = 16_384
"""Bytes of transactions in a block for which the garbage collector is paused."""


@dataclass(frozen=True, slots=True)
class _Pending:
    """A transaction on its way, and who waits for it."""

    transaction: Transaction
    data: bytes
    future: Future[Committed]


@dataclass(frozen=True, slots=True)
class _Taken:
    """A transaction that goes into the block, and what it does."""

    pending: _Pending
    outcome: Outcome
    committed: Committed


@dataclass(slots=True)
class _Draft:
    """A block being made: the state so far, what goes in, and what has to wait for the next one."""

    state: State
    height: int
    time: int
    taken: list[_Taken] = field(default_factory=list)
    left: list[_Pending] = field(default_factory=list)
    values: dict[str, bytes] = field(default_factory=dict)
    work: int = 0


@dataclass(frozen=True, slots=True)
class _Closed:
    """A block, and the state before it, which its header proves."""

    block: Block
    before: State


class EmbeddedEngine:
    """The ledger in this process (:class:`firstlight.engines.port.Engine`)."""

    def __init__(self, store: Store, genesis: Genesis, signer: ValidatorSigner, clock: Clock) -> None:
        """Go on from what ``store`` holds; use :meth:`open`."""
        self._store = store
        self._genesis = genesis
        self._clock = clock
        self._maker = BlockMaker(genesis.chain, genesis.validators, signer)
        self._last, self._state, self._records = _restore(store, genesis)
        self._head = self._view(_Closed(self._last, self._state))
        self._heads: deque[View] = deque([self._head])
        self._queue: queue.Queue[_Pending | None] = queue.Queue(MAX_PENDING)
        self._closed = False
        self._entering = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="firstlight-ledger", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, path: Path, *, signer: ValidatorSigner, clock: Clock, genesis: Genesis | None = None) -> Self:
        """Open the ledger at ``path``, or begin it with ``genesis``. From then on the file alone suffices.

        Raises :class:`StoreError`: ``ledger-locked``, ``ledger-unreadable``, ``schema-too-new``, ``ledger-missing``
        (nothing there and no genesis), ``genesis-differs``, ``state-differs`` (the records are not those that the head
        proves); :class:`ConfigError`: ``wrong-validator-key``, ``bad-genesis``.
        """
        if genesis is None and not path.exists():
            raise StoreError("ledger-missing", f"there is no {path}", hint="begin it with a genesis file")
        store = Store(path)
        try:
            known = store.genesis()
            if known is None:
                known = _begin(store, genesis, signer)
            elif genesis is not None and genesis != known:
                raise StoreError("genesis-differs", f"{path} began with another genesis")
            _check_signer(known, signer)
            return cls(store, known, signer, clock)
        except BaseException:
            store.close()
            raise

    def close(self) -> None:
        """Finish what was submitted, and let go of the file. Closing twice does nothing."""
        with self._entering:
            if self._closed:
                return
            self._closed = True
        self._queue.put(None)
        self._thread.join()
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- submitting -------------------------------------------------------------------------------

    def submit(self, data: bytes) -> Committed:
        """Submit a transaction and wait; errors as :meth:`submit_soon`'s future."""
        return self.submit_soon(data).result()

    def submit_soon(self, data: bytes) -> Future[Committed]:
        """Hand in a transaction; ``asyncio.wrap_future`` makes the answer awaitable.

        The future's errors: what :func:`firstlight.ledger.rules.apply` refuses, with its code;
        :class:`RuleError` (``already-committed``: ask :meth:`status`; ``epoch-validators``: this engine has one
        validator for good); :class:`StoreError` (``ledger-busy``, ``ledger-closed``, ``ledger-not-written``).
        """
        future: Future[Committed] = Future()
        try:
            transaction = parse(data)
            self._check(transaction)
            with self._entering:
                if self._closed:
                    raise StoreError("ledger-closed", "the ledger is closing")
                self._queue.put_nowait(_Pending(transaction, data, future))
        except queue.Full:
            future.set_exception(StoreError("ledger-busy", f"{MAX_PENDING} transactions are waiting"))
        except FirstlightError as error:
            future.set_exception(error)
        return future

    def _check(self, transaction: Transaction) -> None:
        if isinstance(transaction.body, SetEpoch):
            statement = known_epoch(transaction.body.statement)
            if statement.validators_hash != self._genesis.validators.hash():
                raise RuleError("epoch-validators", "the embedded engine has one validator, for good")

    # --- reading ----------------------------------------------------------------------------------

    @property
    def chain(self) -> str:
        """The chain's id."""
        return self._genesis.chain

    @property
    def genesis(self) -> Genesis:
        """What the chain began with."""
        return self._genesis

    @property
    def validators(self) -> ValidatorSet:
        """The one validator."""
        return self._genesis.validators

    def head(self) -> View:
        """Return the newest head and the state that it proves."""
        return self._head

    def view(self, height: int = 0) -> View:
        """Return the head at ``height`` (0: the newest); :class:`ProofError` (``head-not-kept``) if it is too old."""
        if height == 0:
            return self._head
        for view in reversed(self._heads.copy()):
            if view.header.height == height:
                return view
        raise ProofError("head-not-kept", f"height {height}; the newest is {self._head.header.height}")

    def header(self, height: int) -> Block | None:
        """Return header and commit of any height; nothing if there is no such block."""
        return self._store.block(height)

    def signed(self, height: int = 0) -> SignedBlock | None:
        """Return what closes the block at ``height`` (0: the newest head); nothing if there is no such block."""
        block = Block(self._head.header, self._head.commit, b"") if height == 0 else self._store.block(height)
        return None if block is None else SignedBlock(block.header, block.commit, self.validators, self.validators)

    def transactions(self, height: int) -> tuple[bytes, ...]:
        """Return the transactions of the block at ``height``."""
        return self._store.transactions(height)

    def status(self, transaction: bytes) -> Committed | None:
        """Return what became of a transaction, by its id; nothing if it is not committed."""
        return self._store.committed(transaction)

    def counts(self) -> Counts:
        """Return how much there is."""
        return Counts(self._store.counts(), self._records, self._head.header.height)

    def prove(
        self, names: Iterable[str], batch: bytes | None = None, prefix_bits: int = 0, prefix_length: int = 0
    ) -> ProofParts:
        """Return the proof under the newest head; see :meth:`View.prove`."""
        return self._head.prove(names, batch, prefix_bits, prefix_length)

    def prove_state(self, request: BundleRequest) -> StateProof:
        """Return the state proof for a bundle request, under the head that it names; errors as :meth:`view`."""
        return self.view(request.height).state_proof(request)

    # --- making blocks (in the engine's thread) ---------------------------------------------------

    def _run(self) -> None:
        batch: list[_Pending] = []
        try:
            while self._gather(batch):
                batch[:] = self._settle(batch)
        finally:
            # Normally nobody is left; after a fault in this thread nobody may wait for ever.
            self._closed = True
            with contextlib.suppress(queue.Empty):
                while True:
                    batch += filter(None, [self._queue.get_nowait()])
            for pending in batch:
                _fail(pending, StoreError("ledger-closed", "the ledger has stopped"))

    def _gather(self, batch: list[_Pending]) -> bool:
        """Wait for a transaction unless one is left over, and add what else waits, as much as fits a block.

        Returns False when the engine closes and nothing is left to do.
        """
        size = sum(len(one.data) for one in batch)
        while len(batch) < MAX_BLOCK_TRANSACTIONS and size < MAX_BLOCK_BYTES:
            try:
                following = self._queue.get(block=not batch)
            except queue.Empty:
                break
            if following is None:
                if batch:
                    self._queue.put(None)
                break
            if following.future.set_running_or_notify_cancel():
                batch.append(following)
                size += len(following.data)
        return bool(batch)

    def _settle(self, batch: Sequence[_Pending]) -> list[_Pending]:
        """Make a block of the batch, answer those who wait, and return what did not fit."""
        try:
            with collector_paused(when=sum(len(one.data) for one in batch) >= _LARGE):
                draft = self._apply(batch)
                if draft.taken:
                    self._commit(draft)
        except FirstlightError as error:
            for pending in batch:
                _fail(pending, error)
            return []
        for taken in draft.taken:
            taken.pending.future.set_result(taken.committed)
        return draft.left

    def _apply(self, batch: Sequence[_Pending]) -> _Draft:
        """Apply the batch to the state; those refused are answered here."""
        height = self._last.header.height + 1
        time = max(self._clock.now(), self._last.header.time + 1)
        draft = _Draft(begin_block(self._state, height), height, time)
        seen: set[bytes] = set()
        for pending in batch:
            transaction = pending.transaction
            if draft.work > MAX_BLOCK_WORK:
                draft.left.append(pending)
            elif transaction.id in seen or self._store.committed(transaction.id) is not None:
                _fail(pending, RuleError("already-committed", transaction.id.hex()))
            elif _apply_one(draft, pending):
                seen.add(transaction.id)
        return draft

    def _commit(self, draft: _Draft) -> None:
        """Close the block, check the proofs, and write all of it in one database transaction; then it is the head."""
        closed = self._close(draft)
        newest = closed[-1]
        governance = newest.before.value(GOVERNANCE)
        if governance is not None and governance != self._state.value(GOVERNANCE):
            draft.values[GOVERNANCE] = governance
        self._check_proofs(newest, draft.values)
        oldest = self._heads[0].state.library
        step = Step(
            blocks=[one.block for one in closed],
            transactions=[(one.committed, outcome_bytes(one.outcome), one.pending.data) for one in draft.taken],
            records=draft.values,
            pages=_pages(draft.state),
            floor=oldest.height if isinstance(oldest, Library) else 0,
        )
        added = sum(self._state.value(name) is None for name in draft.values)
        self._store.append(step)
        self._records += added
        self._advance(draft, closed)

    def _close(self, draft: _Draft) -> list[_Closed]:
        """Return the block and as many empty ones as it takes until a header carries the application hash."""
        data = [one.pending.data for one in draft.taken]
        outcomes = [one.outcome for one in draft.taken]
        block = self._maker.next(self._last, self._state.root, draft.time, data, outcomes)
        return _successors(self._maker, _Closed(block, self._state), draft.state)

    def _check_proofs(self, newest: _Closed, values: Mapping[str, bytes]) -> None:
        """Check as anybody would that the newest header is committed and proves all that has changed."""
        verify_commit(self.chain, self.validators, newest.block.header, newest.block.commit)
        claims = iter({tree_key(name): value for name, value in values.items()}.items())
        while some := dict(islice(claims, sparse.MAX_CLAIMS)):
            sparse.verify(newest.block.header.app_hash, some, newest.before.tree.prove(some))

    def _advance(self, draft: _Draft, closed: Sequence[_Closed]) -> None:
        library = self._state.library
        if isinstance(library, Library):
            library = library.at(draft.height)
            for batch, trie in draft.state.fresh.items():
                library.settle(batch, trie)
        first, *successors = closed
        views = [self._view(first)]
        views += [self._view(_Closed(one.block, one.before.settled(library))) for one in successors]
        self._last = closed[-1].block
        self._state = views[-1].state
        self._heads.extend(views)
        self._head = views[-1]
        oldest = self._head.header.time - HEADS_SECONDS * SECOND
        while len(self._heads) > MAX_HEADS or self._heads[0].header.time < oldest:
            self._heads.popleft()

    def _view(self, closed: _Closed) -> View:
        return View(closed.block.header, closed.block.commit, self.validators, closed.before)


def _apply_one(draft: _Draft, pending: _Pending) -> bool:
    """Apply one transaction to the draft; if it is refused, say so to whoever waits and return False."""
    transaction = pending.transaction
    state, result = apply_parsed(draft.state, transaction, draft.height, draft.time // SECOND)
    if result.outcome is None:
        _fail(pending, result.error or RuleError("refused"))
        return False
    done = result.outcome
    committed = Committed(
        id=transaction.id,
        kind=transaction.kind,
        height=draft.height,
        position=len(draft.taken),
        subject=done.subject,
        tenure=done.tenure,
        work=done.work,
    )
    draft.state = state
    draft.work += done.work
    draft.values |= result.values
    draft.taken.append(_Taken(pending, done, committed))
    return True


def _successors(maker: BlockMaker, first: _Closed, state: State) -> list[_Closed]:
    """Return ``first`` and the empty blocks after it, up to the one whose header carries the hash of ``state``.

    ``state`` is that after ``first``; an epoch that begins with an empty block makes one more necessary.
    """
    closed = [first]
    while closed[-1].block.header.app_hash != state.root:
        last = closed[-1].block
        block = maker.next(last, state.root, last.header.time + 1)
        closed.append(_Closed(block, state))
        state = begin_block(state, block.header.height)
    return closed


def _fail(pending: _Pending, error: FirstlightError) -> None:
    if not pending.future.done():
        pending.future.set_exception(error)


def _pages(state: State) -> list[PageRow]:
    return [
        (batch, level, number, data) for batch, trie in state.fresh.items() for level, number, data in trie.unsaved()
    ]


def _begin(store: Store, genesis: Genesis | None, signer: ValidatorSigner) -> Genesis:
    """Write the first blocks of a new file."""
    if genesis is None:
        raise StoreError("ledger-missing", "the file is empty", hint="begin it with a genesis file")
    _check_signer(genesis, signer)
    try:
        records = genesis_records(genesis.chain, genesis.root, genesis.epoch)
    except (MalformedError, ProofError) as error:
        raise ConfigError("bad-genesis", str(error)) from error
    if known_epoch(genesis.epoch).validators_hash != genesis.validators.hash():
        raise ConfigError("bad-genesis", "the epoch names other validators")
    state = _state(genesis, records)
    maker = BlockMaker(genesis.chain, genesis.validators, signer)
    first = _Closed(maker.next(None, state.root, genesis.time), state)
    closed = _successors(maker, first, begin_block(state, 1))
    store.begin(genesis, records, [one.block for one in closed])
    return genesis


def _check_signer(genesis: Genesis, signer: ValidatorSigner) -> None:
    if [one.public for one in genesis.validators.validators] != [signer.public]:
        raise ConfigError("wrong-validator-key", "the key is not that of the chain's one validator")


def _state(genesis: Genesis, records: Mapping[str, bytes]) -> State:
    tree = sparse.Tree.empty().update({tree_key(name): value for name, value in records.items()})
    return State(genesis.chain, tree)


def _restore(store: Store, genesis: Genesis) -> tuple[Block, State, int]:
    """Return the newest block, the state that it proves, and how many records that has."""
    last = store.last_block()
    if last is None:
        raise StoreError("ledger-unreadable", "there are no blocks")
    records = store.records()
    state = _state(genesis, records)
    try:
        verify_commit(genesis.chain, genesis.validators, last.header, last.commit)
    except ProofError as error:
        raise StoreError("state-differs", f"the newest block does not verify: {error}") from error
    if state.root != last.header.app_hash:
        raise StoreError("state-differs", "the records are not those that the newest header proves")
    store.prune(last.header.height)
    return last, state.settled(Library(store, last.header.height)), len(records)
