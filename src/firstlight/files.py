"""Files that are whole or not there: atomic writes, bounded reads, private modes.

What Firstlight keeps in a file is replaced, never edited: a reader sees the old bytes or the new ones,
also after a crash in between.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable
from pathlib import Path

from firstlight.errors import StoreError

PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}")
"""How the files are named that :func:`write_pieces` writes to before they take their places."""
LITTER_SECONDS = 60.0
"""How long nobody must have written to such a file for it to be litter."""
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def write_atomic(path: Path, data: bytes, mode: int = PRIVATE_FILE, *, exclusive: bool = False) -> None:
    """Replace the file at ``path`` by ``data``, durably: temporary file, fsync, rename, fsync of the directory.

    With ``exclusive`` an existing file stays as it is. Raises :class:`StoreError`: ``file-exists``,
    ``file-not-written``.
    """
    write_pieces(path, (data,), mode, exclusive=exclusive)


def write_pieces(path: Path, pieces: Iterable[bytes], mode: int = PRIVATE_FILE, *, exclusive: bool = False) -> None:
    """Do the same with what comes in pieces; if they end in an error, the file at ``path`` stays as it was."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        _write_new(temporary, pieces, mode)
        if exclusive:
            os.link(temporary, path)
            temporary.unlink()
        else:
            temporary.replace(path)
        sync_directory(path.parent)
    except FileExistsError as error:
        raise StoreError("file-exists", f"{path} exists already") from error
    except OSError as error:
        raise StoreError("file-not-written", f"{path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write_new(path: Path, pieces: Iterable[bytes], mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.fchmod(descriptor, mode)
        file.writelines(pieces)
        file.flush()
        os.fsync(descriptor)


def sweep(directory: Path) -> int:
    """Remove what writers left in a directory and below when they were killed; return how many files that were.

    Only files of our own naming, regular and ours, which nobody has written to for a minute and whose lock nobody
    holds: whoever writes one holds its lock. What cannot be looked at or removed stays.
    """
    removed = 0
    for path in directory.rglob(".*"):
        if TEMPORARY.fullmatch(path.name):
            with contextlib.suppress(OSError):
                removed += _removed_if_litter(path)
    return removed


def _removed_if_litter(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            return False
        if not time.time() - found.st_mtime > LITTER_SECONDS:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
        return True
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Make the entries of a directory durable; :class:`OSError` if the system refuses."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_limited(path: Path, limit: int, *, private: bool = False) -> bytes:
    """Return the bytes of a regular file of at most ``limit`` bytes.

    With ``private`` a file that group or others may read or write is refused. Raises
    :class:`StoreError`: ``file-missing``, ``file-too-large``, ``file-not-private``, ``file-not-readable``.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise StoreError("file-not-readable", f"{path} is not a regular file")
            if private and status.st_mode & _OTHERS:
                raise StoreError("file-not-private", f"{path} is open to others", hint=f"chmod 600 {path}")
            data = file.read(limit + 1)
    except FileNotFoundError as error:
        raise StoreError("file-missing", f"there is no {path}") from error
    except OSError as error:
        raise StoreError("file-not-readable", f"{path}: {error.strerror or error}") from error
    if len(data) > limit:
        raise StoreError("file-too-large", f"{path} has more than {limit} bytes")
    return data


def read_if_there(path: Path, limit: int) -> bytes | None:
    """Do the same; None for a file that is not there."""
    try:
        return read_limited(path, limit)
    except StoreError as error:
        if error.code == "file-missing":
            return None
        raise


def private_directory(path: Path) -> Path:
    """Return ``path`` as a directory that exists; what is made new is its owner's alone.

    Raises :class:`StoreError` (``directory-not-made``).
    """
    try:
        path.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError("directory-not-made", f"{path}: {error.strerror or error}") from error
    return path


def remove(path: Path) -> None:
    """Remove a file, durably; one that is not there is no error. Raises :class:`StoreError` (``file-not-removed``)."""
    try:
        path.unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as error:
        raise StoreError("file-not-removed", f"{path}: {error.strerror or error}") from error
