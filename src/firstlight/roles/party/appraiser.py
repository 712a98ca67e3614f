"""The party's own verifier: evidence against reference values on the ledger, their bodies fetched by hash."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import Protocol

from firstlight.attestation import appraisal
from firstlight.attestation.appraisal import Subject, View
from firstlight.attestation.reference import MAX_BODY
from firstlight.errors import MalformedError, TransportError
from firstlight.identity.birth import Leaf
from firstlight.ledger.records import Reference, reference_name
from firstlight.logs import Log
from firstlight.onboarding.ports import Appraisal, Facts
from firstlight.roles.party.view import Head, PartyView

MAX_BODIES = 64


class Fetch(Protocol):
    """GETs a URL (:meth:`firstlight.transports.client.SyncClient.get`)."""

    def __call__(self, url: str, *, retries: int = 0) -> bytes:
        """Return the body; raises :class:`TransportError`."""
        ...


class Bodies:
    """Bodies of reference-value sets, by SHA-256, from a gateway that nobody needs to trust."""

    def __init__(self, gateway: str | None, fetch: Fetch, log: Log) -> None:
        """Fetch from the gateway at URL ``gateway``; without one there are none."""
        self._gateway = gateway
        self._fetch = fetch
        self._log = log
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, digest: bytes) -> bytes | None:
        """Return the body with that SHA-256; None if it cannot be had now, or is not what was asked for."""
        with self._lock:
            kept = self._kept.get(digest)
        if kept is not None or self._gateway is None:
            return kept
        try:
            body = self._fetch(f"{self._gateway.rstrip('/')}/v1/blobs/{digest.hex()}", retries=1)
        except TransportError as error:
            self._log.refusal(error, step="reference")
            return None
        if len(body) > MAX_BODY or hashlib.sha256(body).digest() != digest:
            self._log.warning("reference-unknown", step="reference", detail="the body has another hash")
            return None
        with self._lock:
            self._kept[digest] = body
            while len(self._kept) > MAX_BODIES:
                self._kept.popitem(last=False)
        return body


class LedgerAppraiser:
    """``onboarding.ports.Appraiser``: fails closed, and keeps every finding."""

    def __init__(self, view: PartyView, bodies: Bodies) -> None:
        """Have records proven by ``view`` and bodies fetched by ``bodies``."""
        self._view = view
        self._bodies = bodies

    def appraise(self, evidence: bytes, *, nonce: bytes, leaf: Leaf, facts: Facts, now: int) -> Appraisal:
        """Judge evidence at the head that ``facts`` were given under; the refusal is the first finding's code.

        Raises :class:`TransportError`, :class:`firstlight.errors.ProofError` if records cannot be had or proven.
        """
        batch = facts.batch
        subject = Subject(
            leaf.attestation_key, nonce, batch.issuer, batch.model, batch.reference_issuers, leaf.attestation
        )
        head = self._view.at(facts.height)
        basis: tuple[str, ...] = ()
        try:
            basis, body = self._prove(head, evidence, subject)
        except MalformedError:
            body = None
        result = appraisal.appraise(evidence, subject, View(facts.height, head.value), body, now)
        refusal = None if result.affirmed else next(iter(result.codes), "evidence-not-affirmed")
        return Appraisal(refusal, result.encode(), basis)

    def _prove(self, head: Head, evidence: bytes, subject: Subject) -> tuple[tuple[str, ...], bytes | None]:
        """Have all records proven that the appraisal reads; return their names, and the body of the set it names."""
        named = appraisal.named_reference(evidence)
        names = appraisal.reference_names(evidence, subject)
        self._view.prove(head, names)
        revocations = appraisal.revocation_names(evidence, subject, head.value)
        self._view.prove(head, revocations)
        record = head.records.get(reference_name(named.issuer, subject.model, named.identifier))
        return (*names, *revocations), self._bodies.get(record.digest) if isinstance(record, Reference) else None
