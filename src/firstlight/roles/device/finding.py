"""Finding out, through one gateway after another, who owns the device and which network was chosen."""

from __future__ import annotations

from collections.abc import Sequence

from firstlight.discovery.machine import AskBundle, AskMailbox, AskMore, Discovered, Discovery, Failed
from firstlight.discovery.verify import Trust
from firstlight.errors import FirstlightError, ProofError, TransportError
from firstlight.roles.device.gateways import Gateway
from firstlight.roles.device.memory import Acted, Memory
from firstlight.roles.device.proving import stopped
from firstlight.roles.device.tools import Stage
from firstlight.roles.device.unit import Unit

NONCE = 32


async def find(unit: Unit, gateways: Sequence[Gateway]) -> tuple[Discovered, Gateway]:
    """Return what the first gateway that has something to say proves, stored already, and that gateway.

    Raises :class:`ProofError` with the code of what came of the last one, or :class:`TransportError`.
    """
    failure: FirstlightError = ProofError("no-gateway", "the device was born without a gateway")
    for gateway in gateways:
        try:
            event = await _ask(unit, gateway)
        except TransportError as error:
            unit.tools.log.refusal(error, url=gateway.hint)
            failure = error
            continue
        if isinstance(event, Discovered):
            unit.clock.learn(event.view.time)
            unit.memory.remember(event.view.trust, acted_on(event))
            unit.tools.log.info("discovered", height=event.view.height, tenure=event.standing.number)
            unit.tools.tell(Stage.DISCOVERED)
            return event, gateway
        acted = unit.memory.sight.acted
        if event.standing is not None and acted is not None:
            await stopped(unit, acted, event.standing, gateway)
        if event.trust is not None:
            unit.memory.remember(event.trust, _still(unit.memory, event.trust))
        for code in event.ignored:
            unit.tools.log.warning(code, step="envelope", url=gateway.name)
        failure = ProofError(event.code, event.detail)
        unit.tools.log.refusal(failure, url=gateway.hint)
    raise failure


async def _ask(unit: Unit, gateway: Gateway) -> Discovered | Failed:
    memory, random = unit.memory, unit.tools.random
    machine = Discovery(
        memory.birth, memory.identity, gateway=gateway.name, trust=memory.sight.trust, nonce=random.bytes(NONCE)
    )
    event = machine.start()
    while True:
        match event:
            case Discovered() | Failed():
                return event
            case AskMailbox(locator, tenure):
                answer = await gateway.mail(locator, tenure)
            case AskBundle(request) | AskMore(request):
                answer = await gateway.prove(request)
        event = machine.receive(answer)


def acted_on(discovered: Discovered) -> Acted:
    """Return what is stored of a discovery."""
    standing, plan = discovered.standing, discovered.plan
    if standing.plan is None:
        raise ProofError("not-deployed", f"tenure {standing.number} has no plan")
    claims = (plan.profile, plan.network, *plan.services)
    return Acted(
        tenure=standing.number,
        origin=standing.origin,
        revision=standing.plan_revision,
        root=standing.plan,
        prefix_length=discovered.prefix[1],
        digests=discovered.digests,
        claims=tuple(claim.encode() for claim in claims),
    )


def _still(memory: Memory, trust: Trust) -> Acted | None:
    """Return what the device acted on, unless the tenure that counts or its plan is another one now."""
    acted = memory.sight.acted
    same = acted is not None and (acted.tenure, acted.revision) == (trust.tenure, trust.revision)
    return acted if same else None
