"""Devices, owners and strangers worked by hand over real sockets: one step at a time, stopped and bent anywhere.

Servers are the real processes; what speaks to them here is test code around the pure rooms. Whoever is worked by hand
can do all that the holder of a directory, or of a key, can.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from firstlight.attestation.evidence import Evidence, parse_evidence, sign_evidence
from firstlight.custody.file import AgreementKey, SigningKey
from firstlight.custody.system import SystemRandom
from firstlight.discovery.machine import AskBundle, AskMailbox, AskMore, Discovered, Discovery, Failed
from firstlight.discovery.verify import Trust
from firstlight.encoding import decode
from firstlight.errors import MalformedError
from firstlight.identity.birth import BirthCredential
from firstlight.ledger.transaction import Body, build
from firstlight.onboarding import wire
from firstlight.onboarding.device import Acting, BackOff, Granted, Identity, Rediscover, Refused, Sent, begin
from firstlight.onboarding.edhoc.keys import Ephemeral
from firstlight.plan.claims import PartyClaim, opening
from firstlight.ports import Signer
from firstlight.roles.device.evidence import Attester, Boot
from firstlight.roles.device.memory import ATTESTATION, BIRTH, IDENTITY
from firstlight.roles.wire import MailAnswer, MailRequest
from firstlight.sealing.envelope import EnvelopeContent, open_envelope
from firstlight.sealing.locator import mailbox_locator, receipt_locator
from firstlight.transports.body import CBOR, JSON, media_type, parse_json

SECONDS = 120.0
NONCE = 32


@dataclass(frozen=True, slots=True)
class Said:
    """A server's answer: its status, its body, and the code in it if it is an error (else an empty string)."""

    status: int
    body: bytes
    content_type: str

    @property
    def code(self) -> str:
        """The stable code of an error."""
        return str(self.fields().get("code", "")) if self.status >= 400 else ""

    def fields(self) -> dict[str, Any]:
        """Return what an error, or a JSON answer, says."""
        try:
            value = parse_json(self.body) if media_type(self.content_type) == JSON else decode(self.body)
        except MalformedError:
            return {}
        return value if isinstance(value, dict) else {}


def driven(
    machine: Discovery, gateway: str, bend: Callable[[str, bytes], bytes] = lambda _, answer: answer
) -> Discovered | Failed:
    """Have a discovery ask a gateway until it ends; ``bend`` gets the path and the answer, and returns what is seen."""
    event = machine.start()
    while True:
        match event:
            case Discovered() | Failed():
                return event
            case AskMailbox(locator, tenure):
                path, body = "/v1/mail", MailRequest.of(locator, tenure).encode()
            case AskBundle(request) | AskMore(request):
                path, body = "/v1/bundles", request.encode()
        event = machine.receive(bend(path, ask(gateway + path, body).body))


def ask(
    url: str, body: bytes = b"", *, method: str = "POST", content_type: str = CBOR, seconds: float = SECONDS
) -> Said:
    """Send one request, whatever its bytes, and return the answer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=seconds)
    try:
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, path, body, {"content-type": content_type, "accept": CBOR})
        response = connection.getresponse()
        return Said(response.status, response.read(), response.getheader("content-type", ""))
    finally:
        connection.close()


def submit(node: str, body: Body, *, chain: str, sequence: int, signer: Signer) -> Said:
    """Submit a transaction by one key."""
    return ask(f"{node}/v1/transactions", build(body, chain=chain, sequence=sequence, signer=signer))


@dataclass(frozen=True, slots=True)
class Handheld:
    """A device's directory in somebody's hands; nothing is written into it."""

    birth: BirthCredential
    identity: AgreementKey
    attestation: SigningKey
    gateway: str

    @classmethod
    def open(cls, directory: Path, gateway: str | None = None) -> Handheld:
        """Open a device; ``gateway`` is where it asks (its own first hint)."""
        birth = BirthCredential.decode((directory / BIRTH).read_bytes())
        keys = AgreementKey.load(directory / IDENTITY), SigningKey.load(directory / ATTESTATION)
        return cls(birth, *keys, gateway or birth.gateways[0])

    @property
    def locator(self) -> bytes:
        """Where its mail lies."""
        return mailbox_locator(self.birth.mailbox, self.gateway)

    @property
    def receipts(self) -> bytes:
        """Where its receipts lie."""
        return receipt_locator(self.birth.mailbox, self.gateway)

    @property
    def trust(self) -> Trust:
        """What it took on trust on its first day."""
        return Trust.at_birth(self.birth.chain, self.birth.root)

    def mail(self) -> list[EnvelopeContent]:
        """Return what its envelopes hold, as they lie at the gateway."""
        answer = ask(f"{self.gateway}/v1/mail", MailRequest((self.locator,)).encode())
        sealed = MailAnswer.decode(answer.body).envelopes
        return [open_envelope(one, self.identity, chain=self.birth.chain, locator=self.locator) for one in sealed]

    def discover(
        self, *, trust: Trust | None = None, bend: Callable[[str, bytes], bytes] = lambda _, answer: answer
    ) -> Discovered | Failed:
        """Discover; ``bend`` gets the path asked and the answer, and returns what the device sees."""
        machine = Discovery(
            self.birth,
            self.identity,
            gateway=self.gateway,
            trust=trust or self.trust,
            nonce=SystemRandom().bytes(NONCE),
        )
        return driven(machine, self.gateway, bend)

    def found(self) -> Discovered:
        """Discover honestly."""
        event = self.discover()
        assert isinstance(event, Discovered), event
        return event

    def acting(self, found: Discovered, claim: PartyClaim, **changes: Any) -> Acting:
        """Return what an honest device acts on towards the party of ``claim``, with ``changes``."""
        assert found.network.agreement_key is not None
        acting = Acting(
            chain=self.birth.chain,
            party=claim.party,
            agreement_key=found.network.agreement_key,
            party_revision=found.network.revision,
            height=found.view.height,
            tenure=found.standing.number,
            plan_revision=found.standing.plan_revision,
            plan=opening(found.digests, claim),
        )
        return replace(acting, **changes)

    def evidence(self, nonce: bytes, party: bytes, issuer: bytes, **changes: Any) -> bytes:
        """Attest as the device software does, with ``changes``."""
        made = Attester(self.birth, self.attestation, Boot(1, bytes(16))).towards(party, issuer)(nonce)
        evidence: Evidence = parse_evidence(made)[0]
        return sign_evidence(replace(evidence, **changes), self.attestation) if changes else made

    def open_exchange(
        self,
        found: Discovered,
        acting: Acting,
        *,
        via: str | None = None,
        request: bytes = b"",
        bend: Callable[[bytes], bytes] = lambda answer: answer,
        **changes: Any,
    ) -> Sent | Rediscover | BackOff:
        """Go as far as message 3, which is made and not sent; ``via`` is another way than the gateway's relay.

        ``changes`` are to the evidence, ``bend`` to response 1.
        """
        assert found.view.batch is not None
        issuer = found.view.batch.issuer
        identity = Identity(self.birth.batch, self.birth.index, self.birth.leaf(), self.birth.path, self.identity)
        begun = begin(identity, acting, ephemeral=Ephemeral.draw(SystemRandom()))
        answer = self.carry(begun.request_1, acting.party, via)
        return begun.read(
            bend(answer.body),
            evidence=lambda nonce: self.evidence(nonce, acting.party, issuer, **changes),
            request=request,
        )

    def carry(self, data: bytes, party: bytes, via: str | None = None) -> Said:
        """Send one leg of an exchange."""
        url = via or f"{self.gateway}/relay/{party.hex()}"
        return ask(url + wire.PATH, data, content_type=wire.MEDIA_TYPE_REQUEST)

    def onboard(
        self, found: Discovered, acting: Acting, *, via: str | None = None, **changes: Any
    ) -> Granted | Refused | BackOff | Rediscover:
        """Run one whole exchange."""
        sent = self.open_exchange(found, acting, via=via, **changes)
        if not isinstance(sent, Sent):
            return sent
        return sent.read(self.carry(sent.request_2, acting.party, via).body)


def eventually(fact: Callable[[], bool], what: str, *, seconds: float = SECONDS) -> None:
    """Wait until ``fact`` holds."""
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.03)
