"""Which cipher suite device and party agree on (RFC 9528 §5.2.2, §5.2.3, §6.3), and that nobody talks them down."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from firstlight.encoding import decode_sequence, encode_sequence
from firstlight.errors import ExchangeError, MalformedError
from firstlight.onboarding.device import SUITES, BackOff, Begun, Granted, OtherSuite, Rediscover, Sent, begin
from firstlight.onboarding.edhoc.error import UNSPECIFIED, WRONG_SUITE, ErrorMessage, parse_error
from firstlight.onboarding.edhoc.initiator import first_proposal, next_proposal
from firstlight.onboarding.edhoc.keys import Ephemeral
from firstlight.roles.device.exchange import Exchange
from firstlight.testing.onboarding import World


class Wire:
    """Carries requests to the party and remembers them; ``bend`` replaces answers, ``twist`` requests."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.requests: list[bytes] = []
        self.answers: dict[int, bytes] = {}
        self.twist = lambda request: request

    async def carry(self, request: bytes) -> bytes:
        self.requests.append(request)
        canned = self.answers.get(len(self.requests))
        return self.world.send(self.twist(request)).data if canned is None else canned

    def proposals(self) -> list[object]:
        """SUITES_I of all message 1."""
        return [decode_sequence(one[1:], items=5, limit=99)[1] for one in self.requests if one[:1] == b"\xf5"]


def world_with(*suites: int) -> World:
    world = World()
    world.party = world.make_party(replace(world.profile, suites=frozenset(suites)))
    return world


def run(wire: Wire, suites: tuple[int, ...] = SUITES) -> Granted | Rediscover:
    async def at_once(_: float) -> None:
        wire.world.clock.advance(0.001)

    world = wire.world
    exchange = Exchange(world.identity(), world.acting(), wire.carry, lambda nonce: nonce, suites=suites)
    return asyncio.run(exchange.run(world.random, at_once))


@pytest.mark.parametrize(
    ("has", "takes", "proposals", "agreed"),
    [
        ((3, 2), (3, 2), [3], 3),
        ((3, 2), (3,), [3], 3),
        ((3, 2), (2,), [3, [3, 2]], 2),
        ((2, 3), (3, 2), [2], 2),
        ((2, 3), (3,), [2, [2, 3]], 3),
        ((2,), (2, 3), [2], 2),
    ],
)
def test_the_best_that_both_have(
    has: tuple[int, ...], takes: tuple[int, ...], proposals: list[object], agreed: int
) -> None:
    wire = Wire(world_with(*takes))
    event = run(wire, has)
    assert isinstance(event, Granted)
    assert event.session.suite.number == agreed
    assert wire.proposals() == proposals


def test_each_try_has_a_fresh_key() -> None:
    wire = Wire(world_with(2))
    run(wire)
    keys = [decode_sequence(one[1:], items=5, limit=99)[2] for one in wire.requests[:2]]
    assert keys[0] != keys[1]


def test_nothing_in_common() -> None:
    wire = Wire(world_with(2))
    with pytest.raises(ExchangeError) as caught:
        run(wire, (3,))
    assert (caught.value.code, wire.proposals()) == ("no-common-suite", [3])


# --- downgrades ---------------------------------------------------------------------------------


def test_a_forged_list_of_suites_cannot_lower_the_suite() -> None:
    """The device believes that the party has suite 2 only, and says so in message 1: the party, having 3, refuses."""
    wire = Wire(world_with(3, 2))
    wire.answers[1] = ErrorMessage(WRONG_SUITE, suites=(2,)).encode()
    with pytest.raises(ExchangeError) as caught:
        run(wire)
    assert caught.value.code == "edhoc-error-2"
    assert wire.proposals() == [3, [3, 2]]
    assert wire.world.store.outcomes() == {}


def test_preferred_suites_stripped_on_the_way_break_the_exchange() -> None:
    """The same, and message 1 is cut so that the party does not see what was preferred: TH_2 tells."""

    def strip(request: bytes) -> bytes:
        if request[:1] != b"\xf5":
            return request
        method, _, *rest = decode_sequence(request[1:], items=5, limit=99)
        return b"\xf5" + encode_sequence(method, 2, *rest)

    wire = Wire(world_with(3, 2))
    wire.answers[1] = ErrorMessage(WRONG_SUITE, suites=(2,)).encode()
    wire.twist = strip
    with pytest.raises(ExchangeError) as caught:
        run(wire)
    assert caught.value.code == "bad-plaintext"
    assert len(wire.requests) == 2
    assert wire.world.store.outcomes() == {}


@pytest.mark.parametrize("selected", [2, 3])
def test_a_selected_suite_that_was_changed_on_the_way_breaks_the_exchange(selected: int) -> None:
    world = world_with(3, 2)
    begun = world.begin(suite=selected)
    method, _, *rest = decode_sequence(begun.request_1[1:], items=5, limit=99)
    twisted = b"\xf5" + encode_sequence(method, 5 - selected, *rest)
    event = begun.read(world.send(twisted).data, evidence=lambda nonce: nonce)
    assert isinstance(event, BackOff)


@pytest.mark.parametrize("suites", [(3,), (3, 2), (2, 3)])
def test_who_offers_what_he_refused_is_not_believed(suites: tuple[int, ...]) -> None:
    wire = Wire(world_with(3, 2))
    wire.answers[1] = ErrorMessage(WRONG_SUITE, suites=suites).encode()
    with pytest.raises(ExchangeError) as caught:
        run(wire)
    assert (caught.value.code, len(wire.requests)) == ("suites-contradict", 1)


def test_endless_refusals_end_after_the_second() -> None:
    wire = Wire(world_with(3, 2))
    wire.answers = {n: ErrorMessage(WRONG_SUITE, suites=(2,)).encode() for n in range(1, 9)}
    with pytest.raises(ExchangeError):
        run(wire)
    assert len(wire.requests) == 2


# --- the rules by themselves --------------------------------------------------------------------


def test_proposals() -> None:
    assert first_proposal((3, 2)) == (3,)
    assert next_proposal((3, 2), (3,), (2,)) == (3, 2)
    assert next_proposal((3, 2), (3,), (6, 2, 0)) == (3, 2)
    assert next_proposal((25, 3, 2), (25,), (2, 3)) == (25, 3)
    for supported, proposed, offered, code in (
        ((3, 2), (3,), (), "no-common-suite"),
        ((3, 2), (3,), (6, 25), "no-common-suite"),
        ((3, 2), (3, 2), (2,), "suites-contradict"),
        ((3, 2), (3, 2), (3,), "suites-contradict"),
    ):
        with pytest.raises(ExchangeError) as caught:
            next_proposal(supported, proposed, offered)
        assert caught.value.code == code


def test_the_party_names_its_suites() -> None:
    world = world_with(2)
    begun = _begun(world, (3,))
    answer = world.send(begun.request_1).data
    assert parse_error(answer).suites == (2,)
    assert begun.other_suite(answer) == OtherSuite((3, 2))
    assert begun.read(answer, evidence=lambda nonce: nonce) == BackOff("edhoc-error-2")
    again = _begun(world, (3, 2))
    answer = world.send(again.request_1).data
    assert again.other_suite(answer) is None
    assert isinstance(again.read(answer, evidence=lambda nonce: nonce), Sent)


def test_a_party_that_has_a_preferred_suite_refuses_the_selected_one() -> None:
    world = world_with(3, 2)
    assert parse_error(world.send(_begun(world, (3, 2)).request_1).data).suites == (3, 2)


def test_other_errors_say_nothing_about_suites() -> None:
    begun = _begun(World(), (3,))
    for answer in (ErrorMessage(UNSPECIFIED, text="no").encode(), b"", b"\x02", b"\x02\x80", b"\x02\x82\x02\xf5"):
        assert begun.other_suite(answer) is None


def test_an_unknown_suite_cannot_be_selected() -> None:
    with pytest.raises(MalformedError):
        _begun(World(), (3, 6))


def _begun(world: World, suites: tuple[int, ...]) -> Begun:
    return begin(world.identity(), world.acting(), ephemeral=Ephemeral.draw(world.random), suites=suites)
