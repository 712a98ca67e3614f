"""A device's way onto a network over RADIUS: eapol_test is its supplicant, and the port that it is plugged into.

There is no port that could shut: once authenticated, the device reaches everything on the loopback directly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

from firstlight.access.device.eapol_test import RadiusServer, authenticate
from firstlight.access.ports import Attachment, Naming, SimStore
from firstlight.errors import AccessError
from firstlight.ports import Random


class EapolAttachment:
    """An attachment that nothing ends."""

    proxy = None

    def __init__(self, session: bytes) -> None:
        """Name it."""
        self.session = session

    async def lost(self) -> None:
        """Never return."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Do nothing: eapol_test has ended long ago."""


class EapolAccess:
    """A :class:`firstlight.access.ports.NetworkAccess` for endpoints like ``radius://host:port``."""

    def __init__(self, secrets: Mapping[int, str], random: Random) -> None:
        """Ask servers with their secrets, by port."""
        self._secrets = secrets
        self._random = random
        self.tried: list[tuple[int, bool]] = []
        """At which port each attempt was made, and whether it succeeded."""

    async def attach(self, store: SimStore, naming: Naming | None = None) -> Attachment:
        """Attach under a one-time name; ``attach-refused``, ``no-naming``, and what :func:`authenticate` raises."""
        if naming is None:
            raise AccessError("no-naming", "no way to get a one-time name")
        sim = store.load()
        where = urlsplit(sim.access)
        assert where.scheme == "radius"
        assert where.hostname is not None
        assert where.port is not None
        named = await naming.name(sim.home.conceal(sim.credentials.imsi, self._random))
        server = RadiusServer(where.hostname, where.port, self._secrets[where.port])
        outcome = await authenticate(server, store, named.name)
        self.tried.append((where.port, outcome.success))
        if not outcome.success:
            raise AccessError("attach-refused", "the network refuses this device")
        return EapolAttachment(self._random.bytes(16))
