"""``rotate`` and ``update`` of manufacturer, MNO and SP: what the ledger says of a party."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstlight.cli import output
from firstlight.custody.system import SystemRandom
from firstlight.errors import ConfigError, StoreError
from firstlight.roles.ledger_client import MEMORY, LedgerClient
from firstlight.settings import ManufacturerSettings, PartySettings, load

if TYPE_CHECKING:
    from firstlight.roles.updating import Updated

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The state directory.")]
Endpoints = Annotated[
    list[str] | None,
    typer.Option("--endpoint", metavar="URL", help="Where the party is reached; by default where it serves now."),
]
Kind = type[ManufacturerSettings] | type[PartySettings]


def add_commands(app: typer.Typer, kind: Kind) -> None:
    """Add ``rotate`` and, for a party that serves, ``update``."""

    @app.command()
    def rotate(directory: Directory) -> None:
        """Replace the party's signing key on the ledger by the next one, to which it committed before.

        A fresh next key is made and committed to. What a manufacturer has published is signed with the old key: publish
        it again.
        """
        from firstlight.roles.updating import rotate as rotate_key

        with _ledger(kind, directory) as ledger:
            _say(rotate_key(ledger, directory))

    if issubclass(kind, PartySettings):
        _add_update(app, kind)


def _add_update(app: typer.Typer, kind: type[PartySettings]) -> None:
    @app.command()
    def update(directory: Directory, endpoint: Endpoints = None) -> None:
        """Tell the ledger where the party is reached now; devices learn it from there."""
        from firstlight.roles.updating import update as change

        with _ledger(kind, directory) as ledger:
            _say(change(ledger, directory, tuple(endpoint or _served(directory))))


def _served(directory: Path) -> tuple[str, ...]:
    from firstlight.transports.endpoint import read_endpoint

    try:
        return read_endpoint(directory).urls
    except StoreError as error:
        raise ConfigError("not-serving", "nothing serves there now", hint="start it, or name an --endpoint") from error


def _say(done: Updated) -> None:
    output.emit(
        {
            "party": done.party,
            "revision": done.record.revision,
            "key": done.record.key,
            "endpoints": list(done.record.endpoints),
            "transaction": done.submitted.id if done.submitted else None,
            "height": done.submitted.height if done.submitted else None,
        },
        f"Party {done.party.hex()} is at revision {done.record.revision}.",
    )


def _ledger(kind: Kind, directory: Path) -> LedgerClient:
    from firstlight.roles.registration import GENESIS, read_genesis

    settings = load(kind, directory)
    genesis = read_genesis(directory / GENESIS)
    return LedgerClient(settings.node, genesis, directory / MEMORY, random=SystemRandom())
