"""Envelopes, locators, deposits, receipts and sealed streams: what opens, and what must not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from firstlight import p256
from firstlight.custody.file import AgreementKey, SigningKey
from firstlight.errors import FirstlightError, MalformedError
from firstlight.sealing import hpke, stream
from firstlight.sealing.deposit import PART, DepositEntry, DepositTarget, parse_deposit, sign_deposits
from firstlight.sealing.envelope import PLAIN_SIZE, SEALED_SIZE, EnvelopeContent, open_envelope, seal_envelope
from firstlight.sealing.locator import mailbox_locator, receipt_locator
from firstlight.sealing.padding import pad, unpad
from firstlight.sealing.receipt import SEALED_SIZE as RECEIPT_SIZE
from firstlight.sealing.receipt import Expected, Receipt, Step, open_receipt, seal_receipt


def agreement() -> AgreementKey:
    return AgreementKey(ec.generate_private_key(ec.SECP256R1()))


def signer() -> SigningKey:
    return SigningKey(ec.generate_private_key(ec.SECP256R1()))


DEVICE, OTHER = agreement(), agreement()
OWNER, STRANGER = signer(), signer()
CHAIN, GATEWAY, BATCH = "test-1", "gateway.example", b"B" * 16
LOCATOR = mailbox_locator(b"m" * 32, GATEWAY)
CONTENT = EnvelopeContent(7, 3, 12, tuple(bytes([n]) * 32 for n in range(16)), (b"claim", b"other"))
LARGEST = EnvelopeContent(2**32 - 1, 2**64 - 1, 32, CONTENT.digests, (b"p" * 640, *(b"c" * 53 for _ in range(15))))


def code(error: pytest.ExceptionInfo[FirstlightError]) -> str:
    return error.value.code


# --- HPKE ---------------------------------------------------------------------------------------


def test_only_the_recipient_opens_and_only_with_the_same_info() -> None:
    sealed = hpke.seal(DEVICE.public, b"hello", info=b"i")
    assert hpke.unseal(sealed, DEVICE, info=b"i") == b"hello"
    assert len(sealed) == 5 + hpke.OVERHEAD
    for data, key, info in ((sealed, OTHER, b"i"), (sealed, DEVICE, b"j"), (sealed[:-1], DEVICE, b"i")):
        with pytest.raises(FirstlightError) as error:
            hpke.unseal(data, key, info=info)
        assert code(error) == "cannot-open"


def test_a_context_binds_sequence_and_associated_data() -> None:
    enc, sender = hpke.setup_sender(DEVICE.public, b"i")
    first, second = sender.seal(b"1", b"a"), sender.seal(b"2", b"a")
    assert [hpke.setup_receiver(enc, DEVICE, b"i").open(first, b"a")] == [b"1"]
    for sealed, aad in ((first, b"b"), (second, b"a")):
        with pytest.raises(FirstlightError) as error:
            hpke.setup_receiver(enc, DEVICE, b"i").open(sealed, aad)
        assert code(error) == "cannot-open"


@pytest.mark.parametrize("enc", [b"", b"\x04" + bytes(64), b"\x02" + b"\x01" * 64, b"\x04" + b"\xff" * 64])
def test_a_bad_encapsulated_key_is_refused(enc: bytes) -> None:
    with pytest.raises(MalformedError) as error:
        hpke.unseal(enc + bytes(40), DEVICE, info=b"")
    assert code(error) == "bad-point"


@pytest.mark.parametrize("recipient", [b"\x02" + b"\xff" * 32, b"\x01" * 64, b""])
def test_a_bad_recipient_is_refused(recipient: bytes) -> None:
    with pytest.raises(MalformedError) as error:
        hpke.seal(recipient, b"x", info=b"")
    assert code(error) == "bad-point"


def test_padding_is_strict() -> None:
    assert unpad(pad(b"abc", 16), 16) == b"abc"
    assert unpad(pad(b"", 16), 16) == b""
    with pytest.raises(MalformedError) as error:
        pad(bytes(15), 16)
    assert code(error) == "too-large"
    for bad in (pad(b"abc", 15), b"\x00\x0f" + bytes(14), pad(b"abc", 16)[:-1] + b"\x01", b""):
        with pytest.raises(MalformedError) as error:
            unpad(bad, 16)
        assert code(error) == "bad-padding"


# --- locators and envelopes ---------------------------------------------------------------------


def test_locators_differ_by_gateway_purpose_and_device() -> None:
    secret = b"m" * 32
    found = {
        mailbox_locator(secret, "a"),
        mailbox_locator(secret, "b"),
        receipt_locator(secret, "a"),
        mailbox_locator(b"n" * 32, "a"),
    }
    assert len(found) == 4
    assert {len(one) for one in found} == {16}


@pytest.mark.parametrize("content", [CONTENT, LARGEST], ids=["usual", "largest"])
def test_an_envelope_opens_and_its_size_tells_nothing(content: EnvelopeContent) -> None:
    content = content if content is CONTENT else replace(LARGEST, claims=(b"p" * 564, *(b"c" * 53 for _ in range(15))))
    for identity in (DEVICE.public, p256.coordinates(DEVICE.public)):
        sealed = seal_envelope(content.padded(), identity=identity, chain=CHAIN, locator=LOCATOR)
        assert len(sealed) == SEALED_SIZE
        assert open_envelope(sealed, DEVICE, chain=CHAIN, locator=LOCATOR) == content


def test_an_envelope_is_bound_to_device_chain_and_locator() -> None:
    sealed = seal_envelope(CONTENT.padded(), identity=DEVICE.public, chain=CHAIN, locator=LOCATOR)
    elsewhere = mailbox_locator(b"m" * 32, "another")
    for key, chain, locator in ((OTHER, CHAIN, LOCATOR), (DEVICE, "other-1", LOCATOR), (DEVICE, CHAIN, elsewhere)):
        with pytest.raises(FirstlightError) as error:
            open_envelope(sealed, key, chain=chain, locator=locator)
        assert code(error) == "cannot-open"


def test_a_malformed_envelope_does_no_worse_than_a_clear_error() -> None:
    with pytest.raises(MalformedError) as error:
        open_envelope(bytes(SEALED_SIZE - 1), DEVICE, chain=CHAIN, locator=LOCATOR)
    assert code(error) == "wrong-size"
    for plain, expected in (
        (bytes(PLAIN_SIZE - 1) + b"\x01", "bad-padding"),
        (pad(b"\x01", PLAIN_SIZE), "wrong-shape"),
    ):
        sealed = seal_envelope(plain, identity=DEVICE.public, chain=CHAIN, locator=LOCATOR)
        with pytest.raises(MalformedError) as error:
            open_envelope(sealed, DEVICE, chain=CHAIN, locator=LOCATOR)
        assert code(error) == expected


# --- deposits -----------------------------------------------------------------------------------

TARGET = DepositTarget(CHAIN, GATEWAY, BATCH, 7, 3)


def entries(count: int) -> list[DepositEntry]:
    return [DepositEntry((count - n).to_bytes(16), bytes(SEALED_SIZE)) for n in range(count)]


def test_a_deposit_carries_its_entries_in_order() -> None:
    (data,) = sign_deposits(TARGET, entries(3), OWNER)
    listed = parse_deposit(data).verify(key=OWNER.public, chain=CHAIN, gateway=GATEWAY)
    assert [int.from_bytes(entry.locator) for entry in listed.entries] == [1, 2, 3]
    assert (listed.batch, listed.tenure, listed.revision) == (BATCH, 7, 3)


def test_a_large_deposit_goes_in_parts() -> None:
    parts = list(sign_deposits(TARGET, entries(PART + 1), OWNER))
    counts = [len(parse_deposit(part).verify(key=OWNER.public, chain=CHAIN, gateway=GATEWAY).entries) for part in parts]
    assert counts == [PART, 1]


def test_a_deposit_by_another_key_or_for_another_place_is_refused() -> None:
    (data,) = sign_deposits(TARGET, entries(1), OWNER)
    parsed = parse_deposit(data)
    for key, chain, gateway, expected in (
        (STRANGER.public, CHAIN, GATEWAY, "unknown-key"),
        (OWNER.public, "other-1", GATEWAY, "wrong-chain"),
        (OWNER.public, CHAIN, "another.example", "wrong-gateway"),
    ):
        with pytest.raises(FirstlightError) as error:
            parsed.verify(key=key, chain=chain, gateway=gateway)
        assert code(error) == expected
    changed = bytearray(data)
    changed[-1] ^= 1
    with pytest.raises(FirstlightError) as error:
        parse_deposit(bytes(changed)).verify(key=OWNER.public, chain=CHAIN, gateway=GATEWAY)
    assert code(error) == "bad-signature"


def test_a_locator_stands_once_in_a_list() -> None:
    with pytest.raises(MalformedError) as error:
        list(sign_deposits(TARGET, entries(1) * 2, OWNER))
    assert code(error) == "unsorted-entries"


# --- receipts -----------------------------------------------------------------------------------

RECEIPT_AT = receipt_locator(b"m" * 32, GATEWAY)
RECEIPT = Receipt(CHAIN, BATCH, 5, 7, 3, b"P" * 16, b"G" * 16, Step.NETWORK_ATTACHED, 4, 1_800_000_000)
ATTESTATION, RECEIPT_KEY = signer(), agreement()
EXPECTED = Expected(CHAIN, RECEIPT_AT, BATCH, 5, ATTESTATION.public, {7}, 3)


def sealed_receipt(receipt: Receipt, key: SigningKey = ATTESTATION) -> bytes:
    return seal_receipt(receipt, signer=key, owner=RECEIPT_KEY.public, locator=RECEIPT_AT)


def test_a_receipt_opens_for_its_owner() -> None:
    sealed = sealed_receipt(RECEIPT)
    assert open_receipt(sealed, RECEIPT_KEY, EXPECTED) == RECEIPT
    largest = Receipt(
        "c" * 40, BATCH, 2**32 - 1, 2**32 - 1, 2**64 - 1, b"P" * 16, b"G" * 16, Step.SERVICE_CONNECTED, 2**64 - 1, 2**40
    )
    assert len(sealed) == len(sealed_receipt(largest)) == RECEIPT_SIZE


@pytest.mark.parametrize(
    ("receipt", "expected", "want"),
    [
        (replace(RECEIPT, index=6), EXPECTED, "wrong-device"),
        (replace(RECEIPT, batch=b"C" * 16), EXPECTED, "wrong-device"),
        (replace(RECEIPT, tenure=8), EXPECTED, "wrong-tenure"),
        (replace(RECEIPT, counter=3), EXPECTED, "receipt-replayed"),
        (replace(RECEIPT, chain="other-1"), EXPECTED, "cannot-open"),
        (RECEIPT, replace(EXPECTED, locator=bytes(16)), "cannot-open"),
        (RECEIPT, replace(EXPECTED, key=STRANGER.public), "unknown-key"),
    ],
)
def test_a_receipt_that_does_not_fit_is_refused(receipt: Receipt, expected: Expected, want: str) -> None:
    with pytest.raises(FirstlightError) as error:
        open_receipt(sealed_receipt(receipt), RECEIPT_KEY, expected)
    assert code(error) == want


def test_a_gateway_cannot_forge_a_receipt() -> None:
    with pytest.raises(FirstlightError) as error:
        open_receipt(sealed_receipt(RECEIPT, STRANGER), RECEIPT_KEY, EXPECTED)
    assert code(error) == "unknown-key"
    with pytest.raises(FirstlightError) as error:
        open_receipt(sealed_receipt(RECEIPT), OTHER, EXPECTED)
    assert code(error) == "cannot-open"
    with pytest.raises(FirstlightError) as error:
        open_receipt(sealed_receipt(RECEIPT)[1:], RECEIPT_KEY, EXPECTED)
    assert code(error) == "wrong-size"


# --- streams ------------------------------------------------------------------------------------

CHUNKS = [b"head", b"x" * 5000, b"", b"tail"]


def sealed_stream() -> list[bytes]:
    return list(stream.seal_stream(CHUNKS, DEVICE.public, info=b"i"))


def opened(pieces: list[bytes], key: AgreementKey = DEVICE, info: bytes = b"i") -> list[bytes]:
    return list(stream.open_stream(pieces, key, info=info))


@pytest.mark.parametrize("width", [1, 7, 65, 10_000])
def test_a_stream_comes_back_however_it_is_cut(width: int) -> None:
    whole = b"".join(sealed_stream())
    assert opened([whole[at : at + width] for at in range(0, len(whole), width)]) == CHUNKS


def test_a_stream_cannot_be_shortened_reordered_repeated_or_continued() -> None:
    enc, *frames = sealed_stream()
    for changed in (frames[:-1], [frames[1], frames[0], *frames[2:]], [frames[0], *frames], [*frames, frames[-1]]):
        with pytest.raises(FirstlightError) as error:
            opened([enc, *changed])
        assert code(error) == "cannot-open"
    for pieces, expected in (
        ([enc, *frames[:-1], frames[-1][:-1]], "truncated"),
        ([enc], "truncated"),
        ([enc, b"\xff\xff\xff\xff"], "too-large"),
    ):
        with pytest.raises(FirstlightError) as error:
            opened(pieces)
        assert code(error) == expected


def test_a_stream_is_for_one_recipient_and_purpose() -> None:
    for key, info in ((OTHER, b"i"), (DEVICE, b"j")):
        with pytest.raises(FirstlightError) as error:
            opened(sealed_stream(), key, info)
        assert code(error) == "cannot-open"
    with pytest.raises(MalformedError) as error:
        list(stream.seal_stream([], DEVICE.public, info=b""))
    assert code(error) == "empty-stream"
