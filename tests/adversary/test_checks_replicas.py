"""What a node takes from no other validator: blocks with what does not count, and snapshots that lie.

The honest block or snapshot is taken first, or after what was refused; what is refused leaves no trace.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.engines.test_abci import CONSORTIUM, OWNER, batch_in, node, registration, sign
from tests.unit.engines.test_abci_snapshots import (
    Pair,
    again,
    foreign_page,
    other_page,
    page_again,
    pair,
    twice,
    with_page,
    with_record,
    without_page,
    without_pages,
    without_record,
)

from firstlight.engines import abci_state
from firstlight.engines.abci_application import Apply, Offer
from firstlight.engines.abci_messages import kind
from firstlight.ledger.transaction import Deploy, SetEpoch, build
from firstlight.testing.abci import Driver
from firstlight.testing.chains import P256Key
from firstlight.testing.ledgers import register_party
from firstlight.trees.ownership import Selection

__all__ = ["node", "pair"]

REJECT = 2


def refused(driver: Driver, code: str) -> bool:
    return any(f'"code":"{code}"' in line for line in driver.log.lines)


# --- blocks ---------------------------------------------------------------------------------------


def test_a_node_votes_for_no_block_with_what_does_not_count(node: Driver) -> None:
    good = registration()
    assert node.process([good])
    for bad in (b"\xff", sign_for_another_chain(), good[:-1]):
        assert not node.process([good, bad])
    assert not node.process([good, good])
    assert refused(node, "bad-proposal")
    assert node.replica.applied.height == 0
    node.block(good)
    assert node.codes == [(0, "ok")]


def sign_for_another_chain() -> bytes:
    key = P256Key("other")
    return build(register_party(key), chain="other-1", sequence=1, signer=key, cosigners=[CONSORTIUM.roots[0]])


def test_a_node_votes_for_no_block_out_of_turn(node: Driver) -> None:
    for height in (0, 2, 7, -1):
        assert node.ask("process_proposal", txs=[], height=height).status == REJECT
    assert refused(node, "wrong-height")
    assert node.process([])


@pytest.mark.parametrize("what", ["transactions", "work"])
def test_a_node_votes_for_no_block_that_is_too_large(node: Driver, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if what == "transactions":
        monkeypatch.setattr(abci_state, "MAX_BLOCK_TRANSACTIONS", 2)
        some = [registration(f"party {one}") for one in range(3)]
    else:
        batch = batch_in(node)
        monkeypatch.setattr(abci_state, "MAX_BLOCK_WORK", 10)
        some = [sign(Deploy(batch, 1, bytes(32), Selection.of([one])), OWNER, sequence=one + 1) for one in range(3)]
    assert node.process(some[:1])
    assert not node.process(some)
    assert refused(node, "block-too-large")


def test_a_root_cannot_set_validators_that_the_chain_does_not_know(node: Driver) -> None:
    """Not even the root: a node could not tell CometBFT who they are."""
    statement = replace(CONSORTIUM.epoch, number=2, validators_hash=bytes(32), first_height=9)
    data = sign(SetEpoch(statement.sign(CONSORTIUM.roots)), CONSORTIUM.roots[0], sequence=2)
    assert node.check(data) == "epoch-validators"
    assert not node.process([data])
    root = node.replica.state.root
    assert node.block(data) == root
    assert node.codes == [(4, "epoch-validators")]
    same = replace(CONSORTIUM.epoch, number=2, first_height=9)
    node.block(sign(SetEpoch(same.sign(CONSORTIUM.roots)), CONSORTIUM.roots[0], sequence=2))
    assert node.codes == [(0, "ok")]


# --- snapshots ------------------------------------------------------------------------------------


def joins(pair: Pair) -> None:
    """Check that the node still joins by the honest snapshot."""
    assert pair.new.replica.applied.height == 0
    assert pair.new.replica.store.records() == {}
    assert pair.offer(pair.offered()) is Offer.ACCEPT
    for index in range(pair.offered().chunks):
        assert pair.apply(index, pair.chunk(index)).result == Apply.ACCEPT
    assert pair.new.replica.state.root == pair.app_hash


@pytest.mark.parametrize(
    "changes",
    [{"height": 3}, {"hash": bytes(32)}, {"chunks": 1}],
    ids=["of-another-height", "with-another-hash", "with-fewer-chunks"],
)
def test_a_node_begins_with_no_snapshot_that_contradicts_itself(pair: Pair, changes: dict[str, Any]) -> None:
    offered = kind("Snapshot")()
    offered.CopyFrom(pair.offered())
    for name, value in changes.items():
        setattr(offered, name, value)
    assert pair.offer(offered) is Offer.REJECT
    assert refused(pair.new, "bad-snapshot")
    joins(pair)


def test_a_node_begins_with_no_snapshot_of_another_state(pair: Pair) -> None:
    assert pair.offer(pair.offered(), bytes(32)) is Offer.REJECT
    assert refused(pair.new, "wrong-app-hash")
    joins(pair)


@pytest.mark.parametrize(("index", "code"), [(0, "chunk-differs"), (1, "wrong-chunk")])
def test_a_node_takes_no_chunk_but_the_next(pair: Pair, index: int, code: str) -> None:
    assert pair.offer(pair.offered()) is Offer.ACCEPT
    answer = pair.apply(index, pair.chunk(1))
    assert answer.result == Apply.RETRY
    assert list(answer.reject_senders) == ["peer"]
    assert refused(pair.new, code)
    joins(pair)


@pytest.mark.parametrize("change", [twice, again, page_again])
def test_a_node_takes_nothing_twice(pair: Pair, change: Callable[..., object]) -> None:
    chunks = pair.forge(change)
    assert [pair.apply(index, data).result for index, data in enumerate(chunks)][-1] == Apply.RETRY
    assert refused(pair.new, "bad-chunk")
    joins(pair)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (with_record, "wrong-app-hash"),
        (without_record, "wrong-app-hash"),
        (without_page, "bad-snapshot"),
        (without_pages, "bad-snapshot"),
        (with_page, "bad-snapshot"),
        (other_page, "bad-snapshot"),
        (foreign_page, "bad-snapshot"),
    ],
)
def test_a_node_goes_on_with_no_snapshot_that_lies(pair: Pair, change: Callable[..., object], code: str) -> None:
    chunks = pair.forge(change)
    results = [pair.apply(index, data).result for index, data in enumerate(chunks)]
    assert results[-1] == Apply.REJECT_SNAPSHOT
    assert refused(pair.new, code)
    joins(pair)
