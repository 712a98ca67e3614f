"""``firstlight mno``: a mobile network operator."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from firstlight.cli import output, party, updating
from firstlight.cli.party import Directory, Gateway, GenesisFile, Node
from firstlight.roles.party.status import mno_status
from firstlight.settings import MnoSettings

app = typer.Typer(no_args_is_help=True)


@app.command()
def init(
    directory: Directory,
    *,
    genesis: GenesisFile,
    node: Node,
    gateway: Gateway = None,
    mcc: Annotated[str, typer.Option("--mcc", help="Mobile country code, three digits.")] = "001",
    mnc: Annotated[str, typer.Option("--mnc", help="Mobile network code, two or three digits.")] = "01",
) -> None:
    """Make the state directory of an operator: its settings, its keys, and its home-network key for SUCIs."""
    from firstlight.roles.party.mno import init as make

    common = party.joined(genesis, node, gateway)
    settings = MnoSettings(chain=common.chain, node=common.node, gateway=common.gateway, mcc=mcc, mnc=mnc)
    party.made(directory, make(settings, directory, genesis).keys.party)


class Form(StrEnum):
    """Whose form an export is in."""

    OSMO_HLR = "osmo-hlr"
    OPEN5GS = "open5gs"
    FREE5GC = "free5gc"
    SRSRAN = "srsran"


@app.command()
def export(
    directory: Directory,
    output_file: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The file to write; it must not exist yet.")],
    form: Annotated[Form, typer.Option("--format", help="Which home register is to load it.")],
) -> None:
    """Write the subscriptions that may be used now into a file for another home register. The server may run or not.

    OUTPUT holds K and OPc in the clear, and is its owner's alone (0600); nothing of them is printed. Load it with, for

    osmo-hlr: sqlite3 hlr.db < OUTPUT

    open5gs: mongoimport --db open5gs --collection subscribers OUTPUT

    free5gc: each line is the body of a POST to /api/subscriber/<ueId>/<plmnID> of its web console

    srsran: user_db.csv of srsRAN 4G's srsepc (`db_file` in its settings)
    """
    from firstlight.roles.party.export import export as write

    count = write(directory, form.value, output_file)
    output.emit(
        {"format": form.value, "subscriptions": count, "output": output_file},
        f"Wrote {count} subscriptions to {output_file}: guard it, it holds their keys.",
    )


def _server() -> party.Server:
    from firstlight.roles.party import mno

    return mno


party.add_commands(app, party.Role(MnoSettings, mno_status, _server))
updating.add_commands(app, MnoSettings)
