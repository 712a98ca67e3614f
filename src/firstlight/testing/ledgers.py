"""A ledger in memory: the state machine without an engine, with keys made from names and time that tests move."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from firstlight.ledger.draft import Outcome, Result
from firstlight.ledger.records import (
    Batch,
    Party,
    Role,
    Tenure,
    batch_name,
    party_name,
    tenure_name,
)
from firstlight.ledger.rules import apply, begin_block
from firstlight.ledger.state import State, genesis
from firstlight.ledger.tenure import Standing, counting
from firstlight.ledger.transaction import Accept, AnchorBatch, Body, Deploy, Offer, RegisterParty, Withdraw, build
from firstlight.testing.chains import GENESIS, Consortium, P256Key
from firstlight.trees.ownership import Selection, Trie

MODEL = b"model-1"
HOUR = 3_600


def digest(data: bytes) -> bytes:
    """Return the SHA-256 of ``data``."""
    return hashlib.sha256(data).digest()


def register_party(
    key: P256Key, *, roles: Sequence[Role] = (Role.MANUFACTURER,), following: bytes = b""
) -> RegisterParty:
    """Return the body that registers ``key``; ``following`` is its successor, by default one made from its name."""
    return RegisterParty(key.public, digest(following or b"next" + key.public), tuple(roles), None, ())


def anchor_batch(
    party: bytes, owner: bytes, *, size: int = 8, recovery: bytes = bytes(32), delay: int = 0, leaves: bytes = bytes(32)
) -> AnchorBatch:
    """Return the body that anchors a batch whose tenure 1 has the key ``owner``."""
    return AnchorBatch(party, size, MODEL, leaves, (), (party,), owner, recovery, delay)


class MemoryLedger:
    """Applies transactions one by one, each in a block of its own; refused ones raise what refused them."""

    def __init__(self, consortium: Consortium | None = None) -> None:
        """Begin a chain governed by ``consortium``."""
        self.consortium = consortium or Consortium.of()
        self.state: State = genesis(
            self.consortium.chain, self.consortium.signed_root(), self.consortium.signed_epoch()
        )
        self.height = 1
        self.time = GENESIS
        self._sequences: dict[bytes, int] = {}

    # --- doing ------------------------------------------------------------------------------------

    def apply(self, data: bytes) -> Result:
        """Apply a transaction in the next block and return its result."""
        self.height += 1
        self.state, result = apply(begin_block(self.state, self.height), data, self.height, self.time)
        return result

    def sign(self, body: Body, *signers: P256Key, sequence: int | None = None, chain: str | None = None) -> bytes:
        """Return the transaction; the sequence is the first signer's next one unless given."""
        number = self._sequences.get(signers[0].public, 0) + 1 if sequence is None else sequence
        name = chain or self.consortium.chain
        return build(body, chain=name, sequence=number, signer=signers[0], cosigners=signers[1:])

    def do(self, body: Body, *signers: P256Key, sequence: int | None = None) -> Outcome:
        """Sign and apply; raises the error of a refusal."""
        result = self.apply(self.sign(body, *signers, sequence=sequence))
        if result.outcome is None:
            assert result.error is not None
            raise result.error
        if sequence is None:
            self._sequences[signers[0].public] = self._sequences.get(signers[0].public, 0) + 1
        return result.outcome

    def refused(self, body: Body, *signers: P256Key, sequence: int | None = None) -> str:
        """Return the code with which the transaction is refused, having checked that it changed nothing."""
        before = self.state
        code = self.apply(self.sign(body, *signers, sequence=sequence)).code
        assert self.state.root == before.root
        assert code != "ok"
        return code

    def register(self, key: P256Key, *roles: Role) -> bytes:
        """Register a party (by default a manufacturer) and return its id."""
        body = register_party(key, roles=roles or (Role.MANUFACTURER,))
        return self.do(body, key, self.consortium.roots[0]).subject

    def anchor(self, maker: P256Key, party: bytes, owner: P256Key, **given: int | bytes) -> bytes:
        """Anchor a batch of ``size`` devices (8) with ``recovery``, ``delay`` and ``leaves``, and return its id."""
        return self.do(anchor_batch(party, owner.public, **given), maker).subject  # type: ignore[arg-type]

    def offer(
        self, batch: bytes, tenure: int, owner: P256Key, buyer: P256Key, items: Iterable[int | tuple[int, int]]
    ) -> int:
        """Offer indices for an hour and return the new tenure's number."""
        body = Offer(batch, tenure, buyer.public, self.time + HOUR, Selection.of(items))
        return self.do(body, owner).tenure

    def accept(self, batch: bytes, tenure: int, buyer: P256Key, *, recovery: bytes = bytes(32), delay: int = 0) -> None:
        """Accept an offer."""
        self.do(Accept(batch, tenure, recovery, delay), buyer)

    def sell(
        self,
        batch: bytes,
        tenure: int,
        owner: P256Key,
        buyer: P256Key,
        items: Iterable[int | tuple[int, int]],
        *,
        recovery: bytes = bytes(32),
        delay: int = 0,
    ) -> int:
        """Offer and accept; return the buyer's tenure."""
        number = self.offer(batch, tenure, owner, buyer, items)
        self.accept(batch, number, buyer, recovery=recovery, delay=delay)
        return number

    def withdraw(self, batch: bytes, tenure: int, owner: P256Key) -> None:
        """Withdraw an offer."""
        self.do(Withdraw(batch, tenure), owner)

    def deploy(
        self,
        batch: bytes,
        tenure: int,
        owner: P256Key,
        plan: bytes,
        items: Iterable[int | tuple[int, int]] | None = None,
    ) -> int:
        """Deploy a plan and return the tenure that has it."""
        selection = None if items is None else Selection.of(items)
        return self.do(Deploy(batch, tenure, plan, selection), owner).tenure

    # --- looking ----------------------------------------------------------------------------------

    def party(self, party: bytes) -> Party:
        """Return a party's record."""
        found = self.state.read(party_name(party), Party)
        assert found is not None
        return found

    def batch(self, batch: bytes) -> Batch:
        """Return a batch's record."""
        found = self.state.read(batch_name(batch), Batch)
        assert found is not None
        return found

    def tenure(self, batch: bytes, number: int) -> Tenure:
        """Return a tenure's record."""
        found = self.state.read(tenure_name(batch, number), Tenure)
        assert found is not None
        return found

    def trie(self, batch: bytes) -> Trie:
        """Return a batch's ownership trie."""
        trie = self.state.trie(batch)
        assert trie is not None
        return trie

    def standing(self, batch: bytes, index: int) -> Standing:
        """Return what the tenure of a device amounts to now."""
        return counting(self.trie(batch).owner(index), self.state.tenures(batch), self.time)

    def owners(self, batch: bytes) -> list[int]:
        """Return the number of the tenure that counts for each device."""
        return [self.standing(batch, index).number for index in range(self.batch(batch).size)]


@dataclass(frozen=True, slots=True)
class World:
    """A ledger with one manufacturer, whose one batch is all in tenure 1."""

    ledger: MemoryLedger
    party: bytes
    batch: bytes
