"""CometBFT's home directory: its configuration, genesis and keys, written by us.

Nothing of it listens anywhere but on a socket in that directory, and, for the other validators, on a loopback port
(or the address that the settings give). The directory is readable by its owner only.
"""

from __future__ import annotations

import base64
import json
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from firstlight.chain import ed25519
from firstlight.engines.abci_application import genesis_state
from firstlight.engines.abci_state import MAX_BLOCK_BYTES
from firstlight.engines.blocks import APP_VERSION
from firstlight.engines.port import Genesis
from firstlight.errors import ConfigError, StoreError
from firstlight.files import private_directory, read_limited, write_atomic
from firstlight.ledger.transaction import MAX_BYTES

ABCI_SOCKET = "abci.sock"
RPC_SOCKET = "rpc.sock"
PEER_PORT = "peer-port"
_KEY_TYPE = "tendermint/PubKeyEd25519"
_PRIVATE_TYPE = "tendermint/PrivKeyEd25519"
_MAX_KEY = 4_096
_EVIDENCE_BLOCKS = 1_000_000
_EVIDENCE_NANOSECONDS = 14 * 86_400 * 10**9
SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Peers:
    """Whom to talk to: the address to listen on, and the others as ``ID@host:port``."""

    listen: str = "127.0.0.1"
    port: int = 0
    persistent: tuple[str, ...] = ()


def config(*, moniker: str, listen: str, peers: tuple[str, ...], idle_seconds: int) -> str:
    """Return ``config.toml``; what does not stand in it has CometBFT's default.

    An empty block is made at once where a header must carry a new application hash, else after ``idle_seconds``, so
    that the time of headers never lags more.
    """
    return f"""# Written by Firstlight at every start.
proxy_app = "unix://{ABCI_SOCKET}"
abci = "socket"
moniker = {json.dumps(moniker)}
log_level = "error"
filter_peers = false

[rpc]
laddr = "unix://{RPC_SOCKET}"
unsafe = false
max_body_bytes = {2 * MAX_BYTES}

[p2p]
laddr = "tcp://{listen}"
persistent_peers = {json.dumps(",".join(peers))}
addr_book_strict = false
allow_duplicate_ip = true
pex = false
persistent_peers_max_dial_period = "2s"
flush_throttle_timeout = "5ms"

[mempool]
size = 10000
max_tx_bytes = {MAX_BYTES}
max_txs_bytes = {64 * MAX_BYTES}
cache_size = 20000

[consensus]
timeout_propose = "1s"
timeout_propose_delta = "500ms"
timeout_prevote = "500ms"
timeout_prevote_delta = "250ms"
timeout_precommit = "500ms"
timeout_precommit_delta = "250ms"
timeout_commit = "20ms"
skip_timeout_commit = true
create_empty_blocks = false
create_empty_blocks_interval = "{idle_seconds}s"
peer_gossip_sleep_duration = "10ms"

[storage]
discard_abci_responses = false

[tx_index]
indexer = "null"
"""


def genesis_json(genesis: Genesis) -> bytes:
    """Return CometBFT's genesis for a chain of the ledger."""
    document = {
        "genesis_time": _rfc3339(genesis.time),
        "chain_id": genesis.chain,
        "initial_height": "1",
        "consensus_params": {
            "block": {"max_bytes": str(MAX_BLOCK_BYTES), "max_gas": "-1"},
            "evidence": {
                "max_age_num_blocks": str(_EVIDENCE_BLOCKS),
                "max_age_duration": str(_EVIDENCE_NANOSECONDS),
                "max_bytes": str(MAX_BYTES),
            },
            "validator": {"pub_key_types": ["ed25519"]},
            "version": {"app": str(APP_VERSION)},
            "abci": {"vote_extensions_enable_height": "0"},
        },
        "validators": [
            {
                "address": one.address.hex().upper(),
                "pub_key": {"type": _KEY_TYPE, "value": base64.b64encode(one.public).decode()},
                "power": str(one.power),
                "name": "",
            }
            for one in genesis.validators.validators
        ],
        "app_hash": "",
        "app_state": json.loads(genesis_state(genesis)),
    }
    return json.dumps(document, separators=(",", ":")).encode()


def key_json(secret: bytes) -> bytes:
    """Return a key file of CometBFT for a validator's Ed25519 key: seed and public key (64 bytes)."""
    public = secret[32:]
    document = {
        "address": ed25519.address(public).hex().upper(),
        "pub_key": {"type": _KEY_TYPE, "value": base64.b64encode(public).decode()},
        "priv_key": {"type": _PRIVATE_TYPE, "value": base64.b64encode(secret).decode()},
    }
    return json.dumps(document).encode()


def prepare(
    home: Path,
    genesis: Genesis,
    secret: bytes | None,
    peers: Peers,
    *,
    moniker: str = "firstlight",
    idle_seconds: int = 30,
) -> int:
    """Write what CometBFT needs into ``home`` and return the port for its peers.

    Without ``secret`` (see :func:`key_json`) the node is no validator. What it has signed before is never written
    over: :class:`ConfigError` (``sign-state-missing``) if a validator has blocks and has lost that;
    :class:`StoreError`.
    """
    directory, data = private_directory(private_directory(home) / "config"), private_directory(home / "data")
    _, port = _node_id(home), peers.port or _kept_port(home)
    text = config(moniker=moniker, listen=f"{peers.listen}:{port}", peers=peers.persistent, idle_seconds=idle_seconds)
    write_atomic(directory / "config.toml", text.encode())
    write_atomic(directory / "genesis.json", genesis_json(genesis))
    if secret is not None:
        write_atomic(directory / "priv_validator_key.json", key_json(secret))
        state = data / "priv_validator_state.json"
        if not state.exists():
            if (data / "blockstore.db").exists():
                raise ConfigError("sign-state-missing", f"{state} is gone", hint="restore it: signing twice is worse")
            write_atomic(state, b'{"height":"0","round":0,"step":0}')
    return port


def address(home: Path, peers: Peers) -> str:
    """Return where other validators reach this node, ``ID@host:port``: what :func:`prepare` will have it use."""
    return f"{_node_id(home)}@{peers.listen}:{peers.port or _kept_port(home)}"


def _node_id(home: Path) -> str:
    """Return the id under which the node is known to its peers; its key is made if there is none."""
    path = private_directory(private_directory(home) / "config") / "node_key.json"
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        secret = key.private_bytes_raw() + key.public_key().public_bytes_raw()
        document = {"priv_key": {"type": _PRIVATE_TYPE, "value": base64.b64encode(secret).decode()}}
        write_atomic(path, json.dumps(document).encode(), exclusive=True)
    try:
        document = json.loads(read_limited(path, _MAX_KEY, private=True))
        return ed25519.address(base64.b64decode(document["priv_key"]["value"])[32:]).hex()
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError("bad-key", f"{path} holds no key of CometBFT") from error


def _kept_port(home: Path) -> int:
    """Return the port of the last time if it is free, else another that the system chose; it is written down."""
    path = home / PEER_PORT
    try:
        last = int(read_limited(path, 5))
    except (StoreError, ValueError):
        last = 0
    port = _free_port(last) if last else 0
    if not port:
        port = _free_port(0)
        write_atomic(path, str(port).encode())
    return port


def _free_port(wished: int) -> int:
    """Return ``wished`` (0: any port that the system chooses) if it can be bound now, else 0."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", wished))
        except OSError:
            return 0
        return int(one.getsockname()[1])


def _rfc3339(time: int) -> str:
    seconds, rest = divmod(time, SECOND)
    stamp = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{stamp}.{rest:09d}Z"
