"""One node of a CometBFT network: the ledger file, the application's socket, CometBFT, and the engine over them."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from firstlight.engines.abci_application import Application
from firstlight.engines.abci_server import serving
from firstlight.engines.abci_snapshots import Shelf
from firstlight.engines.abci_state import Replica
from firstlight.engines.cometbft import PATIENCE, CometEngine
from firstlight.engines.cometbft_home import ABCI_SOCKET, RPC_SOCKET, Peers, prepare
from firstlight.engines.cometbft_process import Supervisor
from firstlight.engines.cometbft_rpc import Rpc
from firstlight.engines.port import Genesis
from firstlight.engines.store import Store
from firstlight.errors import ConfigError, StoreError
from firstlight.files import PRIVATE_FILE, private_directory
from firstlight.logs import Log
from firstlight.ports import Clock

HOME = "cometbft"
SNAPSHOTS = "snapshots"
BACKLOG = 16


@dataclass(frozen=True, slots=True)
class Running:
    """A CometBFT that runs already: its RPC, and the address at which it looks for the application."""

    rpc: str
    abci: str


@dataclass(frozen=True, slots=True)
class Own:
    """A CometBFT that we start: the program, whom it talks to, and its validator key (seed and public key), if any."""

    program: Path
    peers: Peers
    secret: bytes | None
    moniker: str = "firstlight"
    idle_seconds: int = 30

    def __repr__(self) -> str:
        return f"Own({self.program}, {self.peers})"


@contextlib.contextmanager
def running(
    state_dir: Path,
    database: Path,
    genesis: Genesis | None,
    how: Own | Running,
    *,
    clock: Clock,
    log: Log,
    snapshot_blocks: int = 0,
    patience: float = PATIENCE,
) -> Iterator[CometEngine]:
    """Run the ledger of ``state_dir`` on CometBFT while the block runs.

    Raises :class:`StoreError` and :class:`ConfigError` of what it is made of; ``ledger-missing`` without a genesis.
    """
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(Store(database)))
        known = genesis or store.genesis()
        if known is None:
            raise StoreError("ledger-missing", f"{database} is empty", hint="begin it with a genesis file")
        replica = Replica(store, known, clock)
        shelf = Shelf(state_dir / SNAPSHOTS, snapshot_blocks, log)
        stack.callback(shelf.wait)
        application = Application(replica, shelf, log)
        home = private_directory(state_dir / HOME)
        if isinstance(how, Own):
            prepare(home, known, how.secret, how.peers, moniker=how.moniker, idle_seconds=how.idle_seconds)
            short = stack.enter_context(_short(home))
            stack.enter_context(serving(_unix(short / ABCI_SOCKET), application, log))
            supervisor = Supervisor(how.program, home, log)
            stack.callback(supervisor.close)
            rpc = Rpc(f"unix:{short / RPC_SOCKET}")
        else:
            stack.enter_context(serving(_listener(how.abci), application, log))
            rpc = Rpc(how.rpc)
        yield stack.enter_context(CometEngine(replica, rpc, log, patience=patience))


@contextlib.contextmanager
def _short(directory: Path) -> Iterator[Path]:
    """Yield a short path of a directory: that of a socket must have less than 108 bytes."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _listener(address: str) -> socket.socket:
    """Listen at ``unix:PATH`` or ``HOST:PORT``; :class:`ConfigError` (``cannot-listen``)."""
    if address.startswith("unix:"):
        return _unix(Path(address.removeprefix("unix:")))
    host, _, port = address.rpartition(":")
    try:
        return socket.create_server((host, int(port)), backlog=BACKLOG)
    except (OSError, ValueError) as error:
        raise ConfigError("cannot-listen", f"{address}: {error}") from error


def _unix(path: Path) -> socket.socket:
    """Listen on a socket that only this user may reach."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        path.chmod(PRIVATE_FILE)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError("cannot-listen", f"{path}: {error}") from error
    return listener
