"""Long messages, sealed chunk by chunk as they pass: how a manifest of a million devices travels.

The stream is enc (65 bytes), then frames of length (4 bytes, big-endian) ‖ ciphertext ‖ tag. Every chunk has the
next sequence number of one HPKE context; the last one is marked in its associated data, so that nothing can be
cut off, dropped, repeated or moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from firstlight.encoding import encode
from firstlight.errors import MalformedError
from firstlight.ports import KeyAgreement
from firstlight.sealing import hpke

MAX_CHUNK = 1 << 20
_LENGTH = 4
_MORE, _LAST = b"\x00", b"\x01"


def manifest_info(chain: str, batch: bytes) -> bytes:
    """Return the HPKE info under which a manifest of ``batch`` is sealed."""
    return encode(["firstlight-manifest-1", chain, batch])


def seal_stream(chunks: Iterable[bytes], recipient: bytes, *, info: bytes) -> Iterator[bytes]:
    """Return the pieces of the sealed stream of ``chunks`` (each at most 1 MiB) for ``recipient``.

    Raises :class:`MalformedError`: ``bad-point``, ``too-large``, ``empty-stream``.
    """
    enc, context = hpke.setup_sender(recipient, info)
    yield enc
    stream = iter(chunks)
    current = next(stream, None)
    if current is None:
        raise MalformedError("empty-stream", "nothing to seal")
    while current is not None:
        following = next(stream, None)
        if len(current) > MAX_CHUNK:
            raise MalformedError("too-large", f"a chunk of {len(current)} bytes")
        sealed = context.seal(current, _LAST if following is None else _MORE)
        yield len(sealed).to_bytes(_LENGTH) + sealed
        current = following


def open_stream(pieces: Iterable[bytes], agreement: KeyAgreement, *, info: bytes) -> Iterator[bytes]:
    """Return the chunks of a sealed stream, which may come in pieces of any length.

    A chunk is given out once it is verified, the end of the stream once the last chunk is. Raises
    :class:`MalformedError` (``bad-point``, ``too-large``, ``truncated``) and :class:`SignatureError`
    (``cannot-open``: sealed for another, changed, cut off, repeated or continued).
    """
    reader = _Reader(pieces)
    context = hpke.setup_receiver(reader.take(hpke.ENC), agreement, info)
    while True:
        length = int.from_bytes(reader.take(_LENGTH))
        if length > MAX_CHUNK + hpke.TAG:
            raise MalformedError("too-large", f"a frame of {length} bytes")
        sealed = reader.take(length)
        last = reader.at_end()
        yield context.open(sealed, _LAST if last else _MORE)
        if last:
            return


class _Reader:
    """Hands out exact lengths from pieces of any length."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._held = bytearray()

    def take(self, count: int) -> bytes:
        while len(self._held) < count:
            piece = next(self._pieces, None)
            if piece is None:
                raise MalformedError("truncated", "the stream ends too early")
            self._held += piece
        taken = bytes(self._held[:count])
        del self._held[:count]
        return taken

    def at_end(self) -> bool:
        while not self._held:
            piece = next(self._pieces, None)
            if piece is None:
                return True
            self._held += piece
        return False
