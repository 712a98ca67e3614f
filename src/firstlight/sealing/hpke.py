"""Hybrid Public Key Encryption, base mode (RFC 9180): DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-128-GCM.

Sealing draws its ephemeral key inside ``cryptography``. Opening goes through :class:`KeyAgreement`, so that the
recipient's key may live in a TPM or an HSM. A sealed message is enc (65 bytes) ‖ ciphertext ‖ tag (16).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke as library
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from firstlight import p256
from firstlight.errors import MalformedError, SignatureError
from firstlight.ports import KeyAgreement

ENC = 65
TAG = 16
OVERHEAD = ENC + TAG
"""What sealing adds to a message, in bytes."""

_VERSION = b"HPKE-v1"
_KEM_ID = b"KEM\x00\x10"
_SUITE_ID = b"HPKE\x00\x10\x00\x01\x00\x01"
_BASE = b"\x00"
_CURVE = ec.SECP256R1()
_ECDH = ec.ECDH()
_SUITE = library.Suite(library.KEM.P256, library.KDF.HKDF_SHA256, library.AEAD.AES_128_GCM)


def _extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    """LabeledExtract (RFC 9180 §4)."""
    return hmac.digest(salt, _VERSION + suite + label + ikm, "sha256")


def _expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """LabeledExpand (RFC 9180 §4) of at most 32 bytes: one block of HKDF-Expand."""
    return hmac.digest(prk, length.to_bytes(2) + _VERSION + suite + label + info + b"\x01", "sha256")[:length]


_PSK_ID_HASH = _extract(_SUITE_ID, b"", b"psk_id_hash", b"")


@dataclass(slots=True)
class Context:
    """An encryption context (RFC 9180 §5.2): each message uses the next sequence number."""

    key: bytes
    base_nonce: bytes
    sequence: int = 0

    @classmethod
    def schedule(cls, shared_secret: bytes, info: bytes) -> Self:
        """Return the context of KeySchedule in base mode (RFC 9180 §5.1)."""
        context = _BASE + _PSK_ID_HASH + _extract(_SUITE_ID, b"", b"info_hash", info)
        secret = _extract(_SUITE_ID, shared_secret, b"secret", b"")
        return cls(
            _expand(_SUITE_ID, secret, b"key", context, 16),
            _expand(_SUITE_ID, secret, b"base_nonce", context, 12),
        )

    def seal(self, plaintext: bytes, aad: bytes = b"") -> bytes:
        """Return ciphertext ‖ tag of the next message."""
        return AESGCM(self.key).encrypt(self._next(), plaintext, aad)

    def open(self, ciphertext: bytes, aad: bytes = b"") -> bytes:
        """Return the next message; :class:`SignatureError` (``cannot-open``) if it is not the one that was sealed."""
        try:
            return AESGCM(self.key).decrypt(self._next(), ciphertext, aad)
        except InvalidTag:
            raise SignatureError("cannot-open", "not sealed for this key, or changed") from None

    def _next(self) -> bytes:
        nonce = (int.from_bytes(self.base_nonce) ^ self.sequence).to_bytes(12)
        self.sequence += 1
        return nonce


def setup_sender(
    recipient: bytes, info: bytes, *, ephemeral: ec.EllipticCurvePrivateKey | None = None
) -> tuple[bytes, Context]:
    """Return enc (65 bytes) and the context for a ``recipient``: compressed (33 bytes) or x ‖ y (64).

    ``ephemeral`` is for test vectors only. Raises :class:`MalformedError` (``bad-point``).
    """
    public = _public(recipient)
    ephemeral = ephemeral or ec.generate_private_key(_CURVE)
    enc = _point(ephemeral.public_key())
    return enc, Context.schedule(_shared(ephemeral.exchange(_ECDH, public), enc, _point(public)), info)


def setup_receiver(enc: bytes, agreement: KeyAgreement, info: bytes) -> Context:
    """Return the context of the holder of ``agreement``; :class:`MalformedError` (``bad-point``) for a bad ``enc``."""
    if len(enc) != ENC or enc[0] != 4:
        raise MalformedError("bad-point", "enc is not an uncompressed point")
    dh = agreement.exchange(p256.from_coordinates(enc[1:]))
    return Context.schedule(_shared(dh, enc, b"\x04" + p256.coordinates(agreement.public)), info)


def seal(recipient: bytes, plaintext: bytes, *, info: bytes) -> bytes:
    """Return ``plaintext`` sealed for ``recipient`` (33 or 64 bytes), :data:`OVERHEAD` bytes longer.

    It is one message of a context of its own, by the library, which takes two thirds of the time. Raises
    :class:`MalformedError` (``bad-point``).
    """
    return _SUITE.encrypt(plaintext, _public(recipient), info)


def unseal(sealed: bytes, agreement: KeyAgreement, *, info: bytes) -> bytes:
    """Return what :func:`seal` sealed.

    Raises :class:`MalformedError` (``bad-point``) and :class:`SignatureError` (``cannot-open``).
    """
    return setup_receiver(sealed[:ENC], agreement, info).open(sealed[ENC:])


def _shared(dh: bytes, enc: bytes, recipient: bytes) -> bytes:
    """ExtractAndExpand of DHKEM (RFC 9180 §4.1)."""
    return _expand(_KEM_ID, _extract(_KEM_ID, b"", b"eae_prk", dh), b"shared_secret", enc + recipient, 32)


def _public(recipient: bytes) -> ec.EllipticCurvePublicKey:
    if len(recipient) != 64:
        return p256.load(recipient)
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, b"\x04" + recipient)
    except ValueError as error:
        raise MalformedError("bad-point", "not a point of P-256") from error


def _point(public: ec.EllipticCurvePublicKey) -> bytes:
    return public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
