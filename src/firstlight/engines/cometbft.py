"""The ledger on CometBFT: the same port as the embedded engine's, over blocks that several validators agree on.

The state machine runs in this process, behind ABCI; CometBFT orders the transactions and keeps the blocks. Whoever
submits is told when the transaction's block is committed here, durably, *and* the header after it, which carries the
new application hash, has been fetched, verified and found to prove this node's state.

A transaction that has not been committed in time is ``commit-unknown``: it may be yet. The same one may be submitted
again for as long as it takes; it counts once.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Self

from firstlight.chain.commit import ValidatorSet, verify_commit
from firstlight.chain.rpc import SignedCommit
from firstlight.engines.abci_state import KINDS, Code, Replica, Settled
from firstlight.engines.cometbft_rpc import Checked, Rpc
from firstlight.engines.port import Committed, Counts, Genesis, SignedBlock, View
from firstlight.errors import FirstlightError, ProofError, RuleError, StoreError, TransportError
from firstlight.ledger.state import State
from firstlight.ledger.transaction import parse
from firstlight.logs import Log

PATIENCE = 8.0
"""Seconds to wait for a commit before it is said that it is not known."""
MAX_PENDING = 10_000
MAX_HEADS = 256
PAUSE = 0.05
AGAIN = 1.0
"""Seconds after which a transaction is handed in again: CometBFT's mempool does not outlive it."""
SECONDS_IDLE = 0.5
_BROADCASTERS = 8


@dataclass(slots=True)
class _Waiting:
    """Who waits for a transaction, until when, and what became of it in a block whose proof is still to come."""

    data: bytes
    deadline: float = 0.0
    again: float = 0.0
    futures: list[Future[Committed]] = field(default_factory=list)
    committed: Committed | None = None


class CometEngine:
    """The ledger of a CometBFT network, through this node's replica (:class:`firstlight.engines.port.Engine`)."""

    def __init__(self, replica: Replica, rpc: Rpc, log: Log, *, patience: float = PATIENCE) -> None:
        """Follow what ``replica`` commits; ``rpc`` is that of the CometBFT node whose application it is."""
        self._replica = replica
        self._rpc = rpc
        self._log = log
        self._patience = patience
        self._waiting: dict[bytes, _Waiting] = {}
        self._lock = threading.Lock()
        self._heads: deque[View] = deque(maxlen=MAX_HEADS)
        self._seen = 0
        self._wake = threading.Event()
        self._first = threading.Event()
        self._closed = False
        self._pool = ThreadPoolExecutor(_BROADCASTERS, "firstlight-broadcast")
        replica.listeners.append(self._on_block)
        self._thread = threading.Thread(target=self._run, name="firstlight-follow", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop following; who still waits is told ``commit-unknown``. Closing twice does nothing."""
        if self._closed:
            return
        self._closed = True
        self._wake.set()
        self._thread.join()
        self._pool.shutdown(cancel_futures=True)
        for identifier in list(self._waiting):
            self._fail(identifier, _unknown("the ledger is closing"))
        self._rpc.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_ready(self, seconds: float) -> bool:
        """Wait until there is a head; say whether there is."""
        return self._first.wait(seconds)

    # --- submitting -------------------------------------------------------------------------------

    def submit(self, data: bytes) -> Committed:
        """Submit a transaction and wait; errors as :meth:`submit_soon`'s future."""
        return self.submit_soon(data).result()

    def submit_soon(self, data: bytes) -> Future[Committed]:
        """Hand in a transaction; the same one may be handed in again at any time.

        The future's errors: what the rules refuse, with its code; :class:`RuleError` (``already-committed``: ask
        :meth:`status`); :class:`StoreError`: ``ledger-busy`` and ``ledger-not-ready`` (it has not been taken),
        ``commit-unknown`` (it may be committed yet), ``ledger-closed``.
        """
        future: Future[Committed] = Future()
        try:
            identifier = parse(data).id
            if self._closed:
                raise StoreError("ledger-closed", "the ledger is closing")
            if self.status(identifier) is not None:
                raise RuleError("already-committed", identifier.hex())
            if self._enter(identifier, data, future):
                self._pool.submit(self._hand_in, identifier)
        except RuntimeError:
            self._fail(identifier, StoreError("ledger-closed", "the ledger is closing"))
        except FirstlightError as error:
            future.set_exception(error)
        return future

    def _enter(self, identifier: bytes, data: bytes, future: Future[Committed]) -> bool:
        """Let ``future`` wait for a transaction; say whether it is the first."""
        with self._lock:
            if self._closed:
                raise StoreError("ledger-closed", "the ledger is closing")
            if len(self._waiting) >= MAX_PENDING:
                raise StoreError("ledger-busy", f"{MAX_PENDING} transactions are waiting", hint="submit it again later")
            first = identifier not in self._waiting
            waiting = self._waiting.setdefault(identifier, _Waiting(data))
            waiting.again = time.monotonic() + AGAIN
            waiting.deadline = time.monotonic() + self._patience
            waiting.futures.append(future)
            return first

    def _hand_in(self, identifier: bytes) -> None:
        """Give a transaction to CometBFT; one that is away is tried again for as long as somebody waits."""
        sent = False
        while not self._closed and (waiting := self._waiting.get(identifier)) is not None:
            try:
                self._answered(identifier, self._rpc.broadcast(waiting.data))
            except TransportError as error:
                sent = sent or error.code != "unreachable"
                if time.monotonic() < waiting.deadline:
                    time.sleep(PAUSE)
                    continue
                code = "commit-unknown" if sent else "ledger-not-ready"
                self._fail(identifier, StoreError(code, error.detail, hint="submit the same transaction again"))
            except StoreError as error:
                self._fail(identifier, error)
            return

    def _answered(self, identifier: bytes, answer: Checked) -> None:
        if answer.code == Code.OK or answer.codespace == "already-pending":
            return
        if answer.codespace == "already-committed" and (committed := self.status(identifier)) is not None:
            with self._lock:
                if (waiting := self._waiting.get(identifier)) is not None:
                    waiting.committed = committed
            self._wake.set()
            return
        kind = KINDS.get(Code(answer.code)) if answer.code in set(Code) else None
        if kind is None:
            self._fail(identifier, TransportError("bad-response", f"result {answer.code} is none of ours"))
        else:
            self._fail(identifier, kind(answer.codespace, answer.detail))

    def _on_block(self, _: int, settled: Sequence[Settled]) -> None:
        """Note what became of transactions that somebody waits for; called where blocks are committed."""
        for one in settled:
            with self._lock:
                waiting = self._waiting.get(one.id)
                if waiting is not None and one.committed is not None:
                    waiting.committed = one.committed
            if waiting is not None and waiting.committed is None and one.error is not None:
                self._fail(one.id, one.error)
        self._wake.set()

    def _fail(self, identifier: bytes, error: FirstlightError) -> None:
        with self._lock:
            waiting = self._waiting.pop(identifier, None)
        for future in () if waiting is None else waiting.futures:
            with contextlib.suppress(InvalidStateError):
                future.set_exception(error)

    # --- reading ----------------------------------------------------------------------------------

    @property
    def chain(self) -> str:
        """The chain's id."""
        return self._replica.genesis.chain

    @property
    def genesis(self) -> Genesis:
        """What the chain began with."""
        return self._replica.genesis

    @property
    def validators(self) -> ValidatorSet:
        """The validators."""
        return self._replica.genesis.validators

    def head(self) -> View:
        """Return the newest head and the state that it proves; :class:`StoreError` (``ledger-not-ready``)."""
        try:
            return self._heads[-1]
        except IndexError:
            raise StoreError("ledger-not-ready", "no header proves the state yet", hint="try again") from None

    def view(self, height: int = 0) -> View:
        """Return the head at ``height`` (0: the newest); :class:`ProofError` (``head-not-kept``) if it is too old."""
        newest = self.head()
        if height in (0, newest.header.height):
            return newest
        for view in reversed(self._heads.copy()):
            if view.header.height == height:
                return view
        raise ProofError("head-not-kept", f"height {height}; the newest is {newest.header.height}")

    def signed(self, height: int = 0) -> SignedBlock | None:
        """Return header, commit and validators of a height (0: the newest head); nothing if there is no such block.

        Raises :class:`StoreError` (``ledger-not-ready``) where CometBFT does not answer.
        """
        if height == 0:
            head = self.head()
            return SignedBlock(head.header, head.commit, head.validators, self._next(head.header.next_validators_hash))
        try:
            found = self._rpc.commit(height)
        except TransportError as error:
            raise StoreError("ledger-not-ready", error.detail, hint="try again") from error
        if found is None:
            return None
        self._verify(found)
        header = found.header
        return SignedBlock(header, found.commit, self.validators, self._next(header.next_validators_hash))

    def _next(self, named: bytes) -> ValidatorSet:
        """Return the validators with that hash; all are those of the genesis."""
        if self.validators.hash() != named:
            raise StoreError("state-differs", "a header names validators that the ledger does not know")
        return self.validators

    def status(self, transaction: bytes) -> Committed | None:
        """Return what became of a transaction, by its id; nothing if it is not committed."""
        return self._replica.store.committed(transaction)

    def counts(self) -> Counts:
        """Return how much there is; transactions since this node began or joined."""
        return Counts(self._replica.store.counts(), self._replica.records, self.head().header.height)

    # --- following (in the engine's thread) -------------------------------------------------------

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait(SECONDS_IDLE)
            self._wake.clear()
            try:
                if self._replica.applied.height > self._seen:
                    self._show(self._replica.applied.height)
            except TransportError as error:
                if self._first.is_set():
                    self._log.refusal(error, step="follow")
                time.sleep(PAUSE)
                self._wake.set()
            except FirstlightError as error:
                self._log.error(error.code, detail=error.detail, step="follow")
                self._seen = self._replica.applied.height
            self._tell(self._head_height())
            self._look_after()

    def _head_height(self) -> int:
        return self._heads[-1].header.height if self._heads else 0

    def _show(self, height: int) -> None:
        """Make the header at ``height`` the newest head, if it proves a state that is kept, and tell who waits.

        Raises :class:`ProofError` if it does not verify, :class:`StoreError` (``state-differs``) if the others'
        application hash is another, :class:`TransportError`.
        """
        found = self._rpc.commit(height)
        if found is None:
            raise TransportError("no-answer", f"CometBFT has no block {height} yet")
        self._verify(found)
        state = self._proven(found)
        if state is not None:
            self._heads.append(View(found.header, found.commit, self.validators, state))
            self._first.set()
        self._seen = height

    def _verify(self, found: SignedCommit) -> None:
        verify_commit(self.chain, self.validators, found.header, found.commit, found.addresses)

    def _proven(self, found: SignedCommit) -> State | None:
        """Return the state that a header proves; nothing right after a restart, when that state is gone."""
        height, app_hash = found.header.height, found.header.app_hash
        before = self._replica.state_at(height - 1)
        if before is not None and before.root != app_hash:
            raise StoreError("state-differs", f"header {height} has another application hash than this node")
        if before is None and (after := self._replica.state_at(height)) is not None and after.root == app_hash:
            return after
        return before

    def _tell(self, height: int) -> None:
        """Answer those whose transaction is in a block below ``height``: that header proves what it did."""
        with self._lock:
            done = [
                identifier
                for identifier, one in self._waiting.items()
                if one.committed is not None and one.committed.height < height
            ]
            told = [self._waiting.pop(identifier) for identifier in done]
        for waiting in told:
            for future in waiting.futures:
                if waiting.committed is not None:
                    with contextlib.suppress(InvalidStateError):
                        future.set_result(waiting.committed)

    def _look_after(self) -> None:
        """Hand in again what has waited for long, and give up what has waited for too long."""
        now = time.monotonic()
        for identifier, waiting in self._waiting.copy().items():
            if waiting.deadline < now:
                self._fail(identifier, _unknown(f"not committed within {self._patience:g} s"))
            elif waiting.again < now and waiting.committed is None:
                waiting.again = now + AGAIN
                with contextlib.suppress(RuntimeError):
                    self._pool.submit(self._hand_in, identifier)


def _unknown(detail: str) -> StoreError:
    return StoreError("commit-unknown", detail, hint="submit the same transaction again: it counts once")
