"""What the commands of sellers and buyers have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from firstlight.cli import output
from firstlight.roles.holdings import find_holding, read_selection
from firstlight.roles.trade import Terms, read_purchase, sell, withdraw
from firstlight.roles.workplace import Workplace, identifier_of, seconds_of

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The state directory.")]
Genesis = Annotated[Path, typer.Option("--genesis", help="The chain's genesis file, as its consortium gives it out.")]
Node = Annotated[str, typer.Option("--node", help="URL of a ledger node.")]
Gateways = Annotated[list[str] | None, typer.Option("--gateway", help="URL of a gateway; may be repeated.")]
Batch = Annotated[str | None, typer.Option("--batch", help="The batch's id; not needed where only one fits.")]
Tenure = Annotated[int | None, typer.Option("--tenure", min=1, help="The tenure's number.")]
Select = Annotated[
    str, typer.Option("--select", help="Which devices: all, or indices such as 0-9,15, or a file with such lines.")
]
To = Annotated[Path, typer.Option("--to", help="The buyer's purchase file.")]
SaleOut = Annotated[Path, typer.Option("--out", help="Where to write the sale file, for the buyer alone.")]
Expires = Annotated[str, typer.Option("--expires", help="How long the offer stands, such as 7d or 12h.")]


def batch_of(text: str | None) -> bytes | None:
    """Return the batch that was named, if one was."""
    return None if text is None else identifier_of(text, "batch id")


def gateways_of(place: Workplace, named: list[str] | None) -> tuple[str, ...]:
    """Return the gateways that were named, or else those of the settings."""
    return tuple(named) if named else place.gateways


def run_sell(place: Workplace, holding: tuple[str | None, int | None], terms: Terms, files: tuple[Path, Path]) -> None:
    """Sell and say so; ``holding`` is (batch, tenure of the holding), ``files`` (purchase, sale)."""
    purchase, out = files
    chosen = find_holding(place.directory, batch_of(holding[0]), holding[1])
    sold = sell(place, chosen, terms, read_purchase(purchase, place.chain), out)
    output.emit(
        {
            "batch": sold.batch,
            "tenure": sold.tenure,
            "devices": sold.devices,
            "expires": sold.expiry,
            "transaction": sold.submitted.id,
            "height": sold.submitted.height,
            "file": out,
        },
        f"Offered {sold.devices} devices as tenure {sold.tenure}; give {out} to the buyer.",
    )


def terms_of(select: str, tenure: int | None, expires: str) -> Terms:
    """Return the terms of a sale as they were written."""
    return Terms(read_selection(select), tenure, seconds_of(expires))


def run_withdraw(place: Workplace, batch: str | None, tenure: int) -> None:
    """Take an offer back and say so."""
    done = withdraw(place, batch_of(batch), tenure)
    output.emit({"tenure": tenure, "transaction": done.id, "height": done.height}, f"Offer {tenure} is taken back.")


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how long work gets on, on stderr; with ``--json`` nothing is shown."""
    if output.json_wanted():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)
