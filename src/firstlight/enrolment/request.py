"""The certificate request (PKCS #10, RFC 2986) that a device puts into EAD_3, and its strict check.

A request proves possession of one P-256 key and asks for nothing else: the issuer alone decides what stands
in the certificate.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import SignatureAlgorithmOID

from firstlight import p256
from firstlight.enrolment.signing import SignerKey
from firstlight.errors import MalformedError, SignatureError
from firstlight.ports import Signer

MAX_REQUEST = 1024
"""The most bytes of a request that are looked at; ours has about 190."""


def build_request(signer: Signer) -> bytes:
    """Return the DER request for the key of ``signer``: no subject, no attributes, ecdsa-with-SHA256."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(SignerKey(signer), hashes.SHA256()).public_bytes(Encoding.DER)


def check_request(request: bytes) -> bytes:
    """Return the public key (SEC 1 compressed, 33 bytes) that ``request`` proves possession of.

    1. it is at most :data:`MAX_REQUEST` bytes (``request-too-large``);
    2. it is one DER request, and the bytes are its only encoding (``request-malformed``);
    3. it holds no attribute and asks for no extension (``request-attributes``);
    4. its key is on P-256 (``request-wrong-key``);
    5. it is signed with ecdsa-with-SHA256 (``request-wrong-algorithm``);
    6. by the key that it names (``request-bad-signature``).

    The subject is ignored. Raises :class:`MalformedError` (1 to 5) or :class:`SignatureError` (6).
    """
    if len(request) > MAX_REQUEST:
        raise MalformedError("request-too-large", f"{len(request)} bytes, at most {MAX_REQUEST}")
    parsed = _parse(request)
    if len(parsed.attributes) > 0:
        raise MalformedError("request-attributes", "a request holds a key and nothing else")
    key = _key(parsed)
    if parsed.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA256:
        raise MalformedError("request-wrong-algorithm", "not signed with ecdsa-with-SHA256")
    try:
        key.verify(parsed.signature, parsed.tbs_certrequest_bytes, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise SignatureError("request-bad-signature", "not signed by the key in it") from None
    return p256.compress(key)


def _parse(request: bytes) -> x509.CertificateSigningRequest:
    try:
        parsed = x509.load_der_x509_csr(request)
        encoded = parsed.public_bytes(Encoding.DER)
    except (ValueError, TypeError, x509.InvalidVersion) as error:
        raise MalformedError("request-malformed", str(error)) from error
    if encoded != request:
        raise MalformedError("request-malformed", "not the DER encoding of what it says")
    return parsed


def _key(parsed: x509.CertificateSigningRequest) -> ec.EllipticCurvePublicKey:
    try:
        key = parsed.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MalformedError("request-wrong-key", str(error)) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise MalformedError("request-wrong-key", "not a P-256 key")
    return key
