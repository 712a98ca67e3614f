"""``firstlight mno``: a mobile network operator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from firstlight.cli import party
from firstlight.cli.party import Directory, Gateway, GenesisFile, Node
from firstlight.roles.party.status import MnoStatus, mno_status
from firstlight.settings import MnoSettings
from firstlight.stores.exchanges import ExchangeStore

app = typer.Typer(no_args_is_help=True)


class Mno:
    """The operator behind the shared commands."""

    kind = MnoSettings

    def exchanges(self, database: Path) -> ExchangeStore:
        """Open its exchanges."""
        from firstlight.roles.party.mno import open_exchanges

        return open_exchanges(database)

    async def serve(
        self, directory: Path, *, ready: Callable[[str], None], quiet: bool, workers: int | None = None
    ) -> None:
        """Run it."""
        from firstlight.roles.party.mno import serve

        await serve(directory, ready=ready, quiet=quiet, workers=workers)

    def status(self, directory: Path) -> MnoStatus:
        """Return where it stands."""
        return mno_status(directory)


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


party.add_commands(app, Mno())
