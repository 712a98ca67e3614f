"""Whose address is verified: the Echo option (RFC 9175 §2), without a record of anybody until one has answered."""

from __future__ import annotations

import hmac
from collections import OrderedDict

Address = tuple[str, int]
_STAMP, _MAC = 4, 8


class Freshness:
    """Makes Echo values and knows who has brought one back; memory is bounded."""

    def __init__(self, secret: bytes, *, sources: int = 16_384, seconds: float = 600.0, life: float = 60.0) -> None:
        """Believe a value for ``life`` seconds, and a source that brought one as long as it is heard of so often."""
        self._secret = secret
        self._limit = sources
        self._seconds = seconds
        self._life = life
        self._verified: OrderedDict[Address, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._verified)

    def challenge(self, source: Address, now: float) -> bytes:
        """Return the value for ``source`` to bring back."""
        stamp = int(now).to_bytes(_STAMP)
        return stamp + self._mac(source, stamp)

    def verify(self, source: Address, echo: bytes | None, now: float) -> bool:
        """Say whether ``source`` is verified, by what it brings or has brought."""
        if echo is not None and self._genuine(source, echo, now):
            self._verified[source] = now
        seen = self._verified.get(source)
        if seen is None:
            return False
        if now - seen > self._seconds:
            del self._verified[source]
            return False
        self._verified[source] = now
        self._verified.move_to_end(source)
        if len(self._verified) > self._limit:
            self._verified.popitem(last=False)
        return True

    def _genuine(self, source: Address, echo: bytes, now: float) -> bool:
        stamp, mac = echo[:_STAMP], echo[_STAMP:]
        age = now - int.from_bytes(stamp)
        return 0 <= age + 1 <= self._life + 1 and hmac.compare_digest(mac, self._mac(source, stamp))

    def _mac(self, source: Address, stamp: bytes) -> bytes:
        host, port = source
        return hmac.digest(self._secret, f"{host} {port} ".encode() + stamp, "sha256")[:_MAC]
