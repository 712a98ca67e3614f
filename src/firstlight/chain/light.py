"""Moving trust from one verified header to a later one (CometBFT ``light/verifier.go``).

A pure function that answers with a verdict. Somebody with :class:`NotEnoughTrust` fetches a header in
between and tries again (bisection).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from firstlight.chain.block import BLOCK_PROTOCOL, BlockId, Header
from firstlight.chain.commit import (
    Commit,
    Flag,
    Validator,
    ValidatorSet,
    check_entries,
    check_names,
    check_size,
    in_order,
    tally,
    verify_commit,
)
from firstlight.encoding import Record
from firstlight.errors import FirstlightError, ProofError

SECOND = 1_000_000_000
_DAY = 86_400 * SECOND
MAX_CHAIN_ID = 50
HASH_SIZE = 32
ADDRESS_SIZE = 20


@dataclass(frozen=True, slots=True)
class SignedHeader:
    """A header, its commit and the validators of its height, as somebody sent them.

    ``addresses`` are those beside the entries of the commit, in forms that have them (CometBFT's own have).
    ``next_validators`` must be those that the header names, if they came with it.
    """

    header: Header
    commit: Commit
    validators: ValidatorSet
    addresses: tuple[bytes, ...] | None = None
    next_validators: ValidatorSet | None = None


@dataclass(frozen=True, slots=True)
class Trusted(Record):
    """A header that was verified before, and the validators that it names for the next height."""

    LIMIT: ClassVar[int] = 131_072

    header: Header
    next_validators: ValidatorSet


@dataclass(frozen=True, slots=True)
class Policy:
    """How far trust reaches: nanoseconds, and the fraction of the trusted power that must have signed."""

    trusting_period: int
    clock_drift: int = 10 * SECOND
    trust_level: tuple[int, int] = (1, 3)

    @classmethod
    def of_days(cls, days: int) -> Policy:
        """Trust a header for so many days."""
        return cls(trusting_period=days * _DAY)

    def __post_init__(self) -> None:
        """Refuse a trust level outside one third to one (``bad-trust-level``)."""
        numerator, denominator = self.trust_level
        if denominator <= 0 or numerator * 3 < denominator or numerator > denominator:
            raise ProofError("bad-trust-level", f"{numerator}/{denominator} is not within 1/3 and 1")


@dataclass(frozen=True, slots=True)
class Success:
    """The untrusted header can be trusted."""


@dataclass(frozen=True, slots=True)
class NotEnoughTrust:
    """Too few of the trusted validators signed to jump that far: ask for a header in between."""

    signed: int
    total: int


@dataclass(frozen=True, slots=True)
class Invalid:
    """The header must not be trusted, whatever comes in between; ``code`` is stable."""

    code: str
    detail: str = ""


Verdict = Success | NotEnoughTrust | Invalid


def verify(trusted: Trusted, untrusted: SignedHeader, policy: Policy, now: int) -> Verdict:
    """Judge ``untrusted`` from ``trusted`` at ``now`` (Unix nanoseconds).

    1. the trusted header is within the trusting period (``trusted-expired``) and names the validators given
       with it (``trusted-validators``);
    2. the header is well-formed (``bad-header``), so is the commit (``no-votes``, ``bad-commit-entry``), and both
       name the chain, the height and the block (``wrong-chain``, ``commit-height``, ``commit-block``);
    3. height (``height-not-monotonic``) and time (``time-not-monotonic``) move forward, and time is not beyond
       the clock drift (``header-from-future``);
    4. the validators given are in order and each once (``bad-validators``), and those that it names
       (``validators-hash``, ``next-validators-hash``);
    5. at the next height: the validators are those that the trusted header named (``next-validators``);
       further on: more than the trust level of their power signed (:class:`NotEnoughTrust`, ``double-vote``,
       ``commit-signature``);
    6. more than two thirds of its own validators signed (codes of :func:`commit.verify_votes`).

    The checks and their order are those of CometBFT v0.38. Stricter than there: the trusted validators must be those
    that the trusted header names, validators must be in order, signatures of 64 bytes, and verify by RFC 8032.
    """
    try:
        return _verify(trusted, untrusted, policy, now)
    except FirstlightError as error:
        return Invalid(error.code, error.detail)


def _verify(trusted: Trusted, untrusted: SignedHeader, policy: Policy, now: int) -> Verdict:
    known, header = trusted.header, untrusted.header
    if known.time + policy.trusting_period <= now:
        raise ProofError("trusted-expired", "the trusted header is older than the trusting period")
    if known.next_validators_hash != trusted.next_validators.hash():
        raise ProofError("trusted-validators", "not the validators that the trusted header names")
    _check_shape(known.chain, untrusted)
    _check_progress(known, header, policy, now)
    _check_validators(untrusted)
    if header.height == known.height + 1:
        if header.validators_hash != known.next_validators_hash:
            raise ProofError("next-validators", "not the validators that were announced")
    else:
        shortfall = _check_overlap(trusted, untrusted, policy)
        if shortfall is not None:
            return shortfall
    verify_commit(known.chain, untrusted.validators, header, untrusted.commit, untrusted.addresses)
    return Success()


def _check_shape(chain: str, untrusted: SignedHeader) -> None:
    header, commit = untrusted.header, untrusted.commit
    _check_header(header)
    if not commit.signatures:
        raise ProofError("no-votes", "the commit has no entries")
    check_entries(commit)
    if untrusted.addresses is None:
        check_size(untrusted.validators, commit)
    else:
        _check_addresses(commit, untrusted.addresses)
    check_names(chain, header, commit)
    if not _block_fits(commit.block):
        raise ProofError("commit-block", "hashes of the wrong size")


def _check_header(header: Header) -> None:
    """Raise ``bad-header`` unless the header is one that CometBFT takes (``Header.ValidateBasic``)."""
    hashes = (
        header.last_commit_hash,
        header.data_hash,
        header.validators_hash,
        header.next_validators_hash,
        header.consensus_hash,
        header.last_results_hash,
        header.evidence_hash,
    )
    if header.block_version != BLOCK_PROTOCOL:
        raise ProofError("bad-header", f"block protocol {header.block_version}, not {BLOCK_PROTOCOL}")
    if header.height < 1 or len(header.chain.encode()) > MAX_CHAIN_ID:
        raise ProofError("bad-header", "no height, or too long a chain id")
    if any(len(one) not in (0, HASH_SIZE) for one in hashes) or len(header.proposer) != ADDRESS_SIZE:
        raise ProofError("bad-header", "a hash or an address of the wrong size")
    if header.last_block is not None and not _block_fits(header.last_block):
        raise ProofError("bad-header", "a block id of the wrong size")


def _block_fits(block: BlockId) -> bool:
    return len(block.hash) in (0, HASH_SIZE) and len(block.parts_hash) in (0, HASH_SIZE)


def _check_addresses(commit: Commit, addresses: tuple[bytes, ...]) -> None:
    for entry, address in zip(commit.signatures, addresses, strict=True):
        if len(address) != (0 if entry.flag is Flag.ABSENT else ADDRESS_SIZE):
            raise ProofError("bad-commit-entry", "an address of the wrong size")


def _check_progress(known: Header, header: Header, policy: Policy, now: int) -> None:
    if header.height <= known.height:
        raise ProofError("height-not-monotonic", f"{header.height} after {known.height}")
    if header.time <= known.time:
        raise ProofError("time-not-monotonic", "the header is not later than the trusted one")
    if header.time >= now + policy.clock_drift:
        raise ProofError("header-from-future", "the header's time is beyond the clock drift")


def _check_validators(untrusted: SignedHeader) -> None:
    header, following = untrusted.header, untrusted.next_validators
    untrusted.validators.check()
    if header.validators_hash != untrusted.validators.hash():
        raise ProofError("validators-hash", "not the validators that the header names")
    if following is not None and header.next_validators_hash != following.hash():
        raise ProofError("next-validators-hash", "not the next validators that the header names")


def _check_overlap(trusted: Trusted, untrusted: SignedHeader, policy: Policy) -> NotEnoughTrust | None:
    numerator, denominator = policy.trust_level
    total = trusted.next_validators.total
    needed = total * numerator // denominator
    signed = tally(trusted.header.chain, untrusted.commit, _known_voters(trusted, untrusted), needed=needed)
    if signed <= needed:
        return NotEnoughTrust(signed, total)
    return None


def _known_voters(trusted: Trusted, untrusted: SignedHeader) -> Iterator[Validator | None]:
    """Yield for each entry the trusted validator whose vote it says it is, found by its address."""
    commit = untrusted.commit
    known = {one.address: one for one in trusted.next_validators.validators}
    addresses = untrusted.addresses
    if addresses is None:
        addresses = tuple(one.address for one in in_order(untrusted.validators, commit))
    seen: set[bytes] = set()
    for address, entry in zip(addresses, commit.signatures, strict=True):
        voter = known.get(address) if entry.flag is Flag.COMMIT else None
        if voter is not None:
            if address in seen:
                raise ProofError("double-vote", f"two votes of {address.hex()}")
            seen.add(address)
        yield voter
