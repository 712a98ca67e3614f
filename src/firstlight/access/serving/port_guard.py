"""What lets frames through a wired port or does not: one nftables table for all ports of an operator.

hostapd's wired driver decides who is authorised and filters nothing. Here everything that comes in at a port, or goes
out of it, is dropped, unless it is between the device and the *lobby* (where devices may go before they are attached:
a gateway), or the port is open for the sender's address. EAPOL is no IP and not touched. The table outlives us: the
ports of an operator that has stopped are shut, those of one that has died stay as they were, and a new start shuts all
ports before anything else. It goes with the ports, and whoever takes those away removes it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from firstlight.access.ports import Traffic
from firstlight.access.serving.daemons import NFT
from firstlight.errors import AccessError, ConfigError

_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_ADDRESS = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}")
PREFIX = "firstlight_"
_STATISTICS = Path("/sys/class/net")

_TABLE = """\
add table inet {table}
delete table inet {table}
table inet {table} {{
  set ports {{ type ifname; elements = {{ {ports} }}; }}
  set open {{ type ifname . ether_addr; }}
  set outward {{ type ifname; }}
  set lobby {{ type ipv4_addr . inet_service; {lobby} }}
  set hosts {{ type ipv4_addr; {hosts} }}
  set services {{ type ipv4_addr . inet_service; {services} }}
  chain arriving {{
    type filter hook prerouting priority filter; policy accept;
    iifname @ports jump from_port
  }}
  chain from_port {{
    meta l4proto {{ tcp, udp }} ip daddr . th dport @lobby accept
    iifname . ether saddr @open jump attached
    drop
  }}
  chain attached {{
    ip daddr @hosts accept
    meta l4proto {{ tcp, udp }} ip daddr . th dport @services accept
  }}
  chain leaving {{
    type filter hook postrouting priority filter; policy accept;
    oifname @ports jump to_port
  }}
  chain to_port {{
    meta l4proto {{ tcp, udp }} ip saddr . th sport @lobby accept
    oifname @outward accept
    drop
  }}
}}
"""


class PortGuard:
    """Opens and shuts ports; nothing is open before :meth:`shut_all`, which comes first."""

    def __init__(self, ports: Sequence[str], *, lobby: Sequence[str], destinations: Sequence[str]) -> None:
        """Guard ``ports`` (interfaces); ``lobby`` and ``destinations`` are patterns like ``host:port`` and ``host:*``.

        Raises :class:`ConfigError` (``bad-port``).
        """
        if not ports or not all(_INTERFACE.fullmatch(port) for port in ports):
            raise ConfigError("bad-port", "not the names of interfaces")
        self._table = PREFIX + re.sub(r"[^A-Za-z0-9]", "_", ports[0])
        self._script = _TABLE.format(
            table=self._table,
            ports=", ".join(f'"{port}"' for port in ports),
            lobby=_elements(_pairs(lobby)),
            hosts=_elements(_hosts(destinations)),
            services=_elements(_pairs(destinations)),
        )
        self._open: dict[str, str] = {}

    async def shut_all(self) -> None:
        """Make the table, with every port shut; :class:`AccessError` (``guard-failed``, ``daemon-missing``)."""
        await nft(self._script)
        self._open.clear()

    async def open(self, port: str, mac: str) -> None:
        """Let the device with address ``mac`` through ``port``; errors as :meth:`shut_all`."""
        if _MAC.fullmatch(mac) is None:
            raise AccessError("guard-failed", "not a hardware address")
        await nft(_without(self._table, port, self._open.get(port)) + _with("add", self._table, port, mac))
        self._open[port] = mac

    async def shut(self, port: str) -> None:
        """Let nobody through ``port`` any more; errors as :meth:`shut_all`."""
        mac = self._open.pop(port, None)
        if mac is not None:
            await nft(_without(self._table, port, mac))

    def places(self) -> dict[str, str]:
        """Return for which hardware address each open port is open."""
        return dict(self._open)

    def is_open(self, port: str) -> bool:
        """Say whether somebody is let through."""
        return port in self._open


def _with(verb: str, table: str, port: str, mac: str) -> str:
    return (
        f'{verb} element inet {table} open {{ "{port}" . {mac} }}\n{verb} element inet {table} outward {{ "{port}" }}\n'
    )


def _without(table: str, port: str, mac: str | None) -> str:
    return "" if mac is None else _with("delete", table, port, mac)


def _elements(items: Iterable[str]) -> str:
    joined = ", ".join(dict.fromkeys(items))
    return f"elements = {{ {joined} }};" if joined else ""


def _hosts(patterns: Iterable[str]) -> list[str]:
    return [host for host, port in _parts(patterns) if port == "*"]


def _pairs(patterns: Iterable[str]) -> list[str]:
    return [f"{host} . {port}" for host, port in _parts(patterns) if port != "*"]


def _parts(patterns: Iterable[str]) -> list[tuple[str, str]]:
    """Return host and port of each pattern whose host is an IPv4 address: frames know no names."""
    split = (pattern.rpartition(":") for pattern in patterns)
    return [(host, port) for host, _, port in split if _ADDRESS.fullmatch(host)]


def moved(port: str) -> Traffic:
    """Return the bytes that an interface has moved so far, from the device and to it; zeros where it is gone."""
    return Traffic(_figure(port, "rx_bytes"), _figure(port, "tx_bytes"))


def _figure(port: str, name: str) -> int:
    try:
        return int((_STATISTICS / port / "statistics" / name).read_text())
    except (OSError, ValueError):
        return 0


async def nft(script: str) -> None:
    """Run an nftables script, all of it or nothing; :class:`AccessError` (``guard-failed``, ``daemon-missing``)."""
    process = await asyncio.create_subprocess_exec(
        NFT.find(),
        "-f",
        "-",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate(script.encode())
    if process.returncode != 0:
        raise AccessError("guard-failed", f"nft: {said.decode(errors='replace').strip()[:300]}")
