"""The exchange at the real MNO and SP: whoever carries its messages may splice, replay, swap and lose them."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from firstlight.encoding import encode
from firstlight.onboarding.device import Granted, Refused
from firstlight.onboarding.party import UNIFORM_ERROR
from firstlight.stores.exchanges import GrantState
from firstlight.testing.byhand import Hand, part, say, swapped
from firstlight.testing.interceptor import Answered, Asked, Dropped, Forward
from firstlight.testing.lab import Lab
from firstlight.transports.endpoint import read_endpoint

ROLES = ("mno", "sp")


@pytest.fixture
def hand(lab: Lab) -> Hand:
    return Hand(lab, lab.device())


@pytest.fixture
def other(lab: Lab) -> Hand:
    return Hand(lab, lab.device())


@pytest.mark.parametrize("role", ROLES)
def test_message_3_spliced_into_another_exchange_opens_nothing(lab: Lab, hand: Hand, other: Hand, role: str) -> None:
    """A relay puts A's message 3 into B's half-open exchange, or B's token before it, to be served in B's place."""
    hand.onboard(role)
    mine, theirs = hand.open(role), other.open(role)
    with lab.untouched(), lab.heard(role) as codes:
        for token, message in ((theirs, mine), (mine, theirs)):
            spliced = swapped(message.request_2, token=part(token.request_2, "token"))
            assert spliced != message.request_2
            assert say(hand.url(role), spliced) == UNIFORM_ERROR
    assert codes == ["bad-ciphertext", "bad-ciphertext"]
    assert isinstance(other.finish(role, theirs), Granted)


@pytest.mark.parametrize("role", ROLES)
def test_another_c_r_is_refused(lab: Lab, hand: Hand, role: str) -> None:
    """A relay changes C_R in request 2, to make the party mix up two exchanges."""
    hand.onboard(role)
    sent = hand.open(role)
    with lab.untouched(), lab.heard(role) as codes:
        for c_r in (b"\x02", b"\x00", b"longer", b""):
            assert say(hand.url(role), swapped(sent.request_2, c_r=c_r)) == UNIFORM_ERROR
    assert codes == ["wrong-identifier"] * 4
    assert isinstance(hand.finish(role, sent), Granted)


@pytest.mark.parametrize("role", ROLES)
def test_message_3_replayed_brings_the_same_answer_and_nothing_else(lab: Lab, hand: Hand, role: str) -> None:
    """A relay sends message 3 again after the device has moved on, to be granted something, or to end its grant."""
    hand.onboard(role)
    sent = hand.open(role)
    first = say(hand.url(role), sent.request_2)
    event = sent.read(first)
    assert isinstance(event, Granted)
    with lab.untouched(), lab.heard(role) as codes:
        assert [say(hand.url(role), sent.request_2) for _ in range(3)] == [first] * 3
    assert codes == ["answered"] * 3
    hand.stored[role] = event.grant.id
    hand.onboard(role)
    assert hand.grants(role) == [GrantState.ENDED, GrantState.ENDED, GrantState.PENDING]
    with lab.untouched(), lab.heard(role) as codes:
        assert say(hand.url(role), sent.request_2) == first
    assert codes == ["answered"]


@pytest.mark.parametrize("role", ROLES)
def test_another_message_3_for_a_used_exchange_is_refused(lab: Lab, hand: Hand, role: str) -> None:
    """A device makes a second message 3 for one TH_3, for two grants out of one exchange, or K_4 used twice."""
    hand.onboard(role)
    begun = hand.begin(role)
    response = say(hand.url(role), begun.request_1)
    first = hand.read(begun, role, response)
    second = hand.read(replace(begun, acting=replace(begun.acting, stored_grant=bytes(16))), role, response)
    assert first.th_3 == second.th_3
    assert first.request_2 != second.request_2
    assert isinstance(hand.finish(role, first), Granted)
    with lab.untouched(), lab.heard(role) as codes:
        assert hand.finish(role, second) == Refused("exchange-used")
    assert codes == ["exchange-used"]


@pytest.mark.parametrize("role", ROLES)
def test_a_refused_exchange_is_used_up_too(lab: Lab, hand: Hand, role: str) -> None:
    """A device whose evidence was refused tries again within the same exchange, to fish for evidence that passes."""
    hand.onboard(role)
    begun = hand.begin(role)
    response = say(hand.url(role), begun.request_1)
    bad = hand.read(begun, role, response, evidence=hand.evidence(secure_boot=False))
    good = hand.read(begun, role, response)
    with lab.adding(role, exchange=1), lab.heard(role) as codes:
        assert hand.finish(role, bad) == Refused("secure-boot-off")
        assert hand.finish(role, good) == Refused("exchange-used")
        assert hand.finish(role, bad) == Refused("secure-boot-off")
    assert codes == ["secure-boot-off", "exchange-used", "answered"]
    hand.onboard(role)


@pytest.mark.parametrize("role", ROLES)
def test_an_older_exchange_after_a_newer_grant_is_superseded(lab: Lab, hand: Hand, role: str) -> None:
    """A relay holds message 3 back and delivers it after a newer exchange, to end the device's newer grant."""
    hand.onboard(role)
    older, newer = hand.open(role), hand.open(role)
    assert isinstance(hand.finish(role, newer), Granted)
    with lab.adding(role, exchange=1), lab.heard(role) as codes:
        assert hand.finish(role, older) == Refused("superseded")
    assert codes == ["superseded"]
    assert hand.grants(role) == [GrantState.ENDED, GrantState.PENDING]


def test_a_token_of_another_party_is_refused(lab: Lab, hand: Hand) -> None:
    """A relay takes a half-open exchange from the SP to the MNO and back, to finish it where it was not begun."""
    hand.onboard("mno")
    hand.onboard("sp")
    network, service = hand.open("mno"), hand.open("sp")
    for role, sent, foreign in (("mno", network, service), ("sp", service, network)):
        with lab.untouched(), lab.heard(role) as codes:
            mixed = swapped(sent.request_2, token=part(foreign.request_2, "token"))
            assert say(hand.url(role), mixed) == UNIFORM_ERROR
            assert say(hand.url(role), foreign.request_2) == UNIFORM_ERROR
        assert codes == ["bad-token", "bad-token"]
        assert isinstance(hand.finish(role, sent), Granted)


def test_an_expired_token_is_refused(lab: Lab, hand: Hand) -> None:
    """A relay keeps a half-open exchange until the party's keys may have leaked: no token opens after its time."""
    with lab.twin("mno", exchange_seconds=5) as twin:
        url = read_endpoint(twin).url
        hand.onboard("mno", at=url)
        sent = hand.open("mno", at=url)
        probe, codes = swapped(sent.request_2, message_3=encode(bytes(64))), set[str]()
        while "bad-token" not in codes:
            assert say(url, probe) == UNIFORM_ERROR
            codes.add(newest(twin))
        assert codes == {"bad-ciphertext", "bad-token"}
        with lab.untouched(twin):
            assert say(url, sent.request_2) == UNIFORM_ERROR
        assert newest(twin) == "bad-token"


def newest(state: Path) -> str:
    """Return the code of the last line of a server's log."""
    return str(json.loads((state / "log.jsonl").read_bytes().splitlines()[-1])["code"])


def test_evidence_of_another_exchange_or_party_is_refused(lab: Lab, hand: Hand) -> None:
    """A device that is no longer clean presents evidence that it made when it was, or made for somebody else."""
    kept: list[bytes] = []

    def keep(nonce: bytes) -> bytes:
        kept.append(hand.evidence()(nonce))
        return kept[-1]

    for role, foreign in (("mno", "sp"), ("sp", "mno")):
        hand.onboard(role, evidence=keep)
        hand.open(foreign, evidence=keep)
        with lab.adding(role, exchange=2):
            assert hand.refused(role, evidence=lambda _: kept[-2]) == "evidence-nonce"
            assert hand.refused(role, evidence=lambda _: kept[-1]) == "evidence-nonce"


@pytest.mark.parametrize("role", ROLES)
def test_evidence_of_another_device_is_refused(lab: Lab, hand: Hand, other: Hand, role: str) -> None:
    """A device that is not clean has another one attest for it, over the very nonce of this exchange."""
    hand.onboard(role)
    with lab.adding(role, exchange=2):
        assert hand.refused(role, evidence=other.evidence()) == "evidence-signature"
        assert hand.refused(role, evidence=hand.evidence(signer=hand.key)) == "evidence-signature"


@pytest.mark.parametrize("role", ROLES)
def test_evidence_over_another_claim_or_request_is_refused(lab: Lab, hand: Hand, role: str) -> None:
    """A thief of the identity key relays a device's evidence under a claim or a request of his own."""
    hand.onboard(role)
    begun = hand.begin(role)
    response = say(hand.url(role), begun.request_1)
    made: list[bytes] = []

    def keep(nonce: bytes) -> bytes:
        made.append(hand.evidence()(nonce))
        return made[-1]

    honest = hand.read(begun, role, response, evidence=keep)
    other_claim = replace(begun, acting=replace(begun.acting, stored_grant=hand.stored[role][::-1]))
    sent = hand.read(other_claim, role, response, evidence=lambda _: made[0])
    assert sent.th_3 == honest.th_3
    with lab.adding(role, exchange=1):
        assert hand.finish(role, sent) == Refused("evidence-nonce")
    begun = hand.begin(role)
    response = say(hand.url(role), begun.request_1)
    hand.read(begun, role, response, evidence=keep)
    sent = hand.read(begun, role, response, request=b"another request", evidence=lambda _: made[1])
    with lab.adding(role, exchange=1):
        assert hand.finish(role, sent) == Refused("evidence-nonce")


# --- whole devices through a relay that lies ----------------------------------------------------


class Losing:
    """Loses the party's answers to message 3: so many, or (None) all of the first exchange."""

    def __init__(self, times: int | None) -> None:
        self.times = times
        self.lost = 0
        self.answers: list[bytes] = []

    def __call__(self, asked: Asked, forward: Forward) -> Answered:
        given = forward(asked)
        if asked.body[:1] == b"\xf5":
            return given
        self.answers.append(given.body)
        if given.body == self.answers[0] if self.times is None else self.lost < self.times:
            self.lost += 1
            raise Dropped
        return given


def honest(lab: Lab, relay: Losing) -> Counter[str]:
    """Let a device connect through a relay that does not lie yet; return what that leaves in all stores."""
    with lab.growth() as grown, lab.interceptor.bending("/relay/", relay):
        lab.connects(lab.device())
    assert relay.answers
    assert (grown["mno.issued"], grown["mno.exchange"], grown["sp.issued"], grown["sp.exchange"]) == (1, 1, 1, 1)
    return grown


def parties(grown: Counter[str]) -> Counter[str]:
    """Return what has grown at MNO and SP: a fleet is stopped once it is connected, receipts are still to come."""
    return Counter({name: count for name, count in grown.items() if not name.startswith(("owner.", "gateway."))})


def test_message_4_lost_three_times_loses_nothing(lab: Lab) -> None:
    """A relay drops message 4 three times: the device sends message 3 again and gets the one grant that was made."""
    left = honest(lab, Losing(0))
    device, losing = lab.device(), Losing(3)
    with lab.growth() as grown, lab.interceptor.bending("/relay/", losing):
        outcome = lab.connects(device)
    assert (losing.lost, len(losing.answers), len(set(losing.answers))) == (3, 4, 1)
    assert {line["code"] for line in outcome.lines if line.get("code")} <= {"unreachable"}
    assert grown == left, "as if nothing had been lost"
    hand = Hand(lab, device)
    assert hand.grants("mno") == [GrantState.CONFIRMED]
    assert hand.slots("mno") == 1


def test_message_4_lost_for_a_whole_exchange_costs_one_slot_and_leaves_one_grant(lab: Lab) -> None:
    """A relay drops every message 4 of an exchange: the next one has a new grant, and its predecessor dies."""
    left = honest(lab, Losing(0))
    device, losing = lab.device(), Losing(None)
    with lab.growth() as grown, lab.interceptor.bending("/relay/", losing):
        outcome = lab.connects(device)
    assert losing.lost >= 3
    assert len(set(losing.answers)) == 2
    assert [line["code"] for line in outcome.lines if line["stage"] == "waiting"] == ["unreachable"]
    assert grown - left == Counter({"mno.exchange": 1, "mno.issued": 1, "mno.subscription": 1})
    assert left - grown == Counter()
    hand = Hand(lab, device)
    assert hand.grants("mno") == [GrantState.ENDED, GrantState.CONFIRMED]
    assert hand.slots("mno") == 1


def test_a_relay_that_swaps_two_devices_answers_only_delays_them(lab: Lab) -> None:
    """A relay gives A the message 2 that is for B and the other way round, so that they accept each other's keys."""
    left = honest(lab, Losing(0))
    pair = [lab.device(), lab.device()]
    meeting, answers = threading.Barrier(2, timeout=120), dict[int, Answered]()
    swaps: list[int] = []

    def swap(asked: Asked, forward: Forward) -> Answered:
        given = forward(asked)
        if asked.body[:1] != b"\xf5" or len(swaps) >= 2:
            return given
        swaps.append(1)
        place = meeting.wait()
        answers[place] = given
        meeting.wait()
        return answers[1 - place]

    with lab.growth() as grown, lab.interceptor.bending("/relay/", swap):
        outcomes = lab.switch_on_all(pair)
    assert len(swaps) == 2
    for outcome in outcomes.values():
        assert [line["code"] for line in outcome.lines if line["stage"] == "waiting"] == ["bad-plaintext"]
    assert parties(grown) == parties(left + left)
    for device in pair:
        assert Hand(lab, device).grants("mno") == [GrantState.CONFIRMED]
