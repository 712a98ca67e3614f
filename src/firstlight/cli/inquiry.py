"""How ``firstlight owner status`` shows what parties say of orders and devices."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from firstlight.roles.owner.inquiries import AtParty
from firstlight.sealing.inquiry import DeviceLine, Ending, Told

SECOND = 1_000_000_000
_SUMMARY = ("role", "party", "order", "state", "devices", "used", "pending", "confirmed", "ended", "alarms")
_DEVICE = ("device", "holds", "grants", "last use", "ended", "because", "refused", "alarm")


def at_party(one: AtParty) -> Mapping[str, object]:
    """Return what one party says of one order, as JSON has it."""
    order = one.order
    known: dict[str, object] = {
        "party": order.party,
        "role": one.role,
        "order": order.number,
        "batch": order.batch,
        "tenure": order.origin,
    }
    if one.told is None:
        return {**known, "error": one.error}
    told = one.told
    return {
        **known,
        "error": None,
        "state": _state(told),
        "devices": told.devices,
        "until": told.until,
        "used": told.used,
        "pending": told.pending,
        "confirmed": told.confirmed,
        "ended": told.ended,
        "alarmed": told.alarmed,
        "alarms": [{"index": alarm.index, "raised": alarm.raised_ns // SECOND} for alarm in told.alarms],
        "lines": [device(line) for line in told.lines],
    }


def device(line: DeviceLine) -> Mapping[str, object]:
    """Return what is said of one device, as JSON has it; times in Unix seconds, None where there is none."""
    return {
        "index": line.index,
        "holds": line.holds.name.lower(),
        "grants": line.grants,
        "expires": line.expires or None,
        "first_use": line.first or None,
        "last_use": line.last or None,
        "ended": line.ended or None,
        "because": _because(line),
        "refused": line.refused or None,
        "refused_at": line.refused_at or None,
        "alarm": line.alarm_ns // SECOND or None,
    }


def text(figures: Mapping[str, object], found: Sequence[AtParty]) -> str:
    """Return the whole status for people."""
    from rich.console import Console
    from rich.table import Table

    file = io.StringIO()
    console = Console(file=file, markup=False, emoji=False, width=200)
    for key, value in figures.items():
        console.print(f"{key.replace('_', ' ')}: {value}")
    table = Table(*_SUMMARY, box=None, pad_edge=False)
    for one in found:
        table.add_row(*_summary(one))
    console.print()
    console.print(table)
    for one in found:
        if one.told is not None and one.told.lines:
            console.print(f"\n{one.role} {one.order.party.hex()}, order {one.order.number.hex()}")
            table = Table(*_DEVICE, box=None, pad_edge=False)
            for line in one.told.lines:
                table.add_row(*_row(line))
            console.print(table)
    return file.getvalue().rstrip("\n")


def _summary(one: AtParty) -> list[str]:
    known = [one.role, one.order.party.hex(), one.order.number.hex()]
    if one.told is None:
        return [*known, one.error]
    told = one.told
    counts = (told.devices, told.used, told.pending, told.confirmed, told.ended)
    alarms = ", ".join(f"{alarm.index} since {_when(alarm.raised_ns // SECOND)}" for alarm in told.alarms)
    return [*known, _state(told), *map(str, counts), alarms or "-"]


def _row(line: DeviceLine) -> list[str]:
    because = _because(line) or "-"
    used, ended, alarm = _when(line.last), _when(line.ended), _when(line.alarm_ns // SECOND)
    holds = line.holds.name.lower()
    return [str(line.index), holds, str(line.grants), used, ended, because, line.refused or "-", alarm]


def _because(line: DeviceLine) -> str | None:
    return line.ending.name.lower().replace("_", "-") if line.ending is not Ending.UNSAID else None


def _state(told: Told) -> str:
    return "approved" if told.approved else "pending"


def _when(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else "-"
