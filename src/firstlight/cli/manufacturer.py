"""``firstlight manufacturer``: make devices, anchor batches, publish reference values, sell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstlight.attestation.evidence import Measurement
from firstlight.cli import output, updating
from firstlight.cli.trade import (
    Batch,
    Directory,
    Gateways,
    Genesis,
    Node,
    add_selling,
    batch_of,
    gateways_of,
    progress,
)
from firstlight.errors import ConfigError
from firstlight.files import write_atomic
from firstlight.ledger.records import RevocationKind, Role
from firstlight.roles import registration
from firstlight.roles.manufacturer.anchor import anchor as anchor_batch
from firstlight.roles.manufacturer.anchor import choose
from firstlight.roles.manufacturer.make import Make
from firstlight.roles.manufacturer.make import make as make_devices
from firstlight.roles.manufacturer.references import publish as publish_set
from firstlight.roles.manufacturer.references import revoke_hash, revoke_set
from firstlight.roles.measure import COMPONENT, SECURITY_VERSION, measured
from firstlight.roles.workplace import Workplace, identifier_of, make_workplace, open_workplace
from firstlight.settings import ManufacturerSettings

app = typer.Typer(no_args_is_help=True)
updating.add_commands(app, ManufacturerSettings)
Model = Annotated[str | None, typer.Option("--model", help="The hardware model; by default that of the settings.")]


def _open(directory: Path) -> Workplace:
    return open_workplace(ManufacturerSettings, directory)


def _model(place: Workplace, named: str | None) -> bytes:
    settings = place.settings
    text = named or (settings.model if isinstance(settings, ManufacturerSettings) else "")
    if not (text.isascii() and text.isprintable() and 1 <= len(text) <= 32):
        raise ConfigError("bad-model", f"{text!r:.60} is no model", hint="1 to 32 printable ASCII characters")
    return text.encode()


@app.command()
def init(directory: Directory, genesis: Genesis, node: Node, gateway: Gateways = None) -> None:
    """Make a manufacturer's state directory: settings, the chain's genesis, and the party's keys."""
    place = make_workplace(ManufacturerSettings, directory, genesis=genesis, node=node, gateways=tuple(gateway or ()))
    keys = registration.create(directory, agreement=False)
    output.emit({"party": keys.party, "chain": place.chain, "directory": directory}, f"Party {keys.party.hex()}")


@app.command()
def register(
    directory: Directory,
    out: Annotated[Path, typer.Option("--out", help="Where to write the request, for a member to endorse.")],
) -> None:
    """Write the request to be registered on the ledger; a member of the consortium endorses and submits it."""
    place = _open(directory)
    keys = registration.load(directory)
    write_atomic(out, registration.request(keys, [Role.MANUFACTURER], chain=place.chain), 0o644)
    output.emit({"party": keys.party, "request": out}, f"Give {out} to a member of the consortium.")


@app.command()
def make(
    directory: Directory,
    *,
    count: Annotated[int, typer.Option("--count", min=1, max=2**32 - 1, help="How many devices.")],
    out: Annotated[Path, typer.Option("--out", help="Directory that gets one directory for each device.")],
    model: Model = None,
    gateway: Gateways = None,
) -> None:
    """Make devices: keys and birth credentials, as a factory burns them in. An interrupted run goes on."""
    place = _open(directory)
    asked = Make(count, _model(place, model), out, gateways_of(place, gateway))
    with progress("making devices", 2 * count) as advance:
        made = make_devices(place, asked, advance)
    output.emit(
        {"batch": made.batch, "devices": made.size, "model": made.model.decode(), "directory": out},
        f"Made {made.size} devices in {out}: batch {made.batch.hex()}",
    )


@app.command()
def anchor(directory: Directory, batch: Batch = None) -> None:
    """Anchor a batch on the ledger, in one transaction whatever its size; its devices are tenure 1 then."""
    place = _open(directory)
    done = anchor_batch(place, choose(place, batch_of(batch)))
    output.emit(
        {
            "batch": done.made.batch,
            "tenure": 1,
            "devices": done.made.size,
            "transaction": done.submitted.id,
            "height": done.submitted.height,
        },
        f"Batch {done.made.batch.hex()} is on the ledger: {done.made.size} devices.",
    )


@app.command()
def publish(
    directory: Directory,
    *,
    model: Model = None,
    svn: Annotated[int | None, typer.Option("--svn", min=0, help="Lowest security version that will do.")] = None,
    firmware_digest: Annotated[
        str | None,
        typer.Option("--firmware-digest", help="SHA-256 of the firmware; by default of the software installed here."),
    ] = None,
    gateway: Gateways = None,
) -> None:
    """Publish what a model's firmware must measure to: its hash on the ledger, its body at the gateways."""
    place = _open(directory)
    digest = identifier_of(firmware_digest, "SHA-256", 32) if firmware_digest else measured().digest
    measurement = Measurement(COMPONENT, digest, SECURITY_VERSION if svn is None else svn)
    done = publish_set(place, _model(place, model), measurement, gateways_of(place, gateway))
    output.emit(
        {
            "reference": done.identifier,
            "digest": done.digest,
            "firmware": digest,
            "svn": measurement.svn,
            "transaction": done.submitted.id if done.submitted else None,
            "gateways": list(done.gateways),
        },
        f"Reference values {done.identifier.hex()} are published.",
    )


@app.command()
def revoke(
    directory: Directory,
    *,
    reference: Annotated[str | None, typer.Option("--reference", help="Id of a set of reference values.")] = None,
    model: Model = None,
    firmware: Annotated[str | None, typer.Option("--firmware", help="SHA-256 of a firmware.")] = None,
    signer: Annotated[str | None, typer.Option("--signer", help="SHA-256 of a signer's key.")] = None,
    device_ca: Annotated[str | None, typer.Option("--device-ca", help="SHA-256 of a device CA.")] = None,
    vendor_root: Annotated[str | None, typer.Option("--vendor-root", help="SHA-256 of a vendor's root.")] = None,
) -> None:
    """Revoke one thing: a set of reference values, or a firmware, signer, device CA or vendor root by its hash."""
    place = _open(directory)
    hashes = {
        RevocationKind.FIRMWARE: firmware,
        RevocationKind.SIGNER: signer,
        RevocationKind.DEVICE_CA: device_ca,
        RevocationKind.VENDOR_ROOT: vendor_root,
    }
    named = [(kind, text) for kind, text in hashes.items() if text is not None]
    if len(named) + (reference is not None) != 1:
        raise ConfigError("wrong-target", f"{len(named)} things are named", hint="name exactly one thing to revoke")
    if reference is not None:
        done = revoke_set(place, _model(place, model), identifier_of(reference, "reference id"))
    else:
        kind, text = named[0]
        done = revoke_hash(place, kind, identifier_of(text, "SHA-256", 32))
    output.emit({"transaction": done.id, "height": done.height}, "Revoked.")


add_selling(app, _open, lambda _place, _batch, _tenure: 1)
