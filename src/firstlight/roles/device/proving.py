"""Looking again: a party's record and the device's own tenure, proven with a fresh nonce.

What a device acts on is checked anew before every exchange. It needs no mail for that: the plan's root on the ledger
says whether the plan that it knows is still the one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from firstlight.discovery.bundle import Bundle, BundleRequest, StateProof
from firstlight.discovery.machine import LENGTHENING, usable
from firstlight.discovery.verify import View, verify_bundle, verify_follow_up
from firstlight.errors import FirstlightError, MalformedError, ProofError, SignatureError, TransportError
from firstlight.ledger.records import Party, Role, TenureState, party_name
from firstlight.ledger.tenure import Standing
from firstlight.plan.claims import PartyClaim, PartyKind
from firstlight.roles.device.gateways import Gateway
from firstlight.roles.device.memory import Acted
from firstlight.roles.device.pace import MOVED, moved
from firstlight.roles.device.unit import Unit
from firstlight.trees.ownership import depth_of

NONCE = 32
STOPPED = {TenureState.FROZEN: "tenure-frozen", TenureState.RETIRED: "tenure-retired"}
"""What the ledger says of devices that act for nobody."""
ROLES = {PartyKind.NETWORK: Role.MNO, PartyKind.SERVICE: Role.SP}


@dataclass(frozen=True, slots=True)
class Proven:
    """What was proven before asking a party for something, what the device acts on, and the gateway that helped."""

    record: Party
    view: View
    standing: Standing
    acted: Acted
    gateway: Gateway


async def prove(unit: Unit, claim: PartyClaim, gateways: Sequence[Gateway]) -> Proven:
    """Return the record of the party of ``claim`` and the device's tenure as they are now; what was learnt is stored.

    Raises :class:`ProofError`: ``moved``, what :func:`verify_bundle` raises, ``no-network``, ``no-service``,
    ``no-gateway``; :class:`TransportError`.
    """
    failure: FirstlightError = ProofError("no-gateway", "the device was born without a gateway")
    for gateway in gateways:
        try:
            return await _prove_through(unit, claim, gateway)
        except (TransportError, ProofError, MalformedError, SignatureError) as error:
            if moved(error):
                raise
            failure = error
    raise failure


async def _prove_through(unit: Unit, claim: PartyClaim, gateway: Gateway) -> Proven:
    acted = unit.memory.sight.acted
    if acted is None:
        raise ProofError(MOVED, "the device acts on nothing any more")
    view, length = await _look(unit, claim, gateway, acted.prefix_length)
    unit.clock.learn(view.time)
    standing = view.standing
    now = None if standing is None else (standing.number, standing.plan_revision, standing.plan)
    if standing is None or now != (acted.tenure, acted.revision, acted.root) or not standing.deployed:
        unit.memory.remember(view.trust, None)
        if standing is not None:
            await stopped(unit, acted, standing, gateway)
        raise ProofError(MOVED, "the device's tenure, or its plan, is another one now")
    acted = replace(acted, prefix_length=length)
    unit.memory.remember(view.trust, acted)
    return Proven(usable(view, claim.party, ROLES[claim.kind]), view, standing, acted, gateway)


async def stopped(unit: Unit, acted: Acted, standing: Standing, gateway: Gateway) -> None:
    """Tell the owner on whose plan the device acted if it is his own doing that it must not act any more."""
    code = STOPPED.get(standing.state)
    if code is not None and standing.origin == acted.origin:
        await unit.receipts.refused(ProofError(code), acted, (gateway,))


async def _look(unit: Unit, claim: PartyClaim, gateway: Gateway, length: int) -> tuple[View, int]:
    """Open the newest head, and ask longer where the region has been split; return the view and the prefix's length."""
    birth, trust = unit.memory.birth, unit.memory.sight.trust
    names = (party_name(claim.party),)
    request = trust.request(
        unit.tools.random.bytes(NONCE), batch=birth.batch, prefix=_prefix(unit, length), names=names
    )
    bundle = Bundle.decode(await gateway.prove(request))
    view = verify_bundle(bundle, request, trust=trust, batch_size=birth.size)
    birth.verify(view.batch.leaves if view.batch is not None else b"")
    depth = depth_of(birth.size)
    while view.split and length < depth:
        length = min(depth, length + LENGTHENING)
        view = await _longer(gateway, request, view, _prefix(unit, length))
    return view, length


async def _longer(gateway: Gateway, request: BundleRequest, view: View, prefix: tuple[int, int]) -> View:
    bits, length = prefix
    longer = replace(request, height=view.height, names=(), prefix_bits=bits, prefix_length=length)
    size = None if view.batch is None else view.batch.size
    return verify_follow_up(StateProof.decode(await gateway.prove(longer)), longer, view=view, batch_size=size)


def _prefix(unit: Unit, length: int) -> tuple[int, int]:
    birth = unit.memory.birth
    return birth.index >> (depth_of(birth.size) - length), length
