"""``firstlight consortium``: make a chain, endorse parties, run witnesses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstlight.cli import governance, output
from firstlight.custody.system import SystemClock
from firstlight.settings import ConsortiumSettings

app = typer.Typer(no_args_is_help=True)
governance.add_commands(app)

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="State directory of the consortium.")]


@app.command()
def init(
    directory: Directory,
    *,
    chain: Annotated[str, typer.Option(metavar="ID", help="The new chain's id: lower-case letters, digits, . and -")],
    members: Annotated[int, typer.Option(min=1, max=16, help="Number of members; each has a root key.")] = 3,
    threshold: Annotated[int, typer.Option(min=1, max=16, help="Root keys that must sign a new root or epoch.")] = 2,
    witnesses: Annotated[int, typer.Option(min=1, max=16, help="Number of witnesses.")] = 3,
    witness_threshold: Annotated[int, typer.Option(min=1, max=16, help="Witnesses that a device asks for.")] = 2,
) -> None:
    """Make a new chain in DIR: root, validator and witness keys, the statements that they sign, and genesis.cbor.

    DIR/node is then ready for `firstlight node serve`, DIR/witness-1 and so on for `firstlight consortium witness`.
    Everybody who joins needs a copy of genesis.cbor. All private keys are readable by their owner only; in a
    consortium that is more than a trial, move each to the machine where it is used.
    """
    from firstlight.roles import consortium

    settings = ConsortiumSettings(
        chain=chain,
        members=members,
        root_threshold=threshold,
        witnesses=witnesses,
        witness_threshold=witness_threshold,
    )
    made = consortium.create(directory, settings, SystemClock())
    output.emit(
        {
            "chain": made.genesis.chain,
            "genesis": str(directory / consortium.GENESIS),
            "node": str(made.node),
            "witnesses": [str(one) for one in made.witnesses],
        }
    )


@app.command()
def endorse(
    directory: Directory,
    request: Annotated[Path, typer.Argument(metavar="REQUEST", help="A party's request to be registered.")],
    member: Annotated[int, typer.Option(min=1, help="Which member endorses: the number of the root key.")] = 1,
    node: Annotated[str | None, typer.Option(metavar="URL", help="The node to submit to.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the transaction here as well.")] = None,
) -> None:
    """Add a member's signature to a party's request to be registered, and submit it.

    Without --node nothing is submitted; --out keeps the transaction for somebody who does.
    """
    from firstlight.files import write_atomic
    from firstlight.roles import consortium
    from firstlight.roles.wire import TransactionAnswer
    from firstlight.transports.client import SyncClient

    endorsed = consortium.endorse(directory, request, member=member)
    answer: dict[str, object] = {"party": endorsed.party, "transaction": endorsed.id, "submitted": node is not None}
    if out is not None:
        write_atomic(out, endorsed.transaction)
    if node is not None:
        with SyncClient() as client:
            body = client.post(f"{node.rstrip('/')}/v1/transactions", endorsed.transaction, retries=2)
        answer["height"] = TransactionAnswer.decode(body).height
    output.emit(answer)


@app.command()
def witness(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="State directory of one witness.")],
    node: Annotated[str | None, typer.Option(metavar="URL", help="The node that it follows.")] = None,
) -> None:
    """Run the witness of DIR until it is told to end.

    It follows a node, verifies every header itself, and signs which one is the newest over the nonces of those who ask.
    It listens on 127.0.0.1 and writes its URL to the file `endpoint` in DIR.
    """
    from firstlight.roles.witness import serve_witness
    from firstlight.transports.server import run

    run(lambda: serve_witness(directory, node))
