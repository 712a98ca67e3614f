"""What every engine must do, whoever orders its transactions: one suite, run on each of them.

A check takes a :class:`Subject`: an engine that runs, and the keys that govern its chain. Checks use keys and batches
of their own, so that they may share one chain, in any order.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from typing import Protocol

from firstlight.chain.commit import verify_commit
from firstlight.chain.light import Policy, SignedHeader, Success, Trusted, verify
from firstlight.discovery.bundle import BundleRequest, proven_names
from firstlight.engines.port import Committed, Counts, Engine, SignedBlock, View
from firstlight.errors import FirstlightError
from firstlight.ledger.records import GOVERNANCE, Batch, Tenure, batch_name, party_id, party_name, tenure_name, tree_key
from firstlight.ledger.transaction import Accept, Body, Deploy, Kind, Offer, SetEpoch, build, parse
from firstlight.ports import Clock
from firstlight.testing.chains import SECOND, Consortium, P256Key
from firstlight.testing.ledgers import HOUR, anchor_batch, digest, register_party
from firstlight.trees import ownership, sparse
from firstlight.trees.ownership import Selection, Uniform


class Opened(Protocol):
    """Opens the engine of a chain."""

    def __call__(self) -> contextlib.AbstractContextManager[Engine]:
        """Run the engine, over what it has kept, until the end of the block."""
        ...


@dataclass(slots=True)
class Subject:
    """An engine under test, how it is opened again, and who governs its chain."""

    open: Opened
    consortium: Consortium
    clock: Clock
    engine: Engine = field(init=False)
    _running: contextlib.AbstractContextManager[Engine] | None = None

    def start(self) -> None:
        """Open the engine."""
        self._running = self.open()
        self.engine = self._running.__enter__()

    def stop(self) -> None:
        """Close the engine; what it has kept stays."""
        running, self._running = self._running, None
        if running is not None:
            running.__exit__(None, None, None)

    def restart(self) -> None:
        """Close the engine and open it again."""
        self.stop()
        self.start()

    def sign(self, body: Body, *signers: P256Key, sequence: int = 1, chain: str = "") -> bytes:
        """Return a transaction."""
        name = chain or self.consortium.chain
        return build(body, chain=name, sequence=sequence, signer=signers[0], cosigners=signers[1:])

    def do(self, body: Body, *signers: P256Key, sequence: int = 1) -> Committed:
        """Commit a transaction."""
        return self.submit(self.sign(body, *signers, sequence=sequence))

    def submit(self, data: bytes) -> Committed:
        """Commit a transaction."""
        return self.engine.submit_soon(data).result()

    def refused(self, data: bytes) -> str:
        """Return the code with which a transaction is refused, having checked that nothing came of it."""
        before = self.engine.head().state.root
        error = self.engine.submit_soon(data).exception()
        assert isinstance(error, FirstlightError), error
        assert self.engine.head().state.root == before
        return error.code

    def registration(self, name: str) -> bytes:
        """Return the transaction that registers the party of that name."""
        key = P256Key(name)
        return self.sign(register_party(key), key, self.consortium.roots[0])

    def batch(self, name: str, size: int = 3_000) -> bytes:
        """Register the manufacturer ``name`` and anchor a batch of its, owned by ``name owner``."""
        self.submit(self.registration(name))
        maker, owner = P256Key(name), P256Key(f"{name} owner")
        return self.do(anchor_batch(party_id(maker.public), owner.public, size=size), maker, sequence=2).subject

    def offer(self, batch: bytes, name: str, items: Sequence[int | tuple[int, int]]) -> Offer:
        """Return an offer of devices of tenure 1 to ``name buyer``, for an hour."""
        expiry = self.clock.now() // SECOND + HOUR
        return Offer(batch, 1, P256Key(f"{name} buyer").public, expiry, Selection.of(items))

    def signed(self, height: int) -> SignedBlock:
        """Return the block at ``height``, which must be there."""
        found = self.engine.signed(height)
        assert found is not None, height
        return found


def a_new_chain_proves_its_genesis(subject: Subject) -> None:
    """Check that the head proves the governance record, root and epoch of the genesis."""
    head = subject.engine.head()
    assert head.header.app_hash == head.state.root
    proof = head.head_proof(0, 0)
    assert (proof.roots, proof.epoch) == ((subject.engine.genesis.root,), subject.engine.genesis.epoch)
    assert head.head_proof(1, 1).epoch is None
    assert head.header.chain == subject.engine.chain == subject.consortium.chain


def what_is_committed_is_proven_at_once(subject: Subject) -> None:
    """Check that when the answer comes, the newest head is later than the block and proves what it did."""
    batch = subject.batch("proven")
    done = subject.do(subject.offer(batch, "proven", [(0, 1_024)]), P256Key("proven owner"))
    assert (done.kind, done.subject, done.tenure) == (Kind.OFFER, batch, 2)
    head = subject.engine.head()
    assert head.header.height > done.height
    verify_commit(subject.engine.chain, head.validators, head.header, head.commit)
    parts = head.prove([GOVERNANCE, "party/" + "00" * 16], batch, 0, 2)
    claims = {tree_key(name): value for name, value in parts.values.items()}
    sparse.verify(head.header.app_hash, claims, parts.proof)
    value = parts.values[batch_name(batch)]
    assert value is not None
    assert parts.ownership is not None
    record = Batch.decode(value)
    assert ownership.verify(record.ownership, record.size, 0, 2, parts.ownership) == Uniform(2)


def a_transaction_has_a_status_and_counts_once(subject: Subject) -> None:
    """Check that the same one is refused as committed already, and its outcome known, after a restart too."""
    data = subject.registration("once")
    assert subject.engine.status(parse(data).id) is None
    before = subject.engine.counts()
    done = subject.submit(data)
    assert done.subject == party_id(P256Key("once").public)
    assert subject.engine.status(parse(data).id) == done
    assert subject.refused(data) == "already-committed"
    assert subject.refused(subject.registration("once")) == "already-committed"
    subject.restart()
    assert subject.engine.status(parse(data).id) == done
    assert subject.refused(data) == "already-committed"
    counts = subject.engine.counts()
    assert counts.transactions[Kind.REGISTER_PARTY] == _count(before, Kind.REGISTER_PARTY) + 1
    assert counts.records == before.records + 1


def _count(counts: Counts, kind: Kind) -> int:
    return counts.transactions.get(kind, 0)


def the_same_transaction_twice_at_once_counts_once(subject: Subject) -> None:
    """Check that who hands it in again, with whatever signatures, learns what it did or that it is committed."""
    before = subject.engine.counts()
    futures = [subject.engine.submit_soon(subject.registration("together")) for _ in range(6)]
    codes = [_code(one) for one in futures]
    assert "ok" in codes
    assert set(codes) <= {"ok", "already-committed"}
    assert subject.engine.counts().total == before.total + 1
    assert subject.engine.counts().records == before.records + 1


def _code(future: Future[Committed]) -> str:
    error = future.exception()
    if error is None:
        return "ok"
    assert isinstance(error, FirstlightError)
    return error.code


def refusals_carry_their_codes_and_change_nothing(subject: Subject) -> None:
    """Check bytes that are none, another chain, key or sequence, an index beyond the batch."""
    batch, owner = subject.batch("refusing"), P256Key("refusing owner")
    body = subject.offer(batch, "refusing", [1])
    assert subject.refused(b"\xff") == "not-cbor"
    assert subject.refused(b"") == "not-cbor"
    assert subject.refused(subject.sign(body, owner, chain="other-1")) == "wrong-chain"
    assert subject.refused(subject.sign(body, P256Key("stranger"))) == "wrong-key"
    assert subject.refused(subject.sign(body, owner, sequence=2)) == "wrong-sequence"
    beyond = subject.offer(batch, "refusing", [3_000])
    assert subject.refused(subject.sign(beyond, owner)) == "index-beyond-batch"
    good = bytearray(subject.sign(body, owner))
    good[-1] ^= 1
    assert subject.refused(bytes(good)) == "bad-signature"
    assert subject.do(body, owner).tenure == 2


def an_epoch_with_other_validators_is_refused(subject: Subject) -> None:
    """Check that the chain keeps the validators of its genesis."""
    epoch = replace(subject.consortium.epoch, number=2, validators_hash=bytes(32), first_height=10**6)
    data = subject.sign(SetEpoch(epoch.sign(subject.consortium.roots)), *subject.consortium.roots, sequence=2)
    assert subject.refused(data) == "epoch-validators"


def of_two_that_exclude_each_other_one_counts(subject: Subject) -> None:
    """Check two offers with the same sequence, at once."""
    batch, owner = subject.batch("exclusive"), P256Key("exclusive owner")
    bodies = [subject.offer(batch, name, [1]) for name in ("one", "two")]
    codes = sorted(_code(subject.engine.submit_soon(subject.sign(body, owner))) for body in bodies)
    assert codes == ["ok", "wrong-sequence"]
    tenure = subject.engine.head().state.read(tenure_name(batch, 2), Tenure)
    assert tenure is not None
    assert subject.engine.head().state.read(tenure_name(batch, 3), Tenure) is None


def many_at_once_all_count(subject: Subject) -> None:
    """Check that all that is handed in together is committed, each in one place, and stays so after a restart."""
    names = [f"many {one}" for one in range(80)]
    before = subject.engine.counts().total
    data = [subject.registration(name) for name in names]
    futures = [subject.engine.submit_soon(one) for one in data]
    wait(futures)
    done = [future.result() for future in futures]
    assert [one.id for one in done] == [parse(one).id for one in data]
    assert len({(one.height, one.position) for one in done}) == len(done)
    root = subject.engine.head().state.root
    assert subject.engine.counts().total == before + len(names)
    subject.restart()
    head = subject.engine.head()
    assert head.state.root == root
    for name, one in zip(names, done, strict=True):
        assert subject.engine.status(one.id) == one
        assert head.state.value(party_name(party_id(P256Key(name).public))) is not None


def what_one_key_signs_in_order_counts_in_order(subject: Subject) -> None:
    """Check a sequence of transactions of one key."""
    batch, owner = subject.batch("ordered"), P256Key("ordered owner")
    for sequence in range(1, 9):
        subject.do(Deploy(batch, 1, digest(bytes([sequence])), None), owner, sequence=sequence)
    tenure = subject.engine.head().state.read(tenure_name(batch, 1), Tenure)
    assert tenure is not None
    assert (tenure.plan_revision, tenure.sequence) == (8, 8)


def headers_follow_each_other(subject: Subject) -> None:
    """Check that each header names the one before; the light client follows step by step and in leaps."""
    subject.submit(subject.registration("headers"))
    newest = subject.engine.head().header.height
    blocks = [subject.signed(height) for height in range(max(1, newest - 12), newest + 1)]
    for before, after in itertools.pairwise(blocks):
        assert after.header.last_block is not None
        assert after.header.last_block.hash == before.header.hash()
        assert after.header.time > before.header.time
        assert _judge(subject, before, after)
    assert _judge(subject, subject.signed(1), blocks[-1])
    assert subject.engine.signed(newest + 10_000) is None


def _judge(subject: Subject, trusted: SignedBlock, untrusted: SignedBlock) -> bool:
    verdict = verify(
        Trusted(trusted.header, trusted.next_validators),
        SignedHeader(untrusted.header, untrusted.commit, untrusted.validators, None, untrusted.next_validators),
        Policy.of_days(1),
        max(subject.clock.now(), untrusted.header.time),
    )
    return isinstance(verdict, Success)


def an_older_head_still_proves_its_state(subject: Subject) -> None:
    """Check that what a head proved not long ago it proves again; of heads that never were, nothing."""
    batch, owner = subject.batch("older"), P256Key("older owner")
    subject.do(subject.offer(batch, "older", [1, 700]), owner)
    old = subject.engine.head()
    subject.do(subject.offer(batch, "older", [2, 701]), owner, sequence=2)
    view: View = subject.engine.view(old.header.height)
    assert view.header == old.header
    request = BundleRequest(bytes(32), old.header.height, 0, 0, batch, 1, 12, ())
    proof = view.state_proof(request)
    names = proven_names(request, proof.tenures)
    claims = {tree_key(name): value for name, value in zip(names, proof.values, strict=True)}
    sparse.verify(old.header.app_hash, claims, proof.proof)
    assert proof.ownership is not None
    record = old.state.read(batch_name(batch), Batch)
    assert record is not None
    assert ownership.verify(record.ownership, record.size, 1, 12, proof.ownership) == Uniform(2)
    assert [_view_code(subject, height) for height in (10**6, 2**62)] == ["head-not-kept"] * 2


def _view_code(subject: Subject, height: int) -> str:
    try:
        subject.engine.view(height)
    except FirstlightError as error:
        return error.code
    return "ok"


def a_sale_survives_a_restart(subject: Subject) -> None:
    """Check that tries are read again from the file, and go on."""
    batch = subject.batch("sold")
    subject.do(subject.offer(batch, "sold", [1, 700, (2_000, 50)]), P256Key("sold owner"))
    subject.do(Accept(batch, 2, bytes(32), 0), P256Key("sold buyer"))
    subject.restart()
    trie = subject.engine.head().state.trie(batch)
    assert trie is not None
    assert trie.owners() == {1: 2_948, 2: 52}
    assert subject.do(Deploy(batch, 2, bytes(32), None), P256Key("sold buyer"), sequence=2).tenure == 2


def after_closing_nothing_is_taken(subject: Subject) -> None:
    """Check that an engine that is closed says so, and opened again takes the same transaction."""
    data, engine = subject.registration("late"), subject.engine
    subject.stop()
    try:
        error = engine.submit_soon(data).exception()
        assert isinstance(error, FirstlightError)
        assert error.code == "ledger-closed"
    finally:
        subject.start()
    assert subject.submit(data).kind is Kind.REGISTER_PARTY


Check = Callable[[Subject], None]
CHECKS: tuple[Check, ...] = (
    a_new_chain_proves_its_genesis,
    what_is_committed_is_proven_at_once,
    a_transaction_has_a_status_and_counts_once,
    the_same_transaction_twice_at_once_counts_once,
    refusals_carry_their_codes_and_change_nothing,
    an_epoch_with_other_validators_is_refused,
    of_two_that_exclude_each_other_one_counts,
    many_at_once_all_count,
    what_one_key_signs_in_order_counts_in_order,
    headers_follow_each_other,
    an_older_head_still_proves_its_state,
    a_sale_survives_a_restart,
    after_closing_nothing_is_taken,
)


@contextlib.contextmanager
def started(subject: Subject) -> Iterator[Subject]:
    """Run the engine of ``subject`` while the block runs."""
    subject.start()
    try:
        yield subject
    finally:
        subject.stop()
