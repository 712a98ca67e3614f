"""A chain's rules change under a running world: root, epoch, parties, an owner's lost key. All by commands."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from firstlight.chain.root import known_root
from firstlight.cli.demo.commands import ENVIRONMENT, CommandError, arguments, run
from firstlight.cli.processes import Family
from firstlight.roles.device.memory import VIEW, Sight
from firstlight.roles.holdings import find_holding
from firstlight.testing.lab import Lab, open_lab

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    root = tmp_path_factory.mktemp("governed")
    with Family(root / "output") as family:
        yield from open_lab(root, family, devices=8)


def node(lab: Lab) -> tuple[str, str]:
    return ("--node", lab.addresses.node)


def sight(device: Path) -> Sight:
    return Sight.decode((device / VIEW).read_bytes())


def refused(*words: object) -> str:
    with pytest.raises(CommandError) as caught:
        run(*words)
    return caught.value.code


def member_alone(lab: Lab, number: int, at: Path) -> Path:
    """Return a directory with one member's key alone, as on a machine of his own."""
    at.mkdir()
    for name in (f"root-{number}.pem", "genesis.cbor"):
        shutil.copy2(lab.places.consortium / name, at / name)
    return at


def test_a_device_of_the_first_root_meets_the_third(lab: Lab) -> None:
    old = lab.device()
    lab.connects(old)
    assert known_root(sight(old).trust.root).version == 1
    before = {path.name: path.read_bytes() for path in lab.places.consortium.glob("root-?.pem")}
    for _ in range(2):
        assert run("consortium", "rotate-root", lab.places.consortium, *node(lab)).values["new_keys"] == [1, 2, 3]
    assert all((lab.places.consortium / name).read_bytes() != data for name, data in before.items())
    assert len(list(lab.places.consortium.glob("root-?.before-?.pem"))) == 6
    for device in (lab.device(), old):
        lab.connects(device)
        trust = sight(device).trust
        assert known_root(trust.root).version == 3
    run("consortium", "set-epoch", lab.places.consortium, *node(lab), "--witness-threshold", 3)
    assert refused("consortium", "set-epoch", lab.places.consortium, *node(lab)) == "wrong-epoch"


def test_members_decide_on_machines_of_their_own(lab: Lab, tmp_path: Path) -> None:
    first, second = (member_alone(lab, number, tmp_path / f"member-{number}") for number in (1, 2))
    decision = tmp_path / "decision"
    words = ("consortium", "suspend", first, lab.parties["sp"], *node(lab))
    assert refused(*words) == "not-enough-signatures"
    assert run(*words, "--out", decision).values["complete"] is False
    assert refused("consortium", "submit", second, decision, *node(lab)) == "not-enough-signatures"
    assert run("consortium", "sign", second, decision).values["complete"] is True
    run("consortium", "submit", second, decision, *node(lab))
    device = lab.device()
    outcome = lab.switch_on(device, until=lambda seen: "no-service" in seen.codes)
    assert "no-service" in outcome.codes
    run("consortium", "suspend", lab.places.consortium, lab.parties["sp"], *node(lab), "--lift")
    lab.connects(device)


def test_a_new_root_is_signed_by_members_apart(lab: Lab, tmp_path: Path) -> None:
    first, second, third = (member_alone(lab, number, tmp_path / f"member-{number}") for number in (1, 2, 3))
    keys = [run("consortium", "next-key", at, "--member", n).text("key") for n, at in ((1, first), (2, second))]
    keys.append(run("consortium", "next-key", third, "--member", 3).text("key"))
    decision = tmp_path / "decision"
    named = [word for key in keys for word in ("--key", key)]
    made = run("consortium", "rotate-root", first, *node(lab), *named, "--out", decision).values
    assert (made["stated"], made["complete"]) == (False, False)
    stated = run("consortium", "sign", second, decision).values
    assert stated["stated"] is True
    assert run("consortium", "sign", first, decision).values["complete"] is True
    assert run("consortium", "submit", first, decision, *node(lab)).values["new_keys"] == [1]
    assert run("consortium", "submit", third, decision, *node(lab)).values["new_keys"] == [3]
    run("consortium", "submit", second, decision, *node(lab))
    budget = run("consortium", "add-budget", third, lab.batch, "--amount", 100, *node(lab)).number("budget")
    again = run("consortium", "add-budget", second, lab.batch, "--amount", 50, *node(lab)).number("budget")
    assert again == budget + 50
    assert refused("consortium", "add-budget", lab.places.consortium, lab.batch, "--amount", 1, *node(lab)) == (
        "no-such-member"
    )
    device = lab.device()
    lab.connects(device)
    assert known_root(sight(device).trust.root).version == 4
    for number, at in ((1, first), (2, second), (3, third)):
        shutil.copy2(at / f"root-{number}.pem", lab.places.consortium / f"root-{number}.pem")


def served(lab: Lab, role: str) -> list[str]:
    """Return where a server of the world is reached: over HTTP, and over CoAP under the same number."""
    url = lab.url(role)
    return [url, url.replace("http://", "coap://")]


def test_parties_change_keys_and_endpoints(lab: Lab) -> None:
    for role in ("mno", "sp"):
        first, second = (run(role, "rotate", lab.state(role)) for _ in range(2))
        assert first.text("key") != second.text("key")
        assert second.number("revision") == first.number("revision") + 1
    changed = run("mno", "update", lab.places.mno, "--endpoint", lab.url("mno") + "/")
    assert changed.values["endpoints"] == [lab.url("mno") + "/"]
    back = run("mno", "update", lab.places.mno)
    assert back.values["endpoints"] == served(lab, "mno")
    assert run("mno", "update", lab.places.mno).values["transaction"] is None
    lab.connects(lab.device())


def test_a_server_that_moves_tells_the_ledger(lab: Lab) -> None:
    """An operator's port is taken when it starts again: it takes another, and devices learn it from the ledger."""
    (child,) = [one for one in lab.family.children if one.name == "mno"]
    before = lab.url("mno")
    lab.family.forget(child)
    child.process.terminate()
    child.process.wait(60)
    with socket.create_server(("127.0.0.1", int(before.rpartition(":")[2]))), lab.heard("mno", "endpoints-announced"):
        words = arguments("mno", "serve", lab.places.mno)
        again = lab.family.start("mno", words, environment=ENVIRONMENT, state_dir=lab.places.mno)
        assert lab.family.wait_for_endpoint(again) != before
    said = run("mno", "update", lab.places.mno).values
    assert (said["endpoints"], said["transaction"]) == ([lab.url("mno")], None)
    lab.connects(lab.device())


def test_an_owner_recovers_with_his_recovery_key(lab: Lab, tmp_path: Path) -> None:
    holding = find_holding(lab.places.owner, bytes.fromhex(lab.batch), lab.holding.tenure).directory
    held = ("--batch", lab.holding.batch, "--tenure", lab.holding.tenure)
    stolen = (holding / "owner.pem").read_bytes()
    safe = tmp_path / "recovery.pem"
    shutil.move(holding / "recovery.pem", safe)
    wrong = ("owner", "recover", lab.places.owner, *held, "--recovery-key", holding / "owner.pem")
    assert refused(*wrong) == "wrong-recovery-key"
    done = run("owner", "recover", lab.places.owner, *held, "--recovery-key", safe)
    assert done.number("recovery") == 1
    assert (holding / "owner.pem").read_bytes() != stolen
    assert refused("owner", "freeze", lab.places.owner, *held, "--select", 7) == "nothing-to-change"
    device = lab.device()
    outcome = lab.switch_on(device, until=lambda seen: "tenure-frozen" in seen.codes)
    assert "tenure-frozen" in outcome.codes
    run("owner", "unfreeze", lab.places.owner, *held, "--held")
    assert refused("owner", "unfreeze", lab.places.owner, *held, "--held") == "not-held"
    lab.connects(device)
    last = lab.device()
    run("owner", "retire", lab.places.owner, *held, "--select", int(last.name))
    outcome = lab.switch_on(last, until=lambda seen: "tenure-retired" in seen.codes)
    assert "tenure-retired" in outcome.codes
    assert refused("owner", "unfreeze", lab.places.owner, *held, "--select", int(last.name)) == "nothing-to-change"
    assert refused("owner", "freeze", lab.places.owner, *held, "--select", "0-7") == "not-changeable"
