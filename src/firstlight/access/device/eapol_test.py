"""Attaching with eapol_test: a supplicant and a RADIUS client in one program, for tests and measurements.

It stands for a device and the port that it is plugged into, and so holds the port's RADIUS secret; eapol_test takes
that on its command line, which is one reason more why no device runs it.
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path

from firstlight.access.control_socket import ControlSocket
from firstlight.access.device.usim_supplicant import SupplicantUsim
from firstlight.access.ports import SimStore
from firstlight.access.serving.daemons import EAPOL_TEST, Daemon, Recipe
from firstlight.errors import AccessError
from firstlight.sim.naming import eap_identity

SECONDS = 10
_FACE = "test"
AKA_PRIME, AKA = "AKA'", "AKA"


@dataclass(frozen=True, slots=True)
class RadiusServer:
    """Where a port asks over RADIUS, and with which secret."""

    host: str
    port: int
    secret: str
    mac: str = "02:00:00:00:00:01"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an authentication ended, and what the USIM made of each challenge."""

    success: bool
    verdicts: tuple[str, ...]


def _network(identity: str, method: str) -> str:
    return f'network={{\n  ssid="x"\n  key_mgmt=WPA-EAP\n  eap={method}\n  identity="{identity}"\n}}\n'


async def authenticate(
    server: RadiusServer, store: SimStore, name: str, *, method: str = AKA_PRIME, times: int = 1
) -> Outcome:
    """Authenticate under ``name``, ``times`` over within one run (the later ones as re-authentications).

    Raises :class:`AccessError` of :class:`Daemon`, ``attach-timeout``.
    """
    home = store.load().home
    block = _network(eap_identity(name, home.mcc, home.mnc, prime=method == AKA_PRIME), method)
    with tempfile.TemporaryDirectory(prefix="fl-eapol-") as place:
        directory = Path(place)
        socket = directory / "control" / _FACE

        async def listens() -> bool:
            return socket.exists()

        arguments = ("-c", "eapol.conf", "-a", server.host, "-p", str(server.port), "-s", server.secret)
        more = ("-M", server.mac, "-t", str(SECONDS), "-i", _FACE, "-r", str(times - 1), "-W")
        configuration = f"ctrl_interface=control\nexternal_sim=1\n{block}"
        recipe = Recipe(EAPOL_TEST, arguments + more, directory, {"eapol.conf": configuration}, listens)
        daemon = await Daemon.start(recipe)
        try:
            return await _drive(daemon, socket, store, separated=method == AKA_PRIME)
        finally:
            await daemon.stop()


async def _drive(daemon: Daemon, socket: Path, store: SimStore, *, separated: bool) -> Outcome:
    control = ControlSocket(socket)
    usim = SupplicantUsim(control, store, separated=separated)
    ended = asyncio.create_task(daemon.wait())
    try:
        await control.attach()
        async with asyncio.timeout(SECONDS + 5):
            while not ended.done():
                event = asyncio.create_task(control.events.get())
                await asyncio.wait({event, ended}, return_when=asyncio.FIRST_COMPLETED)
                if event.done():
                    await usim.answer(event.result())
                else:
                    event.cancel()
        return Outcome(ended.result() == 0, tuple(usim.verdicts))
    except TimeoutError as error:
        raise AccessError("attach-timeout", "eapol_test did not end") from error
    finally:
        ended.cancel()
        control.close()
