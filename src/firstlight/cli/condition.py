"""``firstlight owner freeze``, ``unfreeze``, ``retire``, ``recover``, ``clear-alarm``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstlight.cli import output
from firstlight.cli.trade import Batch, Directory, Tenure, batch_of
from firstlight.errors import ConfigError, TransportError
from firstlight.roles.holdings import Holding, find_holding, read_selection
from firstlight.roles.owner.condition import Condition, change, release
from firstlight.roles.owner.inquiries import clear
from firstlight.roles.owner.recovery import recover as recover_holding
from firstlight.roles.trade import origin_of
from firstlight.roles.workplace import Workplace, open_workplace
from firstlight.settings import OwnerSettings

Chosen = Annotated[
    str, typer.Option("--select", help="Which devices: all, or indices such as 0-9,15, or a file with such lines.")
]
_DONE = {Condition.FREEZE: "frozen", Condition.UNFREEZE: "released", Condition.RETIRE: "retired"}


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the owner's."""
    app.command()(freeze)
    app.command()(unfreeze)
    app.command()(retire)
    app.command()(recover)
    app.command("clear-alarm")(clear_alarm)


def freeze(directory: Directory, *, select: Chosen, batch: Batch = None, tenure: Tenure = None) -> None:
    """Freeze devices: what they hold stops to work, and they get nothing new until they are released.

    The MNO and the SPs follow the ledger by themselves; the devices keep their plan for later.
    """
    _change(directory, Condition.FREEZE, select, (batch, tenure))


def unfreeze(
    directory: Directory,
    *,
    select: Annotated[str | None, typer.Option("--select", help="Which frozen devices: all, or indices.")] = None,
    held: Annotated[bool, typer.Option("--held", help="Release everything that a recovery holds instead.")] = False,
    batch: Batch = None,
    tenure: Tenure = None,
) -> None:
    """Release frozen devices, back to the plan that they had; or, with --held, all that a recovery holds."""
    if held is (select is not None):
        raise ConfigError("bad-selection", "name devices, or --held after a recovery", hint="--select 5 or --held")
    if select is not None:
        _change(directory, Condition.UNFREEZE, select, (batch, tenure))
        return
    place, holding = _open(directory, batch, tenure)
    done = release(place, holding)
    output.emit(
        {"batch": holding.batch, "tenure": holding.origin, "transaction": done.id, "height": done.height},
        f"Tenure {holding.origin} is released.",
    )


def retire(directory: Directory, *, select: Chosen, batch: Batch = None, tenure: Tenure = None) -> None:
    """Retire devices, for good: nobody can deploy, sell or release them any more."""
    _change(directory, Condition.RETIRE, select, (batch, tenure))


def recover(
    directory: Directory,
    *,
    recovery_key: Annotated[
        Path | None, typer.Option("--recovery-key", help="The recovery key's file, if it does not lie in DIR.")
    ] = None,
    batch: Batch = None,
    tenure: Tenure = None,
) -> None:
    """Take a holding back with its recovery key, because the tenure's key was lost or stolen.

    The holding gets a new key and a new recovery key, which you should move to a safe place. Open offers end, sales
    that were accepted less than the transfer delay ago are undone, and everything is held until
    `firstlight owner unfreeze DIR --held`.
    """
    place, holding = _open(directory, batch, tenure)
    done = recover_holding(place, holding, recovery_key)
    output.emit(
        {
            "batch": holding.batch,
            "tenure": holding.origin,
            "recovery": done.number,
            "key": done.key,
            "recovery_key": done.recovery_key,
        },
        f"Tenure {holding.origin} is yours again, under a new key; release it with: unfreeze --held",
    )


def clear_alarm(
    directory: Directory,
    *,
    select: Annotated[str, typer.Option("--select", help="Which devices: all, or indices such as 5,9.")],
    batch: Batch = None,
    tenure: Tenure = None,
) -> None:
    """Say that devices are the only ones of their kind: clear their clone alarms at every party of their plans.

    Each party is told, signed with the tenure's key. Where one cannot be reached the others are told all the same, and
    the command fails: run it again.
    """
    place, holding = _open(directory, batch, tenure)
    done = clear(place, holding, read_selection(select))
    rows = [{"party": one.party, "role": one.role, "devices": one.indices, "error": one.error or None} for one in done]
    output.emit_rows(rows, ("party", "role", "devices", "error"))
    failed = [one for one in done if one.error]
    if failed:
        raise TransportError(
            "not-everywhere", f"{len(failed)} of {len(done)} parties have not cleared all", hint="run it again"
        )


def _change(directory: Path, condition: Condition, select: str, which: tuple[str | None, int | None]) -> None:
    place, holding = _open(directory, *which)
    done = change(place, holding, condition, read_selection(select))
    devices = sum(one.devices for one in done)
    output.emit(
        {
            "batch": holding.batch,
            "devices": devices,
            "changes": [
                {
                    "tenure": one.tenure,
                    "devices": one.devices,
                    "transaction": one.submitted.id.hex(),
                    "height": one.submitted.height,
                }
                for one in done
            ],
        },
        f"{devices} devices are {_DONE[condition]}.",
    )


def _open(directory: Path, batch: str | None, tenure: int | None) -> tuple[Workplace, Holding]:
    place = open_workplace(OwnerSettings, directory)
    origin = origin_of(place, batch_of(batch), tenure)
    return place, find_holding(place.directory, batch_of(batch), origin)
