"""``firstlight sp``: a service provider."""

from __future__ import annotations

from typing import Annotated

import typer

from firstlight.cli import party, updating
from firstlight.cli.party import Directory, Gateway, GenesisFile, Node
from firstlight.roles.party.status import sp_status
from firstlight.settings import SpSettings

app = typer.Typer(no_args_is_help=True)


@app.command()
def init(
    directory: Directory,
    *,
    genesis: GenesisFile,
    node: Node,
    gateway: Gateway = None,
    server_name: Annotated[
        str, typer.Option("--server-name", help="The DNS name in the broker's certificate, which devices check.")
    ] = "localhost",
) -> None:
    """Make the state directory of a provider: its settings, its keys, its certificate authority and broker."""
    from firstlight.roles.party.sp import init as make

    common = party.joined(genesis, node, gateway)
    settings = SpSettings(chain=common.chain, node=common.node, gateway=common.gateway, server_name=server_name)
    party.made(directory, make(settings, directory, genesis).keys.party)


def _server() -> party.Server:
    from firstlight.roles.party import sp

    return sp


party.add_commands(app, party.Role(SpSettings, sp_status, _server))
updating.add_commands(app, SpSettings)
