"""Whatever is lost on the way, a USIM accepts no number twice, and one resynchronisation brings both together."""

from hypothesis import given
from hypothesis import strategies as st

from firstlight.sim import aka
from firstlight.sim.aka import Accepted, Sequence, SyncFailure

K, OPC, RAND = bytes(16), bytes(16), bytes(16)


@given(st.lists(st.integers(0, aka.SQN_MAX), max_size=60))
def test_no_number_is_accepted_twice(numbers: list[int]) -> None:
    state, accepted = Sequence.fresh(), []
    for number in [*numbers, *numbers]:
        after = state.accept(number)
        if after is not None:
            accepted.append(number)
            state = after
    assert len(accepted) == len(set(accepted))


@given(st.integers(0, aka.SQN_MAX // 2), st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=30))
def test_vectors_used_in_order_are_accepted_whatever_is_lost(start: int, steps: list[tuple[int, bool]]) -> None:
    state = Sequence((start >> aka.IND_BITS,) * aka.SLOTS)
    number = start
    for skipped, _ in steps:
        for _ in range(skipped):
            number = aka.next_sqn(number)
        after = state.accept(number)
        assert after is not None
        state = after


@given(
    st.lists(st.integers(0, aka.SEQ_MAX // 2), min_size=aka.SLOTS, max_size=aka.SLOTS),
    st.integers(0, aka.SQN_MAX // 2),
)
def test_one_resynchronisation_is_enough(highest: list[int], network: int) -> None:
    state = Sequence(tuple(highest))
    vector = aka.make_vector(K, OPC, aka.next_sqn(network), RAND)
    answer = aka.answer(K, OPC, state, vector.rand, vector.autn)
    if isinstance(answer, SyncFailure):
        network = aka.resynchronise(network, aka.open_auts(K, OPC, RAND, answer.auts))
        vector = aka.make_vector(K, OPC, aka.next_sqn(network), RAND)
        answer = aka.answer(K, OPC, state, vector.rand, vector.autn)
    assert isinstance(answer, Accepted)
