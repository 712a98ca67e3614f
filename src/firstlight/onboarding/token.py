"""The token: a responder's half-open state, sealed so that any worker finishes any exchange.

AES-256-GCM under a key that lives in memory for at most two minutes, current and then previous; chain and
party are additional data. With the party's static key a token key opens recorded exchanges, so it is never
stored. A token holds y, TH_3, PRK_3e2m and the time at which message 2 was made.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from firstlight.encoding import encode
from firstlight.errors import ExchangeError
from firstlight.onboarding.edhoc.responder import HalfOpen
from firstlight.ports import Random

LIFETIME_NS = 120_000_000_000
"""How long a token key is used, and how long a token is good for."""
_NONCE = 12
_LAYOUT = struct.Struct(">B32s32s32sQ")


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A token key of 32 bytes and when it was made (Unix nanoseconds)."""

    secret: bytes = field(repr=False)
    made_ns: int

    def alive(self, now_ns: int) -> bool:
        """Tell whether the key may still be used."""
        return now_ns - self.made_ns <= LIFETIME_NS


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The token keys in use: tokens are sealed with ``current`` and opened with either."""

    current: TokenKey
    previous: TokenKey | None = None

    def turned(self, secret: bytes, now_ns: int) -> KeyRing:
        """Return the ring with a new current key; the current one becomes the previous."""
        return KeyRing(TokenKey(secret, now_ns), self.current)


@dataclass(frozen=True, slots=True)
class OpenState:
    """What a token holds; ``opened_ns`` is when message 2 was made.

    Sealed it is read by nobody but its maker, so it has a layout of its own: suite (1 byte) ‖ y ‖ TH_3 ‖ PRK_3e2m (32
    each) ‖ time (8).
    """

    half: HalfOpen = field(repr=False)
    opened_ns: int

    def encode(self) -> bytes:
        """Return the bytes that are sealed."""
        half = self.half
        return _LAYOUT.pack(half.suite, half.y, half.th_3, half.prk_3e2m, self.opened_ns)

    @classmethod
    def decode(cls, data: bytes) -> OpenState:
        """Return the state in bytes that a token key has opened; :class:`ExchangeError` (``bad-token``)."""
        if len(data) != _LAYOUT.size:
            raise ExchangeError("bad-token", f"{len(data)} bytes of state, not {_LAYOUT.size}")
        *half, opened_ns = _LAYOUT.unpack(data)
        return cls(HalfOpen(*half), opened_ns)


def seal_token(state: OpenState, ring: KeyRing, *, chain: str, party: bytes, random: Random) -> bytes:
    """Return the token; :class:`ExchangeError` (``no-token-key``) if the current key has had its time."""
    if not ring.current.alive(state.opened_ns):
        raise ExchangeError("no-token-key", "the current token key is too old")
    nonce = random.bytes(_NONCE)
    return nonce + AESGCM(ring.current.secret).encrypt(nonce, state.encode(), _context(chain, party))


def open_token(token: bytes, ring: KeyRing, *, chain: str, party: bytes, now_ns: int) -> OpenState:
    """Return the state in a token.

    1. A key that is still alive opens it, for this chain and party (``bad-token``); 2. message 2 was made at most two
    minutes ago (``token-expired``). Raises :class:`ExchangeError`.
    """
    for key in (ring.current, ring.previous):
        if key is None or not key.alive(now_ns) or len(token) <= _NONCE:
            continue
        try:
            plain = AESGCM(key.secret).decrypt(token[:_NONCE], token[_NONCE:], _context(chain, party))
        except InvalidTag:
            continue
        state = OpenState.decode(plain)
        if now_ns - state.opened_ns > LIFETIME_NS:
            raise ExchangeError("token-expired", "message 2 is more than two minutes old")
        return state
    raise ExchangeError("bad-token", "no token key opens it")


@lru_cache(maxsize=16)
def _context(chain: str, party: bytes) -> bytes:
    return encode(["firstlight-token-1", chain, party])
