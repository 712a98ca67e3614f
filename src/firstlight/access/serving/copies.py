"""Finding a subscription that was copied to a second device, before it is let in again.

A USIM remembers the sequence numbers that it has accepted, and a copy does not know what the other has accepted since.
So before each attach but the first, the challenge carries a number that was accepted last time. The card that accepted
it answers that it is used up (AUTS, and the real challenge follows); a card that takes it is another one. Two devices
that take turns are found at the second turn, whichever of them is the copy. Nothing of this is seen by an EAP server
or a supplicant but a resynchronisation, which is theirs already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from firstlight.ports import Random
from firstlight.sim import aka, milenage
from firstlight.sim.aka import Vector
from firstlight.sim.subscription import Subscription, SubscriptionStatus

_USABLE = (SubscriptionStatus.PENDING, SubscriptionStatus.ACTIVE)


class AcceptedStore(Protocol):
    """What is needed of a store (:class:`firstlight.stores.subscriptions.Subscriptions`)."""

    def get(self, imsi: str) -> Subscription | None:
        """Return the subscription of an IMSI."""
        ...

    def accepted(self, imsi: str) -> int | None:
        """Return the newest SQN that its USIM has proven to have accepted."""
        ...

    def note_accepted(self, imsi: str, sqn: int) -> None:
        """Remember that SQN durably."""
        ...


class CopyWatch:
    """Makes challenges that tell a copied USIM, and says so when one is told."""

    def __init__(self, store: AcceptedStore, random: Random, copied: Callable[[str], None]) -> None:
        """Go by what ``store`` remembers; ``copied`` is told the IMSI, in a thread."""
        self._store = store
        self._random = random
        self._copied = copied

    async def probe(self, imsi: str) -> Vector | None:
        """Return a challenge that the right USIM has accepted before; None for one never used, or not usable."""
        return await asyncio.to_thread(self._probe, imsi)

    async def accepted(self, imsi: str, vector: Vector) -> None:
        """Remember what the USIM has just proven to have accepted."""
        await asyncio.to_thread(self._accepted, imsi, vector)

    async def copied(self, imsi: str) -> None:
        """Say that there is a second USIM."""
        await asyncio.to_thread(self._copied, imsi)

    def _probe(self, imsi: str) -> Vector | None:
        found, sqn = self._store.get(imsi), self._store.accepted(imsi)
        if found is None or sqn is None or found.status not in _USABLE:
            return None
        return aka.make_vector(found.credentials.k, found.credentials.opc, sqn, self._random.bytes(16))

    def _accepted(self, imsi: str, vector: Vector) -> None:
        found = self._store.get(imsi)
        if found is not None:
            self._store.note_accepted(imsi, sqn_of(found, vector))


def sqn_of(subscription: Subscription, vector: Vector) -> int:
    """Return the SQN of a vector, whoever made it."""
    own = subscription.credentials
    return int.from_bytes(milenage.xor(vector.autn[:6], milenage.f2345(own.k, own.opc, vector.rand).ak))
