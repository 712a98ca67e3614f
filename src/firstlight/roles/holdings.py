"""What somebody holds: for each tenure that he received, its keys and the manifest of its devices.

    holdings/<batch>-<n>/
        holding.cbor    which tenure of which batch, and how many devices
        manifest        leaf openings and mailbox secrets of the devices
        owner.pem       the tenure's key            recovery.pem    the key that replaces it
        receipts.pem    to which devices seal their receipts
        sales/          what was sold out of it     deployments/    the plans made for it

Everything is 0600 in directories that are 0700. A holding is known by its origin; tenures split off it have its keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain as concat
from itertools import pairwise
from pathlib import Path
from typing import Annotated

from firstlight.custody.file import AgreementKey, SigningKey
from firstlight.encoding import Bytes16, ChainId, Range, Record, Uint32
from firstlight.errors import ConfigError, MalformedError
from firstlight.files import read_limited, write_pieces
from firstlight.identity.manifest import ROW, Head, Manifest
from firstlight.ledger.records import BatchSize, Model
from firstlight.trees.ownership import Selection

HOLDINGS = "holdings"
HOLDING = "holding.cbor"
MANIFEST = "manifest"
OWNER, RECOVERY, RECEIPTS = "owner.pem", "recovery.pem", "receipts.pem"
SALES, DEPLOYMENTS = "sales", "deployments"
_NAME = re.compile(r"([0-9a-f]{32})-([1-9][0-9]{0,9})")
_LENGTH = 4
_NODE = 32
_MAX_HEAD = 256
_MAX_MANIFEST = 1 << 32


@dataclass(frozen=True, slots=True)
class HoldingRecord(Record):
    """Tenure ``tenure``, an origin, of ``batch``, with ``count`` devices when it was received."""

    chain: ChainId
    batch: Bytes16
    tenure: Annotated[int, Range(1, 2**32 - 1)]
    size: BatchSize
    model: Model
    count: Uint32


@dataclass(frozen=True, slots=True)
class Holding:
    """A holding's directory and what its ``holding.cbor`` says."""

    directory: Path
    record: HoldingRecord

    @property
    def batch(self) -> bytes:
        """The batch's id."""
        return self.record.batch

    @property
    def origin(self) -> int:
        """The number of the tenure that was received."""
        return self.record.tenure

    def owner(self) -> SigningKey:
        """Return the tenure's key; errors as :meth:`SigningKey.load`."""
        return SigningKey.load(self.directory / OWNER)

    def receipts(self) -> AgreementKey:
        """Return the key to which devices seal their receipts; it is made when it is first asked for."""
        return AgreementKey.load_or_create(self.directory / RECEIPTS)

    def manifest(self) -> Manifest:
        """Return the manifest of all devices that were received; :class:`StoreError`, :class:`MalformedError`."""
        return load_manifest(self.directory / MANIFEST)


def holding_name(batch: bytes, tenure: int) -> str:
    """Return the name of a holding's directory."""
    return f"{batch.hex()}-{tenure}"


def holdings(state_dir: Path) -> Iterator[Holding]:
    """Return all holdings of a state directory, by batch and number; :class:`StoreError`, :class:`MalformedError`."""
    parent = state_dir / HOLDINGS
    found = [path for path in parent.iterdir() if _NAME.fullmatch(path.name)] if parent.is_dir() else []
    for path in sorted(found, key=lambda one: (one.name[:32], int(one.name[33:]))):
        if (path / HOLDING).exists():
            yield Holding(path, HoldingRecord.decode(read_limited(path / HOLDING, 4_096)))


def find_holding(state_dir: Path, batch: bytes | None, origin: int | None) -> Holding:
    """Return the one holding that fits what was said of it.

    Raises :class:`ConfigError`: ``no-holding``, ``which-holding`` if several fit.
    """
    fit = [one for one in holdings(state_dir) if batch in (None, one.batch) and origin in (None, one.origin)]
    if not fit:
        raise ConfigError("no-holding", f"nothing that fits is held in {state_dir}", hint="accept or anchor devices")
    if len(fit) > 1:
        names = ", ".join(f"{one.batch.hex()} tenure {one.origin}" for one in fit)
        raise ConfigError("which-holding", f"several are held: {names}", hint="name one with --batch and --tenure")
    return fit[0]


# --- manifests in files -----------------------------------------------------------------------


def save_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest, 0600: length of the head (4 bytes) ‖ head ‖ nodes of the proof ‖ rows."""
    nodes = len(manifest.proof) // _NODE
    head = Head(manifest.chain, manifest.batch, manifest.size, manifest.model, len(manifest), nodes).encode()
    write_pieces(path, (len(head).to_bytes(_LENGTH), head, manifest.proof, manifest.rows))


def load_manifest(path: Path) -> Manifest:
    """Read a manifest; :class:`StoreError` of :mod:`firstlight.files`, :class:`MalformedError` (``bad-manifest``)."""
    data = read_limited(path, _MAX_MANIFEST, private=True)
    length = int.from_bytes(data[:_LENGTH])
    head = Head.decode(data[_LENGTH : _LENGTH + min(length, _MAX_HEAD)])
    rows = _LENGTH + length + head.nodes * _NODE
    if len(data) != rows + head.count * ROW:
        raise MalformedError("bad-manifest", f"{path} is cut")
    return Manifest(head.chain, head.batch, head.size, head.model, data[rows:], data[_LENGTH + length : rows])


# --- selections as people write them ----------------------------------------------------------


def read_selection(text: str) -> Selection | None:
    """Return the devices in ``all`` (None), ``0-9,15`` or a file that holds such text on its lines.

    Raises :class:`ConfigError` (``bad-selection``), :class:`StoreError`.
    """
    if text == "all":
        return None
    if not re.fullmatch(r"[0-9,\s-]+", text):
        path = Path(text)
        if not _exists(path):
            raise ConfigError("bad-selection", f"{text!r:.80} selects no devices", hint="all, or 0-9,15, or a file")
        text = read_limited(path, 1 << 26).decode("ascii", "replace")
    try:
        runs = sorted(_run(part) for part in re.split(r"[,\s]+", text) if part)
        if any(start + count > following for (start, count), (following, _) in pairwise(runs)):
            raise ConfigError("bad-selection", "a device is selected twice")
        return Selection.of(runs)
    except (ValueError, MalformedError) as error:
        raise ConfigError("bad-selection", str(error), hint="all, or 0-9,15, or a file") from error


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # no name that a file can have
        return False


def _run(part: str) -> tuple[int, int]:
    first, dash, last = part.partition("-")
    start = int(first)
    return start, (int(last) if dash else start) - start + 1


def selection_of(indices: Iterator[int]) -> Selection:
    """Return the selection of ascending indices."""
    runs: list[tuple[int, int]] = []
    start, end = next(indices), 0
    end = start + 1
    for index in concat(indices, (-1,)):
        if index != end:
            runs.append((start, end - start))
            start = index
        end = index + 1
    return Selection.of(runs)


def holding_files(directory: Path) -> tuple[SigningKey, SigningKey]:
    """Return the owner's and the recovery key of a new holding, made in ``directory`` unless they are there.

    Raises :class:`StoreError`.
    """
    return SigningKey.load_or_create(directory / OWNER), SigningKey.load_or_create(directory / RECOVERY)


def overlap(mine: Selection, spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Return the runs of ``mine`` that lie in ``spans``; both ascend."""
    runs = iter(mine.runs())
    run = next(runs, None)
    for start, end in spans:
        while run is not None and run[0] + run[1] <= start:
            run = next(runs, None)
        while run is not None and run[0] < end:
            first, last = max(run[0], start), min(run[0] + run[1], end)
            yield first, last - first
            if run[0] + run[1] > end:
                break
            run = next(runs, None)
