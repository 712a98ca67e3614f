"""Who governs a chain: root statements and the epochs that they sign (in the manner of TUF's root role).

Version n + 1 of the root carries signatures by the threshold of version n *and* by its own. An epoch
says whose blocks and whose witness statements count; it carries signatures by the threshold of the
root in force. The hash by which the ledger knows a statement is over its contents alone, so the same
epoch can be signed again by a newer root without becoming another epoch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from firstlight import cose, p256
from firstlight.chain.block import Height
from firstlight.encoding import Bytes32, Bytes33, ChainId, Count, Range, Record, Size
from firstlight.errors import ProofError, SignatureError
from firstlight.ports import Signer

ROOT_TYPE = "application/firstlight-root+cbor"
EPOCH_TYPE = "application/firstlight-epoch+cbor"
MAX_KEYS = 16
MAX_WALK = 64
LIMIT = 4096
Version = Annotated[int, Range(1, 2**32 - 1)]
Threshold = Annotated[int, Range(1, MAX_KEYS)]
Keys = Annotated[tuple[Bytes33, ...], Count(MAX_KEYS, 1)]
StatementBytes = Annotated[bytes, Size(1, LIMIT)]
"""A signed statement as it travels: a COSE_Sign."""


@dataclass(frozen=True, slots=True)
class RootStatement(Record):
    """Version, threshold and keys (ascending, each once) of a chain's root."""

    chain: ChainId
    version: Version
    threshold: Threshold
    keys: Keys

    def hash(self) -> bytes:
        """Return what the ledger's ``governance`` record holds: SHA-256 of the statement's contents."""
        return hashlib.sha256(self.encode()).digest()

    def sign(self, signers: Sequence[Signer]) -> bytes:
        """Return the statement signed by ``signers``."""
        return cose.sign(self.encode(), typ=ROOT_TYPE, signers=signers)


@dataclass(frozen=True, slots=True)
class EpochStatement(Record):
    """From ``first_height`` on: the validators by their hash, and the witness keys of which ``threshold`` must sign."""

    chain: ChainId
    number: Version
    validators_hash: Bytes32
    first_height: Height
    threshold: Threshold
    witnesses: Keys

    def hash(self) -> bytes:
        """Return what the ledger's ``governance`` record holds: SHA-256 of the statement's contents."""
        return hashlib.sha256(self.encode()).digest()

    def sign(self, signers: Sequence[Signer]) -> bytes:
        """Return the statement signed by ``signers``."""
        return cose.sign(self.encode(), typ=EPOCH_TYPE, signers=signers)


def open_root(data: bytes, *, signed_by: Sequence[RootStatement] = ()) -> RootStatement:
    """Return the root statement in ``data``, signed by the threshold of each of ``signed_by`` and by its own.

    1. Its keys ascend, each once, and its threshold can be met (``bad-root-statement``);
    2. enough of them signed, and enough of each of ``signed_by`` (:func:`_check_threshold`);
    3. every signature verifies with a key in one of the statements (:func:`_check_signatures`).

    Raises :class:`ProofError` (2 and 3: ``root-signature``), :class:`MalformedError`.
    """
    signed = cose.parse(data, typ=ROOT_TYPE, limit=LIMIT)
    statement = RootStatement.decode(signed.payload)
    _check_keys(statement.keys, statement.threshold, "bad-root-statement")
    _check_threshold(signed, [*signed_by, statement], "root-signature")
    _check_signatures(signed, [*signed_by, statement], "root-signature")
    return statement


def known_root(data: bytes) -> RootStatement:
    """Return a root statement that is trusted already, without checking its signatures; :class:`MalformedError`."""
    return RootStatement.decode(cose.parse(data, typ=ROOT_TYPE, limit=LIMIT).payload)


def walk(known: RootStatement, newer: Sequence[bytes]) -> RootStatement:
    """Return the newest root, reached from ``known`` one version at a time.

    1. There are not too many versions (``root-walk-too-long``);
    2. each is signed by the one before and by itself (:func:`open_root`);
    3. it is of the same chain (``wrong-chain``), 4. and the next version (``root-version``).

    Raises :class:`ProofError`, and what :func:`open_root` raises.
    """
    if len(newer) > MAX_WALK:
        raise ProofError("root-walk-too-long", f"more than {MAX_WALK} versions")
    current = known
    for data in newer:
        following = open_root(data, signed_by=[current])
        if following.chain != known.chain:
            raise ProofError("wrong-chain", f"a root of {following.chain}")
        if following.version != current.version + 1:
            raise ProofError("root-version", f"version {following.version} after {current.version}")
        current = following
    return current


def open_epoch(data: bytes, root: RootStatement) -> EpochStatement:
    """Return the epoch statement in ``data``, signed by the threshold of ``root``.

    1. Its witnesses' keys ascend, each once, and its threshold can be met (``bad-epoch-statement``);
    2. it is of the root's chain (``wrong-chain``);
    3. enough keys of the root signed it (:func:`_check_threshold`);
    4. every signature verifies with a key of the root (:func:`_check_signatures`).

    Raises :class:`ProofError` (3 and 4: ``epoch-signature``), :class:`MalformedError`.
    """
    signed = cose.parse(data, typ=EPOCH_TYPE, limit=LIMIT)
    statement = EpochStatement.decode(signed.payload)
    _check_keys(statement.witnesses, statement.threshold, "bad-epoch-statement")
    if statement.chain != root.chain:
        raise ProofError("wrong-chain", f"an epoch of {statement.chain}")
    _check_threshold(signed, [root], "epoch-signature")
    _check_signatures(signed, [root], "epoch-signature")
    return statement


def known_epoch(data: bytes) -> EpochStatement:
    """Return an epoch statement that was verified before, without its signatures; :class:`MalformedError`."""
    return EpochStatement.decode(cose.parse(data, typ=EPOCH_TYPE, limit=LIMIT).payload)


def _check_keys(keys: Sequence[bytes], threshold: int, code: str) -> None:
    if list(keys) != sorted(set(keys)) or len(_kids(keys)) != len(keys):
        raise ProofError(code, "keys are not ascending, each once")
    if threshold > len(keys):
        raise ProofError(code, "a threshold that cannot be met")


def _kids(keys: Iterable[bytes]) -> dict[bytes, bytes]:
    return {p256.kid(key): key for key in keys}


def _check_threshold(signed: cose.Signed, roots: Sequence[RootStatement], code: str) -> None:
    signers = {one.kid for one in signed.signatures}
    for root in roots:
        if len(signers & _kids(root.keys).keys()) < root.threshold:
            raise ProofError(code, f"fewer than {root.threshold} signatures of root version {root.version}")


def _check_signatures(signed: cose.Signed, roots: Sequence[RootStatement], code: str) -> None:
    if not signed.many:
        raise ProofError(code, "not a COSE_Sign")
    keys = {key for root in roots for key in root.keys}
    if len(_kids(keys)) != len(keys):
        raise ProofError(code, "two keys with one kid")
    try:
        signed.verify(_kids(keys))
    except SignatureError as error:
        raise ProofError(code, str(error)) from None
