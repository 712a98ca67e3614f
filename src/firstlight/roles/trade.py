"""Buying and selling devices: request, sell, accept, withdraw; the same for a manufacturer, a distributor, an owner.

    buyer   request    fresh keys, and a file for the seller with the public halves
    seller  sell       the offer on the ledger, and a file for the buyer: which offer, and the sealed manifest
    buyer   accept     checks the manifest against the proven ledger, and only then takes the offer

Each step can be repeated with the same arguments after an interruption: a transaction is written down before it is
submitted, and submitted again it counts once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from firstlight import p256
from firstlight.custody.file import AgreementKey
from firstlight.encoding import Bytes16, Bytes32, Bytes33, ChainId, Range, Record
from firstlight.errors import ConfigError, MalformedError, ProofError, StoreError
from firstlight.files import private_directory, read_limited, write_atomic, write_pieces
from firstlight.identity.manifest import Manifest
from firstlight.ledger.records import Batch, Tenure, TenureState, batch_name, tenure_name
from firstlight.ledger.transaction import MAX_BYTES, Accept, Offer, Withdraw, build, parse
from firstlight.roles.holdings import (
    HOLDING,
    HOLDINGS,
    MANIFEST,
    SALES,
    Holding,
    HoldingRecord,
    find_holding,
    holding_files,
    holding_name,
    holdings,
    overlap,
    save_manifest,
    selection_of,
)
from firstlight.roles.ledger_client import LedgerClient, Submitted, record_of
from firstlight.roles.survey import Guess, Survey, spans_of, survey
from firstlight.roles.workplace import Workplace
from firstlight.sealing.stream import manifest_info, open_stream, seal_stream
from firstlight.trees.ownership import Selection

PURCHASES = "purchases"
PURCHASE = "purchase.cbor"
MANIFEST_KEY = "manifest.pem"
OFFER, ACCEPT = "offer.transaction", "accept.transaction"
LOOK_BACK = 1_024
"""Among how many of a batch's newest tenures an owner looks for what a transaction made."""
_LENGTH = 4
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Purchase(Record):
    """What a buyer gives a seller: the key that will be the tenure's, and the one to which manifests are sealed."""

    LIMIT: ClassVar[int] = 1_024

    chain: ChainId
    buyer: Bytes33
    manifest_key: Bytes33


@dataclass(frozen=True, slots=True)
class Sale(Record):
    """The head of what a seller gives a buyer; the sealed manifest follows it in the file."""

    LIMIT: ClassVar[int] = 1_024

    chain: ChainId
    offer: Bytes32
    batch: Bytes16
    tenure: Annotated[int, Range(1, 2**32 - 1)]
    buyer: Bytes33


@dataclass(frozen=True, slots=True)
class Sold:
    """A sale: the offer's transaction, the tenure that it made, how many devices, and until when it can be accepted."""

    submitted: Submitted
    batch: bytes
    tenure: int
    devices: int
    expiry: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """A purchase that is one's own now."""

    submitted: Submitted
    holding: Holding
    questions: int


# --- buyer: request ---------------------------------------------------------------------------


def request(place: Workplace, out: Path) -> Purchase:
    """Make fresh keys for one purchase and write what the seller needs to ``out``; :class:`StoreError`."""
    directory = private_directory(place.directory / PURCHASES / place.random.bytes(8).hex())
    owner, _ = holding_files(directory)
    manifest_key = AgreementKey.create(directory / MANIFEST_KEY)
    purchase = Purchase(place.chain, owner.public, manifest_key.public)
    write_atomic(directory / PURCHASE, purchase.encode())
    write_atomic(out, purchase.encode(), 0o644)
    return purchase


def read_purchase(path: Path, chain: str) -> Purchase:
    """Return what a buyer asks for; ``wrong-chain`` (:class:`ConfigError`), :class:`MalformedError`."""
    purchase = Purchase.decode(read_limited(path, Purchase.LIMIT))
    if purchase.chain != chain:
        raise ConfigError("wrong-chain", f"a purchase on {purchase.chain}")
    for key in (purchase.buyer, purchase.manifest_key):
        p256.load(key)
    return purchase


# --- seller: sell, withdraw -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Terms:
    """What is sold: devices (None: all) of tenure ``tenure`` (None: the holding's own), for so many seconds."""

    selection: Selection | None
    tenure: int | None
    seconds: int


def sell(place: Workplace, holding: Holding, terms: Terms, purchase: Purchase, out: Path) -> Sold:
    """Offer devices on the ledger and write the buyer's file, with the manifest sealed to him.

    Raises :class:`RuleError` if the ledger refuses; :class:`ConfigError`: ``nothing-to-sell``, ``purchase-used`` (an
    offer to this key stands already, for other devices).
    """
    with place.ledger() as ledger:
        offer, submitted = _offer(place, ledger, holding, terms, purchase)
        number, _ = newest_tenure(ledger, holding.batch, lambda one: one.key == purchase.buyer)
    part = holding.manifest().subset(offer.selection.indices())
    sale = Sale(place.chain, submitted.id, holding.batch, number, purchase.buyer).encode()
    sealed = seal_stream(part.chunks(), purchase.manifest_key, info=manifest_info(place.chain, holding.batch))
    write_pieces(out, _with_head(sale, sealed))
    return Sold(submitted, holding.batch, number, offer.selection.count, offer.expiry)


def _with_head(head: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield len(head).to_bytes(_LENGTH) + head
    yield from pieces


def _offer(
    place: Workplace, ledger: LedgerClient, holding: Holding, terms: Terms, purchase: Purchase
) -> tuple[Offer, Submitted]:
    """Return the offer and what became of it; one that was written down before is tried again first."""
    path = private_directory(holding.directory / SALES / p256.kid(purchase.buyer).hex()) / OFFER

    def make() -> bytes:
        tenure = terms.tenure or holding.origin
        name = tenure_name(holding.batch, holding.origin)
        sequence = record_of(ledger.view(name), name, Tenure, "unknown-tenure").sequence + 1
        selection = terms.selection or free_devices(ledger, holding, tenure)
        body = Offer(holding.batch, tenure, purchase.buyer, place.now() + terms.seconds, selection)
        return build(body, chain=place.chain, sequence=sequence, signer=holding.owner())

    _check_kept(path, terms)
    submitted = ledger.submit_kept(path, make)
    body = parse(read_limited(path, MAX_BYTES)).body
    if not isinstance(body, Offer):
        raise StoreError("file-not-readable", f"{path} holds no offer")
    return body, submitted


def _check_kept(path: Path, terms: Terms) -> None:
    if path.exists():
        body = parse(read_limited(path, MAX_BYTES)).body
        if not isinstance(body, Offer) or terms.selection not in (None, body.selection):
            raise ConfigError(
                "purchase-used", "other devices were offered to this key", hint="ask for a fresh purchase"
            )


def free_devices(ledger: LedgerClient, holding: Holding, tenure: int) -> Selection:
    """Return the devices of a holding that count as ``tenure`` and are under no live offer, as the ledger proves.

    Raises :class:`ConfigError` (``nothing-to-sell``).
    """
    mine = selection_of(holding.manifest().indices())
    found = survey(ledger, holding.batch, mine, Guess(tenure, tenure))
    regions = [one for one in found.regions if one.standing.number == tenure and not one.standing.offer]
    free = tuple(overlap(mine, spans_of(regions)))
    if not free:
        raise ConfigError("nothing-to-sell", f"no device counts as tenure {tenure}")
    return Selection.of(free)


def newest_tenure(ledger: LedgerClient, batch: bytes, fits: Callable[[Tenure], bool]) -> tuple[int, Tenure]:
    """Return number and record of the newest of a batch's last 1,024 tenures that fits, as the ledger proves.

    Raises :class:`ProofError` (``tenure-missing``).
    """
    view = ledger.view(batch_name(batch))
    last = record_of(view, batch_name(batch), Batch, "unknown-batch").tenures
    for number in range(last, max(last - LOOK_BACK, 0), -1):
        name = tenure_name(batch, number)
        record = record_of(ledger.follow(view, name), name, Tenure, "unknown-tenure")
        if fits(record):
            return number, record
    raise ProofError("tenure-missing", "the ledger does not show what the transaction did")


def origin_of(place: Workplace, batch: bytes | None, tenure: int | None) -> int | None:
    """Return the origin of a tenure of ours: itself if it was received, else what the ledger proves; None for None.

    Raises :class:`ConfigError`: ``no-holding``, ``which-holding``.
    """
    if tenure is None or any(one.origin == tenure and batch in (None, one.batch) for one in holdings(place.directory)):
        return tenure
    batches = {one.batch for one in holdings(place.directory) if batch in (None, one.batch)}
    if len(batches) != 1:
        raise ConfigError("which-holding" if batches else "no-holding", f"{len(batches)} batches fit")
    with place.ledger() as ledger:
        return ledger.tenure(batches.pop(), tenure).origin


def withdraw(place: Workplace, batch: bytes | None, tenure: int) -> Submitted:
    """Take back the offer ``tenure``; :class:`RuleError`, :class:`ConfigError` (``not-my-offer``)."""
    batches = {one.batch for one in holdings(place.directory) if batch in (None, one.batch)}
    if len(batches) != 1:
        raise ConfigError("which-holding", f"{len(batches)} batches fit", hint="name one with --batch")
    chosen = batches.pop()
    with place.ledger() as ledger:
        offer = ledger.tenure(chosen, tenure)
        if offer.previous == 0:
            raise ConfigError("not-my-offer", f"tenure {tenure} was never offered")
        origin = ledger.tenure(chosen, offer.previous).origin
        holding = find_holding(place.directory, chosen, origin)
        sequence = ledger.tenure(chosen, origin).sequence + 1
        body = Withdraw(chosen, tenure)
        return ledger.submit(build(body, chain=place.chain, sequence=sequence, signer=holding.owner()))


# --- buyer: accept ----------------------------------------------------------------------------


def accept(place: Workplace, sale_file: Path, *, delay: int) -> Accepted:
    """Check a sale against the proven ledger and take it; nothing is taken that has not been checked.

    1. The file is for this chain (``wrong-chain``) and one of our purchases (``not-our-purchase``), and the manifest
       opens with its key (:class:`SignatureError`, :class:`MalformedError`);
    2. the manifest is of the batch that the sale names (``wrong-manifest``), and every device in it is in the batch as
       the ledger has it (:meth:`Manifest.verify`);
    3. the ledger has the offer, to our key (``offer-missing``, ``offer-not-ours``), not ended (``offer-ended``) or
       expired (``offer-expired``);
    4. the tenure that it comes from counts and is active (``seller-not-active``);
    5. it covers exactly the devices in the manifest: as many (``wrong-count``), and each of them (``wrong-manifest``).

    Raises :class:`ProofError` where nothing else is said, and :class:`RuleError` if the ledger refuses.
    """
    sale, directory, manifest = _open_sale(place, sale_file)
    name = holding_name(sale.batch, sale.tenure)
    with place.ledger() as ledger:
        questions = 0

        def make() -> bytes:
            nonlocal questions
            questions = check_sale(ledger, sale, manifest, now=place.now()).questions
            owner, recovery = holding_files(directory)
            save_manifest(directory / MANIFEST, manifest)
            record = HoldingRecord(sale.chain, sale.batch, sale.tenure, manifest.size, manifest.model, len(manifest))
            write_atomic(directory / HOLDING, record.encode())
            body = Accept(sale.batch, sale.tenure, hashlib.sha256(recovery.public).digest(), delay)
            return build(body, chain=place.chain, sequence=1, signer=owner)

        submitted = ledger.submit_kept(directory / ACCEPT, make)
    if directory.name != name:
        target = private_directory(place.directory / HOLDINGS) / name
        directory = _moved(directory, target)
    return Accepted(submitted, find_holding(place.directory, sale.batch, sale.tenure), questions)


def _moved(directory: Path, target: Path) -> Path:
    try:
        directory.rename(target)
    except OSError as error:
        raise StoreError("file-not-written", f"{target}: {error.strerror or error}") from error
    return target


def check_sale(ledger: LedgerClient, sale: Sale, manifest: Manifest, *, now: int) -> Survey:
    """Do checks 2 to 5 of :func:`accept`."""
    name = tenure_name(sale.batch, sale.tenure)
    view = ledger.view(batch_name(sale.batch), name)
    batch = record_of(view, batch_name(sale.batch), Batch, "unknown-batch")
    offer = record_of(view, name, Tenure, "offer-missing")
    if (manifest.chain, manifest.batch, manifest.model) != (sale.chain, sale.batch, batch.model):
        raise ProofError("wrong-manifest", "a manifest of another batch")
    manifest.verify(batch.leaves, batch.size)
    if offer.key != sale.buyer or offer.origin != sale.tenure:
        raise ProofError("offer-not-ours", f"tenure {sale.tenure} is no offer to our key")
    if offer.state is not TenureState.OFFERED:
        raise ProofError("offer-ended", f"tenure {sale.tenure} is {offer.state.name.lower()}")
    if max(view.header_time, now) >= offer.expiry:
        raise ProofError("offer-expired", f"at {offer.expiry}")
    if offer.count != len(manifest):
        raise ProofError("wrong-count", f"the offer is for {offer.count} devices, the manifest of {len(manifest)}")
    wanted = selection_of(manifest.indices())
    found = survey(ledger, sale.batch, wanted, Guess(sale.tenure, offer.previous))
    for region in found.regions:
        if region.number != sale.tenure:
            raise ProofError("wrong-manifest", f"device {region.start} is not offered")
        if region.standing.offer != sale.tenure:
            raise ProofError("offer-ended", f"tenure {sale.tenure} cannot be accepted any more")
        if region.standing.number != offer.previous or region.standing.state is not TenureState.ACTIVE:
            raise ProofError("seller-not-active", f"tenure {offer.previous} is not its seller's to sell")
    return found


def _open_sale(place: Workplace, path: Path) -> tuple[Sale, Path, Manifest]:
    try:
        with path.open("rb") as file:
            sale = Sale.decode(file.read(min(int.from_bytes(file.read(_LENGTH)), Sale.LIMIT)))
            if sale.chain != place.chain:
                raise ConfigError("wrong-chain", f"a sale on {sale.chain}")
            directory = _purchase_of(place, sale)
            key = AgreementKey.load(directory / MANIFEST_KEY)
            pieces = iter(lambda: file.read(_PIECE), b"")
            chunks = open_stream(pieces, key, info=manifest_info(sale.chain, sale.batch))
            return sale, directory, Manifest.from_chunks(chunks)
    except FileNotFoundError as error:
        raise StoreError("file-missing", f"there is no {path}") from error
    except OSError as error:
        raise StoreError("file-not-readable", f"{path}: {error.strerror or error}") from error


def _purchase_of(place: Workplace, sale: Sale) -> Path:
    """Return the directory of the purchase that a sale answers, be it accepted already or not."""
    done = place.directory / HOLDINGS / holding_name(sale.batch, sale.tenure)
    waiting = place.directory / PURCHASES
    directories: list[Path] = [done, *(sorted(waiting.iterdir()) if waiting.is_dir() else ())]
    for directory in directories:
        try:
            purchase = Purchase.decode(read_limited(directory / PURCHASE, Purchase.LIMIT))
        except (StoreError, MalformedError):
            continue
        if purchase.buyer == sale.buyer:
            return directory
    raise ConfigError("not-our-purchase", "the sale is to a key that is not ours", hint="was it made with our request?")
