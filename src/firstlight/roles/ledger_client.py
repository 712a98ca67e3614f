"""The ledger as a role sees it: transactions go in through a node, and nothing that it says is believed unproven.

What is read is proven, with a fresh nonce, under a head that witnesses attest to (:func:`verify_bundle`). What the
role has learnt of the chain's roots, epochs and heights it keeps in one file, so that it never goes back.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar

from firstlight.discovery.bundle import MAX_NAMES, Bundle, BundleRequest, StateProof
from firstlight.discovery.verify import Trust, View, verify_bundle, verify_follow_up
from firstlight.encoding import Record
from firstlight.engines.port import Genesis
from firstlight.errors import ConfigError, MalformedError, ProofError, RuleError, TransportError
from firstlight.files import read_if_there, read_limited, remove, write_atomic
from firstlight.ledger.records import Batch, Party, Tenure, TenureState, batch_name, party_name, tenure_name
from firstlight.ledger.transaction import (
    MAX_BYTES,
    Accept,
    Deploy,
    Freeze,
    Offer,
    Recover,
    Retire,
    Transaction,
    Unfreeze,
    Withdraw,
    parse,
)
from firstlight.ports import Random
from firstlight.roles.wire import HeaderAnswer, TransactionAnswer
from firstlight.transports.client import CBOR, RemoteError, Response, SyncClient

MEMORY = "ledger.cbor"
NONCE = 32
PATIENCE = 20.0
"""Seconds to wait until a head shows what was just committed."""
PAUSE = 0.05
_RETRIES = 3
_TRIES = 3
_OWNERS = (Offer, Accept, Withdraw, Deploy, Freeze, Unfreeze, Retire, Recover)
_R = TypeVar("_R", bound=Record)


class _NotFreshError(ProofError):
    """No witness has signed; the next time they may."""


class Http(Protocol):
    """What is needed of an HTTP client (:class:`firstlight.transports.client.SyncClient`)."""

    def request(
        self, method: str, url: str, *, body: bytes = b"", content_type: str | None = None, retries: int = 0
    ) -> Response:
        """Send one request."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


@dataclass(frozen=True, slots=True)
class Submitted:
    """A transaction that is committed: its id and the height of its block."""

    id: bytes
    height: int


class LedgerClient:
    """A role's access to the ledger; a context manager.

    Everything that is read shows at least what this object has submitted. Raises :class:`TransportError` where the
    node cannot be reached, is late (``view-behind``) or answers nonsense, :class:`ProofError` where it lies.
    """

    def __init__(
        self,
        node: str,
        genesis: Genesis,
        memory: Path,
        *,
        random: Random,
        http: Http | None = None,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read through the node at URL ``node``; keep what is learnt in the file ``memory``.

        Raises :class:`ConfigError` (``wrong-chain``) if the memory is of another chain, :class:`StoreError`.
        """
        self._node = node.rstrip("/")
        self._memory = memory
        self._random = random
        self._http: Http = http if http is not None else SyncClient()
        self._sleep = sleep
        self._monotonic = monotonic
        self._genesis = genesis
        self._trust = _remembered(memory, genesis)
        self._committed = 0
        self.chain = genesis.chain

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    # --- writing ----------------------------------------------------------------------------------

    def submit(self, transaction: bytes) -> Submitted:
        """Submit a transaction and return once it is committed. The same one may be submitted again.

        What an owner does is believed once the ledger proves it, whatever the node says. Raises :class:`RuleError` with
        the code of the rule that refused it, :class:`ProofError` (``not-committed``) where the node says that it is
        done and the ledger proves that it is not.
        """
        parsed = parse(transaction)
        identifier = parsed.id
        try:
            body = self._post("transactions", transaction)
        except RemoteError as error:
            if error.status >= 500:
                raise
            raise RuleError(error.code, error.detail, hint=error.hint) from error
        answer = _decoded(TransactionAnswer, body)
        if answer.id != identifier or answer.code != "ok":
            raise TransportError("bad-response", "the node answers about another transaction")
        self._committed = max(self._committed, answer.height)
        if not self._counted(parsed):
            raise ProofError("not-committed", "the node says that it is done, and the ledger proves that it is not")
        return Submitted(identifier, answer.height)

    def _counted(self, transaction: Transaction) -> bool:
        """Say whether the ledger proves that a transaction about a tenure has counted.

        A transaction counts by its sequence, which its tenure's origin keeps; a recovery puts its own key there, and an
        offer that is taken back is one no more.
        """
        body = transaction.body
        if not isinstance(body, _OWNERS):
            return True
        tenure = self.tenure(body.batch, body.tenure)
        match body:
            case Recover():
                return tenure.key == body.key
            case Accept() | Withdraw():
                return tenure.state is not TenureState.OFFERED
        origin = tenure if tenure.origin == body.tenure else self.tenure(body.batch, tenure.origin)
        return origin.sequence >= transaction.sequence

    def submit_kept(self, path: Path, make: Callable[[], bytes]) -> Submitted:
        """Submit the transaction that is kept in the file ``path``, or one that ``make`` returns, which is kept first.

        So what was interrupted goes on, and nothing counts twice. One that is refused is kept no longer; one that
        was kept before, and whose sequence has since been used otherwise, is made anew. Errors as :meth:`submit`.
        """
        if path.exists():
            try:
                return self.submit(read_limited(path, MAX_BYTES))
            except RuleError as error:
                remove(path)
                if error.code != "wrong-sequence":
                    raise
        transaction = make()
        write_atomic(path, transaction)
        try:
            return self.submit(transaction)
        except RuleError:
            remove(path)
            raise

    # --- reading ----------------------------------------------------------------------------------

    def view(self, *names: str, batch: bytes | None = None, prefix: tuple[int, int] = (0, 0)) -> View:
        """Open the newest head and return what is proven under it about ``names`` and a batch's ``prefix``.

        It is written down what was learnt of the chain. Raises :class:`ProofError`: as :func:`verify_bundle`, and
        ``not-fresh`` without witnesses.
        """
        end = self._monotonic() + PATIENCE
        while True:
            view = self._newest(names[:MAX_NAMES], batch, prefix)
            if view.height > self._committed or not self._committed:
                break
            if self._monotonic() > end:
                raise TransportError("view-behind", f"the node shows height {view.height} only")
            self._sleep(PAUSE)
        self._remember(view)
        for at in range(MAX_NAMES, len(names), MAX_NAMES):
            more = self.follow(view, *names[at : at + MAX_NAMES])
            view = replace(view, records={**view.records, **more.records})
        return view

    def follow(self, view: View, *names: str, batch: bytes | None = None, prefix: tuple[int, int] = (0, 0)) -> View:
        """Return what is proven about at most 32 ``names`` and a prefix under the head that ``view`` has opened."""
        request = replace(
            view.trust.request(self._random.bytes(NONCE), batch=batch, prefix=prefix, names=names), height=view.height
        )
        state = _decoded(StateProof, self._ask(request))
        return verify_follow_up(state, request, view=view)

    def header(self, height: int) -> HeaderAnswer:
        """Return what the node says is the header of ``height``; nothing of it is verified here."""
        url = f"{self._node}/v1/headers/{height}"
        return _decoded(HeaderAnswer, self._http.request("GET", url, retries=_RETRIES).body)

    def records(self, *names: str) -> Mapping[str, Record | None]:
        """Return records by name under the newest head, nothing for one that does not exist."""
        return self.view(*names).records

    def party(self, party: bytes) -> Party:
        """Return a party's record; :class:`ProofError` (``unknown-party``)."""
        return self._one(party_name(party), Party, "unknown-party")

    def batch(self, batch: bytes) -> Batch:
        """Return a batch's record; :class:`ProofError` (``unknown-batch``)."""
        return self._one(batch_name(batch), Batch, "unknown-batch")

    def tenure(self, batch: bytes, number: int) -> Tenure:
        """Return a tenure's record; :class:`ProofError` (``unknown-tenure``)."""
        return self._one(tenure_name(batch, number), Tenure, "unknown-tenure")

    def _one(self, name: str, kind: type[_R], code: str) -> _R:
        return record_of(self.view(name), name, kind, code)

    def _newest(self, names: tuple[str, ...], batch: bytes | None, prefix: tuple[int, int]) -> View:
        """Open the newest head; witnesses that were too slow or too far behind are asked again, twice."""
        for _ in range(_TRIES - 1):
            with contextlib.suppress(_NotFreshError):
                return self._open(names, batch, prefix)
            self._sleep(PAUSE)
        return self._open(names, batch, prefix)

    def _open(self, names: tuple[str, ...], batch: bytes | None, prefix: tuple[int, int]) -> View:
        request = self._trust.request(self._random.bytes(NONCE), batch=batch, prefix=prefix, names=names)
        bundle = _decoded(Bundle, self._ask(request))
        if bundle.freshness is None:
            raise _NotFreshError("not-fresh", "no witness says that this is the newest state")
        return verify_bundle(bundle, request, trust=self._trust)

    def _ask(self, request: BundleRequest) -> bytes:
        return self._post("bundles", request.encode())

    def _post(self, what: str, body: bytes) -> bytes:
        url = f"{self._node}/v1/{what}"
        return self._http.request("POST", url, body=body, content_type=CBOR, retries=_RETRIES).body

    def _remember(self, view: View) -> None:
        self._trust = replace(view.trust, tenure=0, revision=0)
        if _remembered(self._memory, self._genesis).height < self._trust.height:
            write_atomic(self._memory, self._trust.encode())


def record_of(view: View, name: str, kind: type[_R], code: str) -> _R:
    """Return the record ``name`` from what ``view`` proves; :class:`ProofError` with ``code`` if there is none."""
    record = view.records.get(name)
    if not isinstance(record, kind):
        raise ProofError(code, f"the ledger has no {name}")
    return record


def _remembered(path: Path, genesis: Genesis) -> Trust:
    data = read_if_there(path, Trust.LIMIT)
    if data is None:
        return Trust.at_birth(genesis.chain, genesis.root)
    trust = Trust.decode(data)
    if trust.chain != genesis.chain:
        raise ConfigError("wrong-chain", f"{path} is of chain {trust.chain}, the genesis of {genesis.chain}")
    return trust


def _decoded(kind: type[_R], data: bytes) -> _R:
    try:
        return kind.decode(data)
    except MalformedError as error:
        raise TransportError("bad-response", str(error)) from error
