"""The device's side of one exchange with one party: :func:`begin`, :meth:`Begun.read`, :meth:`Sent.read`.

Bytes out (``request_1``, ``request_2``), bytes in, frozen events back. Message 3 is made once for a TH_3:
:class:`Sent` is a value, and whoever holds it may send the same bytes again. Nothing is written to disk
during an exchange; the caller stores a :class:`Granted` with its keys before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from firstlight import p256
from firstlight.errors import ExchangeError, MalformedError
from firstlight.identity.birth import Leaf
from firstlight.identity.credential import device_credential, id_cred, party_credential
from firstlight.onboarding import messages, wire
from firstlight.onboarding.edhoc import initiator
from firstlight.onboarding.edhoc.error import WRONG_SUITE, is_error, parse_error
from firstlight.onboarding.edhoc.initiator import Started, Verified
from firstlight.onboarding.edhoc.keys import Ead, Ephemeral, Session
from firstlight.onboarding.messages import Claim, Grant, Head, Refusal, evidence_nonce
from firstlight.plan.claims import PlanOpening
from firstlight.ports import KeyAgreement

MAX_AHEAD = 10
"""How many blocks a party's head may be ahead of the device's view before the device discovers anew."""
MAX_MESSAGE_4 = wire.MAX_RESPONSE

SUITES = (3, 2)
"""The cipher suites of a device, the most preferred first: sixteen bytes of MAC where the party has them."""

EvidenceMaker = Callable[[bytes], bytes]
"""Makes evidence (an EAT) that carries the nonce it is given."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the device is: its place in the batch, its leaf with the leaf's path, its identity key."""

    batch: bytes
    index: int
    leaf: Leaf
    path: tuple[bytes, ...]
    static: KeyAgreement


@dataclass(frozen=True, slots=True)
class Acting:
    """What the device acts on, all of it proven: the party with its key-agreement key and revision, and the view.

    ``plan`` opens the claim that names this party; ``stored_grant`` is the id of the newest grant that the device
    has stored from this party under this tenure's origin; ``rediscovered`` says that the view was renewed because of
    an event of this exchange's predecessor, so that it is not renewed again.
    """

    chain: str
    party: bytes
    agreement_key: bytes
    party_revision: int
    height: int
    tenure: int
    plan_revision: int
    plan: PlanOpening
    stored_grant: bytes | None = None
    rediscovered: bool = False


# --- events -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BackOff:
    """Nothing came of it and nothing is known for certain: try again later. ``code`` is for the log only."""

    code: str


@dataclass(frozen=True, slots=True)
class Rediscover:
    """The view looks old (``party-ahead``) or the party presents another key (``unexpected-credential``)."""

    reason: str
    height: int | None = None


@dataclass(frozen=True, slots=True)
class OtherSuite:
    """The party does not take the suite that was selected; :func:`begin` again, with a fresh key and ``suites``.

    Nobody has signed that. It is acted on once in a row: whoever forges it cannot bring two ends that have a better
    suite in common to use another one (RFC 9528 §9.3), only keep them from meeting.
    """

    suites: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Granted:
    """A grant, authenticated; ``session`` exports the keys that belong to it."""

    grant: Grant
    session: Session = field(repr=False)

    def subscription_keys(self, chain: str, party: bytes) -> tuple[bytes, bytes]:
        """Return K and OPc of a SIM grant; :class:`MalformedError` (``not-a-sim``) for another."""
        if not isinstance(self.grant.body, messages.SimGrant):
            raise MalformedError("not-a-sim", "the grant is not a subscription")
        return messages.subscription_keys(self.session, chain=chain, party=party, supi=self.grant.body.supi)


@dataclass(frozen=True, slots=True)
class Refused:
    """A refusal, authenticated."""

    code: str


@dataclass(frozen=True, slots=True)
class Sent:
    """An exchange whose message 3 is made. ``request_2`` may be sent any number of times."""

    request_2: bytes
    session: Session = field(repr=False)

    @property
    def th_3(self) -> bytes:
        """The exchange."""
        return self.session.th_3

    def read(self, response_2: bytes) -> Granted | Refused | BackOff:
        """Read response 2. After :class:`BackOff` the same bytes may be sent again."""
        try:
            if is_error(response_2):
                return BackOff(f"edhoc-error-{parse_error(response_2).code}")
            items = messages.collect(self.session.open_4(response_2, limit=MAX_MESSAGE_4), _EAD_4)
            if len(items) != 1:
                raise MalformedError("bad-ead", "not one grant or refusal")
            if messages.EAD_REFUSAL in items:
                return Refused(Refusal.decode(items[messages.EAD_REFUSAL]).code)
            return Granted(Grant.decode(items[messages.EAD_GRANT]), self.session)
        except (MalformedError, ExchangeError) as error:
            return BackOff(error.code)


@dataclass(frozen=True, slots=True)
class Begun:
    """An exchange whose message 1 is made."""

    request_1: bytes
    identity: Identity
    acting: Acting
    started: Started = field(repr=False)
    suites: tuple[int, ...] = (2,)

    def other_suite(self, response_1: bytes, supported: Sequence[int] = SUITES) -> OtherSuite | BackOff | None:
        """Say what follows if response 1 refuses the suite; None if it says something else (then :meth:`read` it).

        :class:`BackOff`: ``no-common-suite``, ``suites-contradict``, as :func:`initiator.next_proposal`.
        """
        try:
            error = parse_error(response_1) if is_error(response_1) else None
            if error is None or error.code != WRONG_SUITE:
                return None
            return OtherSuite(initiator.next_proposal(supported, self.suites, error.suites))
        except MalformedError:
            return None
        except ExchangeError as error:
            return BackOff(error.code)

    def read(self, response_1: bytes, *, evidence: EvidenceMaker, request: bytes = b"") -> Sent | Rediscover | BackOff:
        """Read response 1 and make message 3; ``request`` is a CSR for a certificate, nothing for a SIM.

        1. ID_CRED_R is the kid of the ledger's key (``unexpected-credential``); 2. MAC_2 holds with the credential
        made from the ledger's key (``bad-mac``); 3. EAD_2 is not more than ten blocks ahead of the view, unless the
        view was renewed for that already (``party-ahead``). 1 and 3 bring a :class:`Rediscover`, whatever else, and a
        second key that the ledger does not name, a :class:`BackOff`.
        """
        try:
            if is_error(response_1):
                return BackOff(f"edhoc-error-{parse_error(response_1).code}")
            answer = wire.parse_answer(response_1)
            unverified = initiator.read_2(self.started, answer.message_2)
            key = self.acting.agreement_key
            if unverified.kid_r != p256.kid(key):
                return self._rediscover("unexpected-credential", None)
            credential = party_credential(self.acting.chain, self.acting.party, key)
            verified = unverified.verify(credential, key[1:])
            items = messages.collect(unverified.ead_2, _EAD_2, required=tuple(_EAD_2))
            height = Head.decode(items[messages.EAD_HEIGHT]).height
        except (MalformedError, ExchangeError) as error:
            return BackOff(error.code)
        if height > self.acting.height + MAX_AHEAD and not self.acting.rediscovered:
            return self._rediscover("party-ahead", height)
        message_3, session = self._message_3(verified, evidence, request)
        return Sent(wire.Second(answer.token, unverified.c_r, message_3).encode(), session)

    def _rediscover(self, reason: str, height: int | None) -> Rediscover | BackOff:
        return BackOff(reason) if self.acting.rediscovered else Rediscover(reason, height)

    def _message_3(self, verified: Verified, evidence: EvidenceMaker, request: bytes) -> tuple[bytes, Session]:
        leaf = self.identity.leaf
        kid = leaf.kid
        cred_i, claim = device_credential(leaf.identity, kid), self._claim().encode()
        nonce = evidence_nonce(verified.th_3, id_cred(kid), cred_i, claim, request)
        ead_3 = [Ead(messages.EAD_CLAIM, True, claim), Ead(messages.EAD_EVIDENCE, True, evidence(nonce))]
        if request:
            ead_3.append(Ead(messages.EAD_REQUEST, True, request))
        return initiator.make_3(verified, static=self.identity.static, kid_i=kid, cred_i=cred_i, ead_3=ead_3)

    def _claim(self) -> Claim:
        who, acting = self.identity, self.acting
        return Claim(
            batch=who.batch,
            index=who.index,
            leaf=who.leaf,
            path=who.path,
            plan=acting.plan,
            height=acting.height,
            tenure=acting.tenure,
            plan_revision=acting.plan_revision,
            party_revision=acting.party_revision,
            stored_grant=acting.stored_grant,
        )


def begin(identity: Identity, acting: Acting, *, ephemeral: Ephemeral, suites: Sequence[int] = (2,)) -> Begun:
    """Make message 1 with a fresh ``ephemeral`` key: one for each exchange, never used again.

    ``suites`` is SUITES_I: the selected suite last, behind those that are preferred to it.
    """
    started = initiator.start(ephemeral, c_i=messages.C_I, suites=suites)
    return Begun(wire.First(started.message_1).encode(), identity, acting, started, tuple(suites))


_EAD_2 = {messages.EAD_HEIGHT: False}
_EAD_4 = {messages.EAD_GRANT: True, messages.EAD_REFUSAL: True}
