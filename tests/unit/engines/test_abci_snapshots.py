"""State sync: a node that joins takes over a state in bounded chunks, checked against the application hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.engines.test_abci import BUYER, FIRST, OWNER, anchoring, offer, registration, sign

from firstlight.engines import abci_snapshots
from firstlight.engines.abci_application import Apply, Offer
from firstlight.engines.abci_messages import kind
from firstlight.engines.abci_snapshots import Chunk, PageEntry, RecordEntry, Snapshot
from firstlight.ledger.transaction import Accept, parse
from firstlight.testing.abci import Driver, driving

SPREAD: list[int | tuple[int, int]] = [1, 700, 1_500, 2_047, (2_100, 30)]


@dataclass
class Pair:
    """A node with a snapshot, and one that has just been made."""

    old: Driver
    new: Driver
    batch: bytes
    app_hash: bytes

    def offered(self) -> Any:
        return self.old.ask("list_snapshots").snapshots[0]

    def chunk(self, index: int) -> bytes:
        offered = self.offered()
        answer = self.old.ask("load_snapshot_chunk", height=offered.height, format=offered.format, chunk=index)
        return bytes(answer.chunk)

    def offer(self, snapshot: Any, app_hash: bytes | None = None) -> Offer:
        answer = self.new.ask("offer_snapshot", snapshot=snapshot, app_hash=app_hash or self.app_hash)
        return Offer(answer.result)

    def apply(self, index: int, data: bytes) -> Any:
        return self.new.ask("apply_snapshot_chunk", index=index, chunk=data, sender="peer")

    def forge(self, change: Any) -> list[bytes]:
        """Return chunks that lie, and offer a snapshot whose metadata agree with them."""
        offered = self.offered()
        whole = [Chunk.decode(self.chunk(index)) for index in range(offered.chunks)]
        records = [one for chunk in whole for one in chunk.records]
        pages = [one for chunk in whole for one in chunk.pages]
        chunks = [Chunk(*map(tuple, part)).encode() for part in change(records, pages)]
        known = Snapshot.decode(bytes(offered.metadata))
        forged = Snapshot(known.applied, tuple(hashlib.sha256(one).digest() for one in chunks))
        snapshot = kind("Snapshot")(
            height=offered.height, format=1, chunks=len(chunks), hash=forged.hash, metadata=forged.encode()
        )
        assert self.offer(snapshot) is Offer.ACCEPT
        return chunks


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    monkeypatch.setattr(abci_snapshots, "CHUNK_BYTES", 600)
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    with ExitStack() as stack:
        old = stack.enter_context(driving(tmp_path / "old", FIRST, snapshots=4))
        old.block(registration(), *(registration(f"party {one}") for one in range(10)))
        old.block(anchoring(), registration("late"))
        committed = old.replica.store.committed(parse(anchoring()).id)
        assert committed is not None
        old.block(sign(offer(committed.subject, SPREAD), OWNER))
        app_hash = old.block(sign(Accept(committed.subject, 2, bytes(32), 0), BUYER))
        old.shelf.wait()
        new = stack.enter_context(driving(tmp_path / "new", FIRST, begin=False))
        yield Pair(old, new, committed.subject, app_hash)


def test_a_node_that_joins_has_the_same_state(pair: Pair) -> None:
    old, new = pair.old, pair.new
    old.block(registration("after the snapshot"))
    offered = pair.offered()
    assert offered.height == 4
    assert offered.chunks > 4
    chunks = [pair.chunk(index) for index in range(offered.chunks)]
    assert max(map(len, chunks)) < 4 * abci_snapshots.CHUNK_BYTES
    assert pair.offer(offered) is Offer.ACCEPT
    for index, data in enumerate(chunks):
        assert new.replica.applied.height == 0
        assert pair.apply(index, data).result == Apply.ACCEPT
    info = new.ask("info")
    assert (info.last_block_height, info.last_block_app_hash) == (4, pair.app_hash)
    assert new.replica.records == len(old.replica.store.records()) - 1
    trie = new.replica.state.trie(pair.batch)
    assert trie is not None
    assert trie.owners() == {1: 2_966, 2: 34}
    new.clock.set(old.clock.seconds - 1)
    assert new.block(registration("after the snapshot")) == old.replica.state.root
    frozen = offer(pair.batch, [9])
    assert new.check(sign(frozen, OWNER, sequence=2)) == old.check(sign(frozen, OWNER, sequence=2)) == "ok"
    assert new.check(registration()) == "party-exists"


def test_a_restored_node_restarts(pair: Pair, tmp_path: Path) -> None:
    offered = pair.offered()
    pair.offer(offered)
    for index in range(offered.chunks):
        pair.apply(index, pair.chunk(index))
    place = tmp_path / "copy"
    place.mkdir()
    for path in (tmp_path / "new").glob("ledger.sqlite*"):
        (place / path.name).write_bytes(path.read_bytes())
    with driving(place, FIRST) as again:
        assert again.replica.state.root == pair.app_hash
        trie = again.replica.state.trie(pair.batch)
        assert trie is not None
        assert trie.owners() == {1: 2_966, 2: 34}


def test_the_same_state_makes_the_same_snapshot(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "third").mkdir()
    with driving(tmp_path / "third", FIRST, snapshots=4) as third:
        offered = pair.offered()
        pair.offer(offered)
        for index in range(offered.chunks):
            pair.apply(index, pair.chunk(index))
        for node in (pair.old, pair.new):
            with node.replica.store.frozen() as state:
                chunks = [chunk.encode() for chunk in abci_snapshots.chunks_of(state)]
            assert chunks == [pair.chunk(index) for index in range(offered.chunks)]
        assert third.ask("list_snapshots").snapshots == []


def test_only_the_newest_snapshots_are_kept(pair: Pair) -> None:
    for _ in range(12):
        pair.old.block()
        pair.old.shelf.wait()
    assert [one.height for one in pair.old.ask("list_snapshots").snapshots] == [16, 12]
    assert pair.old.ask("load_snapshot_chunk", height=4, format=1, chunk=0).chunk == b""


@pytest.mark.parametrize(
    ("changes", "result"),
    [
        ({"format": 2}, Offer.REJECT_FORMAT),
        ({"height": 3}, Offer.REJECT),
        ({"hash": bytes(32)}, Offer.REJECT),
        ({"chunks": 1}, Offer.REJECT),
        ({"metadata": b"\xff"}, Offer.REJECT),
        ({"metadata": b""}, Offer.REJECT),
    ],
)
def test_an_offer_that_contradicts_itself(pair: Pair, changes: dict[str, object], result: Offer) -> None:
    offered = kind("Snapshot")()
    offered.CopyFrom(pair.offered())
    for name, value in changes.items():
        setattr(offered, name, value)
    assert pair.offer(pair.offered()) is Offer.ACCEPT
    assert pair.offer(offered) is result


def test_a_snapshot_of_another_state_than_the_header_proves(pair: Pair) -> None:
    assert pair.offer(pair.offered(), bytes(32)) is Offer.REJECT
    assert any("wrong-app-hash" in line for line in pair.new.log.lines)


def test_a_node_with_a_state_takes_no_snapshot(pair: Pair) -> None:
    answer = pair.old.ask("offer_snapshot", snapshot=pair.offered(), app_hash=pair.app_hash)
    assert answer.result == Offer.ABORT
    assert pair.apply(0, b"").result == Apply.ABORT


def test_a_chunk_that_is_not_the_one_announced_is_fetched_from_somebody_else(pair: Pair) -> None:
    assert pair.offer(pair.offered()) is Offer.ACCEPT
    for index, data in ((0, pair.chunk(1)), (1, pair.chunk(1)), (0, b""), (7_000, pair.chunk(0))):
        answer = pair.apply(index, data)
        assert answer.result == Apply.RETRY
        assert list(answer.refetch_chunks) == [index]
        assert list(answer.reject_senders) == ["peer"]
    for index in range(pair.offered().chunks):
        assert pair.apply(index, pair.chunk(index)).result == Apply.ACCEPT
    assert pair.new.replica.applied.height == 4


def with_record(records: list[RecordEntry], pages: list[PageEntry]) -> object:
    return [([*records, RecordEntry("party/" + "ab" * 16, b"\x80")], pages)]


def without_record(records: list[RecordEntry], pages: list[PageEntry]) -> object:
    return [(records[1:], pages)]


def without_page(records: list[RecordEntry], pages: list[PageEntry]) -> object:
    return [(records, pages[1:])]


def without_pages(records: list[RecordEntry], pages: list[PageEntry]) -> object:
    return [(records, [])]


def with_page(records: list[RecordEntry], pages: list[PageEntry]) -> object:
    return [(records, [*pages, replace(pages[0], number=77)])]


def other_page(records: list[RecordEntry], pages: list[PageEntry]) -> object:
    return [(records, [replace(pages[0], data=pages[1].data), *pages[1:]])]


def foreign_page(records: list[RecordEntry], pages: list[PageEntry]) -> object:
    return [(records, [*pages, replace(pages[0], batch=bytes(16))])]


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
def test_a_snapshot_that_lies_is_refused_as_a_whole(pair: Pair, change: Any, code: str) -> None:
    chunks = pair.forge(change)
    results = [pair.apply(index, data).result for index, data in enumerate(chunks)]
    assert results == [Apply.ACCEPT] * (len(chunks) - 1) + [Apply.REJECT_SNAPSHOT]
    assert any(f'"code":"{code}"' in line for line in pair.new.log.lines)
    assert pair.new.replica.applied.height == 0
    assert pair.new.replica.store.applied() is None
    assert pair.new.replica.store.records() == {}


def twice(records: list[RecordEntry], pages: list[PageEntry]) -> object:
    return [([*records, records[0]], pages)]


def again(records: list[RecordEntry], pages: list[PageEntry]) -> object:
    return [(records, pages), (records[:1], [])]


def page_again(records: list[RecordEntry], pages: list[PageEntry]) -> object:
    return [(records, pages), ([], pages[:1])]


@pytest.mark.parametrize("change", [twice, again, page_again])
def test_nothing_stands_in_a_snapshot_twice(pair: Pair, change: Any) -> None:
    chunks = pair.forge(change)
    assert [pair.apply(index, data).result for index, data in enumerate(chunks)][-1] == Apply.RETRY
    assert any('"code":"bad-chunk"' in line for line in pair.new.log.lines)


def test_what_is_no_chunk(pair: Pair) -> None:
    offered = pair.offered()
    known = Snapshot.decode(bytes(offered.metadata))
    forged = Snapshot(known.applied, (hashlib.sha256(b"\xff").digest(),))
    snapshot = kind("Snapshot")(height=4, format=1, chunks=1, hash=forged.hash, metadata=forged.encode())
    assert pair.offer(snapshot) is Offer.ACCEPT
    assert pair.apply(0, b"\xff").result == Apply.RETRY


def test_a_snapshot_that_cannot_be_written_harms_nobody(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(abci_snapshots, "write_atomic", fails)
    for _ in range(4):
        pair.old.block()
    pair.old.shelf.wait()
    assert any("snapshot-failed" in line for line in pair.old.log.lines)
    assert [one.height for one in pair.old.ask("list_snapshots").snapshots] == [4]
