"""The ledger through a node that nobody trusts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from firstlight.discovery.bundle import Bundle
from firstlight.discovery.verify import Trust
from firstlight.errors import ConfigError, FirstlightError, ProofError, TransportError
from firstlight.ledger.records import Party, party_name
from firstlight.ledger.transaction import (
    Accept,
    Body,
    Deploy,
    Freeze,
    Offer,
    Recover,
    Unfreeze,
    UpdateParty,
    Withdraw,
    build,
    parse,
)
from firstlight.roles.ledger_client import LedgerClient
from firstlight.roles.wire import TransactionAnswer
from firstlight.testing.chains import GENESIS, P256Key
from firstlight.testing.ledgers import digest
from firstlight.testing.memory_node import MemoryNode
from firstlight.testing.random import SeededRandom
from firstlight.trees.ownership import Selection


@pytest.fixture
def node() -> MemoryNode:
    return MemoryNode()


def client(node: MemoryNode, memory: Path) -> LedgerClient:
    clock = iter(range(1000))
    return LedgerClient(
        "http://127.0.0.1:1/",
        node.genesis,
        memory,
        random=SeededRandom(),
        http=node,
        sleep=lambda _: None,
        monotonic=lambda: float(next(clock)),
    )


def test_records_are_proven_present_or_absent(node: MemoryNode, tmp_path: Path) -> None:
    party = node.ledger.register(P256Key("maker"))
    names = [party_name(party), *(party_name(bytes([one]) * 16) for one in range(40))]
    with client(node, tmp_path / "memory") as ledger:
        found = ledger.records(*names)
        assert isinstance(found[names[0]], Party)
        assert [found[name] for name in names[1:]] == [None] * 40
        with pytest.raises(ProofError) as caught:
            ledger.party(bytes(16))
        assert caught.value.code == "unknown-party"


def test_what_was_submitted_shows_and_refusals_keep_their_code(node: MemoryNode, tmp_path: Path) -> None:
    maker = P256Key("maker")
    party = node.ledger.register(maker)
    body = UpdateParty(party, 2, None, ("http://127.0.0.1:9",), None)
    transaction = build(body, chain=node.genesis.chain, sequence=2, signer=maker)
    with client(node, tmp_path / "memory") as ledger:
        first = ledger.submit(transaction)
        assert ledger.submit(transaction) == first
        assert ledger.party(party).endpoints == ("http://127.0.0.1:9",)
        with pytest.raises(FirstlightError) as caught:
            ledger.submit(build(body, chain=node.genesis.chain, sequence=7, signer=maker))
    assert caught.value.code == "wrong-sequence"


def test_what_an_owner_does_is_believed_once_it_is_proven(tmp_path: Path) -> None:
    """The node answers that a transaction is committed, and drops it, for each kind that an owner sends."""
    node, owner, buyer, recovery = Dropping(), P256Key("owner"), P256Key("buyer"), P256Key("recovery")
    maker = P256Key("maker")
    party = node.ledger.register(maker)
    batch = node.ledger.anchor(maker, party, owner, recovery=digest(recovery.public))
    some, all_of_it = Selection.of([0]), Selection.of([(0, 8)])
    expiry = node.ledger.time + 3_600
    bodies: list[tuple[Body, P256Key, int]] = [
        (Deploy(batch, 1, bytes(32), None), owner, 1),
        (Freeze(batch, 1, some), owner, 2),
        (Unfreeze(batch, 2, some), owner, 3),
        (Offer(batch, 1, buyer.public, expiry, some), owner, 4),
        (Withdraw(batch, 3), owner, 5),
        (Offer(batch, 1, buyer.public, expiry, all_of_it), owner, 6),
        (Accept(batch, 4, bytes(32), 0), buyer, 1),
        (Recover(batch, 1, recovery.public, P256Key("fresh").public, bytes(32)), recovery, 1),
    ]
    with client(node, tmp_path / "memory") as ledger:
        for body, signer, sequence in bodies:
            data = build(body, chain=node.genesis.chain, sequence=sequence, signer=signer)
            node.drops = True
            with pytest.raises(ProofError) as caught:
                ledger.submit(data)
            assert caught.value.code == "not-committed", body
            node.drops = False
            assert ledger.submit(data).id == parse(data).id


class Dropping(MemoryNode):
    """Says that it is done, and does nothing, while ``drops``."""

    drops = False

    def _submit(self, data: bytes) -> TransactionAnswer:
        if not self.drops:
            return super()._submit(data)
        return TransactionAnswer(parse(data).id, 1, "ok", "", parse(data).kind, b"", 0, 0)


def test_a_node_that_lags_is_waited_for_and_given_up(node: MemoryNode, tmp_path: Path) -> None:
    maker = P256Key("maker")
    party = node.ledger.register(maker)
    transaction = build(UpdateParty(party, 2, None, (), None), chain="test-1", sequence=2, signer=maker)
    with client(node, tmp_path / "memory") as ledger:
        ledger.submit(transaction)
        node.ledger.height -= 2
        with pytest.raises(TransportError) as caught:
            ledger.party(party)
        assert caught.value.code == "view-behind"
        node.ledger.height += 2
        assert ledger.party(party).revision == 2


def test_memory_outlives_the_client_and_never_goes_back(node: MemoryNode, tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    node.ledger.height = 20
    with client(node, memory) as ledger:
        ledger.records("governance")
    stored = Trust.decode(memory.read_bytes())
    assert (stored.height, stored.tenure, stored.revision) == (21, 0, 0)
    node.ledger.height = 10
    with client(node, memory) as ledger, pytest.raises(ProofError) as caught:
        ledger.records("governance")
    assert caught.value.code == "height-back"
    with pytest.raises(ConfigError) as wrong:
        LedgerClient("x", replace(node.genesis, chain="other-1"), memory, random=SeededRandom(), http=node)
    assert wrong.value.code == "wrong-chain"


def stale(node: MemoryNode, bundle: Bundle) -> Bundle:
    assert bundle.freshness is not None
    nonce, witnesses = node.ledger.consortium.attest(
        node.ledger.consortium.block(node.ledger.state.root, height=3).header, bytes(32), time=GENESIS
    )
    return replace(bundle, freshness=replace(bundle.freshness, nonce=nonce, witnesses=witnesses))


@pytest.mark.parametrize("lie", ["no-witness", "stale", "value"])
def test_a_node_that_lies_is_found_out(node: MemoryNode, tmp_path: Path, lie: str) -> None:
    party = node.ledger.register(P256Key("maker"))
    name = party_name(party)
    lies = {
        "no-witness": lambda one: replace(one, freshness=None),
        "stale": lambda one: stale(node, one),
        "value": lambda one: replace(one, state=replace(one.state, values=(one.state.values[0], None))),
    }
    codes = {"no-witness": "not-fresh", "stale": "witness-signature", "value": "bad-state-proof"}
    with client(node, tmp_path / "memory") as ledger:
        assert isinstance(ledger.records(name)[name], Party)
        before = (tmp_path / "memory").read_bytes()
        node.change = lies[lie]
        with pytest.raises(ProofError) as caught:
            ledger.records(name)
    assert caught.value.code == codes[lie]
    assert (tmp_path / "memory").read_bytes() == before


def test_nonsense_from_a_node_is_a_bad_response(node: MemoryNode, tmp_path: Path) -> None:
    class Babbling(MemoryNode):
        def _answer(self, method: str, path: str, body: bytes) -> bytes:
            return b"\xff"

    with client(Babbling(), tmp_path / "memory") as ledger, pytest.raises(TransportError) as caught:
        ledger.records("governance")
    assert caught.value.code == "bad-response"
