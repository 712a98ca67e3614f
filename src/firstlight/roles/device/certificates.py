"""What a device checks of a certificate that it was granted, whoever granted it."""

from __future__ import annotations

from firstlight.enrolment.issue import open_client
from firstlight.errors import ExchangeError, MalformedError, SignatureError
from firstlight.onboarding.device import Granted
from firstlight.onboarding.messages import X509Grant


def check_certificate(event: Granted, public: bytes, now: int) -> None:
    """Check a granted certificate at ``now`` (Unix seconds).

    1. There is one that can be used, for the key ``public`` (:func:`open_client`; ``unusable-grant``). Raises
    :class:`ExchangeError`.
    """
    body = event.grant.body
    try:
        if not isinstance(body, X509Grant):
            raise MalformedError("not-a-certificate", "the grant is for something else")
        issuer = body.chain[1] if len(body.chain) > 1 else body.anchors[0]
        open_client(body.chain[0], anchor=issuer, public=public, now=now)
    except (MalformedError, SignatureError) as error:
        raise ExchangeError("unusable-grant", error.code) from error
