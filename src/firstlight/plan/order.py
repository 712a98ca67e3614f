"""The order: what an owner agrees with a network or a service beforehand, so that no device is registered anywhere.

It belongs to a tenure by its origin, so that splits and recovery keep it, and is signed by that tenure's key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from firstlight import cose
from firstlight.encoding import Bytes16, ChainId, Range, Record, Seconds
from firstlight.errors import ProofError
from firstlight.ledger.records import MAX_BATCH
from firstlight.ports import Signer

TYP = "application/firstlight-order+cbor"
MAX_ORDER = 512


@dataclass(frozen=True, slots=True)
class Order(Record):
    """So many ``devices`` of the tenure ``origin`` (its number) of ``batch``, granted before ``until`` (Unix seconds).

    ``number`` is random, and the order is known by it.
    """

    LIMIT: ClassVar[int] = MAX_ORDER

    number: Bytes16
    chain: ChainId
    party: Bytes16
    batch: Bytes16
    origin: Annotated[int, Range(1, 2**32 - 1)]
    devices: Annotated[int, Range(1, MAX_BATCH)]
    until: Seconds


def sign_order(order: Order, signer: Signer) -> bytes:
    """Return the order as a COSE_Sign1 by the tenure's key."""
    return cose.sign1(order.encode(), typ=TYP, signer=signer)


def parse_order(data: bytes) -> Order:
    """Return an order whose signature is *not* checked, to learn whose key it needs; :class:`MalformedError`."""
    return Order.decode(cose.parse(data, typ=TYP, limit=MAX_ORDER).payload)


def open_order(data: bytes, *, key: bytes, chain: str, party: bytes, now: int) -> Order:
    """Return an order that ``party`` may take on.

    1. It is signed by ``key``, the key of the tenure's origin (:class:`SignatureError` ``unknown-key``,
    ``bad-signature``), and well formed (MalformedError); 2. it is for this chain (``wrong-chain``) and 3. this party
    (``wrong-party``); 4. it has not run out at ``now`` (``order-expired``). Raises :class:`ProofError` otherwise.
    """
    order = Order.decode(cose.open1(data, typ=TYP, key=key, limit=MAX_ORDER))
    if order.chain != chain:
        raise ProofError("wrong-chain", f"an order for {order.chain}")
    if order.party != party:
        raise ProofError("wrong-party", "an order for another party")
    if now >= order.until:
        raise ProofError("order-expired", f"the order ran out at {order.until}")
    return order
