"""A service provider's certificate authority (X.509, RFC 5280): clients, its broker, the revocation list.

Nothing in a client certificate tells which device it is for: its common name is a random credential id, its
serial number is random, and no batch, index or UEID stands anywhere in it. Times are Unix seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from firstlight import p256
from firstlight.enrolment import der
from firstlight.enrolment.signing import SignerKey
from firstlight.enrolment.topics import NAME_BYTES, credential_name, is_credential_name
from firstlight.errors import ConfigError, MalformedError, SignatureError
from firstlight.ports import Random, Signer

BACKDATE = 300
"""A certificate is valid from so many seconds before it is issued, for clocks that are behind."""
MAX_CERTIFICATE = 4096
_SERIAL_BYTES = 16
_VERSION_3 = bytes.fromhex("a003020102")
_ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
_SPKI_P256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
"""Everything of a SubjectPublicKeyInfo (RFC 5480 §2) but x ‖ y."""
_EXTENSIONS = 0xA3
_OIDS = {
    ExtensionOID.BASIC_CONSTRAINTS: bytes.fromhex("0603551d13"),
    ExtensionOID.KEY_USAGE: bytes.fromhex("0603551d0f"),
    ExtensionOID.EXTENDED_KEY_USAGE: bytes.fromhex("0603551d25"),
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER: bytes.fromhex("0603551d23"),
}
_ALGORITHM = ec.ECDSA(hashes.SHA256())
_TITLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .-]{0,63}")
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority: its certificate (DER) and the signer that holds its key."""

    certificate: bytes
    signer: Signer


@dataclass(frozen=True, slots=True)
class Issued:
    """An issued certificate (DER), its common name, its serial number and its last valid second."""

    certificate: bytes
    name: str
    serial: int
    expires: int


@dataclass(frozen=True, slots=True)
class Revocation:
    """An entry of a revocation list: the serial number and when it was revoked."""

    serial: int
    time: int


def create_authority(signer: Signer, *, title: str, now: int, lifetime: int, random: Random) -> Authority:
    """Return an authority with a self-signed certificate that may sign end-entity certificates and CRLs only.

    ``title`` is 1 to 64 letters, digits, blanks, dots and dashes, or :class:`ConfigError` (``authority-bad-title``).
    """
    if not _TITLE.fullmatch(title):
        raise ConfigError("authority-bad-title", "1 to 64 letters, digits, blanks, dots and dashes")
    name, key = _name(title), p256.load(signer.public)
    builder = _builder(name, name, key, (now - BACKDATE, now + lifetime), _serial(random))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(authority=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    return Authority(_signed(builder, signer), signer)


def issue_client(authority: Authority, public: bytes, *, now: int, lifetime: int, random: Random) -> Issued:
    """Return a client certificate for ``public`` (33 bytes) under a new random credential id.

    It is valid for ``lifetime`` seconds, but never longer than the authority itself.
    Raises :class:`ConfigError` (``authority-expired``).
    """
    name, (begin, end) = credential_name(random.bytes(NAME_BYTES)), _validity(authority, now, lifetime)
    serial, common = _serial(random), _common(authority.certificate, authority.signer.public)
    fields = (
        _VERSION_3,
        der.integer(serial),
        _ECDSA_SHA256,
        common.issuer,
        der.element(der.SEQUENCE, der.time(begin), der.time(end)),
        der.common_name(name),
        _SPKI_P256 + p256.coordinates(public),
        common.extensions,
    )
    body = der.element(der.SEQUENCE, *fields)
    signature = SignerKey(authority.signer).sign(body, _ALGORITHM)
    certificate = der.element(der.SEQUENCE, body, _ECDSA_SHA256, der.element(der.BIT_STRING, b"\x00", signature))
    return Issued(certificate, name, serial, end)


def issue_server(authority: Authority, public: bytes, *, host: str, now: int, lifetime: int, random: Random) -> Issued:
    """Return the broker's certificate for the DNS name ``host``.

    Raises :class:`ConfigError`: ``authority-expired``, ``server-bad-name``.
    """
    if not _HOST.fullmatch(host):
        raise ConfigError("server-bad-name", "not a lower-case DNS name")
    serial, (begin, end) = _serial(random), _validity(authority, now, lifetime)
    issuer = _load(authority.certificate).subject
    builder = _builder(_name(host), issuer, p256.load(public), (begin, end), serial)
    for extension, critical in _extensions(ExtendedKeyUsageOID.SERVER_AUTH, authority.signer.public):
        builder = builder.add_extension(extension, critical=critical)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    return Issued(_signed(builder, authority.signer), host, serial, end)


def issue_crl(authority: Authority, revoked: Iterable[Revocation], *, number: int, now: int, lifetime: int) -> bytes:
    """Return the DER revocation list with that CRL ``number``, which must grow; the next is due ``lifetime`` s later.

    A reader that checks revocation refuses everybody once the list is overdue.
    """
    issuer = _load(authority.certificate)
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.subject)
    builder = builder.last_update(_when(now - BACKDATE)).next_update(_when(now + lifetime))
    builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    builder = builder.add_extension(_authority_key(authority.signer.public), critical=False)
    for entry in revoked:
        one = x509.RevokedCertificateBuilder().serial_number(entry.serial).revocation_date(_when(entry.time))
        builder = builder.add_revoked_certificate(one.build())
    return builder.sign(SignerKey(authority.signer), hashes.SHA256()).public_bytes(Encoding.DER)


def open_client(certificate: bytes, *, anchor: bytes, public: bytes, now: int) -> Issued:
    """Return what a device's new ``certificate`` (DER) says, after checking that it can be used.

    1. it and the ``anchor`` are certificates (``certificate-malformed``);
    2. it is for the key ``public`` (33 bytes) that the device asked for (``certificate-wrong-key``);
    3. the anchor issued and signed it (``certificate-untrusted``);
    4. its common name is a credential id, and it is for clients (``certificate-wrong-use``);
    5. it is valid at ``now`` (``certificate-not-valid``).

    Raises :class:`MalformedError` (1, 2, 4, 5) or :class:`SignatureError` (3).
    """
    parsed, issuer = _load(certificate), _load(anchor)
    if _public(parsed) != public:
        raise MalformedError("certificate-wrong-key", "not for the key that was asked for")
    try:
        parsed.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise SignatureError("certificate-untrusted", "not issued by the anchor") from error
    name = _client_name(parsed)
    expires = int(parsed.not_valid_after_utc.timestamp())
    if not int(parsed.not_valid_before_utc.timestamp()) <= now <= expires:
        raise MalformedError("certificate-not-valid", "not yet or no longer valid")
    return Issued(certificate, name, parsed.serial_number, expires)


def certificate_name(certificate: bytes) -> str:
    """Return the common name of a client's certificate (DER).

    Raises :class:`MalformedError` (``certificate-malformed``, ``certificate-wrong-use``).
    """
    return _client_name(_load(certificate))


def to_pem(certificate: bytes) -> bytes:
    """Return the PEM form of a certificate; :class:`MalformedError` (``certificate-malformed``)."""
    return _load(certificate).public_bytes(Encoding.PEM)


def crl_to_pem(crl: bytes) -> bytes:
    """Return the PEM form of a revocation list; :class:`MalformedError` (``crl-malformed``)."""
    return _load_crl(crl).public_bytes(Encoding.PEM)


def crl_serials(crl: bytes, *, anchor: bytes) -> frozenset[int]:
    """Return the serial numbers that a DER revocation list by ``anchor`` revokes.

    1. It is one (``crl-malformed``); 2. the anchor issued and signed it (``crl-untrusted``). Raises
    :class:`MalformedError` (1; for the anchor ``certificate-malformed``, ``certificate-wrong-key``),
    :class:`SignatureError` (2).
    """
    parsed, issuer = _load_crl(crl), _load(anchor)
    key = p256.load(_public(issuer))
    if parsed.issuer != issuer.subject:
        raise SignatureError("crl-untrusted", "not a list by the anchor")
    try:
        signed = parsed.is_signature_valid(key)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SignatureError("crl-untrusted", str(error)) from error
    if not signed:
        raise SignatureError("crl-untrusted", "not signed by the anchor")
    return frozenset(entry.serial_number for entry in parsed)


# --- parts ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Common:
    """What all client certificates of one authority have in common, in DER: issuer, and extensions."""

    issuer: bytes
    extensions: bytes


@lru_cache(maxsize=16)
def _common(certificate: bytes, public: bytes) -> _Common:
    """Return it for the authority with this certificate and key; the library encodes names and extensions."""
    extensions = [
        der.element(
            der.SEQUENCE,
            _OIDS[one.oid],
            der.TRUE if critical else b"",
            der.element(der.OCTET_STRING, one.public_bytes()),
        )
        for one, critical in _extensions(ExtendedKeyUsageOID.CLIENT_AUTH, public)
    ]
    issuer = _load(certificate).subject.public_bytes()
    return _Common(issuer, der.element(_EXTENSIONS, der.element(der.SEQUENCE, *extensions)))


def _extensions(use: x509.ObjectIdentifier, public: bytes) -> tuple[tuple[x509.ExtensionType, bool], ...]:
    """Return what end entities of the authority with the key ``public`` have for one ``use``, and whether critical."""
    return (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(authority=False), True),
        (x509.ExtendedKeyUsage([use]), False),
        (_authority_key(public), False),
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, validity: tuple[int, int], serial: int
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    return builder.not_valid_before(_when(validity[0])).not_valid_after(_when(validity[1])).serial_number(serial)


def _signed(builder: x509.CertificateBuilder, signer: Signer) -> bytes:
    return builder.sign(SignerKey(signer), hashes.SHA256()).public_bytes(Encoding.DER)


def _validity(authority: Authority, now: int, lifetime: int) -> tuple[int, int]:
    last = int(_load(authority.certificate).not_valid_after_utc.timestamp())
    if now >= last:
        raise ConfigError(
            "authority-expired", "the authority's own certificate has expired", hint="make a new authority"
        )
    return now - BACKDATE, min(now + lifetime, last)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key(public: bytes) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(p256.load(public))


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _serial(random: Random) -> int:
    """Return a positive serial number of at most 16 bytes (RFC 5280 §4.1.2.2)."""
    return (int.from_bytes(random.bytes(_SERIAL_BYTES)) >> 1) | 1


def _when(time: int) -> datetime:
    return datetime.fromtimestamp(time, UTC)


@lru_cache(maxsize=64)
def _load(certificate: bytes) -> x509.Certificate:
    if len(certificate) > MAX_CERTIFICATE:
        raise MalformedError("certificate-malformed", f"over {MAX_CERTIFICATE} bytes")
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        _ = parsed.issuer, parsed.subject  # read only when asked for
    except (ValueError, TypeError, x509.InvalidVersion) as error:
        raise MalformedError("certificate-malformed", str(error)) from error
    return parsed


def _load_crl(crl: bytes) -> x509.CertificateRevocationList:
    try:
        parsed = x509.load_der_x509_crl(crl)
        _ = parsed.issuer  # read only when asked for
    except (ValueError, TypeError, x509.InvalidVersion) as error:
        raise MalformedError("crl-malformed", str(error)) from error
    return parsed


def _public(certificate: x509.Certificate) -> bytes:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MalformedError("certificate-malformed", str(error)) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise MalformedError("certificate-wrong-key", "not a P-256 key")
    return p256.compress(key)


def _client_name(certificate: x509.Certificate) -> str:
    try:
        subject = list(certificate.subject)
        uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        limits = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise MalformedError("certificate-wrong-use", str(error)) from error
    value = subject[0].value if len(subject) == 1 and subject[0].oid == NameOID.COMMON_NAME else ""
    if limits.ca or list(uses) != [ExtendedKeyUsageOID.CLIENT_AUTH]:
        raise MalformedError("certificate-wrong-use", "not a client certificate")
    if not isinstance(value, str) or not is_credential_name(value):
        raise MalformedError("certificate-wrong-use", "its name is not a credential id")
    return value
