"""How a broker does TLS: version 1.3 alone, a client certificate always, the revocation list always."""

from __future__ import annotations

import ssl
import tempfile

from firstlight.access.serving.service_port import BrokerIdentity
from firstlight.enrolment.issue import crl_to_pem, to_pem
from firstlight.errors import AccessError

_VERIFY_CODES = {10: "certificate-expired", 12: "crl-overdue", 23: "certificate-revoked"}
"""OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_CRL_HAS_EXPIRED and X509_V_ERR_CERT_REVOKED."""
_REASONS = {"PEER_DID_NOT_RETURN_A_CERTIFICATE": "certificate-missing", "UNSUPPORTED_PROTOCOL": "tls-version-refused"}


def server_context(identity: BrokerIdentity, crl: bytes) -> ssl.SSLContext:
    """Return the context of a broker with the DER revocation list ``crl``.

    There are no session tickets: a resumed session would skip the certificate and its revocation. Raises
    :class:`AccessError` (``broker-bad-files``), and :class:`firstlight.errors.MalformedError` for a bad list.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF | ssl.VERIFY_X509_STRICT
    context.num_tickets = 0
    trust = to_pem(identity.authority) + crl_to_pem(crl)
    try:
        context.load_cert_chain(identity.certificate, identity.key)
        with tempfile.NamedTemporaryFile(prefix="firstlight-", suffix=".pem") as file:
            file.write(trust)
            file.flush()
            context.load_verify_locations(cafile=file.name)
    except (OSError, ssl.SSLError) as error:
        raise AccessError("broker-bad-files", f"certificate, key or authority: {error}") from error
    return context


def refusal_code(error: OSError) -> str:
    """Return the code under which a failed handshake is logged."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY_CODES.get(error.verify_code, "certificate-refused")
    if isinstance(error, ssl.SSLError):
        return _REASONS.get(error.reason or "", "tls-failed")
    return "tls-aborted"
