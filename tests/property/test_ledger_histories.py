"""Random histories of a batch against a model that is a dict from index to owner."""

from __future__ import annotations

from dataclasses import dataclass, field

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule
from tests.sampling import FULL

from firstlight.ledger.records import TenureState, batch_name, tenure_name, tree_key
from firstlight.ledger.rules import apply
from firstlight.ledger.tenure import counted, counting, needed
from firstlight.ledger.transaction import Accept, Body, Deploy, Freeze, Offer, Recover, Retire, Unfreeze, Withdraw
from firstlight.testing.chains import P256Key
from firstlight.testing.definitions import ownership_root, state_root
from firstlight.testing.ledgers import MemoryLedger, digest
from firstlight.trees import ownership, sparse
from firstlight.trees.ownership import Selection, Uniform, depth_of

SIZE = 40
DELAY = 50
KEYS = tuple(P256Key(f"owner {one}") for one in range(400))
LEDGER = MemoryLedger()
MAKER = P256Key("maker")
PARTY = LEDGER.register(MAKER)


@dataclass
class Owner:
    """An origin in the model: who holds it, and what the rules about transfers look at."""

    number: int
    key: P256Key
    recovery: P256Key
    accepted_at: int
    seller: Owner | None
    sold_from: int
    sequence: int
    recoveries: list[int] = field(default_factory=list)
    held: bool = False
    undone: bool = False


@dataclass
class Holding:
    """A tenure in the model."""

    number: int
    owner: Owner
    previous: int
    state: TenureState
    plan: bytes | None = None
    revision: int = 0


@dataclass
class Pending:
    """An offer in the model."""

    number: int
    source: int
    indices: set[int]
    buyer: P256Key
    made_at: int
    expiry: int
    over: bool = False


class Histories(RuleBasedStateMachine):
    """Plays transactions by whoever has the right to, and by others, and compares after every step."""

    tenures = Bundle("tenures")
    offers = Bundle("offers")
    indices = st.sets(st.integers(0, SIZE - 1), min_size=1, max_size=12)

    def __init__(self) -> None:
        super().__init__()
        self.ledger = MemoryLedger()
        self.ledger.state, self.ledger.height, self.ledger.time = LEDGER.state, LEDGER.height, LEDGER.time
        self.batch = b""
        self.keys = iter(KEYS)
        self.owner_of: dict[int, int] = {}
        self.holdings: dict[int, Holding] = {}
        self.pending: dict[int, Pending] = {}
        self.last = 0
        self.steps = 0

    # --- the model's own rules --------------------------------------------------------------------

    def live(self, pending: Pending) -> bool:
        recoveries = self.holdings[pending.source].owner.recoveries
        ended = any(time >= pending.made_at for time in recoveries)
        return not pending.over and self.ledger.time < pending.expiry and not ended

    def free(self, number: int, indices: set[int]) -> bool:
        busy = {one for pending in self.pending.values() if self.live(pending) for one in pending.indices}
        return all(self.owner_of[one] == number for one in indices) and not indices & busy

    def usable(self, holding: Holding, *states: TenureState) -> bool:
        return not holding.owner.held and not holding.owner.undone and holding.state in states

    def final(self, owner: Owner) -> bool:
        due = owner.accepted_at + (DELAY if owner.seller is not None else 0)
        return self.ledger.time >= due and all(self.ledger.time > time for time in owner.recoveries)

    def attempt(self, body: Body, owner: Owner, allowed: bool) -> int:
        """Send it; it must succeed exactly if the model allows it. Return the tenure, or 0 if refused."""
        before = self.ledger.state
        result = self.ledger.apply(self.ledger.sign(body, owner.key, sequence=owner.sequence + 1))
        assert (result.outcome is not None) == allowed, (body, result.code)
        if result.outcome is None:
            assert self.ledger.state.root == before.root
            return 0
        owner.sequence += 1
        return result.outcome.tenure

    def split(self, holding: Holding, number: int, indices: set[int], state: TenureState, plan: bytes | None) -> int:
        self.last = number
        self.holdings[number] = Holding(number, holding.owner, holding.number, state, plan, 0 if plan is None else 1)
        self.take(indices, number)
        return number

    def take(self, indices: set[int], number: int) -> None:
        for index in indices:
            self.owner_of[index] = number
        for pending in self.pending.values():
            pending.indices -= indices

    # --- steps ------------------------------------------------------------------------------------

    @initialize(target=tenures)
    def anchor(self) -> int:
        key, recovery = next(self.keys), next(self.keys)
        self.ledger._sequences.update(LEDGER._sequences)
        self.batch = self.ledger.anchor(MAKER, PARTY, key, size=SIZE, recovery=digest(recovery.public), delay=DELAY)
        owner = Owner(1, key, recovery, self.ledger.time, None, 0, 0)
        self.holdings[1] = Holding(1, owner, 0, TenureState.ACTIVE)
        self.owner_of = dict.fromkeys(range(SIZE), 1)
        self.last = 1
        return 1

    @rule(seconds=st.sampled_from([1, 10, DELAY - 1, DELAY, 200]))
    def wait(self, seconds: int) -> None:
        self.ledger.time += seconds

    def make_offer(self, number: int, indices: set[int], lasting: int) -> int:
        holding, buyer = self.holdings[number], next(self.keys)
        allowed = self.usable(holding, TenureState.ACTIVE) and self.final(holding.owner) and self.free(number, indices)
        expiry = self.ledger.time + lasting
        body = Offer(self.batch, number, buyer.public, expiry, Selection.of(indices))
        made = self.attempt(body, holding.owner, allowed)
        if made:
            self.last = made
            for pending in self.pending.values():
                pending.indices -= indices
            self.pending[made] = Pending(made, number, set(indices), buyer, self.ledger.time, expiry)
        return made

    def take_offer(self, number: int) -> int:
        pending, recovery = self.pending[number], next(self.keys)
        seller = self.holdings[pending.source].owner
        owner = Owner(number, pending.buyer, recovery, self.ledger.time, seller, pending.source, 0)
        body = Accept(self.batch, number, digest(recovery.public), DELAY)
        if not self.attempt(body, owner, self.live(pending)):
            return 0
        pending.over = True
        self.holdings[number] = Holding(number, owner, pending.source, TenureState.ACTIVE)
        for index in pending.indices:
            self.owner_of[index] = number
        return number

    def some_of(self, number: int, indices: set[int]) -> set[int]:
        """Return what of the indices is the tenure's, or all of them if nothing is."""
        return {index for index in indices if self.owner_of[index] == number} or indices

    @rule(target=offers, number=tenures, indices=indices, lasting=st.sampled_from([5, 100, 1_000]), any_=st.booleans())
    def offer(self, number: int, indices: set[int], lasting: int, any_: bool) -> object:
        return self.make_offer(number, indices if any_ else self.some_of(number, indices), lasting) or multiple()

    @rule(target=tenures, number=consumes(offers))
    def accept(self, number: int) -> object:
        return self.take_offer(number) or multiple()

    @rule(target=tenures, number=tenures, indices=indices)
    def sell(self, number: int, indices: set[int]) -> object:
        offered = self.make_offer(number, self.some_of(number, indices), 100)
        return (offered and self.take_offer(offered)) or multiple()

    @rule(number=offers)
    def withdraw(self, number: int) -> None:
        pending = self.pending[number]
        source = self.holdings[pending.source]
        allowed = self.live(pending) and not source.owner.held and not source.owner.undone
        if self.attempt(Withdraw(self.batch, number), source.owner, allowed):
            pending.over = True

    @rule(target=tenures, number=tenures, indices=st.none() | indices, plan=st.binary(min_size=32, max_size=32))
    def deploy(self, number: int, indices: set[int] | None, plan: bytes) -> object:
        holding = self.holdings[number]
        allowed = self.usable(holding, TenureState.ACTIVE) and (indices is None or self.free(number, indices))
        selection = None if indices is None else Selection.of(indices)
        made = self.attempt(Deploy(self.batch, number, plan, selection), holding.owner, allowed)
        if made and indices is not None:
            return self.split(holding, made, indices, TenureState.ACTIVE, plan)
        if made:
            holding.plan, holding.revision = plan, holding.revision + 1
        return multiple()

    @rule(target=tenures, number=tenures, indices=indices, final=st.booleans())
    def freeze_or_retire(self, number: int, indices: set[int], final: bool) -> object:
        holding = self.holdings[number]
        indices = self.some_of(number, indices)
        states = (TenureState.ACTIVE, TenureState.FROZEN) if final else (TenureState.ACTIVE,)
        allowed = self.usable(holding, *states) and self.free(number, indices)
        body = (Retire if final else Freeze)(self.batch, number, Selection.of(indices))
        made = self.attempt(body, holding.owner, allowed)
        if not made:
            return multiple()
        return self.split(holding, made, indices, TenureState.RETIRED if final else TenureState.FROZEN, None)

    @rule(number=tenures, indices=indices)
    def unfreeze(self, number: int, indices: set[int]) -> None:
        holding = self.holdings[number]
        indices = self.some_of(number, indices)
        allowed = self.usable(holding, TenureState.FROZEN) and self.free(number, indices)
        back = self.attempt(Unfreeze(self.batch, number, Selection.of(indices)), holding.owner, allowed)
        if back:
            assert back == holding.previous
            self.take(indices, back)

    @rule(number=tenures)
    def release(self, number: int) -> None:
        holding = self.holdings[number]
        owner = holding.owner
        allowed = owner.held and not owner.undone and owner.number == number
        if self.attempt(Unfreeze(self.batch, number, None), owner, allowed):
            owner.held = False

    @rule(number=tenures, release=st.booleans())
    def recover(self, number: int, release: bool) -> None:
        owner = self.holdings[number].owner
        key, recovery = next(self.keys), next(self.keys)
        body = Recover(self.batch, number, owner.recovery.public, key.public, digest(recovery.public))
        signer = Owner(0, owner.recovery, recovery, 0, None, 0, len(owner.recoveries))
        allowed = owner.number == number and not owner.undone and len(owner.recoveries) < 16
        if not self.attempt(body, signer, allowed):
            return
        owner.key, owner.recovery, owner.sequence, owner.held = key, recovery, 0, True
        owner.recoveries.append(self.ledger.time)
        for other in {id(one.owner): one.owner for one in self.holdings.values()}.values():
            if other.seller is owner and self.ledger.time - other.accepted_at < DELAY and not other.undone:
                other.undone = True
                gone = {one.number for one in self.holdings.values() if one.owner is other}
                self.take({index for index, at in self.owner_of.items() if at in gone}, other.sold_from)
        if release:
            self.release(number)
            self.ledger.time += 1

    @rule(number=tenures)
    def a_stranger_has_no_right(self, number: int) -> None:
        stranger = P256Key("stranger")
        for body in (Deploy(self.batch, number, bytes(32), None), Retire(self.batch, number, Selection.of([0]))):
            code = self.ledger.refused(body, stranger, sequence=1)
            assert code == "wrong-key"

    # --- comparisons ------------------------------------------------------------------------------

    @invariant()
    def everything_agrees(self) -> None:
        if not self.batch:
            return
        state, time = self.ledger.state, self.ledger.time
        tenures, trie, batch = state.tenures(self.batch), self.ledger.trie(self.batch), self.ledger.batch(self.batch)
        assert batch.ownership == trie.root
        assert batch.tenures == self.last
        held: dict[int, int] = {}
        for index in range(SIZE):
            at = trie.owner(index)
            held[at] = held.get(at, 0) + 1
            standing = counting(at, tenures, time)
            model = self.holdings[self.owner_of[index]]
            assert standing.number == model.number
            assert standing.origin == model.owner.number
            assert (standing.plan, standing.plan_revision) == (model.plan, model.revision)
            frozen = model.owner.held and model.state is TenureState.ACTIVE
            assert standing.state is (TenureState.FROZEN if frozen else model.state)
            live = [one.number for one in self.pending.values() if index in one.indices and self.live(one)]
            assert live == ([standing.offer] if standing.offer else [])
        for number in range(1, batch.tenures + 1):
            assert self.ledger.tenure(self.batch, number).count == held.get(number, 0)
        for number in self.holdings:
            mine = sum(owner == number for owner in self.owner_of.values())
            assert counted(number, tenures, batch.tenures, time) == mine

    @invariant()
    def roots_agree(self) -> None:
        if not self.batch:
            return
        state, trie = self.ledger.state, self.ledger.trie(self.batch)
        assert state.root == state_root(dict(state.tree.items()))
        assert trie.root == ownership_root([trie.owner(index) for index in range(SIZE)], depth_of(SIZE))

    @invariant()
    def proofs_agree(self) -> None:
        """One index more with each step, so that a history's proofs reach all of them."""
        if not self.batch:
            return
        index, self.steps = self.steps % SIZE, self.steps + 1
        state, trie = self.ledger.state, self.ledger.trie(self.batch)
        bits, length = trie.covering_prefix(index)
        proof = trie.prove(bits, length)
        answer = ownership.verify(self.ledger.batch(self.batch).ownership, SIZE, bits, length, proof)
        assert isinstance(answer, Uniform)
        numbers = needed(answer.tenure, state.tenures(self.batch))
        names = [batch_name(self.batch), *(tenure_name(self.batch, number) for number in numbers)]
        claims = {tree_key(name): state.value(name) for name in names}
        sparse.verify(state.root, claims, state.tree.prove(claims))
        known = {number: self.ledger.tenure(self.batch, number) for number in numbers}
        assert counting(answer.tenure, known, self.ledger.time).number == self.owner_of[index]

    @rule(junk=st.binary(max_size=200))
    def junk_changes_nothing(self, junk: bytes) -> None:
        state, result = apply(self.ledger.state, junk, self.ledger.height + 1, self.ledger.time)
        assert state is self.ledger.state
        assert result.outcome is None


Histories.TestCase.settings = settings(
    max_examples=3_000 if FULL else 60,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=not FULL,
)
TestHistories = Histories.TestCase
