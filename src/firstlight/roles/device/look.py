"""A look at what a device remembers, without anything secret."""

from __future__ import annotations

from pathlib import Path

from firstlight.plan.claims import PartyKind
from firstlight.roles.device.memory import Memory


def summary(directory: Path) -> dict[str, object]:
    """Return what the device in ``directory`` remembers, to be printed; :class:`StoreError`."""
    memory = Memory.open(directory)
    try:
        birth, acted = memory.birth, memory.sight.acted
        return {
            "chain": birth.chain,
            "batch": birth.batch,
            "index": birth.index,
            "height": memory.sight.trust.height,
            "tenure": memory.sight.trust.tenure,
            "revision": memory.sight.trust.revision,
            "discovered": acted is not None,
            "subscriptions": memory.grants.count(PartyKind.NETWORK),
            "certificates": memory.grants.count(PartyKind.SERVICE),
            "boots": memory.counters.boots,
            "receipts": memory.counters.receipts,
        }
    finally:
        memory.close()
