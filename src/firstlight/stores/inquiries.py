"""What an MNO or SP can tell an owner of his order, read from its database beside the server; nothing is written."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from firstlight.plan.order import Order
from firstlight.sealing.inquiry import ALARMS, ROWS, DeviceLine, Ending, Holds, RaisedAlarm, Told
from firstlight.stores.database import reading_only
from firstlight.stores.exchanges import GrantState

SECOND = 1_000_000_000
GRANTED = "granted"
RECENT = 3
"""How many of a device's newest grants may have been used last."""
_HOLDS = {
    GrantState.PENDING: Holds.PENDING,
    GrantState.CONFIRMED: Holds.CONFIRMED,
    GrantState.ENDED: Holds.ENDED,
}
_COUNTS = """
SELECT best, count(*) FROM (
    SELECT max(CASE state WHEN 2 THEN 2 WHEN 1 THEN 1 ELSE 0 END) AS best FROM slot JOIN issued USING (batch, idx)
    WHERE slot.number = ? AND issued.number = slot.number GROUP BY batch, idx
) GROUP BY best
"""
_ALARMED = """
SELECT idx, raised_ns FROM alarm WHERE raised_ns > 0 AND batch = ? AND origin = ?
    AND EXISTS (SELECT 1 FROM slot WHERE slot.number = ? AND slot.batch = alarm.batch AND slot.idx = alarm.idx)
    ORDER BY idx
"""
_SERVED = "SELECT idx FROM slot WHERE number = ? AND batch = ? AND idx >= ? ORDER BY idx LIMIT ?"
_REFUSED = """
SELECT idx, code, max(committed_ns) FROM exchange WHERE batch = ? AND idx >= ? AND code <> ? GROUP BY idx ORDER BY idx
"""
_GRANTS = """
SELECT id, state, issued_at, expires, confirmed_ns, ended_ns, ending FROM issued
    WHERE batch = ? AND idx = ? AND origin = ? AND number = ? ORDER BY sequence
"""
_ATTACHED = "SELECT max(opened_at) FROM subscription JOIN session USING (imsi) WHERE grant_id = ?"
_HEARD = "SELECT time_ns / 1000000000 FROM message WHERE grant_id = ? ORDER BY sequence DESC LIMIT 1"

Held = Callable[[int, int], bool]
"""Says whether the device of an index counts as the asker's, and did so at a time (Unix ns) already."""


@dataclass(frozen=True, slots=True)
class _Page:
    """Which devices an answer is about, where to go on, and the last refusal of those that have any."""

    indices: tuple[int, ...]
    following: int | None
    refused: Mapping[int, tuple[str, int]]


def told(path: Path, order: Order, *, approved: bool, start: int | None, held: Held) -> Told:
    """Return what is to be told of an order, with its devices from index ``start`` on.

    ``held`` says which devices were the asker's when they were refused: of others' refusals he learns nothing. Raises
    :class:`StoreError` (``database-unusable``).
    """
    with reading_only(path) as connection:
        found = _counted(connection, order, approved=approved)
        if start is None:
            return found
        page = _page(connection, order, start, held)
        lines = tuple(_line(connection, order, index, page.refused.get(index)) for index in page.indices)
    return replace(found, lines=lines, following=page.following)


def _counted(connection: sqlite3.Connection, order: Order, *, approved: bool) -> Told:
    counts = dict(connection.execute(_COUNTS, (order.number,)).fetchall())
    used = connection.execute("SELECT used FROM placed WHERE number = ?", (order.number,)).fetchone()
    alarms = connection.execute(_ALARMED, (order.batch, order.origin, order.number)).fetchall()
    return Told(
        approved=approved,
        devices=order.devices,
        used=0 if used is None else used[0],
        until=order.until,
        pending=counts.get(1, 0),
        confirmed=counts.get(2, 0),
        ended=counts.get(0, 0),
        alarmed=len(alarms),
        alarms=tuple(RaisedAlarm(*row) for row in alarms[:ALARMS]),
        lines=(),
        following=None,
    )


def _page(connection: sqlite3.Connection, order: Order, start: int, held: Held) -> _Page:
    """Return the next devices that were granted or refused something."""
    refusals = connection.execute(_REFUSED, (order.batch, start, GRANTED)).fetchall()
    served = [row[0] for row in connection.execute(_SERVED, (order.number, order.batch, start, ROWS + 1))]
    refused = {index: (code, at) for index, code, at in refusals[: 4 * ROWS] if held(index, at)}
    cut = [refusals[4 * ROWS][0]] if len(refusals) > 4 * ROWS else []
    indices = sorted({*served, *refused})
    cut += [indices[ROWS]] if len(indices) > ROWS else []
    following = min(cut, default=None)
    within = tuple(index for index in indices if following is None or index < following)
    return _Page(within, following, refused)


def _uses(connection: sqlite3.Connection) -> str | None:
    """Return the query for the last use of a grant: by a network's sessions, or by a service's messages."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return _ATTACHED if "session" in tables else _HEARD if "message" in tables else None


def _line(connection: sqlite3.Connection, order: Order, index: int, refusal: tuple[str, int] | None) -> DeviceLine:
    rows = connection.execute(_GRANTS, (order.batch, index, order.origin, order.number)).fetchall()
    holds, held = _held(rows)
    over = max((row for row in rows if row[5] is not None), key=lambda row: row[5], default=None)
    code, refused_ns = refusal or ("", 0)
    if rows and rows[-1][2] > refused_ns // SECOND:
        code, refused_ns = "", 0
    first, last = _used(connection, rows)
    return DeviceLine(
        index=index,
        holds=holds,
        grants=len(rows),
        expires=0 if held is None or holds is Holds.ENDED else held[3],
        first=first,
        last=last,
        ended=0 if over is None else over[5] // SECOND,
        ending=Ending.UNSAID if over is None else Ending(over[6]),
        refused=code,
        refused_at=refused_ns // SECOND,
        alarm_ns=_alarm(connection, order, index),
    )


def _held(rows: list[tuple[Any, ...]]) -> tuple[Holds, tuple[Any, ...] | None]:
    """Return what a device holds, and the newest grant of that state: one that is used counts before one to come."""
    for state in (GrantState.CONFIRMED, GrantState.PENDING, GrantState.ENDED):
        newest = next((row for row in reversed(rows) if row[1] == state), None)
        if newest is not None:
            return _HOLDS[state], newest
    return Holds.NOTHING, None


def _used(connection: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> tuple[int, int]:
    """Return when a device used any of its grants first and last (Unix seconds; 0: never)."""
    confirmed = [row[4] // SECOND for row in rows if row[4] is not None]
    query = _uses(connection)
    found = [connection.execute(query, (row[0],)).fetchone() for row in rows[-RECENT:]] if query else []
    return min(confirmed, default=0), max([*confirmed, *(row[0] for row in found if row and row[0])], default=0)


def _alarm(connection: sqlite3.Connection, order: Order, index: int) -> int:
    query = "SELECT raised_ns FROM alarm WHERE batch = ? AND idx = ? AND origin = ?"
    row = connection.execute(query, (order.batch, index, order.origin)).fetchone()
    return 0 if row is None else int(row[0])
