"""The certificate request: what a device makes, and all that an issuer refuses."""

import subprocess
from dataclasses import dataclass

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight import p256
from firstlight.enrolment.request import MAX_REQUEST, build_request, check_request
from firstlight.enrolment.signing import SignerKey
from firstlight.errors import FirstlightError, SignatureError


@dataclass(frozen=True)
class Key:
    private: ec.EllipticCurvePrivateKey

    @property
    def public(self) -> bytes:
        return p256.compress(self.private.public_key())

    def sign(self, message: bytes) -> bytes:
        return p256.sign(self.private, message)


KEY = Key(ec.derive_private_key(7, ec.SECP256R1()))
HONEST = build_request(KEY)


def refused(request: bytes) -> str:
    with pytest.raises(FirstlightError) as caught:
        check_request(request)
    return caught.value.code


def made(private, *, subject=(), extension=None, attribute=None, digest=hashes.SHA256()) -> bytes:  # noqa: B008
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(list(subject)))
    if extension is not None:
        builder = builder.add_extension(extension, critical=False)
    if attribute is not None:
        builder = builder.add_attribute(*attribute)
    return builder.sign(private, digest).public_bytes(Encoding.DER)


def test_a_request_proves_the_key_that_made_it():
    assert check_request(HONEST) == KEY.public
    assert len(HONEST) < 256


def test_openssl_reads_and_verifies_it():
    done = subprocess.run(
        ["openssl", "req", "-inform", "DER", "-verify", "-noout", "-text"],
        input=HONEST,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert b"verify OK" in done.stderr
    assert b"ecdsa-with-SHA256" in done.stdout


def test_openssl_makes_a_request_that_passes(tmp_path):
    pem = KEY.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    (tmp_path / "c.cnf").write_text("[req]\ndistinguished_name=dn\nprompt=no\n[dn]\nCN=anything at all\n")
    command = ["openssl", "req", "-new", "-sha256", "-config", "c.cnf", "-key", "key.pem", "-outform", "DER"]
    request = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
    assert check_request(request) == KEY.public


def test_the_subject_is_ignored():
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, "devices/somebody-else")]
    assert check_request(made(KEY.private, subject=subject)) == KEY.public


def test_each_refusal_has_its_code():
    assert check_request(HONEST) == KEY.public
    name = x509.SubjectAlternativeName([x509.DNSName("broker.example")])
    challenge = (x509.oid.AttributeOID.CHALLENGE_PASSWORD, b"secret")
    assert refused(made(KEY.private, extension=name)) == "request-attributes"
    assert refused(made(KEY.private, attribute=challenge)) == "request-attributes"
    assert refused(made(ec.generate_private_key(ec.SECP384R1()))) == "request-wrong-key"
    assert refused(made(rsa.generate_private_key(65537, 2048))) == "request-wrong-key"
    assert refused(made(ed25519.Ed25519PrivateKey.generate(), digest=None)) == "request-wrong-key"
    assert refused(made(KEY.private, digest=hashes.SHA384())) == "request-wrong-algorithm"
    assert refused(HONEST + bytes(MAX_REQUEST)) == "request-too-large"
    assert refused(HONEST + b"\0") == "request-malformed"
    assert refused(HONEST[:-1]) == "request-malformed"
    assert refused(b"") == "request-malformed"


def test_a_request_for_somebody_elses_key_is_refused():
    other = Key(ec.derive_private_key(8, ec.SECP256R1()))
    point = p256.coordinates(KEY.public)
    assert point in HONEST
    assert refused(HONEST.replace(point, p256.coordinates(other.public))) == "request-bad-signature"


def test_a_point_off_the_curve_is_refused():
    point = p256.coordinates(KEY.public)
    wrong = point[:-1] + bytes([point[-1] ^ 1])
    assert refused(HONEST.replace(point, wrong)) == "request-wrong-key"


@settings(max_examples=60)
@given(st.integers(0, len(HONEST) - 1), st.integers(1, 255))
def test_no_changed_byte_passes(position, change):
    spoilt = bytearray(HONEST)
    spoilt[position] ^= change
    with pytest.raises(FirstlightError):
        check_request(bytes(spoilt))


@settings(max_examples=60)
@given(st.binary(max_size=300))
def test_random_bytes_do_no_worse_than_an_error(data):
    with pytest.raises(FirstlightError):
        check_request(data)


def test_the_adapter_never_shows_or_misuses_the_key():
    key = SignerKey(KEY)
    for use in (
        key.private_numbers,
        lambda: key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        lambda: key.exchange(ec.ECDH(), KEY.private.public_key()),
    ):
        with pytest.raises(SignatureError) as caught:
            use()
        assert caught.value.code == "key-not-exportable"
    with pytest.raises(SignatureError) as caught:
        key.sign(b"", ec.ECDSA(hashes.SHA384()))
    assert caught.value.code == "wrong-algorithm"
