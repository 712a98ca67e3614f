"""A private network and a service as others wrote them, over real processes: EAP-TLS at wired ports, and mosquitto.

Devices live in network namespaces of their own, at the end of a cable to a port of the operator's. They get
certificates for both, renew them, and lose them when they are sold on.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from firstlight.access.device.eapol_test import RadiusServer
from firstlight.access.device.eapol_tls import TlsOutcome, authenticate_tls
from firstlight.access.device.service_session import ServiceAccess, connect
from firstlight.access.ports import TlsCredentials
from firstlight.access.serving.daemons import (
    EAPOL_TEST,
    FREERADIUS,
    HOSTAPD,
    IP,
    MOSQUITTO,
    NFT,
    WPA_SUPPLICANT,
)
from firstlight.cli.cables import Cables, plugged
from firstlight.cli.demo import trade
from firstlight.cli.demo.commands import ENVIRONMENT, arguments, run
from firstlight.cli.demo.trade import Holding
from firstlight.cli.demo.world import Places, World
from firstlight.cli.processes import Family
from firstlight.enrolment.issue import certificate_name
from firstlight.errors import AccessError
from firstlight.onboarding.messages import X509Grant
from firstlight.plan.claims import PartyKind
from firstlight.roles.device.memory import StoredGrant
from firstlight.roles.owner.status import grants as owner_grants
from firstlight.stores.exchanges import GrantState
from firstlight.testing.hostapd_world import needs

LEASE = 24
PATIENCE = 180.0
SECONDS = 10.0
"""Within which credentials must have stopped working, from the sale on, with the parties' looks at the ledger in it."""
PENDING, CONFIRMED, ENDED = (state.value for state in (GrantState.PENDING, GrantState.CONFIRMED, GrantState.ENDED))


@dataclass
class Stage:
    """The world, the cables, and who holds what."""

    places: Places
    family: Family
    cables: Cables
    parties: dict[str, str]
    holding: Holding
    devices: list[Path]

    def state(self, role: str) -> Path:
        return getattr(self.places, role)

    def states(self, role: str, device: Path, origin: int | None = None) -> list[int]:
        """Return the states of a device's grants at a party, the oldest first."""
        with closing(sqlite3.connect(f"file:{self.state(role) / f'{role}.sqlite'}?mode=ro", uri=True)) as connection:
            rows = connection.execute(
                "SELECT state, origin FROM issued WHERE idx = ? ORDER BY sequence", (int(device.name),)
            ).fetchall()
        return [state for state, under in rows if origin in (None, under)]

    def connected(self, device: Path, origin: int | None = None) -> bool:
        return all(self.states(role, device, origin)[-1:] == [CONFIRMED] for role in ("mno", "sp"))

    def codes(self, role: str) -> list[str]:
        lines = (self.state(role) / "log.jsonl").read_text().splitlines()
        return [json.loads(line)["code"] for line in lines]

    @contextmanager
    def powered(self, *devices: Path) -> Iterator[None]:
        """Run devices, each in its namespace, as long as the context lasts."""
        processes = []
        try:
            for device in devices:
                cable = self.cables.cables[self.devices.index(device)]
                with (self.places.root / "output" / f"{device.name}.out").open("ab") as output:
                    processes.append(
                        subprocess.Popen(
                            cable.inside(arguments("device", "run", device, "--json")),
                            env={},
                            stdin=subprocess.DEVNULL,
                            stdout=output,
                            stderr=subprocess.STDOUT,
                        )
                    )
            yield
            assert all(one.poll() is None for one in processes)
        finally:
            for one in processes:
                if one.poll() is None:
                    one.send_signal(signal.SIGTERM)
            for one in processes:
                one.wait(PATIENCE)


def until(fact: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def open_stage(root: Path, aaa: str, count: int) -> Iterator[Stage]:
    needs(HOSTAPD, WPA_SUPPLICANT, EAPOL_TEST, MOSQUITTO, NFT, IP, *([FREERADIUS] if aaa == "freeradius" else []))
    if os.geteuid() != 0:
        pytest.skip("only root makes network namespaces and wired ports")
    short: dict[str, Any] = {"grant_seconds": LEASE, "plan_seconds": 1, "round_seconds": 1}
    settings = {"mno": {"mode": "snpn", "aaa": aaa, **short}, "sp": {"broker": "mosquitto", **short}}
    with plugged(count) as cables, Family(root / "output") as family:
        places = Places(root)
        world = World(places, family, lambda _: None, settings=settings, cables=cables)
        addresses = world.open()
        parties = dict(world.populate(addresses))
        batch = trade.manufacture(places, addresses, count, lambda _: None)
        holding = trade.sell(places, batch, lambda _: None)
        trade.choose(places, parties, holding, count, lambda _: None)
        devices = sorted(path for path in places.devices.iterdir() if path.is_dir())
        yield Stage(places, family, cables, parties, holding, devices)


@pytest.fixture(params=[pytest.param(one, marks=pytest.mark.long) for one in ("hostapd", "freeradius")])
def stage(request, tmp_path: Path) -> Iterator[Stage]:
    yield from open_stage(tmp_path, request.param, 2)


# --- a thief who has read a device's directory ---------------------------------------------------


@dataclass
class Loot:
    """A copy of a device's directory, and what stands in it."""

    directory: Path

    def newest(self, kind: PartyKind) -> tuple[StoredGrant, X509Grant]:
        stored = [StoredGrant.decode(path.read_bytes()) for path in (self.directory / "grants").glob("*.cbor")]
        found = max((one for one in stored if one.kind is kind), key=lambda one: one.number)
        assert isinstance(found.grant.body, X509Grant)
        return found, found.grant.body

    def files(self, stored: StoredGrant) -> tuple[Path, Path]:
        return (
            self.directory / "grants" / f"{stored.grant.id.hex()}.pem",
            self.directory / "operational" / f"{stored.key}.pem",
        )

    def attaches(self, stage: Stage) -> TlsOutcome:
        """Authenticate at the operator's server, as from one of its ports."""
        stored, body = self.newest(PartyKind.NETWORK)
        own = TlsCredentials(certificate_name(body.chain[0]), *self.files(stored), body.anchors, body.server)
        state = stage.state("mno")
        port = json.loads((state / "ports").read_text())["radius"]
        secret = (state / "access" / "radius.secret").read_text()
        return asyncio.run(authenticate_tls(RadiusServer("127.0.0.1", port, secret), own))

    def connects(self) -> str:
        """Connect to the broker and publish; return how that ended."""

        async def publish() -> str:
            stored, body = self.newest(PartyKind.SERVICE)
            certificate, key = self.files(stored)
            broker = urlsplit(body.broker)
            name = body.topic.split("/")[1]
            access = ServiceAccess(
                certificate, key, body.anchors, body.server, str(broker.hostname), broker.port or 0, name, body.topic
            )
            try:
                session = await connect(access)
            except AccessError as error:
                return error.code
            await session.publish(b"by the thief")
            await session.close()
            return "published"

        return asyncio.run(publish())


def test_a_fleet_attaches_by_certificate_renews_without_losing_its_port_and_is_sold_on(stage: Stage) -> None:
    sold, kept = stage.devices
    places = stage.places
    with stage.powered(sold, kept):
        until(lambda: stage.connected(sold) and stage.connected(kept), "connected to network and service")
        opened, shut = stage.codes("mno").count("port-open"), stage.codes("mno").count("port-shut")
        assert (opened >= 2, shut) == (True, 0)
        renewed = {role: len(stage.states(role, kept)) for role in ("mno", "sp")}
        until(
            lambda: stage.connected(kept) and all(len(stage.states(role, kept)) > renewed[role] for role in renewed),
            "both certificates were renewed by new exchanges",
        )
        assert stage.codes("mno").count("port-shut") == 0, "the attachment was lost"
        for role in renewed:
            *before, last = stage.states(role, kept)
            assert (set(before), last) == ({ENDED}, CONFIRMED)

        until(lambda: stage.connected(sold), "the other one too")
        loot = Loot(places.root / "loot")
        shutil.copytree(sold, loot.directory)
        _sell(stage, sold)
        began = time.monotonic()
        bought = _accept(stage)
        until(lambda: {*stage.states("mno", sold), *stage.states("sp", sold)} == {ENDED}, "the grants have ended")
        until(lambda: loot.connects() == "service-refused", "mosquitto refuses the old owner's credential", SECONDS)
        until(lambda: not loot.attaches(stage).success, "the network refuses it", SECONDS)
        assert time.monotonic() - began < 2 * SECONDS
        assert "port-shut" in stage.codes("mno"), "whoever was in is put out"
        assert {"certificate-revoked", "certificate-refused"} & set(stage.codes("sp"))

        _deploy(stage, bought)
        until(lambda: stage.connected(sold, bought), "connected for the buyer")
        until(lambda: _receipts(places.distributor, sold, bought) == {"network-attached", "service-connected"}, "told")
        until(lambda: stage.connected(kept), "the one that was kept goes on")


def _sell(stage: Stage, device: Path) -> None:
    places = stage.places
    purchase, sale = places.papers / "resale.purchase", places.papers / "resale.sale"
    run("owner", "request", places.distributor, "--out", purchase)
    words = ("--tenure", stage.holding.tenure, "--select", int(device.name), "--to", purchase, "--out", sale)
    run("owner", "sell", places.owner, *words)


def _accept(stage: Stage) -> int:
    """Let the buyer accept; return his tenure."""
    places = stage.places
    return run("owner", "accept", places.distributor, places.papers / "resale.sale").number("tenure")


def _deploy(stage: Stage, bought: int) -> None:
    """Let the buyer choose the same parties."""
    places = stage.places
    child = stage.family.start(
        "buyer", arguments("owner", "serve", places.distributor), environment=ENVIRONMENT, state_dir=places.distributor
    )
    stage.family.wait_for_endpoint(child)
    held = ("--batch", stage.holding.batch, "--tenure", bought)
    words: list[str] = []
    for kind, role in (("network", "mno"), ("service", "sp")):
        party = stage.parties[role]
        number = run("owner", "order", places.distributor, *held, "--party", party, "--devices", 1).text("order")
        run(role, "approve", stage.state(role), number)
        words += [f"--{kind}", f"{party}:{number}"]
    run("owner", "deploy", places.distributor, *held, *words)


def _receipts(place: Path, device: Path, tenure: int) -> set[str]:
    found = owner_grants(place)
    return {str(one["step"]) for one in found if (one["index"], one["tenure"]) == (int(device.name), tenure)}
