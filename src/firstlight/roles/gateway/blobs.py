"""Bodies of reference-value sets: a gateway keeps those, and only those, that are live on the ledger."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from firstlight.errors import MalformedError, RefusedError
from firstlight.ledger.records import Reference, ReferenceStatus, reference_name
from firstlight.roles.gateway.ledger import GatewayLedger

MAX_BLOB = 16_384


@dataclass(frozen=True, slots=True)
class SetNamed:
    """The reference-value set that a body is said to be: issuer, hardware model, identifier."""

    issuer: bytes
    model: bytes
    identifier: bytes

    @classmethod
    def of(cls, issuer: str, model: str, identifier: str) -> SetNamed:
        """Parse the hexadecimal query of a PUT; :class:`MalformedError` (``bad-reference-name``)."""
        try:
            named = cls(bytes.fromhex(issuer), bytes.fromhex(model), bytes.fromhex(identifier))
        except ValueError as error:
            raise MalformedError("bad-reference-name", "issuer, model and identifier in hexadecimal") from error
        if len(named.issuer) != 16 or not 1 <= len(named.model) <= 32 or len(named.identifier) != 16:
            raise MalformedError("bad-reference-name", "issuer and identifier have 16 bytes, a model 1 to 32")
        return named


async def check_blob(digest: str, body: bytes, named: SetNamed, ledger: GatewayLedger) -> None:
    """Check that ``body`` may be kept under ``digest`` (hexadecimal).

    1. It has that SHA-256 (:class:`MalformedError` ``wrong-digest``); 2. the ledger has the set
    (``reference-unknown``), 3. live (``reference-revoked``), 4. with this digest (``wrong-digest``). Raises
    :class:`RefusedError`, and what reading the ledger raises.
    """
    actual = hashlib.sha256(body).digest()
    if actual.hex() != digest.lower():
        raise MalformedError("wrong-digest", "the body has another SHA-256")
    ledger.renew()
    name = reference_name(named.issuer, named.model, named.identifier)
    reference = await ledger.record(name, Reference)
    if reference is None:
        raise RefusedError("reference-unknown", "no such reference-value set is on the ledger")
    if reference.status is not ReferenceStatus.LIVE:
        raise RefusedError("reference-revoked", "the reference-value set is revoked")
    if reference.digest != actual:
        raise RefusedError("wrong-digest", "the ledger names another body for this set")
