"""What travels between roles over HTTP beside transactions, bundles and EDHOC: the bodies, as records.

node      POST /v1/transactions   transaction         -> TransactionAnswer
          GET  /v1/transactions/{id}                  -> TransactionAnswer
          GET  /v1/headers/{height | latest}          -> HeaderAnswer
          POST /v1/proofs         ProofsRequest       -> Proofs
          POST /v1/bundles        BundleRequest       -> Bundle, or StateProof under a head named by its height
witness   POST /v1/witness        WitnessRequest      -> WitnessSignature
gateway   POST /v1/bundles        as above
          POST /v1/deposits       signed DepositList  -> DepositAnswer
          POST /v1/mail           MailRequest         -> MailAnswer
          POST /v1/receipts       ReceiptPut          -> []
          POST /v1/receipts/read  ReceiptQuery        -> ReceiptPage
          PUT  /v1/blobs/{sha-256}?issuer=&model=&identifier= (hexadecimal)   body -> []
          GET  /v1/blobs/{sha-256}                    -> body
          POST /relay/{party}/.well-known/edhoc       as the party answers
          POST /relay/{party}/v1/names                as the operator answers
mno       POST /v1/names          Suci                -> OneTimeName (before an attach that takes no SUCI)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from firstlight.chain.block import Header, Height
from firstlight.chain.commit import Commit, ValidatorSet
from firstlight.discovery.bundle import BundleRequest, HeadProof
from firstlight.discovery.machine import MAX_ENVELOPES
from firstlight.encoding import Bytes16, Bytes32, Count, Range, Record, Size, Text, Uint, Uint32
from firstlight.engines.port import Committed
from firstlight.errors import MalformedError
from firstlight.ledger.transaction import Kind
from firstlight.sealing import envelope, receipt

MAX_PROOFS = 128
"""The most bundle requests that a gateway hands to a node at once."""
MAX_STATE = 65_536
MAX_LOCATORS = 16
MAX_QUERIED = 1_024
MAX_RECEIPTS = 512
Code = Annotated[str, Text(r"[a-z0-9-]{0,60}")]
Detail = Annotated[str, Text(r"(?s).{0,400}")]


# --- node -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TransactionAnswer(Record):
    """A committed transaction: ``code`` is ``ok``; the rest as in :class:`firstlight.engines.port.Committed`."""

    id: Bytes32
    height: Height
    code: Code
    detail: Detail
    kind: Kind
    subject: Annotated[bytes, Size(0, 32)]
    tenure: Uint32
    work: Uint

    @classmethod
    def of(cls, committed: Committed) -> TransactionAnswer:
        """Return what to answer about ``committed``."""
        one = committed
        return cls(one.id, one.height, "ok", "", one.kind, one.subject, one.tenure, one.work)


@dataclass(frozen=True, slots=True)
class HeaderAnswer(Record):
    """A header with its commit, the validators of its height and those that it names for the next."""

    LIMIT: ClassVar[int] = 262_144

    header: Header
    commit: Commit
    validators: ValidatorSet
    next_validators: ValidatorSet


@dataclass(frozen=True, slots=True)
class ProofsRequest(Record):
    """Several bundle requests, each for the newest head or for one named by its height."""

    LIMIT: ClassVar[int] = MAX_PROOFS * BundleRequest.LIMIT

    requests: Annotated[tuple[BundleRequest, ...], Count(MAX_PROOFS, 1)]


@dataclass(frozen=True, slots=True)
class ProvenState(Record):
    """The bytes of a :class:`firstlight.discovery.bundle.StateProof`; or none, and the code of what was wrong."""

    proof: Annotated[bytes, Size(1, MAX_STATE)] | None
    code: Code
    detail: Detail


@dataclass(frozen=True, slots=True)
class Proofs(Record):
    """One head for all requests that want the newest, and what its state proves for each; in their order.

    ``head`` holds the roots from version ``first_root`` on and always the epoch.
    """

    LIMIT: ClassVar[int] = 4_194_304

    first_root: Uint32
    head: HeadProof
    states: Annotated[tuple[ProvenState, ...], Count(MAX_PROOFS)]


# --- gateway ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DepositAnswer(Record):
    """How many slots of the tenure and revision are filled now."""

    filled: Uint


@dataclass(frozen=True, slots=True)
class MailRequest(Record):
    """Under which locators to look for envelopes: for all, or (``batch``) for those left for ``tenure`` of a batch.

    Raises :class:`MalformedError` (``bad-tenure``) for a tenure without its batch, or the other way round.
    """

    locators: Annotated[tuple[Bytes16, ...], Count(MAX_LOCATORS, 1)]
    batch: Bytes16 | None = None
    tenure: Uint32 = 0

    def __post_init__(self) -> None:
        """Check what the bounds of single fields do not say."""
        if (self.batch is None) != (self.tenure == 0):
            raise MalformedError("bad-tenure", "a tenure goes with its batch")

    @classmethod
    def of(cls, locator: bytes, tenure: tuple[bytes, int] | None = None) -> MailRequest:
        """Return a device's request: for all mail under its locator, or what was left for a tenure (batch, number)."""
        return cls((locator,), *(tenure or (None, 0)))


@dataclass(frozen=True, slots=True)
class MailAnswer(Record):
    """The envelopes that lie there, in the order of the locators."""

    LIMIT: ClassVar[int] = MAX_ENVELOPES * (envelope.SEALED_SIZE + 8) + 64

    envelopes: Annotated[tuple[Annotated[bytes, Size(envelope.SEALED_SIZE)], ...], Count(MAX_ENVELOPES)]


@dataclass(frozen=True, slots=True)
class ReceiptPut(Record):
    """A sealed receipt and the locator to leave it under."""

    LIMIT: ClassVar[int] = 1_024

    locator: Bytes16
    sealed: Annotated[bytes, Size(receipt.SEALED_SIZE)]


@dataclass(frozen=True, slots=True)
class ReceiptQuery(Record):
    """Receipts under any of the locators that came after the one with this cursor (0: from the beginning)."""

    locators: Annotated[tuple[Bytes16, ...], Count(MAX_QUERIED, 1)]
    after: Annotated[int, Range(0, 2**63 - 1)]


@dataclass(frozen=True, slots=True)
class ReceiptFound(Record):
    """A receipt where it lies; ``cursor`` rises in the order of arrival."""

    cursor: Annotated[int, Range(0, 2**63 - 1)]
    locator: Bytes16
    sealed: Annotated[bytes, Size(receipt.SEALED_SIZE)]


@dataclass(frozen=True, slots=True)
class ReceiptPage(Record):
    """The next receipts; ask again after the last cursor until there are none."""

    LIMIT: ClassVar[int] = MAX_RECEIPTS * 512

    receipts: Annotated[tuple[ReceiptFound, ...], Count(MAX_RECEIPTS)]
