"""Headers, proofs and records that only one check of a follower of the chain stands in the way of.

Witnesses, gateways, operators and devices follow what a node shows them. The chain is the test's own with all its keys,
so that each lie is signed by whoever could sign it; beside it the honest answer is followed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
from tests.refusals import refused

from firstlight.chain.block import Header
from firstlight.chain.commit import ValidatorSet, verify_commit
from firstlight.chain.light import Policy
from firstlight.chain.root import MAX_WALK, known_root, walk
from firstlight.chain.witness import SUPERSEDED_SECONDS, WitnessRequest
from firstlight.discovery.bundle import Bundle, BundleRequest, HeadProof
from firstlight.discovery.machine import Discovered, read_services, services_request, usable
from firstlight.discovery.verify import View, verify_bundle
from firstlight.engines.port import Genesis
from firstlight.ledger.records import (
    GOVERNANCE,
    Governance,
    PartyStatus,
    Role,
    Tenure,
    TenureState,
    batch_name,
    party_name,
    tenure_name,
)
from firstlight.logs import Log
from firstlight.plan.claims import PartyKind, new_claim, new_plan, open_plan
from firstlight.roles.bundles import BundleService
from firstlight.roles.following import begin, follow, governed, trusted
from firstlight.roles.gateway.ledger import GatewayLedger
from firstlight.roles.tracking import Followed
from firstlight.roles.wire import HeaderAnswer, Proofs, ProvenState
from firstlight.roles.witness import Follower, Witness
from firstlight.testing.bundles import BATCH, NETWORK, Ledger, a_party, origin, under
from firstlight.testing.chains import CHAIN, GENESIS, SECOND, Block, Consortium, Ed25519Key, P256Key
from firstlight.testing.clock import FakeClock
from firstlight.testing.random import SeededRandom

POLICY = Policy(trusting_period=10**9 * SECOND)
NOW = (GENESIS + 1_000) * SECOND
LAST = 9
BASE = Consortium.of(validators=1)
THIEVES = replace(BASE, validators=tuple(Ed25519Key(f"thief {one}") for one in range(3)))


def gone(work: Coroutine[Any, Any, object]) -> str:
    return refused(lambda: asyncio.run(work))


def at(height: int, kept: int = 2) -> Consortium:
    """Return the consortium of a height: of three validators so many are still there at the next."""
    first = height * (3 - kept)
    return replace(BASE, validators=tuple(Ed25519Key(f"validator {first + one}") for one in range(3)))


def shown(height: int, *, kept: int = 2, **changes: object) -> HeaderAnswer:
    """Return a height's header, with changes that its validators have signed."""
    here, after = at(height, kept), at(height + 1, kept).validator_set
    block = here.block(bytes(32), height=height)
    closed = here.close(replace(block.header, **{"next_validators_hash": after.hash(), **changes}))  # type: ignore[arg-type]
    return HeaderAnswer(closed.header, closed.commit, here.validator_set, after)


CHAIN_OF = {height: shown(height) for height in range(1, LAST + 1)}
THIRD = CHAIN_OF[3]

# --- commits --------------------------------------------------------------------------------------


def committed(chain: str, validators: ValidatorSet, header: Header, block: HeaderAnswer) -> Callable[[], None]:
    return lambda: verify_commit(chain, validators, header, block.commit)


def test_no_header_is_committed_but_by_the_validators_that_it_names() -> None:
    """A node shows a header with a commit of another chain, height or block, or by validators of its choice."""
    chain, own, header = BASE.chain, THIRD.validators, THIRD.header
    committed(chain, own, header, THIRD)()
    thieves = THIEVES.close(header)
    theirs = replace(THIRD, commit=thieves.commit)
    assert refused(committed(chain, THIEVES.validator_set, header, theirs)) == "validators-hash"
    assert refused(committed("test-2", own, header, THIRD)) == "wrong-chain"
    later = replace(THIRD, commit=replace(THIRD.commit, height=4))
    assert refused(committed(chain, own, header, later)) == "commit-height"
    assert refused(committed(chain, own, replace(header, app_hash=b"x" * 32), THIRD)) == "commit-block"
    forged = tuple(replace(one, signature=bytes(64)) for one in THIRD.commit.signatures)
    assert refused(committed(chain, own, header, replace(THIRD, commit=replace(THIRD.commit, signatures=forged)))) == (
        "commit-signature"
    )


# --- from one header to the next ------------------------------------------------------------------

Source = Mapping[int, HeaderAnswer]


def followed_to(target: HeaderAnswer, source: Source = CHAIN_OF, known: HeaderAnswer = CHAIN_OF[1]) -> str:
    async def fetch(height: int) -> HeaderAnswer:
        return source[height]

    return gone(follow(trusted(known), target, fetch, POLICY, NOW))


def begun(first: HeaderAnswer, source: Source = CHAIN_OF, **changes: object) -> str:
    honest = Genesis(BASE.chain, first.header.time, BASE.signed_root(), BASE.signed_epoch(), first.validators)

    async def fetch(height: int) -> HeaderAnswer:
        return source[height]

    return gone(begin(replace(honest, **changes), fetch))  # type: ignore[arg-type]


def test_nobody_begins_with_another_header_than_the_genesis_has() -> None:
    """A node shows a new witness a first header that its validators have not made, or not as the first."""
    first = CHAIN_OF[1]
    assert begun(first) == "taken"
    assert begun(first, time=first.header.time - 1) == "not-first-header"
    assert begun(first, {1: THIRD}) == "not-first-header"
    forged = tuple(replace(one, signature=bytes(64)) for one in first.commit.signatures)
    unsigned = replace(first, commit=replace(first.commit, signatures=forged))
    assert begun(first, {1: unsigned}) == "commit-signature"
    assert begun(first, {1: replace(first, next_validators=THIEVES.validator_set)}) == "next-validators"


def test_nobody_follows_where_the_chain_does_not_lead() -> None:
    """A node shows a header that nobody signed, validators that nobody named, or others than it was asked for."""
    assert followed_to(CHAIN_OF[LAST]) == "taken"
    changed = replace(CHAIN_OF[2], header=replace(CHAIN_OF[2].header, app_hash=b"x" * 32))
    assert followed_to(changed) == "commit-block"
    assert followed_to(replace(CHAIN_OF[2], next_validators=THIEVES.validator_set)) == "next-validators"
    assert followed_to(CHAIN_OF[LAST], dict.fromkeys(CHAIN_OF, CHAIN_OF[2])) == "wrong-height"


def test_nobody_is_led_on_without_end() -> None:
    """A chain whose validators all change with each block keeps a follower busy as long as somebody likes."""
    restless = {height: shown(height, kept=0) for height in range(1, 60)}
    assert followed_to(restless[9], restless, restless[1]) == "taken"
    assert followed_to(restless[59], restless, restless[1]) == "too-many-steps"


# --- who governs ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Governed:
    """A chain whose head somebody asks for, and what a node answers: the governance record under that head."""

    ledger: Ledger = field(default_factory=lambda: Ledger(replace(BASE, version=2)))
    known: bytes = BASE.signed_root()
    roots: tuple[bytes, ...] | None = None
    epoch: bytes | None = b""
    value: bytes | None = b""
    states: int = 1

    def judged(self) -> str:
        ledger, own = self.ledger, self.ledger.consortium
        block = ledger.block()
        request = BundleRequest(bytes(32), 0, 1, 0, None, 0, 0, ())
        state = ledger.state(request)
        if self.value != b"":
            state = replace(state, values=(self.value,))
        roots = (own.signed_root(*BASE.roots),) if self.roots is None else self.roots
        epoch = own.signed_epoch() if self.epoch == b"" else self.epoch
        head = HeadProof.of(block.header, block.commit, own.validator_set, roots=roots, epoch=epoch)
        proofs = Proofs(1, head, (ProvenState(state.encode(), "", ""),) * self.states)
        return refused(lambda: governed(self.known, block.header, proofs))


def naming(**changes: object) -> Ledger:
    """Return a ledger whose governance record says something else than the members have signed."""
    ledger = Ledger(replace(BASE, version=2))
    record = ledger.records[GOVERNANCE]
    assert isinstance(record, Governance)
    ledger.records[GOVERNANCE] = replace(record, **changes)  # type: ignore[arg-type]
    return ledger


STRANGER = replace(BASE, version=2, roots=(P256Key("mallory"),))
RULERS: Mapping[str, tuple[str, Callable[[], Governed]]] = {
    "a-root-that-those-before-have-not-signed": (
        "root-signature",
        lambda: Governed(roots=(STRANGER.signed_root(),)),
    ),
    "no-epoch": ("epoch-missing", lambda: Governed(epoch=None)),
    "an-epoch-by-somebody-else": ("epoch-signature", lambda: Governed(epoch=STRANGER.signed_epoch())),
    "another-record-than-the-states": (
        "bad-state-proof",
        lambda: Governed(value=naming(root_version=9).records[GOVERNANCE].encode()),
    ),
    "no-record": ("wrong-values", lambda: Governed(value=None)),
    "two-records": ("wrong-values", lambda: Governed(states=2)),
    "a-root-that-the-ledger-does-not-name": ("governance-root", lambda: Governed(naming(root_version=1))),
    "an-epoch-that-the-ledger-does-not-name": ("governance-epoch", lambda: Governed(naming(epoch_hash=bytes(32)))),
}


@pytest.mark.parametrize("name", sorted(RULERS))
def test_nobody_is_governed_by(name: str) -> None:
    """A node tells a witness of members, and of an epoch, that are not in force."""
    code, made = RULERS[name]
    assert Governed().judged() == "taken"
    assert made().judged() == code


def test_no_walk_along_roots_is_longer_than_a_chain_lives() -> None:
    """Whoever has the keys of a root signs thousands more, for others to check."""
    roots = tuple(replace(BASE, version=number).signed_root() for number in range(2, MAX_WALK + 3))
    known = known_root(BASE.signed_root())
    assert walk(known, roots[:-1]).version == MAX_WALK + 1
    assert refused(lambda: walk(known, roots)) == "root-walk-too-long"
    ledger = Ledger(replace(BASE, version=MAX_WALK + 2))
    born = replace(ledger.trust, root=BASE.signed_root())
    request = born.request(bytes(32), batch=BATCH)

    def told(ledger: Ledger, *versions: bytes) -> View:
        honest = ledger.answer(request)
        return verify_bundle(replace(honest, head=replace(honest.head, roots=versions)), request, trust=born)

    assert told(Ledger(replace(BASE, version=MAX_WALK + 1)), *roots[:-1]).height == ledger.at
    assert refused(lambda: told(ledger, *roots)) == "root-walk-too-long"


# --- heads that a party has seen ------------------------------------------------------------------


@dataclass
class Node:
    """What a node shows: which head witnesses vouch for, and headers."""

    headers: dict[int, HeaderAnswer] = field(default_factory=lambda: dict(CHAIN_OF))
    height: int = 1
    answered: HeaderAnswer | None = None
    chain: str = BASE.chain

    def view(self, *names: str) -> View:
        ledger = Ledger(BASE)
        request = ledger.trust.request(bytes(32), batch=BATCH)
        honest = verify_bundle(ledger.answer(request), request, trust=ledger.trust)
        header = self.headers[self.height].header
        return replace(honest, height=header.height, header_hash=header.hash())

    def follow(self, view: View, *names: str, batch: bytes | None = None, prefix: tuple[int, int] = (0, 0)) -> View:
        return view

    def header(self, height: int) -> HeaderAnswer:
        return self.answered or self.headers[height]


def forked(node: Node) -> None:
    node.headers[5] = shown(5, app_hash=b"x" * 32)


def back(node: Node) -> None:
    node.height = 4


def elsewhere(node: Node) -> None:
    node.height, node.answered = 6, shown(6, app_hash=b"x" * 32)


def before_its_time(node: Node) -> None:
    node.height, node.headers[6] = 6, shown(6, time=GENESIS * SECOND)


HEADS: Mapping[str, tuple[str, Callable[[Node], None]]] = {
    "below-the-last": ("height-back", back),
    "a-second-of-its-height": ("chain-forked", forked),
    "with-another-header-than-was-proven": ("wrong-header", elsewhere),
    "that-goes-back-in-time": ("time-not-monotonic", before_its_time),
}


@pytest.mark.parametrize("name", sorted(HEADS))
def test_an_operator_goes_on_from_no_such_head(tmp_path: Path, name: str) -> None:
    """A node and enough witnesses show a party a head that does not continue what it has seen."""
    code, bend = HEADS[name]
    node = Node(height=5)
    ledger = Followed(node, tmp_path / "chain.cbor", policy=POLICY, clock=FakeClock(GENESIS + 1_000))
    assert ledger.view().height == 5
    before = (tmp_path / "chain.cbor").read_bytes()
    bend(node)
    assert refused(ledger.view) == code
    assert (tmp_path / "chain.cbor").read_bytes() == before


# --- witnesses ------------------------------------------------------------------------------------


class Followee(Follower):
    """What a witness asks, answered by the test."""

    source: dict[int, HeaderAnswer]

    async def fetch(self, height: int) -> HeaderAnswer:
        return self.source[height or max(self.source)]

    async def proofs(self, root: int) -> Proofs:
        newest = self.source[max(self.source)]
        head = HeadProof.of(newest.header, newest.commit, newest.validators, epoch=None)
        return Proofs(1, replace(head, header=replace(head.header, app_hash=b"of another head" + bytes(17))), ())


STEADY = Consortium.of(validators=3)


def steady(height: int, **changes: object) -> HeaderAnswer:
    block: Block = STEADY.block(bytes(32), height=height)
    closed = STEADY.close(replace(block.header, **changes))  # type: ignore[arg-type]
    return HeaderAnswer(closed.header, closed.commit, STEADY.validator_set, STEADY.validator_set)


def witness_of(tmp_path: Path, source: dict[int, HeaderAnswer], clock: FakeClock) -> Witness:
    genesis = Genesis(CHAIN, source[1].header.time, STEADY.signed_root(), STEADY.signed_epoch(), STEADY.validator_set)
    follower = Followee(genesis, cast("Any", None), "http://node", POLICY)
    object.__setattr__(follower, "source", source)
    return Witness(follower, STEADY.witnesses[0], clock, tmp_path / "heads.cbor", Log("witness", clock))


def test_a_witness_signs_the_newest_head_of_its_chain_alone(tmp_path: Path) -> None:
    """A gateway has a witness vouch for another chain, for a head that is over, or for one that nobody has seen."""
    source = {height: steady(height) for height in (1, 2)}
    clock = FakeClock(GENESIS + 5)

    async def main() -> None:
        witness = witness_of(tmp_path, source, clock)

        async def asked(height: int, chain: str = CHAIN) -> int:
            return (await witness.sign(WitnessRequest(chain, height, bytes(32)))).time

        async def code(height: int, chain: str = CHAIN) -> str:
            try:
                await asked(height, chain)
            except Exception as error:  # noqa: BLE001 - what breaks is told from what is refused
                return str(getattr(error, "code", repr(error)))
            return "taken"

        assert await asked(2) == GENESIS + 5
        assert await code(2, "test-2") == "wrong-chain"
        assert await code(7) == "witness-unknown-head"
        source[3] = steady(3)
        clock.advance(3)
        assert await asked(3) == GENESIS + 8
        assert await asked(2) == GENESIS + 8
        clock.advance(SUPERSEDED_SECONDS)
        assert await code(2) == "witness-superseded-head"
        assert await asked(3)
        source[3] = steady(3, app_hash=b"x" * 32)
        clock.advance(3)
        assert await code(3) == "chain-forked"

    asyncio.run(main())


# --- gateways -------------------------------------------------------------------------------------


def test_a_gateway_acts_on_no_state_but_the_newest_that_is_proven(tmp_path: Path) -> None:
    """A node tells a gateway what the ledger does not say, or what it said yesterday."""
    ledger = Ledger()
    begun = Genesis(CHAIN, GENESIS * SECOND, ledger.trust.root, BASE.signed_epoch(), BASE.validator_set)
    bend: list[Callable[[Bundle], Bundle]] = []

    class Service:
        height = 0

        async def answer(self, request: BundleRequest) -> bytes:
            bundle = ledger.answer(request)
            return (bend[0](bundle) if bend else bundle).encode()

    clock = FakeClock(GENESIS + 600)

    async def asked() -> object:
        service = cast("BundleService", Service())
        mine = GatewayLedger(begun, service, clock, SeededRandom("gateway"), tmp_path / "view.cbor")
        return await mine.records(party_name(NETWORK))

    assert gone(asked()) == "taken"
    bend.append(lambda bundle: replace(bundle, freshness=None))
    assert gone(asked()) == "not-enough-witnesses"
    forged = a_party("mallory", Role.MNO).encode()
    bend[0] = lambda bundle: replace(bundle, state=replace(bundle.state, values=(bundle.state.values[0], forged)))
    assert gone(asked()) == "bad-state-proof"


# --- services, once attached ----------------------------------------------------------------------

SERVICE = b"S" * 16


@dataclass(slots=True)
class Attached:
    """A device that has discovered, asks for its services, and is answered from a ledger that has moved on."""

    ledger: Ledger = field(default_factory=Ledger)
    found: Discovered = field(init=False)

    def __post_init__(self) -> None:
        ledger, random = self.ledger, SeededRandom("attached")
        claims = [
            new_claim(kind, party, bytes(16), random)
            for kind, party in ((PartyKind.NETWORK, NETWORK), (PartyKind.SERVICE, SERVICE))
        ]
        plan = new_plan(P256Key("receipts").public, claims, random)
        ledger.records[tenure_name(BATCH, 2)] = origin(2, ledger.size, previous=1, plan=plan.root)
        ledger.records[party_name(SERVICE)] = a_party("service", Role.SP)
        request = ledger.trust.request(bytes(32), batch=BATCH, names=(party_name(NETWORK),))
        view = verify_bundle(ledger.answer(request), request, trust=ledger.trust)
        assert view.standing is not None
        opened = open_plan(plan.root, plan.digests, plan.claims())
        network = usable(view, NETWORK, Role.MNO)
        self.found = Discovered(opened, plan.digests, network, view, view.standing, (0, 0))

    def tenure(self, **changes: object) -> None:
        record = self.ledger.records[tenure_name(BATCH, 2)]
        assert isinstance(record, Tenure)
        self.ledger.records[tenure_name(BATCH, 2)] = replace(record, **changes)  # type: ignore[arg-type]

    def services(self, bend: Callable[[Bundle], Bundle] = lambda bundle: bundle) -> Mapping[bytes, object]:
        self.ledger.at += 1
        request = services_request(self.found, self.found.view.trust, b"o" * 32)
        answer = bend(self.ledger.answer(request))
        return read_services(answer, request, self.found, self.found.view.trust)[1]


def test_an_attached_device_reads_its_services_from_the_plan_that_it_acts_on() -> None:
    """A network, or whoever answers there, gives a device services of another plan, or of another owner's."""
    device = Attached()
    assert list(device.services()) == [SERVICE]
    assert refused(lambda: device.services(lambda one: under(device.ledger, one, app_hash=b"x" * 32))) == (
        "witness-signature"
    )
    device.tenure(state=TenureState.FROZEN)
    assert refused(device.services) == "tenure-frozen"
    device.tenure(state=TenureState.RETIRED)
    assert refused(device.services) == "tenure-retired"
    device.tenure(state=TenureState.ACTIVE, plan_revision=2)
    assert refused(device.services) == "moved"
    bare = Attached()
    bare.tenure(plan=None, plan_revision=0)
    nothing = replace(bare.found.standing.tenure, plan=None, plan_revision=0)
    bare.found = replace(bare.found, standing=replace(bare.found.standing, tenure=nothing))
    bare.found = replace(
        bare.found, view=replace(bare.found.view, trust=replace(bare.found.view.trust, tenure=0, revision=0))
    )
    assert refused(bare.services) == "not-deployed"


def test_no_party_is_used_but_an_active_one_that_was_proven_in_that_role() -> None:
    """An owner's plan, or a gateway, sends a device to who is no operator, no provider, or nobody that was proven."""
    device = Attached()
    view = device.found.view
    assert usable(view, NETWORK, Role.MNO)
    suspended = replace(a_party("network", Role.MNO), status=PartyStatus.SUSPENDED)
    assert refused(lambda: usable(with_record(view, NETWORK, suspended), NETWORK, Role.MNO)) == "no-network"
    assert refused(lambda: usable(view, NETWORK, Role.SP)) == "no-service"
    assert refused(lambda: usable(view, SERVICE, Role.SP)) == "not-asked"
    batch = Ledger().records.get(batch_name(BATCH)) or device.ledger.records[GOVERNANCE]
    assert refused(lambda: usable(with_record(view, NETWORK, batch), NETWORK, Role.MNO)) == "not-asked"


def with_record(view: View, party: bytes, record: object) -> View:
    return replace(view, records={party_name(party): record})  # type: ignore[dict-item]
