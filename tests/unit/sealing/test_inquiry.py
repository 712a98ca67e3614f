"""Questions to parties, and their answers: who can read them, what they are bound to, what a changed bit does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from firstlight import cose
from firstlight.encoding import encode
from firstlight.errors import FirstlightError
from firstlight.plan.order import Order, sign_order
from firstlight.sealing import hpke
from firstlight.sealing.inquiry import (
    ALARMS,
    ANSWER_SIZES,
    CLEARANCE,
    PLAIN_SIZE,
    QUESTION,
    ROWS,
    SEALED_SIZE,
    Answer,
    Asked,
    Clearance,
    Cleared,
    DeviceLine,
    Ending,
    Holds,
    Question,
    RaisedAlarm,
    Told,
    check_inquiry,
    open_answer,
    seal_answer,
    seal_inquiry,
    sign_inquiry,
    unseal_inquiry,
)
from firstlight.sealing.padding import pad
from firstlight.testing.chains import P256Key

CHAIN, PARTY, NOW = "test-1", b"N" * 16, 1_000_000
OWNER, MNO, REPLY, OTHER = P256Key("tenure"), P256Key("agreement"), P256Key("reply"), P256Key("other")
ASKED = Question(CHAIN, PARTY, b"B" * 16, 2, b"O" * 16, None, b"n" * 16, NOW, REPLY.public)
WORD = Clearance(CHAIN, PARTY, b"B" * 16, 2, 7, 5, b"n" * 16, NOW, REPLY.public)
NOTHING = Told(True, 9, 0, NOW, 0, 0, 0, 0, (), (), None)
LINE = DeviceLine(
    2**32 - 1, Holds.ENDED, 2**32 - 1, 2**40, 2**40, 2**40, 2**40, Ending.APPRAISAL_OVER, "c" * 48, 2**40, 2**63 - 1
)


def sealed(said: Question | Clearance = ASKED, **changed: object) -> bytes:
    to = {"chain": CHAIN, "party": PARTY, "agreement": MNO.public, **changed}
    return seal_inquiry(sign_inquiry(said, OWNER), **to)  # type: ignore[arg-type]


def opened(data: bytes, typ: str = QUESTION) -> Asked:
    return unseal_inquiry(data, MNO, typ=typ, chain=CHAIN, party=PARTY)


@pytest.mark.parametrize(("typ", "said"), [(QUESTION, ASKED), (CLEARANCE, WORD)])
def test_what_is_asked_arrives(typ: str, said: Question | Clearance) -> None:
    asked = opened(sealed(said), typ)
    assert asked.said == said
    check_inquiry(asked, typ=typ, key=OWNER.public, chain=CHAIN, party=PARTY, now=NOW)
    answer: Answer = NOTHING if isinstance(said, Question) else Cleared(stood=True)
    assert open_answer(seal_answer(answer, asked), REPLY, asked=asked) == answer


def test_sizes_tell_nothing() -> None:
    longest = "a" * 40
    for said in (ASKED, WORD, replace(ASKED, start=2**32 - 1, chain=longest), replace(WORD, chain=longest)):
        assert len(sealed(said)) == SEALED_SIZE
    asked = opened(sealed())
    full = replace(NOTHING, alarms=(RaisedAlarm(2**32 - 1, 2**63 - 1),) * ALARMS, lines=(LINE,) * ROWS)
    sizes = [len(seal_answer(one, asked)) - hpke.OVERHEAD for one in (NOTHING, replace(NOTHING, lines=(LINE,)), full)]
    assert sizes == [ANSWER_SIZES[0], ANSWER_SIZES[0], ANSWER_SIZES[2]]


def garbage(plain: bytes) -> bytes:
    return hpke.seal(MNO.public, plain, info=encode(["firstlight-asked-1", CHAIN, PARTY]))


ORDER = sign_order(Order(b"O" * 16, CHAIN, PARTY, b"B" * 16, 2, 9, NOW + 1), OWNER)
NOT_OPENED = {
    "cut": ("wrong-size", lambda: sealed()[:-1]),
    "for another party": ("cannot-open", lambda: sealed(party=bytes(16))),
    "for another chain": ("cannot-open", lambda: sealed(chain="other")),
    "for another's key": ("cannot-open", lambda: sealed(agreement=OTHER.public)),
    "off the curve": ("bad-point", lambda: b"\x04" + bytes(SEALED_SIZE - 1)),
    "not padded": ("bad-padding", lambda: garbage(b"\xff" * PLAIN_SIZE)),
    "an order": ("wrong-type", lambda: garbage(pad(ORDER, PLAIN_SIZE))),
    "a clearance": ("wrong-type", lambda: sealed(WORD)),
    "no question inside": (
        "wrong-shape",
        lambda: garbage(pad(cose.sign1(encode([1]), typ=QUESTION, signer=OWNER), PLAIN_SIZE)),
    ),
}


@pytest.mark.parametrize("name", NOT_OPENED)
def test_what_does_not_open(name: str) -> None:
    code, make = NOT_OPENED[name]
    with pytest.raises(FirstlightError) as caught:
        opened(make())
    assert caught.value.code == code


NOT_ANSWERED: dict[str, tuple[str, dict[str, object], dict[str, object]]] = {
    "another's key": ("unknown-key", {}, {"key": OTHER.public}),
    "another chain": ("wrong-chain", {"chain": "other"}, {}),
    "another party": ("wrong-party", {"party": bytes(16)}, {}),
    "too old": ("question-stale", {}, {"now": NOW + 300}),
    "too new": ("question-stale", {}, {"now": NOW - 300}),
}


@pytest.mark.parametrize("name", NOT_ANSWERED)
def test_what_is_not_answered(name: str) -> None:
    code, words, checked = NOT_ANSWERED[name]
    said = replace(ASKED, **words)  # type: ignore[arg-type]
    asked = Asked(said, sign_inquiry(said, OWNER))
    by: dict[str, object] = {"typ": QUESTION, "key": OWNER.public, "chain": CHAIN, "party": PARTY, "now": NOW}
    with pytest.raises(FirstlightError) as caught:
        check_inquiry(asked, **{**by, **checked})  # type: ignore[arg-type]
    assert caught.value.code == code


def test_no_changed_bit_is_answered() -> None:
    signed = sign_inquiry(ASKED, OWNER)
    for at in range(0, len(signed), 7):
        changed = signed[:at] + bytes([signed[at] ^ 1]) + signed[at + 1 :]
        with pytest.raises(FirstlightError):
            check_inquiry(Asked(ASKED, changed), typ=QUESTION, key=OWNER.public, chain=CHAIN, party=PARTY, now=NOW)


def test_an_answer_is_for_its_question_and_its_asker() -> None:
    asked = opened(sealed())
    answer = seal_answer(NOTHING, asked)
    again = replace(ASKED, nonce=b"m" * 16)
    attempts: dict[str, tuple[str, Callable[[], Answer]]] = {
        "read by another": ("cannot-open", lambda: open_answer(answer, OTHER, asked=asked)),
        "to another question": (
            "cannot-open",
            lambda: open_answer(answer, REPLY, asked=Asked(again, sign_inquiry(again, OWNER))),
        ),
        "changed": ("cannot-open", lambda: open_answer(answer[:-1] + b"\x00", REPLY, asked=asked)),
        "cut": ("wrong-size", lambda: open_answer(answer[:-1], REPLY, asked=asked)),
        "the question sent back": ("wrong-size", lambda: open_answer(sealed(), REPLY, asked=asked)),
    }
    for name, (code, attempt) in attempts.items():
        with pytest.raises(FirstlightError) as caught:
            attempt()
        assert caught.value.code == code, name
