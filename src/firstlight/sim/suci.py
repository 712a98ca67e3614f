"""Concealed subscription identifiers, ECIES profiles A and B (3GPP TS 33.501 Annex C.3).

Profile A is X25519, profile B is P-256 with compressed points; both use the ANSI X9.63 KDF on SHA-256,
AES-128 in counter mode and HMAC-SHA-256 cut to 8 bytes. The null scheme is not offered.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Annotated

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF

from firstlight import p256
from firstlight.encoding import Range, Record, Size, Text
from firstlight.errors import MalformedError, SignatureError
from firstlight.ports import Random

MAC_SIZE = 8
_CURVE = ec.SECP256R1()

Mcc = Annotated[str, Text(r"[0-9]{3}")]
Mnc = Annotated[str, Text(r"[0-9]{2,3}")]
Routing = Annotated[str, Text(r"[0-9]{1,4}")]
KeyId = Annotated[int, Range(0, 255)]


class Scheme(IntEnum):
    """Protection scheme identifiers (TS 33.501 Annex C.1)."""

    PROFILE_A = 1
    PROFILE_B = 2


@dataclass(frozen=True, slots=True)
class Suci(Record):
    """A concealed IMSI: home network, routing indicator, scheme, key, scheme output (TS 23.003 §2.2B)."""

    LIMIT = 256

    mcc: Mcc
    mnc: Mnc
    routing: Routing
    scheme: Scheme
    key_id: KeyId
    output: Annotated[bytes, Size(32 + 1 + MAC_SIZE, 128)]


@dataclass(frozen=True, slots=True)
class HomeNetwork(Record):
    """What a device must know of its home network to conceal its identity; the key is public."""

    mcc: Mcc
    mnc: Mnc
    routing: Routing
    scheme: Scheme
    key_id: KeyId
    key: Annotated[bytes, Size(32, 33)]

    def conceal(self, imsi: str, random: Random) -> Suci:
        """Return a fresh SUCI for ``imsi``; :class:`MalformedError` (``foreign-imsi``) if it is of another network."""
        plmn = self.mcc + self.mnc
        if not imsi.startswith(plmn):
            raise MalformedError("foreign-imsi", "the IMSI does not start with the home network's codes")
        output = protect(self.scheme, self.key, encode_msin(imsi[len(plmn) :]), _ephemeral(self.scheme, random))
        return Suci(self.mcc, self.mnc, self.routing, self.scheme, self.key_id, output)


@dataclass(frozen=True, slots=True)
class HomeKey:
    """The operator's private key of one scheme, 32 bytes, and the number that SUCIs name it by."""

    scheme: Scheme
    key_id: int
    private: bytes = field(repr=False)

    @property
    def public(self) -> bytes:
        """The public key: 32 bytes for profile A, a compressed point for profile B."""
        return _public(self.scheme, self.private)


def generate(scheme: Scheme, key_id: int, random: Random) -> HomeKey:
    """Return a new home-network key."""
    return HomeKey(scheme, key_id, _ephemeral(scheme, random))


def reveal(suci: Suci, key: HomeKey) -> str:
    """Return the IMSI in a SUCI.

    1. Scheme and key number are the key's (``wrong-key``). 2. The point is one (``bad-point``).
    3. The MAC matches (:class:`SignatureError` ``bad-suci``). 4. The plaintext is an MSIN (``bad-msin``).
    """
    if (suci.scheme, suci.key_id) != (key.scheme, key.key_id):
        raise MalformedError("wrong-key", "the SUCI is for another home-network key")
    imsi = suci.mcc + suci.mnc + decode_msin(unprotect(key.scheme, key.private, suci.output))
    if len(imsi) > 15:
        raise MalformedError("bad-msin", "an IMSI has 15 digits at most")
    return imsi


def protect(scheme: Scheme, home_public: bytes, plaintext: bytes, ephemeral: bytes) -> bytes:
    """Return the scheme output: ephemeral public key ‖ ciphertext ‖ MAC (8 bytes) (TS 33.501 Annex C.3.2).

    ``ephemeral`` is a private key of 32 bytes, used once.
    """
    public = _public(scheme, ephemeral)
    encryption, counter, mac_key = _keys(_exchange(scheme, ephemeral, home_public), public)
    ciphertext = _stream(encryption, counter, plaintext)
    return public + ciphertext + _mac(mac_key, ciphertext)


def unprotect(scheme: Scheme, home_private: bytes, output: bytes) -> bytes:
    """Return the plaintext of a scheme output; ``bad-point``, or :class:`SignatureError` (``bad-suci``)."""
    size = 32 if scheme is Scheme.PROFILE_A else 33
    if len(output) <= size + MAC_SIZE:
        raise MalformedError("bad-suci", "shorter than a key and a MAC")
    public, ciphertext, mac = output[:size], output[size:-MAC_SIZE], output[-MAC_SIZE:]
    encryption, counter, mac_key = _keys(_exchange(scheme, home_private, public), public)
    if not hmac.compare_digest(_mac(mac_key, ciphertext), mac):
        raise SignatureError("bad-suci", "the MAC does not match")
    return _stream(encryption, counter, ciphertext)


def encode_msin(msin: str) -> bytes:
    """Return an MSIN as BCD, low nibble first, filled with F (TS 24.501 §9.11.3.4)."""
    digits = msin + "f" * (len(msin) % 2)
    return bytes(int(digits[i + 1] + digits[i], 16) for i in range(0, len(digits), 2))


def decode_msin(data: bytes) -> str:
    """Return the digits of an MSIN; :class:`MalformedError` (``bad-msin``)."""
    digits = "".join(f"{byte & 15:x}{byte >> 4:x}" for byte in data)
    digits = digits.removesuffix("f")
    if not digits.isdecimal() or not 1 <= len(digits) <= 10:
        raise MalformedError("bad-msin", "not 1 to 10 decimal digits")
    return digits


def _ephemeral(scheme: Scheme, random: Random) -> bytes:
    while True:
        private = random.bytes(32)
        if scheme is Scheme.PROFILE_A or 0 < int.from_bytes(private) < p256.ORDER:
            return private


def _public(scheme: Scheme, private: bytes) -> bytes:
    if scheme is Scheme.PROFILE_A:
        return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    return p256.compress(ec.derive_private_key(int.from_bytes(private), _CURVE).public_key())


def _exchange(scheme: Scheme, private: bytes, public: bytes) -> bytes:
    if scheme is Scheme.PROFILE_B:
        peer = p256.load(public)
        return ec.derive_private_key(int.from_bytes(private), _CURVE).exchange(ec.ECDH(), peer)
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise MalformedError("bad-point", "not a usable X25519 public key") from error


def _keys(shared: bytes, public: bytes) -> tuple[bytes, bytes, bytes]:
    """Return encryption key (16), initial counter block (16) and MAC key (32)."""
    out = X963KDF(hashes.SHA256(), 64, public).derive(shared)
    return out[:16], out[16:32], out[32:]


def _stream(key: bytes, counter: bytes, data: bytes) -> bytes:
    return Cipher(AES128(key), CTR(counter)).encryptor().update(data)


def _mac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, hashlib.sha256)[:MAC_SIZE]
