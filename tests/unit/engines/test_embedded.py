from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from firstlight.chain.block import TxResult, data_hash, results_hash
from firstlight.chain.commit import verify_commit
from firstlight.discovery.bundle import BundleRequest, proven_names
from firstlight.encoding import encode
from firstlight.engines import embedded
from firstlight.engines.embedded import EmbeddedEngine
from firstlight.engines.port import Committed, Genesis
from firstlight.errors import ConfigError, FirstlightError, ProofError, RuleError, SignatureError, StoreError
from firstlight.ledger.records import GOVERNANCE, Batch, batch_name, party_name, tenure_name, tree_key
from firstlight.ledger.transaction import Accept, Body, Deploy, Freeze, Kind, Offer, SetEpoch, Unfreeze, build, parse
from firstlight.testing.chains import GENESIS, Consortium, Ed25519Key, P256Key
from firstlight.testing.clock import FakeClock
from firstlight.testing.ledgers import HOUR, anchor_batch, digest, register_party
from firstlight.trees import ownership, sparse
from firstlight.trees.ownership import Selection, Split, Uniform

CONSORTIUM = Consortium.of(roots=2)
MAKER, OWNER, BUYER = P256Key("maker"), P256Key("owner"), P256Key("buyer")
FIRST = Genesis(
    CONSORTIUM.chain, GENESIS * 10**9, CONSORTIUM.signed_root(), CONSORTIUM.signed_epoch(), CONSORTIUM.validator_set
)


@dataclass
class Node:
    path: Path
    clock: FakeClock
    engine: EmbeddedEngine

    def restart(self) -> None:
        self.engine.close()
        self.engine = EmbeddedEngine.open(self.path, signer=CONSORTIUM.validators[0], clock=self.clock)

    def do(self, body: Body, *signers: P256Key, sequence: int = 1) -> Committed:
        return self.engine.submit(sign(body, *signers, sequence=sequence))

    def refused(self, data: bytes) -> str:
        height, root = self.engine.head().header.height, self.engine.head().state.root
        with pytest.raises(FirstlightError) as caught:
            self.engine.submit(data)
        assert (self.engine.head().header.height, self.engine.head().state.root) == (height, root)
        return caught.value.code


def sign(body: Body, *signers: P256Key, sequence: int = 1, chain: str = CONSORTIUM.chain) -> bytes:
    return build(body, chain=chain, sequence=sequence, signer=signers[0], cosigners=signers[1:])


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    clock = FakeClock(GENESIS)
    path = tmp_path / "ledger.db"
    node = Node(path, clock, EmbeddedEngine.open(path, signer=CONSORTIUM.validators[0], clock=clock, genesis=FIRST))
    yield node
    node.engine.close()


def batch_of(node: Node, size: int = 5_000) -> bytes:
    party = node.do(register_party(MAKER), MAKER, CONSORTIUM.roots[0]).subject
    return node.do(anchor_batch(party, OWNER.public, size=size), MAKER, sequence=2).subject


def offer_of(batch: bytes, tenure: int, items: list[int | tuple[int, int]], buyer: P256Key = BUYER) -> Offer:
    return Offer(batch, tenure, buyer.public, GENESIS + HOUR, Selection.of(items))


def test_the_first_header_proves_the_genesis(node: Node) -> None:
    head = node.engine.head()
    assert head.header.height == 1
    assert head.header.app_hash == head.state.root
    verify_commit(node.engine.chain, node.engine.validators, head.header, head.commit)
    proof = head.head_proof(1, 0)
    assert (proof.roots, proof.epoch) == ((), FIRST.epoch)
    assert head.head_proof(0, 1).roots == (FIRST.root,)
    assert head.head_proof(0, 1).epoch == FIRST.epoch
    assert head.head_proof(1, 1).epoch is None


def test_headers_commits_and_hashes_chain_up(node: Node) -> None:
    batch = batch_of(node)
    committed = node.do(offer_of(batch, 1, [(10, 20)]), OWNER)
    data = node.engine.transactions(committed.height)
    assert [parse(one).id for one in data] == [committed.id]
    blocks = [node.engine.header(height) for height in range(1, node.engine.head().header.height + 1)]
    previous = None
    for block in blocks:
        assert block is not None
        verify_commit(node.engine.chain, node.engine.validators, block.header, block.commit)
        if previous is not None:
            assert block.header.last_block == previous.commit.block
            assert block.header.last_commit_hash == previous.commit.hash(node.engine.validators)
            assert block.header.time > previous.header.time
        previous = block
    block, successor = node.engine.header(committed.height), node.engine.header(committed.height + 1)
    assert block is not None
    assert successor is not None
    assert block.header.data_hash == data_hash(data)
    assert successor.header.data_hash == data_hash([])
    outcome = encode([committed.subject, committed.tenure, committed.work])
    assert successor.header.last_results_hash == results_hash([TxResult(0, outcome)])
    assert successor.header.app_hash != block.header.app_hash


def test_what_was_committed_is_proven(node: Node) -> None:
    batch = batch_of(node)
    committed = node.do(offer_of(batch, 1, [(0, 4_096)]), OWNER)
    assert (committed.kind, committed.subject, committed.tenure) == (Kind.OFFER, batch, 2)
    parts = node.engine.prove([GOVERNANCE, "party/" + "00" * 16], batch, 0, 2)
    claims = {tree_key(name): value for name, value in parts.values.items()}
    sparse.verify(parts.head.header.app_hash, claims, parts.proof)
    assert parts.values["party/" + "00" * 16] is None
    assert parts.tenures == (1, 2)
    value = parts.values[batch_name(batch)]
    assert value is not None
    record = Batch.decode(value)
    assert parts.ownership is not None
    assert ownership.verify(record.ownership, record.size, 0, 2, parts.ownership) == Uniform(2)
    split = node.engine.prove([], batch).ownership
    assert split is not None
    assert isinstance(ownership.verify(record.ownership, record.size, 0, 0, split), Split)
    claims[tree_key(tenure_name(batch, 2))] = b"\x80"
    with pytest.raises(ProofError) as caught:
        sparse.verify(parts.head.header.app_hash, claims, parts.proof)
    assert caught.value.code == "bad-state-proof"


def test_status_and_counts(node: Node) -> None:
    batch = batch_of(node)
    data = sign(offer_of(batch, 1, [1]), OWNER)
    assert node.engine.status(parse(data).id) is None
    committed = node.engine.submit(data)
    assert node.engine.status(parse(data).id) == committed
    counts = node.engine.counts()
    assert counts.transactions == {Kind.REGISTER_PARTY: 1, Kind.ANCHOR_BATCH: 1, Kind.OFFER: 1}
    assert (counts.total, counts.height) == (3, committed.height + 1)
    assert counts.records == 3 + 1 + 1 + 2
    node.restart()
    assert node.engine.status(parse(data).id) == committed
    assert node.engine.counts() == counts


def test_refusals_carry_their_codes_and_change_nothing(node: Node) -> None:
    batch = batch_of(node)
    good = sign(offer_of(batch, 1, [1]), OWNER)
    assert node.refused(b"\xff") == "not-cbor"
    assert node.refused(sign(offer_of(batch, 1, [1]), OWNER, chain="other-1")) == "wrong-chain"
    assert node.refused(sign(offer_of(batch, 1, [1]), BUYER)) == "wrong-key"
    assert node.refused(sign(offer_of(batch, 1, [1]), OWNER, sequence=2)) == "wrong-sequence"
    assert node.refused(sign(offer_of(batch, 1, [5_000]), OWNER)) == "index-beyond-batch"
    node.engine.submit(good)
    assert node.refused(good) == "already-committed"
    with pytest.raises(RuleError):
        node.engine.submit(good)
    with pytest.raises(SignatureError):
        node.engine.submit(sign(offer_of(batch, 1, [2]), BUYER, sequence=2))
    statement = replace(CONSORTIUM.epoch, number=2, validators_hash=bytes(32), first_height=100)
    assert node.refused(sign(SetEpoch(statement.sign(CONSORTIUM.roots)), CONSORTIUM.roots[0], sequence=2)) == (
        "epoch-validators"
    )


def test_transactions_submitted_together_share_a_block(node: Node) -> None:
    batch = batch_of(node)
    node.clock.advance(5)
    before = node.engine.head().header.height
    bodies = [Deploy(batch, 1, digest(bytes([one])), None) for one in range(60)]
    transactions = [sign(body, OWNER, sequence=one) for one, body in enumerate(bodies, 1)]
    futures = [node.engine.submit_soon(data) for data in transactions]
    done = [future.result() for future in futures]
    assert node.engine.head().header.height < before + 60
    assert [one.id for one in done] == [parse(data).id for data in transactions]
    places = [(one.height, one.position) for one in done]
    assert places == sorted(set(places))
    assert node.engine.head().state.tenures(batch).get(1).plan_revision == 60  # type: ignore[union-attr]


def test_one_of_two_that_exclude_each_other_is_refused_in_the_same_block(node: Node) -> None:
    batch = batch_of(node)
    one = sign(offer_of(batch, 1, [1]), OWNER)
    two = sign(offer_of(batch, 1, [1], P256Key("other")), OWNER)
    first, second, again = (node.engine.submit_soon(data) for data in (one, two, one))
    assert first.result().tenure == 2
    assert isinstance(second.exception(), RuleError)
    error = again.exception()
    assert isinstance(error, RuleError)
    assert error.code == "already-committed"


def test_the_rules_time_is_the_headers(node: Node) -> None:
    batch = batch_of(node)
    node.do(offer_of(batch, 1, [1]), OWNER)
    node.clock.advance(HOUR)
    assert node.refused(sign(Accept(batch, 2, bytes(32), 0), BUYER)) == "offer-expired"


def test_time_goes_on_when_the_clock_goes_back(node: Node) -> None:
    batch = batch_of(node)
    before = node.engine.head().header.time
    node.clock.advance(-100)
    node.do(Deploy(batch, 1, bytes(32), None), OWNER)
    assert node.engine.head().header.time > before


def test_restart_from_the_file_alone(node: Node) -> None:
    batch = batch_of(node)
    node.do(offer_of(batch, 1, [1, 700, (3_000, 5)]), OWNER)
    node.do(Accept(batch, 2, bytes(32), 0), BUYER)
    head = node.engine.head()
    node.restart()
    again = node.engine.head()
    assert (again.header, again.commit, again.state.root) == (head.header, head.commit, head.state.root)
    trie = again.state.trie(batch)
    assert trie is not None
    assert trie.owners() == {1: 4_993, 2: 7}
    assert node.do(Deploy(batch, 2, bytes(32), None), BUYER, sequence=2).height == head.header.height + 1


def test_an_older_head_is_still_served_with_its_pages(node: Node) -> None:
    batch = batch_of(node)
    node.do(offer_of(batch, 1, [1, 700]), OWNER)
    node.restart()
    old = node.engine.head()
    node.do(offer_of(batch, 1, [2, 701]), OWNER, sequence=2)
    request = BundleRequest(bytes(32), old.header.height, 0, 0, batch, 1, 13, ())
    proof = node.engine.prove_state(request)
    names = proven_names(request, proof.tenures)
    claims = {tree_key(name): value for name, value in zip(names, proof.values, strict=True)}
    sparse.verify(old.header.app_hash, claims, proof.proof)
    assert proof.tenures == (1, 2)
    assert proof.ownership is not None
    record = old.state.read(batch_name(batch), Batch)
    assert record is not None
    assert ownership.verify(record.ownership, 5_000, 1, 13, proof.ownership) == Uniform(2)
    with pytest.raises(ProofError) as caught:
        node.engine.view(1)
    assert caught.value.code == "head-not-kept"


def test_old_heads_and_their_pages_are_let_go(node: Node) -> None:
    batch = batch_of(node)
    sequence = 0
    for _ in range(10):
        node.clock.advance(60)
        selection = Selection.of([1, 2_000])
        frozen = node.do(Freeze(batch, 1, selection), OWNER, sequence=sequence + 1).tenure
        node.do(Unfreeze(batch, frozen, selection), OWNER, sequence=sequence + 2)
        sequence += 2
    with pytest.raises(ProofError):
        node.engine.view(2)
    with sqlite3.connect(node.path) as connection:
        versions = connection.execute("SELECT count(*) FROM pages WHERE level = 0 AND number = 0").fetchone()[0]
    connection.close()
    assert versions < 15
    trie = node.engine.head().state.trie(batch)
    assert trie is not None
    assert trie.owners() == {1: 5_000}
    node.restart()
    again = node.engine.head().state.trie(batch)
    assert again is not None
    assert again.root == trie.root


def test_the_file_has_one_holder(node: Node) -> None:
    with pytest.raises(StoreError) as caught:
        EmbeddedEngine.open(node.path, signer=CONSORTIUM.validators[0], clock=node.clock)
    assert caught.value.code == "ledger-locked"


def test_after_closing_nothing_is_taken(node: Node) -> None:
    node.engine.close()
    with pytest.raises(StoreError) as caught:
        node.engine.submit(sign(register_party(MAKER), MAKER, CONSORTIUM.roots[0]))
    assert caught.value.code == "ledger-closed"


def open_again(node: Node, **given: object) -> str:
    node.engine.close()
    arguments = {"signer": CONSORTIUM.validators[0], "clock": node.clock, **given}
    with pytest.raises((StoreError, ConfigError)) as caught:
        EmbeddedEngine.open(node.path, **arguments)  # type: ignore[arg-type]
    return caught.value.code


def test_a_newer_schema_is_refused(node: Node) -> None:
    node.engine.close()
    with sqlite3.connect(node.path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    assert open_again(node) == "schema-too-new"


def test_another_key_or_genesis_is_refused(node: Node) -> None:
    assert open_again(node, signer=Ed25519Key("stranger")) == "wrong-validator-key"
    assert open_again(node, genesis=replace(FIRST, time=1)) == "genesis-differs"


def test_records_that_the_head_does_not_prove_are_refused(node: Node) -> None:
    party = node.do(register_party(MAKER), MAKER, CONSORTIUM.roots[0]).subject
    node.engine.close()
    with sqlite3.connect(node.path) as connection:
        connection.execute("DELETE FROM records WHERE name = ?", (party_name(party),))
    connection.close()
    assert open_again(node) == "state-differs"


def test_what_is_no_ledger_is_refused(tmp_path: Path) -> None:
    signer, clock = CONSORTIUM.validators[0], FakeClock()
    with pytest.raises(StoreError) as caught:
        EmbeddedEngine.open(tmp_path / "none", signer=signer, clock=clock)
    assert caught.value.code == "ledger-missing"
    for name, content in (("text", b"no database at all, but long enough to be one" * 50), ("other", None)):
        path = tmp_path / name
        if content is None:
            with sqlite3.connect(path) as connection:
                connection.execute("CREATE TABLE mine (x)")
            connection.close()
        else:
            path.write_bytes(content)
        with pytest.raises(StoreError) as caught:
            EmbeddedEngine.open(path, signer=signer, clock=clock, genesis=FIRST)
        assert caught.value.code == "ledger-unreadable"


@pytest.mark.parametrize(
    "genesis",
    [
        replace(FIRST, chain="other-1"),
        replace(FIRST, epoch=replace(CONSORTIUM.epoch, validators_hash=bytes(32)).sign(CONSORTIUM.roots)),
        replace(FIRST, epoch=CONSORTIUM.epoch.sign([MAKER])),
    ],
)
def test_a_genesis_that_does_not_hold_together_is_refused(tmp_path: Path, genesis: Genesis) -> None:
    with pytest.raises(ConfigError) as caught:
        EmbeddedEngine.open(tmp_path / "ledger.db", signer=CONSORTIUM.validators[0], clock=FakeClock(), genesis=genesis)
    assert caught.value.code == "bad-genesis"


def test_a_block_that_cannot_be_written_is_no_block(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    party = register_party(MAKER)
    head = node.engine.head()
    original = node.engine._store.append

    def fails(step: object) -> None:
        raise StoreError("ledger-not-written", "disk full")

    monkeypatch.setattr(node.engine._store, "append", fails)
    assert node.refused(sign(party, MAKER, CONSORTIUM.roots[0])) == "ledger-not-written"
    monkeypatch.setattr(node.engine._store, "append", original)
    assert node.engine.head() is head
    assert node.do(party, MAKER, CONSORTIUM.roots[0]).height == 2


def test_more_work_than_a_block_holds_goes_into_the_next(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of(node)
    monkeypatch.setattr(embedded, "MAX_BLOCK_WORK", 100)
    transactions = [
        sign(Deploy(batch, 1, bytes(32), Selection.of([one])), OWNER, sequence=one + 1) for one in range(12)
    ]
    futures = [node.engine.submit_soon(data) for data in transactions]
    heights = [future.result().height for future in futures]
    assert heights == sorted(heights)
    assert max(heights.count(height) for height in heights) <= 6


def test_an_epoch_begins_at_its_height(node: Node) -> None:
    height = node.engine.head().header.height
    statement = replace(CONSORTIUM.epoch, number=2, first_height=height + 3).sign(CONSORTIUM.roots)
    node.do(SetEpoch(statement), CONSORTIUM.roots[0], sequence=2)
    node.do(register_party(MAKER), MAKER, CONSORTIUM.roots[0])
    head = node.engine.head()
    assert head.state.governance().epoch == 2
    assert head.header.app_hash == head.state.root
    epoch = head.head_proof(1, 1).epoch
    assert epoch == statement
    node.restart()
    assert node.engine.head().state.governance().epoch == 2


KILLED = """
import sys
from pathlib import Path
from tests_world import node_at, transactions
engine = node_at(Path(sys.argv[1]))
print("ready", flush=True)
for data in transactions():
    committed = engine.submit(data)
    print(committed.id.hex(), committed.height, flush=True)
"""
WORLD = """
from firstlight.engines.embedded import EmbeddedEngine
from firstlight.engines.port import Genesis
from firstlight.ledger.transaction import build
from firstlight.testing.chains import GENESIS, Consortium, P256Key
from firstlight.testing.clock import FakeClock
from firstlight.testing.ledgers import register_party

C = Consortium.of(roots=2)

def node_at(path):
    genesis = Genesis(C.chain, GENESIS * 10**9, C.signed_root(), C.signed_epoch(), C.validator_set)
    return EmbeddedEngine.open(path, signer=C.validators[0], clock=FakeClock(GENESIS), genesis=genesis)

def transactions():
    for one in range(100_000):
        key = P256Key(f"party {one}")
        yield build(register_party(key), chain=C.chain, sequence=1, signer=key, cosigners=[C.roots[0]])
"""


def test_nothing_that_was_answered_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    (tmp_path / "tests_world.py").write_text(textwrap.dedent(WORLD))
    path = tmp_path / "ledger.db"
    command = [sys.executable, "-c", KILLED, str(path)]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    answered = []
    for line in process.stdout:
        if line.startswith("ready"):
            continue
        answered.append(line.split())
        if len(answered) == 20:
            process.send_signal(signal.SIGKILL)
            break
    answered += [line.split() for line in process.stdout if len(line.split()) == 2]
    process.wait()
    clock = FakeClock(GENESIS)
    with EmbeddedEngine.open(path, signer=CONSORTIUM.validators[0], clock=clock) as engine:
        for identifier, height in answered:
            committed = engine.status(bytes.fromhex(identifier))
            assert committed is not None
            assert committed.height == int(height)
        assert engine.counts().total >= len(answered) >= 20
