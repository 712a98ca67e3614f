"""One exchange with one party: carries the bytes that :mod:`firstlight.onboarding.device` makes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from firstlight.errors import ExchangeError, RefusedError, TransportError
from firstlight.onboarding.device import (
    SUITES,
    Acting,
    BackOff,
    Begun,
    EvidenceMaker,
    Granted,
    Identity,
    OtherSuite,
    Rediscover,
    Sent,
    begin,
)
from firstlight.onboarding.edhoc.initiator import first_proposal
from firstlight.onboarding.edhoc.keys import Ephemeral
from firstlight.ports import Random
from firstlight.roles.device.gateways import Carry

SENDINGS = 3
"""How often message 3, always the same bytes, is sent before the device gives the exchange up."""
PAUSE = 0.5


@dataclass(frozen=True, slots=True)
class Exchange:
    """Who asks whom for what: the device, what it acts on, the way there, its evidence, a CSR or nothing."""

    identity: Identity
    acting: Acting
    carry: Carry
    evidence: EvidenceMaker
    request: bytes = b""
    suites: tuple[int, ...] = SUITES
    """What the device has, the most preferred first."""

    async def run(self, random: Random, sleep: Callable[[float], Awaitable[None]]) -> Granted | Rediscover:
        """Return the grant, or that the device must discover anew.

        Raises :class:`RefusedError` with the party's code, :class:`ExchangeError` where nothing came of it,
        :class:`TransportError`.
        """
        begun, response = await self._begin(random)
        sent = begun.read(response, evidence=self.evidence, request=self.request)
        match sent:
            case BackOff(code):
                raise ExchangeError(code, "the party's first answer")
            case Rediscover():
                return sent
        return await self._finish(sent, sleep)

    async def _begin(self, random: Random) -> tuple[Begun, bytes]:
        """Send message 1, once more with another suite if the party asks for that; return it with the answer to it."""
        proposed = first_proposal(self.suites)
        begun = begin(self.identity, self.acting, ephemeral=Ephemeral.draw(random), suites=proposed)
        response = await self.carry(begun.request_1)
        match begun.other_suite(response, self.suites):
            case BackOff(code):
                raise ExchangeError(code, "the party's suites")
            case OtherSuite(proposed):
                begun = begin(self.identity, self.acting, ephemeral=Ephemeral.draw(random), suites=proposed)
                response = await self.carry(begun.request_1)
        return begun, response

    async def _finish(self, sent: Sent, sleep: Callable[[float], Awaitable[None]]) -> Granted:
        failure: ExchangeError | TransportError = ExchangeError("no-answer", "message 4 did not come")
        for attempt in range(SENDINGS):
            if attempt:
                await sleep(PAUSE * 2.0**attempt)
            try:
                event = sent.read(await self.carry(sent.request_2))
            except TransportError as error:
                failure = error
                continue
            match event:
                case Granted():
                    return event
                case BackOff(code):
                    failure = ExchangeError(code, "the party's second answer")
                case _:
                    raise RefusedError(event.code, "the party refuses")
        raise failure
