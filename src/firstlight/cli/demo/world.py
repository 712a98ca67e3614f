"""The world of the demo: directories, servers as child processes, and everybody registered on the ledger."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from firstlight.access.serving.daemons import MOSQUITTO
from firstlight.cli.cables import Cables
from firstlight.cli.demo.commands import ENVIRONMENT, arguments, run, run_together
from firstlight.cli.processes import Child, Family
from firstlight.files import write_atomic

WITNESSES = 3
Say = Callable[[str], None]
Setting = int | str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Places:
    """Where everybody's state directory is, all under one root."""

    root: Path

    @property
    def consortium(self) -> Path:
        """The members' keys, the genesis file, and the directories of node and witnesses."""
        return self.root / "consortium"

    @property
    def genesis(self) -> Path:
        """What everybody who joins is given."""
        return self.consortium / "genesis.cbor"

    @property
    def node(self) -> Path:
        """The ledger node."""
        return self.consortium / "node"

    @property
    def gateway(self) -> Path:
        """The gateway that nobody trusts."""
        return self.root / "gateway"

    @property
    def manufacturer(self) -> Path:
        """The manufacturer."""
        return self.root / "manufacturer"

    @property
    def distributor(self) -> Path:
        """The distributor: an owner for a while."""
        return self.root / "distributor"

    @property
    def owner(self) -> Path:
        """The owner."""
        return self.root / "owner"

    @property
    def mno(self) -> Path:
        """The mobile network operator."""
        return self.root / "mno"

    @property
    def sp(self) -> Path:
        """The service provider."""
        return self.root / "sp"

    @property
    def devices(self) -> Path:
        """One directory for each device."""
        return self.root / "devices"

    @property
    def papers(self) -> Path:
        """What people hand to each other: requests, purchases, sales."""
        return self.root / "papers"

    def witness(self, number: int) -> Path:
        """Witness ``number``, from 1."""
        return self.consortium / f"witness-{number}"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the servers of the world listen."""

    node: str
    gateway: str
    witnesses: tuple[str, ...]
    hint: str
    """Where devices are told at birth that the gateway is: its URL, over CoAP if they are to use that."""


class World:
    """A ledger, a gateway, an MNO, an SP and owners, each in a process of its own."""

    def __init__(
        self,
        places: Places,
        family: Family,
        say: Say,
        *,
        settings: Mapping[str, Mapping[str, Setting]] | None = None,
        coap: bool = False,
        cables: Cables | None = None,
    ) -> None:
        """Build in ``places``; children join ``family``. ``settings`` says by role what is set otherwise than usual.

        With ``cables`` devices are plugged into the operator's wired ports, which hostapd guards; servers that devices
        reach listen at the cables' end.

        With ``coap`` devices know of the gateway over CoAP only, and whoever serves devices does so over CoAP too.
        """
        self._coap = ("--coap",) if coap else ()
        self.places = places
        self._settings = settings or {}
        self._cables = cables
        self._family = family
        self._say = say

    def open(self, gateway_name: str | None = None) -> Addresses:
        """Start node, witnesses and gateway of a new chain; devices know the gateway by its URL, or by another name."""
        at = self.places
        at.papers.mkdir(parents=True, mode=0o700)
        self._say("the consortium makes its root, its witnesses and the genesis")
        chain = f"demo-{secrets.token_hex(4)}"
        run("consortium", "init", at.consortium, "--chain", chain, "--witnesses", WITNESSES)
        self._say("a ledger node and its witnesses start")
        node = self._ready(self._serve("node", at.node, "node", "serve", at.node))
        children = [self._witness(number, node) for number in range(1, WITNESSES + 1)]
        witnesses = tuple(self._ready(child) for child in children)
        run("node", "witnesses", at.node, *witnesses)
        self._say("a gateway that nobody trusts starts")
        given = [word for url in witnesses for word in ("--witness", url)]
        given += ("--name", gateway_name) if gateway_name else ()
        run("gateway", "init", at.gateway, "--genesis", at.genesis, "--node", node, *given)
        if self._cables is not None:
            change_settings(at.gateway / "gateway.toml", {"host": self._cables.server})
        gateway = self._ready(self._serve("gateway", at.gateway, "gateway", "serve", at.gateway, *self._coap))
        hint = "coap" + gateway.removeprefix("http") if self._coap else gateway
        return Addresses(node, gateway, witnesses, hint)

    def populate(self, addresses: Addresses) -> dict[str, str]:
        """Let manufacturer, MNO, SP, distributor and owner join; return the ids of the three parties by role."""
        at = self.places
        self._say("manufacturer, operator, service provider and owners join")
        joined = ("--genesis", at.genesis, "--node", addresses.node, "--gateway", addresses.gateway)
        run_together(
            ("manufacturer", "init", at.manufacturer, *joined),
            ("mno", "init", at.mno, *joined),
            ("sp", "init", at.sp, *joined),
            ("owner", "init", at.distributor, *joined),
            ("owner", "init", at.owner, *joined),
        )
        for role, values in _wired(self._cables, addresses).items():
            change_settings(getattr(at, role) / f"{role}.toml", values)
        for role, values in self._settings.items():
            change_settings(getattr(at, role) / f"{role}.toml", values)
        servers = [
            self._serve("mno", at.mno, "mno", "serve", at.mno, *self._coap),
            self._serve("sp", at.sp, "sp", "serve", at.sp, *self._coap),
            self._serve("owner", at.owner, "owner", "serve", at.owner),
        ]
        for server in servers:
            self._ready(server)
        parties = (("manufacturer", at.manufacturer), ("mno", at.mno), ("sp", at.sp))
        return {role: self._register(role, state, addresses.node) for role, state in parties}

    def _register(self, role: str, state: Path, node: str) -> str:
        request = self.places.papers / f"{role}.registration"
        run(role, "register", state, "--out", request)
        return run("consortium", "endorse", self.places.consortium, request, "--node", node).text("party")

    def _witness(self, number: int, node: str) -> Child:
        state = self.places.witness(number)
        return self._serve(f"witness-{number}", state, "consortium", "witness", state, "--node", node)

    def _serve(self, name: str, state: Path, *words: object) -> Child:
        return self._family.start(name, arguments(*words), environment=ENVIRONMENT, state_dir=state)

    def _ready(self, child: Child) -> str:
        return self._family.wait_for_endpoint(child)


def _wired(cables: Cables | None, addresses: Addresses) -> Mapping[str, Mapping[str, Setting]]:
    """Return what an operator with wired ports and a provider behind them have in their settings."""
    if cables is None:
        return {}
    operator: dict[str, Setting] = {
        "access": "hostapd",
        "ports": cables.ports,
        "lobby": (addresses.gateway.rpartition("/")[2],),
        "destinations": (f"{cables.server}:*",),
    }
    broker = "mosquitto" if MOSQUITTO.there else "embedded"
    return {"mno": operator, "sp": {"host": cables.server, "broker": broker}}


def change_settings(path: Path, values: Mapping[str, Setting]) -> None:
    """Set values in a settings file otherwise."""
    lines = [line.partition(" =") for line in path.read_text().splitlines()]
    text = "\n".join(
        f"{key} = {json.dumps(values[key])}" if key in values else key + mark + rest for key, mark, rest in lines
    )
    write_atomic(path, text.encode() + b"\n")
