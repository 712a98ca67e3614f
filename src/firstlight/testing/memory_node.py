"""A node, a gateway and a party behind one HTTP port, in memory: for tests of roles that talk to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from firstlight.discovery.bundle import Bundle, BundleRequest, Freshness, HeadProof, prove_state
from firstlight.engines.port import Genesis
from firstlight.errors import TransportError
from firstlight.ledger.state import State
from firstlight.ledger.transaction import parse
from firstlight.roles.wire import DepositAnswer, TransactionAnswer
from firstlight.sealing.deposit import DepositList, parse_deposit
from firstlight.testing.chains import GENESIS, SECOND
from firstlight.testing.ledgers import MemoryLedger
from firstlight.transports.client import CBOR, RemoteError, Response


@dataclass(slots=True)
class MemoryNode:
    """Answers ``/v1/transactions`` and ``/v1/bundles`` honestly, and keeps what else is left with it.

    ``change`` may change a bundle on its way out; ``cut`` are paths whose next answer is lost on the way back, after
    the request has done its work.
    """

    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    change: Callable[[Bundle], Bundle] | None = None
    cut: list[str] = field(default_factory=list)
    asked: list[BundleRequest] = field(default_factory=list)
    deposits: list[DepositList] = field(default_factory=list)
    refusals: list[RemoteError] = field(default_factory=list)
    left: dict[str, bytes] = field(default_factory=dict)
    states: dict[int, State] = field(default_factory=dict)
    answers: dict[bytes, TransactionAnswer] = field(default_factory=dict)

    @property
    def genesis(self) -> Genesis:
        """What everybody who joins is given."""
        one = self.ledger.consortium
        return Genesis(one.chain, GENESIS * SECOND, one.signed_root(), one.signed_epoch(), one.validator_set)

    def close(self) -> None:
        """Do nothing: the same node serves many clients."""

    def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes = b"",
        content_type: str | None = None,  # noqa: ARG002 - part of the port
        retries: int = 0,  # noqa: ARG002 - part of the port
    ) -> Response:
        """Answer one request (:class:`firstlight.roles.ledger_client.Http`)."""
        path = "/" + url.partition("://")[2].partition("/")[2]
        answer = self._answer(method, path, body)
        if path in self.cut:
            self.cut.remove(path)
            raise TransportError("unreachable", "the connection broke")
        return Response(200, CBOR, answer)

    def _answer(self, method: str, path: str, body: bytes) -> bytes:
        if path == "/v1/transactions":
            return self._submit(body).encode()
        if path == "/v1/bundles":
            return self._prove(BundleRequest.decode(body))
        if path == "/v1/deposits":
            if self.refusals:
                raise self.refusals.pop()
            self.deposits.append(parse_deposit(body).claimed)
            return DepositAnswer(len(self.deposits)).encode()
        self.left[f"{method} {path}"] = body
        return b"\x80"

    def _submit(self, data: bytes) -> TransactionAnswer:
        identifier = parse(data).id
        if identifier not in self.answers:
            result = self.ledger.apply(data)
            if result.outcome is None:
                raise RemoteError(409, result.code, "refused")
            done = result.outcome
            self.answers[identifier] = TransactionAnswer(
                identifier, self.ledger.height, "ok", "", parse(data).kind, done.subject, done.tenure, done.work
            )
        return self.answers[identifier]

    def _prove(self, request: BundleRequest) -> bytes:
        self.asked.append(request)
        height = request.height or self.ledger.height + 1
        state = self.states.setdefault(height, self.ledger.state) if request.height else self.ledger.state
        self.states[height] = state
        trie = None if request.batch is None else state.trie(request.batch)
        proof = prove_state(state.tree, trie, request)
        if request.height:
            return proof.encode()
        consortium = self.ledger.consortium
        block = consortium.block(state.root, height=height, time=self.ledger.time)
        epoch = None if request.known_epoch == consortium.number else consortium.signed_epoch()
        head = HeadProof.of(block.header, block.commit, consortium.validator_set, epoch=epoch)
        nonce, witnesses = consortium.attest(block.header, request.nonce, time=self.ledger.time)
        bundle = Bundle(head, Freshness(nonce, witnesses), proof)
        return (self.change(bundle) if self.change else bundle).encode()
