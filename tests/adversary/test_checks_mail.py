"""Mail and receipts that only one check of a device, a gateway or an owner stands in the way of.

Each is made by the product's own code with the keys that the enemy has, put where he can put it, and opened by the
code that the process runs; beside it lies an honest one that opens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from tests.refusals import refused

from firstlight import cose
from firstlight.encoding import encode
from firstlight.logs import Log
from firstlight.ports import KeyAgreement
from firstlight.roles.owner.collect import Collector
from firstlight.roles.wire import ReceiptFound
from firstlight.sealing import envelope, hpke, receipt
from firstlight.sealing.deposit import DepositEntry, DepositTarget, parse_deposit, sign_deposits
from firstlight.sealing.envelope import EnvelopeContent, open_envelope, seal_envelope
from firstlight.sealing.locator import mailbox_locator, receipt_locator
from firstlight.sealing.padding import pad
from firstlight.sealing.receipt import Expected, Receipt, Step, open_receipt, seal_receipt
from firstlight.stores.fleet import Deployed, FleetStore, Known
from firstlight.testing.chains import P256Key
from firstlight.testing.clock import FakeClock
from firstlight.transports.client import HttpClient

CHAIN, GATEWAY, BATCH = "test-1", "http://gateway.example", b"B" * 16
DEVICE, ATTESTATION, THIEF = P256Key("device"), P256Key("attestation"), P256Key("mallory")
OWNER, RECEIPTS = P256Key("owner"), P256Key("receipts")
OFF_CURVE = b"\x04" + b"\xff" * 64

# --- envelopes ------------------------------------------------------------------------------------

HERE = mailbox_locator(b"m" * 32, GATEWAY)
CONTENT = EnvelopeContent(7, 3, 12, tuple(bytes([n]) * 32 for n in range(16)), (b"claim",))
HONEST = seal_envelope(CONTENT.padded(), identity=DEVICE.public, chain=CHAIN, locator=HERE)


def sealed_to_device(plain: bytes) -> bytes:
    return seal_envelope(plain, identity=DEVICE.public, chain=CHAIN, locator=HERE)


ENVELOPES: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    "longer-than-others": ("wrong-size", lambda: HONEST + b"\x00"),
    "shorter-than-others": ("wrong-size", lambda: sealed_to_device(pad(CONTENT.encode(), envelope.PLAIN_SIZE - 1))),
    "of-another-device": (
        "cannot-open",
        lambda: seal_envelope(CONTENT.padded(), identity=THIEF.public, chain=CHAIN, locator=HERE),
    ),
    "of-another-chain": (
        "cannot-open",
        lambda: seal_envelope(CONTENT.padded(), identity=DEVICE.public, chain="test-2", locator=HERE),
    ),
    "moved-from-another-mailbox": (
        "cannot-open",
        lambda: seal_envelope(CONTENT.padded(), identity=DEVICE.public, chain=CHAIN, locator=bytes(16)),
    ),
    "to-a-point-off-the-curve": ("bad-point", lambda: OFF_CURVE + HONEST[65:]),
    "with-more-than-it-says": (
        "bad-padding",
        lambda: sealed_to_device(CONTENT.padded()[:-4] + b"more"),
    ),
}


@pytest.mark.parametrize("name", sorted(ENVELOPES))
def test_a_device_opens_no_such_envelope(name: str) -> None:
    """A gateway, or whoever knows a device's key, leaves mail that the device's owner has not sealed for this place."""
    code, made = ENVELOPES[name]
    assert open_envelope(HONEST, DEVICE, chain=CHAIN, locator=HERE) == CONTENT
    assert refused(lambda: open_envelope(made(), DEVICE, chain=CHAIN, locator=HERE)) == code


# --- deposits -------------------------------------------------------------------------------------

TARGET = DepositTarget(CHAIN, GATEWAY, BATCH, 7, 3)


def deposited(signer: P256Key = OWNER, target: DepositTarget = TARGET) -> bytes:
    (made,) = sign_deposits(target, [DepositEntry(bytes(16), HONEST)], signer)
    return made


def accepted(data: bytes) -> int:
    return len(parse_deposit(data).verify(key=OWNER.public, chain=CHAIN, gateway=GATEWAY).entries)


DEPOSITS: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    "by-a-former-owner": ("unknown-key", lambda: deposited(THIEF)),
    "forged": ("bad-signature", lambda: deposited()[:-1] + bytes([deposited()[-1] ^ 1])),
    "from-another-chain": ("wrong-chain", lambda: deposited(target=replace(TARGET, chain="test-2"))),
    "from-another-gateway": ("wrong-gateway", lambda: deposited(target=replace(TARGET, gateway="http://other"))),
}


@pytest.mark.parametrize("name", sorted(DEPOSITS))
def test_a_gateway_keeps_no_such_deposit(name: str) -> None:
    """Somebody fills the mailboxes of devices that are not his, or brings what an owner left elsewhere."""
    code, made = DEPOSITS[name]
    assert accepted(deposited()) == 1
    assert refused(lambda: accepted(made())) == code


# --- receipts -------------------------------------------------------------------------------------

LEFT = receipt_locator(b"m" * 32, GATEWAY)
DONE = Receipt(CHAIN, BATCH, 5, 7, 3, b"P" * 16, b"G" * 16, Step.SERVICE_CONNECTED, 4, 1_800_000_000)
EXPECTED = Expected(CHAIN, LEFT, BATCH, 5, ATTESTATION.public, {7}, 3)


def sealed(made: Receipt = DONE, signer: P256Key = ATTESTATION, *, owner: bytes = RECEIPTS.public) -> bytes:
    return seal_receipt(made, signer=signer, owner=owner, locator=LEFT)


def sealed_plain(plain: bytes, chain: str = CHAIN) -> bytes:
    return hpke.seal(RECEIPTS.public, plain, info=encode(["firstlight-receipt-1", chain, LEFT]))


def signed(made: Receipt = DONE) -> bytes:
    return pad(cose.sign1(made.encode(), typ=receipt.TYP, signer=ATTESTATION), receipt.PLAIN_SIZE)


def broken_signature() -> bytes:
    whole = cose.sign1(DONE.encode(), typ=receipt.TYP, signer=ATTESTATION)
    return sealed_plain(pad(whole[:-1] + bytes([whole[-1] ^ 1]), receipt.PLAIN_SIZE))


TALES: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    "longer-than-others": ("wrong-size", lambda: sealed() + b"\x00"),
    "shorter-than-others": (
        "wrong-size",
        lambda: sealed_plain(
            pad(cose.sign1(DONE.encode(), typ=receipt.TYP, signer=ATTESTATION), receipt.PLAIN_SIZE - 1)
        ),
    ),
    "sealed-to-somebody-else": ("cannot-open", lambda: sealed(owner=THIEF.public)),
    "sealed-on-another-chain": ("cannot-open", lambda: sealed(replace(DONE, chain="test-2"))),
    "to-a-point-off-the-curve": ("bad-point", lambda: OFF_CURVE + sealed()[65:]),
    "with-more-than-it-says": ("bad-padding", lambda: sealed_plain(signed()[:-4] + b"more")),
    "signed-by-the-gateway": ("unknown-key", lambda: sealed(signer=THIEF)),
    "forged": ("bad-signature", broken_signature),
    "signed-for-another-chain": ("wrong-chain", lambda: sealed_plain(signed(replace(DONE, chain="test-2")))),
    "in-another-devices-name": ("wrong-device", lambda: sealed(replace(DONE, index=6))),
    "under-the-next-owners-tenure": ("wrong-tenure", lambda: sealed(replace(DONE, tenure=9))),
    "told-again": ("receipt-replayed", lambda: sealed(replace(DONE, counter=3))),
}


@pytest.mark.parametrize("name", sorted(TALES))
def test_an_owner_believes_no_such_receipt(name: str) -> None:
    """A gateway, another device or a former one tells an owner that a device has come up."""
    code, made = TALES[name]
    assert open_receipt(sealed(), RECEIPTS, EXPECTED) == DONE
    assert refused(lambda: open_receipt(made(), RECEIPTS, EXPECTED)) == code


class Mine(Collector):
    """An owner whose receipt key is in the test's hands."""

    def _key(self, device: Known) -> KeyAgreement:
        return RECEIPTS


def test_an_owner_reads_only_what_he_asked_for(tmp_path: Path) -> None:
    """A gateway answers one watch with what lies under another's locator, or nobody's, or does not open."""
    fleet = FleetStore.open(tmp_path / "fleet.sqlite")
    elsewhere = receipt_locator(b"m" * 32, "http://other.example")
    fleet.deploy(BATCH, 7, 7, [Deployed(5, ATTESTATION.public, {GATEWAY: LEFT, "http://other.example": elsewhere})])
    watch = next(one for one in fleet.watches() if one.gateway == GATEWAY)
    owner = Mine(CHAIN, tmp_path, fleet, HttpClient(), Log("owner", FakeClock(0)))
    device, opened = owner._open(watch, ReceiptFound(1, LEFT, sealed()))
    assert opened == DONE
    other = seal_receipt(DONE, signer=ATTESTATION, owner=RECEIPTS.public, locator=elsewhere)
    assert refused(lambda: owner._open(watch, ReceiptFound(2, elsewhere, other))) == "unknown-locator"
    assert refused(lambda: owner._open(watch, ReceiptFound(2, bytes(16), sealed()))) == "unknown-locator"
    assert refused(lambda: owner._open(watch, ReceiptFound(2, LEFT, sealed(signer=THIEF)))) == "unknown-key"
    assert device
