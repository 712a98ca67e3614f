"""The ports of network access, for the device and for the operator that serves it.

The embedded network implements both sides; an operator with hostapd, FreeRADIUS or osmo-hlr puts those
behind the same ports. A vector leaves the authentication centre plain (RAND, AUTN, XRES, CK, IK), so
whatever terminates EAP can use it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from firstlight.sim.aka import Vector
from firstlight.sim.naming import OneTimeName
from firstlight.sim.subscription import SoftSim
from firstlight.sim.suci import Suci


@dataclass(frozen=True, slots=True)
class Proxy:
    """A SOCKS5 forwarder (RFC 1928) and what it asks for (RFC 1929); no username means no authentication."""

    host: str
    port: int
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """The proxy as a URL, credentials included, as httpx takes it."""
        login = f"{self.username}:{self.password}@" if self.username else ""
        return f"socks5://{login}{self.host}:{self.port}"


class SimStore(Protocol):
    """Where a device keeps its USIM."""

    def load(self) -> SoftSim:
        """Return the USIM; raises :class:`firstlight.errors.StoreError`."""
        ...

    def save(self, sim: SoftSim) -> None:
        """Keep the USIM durably before returning; raises :class:`firstlight.errors.StoreError`."""
        ...


@dataclass(frozen=True, slots=True)
class TlsCredentials:
    """What a device attaches to a private network with.

    ``name`` is the common name of its certificate; ``certificate`` (the chain) and ``key`` are PEM files of its own,
    the key 0600. The server's certificate must lead to one of ``anchors`` (DER) and carry the DNS name ``server``.
    ``access`` is where the network is (``scheme://…``).
    """

    name: str
    certificate: Path
    key: Path
    anchors: tuple[bytes, ...]
    server: str
    access: str = ""


class Attachment(Protocol):
    """A device's way into the network, open until closed or ended by the operator."""

    @property
    def session(self) -> bytes:
        """The session's id, 16 bytes."""
        ...

    @property
    def proxy(self) -> Proxy | None:
        """Through which everything goes; None where the network is reached directly."""
        ...

    async def lost(self) -> None:
        """Return when the network has shut the device out; never, where only the next connection would tell."""
        ...

    async def close(self) -> None:
        """Leave the network; a network that no longer answers is no error."""
        ...


class NetworkAccess(Protocol):
    """How a device gets onto a network."""

    async def attach(self, store: SimStore, naming: Naming | None = None) -> Attachment:
        """Authenticate both ways and return the open attachment; ``naming`` is for networks that take no SUCI.

        Raises :class:`firstlight.errors.AccessError`: ``attach-refused``, ``attach-unreachable``,
        ``attach-timeout``, ``attach-malformed``, ``network-not-authentic``, ``separation-missing``, ``wrong-network``,
        ``resync-failed``, ``no-naming``; what ``naming`` raises; :class:`firstlight.errors.StoreError` from the store.
        """
        ...

    async def enter(self, own: TlsCredentials) -> Attachment:
        """Do so with a certificate; where one is open, it goes on under the new one without an end in between.

        Raises :class:`firstlight.errors.AccessError`: ``attach-refused``, ``attach-timeout``, ``attach-malformed``,
        ``network-not-authentic``.
        """
        ...


class Naming(Protocol):
    """Gets a device a one-time name from its operator (:mod:`firstlight.sim.naming`)."""

    async def name(self, concealed: Suci) -> OneTimeName:
        """Return a name for the subscription in a SUCI; raises :class:`firstlight.errors.TransportError`."""
        ...


class Names(Protocol):
    """Says whose the names in EAP identities are, and remembers where each was used."""

    async def imsi(self, name: str) -> str:
        """Return the IMSI behind a name; :class:`firstlight.errors.AccessError` (``unknown-subscriber``)."""
        ...

    async def used(self, name: str, where: str) -> None:
        """Note that a name has proven itself at a place; ``name-used`` if that was at another one before."""
        ...


class AuthenticationCentre(Protocol):
    """Holds the subscriptions' keys and makes vectors from them."""

    async def vector(self, imsi: str) -> Vector:
        """Return a vector whose SQN is durably used up.

        Raises :class:`firstlight.errors.AccessError`: ``unknown-subscriber``, ``subscription-suspended``,
        ``subscription-dead``.
        """
        ...

    async def resynchronise(self, imsi: str, rand: bytes, auts: bytes) -> None:
        """Take over the USIM's sequence number; ``bad-auts`` if AUTS is not the USIM's answer to ``rand``."""
        ...

    async def confirm(self, imsi: str, session: bytes) -> None:
        """Record durably that a subscription was used; at its first use its predecessor dies. Raises as ``vector``."""
        ...


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that a session moved: from the device, and to it."""

    sent: int
    received: int


class SessionLog(Protocol):
    """Remembers what became of sessions."""

    async def ended(self, session: bytes, traffic: Traffic) -> None:
        """Record that a session is over."""
        ...
