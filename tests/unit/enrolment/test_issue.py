"""The authority, checked against OpenSSL's command line as an independent reader."""

import hashlib
import subprocess
from dataclasses import dataclass, field, replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from firstlight import p256
from firstlight.enrolment.issue import (
    Revocation,
    create_authority,
    crl_serials,
    crl_to_pem,
    issue_client,
    issue_crl,
    issue_server,
    open_client,
    to_pem,
)
from firstlight.errors import FirstlightError

NOW = 1_800_000_000
DAY = 86_400


@dataclass(frozen=True)
class Key:
    private: ec.EllipticCurvePrivateKey

    @property
    def public(self) -> bytes:
        return p256.compress(self.private.public_key())

    def sign(self, message: bytes) -> bytes:
        return p256.sign(self.private, message)


@dataclass
class Counted:
    """Randomness that a test can repeat."""

    drawn: list[int] = field(default_factory=lambda: [0])

    def bytes(self, count: int) -> bytes:
        self.drawn[0] += 1
        return hashlib.shake_256(b"%d" % self.drawn[0]).digest(count)


def key(number: int) -> Key:
    return Key(ec.derive_private_key(number, ec.SECP256R1()))


RANDOM = Counted()
CA = create_authority(key(1), title="SP one", now=NOW, lifetime=365 * DAY, random=RANDOM)
FOREIGN = create_authority(key(2), title="SP one", now=NOW, lifetime=365 * DAY, random=RANDOM)
DEVICE = key(3)


def client(authority=CA, now=NOW):
    return issue_client(authority, DEVICE.public, now=now, lifetime=DAY, random=RANDOM)


def verdict(tmp_path, certificate: bytes, *, purpose: str, crl: bytes | None = None, at: int = NOW) -> str:
    (tmp_path / "ca.pem").write_bytes(to_pem(CA.certificate) + (b"" if crl is None else crl_to_pem(crl)))
    (tmp_path / "one.pem").write_bytes(to_pem(certificate))
    command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-attime", str(at), "-CAfile", "ca.pem"]
    command += ["-crl_check"] if crl is not None else []
    done = subprocess.run([*command, "one.pem"], cwd=tmp_path, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_openssl_accepts_a_client_certificate_for_its_purpose_only(tmp_path):
    one = client()
    assert "OK" in verdict(tmp_path, one.certificate, purpose="sslclient")
    assert "unsuitable certificate purpose" in verdict(tmp_path, one.certificate, purpose="sslserver")
    assert "certificate has expired" in verdict(tmp_path, one.certificate, purpose="sslclient", at=NOW + DAY + 1)
    assert "error" in verdict(tmp_path, client(FOREIGN).certificate, purpose="sslclient")


def test_openssl_accepts_a_server_certificate_for_its_purpose_only(tmp_path):
    one = issue_server(CA, key(4).public, host="broker.sp-one.example", now=NOW, lifetime=DAY, random=RANDOM)
    assert "OK" in verdict(tmp_path, one.certificate, purpose="sslserver")
    assert "unsuitable certificate purpose" in verdict(tmp_path, one.certificate, purpose="sslclient")
    names = x509.load_der_x509_certificate(one.certificate).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == ["broker.sp-one.example"]


def test_openssl_refuses_what_the_list_revokes(tmp_path):
    one, other = client(), client()
    crl = issue_crl(CA, [Revocation(one.serial, NOW)], number=1, now=NOW, lifetime=DAY)
    assert "certificate revoked" in verdict(tmp_path, one.certificate, purpose="sslclient", crl=crl)
    assert "OK" in verdict(tmp_path, other.certificate, purpose="sslclient", crl=crl)
    assert crl_serials(crl, anchor=CA.certificate) == {one.serial}


def test_a_client_certificate_names_nothing_but_a_random_id():
    one, other = client(), client()
    parsed = x509.load_der_x509_certificate(one.certificate)
    assert parsed.subject.rfc4514_string() == f"CN={one.name}"
    assert {extension.oid._name for extension in parsed.extensions} == {
        "basicConstraints",
        "keyUsage",
        "extendedKeyUsage",
        "authorityKeyIdentifier",
    }
    assert one.name != other.name
    assert one.serial != other.serial
    assert one.expires == NOW + DAY
    assert parsed.serial_number == one.serial
    assert len(one.certificate) < 450


def test_a_certificate_does_not_outlive_its_authority():
    late = NOW + 365 * DAY - 60
    assert client(now=late).expires == NOW + 365 * DAY
    with pytest.raises(FirstlightError) as caught:
        client(now=NOW + 365 * DAY)
    assert caught.value.code == "authority-expired"


def test_a_device_opens_its_certificate():
    one = client()
    assert open_client(one.certificate, anchor=CA.certificate, public=DEVICE.public, now=NOW) == one


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"public": key(9).public}, "certificate-wrong-key"),
        ({"anchor": FOREIGN.certificate}, "certificate-untrusted"),
        ({"anchor": client().certificate}, "certificate-untrusted"),
        ({"now": NOW + DAY + 1}, "certificate-not-valid"),
        ({"now": NOW - 301}, "certificate-not-valid"),
        ({"certificate": b"\x30\x00"}, "certificate-malformed"),
        ({"certificate": bytes(5000)}, "certificate-malformed"),
        ({"certificate": CA.certificate, "public": key(1).public}, "certificate-wrong-use"),
    ],
)
def test_a_device_refuses_a_certificate_that_it_cannot_use(change, code):
    given = {"certificate": client().certificate, "anchor": CA.certificate, "public": DEVICE.public, "now": NOW}
    open_client(given.pop("certificate"), **given)
    given = {
        "certificate": client().certificate,
        "anchor": CA.certificate,
        "public": DEVICE.public,
        "now": NOW,
        **change,
    }
    with pytest.raises(FirstlightError) as caught:
        open_client(given.pop("certificate"), **given)
    assert caught.value.code == code


def test_a_server_certificate_is_no_client_certificate():
    one = issue_server(CA, DEVICE.public, host="a.example", now=NOW, lifetime=DAY, random=RANDOM)
    with pytest.raises(FirstlightError) as caught:
        open_client(one.certificate, anchor=CA.certificate, public=DEVICE.public, now=NOW)
    assert caught.value.code == "certificate-wrong-use"


def test_a_list_by_somebody_else_is_refused():
    crl = issue_crl(FOREIGN, [], number=1, now=NOW, lifetime=DAY)
    assert crl_serials(crl, anchor=FOREIGN.certificate) == frozenset()
    for data, code in ((crl, "crl-untrusted"), (crl[:-1], "crl-malformed"), (b"", "crl-malformed")):
        with pytest.raises(FirstlightError) as caught:
            crl_serials(data, anchor=CA.certificate)
        assert caught.value.code == code


def test_a_name_that_is_no_name_is_malformed():
    """OpenSSL's reader takes the outside of a list and leaves the names for later: found by fuzzing."""
    crl = issue_crl(CA, [], number=1, now=NOW, lifetime=DAY)
    anchor = CA.certificate
    name = x509.load_der_x509_certificate(anchor).subject.public_bytes()
    broken = name[:2] + b"\x40" + name[3:]
    for data, by, code in (
        (crl.replace(name, broken), anchor, "crl-malformed"),
        (crl, anchor.replace(name, broken), "certificate-malformed"),
    ):
        with pytest.raises(FirstlightError) as caught:
            crl_serials(data, anchor=by)
        assert caught.value.code == code


@pytest.mark.parametrize("host", ["", "UPPER.example", "a..b", "-a.example", "x" * 64, "*.example", "a\n.example"])
def test_a_bad_server_name_is_refused(host):
    with pytest.raises(FirstlightError) as caught:
        issue_server(CA, DEVICE.public, host=host, now=NOW, lifetime=DAY, random=RANDOM)
    assert caught.value.code == "server-bad-name"


def test_a_bad_title_and_a_broken_authority_are_refused():
    with pytest.raises(FirstlightError) as caught:
        create_authority(key(1), title="a/b", now=NOW, lifetime=DAY, random=RANDOM)
    assert caught.value.code == "authority-bad-title"
    with pytest.raises(FirstlightError) as caught:
        client(replace(CA, certificate=b""))
    assert caught.value.code == "certificate-malformed"
