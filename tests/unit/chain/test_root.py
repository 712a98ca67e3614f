from dataclasses import replace

import pytest

from firstlight import cose
from firstlight.chain.root import (
    MAX_WALK,
    EpochStatement,
    RootStatement,
    known_epoch,
    known_root,
    open_epoch,
    open_root,
    walk,
)
from firstlight.errors import FirstlightError, MalformedError
from firstlight.testing.chains import Consortium, P256Key

OLD = replace(Consortium.of(roots=3), root_threshold=2)
NEW = replace(OLD, version=2, roots=(OLD.roots[0], P256Key("n1"), P256Key("n2")))


def code(call: object, *arguments: object, **named: object) -> str:
    with pytest.raises(FirstlightError) as caught:
        call(*arguments, **named)  # type: ignore[operator]
    return caught.value.code


def test_the_walk_takes_each_version_signed_by_old_and_new() -> None:
    third = replace(NEW, version=3)
    second = NEW.signed_root(*OLD.roots)
    assert walk(OLD.root, []) == OLD.root
    assert walk(OLD.root, [second]) == NEW.root
    assert walk(OLD.root, [second, third.signed_root()]) == third.root
    assert known_root(second) == NEW.root


def test_the_threshold_of_both_is_needed() -> None:
    old, new = OLD.roots, NEW.roots
    assert walk(OLD.root, [NEW.root.sign([old[0], old[1], new[1]])]) == NEW.root
    assert code(walk, OLD.root, [NEW.root.sign([old[0], new[1], new[2]])]) == "root-signature"
    assert code(walk, OLD.root, [NEW.root.sign(old)]) == "root-signature"


def test_versions_are_not_skipped_or_repeated() -> None:
    assert code(walk, OLD.root, [replace(NEW, version=3).signed_root(*OLD.roots)]) == "root-version"
    assert code(walk, OLD.root, [OLD.signed_root()]) == "root-version"


def test_other_chain_and_too_many() -> None:
    assert code(walk, OLD.root, [replace(NEW, chain="test-2").signed_root(*OLD.roots)]) == "wrong-chain"
    assert code(walk, OLD.root, [b""] * (MAX_WALK + 1)) == "root-walk-too-long"


def test_a_signature_by_a_stranger_or_a_broken_one() -> None:
    stranger = NEW.signed_root(*OLD.roots, P256Key("stranger"))
    assert code(walk, OLD.root, [stranger]) == "root-signature"
    good = NEW.signed_root(*OLD.roots)
    signed = cose.parse(good, typ="application/firstlight-root+cbor")
    broken = replace(signed, payload=replace(NEW.root, threshold=1).encode()).encode()
    assert code(walk, OLD.root, [broken]) == "root-signature"


def test_keys_and_threshold_of_a_statement() -> None:
    keys = OLD.root.keys
    for wrong in (
        RootStatement("test-1", 1, 1, (keys[1], keys[0])),
        RootStatement("test-1", 1, 1, (keys[0], keys[0])),
        RootStatement("test-1", 1, 4, keys),
    ):
        assert code(open_root, wrong.sign(OLD.roots)) == "bad-root-statement"
    assert open_root(OLD.signed_root()) == OLD.root


def test_a_statement_of_another_type_or_by_one_signer_form() -> None:
    assert code(open_root, OLD.signed_epoch()) == "wrong-type"
    single = cose.sign1(OLD.root.encode(), typ="application/firstlight-root+cbor", signer=OLD.roots[0])
    assert code(open_root, single) == "root-signature"
    with pytest.raises(MalformedError):
        open_root(b"\x80")


def test_an_epoch_needs_the_threshold_of_the_root_in_force() -> None:
    assert open_epoch(OLD.signed_epoch(), OLD.root) == OLD.epoch
    assert known_epoch(OLD.signed_epoch()) == OLD.epoch
    assert code(open_epoch, OLD.epoch.sign(OLD.roots[:1]), OLD.root) == "epoch-signature"
    assert code(open_epoch, OLD.signed_epoch(), NEW.root) == "epoch-signature"


def test_the_same_epoch_signed_again_by_a_newer_root_keeps_its_hash() -> None:
    again = OLD.epoch.sign(NEW.roots)
    assert open_epoch(again, NEW.root).hash() == OLD.epoch.hash()


def test_epochs_of_other_chains_and_with_wrong_keys() -> None:
    assert code(open_epoch, replace(OLD, chain="test-2").signed_epoch(), OLD.root) == "wrong-chain"
    epoch = OLD.epoch
    for wrong in (
        replace(epoch, threshold=4),
        replace(epoch, witnesses=tuple(reversed(epoch.witnesses))),
    ):
        assert code(open_epoch, wrong.sign(OLD.roots), OLD.root) == "bad-epoch-statement"
    assert EpochStatement.decode(epoch.encode()) == epoch
