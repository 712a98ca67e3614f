"""Heads that must continue the chain which was followed so far."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from firstlight.chain.light import SECOND, Policy, Trusted
from firstlight.chain.root import known_epoch, known_root
from firstlight.discovery.verify import Trust, View
from firstlight.errors import ConfigError, ProofError
from firstlight.roles.tracking import Followed
from firstlight.roles.wire import HeaderAnswer
from firstlight.testing.chains import GENESIS, Consortium, Ed25519Key
from firstlight.testing.clock import FakeClock

PERIOD = 10_000
POLICY = Policy(trusting_period=PERIOD * SECOND)
LAST = 9
BASE = Consortium.of(validators=1)


def consortium_at(height: int) -> Consortium:
    """Return the consortium of a height: one of three validators is replaced with each block."""
    return replace(BASE, validators=tuple(Ed25519Key(f"validator {height + one}") for one in range(3)))


def header_at(height: int, app_hash: bytes = bytes(32), *, late: int = 0) -> HeaderAnswer:
    here, after = consortium_at(height), consortium_at(height + 1).validator_set
    block = here.block(app_hash, height=height, time=GENESIS + height + late)
    closed = here.close(replace(block.header, next_validators_hash=after.hash()))
    return HeaderAnswer(closed.header, closed.commit, here.validator_set, after)


@dataclass
class Node:
    """What a node shows: its newest head, and headers."""

    headers: dict[int, HeaderAnswer] = field(
        default_factory=lambda: {one: header_at(one) for one in range(1, LAST + 1)}
    )
    height: int = 1
    asked: list[int] = field(default_factory=list)
    shown: HeaderAnswer | None = None
    chain: str = BASE.chain

    def view(self, *names: str) -> View:
        assert names == ("governance",)
        header = self.headers[self.height].header
        return View(
            trust=Trust.at_birth(self.chain, BASE.signed_root()),
            root=known_root(BASE.signed_root()),
            epoch=known_epoch(BASE.signed_epoch()),
            height=header.height,
            header_hash=header.hash(),
            header_time=header.time // SECOND,
            app_hash=header.app_hash,
            time=header.time // SECOND,
            batch_id=None,
            batch=None,
            owned=None,
            standing=None,
            records={},
        )

    def follow(self, view: View, *names: str, batch: bytes | None = None, prefix: tuple[int, int] = (0, 0)) -> View:
        assert (names, batch, prefix) == (("governance",), None, (0, 0))
        return view

    def header(self, height: int) -> HeaderAnswer:
        self.asked.append(height)
        return self.shown or self.headers[height]


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "chain.cbor"


def followed(node: Node, memory: Path, clock: FakeClock | None = None) -> Followed:
    return Followed(node, memory, policy=POLICY, clock=clock or FakeClock(GENESIS + 1_000))


def test_heads_are_followed_one_by_one_and_over_a_gap(memory: Path) -> None:
    node = Node()
    ledger = followed(node, memory)
    assert ledger.view("governance").height == 1
    node.height = 2
    view = ledger.view("governance")
    assert ledger.view("governance").header_hash == view.header_hash
    assert ledger.follow(view, "governance") is view
    assert node.asked == [1, 2]
    node.height = LAST
    ledger.view("governance")
    assert set(node.asked[2:]) < set(range(3, LAST + 1))
    assert Trusted.decode(memory.read_bytes()).header == node.headers[LAST].header


def test_what_was_followed_to_outlives_the_process(memory: Path) -> None:
    node = Node(height=5)
    followed(node, memory).view("governance")
    node.height = 4
    with pytest.raises(ProofError) as caught:
        followed(node, memory).view("governance")
    assert caught.value.code == "height-back"
    with pytest.raises(ConfigError) as wrong:
        followed(Node(chain="other-1"), memory)
    assert wrong.value.code == "wrong-chain"


@pytest.mark.parametrize(
    ("height", "lie", "code"),
    [
        (1, {1: header_at(1, bytes([1]) * 32)}, "chain-forked"),
        (2, {2: replace(header_at(2), validators=header_at(4).validators)}, "validators-hash"),
        (2, {2: header_at(2, late=-5)}, "time-not-monotonic"),
        (2, {2: header_at(2, late=5_000)}, "header-from-future"),
        (2, {2: replace(header_at(2), next_validators=header_at(4).validators)}, "next-validators"),
    ],
    ids=["fork", "validators", "past", "future", "next"],
)
def test_a_head_that_does_not_follow(memory: Path, height: int, lie: dict[int, HeaderAnswer], code: str) -> None:
    node = Node()
    ledger = followed(node, memory)
    ledger.view("governance")
    before = memory.read_bytes()
    node.headers |= lie
    node.height = height
    with pytest.raises(ProofError) as caught:
        ledger.view("governance")
    assert caught.value.code == code
    assert memory.read_bytes() == before


def test_another_header_than_the_proven_one(memory: Path) -> None:
    node = Node()
    ledger = followed(node, memory)
    ledger.view("governance")
    node.height = 2
    node.shown = header_at(2, bytes([1]) * 32)
    with pytest.raises(ProofError) as caught:
        ledger.view("governance")
    assert caught.value.code == "wrong-header"


def test_after_a_long_silence_the_epoch_vouches(memory: Path) -> None:
    node, clock = Node(), FakeClock(GENESIS + 1_000)
    followed(node, memory, clock).view("governance")
    clock.advance(PERIOD)
    node.height = LAST
    node.asked.clear()
    followed(node, memory, clock).view("governance")
    assert node.asked == [LAST]
