"""What a rule works on: one transaction, the state before it, and the changes so far.

A draft is thrown away when its rule refuses, so a transaction that fails has changed nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from firstlight import p256
from firstlight.chain.root import RootStatement
from firstlight.encoding import Record
from firstlight.errors import FirstlightError, RuleError, SignatureError
from firstlight.ledger.records import Batch, Party, Tenure, batch_name, party_name, tenure_name
from firstlight.ledger.state import State
from firstlight.ledger.transaction import Transaction
from firstlight.trees.ownership import Trie

_R = TypeVar("_R", bound=Record)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a transaction did: the party or batch that it made or changed, the tenure, the work in trie nodes."""

    subject: bytes = b""
    tenure: int = 0
    work: int = 0


class Draft:
    """The changes of one transaction, over the state before it."""

    __slots__ = ("_records", "_state", "_tries", "height", "time", "transaction", "values")

    def __init__(self, state: State, transaction: Transaction, *, height: int, time: int) -> None:
        """Begin with no changes; ``time`` is that of the header, in whole Unix seconds."""
        self._state = state
        self._records: dict[str, Record] = {}
        self._tries: dict[bytes, Trie] = {}
        self.values: dict[str, bytes] = {}
        self.transaction = transaction
        self.height = height
        self.time = time

    @property
    def chain(self) -> str:
        """The chain's id."""
        return self._state.chain

    @property
    def before(self) -> State:
        """The state before the transaction."""
        return self._state

    # --- reading ----------------------------------------------------------------------------------

    def find(self, name: str, kind: type[_R]) -> _R | None:
        """Return the record ``name``, or nothing."""
        record = self._records.get(name)
        return record if isinstance(record, kind) else self._state.read(name, kind)

    def party(self, party: bytes) -> Party:
        """Return a party; :class:`RuleError` (``unknown-party``)."""
        return _known(self.find(party_name(party), Party), "unknown-party", party)

    def batch(self, batch: bytes) -> Batch:
        """Return a batch; :class:`RuleError` (``unknown-batch``)."""
        return _known(self.find(batch_name(batch), Batch), "unknown-batch", batch)

    def tenure(self, batch: bytes, number: int) -> Tenure:
        """Return a tenure; :class:`RuleError` (``unknown-tenure``)."""
        name = tenure_name(batch, number)
        return _known(self.find(name, Tenure), "unknown-tenure", name)

    def tenures(self, batch: bytes) -> _Tenures:
        """Return the tenures of a batch, for :func:`firstlight.ledger.tenure.counting`."""
        return _Tenures(self, batch)

    def trie(self, batch: bytes) -> Trie:
        """Return a batch's ownership trie; :class:`RuleError` (``unknown-batch``)."""
        return _known(self._tries.get(batch) or self._state.trie(batch), "unknown-batch", batch)

    def root(self) -> RootStatement:
        """Return the root statement in force."""
        return self._state.current_root()

    # --- changing ---------------------------------------------------------------------------------

    def put(self, name: str, record: Record) -> None:
        """Set the record ``name``."""
        self._records[name] = record
        self.values[name] = record.encode()

    def put_value(self, name: str, value: bytes) -> None:
        """Set the value of the record ``name``, which is no array."""
        self.values[name] = value

    def put_trie(self, batch: bytes, trie: Trie) -> None:
        """Set a batch's trie; its record must name the root."""
        self._tries[batch] = trie

    def change_batch(self, batch: bytes, **changes: Any) -> None:
        """Set fields of a batch's record."""
        self.put(batch_name(batch), replace(self.batch(batch), **changes))

    def change_tenure(self, batch: bytes, number: int, **changes: Any) -> None:
        """Set fields of a tenure's record."""
        self.put(tenure_name(batch, number), replace(self.tenure(batch, number), **changes))

    def result(self) -> State:
        """Return the state with all changes."""
        return self._state.changed(self.values, self._tries)

    # --- authority --------------------------------------------------------------------------------

    def signed_by(self, key: bytes) -> None:
        """Check that ``key`` alone signed.

        Raises :class:`SignatureError`: ``wrong-key`` (another key's kid), ``bad-signature``.
        """
        signed = self.transaction.signed
        if signed.many or signed.signatures[0].kid != p256.kid(key):
            raise SignatureError("wrong-key", "signed by another key than the one whose right this is")
        signed.verify({p256.kid(key): key})

    def signed_by_root(self, needed: int, *also: bytes) -> None:
        """Check that ``needed`` root keys signed, and each key of ``also``, and nobody else.

        Raises :class:`SignatureError`: ``not-possessed`` (one of ``also`` is missing), ``not-endorsed`` (too few root
        keys), ``unknown-key`` (somebody else), ``bad-signature``.
        """
        signed = self.transaction.signed
        others = {p256.kid(key): key for key in also}
        members = {p256.kid(key): key for key in self.root().keys}
        signers = {signature.kid for signature in signed.signatures}
        if not others.keys() <= signers:
            raise SignatureError("not-possessed", "the key that is named has not signed")
        if len(signers & members.keys() - others.keys()) < needed:
            raise SignatureError("not-endorsed", f"fewer than {needed} of the consortium's root keys have signed")
        signed.verify(members | others)

    def signed_by_any(self, keys: Iterable[bytes]) -> None:
        """Check that all who signed are among ``keys``; ``unknown-key``, ``bad-signature``."""
        self.transaction.signed.verify({p256.kid(key): key for key in keys})

    def sequence(self, expected: int) -> None:
        """Check the sequence number; :class:`RuleError` (``wrong-sequence``)."""
        if self.transaction.sequence != expected:
            raise RuleError("wrong-sequence", f"sequence {self.transaction.sequence}, expected {expected}")


def require(condition: bool, code: str, detail: str = "") -> None:
    """Raise :class:`RuleError` with ``code`` unless ``condition`` holds."""
    if not condition:
        raise RuleError(code, detail)


def check_point(key: bytes) -> None:
    """Check that ``key`` is a P-256 key; :class:`firstlight.errors.MalformedError` (``bad-point``)."""
    p256.load(key)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a transaction: an outcome, or the error with which a rule refused it.

    ``values`` are the records that it set, by name.
    """

    outcome: Outcome | None
    error: FirstlightError | None
    values: Mapping[str, bytes]

    @property
    def code(self) -> str:
        """``ok``, or the stable code of the refusal."""
        return "ok" if self.error is None else self.error.code

    @property
    def detail(self) -> str:
        """What happened, for people."""
        return "" if self.error is None else self.error.detail


class _Tenures:
    """The tenures of one batch, as far as a draft has come."""

    __slots__ = ("_batch", "_draft")

    def __init__(self, draft: Draft, batch: bytes) -> None:
        self._draft = draft
        self._batch = batch

    def get(self, number: int, /) -> Tenure | None:
        return self._draft.find(tenure_name(self._batch, number), Tenure)


def _known(found: _T | None, code: str, what: bytes | str) -> _T:
    if found is None:
        raise RuleError(code, f"no {what.hex() if isinstance(what, bytes) else what}")
    return found
