"""How a device attaches at the wired 802.1X port that it is plugged into: wpa_supplicant, with the soft USIM beside it.

The device's own network namespace has one interface. Before the attach the port lets it reach a gateway and nothing
else; through that it sends its SUCI and gets a one-time name, under which alone it then speaks EAP-AKA'. With a
certificate it speaks EAP-TLS; a renewed one takes the place of the one before in the supplicant that runs, which then
proves itself anew while its port stays open.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path

from firstlight.access.control_socket import ControlSocket, answers
from firstlight.access.device.eap_tls import distrust, tls_block, tls_files, tls_settings
from firstlight.access.device.usim_supplicant import SupplicantUsim
from firstlight.access.ports import Naming, SimStore, TlsCredentials
from firstlight.access.serving.daemons import WPA_SUPPLICANT, Daemon, Recipe, put
from firstlight.errors import AccessError
from firstlight.ports import Random
from firstlight.sim.naming import eap_identity

INTERFACE = "eth0"
SECONDS = 30.0
METHOD = "AKA'"
NUDGE_SECONDS = 3.0
"""After which a port that has not asked who is there is told again that somebody is."""
_BEGUN = "CTRL-EVENT-EAP-STARTED"
_SUCCESS = "CTRL-EVENT-EAP-SUCCESS"
_ENDS = ("CTRL-EVENT-EAP-FAILURE", "CTRL-EVENT-TERMINATING")
_CONFIGURATION = "ctrl_interface=control\nap_scan=0\nexternal_sim=1\nfast_reauth=0\n"
_LINK = "key_mgmt=IEEE8021X\n  eapol_flags=0"
_PREFIX = "fl-wired-"


class WiredAttachment:
    """An open port (:class:`firstlight.access.ports.Attachment`)."""

    proxy = None

    def __init__(self, session: bytes, line: _Line, leave: Callable[[WiredAttachment, _Line], Awaitable[None]]) -> None:
        """Describe the attachment over ``line``; ``leave`` ends it."""
        self.session = session
        self._line = line
        self._leave = leave

    async def lost(self) -> None:
        """Return when the port has been shut to the device."""
        await self._line.lost.wait()

    async def close(self) -> None:
        """Leave the network, unless another attachment has taken this one's place."""
        await self._leave(self, self._line)


class WiredNetworkAccess:
    """A :class:`firstlight.access.ports.NetworkAccess` at one interface; one attachment at a time."""

    def __init__(self, random: Random, interface: str = INTERFACE, *, seconds: float = SECONDS) -> None:
        """Attach at ``interface`` within so many seconds."""
        self._random = random
        self._interface = interface
        self._seconds = seconds
        self._line: _Line | None = None
        self._newest: WiredAttachment | None = None

    async def attach(self, store: SimStore, naming: Naming | None = None) -> WiredAttachment:
        """Attach; errors as the port. An attachment from before ends when this one begins to be made."""
        if naming is None:
            raise AccessError("no-naming", "no way to get a one-time name")
        sim = store.load()
        named = await naming.name(sim.home.conceal(sim.credentials.imsi, self._random))
        identity = eap_identity(named.name, sim.home.mcc, sim.home.mnc)
        network = f'network={{\n  {_LINK}\n  eap={METHOD}\n  identity="{identity}"\n}}\n'
        line = await self._new_line()
        return await self._attached(line, line.open(network, {}, store))

    async def enter(self, own: TlsCredentials) -> WiredAttachment:
        """Attach with a certificate; errors as the port. One that is open under another certificate stays open."""
        line = self._line
        if line is not None and line.certified and line.stands:
            return await self._attached(line, line.renew(own))
        line = await self._new_line()
        return await self._attached(line, line.open(tls_block(own, _LINK), tls_files(own), None))

    async def _new_line(self) -> _Line:
        if self._line is not None:
            await self._line.close()
        self._line = _Line(self._interface, SupplicantFiles())
        return self._line

    async def _attached(self, line: _Line, work: Coroutine[None, None, None]) -> WiredAttachment:
        """Do what attaches over ``line``, in time, and close it if that fails."""
        try:
            async with asyncio.timeout(self._seconds):
                await work
        except TimeoutError as error:
            await line.close()
            raise AccessError("attach-timeout", "the port did not answer in time") from error
        except BaseException:
            await line.close()
            raise
        self._newest = WiredAttachment(self._random.bytes(16), line, self._leave)
        return self._newest

    async def _leave(self, attachment: WiredAttachment, line: _Line) -> None:
        if attachment is self._newest or line is not self._line:
            await line.close()


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
        self._outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._begun = False
        self.certified = False
        """Whether it attached with a certificate."""
        self.lost = asyncio.Event()

    async def open(self, network: str, files: Mapping[str, bytes], store: SimStore | None) -> None:
        """Authenticate by a ``network`` part, and watch from then on; :class:`AccessError`.

        ``store`` holds the USIM; without one the configuration names a certificate.
        """
        socket = self._files.path / "control" / self._interface
        arguments = ("-D", "wired", "-i", self._interface, "-c", "supplicant.conf")
        all_files: dict[str, str | bytes] = {"supplicant.conf": _CONFIGURATION + network, **files}
        self._daemon = await Daemon.start(
            Recipe(WPA_SUPPLICANT, arguments, self._files.path, all_files, lambda: answers(socket))
        )
        self.certified = store is None
        self._control = ControlSocket(socket)
        usim = None if store is None else SupplicantUsim(self._control, store)
        await self._control.attach()
        self._outcome = asyncio.get_running_loop().create_future()
        self._watching = asyncio.create_task(self._watch(self._control, usim))
        while not self._outcome.done():
            await asyncio.wait([self._outcome], timeout=NUDGE_SECONDS)
            if not self._begun and not self._outcome.done():
                await self._control.ask("REAUTHENTICATE")
        self._outcome.result()

    @property
    def stands(self) -> bool:
        """Whether it is open still."""
        return self._control is not None and not self.lost.is_set()

    async def renew(self, own: TlsCredentials) -> None:
        """Authenticate anew with another certificate, the port open all the while; :class:`AccessError`."""
        control = self._control
        if control is None:
            raise AccessError("attach-refused", "the supplicant has ended")
        for name, data in tls_files(own).items():
            put(self._files.path / name, data)
        self._outcome = outcome = asyncio.get_running_loop().create_future()
        for key, value in tls_settings(own).items():
            if await control.ask(f'SET_NETWORK 0 {key} "{value}"') != "OK":
                raise AccessError("attach-refused", f"the supplicant does not take {key}")
        if await control.ask("REAUTHENTICATE") != "OK":
            raise AccessError("attach-refused", "the supplicant does not begin anew")
        await outcome

    async def _watch(self, control: ControlSocket, usim: SupplicantUsim | None) -> None:
        """Answer for the card; tell each outcome that is awaited, and any other failure as a loss."""
        verdicts = [] if usim is None else usim.verdicts
        try:
            while not (event := await control.events.get()).startswith(_ENDS):
                if usim is None or not await usim.answer(event):
                    self._note(event, verdicts)
        except AccessError as error:
            if not self._outcome.done():
                self._outcome.set_exception(error)
        if not self._outcome.done():
            self._outcome.set_exception(_refused(verdicts))
        self.lost.set()

    def _note(self, event: str, verdicts: list[str]) -> None:
        if event.startswith(_BEGUN):
            self._begun = True
        elif event.startswith(_SUCCESS) and not self._outcome.done():
            self._outcome.set_result(None)
        elif distrust(event):
            verdicts.append("network-not-authentic")

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
