"""Devices as a load: the real device's side of an exchange, each device once, over the wire or handed in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from firstlight.bench.process import BenchError
from firstlight.custody.file import AgreementKey, SigningKey
from firstlight.custody.system import SystemClock, SystemRandom
from firstlight.discovery.bundle import Bundle
from firstlight.discovery.machine import usable
from firstlight.discovery.verify import View, verify_bundle
from firstlight.enrolment.request import build_request
from firstlight.files import read_limited
from firstlight.identity.birth import BirthCredential
from firstlight.ledger.records import Role, party_name
from firstlight.logs import LOG_FILE, Log, LogFile
from firstlight.onboarding.device import Acting, Begun, EvidenceMaker, Identity, begin
from firstlight.onboarding.edhoc.keys import Ephemeral
from firstlight.plan.claims import PartyClaim
from firstlight.roles.device.evidence import Attester, Boot
from firstlight.roles.device.finding import acted_on, find
from firstlight.roles.device.gateways import Gateway
from firstlight.roles.device.memory import ATTESTATION, BIRTH, IDENTITY, MAX_BIRTH, Memory
from firstlight.roles.device.tools import Stage, Tools, http_client
from firstlight.roles.device.unit import Unit

NETWORK, SERVICE = "network", "service"
LEGS = (NETWORK, SERVICE)
NONCE = 32


@dataclass(frozen=True, slots=True)
class Errand:
    """What every device of the batch does in one leg: what it acts on, who made it, and where the party is."""

    acting: Acting
    issuer: bytes
    url: str
    certificate: bool


@dataclass(frozen=True, slots=True)
class Caller:
    """One device about to start: its first message is made, and so is all that its second one needs from it."""

    begun: Begun
    evidence: EvidenceMaker
    request: bytes


async def errands(device: Path) -> dict[str, Errand]:
    """Let the device in ``device`` discover through its gateway, and return what its batch then does in each leg.

    One tenure holds the whole batch under one plan, so that what one device has verified holds for all.
    """
    with closing(Memory.open(device)) as memory, closing(LogFile(device / LOG_FILE)) as file:
        unit = Unit.wake(memory, Tools.real(Log("bench", SystemClock(), file), _unheard))
        http = http_client(None)
        try:
            gateways = [Gateway(name, http) for name in memory.birth.gateways]
            found, gateway = await find(unit, gateways)
            acted, batch = acted_on(found), found.view.batch
            if batch is None:
                raise BenchError("bench-stage-failed", "the view proves no batch")
            service = found.plan.services[0]
            view = await _also(unit, gateway, found.prefix, service)
        finally:
            await http.aclose()
        return {
            name: Errand(
                unit.acting(acted, claim, record, view, found.standing, again=False),
                batch.issuer,
                record.endpoints[0],
                name == SERVICE,
            )
            for name, claim, record in (
                (NETWORK, found.plan.network, found.network),
                (SERVICE, service, usable(view, service.party, Role.SP)),
            )
        }


async def _also(unit: Unit, gateway: Gateway, prefix: tuple[int, int], service: PartyClaim) -> View:
    """Return a view that proves the service's record too."""
    birth, trust = unit.memory.birth, unit.memory.sight.trust
    names = (party_name(service.party),)
    request = trust.request(unit.tools.random.bytes(NONCE), batch=birth.batch, prefix=prefix, names=names)
    bundle = Bundle.decode(await gateway.prove(request))
    return verify_bundle(bundle, request, trust=trust, batch_size=birth.size)


def _unheard(stage: Stage, code: str = "", /) -> None:
    """Nobody listens."""


def callers(devices: Sequence[Path], errand: Errand) -> Iterator[Caller]:
    """Start one device after the other; each has keys, leaf, ephemeral key and, for a certificate, a key of its own."""
    random = SystemRandom()
    for place in devices:
        birth = BirthCredential.decode(read_limited(place / BIRTH, MAX_BIRTH))
        static = AgreementKey.load(place / IDENTITY)
        attester = Attester(birth, SigningKey.load(place / ATTESTATION), Boot(1, random.bytes(16)))
        identity = Identity(birth.batch, birth.index, birth.leaf(), birth.path, static)
        begun = begin(identity, errand.acting, ephemeral=Ephemeral.draw(random))
        request = build_request(SigningKey.generate()[0]) if errand.certificate else b""
        yield Caller(begun, attester.towards(errand.acting.party, errand.issuer), request)
