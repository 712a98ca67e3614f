"""The port behind which a service's MQTT broker stands, whichever it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a broker listens."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Published:
    """A message that the broker accepted: the certificate name of the client, and when, in Unix nanoseconds."""

    name: str
    topic: str
    payload: bytes
    time_ns: int


Kept = Callable[[], None]
"""Says, from any thread, that a message will not be lost any more."""


@dataclass(frozen=True, slots=True)
class BrokerIdentity:
    """What a broker proves itself with: its certificate and key (PEM files), and the clients' authority (DER)."""

    certificate: Path
    key: Path
    authority: bytes


class ServiceBroker(Protocol):
    """A broker with mutual TLS 1.3 in which each client has its own topics.

    A client is named by the common name of its certificate, publishes and subscribes under ``devices/<name>/`` alone
    (``enrolment.topics``), and is out as soon as its certificate stands on the revocation list.
    """

    async def start(self) -> None:
        """Listen; :class:`firstlight.errors.AccessError` (``broker-not-started``) if that is not possible."""
        ...

    async def stop(self) -> None:
        """End every connection and stop listening."""
        ...

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens, with the port that the system chose; ``broker-not-started`` before :meth:`start`."""
        ...

    def messages(self, callback: Callable[[Published, Kept], None]) -> None:
        """Call ``callback`` with every message after the broker has accepted it; before :meth:`start`.

        The client is told that its message has arrived once the callback has called what it was given with it.
        """
        ...

    async def reload_crl(self, crl: bytes) -> None:
        """Use this DER revocation list from now on, and drop whom it revokes.

        Errors as :func:`firstlight.enrolment.issue.crl_serials`.
        """
        ...

    async def disconnect(self, name: str) -> bool:
        """Drop the client ``name``; tell whether it was connected."""
        ...
