"""Whose deposits a gateway takes, and how many: what the ledger says about the tenure decides."""

from __future__ import annotations

from dataclasses import dataclass

from firstlight.errors import ProofError, RefusedError
from firstlight.ledger.records import Batch, Tenure, TenureState, batch_name
from firstlight.ledger.tenure import Standing, counted, counting
from firstlight.roles.gateway.ledger import GatewayLedger
from firstlight.sealing.deposit import DepositList, ParsedDeposit

MANY_TENURES = 256
"""Up to so many tenures of a batch, what counts as one of them is counted exactly; beyond, the batch's size caps."""
ROUNDS = 24


@dataclass(frozen=True, slots=True)
class Allowed:
    """A deposit that may be kept: its list, the revision that is live, and for how many devices at most."""

    listed: DepositList
    live_revision: int
    count: int


async def check_deposit(parsed: ParsedDeposit, ledger: GatewayLedger, gateway: str) -> Allowed:
    """Return what may be kept of a deposit.

    1. The batch and the tenure exist (``unknown-batch``, ``unknown-tenure``); 2. the tenure counts for itself: it was
    accepted and not undone (``tenure-not-held``), and is not retired (``tenure-retired``); 3. the key of its origin
    signed, for this chain and gateway (:meth:`ParsedDeposit.verify`). Raises :class:`RefusedError` unless it says
    otherwise, and what reading the ledger raises.
    """
    claimed = parsed.claimed
    ledger.renew()
    batch = await ledger.record(batch_name(claimed.batch), Batch)
    if batch is None:
        raise RefusedError("unknown-batch", "no such batch is on the ledger")
    if claimed.tenure > batch.tenures:
        raise RefusedError("unknown-tenure", f"the batch has {batch.tenures} tenures")
    tenures = await _tenures(ledger, claimed, batch)
    standing = counting(claimed.tenure, tenures, ledger.time)
    if standing.number != claimed.tenure:
        raise RefusedError("tenure-not-held", f"tenure {claimed.tenure} counts as {standing.number}")
    if standing.state is TenureState.RETIRED:
        raise RefusedError("tenure-retired", f"tenure {claimed.tenure} is retired")
    listed = parsed.verify(key=standing.key, chain=ledger.chain, gateway=gateway)
    return Allowed(listed, standing.plan_revision, _devices(standing, tenures, batch, ledger.time))


async def _tenures(ledger: GatewayLedger, claimed: DepositList, batch: Batch) -> dict[int, Tenure]:
    """Return all tenures of the batch if they are few, else those that the tenure that counts reads."""
    if batch.tenures <= MANY_TENURES:
        return await ledger.tenures(claimed.batch, range(1, batch.tenures + 1))
    reading = _Reading({})
    wanted = claimed.tenure
    for _ in range(ROUNDS):
        reading.known |= await ledger.tenures(claimed.batch, range(wanted, wanted + 1))
        try:
            counting(claimed.tenure, reading, ledger.time)
        except ProofError as error:
            if error.code != "tenure-missing" or reading.missed in reading.known or reading.missed == wanted:
                raise
            wanted = reading.missed
            continue
        return reading.known
    raise RefusedError("too-many-tenures", f"more than {ROUNDS} tenures behind tenure {claimed.tenure}")


class _Reading:
    """Tenures as far as they have been fetched; remembers which one was missed."""

    def __init__(self, known: dict[int, Tenure]) -> None:
        self.known = known
        self.missed = 0

    def get(self, number: int, /) -> Tenure | None:
        found = self.known.get(number)
        if found is None:
            self.missed = number
        return found


def _devices(standing: Standing, tenures: dict[int, Tenure], batch: Batch, time: int) -> int:
    """Return how many devices count as the tenure, or at most can."""
    if batch.tenures > MANY_TENURES:
        return batch.size
    return counted(standing.number, tenures, batch.tenures, time)
