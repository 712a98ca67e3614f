import pytest

from firstlight.errors import MalformedError
from firstlight.trees import varint


@pytest.mark.parametrize(
    ("values", "data"),
    [
        ([], ""),
        ([0], "00"),
        ([127, 128], "7f8001"),
        # DWARF 5 §7.6, table 7.7: examples of unsigned LEB128
        ([2, 127, 128, 129, 12857], "027f80018101b964"),
        ([2**32 - 1], "ffffffff0f"),
    ],
)
def test_integers_and_their_bytes(values: list[int], data: str) -> None:
    assert varint.pack(values).hex() == data
    assert varint.unpack(bytes.fromhex(data)) == values


@pytest.mark.parametrize("data", ["80", "0180", "8000", "ff8000", "8080808010", "808080808001", "ffffffffffffff7f"])
def test_cut_overlong_and_too_large_integers_are_refused(data: str) -> None:
    with pytest.raises(MalformedError) as caught:
        varint.unpack(bytes.fromhex(data))
    assert caught.value.code == "bad-varint"


@pytest.mark.parametrize("value", [-1, 2**32])
def test_integers_out_of_range_are_not_written(value: int) -> None:
    with pytest.raises(MalformedError) as caught:
        varint.pack([value])
    assert caught.value.code == "bad-varint"
