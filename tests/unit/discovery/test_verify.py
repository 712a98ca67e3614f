from collections.abc import Callable
from dataclasses import replace

import pytest

from firstlight.chain.commit import Flag
from firstlight.chain.root import MAX_WALK
from firstlight.discovery.bundle import Bundle, BundleRequest, StateProof, proven_names
from firstlight.discovery.verify import CHECKS, Trust, View, verify_bundle, verify_follow_up
from firstlight.errors import FirstlightError, MalformedError
from firstlight.ledger.records import (
    GOVERNANCE,
    Governance,
    TenureState,
    party_name,
    revocation_name,
    tenure_name,
    tree_key,
)
from firstlight.testing.bundles import BATCH, ISSUER, NETWORK, PLAN, Ledger, governance, origin, under
from firstlight.testing.chains import GENESIS, Consortium, Ed25519Key, P256Key
from firstlight.trees.ownership import Split, Uniform

NONCE = b"n" * 32
NAMES = (party_name(NETWORK), party_name(bytes(16)), revocation_name(ISSUER, bytes(32)))


def ask(ledger: Ledger, trust: Trust | None = None, prefix: tuple[int, int] = (0, 0)) -> BundleRequest:
    return (trust or ledger.trust).request(NONCE, batch=BATCH, prefix=prefix, names=NAMES)


def known(ledger: Ledger, **changes: object) -> Trust:
    """Return what a device stored after it had verified the ledger."""
    request = ask(ledger)
    trust = verify_bundle(ledger.answer(request), request, trust=ledger.trust).trust
    return replace(trust, **changes)  # type: ignore[arg-type]


def view_of(ledger: Ledger, request: BundleRequest | None = None, trust: Trust | None = None) -> View:
    request = request or ask(ledger)
    return verify_bundle(ledger.answer(request), request, trust=trust or ledger.trust, batch_size=ledger.size)


# --- what an honest bundle says -----------------------------------------------------------------


def test_a_device_on_its_first_day() -> None:
    ledger = Ledger()
    trust, request = ledger.trust, ask(ledger)
    view = verify_bundle(ledger.answer(request), request, trust=trust, batch_size=1024)
    assert (view.height, view.header_time, view.time) == (10, GENESIS + 10, GENESIS + 500)
    assert view.owned == Uniform(2)
    assert view.standing is not None
    assert (view.standing.number, view.standing.origin, view.standing.plan) == (2, 2, PLAN)
    assert view.batch is not None
    assert view.batch.size == 1024
    network = view.party(NETWORK)
    assert network is not None
    assert network.endpoints[0].endswith("network")
    assert view.party(bytes(16)) is None
    assert view.revocation(NAMES[2]) is None
    assert view.trust == replace(trust, epoch=view.trust.epoch, height=10, tenure=2, revision=1)


def test_a_record_not_asked_for_is_an_error() -> None:
    view = view_of(Ledger())
    for wrong in (lambda: view.party(ISSUER), lambda: view.reference(NAMES[0])):
        with pytest.raises(FirstlightError) as caught:
            wrong()
        assert caught.value.code == "not-asked"


def test_what_is_known_is_not_sent_again() -> None:
    ledger = Ledger()
    trust = known(ledger)
    request = ask(ledger, trust)
    bundle = ledger.answer(request)
    assert bundle.head.epoch is None
    assert verify_bundle(bundle, request, trust=trust).trust == trust


def test_bundles_and_requests_travel() -> None:
    ledger = Ledger()
    request = ask(ledger)
    bundle = ledger.answer(request)
    assert BundleRequest.decode(request.encode()) == request
    assert Bundle.decode(bundle.encode()) == bundle
    trust = ledger.trust
    assert Trust.decode(trust.encode()) == trust


def test_records_without_a_batch() -> None:
    ledger = Ledger()
    request = ledger.trust.request(NONCE, names=(party_name(NETWORK),))
    view = verify_bundle(ledger.answer(request), request, trust=ledger.trust)
    assert view.standing is None
    assert view.owned is None
    assert view.party(NETWORK) is not None
    assert view.trust.height == 10


def test_a_newer_root_and_the_epoch_it_signs() -> None:
    old = Consortium.of()
    new = replace(old, version=2, roots=(P256Key("next root"),))
    ledger = Ledger(new)
    trust = Trust.at_birth(old.chain, old.signed_root())
    request = ask(ledger, trust)
    bundle = ledger.answer(request)
    walked = replace(bundle, head=replace(bundle.head, roots=(new.signed_root(*old.roots),)))
    view = verify_bundle(walked, request, trust=trust)
    assert view.root == new.root
    assert view.trust.root == walked.head.roots[0]


def test_the_announced_next_epoch_counts_too() -> None:
    ledger = Ledger()
    now = ledger.consortium
    following = replace(now, number=2, validators=(Ed25519Key("next validator"),))
    announced = replace(governance(now.root, now.epoch), next_epoch=2, next_epoch_hash=following.epoch.hash())
    for consortium in (now, following):
        both = Ledger(consortium, records={})
        both.records[GOVERNANCE] = announced
        assert view_of(both).epoch == consortium.epoch


def test_an_offer_that_nobody_accepted_counts_as_what_was_sold() -> None:
    ledger = Ledger()
    offered = replace(
        origin(3, 0, previous=2), state=TenureState.OFFERED, origin=2, key=None, expiry=GENESIS + 9999, accepted_at=0
    )
    offered = replace(offered, origin=3)
    ledger.split(0, 512, 3, offered)
    view = view_of(ledger, ask(ledger, prefix=(0, 1)))
    assert view.owned == Uniform(3)
    assert view.standing is not None
    assert (view.standing.number, view.standing.offer) == (2, 3)


def test_a_split_region_asks_for_a_longer_prefix_under_the_same_head() -> None:
    ledger = Ledger()
    ledger.split(0, 512, 3, origin(3, 512, previous=2, plan=bytes(32)))
    view = view_of(ledger)
    assert view.split
    assert isinstance(view.owned, Split)
    assert view.standing is None
    assert view.trust.tenure == 0
    longer = replace(ask(ledger), height=view.height, prefix_bits=0, prefix_length=1)
    state = ledger.state(longer)
    assert StateProof.decode(state.encode()) == state
    followed = verify_follow_up(state, longer, view=view, batch_size=1024)
    assert followed.owned == Uniform(3)
    assert followed.trust.tenure == 3
    assert followed.party(NETWORK) is not None
    assert followed.batch == view.batch
    more = replace(ledger.trust.request(NONCE, names=(party_name(ISSUER),)), height=view.height)
    wider = verify_follow_up(ledger.state(more), more, view=followed)
    assert wider.standing == followed.standing
    assert wider.party(ISSUER) is not None
    assert wider.party(NETWORK) is not None


def test_a_batch_that_is_no_power_of_two_is_split_at_the_top() -> None:
    ledger = Ledger(size=1000)
    assert view_of(ledger).split
    bits, length = ledger.trie.covering_prefix(999)
    assert view_of(ledger, ask(ledger, prefix=(bits, length))).owned == Uniform(2)


def test_follow_ups_are_for_the_opened_head_and_its_state() -> None:
    ledger = Ledger()
    view = view_of(ledger)
    request = replace(ask(ledger), height=view.height)
    with pytest.raises(FirstlightError) as caught:
        verify_follow_up(ledger.state(request), replace(request, height=11), view=view)
    assert caught.value.code == "other-head"
    ledger.records[party_name(NETWORK)] = replace(ledger.records[party_name(NETWORK)], revision=2)
    with pytest.raises(FirstlightError) as caught:
        verify_follow_up(ledger.state(request), request, view=view)
    assert caught.value.code == "bad-state-proof"


def test_without_witnesses_only_the_known_tenure_counts() -> None:
    ledger = Ledger()
    trust = known(ledger)
    request = ask(ledger, trust)
    silent = replace(ledger.answer(request), freshness=None)
    assert verify_bundle(silent, request, trust=trust).time is None
    assert verify_bundle(silent, request, trust=trust).trust == trust


def test_a_split_region_without_witnesses_lets_nothing_new_through_later() -> None:
    ledger = Ledger()
    ledger.split(0, 512, 3, origin(3, 512, previous=2))
    trust = Trust(ledger.trust.chain, ledger.trust.root, ledger.consortium.signed_epoch(), 1, 2, 1)
    request = ask(ledger, trust)
    view = verify_bundle(replace(ledger.answer(request), freshness=None), request, trust=trust)
    longer = replace(request, height=view.height, prefix_length=1)
    with pytest.raises(FirstlightError) as caught:
        verify_follow_up(ledger.state(longer), longer, view=view)
    assert caught.value.code == "not-fresh"


def test_requests_that_do_not_fit() -> None:
    for wrong, code in (
        (lambda: BundleRequest(NONCE, 0, 1, 0, BATCH, 2, 1, ()), "bad-prefix"),
        (lambda: BundleRequest(NONCE, 0, 1, 0, None, 0, 1, ()), "bad-prefix"),
        (lambda: BundleRequest(NONCE, 0, 1, 0, None, 0, 0, ("party/00", "party/00")), "name-twice"),
    ):
        with pytest.raises(MalformedError) as caught:
            wrong()
        assert caught.value.code == code


def test_names_of_no_namespace_are_not_taken_for_records() -> None:
    ledger = Ledger()
    ledger.records["mail/00"] = ledger.records[GOVERNANCE]
    request = ledger.trust.request(NONCE, names=("mail/00",))
    with pytest.raises(MalformedError) as caught:
        verify_bundle(ledger.answer(request), request, trust=ledger.trust)
    assert caught.value.code == "unknown-namespace"


# --- what a gateway may try: at least one attempt for each code of each check ---------------------

Attempt = Callable[[], View]
ATTEMPTS: dict[tuple[str, str], Attempt] = {}


def attempt(check: str, code: str) -> Callable[[Attempt], Attempt]:
    def register(function: Attempt) -> Attempt:
        ATTEMPTS[check, code] = function
        return function

    return register


def tampered(change: Callable[[Ledger, Bundle], Bundle], ledger: Ledger | None = None, **trusted: object) -> View:
    """Verify an honest bundle first, then the same one changed."""
    ledger = ledger or Ledger()
    request = ask(ledger)
    bundle = ledger.answer(request)
    verify_bundle(bundle, request, trust=ledger.trust, batch_size=ledger.size)
    trust = replace(ledger.trust, **trusted)  # type: ignore[arg-type]
    return verify_bundle(change(ledger, bundle), request, trust=trust, batch_size=ledger.size)


def head(bundle: Bundle, **changes: object) -> Bundle:
    return replace(bundle, head=replace(bundle.head, **changes))  # type: ignore[arg-type]


def votes(bundle: Bundle, **changes: object) -> Bundle:
    return head(bundle, votes=replace(bundle.head.votes, **changes))  # type: ignore[arg-type]


def state(bundle: Bundle, **changes: object) -> Bundle:
    return replace(bundle, state=replace(bundle.state, **changes))  # type: ignore[arg-type]


def fresh(bundle: Bundle, **changes: object) -> Bundle:
    assert bundle.freshness is not None
    return replace(bundle, freshness=replace(bundle.freshness, **changes))  # type: ignore[arg-type]


def rooted(change: Callable[[Consortium], bytes]) -> View:
    return tampered(lambda ledger, bundle: head(bundle, roots=(change(ledger.consortium),)))


OTHER = (P256Key("mallory"),)
ATTEMPTS["root-walk", "wrong-chain"] = lambda: tampered(lambda _, bundle: bundle, chain="test-2")
ATTEMPTS["root-walk", "root-walk-too-long"] = lambda: tampered(
    lambda _, bundle: head(bundle, roots=(b"x",) * (MAX_WALK + 1))
)
ATTEMPTS["root-walk", "root-version"] = lambda: rooted(lambda one: one.signed_root())
ATTEMPTS["root-walk", "root-signature"] = lambda: rooted(lambda one: replace(one, version=2, roots=OTHER).signed_root())
ATTEMPTS["root-walk", "bad-root-statement"] = lambda: rooted(
    lambda one: replace(one, version=2, root_threshold=2).signed_root()
)

ATTEMPTS["epoch", "epoch-missing"] = lambda: tampered(lambda _, bundle: head(bundle, epoch=None))
ATTEMPTS["epoch", "wrong-chain"] = lambda: tampered(
    lambda ledger, bundle: head(bundle, epoch=replace(ledger.consortium, chain="test-2").signed_epoch())
)
ATTEMPTS["epoch", "epoch-signature"] = lambda: tampered(
    lambda ledger, bundle: head(bundle, epoch=ledger.consortium.epoch.sign(OTHER))
)
ATTEMPTS["epoch", "bad-epoch-statement"] = lambda: tampered(
    lambda ledger, bundle: head(bundle, epoch=replace(ledger.consortium, witness_threshold=4).signed_epoch())
)


@attempt("epoch", "epoch-back")
def _older_epoch() -> View:
    newer = replace(Consortium.of(), number=2)
    return tampered(lambda _, bundle: bundle, epoch=newer.signed_epoch())


def test_a_known_epoch_does_not_outlive_its_root() -> None:
    """A new root without the epoch would leave an epoch in force that only the old keys signed."""
    old = Consortium.of()
    new = replace(old, version=2, roots=(P256Key("next root"),))
    ledger = Ledger(new)
    trust = Trust(old.chain, old.signed_root(), old.signed_epoch(), 0, 0, 0)
    request = ask(ledger, trust)
    bundle = head(ledger.answer(request), roots=(new.signed_root(*old.roots),))
    assert bundle.head.epoch is None
    with pytest.raises(FirstlightError) as caught:
        verify_bundle(bundle, request, trust=trust)
    assert caught.value.code == "epoch-missing"
    again = head(bundle, epoch=new.signed_epoch())
    assert verify_bundle(again, request, trust=trust).root == new.root


ATTEMPTS["header", "block-version"] = lambda: tampered(lambda ledger, one: under(ledger, one, block_version=12))
ATTEMPTS["header", "epoch-validators"] = lambda: tampered(
    lambda _, one: head(one, validators=Consortium.of(validators=2).validator_set)
)
ATTEMPTS["header", "commit-size"] = lambda: tampered(
    lambda _, one: votes(one, signatures=one.head.votes.signatures * 2)
)
ATTEMPTS["header", "bad-commit-entry"] = lambda: tampered(
    lambda _, one: votes(one, signatures=(replace(one.head.votes.signatures[0], signature=b""),))
)
ATTEMPTS["header", "commit-signature"] = lambda: tampered(
    lambda _, one: votes(one, signatures=(replace(one.head.votes.signatures[0], signature=bytes(64)),))
)
ATTEMPTS["header", "not-enough-power"] = lambda: tampered(
    lambda _, one: votes(one, signatures=(replace(one.head.votes.signatures[0], flag=Flag.NIL),))
)


@attempt("header", "bad-validators")
def _same_validator_twice() -> View:
    """An epoch whose validators hash is over one validator twice: two thirds would be one key."""

    def change(ledger: Ledger, bundle: Bundle) -> Bundle:
        one = bundle.head.validators
        twice = replace(one, validators=one.validators * 2)
        epoch = replace(ledger.consortium.epoch, validators_hash=twice.hash())
        return head(bundle, validators=twice, epoch=epoch.sign(ledger.consortium.roots))

    return tampered(change)


@pytest.mark.parametrize(
    "change",
    [
        {"height": 11},
        {"time": 1},
        {"app_hash": bytes(32)},
        {"app_version": 2},
        {"rest": bytes(160)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_votes_are_for_every_part_of_the_header(change: dict[str, object]) -> None:
    with pytest.raises(FirstlightError) as caught:
        tampered(lambda _, one: head(one, header=replace(one.head.header, **change)))  # type: ignore[arg-type]
    assert caught.value.code == "commit-signature"


def test_a_header_of_another_chain_by_the_same_validators() -> None:
    with pytest.raises(FirstlightError) as caught:
        tampered(lambda ledger, one: under(ledger, one, chain="test-2"))
    assert caught.value.code == "commit-signature"


@attempt("header", "before-epoch")
def _head_before_the_epoch() -> View:
    def change(ledger: Ledger, bundle: Bundle) -> Bundle:
        late = replace(ledger.consortium.epoch, first_height=11)
        return head(bundle, epoch=late.sign(ledger.consortium.roots))

    return tampered(change)


def witnesses(bundle: Bundle, *indices: int) -> Bundle:
    assert bundle.freshness is not None
    return fresh(bundle, witnesses=tuple(bundle.freshness.witnesses[one] for one in indices))


@attempt("witnesses", "bad-path")
def _wrong_nonce_path() -> View:
    def change(_: Ledger, bundle: Bundle) -> Bundle:
        assert bundle.freshness is not None
        return fresh(bundle, nonce=replace(bundle.freshness.nonce, path=(bytes(32),)))

    return tampered(change)


@attempt("witnesses", "witness-signature")
def _yesterday_s_bundle_with_another_nonce() -> View:
    def change(ledger: Ledger, bundle: Bundle) -> Bundle:
        other = replace(ask(ledger), nonce=b"o" * 32)
        return replace(bundle, freshness=ledger.answer(other).freshness)

    return tampered(change)


ATTEMPTS["witnesses", "bad-witness"] = lambda: tampered(lambda _, one: witnesses(one, 0, 0))
ATTEMPTS["witnesses", "not-enough-witnesses"] = lambda: tampered(lambda _, one: witnesses(one, 0))
ATTEMPTS["watermark", "height-back"] = lambda: tampered(lambda _, one: one, height=11)
ATTEMPTS["state", "wrong-values"] = lambda: tampered(lambda _, one: state(one, values=one.state.values[:-1]))


@attempt("state", "bad-state-proof")
def _another_endpoint() -> View:
    def change(ledger: Ledger, bundle: Bundle) -> Bundle:
        network = ledger.records[party_name(NETWORK)]
        evil = replace(network, endpoints=("http://evil.example",)).encode()  # type: ignore[call-arg]
        values = tuple(evil if value == network.encode() else value for value in bundle.state.values)
        assert values != bundle.state.values
        return state(bundle, values=values)

    return tampered(change)


def governed(record: object) -> View:
    """Verify a bundle of a ledger whose governance record is another one."""
    ledger = Ledger()
    if isinstance(record, Governance):
        ledger.records[GOVERNANCE] = record
    else:
        del ledger.records[GOVERNANCE]
    return view_of(ledger)


def named() -> Governance:
    consortium = Consortium.of()
    return governance(consortium.root, consortium.epoch)


ATTEMPTS["governance", "no-governance"] = lambda: governed(None)
ATTEMPTS["governance", "governance-root"] = lambda: governed(replace(named(), root_version=2))
ATTEMPTS["governance", "governance-epoch"] = lambda: governed(replace(named(), epoch_hash=bytes(32)))


@attempt("batch", "unknown-batch")
def _batch_that_is_not_there() -> View:
    ledger = Ledger()
    request = ledger.trust.request(NONCE, batch=bytes(16))
    return verify_bundle(ledger.answer(request), request, trust=ledger.trust)


@attempt("batch", "batch-size")
def _another_size() -> View:
    ledger = Ledger()
    request = ask(ledger)
    return verify_bundle(ledger.answer(request), request, trust=ledger.trust, batch_size=999)


ATTEMPTS["ownership", "no-ownership-proof"] = lambda: tampered(lambda _, one: state(one, ownership=None))


@attempt("ownership", "bad-ownership-proof")
def _another_owner() -> View:
    def change(_: Ledger, bundle: Bundle) -> Bundle:
        assert bundle.state.ownership is not None
        return state(bundle, ownership=replace(bundle.state.ownership, tenure=1))

    return tampered(change)


def with_tenures(ledger: Ledger, *numbers: int) -> View:
    """Verify a bundle that proves just these tenures, under a head that everybody signed."""
    request = ask(ledger)
    keys = [tree_key(name) for name in proven_names(request, numbers)]
    tree = ledger.tree()
    owned = ledger.trie.prove(0, 0)
    proof = StateProof(numbers, tuple(tree.get(key) for key in keys), tree.prove(keys), owned)
    bundle = replace(Ledger().answer(request, block=ledger.block()), state=proof)
    return verify_bundle(bundle, request, trust=ledger.trust)


ATTEMPTS["tenure", "tenure-missing"] = lambda: with_tenures(Ledger(), 2)
ATTEMPTS["tenure", "wrong-tenures"] = lambda: with_tenures(Ledger(), 1, 2, 3)


@attempt("tenure", "tenure-malformed")
def _a_tenure_sold_by_a_later_one() -> View:
    ledger = Ledger()
    ledger.records[tenure_name(BATCH, 2)] = origin(2, 1024, previous=5)
    return with_tenures(ledger, 1, 2)


ATTEMPTS["tenure", "not-fresh"] = lambda: tampered(lambda _, one: replace(one, freshness=None), tenure=1)


@attempt("tenure", "plan-revision-back")
def _older_plan() -> View:
    ledger = Ledger()
    trust = known(ledger, revision=2)
    request = ask(ledger, trust)
    return verify_bundle(ledger.answer(request), request, trust=trust)


@pytest.mark.parametrize(("check", "code"), sorted(ATTEMPTS), ids=lambda part: part)
def test_attempts(check: str, code: str) -> None:
    with pytest.raises(FirstlightError) as caught:
        ATTEMPTS[check, code]()
    assert caught.value.code == code


def test_every_code_of_every_check_is_attempted() -> None:
    assert set(ATTEMPTS) == {(check, code) for check, codes in CHECKS.items() for code in codes}


def test_records_alone_need_witnesses() -> None:
    ledger = Ledger()
    request = ledger.trust.request(NONCE, names=(party_name(NETWORK),))
    with pytest.raises(FirstlightError) as caught:
        verify_bundle(replace(ledger.answer(request), freshness=None), request, trust=ledger.trust)
    assert caught.value.code == "not-enough-witnesses"


def test_a_fork_signed_by_validators_alone_does_not_pass_the_witnesses() -> None:
    ledger = Ledger()
    request = ask(ledger)
    bundle = ledger.answer(request)
    forged = under(ledger, bundle, app_hash=bytes(32))
    with pytest.raises(FirstlightError) as caught:
        verify_bundle(forged, request, trust=ledger.trust)
    assert caught.value.code == "witness-signature"
