import pytest

from firstlight.errors import MalformedError
from firstlight.trees.ownership import MAX_RUNS, Selection


def test_one_encoding_for_one_set() -> None:
    expected = Selection(bytes([3, 1, 2, 0]))
    assert Selection.of([3, 4, 7]) == expected
    assert Selection.of([7, 4, 3]) == expected
    assert Selection.of([(7, 1), (3, 2)]) == expected
    assert Selection.of([(3, 1), 7, 4]) == expected
    assert expected.encode() == bytes.fromhex("814403010200")


def test_what_a_selection_says() -> None:
    selection = Selection.of([0, 1, 2, (1000, 500)])
    assert selection.runs() == [(0, 3), (1000, 500)]
    assert selection.count == 503
    assert selection.end == 1500
    assert list(selection.indices())[:4] == [0, 1, 2, 1000]
    assert Selection.decode(selection.encode()).runs() == selection.runs()


def test_a_range_is_one_run() -> None:
    assert Selection.of(range(5, 10**6)).runs() == [(5, 10**6 - 5)]
    assert Selection.of(range(4, 10, 2)).runs() == [(4, 1), (6, 1), (8, 1)]


@pytest.mark.parametrize(
    ("packed", "code"),
    [
        ("0300" + "0000", "bad-selection"),
        ("030000", "bad-selection"),
        ("0380", "bad-varint"),
        ("038000", "bad-varint"),
        ("ffffffff0f00", "bad-selection"),
        ("00" + "feffffff0f" + "0100", "bad-selection"),
    ],
    ids=["touching runs", "half a pair", "cut short", "overlong", "index too large", "sum too large"],
)
def test_what_is_not_canonical_is_refused(packed: str, code: str) -> None:
    with pytest.raises(MalformedError) as caught:
        Selection(bytes.fromhex(packed))
    assert caught.value.code == code


def test_the_highest_index_fits() -> None:
    assert Selection.of([2**32 - 2]).end == 2**32 - 1


def test_an_empty_selection_is_refused() -> None:
    with pytest.raises(MalformedError, match="bad-selection"):
        Selection.of([])
    with pytest.raises(MalformedError, match="wrong-shape"):
        Selection.decode(bytes.fromhex("8140"))


def test_too_many_runs_are_refused() -> None:
    with pytest.raises(MalformedError, match="bad-selection"):
        Selection(bytes([1, 0]) * (MAX_RUNS + 1))


@pytest.mark.parametrize("items", [[1, 1], [(0, 3), 2], [(0, 3), (1, 1)], [(4, 0)], [-1], [(-2, 4)]], ids=str)
def test_overlaps_empty_and_negative_items_are_refused(items: list) -> None:
    with pytest.raises(MalformedError) as caught:
        Selection.of(items)
    assert caught.value.code == "bad-selection"


def test_work_is_small_for_a_run_and_grows_with_scatter() -> None:
    assert Selection.of([5]).nodes(20) == 21
    assert Selection.of([(0, 1 << 20)]).nodes(20) == 1
    assert Selection.of([0, 1 << 19]).nodes(20) == 41
    assert Selection.of([(1000, 10**6)]).nodes(20) < 60
    assert Selection.of([0]).nodes(0) == 1


def test_pages_are_those_selected_in_part() -> None:
    assert Selection.of([(0, 4096)]).pages() == 0
    assert Selection.of([5, 6, 1023]).pages() == 1
    assert Selection.of([5, (1023, 3000)]).pages() == 2
    assert Selection.of([(1024, 1025), 9000]).pages() == 2
