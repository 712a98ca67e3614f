"""Where a bundle service gets its proofs: the engine of this process, or a node over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor

from firstlight.discovery.bundle import BundleRequest
from firstlight.engines.port import Engine
from firstlight.errors import FirstlightError, MalformedError, TransportError
from firstlight.roles.wire import MAX_PROOFS, Proofs, ProofsRequest, ProvenState
from firstlight.transports.body import CBOR, Poster


class EngineSource:
    """The proofs of an engine (:class:`firstlight.roles.bundles.ProofSource`), made in a thread of ``executor``."""

    def __init__(self, engine: Engine, executor: Executor) -> None:
        """Prove what ``engine`` holds."""
        self._engine = engine
        self._executor = executor

    async def prove(self, requests: Sequence[BundleRequest]) -> Proofs:
        """Return the newest head and a proof for each request; one that cannot be proven carries its code."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, prove, self._engine, requests)


def prove(engine: Engine, requests: Sequence[BundleRequest]) -> Proofs:
    """Return what ``engine`` proves under its newest head, or for a request that names one under that."""
    view = engine.head()
    newest = view.state.governance().root_version
    known = min((one.known_root for one in requests if not one.height), default=0)
    known = min(known, newest)  # whoever claims to know more gets no roots, like one who knows the newest
    head = view.head_proof(known, 0)
    states = []
    for request in requests:
        try:
            under = view if request.height == 0 else engine.view(request.height)
            states.append(ProvenState(under.state_proof(request).encode(), "", ""))
        except FirstlightError as error:
            states.append(ProvenState(None, error.code, error.detail[:400]))
    return Proofs(known + 1, head, tuple(states))


class NodeSource:
    """The proofs of a node (:class:`firstlight.roles.bundles.ProofSource`)."""

    def __init__(self, client: Poster, node: str) -> None:
        """Ask the node at URL ``node``."""
        self._client = client
        self._url = f"{node.rstrip('/')}/v1/proofs"

    async def prove(self, requests: Sequence[BundleRequest]) -> Proofs:
        """Return what the node answers; :class:`TransportError`."""
        if len(requests) > MAX_PROOFS:
            raise MalformedError("too-many-requests", f"{len(requests)}, at most {MAX_PROOFS}")
        body = ProofsRequest(tuple(requests)).encode()
        answer = await self._client.post(self._url, body, content_type=CBOR, retries=1)
        try:
            return Proofs.decode(answer)
        except MalformedError as error:
            raise TransportError("bad-response", f"the node's proofs: {error}") from error
