"""The gateway's own eyes on the ledger: it verifies what it acts on, like everybody else.

Its bundles come from its own bundle service, and with them goes what devices ask for, so that what it remembers is as
new as the newest head that anybody was shown. Records are kept for one head at a time.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from firstlight.discovery.bundle import MAX_NAMES, Bundle
from firstlight.discovery.verify import Trust, View, verify_bundle
from firstlight.encoding import Record
from firstlight.engines.port import Genesis
from firstlight.errors import MalformedError, ProofError, TransportError
from firstlight.files import read_if_there, write_atomic
from firstlight.ledger.records import Tenure, tenure_name
from firstlight.ports import Clock, Random
from firstlight.roles.bundles import BundleService

MEMORY = "view.cbor"
MAX_AGE = 5_000_000_000
"""Nanoseconds for which records are believed while nobody has seen a newer head."""
MAX_CACHED = 4_096
ATTEMPTS = 4
_R = TypeVar("_R", bound=Record)


class GatewayLedger:
    """Verified records by name, from the newest head that this gateway has passed on."""

    def __init__(self, genesis: Genesis, bundles: BundleService, clock: Clock, random: Random, memory: Path) -> None:
        """Begin with the trust in the file ``memory``, or with the genesis; :class:`StoreError`, ``wrong-chain``."""
        self._bundles = bundles
        self._clock = clock
        self._random = random
        self._memory = memory
        self._trust = _remembered(memory, genesis)
        self._cache: dict[str, Record | None] = {}
        self._since = 0
        self._opening: dict[tuple[int, tuple[str, ...]], asyncio.Task[View]] = {}
        self._renewed = 0
        self._at = 0
        self.chain = genesis.chain

    async def records(self, *names: str) -> dict[str, Record | None]:
        """Return records by name, all under one head, None for one that does not exist.

        Raises what :func:`verify_bundle` raises, :class:`TransportError`, and :class:`ProofError` (``head-moved``:
        heads followed each other too fast).
        """
        for _ in range(ATTEMPTS):
            self._forget()
            height = self._trust.height
            found = {name: self._cache[name] for name in names if name in self._cache}
            missing = [name for name in names if name not in found]
            for start in range(0, len(missing), MAX_NAMES):
                some = tuple(missing[start : start + MAX_NAMES])
                view = await self._view(some)
                if view.height != height and not found:
                    height = view.height
                found |= {name: view.records[name] for name in some}
                if view.height != height:
                    break
            else:
                return found
        raise ProofError("head-moved", "the ledger changes too fast to be read")

    async def record(self, name: str, kind: type[_R]) -> _R | None:
        """Return one record, or None; errors as :meth:`records`."""
        found = (await self.records(name))[name]
        return found if isinstance(found, kind) else None

    async def tenures(self, batch: bytes, numbers: range) -> dict[int, Tenure]:
        """Return those of a batch's tenures that exist; errors as :meth:`records`."""
        names = {number: tenure_name(batch, number) for number in numbers}
        found = await self.records(*names.values())
        records = {number: found[name] for number, name in names.items()}
        return {number: record for number, record in records.items() if isinstance(record, Tenure)}

    @property
    def time(self) -> int:
        """The lowest of the witnesses' times (Unix seconds) of the last bundle."""
        return self._at

    def renew(self) -> None:
        """See to it that what is read from now on is as new as now."""
        self._cache.clear()
        self._renewed += 1

    def _forget(self) -> None:
        """Drop what was proven under an older head than the newest seen, or too long ago."""
        fresh = 0 <= self._clock.now() - self._since < MAX_AGE
        if not fresh or self._bundles.height > self._trust.height or len(self._cache) > MAX_CACHED:
            self._cache.clear()

    async def _view(self, names: tuple[str, ...]) -> View:
        """Return what is proven about ``names``; those who ask for the same at once share the answer."""
        key = (self._renewed, names)
        task = self._opening.get(key)
        if task is None:
            task = self._opening[key] = asyncio.create_task(self._open(names))
            task.add_done_callback(lambda _: self._opening.pop(key, None))
        return await asyncio.shield(task)

    async def _open(self, names: tuple[str, ...]) -> View:
        """Have ``names`` proven anew.

        1. The bundle holds (:func:`verify_bundle`), and as it names no batch, not without witnesses. Raises
        :class:`ProofError`, :class:`TransportError`.
        """
        trust, since = self._trust, self._clock.now()
        request = trust.request(self._random.bytes(32), names=names)
        try:
            bundle = Bundle.decode(await self._bundles.answer(request))
        except MalformedError as error:
            raise TransportError("bad-response", f"the node's bundle: {error}") from error
        view = verify_bundle(bundle, request, trust=trust)
        assert view.time is not None
        self._learn(view, view.time, since)
        return view

    def _learn(self, view: View, time: int, since: int) -> None:
        """Remember a view, unless another has come in between that is newer."""
        known = self._trust
        if view.height < known.height:
            return
        self._at = max(self._at, time)
        if view.height > known.height or not self._cache:
            self._cache.clear()
            self._since = since
        self._trust = replace(view.trust, tenure=0, revision=0)
        self._cache |= view.records
        if (known.root, known.epoch) != (self._trust.root, self._trust.epoch):
            self.remember()

    def remember(self) -> None:
        """Write down what was learnt; :class:`StoreError`."""
        write_atomic(self._memory, self._trust.encode())


def _remembered(memory: Path, genesis: Genesis) -> Trust:
    data = read_if_there(memory, Trust.LIMIT)
    if data is None:
        return Trust.at_birth(genesis.chain, genesis.root)
    trust = Trust.decode(data)
    if trust.chain != genesis.chain:
        raise ProofError("wrong-chain", f"{memory} is of {trust.chain}")
    return trust
