"""Where a party stands, from its database alone: beside the running server or without it, cheap enough to ask often."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from firstlight.settings import MnoSettings, PartySettings, SpSettings
from firstlight.stores.party_figures import GrantRow, PartyFigures, figures, grants, heard


@dataclass(frozen=True, slots=True)
class MnoStatus:
    """Distinct devices that came so far; ``attached`` by the authentication centre's own record."""

    orders: int
    pending: int
    authenticated: int
    granted: int
    attached: int
    alarms: int
    refused: dict[str, int]


@dataclass(frozen=True, slots=True)
class SpStatus:
    """Distinct devices that came so far; ``connected``: of which a message was read from the broker.

    ``heard`` are the grants under which messages were read.
    """

    orders: int
    pending: int
    authenticated: int
    granted: int
    connected: int
    messages: int
    alarms: int
    refused: dict[str, int]
    heard: frozenset[bytes]


def database_of(kind: type[PartySettings], state_dir: Path) -> Path:
    """Return where the database of a role is."""
    return state_dir / f"{kind.ROLE}.sqlite"


def mno_status(state_dir: Path) -> MnoStatus:
    """Return where an operator stands; :class:`firstlight.errors.StoreError` (``database-unusable``)."""
    found = _figures(MnoSettings, state_dir)
    return MnoStatus(
        orders=found.orders,
        pending=found.pending,
        authenticated=found.authenticated,
        granted=found.granted,
        attached=found.attached,
        alarms=found.alarms,
        refused=found.refused,
    )


def sp_status(state_dir: Path) -> SpStatus:
    """Return where a provider stands; :class:`firstlight.errors.StoreError` (``database-unusable``)."""
    found = _figures(SpSettings, state_dir)
    return SpStatus(
        orders=found.orders,
        pending=found.pending,
        authenticated=found.authenticated,
        granted=found.granted,
        connected=found.connected,
        messages=found.messages,
        alarms=found.alarms,
        refused=found.refused,
        heard=heard(database_of(SpSettings, state_dir)),
    )


def grant_rows(kind: type[PartySettings], state_dir: Path) -> tuple[GrantRow, ...]:
    """Return every grant that was given, the oldest first."""
    return grants(database_of(kind, state_dir))


def _figures(kind: type[PartySettings], state_dir: Path) -> PartyFigures:
    return figures(database_of(kind, state_dir))
