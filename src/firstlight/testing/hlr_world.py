"""An operator whose keys are in osmo-hlr and whose network hostapd serves; all of it processes that others wrote."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from firstlight.access.serving.copies import CopyWatch
from firstlight.access.serving.network_hostapd import AkaBackend, HostapdNetwork, HostapdSettings
from firstlight.access.serving.osmo_hlr import OsmoHlr
from firstlight.access.serving.osmo_hlr_centre import OsmoAuthenticationCentre
from firstlight.stores.osmo_hlr import HlrDatabase
from firstlight.stores.subscriber_changes import SubscriberChanges
from firstlight.stores.subscriptions import Subscriptions
from firstlight.testing.access_network import DATABASE, LONG
from firstlight.testing.clock import FakeClock
from firstlight.testing.hostapd_world import HostapdWorld
from firstlight.testing.random import SeededRandom

PAUSE = 0.01


@dataclass(slots=True)
class HlrWorld(HostapdWorld):
    """A store, the register that is told of it, and hostapd in front of both."""

    hlr: OsmoHlr = field(kw_only=True)

    def register(self) -> HlrDatabase:
        """Open the register's database, as its operator may."""
        return HlrDatabase.open(self.hlr.database)

    def kill(self) -> None:
        """End osmo-hlr as a crash does."""
        os.kill(self.hlr.pid, signal.SIGKILL)

    async def told(self, code: str, times: int = 1) -> None:
        """Wait until ``code`` has been reported so often."""
        while self.outcomes.count(code) < times:  # noqa: ASYNC110 - whoever reports knows of no event
            await asyncio.sleep(PAUSE)

    async def settled(self) -> None:
        """Wait until the register knows all that the store does."""
        changes = SubscriberChanges.open(self.hlr.database.parents[1] / DATABASE)
        with contextlib.closing(changes):
            while not changes.settled():  # noqa: ASYNC110 - another thread does it
                await asyncio.sleep(PAUSE)


@contextlib.asynccontextmanager
async def hlr_world(path: Path, *, private: bool | None = None) -> AsyncIterator[HlrWorld]:
    """Run an operator with osmo-hlr and hostapd, everything of them in the directory ``path``."""
    store = Subscriptions.open(path / DATABASE)
    clock, random, used = FakeClock(), SeededRandom("hlr world"), list[bytes]()
    outcomes: list[str] = []
    hlr = OsmoHlr(path / "hlr", outcomes.append, private=private)
    centre = OsmoAuthenticationCentre(
        store,
        SubscriberChanges.open(path / DATABASE),
        hlr,
        lambda: HlrDatabase.open(hlr.database),
        random=random,
        clock=clock,
        on_first_use=used.append,
        report=outcomes.append,
    )
    copied: list[str] = []
    backend = AkaBackend(centre, outcomes.append, copies=CopyWatch(store, random, copied.append))
    network = HostapdNetwork(
        HostapdSettings(path / "access", sweep_s=0.01),
        backend=backend,
        users=centre,
        log=centre,
        random=random,
        report=outcomes.append,
    )
    try:
        async with asyncio.timeout(LONG):
            await centre.start()
            await network.start(store)
            await centre.ready()
            yield HlrWorld(store, centre, network, backend, clock, random, used, copied, outcomes, {}, hlr=hlr)
    finally:
        await network.close()
        await centre.close()
        store.close()
