"""What strangers make a server keep: never more than the bounds, whatever comes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from firstlight.transports.coap.bounded import Bound, Bounded
from firstlight.transports.coap.freshness import Freshness

steps = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 60), st.sampled_from(["a", "b", "c"]), st.integers(0, 5)), max_size=80
)


@given(steps)
def test_no_bound_is_ever_passed(some: list[tuple[int, int, str, int]]) -> None:
    store: Bounded[int, int] = Bounded(Bound(10, 100, 20, 0.6))
    now, model = 0.0, dict[int, tuple[int, str, float]]()
    for key, size, source, pause in some:
        now += pause
        store.put(key, size, size=size, now=now, source=source)
        model[key] = (size, source, now + 20)
        assert len(store) <= 10
        assert store.size <= 100
        kept = {one: model[one] for one in model if store.get(one, now) is not None}
        assert all(until > now for _, _, until in kept.values())
        assert sum(size for size, _, _ in kept.values()) == store.size or len(store) > len(kept)
        for name in "abc":
            assert sum(size for size, owner, _ in kept.values() if owner == name) <= 60
        assert store.get(key, now) == size


def test_one_source_pushes_out_its_own_first() -> None:
    store: Bounded[str, int] = Bounded(Bound(100, 100, 60, 0.5))
    store.put("theirs", 1, size=40, now=0, source="them")
    for number in range(10):
        store.put(f"mine {number}", number, size=20, now=1, source="me")
    assert store.get("theirs", 1) == 1
    assert [store.get(f"mine {number}", 1) for number in range(10)] == [None] * 8 + [8, 9]


def test_what_is_over_is_forgotten() -> None:
    store: Bounded[str, int] = Bounded(Bound(10, 100, 5))
    store.put("a", 1, size=10, now=0)
    assert store.get("a", 4.9) == 1
    assert store.get("a", 5) is None
    assert (len(store), store.size) == (0, 0)
    store.put("b", 1, size=10, now=0)
    store.put("c", 2, size=10, now=6)
    assert (len(store), store.size) == (1, 10)


def test_an_echo_is_good_for_one_address_and_not_for_long() -> None:
    freshness, me = Freshness(b"k" * 32, life=60), ("192.0.2.1", 5_683)
    echo = freshness.challenge(me, 1_000)
    assert not freshness.verify(me, None, 1_000)
    for other in (("192.0.2.1", 5_684), ("192.0.2.2", 5_683)):
        assert not freshness.verify(other, echo, 1_000)
    for bent in (b"", b"\x00", echo[:-1], echo + b"\x00", bytes([echo[0] ^ 1]) + echo[1:], echo[:-1] + b"\x00"):
        assert not freshness.verify(me, bent, 1_000)
    assert not freshness.verify(me, echo, 1_062)
    assert len(freshness) == 0
    assert freshness.verify(me, echo, 1_059)
    assert freshness.verify(me, None, 1_600)
    assert not freshness.verify(me, None, 2_300)


def test_those_who_are_verified_are_bounded_too() -> None:
    freshness = Freshness(b"k" * 32, sources=5)
    for port in range(50):
        source = ("192.0.2.1", port)
        assert freshness.verify(source, freshness.challenge(source, 10), 10)
    assert len(freshness) == 5
