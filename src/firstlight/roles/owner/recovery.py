"""Recovery: an owner whose key was lost or stolen takes his holding back with the recovery key.

The ledger then knows a new key and a new recovery hash, undoes sales younger than the transfer delay, and holds all of
the holding until the new key releases it. The new keys are on disk before the transaction leaves, under names of their
own, and take their places once the ledger shows them; an interrupted recovery goes on when it is asked for again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from firstlight.custody.file import SigningKey
from firstlight.errors import ConfigError, StoreError
from firstlight.files import remove
from firstlight.ledger.records import Tenure, tenure_name
from firstlight.ledger.transaction import Recover, build
from firstlight.roles.holdings import OWNER, RECOVERY, Holding
from firstlight.roles.ledger_client import LedgerClient, record_of
from firstlight.roles.workplace import Workplace

NEXT = ".next"
TRANSACTION = "recover.transaction"


@dataclass(frozen=True, slots=True)
class Recovered:
    """A recovery: which one it is of this holding (from 1), and the public half of the new key."""

    number: int
    key: bytes
    recovery_key: Path


def recover(place: Workplace, holding: Holding, recovery_key: Path | None) -> Recovered:
    """Recover a holding with the recovery key in a file (None: the one that lies with the holding).

    Raises :class:`RuleError` if the ledger refuses, :class:`StoreError` of the key files, :class:`ConfigError`
    (``wrong-recovery-key``).
    """
    directory = holding.directory
    owner = SigningKey.load_or_create(directory / (OWNER + NEXT))
    following = SigningKey.load_or_create(directory / (RECOVERY + NEXT))
    with place.ledger() as ledger:
        record = _record(ledger, holding)
        if record.key != owner.public:
            signer = SigningKey.load(recovery_key or directory / RECOVERY)
            if hashlib.sha256(signer.public).digest() != record.recovery:
                remove(directory / (OWNER + NEXT))
                remove(directory / (RECOVERY + NEXT))
                raise ConfigError("wrong-recovery-key", "not the key that the ledger has the hash of")
            body = Recover(
                batch=holding.batch,
                tenure=holding.origin,
                recovery_key=signer.public,
                key=owner.public,
                recovery=hashlib.sha256(following.public).digest(),
            )
            sequence = _recoveries(record) + 1
            ledger.submit_kept(
                directory / TRANSACTION, lambda: build(body, chain=place.chain, sequence=sequence, signer=signer)
            )
            record = _record(ledger, holding)
    _replace(directory / (OWNER + NEXT), directory / OWNER)
    _replace(directory / (RECOVERY + NEXT), directory / RECOVERY)
    remove(directory / TRANSACTION)
    return Recovered(_recoveries(record), owner.public, directory / RECOVERY)


def _record(ledger: LedgerClient, holding: Holding) -> Tenure:
    name = tenure_name(holding.batch, holding.origin)
    return record_of(ledger.view(name), name, Tenure, "unknown-tenure")


def _recoveries(record: Tenure) -> int:
    return len(record.recovered_before) + (1 if record.recovered_at else 0)


def _replace(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except OSError as error:
        raise StoreError("file-not-written", f"{target}: {error.strerror or error}") from error
