"""Validators, the votes they sign and the commit that closes a block, as CometBFT v0.38 has them.

Addresses do not travel: the n-th signature of a commit is the n-th validator's, whose address is the
hash of its key. So no signature can be counted under another validator's address.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Protocol

from firstlight.chain import ed25519
from firstlight.chain import protobuf as pb
from firstlight.chain.block import BlockId, Header, Height, Nanoseconds, merkle
from firstlight.encoding import Bytes32, Count, Range, Record, Size, Uint32
from firstlight.errors import ProofError, SignatureError

MAX_VALIDATORS = 256
MAX_TOTAL_POWER = (2**63 - 1) // 8
PRECOMMIT = 2


class ValidatorSigner(Protocol):
    """Holds a validator's Ed25519 key and never shows it."""

    @property
    def public(self) -> bytes:
        """The public key (32 bytes)."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return the signature (64 bytes) of ``message``."""
        ...


class Flag(IntEnum):
    """What a validator voted for (``BlockIDFlag``)."""

    ABSENT = 1
    COMMIT = 2
    NIL = 3


@dataclass(frozen=True, slots=True)
class Validator(Record):
    """A validator's Ed25519 key and voting power."""

    public: Bytes32
    power: Annotated[int, Range(1, MAX_TOTAL_POWER)]

    @property
    def address(self) -> bytes:
        """The validator's address (20 bytes)."""
        return ed25519.address(self.public)

    def protobuf(self) -> bytes:
        """Return ``SimpleValidator``, the leaf of the validators hash."""
        return pb.message(1, pb.blob(1, self.public)) + pb.integer(2, self.power)


@dataclass(frozen=True, slots=True)
class ValidatorSet(Record):
    """The validators of a height, by power descending and then by address."""

    validators: Annotated[tuple[Validator, ...], Count(MAX_VALIDATORS, 1)]

    @classmethod
    def of(cls, validators: Sequence[Validator]) -> ValidatorSet:
        """Return the set in its order; ``bad-validators`` as :meth:`check`."""
        ordered = cls.ordered(validators)
        ordered.check()
        return ordered

    @classmethod
    def ordered(cls, validators: Iterable[Validator]) -> ValidatorSet:
        """Return the set in its order, otherwise unchecked."""
        return cls(tuple(sorted(validators, key=_rank)))

    @property
    def total(self) -> int:
        """The sum of all voting power."""
        return sum(one.power for one in self.validators)

    def hash(self) -> bytes:
        """Return the validators hash of a header."""
        return merkle(one.protobuf() for one in self.validators)

    def check(self) -> None:
        """Raise :class:`ProofError` (``bad-validators``) unless ordered, each once, and within the power limit."""
        ranks = [_rank(one) for one in self.validators]
        if any(first >= second for first, second in itertools.pairwise(ranks)):
            raise ProofError("bad-validators", "not by power and address, each once")
        if len({one.public for one in self.validators}) != len(ranks):
            raise ProofError("bad-validators", "a key twice")
        if self.total > MAX_TOTAL_POWER or any(one.power < 0 for one in self.validators):
            raise ProofError("bad-validators", "too much power, or less than none")


def _rank(validator: Validator) -> tuple[int, bytes]:
    return -validator.power, validator.address


@dataclass(frozen=True, slots=True)
class CommitSig(Record):
    """One validator's vote: for the block, for nil, or none (then without time and signature)."""

    flag: Flag
    time: Nanoseconds
    signature: Annotated[bytes, Size(0, 64)]

    def protobuf(self, address: bytes) -> bytes:
        """Return CometBFT's ``CommitSig`` for the validator with ``address``."""
        if self.flag is Flag.ABSENT:
            return pb.integer(1, self.flag) + pb.message(3, pb.timestamp(None))
        stamp = pb.message(3, pb.timestamp(self.time))
        return pb.integer(1, self.flag) + pb.blob(2, address) + stamp + pb.blob(4, self.signature)


ABSENT = CommitSig(Flag.ABSENT, 0, b"")


@dataclass(frozen=True, slots=True)
class Commit(Record):
    """The precommits for ``block`` at ``height`` and ``round``, one entry for each validator in order."""

    height: Height
    round: Uint32
    block: BlockId
    signatures: Annotated[tuple[CommitSig, ...], Count(MAX_VALIDATORS, 1)]

    def hash(self, validators: ValidatorSet) -> bytes:
        """Return the ``last_commit_hash`` of the next header."""
        return merkle(self._entries(validators))

    def protobuf(self, validators: ValidatorSet) -> bytes:
        """Return CometBFT's ``Commit`` message."""
        entries = b"".join(pb.message(4, entry) for entry in self._entries(validators))
        return pb.integer(1, self.height) + pb.integer(2, self.round) + pb.message(3, self.block.protobuf()) + entries

    def _entries(self, validators: ValidatorSet) -> list[bytes]:
        pairs = zip(self.signatures, validators.validators, strict=True)
        return [signature.protobuf(validator.address) for signature, validator in pairs]


NO_COMMIT_HASH = merkle(())
"""The ``last_commit_hash`` of the first header."""
NO_COMMIT_PROTOBUF = pb.message(3, pb.message(2, b""))
"""The empty ``Commit`` in the first block."""


def vote_sign_bytes(
    chain: str, *, height: int, round_: int, block: BlockId | None, time: int | None, kind: int = PRECOMMIT
) -> bytes:
    """Return what a validator signs: the length-delimited ``CanonicalVote`` (``types/vote.go``).

    ``block`` is ``None`` in a vote for nil; ``time`` is Unix nanoseconds, ``None`` if it was never set.
    """
    return pb.delimited(
        pb.integer(1, kind)
        + pb.fixed64(2, height)
        + pb.fixed64(3, round_)
        + (b"" if block is None else pb.message(4, block.protobuf()))
        + pb.message(5, pb.timestamp(time))
        + pb.blob(6, chain.encode())
    )


def make_commit(
    chain: str,
    height: int,
    block: BlockId,
    validators: ValidatorSet,
    signers: Mapping[bytes, ValidatorSigner],
    *,
    time: int,
    round_: int = 0,
) -> Commit:
    """Return the commit that ``signers`` (by public key) sign at ``time`` (ns); the others are absent."""
    message = vote_sign_bytes(chain, height=height, round_=round_, block=block, time=time)
    signatures = tuple(
        CommitSig(Flag.COMMIT, time, signers[one.public].sign(message)) if one.public in signers else ABSENT
        for one in validators.validators
    )
    return Commit(height, round_, block, signatures)


@dataclass(frozen=True, slots=True)
class Votes(Record):
    """A commit without what its reader computes: the height and hash of the block that it is for."""

    round: Uint32
    parts: Annotated[int, Range(1, 2**32 - 1)]
    parts_hash: Bytes32
    signatures: Annotated[tuple[CommitSig, ...], Count(MAX_VALIDATORS, 1)]

    @classmethod
    def of(cls, commit: Commit) -> Votes:
        """Return the votes in ``commit``."""
        return cls(commit.round, commit.block.parts, commit.block.parts_hash, commit.signatures)

    def commit(self, height: int, block_hash: bytes) -> Commit:
        """Return the commit that these are the votes of, if they are for that block."""
        return Commit(height, self.round, BlockId(block_hash, self.parts, self.parts_hash), self.signatures)


def verify_commit(
    chain: str, validators: ValidatorSet, header: Header, commit: Commit, addresses: Sequence[bytes] | None = None
) -> None:
    """Check that more than two thirds of the power of ``validators`` committed ``header``.

    1. the validators are those that the header names (``validators-hash``);
    2. header and commit are of this chain, height and block (``wrong-chain``, ``commit-height``, ``commit-block``);
    3. the checks of :func:`verify_votes`.

    Raises :class:`ProofError`.
    """
    if header.validators_hash != validators.hash():
        raise ProofError("validators-hash", "not the validators that the header names")
    check_names(chain, header, commit)
    verify_votes(chain, validators, commit, addresses)


def verify_votes(
    chain: str, validators: ValidatorSet, commit: Commit, addresses: Sequence[bytes] | None = None
) -> None:
    """Check that more than two thirds of the power of ``validators`` voted for the block of ``commit``.

    1. the set is in its order and each validator once (``bad-validators``);
    2. one entry for each validator (``commit-size``), each well-formed (``bad-commit-entry``);
    3. votes for the block, until they are enough: the address beside each, if ``addresses`` came with them, is its
       validator's (``commit-address``);
    4. their power is more than two thirds (``not-enough-power``). Votes for nil and absent ones count nothing;
    5. their signatures verify (``commit-signature``).

    Raises :class:`ProofError`.
    """
    validators.check()
    check_size(validators, commit)
    check_entries(commit)
    signed = tally(chain, commit, in_order(validators, commit, addresses), needed=validators.total * 2 // 3)
    if signed * 3 <= validators.total * 2:
        raise ProofError("not-enough-power", f"{signed} of {validators.total} signed")


def check_names(chain: str, header: Header, commit: Commit) -> None:
    """Raise unless header and commit name the same chain, height and block."""
    if header.chain != chain:
        raise ProofError("wrong-chain", f"the header is of {header.chain}")
    if commit.height != header.height:
        raise ProofError("commit-height", f"commit {commit.height}, header {header.height}")
    if commit.block.hash != header.hash():
        raise ProofError("commit-block", "the commit is for another block")


def check_size(validators: ValidatorSet, commit: Commit) -> None:
    """Raise unless there is one entry for each validator."""
    if len(commit.signatures) != len(validators.validators):
        raise ProofError("commit-size", f"{len(commit.signatures)} entries, {len(validators.validators)} validators")


def check_entries(commit: Commit) -> None:
    """Raise unless each entry is well-formed."""
    for entry in commit.signatures:
        absent = entry.flag is Flag.ABSENT
        if len(entry.signature) != (0 if absent else 64) or (absent and entry.time):
            raise ProofError("bad-commit-entry", "an absent vote with a signature, or a vote without")


def in_order(validators: ValidatorSet, commit: Commit, addresses: Sequence[bytes] | None = None) -> Iterator[Validator]:
    """Yield whose vote each entry is: the n-th validator's; ``commit-address`` if another address stands beside it."""
    for index, (validator, entry) in enumerate(zip(validators.validators, commit.signatures, strict=True)):
        if addresses is not None and entry.flag is Flag.COMMIT and addresses[index] != validator.address:
            raise ProofError("commit-address", f"another address than validator {index}'s")
        yield validator


def tally(chain: str, commit: Commit, voters: Iterable[Validator | None], *, needed: int) -> int:
    """Return the power of the votes for the block, counted until it is more than ``needed``.

    ``voters`` says whose vote each entry is, in order; nobody's counts nothing. The signatures that make it more than
    ``needed`` are checked: ``commit-signature``. What is too little proves nothing whoever signed it, and is returned
    unchecked, as CometBFT does, unless it is a commit's only entry, which it always checks.
    """
    counted: list[tuple[int, Validator]] = []
    power = 0
    for index, (voter, entry) in enumerate(zip(voters, commit.signatures, strict=False)):
        if voter is None or entry.flag is not Flag.COMMIT:
            continue
        counted.append((index, voter))
        power += voter.power
        if power > needed:
            break
    if power > needed or len(commit.signatures) == 1:
        _check_signatures(chain, commit, counted)
    return power


def _check_signatures(chain: str, commit: Commit, votes: Iterable[tuple[int, Validator]]) -> None:
    for index, voter in votes:
        entry = commit.signatures[index]
        message = vote_sign_bytes(chain, height=commit.height, round_=commit.round, block=commit.block, time=entry.time)
        try:
            ed25519.verify(voter.public, message, entry.signature)
        except SignatureError:
            raise ProofError("commit-signature", f"entry {index}'s signature does not verify") from None
