"""A party's server sees to it that the ledger says where it serves.

Nobody is registered without a member of the consortium, so a server that is not yet writes its request down for one.
Once it is, the server changes its endpoints on the ledger by itself whenever it serves elsewhere than before. What
somebody has named by hand (``firstlight mno update --endpoint …``) it leaves alone.

    registration    the request to be registered, for a member to endorse
    announced       the endpoints that this server has last told the ledger, or asked to be registered with
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable

from firstlight.errors import FirstlightError, MalformedError, StoreError
from firstlight.files import read_limited, write_atomic
from firstlight.ledger.records import Party, party_name
from firstlight.logs import Log
from firstlight.roles import updating
from firstlight.roles.ledger_client import Http, LedgerClient
from firstlight.roles.party.place import Place, request
from firstlight.settings import PartySettings
from firstlight.transports.body import parse_json
from firstlight.transports.endpoint import read_endpoint

REQUEST, ANNOUNCED, MEMORY = "registration", "announced", "ledger-announcing.cbor"
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
MAX_ANNOUNCED = 4_096


class Announcer:
    """Compares what the ledger says with where the server of a state directory listens."""

    def __init__(self, place: Place[PartySettings], log: Log, *, http: Callable[[], Http] | None = None) -> None:
        """Look after the party of ``place``; ``http`` makes what asks the node, if not the usual."""
        self._place = place
        self._log = log
        self._http = http
        self._asked = False

    def look(self) -> bool:
        """Do what is to be done now; return whether nothing is left to do. May be asked again at any time.

        Where nothing listens yet there is nothing to say. A party that is not registered has its request written, once.
        Where the ledger names what the server has announced before, and it serves elsewhere now, that is changed;
        where it names anything else, that is left alone.

        Raises what the ledger client and :func:`firstlight.roles.updating.update` raise.
        """
        place = self._place
        try:
            serves = read_endpoint(place.directory).urls
        except StoreError:
            return False
        with self._ledger() as ledger:
            name = party_name(place.keys.party)
            record = ledger.records(name)[name]
            if not isinstance(record, Party):
                self._ask(serves)
                return False
            if record.endpoints == serves:
                if self._asked:
                    self._log.info("registered", revision=record.revision)
            elif record.endpoints == self._announced():
                done = updating.update(ledger, place.directory, serves)
                self._log.info("endpoints-announced", revision=done.record.revision, detail=" ".join(serves))
            else:
                self._log.warning("endpoints-kept", detail=f"the ledger names {' '.join(record.endpoints) or 'none'}")
                return True
            self._remember(serves)
            return True

    def _ledger(self) -> LedgerClient:
        place = self._place
        http = None if self._http is None else self._http()
        memory = place.directory / MEMORY
        return LedgerClient(place.settings.node, place.genesis, memory, random=place.random, http=http)

    def _ask(self, serves: tuple[str, ...]) -> None:
        if self._asked:
            return
        write_atomic(self._place.directory / REQUEST, request(type(self._place.settings), self._place.directory), 0o644)
        self._remember(serves)
        self._asked = True
        self._log.warning("registration-wanted", detail=f"a member of the consortium must endorse the file {REQUEST}")

    def _announced(self) -> tuple[str, ...] | None:
        try:
            value = parse_json(read_limited(self._place.directory / ANNOUNCED, MAX_ANNOUNCED))
        except (StoreError, MalformedError):
            return None
        return tuple(str(one) for one in value) if isinstance(value, list) else None

    def _remember(self, serves: tuple[str, ...]) -> None:
        if self._announced() != serves:
            write_atomic(self._place.directory / ANNOUNCED, json.dumps(serves).encode())


@contextlib.asynccontextmanager
async def announcing(place: Place[PartySettings], log: Log) -> AsyncIterator[None]:
    """Look until nothing is left to do, as long as the block runs; what goes wrong is logged and tried again."""
    task = asyncio.create_task(_announce(Announcer(place, log), log))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _announce(announcer: Announcer, log: Log) -> None:
    failures = 0
    while True:
        try:
            if await asyncio.to_thread(announcer.look):
                return
            failures = 0
        except FirstlightError as error:
            failures += 1
            log.refusal(error, step="announcing")
        await asyncio.sleep(min(FIRST_PAUSE * 2.0**failures, LONGEST_PAUSE))
