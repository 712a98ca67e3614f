"""Devices that share a process share nothing else: one that is broken, and one that waits for ever, hold nobody up."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from firstlight.cli.demo.commands import arguments
from firstlight.identity.birth import BirthCredential
from firstlight.roles.device.memory import BIRTH, GRANTS, VIEW
from firstlight.stores.exchanges import GrantState
from firstlight.testing.byhand import Hand
from firstlight.testing.lab import Lab

LONG = 180.0
"""Seconds after which what is waited for will not come."""

# Runs the command of its arguments, and writes to a file which mutable thing of the program was changed by that.
WATCHED = """
import collections, dataclasses, enum, importlib, json, pkgutil, sys, types
import firstlight
from firstlight.cli import main

for found in pkgutil.walk_packages(firstlight.__path__, "firstlight."):
    if ".testing" not in found.name and not found.name.endswith("__main__"):
        importlib.import_module(found.name)
MUTABLE = (dict, list, set, bytearray, collections.deque, collections.ChainMap)

def holders():
    for name, module in list(sys.modules.items()):
        if name.startswith("firstlight"):
            yield name, module
            for thing in vars(module).values():
                if isinstance(thing, type | types.FunctionType) and thing.__module__ == name:
                    yield f"{name}.{thing.__qualname__}", thing

def picture():
    seen, caches, loose = {}, set(), set()
    for name, holder in holders():
        for key, value in [*vars(holder).items(), *enumerate(getattr(holder, "__defaults__", None) or ())]:
            where = f"{name}.{key}"
            if isinstance(value, MUTABLE) and not str(key).startswith("__"):
                seen[where] = repr(value)
            elif hasattr(value, "cache_info") and value.__module__.startswith("firstlight"):
                if value.cache_info().currsize:
                    caches.add(f"{value.__module__}.{value.__qualname__}")
            elif type(value).__module__.startswith("firstlight") and not isinstance(value, enum.Enum):
                if not (dataclasses.is_dataclass(value) and type(value).__dataclass_params__.frozen):
                    loose.add(where)
    return seen, caches, loose

before, _, _ = picture()
code = main.run(sys.argv[2:])
after, caches, loose = picture()
with open(sys.argv[1], "w") as file:
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    said = {"changed": changed, "caches": sorted(caches), "loose": sorted(loose)}
    json.dump({"code": code, "watched": len(after), **said}, file)
"""
PURE = {
    "firstlight.chain.ed25519._load",
    "firstlight.encoding._compile",
    "firstlight.p256.load",
    "firstlight.plan.claims.parse_claim",
    "firstlight.roles.device.evidence.software_version",
    "firstlight.roles.measure.measured",
    "firstlight.transports.client._no_tls",
    "firstlight.trees.ownership.nodes.uniform_hash",
    "firstlight.p256.from_x",
    "firstlight.enrolment.issue._load",
    "firstlight.logs._stamp",
    "firstlight.onboarding.edhoc.keys._around",
    "firstlight.cose._sign1_of",
    "firstlight.encoding._ordered",
}
"""What may remember: functions of their arguments alone, or of the program that all devices of a process are."""


def test_one_that_is_broken_and_one_that_waits_for_ever_hold_nobody_up(lab: Lab, tmp_path: Path) -> None:
    well, broken, waiting = [lab.device(), lab.device()], lab.device(), lab.device()
    (broken / VIEW).write_bytes(b"\x00")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        birth = BirthCredential.decode((waiting / BIRTH).read_bytes())
        deaf = replace(birth, gateways=(f"http://127.0.0.1:{silent.getsockname()[1]}",))
        (waiting / BIRTH).write_bytes(deaf.encode())
        program, found = tmp_path / "watched.py", tmp_path / "found.json"
        program.write_text(WATCHED)
        words = arguments("device", "fleet", waiting, broken, *well, "--json")[3:]
        fleet = subprocess.Popen(
            [sys.executable, program, found, *words],
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert fleet.stdout is not None
            stages: dict[str, list[str]] = {one.name: [] for one in (*well, broken, waiting)}
            end = time.monotonic() + LONG
            while not all("connected" in stages[one.name] for one in well):
                assert time.monotonic() < end, stages
                told = json.loads(fleet.stdout.readline())
                stages[told["device"]].append(told["stage"])
            assert fleet.poll() is None
            fleet.terminate()
            for line in fleet.stdout:
                told = json.loads(line)
                stages[told["device"]].append(told["stage"])
            assert fleet.wait(LONG) == 0
        finally:
            fleet.kill()
            fleet.wait()
    assert stages[broken.name] == ["failed"]
    assert stages[waiting.name][0] == "started"
    assert not {"discovered", "failed"} & set(stages[waiting.name])
    for device in well:
        assert stages[device.name][-1] == "stopped"
        assert [Hand(lab, device).grants(role) for role in ("mno", "sp")] == [[GrantState.CONFIRMED]] * 2
        assert len(list((device / GRANTS).glob("*.cbor"))) == 2
    for device in (broken, waiting):
        assert not list((device / GRANTS).glob("*"))
        assert [Hand(lab, device).grants(role) for role in ("mno", "sp")] == [[], []]

    said = json.loads(found.read_text())
    assert said["watched"] > 30
    assert said["changed"] == [], "devices of one process have this in common, and change it"
    assert set(said["caches"]) <= PURE, "something new is remembered for all devices of a process"
    assert said["loose"] == [], "a thing of ours that can be changed, and that all have in common"
