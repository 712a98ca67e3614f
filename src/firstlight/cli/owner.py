"""``firstlight owner``: accept devices, choose network and services, watch, resell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstlight.cli import condition, inquiry, output
from firstlight.cli.trade import (
    Batch,
    Directory,
    Gateways,
    Genesis,
    Node,
    Select,
    Tenure,
    add_selling,
    batch_of,
    progress,
)
from firstlight.custody.system import SystemClock
from firstlight.errors import ConfigError
from firstlight.logs import adopt_libraries, open_log
from firstlight.roles.holdings import Holding, find_holding, holdings, read_selection
from firstlight.roles.owner.deploy import Asked, Choice
from firstlight.roles.owner.deploy import deploy as deploy_plan
from firstlight.roles.owner.inquiries import at_parties as ask_parties
from firstlight.roles.owner.orders import Wanted
from firstlight.roles.owner.orders import order as place_order
from firstlight.roles.owner.status import grants as grant_rows
from firstlight.roles.owner.status import status as fleet_status
from firstlight.roles.trade import accept as accept_sale
from firstlight.roles.trade import origin_of
from firstlight.roles.trade import request as request_purchase
from firstlight.roles.workplace import Workplace, identifier_of, make_workplace, open_workplace, seconds_of
from firstlight.settings import OwnerSettings

app = typer.Typer(no_args_is_help=True)
condition.add_commands(app)


def _open(directory: Path) -> Workplace:
    return open_workplace(OwnerSettings, directory)


def _holding(place: Workplace, batch: str | None, tenure: int | None) -> Holding:
    """Return the holding that a tenure belongs to: it may be one that was split off."""
    return find_holding(place.directory, batch_of(batch), origin_of(place, batch_of(batch), tenure))


@app.command()
def init(directory: Directory, *, genesis: Genesis, node: Node, gateway: Gateways = None) -> None:
    """Make an owner's state directory: settings and the chain's genesis. An owner registers nowhere."""
    place = make_workplace(OwnerSettings, directory, genesis=genesis, node=node, gateways=tuple(gateway or ()))
    output.emit({"chain": place.chain, "directory": directory}, f"{directory} is ready for chain {place.chain}.")


@app.command()
def request(
    directory: Directory,
    *,
    out: Annotated[Path, typer.Option("--out", help="Where to write the purchase file, for the seller.")],
) -> None:
    """Make fresh keys for one purchase, and a file with their public halves for the seller."""
    purchase = request_purchase(_open(directory), out)
    output.emit({"buyer": purchase.buyer, "file": out}, f"Give {out} to the seller.")


@app.command()
def accept(
    directory: Directory,
    sale: Annotated[Path, typer.Argument(metavar="SALE", help="The sale file that the seller made.")],
    *,
    transfer_delay: Annotated[
        str | None,
        typer.Option(
            "--transfer-delay", help="For how long a recovery undoes sales, such as 7d; else as in owner.toml."
        ),
    ] = None,
) -> None:
    """Check a sale device by device against the proven ledger, and accept it only if all of it holds."""
    place = _open(directory)
    settings = place.settings
    delay = settings.transfer_delay if isinstance(settings, OwnerSettings) else 0
    delay = delay if transfer_delay is None else seconds_of(transfer_delay)
    done = accept_sale(place, sale, delay=delay)
    record = done.holding.record
    output.emit(
        {
            "batch": record.batch,
            "tenure": record.tenure,
            "devices": record.count,
            "transaction": done.submitted.id,
            "height": done.submitted.height,
        },
        f"{record.count} devices are yours: batch {record.batch.hex()}, tenure {record.tenure}.",
    )


add_selling(app, _open, origin_of)


@app.command()
def order(
    directory: Directory,
    *,
    party: Annotated[str, typer.Option("--party", help="The party's id, in hexadecimal.")],
    devices: Annotated[
        int | None, typer.Option("--devices", min=1, help="For how many devices; by default for all.")
    ] = None,
    until: Annotated[str, typer.Option("--until", help="How long the order holds, such as 90d.")] = "90d",
    batch: Batch = None,
    tenure: Tenure = None,
) -> None:
    """Order a network or a service for devices: signed with the tenure's key, and left with the party."""
    place = _open(directory)
    wanted = Wanted(identifier_of(party, "party id"), devices, seconds_of(until))
    done = place_order(place, _holding(place, batch, tenure), wanted)
    output.emit(
        {
            "order": done.number,
            "party": done.party,
            "batch": done.batch,
            "tenure": done.origin,
            "devices": done.devices,
            "until": done.until,
        },
        f"Order {done.number.hex()} for {done.devices} devices is with the party.",
    )


@app.command()
def deploy(
    directory: Directory,
    *,
    network: Annotated[str, typer.Option("--network", help="The network: PARTY:ORDER, both in hexadecimal.")],
    service: Annotated[
        list[str] | None, typer.Option("--service", help="A service: PARTY:ORDER; may be repeated.")
    ] = None,
    batch: Batch = None,
    tenure: Tenure = None,
    select: Select = "all",
) -> None:
    """Choose network and services for devices: seal the plan to each of them, and put its root on the ledger.

    An interrupted run goes on when it is started with the same arguments.
    """
    place = _open(directory)
    services = tuple(_choice(text) for text in service or ())
    asked = Asked(_choice(network), services, tenure, read_selection(select))
    holding = _holding(place, batch, tenure)
    count = asked.selection.count if asked.selection else holding.record.count
    with progress("sealing the plan", count * len(place.gateways)) as advance:
        done = deploy_plan(place, holding, asked, advance)
    output.emit(
        {
            "batch": done.batch,
            "tenure": done.tenure,
            "revision": done.revision,
            "devices": done.devices,
            "plan": done.plan,
            "transaction": done.submitted.id if done.submitted else None,
            "height": done.submitted.height if done.submitted else None,
        },
        f"{done.devices} devices have a plan: tenure {done.tenure}, revision {done.revision}.",
    )


def _choice(text: str) -> Choice:
    party, colon, number = text.partition(":")
    if not colon:
        raise ConfigError("bad-choice", f"{text!r:.80}", hint="PARTY:ORDER, as the order command printed them")
    return Choice(identifier_of(party, "party id"), identifier_of(number, "order number"))


@app.command()
def serve(directory: Directory) -> None:
    """Collect the devices' receipts from the gateways until stopped; nothing is lost over a restart."""
    from firstlight.roles.owner.serve import serve_owner
    from firstlight.transports.http import run

    place = _open(directory)
    log = open_log(directory, "owner", SystemClock())
    adopt_libraries(log)
    run(lambda: serve_owner(place, log))


@app.command()
def status(
    directory: Directory,
    *,
    grants: Annotated[bool, typer.Option("--grants", help="List every receipt with the grant that it names.")] = False,
    at_parties: Annotated[
        bool, typer.Option("--at-parties", help="Ask MNO and SPs, too, what has become of each order.")
    ] = False,
    devices: Annotated[
        bool, typer.Option("--devices", help="Ask them about each device: what it holds, its last use, what ended it.")
    ] = False,
) -> None:
    """Show how the fleet stands: deployed devices, and how many have attached and connected, by their receipts.

    What a party says with --at-parties, or --devices, is sealed to whoever holds the tenure's key: counts, the clone
    alarms that stand, and why a credential ended.
    """
    place = _open(directory)
    figures = fleet_status(directory)
    if grants:
        figures["grants"] = grant_rows(directory)
    if not (at_parties or devices):
        output.emit(figures)
        return
    found = ask_parties(place, lines=devices)
    output.emit({**figures, "parties": [inquiry.at_party(one) for one in found]}, inquiry.text(figures, found))


@app.command(name="holdings")
def list_holdings(directory: Directory) -> None:
    """List what is held: batch, tenure, devices when it was received."""
    _open(directory)
    rows = [
        {
            "batch": one.batch,
            "tenure": one.origin,
            "devices": one.record.count,
            "of": one.record.size,
            "model": one.record.model.decode("ascii", "replace"),
        }
        for one in holdings(directory)
    ]
    output.emit_rows(rows, ("batch", "tenure", "devices", "of", "model"))
