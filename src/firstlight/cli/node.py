"""``firstlight node``: run a ledger node, name its witnesses, look at what it holds."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from firstlight.cli import output
from firstlight.roles.attesters import read_witnesses, write_witnesses
from firstlight.transports.endpoint import read_endpoint

app = typer.Typer(no_args_is_help=True)

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="State directory of the node.")]


class EngineChoice(StrEnum):
    """The engines that there are."""

    EMBEDDED = "embedded"
    COMETBFT = "cometbft"


@app.command()
def serve(
    directory: Directory,
    witness: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="A witness to ask; may be given several times.")
    ] = None,
    engine: Annotated[
        EngineChoice | None, typer.Option(help="Who orders transactions, whatever the settings say.")
    ] = None,
    rpc: Annotated[
        str | None,
        typer.Option(metavar="URL", help="RPC of a CometBFT that runs already; none is started."),
    ] = None,
) -> None:
    """Run the ledger node of DIR until it is told to end.

    It listens on 127.0.0.1 and writes its URL to the file `endpoint` in DIR. A ledger that another process has open is
    an error. `firstlight consortium init` makes the directory.

    With `--engine cometbft` it starts a CometBFT of its own in DIR/cometbft, watches it and starts it again when it
    ends. With `--rpc` it serves as the application of one that runs already, at the address of the setting `abci`.
    """
    from firstlight.roles.node import serve_node
    from firstlight.transports.server import run

    run(lambda: serve_node(directory, witness or (), engine=engine and engine.value, rpc=rpc))


@app.command()
def witnesses(
    directory: Directory,
    urls: Annotated[list[str] | None, typer.Argument(metavar="URL...", help="The witnesses' URLs.")] = None,
) -> None:
    """Name the witnesses that the node asks, in place of those named before.

    A node that runs takes note at once. Without URLs, the witnesses are listed.
    """
    from firstlight.roles.attesters import FILE

    path = directory / FILE
    if urls:
        write_witnesses(directory, urls)
    listed = read_witnesses(path) if path.exists() else ()
    output.emit({"witnesses": list(listed)})


@app.command()
def peer(directory: Directory) -> None:
    """Say under which address other validators reach the CometBFT of DIR: for the setting `peers` of their nodes."""
    from firstlight.roles.node import peer_address

    output.emit({"peer": peer_address(directory)})


@app.command()
def counts(directory: Directory) -> None:
    """Say how many transactions of each kind and how many records the ledger of a running node has."""
    from firstlight.transports.client import SyncClient

    with SyncClient() as client:
        output.emit(client.get_json(f"{read_endpoint(directory).url}/v1/counts"))
