from array import array

import pytest

from firstlight.errors import MalformedError
from firstlight.trees.ownership.nodes import split_hash, uniform_hash
from firstlight.trees.ownership.pages import InnerPage, LeafPage, PageRecord

H1, H2 = bytes([1]) * 32, bytes([2]) * 32


def test_a_leaf_page_and_its_bytes() -> None:
    page = LeafPage(array("I", [1, 1, 2, 0]))
    assert page.hash == split_hash(uniform_hash(1), split_hash(uniform_hash(2), uniform_hash(0)))
    assert page.uniform is None
    assert PageRecord.decode(page.encode()) == PageRecord(bytes([2, 1, 3, 0, 1, 0]), b"")
    assert LeafPage.decode(page.encode(), 4).tenures == page.tenures


def test_equal_halves_that_are_not_uniform_do_not_collapse() -> None:
    assert LeafPage(array("I", [1, 2] * 8)).hash != LeafPage(array("I", [1, 2])).hash
    pattern = split_hash(uniform_hash(1), uniform_hash(2))
    assert LeafPage(array("I", [1, 2] * 2)).hash == split_hash(pattern, pattern)
    assert InnerPage.of([H1, H1]).hash == split_hash(H1, H1)


def test_a_uniform_page_collapses() -> None:
    assert LeafPage(array("I", [7] * 1024)).hash == uniform_hash(7)
    assert LeafPage(array("I", [7] * 1024)).uniform == 7
    assert InnerPage.of([7] * 1024).uniform == 7
    assert LeafPage(array("I", [300])).hash == uniform_hash(300)


def test_an_inner_page_and_its_bytes() -> None:
    page = InnerPage.of([5, H1, H2, 5])
    assert page.hash == split_hash(split_hash(uniform_hash(5), H1), split_hash(H2, uniform_hash(5)))
    assert PageRecord.decode(page.encode()) == PageRecord(bytes([6, 0, 0, 1, 6, 0]), H1 + H2)
    assert InnerPage.decode(page.encode(), 4).heap == page.heap


@pytest.mark.parametrize("count", [1, 3, 200])
def test_replacing_slots_is_building_anew(count: int) -> None:
    slots: list = [at % 3 for at in range(256)]
    page = InnerPage.of(slots)
    changes = {7 * at % 256: (H1 if at % 2 else 9) for at in range(count)}
    for at, slot in changes.items():
        slots[at] = slot
    assert page.replace(changes).heap == InnerPage.of(slots).heap
    assert page.replace(changes).slots(range(256)) == slots


@pytest.mark.parametrize(
    ("runs", "hashes"),
    [
        ([2, 2], b""),
        ([2, 4], b""),
        ([2, 1, 2, 1], b""),
        ([2], b""),
        ([2, 2, 0, 0], b""),
        ([2, 3], H1),
        ([2, 2, 0, 0], H1 + H2),
        ([2, 2, 0, 0], H1[:31]),
    ],
    ids=["short", "long", "alike", "half", "hash missing", "hash left over", "two for one", "cut"],
)
def test_a_page_that_is_not_canonical_is_refused(runs: list[int], hashes: bytes) -> None:
    data = PageRecord(bytes(runs), hashes).encode()
    for kind in (InnerPage, LeafPage):
        with pytest.raises(MalformedError) as caught:
            kind.decode(data, 4)
        assert caught.value.code in {"bad-page", "wrong-shape"}


def test_a_leaf_page_holds_no_pages() -> None:
    data = PageRecord(bytes([2, 2, 0, 0]), b"").encode()
    with pytest.raises(MalformedError, match="bad-page"):
        LeafPage.decode(data, 4)
