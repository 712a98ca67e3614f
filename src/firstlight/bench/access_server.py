"""An operator's access network for the benchmark, as a process: ``python -m firstlight.bench.access_server``.

It is put together as ``mno serve`` does it, with fresh subscriptions in place of granted ones, on real files. It prints
the port of RADIUS when it serves, and ends with SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path

from firstlight.access.serving.authentication_centre import StoredAuthenticationCentre
from firstlight.access.serving.copies import CopyWatch
from firstlight.access.serving.network_hostapd import AkaBackend, HostapdNetwork, HostapdSettings
from firstlight.access.serving.osmo_hlr import OsmoHlr
from firstlight.access.serving.osmo_hlr_centre import OsmoAuthenticationCentre
from firstlight.bench.process import ENDING
from firstlight.custody.system import SystemClock, SystemRandom
from firstlight.sim.subscription import Credentials, Subscription, SubscriptionStatus
from firstlight.stores.osmo_hlr import HlrDatabase
from firstlight.stores.subscriber_changes import SubscriberChanges
from firstlight.stores.subscriptions import Subscriptions

OWN, HLR = "own", "hlr"
DATABASE = "mno.sqlite"
NETWORK = "access"
_LOOK_SECONDS = 0.5


def subscribe(store: Subscriptions, count: int) -> None:
    """Make ``count`` subscriptions of devices that have never attached."""
    random = SystemRandom()
    with store.transaction():
        for number in range(count):
            own = Credentials(f"00101{number:010}", random.bytes(16), random.bytes(16))
            slot = number.to_bytes(16)
            store.add(Subscription(own, 0, SubscriptionStatus.PENDING, slot, slot))


def centre_of(kind: str, store: Subscriptions, directory: Path) -> StoredAuthenticationCentre:
    """Return the authentication centre to measure."""
    clock, random = SystemClock(), SystemRandom()
    if kind == OWN:
        return StoredAuthenticationCentre(store, random=random, clock=clock)
    hlr = OsmoHlr(directory / HLR)
    outbox = SubscriberChanges.open(directory / DATABASE)
    return OsmoAuthenticationCentre(
        store, outbox, hlr, lambda: HlrDatabase.open(hlr.database), random=random, clock=clock
    )


async def serve(kind: str, directory: Path, count: int) -> None:
    """Serve until SIGTERM, or until whoever started this is gone; raises what the programs do that it runs."""
    ended = asyncio.Event()
    orphaned = asyncio.create_task(_orphaned(os.getppid(), ended))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    with contextlib.closing(Subscriptions.open(directory / DATABASE)) as store:
        subscribe(store, count)
        centre = centre_of(kind, store, directory)
        copies = CopyWatch(store, SystemRandom(), lambda _imsi: None)
        network = HostapdNetwork(
            HostapdSettings(directory / NETWORK),
            backend=AkaBackend(centre, lambda _code: None, copies=copies),
            users=centre,
            log=centre,
            random=SystemRandom(),
        )
        try:
            await centre.start()
            await network.start(store)
            if isinstance(centre, OsmoAuthenticationCentre):
                await centre.ready()
            sys.stdout.write(json.dumps({"port": network.radius_port}) + "\n")
            sys.stdout.flush()
            await ended.wait()
        finally:
            orphaned.cancel()
            await network.close()
            await centre.close()


async def _orphaned(parent: int, ended: asyncio.Event) -> None:
    while os.getppid() == parent:  # noqa: ASYNC110 - the kernel tells nobody
        await asyncio.sleep(_LOOK_SECONDS)
    ended.set()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
