"""A staged world: the devices of a chain in memory, its gateway behind a real socket, for processes that see only that.

The real lab's ledger has one validator. Here a chain has as many validators, witnesses and members as a test wants, and
all their keys are in its hands: it can sign whatever those who stole, kept or share them could.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from firstlight.cli.demo.commands import arguments
from firstlight.discovery.bundle import Bundle, BundleRequest
from firstlight.errors import TransportError
from firstlight.roles.device.memory import VIEW, Sight
from firstlight.testing.bundles import Ledger
from firstlight.testing.chains import Consortium
from firstlight.testing.interceptor import Answered, Asked, Dropped, Forward, Interceptor
from firstlight.testing.journeys import SIZE, JourneyWorld
from firstlight.transports.body import CBOR

PATIENCE = 180.0
PAUSE = 0.03
Tell = Callable[[BundleRequest], Bundle]
"""Answers a bundle request for the newest head."""


@dataclass(slots=True)
class Staged:
    """A world in memory behind a socket; ``tell``, if set, answers in place of its ledger."""

    world: JourneyWorld
    gateway: Interceptor
    tell: Tell | None = None
    told: list[BundleRequest] = field(default_factory=list)
    """What was asked for the newest head, and answered."""
    relays: bool = True
    """Whether parties are reached."""
    _turn: threading.Lock = field(default_factory=threading.Lock)

    @property
    def ledger(self) -> Ledger:
        """The ledger, to be changed."""
        return self.world.ledger

    def govern(self, consortium: Consortium) -> None:
        """Let another consortium sign what comes next."""
        self.ledger.consortium = consortium

    def answer(self, asked: Asked, _: Forward) -> Answered:
        """Answer one request."""
        with self._turn:
            try:
                return Answered(200, CBOR, self._answer(asked))
            except TransportError as error:
                raise Dropped from error

    def _answer(self, asked: Asked) -> bytes:
        if asked.path == "/v1/bundles":
            request = BundleRequest.decode(asked.body)
            if not request.height:
                self.told.append(request)
                if self.tell is not None:
                    return self.tell(request).encode()
        if asked.path.startswith("/relay/") and not self.relays:
            raise TransportError("unreachable", "no party is reached")
        return self.world.answer(self.gateway.url + asked.path, asked.body, None)

    def run(self, index: int, *until: str) -> list[str]:
        """Run a device of the batch until it has logged one of ``until``; return all that it logged this time."""
        device = self.world.directory(index)
        log = device / "log.jsonl"
        before = len(log.read_bytes()) if log.exists() else 0
        words = arguments("device", "run", device, "--once", "--json")
        process = subprocess.Popen(  # noqa: S603 - our own program
            words, env={}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            end = time.monotonic() + PATIENCE
            while not set(codes := _codes(log, before)) & set(until):
                assert process.poll() is None, codes
                assert time.monotonic() < end, codes
                time.sleep(PAUSE)
            return codes
        finally:
            process.kill()
            process.wait()

    def sight(self, index: int) -> Sight | None:
        """Return what a device has stored of the ledger."""
        path = self.world.directory(index) / VIEW
        return Sight.decode(path.read_bytes()) if path.exists() else None


@contextmanager
def staged(root: Path, consortium: Consortium) -> Iterator[Staged]:
    """Open a world of four devices on a chain that ``consortium`` governs."""
    with Interceptor() as gateway:
        world = JourneyWorld(root, Ledger(consortium, size=SIZE), gateways=(gateway.url,))
        stage = Staged(world, gateway)
        with gateway.bending("/", stage.answer):
            yield stage


def _codes(log: Path, before: int) -> list[str]:
    if not log.exists():
        return []
    lines: list[dict[str, Any]] = [json.loads(line) for line in log.read_bytes()[before:].split(b"\n")[:-1]]
    return [str(line["code"]) for line in lines]
