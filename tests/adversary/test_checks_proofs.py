"""Proofs and plans that only one check of a device stands in the way of, told to device processes.

The chain is the test's own with all its keys, so that each lie is signed by whoever could sign it, and everything else
about it is right. Refusals by numbered checks of Merkle proofs have one code; their number is in the detail.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.sampling import sampled

from firstlight.chain.commit import Flag
from firstlight.discovery.bundle import Bundle, BundleRequest, StateProof, prove_state, proven_names
from firstlight.ledger.records import GOVERNANCE, Batch, Tenure, TenureState, batch_name, tenure_name, tree_key
from firstlight.plan.claims import (
    DIGESTS,
    ClaimKind,
    PartyClaim,
    PartyKind,
    ProfileClaim,
    claim_digest,
    new_claim,
    plan_root,
)
from firstlight.sealing.envelope import EnvelopeContent, seal_envelope
from firstlight.sealing.locator import mailbox_locator
from firstlight.testing.bundles import BATCH, Ledger, origin, under
from firstlight.testing.chains import Consortium, P256Key
from firstlight.testing.journeys import OWNER, RECEIPTS, SIZE
from firstlight.testing.random import SeededRandom
from firstlight.testing.staged import Staged, staged
from firstlight.trees import ownership, sparse
from firstlight.trees.ownership import OwnershipProof, Trie

GRANTED, FOUND = "granted", "discovered"
NEW, KNOWING = 3, 1
"""A device that has never been switched on, and one that knows epoch, height, tenure and plan."""
NOBODY = ownership.proof.NOBODY_HASH

Lie = Callable[[Staged, BundleRequest], Bundle]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staged]:
    """A chain of three validators, two of three witnesses and two of three members; the honest exchange first."""
    consortium = replace(Consortium.of(validators=3, witnesses=3, roots=3), root_threshold=2, number=2)
    with staged(tmp_path_factory.mktemp("staged"), consortium) as stage:
        assert FOUND in stage.run(0, GRANTED)
        stage.relays = False
        stage.run(KNOWING, FOUND)
        for index in (NEW, KNOWING):
            shutil.copytree(stage.world.directory(index), kept(stage, index))
        yield stage


def kept(stage: Staged, index: int) -> Path:
    """Return where a device's directory is kept as it was before anybody lied to it."""
    return stage.world.root / f"kept-{index}"


def details(stage: Staged, index: int) -> list[str]:
    """Return all that a device has logged, as ``code: detail``."""
    lines = (stage.world.directory(index) / "log.jsonl").read_text().splitlines()
    return [f"{line['code']}: {line.get('detail', '')}" for line in map(json.loads, lines)]


def told(stage: Staged, index: int, expected: str, *, later: bool = False) -> None:
    """Run a device that is lied to: it refuses with ``expected`` (a code, or a code and a check's number).

    What it has proven to itself it may keep, as long as it does not act upon it: with ``later`` the lie comes only
    after the head has been opened.
    """
    shutil.rmtree(stage.world.directory(index))
    shutil.copytree(kept(stage, index), stage.world.directory(index))
    code, _, number = expected.partition(" ")
    sight, before, answered = stage.sight(index), len(stage.told), stage.world.mno.answered
    log = stage.world.directory(index) / "log.jsonl"
    logged = len(log.read_text().splitlines()) if log.exists() else 0
    codes = stage.run(index, code, FOUND, *SURPRISES)
    assert len(stage.told) > before
    assert FOUND not in codes
    assert code in codes, codes
    said = [line for line in details(stage, index)[logged:] if line.startswith(f"{code}: ")]
    assert said
    assert all(line.endswith(number) for line in said), said
    assert stage.world.mno.answered == answered
    assert later or code in PROVEN or stage.sight(index) == sight


def headed(bundle: Bundle, **changes: object) -> Bundle:
    return replace(bundle, head=replace(bundle.head, **changes))  # type: ignore[arg-type]


def voted(bundle: Bundle, **changes: object) -> Bundle:
    return headed(bundle, votes=replace(bundle.head.votes, **changes))


def first_vote(bundle: Bundle, **changes: object) -> Bundle:
    one, *others = bundle.head.votes.signatures
    return voted(bundle, signatures=(replace(one, **changes), *others))  # type: ignore[arg-type]


def proved(bundle: Bundle, **changes: object) -> Bundle:
    return replace(bundle, state=replace(bundle.state, **changes))  # type: ignore[arg-type]


def merkle(bundle: Bundle, **changes: object) -> Bundle:
    return proved(bundle, proof=replace(bundle.state.proof, **changes))  # type: ignore[arg-type]


def owned(bundle: Bundle, **changes: object) -> Bundle:
    assert bundle.state.ownership is not None
    return proved(bundle, ownership=replace(bundle.state.ownership, **changes))  # type: ignore[arg-type]


def fresh(bundle: Bundle, **changes: object) -> Bundle:
    assert bundle.freshness is not None
    return replace(bundle, freshness=replace(bundle.freshness, **changes))  # type: ignore[arg-type]


def witnessed(bundle: Bundle, *places: int) -> Bundle:
    assert bundle.freshness is not None
    return fresh(bundle, witnesses=tuple(bundle.freshness.witnesses[one] for one in places))


def nonced(bundle: Bundle, **changes: object) -> Bundle:
    assert bundle.freshness is not None
    return fresh(bundle, nonce=replace(bundle.freshness.nonce, **changes))  # type: ignore[arg-type]


def another(stage: Staged, **records: object) -> Ledger:
    """Return a ledger that all validators and witnesses sign, one block on, with other records."""
    ledger = stage.ledger
    other = Ledger(ledger.consortium, size=ledger.size, at=ledger.at + 1, leaves=ledger.leaves)
    other.trie = ledger.trie
    other.records = {**ledger.records, **records}  # type: ignore[dict-item]
    return other


def ledgers(stage: Staged, request: BundleRequest, name: str, **changes: object) -> Bundle:
    """Answer from a ledger with one record changed."""
    record = replace(stage.ledger.records[name], **changes)  # type: ignore[type-var]
    return another(stage, **{name: record}).answer(request)


def without(stage: Staged, request: BundleRequest, name: str) -> Bundle:
    """Answer from a ledger that lacks a record."""
    other = another(stage)
    values = {tree_key(one): record.encode() for one, record in other.records.items() if one != name}
    if name != batch_name(BATCH):
        other.records.pop(name)
        return other.answer(request)
    tree = sparse.Tree.empty().update(values)
    previous = other.consortium.block(bytes(32), height=other.at - 1)
    block = other.consortium.block(tree.root, previous=previous)
    return replace(other.answer(request, block=block), state=prove_state(tree, None, request))


def with_tenures(stage: Staged, request: BundleRequest, *numbers: int, **records: object) -> Bundle:
    """Answer with just these tenures, all of them proven."""
    other = another(stage, **records)
    tree = other.tree()
    keys = [tree_key(name) for name in proven_names(request, numbers)]
    state = StateProof(
        numbers,
        tuple(tree.get(key) for key in keys),
        tree.prove(keys),
        other.trie.prove(request.prefix_bits, request.prefix_length),
    )
    return replace(stage.ledger.answer(request, block=other.block()), state=state)


def rooted(stage: Staged, request: BundleRequest, *roots: bytes, epoch: bytes | None = None) -> Bundle:
    return headed(stage.ledger.answer(request), roots=roots, epoch=epoch or stage.ledger.consortium.signed_epoch())


def following(stage: Staged, **changes: object) -> Consortium:
    """Return the consortium with other root keys, in version 2."""
    keys = tuple(P256Key(f"next root {one}") for one in range(3))
    return replace(stage.ledger.consortium, version=2, roots=keys, **changes)  # type: ignore[arg-type]


def usurped(stage: Staged, request: BundleRequest) -> Bundle:
    """New roots whom those before never signed for."""
    new = following(stage)
    return rooted(stage, request, new.signed_root(), epoch=new.signed_epoch())


def half_signed(stage: Staged, request: BundleRequest) -> Bundle:
    """One of two members that it takes signs new roots in."""
    new = following(stage)
    return rooted(stage, request, new.signed_root(stage.ledger.consortium.roots[0]), epoch=new.signed_epoch())


def with_a_stranger(stage: Staged, request: BundleRequest) -> Bundle:
    """Enough have signed, and somebody else has, too."""
    new, old = following(stage), stage.ledger.consortium
    return rooted(stage, request, new.signed_root(*old.roots, P256Key("mallory")), epoch=new.signed_epoch())


def unmeetable_root(stage: Staged, request: BundleRequest) -> Bundle:
    new, old = following(stage, root_threshold=4), stage.ledger.consortium
    return rooted(stage, request, new.signed_root(*old.roots), epoch=new.signed_epoch())


def skipped_root(stage: Staged, request: BundleRequest) -> Bundle:
    new, old = replace(following(stage), version=3), stage.ledger.consortium
    return rooted(stage, request, new.signed_root(*old.roots), epoch=new.signed_epoch())


def foreign_root(stage: Staged, request: BundleRequest) -> Bundle:
    new, old = following(stage, chain="test-2"), stage.ledger.consortium
    return rooted(stage, request, new.signed_root(*old.roots), epoch=new.signed_epoch())


def epoch_of(stage: Staged, request: BundleRequest, *signers: P256Key, **changes: object) -> Bundle:
    """Answer with an epoch statement that is changed, signed by ``signers`` (without them: the members)."""
    members = stage.ledger.consortium
    epoch = replace(members.epoch, **changes)  # type: ignore[arg-type]
    return headed(stage.ledger.answer(request), epoch=epoch.sign(signers or members.roots))


def same_validator_twice(stage: Staged, request: BundleRequest) -> Bundle:
    honest = stage.ledger.answer(request)
    one = honest.head.validators.validators[0]
    twice = replace(honest.head.validators, validators=(one, one, one))
    epoch = replace(stage.ledger.consortium.epoch, validators_hash=twice.hash())
    return headed(honest, validators=twice, epoch=epoch.sign(stage.ledger.consortium.roots))


def behind(stage: Staged, request: BundleRequest) -> Bundle:
    other = another(stage)
    other.at = stage.ledger.at - 1
    return other.answer(request)


def of_more(stage: Staged, request: BundleRequest) -> Bundle:
    """The batch is larger than the one that the device was born in."""
    other = another(stage)
    other.size = 2 * SIZE
    own(other, Trie.uniform(2 * SIZE, OWNER))
    return other.answer(request)


def own(ledger: Ledger, trie: Trie) -> None:
    """Let the devices be in these tenures, as the batch's record says too."""
    batch = ledger.records[batch_name(BATCH)]
    assert isinstance(batch, Batch)
    ledger.trie = trie
    ledger.records[batch_name(BATCH)] = replace(batch, size=ledger.size, ownership=trie.root)


def deeper(stage: Staged, request: BundleRequest) -> Bundle:
    """A leaf stands one level lower than it need, beside nothing."""
    honest = stage.ledger.answer(request)
    proof = honest.state.proof
    return merkle(honest, depths=(proof.depths[0] + 1, *proof.depths[1:]), siblings=(b"", *proof.siblings))


def changed_value(stage: Staged, request: BundleRequest) -> Bundle:
    honest = stage.ledger.answer(request)
    own = stage.ledger.records[tenure_name(BATCH, OWNER)]
    assert isinstance(own, Tenure)
    stolen = replace(own, plan=bytes(32)).encode()
    values = tuple(stolen if value == own.encode() else value for value in honest.state.values)
    assert values != honest.state.values
    return proved(honest, values=values)


def honestly(change: Callable[[Bundle], Bundle]) -> Lie:
    """Return a lie that changes the honest answer."""
    return lambda stage, request: change(stage.ledger.answer(request))


def under_all(**changes: object) -> Lie:
    return lambda stage, request: under(stage.ledger, stage.ledger.answer(request), **changes)


THIEF = P256Key("mallory")
LIES: Mapping[str, tuple[int, str, Lie]] = {
    "roots-without-those-before": (NEW, "root-signature", usurped),
    "roots-by-one-of-those-before": (NEW, "root-signature", half_signed),
    "roots-with-a-stranger": (NEW, "root-signature", with_a_stranger),
    "roots-that-cannot-be-met": (NEW, "bad-root-statement", unmeetable_root),
    "roots-that-leave-one-out": (NEW, "root-version", skipped_root),
    "roots-of-another-chain": (NEW, "wrong-chain", foreign_root),
    "no-epoch": (NEW, "epoch-missing", honestly(lambda one: headed(one, epoch=None))),
    "epoch-of-another-chain": (NEW, "wrong-chain", lambda stage, one: epoch_of(stage, one, chain="test-2")),
    "epoch-by-a-thief": (NEW, "epoch-signature", lambda stage, one: epoch_of(stage, one, THIEF, P256Key("moe"))),
    "epoch-by-one-member": (
        NEW,
        "epoch-signature",
        lambda stage, one: epoch_of(stage, one, stage.ledger.consortium.roots[0]),
    ),
    "epoch-with-a-stranger": (
        NEW,
        "epoch-signature",
        lambda stage, one: epoch_of(stage, one, *stage.ledger.consortium.roots, THIEF),
    ),
    "epoch-that-cannot-be-met": (NEW, "bad-epoch-statement", lambda stage, one: epoch_of(stage, one, threshold=4)),
    "epoch-before": (KNOWING, "epoch-back", lambda stage, one: epoch_of(stage, one, number=1)),
    "another-protocol": (NEW, "block-version", under_all(block_version=12)),
    "other-validators": (
        NEW,
        "epoch-validators",
        honestly(lambda one: headed(one, validators=Consortium.of(validators=2).validator_set)),
    ),
    "head-before-its-epoch": (NEW, "before-epoch", lambda stage, one: epoch_of(stage, one, first_height=99)),
    "one-validator-thrice": (NEW, "bad-validators", same_validator_twice),
    "more-votes-than-validators": (
        NEW,
        "commit-size",
        honestly(lambda one: voted(one, signatures=one.head.votes.signatures * 2)),
    ),
    "broken-vote": (NEW, "bad-commit-entry", honestly(lambda one: first_vote(one, signature=b"x" * 63))),
    "forged-vote": (NEW, "commit-signature", honestly(lambda one: first_vote(one, signature=bytes(64)))),
    "two-of-three-votes": (NEW, "not-enough-power", honestly(lambda one: first_vote(one, flag=Flag.NIL))),
    "nonce-elsewhere": (NEW, "bad-path (1)", honestly(lambda one: nonced(one, index=7))),
    "nonce-with-too-long-a-path": (NEW, "bad-path (3)", honestly(lambda one: nonced(one, path=(bytes(32),)))),
    "one-witness-twice": (NEW, "bad-witness", honestly(lambda one: witnessed(one, 0, 0))),
    "one-of-two-witnesses": (NEW, "not-enough-witnesses", honestly(lambda one: witnessed(one, 0))),
    "another-nonce": (
        NEW,
        "witness-signature",
        lambda stage, one: replace(
            stage.ledger.answer(one), freshness=stage.ledger.answer(replace(one, nonce=bytes(32))).freshness
        ),
    ),
    "no-witnesses": (NEW, "not-fresh", honestly(lambda one: replace(one, freshness=None))),
    "head-below-the-one-seen": (KNOWING, "height-back", behind),
    "one-value-short": (NEW, "wrong-values", honestly(lambda one: proved(one, values=one.state.values[:-1]))),
    "places-left-out": (
        NEW,
        "bad-state-proof (2)",
        honestly(lambda one: merkle(one, depths=one.state.proof.depths[:-1])),
    ),
    "two-keys-in-one-place": (NEW, "bad-state-proof (3)", honestly(lambda one: merkle(one, depths=(0,)))),
    "siblings-left-out": (
        NEW,
        "bad-state-proof (4)",
        honestly(lambda one: merkle(one, siblings=one.state.proof.siblings[:-1])),
    ),
    "a-branch-for-one-key": (NEW, "bad-state-proof (5)", deeper),
    "a-value-changed": (NEW, "bad-state-proof (6)", changed_value),
    "no-governance": (NEW, "no-governance", lambda stage, one: without(stage, one, GOVERNANCE)),
    "another-root-in-force": (
        NEW,
        "governance-root",
        lambda stage, one: ledgers(stage, one, GOVERNANCE, root_version=2),
    ),
    "another-epoch-in-force": (
        NEW,
        "governance-epoch",
        lambda stage, one: ledgers(stage, one, GOVERNANCE, epoch_hash=bytes(32)),
    ),
    "no-batch": (NEW, "unknown-batch", lambda stage, one: without(stage, one, batch_name(BATCH))),
    "larger-batch": (NEW, "batch-size", of_more),
    "nobody-owns": (NEW, "no-ownership-proof", honestly(lambda one: proved(one, ownership=None))),
    "owned-in-two-ways": (
        NEW,
        "bad-ownership-proof (2)",
        honestly(lambda one: owned(one, children=(bytes(32), bytes(32)))),
    ),
    "owned-below-the-prefix": (NEW, "bad-ownership-proof (3)", honestly(lambda one: owned(one, path=(bytes(32),)))),
    "owned-by-nobody-in-part": (
        NEW,
        "bad-ownership-proof (4)",
        honestly(lambda one: proved(one, ownership=OwnershipProof(None, (NOBODY, bytes(32)), ()))),
    ),
    "owned-by-another": (NEW, "bad-ownership-proof (6)", honestly(lambda one: owned(one, tenure=1))),
    "a-tenure-too-many": (NEW, "wrong-tenures", lambda stage, one: with_tenures(stage, one, 1, 2, 3)),
    "a-tenure-too-few": (NEW, "tenure-missing", lambda stage, one: with_tenures(stage, one, 2)),
    "a-tenure-sold-by-a-later-one": (
        NEW,
        "tenure-malformed",
        lambda stage, one: with_tenures(stage, one, 1, 2, **{tenure_name(BATCH, 2): origin(2, SIZE, previous=5)}),
    ),
    "an-older-plan": (
        KNOWING,
        "plan-revision-back",
        lambda stage, one: ledgers(stage, one, tenure_name(BATCH, OWNER), plan_revision=0),
    ),
    "frozen": (
        NEW,
        "tenure-frozen",
        lambda stage, one: ledgers(stage, one, tenure_name(BATCH, OWNER), state=TenureState.FROZEN),
    ),
    "retired": (
        NEW,
        "tenure-retired",
        lambda stage, one: ledgers(stage, one, tenure_name(BATCH, OWNER), state=TenureState.RETIRED),
    ),
}
PROVEN = {"tenure-frozen", "tenure-retired", "no-plan"}
"""What the ledger itself says: it holds, and a device remembers that it does."""
CODES = {expected.partition(" ")[0] for _, expected, _ in LIES.values()}
SURPRISES = sorted({*CODES, "no-plan", "no-network"})
"""What ends a lie to a device, be it what was expected or not."""


@pytest.mark.parametrize("name", sampled(LIES, 8))
def test_what_a_device_must_not_believe(stage: Staged, name: str) -> None:
    """A gateway, with the help of whoever has the keys for it, tells a device what is not so."""
    index, expected, lie = LIES[name]
    stage.tell = lambda request: lie(stage, request)
    try:
        told(stage, index, expected)
    finally:
        stage.tell = None


# --- under a head that was opened -----------------------------------------------------------------


class Deceitful(Ledger):
    """A ledger whose answers under a head that was opened are bent."""

    bend: Callable[[OwnershipProof], OwnershipProof]

    def state(self, request: BundleRequest) -> StateProof:
        honest = Ledger.state(self, request)
        if not request.height or honest.ownership is None:
            return honest
        return replace(honest, ownership=self.bend(honest.ownership))


@contextmanager
def split_up(stage: Staged, bend: Callable[[OwnershipProof], OwnershipProof]) -> Iterator[None]:
    """Let the first half of the batch be in another tenure, so that devices ask again with a longer prefix."""
    honest = stage.ledger
    other = Deceitful(honest.consortium, size=SIZE, at=honest.at + 1, leaves=honest.leaves)
    other.trie, other.records = honest.trie, dict(honest.records)
    other.split(0, SIZE // 2, 3, origin(3, SIZE // 2, previous=OWNER))
    own(other, other.trie)
    other.bend = bend
    stage.world.ledger = other
    try:
        yield
    finally:
        stage.world.ledger = honest


UNIFORM = ownership.nodes.uniform_hash(OWNER)


def test_both_halves_of_a_split_are_not_one_tenures(stage: Staged) -> None:
    """A gateway writes the device's half out a second time, as the other one: what is uniform looks split."""
    with split_up(stage, lambda one: replace(one, path=(UNIFORM,))):
        told(stage, NEW, "bad-ownership-proof (5)", later=True)


def test_no_real_devices_are_nobodys(stage: Staged) -> None:
    """A gateway says that the other half of the batch is padding."""
    with split_up(stage, lambda one: replace(one, path=(NOBODY,))):
        told(stage, NEW, "bad-ownership-proof (4)", later=True)


# --- plans ----------------------------------------------------------------------------------------

CHANCE = SeededRandom("plans")


@dataclass(slots=True)
class Draft:
    """A plan as an owner could write it by mistake, or as a stranger would change it."""

    claims: list[PartyClaim]
    digests: list[bytes]
    shown: list[bytes]
    root: bytes = b""


def drafted(stage: Staged, *claims: PartyClaim, listed: tuple[bytes, ...] | None = None, **profile: object) -> Draft:
    """Return a plan with these claims, right in everything but what is given."""
    others = sorted(one.digest() for one in claims) if listed is None else list(listed)
    own = ProfileClaim(CHANCE.bytes(16), int(ClaimKind.PROFILE), RECEIPTS.public, tuple(others))
    own = replace(own, **profile)  # type: ignore[arg-type]
    real = [own.digest(), *(one.digest() for one in claims)]
    digests = sorted([*real, *(CHANCE.bytes(32) for _ in range(DIGESTS - len(real)))])
    return Draft(list(claims), digests, [own.encode(), *(one.encode() for one in claims)])


def network(stage: Staged) -> PartyClaim:
    return new_claim(PartyKind.NETWORK, stage.world.mno.id, CHANCE.bytes(16), CHANCE)


def service(stage: Staged) -> PartyClaim:
    return new_claim(PartyKind.SERVICE, stage.world.sp.id, CHANCE.bytes(16), CHANCE)


def out_of_order(stage: Staged) -> Draft:
    draft = drafted(stage, network(stage), service(stage))
    draft.digests.reverse()
    return draft


def of_another_root(stage: Staged) -> Draft:
    draft = drafted(stage, network(stage), service(stage))
    draft.root = bytes(32)
    return draft


def shown_twice(stage: Staged) -> Draft:
    draft = drafted(stage, network(stage), service(stage))
    draft.shown.append(draft.shown[-1])
    return draft


def nobodys(stage: Staged) -> Draft:
    draft = drafted(stage, network(stage), service(stage))
    del draft.shown[0]
    return draft


def with_two_profiles(stage: Staged) -> Draft:
    draft = drafted(stage, network(stage), service(stage))
    thief = ProfileClaim(CHANCE.bytes(16), int(ClaimKind.PROFILE), RECEIPTS.public, (draft.claims[0].digest(),))
    decoy = next(one for one in draft.digests if one not in {claim_of(shown) for shown in draft.shown})
    draft.digests.remove(decoy)
    draft.digests = sorted([*draft.digests, thief.digest()])
    draft.shown.append(thief.encode())
    return draft


def claim_of(shown: bytes) -> bytes:
    return claim_digest(shown)


def dropped(stage: Staged) -> Draft:
    draft = drafted(stage, network(stage), service(stage))
    del draft.shown[2]
    return draft


def unlisted(stage: Staged) -> Draft:
    one, two = network(stage), service(stage)
    return drafted(stage, one, two, listed=(one.digest(),))


def foreign(stage: Staged) -> Draft:
    draft = drafted(stage, network(stage), service(stage))
    draft.shown.append(service(stage).encode())
    return draft


def listed_elsewhere(stage: Staged) -> Draft:
    one, two = network(stage), service(stage)
    return drafted(stage, one, two, listed=tuple(sorted((one.digest(), two.digest(), bytes(32)))))


def listed_out_of_order(stage: Staged) -> Draft:
    one, two = network(stage), service(stage)
    return drafted(stage, one, two, listed=tuple(sorted((one.digest(), two.digest()), reverse=True)))


PLANS: Mapping[str, Callable[[Staged], Draft]] = {
    "digests-out-of-order": out_of_order,
    "digests-of-another-plan": of_another_root,
    "a-claim-twice": shown_twice,
    "no-profile": nobodys,
    "two-profiles": with_two_profiles,
    "no-receipt-key": lambda stage: drafted(stage, network(stage), receipt_key=b"\x02" + b"\xff" * 32),
    "a-claim-dropped": dropped,
    "a-claim-that-the-profile-does-not-list": unlisted,
    "a-claim-of-another-plan": foreign,
    "a-profile-that-lists-what-is-not-there": listed_elsewhere,
    "a-profile-out-of-order": listed_out_of_order,
    "no-network": lambda stage: drafted(stage, service(stage)),
    "two-networks": lambda stage: drafted(
        stage, network(stage), new_claim(PartyKind.NETWORK, b"m" * 16, bytes(16), CHANCE)
    ),
    "one-service-twice": lambda stage: drafted(stage, network(stage), service(stage), service(stage)),
}


@pytest.mark.parametrize("name", sampled(PLANS, 3))
def test_plans_that_a_device_does_not_take(stage: Staged, name: str) -> None:
    """The envelope fits the tenure's plan, and the plan is one that leaves open what the device has to do."""
    world, birth = stage.world, stage.world.births[NEW]
    draft = PLANS[name](stage)
    locator = mailbox_locator(birth.mailbox, birth.gateways[0])
    content = EnvelopeContent(OWNER, 1, 0, tuple(draft.digests), tuple(draft.shown)).padded()
    sealed = seal_envelope(content, identity=birth.identity, chain=birth.chain, locator=locator)
    root = draft.root or plan_root(draft.digests)
    held, stage.tell = world.mail[locator], lambda one: ledgers(stage, one, tenure_name(BATCH, OWNER), plan=root)
    world.mail[locator] = [sealed]
    try:
        told(stage, NEW, "no-plan")
    finally:
        world.mail[locator], stage.tell = held, None


def test_an_honest_plan_is_taken(stage: Staged) -> None:
    """What the plans above are but for one thing."""
    world, birth = stage.world, stage.world.births[2]
    draft = drafted(stage, network(stage), service(stage))
    locator = mailbox_locator(birth.mailbox, birth.gateways[0])
    content = EnvelopeContent(OWNER, 1, 0, tuple(draft.digests), tuple(draft.shown)).padded()
    held = world.mail[locator]
    world.mail[locator] = [seal_envelope(content, identity=birth.identity, chain=birth.chain, locator=locator)]
    root = plan_root(draft.digests)
    stage.tell = lambda one: ledgers(stage, one, tenure_name(BATCH, OWNER), plan=root)
    try:
        assert FOUND in stage.run(2, FOUND, *SURPRISES)
    finally:
        world.mail[locator], stage.tell = held, None
