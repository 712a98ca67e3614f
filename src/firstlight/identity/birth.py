"""What a device is born with: its leaf in the batch's tree, and the birth credential burnt in at the factory.

A leaf's input to the RFC 6962 tree is salt (16 bytes) ‖ identity key x ‖ y (64) ‖ attestation key x ‖ y (64) ‖
hardware model (1 to 32). Salts and mailbox secrets derive from a batch secret and the device's index.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated

from firstlight import p256
from firstlight.encoding import (
    Bytes16,
    Bytes32,
    Bytes33,
    Bytes64,
    ChainId,
    Count,
    Packed,
    Record,
    Size,
    Uint32,
    Uri,
)
from firstlight.errors import MalformedError, ProofError
from firstlight.ledger.records import BatchSize, Model
from firstlight.trees import rfc6962

KID_SIZE = 16
_SALT = b"firstlight-salt-1"
_BLOCK = 64
_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B


def derive_salt(batch_secret: bytes, index: int) -> bytes:
    """Return the salt (16 bytes) of a device's leaf."""
    return _derive(_SALT, batch_secret, index)[:16]


def derive_salts(batch_secret: bytes, count: int) -> Iterator[bytes]:
    """Iterate over the salts of the first ``count`` devices: as :func:`derive_salt`, in half the time for very many.

    This is HMAC (RFC 2104 §2) with the two padded keys made once.
    """
    key = (batch_secret if len(batch_secret) <= _BLOCK else sha256(batch_secret).digest()).ljust(_BLOCK, b"\x00")
    inner = bytes([byte ^ 0x36 for byte in key]) + _SALT
    outer = bytes([byte ^ 0x5C for byte in key])
    for index in range(count):
        yield sha256(outer + sha256(inner + index.to_bytes(4)).digest()).digest()[:16]


def derive_mailbox(batch_secret: bytes, index: int) -> bytes:
    """Return the mailbox secret (32 bytes) of a device."""
    return _derive(b"firstlight-mailbox-1", batch_secret, index)


def _derive(label: bytes, batch_secret: bytes, index: int) -> bytes:
    return hmac.digest(batch_secret, label + index.to_bytes(4), "sha256")


def check_point(xy: bytes) -> None:
    """Check that x ‖ y (64 bytes) is a point of P-256 (SEC 1 §3.2.2.1; the cofactor is 1, infinity has no x ‖ y).

    Raises :class:`firstlight.errors.MalformedError` (``bad-point``).
    """
    x, y = int.from_bytes(xy[:32]), int.from_bytes(xy[32:])
    if len(xy) != 64 or x >= _P or y >= _P or (y * y - (x * x - 3) * x - _B) % _P:
        raise MalformedError("bad-point", "not a point of P-256")


def compressed(xy: bytes) -> bytes:
    """Return the 33-byte form of x ‖ y (64 bytes), which must be a point."""
    return bytes((2 + (xy[63] & 1),)) + xy[:32]


@dataclass(frozen=True, slots=True)
class Leaf(Record):
    """The opening of one device's leaf; it exists only with two different points of P-256.

    Raises :class:`firstlight.errors.MalformedError`: ``bad-point``, ``same-keys``.
    """

    salt: Bytes16
    identity: Bytes64
    attestation: Bytes64
    model: Model

    def __post_init__(self) -> None:
        """Check the points."""
        check_point(self.identity)
        check_point(self.attestation)
        if self.identity[:32] == self.attestation[:32]:
            raise MalformedError("same-keys", "identity and attestation key are one")

    def input(self) -> bytes:
        """Return the leaf's input to the tree."""
        return self.salt + self.identity + self.attestation + self.model

    def hash(self) -> bytes:
        """Return the leaf's hash (RFC 6962 §2.1)."""
        return rfc6962.leaf_hash(self.input())

    @property
    def kid(self) -> bytes:
        """The first 16 bytes of the leaf's hash: the kid of the device's credential."""
        return self.hash()[:KID_SIZE]

    @property
    def attestation_key(self) -> bytes:
        """The attestation key, compressed (33 bytes)."""
        return compressed(self.attestation)

    def verify(self, index: int, size: int, path: tuple[bytes, ...], leaves_root: bytes) -> None:
        """Check that this is leaf ``index`` of a batch of ``size`` devices with that root.

        1. The path fits index and size (:func:`root_from_path`); 2. it leads to the root (``not-in-batch``). Raises
        :class:`firstlight.errors.ProofError`.
        """
        if rfc6962.root_from_path(self.hash(), index, size, path) != leaves_root:
            raise ProofError("not-in-batch", "the leaf does not hash into the batch's leaves root")


@dataclass(frozen=True, slots=True)
class BirthCredential(Record):
    """All that a device knows on its first day, beside its two private keys.

    ``root`` is the newest root statement at its birth, ``path`` its leaf's path, ``gateways`` are hints.
    Raises :class:`firstlight.errors.MalformedError`: ``bad-index``, ``bad-point``, ``same-keys``.
    """

    chain: ChainId
    root: Annotated[bytes, Size(1, 8192)]
    batch: Bytes16
    size: BatchSize
    index: Uint32
    salt: Bytes16
    path: Annotated[tuple[bytes, ...], Packed(32)]
    mailbox: Bytes32
    model: Model
    identity: Bytes33
    attestation: Bytes33
    gateways: Annotated[tuple[Uri, ...], Count(4)]

    def __post_init__(self) -> None:
        """Check the index and the keys."""
        if self.index >= self.size:
            raise MalformedError("bad-index", f"index {self.index} in a batch of {self.size}")
        self.leaf()

    def leaf(self) -> Leaf:
        """Return the opening of this device's leaf."""
        return Leaf(self.salt, p256.coordinates(self.identity), p256.coordinates(self.attestation), self.model)

    def verify(self, leaves_root: bytes) -> None:
        """Check that the device is in the batch with that root; errors as :meth:`Leaf.verify`."""
        self.leaf().verify(self.index, self.size, self.path, leaves_root)
