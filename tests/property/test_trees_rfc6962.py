from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight.errors import ProofError
from firstlight.trees.rfc6962 import EMPTY, Tree, leaf_hash, node_hash, root, root_from_multiproof, root_from_path


def defined(hashes: list[bytes]) -> bytes:
    """The recursive definition of RFC 6962 §2.1, word for word."""
    if not hashes:
        return EMPTY
    if len(hashes) == 1:
        return hashes[0]
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return node_hash(defined(hashes[:split]), defined(hashes[split:]))


def leads_to(leaf: bytes, index: int, size: int, path: tuple[bytes, ...]) -> bytes | None:
    try:
        return root_from_path(leaf, index, size, path)
    except ProofError:
        return None


sizes = st.integers(1, 200)


def hashes_of(size: int) -> list[bytes]:
    return [leaf_hash(index.to_bytes(2)) for index in range(size)]


@given(st.integers(0, 200))
def test_both_forms_are_the_definition(size: int) -> None:
    hashes = hashes_of(size)
    assert root(hashes) == Tree(hashes).root == defined(hashes)


@given(sizes, st.data())
def test_every_path_leads_to_the_root_and_only_from_its_leaf(size: int, data: st.DataObject) -> None:
    hashes = hashes_of(size)
    tree = Tree(hashes)
    index = data.draw(st.integers(0, size - 1))
    path = tree.path(index)
    assert root_from_path(hashes[index], index, size, path) == tree.root
    other = data.draw(st.integers(0, size - 1))
    if other != index:
        assert leads_to(hashes[index], other, size, path) != tree.root


@settings(max_examples=60)
@given(sizes, st.data())
def test_every_multiproof_leads_to_the_root_and_each_hash_counts(size: int, data: st.DataObject) -> None:
    hashes = hashes_of(size)
    tree = Tree(hashes)
    indices = data.draw(st.sets(st.integers(0, size - 1), min_size=1))
    leaves = {index: hashes[index] for index in indices}
    proof = tree.multiproof(indices)
    assert root_from_multiproof(leaves, size, proof) == tree.root
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        assert root_from_multiproof(leaves, size, (*proof[:at], bytes(32), *proof[at + 1 :])) != tree.root
    forged = data.draw(st.sampled_from(sorted(indices)))
    assert root_from_multiproof({**leaves, forged: leaf_hash(b"forged")}, size, proof) != tree.root
