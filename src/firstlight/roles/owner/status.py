"""How an owner's fleet stands, by the receipts that he has opened."""

from __future__ import annotations

from pathlib import Path

from firstlight.roles.holdings import holdings
from firstlight.roles.owner.mail import DATABASE, open_fleet
from firstlight.sealing.receipt import Step
from firstlight.stores.fleet import FleetStore


def status(state_dir: Path) -> dict[str, object]:
    """Return how an owner's fleet stands, also while his process runs.

    ``devices`` are deployed, ``held`` were accepted; ``network_attached`` and ``service_connected`` count distinct
    devices with an opened, valid receipt of that step, ``refused`` those whose newest receipt says that they were
    refused. Raises :class:`StoreError`.
    """
    if not (state_dir / DATABASE).exists():
        return status_of(state_dir, None)
    fleet = open_fleet(state_dir)
    try:
        return status_of(state_dir, fleet)
    finally:
        fleet.close()


def status_of(state_dir: Path, fleet: FleetStore | None) -> dict[str, object]:
    """Return the same from an open store; None where nothing was ever deployed."""
    figures = None if fleet is None else fleet.figures()
    return {
        "devices": 0 if figures is None else figures.devices,
        "held": sum(one.record.count for one in holdings(state_dir)),
        "network_attached": 0 if figures is None else figures.steps[Step.NETWORK_ATTACHED],
        "service_connected": 0 if figures is None else figures.steps[Step.SERVICE_CONNECTED],
        "refused": 0 if figures is None else sum(figures.refused.values()),
        "refused_by_code": {} if figures is None else dict(figures.refused),
        "receipts": 0 if figures is None else figures.receipts,
        "rejected": 0 if figures is None else sum(figures.rejected.values()),
        "rejected_by_code": {} if figures is None else dict(figures.rejected),
    }


def grants(state_dir: Path) -> list[dict[str, object]]:
    """Return every receipt with the grant that it names; bytes are for the caller to write as he likes."""
    if not (state_dir / DATABASE).exists():
        return []
    fleet = open_fleet(state_dir)
    try:
        return [
            {
                "batch": one.batch,
                "index": one.index,
                "step": one.step.name.lower().replace("_", "-"),
                "tenure": one.tenure,
                "revision": one.revision,
                "party": one.party,
                "grant": one.grant,
                "counter": one.counter,
                "time": one.time,
                "code": one.code or None,
            }
            for one in fleet.grants()
        ]
    finally:
        fleet.close()
