"""Certificates put together by hand are, byte for byte, those that the library's builder makes."""

from __future__ import annotations

import calendar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from firstlight import p256
from firstlight.custody.file import SigningKey
from firstlight.enrolment import der, issue
from firstlight.testing.random import SeededRandom

NOW = 1_800_000_000
AUTHORITY = issue.create_authority(
    SigningKey.generate()[0], title="SP 00", now=NOW, lifetime=10**9, random=SeededRandom(1)
)


def built(issued: issue.Issued, public: bytes, begin: int) -> bytes:
    """What the builder has signed for the same certificate."""
    issuer = issue._load(AUTHORITY.certificate).subject
    validity = (begin, issued.expires)
    builder = issue._builder(issue._name(issued.name), issuer, p256.load(public), validity, issued.serial)
    for extension, critical in issue._extensions(ExtendedKeyUsageOID.CLIENT_AUTH, AUTHORITY.signer.public):
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).tbs_certificate_bytes


@pytest.mark.parametrize("before", [0, 10**8, 2_524_608_000 - NOW, 2_524_608_000 - NOW + 300, 10**9 - 1])
def test_a_client_certificate_is_the_builders(before: int) -> None:
    """Also around the end of 2049, from when on years are written in full."""
    now = NOW + before
    for seed in range(16):
        public = SigningKey.generate()[0].public
        made = issue.issue_client(AUTHORITY, public, now=now, lifetime=86_400, random=SeededRandom(seed))
        parsed = x509.load_der_x509_certificate(made.certificate)
        assert parsed.tbs_certificate_bytes == built(made, public, now - issue.BACKDATE)
        assert parsed.signature_algorithm_parameters
        parsed.verify_directly_issued_by(issue._load(AUTHORITY.certificate))
        assert issue.open_client(made.certificate, anchor=AUTHORITY.certificate, public=public, now=now) == made


def test_two_authorities_share_nothing() -> None:
    other = issue.create_authority(
        SigningKey.generate()[0], title="SP 01", now=NOW, lifetime=10**9, random=SeededRandom(2)
    )
    public = SigningKey.generate()[0].public
    for authority in (AUTHORITY, other, AUTHORITY):
        made = issue.issue_client(authority, public, now=NOW, lifetime=60, random=SeededRandom(3))
        issue.open_client(made.certificate, anchor=authority.certificate, public=public, now=NOW)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 65_535, 65_536])
def test_lengths(size: int) -> None:
    made = der.element(der.OCTET_STRING, bytes(size))
    expected = bytes([size]) if size < 128 else bytes([0x80 | (n := -(-size.bit_length() // 8))]) + size.to_bytes(n)
    assert made == b"\x04" + expected + bytes(size)


@given(st.integers(0, 2**160))
def test_integers_are_positive_and_shortest(value: int) -> None:
    content = der.integer(value)[2:]
    assert int.from_bytes(content, signed=True) == value
    assert len(content) == 1 or content[0] or content[1] & 0x80


@given(st.integers(calendar.timegm((1970, 1, 1, 0, 0, 0)), calendar.timegm((9999, 12, 31, 23, 59, 59))))
def test_times_name_their_second(seconds: int) -> None:
    made = der.time(seconds)
    text = made[2:].decode()
    full = text if made[0] == der.GENERALIZED_TIME else ("19" if int(text[:2]) >= 70 else "20") + text
    parts = [int(full[:4]), *(int(full[at : at + 2]) for at in range(4, 14, 2))]
    assert calendar.timegm((*parts, 0, 0, 0)) == seconds  # type: ignore[arg-type]
    assert (made[0] == der.UTC_TIME) == (parts[0] < 2050)
