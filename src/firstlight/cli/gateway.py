"""``firstlight gateway``: set up a gateway, and run it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstlight.cli import output

app = typer.Typer(no_args_is_help=True)

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="State directory of the gateway.")]
Coap = Annotated[bool, typer.Option("--coap", help="Serve over CoAP too, on the UDP port of the same number.")]


@app.command()
def init(
    directory: Directory,
    *,
    genesis: Annotated[Path, typer.Option(metavar="FILE", help="The chain's genesis.cbor.")],
    node: Annotated[str, typer.Option(metavar="URL", help="The ledger node to ask.")],
    witness: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="A witness to ask; may be given several times.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The name that mail is bound to; without it, the URL that it serves.")
    ] = None,
) -> None:
    """Set up a gateway in DIR: its settings and a copy of the chain's genesis.

    A gateway has no keys. Devices reach it under the URL that they were born with, so give it a name, or keep its port.
    """
    from firstlight.roles.gateway.server import create

    made = create(directory, genesis, node, tuple(witness or ()), name)
    output.emit({"directory": str(directory), "chain": made.chain, "node": made.node, "witnesses": made.witnesses})


@app.command()
def serve(directory: Directory, coap: Coap = False) -> None:
    """Run the gateway of DIR until it is told to end.

    It passes on proofs, sealed mail and handshake bytes. It listens on 127.0.0.1, on the port that it had the last time
    if that is free, and writes its URL to the file `endpoint` in DIR.
    """
    from firstlight.roles.gateway.server import serve_gateway
    from firstlight.transports.server import run

    run(lambda: serve_gateway(directory, coap=coap))
