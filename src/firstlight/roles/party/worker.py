"""One worker process of a party: takes connections from the shared socket, and lives as long as its parent wants it.

Started by :mod:`firstlight.roles.party.workers`, never by hand. Nothing of the token keys is written anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.routing import BaseRoute

from firstlight.custody.memory import guard_memory
from firstlight.errors import MalformedError
from firstlight.logs import adopt_libraries, open_log
from firstlight.onboarding.ports import Grantor
from firstlight.roles.party import mno, snpn, sp
from firstlight.roles.party.channel import Ended, Frame, Have, Listening, Ring, Setup, frame, read_frame
from firstlight.roles.party.place import Place, Room, open_place
from firstlight.roles.party.tokens import GivenKeys
from firstlight.settings import MnoSettings, PartySettings, SpSettings
from firstlight.stores.exchanges import ExchangeStore, StoredGrant
from firstlight.stores.subscriptions import Subscriptions
from firstlight.transports.http import answering, application, run

MOST_ENDED = 1_024
SECONDS = 10.0
"""How long a parent may take for its set-up."""


def open_role(role: str, state_dir: Path, where: str) -> tuple[Place[PartySettings], ExchangeStore, Grantor]:
    """Open the place of a role (``mno``, ``sp``) with its exchanges, and what makes its credentials."""
    if role == MnoSettings.ROLE:
        network = open_place(MnoSettings, state_dir)
        if network.settings.mode == "snpn":
            return network, sp.open_exchanges(network.database), snpn.grantor(network, where)
        return network, mno.open_exchanges(network.database), mno.grantor(network, where)
    service = open_place(SpSettings, state_dir)
    return service, sp.open_exchanges(service.database), sp.grantor(service, where)


async def work(role: str, number: int, state_dir: Path, bound: socket.socket, parent: socket.socket) -> None:
    """Answer devices until the parent hangs up."""
    reader, writer = await asyncio.open_unix_connection(sock=parent)
    async with asyncio.timeout(SECONDS):
        setup, ring = await read_frame(reader), await read_frame(reader)
    if not isinstance(setup, Setup) or not isinstance(ring, Ring):
        raise MalformedError("wrong-shape", "the parent's set-up")
    place, exchanges, grantor = open_role(role, state_dir, setup.where)
    log = open_log(state_dir, role, place.clock, quiet=True)
    adopt_libraries(log)
    keys, loop = GivenKeys(ring.keys()), asyncio.get_running_loop()

    def say(message: Frame) -> None:
        writer.write(frame(message))

    def ended(grants: tuple[StoredGrant, ...]) -> None:
        names = tuple(one.id for one in grants)
        for at in range(0, len(names), MOST_ENDED):
            loop.call_soon_threadsafe(say, Ended(names[at : at + MOST_ENDED]))

    exchanges.watch(ended)
    with (
        Room(place, exchanges, log, process=number) as room,
        contextlib.closing(room.desk(grantor, keys)) as desk,
        contextlib.ExitStack() as inner,
    ):
        more = _own_routes(room, inner)
        async with answering(application(role, (*desk.routes(), *more), log=log))(bound):
            say(Listening(os.getpid()))
            await _follow(reader, keys, say)
    writer.close()


def _own_routes(room: Room, inner: contextlib.ExitStack) -> tuple[BaseRoute, ...]:
    """Return the routes of an operator's own."""
    if not isinstance(room.place.settings, MnoSettings):
        return ()
    store = inner.enter_context(contextlib.closing(Subscriptions.open(room.place.database)))
    return mno.naming_routes(room, mno.home_key(room.place.directory), store)


async def _follow(reader: asyncio.StreamReader, keys: GivenKeys, say: Callable[[Frame], None]) -> None:
    """Take rings from the parent until it hangs up."""
    while (message := await read_frame(reader)) is not None:
        if isinstance(message, Ring):
            keys.give(message.keys())
            say(Have(message.number))


def main(arguments: list[str]) -> None:
    """Run: role, number, state directory, and the numbers of two open sockets, the listening one and the parent's."""
    role, number, directory, bound, parent = arguments
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.umask(0o077)
    guard_memory()
    listener, own = socket.socket(fileno=int(bound)), socket.socket(fileno=int(parent))
    for one in (listener, own):
        one.setblocking(False)

    def start() -> Awaitable[None]:
        return work(role, int(number), Path(directory), listener, own)

    run(start)


if __name__ == "__main__":
    main(sys.argv[1:])
