"""Padding to a constant length, so that a sealed message's size tells nothing: length (2 bytes) ‖ message ‖ zeros."""

from __future__ import annotations

from firstlight.errors import MalformedError

_LENGTH = 2


def pad(message: bytes, size: int) -> bytes:
    """Return ``message`` padded to ``size`` bytes; :class:`MalformedError` (``too-large``) if it does not fit."""
    if len(message) > size - _LENGTH:
        raise MalformedError("too-large", f"{len(message)} bytes do not fit into {size - _LENGTH}")
    return len(message).to_bytes(_LENGTH) + message + bytes(size - _LENGTH - len(message))


def unpad(padded: bytes, size: int) -> bytes:
    """Return the message; :class:`MalformedError` (``bad-padding``) for any other bytes than :func:`pad` makes."""
    length = int.from_bytes(padded[:_LENGTH])
    if len(padded) != size or length > size - _LENGTH or any(padded[_LENGTH + length :]):
        raise MalformedError("bad-padding", "not padded to the constant size with zeros")
    return padded[_LENGTH : _LENGTH + length]
