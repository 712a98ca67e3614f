"""Evidence, reference values and their appraisal: the honest case first, then every finding by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from firstlight import cose
from firstlight.attestation import appraisal, evidence, reference
from firstlight.attestation.appraisal import Subject, View, appraise, reference_names, revocation_names, signer_hash
from firstlight.attestation.evidence import Debug, Evidence, Measurement, ReferenceName, parse_evidence, sign_evidence
from firstlight.attestation.reference import ReferenceSet, body_digest, parse_reference, sign_reference
from firstlight.attestation.result import AttestationResult, Tier, TrustVector
from firstlight.custody.file import SigningKey
from firstlight.encoding import Tagged, decode, encode
from firstlight.errors import MalformedError
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


def key(number: int) -> SigningKey:
    return SigningKey(ec.derive_private_key(number, ec.SECP256R1()))


DEVICE, ISSUER_KEY, STRANGER = key(21), key(22), key(23)
ISSUER, FOREIGN, SECOND = b"I" * 16, b"F" * 16, b"S" * 16
MODEL, SET_ID, NONCE, NOW = b"model-1", b"R" * 16, b"N" * 32, 1_800_000_000
APP, BOOT = Measurement("app", b"\x0a" * 32, 3), Measurement("boot", b"\x0b" * 32, 2)

SET = ReferenceSet(SET_ID, MODEL, (APP, BOOT), NOW - 100, NOW + 100)
BODY = sign_reference(SET, ISSUER_KEY)
EVIDENCE = Evidence(
    nonce=NONCE,
    pseudonym=b"p" * 16,
    oemid=ISSUER,
    model=MODEL,
    hardware_version="1.0",
    secure_boot=True,
    debug=Debug.DISABLED_PERMANENTLY,
    boot_count=7,
    boot_seed=b"s" * 16,
    software_version="2.1.0",
    measurements=(APP, BOOT),
    reference=ReferenceName(ISSUER, SET_ID),
)
SUBJECT = Subject(DEVICE.public, NONCE, ISSUER, MODEL, (ISSUER, SECOND))
RECORD = Reference(body_digest(BODY), 1, NOW - 50, NOW + 50, ReferenceStatus.LIVE)
PARTY = Party(1, 1, (Role.MANUFACTURER,), ISSUER_KEY.public, bytes(32), None, (), PartyStatus.ACTIVE)
Records = dict[str, bytes | None]


def ledger(
    record: Reference | None = RECORD, party: Party | None = PARTY, also: dict[str, bytes] | None = None
) -> Records:
    return {
        reference_name(ISSUER, MODEL, SET_ID): None if record is None else record.encode(),
        party_name(ISSUER): None if party is None else party.encode(),
        **(also or {}),
    }


def verdict(
    found: Evidence = EVIDENCE,
    *,
    records: Records | None = None,
    body: bytes | None = BODY,
    signer: SigningKey = DEVICE,
    now: int = NOW,
    subject: Subject = SUBJECT,
) -> AttestationResult:
    held = ledger() if records is None else records
    return appraise(sign_evidence(found, signer), subject, View(42, held.get), body, now)


def test_genuine_evidence_is_affirmed() -> None:
    result = verdict()
    assert result.affirmed
    assert result.codes == ()
    assert result.status is Tier.AFFIRMING
    assert result.vector == TrustVector(Tier.AFFIRMING, Tier.AFFIRMING, Tier.AFFIRMING, Tier.NONE)
    assert result.ear() == {1000: 2, 1001: {0: 2, 1: 2, 2: 2}}
    assert (result.height, result.reference) == (42, body_digest(BODY))
    assert AttestationResult.decode(result.encode()) == result


def test_a_newer_firmware_version_of_the_same_bytes_does_no_harm() -> None:
    assert verdict(replace(EVIDENCE, measurements=(APP, replace(BOOT, svn=9)))).affirmed


OTHER_BODY = sign_reference(replace(SET, model=b"model-2"), ISSUER_KEY)
FOREIGN_BODY = sign_reference(SET, STRANGER)
BAD_BODY = cose.sign1(b"\x00", typ=reference.TYP, signer=ISSUER_KEY)
EXPIRED_BODY = sign_reference(replace(SET, not_after=NOW - 1), ISSUER_KEY)


def with_body(body: bytes) -> dict[str, Any]:
    return {"body": body, "records": ledger(replace(RECORD, digest=body_digest(body)))}


def revoked(issuer: bytes, digest: bytes) -> dict[str, Any]:
    revocation = Revocation(RevocationKind.FIRMWARE, 1).encode()
    return {"records": ledger(also={revocation_name(issuer, digest): revocation})}


CASES: list[tuple[str, Evidence, dict[str, Any]]] = [
    ("evidence-signature", EVIDENCE, {"signer": STRANGER}),
    ("evidence-nonce", replace(EVIDENCE, nonce=bytes(32)), {}),
    ("evidence-profile", replace(EVIDENCE, profile="tag:other"), {}),
    ("oemid-mismatch", replace(EVIDENCE, oemid=FOREIGN), {}),
    ("hwmodel-mismatch", replace(EVIDENCE, model=b"model-2"), {}),
    ("reference-foreign-issuer", replace(EVIDENCE, reference=ReferenceName(FOREIGN, SET_ID)), {}),
    ("reference-unknown", EVIDENCE, {"records": ledger(None)}),
    ("reference-unknown", EVIDENCE, {"records": ledger(party=None)}),
    ("reference-unknown", replace(EVIDENCE, reference=ReferenceName(ISSUER, bytes(16))), {}),
    ("reference-unknown", EVIDENCE, {"body": None}),
    ("reference-unknown", EVIDENCE, {"body": OTHER_BODY}),
    ("reference-unknown", EVIDENCE, {"records": ledger(replace(RECORD, status=ReferenceStatus.REVOKED))}),
    ("issuer-suspended", EVIDENCE, {"records": ledger(party=replace(PARTY, status=PartyStatus.SUSPENDED))}),
    ("reference-malformed", EVIDENCE, with_body(BAD_BODY)),
    ("reference-signature", EVIDENCE, with_body(FOREIGN_BODY)),
    ("reference-mismatch", EVIDENCE, with_body(OTHER_BODY)),
    ("reference-not-valid", EVIDENCE, with_body(EXPIRED_BODY)),
    ("reference-not-valid", EVIDENCE, {"now": NOW + 51}),
    ("reference-not-valid", EVIDENCE, {"now": NOW - 51}),
    ("firmware-revoked", EVIDENCE, revoked(ISSUER, BOOT.digest)),
    ("firmware-revoked", EVIDENCE, revoked(SECOND, BOOT.digest)),
    ("reference-revoked", EVIDENCE, revoked(SECOND, body_digest(BODY))),
    ("signer-revoked", EVIDENCE, revoked(ISSUER, signer_hash(ISSUER_KEY.public))),
    (
        "component-unknown",
        replace(EVIDENCE, measurements=(APP, BOOT, Measurement("extra", bytes(32), 9))),
        {},
    ),
    ("component-changed", replace(EVIDENCE, measurements=(APP, replace(BOOT, digest=bytes(32)))), {}),
    ("component-missing", replace(EVIDENCE, measurements=(APP,)), {}),
    ("svn-too-low", replace(EVIDENCE, measurements=(APP, replace(BOOT, svn=1))), {}),
    ("svn-too-low", EVIDENCE, {"records": ledger(replace(RECORD, minimum_svn=3))}),
    ("debug-enabled", replace(EVIDENCE, debug=Debug.ENABLED), {}),
    ("secure-boot-off", replace(EVIDENCE, secure_boot=False), {}),
]


@pytest.mark.parametrize(("code", "found", "world"), CASES, ids=[case[0] for case in CASES])
def test_each_fault_is_found_by_itself(code: str, found: Evidence, world: dict[str, Any]) -> None:
    result = verdict(found, **world)
    assert result.codes == (code,)
    assert result.status is Tier.CONTRAINDICATED
    assert not result.affirmed


def test_what_was_affirmed_for_a_fleet_is_not_once_the_ledger_says_otherwise() -> None:
    for code, found, world in CASES:
        assert verdict().affirmed
        assert verdict(found, **world).codes == (code,)
    assert verdict().affirmed
    assert not verdict(**revoked(SECOND, BOOT.digest)).affirmed
    assert verdict(now=NOW + 50).affirmed
    assert verdict(now=NOW + 51).codes == ("reference-not-valid",)
    another = replace(SUBJECT, issuer=SECOND, reference_issuers=(SECOND,))
    assert verdict(subject=another).codes == ("oemid-mismatch", "reference-foreign-issuer")


def test_the_key_may_come_with_its_coordinates() -> None:
    from firstlight import p256

    assert verdict(subject=replace(SUBJECT, point=p256.coordinates(DEVICE.public))).affirmed
    for point in (p256.coordinates(STRANGER.public), bytes(64)):
        with_point = replace(SUBJECT, point=point)
        if point == bytes(64):
            with pytest.raises(MalformedError, match="bad-point"):
                verdict(subject=with_point)
        else:
            assert verdict(subject=with_point).codes == ("evidence-signature",)


def test_every_finding_has_its_case() -> None:
    assert {case[0] for case in CASES} == set(appraisal.ASPECTS) - {"evidence-malformed"}


def test_all_findings_are_kept() -> None:
    found = replace(EVIDENCE, debug=Debug.ENABLED, secure_boot=False, measurements=(replace(APP, digest=bytes(32)),))
    result = verdict(found, now=NOW + 1000)
    assert result.codes == (
        "reference-not-valid",
        "reference-not-valid",
        "component-changed",
        "component-missing",
        "debug-enabled",
        "secure-boot-off",
    )
    assert result.vector == TrustVector(Tier.AFFIRMING, Tier.CONTRAINDICATED, Tier.CONTRAINDICATED, Tier.NONE)
    assert AttestationResult.decode(result.encode()) == result


def test_nothing_in_forged_evidence_is_worth_anything() -> None:
    assert verdict(signer=STRANGER).vector == TrustVector(*[Tier.CONTRAINDICATED] * 4)


@pytest.mark.parametrize("data", [b"", b"\x00", sign_evidence(EVIDENCE, DEVICE)[:-1], BODY, bytes(3_000)])
def test_malformed_evidence_is_a_verdict_too(data: bytes) -> None:
    result = appraise(data, SUBJECT, View(1, ledger().get), BODY, NOW)
    assert result.codes == ("evidence-malformed",)
    assert result.vector == TrustVector(*[Tier.CONTRAINDICATED] * 4)


def test_a_verifier_learns_which_records_it_needs() -> None:
    data = sign_evidence(EVIDENCE, DEVICE)
    first = reference_names(data, SUBJECT)
    assert set(first) == {reference_name(ISSUER, MODEL, SET_ID), party_name(ISSUER)}
    second = revocation_names(data, SUBJECT, {name: ledger()[name] for name in first}.__getitem__)
    proven = {**ledger(), **dict.fromkeys(second)}
    # a view that raises for whatever was not proven answers everything that the appraisal asks
    assert appraise(data, SUBJECT, View(42, proven.__getitem__), BODY, NOW).affirmed
    assert len(second) == 2 * 4
    foreign = sign_evidence(replace(EVIDENCE, reference=ReferenceName(FOREIGN, SET_ID)), DEVICE)
    assert reference_names(foreign, SUBJECT) == ()


# --- forms on the wire ----------------------------------------------------------------------------


def test_evidence_is_an_eat() -> None:
    data = sign_evidence(EVIDENCE, DEVICE)
    assert len(data) < 560
    parsed, signed = parse_evidence(data)
    assert parsed == EVIDENCE
    claims = decode(signed.payload)
    assert claims[10] == NONCE
    assert claims[257] == {"firstlight": b"\x01" + b"p" * 16}
    assert claims[259] == MODEL
    assert claims[263] == 3
    assert claims[273][0][0] == 65000


def changed(label: int, value: object) -> bytes:
    return cose.sign1(encode({**EVIDENCE.claims(), label: value}), typ=evidence.TYP, signer=DEVICE)


@pytest.mark.parametrize(
    "data",
    [
        changed(256, b"\x01" + bytes(16)),  # a claim that the profile does not have
        changed(257, {"other": b"\x01" + bytes(16)}),
        changed(257, {"firstlight": b"\x02" + bytes(16)}),
        changed(260, []),
        changed(263, 5),
        changed(262, 1),
        changed(273, [[65000, encode([["b", bytes(32), 1]])]] * 2),
        changed(273, [[60, encode([["b", bytes(32), 1]])]]),
        changed(273, [[65000, encode([])]]),
        changed(-70001, [ISSUER]),
        cose.sign1(encode([]), typ=evidence.TYP, signer=DEVICE),
    ],
)
def test_evidence_that_is_not_of_the_profile_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError) as error:
        parse_evidence(data)
    assert error.value.code == "wrong-shape"


@pytest.mark.parametrize("labels", [(10, 10.0), (263, 263.0), (-70001, -70001.0)])
def test_a_label_that_only_equals_an_integer_is_none(labels: tuple[int, float]) -> None:
    label, alike = labels
    claims = {alike if key == label else key: value for key, value in decode(encode(EVIDENCE.claims())).items()}
    with pytest.raises(MalformedError) as error:
        parse_evidence(cose.sign1(cbor2.dumps(claims), typ=evidence.TYP, signer=DEVICE))
    assert error.value.code == "not-canonical"


@pytest.mark.parametrize("format_", [65000.0, True])
def test_a_format_that_only_equals_an_integer_is_none(format_: object) -> None:
    measured = [[format_, encode([["b", bytes(32), 1]])]]
    claims = decode(encode(EVIDENCE.claims())) | {273: measured}
    with pytest.raises(MalformedError) as error:
        parse_evidence(cose.sign1(cbor2.dumps(claims), typ=evidence.TYP, signer=DEVICE))
    assert error.value.code == ("not-canonical" if format_ == 65000.0 else "wrong-shape")


def test_claims_in_another_order_are_not_canonical() -> None:
    claims = dict(reversed(decode(encode(EVIDENCE.claims())).items()))
    with pytest.raises(MalformedError) as error:
        parse_evidence(cose.sign1(cbor2.dumps(claims), typ=evidence.TYP, signer=DEVICE))
    assert error.value.code == "not-canonical"


@pytest.mark.parametrize("measured", [(BOOT, APP), (APP, APP)])
def test_components_ascend(measured: tuple[Measurement, ...]) -> None:
    for make in (lambda: replace(EVIDENCE, measurements=measured), lambda: replace(SET, components=measured)):
        with pytest.raises(MalformedError) as error:
            make()
        assert error.value.code == "unsorted-components"


def test_two_parties_see_different_pseudonyms() -> None:
    assert evidence.pseudonym(b"m" * 32, ISSUER) != evidence.pseudonym(b"m" * 32, SECOND)


def test_reference_values_are_a_corim() -> None:
    parsed = parse_reference(BODY)
    assert parsed.values == SET
    corim = decode(parsed.signed.payload, tags=(501, 506, 32, 1))
    assert corim.number == 501
    assert corim.value[0] == SET_ID
    assert corim.value[1][0].number == 506
    assert corim.value[4] == {0: Tagged(1, NOW - 100), 1: Tagged(1, NOW + 100)}
    comid = decode(corim.value[1][0].value, tags=(560, 553))
    assert comid[4][0][0][0] == {0: {0: Tagged(560, MODEL)}}
    assert comid[4][0][0][1][0] == {0: "app", 1: {1: Tagged(553, 3), 2: [[1, APP.digest]]}}


def corim_with(**changes: object) -> bytes:
    value = SET.corim().value
    fields = {"id": 0, "tags": 1, "profile": 3, "validity": 4}
    for name, change in changes.items():
        value[fields[name]] = change
    return cose.sign1(encode(Tagged(501, value)), typ=reference.TYP, signer=ISSUER_KEY)


@pytest.mark.parametrize(
    "body",
    [
        corim_with(id=bytes(16)),  # not the CoMID's
        corim_with(tags=[]),
        corim_with(tags=[Tagged(506, 1)]),
        corim_with(tags=[b"x"]),
        corim_with(profile=Tagged(32, "tag:other")),
        corim_with(validity={0: Tagged(1, 1)}),
        corim_with(validity={0: 1, 1: 2}),
        cose.sign1(encode(Tagged(506, {})), typ=reference.TYP, signer=ISSUER_KEY),
        cose.sign1(encode({}), typ=reference.TYP, signer=ISSUER_KEY),
    ],
)
def test_a_corim_of_another_shape_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedError) as error:
        parse_reference(body)
    assert error.value.code == "wrong-shape"


def test_another_hash_or_a_backward_validity_is_refused() -> None:
    comid = decode(SET.corim().value[1][0].value, tags=(560, 553))
    comid[4][0][0][1][0][1][2] = [[7, bytes(48)]]
    with pytest.raises(MalformedError) as error:
        parse_reference(corim_with(tags=[Tagged(506, encode(comid))]))
    assert error.value.code == "wrong-algorithm"
    with pytest.raises(MalformedError) as error:
        parse_reference(corim_with(validity={0: Tagged(1, 2), 1: Tagged(1, 1)}))
    assert error.value.code == "bad-validity"
