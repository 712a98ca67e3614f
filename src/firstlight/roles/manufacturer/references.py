"""Reference values: publishing what the firmware must measure to, and revoking it."""

from __future__ import annotations

from dataclasses import dataclass

from firstlight.attestation.evidence import Measurement
from firstlight.attestation.reference import ReferenceSet, body_digest, parse_reference, sign_reference
from firstlight.errors import ConfigError
from firstlight.files import private_directory, read_limited, write_atomic
from firstlight.ledger.records import Reference, ReferenceStatus, RevocationKind, reference_name
from firstlight.ledger.transaction import PublishReference, Revoked, RevokeReference, SetName, build
from firstlight.roles.ledger_client import LedgerClient, Submitted
from firstlight.roles.measure import reference_identifier
from firstlight.roles.registration import PartyKeys
from firstlight.roles.registration import load as load_keys
from firstlight.roles.workplace import Workplace, plain_url
from firstlight.transports.client import CBOR

REFERENCES = "references"
VALID_SECONDS = 5 * 366 * 86_400
BACKDATED = 3_600
"""So long before now a set is valid, for verifiers whose time is the witnesses'."""
MAX_BODY = 16_384


@dataclass(frozen=True, slots=True)
class Published:
    """A reference-value set on the ledger; ``submitted`` is nothing if it was there already."""

    identifier: bytes
    digest: bytes
    measurement: Measurement
    submitted: Submitted | None
    gateways: tuple[str, ...]


def publish(place: Workplace, model: bytes, measurement: Measurement, gateways: tuple[str, ...]) -> Published:
    """Sign the set, put its hash on the ledger and its body at the gateways.

    The set's id follows from the measured digest, so that a device can name it. Repeated, it puts the same body where
    it is missing. Raises :class:`RuleError` (``reference-exists`` if another body has this id, …).
    """
    keys = load_keys(place.directory)
    identifier = reference_identifier(measurement.digest)
    path = private_directory(place.directory / REFERENCES) / f"{identifier.hex()}.corim"
    if not path.exists():
        now = place.now()
        values = ReferenceSet(identifier, model, (measurement,), now - BACKDATED, now + VALID_SECONDS)
        write_atomic(path, sign_reference(values, keys.signing))
    body = read_limited(path, MAX_BODY)
    with place.ledger() as ledger:
        submitted = _put_on_ledger(place, ledger, keys, body)
    _put_at_gateways(place, keys.party, body, gateways)
    return Published(identifier, body_digest(body), measurement, submitted, gateways)


def _put_on_ledger(place: Workplace, ledger: LedgerClient, keys: PartyKeys, body: bytes) -> Submitted | None:
    values = parse_reference(body).values
    name = reference_name(keys.party, values.model, values.identifier)
    record = ledger.records(name)[name]
    if isinstance(record, Reference) and record.digest == body_digest(body):
        if record.status is not ReferenceStatus.LIVE:
            raise ConfigError("reference-revoked", f"{values.identifier.hex()} was revoked")
        return None
    transaction = PublishReference(
        party=keys.party,
        model=values.model,
        identifier=values.identifier,
        digest=body_digest(body),
        minimum_svn=min(one.svn for one in values.components),
        not_before=values.not_before,
        not_after=values.not_after,
    )
    sequence = ledger.party(keys.party).sequence + 1
    return ledger.submit(build(transaction, chain=place.chain, sequence=sequence, signer=keys.signing))


def _put_at_gateways(place: Workplace, issuer: bytes, body: bytes, gateways: tuple[str, ...]) -> None:
    values = parse_reference(body).values
    named = f"issuer={issuer.hex()}&model={values.model.hex()}&identifier={values.identifier.hex()}"
    with place.web() as http:
        for gateway in gateways:
            url = f"{plain_url(gateway)}/v1/blobs/{body_digest(body).hex()}?{named}"
            http.request("PUT", url, body=body, content_type=CBOR, retries=3)


def revoke_set(place: Workplace, model: bytes, identifier: bytes) -> Submitted:
    """Revoke a set by its id; :class:`RuleError`."""
    return _revoke(place, SetName(model, identifier), None)


def revoke_hash(place: Workplace, kind: RevocationKind, digest: bytes) -> Submitted:
    """Revoke firmware, a signer, a device CA or a vendor root by its SHA-256; :class:`RuleError`."""
    return _revoke(place, None, Revoked(kind, digest))


def _revoke(place: Workplace, named: SetName | None, hashed: Revoked | None) -> Submitted:
    keys = load_keys(place.directory)
    with place.ledger() as ledger:
        sequence = ledger.party(keys.party).sequence + 1
        body = RevokeReference(keys.party, named, hashed)
        return ledger.submit(build(body, chain=place.chain, sequence=sequence, signer=keys.signing))
