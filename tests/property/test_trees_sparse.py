from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight.errors import ProofError
from firstlight.testing.definitions import state_root
from firstlight.trees.sparse import EMPTY, Multiproof, Tree, verify

# Keys that meet early and keys that meet late, so that trees are both bushy and deep.
keys = st.one_of(
    st.binary(min_size=32, max_size=32),
    st.integers(0, 255).map(lambda first: bytes([first, *bytes(31)])),
    st.integers(0, 15).map(lambda last: bytes([*bytes(31), last])),
)
values = st.binary(max_size=4)
maps = st.dictionaries(keys, values, max_size=24)


@given(maps, st.randoms(use_true_random=False), st.integers(1, 8))
def test_the_root_is_a_function_of_the_map(items: dict[bytes, bytes], random, step: int) -> None:
    order = list(items)
    random.shuffle(order)
    tree = Tree.empty()
    for at in range(0, len(order), step):
        tree = tree.update({key: items[key] for key in order[at : at + step]})
    assert tree.root == Tree.empty().update(items).root == state_root(items)
    assert dict(tree.items()) == items


@given(st.lists(st.dictionaries(keys, st.none() | values, max_size=8), max_size=8))
def test_any_history_gives_the_canonical_tree(history: list[dict[bytes, bytes | None]]) -> None:
    tree = Tree.empty()
    model: dict[bytes, bytes] = {}
    for changes in history:
        tree = tree.update(changes)
        for key, value in changes.items():
            if value is None:
                model.pop(key, None)
            else:
                model[key] = value
        assert all(tree.get(key) == model.get(key) for key in changes)
    assert tree.root == state_root(model)


@given(maps, st.sets(keys, max_size=6), st.data())
def test_proofs_hold_for_what_is_so_and_for_nothing_else(
    items: dict[bytes, bytes], others: set[bytes], data: st.DataObject
) -> None:
    tree = Tree.empty().update(items)
    wanted = data.draw(st.sets(st.sampled_from(sorted(items)), max_size=8)) if items else set()
    claims = {key: items.get(key) for key in wanted | others or {bytes(32)}}
    proof = tree.prove(claims)
    assert Multiproof.decode(proof.encode()) == proof
    verify(tree.root, claims, proof)
    lie = data.draw(st.sampled_from(sorted(claims)))
    for value in {None, b"", b"lie!!"} - {claims[lie]}:
        with pytest.raises(ProofError, match="bad-state-proof"):
            verify(tree.root, {**claims, lie: value}, proof)


@settings(max_examples=200)
@given(maps, st.sets(keys, min_size=1, max_size=6), st.data())
def test_no_changed_proof_holds(items: dict[bytes, bytes], wanted: set[bytes], data: st.DataObject) -> None:
    tree = Tree.empty().update(items)
    claims = {key: items.get(key) for key in wanted}
    proof = tree.prove(wanted)
    field = data.draw(st.sampled_from(["depths", "strangers", "siblings"]))
    parts = list(getattr(proof, field))
    at = data.draw(st.integers(0, len(parts)))
    drawn = {"depths": st.integers(0, 256), "siblings": st.sampled_from([b"", EMPTY, bytes(32), *parts])}
    if parts and (field == "strangers" or data.draw(st.booleans())):
        changed = parts[:at] + parts[at + 1 :]
    else:
        changed = [*parts[:at], data.draw(drawn[field]), *parts[at:]] if field in drawn else parts
    if changed == parts:
        return
    with pytest.raises(ProofError, match="bad-state-proof"):
        verify(tree.root, claims, replace(proof, **{field: tuple(changed)}))
