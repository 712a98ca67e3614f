"""Recording a journey, and going on it with one cut."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.power.whole import DATABASES, Before, at_rest, faults, ledger_faults, rows
from tests.power.world import DEVICE, PATIENCE, SERVERS, Bench, NotReachedError, Where

from firstlight.stores.exchanges import GrantState

BY_CLOCK = re.compile(r"^(ledger|chain)-announcing\.cbor")
"""What a party writes when it looks, by a clock, whether the ledger says where it serves: no part of a journey."""
AGAIN = re.compile(r"/v1/receipts/read|/v1/headers/latest")
"""What comes again and again by a clock: the owner's looks for receipts, the witnesses' for headers."""
SEEN = 2
"""How many occurrences of that are cut; the others are the same."""
LATE = 30.0
"""Seconds for which a point that comes after the journey may be waited for."""
AT_ONCE = 3
"""Devices that are cut at once, and devices whose traces are looked at."""
ATTEMPTS = 3
PARTIES = ("mno", "sp")
LEASE = 16
"""Seconds for which a grant lasts where renewals are cut."""
RENEWING = 12
"""Devices whose renewals are cut at once."""
POLL = 0.1
DEPLOYED = ("node", "gateway")
"""Who has something to do when a plan is deployed."""
Recorded = Iterable[tuple[str, str, int, Sequence[str]]]


def record(bench: Bench) -> list[Where]:
    """Return all points of the recorded runs.

    ``warm``: servers that have served before, a device that is new. ``cold``: what servers do besides when they have
    just started, and while they start. ``deploy``: an owner deploys a plan for one device.
    """
    _journey(bench)
    device = bench.spare[0]
    for name in (*SERVERS, device.name):
        bench.record(name)
    _journey(bench)
    warm = [one for role in SERVERS for one in _points(role, "warm", bench.recorded(role))]
    had = {replace(one, part="cold") for one in warm}
    cold = [one for role in SERVERS for one in _recorded_cold(bench, role) if one not in had]
    return [*_points(DEVICE, "warm", bench.recorded(device.name)), *warm, *cold, *_recorded_deployment(bench)]


def _recorded_cold(bench: Bench, role: str) -> list[Where]:
    bench.record(role)
    bench.kill(role)
    bench.start(role)
    _journey(bench)
    return _points(role, "cold", bench.recorded(role))


def _recorded_deployment(bench: Bench) -> list[Where]:
    device = bench.spare.pop()
    for role in DEPLOYED:
        bench.record(role)
    before = Before.of(bench)
    bench.replan(device)
    points = [one for role in DEPLOYED for one in _points(role, "deploy", bench.recorded(role))]
    _deployed(bench, before, "a deployment that is recorded")
    _goes(bench, device, Before.of(bench), "a device that was deployed again")
    return points


def _journey(bench: Bench) -> None:
    """Go the whole way with a new device, with no cut: nothing is lost or doubled."""
    _goes(bench, bench.device(), Before.of(bench), "no cut")


def _goes(bench: Bench, device: Path, before: Before, what: str) -> None:
    _connect(bench, device)
    _settled(bench, device, before, what, cuts=0)


def _connect(bench: Bench, device: Path) -> None:
    with bench.powered(device, "--once") as process:
        assert process.wait(PATIENCE) == 0, bench.printed(device)


def _points(role: str, part: str, recorded: Recorded) -> list[Where]:
    return [
        Where(role, part, kind, what, occurrence, when)
        for kind, what, occurrence, moments in recorded
        for when in moments
        if not BY_CLOCK.search(what) and (occurrence <= SEEN or not AGAIN.search(what))
    ]


def cut_all(bench: Bench, points: Sequence[Where]) -> list[str]:
    """Take a new device on its journey for each of ``points``, and kill a process there; return what went wrong.

    Devices are cut a few at a time, servers one after the other; what a device leaves behind is looked at while the
    next one is on its way. A point that was not reached is tried again, and is a failure if it never is.
    """
    failures: list[str] = []
    devices = [one for one in points if one.role == DEVICE]
    servers = [one for one in points if one.role != DEVICE and one.part != "deploy"]
    deployments = [one for one in points if one.part == "deploy"]
    before = Before.of(bench)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda one: _tried(bench, one, failures, partial(_cut_device, bench, one, before)), devices))
        left = []
        for one in servers:
            device = _tried(bench, one, failures, partial(_cut_server, bench, one))
            if device is not None:
                left.append(pool.submit(_looked_at, bench, device, before, str(one), failures))
        wait(left)
    again = [
        _tried(bench, one, failures, partial(_cut_deployment, bench, one, Before.of(bench))) for one in deployments
    ]
    now = Before.of(bench)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda device: _goes_on(bench, device, now, failures), filter(None, again)))
    return failures


def _goes_on(bench: Bench, device: Path, before: Before, failures: list[str]) -> None:
    """Take a device on its journey after a deployment that was cut."""
    try:
        _goes(bench, device, before, f"{device.name} after a deployment that was cut")
    except AssertionError as error:
        failures.append(str(error))


def record_renewal(bench: Bench) -> list[Where]:
    """Have grants last for seconds from now on; return the points of a device while it renews both of its own."""
    for role in PARTIES:
        bench.restart(role, {"grant_seconds": LEASE})
    device = bench.device()
    with bench.powered(device):
        _wait_connected(bench, device)
        bench.record(device.name)
        bench.until(lambda: all(len(_grants(bench, role, device)) >= 2 for role in PARTIES), "renewed", pause=POLL)
        _wait_connected(bench, device)
        return _points(DEVICE, "renewal", bench.recorded(device.name))


def cut_renewals(bench: Bench, points: Sequence[Where]) -> list[str]:
    """Have a new device renew its grants for each of ``points``, many at once, and kill it there; as :func:`cut_all`.

    A device that does not come to a point in one renewal may come there in the next.
    """
    failures: list[str] = []
    before = Before.of(bench)
    with ThreadPoolExecutor(RENEWING) as pool:
        list(pool.map(lambda one: _tried(bench, one, failures, partial(_cut_renewal, bench, one, before)), points))
    return failures


def _cut_renewal(bench: Bench, where: Where, before: Before) -> Path:
    device = bench.device()
    with bench.powered(device) as process:
        _wait_connected(bench, device)
        serial = bench.arm(device.name, where)
        bench.until(lambda: process.poll() is not None, f"{where}: cut", pause=POLL)
    if not bench.died(device.name, serial):
        raise NotReachedError(f"{where}: ended with {process.returncode}\n{bench.printed(device)}")
    for again in reversed(range(ATTEMPTS)):
        _renew(bench, device)
        found = _looks(bench, device, before, LATE)
        if not found or not again:  # it may have been stopped in the middle of the next renewal
            assert not found, f"{where}: {found}\n{bench.printed(device)}"
            break
    return device


def _renew(bench: Bench, device: Path) -> None:
    """Let a device go on until it has renewed its grants and its owner has read so; then have it stop."""
    had = {role: len(_grants(bench, role, device)) for role in PARTIES}
    with bench.powered(device) as process:
        bench.until(
            lambda: all(len(_grants(bench, role, device)) > had[role] for role in PARTIES), "renewed", pause=POLL
        )
        _wait_connected(bench, device)
        bench.until(lambda: at_rest(bench, device), f"{device.name} has renewed", pause=POLL)
        process.terminate()
        process.wait(PATIENCE)


def _looks(bench: Bench, device: Path, before: Before, seconds: float) -> list[str]:
    """Return what is still wrong after ``seconds``, or nothing as soon as nothing is."""
    end = time.monotonic() + seconds
    while (found := faults(bench, device, before, cuts=1, renewed=True)) and time.monotonic() < end:
        time.sleep(POLL)
    return found


def _wait_connected(bench: Bench, device: Path) -> None:
    def connected() -> bool:
        return all(_grants(bench, role, device)[-1:] == [GrantState.CONFIRMED] for role in PARTIES)

    bench.until(connected, f"{device.name} is connected", pause=POLL)


def _grants(bench: Bench, role: str, device: Path) -> list[int]:
    """Return the states of a device's grants at a party, the oldest first."""
    query = "SELECT state FROM issued WHERE idx = ? ORDER BY sequence"
    return [state for (state,) in rows(bench.state(role) / DATABASES[role], query, int(device.name))]


def _tried(bench: Bench, where: Where, failures: list[str], attempt: Callable[[], Path]) -> Path | None:
    for again in reversed(range(ATTEMPTS)):
        try:
            return attempt()
        except NotReachedError as error:
            if not again:
                failures.append(f"never reached: {error}")
        except AssertionError as error:
            failures.append(f"{where}: {error}")
            break
        if where.role != DEVICE:
            bench.mend()
    if where.role != DEVICE:
        bench.mend()
    return None


def _looked_at(bench: Bench, device: Path, before: Before, what: str, failures: list[str]) -> None:
    try:
        _settled(bench, device, before, what, cuts=1)
    except AssertionError as error:
        failures.append(str(error))


def _cut_device(bench: Bench, where: Where, before: Before) -> Path:
    device = bench.device()
    serial = bench.arm(device.name, where)
    with bench.powered(device, "--once") as process:
        process.wait(PATIENCE)
    if not bench.died(device.name, serial):
        raise NotReachedError(f"{where}: ended with {process.returncode}\n{bench.printed(device)}")
    assert process.returncode == -signal.SIGKILL
    _connect(bench, device)
    _settled(bench, device, before, str(where), cuts=1)
    return device


def _cut_server(bench: Bench, where: Where) -> Path:
    device, role = bench.device(), where.role
    serial = bench.arm(role, where)
    if where.part == "cold":
        bench.kill(role)
        bench.launch(role)
        if not bench.ready(role):
            bench.revive(role, serial)
    with bench.powered(device, "--once") as process:
        _attend(bench, role, serial, process, f"{where}: the device is connected")
        assert process.returncode == 0, f"{where}: ended with {process.returncode}\n{bench.printed(device)}"
    _late(bench, where, serial)
    return device


def _cut_deployment(bench: Bench, where: Where, before: Before) -> Path:
    device, role = bench.spare.pop(), where.role
    serial = bench.arm(role, where)
    for _ in range(5):
        deploying = bench.replanning(device)
        _attend(bench, role, serial, deploying, f"{where}: deployed")
        if deploying.returncode == 0:
            break
        assert bench.died(role, serial), f"{where}: the deployment failed without a cut"
    assert deploying.returncode == 0, f"{where}: the deployment fails"
    _late(bench, where, serial)
    _deployed(bench, before, str(where))
    return device


def _attend(bench: Bench, role: str, serial: int, process: subprocess.Popen[bytes], what: str) -> None:
    """Wait until ``process`` has ended; meanwhile start servers again that have died by order."""
    with ExitStack() as undo:
        undo.callback(process.kill)

        def ended() -> bool:
            _revive(bench, role, serial)
            return process.poll() is not None

        bench.until(ended, what)
        undo.pop_all()


def _revive(bench: Bench, role: str, serial: int) -> None:
    for server in SERVERS:
        bench.revive(server, serial if server == role else None)


def _late(bench: Bench, where: Where, serial: int) -> None:
    """See that the server has died; if the point comes after the journey, wait for it."""
    try:
        bench.until(lambda: bench.died(where.role, serial), "died", seconds=LATE)
    except AssertionError as error:
        raise NotReachedError(str(where)) from error
    child = bench.servers[where.role]
    if child.pid == bench.died(where.role, serial):
        child.process.wait(PATIENCE)
    _revive(bench, where.role, serial)


def _deployed(bench: Bench, before: Before, what: str) -> None:
    """Check that one plan has been deployed once."""
    found = ledger_faults(bench, before, deployments=1)
    assert not found, f"{what}: {found}"


def _settled(bench: Bench, device: Path, before: Before, what: str, *, cuts: int) -> None:
    """Wait until nothing is lost or doubled: parties and owner may still be reading what the device left."""
    found: list[str] = []

    def whole() -> bool:
        found[:] = faults(bench, device, before, cuts=cuts)
        return not found

    try:
        bench.until(whole, what, pause=POLL)
    except AssertionError:
        raise AssertionError(f"{what}: {found}\n{bench.printed(device)}") from None


def tally(points: Iterable[Where]) -> Counter[str]:
    """Return how many points there are of whom and in which part."""
    return Counter(f"{one.role} {one.part}" for one in points)
