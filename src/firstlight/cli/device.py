"""``firstlight device …``: give devices power, or look at one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from firstlight.cli import output
from firstlight.errors import ConfigError
from firstlight.roles.device import look
from firstlight.roles.device.run import Plan, directories, one_directory, run
from firstlight.roles.device.tools import Event, Stage

app = typer.Typer(no_args_is_help=True, help="Run a device, or look at one.")

Once = Annotated[bool, typer.Option("--once", help="Exit with 0 as soon as everything is connected.")]
Seconds = Annotated[
    float | None, typer.Option("--for", min=0.0, metavar="SECONDS", help="Stop after so many seconds at the latest.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for each stage.")]
_WORDS = {
    Stage.STARTED: "has power",
    Stage.DISCOVERED: "knows its owner's plan",
    Stage.NETWORK_GRANTED: "has a subscription",
    Stage.ATTACHED: "is on the network",
    Stage.SERVICE_GRANTED: "has a certificate",
    Stage.CONNECTED: "is connected to its service",
    Stage.WAITING: "waits and tries again",
    Stage.STOPPED: "has stopped",
    Stage.FAILED: "cannot run",
}


@app.command("run")
def run_one(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The device's directory.")],
    once: Once = False,
    seconds: Seconds = None,
    json: Json = False,
) -> None:
    """Give one device power. It goes on from whatever its directory holds, until SIGTERM."""
    _run([one_directory(directory)], once, seconds, json)


@app.command()
def fleet(
    places: Annotated[
        list[Path] | None, typer.Argument(metavar="DIR...", help="Device directories, or directories that hold them.")
    ] = None,
    from_file: Annotated[
        Path | None, typer.Option("--from-file", metavar="FILE", help="Read directories from a file, one a line.")
    ] = None,
    once: Once = False,
    seconds: Seconds = None,
    json: Json = False,
) -> None:
    """Give up to 64 devices power in one process; each has its own directory, and fails alone."""
    _run(directories([*(places or []), *_listed(from_file)]), once, seconds, json)


@app.command()
def show(directory: Annotated[Path, typer.Argument(metavar="DIR", help="The device's directory.")]) -> None:
    """Show what a device remembers, without its secrets. It must not be running."""
    output.emit(look.summary(directory))


def _run(places: list[Path], once: bool, seconds: float | None, as_json: bool) -> None:
    well = run(places, Plan(once, seconds), _print_json if as_json else _print)
    if not well:
        raise typer.Exit(output.FAILED)


def _print(event: Event) -> None:
    reason = f" ({event.code})" if event.code else ""
    sys.stdout.write(f"{event.device} {_WORDS[event.stage]}{reason}\n")
    sys.stdout.flush()


def _print_json(event: Event) -> None:
    line = {"device": event.device, "stage": event.stage.value}
    sys.stdout.write(json.dumps(line | {"code": event.code} if event.code else line) + "\n")
    sys.stdout.flush()


def _listed(file: Path | None) -> list[Path]:
    if file is None:
        return []
    try:
        return [Path(line) for line in file.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("bad-list", f"{file}: {error}") from error
