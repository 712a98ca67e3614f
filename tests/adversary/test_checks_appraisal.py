"""Evidence and reference values that only one step of the appraisal stands in the way of.

Whoever tries has the keys that the attempt says: a device's attestation key for what its firmware may claim, an
issuer's for what he may publish, nobody's for the rest. Exactly one finding must come of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import pytest

from firstlight import cose
from firstlight.attestation import reference
from firstlight.attestation.appraisal import Subject, View, appraise, signer_hash
from firstlight.attestation.evidence import Debug, Evidence, Measurement, ReferenceName, sign_evidence
from firstlight.attestation.reference import ReferenceSet, body_digest, sign_reference
from firstlight.ledger.records import (
    Party,
    PartyStatus,
    Reference,
    ReferenceStatus,
    Revocation,
    RevocationKind,
    Role,
    party_name,
    reference_name,
    revocation_name,
)
from firstlight.testing.chains import P256Key

DEVICE, MAKER, THIEF = P256Key("device"), P256Key("maker"), P256Key("mallory")
ISSUER, OTHER, FOREIGN = b"I" * 16, b"O" * 16, b"F" * 16
"""The batch counts the first two; somebody else publishes reference values, too."""
MODEL, SET, NONCE, NOW = b"model-1", b"R" * 16, b"N" * 32, 1_800_000_000
APP, BOOT = Measurement("app", b"\x0a" * 32, 3), Measurement("boot", b"\x0b" * 32, 2)
VALUES = ReferenceSet(SET, MODEL, (APP, BOOT), NOW - 100, NOW + 100)
SUBJECT = Subject(DEVICE.public, NONCE, ISSUER, MODEL, (ISSUER, OTHER))
PARTY = Party(1, 1, (Role.MANUFACTURER,), MAKER.public, bytes(32), None, (), PartyStatus.ACTIVE)

BODY = sign_reference(VALUES, MAKER)
RECORD = Reference(bytes(32), 1, NOW - 50, NOW + 50, ReferenceStatus.LIVE)
EVIDENCE = Evidence(
    nonce=NONCE,
    pseudonym=b"p" * 16,
    oemid=ISSUER,
    model=MODEL,
    hardware_version="1",
    secure_boot=True,
    debug=Debug.DISABLED,
    boot_count=7,
    boot_seed=b"s" * 16,
    software_version="2",
    measurements=(APP, BOOT),
    reference=ReferenceName(ISSUER, SET),
)


@dataclass(frozen=True, slots=True)
class Case:
    """What a party has before it; as it stands, honest evidence of a device that runs what it should."""

    evidence: Evidence = EVIDENCE
    signer: P256Key = DEVICE
    body: bytes | None = BODY
    fetched: bool = True
    record: Reference | None = RECORD
    party: Party = PARTY
    revoked: tuple[tuple[bytes, bytes], ...] = ()
    """By whom, and the hash."""
    sent: bytes | None = None

    def findings(self) -> tuple[str, ...]:
        record = self.record
        if record is not None and self.body is not None:
            record = replace(record, digest=body_digest(self.body))
        records = {
            reference_name(ISSUER, MODEL, SET): None if record is None else record.encode(),
            party_name(ISSUER): self.party.encode(),
        }
        taken_back = Revocation(RevocationKind.FIRMWARE, 1).encode()
        records |= {revocation_name(issuer, digest): taken_back for issuer, digest in self.revoked}
        sent = self.sent or sign_evidence(self.evidence, self.signer)
        body = self.body if self.fetched else sign_reference(replace(VALUES, components=(APP,)), MAKER)
        return appraise(sent, SUBJECT, View(42, records.get), body, NOW).codes


HONEST = Case()


def claiming(**changes: object) -> Case:
    return replace(HONEST, evidence=replace(HONEST.evidence, **changes))  # type: ignore[arg-type]


def published(**changes: object) -> Case:
    return replace(HONEST, body=sign_reference(replace(VALUES, **changes), MAKER))  # type: ignore[arg-type]


def recorded(**changes: object) -> Case:
    assert HONEST.record is not None
    return replace(HONEST, record=replace(HONEST.record, **changes))  # type: ignore[arg-type]


CASES: Mapping[str, tuple[str, Callable[[], Case]]] = {
    "not-evidence-at-all": ("evidence-malformed", lambda: replace(HONEST, sent=b"\x00")),
    "signed-by-another-device": ("evidence-signature", lambda: replace(HONEST, signer=THIEF)),
    "of-another-exchange": ("evidence-nonce", lambda: claiming(nonce=bytes(32))),
    "of-another-profile": ("evidence-profile", lambda: claiming(profile="tag:example.com,2026:mine")),
    "by-another-maker": ("oemid-mismatch", lambda: claiming(oemid=FOREIGN)),
    "of-another-model": ("hwmodel-mismatch", lambda: claiming(model=b"model-2")),
    "measured-against-a-strangers-set": (
        "reference-foreign-issuer",
        lambda: claiming(reference=ReferenceName(FOREIGN, SET)),
    ),
    "a-set-that-was-taken-back": ("reference-unknown", lambda: recorded(status=ReferenceStatus.REVOKED)),
    "a-set-that-is-on-no-ledger": ("reference-unknown", lambda: replace(HONEST, record=None)),
    "by-an-issuer-who-is-suspended": (
        "issuer-suspended",
        lambda: replace(HONEST, party=replace(PARTY, status=PartyStatus.SUSPENDED)),
    ),
    "a-body-that-the-ledger-does-not-name": ("reference-unknown", lambda: replace(HONEST, fetched=False)),
    "a-body-that-is-none": (
        "reference-malformed",
        lambda: replace(HONEST, body=cose.sign1(b"\x00", typ=reference.TYP, signer=MAKER)),
    ),
    "a-body-by-somebody-else": ("reference-signature", lambda: replace(HONEST, body=sign_reference(VALUES, THIEF))),
    "a-body-for-another-model": ("reference-mismatch", lambda: published(model=b"model-2")),
    "a-body-of-another-set": ("reference-mismatch", lambda: published(identifier=bytes(16))),
    "values-of-long-ago": ("reference-not-valid", lambda: published(not_after=NOW - 1)),
    "a-record-of-long-ago": ("reference-not-valid", lambda: recorded(not_after=NOW - 1)),
    "a-set-that-another-counted-issuer-revoked": (
        "reference-revoked",
        lambda: replace(HONEST, revoked=((OTHER, body_digest(HONEST.body or b"")),)),
    ),
    "firmware-that-was-revoked": ("firmware-revoked", lambda: replace(HONEST, revoked=((ISSUER, BOOT.digest),))),
    "a-signer-who-was-revoked": (
        "signer-revoked",
        lambda: replace(HONEST, revoked=((OTHER, signer_hash(MAKER.public)),)),
    ),
    "a-program-too-many": (
        "component-unknown",
        lambda: claiming(measurements=(APP, BOOT, Measurement("rootkit", bytes(32), 9))),
    ),
    "a-program-changed": ("component-changed", lambda: claiming(measurements=(APP, replace(BOOT, digest=bytes(32))))),
    "a-program-too-few": ("component-missing", lambda: claiming(measurements=(APP,))),
    "an-older-program": ("svn-too-low", lambda: recorded(minimum_svn=3)),
    "with-a-debugger": ("debug-enabled", lambda: claiming(debug=Debug.ENABLED)),
    "booted-from-anywhere": ("secure-boot-off", lambda: claiming(secure_boot=False)),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_no_party_affirms_such_evidence(name: str) -> None:
    """A device that does not run what it should, or whoever helps it, wants a credential."""
    code, made = CASES[name]
    assert HONEST.findings() == ()
    assert made().findings() == (code,)
