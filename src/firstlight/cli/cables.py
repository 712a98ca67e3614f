"""Cables from devices to an operator's ports, on one machine: a network namespace and a veth pair for each device.

    root namespace                                   fl<pid>d<n>
      fl<pid>s      198.18.x.1   (gateway, services; a veth whose other end, fl<pid>t, leads nowhere)
      fl<pid>p<n>   the operator's port ──────────── eth0   198.18.x.(10 + n)

Ports are down until their operator raises them. Every name holds the process that made it, and whoever makes cables
first takes away what is left of those whose process is gone: nothing outlives a crash for longer than that.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from firstlight.access.serving.daemons import IP, NFT
from firstlight.errors import ConfigError

MOST = 240
_FIRST = 10
_BLOCKS = 512
"""How many times 256 addresses 198.18.0.0/15 has, which is set aside for tests (RFC 2544)."""
_OURS = re.compile(r"fl([0-9]+)[a-z][0-9]*")
_TABLE = re.compile(r"firstlight_fl([0-9]+)[a-z][0-9]*")
INTERFACE = "eth0"


@dataclass(frozen=True, slots=True)
class Cable:
    """One device's way: its namespace, its address, and the port that it is plugged into."""

    namespace: str
    address: str
    port: str

    def inside(self, arguments: Sequence[str]) -> list[str]:
        """Return the command line that runs ``arguments`` at the device's end."""
        return [IP.find(), "netns", "exec", self.namespace, *arguments]


@dataclass(frozen=True, slots=True)
class Cables:
    """All cables of one world, and the address at which its servers are reached through them."""

    server: str
    cables: tuple[Cable, ...]

    @property
    def ports(self) -> tuple[str, ...]:
        """The operator's ports."""
        return tuple(one.port for one in self.cables)


@contextlib.contextmanager
def plugged(count: int) -> Iterator[Cables]:
    """Have ``count`` cables while the block runs; only root may.

    Raises :class:`ConfigError`: ``not-root``, ``too-many-devices``, ``cables-failed``; ``daemon-missing``.
    """
    if os.geteuid() != 0:
        raise ConfigError("not-root", "only root makes network namespaces", hint="run it as root")
    if count > MOST:
        raise ConfigError("too-many-devices", f"{count} cables, at most {MOST}")
    sweep()
    own = f"fl{os.getpid()}"
    block = _free_block()
    server = f"{block}.1"
    made = tuple(Cable(f"{own}d{n}", f"{block}.{_FIRST + n}", f"{own}p{n}") for n in range(count))
    try:
        _ip(f"link add {own}s type veth peer name {own}t", f"addr add {server}/32 dev {own}s", f"link set {own}s up")
        for one in made:
            _plug(one, server)
        yield Cables(server, made)
    finally:
        _unplug(os.getpid())


def sweep() -> None:
    """Take away what processes that are gone have left: namespaces, interfaces and tables."""
    found = {int(match[1]) for name in _names() if (match := _OURS.fullmatch(name))}
    found |= {int(match[1]) for name in _tables() if (match := _TABLE.fullmatch(name))}
    for pid in found:
        if not Path("/proc", str(pid)).exists():
            _unplug(pid)


def _plug(cable: Cable, server: str) -> None:
    space = cable.namespace
    _ip(
        f"netns add {space}",
        f"link add {cable.port} type veth peer name {INTERFACE} netns {space}",
        f"addr add {server} peer {cable.address}/32 dev {cable.port}",
        f"-n {space} link set lo up",
        f"-n {space} addr add {cable.address}/32 dev {INTERFACE}",
        f"-n {space} link set {INTERFACE} up",
        f"-n {space} route add {server}/32 dev {INTERFACE} src {cable.address}",
    )


def _unplug(pid: int) -> None:
    """Remove all that a process has made; what is not there any more is no error."""
    own = re.compile(rf"fl{pid}[a-z][0-9]*")
    spaces = [path.name for path in Path("/run/netns").glob(f"fl{pid}d*")]
    for name in spaces:
        subprocess.run([IP.find(), "netns", "delete", name], check=False, capture_output=True)  # noqa: S603
    for name in _interfaces():
        if own.fullmatch(name):
            subprocess.run([IP.find(), "link", "delete", name], check=False, capture_output=True)  # noqa: S603
    for name in _tables():
        if (match := _TABLE.fullmatch(name)) and int(match[1]) == pid:
            subprocess.run([NFT.find(), "delete", "table", "inet", name], check=False, capture_output=True)  # noqa: S603


def _ip(*commands: str) -> None:
    for command in commands:
        done = subprocess.run([IP.find(), *command.split()], check=False, capture_output=True, text=True)  # noqa: S603
        if done.returncode != 0:
            raise ConfigError("cables-failed", f"ip {command}: {done.stderr.strip()[:200]}")


def _names() -> list[str]:
    return [*_interfaces(), *(path.name for path in Path("/run/netns").glob("fl*"))]


def _interfaces() -> list[str]:
    return [path.name for path in Path("/sys/class/net").iterdir()]


def _tables() -> list[str]:
    if not NFT.there:
        return []
    done = subprocess.run([NFT.find(), "-j", "list", "tables"], check=False, capture_output=True)  # noqa: S603
    try:
        listed = json.loads(done.stdout)["nftables"]
    except (ValueError, KeyError):
        return []
    return [one["table"]["name"] for one in listed if "table" in one]


def _free_block() -> str:
    """Return the first three numbers of addresses that nobody on this machine has."""
    done = subprocess.run([IP.find(), "-o", "-4", "addr"], check=False, capture_output=True, text=True)  # noqa: S603
    for number in range(_BLOCKS):
        mixed = (os.getpid() + number) % _BLOCKS
        block = f"198.{18 + mixed // 256}.{mixed % 256}"
        if f" {block}." not in done.stdout:
            return block
    raise ConfigError("cables-failed", "no addresses are free")
