from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from firstlight.encoding import encode
from firstlight.ledger.records import PartyStatus, Role, party_id
from firstlight.ledger.transaction import PublishReference, RegisterParty, Rotation, SuspendParty, UpdateParty
from firstlight.testing.chains import Consortium, P256Key
from firstlight.testing.ledgers import MODEL, MemoryLedger, digest, register_party

KEY, NEXT, THIRD, STRANGER, AGREEMENT = (P256Key(name) for name in ("key", "next", "third", "stranger", "agreement"))
BODY = RegisterParty(KEY.public, digest(NEXT.public), (Role.MNO, Role.SP), AGREEMENT.public, ("http://127.0.0.1:80",))


@pytest.fixture
def ledger() -> MemoryLedger:
    return MemoryLedger(Consortium.of(roots=3))


def test_register_party(ledger: MemoryLedger) -> None:
    outcome = ledger.do(BODY, KEY, ledger.consortium.roots[1])
    assert outcome.subject == party_id(KEY.public)
    party = ledger.party(outcome.subject)
    assert (party.revision, party.sequence, party.roles) == (1, 1, (Role.MNO, Role.SP))
    assert (party.key, party.agreement_key, party.status) == (KEY.public, AGREEMENT.public, PartyStatus.ACTIVE)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"key": b"\x02" + b"\xff" * 32}, "bad-point"),
        ({"agreement_key": b"\x05" + bytes(32)}, "bad-point"),
        ({"agreement_key": KEY.public}, "key-reused"),
        ({"next_key_hash": digest(KEY.public)}, "key-reused"),
        ({"roles": (Role.SP, Role.MNO)}, "bad-roles"),
        ({"roles": (Role.SP, Role.SP)}, "bad-roles"),
    ],
)
def test_a_bad_registration_is_refused(ledger: MemoryLedger, change: dict[str, Any], code: str) -> None:
    body = replace(BODY, **change)
    assert ledger.refused(body, KEY, ledger.consortium.roots[0]) == code


def test_registration_needs_possession_and_endorsement(ledger: MemoryLedger) -> None:
    member, other = ledger.consortium.roots[:2]
    assert ledger.refused(BODY, STRANGER, member, sequence=1) == "not-possessed"
    assert ledger.refused(BODY, KEY, sequence=1) == "not-endorsed"
    assert ledger.refused(BODY, KEY, STRANGER, sequence=1) == "not-endorsed"
    assert ledger.refused(BODY, KEY, member, STRANGER, sequence=1) == "unknown-key"
    assert ledger.refused(BODY, KEY, member, sequence=2) == "wrong-sequence"
    assert ledger.refused(register_party(member), member, other, sequence=1) == "key-is-root"


def test_a_forged_endorsement_is_refused(ledger: MemoryLedger) -> None:
    member = ledger.consortium.roots[0]
    forger = P256Key("forger")
    data = ledger.sign(BODY, KEY, member)
    message = encode([0])
    broken = data.replace(data[-64:], forger.sign(message))
    assert ledger.apply(broken).code == "bad-signature"


def test_a_party_registers_once(ledger: MemoryLedger) -> None:
    ledger.do(BODY, KEY, ledger.consortium.roots[0])
    assert ledger.refused(BODY, KEY, ledger.consortium.roots[0], sequence=1) == "party-exists"


def test_another_chains_transaction_is_refused(ledger: MemoryLedger) -> None:
    data = ledger.sign(BODY, KEY, ledger.consortium.roots[0], chain="other-1")
    assert ledger.apply(data).code == "wrong-chain"


def test_malformed_bytes_are_a_result_and_no_exception(ledger: MemoryLedger) -> None:
    before = ledger.state
    assert ledger.apply(b"\xff").code == "not-cbor"
    assert ledger.apply(encode([1, 2])).code == "not-cose"
    assert ledger.state is before


def test_update_party(ledger: MemoryLedger) -> None:
    party = ledger.do(BODY, KEY, ledger.consortium.roots[0]).subject
    body = UpdateParty(party, 2, None, ("http://127.0.0.1:81",), None)
    assert ledger.refused(body, STRANGER, sequence=2) == "wrong-key"
    assert ledger.refused(body, KEY, sequence=3) == "wrong-sequence"
    assert ledger.refused(replace(body, revision=3), KEY) == "wrong-revision"
    assert ledger.refused(replace(body, party=bytes(16)), KEY) == "unknown-party"
    assert ledger.refused(replace(body, agreement_key=KEY.public), KEY) == "key-reused"
    data = ledger.sign(body, KEY)
    assert ledger.apply(data).code == "ok"
    assert ledger.apply(data).code == "wrong-sequence"
    record = ledger.party(party)
    assert (record.revision, record.sequence, record.agreement_key) == (2, 2, None)
    assert record.endpoints == ("http://127.0.0.1:81",)


def test_the_key_that_was_committed_to_takes_over(ledger: MemoryLedger) -> None:
    party = ledger.do(BODY, KEY, ledger.consortium.roots[0]).subject
    body = UpdateParty(party, 2, None, (), Rotation(NEXT.public, digest(THIRD.public)))
    assert ledger.refused(body, KEY) == "wrong-key"
    assert ledger.refused(replace(body, rotation=Rotation(THIRD.public, digest(b""))), THIRD) == "wrong-key"
    assert ledger.refused(replace(body, rotation=Rotation(NEXT.public, digest(NEXT.public))), NEXT) == "key-reused"
    assert ledger.refused(body, NEXT, sequence=2) == "wrong-sequence"
    data = ledger.sign(body, NEXT)
    assert ledger.apply(data).code == "ok"
    assert ledger.apply(data).code == "wrong-key"
    record = ledger.party(party)
    assert (record.key, record.next_key_hash, record.sequence) == (NEXT.public, digest(THIRD.public), 1)
    again = UpdateParty(party, 3, None, (), None)
    assert ledger.refused(again, KEY, sequence=2) == "wrong-key"
    ledger.do(again, NEXT, sequence=2)


def test_suspend_party_takes_the_threshold(world_of_three: tuple[MemoryLedger, bytes, P256Key]) -> None:
    ledger, party, maker = world_of_three
    one, two, _ = ledger.consortium.roots
    body = SuspendParty(party, PartyStatus.SUSPENDED)
    assert ledger.refused(body, one, sequence=2) == "not-endorsed"
    assert ledger.refused(body, one, maker, sequence=2) == "not-endorsed"
    assert ledger.refused(body, one, two, maker, sequence=2) == "unknown-key"
    assert ledger.refused(body, one, two, sequence=1) == "wrong-sequence"
    assert ledger.refused(SuspendParty(party, PartyStatus.ACTIVE), one, two, sequence=2) == "nothing-to-change"
    assert ledger.refused(SuspendParty(bytes(16), PartyStatus.SUSPENDED), one, two, sequence=2) == "unknown-party"
    ledger.do(body, one, two, sequence=2)
    assert ledger.refused(body, one, two, sequence=2) == "wrong-sequence"
    publish = PublishReference(party, MODEL, bytes(16), bytes(32), 1, 0, 2**40)
    assert ledger.refused(publish, maker) == "party-suspended"
    assert ledger.refused(UpdateParty(party, 3, None, (), None), maker) == "party-suspended"
    ledger.do(SuspendParty(party, PartyStatus.ACTIVE), one, two, sequence=3)
    ledger.do(publish, maker)


@pytest.fixture
def world_of_three() -> tuple[MemoryLedger, bytes, P256Key]:
    ledger = MemoryLedger(replace(Consortium.of(roots=3), root_threshold=2))
    maker = P256Key("maker")
    return ledger, ledger.register(maker), maker


def test_a_root_keys_signature_on_something_else_is_worth_nothing(ledger: MemoryLedger) -> None:
    """The signature is over this body: another party's endorsement cannot be carried over."""
    member = ledger.consortium.roots[0]
    theirs = ledger.sign(register_party(STRANGER), STRANGER, member)
    mine = ledger.sign(BODY, KEY, member)
    assert ledger.apply(mine[:-64] + theirs[-64:]).code == "bad-signature"
