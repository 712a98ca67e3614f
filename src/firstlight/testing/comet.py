"""Real CometBFT networks on loopback: validators with keys made from names, their applications in this process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from firstlight.custody.system import SystemClock
from firstlight.engines.cometbft import CometEngine
from firstlight.engines.cometbft_home import Peers, address
from firstlight.engines.cometbft_node import HOME, Own, running
from firstlight.engines.port import Genesis
from firstlight.files import private_directory
from firstlight.logs import Log
from firstlight.testing.abci import Silent, genesis_of
from firstlight.testing.chains import Consortium, Ed25519Key

READY = 60.0


def secret_of(key: Ed25519Key) -> bytes:
    """Return seed and public key of a validator."""
    private: Ed25519PrivateKey = key._private  # noqa: SLF001 - a test key, whose secret is no secret
    return private.private_bytes_raw() + key.public


@dataclass(slots=True)
class Network:
    """As many validators as the consortium has, and the engine of each that runs."""

    directory: Path
    consortium: Consortium
    program: Path
    genesis: Genesis
    idle_seconds: int = 3600
    snapshot_blocks: int = 0
    log: Silent = field(default_factory=Silent)
    engines: dict[int, CometEngine] = field(default_factory=dict)
    _stacks: dict[int, contextlib.ExitStack] = field(default_factory=dict)

    @classmethod
    def of(cls, directory: Path, program: Path, validators: int = 1, *, snapshot_blocks: int = 0) -> Network:
        """Return a new chain's network; nothing runs yet."""
        consortium = Consortium.of(validators=validators, roots=2)
        genesis = genesis_of(consortium, SystemClock().now())
        return cls(directory, consortium, program, genesis, snapshot_blocks=snapshot_blocks)

    def start(self, *numbers: int) -> None:
        """Start validators (all, if none is named) and wait until each has a head."""
        wanted = numbers or range(len(self.consortium.validators))
        for number in wanted:
            self.start_soon(number)
        for number in wanted:
            assert self.engines[number].wait_ready(READY), f"validator {number}: {self.log.lines}"

    def stop(self, *numbers: int) -> None:
        """Stop validators (all, if none is named)."""
        for number in numbers or list(self._stacks):
            del self.engines[number]
            self._stacks.pop(number).close()

    def place(self, number: int) -> Path:
        """Return a validator's state directory."""
        return private_directory(self.directory / f"node-{number}")

    def agree(self) -> bytes:
        """Wait until all that run have applied the same block, and return the application hash after it."""

        def same() -> bytes:
            views = [engine.head() for engine in self.engines.values()]
            found = {(one.header.height, one.header.hash()) for one in views}
            return views[0].header.app_hash if len(found) == 1 else b""

        return until(same)

    def start_soon(self, number: int) -> None:
        """Start a validator; it has a head once enough of the others run too."""
        clock = SystemClock()
        log = Log("test", clock, self.log)
        others = [one for one in range(len(self.consortium.validators)) if one != number]
        peers = tuple(address(private_directory(self.place(one) / HOME), Peers()) for one in others)
        own = Own(
            self.program,
            Peers(persistent=peers),
            secret_of(self.consortium.validators[number]),
            idle_seconds=self.idle_seconds,
        )
        place = self.place(number)
        stack = contextlib.ExitStack()
        self.engines[number] = stack.enter_context(
            running(
                place,
                place / "ledger.sqlite",
                self.genesis,
                own,
                clock=clock,
                log=log,
                snapshot_blocks=self.snapshot_blocks,
                patience=READY,
            )
        )
        self._stacks[number] = stack


@contextlib.contextmanager
def network(directory: Path, program: Path, validators: int = 1, *, snapshot_blocks: int = 0) -> Iterator[Network]:
    """Run a network while the block runs."""
    made = Network.of(directory, program, validators, snapshot_blocks=snapshot_blocks)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def until(found: Callable[[], bytes], seconds: float = 60.0) -> bytes:
    """Ask again and again until the answer is not empty, and return it."""
    end = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
    return answer
