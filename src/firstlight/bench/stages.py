"""The stages of the ledger's benchmark, each meant for a fresh process of its own.

Run as ``python -m firstlight.bench.stages STAGE DIRECTORY SCALE SPAWNED``; the last line of the output is the stage's
result as JSON. SCALE is a JSON object with the fields of :class:`Scale`, SPAWNED the monotonic time (s) at which the
process was started.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from firstlight import p256
from firstlight.bench.machine import median_ms, milliseconds, peak_mib, timed
from firstlight.bench.scene import CHAIN, MODEL, SECOND, Scale, Scene, Sold, digest, scattered
from firstlight.chain.witness import WitnessStatement, nonce_proofs
from firstlight.custody.file import SigningKey
from firstlight.discovery.bundle import Bundle, BundleRequest, Freshness
from firstlight.discovery.verify import Trust, View, verify_bundle
from firstlight.engines.embedded import EmbeddedEngine
from firstlight.engines.port import Committed
from firstlight.errors import FirstlightError, StoreError
from firstlight.ledger.records import (
    Party,
    Role,
    Tenure,
    TenureState,
    party_id,
    party_name,
    root_name,
    tenure_name,
)
from firstlight.ledger.transaction import (
    Accept,
    AnchorBatch,
    Body,
    Deploy,
    Offer,
    PublishReference,
    RegisterParty,
    Withdraw,
    build,
)
from firstlight.trees import rfc6962
from firstlight.trees.ownership import Selection
from firstlight.trees.ownership.selection import Run

DAY = 86_400
BATCH_SECRET = digest("batch secret")
MAKER = "manufacturer"
NETWORKS = tuple(f"network-{number}" for number in range(5))
SERVICES = tuple(f"service-{number}" for number in range(25))
_ROLES = {MAKER: Role.MANUFACTURER} | dict.fromkeys(NETWORKS, Role.MNO) | dict.fromkeys(SERVICES, Role.SP)
_PENDING = 500
_GATHERED = 64
"""How many devices' nonces the witnesses sign at once, at a busy gateway."""
_CANDIDATES = 64
_PLAIN_RECORDS = 4
"""Records that are there besides parties, tenures and reference values: governance, root, epoch, batch."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one stage measured: figures with a goal, and what stands beside them."""

    figures: Mapping[str, float]
    beside: Mapping[str, object]


# --- prepare ---------------------------------------------------------------------------------------


def prepare(scene: Scene, scale: Scale, _: float) -> Part:
    """Make the factory's file and a ledger whose state holds, in the end, ``scale.records`` records. Not measured."""
    scene.make_devices(scale.devices)
    with scene.open() as engine:
        for name, role in _ROLES.items():
            _submit(engine, _register(scene, name, role), 1, scene.key(name), scene.key("member"))
        tenures = 1 + scale.sales + scale.scattered_sales
        _fill(engine, scene.key(MAKER), scale.records - _PLAIN_RECORDS - len(_ROLES) - tenures)
    return Part({}, {})


def _register(scene: Scene, name: str, role: Role) -> RegisterParty:
    agreement = None if role is Role.MANUFACTURER else scene.key(f"{name}-agreement").public
    endpoints = (f"https://{name}.example.net:8443", f"coap://{name}.example.net:5683")
    return RegisterParty(scene.key(name).public, digest(f"next {name}"), (role,), agreement, endpoints)


def _fill(engine: EmbeddedEngine, maker: SigningKey, count: int) -> None:
    """Publish reference values until there are ``count`` more records."""
    now = engine.head().header.time // SECOND
    party = party_id(maker.public)
    for start in range(0, count, _PENDING):
        waiting = []
        for number in range(start, min(start + _PENDING, count)):
            name = digest(f"reference {number}")
            body = PublishReference(party, MODEL, name[:16], name, number, now, now + 365 * DAY)
            waiting.append(engine.submit_soon(build(body, chain=CHAIN, sequence=number + 2, signer=maker)))
        for future in waiting:
            future.result()


# --- anchor ----------------------------------------------------------------------------------------


def anchor(scene: Scene, scale: Scale, _: float) -> Part:
    """Anchor the batch: from the devices' public keys in the factory's file to the durable record."""
    maker, owner = scene.key(MAKER), scene.key("maker-tenure")
    with scene.open() as engine:
        before = peak_mib()
        party = party_id(maker.public)
        sequence = _party(engine, party).sequence + 1
        began = time.perf_counter()
        tree = rfc6962.Tree.from_leaves(scene.leaf_inputs(BATCH_SECRET))
        built = time.perf_counter()
        body = AnchorBatch(party, tree.size, MODEL, tree.root, (), (party,), owner.public, _recovery("maker-tenure"), 0)
        done = engine.submit(build(body, chain=CHAIN, sequence=sequence, signer=maker))
        ended = time.perf_counter()
        scene.write(Sold(done.subject, done.tenure))
    figures = {"anchor_1m_seconds": round(ended - began, 3), "anchor_peak_mib": round(peak_mib(), 1)}
    beside = {
        "anchor_tree_seconds": round(built - began, 3),
        "anchor_commit_ms": round((ended - built) * 1000, 3),
        "anchor_idle_mib": round(before, 1),
    }
    return Part(figures, beside if tree.size == scale.devices else {})


def _party(engine: EmbeddedEngine, party: bytes) -> Party:
    record = engine.head().state.read(party_name(party), Party)
    if record is None:
        raise StoreError("bench-party-missing", party.hex())
    return record


# --- trade -----------------------------------------------------------------------------------------


def trade(scene: Scene, scale: Scale, _: float) -> Part:
    """Sell the whole batch, and of that one device in ten picked at random; end as in a crash."""
    engine = scene.open()
    batch = scene.read().batch
    whole: list[Run] = [(0, scale.devices)]
    maker = _Owner(batch, 1, scene.key("maker-tenure"))
    sale = _sell(engine, maker, [whole] * scale.sales)
    picked = [scattered(scale.devices, scale.scattered, round_) for round_ in range(scale.scattered_sales)]
    resale = _sell(engine, sale.buyer, picked)
    buyer = resale.buyer
    deployment = Deploy(batch, buyer.tenure, digest("plan"), None)
    _submit(engine, deployment, _sequence(engine, buyer), buyer.key)
    scene.write(Sold(batch, buyer.tenure))
    figures = {
        "sell_1m_contiguous_ms": median_ms(sale.offers),
        "sell_100k_random_ms": median_ms(resale.offers),
        "accept_ms": max(milliseconds([sale.accept, resale.accept])),
    }
    beside = {
        "sell_1m_contiguous_runs_ms": milliseconds(sale.offers),
        "sell_100k_random_runs_ms": milliseconds(resale.offers),
        "sell_100k_random_bytes": resale.size,
        "sell_100k_random_work": resale.work,
        "accept_1m_contiguous_ms": milliseconds([sale.accept])[0],
        "accept_100k_random_ms": milliseconds([resale.accept])[0],
        "trade_peak_mib": round(peak_mib(), 1),
    }
    return Part(figures, beside)


@dataclass(frozen=True, slots=True)
class _Owner:
    """Who holds a tenure."""

    batch: bytes
    tenure: int
    key: SigningKey


@dataclass(frozen=True, slots=True)
class _Sale:
    """What a sale took: seconds of each offer and of the accept, bytes and work of the last offer."""

    buyer: _Owner
    offers: Sequence[float]
    accept: float
    size: int
    work: int


def _sell(engine: EmbeddedEngine, seller: _Owner, rounds: Sequence[Iterable[int | Run]]) -> _Sale:
    """Offer one selection after the other, withdraw all but the last, and let that be accepted.

    What is timed is the engine alone: from the transaction's bytes to the durable, proven result.
    """
    offers: list[float] = []
    last: Committed | None = None
    buyer, size = SigningKey.generate()[0], 0
    for items in rounds:
        if last is not None:
            _submit(engine, Withdraw(seller.batch, last.tenure), _sequence(engine, seller), seller.key)
        buyer = SigningKey.generate()[0]
        body = Offer(seller.batch, seller.tenure, buyer.public, _now(engine) + DAY, Selection.of(items))
        data = build(body, chain=CHAIN, sequence=_sequence(engine, seller), signer=seller.key)
        began = time.perf_counter()
        last = engine.submit(data)
        offers.append(time.perf_counter() - began)
        size = len(data)
    if last is None:
        raise StoreError("bench-no-sale", "nothing was offered")
    taking = Accept(seller.batch, last.tenure, _recovery("buyer"), 0)
    data = build(taking, chain=CHAIN, sequence=1, signer=buyer)
    accept = timed(lambda: engine.submit(data))
    return _Sale(_Owner(seller.batch, last.tenure, buyer), offers, accept, size, last.work)


def _sequence(engine: EmbeddedEngine, owner: _Owner) -> int:
    record = engine.head().state.read(tenure_name(owner.batch, owner.tenure), Tenure)
    if record is None or record.state is not TenureState.ACTIVE:
        raise StoreError("bench-tenure-missing", f"tenure {owner.tenure}")
    return record.sequence + 1


def _submit(engine: EmbeddedEngine, body: Body, sequence: int, signer: SigningKey, *also: SigningKey) -> Committed:
    return engine.submit(build(body, chain=CHAIN, sequence=sequence, signer=signer, cosigners=also))


def _now(engine: EmbeddedEngine) -> int:
    return engine.head().header.time // SECOND


def _recovery(name: str) -> bytes:
    return digest(f"recovery {name}")


# --- restart and bundle ----------------------------------------------------------------------------


def restart(scene: Scene, scale: Scale, spawned: float) -> Part:
    """Open the file that a process left behind in the midst of its work, and answer a proof that verifies."""
    began = time.monotonic()
    engine = scene.open()
    opened = time.monotonic()
    sold = scene.read()
    asked = _request(engine, sold, next(_covering(engine, sold)), (NETWORKS[0], *SERVICES[:2]), scene)
    view = verify_bundle(_answer(engine, scene, asked), asked, trust=_born(engine), batch_size=scale.devices)
    ended = time.monotonic()
    _check_sold(view, sold)
    engine.close()
    figures = {"restart_seconds": round(ended - spawned, 3)}
    beside = {
        "restart_interpreter_seconds": round(began - spawned, 3),
        "restart_open_seconds": round(opened - began, 3),
        "restart_peak_mib": round(peak_mib(), 1),
    }
    return Part(figures, beside)


def bundle(scene: Scene, scale: Scale, _: float) -> Part:
    """Weigh and verify the bundles that devices get on their first day: as many devices, each with its own parties."""
    sold = scene.read()
    with scene.open() as engine:
        prefixes = _longest(_covering(engine, sold))
        requests = [
            _request(engine, sold, prefixes[at % len(prefixes)], _parties(at), scene) for at in range(scale.bundles)
        ]
        answers = [_answer(engine, scene, request) for request in requests]
        gathered = len(_answer(engine, scene, requests[0], gathered=_GATHERED).encode()) - len(answers[0].encode())
        trust = _born(engine)
        records = engine.counts().records
    asked = [(request, answer.encode()) for request, answer in zip(requests, answers, strict=True)]
    cold, warm = [], []
    for request, data in asked * scale.verifications:
        p256.load.cache_clear()
        verify = partial(_verify, request, data, trust, scale.devices)
        cold.append(timed(verify))
        warm.append(timed(verify))
        _check_sold(verify(), sold)
    sizes = [len(data) for _, data in asked]
    figures = {"proof_bundle_bytes": float(round(statistics.median(sizes))), "device_verify_ms": median_ms(cold)}
    beside = {
        "proof_bundle_smallest_bytes": min(sizes),
        "proof_bundle_largest_bytes": max(sizes),
        "proof_bundle_more_with_64_nonces_bytes": gathered,
        "proof_bundle_path": prefixes[0][1],
        "proof_bundle_records": records,
        "device_verify_keys_known_ms": median_ms(warm),
        "device_verify_slowest_ms": max(milliseconds(cold)),
    }
    return Part(figures, beside)


def _verify(request: BundleRequest, data: bytes, trust: Trust, size: int) -> View:
    return verify_bundle(Bundle.decode(data), request, trust=trust, batch_size=size)


def _parties(number: int) -> tuple[str, ...]:
    """Return one network and two services, others for every device."""
    first, second = scattered(len(SERVICES), 2, number)
    return NETWORKS[number % len(NETWORKS)], SERVICES[first], SERVICES[second]


def _covering(engine: EmbeddedEngine, sold: Sold) -> Iterator[tuple[int, int]]:
    """Iterate over the prefixes (bits, length) of the regions in which devices that were sold lie."""
    trie = engine.head().state.trie(sold.batch)
    if trie is None:
        raise StoreError("bench-batch-missing", sold.batch.hex())
    index = 0
    while index < trie.size:
        bits, length = trie.covering_prefix(index)
        if trie.owner(index) == sold.tenure:
            yield bits, length
        index = (bits + 1) << (trie.depth - length)


def _longest(prefixes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the longest among the first prefixes: of devices with neighbours that belong to another."""
    some = sorted(islice(prefixes, _CANDIDATES), key=lambda prefix: -prefix[1])
    return [prefix for prefix in some if prefix[1] == some[0][1]]


def _request(
    engine: EmbeddedEngine, sold: Sold, prefix: tuple[int, int], parties: Sequence[str], scene: Scene
) -> BundleRequest:
    names = tuple(party_name(party_id(scene.key(name).public)) for name in parties)
    return _born(engine).request(digest(f"nonce {prefix}"), batch=sold.batch, prefix=prefix, names=names)


def _answer(engine: EmbeddedEngine, scene: Scene, request: BundleRequest, *, gathered: int = 1) -> Bundle:
    """Return what a gateway answers that has ``gathered`` nonces signed at once."""
    view = engine.head()
    nonce_root, proofs = nonce_proofs([request.nonce, *(digest(f"nonce {number}") for number in range(1, gathered))])
    now = view.header.time // SECOND + 1
    statement = WitnessStatement(CHAIN, view.header.height, view.header.hash(), now, nonce_root)
    head = view.head_proof(request.known_root, request.known_epoch)
    return Bundle(head, Freshness(proofs[0], scene.attest(statement)), engine.prove_state(request))


def _born(engine: EmbeddedEngine) -> Trust:
    """Return what a device trusts on its first day."""
    statement = engine.head().state.statement(root_name(1))
    if statement is None:
        raise StoreError("bench-root-missing", "no root statement")
    return Trust.at_birth(CHAIN, statement)


def _check_sold(view: View, sold: Sold) -> None:
    """Make sure that what was verified is what was sold: a fast wrong answer is no figure."""
    if view.standing is None or view.standing.number != sold.tenure or not view.standing.deployed:
        raise StoreError("bench-not-sold", "the bundle does not prove the sale")
    if any(record is None for record in view.records.values()):
        raise StoreError("bench-not-sold", "a party that was asked for is missing")


STAGES: Mapping[str, Callable[[Scene, Scale, float], Part]] = {
    stage.__name__: stage for stage in (prepare, anchor, trade, restart, bundle)
}
"""The stages in their order."""


def main(arguments: Sequence[str]) -> int:
    """Run one stage in this process."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    name, directory, scale, spawned = arguments
    try:
        part = STAGES[name](Scene(Path(directory)), Scale(**json.loads(scale)), float(spawned))
    except FirstlightError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps({"figures": part.figures, "beside": part.beside}) + "\n")
    sys.stdout.flush()
    if name == trade.__name__:
        # Nobody closes the file: what restarts next finds what a crash leaves behind.
        os._exit(0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
