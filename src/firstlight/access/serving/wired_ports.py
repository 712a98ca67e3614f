"""Wired 802.1X ports: hostapd guards them, the EAP server behind RADIUS decides, and nftables lets frames through.

One hostapd serves all ports, each with a configuration and a control socket of its own. What it says there is passed
on: that a port is authorised, and that it is not any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from firstlight.access.control_socket import ControlSocket, answers
from firstlight.access.serving.daemons import HOSTAPD, IP, Daemon, Recipe
from firstlight.access.serving.hostapd import configured
from firstlight.errors import AccessError

QUIET_SECONDS = 2
_CONTROL = "control"
_AUTHORISED = re.compile(r"AP-STA-CONNECTED ([0-9a-f:]{17})")
_BEGINS = re.compile(r"CTRL-EVENT-EAP-STARTED ([0-9a-f:]{17})")
_NOT_ANY_MORE = re.compile(r"AP-STA-DISCONNECTED ([0-9a-f:]{17})")
Changed = Callable[[str, str, bool], Awaitable[None]]
"""Told that at a port the device with a hardware address is authorised, or is not any more."""


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Whom the ports ask."""

    port: int
    secret: str = field(repr=False)


class WiredPorts:
    """The running ports."""

    def __init__(self, directory: Path, ports: Sequence[str], asked: Authenticator, changed: Changed) -> None:
        """Guard ``ports`` with files in a ``directory`` of its own."""
        self._directory = directory
        self._ports = tuple(ports)
        self._asked = asked
        self._changed = changed
        self._daemon: Daemon | None = None
        self._controls: dict[str, ControlSocket] = {}
        self._listeners: list[asyncio.Task[None]] = []

    @property
    def daemon(self) -> Daemon:
        """hostapd; :class:`AccessError` (``daemon-died``) before :meth:`start`."""
        if self._daemon is None:
            raise AccessError("daemon-died", "hostapd was not started")
        return self._daemon

    async def start(self) -> None:
        """Begin; errors as :meth:`Daemon.start`."""
        for port in self._ports:
            await _raise_interface(port)
        files = {f"{port}.conf": configured(self._configuration(port)) for port in self._ports}
        self._daemon = await Daemon.start(Recipe(HOSTAPD, tuple(files), self._directory, files, self._ready))
        for port in self._ports:
            control = ControlSocket(self._socket(port))
            self._controls[port] = control
            await control.attach()
            self._listeners.append(asyncio.create_task(self._listen(port, control)))

    async def stop(self) -> None:
        """Stop; the ports stay as they are."""
        for listener in self._listeners:
            listener.cancel()
        await asyncio.gather(*self._listeners, return_exceptions=True)
        self._listeners.clear()
        for control in self._controls.values():
            control.close()
        self._controls.clear()
        if self._daemon is not None:
            await self._daemon.stop()

    async def authenticate_again(self, port: str, mac: str) -> None:
        """Have the device prove itself anew; hostapd shuts the port to one that cannot, and tells it."""
        control = self._controls.get(port)
        if control is not None:
            with contextlib.suppress(AccessError):
                await control.ask(f"EAPOL_REAUTH {mac}")

    async def ask_again(self, port: str, mac: str) -> None:
        """Ask a device that a hostapd before this one knew to prove itself; one that is gone does not answer."""
        control = self._controls.get(port)
        if control is not None:
            with contextlib.suppress(AccessError):
                await control.ask(f"NEW_STA {mac}")

    async def _ready(self) -> bool:
        for port in self._ports:
            if not await answers(self._socket(port)):
                return False
        return True

    async def _listen(self, port: str, control: ControlSocket) -> None:
        while True:
            event = await control.events.get()
            authorised, not_any_more = _AUTHORISED.match(event), _NOT_ANY_MORE.match(event)
            begins = _BEGINS.match(event)
            if begins is not None:
                await self._be_patient(control, begins[1])
            elif authorised is not None:
                await self._changed(port, authorised[1], True)
            elif not_any_more is not None:
                await self._changed(port, not_any_more[1], False)

    async def _be_patient(self, control: ControlSocket, mac: str) -> None:
        """Listen to a device again soon after it has failed: with a new grant it must not wait for a whole minute."""
        with contextlib.suppress(AccessError):
            await control.ask(f"EAPOL_SET {mac} quietPeriod {QUIET_SECONDS}")

    def _socket(self, port: str) -> Path:
        return self._directory / _CONTROL / port

    def _configuration(self, port: str) -> dict[str, str | int]:
        return {
            "interface": port,
            "driver": "wired",
            "logger_syslog": 0,
            "logger_stdout": 0,
            "ctrl_interface": _CONTROL,
            "ieee8021x": 1,
            "use_pae_group_addr": 1,
            "eap_reauth_period": 0,
            "own_ip_addr": "127.0.0.1",
            "nas_identifier": port,
            "auth_server_addr": "127.0.0.1",
            "auth_server_port": self._asked.port,
            "auth_server_shared_secret": self._asked.secret,
        }


async def _raise_interface(port: str) -> None:
    process = await asyncio.create_subprocess_exec(
        IP.find(), "link", "set", "dev", port, "up", stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    if process.returncode != 0:
        raise AccessError("no-such-port", f"{port}: {said.decode(errors='replace').strip()[:200]}")
