"""Private keys in files: PKCS#8 PEM (RFC 5958), mode 0600, one use for each key.

The first line of the file, before the PEM block, names the use: ``Use: signing``, ``Use: agreement`` or
``Use: validator``. A key is loaded for that use only, so that one that signs never agrees.

A key is made once and never overwritten. Errors are :class:`~firstlight.errors.StoreError`: those of
:mod:`firstlight.files` (``file-missing``, ``file-exists``, ``file-not-private``, …), ``bad-key`` (no such key in
the file) and ``wrong-key-use``.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from firstlight import p256
from firstlight.errors import MalformedError, StoreError
from firstlight.files import read_limited, write_atomic

MAX_KEY_FILE = 4096


def _save(path: Path, use: str, private: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> None:
    write_atomic(path, _contents(use, private), exclusive=True)


def _contents(use: str, private: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    return f"Use: {use}\n".encode() + private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _load(path: Path, use: str) -> object:
    first, _, pem = read_limited(path, MAX_KEY_FILE, private=True).partition(b"\n")
    if not first.startswith(b"Use: "):
        raise StoreError("bad-key", f"{path} does not say what its key is for", hint=f"first line: Use: {use}")
    if first != b"Use: " + use.encode():
        raise StoreError("wrong-key-use", f"{path} holds no key for {use}")
    try:
        return load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise StoreError("bad-key", f"{path} holds no readable private key") from error


def _load_p256(path: Path, use: str) -> ec.EllipticCurvePrivateKey:
    private = _load(path, use)
    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.curve.name != "secp256r1":
        raise StoreError("bad-key", f"{path} holds no P-256 key")
    return private


class _P256File:
    """What both kinds of P-256 key share: making, loading, and the public half."""

    __slots__ = ("_private", "public")
    USE: ClassVar[str]

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        """Hold ``private``; use :meth:`create` or :meth:`load` for a key in a file."""
        self._private = private
        self.public = p256.compress(private.public_key())
        """The public key, SEC 1 compressed (33 bytes)."""

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make a new key and write it to ``path``, which must not exist (``file-exists``)."""
        private = ec.generate_private_key(ec.SECP256R1())
        _save(path, cls.USE, private)
        return cls(private)

    @classmethod
    def generate(cls) -> tuple[Self, bytes]:
        """Return a new key and the contents of its file, for a caller that writes many files at once."""
        private = ec.generate_private_key(ec.SECP256R1())
        return cls(private), _contents(cls.USE, private)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load the key at ``path``."""
        return cls(_load_p256(path, cls.USE))

    @classmethod
    def load_or_create(cls, path: Path) -> Self:
        """Load the key at ``path``, or make it there if there is none."""
        return cls.load(path) if path.exists() else cls.create(path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.public.hex()})"


class SigningKey(_P256File):
    """A P-256 key that signs (:class:`firstlight.ports.Signer`)."""

    __slots__ = ()
    USE = "signing"

    def sign(self, message: bytes) -> bytes:
        """Return the ES256 signature of ``message``: r ‖ s, 64 bytes, low s."""
        return p256.sign(self._private, message)


class AgreementKey(_P256File):
    """A P-256 key that agrees on secrets (:class:`firstlight.ports.KeyAgreement`)."""

    __slots__ = ()
    USE = "agreement"

    def exchange(self, peer: bytes) -> bytes:
        """Return the ECDH x-coordinate (32 bytes) with ``peer``: 33 bytes compressed, or its 32-byte x-coordinate.

        Raises :class:`~firstlight.errors.MalformedError` (``bad-point``).
        """
        if len(peer) not in (32, 33):
            raise MalformedError("bad-point", f"{len(peer)} bytes, not a P-256 key")
        public = p256.from_x(peer) if len(peer) == 32 else p256.load(peer)
        return self._private.exchange(ec.ECDH(), public)


class ValidatorKey:
    """An Ed25519 key with which a validator signs votes (RFC 8032)."""

    __slots__ = ("_private", "public")
    USE: ClassVar[str] = "validator"

    def __init__(self, private: Ed25519PrivateKey) -> None:
        """Hold ``private``; use :meth:`create` or :meth:`load` for a key in a file."""
        self._private = private
        self.public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        """The public key (32 bytes)."""

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make a new key and write it to ``path``, which must not exist (``file-exists``)."""
        private = Ed25519PrivateKey.generate()
        _save(path, cls.USE, private)
        return cls(private)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load the key at ``path``."""
        private = _load(path, cls.USE)
        if not isinstance(private, Ed25519PrivateKey):
            raise StoreError("bad-key", f"{path} holds no Ed25519 key")
        return cls(private)

    @classmethod
    def load_or_create(cls, path: Path) -> Self:
        """Load the key at ``path``, or make it there if there is none."""
        return cls.load(path) if path.exists() else cls.create(path)

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of ``message``."""
        return self._private.sign(message)

    def handed_over(self) -> bytes:
        """Return the private key (seed and public key, 64 bytes), for a validator that is another program."""
        return self._private.private_bytes_raw() + self.public

    def __repr__(self) -> str:
        return f"ValidatorKey({self.public.hex()})"
