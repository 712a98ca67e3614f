"""Receipts: how an owner sees a fleet come up without the gateway learning or forging anything.

For each step a device signs a receipt with its attestation key and seals it to the owner's receipt key; it
lies at a gateway under a locator of its own. Every sealed receipt has the same size.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, ClassVar

from firstlight import cose
from firstlight.encoding import Bytes16, ChainId, Range, Record, Seconds, Text, Uint, Uint32, encode
from firstlight.errors import MalformedError, ProofError
from firstlight.ports import KeyAgreement, Signer
from firstlight.sealing import hpke
from firstlight.sealing.padding import pad, unpad

TYP = "application/firstlight-receipt+cbor"
SEALED_SIZE = 384
PLAIN_SIZE = SEALED_SIZE - hpke.OVERHEAD
NOBODY = bytes(16)
"""Stands for the party and the grant that a refusal does not have."""
_LABEL = "firstlight-receipt-1"


class Step(IntEnum):
    """What a device has done, or what has happened to it."""

    NETWORK_ATTACHED = 1
    SERVICE_CONNECTED = 2
    REFUSED = 3
    """It was refused: by a party, or because its tenure is frozen or retired."""


@dataclass(frozen=True, slots=True)
class Receipt(Record):
    """One step of one device: under which tenure and plan revision, with which party and grant, when (Unix seconds).

    ``counter`` rises with every receipt that the device makes. A refusal has no grant (zeros) but a ``code``, and no
    party (zeros) if it is the ledger that says so; what is no refusal has an empty code.
    """

    LIMIT: ClassVar[int] = PLAIN_SIZE

    chain: ChainId
    batch: Bytes16
    index: Uint32
    tenure: Annotated[int, Range(1, 2**32 - 1)]
    revision: Uint
    party: Bytes16
    grant: Bytes16
    step: Step
    counter: Uint
    time: Seconds
    code: Annotated[str, Text(r"([a-z][a-z0-9-]{0,39})?")] = ""


@dataclass(frozen=True, slots=True)
class Expected:
    """What an owner knows about the device under whose locator a receipt lay.

    ``key`` is the attestation key of its leaf (compressed), ``tenures`` the numbers of the owner's tenures,
    ``last_counter`` the highest counter seen before (-1: none).
    """

    chain: str
    locator: bytes
    batch: bytes
    index: int
    key: bytes
    tenures: Container[int]
    last_counter: int = -1


def seal_receipt(receipt: Receipt, *, signer: Signer, owner: bytes, locator: bytes) -> bytes:
    """Return the receipt signed by the attestation key and sealed to the owner's receipt key (384 bytes).

    Raises :class:`MalformedError` (``bad-point``).
    """
    signed = cose.sign1(receipt.encode(), typ=TYP, signer=signer)
    return hpke.seal(owner, pad(signed, PLAIN_SIZE), info=_info(receipt.chain, locator))


def open_receipt(sealed: bytes, agreement: KeyAgreement, expected: Expected) -> Receipt:
    """Return a receipt, checked.

    1. It has the constant size (MalformedError ``wrong-size``); 2. it opens with the receipt key for this chain
    and locator (SignatureError ``cannot-open``, MalformedError ``bad-point``, ``bad-padding``); 3. it is signed by
    the device's attestation key (SignatureError ``unknown-key``, ``bad-signature``) and well formed (MalformedError);
    4. it is for this chain (``wrong-chain``), 5. by this device (``wrong-device``), 6. under a tenure of this owner
    (``wrong-tenure``); 7. its counter is higher than the last one seen (``receipt-replayed``). Receipts that are
    fetched together may stand in any order: open them against the last counter before, then sort. Raises
    :class:`ProofError` otherwise.
    """
    if len(sealed) != SEALED_SIZE:
        raise MalformedError("wrong-size", f"a receipt has {SEALED_SIZE} bytes, not {len(sealed)}")
    plain = hpke.unseal(sealed, agreement, info=_info(expected.chain, expected.locator))
    receipt = Receipt.decode(cose.open1(unpad(plain, PLAIN_SIZE), typ=TYP, key=expected.key))
    if receipt.chain != expected.chain:
        raise ProofError("wrong-chain", f"a receipt for {receipt.chain}")
    if (receipt.batch, receipt.index) != (expected.batch, expected.index):
        raise ProofError("wrong-device", "a receipt in another device's name")
    if receipt.tenure not in expected.tenures:
        raise ProofError("wrong-tenure", f"a receipt under tenure {receipt.tenure}")
    if receipt.counter <= expected.last_counter:
        raise ProofError("receipt-replayed", f"counter {receipt.counter}, seen {expected.last_counter}")
    return receipt


def _info(chain: str, locator: bytes) -> bytes:
    return encode([_LABEL, chain, locator])
