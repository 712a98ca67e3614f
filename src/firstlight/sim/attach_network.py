"""The network's half of the attach protocol (:mod:`firstlight.sim.attach`), without input or output."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from firstlight.errors import AccessError, FirstlightError
from firstlight.sim.aka import Vector
from firstlight.sim.aka_prime import Keys
from firstlight.sim.attach import (
    Challenge,
    Identity,
    Response,
    Success,
    challenge_mac,
    response_mac,
    session_keys,
    success_mac,
)
from firstlight.sim.suci import HomeKey, Suci, reveal


@dataclass(frozen=True, slots=True)
class Pending:
    """A challenge that awaits its response."""

    imsi: str
    vector: Vector
    keys: Keys
    challenge: Challenge


def identify(suci: Suci, keys: Mapping[int, HomeKey]) -> str:
    """Return the IMSI in a SUCI; :class:`AccessError` (``bad-suci``) for whatever cannot be revealed."""
    try:
        return reveal(suci, keys[suci.key_id])
    except (KeyError, FirstlightError) as error:
        raise AccessError("bad-suci", "the identity cannot be revealed") from error


def challenge(imsi: str, identity: Identity, vector: Vector, network: str) -> Pending:
    """Return the challenge for a vector, and what is needed to judge the response."""
    keys = session_keys(imsi, network, vector.autn, vector.ck, vector.ik)
    mac = challenge_mac(keys.k_aut, identity, vector.rand, vector.autn, network)
    return Pending(imsi, vector, keys, Challenge(vector.rand, vector.autn, network, mac))


def check(pending: Pending, response: Response) -> None:
    """Judge a response.

    1. RES is XRES (``wrong-response``). 2. The MAC holds (``bad-mac``). Raises :class:`AccessError`.
    """
    if not hmac.compare_digest(response.res, pending.vector.xres):
        raise AccessError("wrong-response", "RES is not the expected one")
    expected = response_mac(pending.keys.k_aut, pending.challenge, response.res)
    if not hmac.compare_digest(expected, response.mac):
        raise AccessError("bad-mac", "the response does not answer this challenge")


def succeed(pending: Pending, response: Response, session: bytes, proxy: str, lifetime: int) -> Success:
    """Return the message that opens the port."""
    mac = success_mac(pending.keys.k_aut, response, session, proxy, lifetime)
    return Success(session, proxy, lifetime, mac)
