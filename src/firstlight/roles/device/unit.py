"""One device that is awake: its memory, its ports, its clock, and who it is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from firstlight.discovery.verify import View
from firstlight.errors import ProofError
from firstlight.ledger.records import Party
from firstlight.ledger.tenure import Standing
from firstlight.onboarding.device import Acting, Identity
from firstlight.plan.claims import PartyClaim, opening
from firstlight.roles.device.evidence import Attester, Boot
from firstlight.roles.device.memory import Acted, Memory, StoredGrant
from firstlight.roles.device.receipts import Receipts
from firstlight.roles.device.tools import Tools, WitnessedClock

EARLIEST, SPREAD = 60, 11
"""A grant is renewed when so many percent of its time are over, and up to ten more."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One device during one boot. ``turn`` lets one exchange at a time ask for a certificate."""

    memory: Memory
    tools: Tools
    clock: WitnessedClock
    identity: Identity
    attester: Attester
    receipts: Receipts
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @classmethod
    def wake(cls, memory: Memory, tools: Tools) -> Unit:
        """Start the device; raises :class:`StoreError`."""
        birth, clock = memory.birth, WitnessedClock(tools.clock, tools.steady)
        boot = Boot(memory.start(), tools.random.bytes(16))
        return cls(
            memory,
            tools,
            clock,
            Identity(birth.batch, birth.index, birth.leaf(), birth.path, memory.identity),
            Attester(birth, memory.attestation, boot),
            Receipts(memory, clock),
        )

    def valid(self, stored: StoredGrant) -> bool:
        """Say whether a grant has not run out."""
        return self.seconds_left(stored) > 0

    def seconds_left(self, stored: StoredGrant) -> int:
        """Return for how many seconds a grant is good."""
        return stored.grant.expires - self.clock.seconds

    def until_renewal(self, stored: StoredGrant) -> int:
        """Return in how many seconds a grant should be renewed, at most 0 once that is due.

        That is when 60 to 70 percent of its time are over: which, depends on its id, so that a fleet that was granted
        at once does not come back at once. What is left then is the limit: a grant that could not be renewed by its
        end is used no longer, and the device discovers anew.
        """
        grant = stored.grant
        lifetime = grant.expires - grant.issued_at
        return grant.issued_at + lifetime * (EARLIEST + grant.id[0] % SPREAD) // 100 - self.clock.seconds

    def acting(
        self, acted: Acted, claim: PartyClaim, record: Party, view: View, standing: Standing, *, again: bool
    ) -> Acting:
        """Return what the device acts on towards the party of ``claim``; ``again`` if it has just discovered anew.

        Raises :class:`ProofError` (``no-agreement-key``).
        """
        if record.agreement_key is None:
            raise ProofError("no-agreement-key", "the party's record has no key to agree with")
        return Acting(
            chain=self.memory.birth.chain,
            party=claim.party,
            agreement_key=record.agreement_key,
            party_revision=record.revision,
            height=view.height,
            tenure=standing.number,
            plan_revision=standing.plan_revision,
            plan=opening(acted.digests, claim),
            stored_grant=self.memory.grants.newest(claim.party, claim.kind, acted.origin),
            rediscovered=again,
        )
