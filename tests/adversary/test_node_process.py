"""The node's process: who else would use its file, and what a kill at any moment leaves."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

import pytest

from firstlight.cli.demo.commands import ENVIRONMENT, CommandError, arguments, run
from firstlight.cli.processes import Child, Family
from firstlight.ledger.records import Role
from firstlight.ledger.transaction import RegisterParty, build, parse
from firstlight.roles.wire import TransactionAnswer
from firstlight.testing.handheld import ask
from firstlight.testing.strangers import Market, new_key

SEED = 20_261_122
LONG = 60.0  # seconds that a loaded machine may need for its first commit
ROUNDS = 3
WORKERS = 3


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    with Family(tmp_path / "output") as family:
        yield family


@pytest.fixture
def consortium(tmp_path: Path) -> Path:
    run("consortium", "init", tmp_path / "consortium", "--chain", "killed")
    return tmp_path / "consortium"


def start(family: Family, consortium: Path, name: str = "node") -> tuple[Child, str]:
    """Start the ledger's node and return it with its URL."""
    at = consortium / "node"
    child = family.start(name, arguments("node", "serve", at), environment=ENVIRONMENT, state_dir=at)
    return child, family.wait_for_endpoint(child)


def registration(market: Market) -> bytes:
    """Return the registration of one more party."""
    key = new_key()
    body = RegisterParty(key.public, hashlib.sha256(new_key().public).digest(), (Role.SP,), None, ())
    return build(body, chain=market.chain, sequence=1, signer=key, cosigners=[market.member()])


def test_a_second_process_is_kept_out_of_the_ledgers_file(family: Family, consortium: Path) -> None:
    """Somebody starts the node twice: two writers would fork the chain."""
    child, url = start(family, consortium)
    market = Market(url, consortium)
    assert market.post(registration(market)).status == 200
    endpoint, before = (consortium / "node" / "endpoint").read_bytes(), market.counts()
    with pytest.raises(CommandError) as refused:
        run("node", "serve", consortium / "node")
    assert refused.value.code == "ledger-locked"
    assert child.process.poll() is None
    assert market.counts() == before
    assert (consortium / "node" / "endpoint").read_bytes() == endpoint
    assert market.post(registration(market)).status == 200
    family.forget(child)
    child.process.terminate()
    child.process.wait(LONG)
    _, url = start(family, consortium, "again")
    assert ask(f"{url}/v1/counts", method="GET").fields()["transactions"] == before["transactions"] + 1


class Submitting(threading.Thread):
    """Submits one transaction after the other until its node is gone; remembers what was reported as committed."""

    def __init__(self, market: Market, ready: list[bytes]) -> None:
        super().__init__(daemon=True)
        self.market = market
        self.ready = ready
        self.reported: dict[bytes, int] = {}
        self.tried: set[bytes] = set()
        self.committed = threading.Event()

    def run(self) -> None:
        """Submit."""
        while self.ready:
            transaction = self.ready.pop()
            self.tried.add(parse(transaction).id)
            try:
                said = self.market.post(transaction)
            except (OSError, HTTPException):
                return
            answer = TransactionAnswer.decode(said.body)
            self.reported[answer.id] = answer.height
            self.committed.set()


def test_a_kill_loses_no_transaction_that_was_reported(family: Family, consortium: Path) -> None:
    """The node is killed at random moments under load; what it had answered is there when it starts again."""
    chance = random.Random(SEED)
    reported: dict[bytes, int] = {}
    tried: set[bytes] = set()
    ready = [registration(Market("", consortium)) for _ in range(600)]
    for turn in range(ROUNDS):
        child, url = start(family, consortium, f"node-{turn}")
        market = Market(url, consortium)
        _are_there(market, reported, tried)
        workers = [Submitting(market, ready) for _ in range(WORKERS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            assert worker.committed.wait(LONG), "nothing was committed before the kill"
        time.sleep(chance.uniform(0.0, 0.3))
        family.forget(child)
        os.kill(child.pid, signal.SIGKILL)
        child.process.wait(LONG)
        for worker in workers:
            worker.join(LONG)
            assert not worker.is_alive()
            reported |= worker.reported
            tried |= worker.tried
        assert ready, "the kill came after the load"
    _, url = start(family, consortium, "last")
    _are_there(Market(url, consortium), reported, tried)
    assert Market(url, consortium).post(ready.pop()).status == 200


def _are_there(market: Market, reported: dict[bytes, int], tried: set[bytes]) -> None:
    """Check that all reported transactions are where they were said to be, and nothing is there that nobody sent."""
    for identifier, height in reported.items():
        said = ask(f"{market.node}/v1/transactions/{identifier.hex()}", method="GET")
        assert said.status == 200, f"{identifier.hex()} was reported at {height} and is lost"
        assert TransactionAnswer.decode(said.body).height == height
    assert len(reported) <= market.counts()["transactions"] <= len(tried)
