from dataclasses import replace
from hashlib import sha256

import pytest

from firstlight.errors import MalformedError, ProofError
from firstlight.trees import sparse
from firstlight.trees.sparse import EMPTY, Multiproof, Stranger, Tree, leaf_hash, node_hash, verify


def key(first: int, last: int = 0) -> bytes:
    """A key with chosen first and last bits."""
    return bytes([first, *bytes(30), last])


def h(data: bytes) -> bytes:
    return sha256(data).digest()


A, B, C = key(0b0000_0000), key(0b0100_0000), key(0b1000_0000)
TREE = Tree.empty().update({A: b"a", B: b"b", C: b"c"})
LEAF_A, LEAF_B, LEAF_C = (leaf_hash(k, h(v)) for k, v in ((A, b"a"), (B, b"b"), (C, b"c")))


def refused(root: bytes, claims: dict[bytes, bytes | None], proof: Multiproof) -> None:
    with pytest.raises(ProofError) as caught:
        verify(root, claims, proof)
    assert caught.value.code == "bad-state-proof"


def test_the_hashes_are_those_of_the_definition() -> None:
    assert Tree.empty().root == EMPTY == h(b"\x02")
    assert Tree.empty().update({A: b"a"}).root == h(b"\x00" + A + h(b"a"))
    assert TREE.root == h(b"\x01" + h(b"\x01" + LEAF_A + LEAF_B) + LEAF_C)
    deep = Tree.empty().update({A: b"a", key(0, 1): b"z"})
    expected = node_hash(LEAF_A, leaf_hash(key(0, 1), h(b"z")))
    for _ in range(255):
        expected = node_hash(expected, EMPTY)
    assert deep.root == expected


def test_get_and_items() -> None:
    assert TREE.get(A) == b"a"
    assert TREE.get(key(1)) is None
    assert list(TREE.items()) == [(A, b"a"), (B, b"b"), (C, b"c")]
    assert TREE.update({A: b""}).get(A) == b""


def test_old_versions_stay() -> None:
    newer = TREE.update({A: b"other", C: None})
    assert (newer.get(A), newer.get(C)) == (b"other", None)
    assert (TREE.get(A), TREE.get(C)) == (b"a", b"c")


def test_deleting_gives_the_canonical_tree() -> None:
    assert TREE.update({B: None}).root == Tree.empty().update({A: b"a", C: b"c"}).root
    assert TREE.update({A: None, C: None}).root == LEAF_B
    assert TREE.update({A: None, B: None, C: None}).root == EMPTY
    assert TREE.update({key(7): None}).root == TREE.root
    assert TREE.update({}) is TREE


@pytest.mark.parametrize("bad", [b"", bytes(31), bytes(33)])
def test_a_key_of_another_length_is_refused(bad: bytes) -> None:
    for act in (lambda: TREE.update({bad: b""}), lambda: TREE.prove([bad])):
        with pytest.raises(MalformedError) as caught:
            act()
        assert caught.value.code == "bad-key"


def test_too_few_and_too_many_keys_are_refused() -> None:
    for keys in ([], [key(at) for at in range(65)]):
        with pytest.raises(MalformedError) as caught:
            TREE.prove(keys)
        assert caught.value.code == "bad-claims"
        refused(TREE.root, dict.fromkeys(keys), TREE.prove([A]))


def test_absence_by_an_empty_place_and_by_a_stranger() -> None:
    two = Tree.empty().update({A: b"a", key(0b0010_0000): b"x"})
    empty_place = two.prove([C])
    assert empty_place.strangers == ()
    verify(two.root, {C: None}, empty_place)
    stranger = TREE.prove([key(0b1111_1111)])
    assert stranger.strangers == (Stranger(C, h(b"c")),)
    verify(TREE.root, {key(0b1111_1111): None}, stranger)


def test_the_empty_tree_proves_absence() -> None:
    proof = Tree.empty().prove([A, C])
    verify(EMPTY, {A: None, C: None}, proof)
    refused(EMPTY, {A: b"a", C: None}, proof)


def test_a_present_key_proves_the_absence_of_its_neighbours() -> None:
    neighbour = key(0b1000_0000, 1)
    proof = TREE.prove([C, neighbour])
    assert proof.depths == (1,)
    verify(TREE.root, {C: b"c", neighbour: None}, proof)
    refused(TREE.root, {C: b"c", neighbour: b"c"}, proof)
    refused(TREE.root, {C: None, neighbour: b"c"}, proof)


CLAIMS: dict[bytes, bytes | None] = {A: b"a", key(0b1111_1111): None}
PROOF = TREE.prove(CLAIMS)


def test_the_honest_proof_and_its_bytes() -> None:
    verify(TREE.root, CLAIMS, PROOF)
    verify(TREE.root, CLAIMS, Multiproof.decode(PROOF.encode()))
    assert Multiproof((2, 1), (Stranger(C, h(b"c")),), (LEAF_B,)) == PROOF


@pytest.mark.parametrize(
    "claims",
    [
        {A: b"b", key(0b1111_1111): None},
        {A: None, key(0b1111_1111): None},
        {A: b"a", key(0b1111_1111): b""},
        {A: b"a"},
        {A: b"a", key(0b1111_1111): None, B: b"b"},
        {A: b"a", C: None},
        {A: b"a", key(0b0111_1111): None},
        {A: b"a", b"short": None},
        {},
    ],
    ids=["value", "absent", "present", "fewer", "more", "stranger claimed absent", "elsewhere", "short key", "none"],
)
def test_other_claims_are_refused(claims: dict[bytes, bytes | None]) -> None:
    refused(TREE.root, claims, PROOF)


@pytest.mark.parametrize(
    "changes",
    [
        {"depths": (2,)},
        {"depths": (2, 1, 1)},
        {"depths": (1, 2)},
        {"depths": (2, 2)},
        {"depths": (0, 1)},
        {"depths": (0,)},
        {"strangers": ()},
        {"strangers": (Stranger(C, h(b"d")),)},
        {"strangers": (Stranger(B, h(b"b")), Stranger(C, h(b"c")))},
        {"strangers": (Stranger(key(0b1111_1111), h(b"c")),)},
        {"siblings": ()},
        {"siblings": (LEAF_B, LEAF_B)},
        {"siblings": (LEAF_A,)},
        {"siblings": (LEAF_B[:31],)},
        {"siblings": (b"",)},
        {"siblings": (EMPTY,)},
    ],
    ids=str,
)
def test_a_changed_proof_is_refused(changes: dict[str, tuple]) -> None:
    refused(TREE.root, CLAIMS, replace(PROOF, **changes))


def test_a_branch_over_one_key_is_refused_even_if_its_hash_fits() -> None:
    """Roots that no honest tree has: a lone leaf pushed down, an empty subtree split."""
    refused(node_hash(LEAF_A, EMPTY), {A: b"a"}, Multiproof((1,), (), (b"",)))
    refused(node_hash(EMPTY, EMPTY), {A: None}, Multiproof((1,), (), (b"",)))
    refused(node_hash(EMPTY, EMPTY), {A: None, C: None}, Multiproof((1, 1), (), ()))
    refused(node_hash(LEAF_A, EMPTY), {A: b"a", C: None}, Multiproof((1, 1), (), ()))


def test_a_large_batch_leaves_the_collector_as_it_was() -> None:
    import gc

    many = {h(index.to_bytes(2)): b"v" for index in range(1000)}
    assert gc.isenabled()
    tree = Tree.empty().update(many)
    assert gc.isenabled()
    with pytest.raises(TypeError):
        tree.update({**many, h(b"x"): "text"})  # type: ignore[dict-item]
    assert gc.isenabled()
    assert sparse.Tree.empty().update(dict(reversed(many.items()))).root == tree.root


def test_one_proof_is_smaller_than_several() -> None:
    many = {h(index.to_bytes(2)): b"v" for index in range(1000)}
    tree = Tree.empty().update(many)
    keys = [*list(many)[:6], h(b"absent"), h(b"also absent")]
    together = tree.prove(keys)
    verify(tree.root, {k: many.get(k) for k in keys}, together)
    assert len(together.encode()) < 0.8 * sum(len(tree.prove([k]).encode()) for k in keys)
