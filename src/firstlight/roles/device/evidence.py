"""What a device says of itself: evidence by its attestation key over the software that runs.

A device of this kind is a process: secure boot, debug status and hardware version are what its platform is said to be,
and with keys in files no appraisal affirms the hardware. The measurement is real.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata

from firstlight.attestation.evidence import Debug, Evidence, ReferenceName, pseudonym, sign_evidence
from firstlight.identity.birth import BirthCredential
from firstlight.onboarding.device import EvidenceMaker
from firstlight.ports import Signer
from firstlight.roles.measure import measured, reference_identifier

HARDWARE_VERSION = "1"


@lru_cache(maxsize=1)
def software_version() -> str:
    """Return the version of the software that runs."""
    return metadata.version("firstlight")


@dataclass(frozen=True, slots=True)
class Boot:
    """One start of the device: how many there were, and 16 random bytes that are this one's."""

    count: int
    seed: bytes


@dataclass(frozen=True, slots=True)
class Attester:
    """Makes evidence of one device during one boot."""

    birth: BirthCredential
    signer: Signer
    boot: Boot

    def towards(self, party: bytes, issuer: bytes) -> EvidenceMaker:
        """Return what makes evidence for ``party``.

        ``issuer`` is the batch's, proven by the ledger: it made the hardware and publishes the reference values, whose
        set is named after the measured software.
        """

        def make(nonce: bytes) -> bytes:
            software = measured()
            evidence = Evidence(
                nonce=nonce,
                pseudonym=pseudonym(self.birth.mailbox, party),
                oemid=issuer,
                model=self.birth.model,
                hardware_version=HARDWARE_VERSION,
                secure_boot=True,
                debug=Debug.DISABLED_SINCE_BOOT,
                boot_count=self.boot.count,
                boot_seed=self.boot.seed,
                software_version=software_version(),
                measurements=(software,),
                reference=ReferenceName(issuer, reference_identifier(software.digest)),
            )
            return sign_evidence(evidence, self.signer)

        return make
