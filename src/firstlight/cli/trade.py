"""What the commands of sellers and buyers have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from firstlight.cli import output
from firstlight.roles.holdings import find_holding, read_selection
from firstlight.roles.trade import Terms, read_purchase
from firstlight.roles.trade import sell as sell_devices
from firstlight.roles.trade import withdraw as take_back
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
Offer = Annotated[int, typer.Option("--tenure", min=2, help="The number of the offer.")]
Origin = Callable[[Workplace, bytes | None, int | None], int | None]
"""Says of which tenure the holding is that a batch and a tenure, as they were named, belong to."""


def batch_of(text: str | None) -> bytes | None:
    """Return the batch that was named, if one was."""
    return None if text is None else identifier_of(text, "batch id")


def gateways_of(place: Workplace, named: list[str] | None) -> tuple[str, ...]:
    """Return the gateways that were named, or else those of the settings."""
    return tuple(named) if named else place.gateways


def add_selling(app: typer.Typer, open_place: Callable[[Path], Workplace], origin_of: Origin) -> None:
    """Add the commands of whoever sells, to sell and to think better of it."""

    @app.command()
    def sell(
        directory: Directory,
        *,
        to: To,
        out: SaleOut,
        batch: Batch = None,
        tenure: Tenure = None,
        select: Select = "all",
        expires: Expires = "7d",
    ) -> None:
        """Offer devices to a buyer, in one transaction whatever their number, and seal their manifest to him."""
        place = open_place(directory)
        origin = origin_of(place, batch_of(batch), tenure)
        _sell(place, (batch, origin), Terms(read_selection(select), tenure, seconds_of(expires)), (to, out))

    @app.command()
    def withdraw(directory: Directory, *, tenure: Offer, batch: Batch = None) -> None:
        """Take back an offer that has not been accepted."""
        done = take_back(open_place(directory), batch_of(batch), tenure)
        output.emit({"tenure": tenure, "transaction": done.id, "height": done.height}, f"Offer {tenure} is taken back.")


def _sell(place: Workplace, holding: tuple[str | None, int | None], terms: Terms, files: tuple[Path, Path]) -> None:
    """Sell and say so; ``holding`` is (batch, tenure of the holding), ``files`` (purchase, sale)."""
    purchase, out = files
    chosen = find_holding(place.directory, batch_of(holding[0]), holding[1])
    sold = sell_devices(place, chosen, terms, read_purchase(purchase, place.chain), out)
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
