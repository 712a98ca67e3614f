"""The ledger as an ABCI 2.0 application: what each of CometBFT's requests does to the state machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from enum import IntEnum
from importlib.metadata import version
from typing import Any

from firstlight.chain.commit import Validator, ValidatorSet
from firstlight.engines.abci_messages import kind, nanoseconds
from firstlight.engines.abci_snapshots import FORMAT, Restoring, Shelf
from firstlight.engines.abci_state import Code, Replica, code_of
from firstlight.engines.blocks import APP_VERSION, outcome_bytes
from firstlight.engines.port import Genesis
from firstlight.errors import ConfigError, FirstlightError, MalformedError, ProofError, StoreError
from firstlight.ledger.draft import Result
from firstlight.ledger.records import tree_key
from firstlight.logs import Log

QUERY_PATH = "/record"
PROOF_TYPE = "firstlight:multiproof-1"
RECHECK = 1


class Proposal(IntEnum):
    """What to say of a proposed block."""

    ACCEPT = 1
    REJECT = 2


class Offer(IntEnum):
    """What to say of a snapshot that is offered."""

    ACCEPT = 1
    ABORT = 2
    REJECT = 3
    REJECT_FORMAT = 4


class Apply(IntEnum):
    """What to say of a chunk."""

    ACCEPT = 1
    ABORT = 2
    RETRY = 3
    RETRY_SNAPSHOT = 4
    REJECT_SNAPSHOT = 5


def genesis_state(genesis: Genesis) -> str:
    """Return the ``app_state`` (JSON) of CometBFT's genesis: it pins the genesis of the ledger."""
    return f'{{"genesis":"{hashlib.sha256(genesis.encode()).hexdigest()}"}}'


class Application:
    """Answers ABCI requests (:class:`firstlight.engines.abci_server.Handler`).

    A transaction that is refused is a result; only what this node itself cannot do raises: a database that fails, a
    genesis that is another one.
    """

    def __init__(self, replica: Replica, shelf: Shelf, log: Log) -> None:
        """Answer from ``replica``, offer the snapshots on ``shelf``."""
        self._replica = replica
        self._shelf = shelf
        self._log = log
        self._restoring: Restoring | None = None
        self._answers: Mapping[str, Callable[[Any], Any]] = {
            "echo": lambda request: kind("ResponseEcho")(message=request.message),
            "flush": lambda _: kind("ResponseFlush")(),
            "info": self._info,
            "init_chain": self._init_chain,
            "query": self._query,
            "check_tx": self._check_tx,
            "prepare_proposal": self._prepare_proposal,
            "process_proposal": self._process_proposal,
            "finalize_block": self._finalize_block,
            "commit": self._commit,
            "list_snapshots": self._list_snapshots,
            "offer_snapshot": self._offer_snapshot,
            "load_snapshot_chunk": self._load_snapshot_chunk,
            "apply_snapshot_chunk": self._apply_snapshot_chunk,
        }

    def answer(self, method: str, request: Any) -> Any:
        """Return the answer; :class:`MalformedError` (``unknown-method``: vote extensions), :class:`StoreError`."""
        handle = self._answers.get(method)
        if handle is None:
            raise MalformedError("unknown-method", f"{method} is not enabled")
        return handle(request)

    # --- who we are -------------------------------------------------------------------------------

    def _info(self, _: Any) -> Any:
        """Say which block was the last; a CometBFT that asks has just begun, and its mempool is empty."""
        self._replica.forget_pending()
        applied = self._replica.applied
        return kind("ResponseInfo")(
            data="firstlight",
            version=version("firstlight"),
            app_version=APP_VERSION,
            last_block_height=applied.height,
            last_block_app_hash=applied.app_hash if applied.height else b"",
        )

    def _init_chain(self, request: Any) -> Any:
        """Begin the chain; raises :class:`ConfigError` (``genesis-differs``) if it is not that of our genesis."""
        genesis = self._replica.genesis
        given = [(one.pub_key.ed25519, one.power) for one in request.validators]
        validators = ValidatorSet.ordered(Validator(key, power) for key, power in given)
        expected = (genesis.chain, 1, genesis.time, genesis_state(genesis).encode(), genesis.validators)
        found = (
            request.chain_id,
            request.initial_height,
            nanoseconds(request.time),
            bytes(request.app_state_bytes),
            validators,
        )
        if found != expected:
            raise ConfigError("genesis-differs", "CometBFT's genesis is not that of this ledger")
        return kind("ResponseInitChain")(app_hash=self._replica.applied.app_hash)

    def _query(self, request: Any) -> Any:
        """Return a record by its name (the data of path ``/record``), with its proof if wished.

        What is proven, it is under the header after the height that is answered.
        """
        response = kind("ResponseQuery")
        if request.path != QUERY_PATH:
            return response(code=Code.MALFORMED, codespace="unknown-path", log=f"only {QUERY_PATH} is answered")
        height = request.height or self._replica.applied.height
        state = self._replica.state_at(height)
        if state is None:
            return response(code=Code.PROOF, codespace="head-not-kept", log=f"height {height}")
        try:
            name = bytes(request.data).decode("ascii")
        except UnicodeDecodeError:
            return response(code=Code.MALFORMED, codespace="bad-name", log="a name is ASCII")
        answer = response(key=request.data, value=state.value(name) or b"", height=height)
        if request.prove:
            proof = state.tree.prove([tree_key(name)]).encode()
            answer.proof_ops.ops.add(type=PROOF_TYPE, key=tree_key(name), data=proof)
        return answer

    # --- transactions and blocks ------------------------------------------------------------------

    def _check_tx(self, request: Any) -> Any:
        error = self._replica.check(bytes(request.tx), again=request.type == RECHECK)
        if error is None:
            return kind("ResponseCheckTx")()
        return kind("ResponseCheckTx")(code=code_of(error), codespace=error.code, log=error.detail)

    def _prepare_proposal(self, request: Any) -> Any:
        chosen = self._replica.propose(
            request.height, nanoseconds(request.time), [bytes(one) for one in request.txs], request.max_tx_bytes
        )
        return kind("ResponsePrepareProposal")(txs=chosen)

    def _process_proposal(self, request: Any) -> Any:
        status = Proposal.ACCEPT
        try:
            self._replica.check_block(request.height, nanoseconds(request.time), [bytes(one) for one in request.txs])
        except ProofError as error:
            self._log.refusal(error, height=request.height, step="process-proposal")
            status = Proposal.REJECT
        return kind("ResponseProcessProposal")(status=status)

    def _finalize_block(self, request: Any) -> Any:
        for one in request.misbehavior:
            self._log.warning("validator-misbehaved", peer=bytes(one.validator.address).hex(), height=one.height)
        results, app_hash = self._replica.finalize(
            request.height, nanoseconds(request.time), [bytes(one) for one in request.txs]
        )
        return kind("ResponseFinalizeBlock")(tx_results=[_result(one) for one in results], app_hash=app_hash)

    def _commit(self, _: Any) -> Any:
        self._replica.commit()
        if self._shelf.due(self._replica.applied.height):
            self._shelf.make(self._replica.store.frozen())
        return kind("ResponseCommit")()

    # --- snapshots --------------------------------------------------------------------------------

    def _list_snapshots(self, _: Any) -> Any:
        answer = kind("ResponseListSnapshots")()
        for one in self._shelf.listed():
            answer.snapshots.add(
                height=one.applied.height, format=FORMAT, chunks=len(one.chunks), hash=one.hash, metadata=one.encode()
            )
        return answer

    def _load_snapshot_chunk(self, request: Any) -> Any:
        try:
            data = self._shelf.chunk(request.height, request.chunk) if request.format == FORMAT else b""
        except StoreError:
            data = b""
        return kind("ResponseLoadSnapshotChunk")(chunk=data)

    def _offer_snapshot(self, request: Any) -> Any:
        answer, offered = kind("ResponseOfferSnapshot"), request.snapshot
        if offered.format != FORMAT:
            return answer(result=Offer.REJECT_FORMAT)
        if self._replica.applied.height:
            self._log.warning("snapshot-not-wanted", height=self._replica.applied.height)
            return answer(result=Offer.ABORT)
        try:
            self._restoring = Restoring.of(
                offered.height, bytes(offered.hash), offered.chunks, bytes(offered.metadata), bytes(request.app_hash)
            )
        except (MalformedError, ProofError) as error:
            self._log.refusal(error, height=offered.height)
            return answer(result=Offer.REJECT)
        return answer(result=Offer.ACCEPT)

    def _apply_snapshot_chunk(self, request: Any) -> Any:
        answer, restoring = kind("ResponseApplySnapshotChunk"), self._restoring
        if restoring is None:
            return answer(result=Apply.ABORT)
        try:
            restoring.add(request.index, bytes(request.chunk))
        except (MalformedError, ProofError) as error:
            self._log.refusal(error, height=restoring.snapshot.applied.height)
            return answer(result=Apply.RETRY, refetch_chunks=[request.index], reject_senders=[request.sender])
        if not restoring.complete:
            return answer(result=Apply.ACCEPT)
        self._restoring = None
        try:
            restoring.check()
        except (MalformedError, ProofError) as error:
            self._log.refusal(error, height=restoring.snapshot.applied.height)
            return answer(result=Apply.REJECT_SNAPSHOT)
        self._replica.restore(restoring.snapshot.applied, restoring.records, restoring.page_rows())
        self._log.info("snapshot-restored", height=restoring.snapshot.applied.height)
        return answer(result=Apply.ACCEPT)


def _result(result: Result) -> Any:
    """Return a transaction's result; its number and its data are what validators agree on."""
    if result.outcome is not None:
        return kind("ExecTxResult")(code=Code.OK, data=outcome_bytes(result.outcome))
    error: FirstlightError | None = result.error
    code, detail = ("", "") if error is None else (error.code, error.detail)
    return kind("ExecTxResult")(code=code_of(error), codespace=code, log=detail)
