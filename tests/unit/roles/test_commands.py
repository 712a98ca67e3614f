"""The commands of consortium, node and gateway, as somebody types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from firstlight.cli.main import run
from firstlight.custody.file import SigningKey, ValidatorKey
from firstlight.custody.system import SystemClock
from firstlight.ledger.records import Role
from firstlight.ledger.transaction import parse
from firstlight.roles import registration
from firstlight.roles.node import open_engine
from firstlight.roles.serving import PORT, last_port
from firstlight.settings import GatewaySettings, load

Captured = pytest.CaptureFixture[str]


def command(captured: Captured, *words: object, code: int = 0) -> dict[str, Any]:
    assert run([*(str(word) for word in words), "--json"]) == code
    out, error = captured.readouterr()
    answer: dict[str, Any] = json.loads(error if code else out)
    return answer


@pytest.fixture
def consortium(tmp_path: Path, capsys: Captured) -> Path:
    made = command(capsys, "consortium", "init", tmp_path / "c", "--chain", "acme-1", "--witnesses", 2)
    assert made["chain"] == "acme-1"
    assert len(made["witnesses"]) == 2
    return tmp_path / "c"


def test_init_makes_what_the_others_need(consortium: Path, capsys: Captured) -> None:
    ValidatorKey.load(consortium / "node" / "validator.pem")
    SigningKey.load(consortium / "witness-2" / "witness.pem")
    again = command(capsys, "consortium", "init", consortium, "--chain", "acme-1", code=2)
    assert again["code"] == "settings-exist"
    never = command(capsys, "consortium", "init", consortium / "x", "--chain", "a", "--threshold", 4, code=2)
    assert never["code"] == "bad-threshold"
    wrong = command(capsys, "consortium", "init", consortium / "x", "--chain", "Not A Name", code=2)
    assert wrong["code"] == "wrong-setting"
    assert not list((consortium / "x").iterdir())


def test_endorse_without_a_node_writes_the_transaction(consortium: Path, tmp_path: Path, capsys: Captured) -> None:
    keys = registration.create(tmp_path / "party", agreement=True)
    (tmp_path / "request").write_bytes(registration.request(keys, [Role.SP], chain="acme-1"))
    out = tmp_path / "transaction"
    answer = command(capsys, "consortium", "endorse", consortium, tmp_path / "request", "--out", out)
    assert answer == {"party": keys.party.hex(), "transaction": parse(out.read_bytes()).id.hex(), "submitted": False}
    gone = command(
        capsys, "consortium", "endorse", consortium, tmp_path / "request", "--node", "http://127.0.0.1:9", code=1
    )
    assert gone["code"] == "unreachable"


def test_a_ledger_in_use_ends_a_second_node(consortium: Path, capsys: Captured) -> None:
    with open_engine(consortium / "node", SystemClock()):
        assert command(capsys, "node", "serve", consortium / "node", code=1)["code"] == "ledger-locked"


def test_witnesses_are_named_and_listed(consortium: Path, capsys: Captured) -> None:
    node = consortium / "node"
    urls = ["http://127.0.0.1:1", "http://127.0.0.1:2"]
    assert command(capsys, "node", "witnesses", node) == {"witnesses": []}
    assert command(capsys, "node", "witnesses", node, *urls) == {"witnesses": urls}
    assert command(capsys, "node", "witnesses", node) == {"witnesses": urls}
    assert command(capsys, "node", "witnesses", node, "nowhere", code=2)["code"] == "bad-witnesses"
    assert command(capsys, "node", "counts", node, code=1)["code"] == "file-missing"


def test_a_witness_without_a_node_says_what_to_do(consortium: Path, capsys: Captured) -> None:
    error = command(capsys, "consortium", "witness", consortium / "witness-1", code=2)
    assert error["code"] == "no-node"
    assert "--node" in error["hint"]


def test_a_gateway_is_set_up_once(consortium: Path, tmp_path: Path, capsys: Captured) -> None:
    place = tmp_path / "g"
    words = ("gateway", "init", place, "--genesis", consortium / "genesis.cbor", "--node", "http://127.0.0.1:9")
    command(capsys, *words, "--witness", "http://127.0.0.1:1", "--witness", "http://127.0.0.1:2")
    settings = load(GatewaySettings, place)
    assert (settings.chain, settings.name, len(settings.witnesses)) == ("acme-1", None, 2)
    assert command(capsys, *words, code=2)["code"] == "settings-exist"


@pytest.mark.parametrize(("text", "port"), [("4711", 4711), ("99999", 0), ("x", 0), ("", 0), ("123456", 0)])
def test_the_last_port_is_remembered(tmp_path: Path, text: str, port: int) -> None:
    assert last_port(tmp_path) == 0
    (tmp_path / PORT).write_text(text)
    assert last_port(tmp_path) == port


def test_help_is_there_for_each_command(capsys: Captured) -> None:
    for group, name in (
        ("consortium", "init"),
        ("consortium", "endorse"),
        ("consortium", "witness"),
        ("node", "serve"),
    ):
        assert run([group, name, "--help"]) == 0
        assert "." in capsys.readouterr().out
