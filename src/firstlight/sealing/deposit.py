"""Deposits: lists of (locator, envelope) that an owner leaves at a gateway, one signature over each list.

A list is for one tenure and plan revision and is signed by the key of that tenure's origin; a large fleet's
goes in several parts, each a list of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Annotated, ClassVar

from firstlight import cose, p256
from firstlight.encoding import Bytes16, ChainId, Count, Range, Record, Size, Uint
from firstlight.errors import MalformedError, ProofError
from firstlight.ports import Signer
from firstlight.sealing.envelope import SEALED_SIZE
from firstlight.sealing.locator import GatewayName

TYP = "application/firstlight-deposit+cbor"
PART = 512
"""The most entries in one list."""
MAX_DEPOSIT = PART * (SEALED_SIZE + 32) + 1_024


@dataclass(frozen=True, slots=True)
class DepositEntry(Record):
    """One envelope and where it lies."""

    locator: Bytes16
    envelope: Annotated[bytes, Size(SEALED_SIZE)]


@dataclass(frozen=True, slots=True)
class DepositList(Record):
    """Envelopes for devices of one tenure, ascending by locator; MalformedError ``unsorted-entries``."""

    LIMIT: ClassVar[int] = MAX_DEPOSIT

    chain: ChainId
    gateway: GatewayName
    batch: Bytes16
    tenure: Annotated[int, Range(1, 2**32 - 1)]
    revision: Uint
    entries: Annotated[tuple[DepositEntry, ...], Count(PART, 1)]

    def __post_init__(self) -> None:
        """Check the order of the entries."""
        if any(left.locator >= right.locator for left, right in pairwise(self.entries)):
            raise MalformedError("unsorted-entries", "entries do not ascend by locator")


@dataclass(frozen=True, slots=True)
class DepositTarget:
    """Where a deposit goes and for whom: chain, gateway name, batch id, tenure number, plan revision."""

    chain: str
    gateway: str
    batch: bytes
    tenure: int
    revision: int


def sign_deposits(target: DepositTarget, entries: Iterable[DepositEntry], signer: Signer) -> Iterator[bytes]:
    """Return the signed lists that hold ``entries``, :data:`PART` in each, in the order in which they come.

    ``signer`` holds the key of the tenure's origin. Two entries with one locator must not fall into one part.
    """
    stream = iter(entries)
    while part := sorted(islice(stream, PART), key=lambda entry: entry.locator):
        listed = DepositList(target.chain, target.gateway, target.batch, target.tenure, target.revision, tuple(part))
        yield cose.sign1(listed.encode(), typ=TYP, signer=signer)


@dataclass(frozen=True, slots=True)
class ParsedDeposit:
    """A deposit as it came; what it says tells whose key must have signed it."""

    claimed: DepositList
    signed: cose.Signed

    def verify(self, *, key: bytes, chain: str, gateway: str) -> DepositList:
        """Return the list, checked.

        1. It is signed by ``key``, that of the tenure's origin (:class:`SignatureError` ``unknown-key``,
        ``bad-signature``); 2. it is for this chain (``wrong-chain``) and 3. this gateway (``wrong-gateway``). Raises
        :class:`ProofError` otherwise.
        """
        self.signed.verify({p256.kid(key): key})
        if self.claimed.chain != chain:
            raise ProofError("wrong-chain", f"a deposit for {self.claimed.chain}")
        if self.claimed.gateway != gateway:
            raise ProofError("wrong-gateway", "a deposit for another gateway")
        return self.claimed


def parse_deposit(data: bytes) -> ParsedDeposit:
    """Parse a deposit strictly; nothing is verified. Raises :class:`MalformedError`."""
    signed = cose.parse(data, typ=TYP, limit=MAX_DEPOSIT)
    if signed.many:
        raise MalformedError("not-cose", "a COSE_Sign where a COSE_Sign1 is expected")
    return ParsedDeposit(DepositList.decode(signed.payload), signed)
