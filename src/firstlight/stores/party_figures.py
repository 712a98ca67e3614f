"""Counts and grants of an MNO or SP, read from its database beside the server or without it; nothing is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from firstlight.stores.database import reading_only
from firstlight.stores.exchanges import GrantState

_GRANTED = "granted"
_AUTHENTICATED = """
SELECT count(*) FROM (
    SELECT batch, idx FROM exchange UNION SELECT batch, idx FROM device
)
"""
_NEWEST_ATTACHED = """
SELECT count(*) FROM (SELECT id, max(sequence) FROM issued GROUP BY batch, idx) AS newest
JOIN subscription ON subscription.grant_id = newest.id WHERE subscription.confirmed_at IS NOT NULL
"""
_NEWEST_CERTIFIED = """
SELECT count(*) FROM (SELECT id, max(sequence) FROM issued GROUP BY batch, idx) AS newest
JOIN certificate ON certificate.grant_id = newest.id WHERE certificate.confirmed_at IS NOT NULL
"""
_READ_FROM = """
SELECT count(*) FROM (
    SELECT DISTINCT batch, idx FROM issued WHERE id IN (SELECT grant_id FROM message WHERE grant_id IS NOT NULL)
)
"""


@dataclass(frozen=True, slots=True)
class GrantRow:
    """A grant: its id, state (``pending``, ``confirmed``, ``ended``), when it was first used (Unix s; None: never)."""

    grant: bytes
    state: str
    confirmed: int | None


@dataclass(frozen=True, slots=True)
class PartyFigures:
    """How many orders are approved and pending, and how many distinct devices came how far.

    ``authenticated``: MAC_3 held in an exchange that is or was on record; ``granted``; ``attached``: the newest
    grant was used in a successful attach (an MNO's); ``connected``: a message of the device was read from the broker
    (an SP's), ``messages`` of them in all; ``refused`` by code, among the exchanges still kept.
    """

    orders: int = 0
    pending: int = 0
    authenticated: int = 0
    granted: int = 0
    attached: int = 0
    connected: int = 0
    messages: int = 0
    alarms: int = 0
    refused: dict[str, int] = field(default_factory=dict)


def figures(path: Path) -> PartyFigures:
    """Return the counts of the database at ``path``; zeros if there is none yet. ``database-unusable``."""
    if not path.exists():
        return PartyFigures()
    with reading_only(path) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}

        def count(query: str, *needed: str) -> int:
            return int(connection.execute(query).fetchone()[0]) if tables.issuperset(needed) else 0

        refused: dict[str, int] = {}
        if "exchange" in tables:
            rows = connection.execute("SELECT code, count(*) FROM exchange WHERE code <> ? GROUP BY code", (_GRANTED,))
            refused = dict(rows.fetchall())
        return PartyFigures(
            orders=count("SELECT count(*) FROM placed", "placed"),
            pending=count("SELECT count(*) FROM pending_order", "pending_order"),
            authenticated=count(_AUTHENTICATED, "exchange", "device"),
            granted=count("SELECT count(*) FROM device WHERE granted_ns > 0", "device"),
            attached=count(_NEWEST_ATTACHED, "issued", "subscription")
            + count(_NEWEST_CERTIFIED, "issued", "certificate"),
            connected=count(_READ_FROM, "issued", "message"),
            messages=count("SELECT count(*) FROM message", "message"),
            alarms=count("SELECT count(*) FROM alarm WHERE raised_ns > 0", "alarm"),
            refused=refused,
        )


def grants(path: Path) -> tuple[GrantRow, ...]:
    """Return all grants ever given, the oldest first; errors as :func:`figures`."""
    if not path.exists():
        return ()
    with reading_only(path) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'issued'").fetchall():
            return ()
        rows = connection.execute("SELECT id, state, confirmed_ns FROM issued ORDER BY sequence").fetchall()
    return tuple(
        GrantRow(grant, GrantState(state).name.lower(), None if used is None else used // 1_000_000_000)
        for grant, state, used in rows
    )


def heard(path: Path) -> frozenset[bytes]:
    """Return the grants under which a message was read; errors as :func:`figures`."""
    if not path.exists():
        return frozenset()
    with reading_only(path) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'message'").fetchall():
            return frozenset()
        rows = connection.execute("SELECT DISTINCT grant_id FROM message WHERE grant_id IS NOT NULL").fetchall()
    return frozenset(grant for (grant,) in rows)
