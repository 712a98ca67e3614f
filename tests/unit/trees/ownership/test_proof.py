from dataclasses import replace

import pytest

from firstlight.errors import ProofError
from firstlight.trees.ownership import OwnershipProof, Selection, Split, Trie, Uniform, verify
from firstlight.trees.ownership.nodes import split_hash, uniform_hash

SIZE = 13
TRIE = Trie.uniform(SIZE, 1).assign(Selection.of([4, 5]), 2, expect={1}).trie
"""0-3: 1, 4-5: 2, 6-12: 1, then padding."""
ONE, TWO, NOBODY = uniform_hash(1), uniform_hash(2), uniform_hash(0)
LEFT = split_hash(ONE, split_hash(TWO, ONE))
RIGHT = split_hash(ONE, split_hash(split_hash(ONE, NOBODY), NOBODY))


def refused(bits: int, length: int, proof: OwnershipProof, *, root: bytes = TRIE.root, size: int = SIZE) -> None:
    with pytest.raises(ProofError) as caught:
        verify(root, size, bits, length, proof)
    assert caught.value.code == "bad-ownership-proof"


def test_answers() -> None:
    assert split_hash(LEFT, RIGHT) == TRIE.root
    assert verify(TRIE.root, SIZE, 0, 0, TRIE.prove(0, 0)) == Split(LEFT, RIGHT)
    assert verify(TRIE.root, SIZE, 0b01, 2, TRIE.prove(0b01, 2)) == Split(TWO, ONE)
    assert verify(TRIE.root, SIZE, 0b010, 3, TRIE.prove(0b010, 3)) == Uniform(2)
    assert verify(TRIE.root, SIZE, 0b1100, 4, TRIE.prove(0b1100, 4)) == Uniform(1)
    assert verify(TRIE.root, SIZE, 0b110, 3, TRIE.prove(0b110, 3)) == Split(ONE, NOBODY)


def test_a_longer_prefix_is_answered_by_the_node_that_covers_it() -> None:
    assert TRIE.covering_prefix(3) == (0b00, 2)
    assert TRIE.prove(0b0011, 4) == TRIE.prove(0b00, 2) == OwnershipProof(1, (), (RIGHT, split_hash(TWO, ONE)))
    assert verify(TRIE.root, SIZE, 0b0011, 4, TRIE.prove(0b00, 2)) == Uniform(1)


def test_a_batch_of_one() -> None:
    lone = Trie.uniform(1, 7)
    assert verify(lone.root, 1, 0, 0, lone.prove(0, 0)) == Uniform(7)
    refused(0, 1, lone.prove(0, 0), root=lone.root, size=1)


@pytest.mark.parametrize(
    ("bits", "length"),
    [(0, 5), (0, -1), (0b100, 2), (-1, 2), (0b1101, 4), (0b111, 3), (0b0011, 3)],
    ids=["deeper than the trie", "negative length", "too wide", "negative", "index=size", "padding", "elsewhere"],
)
def test_a_prefix_that_does_not_fit_is_refused(bits: int, length: int) -> None:
    refused(bits, length, TRIE.prove(0b0011, 4))


HONEST = TRIE.prove(0b010, 3)
SPLIT = TRIE.prove(0b01, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"tenure": 1},
        {"tenure": None},
        {"children": (TWO, TWO)},
        {"children": (TWO,)},
        {"tenure": None, "children": (TWO, TWO)},
        {"tenure": None, "children": (TWO, ONE)},
        {"path": HONEST.path[:-1]},
        {"path": (*HONEST.path, ONE)},
        {"path": HONEST.path[::-1]},
        {"path": (HONEST.path[0], ONE, NOBODY)},
        {"path": (HONEST.path[0], ONE, ONE[:31])},
    ],
    ids=str,
)
def test_a_changed_answer_is_refused(changes: dict) -> None:
    verify(TRIE.root, SIZE, 0b010, 3, HONEST)
    refused(0b010, 3, replace(HONEST, **changes))


@pytest.mark.parametrize(
    "changes",
    [{"children": (ONE, TWO)}, {"children": ()}, {"tenure": 2, "children": ()}, {"path": SPLIT.path[:1]}],
    ids=str,
)
def test_a_changed_split_is_refused(changes: dict) -> None:
    verify(TRIE.root, SIZE, 0b01, 2, SPLIT)
    refused(0b01, 2, replace(SPLIT, **changes))


def test_a_split_answers_its_own_prefix_only() -> None:
    refused(0b010, 3, SPLIT)
    refused(0, 0, SPLIT)


def test_the_root_and_the_size_count() -> None:
    refused(0b010, 3, HONEST, root=bytes(32))
    refused(0b010, 3, HONEST, size=4)
    refused(0b010, 3, HONEST, size=0)
    refused(0b010, 3, HONEST, size=2**32)


def test_tries_that_are_not_canonical_are_refused_even_if_the_hash_fits() -> None:
    """Roots that no honest trie has."""
    twice = split_hash(ONE, ONE)
    refused(0, 1, OwnershipProof(1, (), (ONE,)), root=twice, size=2)
    refused(0, 0, OwnershipProof(None, (ONE, ONE), ()), root=twice, size=2)
    refused(0, 0, OwnershipProof(None, (NOBODY, NOBODY), ()), root=split_hash(NOBODY, NOBODY), size=4)


def test_padding_is_nobodys_and_devices_are_somebodys() -> None:
    refused(0, 0, OwnershipProof(1, (), ()), root=ONE, size=3)
    refused(0b1, 1, OwnershipProof(2, (), (ONE,)), root=split_hash(ONE, TWO), size=5)
    owned_padding = split_hash(ONE, split_hash(ONE, TWO))
    refused(0b10, 2, OwnershipProof(1, (), (ONE, TWO)), root=owned_padding, size=3)
    nobodys_device = split_hash(NOBODY, ONE)
    refused(1, 1, OwnershipProof(1, (), (NOBODY,)), root=nobodys_device, size=2)
    refused(0, 0, OwnershipProof(None, (NOBODY, ONE), ()), root=nobodys_device, size=2)


def test_a_leaf_has_no_halves() -> None:
    forged = OwnershipProof(None, (ONE, TWO), (ONE,))
    refused(0, 1, forged, root=split_hash(split_hash(ONE, TWO), ONE), size=2)
