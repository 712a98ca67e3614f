"""Ordering network and services: a signed order, kept in a file and left with the party."""

from __future__ import annotations

from dataclasses import dataclass

from firstlight.errors import ConfigError, ProofError
from firstlight.files import private_directory, write_atomic
from firstlight.ledger.records import PartyStatus
from firstlight.plan.order import Order, sign_order
from firstlight.roles.holdings import Holding
from firstlight.roles.workplace import Workplace, plain_url
from firstlight.transports.client import CBOR

ORDERS = "orders"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is ordered: from which party, for how many devices (None: all that are held), for how many seconds."""

    party: bytes
    devices: int | None
    seconds: int


def order(place: Workplace, holding: Holding, wanted: Wanted) -> Order:
    """Sign an order with the tenure's key, keep it, and leave it with the party, whose endpoint is proven.

    Raises :class:`ProofError` (``unknown-party``, ``party-suspended``, ``unknown-tenure``), :class:`ConfigError`
    (``no-endpoint``), :class:`TransportError` with the party's own code if it refuses.
    """
    with place.ledger() as ledger:
        party = ledger.party(wanted.party)
        ledger.tenure(holding.batch, holding.origin)
    if party.status is not PartyStatus.ACTIVE:
        raise ProofError("party-suspended", wanted.party.hex())
    endpoint = next((uri for uri in party.endpoints if uri.startswith("http://")), None)
    if endpoint is None:
        raise ConfigError("no-endpoint", f"party {wanted.party.hex()} has no HTTP endpoint on the ledger")
    signed_for = Order(
        number=place.random.bytes(16),
        chain=place.chain,
        party=wanted.party,
        batch=holding.batch,
        origin=holding.origin,
        devices=wanted.devices or holding.record.count,
        until=place.now() + wanted.seconds,
    )
    signed = sign_order(signed_for, holding.owner())
    directory = private_directory(place.directory / ORDERS)
    write_atomic(directory / f"{signed_for.number.hex()}.cose", signed)
    with place.web() as http:
        http.request("POST", f"{plain_url(endpoint)}/v1/orders", body=signed, content_type=CBOR, retries=3)
    return signed_for
