"""A node on CometBFT as it is installed: killed under load, with witnesses and clients that notice nothing."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path

import pytest

from firstlight.cli.demo.commands import ENVIRONMENT, CommandError, arguments, run
from firstlight.cli.processes import Child, Family
from firstlight.custody.system import SystemRandom
from firstlight.ledger.records import Party, Role, party_id, party_name
from firstlight.ledger.transaction import RegisterParty, build, parse
from firstlight.roles.attesters import write_witnesses
from firstlight.roles.ledger_client import LedgerClient
from firstlight.roles.wire import TransactionAnswer
from firstlight.settings import NodeSettings, load, render
from firstlight.testing.comet import until
from firstlight.testing.handheld import ask
from firstlight.testing.ledgers import digest
from firstlight.testing.strangers import Market, new_key

LONG = 120.0
WORKERS = 3


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    with Family(tmp_path / "output") as family:
        yield family


@pytest.fixture
def consortium(tmp_path: Path, cometbft: Path) -> Path:
    """A consortium whose node's settings say CometBFT."""
    run("consortium", "init", tmp_path / "consortium", "--chain", "comet-1")
    node = tmp_path / "consortium" / "node"
    settings = replace(load(NodeSettings, node), engine="cometbft", cometbft=str(cometbft))
    (node / "node.toml").write_text(render(settings))
    return tmp_path / "consortium"


def start(family: Family, consortium: Path, name: str = "node") -> tuple[Child, str]:
    at = consortium / "node"
    child = family.start(name, arguments("node", "serve", at), environment=ENVIRONMENT, state_dir=at)
    return child, family.wait_for_endpoint(child, LONG)


def registration(market: Market) -> bytes:
    key = new_key()
    body = RegisterParty(key.public, digest(new_key().public), (Role.SP,), None, ())
    return build(body, chain=market.chain, sequence=1, signer=key, cosigners=[market.member()])


def comet_pids(consortium: Path) -> list[int]:
    lines = (consortium / "node" / "log.jsonl").read_text().splitlines()
    return [one["pid"] for one in map(json.loads, lines) if one["code"] == "cometbft-started"]


def gone(pid: int) -> bytes:
    return b"" if Path(f"/proc/{pid}").exists() else b"gone"


def test_witnesses_and_clients_notice_nothing(family: Family, consortium: Path, tmp_path: Path) -> None:
    _, url = start(family, consortium)
    witnesses = []
    for number in (1, 2, 3):
        at = consortium / f"witness-{number}"
        words = arguments("consortium", "witness", at, "--node", url)
        child = family.start(f"witness-{number}", words, environment=ENVIRONMENT, state_dir=at)
        witnesses.append(family.wait_for_endpoint(child, LONG))
    write_witnesses(consortium / "node", witnesses)
    market = Market(url, consortium)
    data = registration(market)
    party = party_id(parse(data).body.key)  # type: ignore[attr-defined]
    with LedgerClient(url, market.genesis, tmp_path / "memory", random=SystemRandom()) as client:
        done = client.submit(data)
        assert client.submit(data) == done
        view = client.view(party_name(party))
        assert view.height > done.height
        record = view.records[party_name(party)]
        assert isinstance(record, Party)
        assert record.roles == (Role.SP,)
        assert client.header(done.height).header.height == done.height
    counts = run("node", "counts", consortium / "node").values
    assert (counts["chain"], counts["transactions"]) == ("comet-1", 1)


def test_a_second_process_is_kept_out(family: Family, consortium: Path) -> None:
    child, url = start(family, consortium)
    with pytest.raises(CommandError) as refused:
        run("node", "serve", consortium / "node")
    assert refused.value.code == "ledger-locked"
    assert child.process.poll() is None
    market = Market(url, consortium)
    assert market.post(registration(market)).status == 200


class Submitting(threading.Thread):
    """Submits until the node is gone; remembers what was reported as committed."""

    def __init__(self, market: Market, ready: list[bytes]) -> None:
        super().__init__(daemon=True)
        self.market = market
        self.ready = ready
        self.reported: dict[bytes, int] = {}
        self.tried: list[bytes] = []
        self.committed = threading.Event()

    def run(self) -> None:
        """Submit."""
        while self.ready:
            transaction = self.ready.pop()
            self.tried.append(transaction)
            try:
                said = self.market.post(transaction)
            except (OSError, HTTPException):
                return
            if said.status == 200:
                answer = TransactionAnswer.decode(said.body)
                self.reported[answer.id] = answer.height
                self.committed.set()


@pytest.mark.long
def test_a_kill_of_the_node_or_of_cometbft_loses_nothing_that_was_reported(family: Family, consortium: Path) -> None:
    """First CometBFT is killed under load, then the node, which takes CometBFT with it; then all are asked for."""
    child, url = start(family, consortium)
    market = Market(url, consortium)
    ready = [registration(market) for _ in range(150)]
    workers = [Submitting(market, ready) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        assert worker.committed.wait(LONG), "nothing was committed before the kill"
    first = comet_pids(consortium)[-1]
    os.kill(first, signal.SIGKILL)
    until(lambda: b"again" if len(comet_pids(consortium)) > 1 else b"", LONG)
    before = len([one for worker in workers for one in worker.reported])
    until(lambda: b"on" if len([one for worker in workers for one in worker.reported]) > before else b"", LONG)
    second = comet_pids(consortium)[-1]
    family.forget(child)
    os.kill(child.pid, signal.SIGKILL)
    child.process.wait(LONG)
    until(lambda: gone(second), LONG)
    for worker in workers:
        worker.join(LONG)
        assert not worker.is_alive()
    reported = {one: height for worker in workers for one, height in worker.reported.items()}
    _, url = start(family, consortium, "again")
    again = Market(url, consortium)
    for identifier, height in reported.items():
        said = ask(f"{url}/v1/transactions/{identifier.hex()}", method="GET")
        assert said.status == 200, f"{identifier.hex()} was reported at {height} and is lost"
        assert TransactionAnswer.decode(said.body).height == height
    # What was tried and not reported is submitted again, and all of it counts once.
    tried = [one for worker in workers for one in worker.tried]
    for transaction in tried:
        if parse(transaction).id not in reported:
            assert again.post(transaction).status == 200
    assert again.counts()["transactions"] == len(tried)
