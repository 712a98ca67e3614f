"""What the onboarding benchmark runs, each stage in a process of its own.

``core``: one party's decisions in this process, from bytes to bytes, its stores in memory; and the crypto floor.
``load``: devices that onboard with a running server, each over one connection of its own; the server's CPU time is
read from the kernel by its process id.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import uvloop
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from firstlight.bench.fleet import SERVICE, Caller, callers, errands
from firstlight.bench.process import BenchError
from firstlight.errors import FirstlightError
from firstlight.logs import Log
from firstlight.onboarding import wire
from firstlight.onboarding.device import Granted, Sent
from firstlight.onboarding.party import Party, Reply
from firstlight.onboarding.ports import Facts, Grantor
from firstlight.onboarding.together import Outcome, handle_all
from firstlight.ports import Clock
from firstlight.roles.party import mno, sp
from firstlight.roles.party.place import Place, Room, open_place
from firstlight.roles.party.tokens import Keys
from firstlight.roles.party.view import PartyView
from firstlight.settings import MnoSettings, PartySettings, SpSettings
from firstlight.stores.certificates import Certificates
from firstlight.stores.exchanges import ExchangeStore
from firstlight.stores.subscriptions import Subscriptions
from firstlight.transports.plain import PlainClient

SECONDS = 30.0
WARM = 64
"""Devices that onboard before the clock runs, beside those that count."""
CROWD = 64
"""So many devices come at once. The core answers them in a row; then its view of the ledger is renewed, untimed."""
FLOORS = 16
"""How often the floor is timed after each crowd that came over HTTP."""
ATTACH = "tcp://127.0.0.1:40000"
BROKER = "mqtts://127.0.0.1:40000"
_CURVE = ec.SECP256R1()
_ECDSA = ec.ECDSA(hashes.SHA256())
_MESSAGE = bytes(600)


@dataclass(frozen=True, slots=True)
class Task:
    """One leg to measure: which, the device directories, the party's directory, and its server's process id.

    ``warm`` devices onboard before the ``count`` that are measured.
    """

    leg: str
    devices: str
    party: str
    pid: int
    count: int
    warm: int = WARM

    def places(self) -> list[Path]:
        """Return the directories of the devices: those that warm up, and those that count."""
        found = sorted(path for path in Path(self.devices).iterdir() if path.is_dir())
        return found[: self.warm + self.count]


# --- the floor --------------------------------------------------------------------------------


class Floor:
    """What no exchange can do without: the elliptic-curve operations of one leg, on inputs that are new each time."""

    def __init__(self, leg: str) -> None:
        """Prepare; a service leg checks the request's signature and signs the certificate beside."""
        self._service = leg == SERVICE
        self._static = ec.generate_private_key(_CURVE)
        self._signer = ec.generate_private_key(_CURVE)
        self._spent: list[int] = []

    def once(self) -> None:
        """Time one key generation, 3 decompressions, 3 ECDH, one check; for a service a check and a signature more."""
        points = [_compressed(ec.generate_private_key(_CURVE)) for _ in range(3)]
        signed = self._signer.sign(_MESSAGE, _ECDSA)
        public = self._signer.public_key()
        began = time.thread_time_ns()
        fresh = ec.generate_private_key(_CURVE)
        peers = [ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, point) for point in points]
        for private, peer in zip((fresh, self._static, fresh), peers, strict=True):
            private.exchange(ec.ECDH(), peer)
        public.verify(signed, _MESSAGE, _ECDSA)
        if self._service:
            public.verify(signed, _MESSAGE, _ECDSA)
            self._signer.sign(_MESSAGE, _ECDSA)
        self._spent.append(time.thread_time_ns() - began)

    @property
    def ms(self) -> float:
        """The mean, in milliseconds."""
        return sum(self._spent) / len(self._spent) / 1e6


def _compressed(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)


# --- core: bytes to bytes -------------------------------------------------------------------------


class StillView:
    """The party's own view of the ledger (``onboarding.ports.LedgerView``), asked for anew only between exchanges."""

    def __init__(self, view: PartyView) -> None:
        """See what ``view`` sees."""
        self._view = view
        self.renew()

    def renew(self) -> None:
        """Ask for the newest head."""
        self._head = self._view.fresh()

    def height(self) -> int:
        """Return the height of the head."""
        return self._head.view.height

    def facts(self, batch: bytes, index: int) -> Facts:
        """Return the facts about one device under the head."""
        return self._view.facts_under(self._head, batch, index)

    def facts_of(self, devices: Sequence[tuple[bytes, int]]) -> list[Facts | None]:
        """Return the facts about several devices under the head."""
        return [self.facts(*device) for device in devices]


class Responder:
    """A party's decisions in this process."""

    def __init__(self, party: Party, tokens: Keys, clock: Clock) -> None:
        """Ask ``party``, with keys of ``tokens`` and the time of ``clock``."""
        self._party = party
        self._tokens = tokens
        self._clock = clock

    def alone(self, requests: Sequence[bytes]) -> list[bytes]:
        """Answer each request by itself, one after the other."""
        return [self._party.handle(data, ring=self._tokens.ring(), now_ns=self._clock.now()).data for data in requests]

    def in_round(self, requests: Sequence[bytes]) -> list[bytes]:
        """Answer requests that are there together, as the server does (:mod:`firstlight.onboarding.together`)."""
        outcomes = handle_all(self._party, requests, ring=self._tokens.ring(), now_ns=self._clock.now())
        return [_replied(outcome).data for outcome in outcomes]


Answer = Callable[[Responder, Sequence[bytes]], list[bytes]]


def core(task: Task) -> dict[str, float]:
    """Decide exchanges in this process, each alone and then all again in rounds, and time the floor in turn with them.

    Returns the responder's own CPU time a leg for both.
    """
    floor, sizes = Floor(task.leg), Sizes()
    alone = _decided(task, Responder.alone, floor, sizes)
    rounds = _decided(task, Responder.in_round, floor, Sizes())
    return {"core_ms": alone, "core_round_ms": rounds, "floor_ms": floor.ms, **sizes.means()}


def _decided(task: Task, answer: Answer, floor: Floor, sizes: Sizes) -> float:
    """Return the milliseconds that a leg takes a party whose stores are in memory, and empty."""
    places, spent = task.places(), 0
    errand = asyncio.run(errands(places[0]))[task.leg]
    place = open_place(SpSettings if task.leg == SERVICE else MnoSettings, Path(task.party))
    with Room(place, _exchanges(place), Log("bench", place.clock)) as room:
        still = StillView(room.view)
        responder = Responder(room.party(_grantor(place), ledger=still), room.tokens(), place.clock)
        waiting = callers(places, errand)
        _decide(responder, answer, list(islice(waiting, task.warm)), Sizes())
        while crowd := list(islice(waiting, CROWD)):
            still.renew()
            spent += _decide(responder, answer, crowd, sizes)
            for _ in crowd:
                floor.once()
    return spent / task.count / 1e6


def _decide(responder: Responder, answer: Answer, crowd: Sequence[Caller], sizes: Sizes) -> int:
    """Return the nanoseconds that the two answers to each device of a crowd took; devices do their part between."""
    requests = [caller.begun.request_1 for caller in crowd]
    started = time.thread_time_ns()
    firsts = answer(responder, requests)
    spent = time.thread_time_ns() - started
    sent = [second_of(caller, first) for caller, first in zip(crowd, firsts, strict=True)]
    requests = [one.request_2 for one in sent]
    started = time.thread_time_ns()
    seconds = answer(responder, requests)
    spent += time.thread_time_ns() - started
    _account(crowd, firsts, sent, seconds, sizes)
    return spent


def _replied(outcome: Outcome) -> Reply:
    if not isinstance(outcome, Reply):
        raise outcome
    return outcome


def _exchanges(place: Place[PartySettings]) -> ExchangeStore:
    """Return a store in memory with the orders that the party has accepted."""
    if isinstance(place.settings, SpSettings):
        made = ExchangeStore.in_memory(on_grant=sp.keep_certificate, beside=[Certificates.SCHEMA])
    else:
        made = ExchangeStore.in_memory(on_grant=mno.keep_subscription, beside=[Subscriptions.SCHEMA])
    with contextlib.closing(ExchangeStore.open(place.database)) as kept:
        for state in kept.orders():
            anchor = kept.anchor(state.order.batch)
            if anchor is not None:
                made.add_order(state.order, anchor, b"")
    return made


def _grantor(place: Place[PartySettings]) -> Grantor:
    settings, directory, random = place.settings, place.directory, place.random
    if isinstance(settings, SpSettings):
        return sp.CertificateGrantor(
            sp.authority(directory),
            server=settings.server_name,
            broker=BROKER,
            lifetime=settings.grant_seconds,
            random=random,
        )
    assert isinstance(settings, MnoSettings)
    home = mno.home_network(settings, mno.home_key(directory))
    return mno.SimGrantor(
        place.chain,
        place.keys.party,
        home,
        network=settings.network,
        endpoint=ATTACH,
        lifetime=settings.grant_seconds,
        random=random,
    )


# --- load: over HTTP --------------------------------------------------------------------------


async def load(task: Task) -> dict[str, float]:
    """Let devices onboard with the server, each over a connection of its own, and count what that costs the server."""
    places, sizes, floor = task.places(), Sizes(), Floor(task.leg)
    errand = (await errands(places[0]))[task.leg]
    started = callers(places, errand)
    await _together(list(islice(started, task.warm)), errand.url, Sizes())
    before, began = cpu_seconds(task.pid), time.monotonic()
    while crowd := list(islice(started, CROWD)):
        await _together(crowd, errand.url, sizes)
        for _ in range(FLOORS):
            floor.once()
    spent, wall = cpu_seconds(task.pid) - before, time.monotonic() - began
    if sizes.count != task.count:
        raise BenchError("bench-stage-failed", f"{sizes.count} of {task.count} devices were granted something")
    return {"server_ms": spent / task.count * 1000, "floor_ms": floor.ms, "legs_per_second": task.count / wall}


async def _together(crowd: Sequence[Caller], url: str, sizes: Sizes) -> None:
    """Let a crowd onboard that comes at once, each device over one new connection of its own.

    All of them have made their next request before any of them sends it: devices have processors of their own, and
    here they share one, which would make them come one after the other.
    """
    address = url.rstrip("/") + wire.PATH
    clients = [PlainClient(seconds=SECONDS, limit=wire.MAX_RESPONSE) for _ in crowd]

    async def post_all(requests: Sequence[bytes]) -> list[bytes]:
        each = zip(clients, requests, strict=True)
        return await asyncio.gather(
            *[one.post(address, data, content_type=wire.MEDIA_TYPE_REQUEST) for one, data in each]
        )

    try:
        firsts = await post_all([caller.begun.request_1 for caller in crowd])
        sent = [second_of(caller, first) for caller, first in zip(crowd, firsts, strict=True)]
        seconds = await post_all([one.request_2 for one in sent])
    finally:
        for client in clients:
            await client.aclose()
    _account(crowd, firsts, sent, seconds, sizes)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time (user and system, s) of a process and its children, threads and all, as the kernel has it."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds(child) for child in _children(pid))


def _children(pid: int) -> list[int]:
    lists = [path.read_text(encoding="ascii") for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for one in lists for child in one.split()]


# --- what both count --------------------------------------------------------------------------


class Sizes:
    """Bytes that went up and down, and of message 3; of bodies, without what HTTP adds."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.count = self._up = self._down = 0
        self._third: list[int] = []

    def add(self, request_1: bytes, response_1: bytes, request_2: bytes, response_2: bytes) -> None:
        """Count one leg."""
        second = wire.parse_request(request_2)
        if not isinstance(second, wire.Second):
            raise BenchError("bench-stage-failed", "request 2 holds no message 3")
        self.count += 1
        self._up += len(request_1) + len(request_2)
        self._down += len(response_1) + len(response_2)
        self._third.append(len(second.message_3))

    def means(self) -> dict[str, float]:
        """Return the means, and the longest message 3."""
        return {
            "bytes_up": round(self._up / self.count),
            "bytes_down": round(self._down / self.count),
            "message_3_bytes": max(self._third),
        }


def _account(
    crowd: Sequence[Caller], firsts: Sequence[bytes], sent: Sequence[Sent], seconds: Sequence[bytes], sizes: Sizes
) -> None:
    """See to it that all were granted something, and count what went over the wire."""
    for caller, first, one, second in zip(crowd, firsts, sent, seconds, strict=True):
        check_granted(one, second)
        sizes.add(caller.begun.request_1, first, one.request_2, second)


def second_of(caller: Caller, response_1: bytes) -> Sent:
    """Return the device's second sending; :class:`BenchError` if it would make none."""
    event = caller.begun.read(response_1, evidence=caller.evidence, request=caller.request)
    if not isinstance(event, Sent):
        raise BenchError("bench-stage-failed", f"the device does not go on: {event}")
    return event


def check_granted(sent: Sent, response_2: bytes) -> None:
    """See to it that the device was granted something: a refusal is cheap, and no figure."""
    event = sent.read(response_2)
    if not isinstance(event, Granted):
        raise BenchError("bench-stage-failed", f"the device is granted nothing: {event}")


def main(arguments: Sequence[str]) -> int:
    """Run one stage in this process."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    name, given = arguments
    task = Task(**json.loads(given))
    gc.freeze()
    try:
        if name == "core":
            figures = core(task)
        else:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                figures = runner.run(load(task))
    except FirstlightError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
