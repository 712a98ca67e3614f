"""What the members of a consortium decide together: suspend a party, the next root, the next epoch.

A decision is a file that goes from member to member. Each signs what is due, on the machine where his key lies:

    first     a new root or epoch statement, until as many have signed as it needs
    then      the transaction that puts it on the ledger, until as many have signed as that needs

and whoever signs last, or anybody else, submits it. Where enough keys lie in one directory all of it is one step.
A member's next key waits in ``root-<n>.next.pem`` until the ledger shows a root with it (:func:`settle`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

from firstlight import cose, p256
from firstlight.chain.root import (
    EPOCH_TYPE,
    ROOT_TYPE,
    EpochStatement,
    RootStatement,
    StatementBytes,
    known_epoch,
    known_root,
)
from firstlight.custody.file import SigningKey
from firstlight.encoding import ChainId, Record, Size
from firstlight.errors import ConfigError, MalformedError, StoreError
from firstlight.files import read_limited
from firstlight.ledger.records import PartyStatus
from firstlight.ledger.transaction import (
    TYP,
    AddBudget,
    Body,
    RotateRoot,
    SetEpoch,
    SuspendParty,
    build,
    parse,
)
from firstlight.ports import Signer
from firstlight.roles.consortium import root_key
from firstlight.roles.ledger_client import LedgerClient, Submitted

AHEAD = 4
"""How many blocks after the newest head a new epoch begins, unless somebody says otherwise."""


@dataclass(frozen=True, slots=True)
class Decision(Record):
    """A decision on its way: the root in force, statements with the signatures so far, and the transaction.

    ``epoch`` is the epoch in force, which a new root signs again.
    """

    LIMIT: ClassVar[int] = 32_768

    chain: ChainId
    root: StatementBytes
    statement: StatementBytes | None
    epoch: StatementBytes | None
    transaction: Annotated[bytes, Size(1, 16_384)] | None

    def signed(self, keys: Sequence[Signer]) -> Decision:
        """Return the decision with the signatures that are due and that ``keys`` can give."""
        if self.stated:
            return self.approved(keys)
        following = self.with_statements(keys)
        return following.approved(keys) if following.stated else following

    def with_statements(self, keys: Sequence[Signer]) -> Decision:
        """Return the decision with more signatures under its statements."""
        if self.statement is None:
            return self
        statement = _add(self.statement, self._statement_type, keys, self._statement_keys())
        epoch = None if self.epoch is None else _add(self.epoch, EPOCH_TYPE, keys, self._new.keys)
        return replace(self, statement=statement, epoch=epoch)

    def approved(self, keys: Sequence[Signer]) -> Decision:
        """Return the decision with more signatures under its transaction, which the first to sign makes."""
        signers = [key for key in keys if key.public in self._new.keys]
        if not signers:
            return self
        transaction = self.transaction
        if transaction is None:
            body, sequence = self._body()
            transaction = build(body, chain=self.chain, sequence=sequence, signer=signers[0])
        return replace(self, transaction=_add(transaction, TYP, signers, self._new.keys))

    @property
    def stated(self) -> bool:
        """Whether the statements, if it takes any, carry the signatures that they need."""
        if self.statement is None:
            return True
        statement = _signers(self.statement, self._statement_type)
        new = self._new
        if self.epoch is None:
            return _enough(statement, new)
        epoch = _signers(self.epoch, EPOCH_TYPE)
        return _enough(statement, known_root(self.root)) and _enough(statement, new) and _enough(epoch, new)

    @property
    def complete(self) -> bool:
        """Whether it can be submitted."""
        return self.transaction is not None and _enough(_signers(self.transaction, TYP), self._new)

    @property
    def _new(self) -> RootStatement:
        """The root whose keys sign the transaction."""
        if self.statement is not None and self.epoch is not None:
            return known_root(self.statement)
        return known_root(self.root)

    @property
    def _statement_type(self) -> str:
        return EPOCH_TYPE if self.epoch is None else ROOT_TYPE

    def _statement_keys(self) -> Collection[bytes]:
        return {*known_root(self.root).keys, *self._new.keys}

    def _body(self) -> tuple[Body, int]:
        assert self.statement is not None
        if self.epoch is None:
            return SetEpoch(self.statement), known_epoch(self.statement).number
        return RotateRoot(self.statement, self.epoch), known_root(self.statement).version


def _add(data: bytes, typ: str, keys: Sequence[Signer], allowed: Collection[bytes]) -> bytes:
    """Return a COSE_Sign with the signatures of all ``keys`` that are ``allowed`` and have not signed yet."""
    signed = cose.parse(data, typ=typ)
    for key in keys:
        if key.public in allowed and p256.kid(key.public) not in {one.kid for one in signed.signatures}:
            signed = signed.cosigned(key)
    return signed.encode()


def _signers(data: bytes, typ: str) -> set[bytes]:
    return {one.kid for one in cose.parse(data, typ=typ).signatures}


def _enough(signers: set[bytes], root: RootStatement) -> bool:
    return len(signers & {p256.kid(key) for key in root.keys}) >= root.threshold


# --- members' keys ----------------------------------------------------------------------------


def next_key(state_dir: Path, member: int) -> Path:
    """Return where the key is that will take the place of a member's."""
    return state_dir / f"root-{member}.next.pem"


def make_next_key(state_dir: Path, member: int) -> bytes:
    """Return the public half of a member's next key, which is made when it is first asked for."""
    return SigningKey.load_or_create(next_key(state_dir, member)).public


def keys_of(state_dir: Path, members: Sequence[int]) -> list[SigningKey]:
    """Return the keys in a directory, present and next ones, of these members (none named: of all).

    Raises :class:`ConfigError` (``no-such-member``).
    """
    found: list[SigningKey] = []
    for member in members or list(members_of(state_dir)):
        paths = [path for path in (root_key(state_dir, member), next_key(state_dir, member)) if path.exists()]
        if not paths:
            raise ConfigError("no-such-member", f"there is no key of member {member} in {state_dir}")
        found += [SigningKey.load(path) for path in paths]
    return found


def members_of(state_dir: Path) -> Iterator[int]:
    """Return the members whose keys lie in a directory, by number."""
    names = {path.name.removesuffix(".pem").removesuffix(".next") for path in state_dir.glob("root-*.pem")}
    yield from sorted(int(number) for name in names if (number := name.removeprefix("root-")).isdigit())


def settle(state_dir: Path, root: RootStatement) -> list[int]:
    """Let next keys take their places that the root in force names; return whose. The old ones are kept beside.

    Raises :class:`StoreError`.
    """
    moved = []
    for member in members_of(state_dir):
        old, new = root_key(state_dir, member), next_key(state_dir, member)
        if new.exists() and SigningKey.load(new).public in root.keys:
            if old.exists():
                _rename(old, state_dir / f"root-{member}.before-{root.version}.pem")
            _rename(new, old)
            moved.append(member)
    return moved


def _rename(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as error:
        raise StoreError("file-not-written", f"{target}: {error.strerror or error}") from error


# --- decisions --------------------------------------------------------------------------------


def read_decision(path: Path, chain: str) -> Decision:
    """Return a decision from a file; :class:`ConfigError` (``wrong-chain``), :class:`MalformedError`."""
    decision = Decision.decode(read_limited(path, Decision.LIMIT))
    if decision.chain != chain:
        raise ConfigError("wrong-chain", f"a decision for {decision.chain}")
    if decision.transaction is not None and parse(decision.transaction).chain != chain:
        raise MalformedError("wrong-chain", "a transaction for another chain")
    return decision


def suspend(ledger: LedgerClient, party: bytes, status: PartyStatus, keys: Sequence[Signer]) -> Decision:
    """Decide whether a party counts; :class:`ProofError` (``unknown-party``)."""
    revision = ledger.party(party).revision
    view = ledger.view()
    body = SuspendParty(party, status)
    first = build(body, chain=ledger.chain, sequence=revision + 1, signer=_one_of(keys, view.root))
    return Decision(ledger.chain, view.trust.root, None, None, first).signed(keys)


@dataclass(frozen=True, slots=True)
class NextEpoch:
    """What changes with the next epoch; nothing that is None does."""

    ahead: int = AHEAD
    validators: bytes | None = None
    witnesses: tuple[bytes, ...] | None = None
    threshold: int | None = None


def set_epoch(ledger: LedgerClient, wanted: NextEpoch, keys: Sequence[Signer]) -> Decision:
    """Decide on the next epoch: the same validators and witnesses but for what ``wanted`` says."""
    view = ledger.view()
    now = view.epoch
    statement = EpochStatement(
        chain=ledger.chain,
        number=now.number + 1,
        validators_hash=wanted.validators or now.validators_hash,
        first_height=view.height + wanted.ahead,
        threshold=wanted.threshold or now.threshold,
        witnesses=tuple(sorted(wanted.witnesses or now.witnesses)),
    )
    signed = statement.sign([_one_of(keys, view.root)])
    return Decision(ledger.chain, view.trust.root, signed, None, None).signed(keys)


def rotate_root(
    ledger: LedgerClient, new_keys: Sequence[bytes], threshold: int | None, keys: Sequence[Signer]
) -> Decision:
    """Decide on the next root: these public keys, and how many of them must sign."""
    view = ledger.view()
    now = view.root
    for key in new_keys:
        p256.load(key)
    statement = RootStatement(ledger.chain, now.version + 1, threshold or now.threshold, tuple(sorted(set(new_keys))))
    if statement.threshold > len(statement.keys):
        raise ConfigError("bad-threshold", f"{statement.threshold} of {len(statement.keys)} members can never sign")
    either = [key for key in keys if key.public in {*now.keys, *statement.keys}]
    theirs = [key for key in keys if key.public in statement.keys]
    if not either or not theirs:
        raise ConfigError("no-such-member", "the first to sign needs a key of the new root")
    again = view.epoch.sign(theirs[:1])
    return Decision(ledger.chain, view.trust.root, statement.sign(either[:1]), again, None).signed(keys)


def submit(ledger: LedgerClient, decision: Decision) -> Submitted:
    """Put a decision on the ledger; :class:`ConfigError` (``not-enough-signatures``), :class:`RuleError`."""
    if decision.transaction is None or not decision.complete:
        raise ConfigError("not-enough-signatures", "more members must sign", hint="firstlight consortium sign")
    return ledger.submit(decision.transaction)


def add_budget(ledger: LedgerClient, batch: bytes, amount: int, keys: Sequence[Signer]) -> Submitted:
    """Add to a batch's work budget, as any one member; :class:`ProofError` (``unknown-batch``), :class:`RuleError`."""
    grants = ledger.batch(batch).grants
    signer = _one_of(keys, ledger.view().root)
    body = AddBudget(batch, amount)
    return ledger.submit(build(body, chain=ledger.chain, sequence=grants + 1, signer=signer))


def _one_of(keys: Sequence[Signer], root: RootStatement) -> Signer:
    for key in keys:
        if key.public in root.keys:
            return key
    raise ConfigError("no-such-member", "none of these keys is in the root in force", hint="--member NUMBER")
