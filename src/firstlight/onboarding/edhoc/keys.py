"""Cipher suites, key schedule, transcript and message parts of EDHOC (RFC 9528), method 3.

Credentials are identified by ``kid`` alone. Points travel as 32-byte x-coordinates (P-256).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from firstlight import p256
from firstlight.encoding import (
    Blank,
    Template,
    decode_sequence,
    encode,
    encode_byte_strings,
    encode_bytes,
    encode_sequence,
)
from firstlight.errors import ExchangeError, MalformedError
from firstlight.ports import Random

METHOD = 3
"""Static Diffie-Hellman on both sides (RFC 9528 §3.2)."""

KEYSTREAM_2, SALT_3E2M, MAC_2, K_3, IV_3, SALT_4E3M, MAC_3, PRK_OUT, K_4, IV_4, PRK_EXPORTER = range(11)
"""Labels of EDHOC_KDF (RFC 9528 §4.1.2, table 6)."""

HASH_LENGTH = 32
IV_LENGTH = 13
KEY_LENGTH = 16
MAX_KDF = 255 * HASH_LENGTH
MAX_ITEMS = 32
_MAX_LABEL = 65_535

_CURVE, _ECDH = ec.SECP256R1(), ec.ECDH()
_AAD = Template.of(["Encrypt0", b"", Blank(HASH_LENGTH)])
"""The additional data of messages 3 and 4 around their transcript hash (RFC 9528 §5.4.2, §5.5.2)."""
_ID_CRED = b"\xa1\x04"
"""A map of one, and the key ``kid`` in it."""


@dataclass(frozen=True, slots=True)
class Suite:
    """A cipher suite on P-256, SHA-256 and AES-CCM (RFC 9528 §3.6); ``mac`` is MAC and tag length in bytes."""

    number: int
    mac: int


SUITES = {2: Suite(2, 8), 3: Suite(3, 16)}
"""Suite 2: AES-CCM-16-64-128, 8-byte MAC. Suite 3: AES-CCM-16-128-128, 16-byte MAC."""


class Secret(Protocol):
    """A private key that can do ECDH: static (:class:`firstlight.ports.KeyAgreement`) or ephemeral."""

    def exchange(self, peer: bytes) -> bytes:
        """Return the ECDH x-coordinate with ``peer`` (x-coordinate); ``bad-point`` if it is not on the curve."""
        ...


@dataclass(frozen=True, slots=True)
class Ephemeral:
    """An ephemeral P-256 key: its secret scalar (32 bytes), and the key itself."""

    secret: bytes = field(repr=False)
    _key: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)

    @classmethod
    def from_secret(cls, secret: bytes) -> Ephemeral:
        """Build the key of a scalar; :class:`MalformedError` (``bad-scalar``) unless 0 < scalar < group order."""
        number = int.from_bytes(secret)
        if len(secret) != 32 or not 0 < number < p256.ORDER:
            raise MalformedError("bad-scalar", "not a private key of P-256")
        return cls(secret, ec.derive_private_key(number, _CURVE))

    @classmethod
    def of(cls, key: ec.EllipticCurvePrivateKey) -> Ephemeral:
        """Return a P-256 key that was generated for this one exchange."""
        return cls(key.private_numbers().private_value.to_bytes(32), key)

    @classmethod
    def draw(cls, random: Random) -> Ephemeral:
        """Draw a key from ``random``."""
        while True:
            secret = random.bytes(32)
            if 0 < int.from_bytes(secret) < p256.ORDER:
                return cls.from_secret(secret)

    @property
    def x(self) -> bytes:
        """The x-coordinate of the public key (32 bytes), worked out each time."""
        return p256.coordinates_of(self._key.public_key())[:32]

    def exchange(self, peer: bytes) -> bytes:
        """Return the ECDH x-coordinate with a peer's x, or x ‖ y; ``bad-point`` if it is not on the curve."""
        return self._key.exchange(_ECDH, point(peer))


def point(peer: bytes) -> ec.EllipticCurvePublicKey:
    """Return the point with this x-coordinate (and even y), or with these coordinates; the sign of y does not matter.

    A peer's ephemeral x meets two secrets, the ephemeral and the static one, and is decompressed once. Raises
    :class:`MalformedError` (``bad-point``) if there is no such point.
    """
    if len(peer) == 64:
        return p256.from_xy(peer)
    if len(peer) != 32:
        raise MalformedError("bad-point", f"{len(peer)} bytes, not a point of P-256")
    return p256.from_x(peer)


# --- key schedule (RFC 9528 §4.1) -----------------------------------------------------------------


def extract(salt: bytes, secret: bytes) -> bytes:
    """Return EDHOC_Extract: HKDF-Extract with SHA-256."""
    return hmac.digest(salt, secret, "sha256")


def kdf(prk: bytes, label: int, context: bytes, length: int) -> bytes:
    """Return EDHOC_KDF(prk, label, context, length): HKDF-Expand with SHA-256, at most 8,160 bytes."""
    before, after = _around(label, length)
    info = before + encode_bytes(context) + after
    if length <= HASH_LENGTH:
        return hmac.digest(prk, info + b"\x01", "sha256")[:length]
    if length > MAX_KDF:
        raise MalformedError("too-large", f"{length} bytes from one key, at most {MAX_KDF}")
    block, output = b"", b""
    for counter in range(1, -(-length // HASH_LENGTH) + 1):
        block = hmac.digest(prk, block + info + bytes([counter]), "sha256")
        output += block
    return output[:length]


@lru_cache(maxsize=64)
def _around(label: int, length: int) -> tuple[bytes, bytes]:
    """Return what stands before and after the context in the info of EDHOC_KDF; there are few of these."""
    return encode(label), encode(length)


def transcript(*parts: bytes) -> bytes:
    """Return SHA-256 of encoded items laid one after the other."""
    return hashlib.sha256(b"".join(parts)).digest()


def th_2(message_1: bytes, g_y: bytes) -> bytes:
    """Return TH_2 = H(G_Y, H(message_1)) (RFC 9528 §5.3.2)."""
    return transcript(encode_byte_strings(g_y, hashlib.sha256(message_1).digest()))


def seal(suite: Suite, prk: bytes, labels: tuple[int, int], th: bytes, plaintext: bytes) -> bytes:
    """Return the ciphertext of a COSE_Encrypt0 with the key and IV that ``labels`` name (RFC 9528 §5.4.2, §5.5.2)."""
    key, nonce = kdf(prk, labels[0], th, KEY_LENGTH), kdf(prk, labels[1], th, IV_LENGTH)
    return AESCCM(key, tag_length=suite.mac).encrypt(nonce, plaintext, _AAD.fill(th))


def unseal(suite: Suite, prk: bytes, labels: tuple[int, int], th: bytes, ciphertext: bytes) -> bytes:
    """Return the plaintext of :func:`seal`; :class:`ExchangeError` (``bad-ciphertext``) if the tag does not hold."""
    key, nonce = kdf(prk, labels[0], th, KEY_LENGTH), kdf(prk, labels[1], th, IV_LENGTH)
    if len(ciphertext) < suite.mac:
        raise ExchangeError("bad-ciphertext", "shorter than its tag")
    try:
        return AESCCM(key, tag_length=suite.mac).decrypt(nonce, ciphertext, _AAD.fill(th))
    except InvalidTag:
        raise ExchangeError("bad-ciphertext", "the tag does not verify") from None


def xor(data: bytes, stream: bytes) -> bytes:
    """Return ``data`` XOR ``stream`` of the same length."""
    return (int.from_bytes(data) ^ int.from_bytes(stream)).to_bytes(len(data))


def check_mac(received: bytes, computed: bytes) -> None:
    """Compare two MACs in constant time; :class:`ExchangeError` (``bad-mac``) if they differ."""
    if not hmac.compare_digest(received, computed):
        raise ExchangeError("bad-mac", "the peer does not hold the key of its credential")


@dataclass(frozen=True, slots=True)
class Session:
    """The keys of an exchange whose message 3 is made or verified; it can seal or open message 4 and export."""

    suite: Suite
    th_3: bytes
    th_4: bytes
    prk_4e3m: bytes = field(repr=False)
    prk_exporter: bytes = field(repr=False)

    @classmethod
    def derive(cls, suite: Suite, th_3: bytes, plaintext_3: bytes, cred_i: bytes, prk_4e3m: bytes) -> Session:
        """Derive TH_4 = H(TH_3, PLAINTEXT_3, CRED_I), PRK_out and PRK_exporter (RFC 9528 §4.1.3, §4.2.1)."""
        th_4 = transcript(encode_bytes(th_3), plaintext_3, cred_i)
        prk_out = kdf(prk_4e3m, PRK_OUT, th_4, HASH_LENGTH)
        return cls(suite, th_3, th_4, prk_4e3m, kdf(prk_out, PRK_EXPORTER, b"", HASH_LENGTH))

    def export(self, label: int, context: bytes, length: int) -> bytes:
        """Return EDHOC_Exporter(label, context, length) (RFC 9528 §4.2.1)."""
        return kdf(self.prk_exporter, label, context, length)

    def message_4(self, ead: Sequence[Ead] = ()) -> bytes:
        """Return message_4 (RFC 9528 §5.5.2). One plaintext a session only: K_4 and IV_4 are fixed."""
        return encode_bytes(seal(self.suite, self.prk_4e3m, (K_4, IV_4), self.th_4, encode_ead(ead)))

    def open_4(self, message_4: bytes, *, limit: int) -> tuple[Ead, ...]:
        """Return the EAD items of message_4 (RFC 9528 §5.5.3); ``bad-ciphertext``, or as :func:`parse_ead`."""
        (ciphertext,) = parts(message_4, 1, 1, limit)
        plaintext = unseal(self.suite, self.prk_4e3m, (K_4, IV_4), self.th_4, as_bytes(ciphertext))
        return parse_ead(decode_sequence(plaintext, items=MAX_ITEMS, limit=limit))


# --- parts of messages ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ead:
    """One item of external authorization data (RFC 9528 §3.8): label from 0 (0 is padding), value if any."""

    label: int
    critical: bool
    value: bytes | None


def encode_ead(items: Sequence[Ead]) -> bytes:
    """Return EAD items as a CBOR sequence: label (negated if critical), then value if any."""
    values: list[object] = []
    for item in items:
        values.append(-item.label if item.critical else item.label)
        if item.value is not None:
            values.append(item.value)
    return encode_sequence(*values)


def parse_ead(values: Sequence[Any]) -> tuple[Ead, ...]:
    """Return the EAD items among decoded ``values``; :class:`MalformedError` (``bad-ead``)."""
    items: list[Ead] = []
    at = 0
    while at < len(values):
        label, value = values[at], values[at + 1] if at + 1 < len(values) else None
        if type(label) is not int or abs(label) > _MAX_LABEL:
            raise MalformedError("bad-ead", "not a sequence of labels and byte strings")
        if type(value) is not bytes:
            value = None
        items.append(Ead(abs(label), label < 0, value))
        at += 1 if value is None else 2
    return tuple(items)


def is_short(identifier: bytes) -> bool:
    """Tell whether a byte string is itself the one-byte encoding of an integer from -24 to 23."""
    return len(identifier) == 1 and (identifier[0] <= 0x17 or 0x20 <= identifier[0] <= 0x37)


def encode_identifier(identifier: bytes) -> bytes:
    """Encode a connection identifier or kid: a byte that is a CBOR integer goes as it is (RFC 9528 §3.3.2, §3.5.3)."""
    return identifier if is_short(identifier) else encode_bytes(identifier)


def parse_identifier(value: object, *, limit: int) -> bytes:
    """Return the byte string of a decoded identifier; :class:`MalformedError` (``bad-identifier``)."""
    if type(value) is int and -24 <= value <= 23:
        return encode(value)
    if type(value) is bytes and len(value) <= limit and not is_short(value):
        return value
    raise MalformedError("bad-identifier", "not a short integer or byte string in its one encoding")


def id_cred(kid: bytes) -> bytes:
    """Return the encoded ID_CRED {4: kid} as it goes into MACs."""
    return _ID_CRED + encode_bytes(kid)


def parts(message: bytes, low: int, high: int, limit: int) -> list[Any]:
    """Return the items of a CBOR sequence of ``low`` to ``high`` items; :class:`MalformedError`."""
    values = decode_sequence(message, items=high, limit=limit)
    if len(values) < low:
        raise MalformedError("wrong-shape", f"{len(values)} items, at least {low}")
    return values


def as_bytes(value: object) -> bytes:
    """Return a decoded byte string; :class:`MalformedError` (``wrong-shape``) if it is none."""
    if type(value) is not bytes:
        raise MalformedError("wrong-shape", "not a byte string")
    return value
