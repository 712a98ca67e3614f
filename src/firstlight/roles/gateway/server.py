"""The gateway's HTTP side, and how it runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, TypeVarTuple

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response as Answer
from starlette.routing import Route

from firstlight.chain.light import SECOND
from firstlight.custody.system import SystemClock, SystemRandom
from firstlight.discovery.bundle import BundleRequest
from firstlight.discovery.machine import MAX_ENVELOPES
from firstlight.errors import MalformedError, TransportError
from firstlight.logs import Log, adopt_libraries, open_log
from firstlight.ports import Clock, Random
from firstlight.roles.attesters import AskedWitnesses, WitnessFile
from firstlight.roles.bundles import BundleService
from firstlight.roles.gateway.blobs import MAX_BLOB, SetNamed, check_blob
from firstlight.roles.gateway.deposits import check_deposit
from firstlight.roles.gateway.ledger import MEMORY, GatewayLedger
from firstlight.roles.gateway.relay import REQUEST, RESPONSE, Relay, party_of
from firstlight.roles.registration import GENESIS, keep_genesis, read_genesis
from firstlight.roles.serving import serve_role
from firstlight.roles.sources import NodeSource
from firstlight.roles.wire import (
    MAX_LOCATORS,
    MAX_RECEIPTS,
    DepositAnswer,
    MailAnswer,
    MailRequest,
    ReceiptFound,
    ReceiptPage,
    ReceiptPut,
    ReceiptQuery,
)
from firstlight.sealing.deposit import MAX_DEPOSIT, parse_deposit
from firstlight.settings import GatewaySettings, load, write_initial
from firstlight.sim import naming
from firstlight.sim.suci import Suci
from firstlight.stores.mail import MailStore
from firstlight.transports.admission import Admission, Rate
from firstlight.transports.body import Response as Passed
from firstlight.transports.coap.client import CoapClient
from firstlight.transports.coap.path import open_path
from firstlight.transports.coap.serving import beside_application
from firstlight.transports.http import CBOR, application, as_json, cbor, raw, read_body, read_record
from firstlight.transports.plain import PlainClient
from firstlight.transports.web import Web

DATABASE = "gateway.sqlite"
NODE_SECONDS = 10.0
WITNESS_SECONDS = 5.0
MAX_PROOFS_ANSWER = 4_194_304
SWEEP = 3_600
"""Seconds between two looks for mail that has grown too old."""
DAY = 86_400
BEGINS = b"\xf5"
"""What the first request of an exchange begins with: parties pay for it before they know who asks."""
BURST_SECONDS = 2
OCTETS = "application/octet-stream"
_R = TypeVar("_R")
_P = TypeVarTuple("_P")


@dataclass(slots=True)
class Gateway:
    """What a gateway serves from."""

    settings: GatewaySettings
    bundles: BundleService
    ledger: GatewayLedger
    relay: Relay
    admission: Admission
    store: MailStore
    executor: ThreadPoolExecutor
    clock: Clock
    log: Log
    _url: str = field(default="", init=False)

    @property
    def name(self) -> str:
        """The name that locators and deposits are bound to; :class:`TransportError` (``busy``) before it is known."""
        name = self.settings.name or self._url
        if not name:
            raise TransportError("busy", "the gateway is about to start")
        return name

    async def ready(self, url: str) -> None:
        """Take ``url`` as the name if the settings have none."""
        self._url = url

    async def deposit(self, data: bytes) -> DepositAnswer:
        """Keep what a signed deposit holds; errors of :func:`check_deposit` and :meth:`MailStore.deposit`."""
        parsed = await self.in_thread(parse_deposit, data)
        allowed = await check_deposit(parsed, self.ledger, self.name)
        filled = await self.in_thread(
            lambda: self.store.deposit(allowed.listed, live_revision=allowed.live_revision, count=allowed.count)
        )
        listed = allowed.listed
        self.log.info(
            "deposited", batch=listed.batch, tenure=listed.tenure, revision=listed.revision, count=len(listed.entries)
        )
        return DepositAnswer(filled)

    async def mail(self, request: MailRequest) -> MailAnswer:
        """Return the envelopes under some locators."""
        return await self.in_thread(self._mail, request)

    def _mail(self, request: MailRequest) -> MailAnswer:
        share = MAX_ENVELOPES // min(len(request.locators), MAX_LOCATORS)
        tenure = None if request.batch is None else (request.batch, request.tenure)
        found = [
            one.sealed
            for locator in request.locators
            for one in self.store.envelopes(locator, limit=share, tenure=tenure)
        ]
        return MailAnswer(tuple(found))

    async def put_receipt(self, put: ReceiptPut) -> None:
        """Keep a receipt; errors of :meth:`MailStore.put_receipt`."""
        now = self.clock.now() // SECOND
        await self.in_thread(lambda: self.store.put_receipt(put.locator, put.sealed, now=now))

    async def receipts(self, query: ReceiptQuery) -> ReceiptPage:
        """Return the next receipts under some locators."""
        found = await self.in_thread(lambda: self.store.receipts(query.locators, after=query.after, limit=MAX_RECEIPTS))
        return ReceiptPage(tuple(ReceiptFound(one.id, one.locator, one.sealed) for one in found))

    async def put_blob(self, digest: str, body: bytes, named: SetNamed) -> None:
        """Keep the body of a live reference-value set; errors of :func:`check_blob` and :meth:`MailStore.put_blob`."""
        await check_blob(digest, body, named, self.ledger)
        await self.in_thread(self.store.put_blob, body)

    async def blob(self, digest: str) -> bytes:
        """Return a body by its hash; :class:`MalformedError` (``not-found``)."""
        try:
            wanted = bytes.fromhex(digest)
        except ValueError:
            wanted = b""
        found = await self.in_thread(self.store.blob, wanted)
        if found is None:
            raise MalformedError("not-found", "no body with that hash")
        return found

    async def carry(self, party: bytes, body: bytes, source: str) -> Answer:
        """Relay a request from the address ``source``: :meth:`Relay.forward`.

        Raises :class:`OverloadError` (``rate-limited``) where too many exchanges are begun: whoever floods message 1
        through this gateway spends his own share of what parties allow it, and not that of the others behind it.
        """
        if body[:1] == BEGINS:
            self.admission.admit(source)
        return _passed(await self.relay.forward(party, body))

    async def carry_suci(self, party: bytes, body: bytes, source: str) -> Answer:
        """Relay a SUCI, and the one-time name that comes back; errors as :meth:`carry`."""
        self.admission.admit(source)
        return _passed(await self.relay.forward(party, body, path=naming.PATH, media=CBOR))

    async def relayed(self, request: Request) -> Answer:
        """Relay whatever a device sends to a party; errors as :meth:`carry`."""
        party = party_of(request.path_params["party"])
        source = request.client.host if request.client is not None else ""
        if request.url.path.endswith(naming.PATH):
            return await self.carry_suci(party, await read_body(request, Suci.LIMIT), source)
        return await self.carry(party, await read_body(request, REQUEST), source)

    async def sweep(self) -> None:
        """Delete mail that has grown too old, again and again."""
        while True:
            before = self.clock.now() // SECOND - self.settings.mail_days * DAY
            removed = await self.in_thread(self.store.expire_receipts, before)
            if removed:
                self.log.info("mail-expired", count=removed)
            await asyncio.sleep(SWEEP)

    async def in_thread(self, call: Callable[[*_P], _R], *arguments: *_P) -> _R:
        """Return what a call to the store returns, made off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, call, *arguments)


def _passed(answer: Passed) -> Answer:
    """Return a party's answer as it came, with its wish to be left alone for a while."""
    pause = {"retry-after": answer.retry_after} if answer.retry_after.isdecimal() else {}
    return Answer(answer.body, answer.status, pause, answer.content_type or OCTETS)


def gateway_app(gateway: Gateway, log: Log) -> Starlette:
    """Return the web application of a gateway."""

    async def bundle(request: Request) -> Answer:
        return raw(await gateway.bundles.answer(await read_record(request, BundleRequest)), CBOR)

    async def deposit(request: Request) -> Answer:
        return cbor(await gateway.deposit(await read_body(request, MAX_DEPOSIT)))

    async def mail(request: Request) -> Answer:
        return cbor(await gateway.mail(await read_record(request, MailRequest)))

    async def put_receipt(request: Request) -> Answer:
        await gateway.put_receipt(await read_record(request, ReceiptPut))
        return cbor([])

    async def receipts(request: Request) -> Answer:
        return cbor(await gateway.receipts(await read_record(request, ReceiptQuery)))

    async def put_blob(request: Request) -> Answer:
        query = request.query_params
        named = SetNamed.of(*(query.get(key, "") for key in ("issuer", "model", "identifier")))
        await gateway.put_blob(request.path_params["digest"], await read_body(request, MAX_BLOB), named)
        return cbor([])

    async def blob(request: Request) -> Answer:
        return raw(await gateway.blob(request.path_params["digest"]), OCTETS)

    async def relay(request: Request) -> Answer:
        return await gateway.relayed(request)

    async def name(_: Request) -> Answer:
        return as_json({"name": gateway.name, "chain": gateway.ledger.chain})

    routes = [
        Route("/v1/bundles", bundle, methods=["POST"]),
        Route("/v1/deposits", deposit, methods=["POST"]),
        Route("/v1/mail", mail, methods=["POST"]),
        Route("/v1/receipts", put_receipt, methods=["POST"]),
        Route("/v1/receipts/read", receipts, methods=["POST"]),
        Route("/v1/blobs/{digest}", put_blob, methods=["PUT"]),
        Route("/v1/blobs/{digest}", blob, methods=["GET"]),
        Route("/relay/{party}/.well-known/edhoc", relay, methods=["POST"]),
        Route("/relay/{party}" + naming.PATH, relay, methods=["POST"]),
        Route("/v1/name", name),
    ]
    return application("gateway", routes, log=log)


# --- running ----------------------------------------------------------------------------------


def create(
    state_dir: Path, genesis: Path, node: str, witnesses: Sequence[str] = (), name: str | None = None
) -> GatewaySettings:
    """Make a gateway's state directory; :class:`firstlight.errors.ConfigError`, :class:`StoreError`."""
    kept = keep_genesis(genesis, state_dir)
    settings = GatewaySettings(chain=kept.chain, node=node, witnesses=tuple(witnesses), name=name)
    write_initial(settings, state_dir)
    return settings


def _rate(per_second: int) -> Rate:
    return Rate(per_second, BURST_SECONDS * per_second)


@contextlib.asynccontextmanager
async def running(
    state_dir: Path, settings: GatewaySettings, log: Log, *, clock: Clock, random: Random
) -> AsyncIterator[Gateway]:
    """Run a gateway from its state directory; errors of genesis, memory and store."""
    genesis = read_genesis(state_dir / GENESIS)
    executor = ThreadPoolExecutor(1, "firstlight-gateway")
    async with contextlib.AsyncExitStack() as stack:
        store = MailStore.open(state_dir / DATABASE)
        stack.callback(store.close)
        stack.callback(executor.shutdown)
        to_node = PlainClient(seconds=NODE_SECONDS, limit=MAX_PROOFS_ANSWER)
        to_witnesses = PlainClient(seconds=WITNESS_SECONDS, limit=1_024)
        to_parties = Web(
            http=PlainClient(seconds=settings.relay_seconds, limit=RESPONSE),
            coap=CoapClient(open_path, seconds=settings.relay_seconds, limit=RESPONSE),
        )
        stack.push_async_callback(to_node.aclose)
        stack.push_async_callback(to_witnesses.aclose)
        stack.push_async_callback(to_parties.aclose)
        asked = AskedWitnesses(to_witnesses, WitnessFile(state_dir, settings.witnesses).urls, log=log)
        stack.push_async_callback(asked.close)
        bundles = BundleService(NodeSource(to_node, settings.node), asked)
        stack.push_async_callback(bundles.close)
        ledger = GatewayLedger(genesis, bundles, clock, random, state_dir / MEMORY)
        stack.callback(ledger.remember)
        relay = Relay(ledger, to_parties)
        admission = Admission(clock, source=_rate(settings.begins_per_source), total=_rate(settings.begins_per_second))
        gateway = Gateway(settings, bundles, ledger, relay, admission, store, executor, clock, log)
        sweeping = asyncio.create_task(gateway.sweep())
        stack.callback(sweeping.cancel)
        yield gateway


async def serve_gateway(state_dir: Path, *, coap: bool = False) -> None:
    """Run the gateway of a state directory until SIGTERM or SIGINT, with ``coap`` or by its settings over CoAP too.

    Errors as :func:`running`.
    """
    settings = load(GatewaySettings, state_dir)
    clock = SystemClock()
    log = open_log(state_dir, "gateway", clock)
    adopt_libraries(log)
    async with running(state_dir, settings, log, clock=clock, random=SystemRandom()) as gateway:
        app = gateway_app(gateway, log)
        beside = beside_application(app, log) if coap or settings.coap else None
        await serve_role(app, state_dir, settings, on_ready=gateway.ready, beside=beside)
