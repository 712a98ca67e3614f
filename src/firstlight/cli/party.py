"""What ``firstlight mno`` and ``firstlight sp`` have in common: register, serve, orders, approve, status."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Protocol

import typer

from firstlight.cli import output
from firstlight.custody.system import SystemClock
from firstlight.files import write_atomic
from firstlight.roles.party.status import MnoStatus, SpStatus, database_of, grant_rows
from firstlight.roles.workplace import identifier_of, plain_url
from firstlight.settings import PartySettings, load
from firstlight.stores.exchanges import ExchangeStore

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The state directory.")]
GenesisFile = Annotated[
    Path, typer.Option("--genesis", metavar="FILE", help="The chain's genesis file, as the consortium gave it out.")
]
Node = Annotated[str, typer.Option("--node", metavar="URL", help="The ledger node to ask; it is not believed.")]
Gateway = Annotated[
    str | None,
    typer.Option("--gateway", metavar="URL", help="The gateway that reference values are fetched from, by hash."),
]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write the request.")]
Number = Annotated[str, typer.Argument(metavar="ORDER", help="The order's number, 32 hexadecimal digits.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Write the log to its file only, not to stderr as well.")]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, max=64, help="How many processes answer devices, for the setting of that name."),
]
Coap = Annotated[bool, typer.Option("--coap", help="Serve over CoAP too, on the UDP port of the same number.")]
Grants = Annotated[bool, typer.Option("--grants", help="List every grant too: its id, its state, its first use.")]
AlarmBatch = Annotated[str, typer.Argument(metavar="BATCH", help="The batch, 32 hexadecimal digits.")]
AlarmIndex = Annotated[int, typer.Argument(metavar="INDEX", min=0, help="The device's index in the batch.")]
AlarmTenure = Annotated[int, typer.Argument(metavar="TENURE", min=1, help="The owner's tenure, by its origin.")]
SECOND = 1_000_000_000


class Server(Protocol):
    """What the module of a role offers."""

    def open_exchanges(self, database: Path) -> ExchangeStore:
        """Open the role's exchanges."""
        ...

    async def serve(
        self,
        state_dir: Path,
        *,
        ready: Callable[[str], None],
        quiet: bool = False,
        workers: int | None = None,
        coap: bool = False,
    ) -> None:
        """Run the server."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Role:
    """What differs between the two: the settings, where the role stands, and its module, loaded when it is needed."""

    kind: type[PartySettings]
    status: Callable[[Path], MnoStatus | SpStatus]
    server: Callable[[], Server]

    def database(self, directory: Path) -> Path:
        """Return where the role's database is, or raise if DIR is no directory of its."""
        load(self.kind, directory)
        return database_of(self.kind, directory)

    def exchanges(self, directory: Path) -> ExchangeStore:
        """Open what is in that database."""
        return self.server().open_exchanges(self.database(directory))


@dataclasses.dataclass(frozen=True, slots=True)
class Joined:
    """The settings that whoever joins has in common."""

    chain: str
    node: str
    gateway: str | None


def joined(genesis: Path, node: str, gateway: str | None) -> Joined:
    """Return the common settings of a party that joins the chain of a genesis file."""
    from firstlight.roles.registration import read_genesis

    chain = read_genesis(genesis).chain
    return Joined(chain, plain_url(node), None if gateway is None else plain_url(gateway))


def made(directory: Path, party: bytes) -> None:
    """Say that a state directory has been made."""
    output.emit({"party": party, "directory": directory}, f"Made {directory} for party {party.hex()}.")


def add_commands(app: typer.Typer, role: Role) -> None:
    """Add the commands of ``role`` to ``app``."""
    _add_register(app, role)
    _add_serve(app, role)
    _add_orders(app, role)
    _add_status(app, role)
    _add_alarms(app, role)


def _add_register(app: typer.Typer, role: Role) -> None:
    @app.command()
    def register(directory: Directory, out: Out) -> None:
        """Write the request to be registered on the ledger, for a member of the consortium to endorse and submit.

        It names where the server of DIR listens, so start that first; a restart keeps its ports. The server writes such
        a request to the file `registration` in DIR by itself.
        """
        from firstlight.roles.party.place import request
        from firstlight.roles.registration import party_of

        write_atomic(out, request(role.kind, directory), 0o644)
        output.emit({"party": party_of(directory), "request": out}, f"Give {out} to a member of the consortium.")


def _add_serve(app: typer.Typer, role: Role) -> None:
    @app.command()
    def serve(directory: Directory, quiet: Quiet = False, workers: Workers = None, coap: Coap = False) -> None:
        """Run the server of DIR until it is told to end (SIGTERM or Ctrl-C).

        It listens on 127.0.0.1 and writes its URL to the file `endpoint` in DIR. If the party is not registered yet, it
        writes the request to `registration` in DIR, for a member of the consortium; once it is, it tells the ledger by
        itself when it serves elsewhere than before, but leaves endpoints alone that were named by hand. Its log is JSON
        lines, in `log.jsonl` in DIR and on stderr; no key, plan or IMSI stands in it.
        """
        from firstlight.custody.memory import guard_memory
        from firstlight.transports.server import run

        guard_memory()

        def ready(url: str) -> None:
            output.emit({"url": url, "pid": os.getpid()}, f"ready: {role.kind.ROLE} at {url}")

        run(lambda: role.server().serve(directory, ready=ready, quiet=quiet, workers=workers, coap=coap))


def _add_orders(app: typer.Typer, role: Role) -> None:
    @app.command()
    def orders(directory: Directory) -> None:
        """List the orders that owners have placed: those that wait for approval, then those that count."""
        from firstlight.roles.party.orders import listed
        from firstlight.stores.pending_orders import PendingOrders

        database = role.database(directory)
        pending, exchanges = PendingOrders.open(database), role.server().open_exchanges(database)
        columns = ("order", "state", "batch", "tenure", "devices", "used", "until")
        rows = [
            {
                "order": one.order.number,
                "state": one.state,
                "batch": one.order.batch,
                "tenure": one.order.origin,
                "devices": one.order.devices,
                "used": one.used,
                "until": _day(one.order.until),
            }
            for one in listed(pending, exchanges)
        ]
        output.emit_rows(rows, columns)

    @app.command()
    def approve(directory: Directory, order: Number) -> None:
        """Approve an order, so that its devices are served from now on; the running server takes note at once."""
        from firstlight.roles.party.orders import approve as let_count
        from firstlight.stores.pending_orders import PendingOrders

        number = identifier_of(order, "order")
        database = role.database(directory)
        approved = let_count(number, PendingOrders.open(database), role.server().open_exchanges(database))
        output.emit(
            {"order": number, "state": approved.state, "devices": approved.order.devices},
            f"Order {number.hex()} counts: {approved.order.devices} devices until {_day(approved.order.until)}.",
        )


def _add_status(app: typer.Typer, role: Role) -> None:
    @app.command()
    def status(directory: Directory, grants: Grants = False) -> None:
        """Say how many devices came how far, by this party's own records. The server may run or not."""
        role.database(directory)
        found = role.status(directory)
        shown: dict[str, object] = {
            field.name: getattr(found, field.name) for field in dataclasses.fields(found) if field.name != "heard"
        }
        if grants:
            rows = grant_rows(role.kind, directory)
            shown["grants"] = [
                {"grant": one.grant.hex(), "state": one.state, "confirmed": one.confirmed} for one in rows
            ]
        output.emit(shown)


def _add_alarms(app: typer.Typer, role: Role) -> None:
    @app.command()
    def alarms(directory: Directory) -> None:
        """List the clone alarms that stand: two devices seem to share one birth credential, or one was wiped.

        Such a device gets no new grants; those that it has go on.
        """
        exchanges = role.exchanges(directory)
        rows = [
            {"batch": one.batch, "index": one.index, "tenure": one.origin, "raised": _day(one.raised_ns // SECOND)}
            for one in exchanges.alarms()
        ]
        output.emit_rows(rows, ("batch", "index", "tenure", "raised"))

    @app.command("clear-alarm")
    def clear_alarm(directory: Directory, batch: AlarmBatch, index: AlarmIndex, tenure: AlarmTenure) -> None:
        """Clear a clone alarm, when the owner has said that the device is the only one and may start anew."""
        named = identifier_of(batch, "batch")
        exchanges = role.exchanges(directory)
        exchanges.clear_alarm(named, index, tenure, SystemClock().now())
        output.emit(
            {"batch": named, "index": index, "tenure": tenure, "state": "cleared"},
            f"Cleared: device {index} of batch {named.hex()} may be granted again.",
        )


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
