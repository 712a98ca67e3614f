"""Those who would cut off a device that works, or live on what it had: at renewals, with silence, and with its copy."""

from __future__ import annotations

import itertools
import json
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from firstlight.cli.demo.commands import arguments, run
from firstlight.files import write_atomic
from firstlight.identity.birth import BirthCredential
from firstlight.onboarding import wire
from firstlight.roles.device.memory import BIRTH
from firstlight.stores.exchanges import GrantState
from firstlight.testing.byhand import Hand, say
from firstlight.testing.interceptor import Answered, Asked, Dropped, Forward, Interceptor
from firstlight.testing.lab import Lab, copy_device
from firstlight.transports.endpoint import read_endpoint

pytestmark = pytest.mark.long

PATIENCE = 90.0
LEASE = 12
"""Seconds of a subscription: short, so that it is renewed, and ends, while a test watches."""
ENDED, PENDING, CONFIRMED = GrantState.ENDED, GrantState.PENDING, GrantState.CONFIRMED


def until(fact: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait for a fact."""
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)


@dataclass(slots=True)
class Powered:
    """A device that is switched on, and what it prints."""

    process: subprocess.Popen[bytes]
    output: Path

    def lines(self) -> list[dict[str, str]]:
        """Return what it has printed by now."""
        text = self.output.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in text if line.endswith("\n")]

    def codes(self) -> list[str]:
        """Return the codes with which it waited."""
        return [line["code"] for line in self.lines() if line.get("code")]

    def count(self, stage: str) -> int:
        """Return how often it came to a stage."""
        return sum(line["stage"] == stage for line in self.lines())


@contextmanager
def powered(lab: Lab, device: Path) -> Iterator[Powered]:
    """Run a device as long as the context lasts."""
    output = lab.places.root / "output" / f"{device.parent.name}-{device.name}-{time.monotonic_ns()}.out"
    with output.open("wb") as file:
        process = subprocess.Popen(
            arguments("device", "run", device, "--json"),
            env={},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Powered(process, output)
        assert process.poll() is None, output.read_text()
    finally:
        process.kill()
        process.wait()


@dataclass(slots=True)
class Carrier:
    """Leads the network leg to a server of the test's choice, and may keep messages 3 and lose what answers them."""

    url: str
    lose: bool = False
    hold: bool = False
    sent: list[bytes] = field(default_factory=list)
    held: list[bytes] = field(default_factory=list)
    lost: list[bytes] = field(default_factory=list)
    silent: bool = False

    def bend(self, asked: Asked, forward: Forward) -> Answered:
        """Carry the network leg; every exchange's message 4 is lost until another exchange is begun."""
        if self.silent:
            raise Dropped
        if not asked.path.startswith("/relay/"):
            return forward(asked)
        if asked.body[:1] == b"\xf5":
            return Answered(200, wire.MEDIA_TYPE, say(self.url, asked.body))
        if self.hold or asked.body in self.held:
            self.hold = False
            self.held.append(asked.body)
            raise Dropped
        given = say(self.url, asked.body)
        self.sent.append(asked.body)
        if self.lose and (not self.lost or asked.body == self.lost[-1]):
            self.lost.append(asked.body)
            raise Dropped
        return Answered(200, wire.MEDIA_TYPE, given)

    def lose_one(self) -> None:
        """Lose the next exchange's message 4, however often it is asked for."""
        self.lose = True
        self.lost.clear()


@pytest.fixture(scope="module")
def short(lab: Lab) -> Iterator[Path]:
    """The operator once more, with subscriptions of a few seconds."""
    with lab.twin("mno", grant_seconds=LEASE, round_seconds=1) as twin:
        yield twin


def grants(at: Path, device: Path, name: str = "mno") -> list[GrantState]:
    """Return the states of a device's grants at a server's directory, the oldest first."""
    birth = BirthCredential.decode((device / BIRTH).read_bytes())
    with closing(sqlite3.connect(f"file:{at / f'{name}.sqlite'}?mode=ro", uri=True)) as connection:
        query = "SELECT state FROM issued WHERE batch = ? AND idx = ? ORDER BY sequence"
        return [GrantState(row[0]) for row in connection.execute(query, (birth.batch, birth.index))]


def rows(at: Path, query: str, *values: object) -> list[tuple[object, ...]]:
    """Return what a query of an operator's database gives."""
    with closing(sqlite3.connect(f"file:{at / 'mno.sqlite'}?mode=ro", uri=True)) as connection:
        return connection.execute(query, values).fetchall()


def test_losing_message_4_at_each_renewal_loses_nothing(lab: Lab, short: Path, full: bool) -> None:
    """A relay loses message 4 of the first exchange of every renewal, for good, and later replays every message 3.

    He would have the device cut off, or taken for its clone, or its newer subscription ended by an old message.
    """
    device, carrier = lab.device(), Carrier(read_endpoint(short).url)
    with lab.interceptor.bending("/relay/", carrier.bend), powered(lab, device) as told:
        until(lambda: told.count("connected"), "connected")
        assert CONFIRMED in grants(short, device)
        for renewal in (1, 2, 3) if full else (1,):
            known = len(grants(short, device))
            carrier.lose_one()
            until(lambda: len(set(carrier.lost)) == 1, f"renewal {renewal}: message 4 is lost")
            until(
                lambda: len(now := grants(short, device)) >= known + 2 and now[-1] is CONFIRMED,  # noqa: B023
                f"renewal {renewal}: renewed all the same",
            )
            carrier.lose = False
        carrier.hold = True
        until(lambda: carrier.held, "a message 3 is held back")
        known = len(grants(short, device))
        until(lambda: len(now := grants(short, device)) > known and now[-1] is CONFIRMED, "renewed once more")
    states = grants(short, device)
    assert set(states[:-1]) == {ENDED}
    birth = BirthCredential.decode((device / BIRTH).read_bytes())
    assert rows(short, "SELECT count(*) FROM slot WHERE idx = ?", birth.index) == [(1,)]
    assert rows(short, "SELECT count(*) FROM alarm WHERE idx = ?", birth.index) == [(0,)]
    assert "clone-alarm" not in told.codes()
    before = grants(short, device)
    exchanges = rows(short, "SELECT count(*) FROM exchange WHERE idx = ?", birth.index)
    replayed = list(dict.fromkeys(carrier.sent))
    assert len(replayed) >= 4
    for message in replayed:
        assert say(carrier.url, message) == say(carrier.url, message)
    assert grants(short, device) == before
    assert rows(short, "SELECT count(*) FROM exchange WHERE idx = ?", birth.index) == exchanges
    with (short / "log.jsonl").open() as log:
        log.seek(0, 2)
        say(carrier.url, carrier.held[0])
        until(lambda: "superseded" in log.read(), "the message that was held back is superseded")
    assert grants(short, device) == before


def test_silence_ends_a_lease_and_nothing_else(lab: Lab, short: Path) -> None:
    """Every gateway goes silent, so that a device that was sold on, or replanned, goes on as it was.

    It goes on until its lease ends, and no longer; then it asks again and again, and connects when somebody answers.
    """
    device, carrier = lab.device(), Carrier(read_endpoint(short).url)
    with lab.interceptor.bending("/", carrier.bend), powered(lab, device) as told:
        until(lambda: told.count("connected"), "connected")
        carrier.silent = True
        began = len(told.lines())
        until(lambda: {line["stage"] for line in told.lines()[began:]} & {"waiting"}, "the lease has run out")
        until(lambda: set(grants(short, device)) == {ENDED}, "the operator has ended it")
        birth = BirthCredential.decode((device / BIRTH).read_bytes())
        imsis = "SELECT id FROM issued WHERE idx = ?"
        assert rows(short, imsis, birth.index)
        until(lambda: rows(short, "SELECT count(*) FROM session WHERE closed_at IS NULL") == [(0,)], "off the network")
        until(lambda: "unreachable" in told.codes(), "it asks for a new one")
        carrier.silent = False
        until(lambda: grants(short, device)[-1] is CONFIRMED, "connected again")
        until(lambda: told.count("connected") >= 1, "connected again")
    assert rows(short, "SELECT count(*) FROM alarm WHERE idx = ?", birth.index) == [(0,)]


def test_a_new_device_tries_other_gateways_and_waits_longer_each_time(lab: Lab) -> None:
    """The first gateway that a device was born with is silent; then all of them are, for a while."""
    device, tries = lab.device(), list[float]()
    birth = BirthCredential.decode((device / BIRTH).read_bytes())

    def silent(asked: Asked, forward: Forward) -> Answered:
        raise Dropped

    def counted(asked: Asked, forward: Forward) -> Answered:
        if asked.path == "/v1/mail":
            tries.append(time.monotonic())
        raise Dropped

    with Interceptor(lab.interceptor.upstream) as first:
        write_atomic(device / BIRTH, replace(birth, gateways=(first.url, *birth.gateways)).encode())
        with first.bending("/", silent):
            outcome = lab.connects(device)
        assert "unreachable" in outcome.codes
        assert len(first.seen) >= 3
        late = lab.device()
        with lab.interceptor.bending("/", counted):
            waits = 4
            outcome = lab.switch_on(
                late, until=lambda one: sum(line["stage"] == "waiting" for line in one.lines) >= waits
            )
        assert [line["code"] for line in outcome.lines if line["stage"] == "waiting"] == ["unreachable"] * waits
        assert len(tries) >= 3 * waits
        starts = tries[::3][:waits]
        gaps = [after - before for before, after in itertools.pairwise(starts)]
        assert all(gap >= 0.5 * 2**at for at, gap in enumerate(gaps)), gaps
        assert not list((late / "grants").glob("*"))
        lab.connects(late)


def test_two_devices_with_one_identity_have_one_subscription(lab: Lab) -> None:
    """Somebody copied a device in the factory; device and copy are switched on together on their first day.

    Operator or provider raise the alarm; there is never more than one subscription, certificate and session. Whom the
    owner leaves switched on goes on, when each of them that raises an alarm about it has cleared that.
    """
    honest = lab.device()
    lab.connects(honest)
    device = lab.device()
    copy = copy_device(device, lab.places.root / "copies" / f"first-day-{device.name}")
    hand, index, running = Hand(lab, device), int(device.name), list[Powered]()
    sessions = (
        "SELECT count(*) FROM session JOIN subscription USING (imsi) JOIN issued ON issued.id = grant_id"
        " WHERE idx = ? AND closed_at IS NULL"
    )

    def refused() -> bool:
        """Look whether one of them is refused, and that they are never served both."""
        for role in ("mno", "sp"):
            assert sum(state is CONFIRMED for state in hand.grants(role)) <= 1
            assert sum(state is PENDING for state in hand.grants(role)) <= 1
            assert hand.slots(role) <= 1
        assert lab.query("mno", sessions, index)[0][0] <= 1
        return any("clone-alarm" in told.codes() for told in running)

    with powered(lab, device) as one, powered(lab, copy) as other:
        running = [one, other]
        until(refused, "one of them is refused")
    assert clear(lab, index)
    for _ in ("mno", "sp", "last"):
        with powered(lab, device) as alone:
            running = [alone]
            until(lambda: alone.count("connected") or refused(), "one of them is left, and goes on")
        if not clear(lab, index):
            break
    assert alone.count("connected")
    assert [state for state in hand.grants("mno") if state is CONFIRMED] == [CONFIRMED]


def clear(lab: Lab, index: int) -> int:
    """Clear the alarms about a device at both parties, as its owner asks them to; return how many there were."""
    cleared = 0
    for role in ("mno", "sp"):
        for row in run(role, "alarms", lab.state(role)).values["items"]:
            if row["index"] == index:
                run(role, "clear-alarm", lab.state(role), row["batch"], row["index"], row["tenure"])
                cleared += 1
    return cleared
