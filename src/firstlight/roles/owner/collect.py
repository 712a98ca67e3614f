"""Collecting receipts: fetched from the gateways, opened, verified, kept."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from firstlight.errors import FirstlightError, MalformedError, ProofError, SignatureError, TransportError
from firstlight.logs import Log
from firstlight.ports import KeyAgreement
from firstlight.roles.holdings import holdings
from firstlight.roles.wire import ReceiptFound, ReceiptPage, ReceiptQuery
from firstlight.sealing.receipt import Expected, Receipt, open_receipt
from firstlight.stores.fleet import Collected, FleetStore, Known, Watch
from firstlight.transports.client import HttpClient

Keys = Mapping[tuple[bytes, int], KeyAgreement]
"""The receipt keys of the holdings, by batch and origin."""


def receipt_keys(state_dir: Path) -> Keys:
    """Return the receipt keys of all holdings; :class:`StoreError`, :class:`MalformedError`."""
    return {(one.batch, one.origin): one.receipts() for one in holdings(state_dir)}


class Collector:
    """Reads all watches of a fleet; what it has read it has kept."""

    def __init__(self, chain: str, state_dir: Path, fleet: FleetStore, client: HttpClient, log: Log) -> None:
        """Collect into ``fleet`` what opens with the receipt keys of ``state_dir``."""
        self._chain = chain
        self._state_dir = state_dir
        self._fleet = fleet
        self._client = client
        self._log = log
        self._locators: dict[int, tuple[bytes, ...]] = {}
        self._keys: Keys = {}

    async def round(self) -> int:
        """Read every watch to its end and return how many receipts are new; a gateway that fails is passed over."""
        added = 0
        for watch in await asyncio.to_thread(self._fleet.watches):
            try:
                added += await self._drain(watch)
            except TransportError as error:
                self._log.refusal(error, url=watch.gateway)
        return added

    async def _drain(self, watch: Watch) -> int:
        if watch.id not in self._locators:
            self._locators[watch.id] = await asyncio.to_thread(self._fleet.locators, watch.id)
        added, cursor = 0, watch.cursor
        while True:
            query = ReceiptQuery(self._locators[watch.id], cursor)
            page = await self._ask(watch.gateway, query)
            if not page.receipts:
                return added
            last = page.receipts[-1].cursor
            if last <= cursor:
                raise TransportError("bad-response", "the gateway's cursor does not rise")
            cursor = last
            added += await asyncio.to_thread(self._keep, watch, page.receipts)

    async def _ask(self, gateway: str, query: ReceiptQuery) -> ReceiptPage:
        body = await self._client.post(f"{gateway}/v1/receipts/read", query.encode())
        try:
            return ReceiptPage.decode(body)
        except MalformedError as error:
            raise TransportError("bad-response", str(error)) from error

    def _keep(self, watch: Watch, found: Sequence[ReceiptFound]) -> int:
        opened: list[tuple[int, Receipt]] = []
        rejected: list[str] = []
        for one in found:
            try:
                opened.append(self._open(watch, one))
            except FirstlightError as error:
                rejected.append(error.code)
                self._log.refusal(error)
        return self._fleet.collect(watch.id, Collected(opened, rejected, found[-1].cursor))

    def _open(self, watch: Watch, found: ReceiptFound) -> tuple[int, Receipt]:
        """Return which device's receipt it is, and the receipt.

        1. It lay under a locator of this watch (``unknown-locator``), 2. and opens as a receipt of that device
        (:func:`open_receipt`). Raises :class:`ProofError`, :class:`SignatureError`, :class:`MalformedError`.
        """
        refusal: FirstlightError = ProofError("unknown-locator", "the gateway answers what was not asked")
        for device in self._fleet.known(found.locator):
            if device.watch != watch.id:
                continue
            try:
                return device.id, open_receipt(found.sealed, self._key(device), self._expected(device, found))
            except (MalformedError, SignatureError, ProofError) as error:
                refusal = error
        raise refusal

    def _key(self, device: Known) -> KeyAgreement:
        which = (device.batch, device.origin)
        if which not in self._keys:
            self._keys = receipt_keys(self._state_dir)
        if which not in self._keys:
            raise ProofError("unknown-holding", "a device of a holding that is not there any more")
        return self._keys[which]

    def _expected(self, device: Known, found: ReceiptFound) -> Expected:
        """Return what a receipt must fit; that its counter is new is for the store to say."""
        return Expected(
            chain=self._chain,
            locator=found.locator,
            batch=device.batch,
            index=device.index,
            key=device.key,
            tenures=device.tenures,
        )
