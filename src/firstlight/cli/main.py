"""The command ``firstlight``: one group of commands for each role, loaded only when it is asked for.

A group lives in ``firstlight.cli.<name>`` and offers ``app``, a :class:`typer.Typer`, or ``command``, a function, if it
is a single command. What is in :data:`GROUPS` is all there is.

``--json`` may stand anywhere; a command that declares a ``--json`` of its own gets it itself.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
import typer.main

from firstlight.cli import output
from firstlight.errors import FirstlightError


@dataclass(frozen=True, slots=True)
class Group:
    """The commands of one role: their name, and what they are for."""

    name: str
    help: str

    @property
    def module(self) -> str:
        """The module that holds them."""
        return f"firstlight.cli.{self.name}"


GROUPS = (
    Group("demo", "Watch a fleet that nobody has met come online by itself."),
    Group("consortium", "Make and keep the chain's root, witnesses and validators."),
    Group("node", "Run a ledger node, and look at the ledger."),
    Group("gateway", "Run a gateway: proofs, sealed mail, handshakes in transit."),
    Group("manufacturer", "Make devices, anchor batches, publish reference values, sell."),
    Group("owner", "Accept devices, choose network and services, watch, resell."),
    Group("mno", "Run a mobile network operator."),
    Group("sp", "Run a service provider."),
    Group("device", "Run a device, or look at one."),
    Group("light", "Judge headers by the light client's rules."),
    Group("bench", "Measure Firstlight on this machine."),
)


def root_options(
    context: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value; may stand anywhere.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Zero-touch onboarding for massive IoT: from the box to connected, with nobody in between to be trusted."""
    if json:
        output.want_json(True)
    if version:
        output.emit({"version": importlib.metadata.version("firstlight")})
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def build(chosen: str | None) -> typer.Typer:
    """Return the command line: the ``chosen`` group whole, of the others name and help only."""
    app = typer.Typer(
        name="firstlight",
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(root_options)
    for group in GROUPS:
        if group.name == chosen:
            _add(app, group)
        elif present(group):
            app.command(group.name, help=group.help)(_placeholder)
    return app


def present(group: Group) -> bool:
    """Say whether a group's module is there; it is not loaded."""
    return importlib.util.find_spec(group.module) is not None


def _placeholder() -> None:
    """Stand in for a group that was not asked for."""


def _add(app: typer.Typer, group: Group) -> None:
    if not present(group):
        return
    module = importlib.import_module(group.module)
    inner = getattr(module, "app", None)
    if isinstance(inner, typer.Typer):
        app.add_typer(inner, name=group.name, help=group.help)
    else:
        app.command(group.name, help=group.help)(module.command)


def _chosen(arguments: Sequence[str]) -> str | None:
    """Return the first word that is no option; the options before it take no values."""
    return next((word for word in arguments if not word.startswith("-")), None)


def _own_json(command: Any, arguments: Sequence[str]) -> bool:
    """Say whether the command that ``arguments`` lead to declares ``--json`` itself."""
    depth = 0
    for word in arguments:
        inner = getattr(command, "commands", {}).get(word)
        if inner is not None:
            command, depth = inner, depth + 1
    return depth > 0 and any("--json" in parameter.opts for parameter in command.params)


def _take_json(command: Any, arguments: Sequence[str]) -> list[str]:
    """Return ``arguments`` without a ``--json`` meant for all commands, which is obeyed."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    if "--json" not in arguments[:end] or _own_json(command, arguments[:end]):
        return list(arguments)
    output.want_json(True)
    return [word for word in arguments[:end] if word != "--json"] + list(arguments[end:])


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    output.want_json(False)
    try:
        command = typer.main.get_command(build(_chosen(arguments)))
        command.main(args=_take_json(command, arguments), prog_name="firstlight")
    except FirstlightError as error:
        output.print_error(error)
        return output.exit_code(error)
    except KeyboardInterrupt:
        return output.INTERRUPTED
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else output.FAILED
    return 0


def main() -> None:
    """Run ``firstlight`` with the arguments of this process."""
    sys.exit(run(sys.argv[1:]))
