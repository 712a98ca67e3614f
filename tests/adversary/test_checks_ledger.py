"""Every check of every rule of the ledger, tried by a transaction that only this check stands in the way of.

A node is a real process; whoever tries has the keys that the attack says, and no others. Each attempt brings a
transaction that must be refused and one just like it that must not: what is refused leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
from tests.refusals import refused

from firstlight import cose
from firstlight.chain.root import EpochStatement, RootStatement, known_epoch, known_root
from firstlight.cli.demo.commands import ENVIRONMENT, arguments, run
from firstlight.cli.processes import Family
from firstlight.custody.file import AgreementKey, SigningKey
from firstlight.custody.system import SystemRandom
from firstlight.ledger.draft import Draft
from firstlight.ledger.records import MAX_RECOVERIES, PartyStatus, RevocationKind, Role, batch_id, party_id
from firstlight.ledger.rules import holding
from firstlight.ledger.rules.transfers import MAX_OFFER
from firstlight.ledger.transaction import (
    TYP,
    Accept,
    AddBudget,
    AnchorBatch,
    Body,
    Deploy,
    Freeze,
    Offer,
    PublishReference,
    Recover,
    RegisterParty,
    Retire,
    Revoked,
    RevokeReference,
    RotateRoot,
    Rotation,
    SetEpoch,
    SetName,
    SuspendParty,
    Unfreeze,
    UpdateParty,
    Withdraw,
    build,
    parse,
)
from firstlight.ports import Signer
from firstlight.roles.wire import TransactionAnswer
from firstlight.testing.chains import P256Key
from firstlight.testing.handheld import ask
from firstlight.testing.ledgers import MemoryLedger
from firstlight.testing.strangers import Market, Stranger, new_key
from firstlight.trees import varint
from firstlight.trees.ownership import Selection

HOUR = 3_600
OFF_CURVE = b"\x02" + b"\xff" * 32
SOME, OTHERS, ALL = Selection.of([0, 1]), Selection.of([2, 3]), Selection.of([(0, 8)])


@dataclass(slots=True)
class Plot:
    """A batch on paper: its owner's key, and the key that recovers tenure 1."""

    batch: bytes
    owner: SigningKey
    recovery: SigningKey
    delay: int


@dataclass(slots=True)
class Town:
    """A market with a manufacturer."""

    market: Market
    maker: Stranger
    epoch: EpochStatement | None = None
    """The newest epoch that a test has set."""
    spent: Spent | None = None

    def now(self) -> int:
        return int(time.time())

    def anchor(self, size: int = 8, *, delay: int = 0, **changes: object) -> tuple[AnchorBatch, SigningKey, SigningKey]:
        owner, recovery = new_key(), new_key()
        body = AnchorBatch(
            self.maker.party,
            size,
            b"plot",
            SystemRandom().bytes(32),
            (),
            (self.maker.party,),
            owner.public,
            digest(recovery.public),
            delay,
        )
        return replace(body, **changes), owner, recovery  # type: ignore[arg-type]

    def plot(self, size: int = 8, *, delay: int = 0) -> Plot:
        """Anchor a batch."""
        body, owner, recovery = self.anchor(size, delay=delay)
        self.market.do(body, self.maker.signing)
        batch = batch_id(self.market.chain, body.party, size, body.model, body.leaves)
        return Plot(batch, owner, recovery, delay)

    def do(self, body: Body, signer: Signer) -> int:
        """Submit what must succeed; return the tenure that it made."""
        return TransactionAnswer.decode(self.market.do(body, signer).body).tenure

    def make(self, body: Body, signer: Signer, *more: Signer, sequence: int | None = None) -> bytes:
        """Return a transaction."""
        number = self.market.sequences.get(signer.public, 0) + 1 if sequence is None else sequence
        return build(body, chain=self.market.chain, sequence=number, signer=signer, cosigners=more)

    def offered(self, plot: Plot, selection: Selection = SOME, *, seconds: int = HOUR) -> tuple[int, SigningKey]:
        """Offer devices to somebody new; return the offer's number and his key."""
        buyer = new_key()
        number = self.do(Offer(plot.batch, 1, buyer.public, self.now() + seconds, selection), plot.owner)
        return number, buyer

    def expired(self, plot: Plot) -> tuple[int, SigningKey]:
        """Offer devices for as short a time as this machine needs to have that taken, and wait until it is over."""
        buyer = new_key()
        for seconds in (2, 10, 60):
            until = self.now() + seconds
            said = self.market.post(self.make(Offer(plot.batch, 1, buyer.public, until, SOME), plot.owner))
            if said.status == 200:
                break
        assert said.status == 200, said.fields()
        self.market.sequences[plot.owner.public] = self.market.sequences.get(plot.owner.public, 0) + 1
        self.after(until)
        return TransactionAnswer.decode(said.body).tenure, buyer

    def sold(self, plot: Plot, selection: Selection = SOME, *, delay: int = 0) -> tuple[int, SigningKey, SigningKey]:
        """Sell devices; return the tenure's number, the buyer's key and his recovery key."""
        number, buyer = self.offered(plot, selection)
        recovery = new_key()
        self.do(Accept(plot.batch, number, digest(recovery.public), delay), buyer)
        return number, buyer, recovery

    def recovering(self, plot: Plot, *, sequence: int = 1) -> tuple[bytes, SigningKey, SigningKey]:
        """Return a recovery of tenure 1, and the keys that it brings."""
        key, following = new_key(), new_key()
        body = Recover(plot.batch, 1, plot.recovery.public, key.public, digest(following.public))
        return self.make(body, plot.recovery, sequence=sequence), key, following

    def recovered(self, plot: Plot) -> SigningKey:
        """Recover tenure 1; return its new key."""
        transaction, key, _ = self.recovering(plot)
        self.submit(transaction)
        return key

    def submit(self, transaction: bytes) -> None:
        said = self.market.post(transaction)
        assert said.status == 200, said.fields()

    def frozen(self, plot: Plot, selection: Selection = SOME) -> int:
        return self.do(Freeze(plot.batch, 1, selection), plot.owner)

    def retired(self, plot: Plot, selection: Selection = SOME) -> int:
        return self.do(Retire(plot.batch, 1, selection), plot.owner)

    def early(self) -> None:
        """Wait for the first part of a second."""
        while time.time() % 1 > 0.3:
            time.sleep(0.01)

    def after(self, moment: int) -> None:
        """Wait until the clock of headers shows a second later than ``moment``."""
        while time.time() < moment + 1:
            time.sleep(0.02)


def digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def forged(transaction: bytes) -> bytes:
    """Return a transaction with one signature of another key in the place of the right one, under its kid."""
    signed = cose.parse(transaction, typ=TYP)
    first, *others = signed.signatures
    return replace(signed, signatures=(replace(first, value=new_key().sign(b"anything")), *others)).encode()


Attempt = Callable[[Town], tuple[bytes, bytes | None]]
"""Prepares, and returns what must be refused and, where there is such a thing, what is just like it and must not."""
ATTEMPTS: dict[str, tuple[Attempt, str]] = {}


def attempt(name: str, code: str) -> Callable[[Attempt], Attempt]:
    def register(function: Attempt) -> Attempt:
        assert name not in ATTEMPTS
        ATTEMPTS[name] = function, code
        return function

    return register


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    root = tmp_path_factory.mktemp("town")
    consortium = root / "consortium"
    run("consortium", "init", consortium, "--chain", "town")
    with Family(root / "output") as family:
        at = consortium / "node"
        child = family.start("node", arguments("node", "serve", at), environment=ENVIRONMENT, state_dir=at)
        market = Market(family.wait_for_endpoint(child), consortium)
        yield Town(market, market.join(Role.MANUFACTURER))


# --- parties --------------------------------------------------------------------------------------


def registering(key: SigningKey, **changes: object) -> RegisterParty:
    body = RegisterParty(key.public, digest(new_key().public), (Role.SP,), AgreementKey.generate()[0].public, ())
    return replace(body, **changes)  # type: ignore[arg-type]


def honest_registration(town: Town, key: SigningKey, **changes: object) -> bytes:
    return town.make(registering(key, **changes), key, town.market.member(), sequence=1)


@attempt("another-chain", "wrong-chain")
def _another_chain(town: Town) -> tuple[bytes, bytes]:
    key = new_key()
    body = registering(key)
    foreign = build(body, chain="another", sequence=1, signer=key, cosigners=[town.market.member()])
    return foreign, town.make(body, key, town.market.member(), sequence=1)


@attempt("party-key-off-the-curve", "bad-point")
def _party_off_curve(town: Town) -> tuple[bytes, bytes]:
    key = new_key()
    return honest_registration(town, key, agreement_key=OFF_CURVE), honest_registration(town, key)


@attempt("party-key-is-a-root-key", "key-is-root")
def _party_is_root(town: Town) -> tuple[bytes, bytes]:
    root = town.market.member(1)
    return town.make(registering(root), root, town.market.member(2), sequence=1), honest_registration(town, new_key())


@attempt("party-does-not-sign", "not-possessed")
def _not_possessed(town: Town) -> tuple[bytes, bytes]:
    key = new_key()
    return town.make(registering(key), town.market.member(), sequence=1), honest_registration(town, key)


@attempt("no-member-signs", "not-endorsed")
def _not_endorsed(town: Town) -> tuple[bytes, bytes]:
    key = new_key()
    return town.make(registering(key), key, sequence=1), honest_registration(town, key)


@attempt("a-stranger-signs-too", "unknown-key")
def _stranger_signs_too(town: Town) -> tuple[bytes, bytes]:
    key = new_key()
    return town.make(registering(key), key, town.market.member(), new_key(), sequence=1), honest_registration(town, key)


@attempt("registration-forged", "bad-signature")
def _forged_registration(town: Town) -> tuple[bytes, bytes]:
    key = new_key()
    return forged(honest_registration(town, key)), honest_registration(town, key)


@attempt("registration-out-of-turn", "wrong-sequence")
def _registration_sequence(town: Town) -> tuple[bytes, bytes]:
    key = new_key()
    return town.make(registering(key), key, town.market.member(), sequence=2), honest_registration(town, key)


@attempt("party-twice", "party-exists")
def _party_twice(town: Town) -> tuple[bytes, bytes]:
    key = new_key()
    town.submit(honest_registration(town, key))
    return honest_registration(town, key), honest_registration(town, new_key())


@attempt("roles-twice", "bad-roles")
def _roles_twice(town: Town) -> tuple[bytes, bytes]:
    key = new_key()
    return honest_registration(town, key, roles=(Role.SP, Role.SP)), honest_registration(town, key)


@attempt("next-key-is-this-key", "key-reused")
def _next_key(town: Town) -> tuple[bytes, bytes]:
    key = new_key()
    return honest_registration(town, key, next_key_hash=digest(key.public)), honest_registration(town, key)


@dataclass(slots=True)
class Member:
    """A party of a test's own: its keys, and the one committed to."""

    key: SigningKey
    following: SigningKey
    body: RegisterParty

    @property
    def party(self) -> bytes:
        return party_id(self.key.public)


def joined(town: Town) -> Member:
    key, following = new_key(), new_key()
    body = registering(key, next_key_hash=digest(following.public))
    town.submit(town.make(body, key, town.market.member(), sequence=1))
    town.market.sequences[key.public] = 1
    return Member(key, following, body)


def updating(member: Member, **changes: object) -> UpdateParty:
    body = UpdateParty(member.party, 2, AgreementKey.generate()[0].public, ("http://127.0.0.1:2",), None)
    return replace(body, **changes)  # type: ignore[arg-type]


@attempt("update-of-nobody", "unknown-party")
def _update_of_nobody(town: Town) -> tuple[bytes, bytes]:
    member = joined(town)
    body = updating(member)
    return town.make(replace(body, party=bytes(16)), member.key), town.make(body, member.key)


@attempt("update-by-a-stranger", "wrong-key")
def _update_by_stranger(town: Town) -> tuple[bytes, bytes]:
    member = joined(town)
    body = updating(member)
    return town.make(body, new_key(), sequence=2), town.make(body, member.key)


@attempt("rotation-to-a-key-not-committed-to", "wrong-key")
def _rotation_by_stranger(town: Town) -> tuple[bytes, bytes]:
    member, thief = joined(town), new_key()
    following = digest(new_key().public)
    stolen = updating(member, rotation=Rotation(thief.public, following))
    own = updating(member, rotation=Rotation(member.following.public, following))
    return town.make(stolen, thief, sequence=1), town.make(own, member.following, sequence=1)


@attempt("update-forged", "bad-signature")
def _update_forged(town: Town) -> tuple[bytes, bytes]:
    member = joined(town)
    good = town.make(updating(member), member.key)
    return forged(good), good


@attempt("update-out-of-turn", "wrong-sequence")
def _update_sequence(town: Town) -> tuple[bytes, bytes]:
    member = joined(town)
    body = updating(member)
    return town.make(body, member.key, sequence=3), town.make(body, member.key)


@attempt("update-of-a-suspended-party", "party-suspended")
def _update_suspended(town: Town) -> tuple[bytes, None]:
    member = joined(town)
    suspend(town, member.party)
    return town.make(updating(member, revision=3), member.key), None


@attempt("update-of-another-revision", "wrong-revision")
def _update_revision(town: Town) -> tuple[bytes, bytes]:
    member = joined(town)
    return town.make(updating(member, revision=3), member.key), town.make(updating(member), member.key)


@attempt("update-off-the-curve", "bad-point")
def _update_off_curve(town: Town) -> tuple[bytes, bytes]:
    member = joined(town)
    return town.make(updating(member, agreement_key=OFF_CURVE), member.key), town.make(updating(member), member.key)


@attempt("update-to-one-key-for-all", "key-reused")
def _update_key_reused(town: Town) -> tuple[bytes, bytes]:
    member = joined(town)
    bad = updating(member, agreement_key=member.key.public)
    return town.make(bad, member.key), town.make(updating(member), member.key)


def suspending(town: Town, party: bytes, *signers: Signer, sequence: int = 2, lift: bool = False) -> bytes:
    status = PartyStatus.ACTIVE if lift else PartyStatus.SUSPENDED
    members = signers or (town.market.member(1), town.market.member(2))
    return town.make(SuspendParty(party, status), *members, sequence=sequence)


def suspend(town: Town, party: bytes, *, sequence: int = 2) -> None:
    town.submit(suspending(town, party, sequence=sequence))


@attempt("suspension-of-nobody", "unknown-party")
def _suspend_nobody(town: Town) -> tuple[bytes, bytes]:
    return suspending(town, bytes(16)), suspending(town, joined(town).party)


@attempt("suspension-by-one-member", "not-endorsed")
def _suspend_alone(town: Town) -> tuple[bytes, bytes]:
    party = joined(town).party
    return suspending(town, party, town.market.member(1)), suspending(town, party)


@attempt("suspension-with-a-stranger", "unknown-key")
def _suspend_with_stranger(town: Town) -> tuple[bytes, bytes]:
    party, members = joined(town).party, (town.market.member(1), town.market.member(2))
    return suspending(town, party, *members, new_key()), suspending(town, party)


@attempt("suspension-forged", "bad-signature")
def _suspend_forged(town: Town) -> tuple[bytes, bytes]:
    party = joined(town).party
    return forged(suspending(town, party)), suspending(town, party)


@attempt("suspension-out-of-turn", "wrong-sequence")
def _suspend_sequence(town: Town) -> tuple[bytes, bytes]:
    party = joined(town).party
    return suspending(town, party, sequence=3), suspending(town, party)


@attempt("suspension-lifted-from-an-active-party", "nothing-to-change")
def _suspend_nothing(town: Town) -> tuple[bytes, bytes]:
    party = joined(town).party
    return suspending(town, party, lift=True), suspending(town, party)


# --- batches and reference values -----------------------------------------------------------------


@attempt("batch-by-nobody", "unknown-party")
def _batch_by_nobody(town: Town) -> tuple[bytes, bytes]:
    maker = town.market.join(Role.MANUFACTURER)
    body, _, _ = town.anchor(party=bytes(16))
    return town.make(body, maker.signing), own(town, maker)


@attempt("batch-by-another-maker", "wrong-key")
def _batch_by_another(town: Town) -> tuple[bytes, bytes]:
    other = town.market.join(Role.MANUFACTURER)
    body, _, _ = town.anchor()
    return town.make(body, other.signing), own(town, other)


def own(town: Town, maker: Stranger) -> bytes:
    """Return an honest batch of a maker's own."""
    body, _, _ = town.anchor(party=maker.party, reference_issuers=(maker.party,))
    return town.make(body, maker.signing)


@attempt("batch-forged", "bad-signature")
def _batch_forged(town: Town) -> tuple[bytes, bytes]:
    maker = town.market.join(Role.MANUFACTURER)
    good = own(town, maker)
    return forged(good), good


@attempt("batch-out-of-turn", "wrong-sequence")
def _batch_sequence(town: Town) -> tuple[bytes, bytes]:
    maker = town.market.join(Role.MANUFACTURER)
    body, _, _ = town.anchor(party=maker.party)
    return town.make(body, maker.signing, sequence=3), town.make(body, maker.signing)


@attempt("batch-by-a-suspended-maker", "party-suspended")
def _batch_suspended(town: Town) -> tuple[bytes, None]:
    maker = town.market.join(Role.MANUFACTURER)
    suspend(town, maker.party)
    body, _, _ = town.anchor(party=maker.party)
    return town.make(body, maker.signing), None


@attempt("batch-by-an-operator", "wrong-role")
def _batch_wrong_role(town: Town) -> tuple[bytes, bytes]:
    operator, maker = town.market.join(Role.MNO), town.market.join(Role.MANUFACTURER)
    body, _, _ = town.anchor(party=operator.party)
    return town.make(body, operator.signing), own(town, maker)


@attempt("batch-twice", "batch-exists")
def _batch_twice(town: Town) -> tuple[bytes, bytes]:
    maker = town.market.join(Role.MANUFACTURER)
    body, _, _ = town.anchor(party=maker.party)
    town.do(body, maker.signing)
    thief = new_key()
    again = replace(body, key=thief.public)
    return town.make(again, maker.signing), own(town, maker)


@attempt("batch-owner-off-the-curve", "bad-point")
def _batch_off_curve(town: Town) -> tuple[bytes, bytes]:
    maker = town.market.join(Role.MANUFACTURER)
    body, _, _ = town.anchor(party=maker.party)
    return town.make(replace(body, key=OFF_CURVE), maker.signing), town.make(body, maker.signing)


@attempt("batch-owner-recovers-with-the-same-key", "key-reused")
def _batch_key_reused(town: Town) -> tuple[bytes, bytes]:
    maker = town.market.join(Role.MANUFACTURER)
    body, _, _ = town.anchor(party=maker.party)
    return town.make(replace(body, recovery=digest(body.key)), maker.signing), town.make(body, maker.signing)


@attempt("batch-with-issuers-out-of-order", "not-ascending")
def _batch_issuers(town: Town) -> tuple[bytes, bytes]:
    maker = town.market.join(Role.MANUFACTURER)
    body, _, _ = town.anchor(party=maker.party)
    bad = replace(body, reference_issuers=(maker.party, maker.party))
    return town.make(bad, maker.signing), town.make(body, maker.signing)


@attempt("batch-with-an-unknown-issuer", "unknown-party")
def _batch_unknown_issuer(town: Town) -> tuple[bytes, bytes]:
    maker = town.market.join(Role.MANUFACTURER)
    body, _, _ = town.anchor(party=maker.party)
    bad = replace(body, reference_issuers=(b"\xff" * 16,))
    return town.make(bad, maker.signing), town.make(body, maker.signing)


def adding(town: Town, plot: Plot, amount: int = 5, *, signer: Signer | None = None, sequence: int = 1) -> bytes:
    return town.make(AddBudget(plot.batch, amount), signer or town.market.member(), sequence=sequence)


@attempt("budget-for-no-batch", "unknown-batch")
def _budget_nobody(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    return adding(town, replace(plot, batch=bytes(16))), adding(town, plot)


@attempt("budget-by-the-owner", "wrong-key")
def _budget_owner(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    return adding(town, plot, signer=plot.owner), adding(town, plot)


@attempt("budget-forged", "bad-signature")
def _budget_forged(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    return forged(adding(town, plot)), adding(town, plot)


@attempt("budget-twice", "wrong-sequence")
def _budget_twice(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    town.submit(adding(town, plot))
    return adding(town, plot, amount=6), adding(town, plot, amount=6, sequence=2)


@attempt("budget-beyond-its-ceiling", "budget-too-large")
def _budget_large(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    for number in range(1, 4):
        town.submit(adding(town, plot, 2**48, sequence=number))
    return adding(town, plot, 2**48, sequence=4), adding(town, plot, 2**48 - 10_000, sequence=4)


def publishing(town: Town, maker: Stranger, **changes: object) -> PublishReference:
    body = PublishReference(maker.party, b"plot", SystemRandom().bytes(16), bytes(32), 0, 0, town.now() + HOUR)
    return replace(body, **changes)  # type: ignore[arg-type]


@attempt("reference-under-anothers-name", "wrong-key")
def _reference_foreign(town: Town) -> tuple[bytes, bytes]:
    other = town.market.join(Role.MANUFACTURER)
    bad = publishing(town, other, party=town.maker.party)
    return town.make(bad, other.signing), town.make(publishing(town, other), other.signing)


@attempt("reference-that-has-ended", "bad-validity")
def _reference_ended(town: Town) -> tuple[bytes, bytes]:
    maker = town.market.join(Role.MANUFACTURER)
    bad = publishing(town, maker, not_after=town.now() - HOUR)
    return town.make(bad, maker.signing), town.make(publishing(town, maker), maker.signing)


@attempt("reference-published-twice", "reference-exists")
def _reference_twice(town: Town) -> tuple[bytes, bytes]:
    maker = town.market.join(Role.MANUFACTURER)
    body = publishing(town, maker)
    town.do(body, maker.signing)
    return town.make(replace(body, digest=b"x" * 32), maker.signing), town.make(publishing(town, maker), maker.signing)


@attempt("revocation-under-anothers-name", "wrong-key")
def _revocation_foreign(town: Town) -> tuple[bytes, bytes]:
    other, what = town.market.join(Role.MANUFACTURER), Revoked(RevocationKind.FIRMWARE, SystemRandom().bytes(32))
    bad = RevokeReference(town.maker.party, None, what)
    return town.make(bad, other.signing), town.make(replace(bad, party=other.party), other.signing)


@attempt("revocation-of-nothing", "wrong-target")
def _revocation_of_nothing(town: Town) -> tuple[bytes, bytes]:
    maker, what = town.market.join(Role.MANUFACTURER), Revoked(RevocationKind.FIRMWARE, SystemRandom().bytes(32))
    good = RevokeReference(maker.party, None, what)
    return town.make(replace(good, revoked=None), maker.signing), town.make(good, maker.signing)


@attempt("revocation-of-an-unknown-set", "unknown-reference")
def _revocation_unknown(town: Town) -> tuple[bytes, bytes]:
    maker = town.market.join(Role.MANUFACTURER)
    body = publishing(town, maker)
    town.do(body, maker.signing)
    good = RevokeReference(maker.party, SetName(body.model, body.identifier), None)
    bad = replace(good, set=SetName(body.model, bytes(16)))
    return town.make(bad, maker.signing), town.make(good, maker.signing)


@attempt("revocation-twice", "already-revoked")
def _revocation_twice(town: Town) -> tuple[bytes, bytes]:
    maker, what = town.market.join(Role.MANUFACTURER), Revoked(RevocationKind.FIRMWARE, SystemRandom().bytes(32))
    good = RevokeReference(maker.party, None, what)
    town.do(good, maker.signing)
    other = replace(good, revoked=replace(what, digest=SystemRandom().bytes(32)))
    return town.make(replace(good, revoked=replace(what, kind=RevocationKind.SIGNER)), maker.signing), town.make(
        other, maker.signing
    )


# --- whose devices they are -----------------------------------------------------------------------


def offering(town: Town, plot: Plot, selection: Selection = SOME, **changes: object) -> Offer:
    body = Offer(plot.batch, 1, new_key().public, town.now() + HOUR, selection)
    return replace(body, **changes)  # type: ignore[arg-type]


def acting(town: Town, plot: Plot) -> dict[str, Body]:
    """Return what an owner can do with devices of his tenure 1, by the name of the rule."""
    return {
        "offer": offering(town, plot),
        "deploy": Deploy(plot.batch, 1, bytes(32), None),
        "deploy-some": Deploy(plot.batch, 1, bytes(32), SOME),
        "freeze": Freeze(plot.batch, 1, SOME),
        "retire": Retire(plot.batch, 1, SOME),
    }


def _each(rule: str) -> None:
    """Register what thieves try with each rule."""

    @attempt(f"{rule}-by-a-thief", "wrong-key")
    def _thief(town: Town) -> tuple[bytes, bytes]:
        plot = town.plot()
        body = acting(town, plot)[rule]
        return town.make(body, new_key()), town.make(body, plot.owner)

    @attempt(f"{rule}-of-no-batch", "unknown-batch")
    def _no_batch(town: Town) -> tuple[bytes, bytes]:
        plot = town.plot()
        body = acting(town, plot)[rule]
        return town.make(replace(body, batch=bytes(16)), plot.owner), town.make(body, plot.owner)  # type: ignore[call-arg]

    @attempt(f"{rule}-of-no-tenure", "unknown-tenure")
    def _no_tenure(town: Town) -> tuple[bytes, bytes]:
        plot = town.plot()
        body = acting(town, plot)[rule]
        return town.make(replace(body, tenure=9), plot.owner), town.make(body, plot.owner)  # type: ignore[call-arg]

    @attempt(f"{rule}-of-an-offer", "not-accepted")
    def _offer(town: Town) -> tuple[bytes, bytes]:
        """The buyer acts before he has accepted."""
        plot = town.plot()
        number, buyer = town.offered(plot)
        body = replace(acting(town, plot)[rule], tenure=number)  # type: ignore[call-arg]
        return town.make(body, buyer), town.make(Accept(plot.batch, number, digest(b"x"), 0), buyer)


def _each_turn(rule: str) -> None:
    """Register what is tried in the owner's name, or by him when it is not the time."""

    @attempt(f"{rule}-forged", "bad-signature")
    def _forged(town: Town) -> tuple[bytes, bytes]:
        plot = town.plot()
        good = town.make(acting(town, plot)[rule], plot.owner)
        return forged(good), good

    @attempt(f"{rule}-out-of-turn", "wrong-sequence")
    def _turn(town: Town) -> tuple[bytes, bytes]:
        plot = town.plot()
        body = acting(town, plot)[rule]
        return town.make(body, plot.owner, sequence=2), town.make(body, plot.owner)

    @attempt(f"{rule}-of-what-a-recovery-undid", "tenure-undone")
    def _undone(town: Town) -> tuple[bytes, None]:
        plot = town.plot(delay=HOUR)
        number, buyer, _ = town.sold(plot)
        town.recovered(plot)
        body = replace(acting(town, plot)[rule], tenure=number)  # type: ignore[call-arg]
        return town.make(body, buyer), None

    @attempt(f"{rule}-of-what-a-recovery-holds", "tenure-held")
    def _held(town: Town) -> tuple[bytes, bytes]:
        plot = town.plot()
        key = town.recovered(plot)
        body = acting(town, plot)[rule]
        return town.make(body, key), town.make(Unfreeze(plot.batch, 1, None), key)


def _each_selection(rule: str) -> None:
    """Register what is tried with devices that are not the tenure's, or not free."""

    @attempt(f"{rule}-of-anothers-devices", "wrong-owner")
    def _others(town: Town) -> tuple[bytes, bytes]:
        """A seller acts on devices that he has sold."""
        plot = town.plot()
        town.sold(plot)
        body = acting(town, plot)[rule]
        return town.make(body, plot.owner), town.make(replace(body, selection=OTHERS), plot.owner)  # type: ignore[call-arg]

    @attempt(f"{rule}-beyond-the-batch", "index-beyond-batch")
    def _beyond(town: Town) -> tuple[bytes, bytes]:
        plot = town.plot()
        body = acting(town, plot)[rule]
        return town.make(replace(body, selection=Selection.of([8])), plot.owner), town.make(body, plot.owner)  # type: ignore[call-arg]

    @attempt(f"{rule}-of-what-is-on-offer", "offer-live")
    def _on_offer(town: Town) -> tuple[bytes, bytes]:
        """A seller does to the devices what he likes while somebody decides about his offer."""
        plot = town.plot()
        town.offered(plot)
        body = acting(town, plot)[rule]
        return town.make(body, plot.owner), town.make(replace(body, selection=OTHERS), plot.owner)  # type: ignore[call-arg]


for _rule in ("offer", "deploy", "deploy-some", "freeze", "retire"):
    _each(_rule)
    _each_turn(_rule)
    if _rule != "deploy":
        _each_selection(_rule)


def _in_state(rule: str, state: str) -> None:
    """Register that a rule does not count for a frozen, or retired, tenure."""

    @attempt(f"{rule}-of-a-{state}-tenure", f"tenure-{state}")
    def _attempt(town: Town) -> tuple[bytes, bytes]:
        plot = town.plot()
        number = town.frozen(plot) if state == "frozen" else town.retired(plot)
        body = acting(town, plot)[rule]
        bad = replace(body, tenure=number)  # type: ignore[call-arg]
        good = body if rule == "deploy" else replace(body, selection=OTHERS)  # type: ignore[call-arg]
        return town.make(bad, plot.owner), town.make(good, plot.owner)


for _rule in ("offer", "deploy", "freeze"):
    _in_state(_rule, "frozen")
    _in_state(_rule, "retired")
_in_state("retire", "retired")


@attempt("unfreeze-of-an-active-tenure", "tenure-active")
def _unfreeze_active(town: Town) -> tuple[bytes, bytes]:
    """Devices of a sold tenure would go back to where it came from: the seller's."""
    plot = town.plot()
    number, buyer, _ = town.sold(plot)
    return town.make(Unfreeze(plot.batch, number, SOME), buyer), town.make(Freeze(plot.batch, number, SOME), buyer)


@attempt("unfreeze-of-a-retired-tenure", "tenure-retired")
def _unfreeze_retired(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    number = town.retired(plot)
    return town.make(Unfreeze(plot.batch, number, SOME), plot.owner), town.make(
        Freeze(plot.batch, 1, OTHERS), plot.owner
    )


@attempt("unfreeze-by-a-thief", "wrong-key")
def _unfreeze_thief(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    body = Unfreeze(plot.batch, town.frozen(plot), SOME)
    return town.make(body, new_key()), town.make(body, plot.owner)


@attempt("unfreeze-of-others", "wrong-owner")
def _unfreeze_others(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    town.sold(plot, OTHERS)
    body = Unfreeze(plot.batch, town.frozen(plot), SOME)
    return town.make(replace(body, selection=OTHERS), plot.owner), town.make(body, plot.owner)


@attempt("release-of-what-nobody-holds", "not-held")
def _release_not_held(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    return town.make(Unfreeze(plot.batch, 1, None), plot.owner), town.make(Freeze(plot.batch, 1, SOME), plot.owner)


@attempt("release-by-the-old-key", "wrong-key")
def _release_old_key(town: Town) -> tuple[bytes, bytes]:
    """Whoever stole the key ends the hold that the recovery put upon it."""
    plot = town.plot()
    key = town.recovered(plot)
    body = Unfreeze(plot.batch, 1, None)
    return town.make(body, plot.owner, sequence=1), town.make(body, key)


@attempt("release-of-a-part", "not-an-origin")
def _release_part(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    number = town.frozen(plot)
    key = town.recovered(plot)
    return town.make(Unfreeze(plot.batch, number, None), key), town.make(Unfreeze(plot.batch, 1, None), key)


# --- offers ---------------------------------------------------------------------------------------


@attempt("offer-to-a-point-off-the-curve", "bad-point")
def _offer_off_curve(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    good = offering(town, plot)
    return town.make(replace(good, buyer=OFF_CURVE), plot.owner), town.make(good, plot.owner)


@attempt("offer-to-oneself", "buyer-is-seller")
def _offer_to_oneself(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    good = offering(town, plot)
    return town.make(replace(good, buyer=plot.owner.public), plot.owner), town.make(good, plot.owner)


@attempt("offer-that-has-ended", "expiry-past")
def _offer_past(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    good = offering(town, plot)
    return town.make(replace(good, expiry=town.now() - 1), plot.owner), town.make(good, plot.owner)


@attempt("offer-for-ever", "expiry-too-far")
def _offer_for_ever(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    good = offering(town, plot)
    return town.make(replace(good, expiry=town.now() + MAX_OFFER + HOUR), plot.owner), town.make(good, plot.owner)


@attempt("offer-of-a-purchase-that-can-be-undone", "transfer-not-final")
def _not_final(town: Town) -> tuple[bytes, bytes]:
    """A buyer sells on at once what the seller's recovery could still undo: his buyer would lose it."""
    plot = town.plot(delay=HOUR)
    number, buyer, _ = town.sold(plot)
    body = Offer(plot.batch, number, new_key().public, town.now() + HOUR, SOME)
    return town.make(body, buyer), town.make(Freeze(plot.batch, number, SOME), buyer)


RACING = "offer-in-the-second-of-a-recovery"
"""What must come in the second of something else: a machine may be too slow for it, and then it is tried again."""


@attempt(RACING, "recovered-just-now")
def _recovered_just_now(town: Town) -> tuple[bytes, bytes]:
    """The offer would have the recovery's own second, and nobody could tell which came first."""
    plot = town.plot()
    transaction, key, _ = town.recovering(plot)
    release, bad = town.make(Unfreeze(plot.batch, 1, None), key, sequence=1), offering(town, plot)
    town.early()
    town.submit(transaction)
    town.submit(release)
    return town.make(bad, key, sequence=2), town.make(Freeze(plot.batch, 1, SOME), key, sequence=2)


@attempt("accept-of-no-batch", "unknown-batch")
def _accept_no_batch(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    number, buyer = town.offered(plot)
    body = Accept(plot.batch, number, digest(b"x"), 0)
    return town.make(replace(body, batch=bytes(16)), buyer), town.make(body, buyer)


@attempt("accept-of-no-tenure", "unknown-tenure")
def _accept_no_tenure(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    number, buyer = town.offered(plot)
    body = Accept(plot.batch, number, digest(b"x"), 0)
    return town.make(replace(body, tenure=9), buyer), town.make(body, buyer)


@attempt("accept-of-the-makers-own", "not-an-offer")
def _accept_not_offer(town: Town) -> tuple[bytes, bytes]:
    """A maker 'accepts' tenure 1 anew, with another recovery key and delay than the ledger has."""
    plot = town.plot()
    bad = town.make(Accept(plot.batch, 1, digest(b"x"), 0), plot.owner)
    return bad, town.make(Freeze(plot.batch, 1, SOME), plot.owner)


@attempt("accept-by-a-thief", "wrong-key")
def _accept_thief(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    number, buyer = town.offered(plot)
    body = Accept(plot.batch, number, digest(b"x"), 0)
    return town.make(body, new_key()), town.make(body, buyer)


@attempt("accept-forged", "bad-signature")
def _accept_forged(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    number, buyer = town.offered(plot)
    good = town.make(Accept(plot.batch, number, digest(b"x"), 0), buyer)
    return forged(good), good


@attempt("accept-out-of-turn", "wrong-sequence")
def _accept_sequence(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    number, buyer = town.offered(plot)
    body = Accept(plot.batch, number, digest(b"x"), 0)
    return town.make(body, buyer, sequence=2), town.make(body, buyer)


@attempt("accept-twice", "already-accepted")
def _accept_twice(town: Town) -> tuple[bytes, bytes]:
    """A buyer takes his offer a second time, to get a recovery key that he has lost or never had."""
    plot = town.plot()
    number, buyer, _ = town.sold(plot)
    again = town.make(Accept(plot.batch, number, digest(b"y"), 0), buyer)
    return again, town.make(Freeze(plot.batch, number, SOME), buyer)


@attempt("accept-too-late", "offer-expired")
def _accept_late(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    number, buyer = town.expired(plot)
    return town.make(Accept(plot.batch, number, digest(b"x"), 0), buyer), town.make(
        Freeze(plot.batch, 1, SOME), plot.owner
    )


@attempt("accept-of-what-was-withdrawn", "offer-ended")
def _accept_withdrawn(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    number, buyer = town.offered(plot)
    town.do(Withdraw(plot.batch, number), plot.owner)
    return town.make(Accept(plot.batch, number, digest(b"x"), 0), buyer), town.make(
        Freeze(plot.batch, 1, SOME), plot.owner
    )


@attempt("accept-with-one-key-for-all", "key-reused")
def _accept_key_reused(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    number, buyer = town.offered(plot)
    good = Accept(plot.batch, number, digest(b"x"), 0)
    return town.make(replace(good, recovery=digest(buyer.public)), buyer), town.make(good, buyer)


@attempt("withdrawal-of-no-batch", "unknown-batch")
def _withdraw_no_batch(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    number, _ = town.offered(plot)
    body = Withdraw(plot.batch, number)
    return town.make(replace(body, batch=bytes(16)), plot.owner), town.make(body, plot.owner)


@attempt("withdrawal-of-no-tenure", "unknown-tenure")
def _withdraw_no_tenure(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    number, _ = town.offered(plot)
    body = Withdraw(plot.batch, number)
    return town.make(replace(body, tenure=9), plot.owner), town.make(body, plot.owner)


@attempt("withdrawal-of-no-offer", "not-an-offer")
def _withdraw_not_offer(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    frozen = town.frozen(plot, OTHERS)
    number, _ = town.offered(plot)
    body = Withdraw(plot.batch, number)
    return town.make(replace(body, tenure=frozen), plot.owner), town.make(body, plot.owner)


@attempt("withdrawal-by-the-buyer", "wrong-key")
def _withdraw_thief(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    number, buyer = town.offered(plot)
    body = Withdraw(plot.batch, number)
    return town.make(body, buyer, sequence=2), town.make(body, plot.owner)


@attempt("withdrawal-of-what-is-sold", "already-accepted")
def _withdraw_sold(town: Town) -> tuple[bytes, bytes]:
    """A seller takes back what he has been paid for."""
    plot = town.plot()
    number, buyer, _ = town.sold(plot)
    return town.make(Withdraw(plot.batch, number), plot.owner), town.make(Freeze(plot.batch, number, SOME), buyer)


@attempt("withdrawal-of-what-has-expired", "offer-expired")
def _withdraw_late(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    number, _ = town.expired(plot)
    return town.make(Withdraw(plot.batch, number), plot.owner), town.make(Freeze(plot.batch, 1, SOME), plot.owner)


@attempt("withdrawal-twice", "offer-ended")
def _withdraw_twice(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    number, _ = town.offered(plot)
    town.do(Withdraw(plot.batch, number), plot.owner)
    return town.make(Withdraw(plot.batch, number), plot.owner), town.make(Freeze(plot.batch, 1, SOME), plot.owner)


# --- recovery -------------------------------------------------------------------------------------


def restoring(plot: Plot, **changes: object) -> Recover:
    body = Recover(plot.batch, 1, plot.recovery.public, new_key().public, digest(new_key().public))
    return replace(body, **changes)  # type: ignore[arg-type]


@attempt("recovery-of-no-batch", "unknown-batch")
def _recover_no_batch(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    return town.make(restoring(plot, batch=bytes(16)), plot.recovery), town.make(restoring(plot), plot.recovery)


@attempt("recovery-of-no-tenure", "unknown-tenure")
def _recover_no_tenure(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    return town.make(restoring(plot, tenure=9), plot.recovery), town.make(restoring(plot), plot.recovery)


@attempt("recovery-of-a-part", "not-an-origin")
def _recover_part(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    number = town.frozen(plot)
    return town.make(restoring(plot, tenure=number), plot.recovery), town.make(restoring(plot), plot.recovery)


@attempt("recovery-of-an-offer", "not-accepted")
def _recover_offer(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    number, _ = town.offered(plot)
    return town.make(restoring(plot, tenure=number), plot.recovery), town.make(restoring(plot), plot.recovery)


@attempt("recovery-by-a-thief", "wrong-key")
def _recover_thief(town: Town) -> tuple[bytes, bytes]:
    plot, thief = town.plot(), new_key()
    bad = restoring(plot, recovery_key=thief.public)
    return town.make(bad, thief), town.make(restoring(plot), plot.recovery)


@attempt("recovery-forged", "bad-signature")
def _recover_forged(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    good = town.make(restoring(plot), plot.recovery)
    return forged(good), good


@attempt("recovery-replayed", "wrong-sequence")
def _recover_replayed(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    return town.make(restoring(plot), plot.recovery, sequence=2), town.make(restoring(plot), plot.recovery)


@attempt("recovery-of-what-was-undone", "tenure-undone")
def _recover_undone(town: Town) -> tuple[bytes, None]:
    plot = town.plot(delay=HOUR)
    number, _, recovery = town.sold(plot)
    town.recovered(plot)
    return town.make(restoring(plot, tenure=number, recovery_key=recovery.public), recovery), None


@attempt("recovery-to-the-same-key", "key-reused")
def _recover_reused(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    bad = restoring(plot, key=plot.owner.public)
    return town.make(bad, plot.recovery), town.make(restoring(plot), plot.recovery)


@attempt("recovery-to-a-point-off-the-curve", "bad-point")
def _recover_off_curve(town: Town) -> tuple[bytes, bytes]:
    plot = town.plot()
    return town.make(restoring(plot, key=OFF_CURVE), plot.recovery), town.make(restoring(plot), plot.recovery)


@attempt("recovery-too-often", "too-many-recoveries")
def _recover_often(town: Town) -> tuple[bytes, None]:
    plot = town.plot()
    for number in range(1, MAX_RECOVERIES + 1):
        transaction, _, following = town.recovering(plot, sequence=number)
        town.submit(transaction)
        plot.recovery = following
    transaction, _, _ = town.recovering(plot, sequence=MAX_RECOVERIES + 1)
    return transaction, None


# --- work -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spent:
    """A batch whose budget is used up, but for less than any transaction costs, and an offer that was made before."""

    plot: Plot
    offer: int
    buyer: SigningKey


def spent(town: Town) -> Spent:
    """Return such a batch; making it takes a hundred transactions, so that it is made once."""
    if town.spent is None:
        plot = town.plot(256)
        number, buyer = town.offered(plot, Selection.of([255]))
        scattered = Selection.of(range(0, 250, 2))
        frozen = 0
        while (made := tried(town, plot, Unfreeze(plot.batch, frozen, scattered) if frozen else
                             Freeze(plot.batch, 1, scattered))) is not None:  # fmt: skip
            frozen = 0 if frozen else made
        while tried(town, plot, Deploy(plot.batch, 1, bytes(32), None)) is not None:
            pass
        town.spent = Spent(plot, number, buyer)
    return town.spent


def tried(town: Town, plot: Plot, body: Body) -> int | None:
    """Submit a transaction and return the tenure that it made; nothing if the budget does not cover it."""
    said = town.market.post(town.make(body, plot.owner))
    if said.code == "budget-exhausted":
        return None
    assert said.status == 200, said.fields()
    town.market.sequences[plot.owner.public] = town.market.sequences.get(plot.owner.public, 0) + 1
    return TransactionAnswer.decode(said.body).tenure


def other_work(town: Town) -> bytes:
    plot = town.plot()
    return town.make(Freeze(plot.batch, 1, SOME), plot.owner)


@attempt("deploy-without-budget", "budget-exhausted")
def _deploy_exhausted(town: Town) -> tuple[bytes, bytes]:
    what = spent(town)
    return town.make(Deploy(what.plot.batch, 1, b"p" * 32, None), what.plot.owner), other_work(town)


@attempt("freeze-without-budget", "budget-exhausted")
def _freeze_exhausted(town: Town) -> tuple[bytes, bytes]:
    what = spent(town)
    return town.make(Freeze(what.plot.batch, 1, SOME), what.plot.owner), other_work(town)


@attempt("accept-without-budget", "budget-exhausted")
def _accept_exhausted(town: Town) -> tuple[bytes, bytes]:
    what = spent(town)
    return town.make(Accept(what.plot.batch, what.offer, digest(b"x"), 0), what.buyer), other_work(town)


@attempt("withdrawal-without-budget", "budget-exhausted")
def _withdraw_exhausted(town: Town) -> tuple[bytes, bytes]:
    what = spent(town)
    return town.make(Withdraw(what.plot.batch, what.offer), what.plot.owner), other_work(town)


@attempt("recovery-without-budget", "budget-exhausted")
def _recover_exhausted(town: Town) -> tuple[bytes, bytes]:
    what = spent(town)
    return town.make(restoring(what.plot), what.plot.recovery), other_work(town)


@attempt("deploy-of-more-than-a-block-can-bear", "too-much-work")
def _too_much_work(town: Town) -> tuple[bytes, bytes]:
    """One transaction with as many runs as can be written, far apart: every node would work for long."""
    plot, runs = town.plot(2**32 - 1), 180_000
    far = Selection(varint.pack([8_191, 8_190] * runs))
    return town.make(Deploy(plot.batch, 1, bytes(32), far), plot.owner), town.make(
        Deploy(plot.batch, 1, bytes(32), SOME), plot.owner
    )


# --- governance -----------------------------------------------------------------------------------


def epoch_now(town: Town) -> EpochStatement:
    return town.epoch or known_epoch(town.market.genesis.epoch)


def next_epoch(town: Town, **changes: object) -> EpochStatement:
    now = epoch_now(town)
    following = replace(now, number=now.number + 1, first_height=town.market.height() + 50)
    return replace(following, **changes)  # type: ignore[arg-type]


def members(town: Town) -> tuple[SigningKey, SigningKey]:
    return town.market.member(1), town.market.member(2)


def setting(
    town: Town, statement: EpochStatement, *signers: Signer, by: tuple[Signer, ...] = (), sequence: int | None = None
) -> bytes:
    """Return what sets an epoch, signed by ``by``; ``signers`` signed the statement (without them: two members)."""
    body = SetEpoch(statement.sign(signers or members(town)))
    return town.make(body, *(by or members(town)), sequence=statement.number if sequence is None else sequence)


@attempt("epoch-by-one-member", "epoch-signature")
def _epoch_alone(town: Town) -> tuple[bytes, None]:
    return setting(town, next_epoch(town), town.market.member(1)), None


@attempt("epoch-by-strangers", "epoch-signature")
def _epoch_strangers(town: Town) -> tuple[bytes, None]:
    return setting(town, next_epoch(town), new_key(), new_key()), None


@attempt("epoch-of-another-chain", "wrong-chain")
def _epoch_chain(town: Town) -> tuple[bytes, None]:
    return setting(town, next_epoch(town, chain="another")), None


@attempt("epoch-that-no-witnesses-can-meet", "bad-epoch-statement")
def _epoch_threshold(town: Town) -> tuple[bytes, None]:
    return setting(town, next_epoch(town, threshold=len(epoch_now(town).witnesses) + 1)), None


@attempt("epoch-submitted-by-one-member", "not-endorsed")
def _epoch_not_endorsed(town: Town) -> tuple[bytes, None]:
    return setting(town, next_epoch(town), by=(town.market.member(1),)), None


@attempt("epoch-submitted-with-a-stranger", "unknown-key")
def _epoch_stranger(town: Town) -> tuple[bytes, None]:
    return setting(town, next_epoch(town), by=(*members(town), new_key())), None


@attempt("epoch-submission-forged", "bad-signature")
def _epoch_forged(town: Town) -> tuple[bytes, None]:
    return forged(setting(town, next_epoch(town))), None


@attempt("epoch-out-of-turn", "wrong-sequence")
def _epoch_sequence(town: Town) -> tuple[bytes, None]:
    return setting(town, next_epoch(town), sequence=77), None


@attempt("epoch-that-leaves-one-out", "wrong-epoch")
def _epoch_skipped(town: Town) -> tuple[bytes, None]:
    return setting(town, next_epoch(town, number=epoch_now(town).number + 2)), None


@attempt("epoch-at-once", "epoch-too-soon")
def _epoch_soon(town: Town) -> tuple[bytes, None]:
    return setting(town, next_epoch(town, first_height=town.market.height() + 1)), None


def with_one_pending(town: Town) -> EpochStatement:
    """Set an epoch honestly, and let the one pending before begin first."""
    while town.epoch is not None and town.market.height() < town.epoch.first_height:
        town.submit(honest_registration(town, new_key()))
    town.epoch = next_epoch(town, first_height=town.market.height() + 12)
    town.submit(setting(town, town.epoch))
    return town.epoch


@attempt("epoch-while-one-is-pending", "epoch-pending")
def _epoch_pending(town: Town) -> tuple[bytes, bytes]:
    with_one_pending(town)
    return setting(town, next_epoch(town)), honest_registration(town, new_key())


@dataclass(slots=True)
class Rising:
    """The root that would follow, with its keys."""

    statement: RootStatement
    keys: tuple[SigningKey, ...]


def rising(town: Town, **changes: object) -> Rising:
    keys = tuple(sorted((new_key() for _ in range(3)), key=lambda one: one.public))
    root = known_root(town.market.genesis.root)
    following = replace(root, version=root.version + 1, keys=tuple(one.public for one in keys))
    return Rising(replace(following, **changes), keys)  # type: ignore[arg-type]


def rotating(
    town: Town,
    one: Rising,
    *signers: Signer,
    epoch: bytes | None = None,
    by: tuple[Signer, ...] = (),
    sequence: int | None = None,
) -> bytes:
    """Return what rotates the root, as it should be but for what is given."""
    begun(town)
    statement = one.statement.sign(signers or (*members(town), *one.keys[:2]))
    again = epoch_now(town).sign(one.keys[:2]) if epoch is None else epoch
    number = one.statement.version if sequence is None else sequence
    return town.make(RotateRoot(statement, again), *(by or one.keys[:2]), sequence=number)


def begun(town: Town) -> None:
    """Let the epoch that is pending begin."""
    while town.epoch is not None and town.market.height() < town.epoch.first_height:
        town.submit(honest_registration(town, new_key()))


@attempt("root-without-the-one-before", "root-signature")
def _root_usurped(town: Town) -> tuple[bytes, None]:
    one = rising(town)
    return rotating(town, one, *one.keys[:2]), None


@attempt("root-by-one-of-those-before", "root-signature")
def _root_alone(town: Town) -> tuple[bytes, None]:
    one = rising(town)
    return rotating(town, one, town.market.member(1), *one.keys[:2]), None


@attempt("root-with-a-stranger", "root-signature")
def _root_stranger(town: Town) -> tuple[bytes, None]:
    one = rising(town)
    return rotating(town, one, *members(town), *one.keys[:2], new_key()), None


@attempt("root-that-cannot-be-met", "bad-root-statement")
def _root_threshold(town: Town) -> tuple[bytes, None]:
    return rotating(town, rising(town, threshold=4)), None


@attempt("root-of-another-chain", "wrong-chain")
def _root_chain(town: Town) -> tuple[bytes, None]:
    return rotating(town, rising(town, chain="another")), None


@attempt("root-that-leaves-one-out", "wrong-root-version")
def _root_version(town: Town) -> tuple[bytes, None]:
    return rotating(town, rising(town, version=3)), None


@attempt("root-submitted-by-one-key", "not-endorsed")
def _root_not_endorsed(town: Town) -> tuple[bytes, None]:
    one = rising(town)
    return rotating(town, one, by=one.keys[:1]), None


@attempt("root-submitted-with-a-stranger", "unknown-key")
def _root_unknown(town: Town) -> tuple[bytes, None]:
    one = rising(town)
    return rotating(town, one, by=(*one.keys[:2], new_key())), None


@attempt("root-submission-forged", "bad-signature")
def _root_forged(town: Town) -> tuple[bytes, None]:
    return forged(rotating(town, rising(town))), None


@attempt("root-out-of-turn", "wrong-sequence")
def _root_sequence(town: Town) -> tuple[bytes, None]:
    return rotating(town, rising(town), sequence=77), None


@attempt("root-with-the-epoch-as-it-was-signed", "epoch-signature")
def _root_old_epoch(town: Town) -> tuple[bytes, None]:
    begun(town)
    return rotating(town, rising(town), epoch=epoch_now(town).sign(members(town))), None


@attempt("root-with-another-epoch", "wrong-epoch")
def _root_other_epoch(town: Town) -> tuple[bytes, None]:
    """With a new root its keys put witnesses of their own in place, without anybody being asked about the epoch."""
    one = rising(town)
    begun(town)
    witnesses = tuple(sorted(new_key().public for _ in epoch_now(town).witnesses))
    return rotating(town, one, epoch=replace(epoch_now(town), witnesses=witnesses).sign(one.keys[:2])), None


@attempt("root-while-an-epoch-is-pending", "epoch-pending")
def _root_pending(town: Town) -> tuple[bytes, None]:
    one = rising(town)
    begun(town)
    before = epoch_now(town)
    with_one_pending(town)
    statement = one.statement.sign((*members(town), *one.keys[:2]))
    body = RotateRoot(statement, before.sign(one.keys[:2]))
    return town.make(body, *one.keys[:2], sequence=one.statement.version), None


# --- all of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(ATTEMPTS))
def test_what_a_rule_forbids_is_refused(town: Town, name: str) -> None:
    """Whoever may not, or may not now: exactly his transaction is refused, and the ledger stays as it is."""
    prepare, code = ATTEMPTS[name]
    for _ in range(20 if name == RACING else 1):
        bad, good = prepare(town)
        before = town.market.counts()
        said = town.market.post(bad)
        if said.code == code:
            break
    assert (said.status // 100, said.code) == (4, code), said.fields()
    assert town.market.counts() == before
    assert ask(f"{town.market.node}/v1/transactions/{parse(bad).id.hex()}", method="GET").status == 404
    if good is not None:
        town.submit(good)
        assert town.market.counts() != before


def test_no_transaction_works_for_longer_than_a_block_can_bear(monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner whose budget is large spends more of it in one transaction than every node has time for."""
    ledger, maker, owner = MemoryLedger(), P256Key("maker"), P256Key("owner")
    batch = ledger.anchor(maker, ledger.register(maker), owner, size=2**22)
    state, transaction = ledger.state, parse(ledger.sign(Withdraw(batch, 1), owner))

    def worked(nodes: int) -> int:
        return holding.debit(Draft(state, transaction, height=9, time=ledger.time), batch, nodes)

    most = holding.MAX_WORK - holding.TRANSACTION_WORK
    assert worked(most) == holding.MAX_WORK
    assert refused(lambda: worked(most + 1)) == "too-much-work"
    monkeypatch.setattr(holding, "MAX_WORK", 64)
    ledger.do(Deploy(batch, 1, bytes(32), SOME), owner)
    far = Selection.of(range(64, 2**12, 64))
    assert ledger.refused(Deploy(batch, 1, bytes(32), far), owner) == "too-much-work"
