"""The stages of the ledger's benchmark, each meant for a fresh process of its own.

Run as ``python -m firstlight.bench.stages STAGE DIRECTORY SCALE SPAWNED``; the last line of the output is the stage's
result as JSON. SCALE is a JSON object with the fields of :class:`Scale`, SPAWNED the monotonic time (s) at which the
process was started.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
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
ASKED = ("network", "service-1", "service-2")
"""The parties whose records go into a bundle."""
_ROLES = {MAKER: Role.MANUFACTURER, "network": Role.MNO, "service-1": Role.SP, "service-2": Role.SP}
_PENDING = 500
_GATHERED = 64
"""How many devices' nonces the witnesses sign at once."""
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
    endpoints = (f"https://{name}.example.net:8443/firstlight", f"coaps://{name}.example.net:5684/firstlight")
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
    _, request, bundle = _answer(engine, scene, covering=False)
    view = verify_bundle(bundle, request, trust=_born(engine), batch_size=scale.devices)
    ended = time.monotonic()
    _check_sold(view, scene)
    engine.close()
    figures = {"restart_seconds": round(ended - spawned, 3)}
    beside = {
        "restart_interpreter_seconds": round(began - spawned, 3),
        "restart_open_seconds": round(opened - began, 3),
        "restart_peak_mib": round(peak_mib(), 1),
    }
    return Part(figures, beside)


def bundle(scene: Scene, scale: Scale, _: float) -> Part:
    """Weigh the bundle that a device gets on its first day, and verify it as often as ``scale`` says."""
    with scene.open() as engine:
        length, request, answer = _answer(engine, scene, covering=True)
        trust = _born(engine)
        records = engine.counts().records
    data = answer.encode()

    def verify() -> View:
        return verify_bundle(Bundle.decode(data), request, trust=trust, batch_size=scale.devices)

    def verify_first() -> View:
        p256.load.cache_clear()
        return verify()

    _check_sold(verify(), scene)
    cold = [timed(verify_first) for _ in range(scale.verifications)]
    warm = [timed(verify) for _ in range(scale.verifications)]
    figures = {"proof_bundle_bytes": float(len(data)), "device_verify_ms": median_ms(cold)}
    beside = {
        "proof_bundle_path": length,
        "proof_bundle_records": records,
        "proof_bundle_state_bytes": len(answer.state.encode()),
        "proof_bundle_head_bytes": len(answer.head.encode()),
        "device_verify_keys_known_ms": median_ms(warm),
        "device_verify_calls": scale.verifications,
    }
    return Part(figures, beside)


def _answer(engine: EmbeddedEngine, scene: Scene, *, covering: bool) -> tuple[int, BundleRequest, Bundle]:
    """Return what a new device that was sold asks, and a gateway's answer; the ownership path's length before them.

    With ``covering`` it is the device with the longest path there is, otherwise the first that was sold.
    """
    sold = scene.read()
    view = engine.head()
    trie = view.state.trie(sold.batch)
    if trie is None:
        raise StoreError("bench-batch-missing", sold.batch.hex())
    bought = (index for index in range(trie.size) if trie.owner(index) == sold.tenure)
    prefixes = (trie.covering_prefix(index) for index in bought)
    prefix = next(prefixes)
    while covering and prefix[1] < trie.depth:
        following = next(prefixes, None)
        if following is None:
            break
        prefix = max(prefix, following, key=lambda one: one[1])
    names = tuple(party_name(party_id(scene.key(name).public)) for name in ASKED)
    request = _born(engine).request(digest("nonce"), batch=sold.batch, prefix=prefix, names=names)
    others = [digest(f"nonce {number}") for number in range(1, _GATHERED)]
    nonce_root, proofs = nonce_proofs([request.nonce, *others])
    statement = WitnessStatement(
        CHAIN, view.header.height, view.header.hash(), view.header.time // SECOND + 1, nonce_root
    )
    head = view.head_proof(request.known_root, request.known_epoch)
    fresh = Freshness(proofs[0], scene.attest(statement))
    return prefix[1], request, Bundle(head, fresh, engine.prove_state(request))


def _born(engine: EmbeddedEngine) -> Trust:
    """Return what a device trusts on its first day."""
    statement = engine.head().state.statement(root_name(1))
    if statement is None:
        raise StoreError("bench-root-missing", "no root statement")
    return Trust.at_birth(CHAIN, statement)


def _check_sold(view: View, scene: Scene) -> None:
    """Make sure that what was verified is what was sold: a fast wrong answer is no figure."""
    sold = scene.read()
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
