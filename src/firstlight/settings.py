"""Settings: one state directory and one TOML file for each role, parsed once, strictly.

``<state>/<role>.toml`` holds the fields of that role's class below, nothing else. What is not in the file has
the class's default, unless it has none. A key that is not known, a value that does not fit and a key that is
missing are :class:`~firstlight.errors.ConfigError`, each naming file, line, key and what is allowed.

Bounds stand in the types, as in :mod:`firstlight.encoding`; durations are whole seconds.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from firstlight.encoding import ChainId, Count, Range, Text
from firstlight.errors import ConfigError, StoreError
from firstlight.files import private_directory, read_if_there, read_limited, write_atomic
from firstlight.sealing.locator import GatewayName

MAX_SETTINGS = 65_536
Url = Annotated[str, Text(r"https?://[A-Za-z0-9.\-\[\]:]{1,120}(/[A-Za-z0-9._~/-]{0,120})?")]
Urls = Annotated[tuple[Url, ...], Count(32)]
Port = Annotated[int, Range(0, 65_535)]
Days = Annotated[int, Range(1, 36_500)]
Span = Annotated[int, Range(1, 2**31)]
FileName = Annotated[str, Text(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")]
Host = Annotated[str, Text(r"[A-Za-z0-9.:-]{1,80}")]
EngineName = Annotated[str, Text(r"embedded|cometbft")]
Program = Annotated[str, Text(r"[A-Za-z0-9/._~+-]{1,200}")]
Peer = Annotated[str, Text(r"[0-9a-f]{40}@[A-Za-z0-9.:-]{1,80}:[0-9]{1,5}")]
PeersList = Annotated[tuple[Peer, ...], Count(64)]
SocketName = Annotated[str, Text(r"unix:/[ -~]{1,100}|[A-Za-z0-9.:-]{1,80}:[0-9]{1,5}")]
DnsName = Annotated[str, Text(r"[a-z0-9]([a-z0-9.-]{0,78}[a-z0-9])?")]
NetworkName = Annotated[str, Text(r"[A-Za-z0-9][A-Za-z0-9:.-]{0,63}")]
Destination = Annotated[str, Text(r"[A-Za-z0-9.:-]{1,80}:(\*|[1-9][0-9]{0,4})")]
Endpoint = Annotated[str, Text(r"[A-Za-z0-9.:-]{1,80}:[1-9][0-9]{0,4}")]
FilePath = Annotated[str, Text(r"/[^\0]{1,400}")]
HlrKind = Annotated[str, Text(r"own|osmo")]
AccessKind = Annotated[str, Text(r"embedded|hostapd")]
Interfaces = Annotated[tuple[Annotated[str, Text(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")], ...], Count(240)]
Suites = Annotated[tuple[Annotated[int, Range(2, 3)], ...], Count(2, 1)]
Destinations = Annotated[tuple[Destination, ...], Count(256)]


@dataclass(frozen=True, slots=True)
class About:
    """What a setting is for."""

    text: str


class Settings:
    """Base of the settings of one role."""

    __slots__ = ()
    ROLE: ClassVar[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served(Settings):
    """What every role that listens has."""

    host: Annotated[Host, About("address to listen on")] = "127.0.0.1"
    port: Annotated[Port, About("port to listen on; 0: the system chooses")] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings(Served):
    """A ledger node."""

    ROLE: ClassVar[str] = "node"
    chain: Annotated[ChainId, About("chain id")]
    genesis: Annotated[FileName, About("genesis file in this directory")] = "genesis.cbor"
    database: Annotated[FileName, About("ledger file in this directory")] = "ledger.sqlite"
    engine: Annotated[EngineName, About("who orders transactions: this process alone, or CometBFT")] = "embedded"
    cometbft: Annotated[Program, About("CometBFT to start: a name on PATH, or a path")] = "cometbft"
    rpc: Annotated[Url | None, About("RPC of a CometBFT that runs already; none: start one")] = None
    abci: Annotated[SocketName, About("where that CometBFT finds the application (its proxy_app)")] = "127.0.0.1:26658"
    peers: Annotated[PeersList, About("other validators, as ID@host:port")] = ()
    peer_host: Annotated[Host, About("address to listen on for other validators")] = "127.0.0.1"
    peer_port: Annotated[Port, About("port for them; 0: the system chooses")] = 0
    idle_seconds: Annotated[Span, About("an empty block at least so often, so that headers have the time")] = 30
    snapshot_blocks: Annotated[
        int, Range(0, 2**31), About("blocks between two snapshots for nodes that join; 0: none")
    ] = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings(Served):
    """A gateway: relays proofs, sealed mail and handshake bytes."""

    ROLE: ClassVar[str] = "gateway"
    chain: Annotated[ChainId, About("chain id")]
    name: Annotated[
        GatewayName | None, About("the name under which devices compute locators; none: the URL that it serves")
    ] = None
    node: Annotated[Url, About("ledger node")]
    witnesses: Annotated[Urls, About("witness servers")] = ()
    coap: Annotated[bool, About("serve over CoAP too, on the UDP port of the same number")] = False
    mail_days: Annotated[Days, About("how long mail is kept")] = 400
    relay_seconds: Annotated[Span, About("time-out of a relayed request")] = 10
    begins_per_second: Annotated[int, Range(1, 1_000_000), About("exchanges that may be begun a second")] = 500
    begins_per_source: Annotated[
        int, Range(1, 1_000_000), About("the same for one address (an operator's forwarder is one, for all behind it)")
    ] = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessSettings(Served):
    """A witness: follows a node and says which head is the newest."""

    ROLE: ClassVar[str] = "witness"
    chain: Annotated[ChainId, About("chain id")]
    node: Annotated[Url | None, About("ledger node that it follows; none: the command line says")] = None
    trusting_days: Annotated[Days, About("how old the last verified header may be for the next to follow from it")] = (
        400
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsortiumSettings(Served):
    """The members' root, witnesses and validators."""

    ROLE: ClassVar[str] = "consortium"
    chain: Annotated[ChainId, About("chain id")]
    members: Annotated[int, Range(1, 32), About("number of root keys")] = 1
    root_threshold: Annotated[int, Range(1, 32), About("signatures a root version needs")] = 1
    witnesses: Annotated[int, Range(1, 32), About("number of witness keys")] = 1
    witness_threshold: Annotated[int, Range(1, 32), About("witnesses a device asks for")] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ManufacturerSettings(Settings):
    """A manufacturer's workplace."""

    ROLE: ClassVar[str] = "manufacturer"
    chain: Annotated[ChainId, About("chain id")]
    node: Annotated[Url, About("ledger node")]
    gateways: Annotated[Urls, About("gateways that devices are told of at birth")] = ()
    model: Annotated[str, Text(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}"), About("hardware model")] = "fl-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerSettings(Settings):
    """An owner's (or distributor's) workplace."""

    ROLE: ClassVar[str] = "owner"
    chain: Annotated[ChainId, About("chain id")]
    node: Annotated[Url, About("ledger node")]
    gateways: Annotated[Urls, About("gateways where mail is left and receipts are read")] = ()
    transfer_delay: Annotated[int, Range(0, 2**31), About("seconds in which recovery undoes a sale; 0: never")] = 0
    offer_days: Annotated[Days, About("how long an offer stands")] = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class PartySettings(Served):
    """What an MNO and an SP have in common."""

    chain: Annotated[ChainId, About("chain id")]
    node: Annotated[Url, About("ledger node")]
    gateway: Annotated[
        Url | None, About("gateway that reference values are fetched from; none: the node's bundles only")
    ] = None
    coap: Annotated[bool, About("serve over CoAP too, on the UDP port of the same number")] = False
    view_seconds: Annotated[Span, About("greatest age of the party's own view")] = 60
    trusting_days: Annotated[
        Days, About("how old the last header may be for the next to follow from it; later, the root's epoch vouches")
    ] = 14
    exchange_seconds: Annotated[int, Range(1, 120), About("life of a half-open exchange")] = 120
    grant_seconds: Annotated[Span, About("life of a grant")] = 2_592_000
    suites: Annotated[Suites, About("cipher suites of EDHOC that devices may select; they prefer 3 to 2")] = (3, 2)
    begins_per_second: Annotated[
        int, Range(1, 1_000_000), About("exchanges that may be begun a second, in each process that answers")
    ] = 1_000
    begins_per_source: Annotated[
        int, Range(1, 1_000_000), About("the same for one address (a gateway is one, for all its devices)")
    ] = 500
    workers: Annotated[
        int, Range(1, 64), About("processes that answer devices; 1: the one that does everything else as well")
    ] = 1
    plan_seconds: Annotated[Span, About("in how many seconds devices must follow a new plan of their owner")] = 3_600
    round_seconds: Annotated[Span, About("seconds between two looks at which grants must end")] = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class MnoSettings(PartySettings):
    """A mobile network operator."""

    ROLE: ClassVar[str] = "mno"
    mcc: Annotated[str, Text(r"[0-9]{3}"), About("mobile country code")] = "001"
    mnc: Annotated[str, Text(r"[0-9]{2,3}"), About("mobile network code")] = "01"
    network: Annotated[NetworkName, About("access network name (TS 24.302)")] = "WLAN"
    access: Annotated[AccessKind, About("what serves the access network: our own program, or hostapd (as root)")] = (
        "embedded"
    )
    hlr: Annotated[HlrKind, About("whose keys and vectors: our own authentication centre's, or osmo-hlr's")] = "own"
    hlr_server: Annotated[
        Endpoint | None, About("where an osmo-hlr runs already (GSUP), as host:port; none: it runs as a child")
    ] = None
    hlr_database: Annotated[FilePath | None, About("that osmo-hlr's database file, on this machine")] = None
    mode: Annotated[
        str,
        Text(r"plmn|snpn"),
        About("what it grants: subscriptions of a public network, or certificates of a private one (EAP-TLS)"),
    ] = "plmn"
    aaa: Annotated[str, Text(r"hostapd|freeradius"), About("what decides by certificates: hostapd or freeradius")] = (
        "hostapd"
    )
    server_name: Annotated[DnsName, About("name in the certificate of a private network's server")] = "aaa.localhost"
    access_port: Annotated[Port, About("port of the access network; 0: the system chooses")] = 0
    ports: Annotated[Interfaces, About("network interfaces that are its wired 802.1X ports (hostapd only)")] = ()
    lobby: Annotated[
        Destinations, About("where devices at those ports may go before they are attached: gateways, as host:port")
    ] = ()
    destinations: Annotated[
        Destinations, About("where attached devices may go, as host:port; * for every port of a host")
    ] = ("127.0.0.1:*", "localhost:*")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpSettings(PartySettings):
    """A service provider."""

    ROLE: ClassVar[str] = "sp"
    broker_port: Annotated[Port, About("port of the broker; 0: the system chooses")] = 0
    server_name: Annotated[DnsName, About("name in the broker's certificate")] = "localhost"
    broker: Annotated[
        str, Text(r"embedded|mosquitto"), About("which broker: our own, or mosquitto as a process of its own")
    ] = "embedded"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSettings(Settings):
    """A device; it needs no file, all of this has defaults."""

    ROLE: ClassVar[str] = "device"
    gateways: Annotated[Urls, About("gateways besides those that it was born with")] = ()
    timeout_seconds: Annotated[Span, About("time-out of one request")] = 10
    backoff_seconds: Annotated[Span, About("first back-off after a failure")] = 1
    backoff_limit: Annotated[Span, About("longest back-off")] = 300


ROLES: dict[str, type[Settings]] = {
    kind.ROLE: kind
    for kind in (
        NodeSettings,
        WitnessSettings,
        GatewaySettings,
        ConsortiumSettings,
        ManufacturerSettings,
        OwnerSettings,
        MnoSettings,
        SpSettings,
        DeviceSettings,
    )
}

_S = TypeVar("_S", bound=Settings)


def path_of(kind: type[Settings], state_dir: Path) -> Path:
    """Return where the settings of a role stand."""
    return state_dir / f"{kind.ROLE}.toml"


def load(kind: type[_S], state_dir: Path) -> _S:
    """Read the settings of one role from its state directory.

    A role whose settings all have defaults needs no file. Raises :class:`ConfigError`: ``no-settings``,
    ``bad-toml``, ``unknown-setting``, ``wrong-setting``, ``missing-setting``.
    """
    path = path_of(kind, state_dir)
    try:
        data = (read_limited if _required(kind) else read_if_there)(path, MAX_SETTINGS)
    except StoreError as error:
        hint = f"make it with: firstlight {kind.ROLE} init"
        raise ConfigError("no-settings", f"{path}: {error.detail}", hint=hint) from error
    return kind() if data is None else parse(kind, data, str(path))


def parse(kind: type[_S], data: bytes, name: str) -> _S:
    """Return the settings in the TOML ``data``; ``name`` stands in messages. Errors as :func:`load`."""
    try:
        text = data.decode()
        table = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError("bad-toml", f"{name}: {error}") from error
    hints = _hints(kind)
    values: dict[str, Any] = {}
    for key, value in table.items():
        where = f"{name}, line {_line(text, key)}: {key}"
        if key not in hints:
            raise ConfigError("unknown-setting", where, hint=f"allowed: {', '.join(sorted(hints))}")
        values[key] = _fit(hints[key], value, where)
    for key in _required(kind):
        if key not in values:
            raise ConfigError("missing-setting", f"{name}: {key}", hint=f"{key}: {allowed(hints[key])}")
    return kind(**values)


def write_initial(settings: Settings, state_dir: Path) -> Path:
    """Write the settings of a role with comments, mode 0600, into its state directory, which is made if needed.

    Raises :class:`ConfigError` (``settings-exist``) if there are some already, ``wrong-setting`` for values that
    would not read back, and :class:`StoreError` of :mod:`firstlight.files`.
    """
    kind = type(settings)
    path = path_of(kind, private_directory(state_dir))
    data = render(settings).encode()
    parse(kind, data, str(path))
    try:
        write_atomic(path, data, exclusive=True)
    except StoreError as error:
        if error.code != "file-exists":
            raise
        raise ConfigError("settings-exist", f"{path} is there already", hint="edit it, or take another") from error
    return path


def render(settings: Settings) -> str:
    """Return the TOML of ``settings``: each key under a comment that says what it is; what is None is left out."""
    kind = type(settings)
    lines = [f"# {(kind.__doc__ or '').strip().splitlines()[0]}"]
    hints = _hints(kind)
    for one in _fields(kind):
        value = getattr(settings, one.name)
        lines += ["", f"# {_about(hints[one.name])} ({allowed(hints[one.name])})"]
        lines.append(f"# {one.name} =" if value is None else f"{one.name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _fields(kind: type[Settings]) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(typing.cast(Any, kind))


def _hints(kind: type[Settings]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {one.name: hints[one.name] for one in _fields(kind)}


def _required(kind: type[Settings]) -> list[str]:
    return [one.name for one in _fields(kind) if one.default is dataclasses.MISSING]


def _line(text: str, key: str) -> int:
    """Return the line on which a top-level ``key`` (or a table of that name) stands."""
    name = re.escape(key)
    quoted = rf"(?:{name}|\"{name}\"|'{name}')"
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(rf"\s*(?:{quoted}\s*[.=]|\[\[?\s*{quoted}\s*[.\]])", line):
            return number
    return 1


def _about(hint: Any) -> str:
    return next(one.text for one in typing.get_args(hint) if isinstance(one, About))


def _split(hint: Any) -> tuple[Any, Any]:
    """Return a type without its bound, and the bound."""
    if typing.get_origin(hint) is Annotated:
        inner, bound = typing.get_args(hint)[:2]
        return inner, bound
    return hint, None


def _fit(hint: Any, value: Any, where: str) -> Any:
    """Return ``value`` as the type wants it, or raise ``wrong-setting``."""
    kind, bound = _split(hint)
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return _fit(typing.get_args(kind)[0], value, where)
    if typing.get_origin(kind) is tuple and type(value) is list and bound.low <= len(value) <= bound.high:
        item = typing.get_args(kind)[0]
        return tuple(_fit(item, entry, where) for entry in value)
    if type(value) is kind and _within(bound, value):
        return value
    raise ConfigError("wrong-setting", f"{where} = {value!r:.80}", hint=f"allowed: {allowed(hint)}")


def _within(bound: Any, value: Any) -> bool:
    if isinstance(bound, Range):
        return bool(bound.low <= value <= bound.high)
    if isinstance(bound, Text):
        return re.fullmatch(bound.pattern, value) is not None
    return True


def allowed(hint: Any) -> str:
    """Say in words what a setting of type ``hint`` may be."""
    kind, bound = _split(hint)
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return f"{allowed(typing.get_args(kind)[0])}, or left out"
    if typing.get_origin(kind) is tuple:
        least = f"{bound.low} to" if bound.low else "at most"
        return f"a list of {least} {bound.high}, each {allowed(typing.get_args(kind)[0])}"
    if isinstance(bound, Range):
        return f"a whole number from {bound.low} to {bound.high}"
    if isinstance(bound, Text):
        return f"text like {bound.pattern}"
    return {bool: "true or false", int: "a whole number", str: "text"}[kind]


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else json.dumps(value)
