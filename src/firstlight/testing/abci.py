"""Drives an ABCI application as CometBFT does, block after block, without CometBFT: heights and times are made here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from firstlight.engines.abci_application import Application, genesis_state
from firstlight.engines.abci_messages import kind, timestamp
from firstlight.engines.abci_snapshots import Shelf
from firstlight.engines.abci_state import Replica
from firstlight.engines.port import Genesis
from firstlight.engines.store import Store
from firstlight.logs import Log
from firstlight.testing.chains import GENESIS, SECOND, Consortium
from firstlight.testing.clock import FakeClock

LIMIT = 4_194_304


def genesis_of(consortium: Consortium, time: int = GENESIS * SECOND) -> Genesis:
    """Return the genesis of a chain that ``consortium`` governs."""
    return Genesis(
        consortium.chain, time, consortium.signed_root(), consortium.signed_epoch(), consortium.validator_set
    )


class Silent:
    """A log's sink that keeps its lines."""

    def __init__(self) -> None:
        """Begin with none."""
        self.lines: list[str] = []

    def write(self, line: str, /) -> None:
        """Take one line."""
        self.lines.append(line)


@dataclass(slots=True)
class Driver:
    """An application and where its chain is."""

    application: Application
    replica: Replica
    shelf: Shelf
    clock: FakeClock
    log: Silent
    codes: list[tuple[int, str]] = field(default_factory=list)
    """The number and the code of each result of the last block."""

    def ask(self, method: str, **fields: Any) -> Any:
        """Send one request."""
        name = "Request" + "".join(part.capitalize() for part in method.split("_"))
        return self.application.answer(method, kind(name)(**fields))

    def init(self, genesis: Genesis, **changes: Any) -> bytes:
        """Begin the chain and return the application hash."""
        given: dict[str, Any] = {
            "time": timestamp(genesis.time),
            "chain_id": genesis.chain,
            "validators": [
                kind("ValidatorUpdate")(pub_key=kind("PublicKey")(ed25519=one.public), power=one.power)
                for one in genesis.validators.validators
            ],
            "app_state_bytes": genesis_state(genesis).encode(),
            "initial_height": 1,
        }
        return bytes(self.ask("init_chain", **(given | changes)).app_hash)

    def check(self, data: bytes, *, again: bool = False) -> str:
        """Return the code with which a transaction may not wait for a block, or ``ok``."""
        answer = self.ask("check_tx", tx=data, type=int(again))
        return answer.codespace if answer.code else "ok"

    def prepare(self, transactions: Sequence[bytes], limit: int = LIMIT) -> list[bytes]:
        """Return what the node would propose."""
        answer = self.ask(
            "prepare_proposal", max_tx_bytes=limit, txs=transactions, height=self._next, time=timestamp(self._time)
        )
        return [bytes(one) for one in answer.txs]

    def process(self, transactions: Sequence[bytes]) -> bool:
        """Return whether the node accepts a proposed block."""
        answer = self.ask("process_proposal", txs=transactions, height=self._next, time=timestamp(self._time))
        return int(answer.status) == 1

    def finalize(self, transactions: Sequence[bytes]) -> bytes:
        """Have a block decided and return the application hash after it."""
        answer = self.ask("finalize_block", txs=transactions, height=self._next, time=timestamp(self._time))
        self.codes = [(one.code, one.codespace or "ok") for one in answer.tx_results]
        return bytes(answer.app_hash)

    def block(self, *transactions: bytes) -> bytes:
        """Decide and commit a block and return the application hash after it."""
        app_hash = self.finalize(transactions)
        self.ask("commit")
        self.clock.advance(1)
        return app_hash

    @property
    def _next(self) -> int:
        return self.replica.applied.height + 1

    @property
    def _time(self) -> int:
        return max(self.clock.now(), self.replica.applied.time + 1)


@contextlib.contextmanager
def driving(
    directory: Path, genesis: Genesis, *, snapshots: int = 0, begin: bool = True, clock: FakeClock | None = None
) -> Iterator[Driver]:
    """Run an application over the ledger file in ``directory``; begin the chain if it has not begun."""
    store = Store(directory / "ledger.sqlite")
    try:
        clock, log = clock or FakeClock(), Silent()
        replica = Replica(store, genesis, clock)
        shelf = Shelf(directory / "snapshots", snapshots, Log("test", clock, log))
        application = Application(replica, shelf, Log("test", clock, log))
        driver = Driver(application, replica, shelf, clock, log)
        if begin and not replica.applied.height:
            driver.init(genesis)
        yield driver
        shelf.wait()
    finally:
        store.close()
