"""``firstlight mno``: a mobile network operator."""

from __future__ import annotations

from typing import Annotated

import typer

from firstlight.cli import party, updating
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


def _server() -> party.Server:
    from firstlight.roles.party import mno

    return mno


party.add_commands(app, party.Role(MnoSettings, mno_status, _server))
updating.add_commands(app, MnoSettings)
