"""No byte of a proof bundle is without meaning: whatever a gateway changes is refused."""

from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight.discovery.bundle import Bundle, BundleRequest
from firstlight.discovery.verify import verify_bundle
from firstlight.errors import FirstlightError
from firstlight.ledger.records import party_name
from firstlight.testing.bundles import BATCH, NETWORK, Ledger, origin

LEDGER = Ledger(fillers=50)
LEDGER.split(0, 300, 3, origin(3, 300, previous=2))
TRUST = LEDGER.trust
REQUEST = TRUST.request(b"n" * 32, batch=BATCH, prefix=(700, 10), names=(party_name(NETWORK), party_name(bytes(16))))
BUNDLE = LEDGER.answer(REQUEST).encode()


def accepted(data: bytes, request: BundleRequest = REQUEST) -> bool:
    try:
        verify_bundle(Bundle.decode(data), request, trust=TRUST, batch_size=LEDGER.size)
    except FirstlightError:
        return False
    return True


def test_the_bundle_is_good_as_it_is() -> None:
    assert accepted(BUNDLE)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(BUNDLE) - 1), st.integers(1, 255))
def test_no_byte_can_be_changed(position: int, change: int) -> None:
    data = bytearray(BUNDLE)
    data[position] ^= change
    assert not accepted(bytes(data))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(BUNDLE) - 1), st.binary(max_size=4))
def test_nothing_can_be_cut_or_put_in(position: int, inserted: bytes) -> None:
    assert not accepted(BUNDLE[:position])
    if inserted:
        assert not accepted(BUNDLE[:position] + inserted + BUNDLE[position:])


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused_with_a_code(data: bytes) -> None:
    assert not accepted(data)
