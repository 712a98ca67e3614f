"""A ledger node: an engine behind HTTP, the embedded one or CometBFT.

Submissions go to the engine, whose thread puts what comes together into one block; proofs are made in one worker
thread, so that the event loop waits for neither. The URLs of witnesses stand in ``witnesses.json`` of the state
directory, which is read again when it has changed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, TypeVarTuple

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response as Answer
from starlette.routing import Route

from firstlight.custody.file import ValidatorKey
from firstlight.custody.system import SystemClock
from firstlight.discovery.bundle import BundleRequest
from firstlight.engines.embedded import EmbeddedEngine
from firstlight.engines.port import Committed, Engine
from firstlight.errors import ConfigError, MalformedError, ProofError, RuleError, SignatureError
from firstlight.files import private_directory
from firstlight.ledger.transaction import MAX_BYTES, parse
from firstlight.logs import Log, adopt_libraries, open_log
from firstlight.ports import Clock
from firstlight.roles.attesters import AskedWitnesses, WitnessFile
from firstlight.roles.bundles import BundleService
from firstlight.roles.consortium import VALIDATOR
from firstlight.roles.registration import read_genesis
from firstlight.roles.serving import serve_role
from firstlight.roles.sources import EngineSource
from firstlight.roles.wire import HeaderAnswer, ProofsRequest, TransactionAnswer
from firstlight.settings import NodeSettings, load
from firstlight.transports.client import CBOR, HttpClient, Limits
from firstlight.transports.http import application, as_json, cbor, raw, read_body, read_record

WITNESS_LIMITS = Limits(seconds=5.0, connect_seconds=2.0, response=1_024)
START_SECONDS = 30.0
"""How long a node waits for its first head before it serves all the same."""
_DIGITS = 19
_HIGHEST = 2**63 - 1
_R = TypeVar("_R")
_P = TypeVarTuple("_P")


@dataclass(frozen=True, slots=True)
class Node:
    """What a node serves from."""

    engine: Engine
    executor: ThreadPoolExecutor
    source: EngineSource
    bundles: BundleService
    log: Log

    async def submit(self, data: bytes) -> Committed:
        """Return what a transaction did once it is durable; one that is committed already: what it did then.

        Raises :class:`RuleError` with the code of whatever refused it, :class:`MalformedError` if it is none,
        :class:`StoreError`.
        """
        try:
            committed = await asyncio.wrap_future(self.engine.submit_soon(data))
        except RuleError as error:
            if error.code != "already-committed":
                raise
            return await self.status(parse(data).id)
        except (SignatureError, ProofError) as error:
            raise RuleError(error.code, error.detail, hint=error.hint) from error
        one = committed
        self.log.info("committed", transaction=one.id, height=one.height, step=one.kind.label, tenure=one.tenure)
        return committed

    async def status(self, identifier: bytes) -> Committed:
        """Return what a committed transaction did; :class:`MalformedError` (``not-found``)."""
        found = await self.in_thread(self.engine.status, identifier)
        if found is None:
            raise MalformedError("not-found", "no such transaction is committed")
        return found

    async def header(self, which: str) -> HeaderAnswer:
        """Return the header of a height, or the newest; :class:`MalformedError` (``not-found``)."""
        height = 0
        if which != "latest":
            if not which.isdecimal() or not which.isascii() or len(which) > _DIGITS or int(which) > _HIGHEST:
                raise MalformedError("not-found", "a height is a number, or latest")
            height = int(which)
        found = await self.in_thread(self.engine.signed, height) if which == "latest" or height else None
        if found is None:
            raise MalformedError("not-found", f"no block at height {which}")
        return HeaderAnswer(found.header, found.commit, found.validators, found.next_validators)

    async def counts(self) -> dict[str, object]:
        """Return how much there is on the ledger."""
        counts = await self.in_thread(self.engine.counts)
        by_kind = {kind.label: number for kind, number in sorted(counts.transactions.items())}
        return {
            "chain": self.engine.chain,
            "height": counts.height,
            "transactions": counts.total,
            "by_kind": by_kind,
            "records": counts.records,
        }

    async def in_thread(self, call: Callable[[*_P], _R], *arguments: *_P) -> _R:
        """Return what a call to the engine returns, made off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, call, *arguments)


def node_app(node: Node, log: Log) -> Starlette:
    """Return the web application of a node."""

    async def submit(request: Request) -> Answer:
        return cbor(TransactionAnswer.of(await node.submit(await read_body(request, MAX_BYTES))))

    async def status(request: Request) -> Answer:
        return cbor(TransactionAnswer.of(await node.status(_identifier(request.path_params["id"]))))

    async def header(request: Request) -> Answer:
        return cbor(await node.header(request.path_params["height"]))

    async def proofs(request: Request) -> Answer:
        wanted = await read_record(request, ProofsRequest)
        return cbor(await node.source.prove(wanted.requests))

    async def bundle(request: Request) -> Answer:
        return raw(await node.bundles.answer(await read_record(request, BundleRequest)), CBOR)

    async def counts(_: Request) -> Answer:
        return as_json(await node.counts())

    routes = [
        Route("/v1/transactions", submit, methods=["POST"]),
        Route("/v1/transactions/{id}", status),
        Route("/v1/headers/{height}", header),
        Route("/v1/proofs", proofs, methods=["POST"]),
        Route("/v1/bundles", bundle, methods=["POST"]),
        Route("/v1/counts", counts),
    ]
    return application("node", routes, log=log)


def _identifier(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise MalformedError("not-found", "a transaction's id is 64 hexadecimal digits") from error


@contextlib.asynccontextmanager
async def running(engine: Engine, state_dir: Path, log: Log, *, witnesses: Sequence[str] = ()) -> AsyncIterator[Node]:
    """Run a node over an open ``engine``; ``witnesses`` are asked beside those in the state directory's file."""
    executor = ThreadPoolExecutor(1, "firstlight-node")
    try:
        async with HttpClient(WITNESS_LIMITS) as client:
            asked = AskedWitnesses(client, WitnessFile(state_dir, witnesses).urls, log=log)
            source = EngineSource(engine, executor)
            bundles = BundleService(source, asked)
            try:
                yield Node(engine, executor, source, bundles, log)
            finally:
                await bundles.close()
                await asked.close()
    finally:
        executor.shutdown()


def open_engine(state_dir: Path, clock: Clock) -> EmbeddedEngine:
    """Open the ledger of a state directory, which begins with its genesis if there is none yet.

    Raises what :meth:`EmbeddedEngine.open` raises (``ledger-locked``: another process has it), and
    :class:`firstlight.errors.ConfigError` of settings and genesis.
    """
    settings = load(NodeSettings, state_dir)
    signer = ValidatorKey.load(state_dir / VALIDATOR)
    database = state_dir / settings.database
    genesis = None if database.exists() else read_genesis(state_dir / settings.genesis)
    return EmbeddedEngine.open(database, signer=signer, clock=clock, genesis=genesis)


@contextlib.contextmanager
def engine_of(state_dir: Path, settings: NodeSettings, clock: Clock, log: Log) -> Iterator[Engine]:
    """Run the engine that the settings name; errors as :func:`open_engine` and :func:`on_comet`."""
    if settings.engine == "cometbft":
        with on_comet(state_dir, settings, clock, log) as engine:
            yield engine
    else:
        with open_engine(state_dir, clock) as embedded:
            yield embedded


@contextlib.contextmanager
def on_comet(state_dir: Path, settings: NodeSettings, clock: Clock, log: Log) -> Iterator[Engine]:
    """Run the ledger on CometBFT: one that is started and watched, or one that runs already (setting ``rpc``).

    Without ``validator.pem`` the node follows the others and does not vote. Raises :class:`ConfigError`
    (``cometbft-missing``, ``cometbft-version``, ``protobuf-missing``) and what :func:`open_engine` raises.
    """
    with _extra():
        from firstlight.engines.cometbft_home import Peers
        from firstlight.engines.cometbft_node import Own, Running
        from firstlight.engines.cometbft_node import running as running_comet
        from firstlight.engines.cometbft_process import find
    how: Own | Running
    if settings.rpc is None:
        key = state_dir / VALIDATOR
        secret = ValidatorKey.load(key).handed_over() if key.exists() else None
        peers = Peers(settings.peer_host, settings.peer_port, settings.peers)
        how = Own(find(settings.cometbft), peers, secret, settings.chain, settings.idle_seconds)
    else:
        how = Running(settings.rpc, settings.abci)
    genesis = read_genesis(state_dir / settings.genesis)
    database = state_dir / settings.database
    blocks = settings.snapshot_blocks
    with running_comet(state_dir, database, genesis, how, clock=clock, log=log, snapshot_blocks=blocks) as engine:
        if not engine.wait_ready(START_SECONDS):
            log.warning("ledger-not-ready", detail="no block yet: are enough of the other validators there?")
        yield engine


def peer_address(state_dir: Path) -> str:
    """Return where other validators reach the CometBFT of a state directory: ``ID@host:port``; :class:`ConfigError`."""
    settings = load(NodeSettings, state_dir)
    with _extra():
        from firstlight.engines.cometbft_home import Peers, address
        from firstlight.engines.cometbft_node import HOME
    return address(private_directory(state_dir / HOME), Peers(settings.peer_host, settings.peer_port))


@contextlib.contextmanager
def _extra() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ConfigError("protobuf-missing", str(error), hint="pip install 'firstlight[cometbft]'") from error


async def serve_node(
    state_dir: Path, witnesses: Sequence[str] = (), *, engine: str | None = None, rpc: str | None = None
) -> None:
    """Run the node of a state directory until SIGTERM or SIGINT; errors as :func:`engine_of`.

    ``engine`` and ``rpc`` stand in the place of those of the settings.
    """
    settings = load(NodeSettings, state_dir)
    if engine is not None or rpc is not None:
        settings = replace(settings, engine=engine or "cometbft", rpc=rpc or settings.rpc)
    clock = SystemClock()
    log = open_log(state_dir, "node", clock)
    adopt_libraries(log)
    with engine_of(state_dir, settings, clock, log) as ledger:
        async with running(ledger, state_dir, log, witnesses=witnesses) as node:
            await serve_role(node_app(node, log), state_dir, settings)
