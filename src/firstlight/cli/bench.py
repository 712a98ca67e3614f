"""``firstlight bench``: measure Firstlight on this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from firstlight.bench import access
from firstlight.bench import onboarding as exchanges
from firstlight.bench.ledger import GOAL_DEVICES, keep, run
from firstlight.bench.scene import Scale
from firstlight.cli import output
from firstlight.cli.demo import trade
from firstlight.cli.demo.world import Places, World
from firstlight.cli.processes import Family

app = typer.Typer(no_args_is_help=True)
_UNBOUNDED = {"begins_per_source": 1_000_000, "begins_per_second": 1_000_000}
"""The load comes from one address, faster than a party would let it."""


KeepBaseline = Annotated[
    Path | None, typer.Option("--keep-baseline", help="Also write the figures to this file, as JSON.")
]
Directory = Annotated[
    Path | None,
    typer.Option("--directory", help="Where to work, on a real disk; by default where temporary files go."),
]


@app.callback()
def group() -> None:
    """Measure Firstlight on this machine."""


@app.command()
def ledger(
    devices: Annotated[
        int, typer.Option("--devices", min=64, max=2_000_000, help="Devices in the batch; goals are for the default.")
    ] = GOAL_DEVICES,
    keep_baseline: KeepBaseline = None,
    directory: Directory = None,
) -> None:
    """Measure the embedded ledger through its real engine on a real file, every commit durable (FULL sync).

    Each stage is a fresh process. Names keep their 1m and 100k with another --devices; 100k is one device in ten.

    anchor_1m_seconds: devices' public keys read from a file, salts derived, leaf inputs, leaves tree, anchor_batch
    built, committed, durable. Keys are not made nor points checked here: that is done when a device is made.

    anchor_peak_mib: the most memory the whole process that did it ever held (VmHWM), interpreter and ledger included.

    sell_1m_contiguous_ms: an offer of the whole batch, from its bytes to durable with its proof checked; median of 9.

    sell_100k_random_ms: an offer of a tenth of the batch, picked at random, likewise; median of 3 different picks.

    accept_ms: the slower of accepting the one and the other, likewise.

    restart_seconds: from starting a new process, on the file that another left without closing it, to a proof bundle
    that verifies; the interpreter's own start is included.

    proof_bundle_bytes: all that a device is sent on its first day: header, commit, validators, epoch, two witnesses
    over its nonce, governance, batch, tenures and three parties with one multiproof over 1,000 records, and the
    longest ownership path there is (20 levels). Median of 200 devices with different parties.

    device_verify_ms: parse and verify such a bundle, no P-256 key loaded before; median of 1,000.
    """
    report = run(Scale(devices=devices), directory or Path(tempfile.gettempdir()), output.note)
    if keep_baseline is not None:
        keep(report, keep_baseline)
    output.emit(report.values(), report.text())


@app.command()
def onboarding(
    devices: Annotated[
        int, typer.Option("--devices", min=64, max=100_000, help="Devices a leg; goals are for 2,000 and more.")
    ] = exchanges.FEWEST,
    keep_baseline: KeepBaseline = None,
    directory: Directory = None,
) -> None:
    """Measure what a device's exchange costs an MNO (network leg) and an SP (service leg), in a whole world.

    Node, witnesses, gateway, MNO and SP run as in the demo; devices are made, sold and deployed, and each onboards
    once: no message comes twice. A name without a leg is the worse of both.

    core_ratio: the responder's CPU time from bytes in to bytes out, over the crypto floor, its stores and its view of
    the ledger in memory; each exchange is decided alone.

    core_round_ratio: the same where exchanges that come together are decided in rounds, as the server decides them.

    ratio: the server process's CPU time, with all threads and workers, by its process id, over the floor: one TCP
    connection a leg, state sealed between its two requests, fresh views of the ledger, a durable commit before the
    answer. The load is another process, and comes from one address; the setting that bounds that is raised.

    legs_per_second_per_core_service, legs_per_second_per_core_network: legs in a second of the server's CPU time.

    bytes_up, bytes_down, message_3_bytes: bodies of a leg, and the longest message 3.

    floor_ms: 1 key generation, 3 ECDH, 3 point decompressions, 1 signature check; for the service leg one check and
    one signature more. Timed beside both measurements on new inputs; the lower one counts.
    """
    with (
        tempfile.TemporaryDirectory(prefix="firstlight-bench-", dir=directory, ignore_cleanup_errors=True) as name,
        Family(Path(name) / "output") as family,
    ):
        site = _site(Places(Path(name)), family, exchanges.needed(devices))
        report = exchanges.measure(site, devices, Path(name), output.note)
    if keep_baseline is not None:
        exchanges.keep(report, keep_baseline)
    output.emit(report.values(), report.text())


@app.command("access")
def measure_access(
    devices: Annotated[
        int, typer.Option("--devices", min=1, max=10_000, help="Devices that attach, with each authentication centre.")
    ] = access.DEVICES,
    vectors: Annotated[
        int, typer.Option("--vectors", min=access.ASKING, max=1_000_000, help="Vectors; the goal is for 1,000 or more.")
    ] = access.VECTORS,
    keep_baseline: Annotated[
        Path | None, typer.Option("--keep-baseline", help="Also write the figures to this file, as JSON.")
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option("--directory", help="Where to work, on a real disk; by default where temporary files go."),
    ] = None,
) -> None:
    """Measure network access by third-party programs (Debian: hostapd, eapoltest, osmo-hlr); as root.

    The operator is a process of its own, put together as `mno serve` does it, on real files. Each device is an
    eapol_test process that authenticates with EAP-AKA' through hostapd for the first time, four at a time.

    attaches_per_second_own: with our own authentication centre. Supplicants, their cards and all servers share the
    machine.

    attaches_per_second_hlr: with osmo-hlr, which keeps the keys and makes the vectors.

    vector_cpu_ms: CPU time of the operator's process, with all threads, for one vector of its own, asked for over the
    UNIX socket that hostapd asks at, 32 at a time; each has used up its sequence number durably.

    vector_cpu_ms_hlr: the same for a vector of osmo-hlr's, that one's own time included.
    """
    with tempfile.TemporaryDirectory(prefix="fl-bench-", dir=directory, ignore_cleanup_errors=True) as name:
        report = access.measure(Path(name), devices, vectors, output.note)
    if keep_baseline is not None:
        access.keep(report, keep_baseline)
    output.emit(report.values(), report.text())


def _site(places: Places, family: Family, count: int) -> exchanges.Site:
    """Open a world with ``count`` devices whose owner has chosen an operator and a provider."""
    world = World(places, family, output.note, settings={"mno": _UNBOUNDED, "sp": _UNBOUNDED})
    addresses = world.open()
    parties = world.populate(addresses)
    batch = trade.manufacture(places, addresses, count, output.note)
    trade.choose(places, parties, trade.sell(places, batch, output.note), count, output.note)
    pids = {child.name: child.pid for child in family.children}
    return exchanges.Site(places.devices, places.mno, pids["mno"], places.sp, pids["sp"])
