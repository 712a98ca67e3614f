"""``firstlight sp``: a service provider."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from firstlight.cli import party
from firstlight.cli.party import Directory, Gateway, GenesisFile, Node
from firstlight.roles.party.status import SpStatus, sp_status
from firstlight.settings import SpSettings
from firstlight.stores.exchanges import ExchangeStore

app = typer.Typer(no_args_is_help=True)


class Sp:
    """The provider behind the shared commands."""

    kind = SpSettings

    def exchanges(self, database: Path) -> ExchangeStore:
        """Open its exchanges."""
        from firstlight.roles.party.sp import open_exchanges

        return open_exchanges(database)

    async def serve(
        self, directory: Path, *, ready: Callable[[str], None], quiet: bool, workers: int | None = None
    ) -> None:
        """Run it."""
        from firstlight.roles.party.sp import serve

        await serve(directory, ready=ready, quiet=quiet, workers=workers)

    def status(self, directory: Path) -> SpStatus:
        """Return where it stands."""
        return sp_status(directory)


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


party.add_commands(app, Sp())
