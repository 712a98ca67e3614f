from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from firstlight.errors import MalformedError, ProofError, RuleError
from firstlight.testing.definitions import ownership_root
from firstlight.trees.ownership import OwnershipProof, Selection, Split, Trie, Uniform, depth_of, verify
from firstlight.trees.ownership.nodes import uniform_hash
from firstlight.trees.ownership.pages import LeafPage

sizes = st.one_of(st.integers(1, 40), st.sampled_from([1023, 1024, 1025, 2048, 3000]))


@st.composite
def selections(draw: st.DrawFn, size: int) -> list[int]:
    if draw(st.booleans()):
        start = draw(st.integers(0, size - 1))
        return list(range(start, draw(st.integers(start + 1, size))))
    return sorted(draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=40)))


class OwnershipMachine(RuleBasedStateMachine):
    """Assignments, refusals, saving and opening again, against a plain list of owners."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: dict[tuple[int, int], bytes] = {}

    def load(self, level: int, number: int) -> bytes:
        return self.pages[level, number]

    @initialize(size=sizes)
    def make(self, size: int) -> None:
        self.trie = Trie.uniform(size, 1)
        self.owners = [1] * size

    @rule(data=st.data(), to=st.integers(1, 4), allowed=st.sets(st.integers(1, 4), min_size=2))
    def assign(self, data: st.DataObject, to: int, allowed: set[int]) -> None:
        indices = data.draw(selections(self.trie.size))
        taken: dict[int, int] = {}
        for index in indices:
            taken[self.owners[index]] = taken.get(self.owners[index], 0) + 1
        selection = Selection.of(indices)
        assert self.trie.owners(selection) == taken
        if not taken.keys() <= allowed:
            with pytest.raises(RuleError, match="wrong-owner"):
                self.trie.assign(selection, to, expect=allowed)
            return
        result = self.trie.assign(selection, to, expect=allowed)
        assert result.taken == taken
        self.trie = result.trie
        for index in indices:
            self.owners[index] = to

    @rule()
    def save(self) -> None:
        for level, number, data in self.trie.unsaved():
            if data is None:
                self.pages.pop((level, number), None)
            else:
                self.pages[level, number] = data
        self.trie = self.trie.saved(self)

    @rule()
    def save_and_open(self) -> None:
        self.save()
        self.trie = Trie.open(self.trie.size, self.trie.root, self)
        real = {place for place in self.pages if place[0] == 0 and len(set(self.owners_of(place[1]))) > 1}
        assert {place for place in self.pages if place[0] == 0} in (real, {(0, 0)})

    def owners_of(self, page: int) -> list[int]:
        padded = self.owners + [0] * 1024
        return padded[page * 1024 : page * 1024 + 1024]

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, self.trie.size - 1))
        assert self.trie.owner(index) == self.owners[index]
        bits, length = self.trie.covering_prefix(index)
        depth = self.trie.depth
        span = 1 << (depth - length)
        assert set(self.owners[bits * span : (bits + 1) * span]) == {self.owners[index]}
        for asked in range(depth + 1):
            prefix = index >> (depth - asked)
            answer = verify(self.trie.root, self.trie.size, prefix, asked, self.trie.prove(prefix, asked))
            assert answer == Uniform(self.owners[index]) if asked >= length else isinstance(answer, Split)

    @invariant()
    def root_is_a_function_of_the_owners(self) -> None:
        if hasattr(self, "trie"):
            assert self.trie.root == ownership_root(self.owners, self.trie.depth)


TestOwnership = OwnershipMachine.TestCase
TestOwnership.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)


@given(st.sets(st.integers(0, 300), min_size=1), st.randoms(use_true_random=False))
def test_a_selection_is_its_set(indices: set[int], random) -> None:
    order = list(indices)
    random.shuffle(order)
    selection = Selection.of(order)
    assert list(selection.indices()) == sorted(indices)
    assert selection.count == len(indices)
    assert Selection.of(selection.runs()) == selection
    assert Selection.decode(selection.encode()) == selection


@given(st.binary(min_size=2, max_size=24))
def test_bytes_are_no_selection_or_the_only_encoding_of_one(packed: bytes) -> None:
    refusal: str | None = None
    try:
        selection = Selection(packed)
    except MalformedError as error:
        refusal = error.code
    else:
        assert Selection.of(selection.runs()).packed == packed
    assert refusal in {None, "bad-selection", "bad-varint"}


@given(st.integers(1, 600), st.data())
def test_work_is_the_number_of_nodes(size: int, data: st.DataObject) -> None:
    indices = set(data.draw(selections(size)))

    def nodes(low: int, high: int) -> int:
        inside = sum(low <= index < high for index in indices)
        if inside in (0, high - low):
            return min(inside, 1)
        middle = (low + high) // 2
        return 1 + nodes(low, middle) + nodes(middle, high)

    depth = depth_of(size)
    assert Selection.of(indices).nodes(depth) == nodes(0, 1 << depth)


@given(st.binary(min_size=1, max_size=40))
def test_bytes_are_no_page_or_the_only_encoding_of_one(data: bytes) -> None:
    try:
        page = LeafPage.decode(data, 8)
    except MalformedError:
        return
    assert page.encode() == data


@given(st.integers(2, 60), st.data())
def test_no_changed_proof_holds(size: int, data: st.DataObject) -> None:
    trie = Trie.uniform(size, 1)
    for to in (2, 3):
        trie = trie.assign(Selection.of(data.draw(selections(size))), to, expect={1, 2}).trie
    index = data.draw(st.integers(0, size - 1))
    length = data.draw(st.integers(0, trie.depth))
    prefix = index >> (trie.depth - length)
    proof = trie.prove(prefix, length)
    known = [uniform_hash(0), uniform_hash(1), uniform_hash(2), bytes(32), *proof.path, *proof.children]
    changed = replace(
        proof,
        tenure=data.draw(st.sampled_from([proof.tenure, None, 1, 2, 3])),
        children=data.draw(st.sampled_from([proof.children, (), (known[0], known[1]), proof.children[::-1]])),
        path=tuple(data.draw(st.lists(st.sampled_from(known), max_size=7) | st.just(list(proof.path)))),
    )
    if changed == proof:
        assert OwnershipProof.decode(proof.encode()) == proof
        return
    with pytest.raises(ProofError, match="bad-ownership-proof"):
        verify(trie.root, size, prefix, length, changed)
