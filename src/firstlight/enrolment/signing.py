"""A signer behind ``ports.Signer``, in the shape that the X.509 builders of ``cryptography`` take."""

from __future__ import annotations

from typing import NoReturn

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding, KeySerializationEncryption, PrivateFormat

from firstlight import p256
from firstlight.errors import SignatureError
from firstlight.ports import Signer


class SignerKey(ec.EllipticCurvePrivateKey):
    """A P-256 private key that can sign with SHA-256 and nothing else; the key itself stays in the signer.

    What would show the key or use it otherwise raises :class:`SignatureError` (``key-not-exportable``).
    """

    def __init__(self, signer: Signer) -> None:
        """Sign through ``signer``."""
        self._signer = signer

    @property
    def curve(self) -> ec.EllipticCurve:
        """P-256."""
        return ec.SECP256R1()

    @property
    def key_size(self) -> int:
        """Bits of the key: 256."""
        return 256

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Return the signer's public key."""
        return p256.load(self._signer.public)

    def sign(self, data: bytes, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:  # type: ignore[override]
        """Return the DER signature (RFC 5480) of ``data``; ECDSA with SHA-256 only (``wrong-algorithm``)."""
        if not isinstance(signature_algorithm.algorithm, hashes.SHA256):
            raise SignatureError("wrong-algorithm", "the signer signs with SHA-256 only")
        value = self._signer.sign(bytes(data))
        return utils.encode_dss_signature(int.from_bytes(value[:32]), int.from_bytes(value[32:]))

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> NoReturn:  # noqa: ARG002
        """Refuse: a signing key agrees on nothing."""
        raise _kept()

    def private_numbers(self) -> NoReturn:
        """Refuse."""
        raise _kept()

    def private_bytes(
        self,
        encoding: Encoding,  # noqa: ARG002
        format: PrivateFormat,  # noqa: A002, ARG002
        encryption_algorithm: KeySerializationEncryption,  # noqa: ARG002
    ) -> NoReturn:
        """Refuse."""
        raise _kept()

    def __copy__(self) -> SignerKey:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> SignerKey:
        return self


def _kept() -> SignatureError:
    return SignatureError("key-not-exportable", "the signing key does not leave its signer")
