"""The envelope: what an owner seals to one device's identity key and leaves at a gateway.

Sealing proves nothing about who sealed: anybody who knows a device's identity key can. What an envelope says
counts only once its claims hash into the plan root of the tenure that counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from firstlight.encoding import Count, Packed, Range, Record, Size, Uint, encode
from firstlight.errors import MalformedError
from firstlight.ports import KeyAgreement
from firstlight.sealing import hpke
from firstlight.sealing.padding import pad, unpad

SEALED_SIZE = 2_048
"""The size of every envelope, whatever it holds."""
PLAIN_SIZE = SEALED_SIZE - hpke.OVERHEAD
_LABEL = "firstlight-envelope-1"


@dataclass(frozen=True, slots=True)
class EnvelopeContent(Record):
    """For which tenure and plan revision, which prefix of the ownership trie covers the device, and the plan.

    ``prefix_length`` counts bits; ``digests`` are the plan's sixteen, ``claims`` the bytes of every real claim.
    """

    LIMIT: ClassVar[int] = PLAIN_SIZE

    tenure: Annotated[int, Range(1, 2**32 - 1)]
    revision: Uint
    prefix_length: Annotated[int, Range(0, 32)]
    digests: Annotated[tuple[bytes, ...], Packed(16, 16)]
    claims: Annotated[tuple[Annotated[bytes, Size(1, 640)], ...], Count(16, 1)]

    def padded(self) -> bytes:
        """Return the plaintext of an envelope; the same for all devices that one prefix length covers."""
        return pad(self.encode(), PLAIN_SIZE)


def seal_envelope(padded: bytes, *, identity: bytes, chain: str, locator: bytes) -> bytes:
    """Return the envelope (2,048 bytes) of :meth:`EnvelopeContent.padded` for one device.

    ``identity`` is its identity key (33 bytes compressed, or x ‖ y), ``locator`` where the envelope will lie.
    Raises :class:`MalformedError` (``bad-point``).
    """
    return hpke.seal(identity, padded, info=_info(chain, locator))


def open_envelope(sealed: bytes, agreement: KeyAgreement, *, chain: str, locator: bytes) -> EnvelopeContent:
    """Return what an envelope holds.

    1. It has the constant size (``wrong-size``); 2. it opens with the identity key for this chain and locator
    (:class:`SignatureError` ``cannot-open``, or ``bad-point``); 3. padding (``bad-padding``) and content are well
    formed. Raises :class:`MalformedError` where nothing else is said.
    """
    if len(sealed) != SEALED_SIZE:
        raise MalformedError("wrong-size", f"an envelope has {SEALED_SIZE} bytes, not {len(sealed)}")
    return EnvelopeContent.decode(unpad(hpke.unseal(sealed, agreement, info=_info(chain, locator)), PLAIN_SIZE))


def _info(chain: str, locator: bytes) -> bytes:
    return encode([_LABEL, chain, locator])
