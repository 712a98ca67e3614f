"""What holds in the world once a device has been connected, wherever the power was cut: nothing is lost or doubled.

One function, :func:`faults`, over the stores of all; :class:`Before` is what it compares with.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.power.world import Bench

from firstlight.identity.birth import BirthCredential
from firstlight.onboarding.party import GRANTED
from firstlight.plan.claims import PartyKind
from firstlight.roles.device.memory import Counters, Sight, StoredGrant
from firstlight.roles.party.mno import slot_of
from firstlight.sealing.locator import receipt_locator
from firstlight.sealing.receipt import Step
from firstlight.sim.subscription import SubscriptionStatus
from firstlight.stores.certificates import CertificateState
from firstlight.stores.exchanges import GrantState

DATABASES = {"node": "ledger.sqlite", "gateway": "gateway.sqlite", "mno": "mno.sqlite", "sp": "sp.sqlite"}
KINDS = {"mno": PartyKind.NETWORK, "sp": PartyKind.SERVICE}
STEPS = {"mno": Step.NETWORK_ATTACHED, "sp": Step.SERVICE_CONNECTED}
MISTAKES = frozenset({"internal", "client-failed", "internal-error", "worker-failed"})


def rows(database: Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    """Return what a query finds, reading only."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=20)) as connection:
        return connection.execute(query, values).fetchall()


def one(database: Path, query: str, *values: object) -> Any:
    """Return the one value that a query finds."""
    ((value,),) = rows(database, query, *values)
    return value


@dataclass(frozen=True, slots=True)
class Before:
    """What there was before a device was switched on: the ledger, receipts refused, envelopes, mistakes in logs."""

    blocks: int
    transactions: int
    envelopes: int
    rejected: int
    mistakes: int

    @classmethod
    def of(cls, bench: Bench) -> Before:
        """Look."""
        ledger = bench.places.node / DATABASES["node"]
        return cls(
            blocks=one(ledger, "SELECT max(height) FROM blocks"),
            transactions=one(ledger, "SELECT count(*) FROM transactions"),
            envelopes=one(bench.places.gateway / DATABASES["gateway"], "SELECT count(*) FROM envelope"),
            rejected=one(bench.places.owner / "owner.sqlite", "SELECT coalesce(sum(count), 0) FROM rejected"),
            mistakes=_mistakes(bench),
        )


@dataclass(frozen=True, slots=True)
class Held:
    """What a device has in its directory."""

    birth: BirthCredential
    sight: Sight
    counters: Counters
    grants: tuple[StoredGrant, ...]

    @classmethod
    def of(cls, device: Path) -> Held:
        """Read it; the device does not run."""
        return cls(
            BirthCredential.decode((device / "birth.cbor").read_bytes()),
            Sight.decode((device / "view.cbor").read_bytes()),
            Counters.decode((device / "counters.cbor").read_bytes()),
            tuple(StoredGrant.decode(path.read_bytes()) for path in sorted((device / "grants").glob("*.cbor"))),
        )


def faults(bench: Bench, device: Path, before: Before, *, cuts: int, renewed: bool = False) -> list[str]:
    """Return what is lost, doubled or left over now that ``device`` has been connected and has gone.

    1. The device's directory holds one grant of each party with what makes it usable, and nothing besides.
    2. Each party has one live grant for it, confirmed, the one that the device holds, and one live credential for that,
       which fits the device's; all others have ended. (One that has run out since has ended, too.)
    3. Each order has given the device one slot, and counts as many as it has given.
    4. Each granted exchange has brought one grant; without a cut there is one, unless the device ``renewed`` it.
    5. Nobody is taken for a clone, and no session is open.
    6. The owner has read as many receipts as the device left, all good, for each step one with the live grant; more
       only after a cut, each under a counter of its own.
    7. The service has read what the device published with its live grant.
    8. The ledger is as it was, no envelope is there twice, and the device has seen the newest head.
    9. No server made a mistake.
    """
    held = Held.of(device)
    return [
        *_directory(device, held),
        *_parties(bench, held, None if renewed else cuts),
        *_receipts(bench, held, before, cuts),
        *ledger_faults(bench, before),
        *_view(bench, held),
        *(["a server made a mistake"] if _mistakes(bench) != before.mistakes else []),
    ]


def at_rest(bench: Bench, device: Path) -> bool:
    """Say whether a device that may be running holds one grant of each party, and its owner has read of both."""
    try:
        held = Held.of(device)
        left = [*_directory(device, held)]
    except FileNotFoundError:  # it was just replaced
        return False
    return not left and all(_told(bench, held, role) for role in KINDS)


def _told(bench: Bench, held: Held, role: str) -> int:
    """Return how many receipts the owner has read of the step with the live grant from a party."""
    query = "SELECT count(*) FROM receipt WHERE step = ? AND grant_id = ?"
    (grant,) = (grant.grant.id for grant in held.grants if grant.kind is KINDS[role])
    return int(one(bench.places.owner / "owner.sqlite", query, STEPS[role], grant))


def _lapsed(held: Held, kind: PartyKind) -> bool:
    """Say whether what the device holds has run out meanwhile, so that the party has ended it."""
    return all(grant.grant.expires <= time.time() for grant in held.grants if grant.kind is kind)


def _directory(device: Path, held: Held) -> Iterator[str]:
    kinds = Counter(grant.kind for grant in held.grants)
    if kinds != {PartyKind.NETWORK: 1, PartyKind.SERVICE: 1}:
        yield f"the device holds {kinds}"
    expected = {"birth.cbor", "identity.pem", "attestation.pem", "view.cbor", "counters.cbor", "lock", "log.jsonl"}
    for grant in held.grants:
        name = grant.grant.id.hex()
        expected |= {f"grants/{name}.cbor"}
        expected |= {f"grants/{name}.pem", f"operational/{grant.key}.pem"} if grant.key else set()
    found = {str(path.relative_to(device)) for path in device.rglob("*") if path.is_file()}
    if found != expected:
        yield f"files missing: {sorted(expected - found)}; left over: {sorted(found - expected)}"


def _parties(bench: Bench, held: Held, cuts: int | None) -> Iterator[str]:
    for role, kind in KINDS.items():
        database = bench.state(role) / DATABASES[role]
        index, number = held.birth.index, bytes.fromhex(bench.chosen[role].partition(":")[2])
        grants = rows(database, "SELECT id, state FROM issued WHERE idx = ? ORDER BY sequence", index)
        live = [grant for grant, state in grants if state != GrantState.ENDED]
        mine = [grant.grant.id for grant in held.grants if grant.kind is kind]
        lapsed = _lapsed(held, kind) and not live and [grant for grant, _ in grants[-1:]] == mine
        if not lapsed and (live != mine or (live[0], GrantState.CONFIRMED) not in grants):
            yield f"{role}: live grants {grants}, the device holds {mine}"
        if cuts is not None and not 1 <= len(grants) <= 1 + cuts:
            yield f"{role}: {len(grants)} grants"
        granted = one(database, "SELECT count(*) FROM exchange WHERE idx = ? AND code = ?", index, GRANTED)
        if granted != len(grants):
            yield f"{role}: {granted} granted exchanges, {len(grants)} grants"
        taken = one(database, "SELECT count(*) FROM slot WHERE number = ? AND idx = ?", number, index)
        slots = one(database, "SELECT count(*) FROM slot WHERE number = ?", number)
        used = one(database, "SELECT used FROM placed WHERE number = ?", number)
        if (taken, used) != (1, slots):
            yield f"{role}: {taken} slots of the device; {slots} in all, {used} counted"
        if one(database, "SELECT count(*) FROM alarm WHERE idx = ?", index):
            yield f"{role}: a clone alarm"
    yield from _subscriptions(bench, held)
    yield from _certificates(bench, held)


def _slot(held: Held) -> bytes:
    acted = held.sight.acted
    assert acted is not None
    return slot_of(held.birth.batch, held.birth.index, acted.origin)


def _subscriptions(bench: Bench, held: Held) -> Iterator[str]:
    database = bench.places.mno / DATABASES["mno"]
    found = rows(database, "SELECT imsi, k, opc, sqn, status, grant_id FROM subscription WHERE slot = ?", _slot(held))
    for stored in (grant for grant in held.grants if grant.sim is not None):
        assert stored.sim is not None
        own = stored.sim.credentials
        live = [row for row in found if row[4] != SubscriptionStatus.DEAD]
        fits = [(own.imsi, own.k, own.opc, SubscriptionStatus.ACTIVE, stored.grant.id)]
        lapsed = _lapsed(held, PartyKind.NETWORK) and not live
        if not lapsed and [(*row[:3], *row[4:]) for row in live] != fits:
            yield f"mno: {len(live)} live subscriptions, or another than the device's"
        opened = one(
            database,
            "SELECT count(*) FROM session JOIN subscription USING (imsi) WHERE slot = ? AND closed_at IS NULL",
            _slot(held),
        )
        if opened:
            yield f"mno: {opened} sessions still open"


def _certificates(bench: Bench, held: Held) -> Iterator[str]:
    database = bench.places.sp / DATABASES["sp"]
    found = rows(database, "SELECT grant_id, state FROM certificate WHERE slot = ?", _slot(held))
    live = [row for row in found if row[1] != CertificateState.REVOKED]
    for stored in (grant for grant in held.grants if grant.kind is PartyKind.SERVICE):
        lapsed = _lapsed(held, PartyKind.SERVICE) and not live
        if not lapsed and live != [(stored.grant.id, CertificateState.ACTIVE)]:
            yield f"sp: live certificates {live}"
        if not one(database, "SELECT count(*) FROM message WHERE grant_id = ?", stored.grant.id):
            yield "sp: no message has been read"


def _receipts(bench: Bench, held: Held, before: Before, cuts: int) -> Iterator[str]:
    owner, gateway = bench.places.owner / "owner.sqlite", bench.places.gateway / DATABASES["gateway"]
    query = "SELECT step, grant_id, counter FROM receipt JOIN device ON device.id = receipt.device WHERE idx = ?"
    read: Sequence[tuple[int, bytes, int]] = rows(owner, query, held.birth.index)
    locators = [receipt_locator(held.birth.mailbox, name) for name in held.birth.gateways]
    marks = ",".join("?" * len(locators))
    left = one(gateway, f"SELECT count(*) FROM receipt WHERE locator IN ({marks})", *locators)
    if left != len(read):
        yield f"{left} receipts left, {len(read)} read"
    for role in KINDS:
        told = _told(bench, held, role)
        if not 1 <= told <= 1 + cuts:
            yield f"{told} receipts of {STEPS[role]!r} with the live grant"
    if max((counter for *_, counter in read), default=0) > held.counters.receipts:
        yield "a receipt has a counter that the device does not remember"
    if one(owner, "SELECT coalesce(sum(count), 0) FROM rejected") != before.rejected:
        yield f"receipts refused: {rows(owner, 'SELECT * FROM rejected')}"
    if one(gateway, "SELECT count FROM total WHERE kind = 'receipt'") != one(gateway, "SELECT count(*) FROM receipt"):
        yield "the gateway miscounts its receipts"


def ledger_faults(bench: Bench, before: Before, *, deployments: int = 0) -> list[str]:
    """Return what is wrong with the ledger, which has grown by so many deployments, and with their envelopes.

    A deployment is one transaction, in one block with its successor, and one envelope for each device.
    """
    ledger, gateway = bench.places.node / DATABASES["node"], bench.places.gateway / DATABASES["gateway"]
    found = []
    transactions, blocks = (
        one(ledger, "SELECT count(*) FROM transactions"),
        one(ledger, "SELECT max(height) FROM blocks"),
    )
    if (transactions, blocks) != (before.transactions + deployments, before.blocks + 2 * deployments):
        found.append(f"the ledger has {transactions} transactions and {blocks} blocks; before: {before}")
    if one(ledger, "SELECT coalesce(sum(count), 0) FROM counts") != transactions:
        found.append("the ledger miscounts its transactions")
    if one(ledger, "SELECT count(*) FROM blocks") != blocks:
        found.append("blocks are missing")
    envelopes = one(gateway, "SELECT count(*) FROM envelope")
    if envelopes != before.envelopes + deployments or one(gateway, "SELECT sum(count) FROM held") != envelopes:
        found.append(f"{envelopes} envelopes; before: {before}")
    return found


def _view(bench: Bench, held: Held) -> Iterator[str]:
    height = one(bench.places.node / DATABASES["node"], "SELECT max(height) FROM blocks")
    if held.sight.acted is None or held.sight.trust.height != height:
        yield f"the device acts on {held.sight.acted} at height {held.sight.trust.height} of {height}"


def _mistakes(bench: Bench) -> int:
    logs = [bench.state(role) / "log.jsonl" for role in DATABASES]
    words = [f'"code": "{code}"' for code in MISTAKES] + [f'"code":"{code}"' for code in MISTAKES]
    return sum(text.count(word) for text in (log.read_text() for log in logs) for word in words)
