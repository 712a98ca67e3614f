"""The ABCI application, driven as CometBFT drives it: blocks, restarts at any point, determinism, refusals."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from firstlight.encoding import encode
from firstlight.engines import abci_state
from firstlight.engines.abci_application import PROOF_TYPE, genesis_state
from firstlight.engines.abci_messages import kind
from firstlight.engines.embedded import EmbeddedEngine
from firstlight.errors import ConfigError, FirstlightError, MalformedError, StoreError
from firstlight.ledger.records import GOVERNANCE, party_id, party_name, tree_key
from firstlight.ledger.transaction import (
    Accept,
    AddBudget,
    Body,
    Deploy,
    Freeze,
    Offer,
    Recover,
    Retire,
    SetEpoch,
    Unfreeze,
    Withdraw,
    build,
    parse,
)
from firstlight.testing.abci import Driver, driving, genesis_of
from firstlight.testing.chains import GENESIS, SECOND, Consortium, P256Key
from firstlight.testing.clock import FakeClock
from firstlight.testing.ledgers import HOUR, anchor_batch, digest, register_party
from firstlight.trees import sparse
from firstlight.trees.ownership import Selection

CONSORTIUM = Consortium.of(roots=2)
FIRST = genesis_of(CONSORTIUM)
MAKER, OWNER, BUYER, RECOVERY = P256Key("maker"), P256Key("owner"), P256Key("buyer"), P256Key("recovery")


def sign(body: Body, *signers: P256Key, sequence: int = 1) -> bytes:
    return build(body, chain=CONSORTIUM.chain, sequence=sequence, signer=signers[0], cosigners=signers[1:])


def registration(name: str = "maker") -> bytes:
    key = P256Key(name)
    return sign(register_party(key), key, CONSORTIUM.roots[0])


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Driver]:
    with driving(tmp_path, FIRST) as driver:
        yield driver


def anchoring(size: int = 3_000) -> bytes:
    body = anchor_batch(party_id(MAKER.public), OWNER.public, size=size, recovery=digest(RECOVERY.public))
    return sign(body, MAKER, sequence=2)


def batch_in(node: Driver, size: int = 3_000) -> bytes:
    """Anchor a batch and return its id."""
    node.block(registration())
    assert node.codes == [(0, "ok")]
    data = anchoring(size)
    node.block(data)
    committed = node.replica.store.committed(parse(data).id)
    assert committed is not None
    return committed.subject


def offer(batch: bytes, items: list[int | tuple[int, int]], tenure: int = 1) -> Offer:
    return Offer(batch, tenure, BUYER.public, GENESIS + HOUR, Selection.of(items))


# --- the chain ------------------------------------------------------------------------------------


def test_a_chain_begins_with_its_genesis_and_no_other(tmp_path: Path) -> None:
    with driving(tmp_path, FIRST, begin=False) as node:
        info = node.ask("info")
        assert (info.last_block_height, info.last_block_app_hash, info.app_version) == (0, b"", 1)
        for changes in (
            {"chain_id": "other-1"},
            {"initial_height": 2},
            {"app_state_bytes": genesis_state(replace(FIRST, time=1)).encode()},
            {"validators": []},
        ):
            with pytest.raises(ConfigError) as caught:
                node.init(FIRST, **changes)
            assert caught.value.code == "genesis-differs"
        app_hash = node.init(FIRST)
        assert app_hash == node.replica.state.root
        assert node.init(FIRST) == app_hash
        assert node.block() == app_hash
        assert node.ask("info").last_block_height == 1
    with pytest.raises(StoreError) as missing, driving(tmp_path, replace(FIRST, time=5)):
        pass
    assert missing.value.code == "genesis-differs"


def test_the_state_is_that_of_the_embedded_engine(tmp_path: Path) -> None:
    clock = FakeClock(GENESIS)
    path = tmp_path / "embedded.sqlite"
    with (
        driving(tmp_path, FIRST, clock=clock) as node,
        EmbeddedEngine.open(path, signer=CONSORTIUM.validators[0], clock=clock, genesis=FIRST) as embedded,
    ):
        for name in ("maker", "other"):
            data = registration(name)
            app_hash = node.block(data)
            embedded.submit(data)
            assert app_hash == embedded.head().header.app_hash


def test_an_embedded_engines_file_is_not_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    EmbeddedEngine.open(path, signer=CONSORTIUM.validators[0], clock=FakeClock(GENESIS), genesis=FIRST).close()
    with pytest.raises(StoreError) as caught, driving(tmp_path, FIRST):
        pass
    assert caught.value.code == "engine-differs"


# --- transactions ---------------------------------------------------------------------------------


def test_one_answer_at_check_proposal_and_block(node: Driver) -> None:
    good, other = registration(), registration("other")
    bad = {
        "not-cbor": b"\xff",
        "wrong-chain": build(
            register_party(MAKER), chain="other-1", sequence=1, signer=MAKER, cosigners=[CONSORTIUM.roots[0]]
        ),
        "wrong-sequence": sign(register_party(MAKER), MAKER, CONSORTIUM.roots[0], sequence=2),
        "not-endorsed": sign(register_party(MAKER), MAKER),
    }
    for code, data in bad.items():
        assert node.check(data) == code
        assert not node.process([good, data])
        assert node.prepare([data, good]) == [good]
    assert node.check(good) == "ok"
    assert node.prepare([good, *bad.values(), other]) == [good, other]
    assert node.process([good, other])
    root = node.block(good, *bad.values(), other)
    assert [code for _, code in node.codes] == ["ok", *bad, "ok"]
    assert [number for number, _ in node.codes] == [0, 1, 4, 4, 2, 0]
    with driving_again(node) as again:
        assert again.block(good, other) == root


def driving_again(node: Driver) -> contextlib.AbstractContextManager[Driver]:
    """Return a second node of the same chain, in a directory beside the first's."""
    directory = node.replica.store._path.parent / "second"
    directory.mkdir()
    return driving(directory, FIRST)


def test_what_waits_is_checked_after_what_waits_already(node: Driver) -> None:
    good = registration()
    resigned = registration()
    assert parse(good).id == parse(resigned).id
    assert good != resigned
    assert node.check(good) == "ok"
    assert node.check(resigned) == "already-pending"
    assert node.check(good, again=True) != "ok"
    node.block(good)
    assert node.check(good) == "already-committed"
    assert node.check(registration("other")) == "ok"
    node.block()
    assert node.check(registration("other"), again=True) == "ok"


def test_blocks_are_bounded(node: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    some = [registration(f"party {one}") for one in range(6)]
    assert node.prepare(some, limit=len(some[0]) * 3) == some[:2]
    monkeypatch.setattr(abci_state, "MAX_BLOCK_TRANSACTIONS", 4)
    assert node.prepare(some) == some[:4]
    assert not node.process(some[:5])
    assert node.process(some[:4])
    batch = batch_in(node)
    monkeypatch.setattr(abci_state, "MAX_BLOCK_WORK", 10)
    work = [sign(Deploy(batch, 1, bytes(32), Selection.of([one])), OWNER, sequence=one + 1) for one in range(3)]
    assert node.prepare(work) == work[:1]
    assert not node.process(work)
    node.block(*work)
    assert node.codes == [(0, "ok")] * 3


def test_a_proposal_for_another_height_is_rejected(node: Driver) -> None:
    answer = node.ask("process_proposal", txs=[], height=7)
    assert answer.status == 2
    with pytest.raises(StoreError) as caught:
        node.ask("finalize_block", txs=[], height=7)
    assert caught.value.code == "wrong-height"
    with pytest.raises(StoreError) as caught:
        node.ask("commit")
    assert caught.value.code == "nothing-decided"


def test_validators_change_only_with_a_set_that_the_chain_knows(node: Driver) -> None:
    statement = replace(CONSORTIUM.epoch, number=2, validators_hash=bytes(32), first_height=9)
    node.block(sign(SetEpoch(statement.sign(CONSORTIUM.roots)), CONSORTIUM.roots[0], sequence=2))
    assert node.codes == [(4, "epoch-validators")]


def test_an_epoch_begins_at_its_height(node: Driver) -> None:
    statement = replace(CONSORTIUM.epoch, number=2, first_height=4)
    first = node.block(sign(SetEpoch(statement.sign(CONSORTIUM.roots)), CONSORTIUM.roots[0], sequence=2))
    assert node.codes == [(0, "ok")]
    assert [node.block(), node.block()][0] == first
    assert node.replica.state.governance().epoch == 1
    assert node.block() != first
    assert node.replica.state.governance().epoch == 2
    with driving_again(node):
        pass
    assert GOVERNANCE in node.replica.store.records()


def test_misbehaviour_is_logged(node: Driver) -> None:
    evidence = kind("Misbehavior")(type=1, validator=kind("Validator")(address=bytes(20), power=10), height=3)
    node.ask("finalize_block", txs=[], misbehavior=[evidence], height=1)
    assert any("validator-misbehaved" in line for line in node.log.lines)


# --- replay ---------------------------------------------------------------------------------------


def history(node: Driver) -> list[bytes]:
    """Commit one transaction of each kind that a batch can see, each in a block of its own, and return them all."""
    batch, selection = batch_in(node), Selection.of([(100, 20)])
    done = [
        sign(offer(batch, [1, 2_000]), OWNER, sequence=1),
        sign(Accept(batch, 2, bytes(32), 0), BUYER),
        sign(offer(batch, [5]), OWNER, sequence=2),
        sign(Withdraw(batch, 3), OWNER, sequence=3),
        sign(Deploy(batch, 1, digest(b"plan"), Selection.of([(50, 10)])), OWNER, sequence=4),
        sign(Freeze(batch, 1, selection), OWNER, sequence=5),
        sign(Unfreeze(batch, 5, selection), OWNER, sequence=6),
        sign(Retire(batch, 1, Selection.of([700])), OWNER, sequence=7),
        sign(Recover(batch, 1, RECOVERY.public, P256Key("new owner").public, digest(b"next")), RECOVERY),
        sign(AddBudget(batch, 5), CONSORTIUM.roots[0]),
    ]
    for data in done:
        node.block(data)
        assert node.codes == [(0, "ok")], parse(data).kind
    return [registration(), anchoring(), *done]


def test_no_transaction_counts_a_second_time(node: Driver) -> None:
    done = history(node)
    root = node.replica.state.root
    assert node.block(*done) == root
    assert all(number for number, _ in node.codes)
    assert {node.check(data) for data in done} == {"already-committed"}
    assert not node.process(done[:1])


def test_a_restart_takes_up_where_the_file_is(tmp_path: Path) -> None:
    with driving(tmp_path, FIRST) as node:
        batch = batch_in(node)
        root = node.block(sign(offer(batch, [1, 700]), OWNER))
        counts = node.replica.store.counts(), node.replica.records
    with driving(tmp_path, FIRST) as node:
        info = node.ask("info")
        assert (info.last_block_height, info.last_block_app_hash) == (3, root)
        assert (node.replica.store.counts(), node.replica.records) == counts
        node.block(sign(Accept(batch, 2, bytes(32), 0), BUYER))
        assert node.codes == [(0, "ok")]
        trie = node.replica.state.trie(batch)
        assert trie is not None
        assert trie.owners() == {1: 2_998, 2: 2}


@pytest.mark.parametrize("end", ["before", "prepared", "processed", "finalized", "twice", "committed"])
def test_a_crash_at_any_point_of_a_block_leads_to_the_same_state(tmp_path: Path, end: str) -> None:
    """The file is copied at that point, as a power cut would leave it, and the block is replayed over the copy."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    transactions = [registration("maker"), b"\xff", registration("other")]
    with driving(tmp_path / "one", FIRST) as node:
        node.block(registration("early"))
        if end == "prepared":
            node.prepare(transactions)
        if end == "processed":
            node.process(transactions)
        if end in ("finalized", "twice"):
            node.finalize(transactions)
        if end == "twice":
            node.finalize(transactions[:1])
            node.finalize(transactions)
        if end == "committed":
            node.block(*transactions)
        for path in (tmp_path / "one").iterdir():
            (tmp_path / "two" / path.name).write_bytes(path.read_bytes())
        if end != "committed":
            node.block(*transactions)
        expected = (node.replica.state.root, node.replica.store.counts(), dict(node.replica.store.records()))
    with driving(tmp_path / "two", FIRST, clock=FakeClock(GENESIS + 1)) as again:
        assert again.replica.applied.height == (2 if end == "committed" else 1)
        if end != "committed":
            again.block(*transactions)
        assert (again.replica.state.root, again.replica.store.counts(), again.replica.store.records()) == expected


def test_a_commit_that_cannot_be_written_changes_nothing(node: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    node.block()
    before, original = node.replica.applied, node.replica.store.append

    def fails(_: object) -> None:
        raise StoreError("ledger-not-written", "disk full")

    monkeypatch.setattr(node.replica.store, "append", fails)
    with pytest.raises(StoreError):
        node.block(registration())
    assert node.replica.applied == before
    assert node.replica.store.applied() == before
    monkeypatch.setattr(node.replica.store, "append", original)
    node.block(registration())
    assert node.replica.applied.height == 2


def test_old_states_are_let_go(node: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abci_state, "KEPT_STATES", 3)
    for _ in range(6):
        node.block()
    assert node.replica.state_at(6) is not None
    assert node.replica.state_at(4) is not None
    assert node.replica.state_at(3) is None


# --- determinism ----------------------------------------------------------------------------------

REPLAY = """
import json, sys
from pathlib import Path
from firstlight.engines.port import Genesis
from firstlight.testing.abci import driving
blocks = json.loads(Path(sys.argv[1]).read_text())
directory = Path(sys.argv[2])
with driving(directory, Genesis.decode((directory / "genesis").read_bytes())) as node:
    for block in blocks:
        print(node.block(*map(bytes.fromhex, block)).hex(), json.dumps(node.codes), flush=True)
"""


def test_two_interpreters_with_other_hash_seeds_agree_after_every_block(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    with driving(tmp_path / "first", FIRST) as node:
        done = history(node)
    some = [registration(f"party {one}") for one in range(20)]
    blocks = [[done[0], *some[:7]], [done[1], b"\xff", some[0]], *[[data] for data in done[2:]], some[7:], [], done]
    (tmp_path / "blocks.json").write_text(json.dumps([[data.hex() for data in block] for block in blocks]))
    outputs = []
    for seed in ("0", "1", "4242"):
        (tmp_path / seed).mkdir()
        (tmp_path / seed / "genesis").write_bytes(FIRST.encode())
        command = [sys.executable, "-c", REPLAY, str(tmp_path / "blocks.json"), str(tmp_path / seed)]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        outputs.append(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    lines = [output.splitlines() for output in outputs]
    assert len(lines[0]) == len(blocks)
    assert lines[0] == lines[1] == lines[2]
    assert len({line.split()[0] for line in lines[0]}) > 10


# --- queries and other requests -------------------------------------------------------------------


def test_a_record_is_answered_with_its_proof(node: Driver) -> None:
    data = registration()
    root = node.block(data)
    name = party_name(party_id(MAKER.public))
    answer = node.ask("query", path="/record", data=name.encode(), prove=True)
    assert (answer.code, answer.height) == (0, 1)
    proof = sparse.Multiproof.decode(bytes(answer.proof_ops.ops[0].data))
    assert answer.proof_ops.ops[0].type == PROOF_TYPE
    sparse.verify(root, {tree_key(name): bytes(answer.value)}, proof)
    node.block(registration("other"))
    old = node.ask("query", path="/record", data=name.encode(), height=1)
    assert old.value == answer.value
    absent = node.ask("query", path="/record", data=b"party/none", prove=True)
    assert (absent.code, absent.value) == (0, b"")


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"path": "/other", "data": b"x"}, "unknown-path"),
        ({"path": "/record", "data": b"\xff"}, "bad-name"),
        ({"path": "/record", "data": b"x", "height": 99}, "head-not-kept"),
        ({"path": "/record", "data": b"x", "height": -1}, "head-not-kept"),
    ],
)
def test_queries_that_cannot_be_answered(node: Driver, request_: dict[str, object], code: str) -> None:
    answer = node.ask("query", **request_)
    assert answer.code
    assert answer.codespace == code


def test_vote_extensions_are_not_enabled(node: Driver) -> None:
    for method in ("extend_vote", "verify_vote_extension", "begin_block"):
        with pytest.raises(MalformedError) as caught:
            node.application.answer(method, None)
        assert caught.value.code == "unknown-method"
    assert node.ask("echo", message="hello").message == "hello"
    node.ask("flush")


def test_result_data_is_what_the_embedded_engine_hashes(node: Driver) -> None:
    data = registration()
    answer = node.ask("finalize_block", txs=[data], height=1, time=kind("Timestamp")(seconds=GENESIS + 1))
    node.ask("commit")
    committed = node.replica.store.committed(parse(data).id)
    assert committed is not None
    assert answer.tx_results[0].data == encode([committed.subject, committed.tenure, committed.work])
    assert node.replica.applied.time == (GENESIS + 1) * SECOND


def test_errors_have_numbers() -> None:
    assert abci_state.code_of(None) == 0
    assert [abci_state.code_of(kind_("x")) for kind_ in abci_state.KINDS.values()] == [1, 2, 3, 4]
    with pytest.raises(StopIteration):
        abci_state.code_of(FirstlightError("x"))
