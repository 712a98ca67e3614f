"""EAP-TLS with eapol_test, which stands for a device and its port at once: for tests and measurements."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from firstlight.access.device.eap_tls import distrust, tls_block, tls_files
from firstlight.access.device.eapol_test import SECONDS, RadiusServer
from firstlight.access.ports import TlsCredentials
from firstlight.access.serving.daemons import EAPOL_TEST, Daemon, Recipe

_EVENT = "CTRL-EVENT-"
_FULL = "CTRL-EVENT-EAP-PEER-CERT depth=0"
_VERSION = "SSL: Using TLS version "


@dataclass(frozen=True, slots=True)
class TlsOutcome:
    """How an authentication ended; whether the device did not believe the network; the newest TLS version in use."""

    success: bool
    distrusted: bool
    version: str
    handshakes: int
    """How many full handshakes there were."""


async def authenticate_tls(
    server: RadiusServer, own: TlsCredentials, *, times: int = 1, change: tuple[str, str] = ("", "")
) -> TlsOutcome:
    """Authenticate, ``times`` over within one run; ``change`` replaces one text in the configuration by another."""
    versions: list[str] = []
    distrusted: list[str] = []
    handshakes: Counter[str] = Counter()

    def hear(line: str) -> None:
        if line.startswith(_VERSION):
            versions.append(line.removeprefix(_VERSION))
        elif line.startswith(_FULL):
            handshakes[line] += 1
        elif line.startswith(_EVENT) and distrust(line):
            distrusted.append(line)

    block = tls_block(own, 'ssid="x"\n  key_mgmt=WPA-EAP').replace(*change)
    with tempfile.TemporaryDirectory(prefix="fl-eapol-") as place:
        arguments = ("-c", "eapol.conf", "-a", server.host, "-p", str(server.port), "-s", server.secret)
        more = ("-M", server.mac, "-t", str(SECONDS), "-r", str(times - 1))
        files: dict[str, str | bytes] = {"eapol.conf": block, **tls_files(own)}
        daemon = await Daemon.start(Recipe(EAPOL_TEST, arguments + more, Path(place), files, hear=hear))
        try:
            code = await daemon.wait()
            await daemon.ended()
        finally:
            await daemon.stop()
    return TlsOutcome(code == 0, bool(distrusted), versions[-1] if versions else "", handshakes.total())
