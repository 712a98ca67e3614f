from __future__ import annotations

from dataclasses import replace

import pytest

from firstlight.errors import ProofError
from firstlight.ledger.records import epoch_name, root_name
from firstlight.ledger.rules import begin_block
from firstlight.ledger.state import genesis
from firstlight.ledger.transaction import RotateRoot, SetEpoch
from firstlight.testing.chains import Consortium, P256Key
from firstlight.testing.ledgers import MemoryLedger, register_party

ROOTS = tuple(P256Key(f"root {one}") for one in range(3))
NEW = P256Key("new root")


@pytest.fixture
def ledger() -> MemoryLedger:
    return MemoryLedger(replace(Consortium.of(roots=3), root_threshold=2))


def test_genesis_holds_the_statements_and_what_is_in_force(ledger: MemoryLedger) -> None:
    governance = ledger.state.governance()
    assert (governance.root_version, governance.epoch, governance.next_epoch) == (1, 1, 0)
    assert governance.root_hash == ledger.consortium.root.hash()
    assert governance.epoch_hash == ledger.consortium.epoch.hash()
    assert ledger.state.statement(root_name(1)) is not None
    assert ledger.state.current_root() == ledger.consortium.root


def test_genesis_of_another_chain_is_refused() -> None:
    consortium = Consortium.of()
    with pytest.raises(ProofError) as caught:
        genesis("other-1", consortium.signed_root(), consortium.signed_epoch())
    assert caught.value.code == "wrong-chain"


def epoch(ledger: MemoryLedger, number: int, ahead: int, *signers: P256Key) -> SetEpoch:
    statement = replace(ledger.consortium.epoch, number=number, first_height=ledger.height + 1 + ahead)
    return SetEpoch(statement.sign(signers or ROOTS[:2]))


def test_set_epoch(ledger: MemoryLedger) -> None:
    one, two, three = ROOTS
    assert ledger.refused(epoch(ledger, 2, 2, one), one, two, sequence=2) == "epoch-signature"
    assert ledger.refused(epoch(ledger, 2, 2), one, sequence=2) == "not-endorsed"
    assert ledger.refused(epoch(ledger, 2, 2), one, two, sequence=3) == "wrong-sequence"
    assert ledger.refused(epoch(ledger, 3, 2), one, two, sequence=3) == "wrong-epoch"
    assert ledger.refused(epoch(ledger, 1, 2), one, two, sequence=1) == "wrong-epoch"
    assert ledger.refused(epoch(ledger, 2, 1), one, two, sequence=2) == "epoch-too-soon"
    ledger.do(epoch(ledger, 2, 5), one, three, sequence=2)
    at = ledger.height + 5
    assert ledger.state.governance().next_epoch == 2
    assert ledger.refused(epoch(ledger, 3, 9), one, two, sequence=3) == "epoch-pending"
    assert begin_block(ledger.state, at - 1).governance().epoch == 1
    begun = begin_block(ledger.state, at)
    assert (begun.governance().epoch, begun.governance().next_epoch) == (2, 0)
    assert begun.governance().next_epoch_hash is None
    assert begun.statement(epoch_name(2)) is not None


def test_rotate_root(ledger: MemoryLedger) -> None:
    one, two, three = ROOTS
    following = replace(ledger.consortium.root, version=2, keys=tuple(sorted(key.public for key in (two, three, NEW))))
    epoch_again = ledger.consortium.epoch.sign([three, NEW])
    body = RotateRoot(following.sign([two, three]), epoch_again)
    for signers in ([three, NEW], [one, two]):
        few = RotateRoot(following.sign(signers), epoch_again)
        assert ledger.refused(few, two, NEW, sequence=2) == "root-signature"
    skipped = RotateRoot(replace(following, version=3).sign([two, three]), epoch_again)
    assert ledger.refused(skipped, two, NEW, sequence=3) == "wrong-root-version"
    foreign = RotateRoot(replace(following, chain="other-1").sign([two, three]), epoch_again)
    assert ledger.refused(foreign, two, NEW, sequence=2) == "wrong-chain"
    assert ledger.refused(body, NEW, sequence=2) == "not-endorsed"
    assert ledger.refused(body, one, two, sequence=2) == "unknown-key"
    assert ledger.refused(body, two, NEW, sequence=1) == "wrong-sequence"
    old = RotateRoot(body.statement, ledger.consortium.epoch.sign([one, two]))
    assert ledger.refused(old, two, NEW, sequence=2) == "epoch-signature"
    other = RotateRoot(body.statement, replace(ledger.consortium.epoch, number=7).sign([three, NEW]))
    assert ledger.refused(other, two, NEW, sequence=2) == "wrong-epoch"
    ledger.do(body, two, NEW, sequence=2)
    assert ledger.state.governance().root_hash == following.hash()
    assert ledger.state.statement(epoch_name(1)) == epoch_again
    member = P256Key("party")
    assert ledger.refused(register_party(member), member, one, sequence=1) == "not-endorsed"
    ledger.do(register_party(member), member, NEW, sequence=1)
    assert ledger.refused(body, two, NEW, sequence=2) == "wrong-root-version"


def test_the_root_does_not_rotate_while_an_epoch_is_pending(ledger: MemoryLedger) -> None:
    one, two, _ = ROOTS
    ledger.do(epoch(ledger, 2, 5), one, two, sequence=2)
    following = replace(ledger.consortium.root, version=2).sign([one, two])
    body = RotateRoot(following, ledger.consortium.epoch.sign([one, two]))
    assert ledger.refused(body, one, two, sequence=2) == "epoch-pending"
    ledger.height += 4
    again = replace(ledger.consortium.epoch, number=2, first_height=7).sign([one, two])
    ledger.do(RotateRoot(following, again), one, two, sequence=2)
