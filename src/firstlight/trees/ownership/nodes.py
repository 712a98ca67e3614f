"""Hashes of the ownership trie.

- uniform subtree (all of its indices in one tenure): SHA-256(0x00 ‖ tenure as 4 bytes, big-endian)
- any other: SHA-256(0x01 ‖ left ‖ right)

A uniform subtree has the same hash at any height; where a node stands is known from its prefix.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256

NOBODY = 0
"""The tenure of indices that pad a batch to a power of two."""
MAX_TENURE = 2**32 - 1
PAGE_BITS = 10
PAGE_SIZE = 1 << PAGE_BITS
"""How many neighbouring indices, or pages one level down, share a page."""


@lru_cache(maxsize=4096)
def uniform_hash(tenure: int) -> bytes:
    """Return the hash of a subtree that is all ``tenure``'s."""
    return sha256(b"\x00" + tenure.to_bytes(4)).digest()


def split_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a subtree that is not all of one tenure."""
    return sha256(b"\x01" + left + right).digest()


def depth_of(size: int) -> int:
    """Return the depth of the trie over ``size`` indices: ⌈log₂ size⌉."""
    return (size - 1).bit_length()
