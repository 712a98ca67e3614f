"""hostapd, in its two uses: as an EAP server that is asked over RADIUS, and as the guard of wired 802.1X ports.

Both are started by their configuration alone, written here. As an EAP server it is told which methods to offer to
which identities, and what those methods need: for AKA' and AKA the socket of an authentication centre, for TLS a
certificate. hostapd must never be run with ``-K`` or ``-dd``, which print keys.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from firstlight.access.control_socket import ControlSocket, answers
from firstlight.access.serving.daemons import HOSTAPD, Daemon, Recipe
from firstlight.errors import AccessError

_CONTROL = "control"
_USERS = "eap.users"
_CLIENTS = "radius.clients"
_CONFIGURATION = "hostapd.conf"
SIM_DB_SECONDS = 3
AKA_USERS = ('"0"* AKA', '"6"* AKA\'')
"""Who comes with which method: the first digit of an identity says so (TS 23.003 §19.3.2)."""


@dataclass(frozen=True, slots=True)
class RadiusClient:
    """Who may ask over RADIUS (an address or a network), and the secret that proves it."""

    address: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class EapMethods:
    """What an EAP server offers.

    ``users`` are lines of hostapd's user file; ``settings`` what the methods need, by hostapd's names for it;
    ``files`` are put beside the configuration (certificates, keys), so that settings may name them.
    """

    users: Sequence[str]
    settings: Mapping[str, str | int] = field(default_factory=dict)
    files: Mapping[str, str | bytes] = field(default_factory=dict, repr=False)


def aka_methods(sim_db: Path) -> EapMethods:
    """Return EAP-AKA' and EAP-AKA, with an authentication centre at the UNIX socket ``sim_db``.

    ``eap_sim_id=0``: no pseudonyms and no fast re-authentication, which would go past the authentication centre.
    """
    settings: dict[str, str | int] = {
        "eap_sim_db": f"unix:{sim_db}",
        "eap_sim_db_timeout": SIM_DB_SECONDS,
        "eap_sim_id": 0,
        "eap_sim_aka_result_ind": 0,
    }
    return EapMethods(AKA_USERS, settings)


class EapServer:
    """hostapd as an EAP server over RADIUS."""

    def __init__(
        self,
        directory: Path,
        methods: EapMethods,
        clients: Sequence[RadiusClient],
        *,
        port: int = 0,
        hear: Callable[[str], None] | None = None,
    ) -> None:
        """Prepare one in ``directory`` of its own; without ``port`` the system chooses it.

        ``hear`` is told each line that it prints.
        """
        self._hear = hear
        self._directory = directory
        self._methods = methods
        self._clients = clients
        self._wanted = port
        self._daemon: Daemon | None = None
        self.port = 0
        """The UDP port on which RADIUS is answered."""

    async def start(self) -> None:
        """Start it; errors as :meth:`Daemon.start`."""
        _sweep()
        self.port = self._wanted or free_udp_port()
        configuration = {
            "driver": "none",
            "interface": "lo",
            "logger_syslog": 0,
            "logger_stdout": 0,
            "ctrl_interface": _CONTROL,
            "eap_server": 1,
            "eap_user_file": _USERS,
            "radius_server_clients": _CLIENTS,
            "radius_server_auth_port": self.port,
            **self._methods.settings,
        }
        files = {
            _CONFIGURATION: configured(configuration),
            _USERS: "".join(f"{line}\n" for line in self._methods.users),
            _CLIENTS: "".join(f"{one.address} {one.secret}\n" for one in self._clients),
            **self._methods.files,
        }
        self._daemon = await Daemon.start(
            Recipe(HOSTAPD, (_CONFIGURATION,), self._directory, files, lambda: answers(self._socket), hear=self._hear)
        )

    @property
    def daemon(self) -> Daemon:
        """The running program; :class:`AccessError` (``daemon-died``) before :meth:`start`."""
        if self._daemon is None:
            raise AccessError("daemon-died", "hostapd was not started")
        return self._daemon

    def control(self) -> ControlSocket:
        """Return a connection to its control interface."""
        return ControlSocket(self._socket)

    async def stop(self) -> None:
        """Stop it."""
        if self._daemon is not None:
            await self._daemon.stop()

    @property
    def _socket(self) -> Path:
        return self._directory / _CONTROL / "lo"


def _sweep() -> None:
    """Remove the sockets that EAP servers have left where they died; the place is hostapd's own choice."""
    for left in Path("/tmp").glob("eap_sim_db_*-*"):  # noqa: S108
        pid = left.name.removeprefix("eap_sim_db_").partition("-")[0]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            with contextlib.suppress(OSError):
                left.unlink()


def configured(values: Mapping[str, str | int]) -> str:
    """Return a configuration in hostapd's form; :class:`AccessError` (``bad-configuration``) for a line break in it."""
    lines = [f"{key}={value}" for key, value in values.items()]
    if any("\n" in line or "\0" in line for line in lines):
        raise AccessError("bad-configuration", "a setting of hostapd holds a line break")
    return "\n".join(lines) + "\n"


def free_udp_port(host: str = "127.0.0.1") -> int:
    """Return a UDP port that is free now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
    return port
