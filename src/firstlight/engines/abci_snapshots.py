"""Snapshots of the state: bounded chunks in files, for nodes that join without replaying the history.

A snapshot holds all records and all pages of ownership tries after one block, in the order of names and places, so
that every node makes the same bytes. Its hash is SHA-256 over the SHA-256 of its chunks, which travel in the metadata:
each chunk is checked when it comes. What they add up to is checked against the application hash that the light client
has verified, and the pages against the roots in their batches' records.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, ClassVar

from firstlight.encoding import Bytes16, Bytes32, Count, Record, Size, Text, Uint32
from firstlight.engines.store import Applied, Frozen
from firstlight.errors import FirstlightError, MalformedError, ProofError, StoreError
from firstlight.files import private_directory, read_limited, sync_directory, write_atomic
from firstlight.ledger.records import Batch, batch_name, tree_key
from firstlight.logs import Log
from firstlight.trees import sparse
from firstlight.trees.ownership import PageCache, Trie

FORMAT = 1
CHUNK_BYTES = 1_048_576
"""A chunk is closed when it holds so much; with the last entry it is at most twice that."""
MAX_CHUNKS = 8_192
KEPT = 2
_MAX_VALUE = 1_048_576
_INFO = "snapshot"


@dataclass(frozen=True, slots=True)
class RecordEntry(Record):
    """A record of the state."""

    name: Annotated[str, Text(r"[ -~]{1,200}")]
    value: Annotated[bytes, Size(0, _MAX_VALUE)]


@dataclass(frozen=True, slots=True)
class PageEntry(Record):
    """A page of a batch's ownership trie."""

    batch: Bytes16
    level: Uint32
    number: Uint32
    data: Annotated[bytes, Size(0, _MAX_VALUE)]


@dataclass(frozen=True, slots=True)
class Chunk(Record):
    """A part of a snapshot."""

    LIMIT: ClassVar[int] = 4 * CHUNK_BYTES

    records: Annotated[tuple[RecordEntry, ...], Count(CHUNK_BYTES)]
    pages: Annotated[tuple[PageEntry, ...], Count(CHUNK_BYTES)]


@dataclass(frozen=True, slots=True)
class Snapshot(Record):
    """What a snapshot is: after which block, and the SHA-256 of each chunk."""

    LIMIT: ClassVar[int] = 64 * MAX_CHUNKS

    applied: Applied
    chunks: Annotated[tuple[Bytes32, ...], Count(MAX_CHUNKS, 1)]

    @property
    def hash(self) -> bytes:
        """The hash by which nodes that offer the same snapshot are known to do so."""
        return hashlib.sha256(self.encode()).digest()


def chunks_of(state: Frozen) -> Iterator[Chunk]:
    """Yield the state in chunks; the order of everything follows from the state alone."""
    records: list[RecordEntry] = []
    pages: list[PageEntry] = []
    size = 0
    for name, value in state.records():
        records.append(RecordEntry(name, value))
        size += len(name) + len(value)
        if size >= CHUNK_BYTES:
            yield Chunk(tuple(records), ())
            records, size = [], 0
    for batch, level, number, data in state.pages():
        pages.append(PageEntry(batch, level, number, data))
        size += 32 + len(data)
        if size >= CHUNK_BYTES:
            yield Chunk(tuple(records), tuple(pages))
            records, pages, size = [], [], 0
    if records or pages:
        yield Chunk(tuple(records), tuple(pages))


class Shelf:
    """The snapshots that this node offers: a directory for each, named by its height."""

    def __init__(self, directory: Path, every: int, log: Log) -> None:
        """Keep them in ``directory``; make one after every ``every`` blocks (0: none)."""
        self._directory = directory
        self._every = every
        self._log = log
        self._making: threading.Thread | None = None

    def due(self, height: int) -> bool:
        """Say whether a snapshot is to be made after the block at ``height``: one at a time."""
        busy = self._making is not None and self._making.is_alive()
        return bool(self._every) and height % self._every == 0 and not busy

    def make(self, state: Frozen) -> threading.Thread:
        """Write a snapshot in a thread of its own; ``state`` is closed at the end."""
        self._making = threading.Thread(target=self._make, args=(state,), name="firstlight-snapshot", daemon=True)
        self._making.start()
        return self._making

    def wait(self) -> None:
        """Wait for the snapshot that is being made, if there is one."""
        if self._making is not None:
            self._making.join()

    def listed(self) -> list[Snapshot]:
        """Return the whole snapshots that are here, the newest first."""
        found = [self._read(height) for height in self._heights()]
        return [one for one in found if one is not None]

    def chunk(self, height: int, index: int) -> bytes:
        """Return a chunk's bytes; :class:`StoreError` (``file-missing``) if there is none."""
        return read_limited(self._directory / str(height) / str(index), Chunk.LIMIT)

    def _make(self, state: Frozen) -> None:
        try:
            with state:
                if state.applied is not None:
                    self._write(state, state.applied)
        except (FirstlightError, OSError) as error:
            # The node goes on without this one; the next comes after so many blocks.
            self._log.error("snapshot-failed", detail=str(error))

    def _write(self, state: Frozen, applied: Applied) -> None:
        place = private_directory(private_directory(self._directory) / str(applied.height))
        hashes = []
        for index, chunk in enumerate(chunks_of(state)):
            data = chunk.encode()
            write_atomic(place / str(index), data)
            hashes.append(hashlib.sha256(data).digest())
        write_atomic(place / _INFO, Snapshot(applied, tuple(hashes)).encode())
        for height in self._heights()[KEPT:]:
            shutil.rmtree(self._directory / str(height), ignore_errors=True)
        sync_directory(self._directory)
        self._log.info("snapshot-made", height=applied.height, count=len(hashes))

    def _heights(self) -> list[int]:
        if not self._directory.exists():
            return []
        return sorted((int(one.name) for one in self._directory.iterdir() if one.name.isdecimal()), reverse=True)

    def _read(self, height: int) -> Snapshot | None:
        path = self._directory / str(height) / _INFO
        if not path.exists():
            return None
        try:
            return Snapshot.decode(read_limited(path, Snapshot.LIMIT))
        except (MalformedError, StoreError) as error:
            self._log.refusal(error)
            return None


@dataclass(slots=True)
class Restoring:
    """A snapshot on its way in; checked piece by piece, and as a whole at the end."""

    snapshot: Snapshot
    records: dict[str, bytes] = field(default_factory=dict)
    pages: dict[bytes, dict[tuple[int, int], bytes]] = field(default_factory=dict)
    following: int = 0

    @classmethod
    def of(cls, height: int, hash_: bytes, chunks: int, metadata: bytes, app_hash: bytes) -> Restoring:
        """Begin with a snapshot that was offered.

        1. Its metadata is what its hash, height and number of chunks say (``bad-snapshot``).
        2. It is of the state with the application hash that is known to be right (``wrong-app-hash``).
        """
        snapshot = Snapshot.decode(metadata)
        if (snapshot.hash, snapshot.applied.height, len(snapshot.chunks)) != (hash_, height, chunks):
            raise ProofError("bad-snapshot", "the metadata are of another snapshot")
        if snapshot.applied.app_hash != app_hash:
            raise ProofError("wrong-app-hash", "the snapshot is of another state than the header proves")
        return cls(snapshot)

    @property
    def complete(self) -> bool:
        """Whether all chunks are here."""
        return self.following == len(self.snapshot.chunks)

    def add(self, index: int, data: bytes) -> None:
        """Take the next chunk.

        1. It is the next (``wrong-chunk``), and its bytes are those that the metadata names (``chunk-differs``).
        2. Nothing stands in it twice, or was in another (``bad-chunk``).

        Raises :class:`MalformedError` for bytes that are no chunk.
        """
        if index != self.following or self.complete:
            raise ProofError("wrong-chunk", f"chunk {index}, expected {self.following}")
        if hashlib.sha256(data).digest() != self.snapshot.chunks[index]:
            raise ProofError("chunk-differs", f"chunk {index} is not the one that was announced")
        chunk = Chunk.decode(data)
        records = {one.name: one.value for one in chunk.records}
        places = {(one.batch, one.level, one.number) for one in chunk.pages}
        known = {(one, *place) for one in {page.batch for page in chunk.pages} for place in self.pages.get(one, {})}
        if len(records) != len(chunk.records) or len(places) != len(chunk.pages):
            raise ProofError("bad-chunk", "something stands in it twice")
        if records.keys() & self.records.keys() or places & known:
            raise ProofError("bad-chunk", "something stands in it that was in another")
        self.records |= records
        for page in chunk.pages:
            self.pages.setdefault(page.batch, {})[page.level, page.number] = page.data
        self.following += 1

    def check(self) -> None:
        """Check what the chunks add up to.

        1. The records are all those under the application hash (``wrong-app-hash``).
        2. Of each batch there are the pages that its record's root leads to, and no others (``bad-snapshot``).
        """
        tree = sparse.Tree.empty()
        items = iter(self.records.items())
        while some := dict(islice(items, 65_536)):
            tree = tree.update({tree_key(name): value for name, value in some.items()})
        if tree.root != self.snapshot.applied.app_hash:
            raise ProofError("wrong-app-hash", "the records lead to another application hash")
        for batch, pages in self.pages.items():
            value = self.records.get(batch_name(batch))
            if value is None:
                raise ProofError("bad-snapshot", f"pages of a batch {batch.hex()} that does not exist")
            _check_pages(Batch.decode(value), pages)
        missing = [
            name for name in self.records if name.startswith("batch/") and bytes.fromhex(name[6:]) not in self.pages
        ]
        if missing:
            raise ProofError("bad-snapshot", f"no pages of {missing[0]}")

    def page_rows(self) -> list[tuple[bytes, int, int, bytes | None]]:
        """Return the pages as the store takes them."""
        return [
            (batch, level, number, data)
            for batch, pages in self.pages.items()
            for (level, number), data in pages.items()
        ]


class _Given:
    """Pages that came with a snapshot, and which of them a trie has read."""

    def __init__(self, pages: dict[tuple[int, int], bytes]) -> None:
        self.pages = pages
        self.read: set[tuple[int, int]] = set()

    def load(self, level: int, number: int) -> bytes:
        if (level, number) not in self.pages:
            raise StoreError("page-missing", f"page {level}/{number}")
        self.read.add((level, number))
        return self.pages[level, number]


def _check_pages(record: Batch, pages: dict[tuple[int, int], bytes]) -> None:
    given = _Given(pages)
    try:
        Trie.open(record.size, record.ownership, given, PageCache(0)).owners()
    except StoreError as error:
        raise ProofError("bad-snapshot", str(error)) from error
    if given.read != set(pages):
        raise ProofError("bad-snapshot", "pages that no root leads to")
