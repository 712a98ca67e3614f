import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from firstlight.errors import StoreError
from firstlight.files import TEMPORARY, private_directory, read_limited, remove, sweep, write_atomic, write_pieces


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_written_is_read_and_private(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert read_limited(path, 3, private=True) == b"two"
    assert mode(path) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["key"]


def test_mode_is_as_asked_whatever_the_umask(tmp_path: Path) -> None:
    write_atomic(tmp_path / "endpoint", b"{}", 0o644)
    assert mode(tmp_path / "endpoint") == 0o644


def test_exclusive_keeps_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_atomic(path, b"first", exclusive=True)
    with pytest.raises(StoreError) as caught:
        write_atomic(path, b"second", exclusive=True)
    assert caught.value.code == "file-exists"
    assert path.read_bytes() == b"first"
    assert [one.name for one in tmp_path.iterdir()] == ["key"]


def test_a_failed_write_leaves_the_old_bytes_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    write_atomic(path, b"old")

    def refuse(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(StoreError) as caught:
        write_atomic(path, b"new")
    assert caught.value.code == "file-not-written"
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["state"]


def test_reading_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"12345")
    with pytest.raises(StoreError) as caught:
        read_limited(tmp_path / "big", 4)
    assert caught.value.code == "file-too-large"


def test_what_others_can_read_is_no_private_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_atomic(path, b"x")
    for bits in (0o640, 0o604, 0o620, 0o602):
        path.chmod(bits)
        with pytest.raises(StoreError) as caught:
            read_limited(path, 10, private=True)
        assert caught.value.code == "file-not-private"
    assert read_limited(path, 10) == b"x"


def test_missing_and_odd_files_have_codes(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        read_limited(tmp_path / "none", 10)
    assert caught.value.code == "file-missing"
    with pytest.raises(StoreError) as caught:
        read_limited(tmp_path, 10)
    assert caught.value.code == "file-not-readable"
    with pytest.raises(StoreError) as caught:
        write_atomic(tmp_path / "none" / "file", b"")
    assert caught.value.code == "file-not-written"


def test_directories_are_made_private(tmp_path: Path) -> None:
    path = private_directory(tmp_path / "state")
    assert mode(path) == 0o700
    assert private_directory(path) == path
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError) as caught:
        private_directory(tmp_path / "file")
    assert caught.value.code == "directory-not-made"


def test_remove_is_done_or_not_needed(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"x")
    remove(tmp_path / "a")
    remove(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def litter(path: Path, *, seconds: float = 61.0, name: str = ".state.0123456789abcdef") -> Path:
    path.mkdir(exist_ok=True)
    left = path / name
    left.write_bytes(b"half of a secr")
    then = time.time() - seconds
    os.utime(left, (then, then))
    return left


def test_what_a_killed_writer_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    left = [litter(tmp_path), litter(tmp_path / "keys", name=".owner.pem.fedcba9876543210")]
    assert sweep(tmp_path) == 2
    assert not any(one.exists() for one in left)
    assert sweep(tmp_path / "nowhere") == 0


def test_what_is_no_litter_stays(tmp_path: Path) -> None:
    target = tmp_path / "kept"
    target.write_bytes(b"1")
    link = tmp_path / ".link.0123456789abcdef"
    link.symlink_to(target)
    (tmp_path / ".directory.0123456789abcdef").mkdir()
    os.mkfifo(tmp_path / ".pipe.0123456789abcdef")
    kept = [
        litter(tmp_path, name=name)
        for name in (".hidden", "state.0123456789abcdef", ".state.0123456789ABCDEF", ".state.0123456789abcde", ".git")
    ]
    fresh = litter(tmp_path, seconds=0)
    assert sweep(tmp_path) == 0
    assert all(one.exists() for one in (*kept, fresh, target, link))


def test_what_is_being_written_stays_however_long_it_takes(tmp_path: Path) -> None:
    path = tmp_path / "large"

    def pieces() -> Iterator[bytes]:
        yield b"one"
        (being,) = (one for one in tmp_path.iterdir() if TEMPORARY.fullmatch(one.name))
        os.utime(being, (1, 1))
        assert sweep(tmp_path) == 0
        yield b"two"

    write_pieces(path, pieces())
    assert path.read_bytes() == b"onetwo"
    assert [one.name for one in tmp_path.iterdir()] == ["large"]
