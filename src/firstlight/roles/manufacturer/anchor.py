"""Anchoring a batch on the ledger; its devices are the manufacturer's tenure 1 then."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from firstlight.errors import ConfigError, StoreError
from firstlight.files import private_directory, write_atomic
from firstlight.ledger.transaction import AnchorBatch, build
from firstlight.roles.holdings import (
    HOLDING,
    HOLDINGS,
    MANIFEST,
    HoldingRecord,
    holding_files,
    holding_name,
    load_manifest,
)
from firstlight.roles.ledger_client import LedgerClient, Submitted
from firstlight.roles.manufacturer.make import BATCHES, MadeBatch, batches
from firstlight.roles.registration import load as load_keys
from firstlight.roles.workplace import Workplace
from firstlight.trees import rfc6962

ANCHOR = "anchor.transaction"


@dataclass(frozen=True, slots=True)
class Anchored:
    """A batch on the ledger."""

    submitted: Submitted
    made: MadeBatch


def choose(place: Workplace, batch: bytes | None) -> MadeBatch:
    """Return the batch of that id, or the only one that is not anchored yet.

    Raises :class:`ConfigError`: ``no-batch``, ``which-batch``.
    """
    made = [one for one in batches(place) if batch in (None, one.batch)]
    if batch is None:
        made = [one for one in made if not (place.directory / HOLDINGS / holding_name(one.batch, 1)).exists()]
    if not made:
        raise ConfigError("no-batch", "no batch waits to be anchored", hint="make devices first")
    if len(made) > 1:
        names = ", ".join(one.batch.hex() for one in made)
        raise ConfigError("which-batch", f"several wait: {names}", hint="name one with --batch")
    return made[0]


def anchor(place: Workplace, made: MadeBatch) -> Anchored:
    """Anchor a batch, with a fresh key and recovery key for tenure 1 and the maker's own reference values.

    Repeated after an interruption it goes on with the same keys. Raises :class:`RuleError` if the ledger refuses.
    """
    workshop = place.directory / BATCHES / made.batch.hex()
    target = place.directory / HOLDINGS / holding_name(made.batch, 1)
    directory = target if target.exists() else private_directory(workshop / "tenure-1")
    with place.ledger() as ledger:
        submitted = ledger.submit_kept(directory / ANCHOR, lambda: _prepare(place, ledger, made, directory))
    if directory != target:
        _keep(directory, target)
    return Anchored(submitted, made)


def _prepare(place: Workplace, ledger: LedgerClient, made: MadeBatch, directory: Path) -> bytes:
    owner, recovery = holding_files(directory)
    manifest = directory / MANIFEST
    if not manifest.exists():
        os.link(place.directory / BATCHES / made.batch.hex() / MANIFEST, manifest)
    leaves = rfc6962.Tree.from_flat(b"".join(load_manifest(manifest).leaf_hashes())).root
    record = HoldingRecord(made.chain, made.batch, 1, made.size, made.model, made.size)
    write_atomic(directory / HOLDING, record.encode())
    keys = load_keys(place.directory)
    body = AnchorBatch(
        party=made.issuer,
        size=made.size,
        model=made.model,
        leaves=leaves,
        trust_anchors=(),
        reference_issuers=(made.issuer,),
        key=owner.public,
        recovery=hashlib.sha256(recovery.public).digest(),
        delay=0,
    )
    sequence = ledger.party(made.issuer).sequence + 1
    return build(body, chain=place.chain, sequence=sequence, signer=keys.signing)


def _keep(directory: Path, target: Path) -> None:
    private_directory(target.parent)
    try:
        directory.rename(target)
    except OSError as error:
        raise StoreError("file-not-written", f"{target}: {error.strerror or error}") from error
