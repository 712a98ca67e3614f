import pytest

from firstlight.errors import SignatureError
from firstlight.sim import aka
from firstlight.sim.aka import Accepted, MacFailure, Sequence, SyncFailure

K, OPC, RAND = bytes(range(16)), bytes(range(16, 32)), bytes(range(32, 48))


def sqn(seq: int, ind: int) -> int:
    return seq << 5 | ind


def state(**changes: int) -> Sequence:
    highest = [0] * 32
    for name, value in changes.items():
        highest[int(name[1:])] = value
    return Sequence(tuple(highest))


def test_next_sqn_counts_seq_and_ind_together() -> None:
    assert aka.next_sqn(0) == sqn(1, 1)
    assert aka.next_sqn(sqn(31, 31)) == sqn(32, 0)


def test_next_sqn_ends() -> None:
    with pytest.raises(OverflowError):
        aka.next_sqn(aka.SQN_MAX)


@pytest.mark.parametrize(
    ("before", "number", "accepted"),
    [
        (state(), sqn(1, 0), True),
        (state(), sqn(0, 0), False),
        (state(_3=7), sqn(7, 3), False),
        (state(_3=7), sqn(8, 3), True),
        (state(_3=7), sqn(6, 4), True),
        (state(_3=7), sqn(6, 3), False),
        (state(_3=7), sqn(7 + aka.DELTA, 0), True),
        (state(_3=7), sqn(8 + aka.DELTA, 0), False),
    ],
    ids=["first", "zero", "same", "next", "older-other-ind", "older-same-ind", "widest-jump", "too-wide-a-jump"],
)
def test_what_a_usim_accepts(before: Sequence, number: int, accepted: bool) -> None:
    assert (before.accept(number) is not None) is accepted


def test_an_accepted_number_is_not_accepted_again() -> None:
    after = Sequence.fresh().accept(sqn(5, 2))
    assert after is not None
    assert after.accept(sqn(5, 2)) is None
    assert after.sqn == sqn(5, 2)


def test_usim_answers_with_what_the_network_expects() -> None:
    vector = aka.make_vector(K, OPC, sqn(1, 1), RAND)
    answer = aka.answer(K, OPC, Sequence.fresh(), vector.rand, vector.autn)
    assert isinstance(answer, Accepted)
    assert (answer.res, answer.ck, answer.ik) == (vector.xres, vector.ck, vector.ik)
    assert answer.sequence == state(_1=1)


@pytest.mark.parametrize("position", range(16))
def test_a_changed_autn_is_a_mac_failure(position: int) -> None:
    autn = bytearray(aka.make_vector(K, OPC, sqn(1, 1), RAND).autn)
    autn[position] ^= 1
    assert aka.answer(K, OPC, Sequence.fresh(), RAND, bytes(autn)) == MacFailure()


@pytest.mark.parametrize(("k", "opc"), [(bytes(16), OPC), (K, bytes(16))])
def test_another_key_is_a_mac_failure(k: bytes, opc: bytes) -> None:
    vector = aka.make_vector(k, opc, sqn(1, 1), RAND)
    assert aka.answer(K, OPC, Sequence.fresh(), RAND, vector.autn) == MacFailure()


def test_a_used_number_gives_an_auts_that_the_network_can_open() -> None:
    before = state(_9=500)
    vector = aka.make_vector(K, OPC, sqn(400, 9), RAND)
    answer = aka.answer(K, OPC, before, RAND, vector.autn)
    assert isinstance(answer, SyncFailure)
    assert len(answer.auts) == 14
    assert aka.open_auts(K, OPC, RAND, answer.auts) == sqn(500, 9)


@pytest.mark.parametrize("position", [0, 5, 6, 13])
def test_a_changed_auts_is_refused(position: int) -> None:
    auts = bytearray(aka.make_auts(K, OPC, RAND, sqn(3, 3)))
    auts[position] ^= 0x80
    with pytest.raises(SignatureError) as caught:
        aka.open_auts(K, OPC, RAND, bytes(auts))
    assert caught.value.code == "bad-auts"


@pytest.mark.parametrize("size", [0, 6, 13, 15])
def test_an_auts_of_another_size_is_refused(size: int) -> None:
    auts = (aka.make_auts(K, OPC, RAND, 5) + b"\0")[:size]
    with pytest.raises(SignatureError) as caught:
        aka.open_auts(K, OPC, RAND, auts)
    assert caught.value.code == "bad-auts"


def test_an_auts_belongs_to_its_rand() -> None:
    with pytest.raises(SignatureError):
        aka.open_auts(K, OPC, bytes(16), aka.make_auts(K, OPC, RAND, 5))


@pytest.mark.parametrize(
    ("network", "usim", "goes_on_from"),
    [
        (sqn(1, 1), sqn(500, 9), sqn(500, 9)),
        (sqn(600, 1), sqn(500, 9), sqn(600, 1)),
        (sqn(500 + aka.DELTA, 1), sqn(500, 9), sqn(500, 9)),
        (sqn(499, 1), sqn(500, 9), sqn(500, 9)),
    ],
    ids=["behind", "ahead", "too-far-ahead", "level"],
)
def test_resynchronisation(network: int, usim: int, goes_on_from: int) -> None:
    assert aka.resynchronise(network, usim) == goes_on_from


def test_the_separation_bit() -> None:
    assert aka.separated(aka.make_vector(K, OPC, 33, RAND).autn)
    assert not aka.separated(aka.make_vector(K, OPC, 33, RAND, amf=aka.AMF_UMTS).autn)


def test_secrets_are_not_shown() -> None:
    vector = aka.make_vector(K, OPC, 33, RAND)
    assert repr(vector.ck) not in repr(vector)
    assert repr(vector.xres) not in repr(vector)
