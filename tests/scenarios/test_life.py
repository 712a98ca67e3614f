"""Life after onboarding, over real processes: leases, new plans, resale, freezing, revoked firmware, clones.

Grants live for seconds here, so that devices renew them while a test watches. Each test takes devices of its own;
what became of them is read at the parties and at their owner.
"""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from firstlight.cli.demo.commands import ENVIRONMENT, arguments, run
from firstlight.cli.demo.world import change_settings
from firstlight.cli.processes import Family
from firstlight.roles.owner.status import grants as owner_grants
from firstlight.stores.exchanges import GrantState
from firstlight.testing.lab import Lab, open_lab

pytestmark = pytest.mark.long

LEASE = 24
PATIENCE = 240.0
SHORT = {"grant_seconds": LEASE, "plan_seconds": 1, "round_seconds": 1}
PENDING, CONFIRMED, ENDED = (state.value for state in (GrantState.PENDING, GrantState.CONFIRMED, GrantState.ENDED))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    root = tmp_path_factory.mktemp("life")
    with Family(root / "output") as family:
        yield from open_lab(root, family, devices=12, settings={"mno": SHORT, "sp": SHORT})


class Told:
    """What devices have printed by now."""

    def __init__(self, output: Path) -> None:
        self._output = output

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._output.read_text().splitlines(keepends=True) if line[-1] == "\n"]

    def codes(self) -> list[str]:
        return [line["code"] for line in self.read() if "code" in line]

    def stages(self) -> list[str]:
        return [line["stage"] for line in self.read()]


@contextmanager
def powered(*devices: Path) -> Iterator[Told]:
    """Run devices in one process as long as the context lasts; give what they print, line by line, as it comes."""
    output = devices[0].parent.parent / "output" / f"life-{time.monotonic_ns()}.out"
    with output.open("wb") as file:
        process = subprocess.Popen(
            arguments("device", "fleet", *devices, "--json"), env={}, stdin=subprocess.DEVNULL, stdout=file
        )
        try:
            yield Told(output)
            assert process.poll() is None, output.read_text()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)


def until(fact: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def states(lab: Lab, role: str, device: Path, origin: int | None = None) -> list[int]:
    """Return the states of a device's grants at a party, the oldest first."""
    rows = lab.query(role, "SELECT state, origin FROM issued WHERE idx = ? ORDER BY sequence", int(device.name))
    return [state for state, under in rows if origin in (None, under)]


def connected(lab: Lab, device: Path, origin: int | None = None) -> bool:
    """Say whether a device has been confirmed at both parties by its newest grants."""
    return all(states(lab, role, device, origin)[-1:] == [CONFIRMED] for role in ("mno", "sp"))


def told(lab: Lab, place: Path, device: Path) -> list[dict[str, Any]]:
    """Return what parties tell the owner in ``place`` of a device, for each order under which it was granted anything.

    Each line says whose it is (``role``, ``party``) beside what the party says.
    """
    parties = run("owner", "status", place, "--devices").values["parties"]
    assert {one["error"] for one in parties if one["party"] in lab.parties.values()} == {None}
    return [
        {**line, "role": one["role"], "party": one["party"]}
        for one in parties
        for line in one.get("lines", ())
        if line["index"] == int(device.name) and line["grants"]
    ]


def at_both(lab: Lab, place: Path, device: Path, *keys: str) -> list[tuple[object, ...]]:
    """Return what the operator and the service say of a device, key by key."""
    lines = told(lab, place, device)
    assert sorted(line["role"] for line in lines) == ["mno", "sp"], lines
    return [tuple(line[key] for key in keys) for line in lines]


def receipts(place: Path, device: Path) -> list[tuple[int, int, str]]:
    """Return tenure, plan revision and step of all that the owner knows from a device."""
    return [
        (int(str(one["tenure"])), int(str(one["revision"])), str(one["step"]))
        for one in owner_grants(place)
        if one["index"] == int(device.name)
    ]


def refusals(place: Path, device: Path) -> list[str]:
    """Return the codes of the refusals that the owner has read of in a device's receipts."""
    found = [one for one in owner_grants(place) if one["index"] == int(device.name) and one["step"] == "refused"]
    assert all(one["grant"] == bytes(16) for one in found)
    return [str(one["code"]) for one in found]


def test_leases_are_renewed_before_they_end_and_nobody_is_cut_off(lab: Lab) -> None:
    device = lab.device()
    with powered(device) as said:
        until(lambda: connected(lab, device), "connected")
        until(
            lambda: (
                len(states(lab, "mno", device)) >= 3 and len(states(lab, "sp", device)) >= 3 and connected(lab, device)
            ),
            "two renewals with each party",
        )
        assert "waiting" not in said.stages(), said.codes()
    for role in ("mno", "sp"):
        *before, last = states(lab, role, device)
        assert (set(before), last) == ({ENDED}, CONFIRMED)
    until(lambda: len(receipts(lab.places.owner, device)) >= 6, "a receipt for each grant that was used")
    assert at_both(lab, lab.places.owner, device, "holds", "because") == [("confirmed", "superseded")] * 2
    for line in told(lab, lab.places.owner, device):
        assert line["grants"] >= 3
        assert line["first_use"] < line["last_use"] < line["expires"]
        assert line["ended"] is not None
        assert (line["refused"], line["alarm"]) == (None, None)


def test_a_frozen_device_loses_everything_and_gets_it_back(lab: Lab) -> None:
    device, other = lab.device(), lab.device()
    with powered(device, other) as said:
        until(lambda: connected(lab, device) and connected(lab, other), "connected")
        done = run("owner", "freeze", lab.places.owner, "--select", int(device.name))
        assert done.number("devices") == 1
        until(lambda: {*states(lab, "mno", device), *states(lab, "sp", device)} == {ENDED}, "switched off")
        until(lambda: "tenure-frozen" in said.codes(), "the device knows")
        assert connected(lab, other) or PENDING in states(lab, "mno", other) + states(lab, "sp", other)
        assert at_both(lab, lab.places.owner, device, "holds", "because", "expires") == [("ended", "frozen", None)] * 2
        assert {holds for (holds,) in at_both(lab, lab.places.owner, other, "holds")} <= {"confirmed", "pending"}
        until(lambda: refusals(lab.places.owner, device) == ["tenure-frozen"], "the owner reads of it")
        assert refusals(lab.places.owner, other) == []
        before = len(receipts(lab.places.owner, device))
        run("owner", "unfreeze", lab.places.owner, "--select", int(device.name))
        until(lambda: connected(lab, device), "connected again")
        until(lambda: len(receipts(lab.places.owner, device)) >= before + 2, "the owner has read of both again")
    assert at_both(lab, lab.places.owner, device, "holds") == [("confirmed",)] * 2
    assert {line["code"] for line in said.read() if line.get("device") == other.name and "code" in line} == set()


def test_a_device_moves_to_another_operator(lab: Lab) -> None:
    device, places = lab.device(), lab.places
    with second_operator(lab) as (state, party), powered(device):
        until(lambda: connected(lab, device), "connected")
        before = states(lab, "mno", device)
        held = ("--batch", lab.holding.batch, "--tenure", lab.holding.tenure)
        chosen = [("network", party, state), ("service", lab.parties["sp"], places.sp)]
        words = []
        for kind, identifier, at in chosen:
            number = run("owner", "order", places.owner, *held, "--party", identifier, "--devices", 1).text("order")
            run(at.name.partition("-")[0], "approve", at, number)
            words += [f"--{kind}", f"{identifier}:{number}"]
        deployed = run("owner", "deploy", places.owner, *held, *words, "--select", int(device.name))
        until(lambda: _states(state, device)[-1:] == [CONFIRMED], "attached at the new operator")
        until(lambda: states(lab, "sp", device)[-1:] == [CONFIRMED], "connected to its service")
        until(lambda: set(states(lab, "mno", device)) == {ENDED}, "the old subscription is dead")
        assert len(states(lab, "mno", device)) <= len(before) + 1
        moved = deployed.number("tenure")
        until(
            lambda: (
                {step for tenure, _, step in receipts(places.owner, device) if tenure == moved}
                == {"network-attached", "service-connected"}
            ),
            "the owner has read of both",
        )
        lines = told(lab, places.owner, device)
        left = [line for line in lines if line["party"] == lab.parties["mno"]]
        assert [(line["holds"], line["because"]) for line in left] == [("ended", "plan-changed")]
        assert [line["holds"] for line in lines if line["party"] == party] == ["confirmed"]
        served_by = sorted(line["holds"] for line in lines if line["role"] == "sp")
        assert served_by == ["confirmed", "ended"], "one order is over, the other one serves"


def test_half_of_a_fleet_is_sold_on(lab: Lab) -> None:
    kept, sold = lab.device(), lab.device()
    places = lab.places
    with powered(kept, sold), buyer_listens(lab):
        until(lambda: connected(lab, kept) and connected(lab, sold), "connected")
        purchase, sale = places.papers / "resale.purchase", places.papers / "resale.sale"
        run("owner", "request", places.distributor, "--out", purchase)
        run(
            "owner",
            "sell",
            places.owner,
            "--tenure",
            lab.holding.tenure,
            "--select",
            int(sold.name),
            "--to",
            purchase,
            "--out",
            sale,
        )
        assert connected(lab, sold) or PENDING in states(lab, "mno", sold) + states(lab, "sp", sold)
        bought = run("owner", "accept", places.distributor, sale, "--transfer-delay", "1h").number("tenure")
        until(lambda: {*states(lab, "mno", sold), *states(lab, "sp", sold)} == {ENDED}, "old credentials are dead")
        held = ("--batch", lab.holding.batch, "--tenure", bought)
        words = []
        for kind, role in (("network", "mno"), ("service", "sp")):
            party = lab.parties[role]
            number = run("owner", "order", places.distributor, *held, "--party", party, "--devices", 1).text("order")
            run(role, "approve", lab.state(role), number)
            words += [f"--{kind}", f"{party}:{number}"]
        run("owner", "deploy", places.distributor, *held, *words)
        until(lambda: connected(lab, sold, bought), "connected for the buyer")
        until(
            lambda: (
                {step for tenure, _, step in receipts(places.distributor, sold) if tenure == bought}
                == {"network-attached", "service-connected"}
            ),
            "the buyer has read of both",
        )
        until(lambda: connected(lab, kept), "the other one goes on")
        assert at_both(lab, places.distributor, sold, "holds", "because") == [("confirmed", None)] * 2
        assert at_both(lab, places.owner, sold, "holds", "because", "refused") == [("ended", "sold", None)] * 2
        assert at_both(lab, places.owner, kept, "holds") == [("confirmed",)] * 2
        after = [one for one in receipts(places.owner, sold) if one[0] == bought]
        assert not after, "the seller reads nothing of what came after"
        assert refusals(places.owner, sold) == refusals(places.distributor, sold) == []


def test_a_copied_device_is_noticed_and_the_alarm_cleared(lab: Lab) -> None:
    device = lab.device()
    with powered(device):
        until(lambda: connected(lab, device), "connected")
    copy = lab.places.root / "copies" / device.name
    copy.parent.mkdir()
    shutil.copytree(device, copy)
    with powered(device):
        until(lambda: len(states(lab, "mno", device)) >= 2 and states(lab, "mno", device)[-1] == CONFIRMED, "renewed")
        with powered(copy) as said:
            until(lambda: "clone-alarm" in said.codes(), "the copy is refused")
        rows = run("mno", "alarms", lab.places.mno).values["items"]
        assert [(row["index"], row["tenure"]) for row in rows] == [(int(device.name), lab.holding.tenure)]
        (line,) = (one for one in told(lab, lab.places.owner, device) if one["role"] == "mno")
        assert line["alarm"] is not None
        assert line["holds"] == "confirmed", "an alarm stops new grants only"
        until(lambda: "clone-alarm" in refusals(lab.places.owner, device), "the owner reads of it")
        granted = len(states(lab, "mno", device))
        held = ("--batch", lab.holding.batch, "--tenure", lab.holding.tenure)
        cleared = run("owner", "clear-alarm", lab.places.owner, "--select", int(device.name), *held).values["items"]
        assert {one["role"]: (one["devices"], one["error"]) for one in cleared}["mno"] == ([int(device.name)], None)
        assert {one["role"] for one in cleared} == {"mno", "sp"}
        assert [one["alarm"] for one in told(lab, lab.places.owner, device)] == [None, None]
        until(lambda: len(states(lab, "mno", device)) > granted and connected(lab, device), "renewed again")
    assert run("mno", "alarms", lab.places.mno).values["items"] == []


def test_revoked_firmware_switches_its_devices_off(lab: Lab) -> None:
    device = lab.device()
    with powered(device) as said:
        until(lambda: connected(lab, device), "connected")
        run("manufacturer", "revoke", lab.places.manufacturer, "--firmware", lab.software.hex())
        until(lambda: {*states(lab, "mno", device), *states(lab, "sp", device)} == {ENDED}, "switched off")
        until(lambda: "firmware-revoked" in said.codes(), "the device is refused")
        assert at_both(lab, lab.places.owner, device, "holds", "because") == [("ended", "appraisal-over")] * 2
        until(lambda: "firmware-revoked" in refusals(lab.places.owner, device), "the owner reads of it")
        refused = {line["role"]: line["refused"] for line in told(lab, lab.places.owner, device)}
        assert refused["mno"] == "firmware-revoked"
    assert lab.query("mno", "SELECT count(*) FROM issued WHERE state != ?", ENDED) == [(0,)]


# --- others in the world ------------------------------------------------------------------------


def _states(state: Path, device: Path) -> list[int]:
    with closing(sqlite3.connect(f"file:{state / 'mno.sqlite'}?mode=ro", uri=True)) as connection:
        query = "SELECT state FROM issued WHERE idx = ? ORDER BY sequence"
        return [row[0] for row in connection.execute(query, (int(device.name),))]


@contextmanager
def served(lab: Lab, role: str, at: Path) -> Iterator[None]:
    child = lab.family.start(at.name, arguments(role, "serve", at), environment=ENVIRONMENT, state_dir=at)
    try:
        lab.family.wait_for_endpoint(child)
        yield
    finally:
        lab.family.forget(child)
        child.process.terminate()
        child.process.wait(PATIENCE)


@contextmanager
def second_operator(lab: Lab) -> Iterator[tuple[Path, str]]:
    """Register another operator and run it; give its directory and its id."""
    at, request = lab.places.root / "mno-2", lab.places.papers / "mno-2.registration"
    joined = ("--genesis", lab.places.genesis, "--node", lab.addresses.node, "--gateway", lab.addresses.gateway)
    run("mno", "init", at, *joined, "--mnc", "02")
    change_settings(at / "mno.toml", SHORT)
    with served(lab, "mno", at):
        run("mno", "register", at, "--out", request)
        endorsed = run("consortium", "endorse", lab.places.consortium, request, "--node", lab.addresses.node)
        yield at, endorsed.text("party")


@contextmanager
def buyer_listens(lab: Lab) -> Iterator[None]:
    with served(lab, "owner", lab.places.distributor):
        yield
