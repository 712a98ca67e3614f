import pytest

from firstlight.errors import MalformedError, RuleError, StoreError
from firstlight.trees.ownership import PageCache, Selection, Trie, Uniform, verify
from firstlight.trees.ownership.nodes import split_hash, uniform_hash


class Pages:
    """A page store in memory that counts what is read."""

    def __init__(self) -> None:
        self.pages: dict[tuple[int, int], bytes] = {}
        self.loads = 0

    def load(self, level: int, number: int) -> bytes:
        self.loads += 1
        try:
            return self.pages[level, number]
        except KeyError:
            raise StoreError("page-missing", "not here") from None

    def save(self, trie: Trie) -> Trie:
        for level, number, data in trie.unsaved():
            if data is None:
                self.pages.pop((level, number), None)
            else:
                self.pages[level, number] = data
        return trie.saved(self)


def anybody(_: int) -> bool:
    return True


def test_small_roots_are_those_of_the_definition() -> None:
    one, two, nobody = uniform_hash(1), uniform_hash(2), uniform_hash(0)
    assert Trie.uniform(1, 1).root == one
    assert Trie.uniform(4, 1).root == one
    assert Trie.uniform(3, 1).root == split_hash(one, split_hash(one, nobody))
    sold = Trie.uniform(3, 1).assign(Selection.of([1]), 2, expect={1}).trie
    assert sold.root == split_hash(split_hash(one, two), split_hash(one, nobody))


def test_assign_reports_work_and_previous_owners() -> None:
    trie = Trie.uniform(5000, 1).assign(Selection.of(range(1000)), 2, expect={1}).trie
    result = trie.assign(Selection.of([(900, 200), 4999]), 3, expect=lambda tenure: tenure in {1, 2})
    assert result.taken == {2: 100, 1: 101}
    assert result.touched == Selection.of([(900, 200), 4999]).nodes(13)
    assert result.trie.owners() == {1: 3899, 2: 900, 3: 201}
    assert result.trie.owners(Selection.of([(0, 901), 4998])) == {2: 900, 3: 1, 1: 1}
    assert [result.trie.owner(index) for index in (0, 899, 900, 1099, 1100, 4998, 4999)] == [2, 2, 3, 3, 1, 1, 3]


@pytest.mark.parametrize("index", [0, 1023, 1024, 2500])
def test_one_index_of_another_owner_spoils_the_whole(index: int) -> None:
    trie = Trie.uniform(3000, 1).assign(Selection.of([index]), 2, expect={1}).trie
    for selection in (range(3000), [index], [(index, 400)]):
        with pytest.raises(RuleError) as caught:
            trie.assign(Selection.of(selection), 3, expect={1})
        assert caught.value.code == "wrong-owner"
    assert trie.owners() == {1: 2999, 2: 1}


def test_there_and_back_again_leaves_no_trace() -> None:
    trie = Trie.uniform(1_000_000, 1)
    there = trie.assign(Selection.of(range(5, 999_990)), 2, expect={1}).trie
    assert there.root != trie.root
    assert there.assign(Selection.of(range(5, 999_990)), 1, expect={2}).trie.root == trie.root


def test_an_index_beyond_the_size_is_refused() -> None:
    trie = Trie.uniform(1000, 1)
    for act in (
        lambda: trie.assign(Selection.of([1000]), 2, expect=anybody),
        lambda: trie.owners(Selection.of([(0, 1001)])),
        lambda: trie.owner(1000),
        lambda: trie.owner(-1),
        lambda: trie.covering_prefix(1000),
    ):
        with pytest.raises(MalformedError) as caught:
            act()
        assert caught.value.code == "bad-index"


@pytest.mark.parametrize("tenure", [0, -1, 2**32 - 1])
def test_nobody_and_numbers_too_large_are_refused(tenure: int) -> None:
    with pytest.raises(MalformedError, match="bad-tenure"):
        Trie.uniform(4, tenure)
    with pytest.raises(MalformedError, match="bad-tenure"):
        Trie.uniform(4, 1).assign(Selection.of([0]), tenure, expect=anybody)


@pytest.mark.parametrize("size", [0, -1, 2**32])
def test_sizes_out_of_range_are_refused(size: int) -> None:
    with pytest.raises(MalformedError, match="bad-size"):
        Trie.uniform(size, 1)
    with pytest.raises(MalformedError, match="bad-size"):
        Trie.open(size, bytes(32), Pages())


def test_the_largest_batch_is_cheap() -> None:
    size = 2**32 - 1
    trie = Trie.uniform(size, 1).assign(Selection.of([(3, 2**31), size - 1]), 2, expect={1}).trie
    assert trie.owners() == {2: 2**31 + 1, 1: size - 2**31 - 1}
    assert trie.covering_prefix(2**30) == (0b01, 2)
    assert verify(trie.root, size, 0b01, 2, trie.prove(0b01, 2)) == Uniform(2)
    pages = Pages()
    pages.save(trie)
    assert len(pages.pages) == 10
    assert Trie.open(size, trie.root, pages).owner(size - 1) == 2


def test_pages_are_loaded_when_needed_and_only_once() -> None:
    pages = Pages()
    sold = Selection.of(range(0, 100_000, 7))
    trie = pages.save(Trie.uniform(100_000, 1).assign(sold, 2, expect={1}).trie)
    opened = Trie.open(100_000, trie.root, pages, PageCache())
    assert pages.loads == 1
    assert opened.owner(7) == 2
    assert opened.owner(8) == 1
    assert pages.loads == 2
    assert opened.owners() == trie.owners()
    assert pages.loads == 1 + 7 + 1, "every seventh page is alike; the last is cut short"
    assert Trie.open(100_000, trie.root, pages).owners() == opened.owners()
    assert pages.loads == 18


def test_only_what_changed_is_to_be_saved() -> None:
    pages = Pages()
    trie = pages.save(Trie.uniform(1 << 20, 1))
    assert set(pages.pages) == {(1, 0)}
    trie = trie.assign(Selection.of([5, 6, 1 << 19]), 2, expect={1}).trie
    assert [(level, number) for level, number, data in trie.unsaved() if data] == [(0, 0), (0, 512), (1, 0)]
    trie = pages.save(trie)
    assert trie.unsaved() == []
    trie = trie.assign(Selection.of([(0, 1024)]), 3, expect={1, 2}).trie
    assert [(level, number, data is None) for level, number, data in trie.unsaved()] == [(0, 0, True), (1, 0, False)]
    trie = pages.save(trie)
    assert set(pages.pages) == {(0, 512), (1, 0)}
    trie = pages.save(trie.assign(Selection.of([1 << 19]), 1, expect={2}).trie)
    assert set(pages.pages) == {(1, 0)}


def test_covering_a_huge_range_drops_all_pages_below() -> None:
    pages = Pages()
    size = 1 << 22
    trie = pages.save(Trie.uniform(size, 1).assign(Selection.of(range(0, size, 99_991)), 2, expect={1}).trie)
    assert len(pages.pages) > 40
    pages.save(trie.assign(Selection.of(range(size)), 3, expect={1, 2}).trie)
    assert set(pages.pages) == {(2, 0)}


def test_the_cache_is_bounded() -> None:
    pages = Pages()
    trie = pages.save(Trie.uniform(100_000, 1).assign(Selection.of(range(0, 100_000, 7)), 2, expect={1}).trie)
    opened = Trie.open(100_000, trie.root, pages, PageCache(capacity=2))
    for index in (0, 1024, 2048, 0):
        opened.owner(index)
    assert pages.loads == 5


def test_a_store_that_lost_or_changed_a_page_is_found_out() -> None:
    pages = Pages()
    trie = pages.save(Trie.uniform(5000, 1).assign(Selection.of([7]), 2, expect={1}).trie)
    with pytest.raises(StoreError, match="page-mismatch"):
        Trie.open(5000, bytes(32), pages)
    with pytest.raises(StoreError, match="page-mismatch"):
        Trie.open(9000, trie.root, pages)
    honest = pages.pages[0, 0]
    for data, code in ((pages.pages[0, 4], "page-mismatch"), (b"\x00", "page-mismatch"), (None, "page-missing")):
        pages.pages = {place: page for place, page in pages.pages.items() if place != (0, 0)}
        if data is not None:
            pages.pages[0, 0] = data
        with pytest.raises(StoreError) as caught:
            Trie.open(5000, trie.root, pages).owner(7)
        assert caught.value.code == code
    pages.pages[0, 0] = honest
    assert Trie.open(5000, trie.root, pages).owner(7) == 2


def test_a_trie_that_was_never_saved_lives_in_memory() -> None:
    trie = Trie.uniform(5000, 1)
    for number in range(2, 30):
        trie = trie.assign(Selection.of([number * 150]), number, expect={1}).trie
    assert trie.owner(29 * 150) == 29
    assert trie.owners()[1] == 5000 - 28


@pytest.mark.parametrize(("bits", "length"), [(0, 14), (0, -1), (2, 1), (0b1111, 4)], ids=str)
def test_a_prefix_that_holds_no_device_is_not_proven(bits: int, length: int) -> None:
    with pytest.raises(MalformedError) as caught:
        Trie.uniform(5000, 1).prove(bits, length)
    assert caught.value.code == "bad-prefix"
