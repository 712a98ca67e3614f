"""The ledger's state machine as one node of several runs it: block after block that others have put in order.

A block is tried in memory first; what comes of it is written in one database transaction when the block is committed.
So whatever happens in between, the file holds the state after some block, and says after which. A transaction counts
or not by one function, :func:`judge`, whoever asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from firstlight.chain.root import known_epoch
from firstlight.engines.blocks import outcome_bytes
from firstlight.engines.library import Library
from firstlight.engines.port import Committed, Genesis
from firstlight.engines.store import Applied, PageRow, Step, Store
from firstlight.errors import (
    ConfigError,
    FirstlightError,
    MalformedError,
    ProofError,
    RuleError,
    SignatureError,
    StoreError,
)
from firstlight.ledger.draft import Result
from firstlight.ledger.records import GOVERNANCE, epoch_name, tree_key
from firstlight.ledger.rules import apply_parsed, begin_block
from firstlight.ledger.state import State, genesis_records
from firstlight.ledger.transaction import SetEpoch, Transaction, parse
from firstlight.ports import Clock
from firstlight.trees import sparse
from firstlight.trees.collector import collector_paused

MAX_BLOCK_BYTES = 4_194_304
MAX_BLOCK_TRANSACTIONS = 1_000
MAX_BLOCK_WORK = 8_388_608
KEPT_STATES = 256
"""How many states after the newest blocks are kept, to prove what their headers say."""
SECOND = 1_000_000_000
_LARGE = 16_384


class Code(IntEnum):
    """A transaction's result as a number: the class of error; the stable code stands beside it in words."""

    OK = 0
    MALFORMED = 1
    SIGNATURE = 2
    PROOF = 3
    RULE = 4


KINDS: Mapping[Code, type[FirstlightError]] = {
    Code.MALFORMED: MalformedError,
    Code.SIGNATURE: SignatureError,
    Code.PROOF: ProofError,
    Code.RULE: RuleError,
}


def code_of(error: FirstlightError | None) -> Code:
    """Return the number of a refusal."""
    return Code.OK if error is None else next(code for code, kind in KINDS.items() if isinstance(error, kind))


@dataclass(slots=True)
class Trial:
    """A block being tried: the state so far, and what its transactions did."""

    state: State
    height: int
    time: int
    work: int = 0
    values: dict[str, bytes] = field(default_factory=dict)
    results: list[tuple[Transaction | None, Result]] = field(default_factory=list)

    def take(self, data: bytes) -> Result:
        """Apply a transaction after those before it; one that is refused changes nothing but the results."""
        transaction, state, result = judge(self, data)
        self.results.append((transaction, result))
        if result.outcome is not None:
            self.state = state
            self.work += result.outcome.work
            self.values |= result.values
        return result


def judge(trial: Trial, data: bytes) -> tuple[Transaction | None, State, Result]:
    """Say what a transaction does to the state so far, in a block of that height and time (ns).

    1. An epoch that it sets names the validators that the chain has (``epoch-validators``).

    Bytes that are no transaction are refused before; afterwards comes the rule of its kind.
    The answer follows from state, bytes, height and time alone. :class:`StoreError` is raised if this node's own
    store fails.
    """
    transaction = None
    try:
        transaction = parse(data)
        body = transaction.body
        if isinstance(body, SetEpoch) and known_epoch(body.statement).validators_hash != _validators_hash(trial.state):
            raise RuleError("epoch-validators", "the validators of this chain are those of its genesis")
    except (MalformedError, SignatureError, ProofError, RuleError) as error:
        return transaction, trial.state, Result(None, error, {})
    return transaction, *apply_parsed(trial.state, transaction, trial.height, trial.time // SECOND)


def _validators_hash(state: State) -> bytes:
    """Return the hash of the validators in the epoch that is in force."""
    statement = state.statement(epoch_name(state.governance().epoch))
    if statement is None:
        raise StoreError("statement-missing", "the state has no statement of its epoch")
    return known_epoch(statement).validators_hash


@dataclass(frozen=True, slots=True)
class Settled:
    """A transaction of a block that is committed: what it did, or why it was refused."""

    id: bytes
    committed: Committed | None
    error: FirstlightError | None


Listener = Callable[[int, Sequence[Settled]], None]
"""Is told of every block that is committed: its height and its transactions (not those that were none)."""


class Replica:
    """The state after the last committed block, and the trial of the next. For one thread, but for :meth:`state_at`."""

    def __init__(self, store: Store, genesis: Genesis, clock: Clock) -> None:
        """Go on from what ``store`` holds, or begin with ``genesis``.

        Raises :class:`StoreError`: ``genesis-differs``, ``engine-differs`` (the file is an embedded engine's),
        ``state-differs`` (the records are not those of the last application hash); :class:`ConfigError`
        (``bad-genesis``).
        """
        self._clock = clock
        self.genesis = genesis
        self.store = store
        self.listeners: list[Listener] = []
        self._first = _first_records(genesis)
        known = store.genesis()
        if known is None:
            store.begin(genesis, {}, ())
        elif known != genesis:
            raise StoreError("genesis-differs", "the file began with another genesis")
        self._load()

    def _load(self) -> None:
        """Take up the state that the file holds."""
        store = self.store
        applied = store.applied()
        if applied is None and store.last_block() is not None:
            raise StoreError("engine-differs", "the file is that of an embedded engine", hint="take another database")
        records = self._first if applied is None else store.records()
        tree = sparse.Tree.empty().update({tree_key(name): value for name, value in records.items()})
        self.applied = applied or Applied(0, self.genesis.time, tree.root)
        if tree.root != self.applied.app_hash:
            raise StoreError("state-differs", "the records are not those of the last application hash")
        if applied is not None:
            store.prune(applied.height)
        self.state = State(self.genesis.chain, tree).settled(Library(store, self.applied.height))
        self.records = len(records)
        self._states: deque[tuple[int, State]] = deque([(self.applied.height, self.state)])
        self._tried: tuple[tuple[int, int, tuple[bytes, ...]], Trial] | None = None
        self._decided: tuple[Trial, tuple[bytes, ...]] | None = None
        self.forget_pending()

    # --- asking -----------------------------------------------------------------------------------

    def state_at(self, height: int) -> State | None:
        """Return the state after the block at ``height``, if it is one of the newest. Any thread may ask."""
        return next((state for at, state in reversed(self._states.copy()) if at == height), None)

    def check(self, data: bytes, *, again: bool) -> FirstlightError | None:
        """Say whether a transaction may wait for a block, after those that wait already.

        ``again`` says that it has waited and a block has been committed since. Beside :func:`judge`:
        :class:`RuleError` ``already-committed``, or ``already-pending`` where it waits with other signatures.
        """
        pending = self._pending
        pending.time = max(self.applied.time + 1, self._clock.now())
        try:
            identifier = parse(data).id
        except MalformedError as error:
            return error
        if not again and identifier in self._waiting:
            return RuleError("already-pending", identifier.hex())
        if not again and self.store.committed(identifier) is not None:
            return RuleError("already-committed", identifier.hex())
        result = pending.take(data)
        pending.results.clear()
        pending.values.clear()
        if result.error is None:
            self._waiting.add(identifier)
        return result.error

    def forget_pending(self) -> None:
        """Begin with no transactions that wait: those who held them are gone, or a block has been committed."""
        self._pending = self._begin(self.applied.height + 1, self.applied.time + 1)
        self._waiting: set[bytes] = set()

    # --- blocks -----------------------------------------------------------------------------------

    def propose(self, height: int, time: int, transactions: Sequence[bytes], limit: int) -> list[bytes]:
        """Return which of the transactions make a good block at that height and time, of at most ``limit`` bytes."""
        trial, size = self._begin(height, time), 0
        chosen: list[bytes] = []
        for data in transactions:
            size += len(data) + _overhead(len(data))
            if size > limit or trial.work > MAX_BLOCK_WORK or len(chosen) == MAX_BLOCK_TRANSACTIONS:
                break
            if trial.take(data).error is None:
                chosen.append(data)
            else:
                trial.results.pop()
                size -= len(data) + _overhead(len(data))
        self._tried = (height, time, tuple(chosen)), trial
        return chosen

    def check_block(self, height: int, time: int, transactions: Sequence[bytes]) -> None:
        """Check a block that somebody proposes.

        1. It is the next (``wrong-height``) and holds no more than a block may (``block-too-large``).
        2. Each of its transactions counts (``bad-proposal``).
        """
        if height != self.applied.height + 1:
            raise ProofError("wrong-height", f"a block at {height} after {self.applied.height}")
        if len(transactions) > MAX_BLOCK_TRANSACTIONS:
            raise ProofError("block-too-large", f"{len(transactions)} transactions")
        work = 0
        for _, result in self._try(height, time, transactions).results:
            if work > MAX_BLOCK_WORK:
                raise ProofError("block-too-large", f"more work than {MAX_BLOCK_WORK} nodes")
            if result.error is not None:
                raise ProofError("bad-proposal", str(result.error))
            work += 0 if result.outcome is None else result.outcome.work

    def finalize(self, height: int, time: int, transactions: Sequence[bytes]) -> tuple[list[Result], bytes]:
        """Return the results of a decided block's transactions and the application hash after it.

        Nothing is durable, and the newest state is the one before, until :meth:`commit`. Raises
        :class:`StoreError` (``wrong-height``) for another block than the next.
        """
        if height != self.applied.height + 1:
            raise StoreError("wrong-height", f"a block at {height} after {self.applied.height}")
        trial = self._try(height, time, transactions)
        self._decided = trial, tuple(transactions)
        return [result for _, result in trial.results], trial.state.root

    def commit(self) -> None:
        """Write what the decided block did, and make it the newest state.

        Raises :class:`StoreError`: ``nothing-decided``, ``ledger-not-written``.
        """
        if self._decided is None:
            raise StoreError("nothing-decided", "no block waits to be committed")
        trial, _ = self._decided
        settled = _settled(trial)
        values = self._values(trial)
        added = sum(self.state.value(name) is None for name in values)
        applied = Applied(trial.height, trial.time, trial.state.root)
        done = [(one, result) for one, (_, result) in zip(settled, trial.results, strict=True) if one]
        self.store.append(
            Step(
                blocks=(),
                transactions=[
                    (one.committed, outcome_bytes(result.outcome), b"")
                    for one, result in done
                    if one is not None and one.committed is not None and result.outcome is not None
                ],
                records=values,
                pages=_pages(trial.state),
                floor=self._floor(),
                applied=applied,
            )
        )
        self.applied = applied
        self.records += added
        self._advance(trial)
        told = [one for one in settled if one is not None]
        for listener in self.listeners:
            listener(trial.height, told)

    def restore(self, applied: Applied, records: Mapping[str, bytes], pages: Sequence[PageRow]) -> None:
        """Put a whole state, checked before, in the place of the one that is here; ``ledger-not-written``."""
        self.store.replace(Step((), (), records, pages, 0, applied))
        self._load()

    def _begin(self, height: int, time: int) -> Trial:
        return Trial(begin_block(self.state, height), height, time)

    def _try(self, height: int, time: int, transactions: Sequence[bytes]) -> Trial:
        """Return the trial of a block; the same block as the last time is not tried again."""
        key = (height, time, tuple(transactions))
        if self._tried is not None and self._tried[0] == key:
            return self._tried[1]
        with collector_paused(when=sum(map(len, transactions)) >= _LARGE):
            trial = self._begin(height, time)
            for data in transactions:
                trial.take(data)
        self._tried = key, trial
        return trial

    def _values(self, trial: Trial) -> dict[str, bytes]:
        """Return the records that the block changed; with the first one, those that the chain begins with."""
        values = trial.values if self.applied.height else {**self._first, **trial.values}
        governance = trial.state.value(GOVERNANCE)
        if governance is not None and governance != self.state.value(GOVERNANCE):
            values = {**values, GOVERNANCE: governance}
        return values

    def _floor(self) -> int:
        """Return the lowest height whose pages a kept state still reads."""
        oldest = self._states[0][1].library
        return oldest.height if isinstance(oldest, Library) else 0

    def _advance(self, trial: Trial) -> None:
        library = self.state.library
        if isinstance(library, Library):
            library = library.at(trial.height)
            for batch, trie in trial.state.fresh.items():
                library.settle(batch, trie)
        self.state = trial.state.settled(library)
        self._states.append((trial.height, self.state))
        while len(self._states) > KEPT_STATES:
            self._states.popleft()
        self._tried = self._decided = None
        self.forget_pending()


def _first_records(genesis: Genesis) -> dict[str, bytes]:
    try:
        records = genesis_records(genesis.chain, genesis.root, genesis.epoch)
    except (MalformedError, ProofError) as error:
        raise ConfigError("bad-genesis", str(error)) from error
    if known_epoch(genesis.epoch).validators_hash != genesis.validators.hash():
        raise ConfigError("bad-genesis", "the epoch names other validators")
    return records


def _settled(trial: Trial) -> list[Settled | None]:
    """Return what became of each transaction of a block; nothing where the bytes are no transaction."""
    settled: list[Settled | None] = []
    for position, (transaction, result) in enumerate(trial.results):
        if transaction is None:
            settled.append(None)
            continue
        done, committed = result.outcome, None
        if done is not None:
            committed = Committed(
                transaction.id, transaction.kind, trial.height, position, done.subject, done.tenure, done.work
            )
        settled.append(Settled(transaction.id, committed, result.error))
    return settled


def _pages(state: State) -> list[PageRow]:
    return [
        (batch, level, number, data) for batch, trie in state.fresh.items() for level, number, data in trie.unsaved()
    ]


def _overhead(size: int) -> int:
    """Return how many bytes stand around a transaction of that size in a block."""
    return 1 + max(1, (size.bit_length() + 6) // 7)
