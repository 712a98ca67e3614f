"""How a device attaches at the wired 802.1X port that it is plugged into: wpa_supplicant, with the soft USIM beside it.

The device's own network namespace has one interface. Before the attach the port lets it reach a gateway and nothing
else; through that it sends its SUCI and gets a one-time name, under which alone it then speaks EAP-AKA'.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from firstlight.access.control_socket import ControlSocket, answers
from firstlight.access.device.usim_supplicant import SupplicantUsim
from firstlight.access.ports import Naming, SimStore
from firstlight.access.serving.daemons import WPA_SUPPLICANT, Daemon, Recipe
from firstlight.errors import AccessError
from firstlight.ports import Random
from firstlight.sim.naming import eap_identity

INTERFACE = "eth0"
SECONDS = 30.0
METHOD = "AKA'"
_SUCCESS, _FAILURE = "CTRL-EVENT-EAP-SUCCESS", "CTRL-EVENT-EAP-FAILURE"
_CONFIGURATION = "ctrl_interface=control\nap_scan=0\nexternal_sim=1\n"
_PREFIX = "fl-wired-"


class WiredAttachment:
    """An open port (:class:`firstlight.access.ports.Attachment`)."""

    proxy = None

    def __init__(self, session: bytes, line: _Line, leave: Callable[[_Line], asyncio.Future[None]]) -> None:
        """Describe the attachment over ``line``; ``leave`` ends it."""
        self.session = session
        self._line = line
        self._leave = leave

    async def lost(self) -> None:
        """Return when the port has been shut to the device."""
        await self._line.lost.wait()

    async def close(self) -> None:
        """Leave the network, unless another attachment has taken this one's place."""
        await self._leave(self._line)


class WiredNetworkAccess:
    """A :class:`firstlight.access.ports.NetworkAccess` at one interface; one attachment at a time."""

    def __init__(self, random: Random, interface: str = INTERFACE, *, seconds: float = SECONDS) -> None:
        """Attach at ``interface`` within so many seconds."""
        self._random = random
        self._interface = interface
        self._seconds = seconds
        self._line: _Line | None = None

    async def attach(self, store: SimStore, naming: Naming | None = None) -> WiredAttachment:
        """Attach; errors as the port. An attachment from before ends when this one begins to be made."""
        if naming is None:
            raise AccessError("no-naming", "no way to get a one-time name")
        sim = store.load()
        named = await naming.name(sim.home.conceal(sim.credentials.imsi, self._random))
        if self._line is not None:
            await self._line.close()
        line = self._line = _Line(self._interface, SupplicantFiles())
        try:
            async with asyncio.timeout(self._seconds):
                await line.open(eap_identity(named.name, sim.home.mcc, sim.home.mnc), store)
        except TimeoutError as error:
            await line.close()
            raise AccessError("attach-timeout", "the port did not answer in time") from error
        except BaseException:
            await line.close()
            raise
        return WiredAttachment(self._random.bytes(16), line, self._leave)

    def _leave(self, line: _Line) -> asyncio.Future[None]:
        return asyncio.ensure_future(line.close())


class SupplicantFiles:
    """A private directory for one run of a supplicant; those that a crash left behind are swept first."""

    def __init__(self) -> None:
        """Make it."""
        base = Path(tempfile.gettempdir())
        for left in base.glob(f"{_PREFIX}*"):
            owner = left.name.removeprefix(_PREFIX).partition("-")[0]
            if owner.isdecimal() and not Path("/proc", owner).exists():
                shutil.rmtree(left, ignore_errors=True)
        self.path = base / f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        self.path.mkdir(mode=0o700)

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)


class _Line:
    """One run of wpa_supplicant."""

    def __init__(self, interface: str, files: SupplicantFiles) -> None:
        self._interface = interface
        self._files = files
        self._daemon: Daemon | None = None
        self._control: ControlSocket | None = None
        self._watching: asyncio.Task[None] | None = None
        self._usim: SupplicantUsim | None = None
        self.lost = asyncio.Event()

    async def open(self, identity: str, store: SimStore) -> None:
        """Authenticate, and watch from then on; :class:`AccessError`."""
        socket = self._files.path / "control" / self._interface
        network = f'network={{\n  key_mgmt=IEEE8021X\n  eapol_flags=0\n  eap={METHOD}\n  identity="{identity}"\n}}\n'
        arguments = ("-D", "wired", "-i", self._interface, "-c", "supplicant.conf")
        files = {"supplicant.conf": _CONFIGURATION + network}
        self._daemon = await Daemon.start(
            Recipe(WPA_SUPPLICANT, arguments, self._files.path, files, lambda: answers(socket))
        )
        self._control = ControlSocket(socket)
        self._usim = SupplicantUsim(self._control, store)
        await self._control.attach()
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watching = asyncio.create_task(self._watch(self._control, self._usim, outcome))
        await outcome

    async def _watch(self, control: ControlSocket, usim: SupplicantUsim, outcome: asyncio.Future[None]) -> None:
        """Answer for the card; tell the first outcome, and every failure after a success as a loss."""
        try:
            while True:
                event = await control.events.get()
                if await usim.answer(event):
                    continue
                if event.startswith(_SUCCESS) and not outcome.done():
                    outcome.set_result(None)
                elif event.startswith((_FAILURE, "CTRL-EVENT-TERMINATING")):
                    break
        except AccessError as error:
            if not outcome.done():
                outcome.set_exception(error)
        if not outcome.done():
            outcome.set_exception(_refused(usim.verdicts))
        self.lost.set()

    async def close(self) -> None:
        """Leave: a log-off, and the end of the supplicant."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self._watching = None
        if self._control is not None:
            if not self.lost.is_set():
                with contextlib.suppress(AccessError):
                    await self._control.ask("LOGOFF")
            self._control.close()
            self._control = None
        if self._daemon is not None:
            await self._daemon.stop()
            self._daemon = None
        self._files.remove()


def _refused(verdicts: list[str]) -> AccessError:
    """Return why an authentication failed, as far as the card knows; else the network refuses the device."""
    last = verdicts[-1] if verdicts else ""
    if last in ("network-not-authentic", "separation-missing"):
        return AccessError(last, "the card does not take the network for its own")
    if last == "resynchronising":
        return AccessError("resync-failed", "the sequence number is not acceptable after resynchronisation either")
    return AccessError("attach-refused", "the network refuses this device")
