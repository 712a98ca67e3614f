"""A party changes what the ledger says of it: its signing key, to the one that it committed to, and its endpoints.

The key after the next lies in ``next.pem.next`` before the transaction leaves; the files change places once the ledger
shows the new key, and an interrupted rotation goes on when it is asked for again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from firstlight.custody.file import SigningKey
from firstlight.errors import StoreError
from firstlight.files import remove
from firstlight.ledger.records import Party
from firstlight.ledger.transaction import Rotation, UpdateParty, build
from firstlight.roles.ledger_client import LedgerClient, Submitted
from firstlight.roles.registration import FOLLOWING, SIGNING, load, party_of

AFTER = ".next"
TRANSACTION = "update.transaction"


@dataclass(frozen=True, slots=True)
class Updated:
    """The party's record as it is now; ``submitted`` is nothing if it was so before."""

    party: bytes
    record: Party
    submitted: Submitted | None


def rotate(ledger: LedgerClient, state_dir: Path) -> Updated:
    """Let the next key take the place of the party's signing key, and commit to a new next one.

    Raises :class:`RuleError` if the ledger refuses, :class:`StoreError`, :class:`ProofError` (``unknown-party``).
    """
    party, after = party_of(state_dir), state_dir / (FOLLOWING + AFTER)
    if after.exists() and not (state_dir / FOLLOWING).exists():
        _replace(after, state_dir / FOLLOWING)
        return Updated(party, ledger.party(party), None)
    following, record = SigningKey.load(state_dir / FOLLOWING), ledger.party(party)
    submitted = None
    if record.key != following.public:
        rotation = Rotation(following.public, hashlib.sha256(SigningKey.load_or_create(after).public).digest())
        body = UpdateParty(party, record.revision + 1, record.agreement_key, record.endpoints, rotation)
        submitted = ledger.submit_kept(
            state_dir / TRANSACTION, lambda: build(body, chain=ledger.chain, sequence=1, signer=following)
        )
        record = ledger.party(party)
    remove(state_dir / TRANSACTION)
    _replace(state_dir / FOLLOWING, state_dir / SIGNING)
    _replace(after, state_dir / FOLLOWING)
    return Updated(party, record, submitted)


def update(ledger: LedgerClient, state_dir: Path, endpoints: tuple[str, ...]) -> Updated:
    """Change where the party is reached; errors as :func:`rotate`."""
    keys = load(state_dir)
    record = ledger.party(keys.party)
    if record.endpoints == endpoints:
        return Updated(keys.party, record, None)
    body = UpdateParty(keys.party, record.revision + 1, record.agreement_key, endpoints, None)
    submitted = ledger.submit(build(body, chain=ledger.chain, sequence=record.sequence + 1, signer=keys.signing))
    return Updated(keys.party, ledger.party(keys.party), submitted)


def _replace(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except OSError as error:
        raise StoreError("file-not-written", f"{target}: {error.strerror or error}") from error
