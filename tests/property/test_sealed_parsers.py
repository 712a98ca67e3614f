"""Whatever bytes come: a clear error of our own, and no other; and what was changed is never taken for genuine."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight.attestation.evidence import (
    Debug,
    Evidence,
    Measurement,
    ReferenceName,
    parse_evidence,
    sign_evidence,
)
from firstlight.attestation.reference import ReferenceSet, parse_reference, sign_reference
from firstlight.custody.file import AgreementKey, SigningKey
from firstlight.errors import FirstlightError
from firstlight.identity.birth import BirthCredential, Leaf
from firstlight.identity.manifest import Entry, Manifest
from firstlight.plan.claims import PlanOpening, parse_claim
from firstlight.plan.order import Order, open_order, sign_order
from firstlight.sealing import hpke, stream
from firstlight.sealing.deposit import DepositEntry, DepositTarget, parse_deposit, sign_deposits
from firstlight.sealing.envelope import SEALED_SIZE, EnvelopeContent, open_envelope, seal_envelope
from firstlight.trees import rfc6962

SIGNER = SigningKey(ec.derive_private_key(31, ec.SECP256R1()))
KEY = AgreementKey(ec.derive_private_key(32, ec.SECP256R1()))
MEASURED = (Measurement("app", bytes(32), 1),)
EVIDENCE = Evidence(
    *(bytes(32), bytes(16), bytes(16), b"m", "1", True, Debug.DISABLED, 1, bytes(16), "1"),
    MEASURED,
    ReferenceName(bytes(16), bytes(16)),
)
CONTENT = EnvelopeContent(1, 1, 1, (bytes(32),) * 16, (b"claim",))
ORDER = Order(bytes(16), "c", bytes(16), bytes(16), 1, 1, 100)

GENUINE: Mapping[str, bytes] = {
    "evidence": sign_evidence(EVIDENCE, SIGNER),
    "reference": sign_reference(ReferenceSet(bytes(16), b"m", MEASURED, 0, 1), SIGNER),
    "order": sign_order(ORDER, SIGNER),
    "deposit": next(
        sign_deposits(DepositTarget("c", "g", bytes(16), 1, 1), [DepositEntry(bytes(16), bytes(SEALED_SIZE))], SIGNER)
    ),
    "envelope": seal_envelope(CONTENT.padded(), identity=KEY.public, chain="c", locator=bytes(16)),
    "stream": b"".join(stream.seal_stream([b"one", b"two"], KEY.public, info=b"")),
}


def _evidence(data: bytes) -> object:
    found, signed = parse_evidence(data)
    signed.verify({signed.signatures[0].kid: SIGNER.public})
    return found


def _reference(data: bytes) -> object:
    parsed = parse_reference(data)
    parsed.signed.verify({parsed.signed.signatures[0].kid: SIGNER.public})
    return parsed


OPENERS: Mapping[str, Callable[[bytes], object]] = {
    "evidence": _evidence,
    "reference": _reference,
    "order": lambda data: open_order(data, key=SIGNER.public, chain="c", party=bytes(16), now=0),
    "deposit": lambda data: parse_deposit(data).verify(key=SIGNER.public, chain="c", gateway="g"),
    "envelope": lambda data: open_envelope(data, KEY, chain="c", locator=bytes(16)),
    "stream": lambda data: list(stream.open_stream([data], KEY, info=b"")),
}
PARSERS: Mapping[str, Callable[[bytes], object]] = {
    **OPENERS,
    "leaf": Leaf.decode,
    "birth": BirthCredential.decode,
    "manifest": lambda data: Manifest.from_chunks([data, data]),
    "claim": parse_claim,
    "opening": PlanOpening.decode,
    "content": EnvelopeContent.decode,
    "hpke": lambda data: hpke.unseal(data, KEY, info=b""),
}


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=300))
def test_random_bytes_are_a_clear_error(name: str, data: bytes) -> None:
    with pytest.raises(FirstlightError):
        PARSERS[name](data)


@pytest.mark.parametrize("name", OPENERS)
@settings(max_examples=60, deadline=None)
@given(seed=st.data())
def test_one_changed_or_missing_byte_is_refused(name: str, seed: st.DataObject) -> None:
    data = bytearray(GENUINE[name])
    OPENERS[name](bytes(data))
    at = seed.draw(st.integers(0, len(data) - 1))
    if seed.draw(st.booleans()):
        data[at] ^= seed.draw(st.integers(1, 255))
    else:
        del data[at:]
    with pytest.raises(FirstlightError):
        OPENERS[name](bytes(data))


POINTS = [ec.derive_private_key(number, ec.SECP256R1()).public_key().public_numbers() for number in range(1, 5)]
XY = [point.x.to_bytes(32) + point.y.to_bytes(32) for point in POINTS]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_part_of_any_part_of_a_batch_can_be_passed_on(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 70))
    entries = [Entry(n, n.to_bytes(16), XY[n % 4], XY[(n + 1) % 4], n.to_bytes(32)) for n in range(size)]
    tree = rfc6962.Tree.from_leaves(entry.leaf(b"m").input() for entry in entries)
    first = data.draw(st.sets(st.integers(0, size - 1), min_size=1))
    second = data.draw(st.sets(st.sampled_from(sorted(first)), min_size=1))
    head = ("c", bytes(16), b"m")
    whole = Manifest.build(head, [entries[n] for n in first], tree)
    part = whole.subset(second)
    assert part == Manifest.build(head, [entries[n] for n in second], tree)
    part.verify(tree.root, size)
