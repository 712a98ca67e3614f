"""Receipts: what a device tells its owner, sealed, left at a gateway."""

from __future__ import annotations

from collections.abc import Sequence

from firstlight.errors import TransportError
from firstlight.plan.claims import OpenedPlan
from firstlight.roles.device.gateways import Gateway
from firstlight.roles.device.memory import Acted, Memory, StoredGrant
from firstlight.roles.device.tools import WitnessedClock
from firstlight.sealing.locator import receipt_locator
from firstlight.sealing.receipt import Receipt, Step, seal_receipt


class Receipts:
    """The receipts of one device under one plan; each step with each grant is told once while the device runs."""

    def __init__(self, memory: Memory, clock: WitnessedClock) -> None:
        """Sign with the device's attestation key."""
        self._memory = memory
        self._clock = clock
        self._told: set[tuple[Step, bytes]] = set()

    async def leave(
        self, step: Step, stored: StoredGrant, acted: Acted, plan: OpenedPlan, gateways: Sequence[Gateway]
    ) -> bool:
        """Leave a receipt at the first of ``gateways`` that takes it, unless it has been; return whether one has it.

        Each attempt is a new receipt under a new counter, so that the order in which they arrive never matters.
        """
        known = (step, stored.grant.id)
        for gateway in gateways:
            if known in self._told:
                break
            try:
                await self._leave(self._receipt(step, stored, acted), plan.profile.receipt_key, gateway)
            except TransportError:
                continue
            self._told.add(known)
        return known in self._told

    def _receipt(self, step: Step, stored: StoredGrant, acted: Acted) -> Receipt:
        birth = self._memory.birth
        return Receipt(
            chain=birth.chain,
            batch=birth.batch,
            index=birth.index,
            tenure=acted.tenure,
            revision=acted.revision,
            party=stored.party,
            grant=stored.grant.id,
            step=step,
            counter=self._memory.next_receipt(),
            time=self._clock.seconds,
        )

    async def _leave(self, receipt: Receipt, owner: bytes, gateway: Gateway) -> None:
        locator = receipt_locator(self._memory.birth.mailbox, gateway.name)
        sealed = seal_receipt(receipt, signer=self._memory.attestation, owner=owner, locator=locator)
        await gateway.leave(locator, sealed)
