"""Appraisal: evidence against the reference values that count, step by step, failing closed.

It is pure: records come from ``lookup``, a view of the ledger at the verifier's verified head, and the body of
the reference-value set from wherever it was fetched by its hash. :func:`reference_names` and
:func:`revocation_names` say which records a verifier has to have proven beforehand.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import NamedTuple, TypeVar

from firstlight import p256
from firstlight.attestation.evidence import PROFILE, Debug, Evidence, Measurement, ReferenceName, parse_evidence
from firstlight.attestation.reference import ReferenceSet, body_digest, parse_reference, verify_reference
from firstlight.attestation.result import AttestationResult, Finding, Tier, TrustVector
from firstlight.cose import Signed
from firstlight.errors import MalformedError, SignatureError
from firstlight.ledger.records import (
    Party,
    PartyStatus,
    Reference,
    ReferenceStatus,
    party_name,
    reference_name,
    revocation_name,
)

Lookup = Callable[[str], bytes | None]
"""A record's value by its name, proven at the verifier's head; None if proven absent.

A name that was not proven must raise, never answer None.
"""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose evidence it is, as the ledger and the exchange have it.

    ``key`` is the attestation key of the leaf (compressed), ``issuer``, ``model`` and ``reference_issuers`` are of
    the batch's record. ``point`` is the key's x ‖ y where it is at hand, which saves finding y.
    """

    key: bytes
    nonce: bytes
    issuer: bytes
    model: bytes
    reference_issuers: tuple[bytes, ...]
    point: bytes = b""


@dataclass(frozen=True, slots=True)
class View:
    """The ledger at the verifier's head: its height, and its records by name."""

    height: int
    lookup: Lookup


class Aspect(Enum):
    """Which claim of the trust vector a finding bears on."""

    INSTANCE = 0
    CONFIGURATION = 1
    EXECUTABLES = 2
    HARDWARE = 4


ASPECTS = {
    "evidence-malformed": Aspect.INSTANCE,
    "evidence-signature": Aspect.INSTANCE,
    "evidence-nonce": Aspect.INSTANCE,
    "evidence-profile": Aspect.CONFIGURATION,
    "oemid-mismatch": Aspect.HARDWARE,
    "hwmodel-mismatch": Aspect.HARDWARE,
    "reference-foreign-issuer": Aspect.EXECUTABLES,
    "reference-unknown": Aspect.EXECUTABLES,
    "reference-revoked": Aspect.EXECUTABLES,
    "reference-malformed": Aspect.EXECUTABLES,
    "issuer-suspended": Aspect.EXECUTABLES,
    "reference-signature": Aspect.EXECUTABLES,
    "reference-mismatch": Aspect.EXECUTABLES,
    "reference-not-valid": Aspect.EXECUTABLES,
    "firmware-revoked": Aspect.EXECUTABLES,
    "signer-revoked": Aspect.EXECUTABLES,
    "component-unknown": Aspect.EXECUTABLES,
    "component-changed": Aspect.EXECUTABLES,
    "component-missing": Aspect.EXECUTABLES,
    "svn-too-low": Aspect.EXECUTABLES,
    "debug-enabled": Aspect.CONFIGURATION,
    "secure-boot-off": Aspect.CONFIGURATION,
}
"""Every finding that there is."""
_SPOILING = {"evidence-malformed", "evidence-signature", "evidence-nonce"}
"""With these, nothing that the evidence says is worth anything."""
KEPT = 64
"""How many sets, and verdicts on software, are kept at most."""
_AFFIRMING = TrustVector(Tier.AFFIRMING, Tier.AFFIRMING, Tier.AFFIRMING, Tier.NONE)
"""What there is to say where nothing was found."""
_T = TypeVar("_T")


def named_reference(evidence: bytes) -> ReferenceName:
    """Return which set unverified evidence names, so that it can be fetched; :class:`MalformedError`."""
    return parse_evidence(evidence)[0].reference


def reference_names(evidence: bytes, subject: Subject) -> tuple[str, ...]:
    """Return the names of the records that say which set counts: the reference's and its issuer's.

    None if the issuer is not one that the batch counts. Raises :class:`MalformedError`.
    """
    named = named_reference(evidence)
    return _names(named.issuer, subject.model, named.identifier) if named.issuer in subject.reference_issuers else ()


@lru_cache(maxsize=KEPT)
def _names(issuer: bytes, model: bytes, identifier: bytes) -> tuple[str, str]:
    """Return the names of a set's record and its issuer's."""
    return reference_name(issuer, model, identifier), party_name(issuer)


def revocation_names(evidence: bytes, subject: Subject, lookup: Lookup) -> tuple[str, ...]:
    """Return the names of all records whose presence would revoke, by any issuer that the batch counts.

    ``lookup`` must know :func:`reference_names`. Raises :class:`MalformedError`.
    """
    found, _ = parse_evidence(evidence)
    software = _software(found, subject)
    return tuple([name for name, _, _ in _revocations(software, _recorded(software, lookup))])


def appraise(evidence: bytes, subject: Subject, view: View, body: bytes | None, now: int) -> AttestationResult:
    """Return the verdict on evidence at ``now`` (Unix seconds); ``body`` is the reference-value set, if fetched.

    Each check that fails leaves a finding, and all are made that can be:

    1. the evidence is well formed (``evidence-malformed``; nothing else can be checked then);
    2. it is signed by the leaf's attestation key (``evidence-signature``), 3. holds the exchange's nonce
       (``evidence-nonce``), 4. is of our profile (``evidence-profile``), 5. and of the batch's issuer and hardware
       model (``oemid-mismatch``, ``hwmodel-mismatch``);
    6. the set that it names is by an issuer that the batch counts (``reference-foreign-issuer``), 7. is on the
       ledger at the verifier's head, live (both ``reference-unknown``), its issuer too (``issuer-suspended``);
    8. its body was fetched by the record's hash (``reference-unknown``), 9. is well formed
       (``reference-malformed``), signed by the issuer's key (``reference-signature``), and the set that was named,
       for this model (``reference-mismatch``); 10. record and body are valid at ``now`` (``reference-not-valid``);
    11. no counted issuer revoked the set, a measured firmware or the signer (``reference-revoked``,
       ``firmware-revoked``, ``signer-revoked``);
    12. every measured component is in the set (``component-unknown``) and equal (``component-changed``), and none
       of the set's is missing (``component-missing``); 13. its security version is not below the set's nor the
       record's minimum (``svn-too-low``);
    14. debugging is off (``debug-enabled``) and secure boot is on (``secure-boot-off``).
    """
    findings = list(_findings(evidence, subject, view.lookup, body, now))
    vector = _vector(findings)
    return AttestationResult(
        status=vector.worst(),
        vector=vector,
        findings=tuple(findings),
        evidence=hashlib.sha256(evidence).digest(),
        reference=None if body is None else body_digest(body),
        height=view.height,
        time=now,
    )


def _findings(evidence: bytes, subject: Subject, lookup: Lookup, body: bytes | None, now: int) -> Iterator[Finding]:
    try:
        found, signed = parse_evidence(evidence)
    except MalformedError as error:
        yield Finding("evidence-malformed", error.code)
        return
    yield from _binding(found, signed, subject)
    software = _software(found, subject)
    recorded = _recorded(software, lookup)
    revoked = tuple([lookup(name) is not None for name, _, _ in _revocations(software, recorded)])
    verdict = _judged(software, recorded, revoked, body)
    yield from verdict.standing
    yield from _validity(verdict, now)
    yield from verdict.firmware
    yield from _configuration(found)


def _vector(findings: list[Finding]) -> TrustVector:
    if not findings:
        return _AFFIRMING
    if not _SPOILING.isdisjoint(finding.code for finding in findings):
        return TrustVector(*[Tier.CONTRAINDICATED] * 4)
    spoilt = {ASPECTS[finding.code] for finding in findings}

    def tier(aspect: Aspect, otherwise: Tier) -> Tier:
        return Tier.CONTRAINDICATED if aspect in spoilt else otherwise

    return TrustVector(
        instance_identity=tier(Aspect.INSTANCE, Tier.AFFIRMING),
        configuration=tier(Aspect.CONFIGURATION, Tier.AFFIRMING),
        executables=tier(Aspect.EXECUTABLES, Tier.AFFIRMING),
        hardware=tier(Aspect.HARDWARE, Tier.NONE),
    )


# --- what does not depend on whose device it is --------------------------------------------------


class _Software(NamedTuple):
    """What evidence says of the software, and what its batch is: the same for all of its devices that run it.

    ``measured`` are component, digest and svn of each. It is a key of what is kept, and tuples make quick keys.
    """

    issuer: bytes
    identifier: bytes
    measured: tuple[tuple[str, bytes, int], ...]
    model: bytes
    issuers: tuple[bytes, ...]


def _software(found: Evidence, subject: Subject) -> _Software:
    named = found.reference
    measured = tuple([(one.component, one.digest, one.svn) for one in found.measurements])
    return _Software(named.issuer, named.identifier, measured, subject.model, subject.reference_issuers)


class _Recorded(NamedTuple):
    """The set's record and its issuer's, as the ledger has them, encoded."""

    record: bytes
    issuer: bytes


@dataclass(frozen=True, slots=True)
class _Reference:
    """The same, decoded."""

    record: Reference
    issuer: Party


@dataclass(frozen=True, slots=True)
class _Verdict:
    """Findings about software, in their order but for those on validity.

    Those stand between the two lists, and depend on the time: it must be in all of ``periods`` (Unix seconds, both
    ends in).
    """

    standing: tuple[Finding, ...]
    periods: tuple[tuple[int, int], ...]
    firmware: tuple[Finding, ...]


def _recorded(software: _Software, lookup: Lookup) -> _Recorded | None:
    if software.issuer not in software.issuers:
        return None
    record, issuer = [lookup(name) for name in _names(software.issuer, software.model, software.identifier)]
    return None if record is None or issuer is None else _Recorded(record, issuer)


@lru_cache(maxsize=KEPT)
def _reference(recorded: _Recorded) -> _Reference:
    return _Reference(Reference.decode(recorded.record), Party.decode(recorded.issuer))


@lru_cache(maxsize=KEPT)
def _judged(software: _Software, recorded: _Recorded | None, revoked: tuple[bool, ...], body: bytes | None) -> _Verdict:
    """Return what checks 6 to 13 find on software, validity apart.

    A fleet runs the same: what was found for exactly these values, the ledger's records and the presence of every
    revocation among them, is found again. ``revoked`` goes with the names of :func:`_revocations`.
    """
    reference = None if recorded is None else _reference(recorded)
    standing = list(_standing(software, reference))
    values = _drained(_body(software, reference, body), standing)
    firmware = list(_revoked(_revocations(software, recorded), revoked))
    if values is None or reference is None:
        return _Verdict(tuple(standing), (), tuple(firmware))
    firmware += _components(software, values, reference.record.minimum_svn)
    periods = ((values.not_before, values.not_after), (reference.record.not_before, reference.record.not_after))
    return _Verdict(tuple(standing), periods, tuple(firmware))


def _drained(findings: Generator[Finding, None, _T], into: list[Finding]) -> _T:
    """Put all findings into a list, and return what their generator returns."""

    def drain() -> Generator[Finding, None, None]:
        returned.append((yield from findings))

    returned: list[_T] = []
    into += drain()
    return returned[0]


def _binding(found: Evidence, signed: Signed, subject: Subject) -> Iterator[Finding]:
    try:
        signed.verify({p256.kid(subject.key): subject.point or subject.key})
    except SignatureError as error:
        yield Finding("evidence-signature", error.code)
    if not hmac.compare_digest(found.nonce, subject.nonce):
        yield Finding("evidence-nonce", "")
    if found.profile != PROFILE:
        yield Finding("evidence-profile", found.profile)
    if found.oemid != subject.issuer:
        yield Finding("oemid-mismatch", found.oemid.hex())
    if found.model != subject.model:
        yield Finding("hwmodel-mismatch", found.model.hex())


def _standing(software: _Software, reference: _Reference | None) -> Iterator[Finding]:
    if software.issuer not in software.issuers:
        yield Finding("reference-foreign-issuer", software.issuer.hex())
    elif reference is None:
        yield Finding("reference-unknown", "no record on the ledger")
    else:
        if reference.record.status is not ReferenceStatus.LIVE:
            yield Finding("reference-unknown", "its hash is not live: the set was taken back")
        if reference.issuer.status is not PartyStatus.ACTIVE:
            yield Finding("issuer-suspended", software.issuer.hex())


def _body(
    software: _Software, reference: _Reference | None, body: bytes | None
) -> Generator[Finding, None, ReferenceSet | None]:
    """Make the findings on the set's body, and return the set if it is the one on the ledger."""
    if reference is None:
        return None
    if body is None or body_digest(body) != reference.record.digest:
        yield Finding("reference-unknown", "the body was not fetched by its hash")
        return None
    try:
        parsed = parse_reference(body)
    except MalformedError as error:
        yield Finding("reference-malformed", error.code)
        return None
    try:
        verify_reference(body, reference.issuer.key)
    except SignatureError as error:
        yield Finding("reference-signature", error.code)
    values = parsed.values
    if (values.identifier, values.model) != (software.identifier, software.model):
        yield Finding("reference-mismatch", "")
    return values


def _validity(verdict: _Verdict, now: int) -> Iterator[Finding]:
    for begin, end in verdict.periods:
        if not begin <= now <= end:
            yield Finding("reference-not-valid", f"{begin} to {end}")


@lru_cache(maxsize=KEPT)
def _revocations(software: _Software, recorded: _Recorded | None) -> tuple[tuple[str, str, str], ...]:
    """Return (name of the record, finding, about) of all that could be revoked, by any issuer that counts."""
    hashes = [(digest, "firmware-revoked", component) for component, digest, _ in software.measured]
    if recorded is not None:
        reference = _reference(recorded)
        hashes.append((reference.record.digest, "reference-revoked", "the set"))
        hashes.append((signer_hash(reference.issuer.key), "signer-revoked", software.issuer.hex()))
    return tuple(
        [
            (revocation_name(issuer, digest), code, about)
            for issuer in software.issuers
            for digest, code, about in hashes
        ]
    )


def signer_hash(key: bytes) -> bytes:
    """Return the hash under which a signing key (compressed) is revoked: its SHA-256."""
    return hashlib.sha256(key).digest()


def _revoked(revocable: tuple[tuple[str, str, str], ...], revoked: tuple[bool, ...]) -> Iterator[Finding]:
    for (_, code, about), there in zip(revocable, revoked, strict=True):
        if there:
            yield Finding(code, about)


def _components(software: _Software, values: ReferenceSet, minimum: int) -> Iterator[Finding]:
    known = {one.component: one for one in values.components}
    for one in [Measurement(*measured) for measured in software.measured]:
        yield from _component(one, known.pop(one.component, None), minimum)
    for name in known:
        yield Finding("component-missing", name)


def _component(measured: Measurement, expected: Measurement | None, minimum: int) -> Iterator[Finding]:
    if expected is None:
        yield Finding("component-unknown", measured.component)
        return
    if measured.digest != expected.digest:
        yield Finding("component-changed", measured.component)
    if measured.svn < max(expected.svn, minimum):
        yield Finding("svn-too-low", measured.component)


def _configuration(found: Evidence) -> Iterator[Finding]:
    if found.debug is Debug.ENABLED:
        yield Finding("debug-enabled", "")
    if not found.secure_boot:
        yield Finding("secure-boot-off", "")
