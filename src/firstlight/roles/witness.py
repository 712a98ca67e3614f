"""A witness: follows a node, believes it nothing, and says which head is the newest that it has verified.

It signs for any gateway (chain, height, header hash, its own time, Merkle root of nonces), for its newest head or one
superseded less than ten seconds ago. It looks for a newer one whenever it is asked for a head that it does not have,
and never signs more than two seconds after it looked, so that no gateway can hold it back by asking for an old one
only. Two headers of one height, both signed by two thirds of the validators, make it stop signing for good: that is a
fork, and for people to look at.

Its memory is one file: the heads that it may still sign, the newest of them with what the next is verified from.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response as Answer
from starlette.routing import Route

from firstlight.chain.block import Header
from firstlight.chain.commit import ValidatorSet, verify_commit
from firstlight.chain.light import SECOND, Policy, Trusted
from firstlight.chain.root import EpochStatement, StatementBytes, known_epoch, known_root
from firstlight.chain.witness import (
    SeenHead,
    WitnessRequest,
    WitnessSignature,
    WitnessStatement,
    choose_head,
    witness,
)
from firstlight.custody.file import SigningKey
from firstlight.custody.system import SystemClock
from firstlight.discovery.bundle import BundleRequest
from firstlight.encoding import Bytes32, ChainId, Count, Record, Seconds, Uint
from firstlight.engines.port import Genesis
from firstlight.errors import ConfigError, MalformedError, ProofError, TransportError
from firstlight.files import read_if_there, write_atomic
from firstlight.logs import Log, adopt_libraries, open_log
from firstlight.ports import Clock, Signer
from firstlight.roles import following
from firstlight.roles.consortium import GENESIS, WITNESS
from firstlight.roles.registration import read_genesis
from firstlight.roles.serving import serve_role
from firstlight.roles.wire import HeaderAnswer, Proofs, ProofsRequest
from firstlight.settings import WitnessSettings, load
from firstlight.transports.client import CBOR, HttpClient
from firstlight.transports.http import application, cbor, read_record

MEMORY = "heads.cbor"
KEPT = 64
LOOKED = 2 * SECOND
"""Nanoseconds after a look at the node for which its newest head counts as the newest."""
_LATEST = 0


@dataclass(frozen=True, slots=True)
class Seen(Record):
    """A head that was verified, and when (Unix seconds)."""

    height: Uint
    header_hash: Bytes32
    verified_at: Seconds


@dataclass(frozen=True, slots=True)
class Memory(Record):
    """What a witness keeps: its newest header with the validators after it, the heads that led there, who governs."""

    LIMIT: ClassVar[int] = 262_144

    chain: ChainId
    header: Header
    next_validators: ValidatorSet
    heads: Annotated[tuple[Seen, ...], Count(KEPT, 1)]
    root: StatementBytes
    epoch: StatementBytes
    forked: bool

    @property
    def trusted(self) -> Trusted:
        """What the next header is verified from."""
        return Trusted(self.header, self.next_validators)

    @property
    def in_force(self) -> EpochStatement:
        """The epoch whose witnesses sign."""
        return known_epoch(self.epoch)

    def seen(self) -> tuple[SeenHead, ...]:
        """Return the heads by height ascending."""
        return tuple(SeenHead(one.height, one.header_hash, one.verified_at) for one in self.heads)

    def hash_at(self, height: int) -> bytes | None:
        """Return the hash of the header at ``height``, if it was verified and is remembered."""
        return next((one.header_hash for one in self.heads if one.height == height), None)

    def reached(self, known: Trusted, verified_at: int) -> Memory:
        """Return the memory with a newer header."""
        seen = Seen(known.header.height, known.header.hash(), verified_at)
        heads = (*self.heads, seen)[-KEPT:]
        return replace(self, header=known.header, next_validators=known.next_validators, heads=heads)


@dataclass(frozen=True, slots=True)
class Follower:
    """What a witness follows: the chain from its genesis, through the node at a URL, with what policy."""

    genesis: Genesis
    client: HttpClient
    node: str
    policy: Policy

    async def fetch(self, height: int) -> HeaderAnswer:
        """Return what the node says is the header of ``height`` (0: the newest); :class:`TransportError`."""
        which = "latest" if height == _LATEST else str(height)
        body = await self.client.get(f"{self.node.rstrip('/')}/v1/headers/{which}", accept=CBOR, retries=1)
        try:
            return HeaderAnswer.decode(body)
        except MalformedError as error:
            raise TransportError("bad-response", f"the node's header: {error}") from error

    async def proofs(self, root: int) -> Proofs:
        """Return who governs under the newest head, for somebody who knows that version of the root."""
        request = ProofsRequest((BundleRequest(bytes(32), 0, root, 0, None, 0, 0, ()),))
        body = await self.client.post(f"{self.node.rstrip('/')}/v1/proofs", request.encode(), retries=1)
        try:
            return Proofs.decode(body)
        except MalformedError as error:
            raise TransportError("bad-response", f"the node's proofs: {error}") from error


class Witness:
    """Follows a chain and signs its heads."""

    def __init__(self, follower: Follower, signer: Signer, clock: Clock, path: Path, log: Log) -> None:
        """Go on from the memory in ``path``, if there is one.

        Raises :class:`ConfigError` (``not-a-witness``, ``wrong-chain``), :class:`StoreError`, :class:`MalformedError`.
        """
        self._follower = follower
        self._signer = signer
        self._clock = clock
        self._path = path
        self._log = log
        self._following = asyncio.Lock()
        self._memory = _remembered(path, follower.genesis.chain)
        epoch = known_epoch(follower.genesis.epoch if self._memory is None else self._memory.epoch)
        if signer.public not in epoch.witnesses:
            raise ConfigError("not-a-witness", "the key in this directory is not a witness of the chain's epoch")
        self._looked = 0
        self._governed = 0

    async def sign(self, request: WitnessRequest) -> WitnessSignature:
        """Return the signature over a head and nonces.

        1. The request is for this chain (``wrong-chain``); 2. no fork was seen (``chain-forked``); 3. the head is the
        newest verified or superseded less than ten seconds ago (``witness-unknown-head``,
        ``witness-superseded-head``); one that is not known is looked for first. Raises :class:`ProofError`, and
        :class:`TransportError` where the node cannot be asked.
        """
        if request.chain != self._follower.genesis.chain:
            raise ProofError("wrong-chain", f"a request for {request.chain}")
        memory = await self._up_to(request.height)
        if memory.forked:
            raise ProofError("chain-forked", "two headers of one height have been seen")
        now = self._clock.now() // SECOND
        head = choose_head(memory.seen(), request.height, now)
        statement = WitnessStatement(request.chain, head.height, head.header_hash, now, request.nonce_root)
        return witness(statement, memory.in_force, self._signer)

    async def _up_to(self, height: int) -> Memory:
        """Return the memory, brought up to date unless that was done just now and it has the head at ``height``."""
        memory = self._current(height)
        if memory is not None:
            return memory
        async with self._following:
            return self._current(height) or await self._catch_up(height)

    def _current(self, height: int) -> Memory | None:
        """Return the memory if it is fresh enough to sign ``height`` from."""
        memory = self._memory
        fresh = 0 <= self._clock.now() - self._looked < LOOKED
        return memory if fresh and memory is not None and height <= memory.header.height else None

    async def _catch_up(self, height: int) -> Memory:
        """Verify the newest header, and on the way the one at ``height``."""
        now = self._clock.now()
        memory = self._memory
        if memory is None:
            memory = self._first(await following.begin(self._follower.genesis, self._follower.fetch))
        newest = await self._follower.fetch(_LATEST)
        if memory.header.height < height < newest.header.height:
            memory = await self._follow(memory, await self._follower.fetch(height))
        memory = await self._follow(memory, newest)
        if memory.header.height != self._governed and not memory.forked:
            memory = await self._govern(memory)
        self._looked = now
        return memory

    async def _govern(self, memory: Memory) -> Memory:
        """Learn which epoch is in force under the newest header; if the node has moved on, the next look will tell."""
        found = following.governed(
            memory.root, memory.header, await self._follower.proofs(known_root(memory.root).version)
        )
        if found is None:
            return memory
        self._governed = memory.header.height
        root, epoch = found
        return memory if found == (memory.root, memory.epoch) else self._keep(replace(memory, root=root, epoch=epoch))

    async def _follow(self, memory: Memory, target: HeaderAnswer) -> Memory:
        """Verify ``target``, remember it durably, and look whether it agrees with what was verified before."""
        known = memory.hash_at(target.header.height)
        if known is not None and known != target.header.hash():
            return self._conflict(memory, target)
        if target.header.height <= memory.header.height:
            return memory
        now = self._clock.now()
        reached = await following.follow(memory.trusted, target, self._follower.fetch, self._follower.policy, now)
        return self._keep(memory.reached(reached, min(now, reached.header.time) // SECOND))

    def _conflict(self, memory: Memory, target: HeaderAnswer) -> Memory:
        """Stop for good if the other header is committed too; else raise what is wrong with it."""
        chain = self._follower.genesis.chain
        verify_commit(chain, target.validators, target.header, target.commit)
        if target.header.validators_hash != memory.in_force.validators_hash:
            raise ProofError("next-validators", "not the validators of the epoch")
        self._log.error("chain-forked", height=target.header.height)
        return self._keep(replace(memory, forked=True))

    def _first(self, known: Trusted) -> Memory:
        seen = Seen(known.header.height, known.header.hash(), known.header.time // SECOND)
        begun = self._follower.genesis
        return self._keep(
            Memory(begun.chain, known.header, known.next_validators, (seen,), begun.root, begun.epoch, False)
        )

    def _keep(self, memory: Memory) -> Memory:
        write_atomic(self._path, memory.encode())
        self._memory = memory
        return memory


def _remembered(path: Path, chain: str) -> Memory | None:
    data = read_if_there(path, Memory.LIMIT)
    if data is None:
        return None
    memory = Memory.decode(data)
    if memory.chain != chain:
        raise ConfigError("wrong-chain", f"{path} is of {memory.chain}")
    return memory


# --- serving ----------------------------------------------------------------------------------


def witness_app(witness_: Witness, log: Log) -> Starlette:
    """Return the web application of a witness."""

    async def sign(request: Request) -> Answer:
        return cbor(await witness_.sign(await read_record(request, WitnessRequest)))

    return application("witness", [Route("/v1/witness", sign, methods=["POST"])], log=log)


def open_witness(state_dir: Path, node: str | None, client: HttpClient, log: Log, clock: Clock) -> Witness:
    """Return the witness of a state directory; ``node`` overrides its settings.

    Raises :class:`ConfigError` (``no-node`` and what settings and genesis raise), :class:`StoreError`.
    """
    settings = load(WitnessSettings, state_dir)
    url = node or settings.node
    if url is None:
        raise ConfigError("no-node", "no node to follow", hint='--node URL, or node = "URL" in witness.toml')
    genesis = read_genesis(state_dir / GENESIS)
    policy = Policy.of_days(settings.trusting_days)
    follower = Follower(genesis, client, url, policy)
    return Witness(follower, SigningKey.load(state_dir / WITNESS), clock, state_dir / MEMORY, log)


async def serve_witness(state_dir: Path, node: str | None = None) -> None:
    """Run the witness of a state directory until SIGTERM or SIGINT; errors as :func:`open_witness`."""
    settings = load(WitnessSettings, state_dir)
    clock = SystemClock()
    log = open_log(state_dir, "witness", clock)
    adopt_libraries(log)
    async with HttpClient() as client:
        app = witness_app(open_witness(state_dir, node, client, log, clock), log)
        await serve_role(app, state_dir, settings)
