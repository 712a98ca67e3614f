"""Receipts: what a device tells its owner, sealed, left at a gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from firstlight.errors import FirstlightError, TransportError
from firstlight.plan.claims import OpenedPlan
from firstlight.roles.device.gateways import Gateway
from firstlight.roles.device.memory import Acted, Memory, StoredGrant
from firstlight.roles.device.pace import PASSING
from firstlight.roles.device.tools import WitnessedClock
from firstlight.sealing.locator import receipt_locator
from firstlight.sealing.receipt import NOBODY, Receipt, Step, seal_receipt

MAX_CODE = 40


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
        self._refusals: set[tuple[bytes, str]] = set()
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
        self._refusals = {known for known in self._refusals if known[0] not in (stored.party, NOBODY)}
        async with self._turn:
            if one.known in self._told:
                return True
            earlier = [other for other in self._owed if not one.follows(other)]
            self._owed = [one, *earlier]
            for owed in tuple(self._owed):
                if not await self._tell(owed, gateways):
                    break
        return one.known in self._told

    async def refused(
        self, error: FirstlightError, acted: Acted, gateways: Sequence[Gateway], party: bytes = NOBODY
    ) -> None:
        """Tell the owner, once, that ``party`` (without one: the ledger) has refused the device, and with which code.

        Only what lasts is told. If no gateway takes it, it is told with the next refusal: a device that is refused
        comes back.
        """
        code = error.code[:MAX_CODE]
        if error.code in PASSING - {"frozen"} or (party, code) in self._refusals:
            return
        async with self._turn:
            for gateway in gateways:
                receipt = self._made(Step.REFUSED, acted, party, NOBODY, code)
                try:
                    await self._leave(receipt, acted.plan().profile.receipt_key, gateway)
                except TransportError:
                    continue
                self._refusals.add((party, code))
                return

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
        return self._made(owed.step, owed.acted, owed.stored.party, owed.stored.grant.id)

    def _made(self, step: Step, acted: Acted, party: bytes, grant: bytes, code: str = "") -> Receipt:
        birth = self._memory.birth
        return Receipt(
            chain=birth.chain,
            batch=birth.batch,
            index=birth.index,
            tenure=acted.tenure,
            revision=acted.revision,
            party=party,
            grant=grant,
            step=step,
            counter=self._memory.next_receipt(),
            time=self._clock.seconds,
            code=code,
        )

    async def _leave(self, receipt: Receipt, owner: bytes, gateway: Gateway) -> None:
        locator = receipt_locator(self._memory.birth.mailbox, gateway.name)
        sealed = seal_receipt(receipt, signer=self._memory.attestation, owner=owner, locator=locator)
        await gateway.leave(locator, sealed)
