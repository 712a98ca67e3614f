"""Attestation results: what a verifier made of evidence, in the terms of EAR (draft-ietf-rats-ear) and AR4SI.

The result keeps every finding, not only the first. With a key that lies in a file nothing can speak for the
hardware, so the hardware claim never affirms.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Any

from firstlight.encoding import Bytes32, Count, Record, Seconds, Text, Uint

FindingCode = Annotated[str, Text(r"[a-z][a-z0-9-]{0,39}")]


class Tier(IntEnum):
    """How much a claim of the trust vector, or the whole, is worth (AR4SI §2.3.2)."""

    NONE = 0
    AFFIRMING = 2
    WARNING = 32
    CONTRAINDICATED = 96


@dataclass(frozen=True, slots=True)
class TrustVector(Record):
    """One tier for each aspect; on the wire their keys are 0, 1, 2 and 4."""

    instance_identity: Tier = Tier.NONE
    configuration: Tier = Tier.NONE
    executables: Tier = Tier.NONE
    hardware: Tier = Tier.NONE

    def worst(self) -> Tier:
        """Return the worst tier among the claims made."""
        return max(self.instance_identity, self.configuration, self.executables, self.hardware)


@dataclass(frozen=True, slots=True)
class Finding(Record):
    """One thing that is wrong: a stable code, and about which component (or what else), if any."""

    code: FindingCode
    about: Annotated[str, Text(r"[ -~]{0,80}")]


@dataclass(frozen=True, slots=True)
class AttestationResult(Record):
    """The verdict on evidence with SHA-256 ``evidence``, at a ledger height and a time (Unix seconds).

    ``reference`` is the digest of the reference-value set that was used.
    """

    status: Tier
    vector: TrustVector
    findings: Annotated[tuple[Finding, ...], Count(256)]
    evidence: Bytes32
    reference: Bytes32 | None
    height: Uint
    time: Seconds

    @property
    def affirmed(self) -> bool:
        """Whether a credential may be issued on it: fail closed, nothing but affirming will do."""
        return self.status is Tier.AFFIRMING and not self.findings

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of the findings, in the order in which they were made."""
        return tuple(finding.code for finding in self.findings)

    def ear(self) -> dict[int, Any]:
        """Return the EAR submodule's claims: status (1000) and trust vector (1001)."""
        vector = self.vector
        tiers = {0: vector.instance_identity, 1: vector.configuration, 2: vector.executables, 4: vector.hardware}
        return {1000: int(self.status), 1001: {key: int(tier) for key, tier in tiers.items() if tier}}
