"""A device done by hand in a :class:`~firstlight.testing.lab.Lab`: step by step, and wherever a test wants, bent.

It speaks over real sockets to the real servers with what the directory of a real device holds.
"""

from __future__ import annotations

import asyncio
import http.client
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from firstlight.access.device.network_embedded import EmbeddedAttachment, EmbeddedNetworkAccess
from firstlight.attestation.evidence import Debug, Evidence, Measurement, ReferenceName, sign_evidence
from firstlight.attestation.reference import parse_reference
from firstlight.custody.file import AgreementKey, SigningKey
from firstlight.custody.system import SystemRandom
from firstlight.discovery.bundle import StateProof
from firstlight.discovery.machine import AskBundle, AskMailbox, AskMore, Discovered, Discovery, Failed
from firstlight.discovery.verify import Trust, verify_follow_up
from firstlight.enrolment.request import build_request
from firstlight.identity.birth import BirthCredential
from firstlight.identity.credential import device_credential, party_credential
from firstlight.ledger.records import Party, party_name
from firstlight.onboarding import device, wire
from firstlight.onboarding.device import Acting, BackOff, Begun, Granted, Identity, Refused, Sent
from firstlight.onboarding.edhoc import initiator
from firstlight.onboarding.edhoc.keys import Ead, Ephemeral, Session
from firstlight.plan.claims import PartyClaim, opening
from firstlight.ports import Signer
from firstlight.roles.device.network import soft_sim
from firstlight.roles.measure import reference_identifier
from firstlight.roles.wire import MailRequest
from firstlight.sim.subscription import SoftSim
from firstlight.stores.exchanges import GrantState
from firstlight.testing.access_network import MemorySim
from firstlight.testing.datagrams import ask_coap
from firstlight.testing.interceptor import Answered, Asked
from firstlight.testing.lab import Lab
from firstlight.transports.body import CBOR

PATIENCE = 120
PAUSE = 0.01
MakeEvidence = Callable[[bytes], bytes]


def ask(url: str, asked: Asked) -> Answered:
    """Send a request to the server at ``url``, and return whatever it answers."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)
    try:
        connection.request(asked.method, asked.path, asked.body, {"content-type": asked.content_type})
        response = connection.getresponse()
        return Answered(response.status, response.getheader("content-type", ""), response.read())
    finally:
        connection.close()


def post(url: str, path: str, body: bytes, content_type: str = CBOR) -> bytes:
    """POST to a server, over CoAP if the URL says so, and return the body of a success."""
    if url.startswith("coap://"):
        answered = ask_coap(url + path, body, content_type)
    else:
        answered = ask(url, Asked("POST", path, body, content_type))
    assert answered.status == 200, answered
    return answered.body


def say(url: str, data: bytes) -> bytes:
    """Send one request of an exchange to the party at ``url``."""
    return post(url, wire.PATH, data, wire.MEDIA_TYPE_REQUEST)


def software(lab: Lab) -> Measurement:
    """Return what the manufacturer has published for the software of the world's devices."""
    first = min((lab.places.manufacturer / "references").glob("*.corim"), key=lambda path: path.stat().st_mtime_ns)
    return parse_reference(first.read_bytes()).values.components[0]


class Hand:
    """One device, known by its directory, in which nothing is written."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        """Take the keys and the birth credential."""
        self.lab = lab
        self.directory = directory
        self.birth = BirthCredential.decode((directory / "birth.cbor").read_bytes())
        self.static = AgreementKey.load(directory / "identity.pem")
        self.attestation = SigningKey.load(directory / "attestation.pem")
        self.stored: dict[str, bytes] = {}
        """The newest grant by role."""
        self.key = SigningKey.generate()[0]
        """The operational key that certificates are asked for."""
        self.measured = software(lab)
        self._found: Discovered | None = None

    # --- discovery --------------------------------------------------------------------------------

    @property
    def found(self) -> Discovered:
        """What it has discovered."""
        return self._found or self.discover()

    def discover(self) -> Discovered:
        """Discover through the world's gateway, from birth; what is found is acted on from now on."""
        name = self.birth.gateways[0]
        trust = Trust.at_birth(self.birth.chain, self.birth.root)
        machine = Discovery(self.birth, self.static, gateway=name, trust=trust, nonce=secrets.token_bytes(32))
        event = machine.start()
        while True:
            match event:
                case AskMailbox(locator, tenure):
                    answer = post(name, "/v1/mail", MailRequest.of(locator, tenure).encode())
                case AskBundle(request) | AskMore(request):
                    answer = post(name, "/v1/bundles", request.encode())
                case Discovered():
                    self._found = event
                    return event
                case Failed(code, detail):
                    raise AssertionError(f"{code}: {detail}")
            event = machine.receive(answer)

    def claim(self, role: str) -> PartyClaim:
        """Return the plan's claim for ``mno`` or ``sp``."""
        plan = self.found.plan
        return plan.network if role == "mno" else plan.services[0]

    def record(self, party: bytes) -> Party:
        """Return a party's record, proven under the head that was discovered."""
        name, view = party_name(party), self.found.view
        if name not in view.records:
            request = replace(view.trust.request(secrets.token_bytes(32), names=(name,)), height=view.height)
            answer = StateProof.decode(post(self.birth.gateways[0], "/v1/bundles", request.encode()))
            view = verify_follow_up(answer, request, view=view)
        record = view.party(party)
        assert record is not None
        return record

    def identity(self) -> Identity:
        """Return who it is."""
        birth = self.birth
        return Identity(birth.batch, birth.index, birth.leaf(), birth.path, self.static)

    def acting(self, role: str, **changes: Any) -> Acting:
        """Return what an honest device acts on, with ``changes``."""
        party = bytes.fromhex(self.lab.parties[role])
        record, found = self.record(party), self.found
        assert record.agreement_key is not None
        acting = Acting(
            chain=self.birth.chain,
            party=party,
            agreement_key=record.agreement_key,
            party_revision=record.revision,
            height=found.view.height,
            tenure=found.standing.number,
            plan_revision=found.standing.plan_revision,
            plan=opening(found.digests, self.claim(role)),
            stored_grant=self.stored.get(role),
        )
        return replace(acting, **changes)

    def evidence(self, signer: Signer | None = None, **changes: Any) -> MakeEvidence:
        """Return what makes this device's evidence, with ``changes``, or signed by another key."""
        batch = self.found.view.batch
        assert batch is not None
        issuer, measured = batch.issuer, self.measured

        def make(nonce: bytes) -> bytes:
            evidence = Evidence(
                nonce=nonce,
                pseudonym=bytes(16),
                oemid=issuer,
                model=self.birth.model,
                hardware_version="1",
                secure_boot=True,
                debug=Debug.DISABLED_SINCE_BOOT,
                boot_count=1,
                boot_seed=bytes(16),
                software_version="1",
                measurements=(measured,),
                reference=ReferenceName(issuer, reference_identifier(measured.digest)),
            )
            return sign_evidence(replace(evidence, **changes), signer or self.attestation)

        return make

    # --- one exchange, step by step ---------------------------------------------------------------

    def url(self, role: str) -> str:
        """Return where a party listens."""
        return self.lab.url(role)

    def begin(self, role: str, *, identity: Identity | None = None, suite: int = 2, **changes: Any) -> Begun:
        """Make message 1."""
        drawn = Ephemeral.draw(SystemRandom())
        return device.begin(identity or self.identity(), self.acting(role, **changes), ephemeral=drawn, suites=(suite,))

    def request(self, role: str) -> bytes:
        """Return what to ask a party for: a certificate, or nothing."""
        return build_request(self.key) if role == "sp" else b""

    def open(
        self,
        role: str,
        *,
        at: str | None = None,
        evidence: MakeEvidence | None = None,
        request: bytes | None = None,
        **changes: Any,
    ) -> Sent:
        """Go as far as message 3, which is made and not sent; ``at`` is the party's URL if it is another."""
        begun = self.begin(role, **changes)
        answer = say(at or self.url(role), begun.request_1)
        return self.read(begun, role, answer, evidence=evidence, request=request)

    def read(
        self,
        begun: Begun,
        role: str,
        answer: bytes,
        *,
        evidence: MakeEvidence | None = None,
        request: bytes | None = None,
    ) -> Sent:
        """Read response 1, which must be a good one."""
        wanted = self.request(role) if request is None else request
        sent = begun.read(answer, evidence=evidence or self.evidence(), request=wanted)
        assert isinstance(sent, Sent), sent
        return sent

    def finish(self, role: str, sent: Sent, *, at: str | None = None) -> Granted | Refused | BackOff:
        """Send message 3, and read the answer; a revocation list that is renewed by that is waited for."""
        replaces = role == "sp" and GrantState.PENDING in self.grants(role)
        before = self._list()
        event = sent.read(say(at or self.url(role), sent.request_2))
        if isinstance(event, Granted):
            self.stored[role] = event.grant.id
            while replaces and self._list() == before:
                time.sleep(PAUSE)
        return event

    def _list(self) -> list[tuple[Any, ...]]:
        return self.lab.query("sp", "SELECT value FROM certificate_meta WHERE key = 'list'")

    def onboard(self, role: str, *, at: str | None = None, **bent: Any) -> Granted:
        """Run one whole exchange, which must bring a grant."""
        event = self.finish(role, self.open(role, at=at, **bent), at=at)
        assert isinstance(event, Granted), event
        return event

    def refused(self, role: str, *, at: str | None = None, **bent: Any) -> str:
        """Run one whole exchange, which must end in a protected refusal; return its code."""
        event = self.finish(role, self.open(role, at=at, **bent), at=at)
        assert isinstance(event, Refused), event
        return event.code

    def raw_3(self, begun: Begun, response_1: bytes, ead_3: Sequence[Ead]) -> tuple[bytes, Session]:
        """Return a request 2 with whatever EAD items, its MAC right, and the session."""
        answer, acting = wire.parse_answer(response_1), begun.acting
        unverified = initiator.read_2(begun.started, answer.message_2)
        credential = party_credential(acting.chain, acting.party, acting.agreement_key)
        verified = unverified.verify(credential, acting.agreement_key[1:])
        leaf = begun.identity.leaf
        cred_i = device_credential(leaf.identity, leaf.kid)
        message_3, session = initiator.make_3(
            verified, static=begun.identity.static, kid_i=leaf.kid, cred_i=cred_i, ead_3=ead_3
        )
        return wire.Second(answer.token, unverified.c_r, message_3).encode(), session

    # --- what is on record about it ---------------------------------------------------------------

    def grants(self, role: str) -> list[GrantState]:
        """Return the states of all grants that it was given, the oldest first."""
        birth = self.birth
        query = "SELECT state FROM issued WHERE batch = ? AND idx = ? ORDER BY sequence"
        return [GrantState(state) for (state,) in self.lab.query(role, query, birth.batch, birth.index)]

    def slots(self, role: str) -> int:
        """Return how many slots of orders it takes."""
        birth = self.birth
        return len(self.lab.query(role, "SELECT * FROM slot WHERE batch = ? AND idx = ?", birth.batch, birth.index))

    # --- what comes after -------------------------------------------------------------------------

    def sim(self, granted: Granted) -> MemorySim:
        """Return the USIM that a grant makes."""
        return MemorySim(soft_sim(granted, self.birth.chain, bytes.fromhex(self.lab.parties["mno"])))


def attach(sim: MemorySim | SoftSim) -> EmbeddedAttachment:
    """Attach to the network of a USIM's grant."""
    store = sim if isinstance(sim, MemorySim) else MemorySim(sim)
    return asyncio.run(EmbeddedNetworkAccess(SystemRandom()).attach(store))


def swapped(request_2: bytes, **parts: bytes) -> bytes:
    """Return a request 2 with its ``token``, ``c_r`` or ``message_3`` replaced."""
    second = wire.parse_request(request_2)
    assert isinstance(second, wire.Second)
    return replace(second, **parts).encode()


def part(request_2: bytes, name: str) -> bytes:
    """Return the ``token``, ``c_r`` or ``message_3`` of a request 2."""
    found: bytes = getattr(wire.parse_request(request_2), name)
    return found
