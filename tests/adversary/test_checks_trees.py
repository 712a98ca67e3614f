"""Proofs of trees that only one check of their verifiers stands in the way of.

Other verifiers ask for some of these bounds before they come here; whoever calls with what a stranger has sent must be
told the same. Refusals have one code; the number of the check is in the detail.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import pytest

from firstlight.errors import ProofError
from firstlight.trees import ownership, rfc6962, sparse
from firstlight.trees.ownership import OwnershipProof, Selection, Trie

LEAVES = [hashlib.sha256(bytes([one])).digest() for one in range(7)]
TREE = rfc6962.Tree(LEAVES)
SOME = {one: LEAVES[one] for one in (1, 4)}
PROOF = TREE.multiproof(SOME)

KEYS = [hashlib.sha256(b"key %d" % one).digest() for one in range(70)]
STATE = sparse.Tree.empty().update(dict.fromkeys(KEYS[:3], b"value"))

TRIE = Trie.uniform(7, 2).assign(Selection.of([(0, 2)]), 3, expect={2}).trie
OWNED = TRIE.prove(0, 2)


def several(
    leaves: Mapping[int, bytes] = SOME, size: int = 7, proof: tuple[bytes, ...] = PROOF
) -> Callable[[], object]:
    return lambda: rfc6962.root_from_multiproof(leaves, size, proof)


def one(index: int = 2, size: int = 7, path: tuple[bytes, ...] | None = None) -> Callable[[], object]:
    return lambda: rfc6962.root_from_path(LEAVES[2], index, size, TREE.path(2) if path is None else path)


def state(keys: list[bytes], *, proven: list[bytes] | None = None) -> Callable[[], object]:
    proof = STATE.prove(proven or KEYS[:1])
    return lambda: sparse.verify(STATE.root, {key: STATE.get(key) for key in keys}, proof)


def owned(size: int = 7, bits: int = 0, length: int = 2, proof: OwnershipProof = OWNED) -> Callable[[], object]:
    return lambda: ownership.verify(TRIE.root, size, bits, length, proof)


HONEST = (several(), one(), state(KEYS[:1]), owned())
LIES: Mapping[str, tuple[str, Callable[[], object]]] = {
    "no-leaf-at-all": ("bad-multiproof (1)", several({})),
    "a-leaf-beyond-the-tree": ("bad-multiproof (1)", several({1: LEAVES[1], 7: LEAVES[4]})),
    "a-leaf-that-is-two": ("bad-multiproof (2)", several({1: LEAVES[1], 4: LEAVES[4] + LEAVES[5]})),
    "a-hash-that-is-two": ("bad-multiproof (2)", several(proof=(PROOF[0] * 2, *PROOF[1:]))),
    "a-hash-too-few": ("bad-multiproof (3)", several(proof=PROOF[:-1])),
    "a-hash-too-many": ("bad-multiproof (3)", several(proof=(*PROOF, bytes(32)))),
    "a-place-beyond-the-tree": ("bad-path (1)", one(index=9)),
    "a-path-with-half-a-hash": ("bad-path (2)", one(path=(TREE.path(2)[0][:16], *TREE.path(2)[1:]))),
    "a-path-too-short": ("bad-path (3)", one(path=TREE.path(2)[:-1])),
    "a-path-too-long": ("bad-path (3)", one(path=(*TREE.path(2), bytes(32)))),
    "a-key-of-half-the-length": ("bad-state-proof (1)", state([KEYS[0][:16]])),
    "more-keys-than-anybody-asks-for": ("bad-state-proof (1)", state(KEYS[:65])),
    "a-batch-of-nothing": ("bad-ownership-proof (1)", owned(size=0, length=0)),
    "a-prefix-longer-than-the-trie": ("bad-ownership-proof (1)", owned(length=4)),
    "a-prefix-that-does-not-fit-its-length": ("bad-ownership-proof (1)", owned(bits=9)),
    "a-prefix-of-padding-alone": ("bad-ownership-proof (1)", owned(bits=7, length=3)),
}


def said(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except ProofError as error:
        return f"{error.code} {error.detail.rpartition(' ')[2]}"
    except Exception as error:  # noqa: BLE001 - what is not refused but breaks is told from what is
        return f"broken: {error!r}"
    return "taken"


@pytest.mark.parametrize("name", sorted(LIES))
def test_no_such_proof_is_followed(name: str) -> None:
    """Somebody proves with what is no path, no place and no key of the tree."""
    expected, lie = LIES[name]
    assert [said(attempt) for attempt in HONEST] == ["taken"] * len(HONEST)
    assert said(lie) == expected
