"""A party's side of onboarding: bytes in, bytes out; an MNO or SP answers a device's exchange.

Nothing is kept between message 2 and message 3 (:mod:`firstlight.onboarding.token`). The checks of message 3 in their
order; the first that fails decides. Whoever fails one of 1 to 4 gets one uniform EDHOC error, from 5 on refusals are
protected in EAD_4:

     1. C_R is this party's (``wrong-identifier``); claim, evidence and request are within their bounds (``too-large``)
     2. the batch is one for which the party holds an order (nothing is fetched; ``batch-unknown``)
     3. the leaf is in the batch (:meth:`Leaf.verify`), and ID_CRED_I names it (``wrong-credential``)
     4. MAC_3 holds (``bad-mac``)
     5. ``exchange-used``: no other message 3 for this exchange has counted
     6. ``superseded``: message 2 is not older than that of the device's newest granted exchange
     7. ``view-too-old``, ``party-suspended``: the party's own view is new enough, and the party active
     8. ``not-accepted``, ``frozen``, ``retired``, ``not-deployed``: the tenure that counts is active and has a plan
     9. ``stale-view``: tenure, plan revision and revision of the party's record are those at its head
    10. ``bad-plan-opening``: the plan claim opens in the tenure's plan
    11. ``wrong-party``, ``wrong-kind``: the claim names this party, as something that it is
    12. ``order-unknown``, ``order-foreign``, ``order-expired``, ``order-full``: the order counts and has room
    13. the appraiser affirms the evidence (its code; :func:`_affirmed`)
    14. ``clone-alarm``: no second device has this birth credential (``is_clone``)
    15. the grantor takes the request (its code; :meth:`SimGrantor.grant`, :meth:`CertificateGrantor.grant`)
    16. exchange, hash of message 3, message 4, grant and order slot are one commit

Every exchange counts once: refusals (but for ``exchange-used``, which is the same bytes each time) are committed as
grants are, before message 4 leaves, because two plaintexts under one K_4 would break it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from firstlight import p256
from firstlight.errors import (
    ExchangeError,
    FirstlightError,
    MalformedError,
    ProofError,
    RefusedError,
    SignatureError,
    TransportError,
)
from firstlight.identity.credential import device_credential, id_cred, party_credential
from firstlight.ledger.records import PartyStatus, TenureState
from firstlight.ledger.tenure import Standing, counting
from firstlight.onboarding import messages, wire
from firstlight.onboarding.edhoc import responder
from firstlight.onboarding.edhoc.error import UNSPECIFIED, WRONG_SUITE, ErrorMessage
from firstlight.onboarding.edhoc.keys import Ead, Ephemeral, Session
from firstlight.onboarding.messages import Claim, Grant, Head, Refusal, evidence_nonce
from firstlight.onboarding.ports import (
    Answered,
    Appraisal,
    Appraiser,
    Asked,
    Entry,
    Ephemerals,
    Exchanges,
    Facts,
    Grantor,
    History,
    Known,
    LedgerView,
    NewGrant,
    OrderBook,
    OrderState,
)
from firstlight.onboarding.token import KeyRing, OpenState, open_token, seal_token
from firstlight.plan.claims import PartyClaim, PartyKind, open_claim
from firstlight.ports import KeyAgreement, Random

ATTEMPTS = 4
SECOND_NS = 1_000_000_000
GRANTED = "granted"
ANSWERED = "answered"
UNIFORM_ERROR = ErrorMessage(UNSPECIFIED, text="refused").encode()
"""What everybody gets who has not been authenticated, whatever was wrong."""
REFUSALS = {
    "exchange-used": 5,
    "superseded": 6,
    "view-too-old": 7,
    "party-suspended": 7,
    "not-accepted": 8,
    "frozen": 8,
    "retired": 8,
    "not-deployed": 8,
    "stale-view": 9,
    "bad-plan-opening": 10,
    "wrong-party": 11,
    "wrong-kind": 11,
    "order-unknown": 12,
    "order-foreign": 12,
    "order-expired": 12,
    "order-full": 12,
    "clone-alarm": 14,
}
"""The codes of protected refusals and the numbers of their checks; those of 13 and 15 are the ports' own."""
_REFUSING = (RefusedError, MalformedError, SignatureError, ProofError, TransportError)
"""What a check, an appraiser or a grantor raises to refuse: its code is the refusal's."""
NO_HISTORY = History((), alarm=False, cleared_ns=0)
_EAD_3 = {messages.EAD_CLAIM: True, messages.EAD_EVIDENCE: True, messages.EAD_REQUEST: True}


@dataclass(frozen=True, slots=True)
class Profile:
    """Who the party is: chain, id, static key, what it may be chosen for, its suites, the view age it allows (s)."""

    chain: str
    party: bytes
    static: KeyAgreement
    kinds: frozenset[PartyKind]
    suites: frozenset[int] = frozenset({2, 3})
    max_view_age: int = 60


@dataclass(frozen=True, slots=True)
class Reply:
    """What to send back, and what to write into the log: a code, TH_3 if known, the device if authenticated.

    ``code`` is ``answered`` (message 2), ``granted``, a refusal's code, or that of the error behind an EDHOC error
    message; ``error`` tells the last of these, ``repeated`` that the exchange had counted before.
    """

    data: bytes
    code: str
    th_3: bytes = b""
    batch: bytes = b""
    index: int = 0
    error: bool = False
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Authenticated:
    """A message 3 whose MAC holds: the device of this leaf made it, in this exchange, for this party."""

    session: Session
    digest_3: bytes
    opened_ns: int
    claim: Claim
    evidence: bytes
    request: bytes
    nonce: bytes


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What was decided: message 4's one item, and what is committed with it."""

    code: str
    item: Ead
    grant: NewGrant | None = None
    alarm: int | None = None
    result: bytes = b""


class DrawnEphemerals:
    """Ephemeral keys whose secrets are drawn (``onboarding.ports.Ephemerals``)."""

    def __init__(self, random: Random) -> None:
        """Draw from ``random``."""
        self._random = random

    def draw(self) -> Ephemeral:
        """Return a fresh key."""
        return Ephemeral.draw(self._random)

    def again(self, secret: bytes) -> Ephemeral:
        """Return the key with that secret."""
        return Ephemeral.from_secret(secret)


class Party:
    """Answers exchanges; holds no state but its collaborators."""

    def __init__(
        self,
        profile: Profile,
        *,
        ledger: LedgerView,
        appraiser: Appraiser,
        grantor: Grantor,
        orders: OrderBook,
        exchanges: Exchanges,
        random: Random,
        ephemerals: Ephemerals | None = None,
    ) -> None:
        """Take who the party is, and what it asks; without ``ephemerals``, ephemeral keys are drawn from ``random``."""
        self.profile = profile
        self._ledger = ledger
        self._appraiser = appraiser
        self._grantor = grantor
        self._orders = orders
        self._exchanges = exchanges
        self._random = random
        self._ephemerals = ephemerals or DrawnEphemerals(random)
        self._kid = p256.kid(profile.static.public)
        self._credential = party_credential(profile.chain, profile.party, profile.static.public)

    def handle(self, request: bytes, *, ring: KeyRing, now_ns: int) -> Reply:
        """Answer one request (:mod:`firstlight.onboarding.wire`); nothing that a peer sends makes it raise.

        What the party's own store raises (:class:`firstlight.errors.StoreError`) does come out: nothing was sent.
        """
        received = self.receive(request, ring=ring, now_ns=now_ns)
        if isinstance(received, Reply):
            return received
        return self.settle(received, self.facts(received.claim), now_ns=now_ns)

    def receive(self, request: bytes, *, ring: KeyRing, now_ns: int) -> Reply | Authenticated:
        """Answer message 1, or authenticate message 3, for which the facts are wanted then; errors are replies."""
        try:
            parsed = wire.parse_request(request)
            if isinstance(parsed, wire.First):
                return self.answer(parsed.message_1, ring=ring, now_ns=now_ns)
            return self.authenticate(parsed, ring=ring, now_ns=now_ns)
        except (MalformedError, ExchangeError, ProofError) as error:
            return self._error(error)

    # --- message 1 to message 2 ---------------------------------------------------------------

    def answer(self, message_1: bytes, *, ring: KeyRing, now_ns: int) -> Reply:
        """Make response 1; raises :class:`MalformedError`, :class:`ExchangeError`."""
        hello = responder.read_1(message_1, suites=self.profile.suites)
        messages.collect(hello.ead_1, {})
        message_2, half = responder.make_2(
            hello,
            ephemeral=self._ephemerals.draw(),
            static=self.profile.static,
            kid_r=self._kid,
            cred_r=self._credential,
            c_r=messages.C_R,
            ead_2=[Ead(messages.EAD_HEIGHT, False, Head(self._ledger.height()).encode())],
        )
        state = OpenState(half, now_ns)
        token = seal_token(state, ring, chain=self.profile.chain, party=self.profile.party, random=self._random)
        return Reply(wire.Answer(message_2, token).encode(), ANSWERED, half.th_3)

    def _error(self, error: FirstlightError) -> Reply:
        data = UNIFORM_ERROR
        if error.code == "wrong-suite":
            data = ErrorMessage(WRONG_SUITE, suites=tuple(sorted(self.profile.suites, reverse=True))).encode()
        return Reply(data, error.code, error=True)

    # --- message 3 until MAC_3: checks 1 to 4 -------------------------------------------------

    def authenticate(self, second: wire.Second, *, ring: KeyRing, now_ns: int) -> Authenticated:
        """Make checks 1 to 4; raises :class:`MalformedError`, :class:`ExchangeError`, :class:`ProofError`."""
        profile = self.profile
        state = open_token(second.token, ring, chain=profile.chain, party=profile.party, now_ns=now_ns)
        if second.c_r != messages.C_R:
            raise ExchangeError("wrong-identifier", "C_R is not this party's")
        unverified = responder.read_3(state.half, second.message_3, again=self._ephemerals.again)
        items = messages.collect(unverified.ead_3, _EAD_3, required=(messages.EAD_CLAIM, messages.EAD_EVIDENCE))
        claim_bytes, evidence = items[messages.EAD_CLAIM], items[messages.EAD_EVIDENCE]
        request = items.get(messages.EAD_REQUEST, b"")
        if len(evidence) > messages.MAX_EVIDENCE or len(request) > messages.MAX_REQUEST:
            raise MalformedError("too-large", "evidence or request beyond its bound")
        claim = Claim.decode(claim_bytes)  # 1
        anchor = self._orders.anchor(claim.batch)
        if anchor is None:  # 2
            raise ExchangeError("batch-unknown", "no order for a batch of that id")
        claim.leaf.verify(claim.index, anchor.size, claim.path, anchor.leaves)  # 3
        kid = claim.leaf.kid
        if unverified.kid_i != kid:
            raise ExchangeError("wrong-credential", "ID_CRED_I does not name the leaf")
        cred_i = device_credential(claim.leaf.identity, kid)
        session = unverified.verify(cred_i, claim.leaf.identity)  # 4
        return Authenticated(
            session=session,
            digest_3=hashlib.sha256(second.message_3).digest(),
            opened_ns=state.opened_ns,
            claim=claim,
            evidence=evidence,
            request=request,
            nonce=evidence_nonce(session.th_3, id_cred(kid), cred_i, claim_bytes, request),
        )

    def facts(self, claim: Claim) -> Facts | None:
        """Return the ledger facts that an authenticated claim needs, or None where they cannot be had or proven."""
        try:
            return self._ledger.facts(claim.batch, claim.index)
        except (TransportError, ProofError, MalformedError):
            return None

    def facts_of(self, claims: Sequence[Claim]) -> list[Facts | None]:
        """Return the same for several claims, under one head."""
        return self._ledger.facts_of([(claim.batch, claim.index) for claim in claims])

    # --- after MAC_3: checks 5 to 16 ----------------------------------------------------------

    def settle(self, asked: Authenticated, facts: Facts | None, *, now_ns: int) -> Reply:
        """Make checks 5 to 16, commit, and return message 4.

        If others kept moving the ground, nothing is committed and the reply is an error, ``contended``.
        """
        for _ in range(ATTEMPTS):
            proposed = self.propose(asked, facts, now_ns=now_ns)
            if isinstance(proposed, Reply):
                return proposed
            counted = self._exchanges.commit(proposed)  # 16
            if counted is not None:
                return concluded(asked, proposed, counted)
        claim = asked.claim
        return Reply(UNIFORM_ERROR, "contended", asked.session.th_3, claim.batch, claim.index, error=True)

    def propose(self, asked: Authenticated, facts: Facts | None, *, now_ns: int) -> Reply | Entry:
        """Make checks 5 to 15; return what is to be committed, or the reply to an exchange that has counted."""
        claim, th_3 = asked.claim, asked.session.th_3
        known = self._exchanges.known(th_3, claim.batch, claim.index)
        if known.answered is not None:  # 5
            return _repeat(asked, known.answered)
        outcome = self._decide(asked, known, facts, now_ns)
        return Entry(
            th_3=th_3,
            answered=Answered(asked.digest_3, asked.session.message_4([outcome.item])),
            batch=claim.batch,
            index=claim.index,
            opened_ns=asked.opened_ns,
            committed_ns=now_ns,
            code=outcome.code,
            version=known.version,
            grant=outcome.grant,
            alarm=outcome.alarm,
            result=outcome.result,
        )

    def commit_all(self, entries: Sequence[Entry]) -> list[Answered | None]:
        """Commit what several exchanges proposed, durably at once; None for one that must be settled anew."""
        return self._exchanges.commit_all(entries)  # 16

    def _decide(self, asked: Authenticated, known: Known, facts: Facts | None, now_ns: int) -> _Outcome:
        now, alarm, result = now_ns // SECOND_NS, None, b""
        try:
            if asked.opened_ns < known.granted_ns:  # 6
                raise RefusedError("superseded")
            sure = self._fresh(facts, now)  # 7
            standing = self._standing(sure)  # 8
            self._same_view(asked.claim, standing, sure)  # 9
            chosen = self._chosen(asked.claim, standing)  # 10, 11
            order = self._order(asked.claim, standing, chosen, now)  # 12
            appraisal = self._appraise(asked, sure, now)  # 13
            result = appraisal.result
            _affirmed(appraisal)
            history = self._history(asked.claim, known, standing)
            if is_clone(asked.claim.stored_grant, history, asked.opened_ns):  # 14
                alarm = standing.origin
                raise RefusedError("clone-alarm")
            grant = self._grant(asked, standing, chosen, order, basis=appraisal.basis, now=now)  # 15
        except _REFUSING as refused:
            item = Ead(messages.EAD_REFUSAL, True, Refusal(refused.code).encode())
            return _Outcome(refused.code, item, alarm=alarm, result=result)
        return _Outcome(GRANTED, Ead(messages.EAD_GRANT, True, grant.body), grant, None, result)

    def _fresh(self, facts: Facts | None, now: int) -> Facts:
        if facts is None or now - facts.witnessed_at > self.profile.max_view_age:
            raise RefusedError("view-too-old")
        if facts.party.status is not PartyStatus.ACTIVE:
            raise RefusedError("party-suspended")
        return facts

    def _standing(self, facts: Facts) -> Standing:
        try:
            standing = counting(facts.owner, facts.tenures, facts.header_time)
        except ProofError as error:
            raise RefusedError("not-accepted", str(error)) from error
        if standing.state is TenureState.FROZEN:
            raise RefusedError("frozen")
        if standing.state is TenureState.RETIRED:
            raise RefusedError("retired")
        if not standing.deployed:
            raise RefusedError("not-deployed")
        return standing

    def _same_view(self, claim: Claim, standing: Standing, facts: Facts) -> None:
        here = (standing.number, standing.plan_revision, facts.party.revision)
        if (claim.tenure, claim.plan_revision, claim.party_revision) != here:
            raise RefusedError("stale-view")

    def _chosen(self, claim: Claim, standing: Standing) -> PartyClaim:
        try:
            chosen = open_claim(standing.plan or b"", claim.plan)
        except (ProofError, MalformedError) as error:
            raise RefusedError("bad-plan-opening", str(error)) from error
        if chosen.party != self.profile.party:
            raise RefusedError("wrong-party")
        if chosen.kind not in self.profile.kinds:
            raise RefusedError("wrong-kind")
        return chosen

    def _order(self, claim: Claim, standing: Standing, chosen: PartyClaim, now: int) -> OrderState:
        state = self._orders.order(chosen.order, claim.batch, claim.index)
        if state is None:
            raise RefusedError("order-unknown")
        order = state.order
        ours = (order.chain, order.party) == (self.profile.chain, self.profile.party)
        if not ours or (order.batch, order.origin) != (claim.batch, standing.origin):
            raise RefusedError("order-foreign")
        if now >= order.until:
            raise RefusedError("order-expired")
        if not state.room:
            raise RefusedError("order-full")
        return state

    def _history(self, claim: Claim, known: Known, standing: Standing) -> History:
        """Return the device's grants; one of which nothing is known has none, and nobody need look for them."""
        if known.version == 0:
            return NO_HISTORY
        return self._exchanges.history(claim.batch, claim.index, standing.origin)

    def _appraise(self, asked: Authenticated, facts: Facts, now: int) -> Appraisal:
        leaf = asked.claim.leaf
        return self._appraiser.appraise(asked.evidence, nonce=asked.nonce, leaf=leaf, facts=facts, now=now)

    def _grant(
        self,
        asked: Authenticated,
        standing: Standing,
        chosen: PartyClaim,
        order: OrderState,
        *,
        basis: tuple[str, ...],
        now: int,
    ) -> NewGrant:
        wanted = Asked(
            id=self._random.bytes(16),
            batch=asked.claim.batch,
            index=asked.claim.index,
            origin=standing.origin,
            order=chosen.order,
            until=order.order.until,
            kind=chosen.kind,
            request=asked.request,
            now=now,
        )
        issue = self._grantor.grant(wanted, asked.session)
        body = Grant(wanted.id, now, issue.expires, issue.body).encode()
        return NewGrant(
            id=wanted.id,
            origin=wanted.origin,
            order=wanted.order,
            kind=wanted.kind,
            issued_at=now,
            expires=issue.expires,
            identifier=issue.identifier,
            body=body,
            secret=issue.secret,
            tenure=standing.number,
            revision=standing.plan_revision,
            basis=basis,
        )


def _affirmed(appraisal: Appraisal) -> None:
    if appraisal.refusal is not None:
        raise RefusedError(appraisal.refusal)


def concluded(asked: Authenticated, proposed: Entry, counted: Answered) -> Reply:
    """Return the reply to an exchange that was committed as ``proposed``, or had counted otherwise before that."""
    if counted == proposed.answered:
        return Reply(counted.message_4, proposed.code, proposed.th_3, proposed.batch, proposed.index)
    return _repeat(asked, counted)


def is_clone(named: bytes | None, history: History, opened_ns: int) -> bool:
    """Tell whether the grant that a device names betrays a second device with the same birth credential.

    Only if one of its grants under this origin had been confirmed before this exchange was opened (and since the
    alarm was last cleared): then it must name a grant that was issued to it, and none older than the last one so
    confirmed. An alarm that stands refuses whatever is named.
    """
    if history.alarm:
        return True
    confirmed = [
        grant.sequence
        for grant in history.grants
        if grant.confirmed_ns is not None and history.cleared_ns < grant.confirmed_ns < opened_ns
    ]
    if not confirmed:
        return False
    issued = {grant.id: grant.sequence for grant in history.grants}
    return named is None or issued.get(named, -1) < max(confirmed)


def _repeat(asked: Authenticated, counted: Answered) -> Reply:
    """Answer for an exchange that has counted: the same message 3 gets the same message 4, another one a refusal.

    The refusal is always the same plaintext, and another message 3 has another TH_4, so K_4 seals nothing twice.
    """
    where = (asked.session.th_3, asked.claim.batch, asked.claim.index)
    try:
        _check_same(asked, counted)
    except RefusedError as refused:
        item = Ead(messages.EAD_REFUSAL, True, Refusal(refused.code).encode())
        return Reply(asked.session.message_4([item]), refused.code, *where)
    return Reply(counted.message_4, ANSWERED, *where, repeated=True)


def _check_same(asked: Authenticated, counted: Answered) -> None:
    if counted.digest_3 != asked.digest_3:
        raise RefusedError("exchange-used")
