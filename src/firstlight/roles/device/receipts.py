"""Receipts: what a device tells its owner, sealed, left at a gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from firstlight.errors import TransportError
from firstlight.plan.claims import OpenedPlan
from firstlight.roles.device.gateways import Gateway
from firstlight.roles.device.memory import Acted, Memory, StoredGrant
from firstlight.roles.device.tools import WitnessedClock
from firstlight.sealing.locator import receipt_locator
from firstlight.sealing.receipt import Receipt, Step, seal_receipt


@dataclass(frozen=True, slots=True)
class _Owed:
    """A step that the owner is to be told of: with which grant, under what."""

    step: Step
    stored: StoredGrant
    acted: Acted
    plan: OpenedPlan

    @property
    def known(self) -> tuple[Step, bytes]:
        """What it is known by once it has been told."""
        return self.step, self.stored.grant.id

    def follows(self, other: _Owed) -> bool:
        """Say whether ``other`` is about the same, with an earlier grant."""
        return (self.step, self.stored.party) == (other.step, other.stored.party)


class Receipts:
    """The receipts of one device under one plan; each step with each grant is told once while the device runs."""

    def __init__(self, memory: Memory, clock: WitnessedClock) -> None:
        """Sign with the device's attestation key."""
        self._memory = memory
        self._clock = clock
        self._told: set[tuple[Step, bytes]] = set()
        self._owed: list[_Owed] = []
        self._turn = asyncio.Lock()

    @property
    def owing(self) -> bool:
        """Whether there is a step that no gateway has taken a receipt of."""
        return bool(self._owed)

    async def leave(
        self, step: Step, stored: StoredGrant, acted: Acted, plan: OpenedPlan, gateways: Sequence[Gateway]
    ) -> bool:
        """Leave a receipt at the first of ``gateways`` that takes it, unless it has been; return whether one has it.

        Where it is taken, so are those that none took before. Each attempt is a new receipt under a new counter, so
        that the order in which they arrive never matters.
        """
        one = _Owed(step, stored, acted, plan)
        async with self._turn:
            if one.known in self._told:
                return True
            earlier = [other for other in self._owed if not one.follows(other)]
            self._owed = [one, *earlier]
            for owed in tuple(self._owed):
                if not await self._tell(owed, gateways):
                    break
        return one.known in self._told

    async def _tell(self, owed: _Owed, gateways: Sequence[Gateway]) -> bool:
        for gateway in gateways:
            try:
                await self._leave(self._receipt(owed), owed.plan.profile.receipt_key, gateway)
            except TransportError:
                continue
            self._told.add(owed.known)
            self._owed.remove(owed)
            return True
        return False

    def _receipt(self, owed: _Owed) -> Receipt:
        birth, stored, acted = self._memory.birth, owed.stored, owed.acted
        return Receipt(
            chain=birth.chain,
            batch=birth.batch,
            index=birth.index,
            tenure=acted.tenure,
            revision=acted.revision,
            party=stored.party,
            grant=stored.grant.id,
            step=owed.step,
            counter=self._memory.next_receipt(),
            time=self._clock.seconds,
        )

    async def _leave(self, receipt: Receipt, owner: bytes, gateway: Gateway) -> None:
        locator = receipt_locator(self._memory.birth.mailbox, gateway.name)
        sealed = seal_receipt(receipt, signer=self._memory.attestation, owner=owner, locator=locator)
        await gateway.leave(locator, sealed)
