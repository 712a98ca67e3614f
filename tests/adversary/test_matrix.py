"""Every message of the journey, forged, dropped, doubled or out of order: it goes on, or ends with a stable code.

Somebody stands on every leg: between devices and gateway, devices and service, gateway and witnesses, devices and
network. He does each thing to each message once, while a fleet of devices is under way. Then every device is connected
all the same, and nothing is there twice: one slot of an order, one grant in force, one session.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from firstlight.access.device.network_embedded import EmbeddedNetworkAccess
from firstlight.cli.demo.commands import run
from firstlight.custody.system import SystemRandom
from firstlight.discovery.machine import Discovered, Discovery
from firstlight.errors import AccessError
from firstlight.onboarding.device import Granted, Refused
from firstlight.stores.exchanges import GrantState
from firstlight.testing.byhand import Hand, say
from firstlight.testing.handheld import NONCE, Handheld, driven
from firstlight.testing.interceptor import Answered, Asked, Dropped, Forward, Interceptor
from firstlight.testing.lab import Lab
from firstlight.transports.endpoint import read_endpoint

SEED = 20_261_122
TOGETHER = 8
BEGINS = b"\xf5"
PATIENCE = 120.0
NEIGHBOUR = 3.0
"""Seconds for which a message waits for its neighbour."""
ACTS = ("forged up", "forged down", "lost up", "lost down", "doubled", "answered twice", "swapped")
"""What is done: to the request on its way up, or the answer on its way down; a swap needs two devices."""


def kind_of(asked: Asked) -> str:
    """Say which message of the journey a request is."""
    if asked.path.endswith("/.well-known/edhoc"):
        leg = "network" if asked.path.startswith("/relay/") else "service"
        return f"{leg} 1 and 2" if asked.body[:1] == BEGINS else f"{leg} 3 and 4"
    return asked.path.removeprefix("/v1/")


KINDS = ("mail", "bundles", "network 1 and 2", "network 3 and 4", "service 1 and 2", "service 3 and 4", "receipts")


@dataclass(slots=True)
class Hostile:
    """Does each act to each kind of message as often as told, to whichever device it meets."""

    chance: random.Random
    times: int = 1
    done: Counter[tuple[str, str]] = field(default_factory=Counter)
    left: list[tuple[str, str]] = field(default_factory=list)
    kept: dict[str, Answered] = field(default_factory=dict)
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _met: dict[str, tuple[threading.Event, list[Answered]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Plan what is to be done, in an order that chance gives."""
        self.left = [(kind, act) for kind in KINDS for act in ACTS for _ in range(self.times)]
        self.chance.shuffle(self.left)

    def bend(self, asked: Asked, forward: Forward) -> Answered:
        """Do what is next to be done to a message of this kind."""
        kind = kind_of(asked)
        with self._turn:
            cell = next((one for one in self.left if one[0] == kind), None)
            if cell is not None:
                self.left.remove(cell)
        if cell is None:
            return self._pass(kind, asked, forward)
        with self._turn:
            self.done[cell] += 1
        return self._do(cell[1], kind, asked, forward)

    def _pass(self, kind: str, asked: Asked, forward: Forward) -> Answered:
        given = forward(asked)
        with self._turn:
            self.kept[kind] = given
        return given

    def _do(self, act: str, kind: str, asked: Asked, forward: Forward) -> Answered:
        match act:
            case "forged up":
                return forward(replace(asked, body=self._flipped(asked.body)))
            case "forged down":
                given = forward(asked)
                return given.with_body(self._flipped(given.body))
            case "lost up":
                raise Dropped
            case "lost down":
                forward(asked)
                raise Dropped
            case "doubled":
                forward(asked)
                return forward(asked)
            case "answered twice":
                forward(asked)
                return self.kept.get(kind) or Answered(200, "application/cbor", b"\x80")
        return self._swapped(kind, forward(asked))

    def _flipped(self, data: bytes) -> bytes:
        """Return ``data`` with one bit changed, anywhere but in the byte that tells the legs apart."""
        changed = bytearray(data or b"\x00")
        changed[self.chance.randrange(min(1, len(changed) - 1), len(changed))] ^= 1 << self.chance.randrange(8)
        return bytes(changed)

    def _swapped(self, kind: str, own: Answered) -> Answered:
        """Give this asker the answer of the one that asks next, and that one this answer."""
        with self._turn:
            waiting = self._met.pop(kind, None)
            if waiting is None:
                event, answers = threading.Event(), [own]
                self._met[kind] = event, answers
                self.left.insert(0, (kind, "swapped"))
        if waiting is None:
            event.wait(NEIGHBOUR)
            with self._turn:
                self._met.pop(kind, None)
            return answers[-1]
        event, answers = waiting
        answers.append(own)
        event.set()
        return answers[0]


@contextmanager
def service_leg(lab: Lab) -> Iterator[Interceptor]:
    """Put somebody before the SP: its record names him, whom it takes for its own front."""
    with Interceptor(lab.url("sp")) as between:
        run("sp", "update", lab.places.sp, "--endpoint", between.url)
        try:
            yield between
        finally:
            run("sp", "update", lab.places.sp)


def whole(lab: Lab, device: Path) -> bool:
    """Say whether a device is served once, by one grant from each party."""
    hand = Hand(lab, device)
    return all(
        hand.slots(role) == 1
        and [one for one in hand.grants(role) if one is not GrantState.ENDED] == [GrantState.CONFIRMED]
        for role in ("mno", "sp")
    )


def alarms(lab: Lab) -> dict[str, object]:
    """Return the clone alarms that stand at the parties."""
    return {role: run(role, "alarms", lab.state(role)).values["items"] for role in ("mno", "sp")}


def test_a_journey_survives_whatever_happens_to_any_of_its_messages(lab: Lab, full: bool) -> None:
    """A gateway and a network forge, lose, double, repeat and swap every message that passes through HTTP."""
    lab.connects(lab.device())
    before = alarms(lab)
    hostile = Hostile(random.Random(SEED), times=4 if full else 1)
    fleet = [lab.device() for _ in range(4 * TOGETHER if full else TOGETHER)]
    with service_leg(lab) as service:
        with lab.interceptor.bending("/", hostile.bend), service.bending("/", hostile.bend):
            outcomes = lab.switch_on_all(fleet, seconds=PATIENCE)
        reached = {name for name, one in outcomes.items() if "connected" in {line["stage"] for line in one.lines}}
        assert reached == {device.name for device in fleet}
    missed = {(kind, act) for kind in KINDS for act in ACTS} - set(hostile.done)
    assert not missed, missed
    codes = {str(line["code"]) for one in outcomes.values() for line in one.lines if line.get("code")}
    assert codes
    assert "internal-error" not in codes
    assert alarms(lab) == before
    for device in fleet:
        assert whole(lab, device), (device.name, Hand(lab, device).grants("mno"), Hand(lab, device).grants("sp"))


def test_refusals_survive_it_too(lab: Lab, full: bool) -> None:
    """A relay forges, loses, doubles, repeats and swaps protected refusals, to make them grants, or two of them."""
    chance = random.Random(SEED)
    for role in ("mno", "sp"):
        hand, other = Hand(lab, lab.device()), Hand(lab, lab.device())
        hand.onboard(role)
        foreign = other.open(role, evidence=other.evidence(secure_boot=False))
        other_answer = say(hand.url(role), foreign.request_2)
        for _ in range(12 if full else 3):
            sent = hand.open(role, evidence=hand.evidence(secure_boot=False))
            first = say(hand.url(role), sent.request_2)
            assert sent.read(first) == Refused("secure-boot-off")
            with lab.unchanged(lab.state(role)):
                assert say(hand.url(role), sent.request_2) == first
            for forged in (*(flipped(first, chance) for _ in range(20)), other_answer, first[:-1], b""):
                assert not isinstance(sent.read(forged), Granted | Refused)
            assert isinstance(sent.read(first), Refused)
        assert hand.grants(role) == [GrantState.PENDING]


def flipped(data: bytes, chance: random.Random) -> bytes:
    """Return ``data`` with one bit changed."""
    changed = bytearray(data)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


# --- witnesses ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Signed:
    """Does something to what witnesses sign; ``before`` is what one of them signed earlier."""

    act: str
    before: Answered
    chance: random.Random = field(default_factory=lambda: random.Random(SEED))
    fired: int = 0

    def bend(self, asked: Asked, forward: Forward) -> Answered:
        """Do it."""
        self.fired += 1
        given = forward(asked)
        match self.act:
            case "lost":
                raise Dropped
            case "forged":
                return given.with_body(flipped(given.body, self.chance))
            case "doubled":
                return forward(asked)
        return self.before


def test_witnesses_answers_survive_it(lab: Lab) -> None:
    """Somebody between a gateway and the witnesses does it to what they sign: to one of them, and to all."""
    device = lab.device()
    with contextlib.ExitStack() as stack:
        between = [stack.enter_context(Interceptor(url)) for url in lab.addresses.witnesses]
        twin = stack.enter_context(lab.twin("gateway", witnesses=json.dumps([one.url for one in between])))
        held = replace(Handheld.open(device), gateway=read_endpoint(twin).url)

        def asked() -> object:
            """Ask the gateway on the mail that lies at it under its own name."""
            return _discover(held, lab.addresses.gateway)

        assert isinstance(asked(), Discovered)
        before = next(given for _, given in reversed(between[0].seen) if given is not None)
        for act, code in (("lost", "not-fresh"), ("forged", "not-fresh"), ("doubled", ""), ("repeated", "not-fresh")):
            signed = Signed(act, before)
            with between[0].bending("/", signed.bend):
                assert isinstance(asked(), Discovered)
            with contextlib.ExitStack() as all_of_them:
                for one in between:
                    all_of_them.enter_context(one.bending("/", signed.bend))
                assert getattr(asked(), "code", "") == code
            assert signed.fired >= 4
            assert isinstance(asked(), Discovered)


def _discover(held: Handheld, named: str) -> object:
    """Discover through one gateway under another one's name, under which the mail lies."""
    nonce = SystemRandom().bytes(NONCE)
    machine = Discovery(held.birth, held.identity, gateway=named, trust=held.trust, nonce=nonce)
    return driven(machine, held.gateway)


# --- the network's frames -------------------------------------------------------------------------


class Frames:
    """Stands between a device and its network, and does one thing to one frame of each connection."""

    def __init__(self, upstream: int, act: str, number: int, chance: random.Random) -> None:
        """Do ``act`` to frame ``number``, counted over both directions."""
        self.upstream, self.act, self.number, self.chance = upstream, act, number, chance
        self.fired = 0
        self._seen = 0
        self._held: tuple[socket.socket, bytes] | None = None
        self._turn = threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Let nobody in any more."""
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self.upstream))
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError), source.makefile("rb") as reader:
            while len(head := reader.read(2)) == 2:
                self._pass(source, target, head + reader.read(int.from_bytes(head)))
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _pass(self, source: socket.socket, target: socket.socket, frame: bytes) -> None:
        with self._turn:
            self._seen += 1
            mine = self._seen == self.number
            self.fired += mine
        if not mine:
            target.sendall(frame)
            return
        match self.act:
            case "forged":
                changed = bytearray(frame)
                changed[self.chance.randrange(2, len(frame))] ^= 1 << self.chance.randrange(8)
                target.sendall(bytes(changed))
            case "lost":
                source.close()
            case "doubled":
                target.sendall(frame + frame)
            case "back to its sender":
                source.sendall(frame)


FRAME_ACTS = ("forged", "lost", "doubled", "back to its sender")
ATTACH_CODES = {"attach-timeout", "attach-unreachable", "attach-malformed", "attach-refused", "network-not-authentic",
                "wrong-network", "separation-missing", "resync-failed"}  # fmt: skip


def test_frames_of_the_attach_survive_it(lab: Lab, full: bool) -> None:
    """Somebody on the access network does it to each frame of an attach: it comes to pass, or ends with a code."""
    hand = Hand(lab, lab.device())
    sim = hand.sim(hand.onboard("mno"))
    port = lab.port("mno", "attach")
    asyncio.run(asyncio.wait_for(EmbeddedNetworkAccess(SystemRandom()).attach(sim), 20))
    chance, came = random.Random(SEED), Counter[str]()
    between = Frames(port, "nothing", 0, chance)
    asyncio.run(EmbeddedNetworkAccess(SystemRandom(), endpoint=between.endpoint, deadline_s=20.0).attach(sim))
    between.close()
    for number in (1, 2, 3, 4):
        for act in FRAME_ACTS * (5 if full else 1):
            frames = Frames(port, act, number, chance)
            access = EmbeddedNetworkAccess(SystemRandom(), endpoint=frames.endpoint, deadline_s=1.0)
            try:
                attachment = asyncio.run(access.attach(sim))
                came["attached"] += 1
                assert attachment.proxy is not None
            except AccessError as error:
                came[error.code] += 1
            finally:
                frames.close()
            assert frames.fired == 1 or number > 3, (act, number, came)
    assert set(came) <= {"attached", *ATTACH_CODES}
    assert set(came) != {"attached"}
    asyncio.run(EmbeddedNetworkAccess(SystemRandom()).attach(sim))
    imsi = sim.sim.credentials.imsi
    end = time.monotonic() + 20
    while lab.query("mno", "SELECT count(*) FROM session WHERE imsi = ? AND closed_at IS NULL", imsi) != [(1,)]:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert hand.grants("mno") == [GrantState.CONFIRMED]
