"""What is said in the clear: refusals and errors that no key has signed are hints at most.

Gateways, relays and whoever sits between forge them with the very words of a party or of a proof. A device waits, and
asks again; it gives nothing up, neither what it acts on nor what it was granted, and never waits longer than a minute.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from firstlight.encoding import encode
from firstlight.onboarding.party import REFUSALS
from firstlight.roles.device.memory import GRANTS, VIEW, Sight
from firstlight.stores.exchanges import GrantState
from firstlight.testing.byhand import Hand
from firstlight.testing.interceptor import Answered, Asked, Forward
from firstlight.testing.lab import Lab, Outcome
from firstlight.transports.body import CBOR, JSON

SEED = 20_261_122
PROVEN = ("moved", "tenure-frozen", "tenure-retired", "no-plan", "not-fresh")
"""What a device says itself of what it has proven, or failed to prove."""
LEFT = ("proxy-refused", "proxy-unreachable")
"""What a device says itself of an attachment that has ended."""


@dataclass(slots=True)
class Forging:
    """Answers with forged errors, one after the other; the honest server is asked once they are used up."""

    codes: list[str]
    told: list[str] = field(default_factory=list)

    def bend(self, asked: Asked, forward: Forward) -> Answered:
        """Forge, in JSON or in CBOR, under a status that says whose fault it is."""
        if not self.codes:
            return forward(asked)
        code = self.codes.pop(0)
        self.told.append(code)
        said = {"code": code, "detail": "says the party", "hint": ""}
        status = (400, 403, 409)[len(self.told) % 3]
        if len(self.told) % 2:
            return Answered(status, CBOR, encode(said))
        return Answered(status, JSON, json.dumps(said).encode())


def refusal_codes() -> list[str]:
    """Return all codes with which a party refuses under protection."""
    return sorted(REFUSALS)


def chosen(codes: Sequence[str], full: bool, count: int) -> list[str]:
    """Return all codes, or a seeded sample."""
    return list(codes) if full else random.Random(SEED).sample(list(codes), count)


def kept(device: Path) -> tuple[object, dict[str, bytes]]:
    """Return what a device acts on, and its certificates."""
    sight = Sight.decode((device / VIEW).read_bytes())
    return sight.acted, {path.name: path.read_bytes() for path in (device / GRANTS).glob("*.pem")}


def test_forged_refusals_cost_a_new_device_a_pause(lab: Lab, full: bool) -> None:
    """A gateway forges, at each step, that the tenure is retired, the device a clone, the order unknown …"""
    lab.connects(lab.device())
    codes = [*PROVEN, *LEFT, *chosen(refusal_codes(), full, 5)]
    devices = [lab.device() for _ in range(-(-len(codes) // 3))]
    places = ("/v1/mail", "/v1/bundles", "/relay/")
    forging = {place: Forging(codes[at::3]) for at, place in enumerate(places)}
    mail, bundles, relay = (lab.interceptor.bending(place, forging[place].bend) for place in places)
    with mail, bundles, relay:
        outcomes = lab.switch_on_all(devices, seconds=90.0)
    assert sorted(code for one in forging.values() for code in one.told) == sorted(codes)
    waited = Counter(line["code"] for one in outcomes.values() for line in one.lines if line["stage"] == "waiting")
    assert waited <= Counter(codes)
    for device in devices:
        hand = Hand(lab, device)
        assert (hand.grants("mno"), hand.slots("mno")) == ([GrantState.CONFIRMED], 1)


def test_forged_refusals_take_nothing_from_a_device_that_is_connected(lab: Lab, full: bool) -> None:
    """A gateway forges the same to a device with grants, to make it forget its plan or leave its network."""
    device = lab.device()
    lab.connects(device)
    before, hand = kept(device), Hand(lab, device)
    granted = {role: hand.grants(role) for role in ("mno", "sp")}
    assert granted == {"mno": [GrantState.CONFIRMED], "sp": [GrantState.CONFIRMED]}
    for code in ("moved", *chosen([*PROVEN[1:], *LEFT, *refusal_codes()], full, 2)):
        forging = Forging([code] * 50)
        places = ("/v1/mail", "/v1/bundles", "/relay/")
        mail, bundles, relay = (lab.interceptor.bending(place, forging.bend) for place in places)
        with mail, bundles, relay:
            outcome: Outcome = lab.connects(device)
        assert set(forging.told) == {code}
        assert code in outcome.codes
        assert "waiting" not in {line["stage"] for line in outcome.lines}
        assert kept(device) == before
        assert {role: hand.grants(role) for role in ("mno", "sp")} == granted
