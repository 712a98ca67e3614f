"""Somebody has an owner's key, and races its recovery; or he has his own, and floods the ledger with it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from firstlight.cli.demo.commands import run
from firstlight.custody.file import SigningKey
from firstlight.custody.system import SystemRandom
from firstlight.ledger.records import Batch, Role, TenureState, batch_name, tenure_name
from firstlight.ledger.tenure import Standing
from firstlight.ledger.transaction import Accept, AddBudget, Body, Deploy, Freeze, Offer, Recover, Retire, Unfreeze
from firstlight.roles.ledger_client import LedgerClient
from firstlight.roles.wire import TransactionAnswer
from firstlight.testing.handheld import Said
from firstlight.testing.lab import Lab
from firstlight.testing.strangers import Lot, Market, Stranger, new_key
from firstlight.transports.endpoint import read_endpoint
from firstlight.trees.ownership import Selection

SIZE = 8
DELAY = 3_600
PATIENCE = 180.0
ALL = Selection.of([(0, SIZE)])
SOME = Selection.of([(0, 4)])
PLAN = sha256(b"plan").digest()


@pytest.fixture(scope="module")
def market(lab: Lab) -> Market:
    """The ledger in the hands of strangers."""
    return Market(lab.addresses.node, lab.places.consortium)


@pytest.fixture(scope="module")
def maker(market: Market) -> Stranger:
    """Who makes what is owned here."""
    return market.join(Role.MANUFACTURER)


@pytest.fixture
def ledger(lab: Lab, market: Market, tmp_path: Path) -> Iterator[LedgerClient]:
    """What anybody can have proven."""
    with LedgerClient(lab.addresses.node, market.genesis, tmp_path / "ledger.cbor", random=SystemRandom()) as client:
        yield client


@dataclass(slots=True)
class Owned:
    """A purchase whose keys are in the test's hands, and in the thief's, all but the recovery key."""

    market: Market
    ledger: LedgerClient
    lot: Lot
    tenure: int
    key: SigningKey
    recovery: SigningKey

    @classmethod
    def buy(cls, market: Market, ledger: LedgerClient, maker: Stranger, *, delay: int = DELAY, model: bytes) -> Owned:
        """Buy a batch honestly, with a transfer delay."""
        lot = market.lot(maker, SIZE, model)
        key, recovery = new_key(), new_key()
        market.do(market.offer(lot, key.public, ALL, now=int(time.time())), lot.keys[1])
        market.do(Accept(lot.batch, 2, sha256(recovery.public).digest(), delay), key)
        made = cls(market, ledger, lot, 2, key, recovery)
        assert made.standing(0).number == 2
        return made

    def standing(self, index: int) -> Standing:
        """Return whose a device is, as the ledger proves."""
        found = self.ledger.view(batch=self.lot.batch, prefix=(index, 3)).standing
        assert found is not None
        return found

    def recover(self) -> tuple[Recover, SigningKey]:
        """Return the recovery, not submitted, and the key that it brings."""
        fresh = new_key()
        following = sha256(new_key().public).digest()
        return Recover(self.lot.batch, self.tenure, self.recovery.public, fresh.public, following), fresh

    def tenures(self) -> int:
        """Return how many tenures the batch has."""
        record = self.ledger.view(batch_name(self.lot.batch)).records[batch_name(self.lot.batch)]
        assert isinstance(record, Batch)
        return record.tenures

    def refused(self, body: Body, signer: SigningKey) -> str:
        """Submit what must be refused, and check that it changed nothing."""
        before = self.ledger.view(batch_name(self.lot.batch), tenure_name(self.lot.batch, self.tenure)).records
        said = self.market.post(self.market.make(body, signer))
        assert said.status == 409, said.fields()
        now = self.ledger.view(batch_name(self.lot.batch), tenure_name(self.lot.batch, self.tenure)).records
        assert dict(now) == dict(before)
        return said.code


def steal(one: Owned, selection: Selection = SOME) -> tuple[int, SigningKey]:
    """Sell devices to the thief himself; return his tenure and its key."""
    thief = new_key()
    one.market.do(Offer(one.lot.batch, one.tenure, thief.public, int(time.time()) + 3_600, selection), one.key)
    number = one.tenures()
    one.market.do(Accept(one.lot.batch, number, sha256(b"his own").digest(), 0), thief)
    return number, thief


def test_what_a_thief_sells_comes_back(market: Market, ledger: LedgerClient, maker: Stranger) -> None:
    """A thief sells devices to himself with the stolen key, and would sell them on; the owner recovers."""
    one = Owned.buy(market, ledger, maker, model=b"sold")
    his, thief = steal(one)
    assert one.standing(0).number == his
    assert one.standing(7).number == one.tenure
    onward = Offer(one.lot.batch, his, new_key().public, int(time.time()) + 3_600, SOME)
    assert one.refused(onward, thief) == "transfer-not-final"
    recovery, fresh = one.recover()
    assert one.refused(recovery, new_key()) in {"wrong-key", "wrong-signer"}
    market.do(recovery, one.recovery)
    for index in (0, 7):
        standing = one.standing(index)
        assert (standing.number, standing.state) == (one.tenure, TenureState.FROZEN)
    for body, signer, code in (
        (onward, thief, "tenure-undone"),
        (Deploy(one.lot.batch, his, PLAN, None), thief, "tenure-undone"),
        (Deploy(one.lot.batch, one.tenure, PLAN, None), one.key, "wrong-key"),
        (Unfreeze(one.lot.batch, one.tenure, None), one.key, "wrong-key"),
        (Unfreeze(one.lot.batch, one.tenure, None), thief, "wrong-key"),
    ):
        assert one.refused(body, signer) == code
    market.do(Unfreeze(one.lot.batch, one.tenure, None), fresh)
    market.do(Deploy(one.lot.batch, one.tenure, PLAN, None), fresh)
    standing = one.standing(0)
    assert (standing.number, standing.state, standing.plan) == (one.tenure, TenureState.ACTIVE, PLAN)


def test_what_a_thief_freezes_is_the_owners_to_thaw(market: Market, ledger: LedgerClient, maker: Stranger) -> None:
    """A thief freezes all devices, or offers them, so that nothing can be done with them; the owner recovers."""
    one = Owned.buy(market, ledger, maker, model=b"frozen")
    market.do(Freeze(one.lot.batch, one.tenure, SOME), one.key)
    frozen = one.tenures()
    market.do(
        Offer(one.lot.batch, one.tenure, new_key().public, int(time.time()) + 3_600, Selection.of([(4, 4)])), one.key
    )
    offered = one.tenures()
    recovery, fresh = one.recover()
    market.do(recovery, one.recovery)
    assert one.refused(Unfreeze(one.lot.batch, frozen, SOME), one.key) == "wrong-key"
    market.do(Unfreeze(one.lot.batch, one.tenure, None), fresh)
    market.do(Unfreeze(one.lot.batch, frozen, SOME), fresh)
    market.do(Deploy(one.lot.batch, one.tenure, PLAN, Selection.of([(4, 4)])), fresh)
    assert offered
    assert [one.standing(index).state for index in (0, 7)] == [TenureState.ACTIVE] * 2
    assert one.standing(7).plan == PLAN


@contextmanager
def held(pid: int) -> Iterator[None]:
    """Stop a process while the context lasts, so that what comes meanwhile comes to it together."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def together(pid: int, *calls: Callable[[], Said]) -> list[Said]:
    """Make calls to a process that it meets all at once, in this order."""
    with ThreadPoolExecutor(len(calls)) as pool:
        with held(pid):
            futures = []
            for call in calls:
                started = threading.Event()
                futures.append(pool.submit(lambda call=call, started=started: (started.set(), call())[1]))  # type: ignore[misc]
                started.wait()
                time.sleep(0.05)
        return [future.result() for future in futures]


def test_a_thief_races_a_recovery_in_the_same_block(
    lab: Lab, market: Market, ledger: LedgerClient, maker: Stranger
) -> None:
    """A thief's accept, or his plan, comes before, after, or in the same block as the owner's recovery."""
    pid = read_endpoint(lab.places.node).pid
    shared = 0
    for number in range(12):
        thief_first = number % 2 == 0
        if number >= 4 and shared:
            break
        one = Owned.buy(market, ledger, maker, model=f"race-{number}".encode())
        thief = new_key()
        market.do(Offer(one.lot.batch, one.tenure, thief.public, int(time.time()) + 3_600, SOME), one.key)
        his = one.tenures()
        accept = market.make(Accept(one.lot.batch, his, sha256(b"his own").digest(), 0), thief)
        plan = market.make(Deploy(one.lot.batch, one.tenure, PLAN, None), one.key)
        recover, fresh = one.recover()
        recovery = market.make(recover, one.recovery)
        calls = [lambda data=data: market.post(data) for data in (accept, plan, recovery)]
        said = together(pid, *(calls if thief_first else calls[::-1]))
        accepted, planned, recovered = said if thief_first else said[::-1]
        assert recovered.status == 200, recovered.fields()
        done = [said.body for said in (accepted, planned, recovered) if said.status == 200]
        heights = {TransactionAnswer.decode(body).height for body in done}
        shared += len(heights) == 1
        assert accepted.code in {"", "offer-ended", "tenure-withdrawn", "seller-not-active", "tenure-frozen"}
        assert planned.code in {"", "wrong-key", "tenure-frozen"}
        for index in (0, 7):
            assert (one.standing(index).number, one.standing(index).state) == (one.tenure, TenureState.FROZEN)
        market.do(Unfreeze(one.lot.batch, one.tenure, None), fresh)
        assert one.standing(0).state is TenureState.ACTIVE
        market.sequences[thief.public] = int(accepted.status == 200)
        onward = Offer(one.lot.batch, his, fresh.public, int(time.time()) + 60, SOME)
        assert one.refused(onward, thief) == ("not-accepted" if accepted.code else "tenure-undone")
    assert shared


def test_after_the_delay_a_sale_stands(market: Market, ledger: LedgerClient, maker: Stranger) -> None:
    """Without a transfer delay, what was sold before the recovery stays sold: so the owner has agreed."""
    one = Owned.buy(market, ledger, maker, delay=0, model=b"late")
    his, _ = steal(one)
    recovery, _ = one.recover()
    market.do(recovery, one.recovery)
    assert one.standing(0).number == his
    assert (one.standing(7).number, one.standing(7).state) == (one.tenure, TenureState.FROZEN)


def test_a_stolen_device_is_its_owners_again(lab: Lab) -> None:
    """A thief copies an owner's key and sells his device to himself; the owner recovers, and the device connects."""
    device, places, victim = lab.device(), lab.places, lab.places.root / "robbed"
    joined = ("--genesis", places.genesis, "--node", lab.addresses.node, "--gateway", lab.addresses.gateway)
    run("owner", "init", victim, *joined)
    papers = places.papers / "stolen"
    papers.mkdir(mode=0o700)
    run("owner", "request", victim, "--out", papers / "purchase")
    words = ("--tenure", lab.holding.tenure, "--select", int(device.name), "--to", papers / "purchase")
    run("owner", "sell", places.owner, *words, "--out", papers / "sale")
    bought = run("owner", "accept", victim, papers / "sale", "--transfer-delay", "1h").number("tenure")
    at = next(path for path in (victim / "holdings").iterdir() if path.name.endswith(f"-{bought}"))
    stolen = SigningKey.load(at / "owner.pem")
    market, thief = Market(lab.addresses.node, places.consortium), new_key()
    market.sequences[stolen.public] = 1
    only = Selection.of([int(device.name)])
    batch = bytes.fromhex(lab.batch)
    said = market.do(Offer(batch, bought, thief.public, int(time.time()) + 3_600, only), stolen)
    his = TransactionAnswer.decode(said.body).tenure
    market.do(Accept(batch, his, sha256(b"his own").digest(), 0), thief)
    market.do(Deploy(batch, his, PLAN, None), thief)
    outcome = lab.switch_on(device, until=lambda one: "no-plan" in one.codes)
    assert "granted" not in outcome.codes
    held_ = ("--batch", lab.batch, "--tenure", bought)
    run("owner", "recover", victim, *held_)
    run("owner", "unfreeze", victim, *held_, "--held")
    assert market.post(market.make(Deploy(batch, bought, PLAN, None), stolen)).code == "wrong-key"
    chosen = []
    for kind, role in (("network", "mno"), ("service", "sp")):
        party = lab.parties[role]
        number = run("owner", "order", victim, *held_, "--party", party, "--devices", 1).text("order")
        run(role, "approve", lab.state(role), number)
        chosen += [f"--{kind}", f"{party}:{number}"]
    run("owner", "deploy", victim, *held_, *chosen)
    outcome = lab.switch_on(device, until=lambda one: "granted" in one.codes)
    assert "granted" in outcome.codes


# --- floods -------------------------------------------------------------------------------------


def test_one_owner_floods_the_ledger(lab: Lab, market: Market, ledger: LedgerClient, maker: Stranger) -> None:
    """An owner sends plans, splits and nonsense as fast as he can; others' transactions go through meanwhile.

    His batch's budget is used up, and nobody else's; the head moves on, and a member may add to his budget.
    """
    flooder = Owned.buy(market, ledger, maker, model=b"flood")
    other = Owned.buy(market, ledger, maker, model=b"quiet")
    before, budget = market.height(), _budget(other)
    stop, codes, sent = threading.Event(), set[str](), 0
    flooding = Market(lab.addresses.node, lab.places.consortium)
    flooding.sequences[flooder.key.public] = 1

    def pour() -> None:
        nonlocal sent
        while not stop.is_set():
            sent += 1
            plan = sha256(str(sent).encode()).digest()
            said = flooding.post(flooding.make(Deploy(flooder.lot.batch, flooder.tenure, plan, None), flooder.key))
            if said.status == 200:
                flooding.sequences[flooder.key.public] += 1
            else:
                codes.add(said.code)

    def nonsense() -> None:
        """What costs him nothing: wrong sequences and other people's tenures."""
        far = flooding.make(Deploy(flooder.lot.batch, flooder.tenure, PLAN, None), flooder.key, sequence=2**31)
        foreign = flooding.make(Deploy(other.lot.batch, other.tenure, PLAN, None), flooder.key)
        while not stop.is_set():
            codes.update(flooding.post(data).code for data in (far, foreign))

    threads = [threading.Thread(target=work, daemon=True) for work in (pour, nonsense, nonsense)]
    for one in threads:
        one.start()
    try:
        took, rounds = [], 0
        while "budget-exhausted" not in codes or rounds < 5:
            began = time.monotonic()
            plan = sha256(f"quiet {rounds}".encode()).digest()
            market.do(Deploy(other.lot.batch, other.tenure, plan, None), other.key)
            took.append(time.monotonic() - began)
            rounds += 1
            assert other.standing(0).plan == plan
            assert sum(took) < PATIENCE
    finally:
        stop.set()
        for one in threads:
            one.join()
    assert {"budget-exhausted", "wrong-key"} <= codes, codes
    assert codes <= {"budget-exhausted", "wrong-key", "wrong-sequence"}, codes
    assert market.height() > before + rounds
    assert _budget(flooder) < 8 <= _budget(other)
    assert budget - _budget(other) == 8 * rounds
    assert flooder.refused(Retire(flooder.lot.batch, flooder.tenure, SOME), flooder.key)
    member = market.member()
    assert market.post(market.make(AddBudget(flooder.lot.batch, 100), member, sequence=1)).status == 200
    assert _budget(flooder) >= 100


def _budget(one: Owned) -> int:
    record = one.ledger.view(batch_name(one.lot.batch)).records[batch_name(one.lot.batch)]
    assert isinstance(record, Batch)
    return record.budget
