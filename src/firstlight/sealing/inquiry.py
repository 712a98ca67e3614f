"""What an owner asks an MNO or SP about his own devices, and what it answers: sealed both ways, over any carrier.

A question is signed by the key of the tenure that an order belongs to, and sealed to the key-agreement key that the
ledger names for the party. The answer is sealed to a key that stands in the question and in nothing else, under the
question's own hash: who cannot open the question can neither read an answer nor make one. A question changes nothing;
a clearance ends the one clone alarm that it names by its time, however often it arrives.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, ClassVar

from firstlight import cose
from firstlight.encoding import Bytes16, Bytes33, ChainId, Count, Range, Record, Seconds, Text, Uint32, encode
from firstlight.errors import MalformedError, ProofError
from firstlight.ports import KeyAgreement, Signer
from firstlight.sealing import hpke
from firstlight.sealing.padding import pad, unpad

QUESTION = "application/firstlight-question+cbor"
CLEARANCE = "application/firstlight-clearance+cbor"
PLAIN_SIZE = 512
SEALED_SIZE = PLAIN_SIZE + hpke.OVERHEAD
"""The size of every sealed question and clearance."""
ANSWER_SIZES = (2_048, 8_192, 32_768)
"""The sizes of plain answers: the least that an answer fits into."""
MAX_ANSWER = ANSWER_SIZES[-1] + hpke.OVERHEAD
WINDOW = 300
"""For how many seconds a question holds, to both sides of the party's time."""
ROWS, ALARMS = 240, 240
"""The most devices, and the most alarms, in one answer."""
_ASKED = "firstlight-asked-1"
_ANSWERED = "firstlight-answered-1"


class Holds(IntEnum):
    """What a device holds of a party."""

    NOTHING = 0
    PENDING = 1
    """A grant that it has not used yet."""
    CONFIRMED = 2
    """A grant that it has used."""
    ENDED = 3
    """Grants that have all ended."""


class Ending(IntEnum):
    """Why a grant ended."""

    UNSAID = 0
    SUPERSEDED = 1
    """The device has a newer one: it was renewed."""
    EXPIRED = 2
    SOLD = 3
    """The device counts as another owner's."""
    FROZEN = 4
    """By its owner, or because a recovery holds it."""
    RETIRED = 5
    PLAN_CHANGED = 6
    """Its owner has deployed another plan, and the device has shown none that names this party."""
    APPRAISAL_OVER = 7
    """Firmware, a signer or reference values were revoked that its appraisal rested upon."""


Origin = Annotated[int, Range(1, 2**32 - 1)]
Moment = Annotated[int, Range(0, 2**63 - 1)]
"""Unix nanoseconds."""
Code = Annotated[str, Text(r"([a-z][a-z0-9-]{0,47})?")]


@dataclass(frozen=True, slots=True)
class Question(Record):
    """What has become of an order, and of its devices from index ``start`` on (None: counts and alarms alone).

    ``reply`` is a key made for this question alone, to which the answer is sealed; ``at`` is when it was asked.
    """

    LIMIT: ClassVar[int] = PLAIN_SIZE

    chain: ChainId
    party: Bytes16
    batch: Bytes16
    origin: Origin
    order: Bytes16
    start: Uint32 | None
    nonce: Bytes16
    at: Seconds
    reply: Bytes33


@dataclass(frozen=True, slots=True)
class Clearance(Record):
    """The owner's word that device ``index`` is the only one: the clone alarm of ``raised_ns`` is over."""

    LIMIT: ClassVar[int] = PLAIN_SIZE

    chain: ChainId
    party: Bytes16
    batch: Bytes16
    origin: Origin
    index: Uint32
    raised_ns: Moment
    nonce: Bytes16
    at: Seconds
    reply: Bytes33


@dataclass(frozen=True, slots=True)
class RaisedAlarm(Record):
    """A clone alarm that stands: for which device, and since when (Unix ns)."""

    index: Uint32
    raised_ns: Moment


@dataclass(frozen=True, slots=True)
class DeviceLine(Record):
    """What a party knows of one device under an order; times in Unix seconds, 0: never.

    ``grants`` were given to it in all. ``expires`` is of the one that it holds, ``first`` and ``last`` say when it was
    used. ``ended`` and ``ending`` are of the last one that ended. ``refused`` is the code of the last refusal, if
    nothing was granted since; ``alarm_ns`` is when the clone alarm was raised that stands.
    """

    index: Uint32
    holds: Holds
    grants: Uint32
    expires: Seconds
    first: Seconds
    last: Seconds
    ended: Seconds
    ending: Ending
    refused: Code
    refused_at: Seconds
    alarm_ns: Moment


@dataclass(frozen=True, slots=True)
class Told(Record):
    """What a party answers to a question.

    Of its order: whether it is approved, for how many devices it is and how many were granted something; how many
    hold a pending and a confirmed grant, and of how many all have ended. ``alarms`` are those that stand, of
    ``alarmed`` in all. ``devices`` are in the order of their indices; ``following`` is where to go on, if not None.
    """

    LIMIT: ClassVar[int] = ANSWER_SIZES[-1]

    approved: bool
    devices: Uint32
    used: Uint32
    until: Seconds
    pending: Uint32
    confirmed: Uint32
    ended: Uint32
    alarmed: Uint32
    alarms: Annotated[tuple[RaisedAlarm, ...], Count(ALARMS)]
    lines: Annotated[tuple[DeviceLine, ...], Count(ROWS)]
    following: Uint32 | None


@dataclass(frozen=True, slots=True)
class Cleared(Record):
    """What a party answers to a clearance: whether that alarm stood until now."""

    LIMIT: ClassVar[int] = ANSWER_SIZES[0]

    stood: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """A question or clearance as it was opened, and the signed bytes that the answer goes with."""

    said: Question | Clearance
    signed: bytes


Answer = Told | Cleared
_TYPES: dict[str, type[Question | Clearance]] = {QUESTION: Question, CLEARANCE: Clearance}
_ANSWERS: dict[type[Question | Clearance], type[Answer]] = {Question: Told, Clearance: Cleared}


def sign_inquiry(said: Question | Clearance, signer: Signer) -> bytes:
    """Return a question or a clearance as a COSE_Sign1 by the tenure's key."""
    return cose.sign1(said.encode(), typ=QUESTION if isinstance(said, Question) else CLEARANCE, signer=signer)


def seal_inquiry(signed: bytes, *, chain: str, party: bytes, agreement: bytes) -> bytes:
    """Return what was signed, sealed for a party by its key-agreement key (33 bytes); always of the same size.

    Raises :class:`MalformedError` (``bad-point``).
    """
    return hpke.seal(agreement, pad(signed, PLAIN_SIZE), info=encode([_ASKED, chain, party]))


def unseal_inquiry(sealed: bytes, agreement: KeyAgreement, *, typ: str, chain: str, party: bytes) -> Asked:
    """Return what was asked, to learn whose key it needs: the signature is *not* checked.

    1. It has the constant size (``wrong-size``); 2. it opens with the party's key for this chain and party
    (:class:`SignatureError` ``cannot-open``, ``bad-point``); 3. padding (``bad-padding``), type (``wrong-type``) and
    content are well formed. Raises :class:`MalformedError` where nothing else is said.
    """
    if len(sealed) != SEALED_SIZE:
        raise MalformedError("wrong-size", f"a sealed question has {SEALED_SIZE} bytes, not {len(sealed)}")
    plain = hpke.unseal(sealed, agreement, info=encode([_ASKED, chain, party]))
    signed = unpad(plain, PLAIN_SIZE)
    return Asked(_TYPES[typ].decode(cose.parse(signed, typ=typ, limit=PLAIN_SIZE).payload), signed)


def check_inquiry(asked: Asked, *, typ: str, key: bytes, chain: str, party: bytes, now: int) -> None:
    """Check a question or clearance that ``party`` may answer.

    1. It is signed by ``key``, the key of the tenure's origin (:class:`SignatureError` ``unknown-key``,
    ``bad-signature``); 2. it is for this chain (``wrong-chain``) and 3. this party (``wrong-party``); 4. it was asked
    less than 300 seconds from ``now`` (``question-stale``). Raises :class:`ProofError` otherwise.
    """
    cose.open1(asked.signed, typ=typ, key=key, limit=PLAIN_SIZE)
    if asked.said.chain != chain:
        raise ProofError("wrong-chain", f"a question on {asked.said.chain}")
    if asked.said.party != party:
        raise ProofError("wrong-party", "a question to another party")
    if abs(now - asked.said.at) >= WINDOW:
        raise ProofError("question-stale", f"asked at {asked.said.at}, and it is {now}", hint="compare the clocks")


def seal_answer(answer: Answer, asked: Asked) -> bytes:
    """Return an answer sealed to whoever asked; of one of three sizes. :class:`MalformedError` (``bad-point``)."""
    data = answer.encode()
    size = next(size for size in ANSWER_SIZES if len(data) + 2 <= size)
    return hpke.seal(asked.said.reply, pad(data, size), info=_info(asked.said, asked.signed))


def open_answer(sealed: bytes, reply: KeyAgreement, *, asked: Asked) -> Answer:
    """Return what a party has answered.

    1. It has one of the sizes of answers (``wrong-size``); 2. it opens with the key that was made for the question,
    for this question (:class:`SignatureError` ``cannot-open``, ``bad-point``): nobody but the party could have sealed
    it, who alone has opened the question. Padding and content are well formed. Raises :class:`MalformedError` where
    nothing else is said.
    """
    size = len(sealed) - hpke.OVERHEAD
    if size not in ANSWER_SIZES:
        raise MalformedError("wrong-size", f"no answer has {len(sealed)} bytes")
    plain = hpke.unseal(sealed, reply, info=_info(asked.said, asked.signed))
    return _ANSWERS[type(asked.said)].decode(unpad(plain, size))


def _info(said: Question | Clearance, signed: bytes) -> bytes:
    return encode([_ANSWERED, said.chain, said.party, hashlib.sha256(signed).digest()])
