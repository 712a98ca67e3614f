"""The condition of devices: frozen, released again, retired. One transaction for each tenure that they stand in.

freeze      active devices; their credentials stop, their plan waits
unfreeze    frozen ones, back to the plan that they had; or, after a recovery, everything that it holds
retire      active or frozen ones, for good
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from firstlight.errors import ConfigError
from firstlight.ledger.records import Tenure, TenureState, tenure_name
from firstlight.ledger.transaction import Body, Freeze, Retire, Unfreeze, build
from firstlight.roles.holdings import Holding, overlap, selection_of
from firstlight.roles.ledger_client import LedgerClient, Submitted, record_of
from firstlight.roles.survey import Guess, Region, spans_of, survey
from firstlight.roles.workplace import Workplace
from firstlight.trees.ownership import Selection


class Condition(Enum):
    """What is done to devices."""

    FREEZE = "freeze"
    UNFREEZE = "unfreeze"
    RETIRE = "retire"


_FROM = {
    Condition.FREEZE: frozenset({TenureState.ACTIVE}),
    Condition.UNFREEZE: frozenset({TenureState.FROZEN}),
    Condition.RETIRE: frozenset({TenureState.ACTIVE, TenureState.FROZEN}),
}
_BODY: dict[Condition, Callable[[bytes, int, Selection], Body]] = {
    Condition.FREEZE: Freeze,
    Condition.UNFREEZE: Unfreeze,
    Condition.RETIRE: Retire,
}


@dataclass(frozen=True, slots=True)
class Changed:
    """What was done: out of which tenure, how many devices, by which transaction."""

    tenure: int
    devices: int
    submitted: Submitted


def change(place: Workplace, holding: Holding, condition: Condition, chosen: Selection | None) -> list[Changed]:
    """Freeze, unfreeze or retire devices of a holding (None: all for which it makes sense), wherever they stand.

    Raises :class:`ConfigError`: ``nothing-to-change``, or ``not-changeable`` if some of those that were named are not
    ours, under an offer, or in another condition; :class:`RuleError` if the ledger refuses.
    """
    wanted = chosen or selection_of(holding.manifest().indices())
    with place.ledger() as ledger:
        found = survey(ledger, holding.batch, wanted, Guess(holding.origin, holding.origin))
        parts = _parts(holding, condition, wanted, found.regions)
        reached = sum(part.count for part in parts.values())
        if not reached:
            raise ConfigError("nothing-to-change", f"there is no device to {condition.value}")
        if chosen is not None and reached != chosen.count:
            missing = f"{chosen.count - reached} of these devices cannot be changed: {condition.value}"
            raise ConfigError("not-changeable", missing, hint="not yours, under an offer, or not in that condition")
        return [
            Changed(number, part.count, _submit(place, holding, ledger, _BODY[condition](holding.batch, number, part)))
            for number, part in parts.items()
        ]


def release(place: Workplace, holding: Holding) -> Submitted:
    """End the hold that a recovery put on all of a holding; :class:`RuleError` (``not-held``)."""
    with place.ledger() as ledger:
        return _submit(place, holding, ledger, Unfreeze(holding.batch, holding.origin, None))


def _parts(
    holding: Holding, condition: Condition, wanted: Selection, regions: tuple[Region, ...]
) -> dict[int, Selection]:
    """Return which of the wanted devices to change, by the tenure that they count as."""
    fit: dict[int, list[Region]] = {}
    for region in regions:
        standing = region.standing
        if standing.origin == holding.origin and standing.state in _FROM[condition] and not standing.offer:
            fit.setdefault(standing.number, []).append(region)
    runs = {number: tuple(overlap(wanted, spans_of(those))) for number, those in sorted(fit.items())}
    return {number: Selection.of(those) for number, those in runs.items() if those}


def _submit(place: Workplace, holding: Holding, ledger: LedgerClient, body: Body) -> Submitted:
    name = tenure_name(holding.batch, holding.origin)
    sequence = record_of(ledger.view(name), name, Tenure, "unknown-tenure").sequence + 1
    return ledger.submit(build(body, chain=place.chain, sequence=sequence, signer=holding.owner()))
