"""The live sessions of an access network: who is attached, and what of theirs is connected."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from firstlight.access.ports import Traffic


@dataclass(eq=False, slots=True)
class Session:
    """One attached device. ``expires`` is Unix nanoseconds."""

    id: bytes
    imsi: str = field(repr=False)
    proof: str = field(repr=False)
    detach_mac: bytes = field(repr=False)
    expires: int
    live: bool = True
    sent: int = 0
    received: int = 0
    connections: int = 0
    transports: set[asyncio.WriteTransport | asyncio.DatagramTransport] = field(default_factory=set, repr=False)

    def count_sent(self, size: int) -> None:
        """Add bytes that came from the device."""
        self.sent += size

    def count_received(self, size: int) -> None:
        """Add bytes that went to the device."""
        self.received += size


Ended = Callable[[Session, Traffic], None]


class Sessions:
    """At most one session for each subscription; in memory only, so none outlives the process."""

    def __init__(self, ended: Ended) -> None:
        """Call ``ended`` once for each session that is over."""
        self._ended = ended
        self._by_id: dict[bytes, Session] = {}
        self._by_imsi: dict[str, Session] = {}

    def __len__(self) -> int:
        """Return how many devices are attached."""
        return len(self._by_id)

    def imsis(self) -> list[str]:
        """Return whose sessions are live."""
        return list(self._by_imsi)

    def open(self, session: Session) -> None:
        """Make a session live; one that its subscription had before ends."""
        self.drop((session.imsi,))
        self._by_id[session.id] = session
        self._by_imsi[session.imsi] = session

    def authenticate(self, username: bytes, password: bytes) -> Session | None:
        """Return the live session that a username (its id in hexadecimal) and a proof open."""
        try:
            session = self._by_id.get(bytes.fromhex(username.decode("ascii")))
        except ValueError:
            return None
        expected = session.proof.encode() if session else bytes(64)
        return session if hmac.compare_digest(expected, password) and session else None

    def detach(self, identifier: bytes, mac: bytes) -> bool:
        """End a session at its device's wish; say whether there was one and the MAC was its."""
        session = self._by_id.get(identifier)
        if session is None or not hmac.compare_digest(session.detach_mac, mac):
            return False
        self._end(session)
        return True

    def drop(self, imsis: Iterable[str]) -> None:
        """End the sessions of these subscriptions, and cut all their connections at once."""
        for imsi in imsis:
            session = self._by_imsi.get(imsi)
            if session is not None:
                self._end(session)

    def expire(self, now: int) -> None:
        """End the sessions whose time is over (Unix nanoseconds)."""
        for session in [one for one in self._by_id.values() if one.expires <= now]:
            self._end(session)

    def _end(self, session: Session) -> None:
        session.live = False
        del self._by_id[session.id]
        del self._by_imsi[session.imsi]
        for transport in tuple(session.transports):
            transport.abort()
        session.transports.clear()
        self._ended(session, Traffic(session.sent, session.received))
