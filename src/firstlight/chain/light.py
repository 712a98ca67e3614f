"""Moving trust from one verified header to a later one (CometBFT ``light/verifier.go``).

A pure function that answers with a verdict. Somebody with :class:`NotEnoughTrust` fetches a header in
between and tries again (bisection).
"""

from __future__ import annotations

from dataclasses import dataclass

from firstlight.chain.block import Header
from firstlight.chain.commit import (
    Commit,
    ValidatorSet,
    check_entries,
    check_names,
    tally,
    verify_commit,
)
from firstlight.errors import FirstlightError, ProofError

SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class SignedHeader:
    """A header, its commit and the validators of its height, as somebody sent them."""

    header: Header
    commit: Commit
    validators: ValidatorSet


@dataclass(frozen=True, slots=True)
class Trusted:
    """A header that was verified before, and the validators that it names for the next height."""

    header: Header
    next_validators: ValidatorSet


@dataclass(frozen=True, slots=True)
class Policy:
    """How far trust reaches: nanoseconds, and the fraction of the trusted power that must have signed."""

    trusting_period: int
    clock_drift: int = 10 * SECOND
    trust_level: tuple[int, int] = (1, 3)

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
    2. header, commit and validators fit each other (the codes of :func:`commit.verify_commit`);
    3. height (``height-not-monotonic``) and time (``time-not-monotonic``) move forward, and time is not beyond
       the clock drift (``header-from-future``);
    4. at the next height: the validators are those that the trusted header named (``next-validators``);
       further on: more than the trust level of their power signed (:class:`NotEnoughTrust`);
    5. more than two thirds of its own validators signed (``not-enough-power``, ``commit-signature``).
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
    if header.height == known.height + 1:
        if header.validators_hash != known.next_validators_hash:
            raise ProofError("next-validators", "not the validators that were announced")
    else:
        shortfall = _check_overlap(trusted, untrusted, policy)
        if shortfall is not None:
            return shortfall
    verify_commit(known.chain, untrusted.validators, header, untrusted.commit)
    return Success()


def _check_shape(chain: str, untrusted: SignedHeader) -> None:
    untrusted.validators.check()
    check_names(chain, untrusted.header, untrusted.commit)
    check_entries(untrusted.validators, untrusted.commit)
    if untrusted.header.validators_hash != untrusted.validators.hash():
        raise ProofError("validators-hash", "not the validators that the header names")


def _check_progress(known: Header, header: Header, policy: Policy, now: int) -> None:
    if header.height <= known.height:
        raise ProofError("height-not-monotonic", f"{header.height} after {known.height}")
    if header.time <= known.time:
        raise ProofError("time-not-monotonic", "the header is not later than the trusted one")
    if header.time >= now + policy.clock_drift:
        raise ProofError("header-from-future", "the header's time is beyond the clock drift")


def _check_overlap(trusted: Trusted, untrusted: SignedHeader, policy: Policy) -> NotEnoughTrust | None:
    numerator, denominator = policy.trust_level
    total = trusted.next_validators.total
    needed = total * numerator // denominator
    powers = {one.public: one.power for one in trusted.next_validators.validators}
    signed = tally(
        trusted.header.chain,
        untrusted.validators,
        untrusted.commit,
        needed=needed,
        trusted=powers,
    )
    return None if signed > needed else NotEnoughTrust(signed, total)
