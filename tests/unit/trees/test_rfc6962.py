import json
from pathlib import Path

import pytest

from firstlight.errors import MalformedError, ProofError
from firstlight.trees import rfc6962
from firstlight.trees.rfc6962 import Tree, leaf_hash, node_hash, root_from_multiproof, root_from_path

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "rfc6962.json").read_text())
LEAVES = [bytes.fromhex(leaf) for leaf in VECTORS["leaves"]]
HASHES = [leaf_hash(leaf) for leaf in LEAVES]


def test_published_hashes() -> None:
    for vector in VECTORS["hashes"]["leaf"]:
        assert leaf_hash(bytes.fromhex(vector["data"])).hex() == vector["hash"]
    for vector in VECTORS["hashes"]["node"]:
        assert node_hash(bytes.fromhex(vector["left"]), bytes.fromhex(vector["right"])).hex() == vector["hash"]


@pytest.mark.parametrize("size", range(9))
def test_published_roots(size: int) -> None:
    expected = VECTORS["roots"][size]
    assert rfc6962.root(HASHES[:size]).hex() == expected
    assert Tree(HASHES[:size]).root.hex() == expected
    assert Tree.from_leaves(iter(LEAVES[:size])).root.hex() == expected
    assert Tree.from_flat(bytearray(b"".join(HASHES[:size]))).root.hex() == expected


@pytest.mark.parametrize("vector", VECTORS["paths"], ids=lambda vector: f"{vector['index']}of{vector['size']}")
def test_published_paths(vector: dict) -> None:
    index, size = vector["index"], vector["size"]
    path = tuple(bytes.fromhex(part) for part in vector["path"])
    assert Tree(HASHES[:size]).path(index) == path
    assert root_from_path(HASHES[index], index, size, path).hex() == VECTORS["roots"][size]


def test_a_tree_larger_than_a_chunk_has_the_root_of_the_plain_definition() -> None:
    leaves = [index.to_bytes(4) for index in range(20_001)]
    assert Tree.from_leaves(leaves).root == rfc6962.root([leaf_hash(leaf) for leaf in leaves])


def test_leaf_and_size() -> None:
    tree = Tree(HASHES[:5])
    assert tree.size == 5
    assert [tree.leaf(index) for index in range(5)] == HASHES[:5]


@pytest.mark.parametrize("index", [-1, 5])
def test_an_index_outside_is_refused(index: int) -> None:
    tree = Tree(HASHES[:5])
    for ask in (tree.path, tree.leaf, lambda at: tree.multiproof([1, at])):
        with pytest.raises(IndexError):
            ask(index)


def test_hashes_of_another_length_are_refused() -> None:
    with pytest.raises(MalformedError, match="wrong-shape"):
        Tree([b"short"])
    with pytest.raises(MalformedError, match="wrong-shape"):
        Tree.from_flat(bytes(33))


@pytest.mark.parametrize(
    ("index", "size", "path"),
    [
        (5, 5, Tree(HASHES[:5]).path(4)),
        (-1, 5, Tree(HASHES[:5]).path(4)),
        (0, 0, ()),
        (1, 5, Tree(HASHES[:5]).path(1)[:-1]),
        (1, 5, (*Tree(HASHES[:5]).path(1), bytes(32))),
        (0, 1, (bytes(32),)),
        (1, 5, (*Tree(HASHES[:5]).path(1)[:-1], bytes(31))),
    ],
    ids=["index=size", "negative", "empty tree", "too short", "too long", "lone leaf with path", "short hash"],
)
def test_a_path_that_does_not_fit_is_refused(index: int, size: int, path: tuple[bytes, ...]) -> None:
    with pytest.raises(ProofError) as caught:
        root_from_path(HASHES[1], index, size, path)
    assert caught.value.code == "bad-path"


def test_a_path_for_another_index_or_size_leads_elsewhere() -> None:
    tree = Tree(HASHES)
    path = tree.path(5)
    assert root_from_path(HASHES[5], 5, 8, path) == tree.root
    assert root_from_path(HASHES[5], 4, 8, path) != tree.root
    assert root_from_path(HASHES[4], 5, 8, path) != tree.root


def test_multiproof_is_smaller_than_its_paths() -> None:
    tree = Tree(HASHES)
    assert tree.multiproof(range(8)) == ()
    assert len(tree.multiproof([0, 1])) == 2
    assert len(tree.multiproof([0, 7])) == 4


HONEST = Tree(HASHES[:7])


@pytest.mark.parametrize(
    ("leaves", "size", "proof"),
    [
        ({}, 7, ()),
        ({7: HASHES[0]}, 7, HONEST.multiproof([0])),
        ({-1: HASHES[0]}, 7, HONEST.multiproof([0])),
        ({0: HASHES[0]}, 7, HONEST.multiproof([0])[:-1]),
        ({0: HASHES[0]}, 7, (*HONEST.multiproof([0]), bytes(32))),
        ({0: HASHES[0]}, 7, (bytes(31), *HONEST.multiproof([0])[1:])),
        ({0: b""}, 7, HONEST.multiproof([0])),
    ],
    ids=["no leaf", "index=size", "negative", "missing", "left over", "short hash", "short leaf"],
)
def test_a_multiproof_that_does_not_fit_is_refused(leaves: dict[int, bytes], size: int, proof: tuple) -> None:
    with pytest.raises(ProofError) as caught:
        root_from_multiproof(leaves, size, proof)
    assert caught.value.code == "bad-multiproof"
