"""The device's half of the attach protocol (:mod:`firstlight.sim.attach`), without input or output."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field, replace

from firstlight.errors import AccessError
from firstlight.ports import Random
from firstlight.sim import aka
from firstlight.sim.aka_prime import Keys
from firstlight.sim.attach import (
    Challenge,
    Detach,
    Identity,
    Response,
    Success,
    SyncFailure,
    challenge_mac,
    detach_mac,
    response_mac,
    session_keys,
    session_proof,
    success_mac,
)
from firstlight.sim.subscription import SoftSim


@dataclass(frozen=True, slots=True)
class Answered:
    """A challenge that held. ``sim`` must be stored before ``response`` is sent."""

    sim: SoftSim = field(repr=False)
    response: Response
    keys: Keys


@dataclass(frozen=True, slots=True)
class Session:
    """An attachment as the device knows it: the session, its forwarder, and what opens it."""

    id: bytes
    proxy: str
    lifetime: int
    proof: str = field(repr=False)
    detach: Detach = field(repr=False)


def identify(sim: SoftSim, random: Random) -> Identity:
    """Return the first message: a fresh SUCI and a nonce."""
    return Identity(sim.home.conceal(sim.credentials.imsi, random), random.bytes(16))


def respond(sim: SoftSim, identity: Identity, challenge: Challenge) -> Answered | SyncFailure:
    """Answer a challenge.

    1. It names the network that the grant named (``wrong-network``).
    2. AUTN has the separation bit set (``separation-missing``, RFC 9048 §3.1).
    3. AUTN was made with our K (``network-not-authentic``).
    4. Its sequence number is fresh; otherwise a :class:`SyncFailure`.
    5. The MAC covers our identity under keys bound to the name (:func:`_check_cover`).

    Raises :class:`AccessError`.
    """
    if challenge.network != sim.network:
        raise AccessError("wrong-network", f"the network calls itself {challenge.network}, not {sim.network}")
    if not aka.separated(challenge.autn):
        raise AccessError("separation-missing", "the vector is not one for AKA'")
    own = sim.credentials
    match aka.answer(own.k, own.opc, sim.sequence, challenge.rand, challenge.autn):
        case aka.MacFailure():
            raise AccessError("network-not-authentic", "AUTN was not made with this USIM's key")
        case aka.SyncFailure(auts):
            return SyncFailure(auts)
        case aka.Accepted(res, ck, ik, sequence):
            keys = session_keys(own.imsi, challenge.network, challenge.autn, ck, ik)
            _check_cover(keys, identity, challenge)
            response = Response(res, response_mac(keys.k_aut, challenge, res))
            return Answered(replace(sim, sequence=sequence), response, keys)


def _check_cover(keys: Keys, identity: Identity, challenge: Challenge) -> None:
    expected = challenge_mac(keys.k_aut, identity, challenge.rand, challenge.autn, challenge.network)
    if not hmac.compare_digest(expected, challenge.mac):
        raise AccessError("network-not-authentic", "the challenge does not cover what this device sent")


def conclude(answered: Answered, success: Success) -> Session:
    """Return the session that a success opens.

    1. Its MAC covers this device's response (``network-not-authentic``). Raises :class:`AccessError`.
    """
    keys = answered.keys
    expected = success_mac(keys.k_aut, answered.response, success.session, success.proxy, success.lifetime)
    if not hmac.compare_digest(expected, success.mac):
        raise AccessError("network-not-authentic", "the success does not answer this device's response")
    detach = Detach(success.session, detach_mac(keys.msk, success.session))
    return Session(success.session, success.proxy, success.lifetime, session_proof(keys.msk, success.session), detach)
