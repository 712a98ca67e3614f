"""Those who sign for the ledger, and should not: retired ones, too few of them, and roots that were superseded.

The chain is the test's own, with all its keys; the devices and the witness that it is shown to are real processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from firstlight.chain.commit import ValidatorSet, make_commit
from firstlight.chain.witness import WitnessRequest, WitnessSignature
from firstlight.cli.demo.commands import ENVIRONMENT, arguments
from firstlight.cli.processes import Family
from firstlight.custody.system import SystemClock
from firstlight.discovery.bundle import Bundle, BundleRequest, HeadProof
from firstlight.discovery.machine import Failed
from firstlight.engines.port import Genesis
from firstlight.files import private_directory, write_atomic
from firstlight.ledger.records import GOVERNANCE
from firstlight.roles.consortium import GENESIS, WITNESS
from firstlight.roles.wire import HeaderAnswer, Proofs, ProofsRequest, ProvenState
from firstlight.roles.witness import MEMORY, Memory
from firstlight.settings import WitnessSettings, write_initial
from firstlight.testing.bundles import Ledger, governance
from firstlight.testing.chains import SECOND, Block, Consortium, Ed25519Key, P256Key
from firstlight.testing.handheld import Handheld, Said, ask
from firstlight.testing.interceptor import Answered, Asked, Dropped, Forward, Interceptor
from firstlight.testing.staged import Staged, Tell, staged
from firstlight.transports.body import CBOR

PATIENCE = 180.0
GRANTED = "granted"
"""Where the honest exchange ends here: all proven, and the operator's grant."""


def members(validators: int, *, name: str = "validator") -> Consortium:
    """Return a consortium with so many validators, two of three witnesses and two of three members."""
    made = replace(Consortium.of(witnesses=3, roots=3), root_threshold=2)
    return replace(made, validators=tuple(Ed25519Key(f"{name} {one}") for one in range(validators)))


def connects(stage: Staged, index: int) -> None:
    """Check the honest exchange: a new device discovers and is granted a subscription."""
    codes = stage.run(index, GRANTED)
    assert "discovered" in codes


def discovers(stage: Staged, index: int) -> None:
    """Let a device discover and no more, so that it knows root, epoch and tenure."""
    stage.relays = False
    stage.run(index, "discovered")
    stage.relays = True


@dataclass(slots=True)
class Deceiver:
    """Tells devices lies. Each lie is told to a device in the test's hands; the first, or all, to a process too."""

    stage: Staged
    all: bool
    told: int = 0

    def __call__(self, index: int, tell: Tell, code: str) -> None:
        """Check that a device that is told something believes none of it: no plan, no message 1, no grant."""
        stage = self.stage
        known, before, answered = stage.sight(index), len(stage.told), stage.world.mno.answered
        stage.tell = tell
        try:
            held = Handheld.open(stage.world.directory(index))
            event = held.discover(trust=None if known is None else known.trust)
            codes = stage.run(index, code, "discovered") if self.all or not self.told else [code]
        finally:
            stage.tell = None
        assert isinstance(event, Failed), event
        assert event.code == code
        self.told += 1
        assert len(stage.told) > before
        assert code in codes
        assert {"discovered", GRANTED}.isdisjoint(codes)
        assert (stage.sight(index), stage.world.mno.answered) == (known, answered)


def headed(bundle: Bundle, **changes: object) -> Bundle:
    """Return a bundle with another head."""
    return replace(bundle, head=replace(bundle.head, **changes))  # type: ignore[arg-type]


# --- validators ---------------------------------------------------------------------------------


def test_retired_validators_prove_nothing(tmp_path: Path, full: bool) -> None:
    """Validators of the epoch before sign a state of their own, to devices that know nothing yet and to others.

    They sell the devices on to themselves. No witness helps them: those of the real head are all that they can show.
    """
    old = members(3)
    with staged(tmp_path, old) as stage:
        connects(stage, 0)
        deceived = Deceiver(stage, full)
        new = replace(old, number=2, validators=members(3, name="successor").validators)
        stage.govern(new)
        stage.ledger.at += 10
        stage.ledger.records[GOVERNANCE] = governance(new.root, new.epoch)
        connects(stage, 1)
        discovers(stage, 2)
        theirs = Ledger(old, size=stage.ledger.size, at=stage.ledger.at + 1, leaves=stage.ledger.leaves)
        theirs.records = {**stage.ledger.records, GOVERNANCE: governance(old.root, old.epoch)}

        def retired(request: BundleRequest) -> Bundle:
            head, honest = theirs.block(), stage.ledger.answer(request)
            proof = HeadProof.of(head.header, head.commit, old.validator_set, epoch=old.signed_epoch())
            return Bundle(proof, honest.freshness, theirs.state(request))

        def for_the_new_epoch(request: BundleRequest) -> Bundle:
            return headed(retired(request), epoch=new.signed_epoch())

        def in_their_successors_place(request: BundleRequest) -> Bundle:
            block, validators = stage.ledger.block(), new.validator_set
            hands = {one.public: mine for one, mine in zip(validators.validators, old.validators, strict=True)}
            commit = make_commit(
                old.chain, block.header.height, block.id, validators, hands, time=block.header.time + SECOND
            )
            return stage.ledger.answer(request, block=replace(block, commit=commit))

        deceived(3, retired, "witness-signature")
        deceived(3, lambda request: replace(retired(request), freshness=None), "not-fresh")
        for index in (3, 2):
            deceived(index, for_the_new_epoch, "epoch-validators")
            deceived(index, in_their_successors_place, "commit-signature")
        deceived(2, lambda request: replace(retired(request), freshness=None), "epoch-back")
        connects(stage, 3)


def test_two_thirds_of_the_validators_are_not_enough(tmp_path: Path, full: bool) -> None:
    """A third of the validators, and exactly two thirds, sign that the devices are another's, with honest witnesses.

    One more, and their word would count: that is the honest exchange here.
    """
    consortium = members(6)
    with staged(tmp_path, consortium) as stage:

        def signed(request: BundleRequest, absent: int) -> Bundle:
            block = stage.ledger.block()
            closed = consortium.close(block.header, block.id, absent=absent)
            return stage.ledger.answer(request, block=closed)

        stage.tell = lambda request: signed(request, 1)
        connects(stage, 0)
        discovers(stage, 1)
        stage.tell = None
        stage.ledger.at += 1
        deceived = Deceiver(stage, full)
        for index in (1, 2):
            deceived(index, lambda request: signed(request, 2), "not-enough-power")
            deceived(index, lambda request: signed(request, 4), "not-enough-power")

        def twice(request: BundleRequest) -> Bundle:
            """Four votes, two of them counted again in the place of those who did not sign."""
            bundle = signed(request, 2)
            votes = [one for one in bundle.head.votes.signatures if one.signature]
            doubled = tuple(votes[at % len(votes)] for at in range(6))
            return headed(bundle, votes=replace(bundle.head.votes, signatures=doubled))

        deceived(2, twice, "commit-signature")
        connects(stage, 2)


# --- roots --------------------------------------------------------------------------------------


def test_superseded_roots_are_not_the_newest(tmp_path: Path, full: bool) -> None:
    """Members of earlier root versions, and whoever has fewer than m of their keys, rule a box from the warehouse."""
    first = members(1)
    second = replace(first, version=2, roots=tuple(P256Key(f"second {one}") for one in range(3)))
    third = replace(first, version=3, roots=tuple(P256Key(f"third {one}") for one in range(3)))
    to_second, to_third = second.signed_root(*first.roots[:2]), third.signed_root(*second.roots[:2])
    with staged(tmp_path, first) as stage:
        stage.govern(third)
        stage.ledger.records[GOVERNANCE] = governance(third.root, third.epoch)

        def walked(*roots: bytes, epoch: bytes) -> Tell:
            return lambda request: headed(stage.ledger.answer(request), roots=roots, epoch=epoch)

        newest = third.signed_epoch()

        def honest(request: BundleRequest) -> Bundle:
            roots = () if request.known_root == 3 else (to_second, to_third)
            return headed(stage.ledger.answer(request), roots=roots)

        stage.tell = honest
        connects(stage, 0)
        discovers(stage, 1)
        sight = stage.sight(1)
        assert sight is not None
        assert sight.trust.root == to_third
        stolen = replace(second, roots=tuple(P256Key(f"thief {one}") for one in range(3)))
        deceived = Deceiver(stage, full)
        one_key = stolen.signed_root(first.roots[0])
        for roots, epoch, code in (
            ((), first.signed_epoch(), "governance-root"),
            ((to_second,), second.signed_epoch(), "governance-root"),
            ((to_third,), newest, "root-signature"),
            ((third.signed_root(*first.roots),), newest, "root-version"),
            ((to_third, to_second), newest, "root-signature"),
            ((to_second, to_second), second.signed_epoch(), "root-signature"),
            ((one_key,), stolen.signed_epoch(), "root-signature"),
            ((to_second, to_third), second.signed_epoch(), "epoch-signature"),
            ((to_second, to_third), first.signed_epoch(), "epoch-signature"),
        ):
            deceived(2, walked(*roots, epoch=epoch), code)
        for roots, epoch, code in (
            ((), first.signed_epoch(), "epoch-signature"),
            ((), second.signed_epoch(), "epoch-signature"),
            ((to_second,), second.signed_epoch(), "root-signature"),
            ((to_second, to_third), newest, "root-signature"),
            ((replace(third, version=4).signed_root(*third.roots),), newest, "governance-root"),
        ):
            deceived(1, walked(*roots, epoch=epoch), code)
        stage.tell = honest
        connects(stage, 2)


# --- what a witness is shown ----------------------------------------------------------------------


@dataclass(slots=True)
class Shown:
    """A node that shows a witness whatever the test has made."""

    ledger: Ledger
    at: dict[int, HeaderAnswer] = field(default_factory=dict)
    newest: int = 0
    asked: int = 0

    def show(self, block: Block, validators: ValidatorSet, following: ValidatorSet | None = None) -> None:
        """Have the newest header be this one."""
        self.newest = block.header.height
        self.at[self.newest] = HeaderAnswer(block.header, block.commit, validators, following or validators)

    def answer(self, asked: Asked, _: Forward) -> Answered:
        """Answer as a node."""
        kind, which = [*asked.path.removeprefix("/v1/").split("/"), ""][:2]
        self.asked += 1
        newest = self.at[self.newest]
        if kind == "headers":
            found = newest if which == "latest" else self.at.get(int(which))
            if found is None:
                raise Dropped
            return Answered(200, CBOR, found.encode())
        (request,) = ProofsRequest.decode(asked.body).requests
        epoch = self.ledger.consortium.signed_epoch()
        head = HeadProof.of(newest.header, newest.commit, newest.validators, epoch=epoch)
        state = ProvenState(self.ledger.state(request).encode(), "", "")
        return Answered(200, CBOR, Proofs(1, head, (state,)).encode())


@contextmanager
def witness(
    root: Path, node: str, consortium: Consortium, first: Block
) -> Iterator[tuple[Path, Callable[[int], Said]]]:
    """Run a witness process of ``consortium`` that follows ``node``; give its directory and what asks it to sign."""
    at = private_directory(root / "witness")
    chain, pem = (
        consortium.chain,
        consortium.witnesses[0].private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
    begun = Genesis(
        chain, first.header.time, consortium.signed_root(), consortium.signed_epoch(), consortium.validator_set
    )
    write_atomic(at / GENESIS, begun.encode())
    write_atomic(at / WITNESS, b"Use: signing\n" + pem)
    write_initial(WitnessSettings(chain=chain), at)
    with Family(root / "output") as family:
        words = arguments("consortium", "witness", at, "--node", node)
        url = family.wait_for_endpoint(family.start("witness", words, environment=ENVIRONMENT, state_dir=at))
        yield at, lambda height: ask(f"{url}/v1/witness", WitnessRequest(chain, height, bytes(32)).encode())


def test_a_witness_is_moved_by_no_third_of_the_validators_and_by_no_retired_ones(tmp_path: Path) -> None:
    """The node of a third of the validators, and of retired ones, shows a witness their own header as the newest."""
    old = members(6)
    new = replace(old, validators=members(6, name="successor").validators)
    ledger, began = Ledger(old), SystemClock().now() // SECOND - 100
    app_hash = ledger.tree().root
    first = old.block(app_hash, time=began)
    second = old.block(app_hash, previous=first, time=began + 1)
    third = old.block(app_hash, previous=second, time=began + 2)
    handing_over = old.close(replace(third.header, next_validators_hash=new.validator_set.hash()), third.id)
    fourth = new.block(app_hash, previous=handing_over, time=began + 3)
    shown, ours, theirs = Shown(ledger), old.validator_set, new.validator_set
    with Interceptor() as node, node.bending("/", shown.answer), witness(tmp_path, node.url, old, first) as (at, sign):

        def refuses(height: int, code: str) -> None:
            before = (at / MEMORY).read_bytes()
            said = sign(height)
            assert (said.status >= 400, said.code) == (True, code)
            assert (at / MEMORY).read_bytes() == before

        shown.show(first, ours)
        shown.show(second, ours)
        assert sign(2).status == 200
        for absent, code in ((2, "not-enough-power"), (4, "not-enough-power")):
            shown.show(old.close(third.header, third.id, absent=absent), ours)
            refuses(3, code)
        shown.show(handing_over, ours, theirs)
        assert sign(3).status == 200
        shown.show(old.block(app_hash, previous=handing_over, time=began + 3), ours)
        refuses(4, "next-validators")
        shown.show(fourth, theirs)
        assert WitnessSignature.decode(sign(4).body).witness in range(3)
        assert Memory.decode((at / MEMORY).read_bytes()).header == fourth.header


def test_two_headers_of_one_height_stop_a_witness_for_good(tmp_path: Path) -> None:
    """Validators sign two headers of one height; the witness that is shown both signs nothing any more.

    Nor does it once it is started again, and is shown the first one alone.
    """
    consortium = members(4)
    ledger, began = Ledger(consortium), SystemClock().now() // SECOND - 100
    app_hash, ours = ledger.tree().root, consortium.validator_set
    first = consortium.block(app_hash, time=began)
    one = consortium.block(app_hash, previous=first, time=began + 1)
    other = consortium.block(bytes(32), previous=first, time=began + 1)
    shown = Shown(ledger)
    with Interceptor() as node, node.bending("/", shown.answer):
        with witness(tmp_path, node.url, consortium, first) as (at, sign):
            shown.show(first, ours)
            shown.show(one, ours)
            assert sign(2).status == 200
            before = (at / MEMORY).read_bytes()
            too_few = consortium.close(other.header, other.id, absent=2)
            shown.show(too_few, ours)
            end = time.monotonic() + PATIENCE
            while (said := sign(2)).status == 200:
                assert time.monotonic() < end
            assert said.code == "not-enough-power"
            assert (at / MEMORY).read_bytes() == before
            shown.show(other, ours)
            assert sign(2).code == "chain-forked"
            assert "chain-forked" in (at / "log.jsonl").read_text()
            assert Memory.decode((at / MEMORY).read_bytes()).forked
        shown.show(one, ours)
        (at / "endpoint").unlink(missing_ok=True)
        with Family(tmp_path / "again") as family:
            words = arguments("consortium", "witness", at, "--node", node.url)
            url = family.wait_for_endpoint(family.start("again", words, environment=ENVIRONMENT, state_dir=at))
            said = ask(f"{url}/v1/witness", WitnessRequest(consortium.chain, 2, bytes(32)).encode())
            assert said.code == "chain-forked"
