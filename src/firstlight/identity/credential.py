"""EDHOC credentials: CWT claims sets that hold one public key each (RFC 9528 §3.5.2, RFC 8392, RFC 8747).

Both ends build the bytes of a credential from what they have verified; a credential is never looked up
by its key identifier.
"""

from __future__ import annotations

from firstlight import p256
from firstlight.encoding import Blank, Template, encode, encode_bytes

_SUB, _CNF, _COSE_KEY = 2, 8, 1
_KTY, _KID, _CRV, _X, _Y = 1, 2, -1, -2, -3
_EC2, _P256 = 2, 1
_KID_HEADER = 4


def device_credential(identity: bytes, kid: bytes) -> bytes:
    """Return CRED_I: the CCS of a device's identity key (x ‖ y, 64 bytes) with its leaf's ``kid`` (16 bytes)."""
    return _DEVICE.fill(kid, identity[:32], identity[32:])


def party_credential(chain: str, party: bytes, key: bytes) -> bytes:
    """Return CRED_R: the CCS of a party's key-agreement key (compressed), whose subject is chain and party id.

    The kid is the first 8 bytes of the key's SHA-256, and the subject is bound by the transcript, so nobody
    gains by registering another party's key. Raises :class:`firstlight.errors.MalformedError` (``bad-point``).
    """
    subject = f"{chain}/{party.hex()}"
    xy = p256.coordinates(key)
    return encode({_SUB: subject, _CNF: {_COSE_KEY: _cose_key(xy[:32], xy[32:], p256.kid(key))}})


def id_cred(kid: bytes) -> bytes:
    """Return ID_CRED_x: the encoded map {4: kid}."""
    return _ID_CRED + encode_bytes(kid)


def _cose_key(x: bytes | Blank, y: bytes | Blank, kid: bytes | Blank) -> dict[int, object]:
    return {_KTY: _EC2, _KID: kid, _CRV: _P256, _X: x, _Y: y}


_DEVICE = Template.of({_CNF: {_COSE_KEY: _cose_key(Blank(32), Blank(32), Blank(16))}})
_ID_CRED = bytes((0xA1, _KID_HEADER))
"""A map of one, and its key."""
