"""Issued certificates: one pending a slot, the predecessor gone at first use, nothing half done."""

import sqlite3
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from firstlight.enrolment.issue import Revocation
from firstlight.errors import StoreError
from firstlight.stores import certificates
from firstlight.stores.certificates import KEPT_AFTER_EXPIRY, Certificates, CertificateState, NewCertificate

NOW, DAY = 1_800_000_000, 86_400
PENDING, ACTIVE, REVOKED = CertificateState


def new(number: int, slot: bytes = b"slot") -> NewCertificate:
    return NewCertificate(f"{number:032x}", (1 << 126) + number, number.to_bytes(16), slot, NOW, NOW + DAY)


def code(attempt, *arguments) -> str:
    with pytest.raises(StoreError) as caught:
        attempt(*arguments)
    return caught.value.code


@pytest.fixture
def store():
    one = Certificates.in_memory()
    yield one
    one.close()


def states(store, *numbers):
    return [store.by_grant(number.to_bytes(16)).state for number in numbers]


def test_the_first_use_revokes_the_predecessor_and_later_ones_nothing(store):
    told = []
    store.watch(told.append)
    store.add(new(1))
    assert store.confirm(new(1).name, NOW).first
    store.add(new(2))
    assert states(store, 1, 2) == [ACTIVE, PENDING]
    assert not store.confirm(new(1).name, NOW + 1).first
    used = store.confirm(new(2).name, NOW + 5)
    assert (used.grant, used.first, [one.name for one in used.revoked]) == (new(2).grant, True, [new(1).name])
    assert states(store, 1, 2) == [REVOKED, ACTIVE]
    assert [[one.name for one in some] for some in told] == [[new(1).name]]
    assert store.by_name(new(1).name).revoked_at == NOW + 5
    assert code(store.confirm, new(1).name, NOW) == "certificate-revoked"
    assert store.confirm(new(2).name, NOW + 9) == replace(used, first=False, revoked=())


def test_at_most_one_is_pending_in_a_slot(store):
    store.add(new(1))
    assert [one.name for one in store.add(new(2))] == [new(1).name]
    store.add(new(3, b"other"))
    assert states(store, 1, 2, 3) == [REVOKED, PENDING, PENDING]
    assert store.counts() == {PENDING: 2, REVOKED: 1}


def test_what_is_taken_is_refused_and_leaves_the_pending_one_alone(store):
    store.add(new(1))
    for clash in (
        replace(new(2), name=new(1).name),
        replace(new(2), serial=new(1).serial),
        replace(new(2), grant=new(1).grant),
    ):
        assert code(store.add, clash) == "certificate-taken"
    assert states(store, 1) == [PENDING]


def test_revocation_by_grant_is_final_and_told_once(store):
    told = []
    store.watch(told.append)
    store.add(new(1))
    store.add(new(2, b"other"))
    grants = [new(1).grant, new(2).grant, bytes(16)]
    assert len(store.revoke(grants, NOW + 1)) == 2
    assert store.revoke(grants, NOW + 2) == ()
    assert len(told) == 1
    assert code(store.confirm, new(1).name, NOW) == "certificate-revoked"
    assert code(store.confirm, "0" * 32, NOW) == "certificate-unknown"


def test_the_list_grows_in_number_and_forgets_the_expired(store):
    store.add(new(1))
    store.add(new(2, b"other"))
    store.revoke([new(1).grant], NOW + 7)
    first, second = store.next_list(NOW), store.next_list(NOW)
    assert first.entries == second.entries == (Revocation(new(1).serial, NOW + 7),)
    assert second.number == first.number + 1
    gone = NOW + DAY + KEPT_AFTER_EXPIRY + 1
    assert store.next_list(gone).entries == ()
    assert store.prune(gone - 1) == 0
    assert store.prune(gone) == 2
    assert store.next_list(NOW).number == 4


def test_it_survives_a_restart_and_a_transaction_that_never_ended(tmp_path):
    path = tmp_path / "sp.db"
    store = Certificates.open(path)
    store.add(new(1))
    store.confirm(new(1).name, NOW)
    store.next_list(NOW)
    store.close()
    crashed = sqlite3.connect(path, isolation_level=None)
    crashed.execute("BEGIN IMMEDIATE")
    certificates.insert(crashed, new(2))
    crashed.close()
    again = Certificates.open(path)
    assert states(again, 1) == [ACTIVE]
    assert again.by_grant(new(2).grant) is None
    assert again.next_list(NOW).number == 2
    assert path.stat().st_mode & 0o777 == 0o600
    again.close()


def test_a_grants_transaction_carries_its_certificate(tmp_path):
    store = Certificates.open(tmp_path / "sp.db")
    other = sqlite3.connect(tmp_path / "sp.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    certificates.insert(other, new(1))
    assert store.by_grant(new(1).grant) is None
    other.execute("COMMIT")
    assert states(store, 1) == [PENDING]
    other.close()
    store.close()


def test_an_unknown_schema_and_an_unusable_file_are_refused(tmp_path):
    path = tmp_path / "sp.db"
    Certificates.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE certificate_meta SET value = 99 WHERE key = 'version'")
    connection.close()
    assert code(Certificates.open, path) == "schema-unknown"
    (tmp_path / "no.db").write_bytes(b"no database at all, but long enough to be read as one" * 40)
    assert code(Certificates.open, tmp_path / "no.db") == "database-unusable"
    assert code(Certificates.open, tmp_path / "missing" / "sp.db") == "database-unusable"


class Life(RuleBasedStateMachine):
    """Whatever the order of events: one pending and one active a slot, and revoked is for ever."""

    def __init__(self):
        super().__init__()
        self.store = Certificates.in_memory()
        self.made = []
        self.dead = set()

    @rule(slot=st.sampled_from([b"a", b"b"]))
    def issue(self, slot):
        self.made.append(new(len(self.made) + 1, slot))
        self.store.add(self.made[-1])

    @rule(data=st.data())
    def use(self, data):
        if self.made:
            one = data.draw(st.sampled_from(self.made))
            if one.name in self.dead:
                assert code(self.store.confirm, one.name, NOW) == "certificate-revoked"
            else:
                self.store.confirm(one.name, NOW)

    @rule(data=st.data())
    def revoke(self, data):
        if self.made:
            self.store.revoke([data.draw(st.sampled_from(self.made)).grant], NOW)

    @invariant()
    def one_of_each(self):
        now = [self.store.by_name(one.name) for one in self.made]
        dead = {one.name for one in now if one.state is REVOKED}
        assert self.dead <= dead
        self.dead = dead
        for slot in (b"a", b"b"):
            for state in (PENDING, ACTIVE):
                assert sum(one.slot == slot and one.state is state for one in now) <= 1
        assert {entry.serial for entry in self.store.next_list(NOW).entries} == {
            one.serial for one in now if one.name in dead
        }

    def teardown(self):
        self.store.close()


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
