"""A device's side of EAP-TLS 1.3 (RFC 9190), as a supplicant is told of it: certificate, key, and whom to believe.

The supplicant judges no times. A device's own clock is set by the ledger's witnesses and not by the machine that it
runs on; by that clock it uses a grant only as long as it lasts, and with it what the grant says of the network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from firstlight.access.ports import TlsCredentials
from firstlight.enrolment.issue import to_pem
from firstlight.errors import AccessError

ANCHORS = "anchors.pem"
_PHASE_1 = "tls_disable_tlsv1_0=1 tls_disable_tlsv1_1=1 tls_disable_tlsv1_3=0 tls_disable_time_checks=1"
_SAFE = re.compile(r"[^\"\n\0]{1,400}")
_ERROR = re.compile(r"CTRL-EVENT-EAP-TLS-CERT-ERROR reason=(\d+)")


def tls_files(own: TlsCredentials) -> Mapping[str, bytes]:
    """Return what stands beside a supplicant's configuration, by name."""
    return {ANCHORS: b"".join(map(to_pem, own.anchors))}


def tls_settings(own: TlsCredentials) -> Mapping[str, str]:
    """Return a supplicant's settings; :class:`AccessError` (``bad-configuration``) for what cannot stand in them."""
    values = {
        "identity": own.name,
        "ca_cert": ANCHORS,
        "client_cert": str(own.certificate.absolute()),
        "private_key": str(own.key.absolute()),
        "domain_match": own.server,
        "phase1": _PHASE_1,
    }
    if not all(_SAFE.fullmatch(value) for value in values.values()):
        raise AccessError("bad-configuration", "a value holds a quote or a line break")
    return values


def tls_block(own: TlsCredentials, how: str) -> str:
    """Return the ``network`` part of a supplicant's configuration; ``how`` are its lines on the kind of link.

    Errors as :func:`tls_settings`.
    """
    lines = "".join(f'  {key}="{value}"\n' for key, value in tls_settings(own).items())
    return f"network={{\n  {how}\n  eap=TLS\n{lines}}}\n"


def distrust(event: str) -> bool:
    """Say whether a supplicant's event means that the network is not the one that the grant names."""
    return _ERROR.match(event) is not None
