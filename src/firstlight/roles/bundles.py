"""Proof bundles by the hundred: requests that come close together share a head, its proofs and the witnesses' work.

Used by the node, whose proofs come from its engine, and by the gateway, which asks a node. Requests gather for a few
milliseconds; then one call to the source proves them all, one request goes to each witness over the Merkle root of
all nonces, and each asker gets what he needs of it. What the source has encoded already is not decoded here: a bundle
is put together from the encodings of its parts.

Nothing here is trusted by anybody: whoever asks verifies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from firstlight.chain.root import EpochStatement, known_epoch
from firstlight.chain.witness import NonceProof, WitnessSignature, nonce_proofs
from firstlight.discovery.bundle import BundleRequest, Freshness
from firstlight.encoding import encode
from firstlight.errors import FirstlightError, MalformedError, ProofError, TransportError
from firstlight.roles.wire import MAX_PROOFS, Proofs, ProvenState

WINDOW = 0.003
"""Seconds for which the first request waits for others."""
MAX_WAITING = 4_096
MAX_RUNNING = 2
_THREE = b"\x83"
_NULL = encode(None)


class ProofSource(Protocol):
    """Where heads and proofs come from."""

    async def prove(self, requests: Sequence[BundleRequest]) -> Proofs:
        """Return the newest head and one proof for each of at most 128 requests; errors as the source has them."""
        ...


@dataclass(frozen=True, slots=True)
class Head:
    """What witnesses are asked to sign: a head by chain, height and hash, and the epoch that it is in."""

    chain: str
    height: int
    hash: bytes
    epoch: EpochStatement


class Witnesses(Protocol):
    """Who says that a head is the newest."""

    async def attest(self, head: Head, nonce_root: bytes) -> tuple[WitnessSignature, ...]:
        """Return as many signatures as the epoch asks for, ascending; nothing if there are not enough."""
        ...


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A request, and who waits for the answer."""

    request: BundleRequest
    answer: asyncio.Future[bytes]


class BundleService:
    """Answers bundle requests. One for each event loop."""

    def __init__(self, source: ProofSource, witnesses: Witnesses, *, window: float = WINDOW) -> None:
        """Prove from ``source`` and let ``witnesses`` sign; ``window`` is in seconds."""
        self._source = source
        self._witnesses = witnesses
        self._window = window
        self._waiting: list[_Waiting] = []
        self._timer: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[None]] = set()
        self.height = 0
        """The newest height that was seen."""

    async def answer(self, request: BundleRequest) -> bytes:
        """Return the encoded :class:`Bundle`, or :class:`StateProof` if the request names a height.

        Raises :class:`TransportError` (``busy``), and what the source raises or says about this request.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise TransportError("busy", f"{MAX_WAITING} requests are waiting")
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(request, answer))
        self._arm()
        return await answer

    async def close(self) -> None:
        """Let what is under way end."""
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _arm(self) -> None:
        """See to it that those who wait are served: after the window, or when one of the runs has ended."""
        if self._timer is None and len(self._running) < MAX_RUNNING:
            self._timer = asyncio.get_running_loop().call_later(self._window, self._start)

    def _start(self) -> None:
        self._timer = None
        batch, self._waiting = self._waiting[:MAX_PROOFS], self._waiting[MAX_PROOFS:]
        batch = [one for one in batch if not one.answer.done()]
        if batch:
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._ended)
        if self._waiting:
            self._arm()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if self._waiting:
            self._arm()

    async def _run(self, batch: Sequence[_Waiting]) -> None:
        try:
            proofs = await self._source.prove([one.request for one in batch])
            if len(proofs.states) != len(batch):
                raise TransportError("bad-response", "not one proof for each request")
            await self._finish(batch, _Shared(proofs))
        except FirstlightError as error:
            for one in batch:
                _fail(one, error)
        finally:
            for one in batch:
                _fail(one, TransportError("busy", "the server is closing"))

    async def _finish(self, batch: Sequence[_Waiting], shared: _Shared) -> None:
        fresh: list[tuple[_Waiting, bytes]] = []
        for one, state in zip(batch, shared.states, strict=True):
            if state.proof is None:
                _fail(one, _refusal(state))
            elif one.request.height:
                _succeed(one, state.proof)
            else:
                fresh.append((one, state.proof))
        if not fresh:
            return
        self.height = max(self.height, shared.head.height)
        root, paths = nonce_proofs([one.request.nonce for one, _ in fresh])
        signatures = await self._witnesses.attest(shared.head, root)
        for (one, state_bytes), path in zip(fresh, paths, strict=True):
            _succeed(one, shared.bundle(one.request, _freshness(path, signatures), state_bytes))


class _Shared:
    """What all requests of one batch have in common."""

    def __init__(self, proofs: Proofs) -> None:
        """Read the head; :class:`MalformedError` if it has no epoch."""
        if proofs.head.epoch is None:
            raise MalformedError("bad-response", "a head without its epoch")
        self._proofs = proofs
        self._encoded: dict[tuple[int, int], bytes] = {}
        self.states = proofs.states
        epoch = known_epoch(proofs.head.epoch)
        header = proofs.head.header
        self.head = Head(epoch.chain, header.height, proofs.head.hash(epoch.chain), epoch)

    def bundle(self, request: BundleRequest, freshness: bytes, state: bytes) -> bytes:
        """Return the encoded bundle for one asker."""
        known = request.known_root, request.known_epoch
        head = self._encoded.get(known)
        if head is None:
            head = self._encoded[known] = self._head(*known)
        return _THREE + head + freshness + state

    def _head(self, known_root: int, known_epoch_number: int) -> bytes:
        """Return the encoded head without what the asker knows."""
        whole = self._proofs.head
        roots = whole.roots[max(0, known_root + 1 - self._proofs.first_root) :]
        same = not roots and known_epoch_number == self.head.epoch.number
        return replace(whole, roots=roots, epoch=None if same else whole.epoch).encode()


def _freshness(nonce: NonceProof, signatures: tuple[WitnessSignature, ...]) -> bytes:
    return Freshness(nonce, signatures).encode() if signatures else _NULL


def _refusal(state: ProvenState) -> FirstlightError:
    """Return a source's refusal of one request as an error of the kind that it was."""
    kind = MalformedError if state.code in {"bad-prefix", "bad-claims", "wrong-shape"} else ProofError
    return kind(state.code or "not-proven", state.detail)


def _succeed(one: _Waiting, answer: bytes) -> None:
    if not one.answer.done():
        one.answer.set_result(answer)


def _fail(one: _Waiting, error: FirstlightError) -> None:
    if not one.answer.done():
        one.answer.set_exception(error)
