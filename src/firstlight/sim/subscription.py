"""A subscription as both sides hold it: the operator's record, and the device's soft USIM.

K and OPc never travel: both sides take them from the EDHOC exchange in which the grant was made
(:func:`firstlight.onboarding.messages.subscription_keys`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Annotated

from firstlight.encoding import Bytes16, Record, Text, Uri
from firstlight.errors import MalformedError
from firstlight.ports import Random
from firstlight.sim.aka import Sequence, Sqn
from firstlight.sim.suci import HomeNetwork

Imsi = Annotated[str, Text(r"[0-9]{14,15}")]
NetworkName = Annotated[str, Text(r"[A-Za-z0-9][A-Za-z0-9:.-]{0,63}")]
"""The name that AKA' binds keys to: "WLAN", or "5G:…" for a serving network (TS 24.302 §8.1.1)."""


class SubscriptionStatus(IntEnum):
    """Where a subscription stands."""

    PENDING = 1
    """Granted, never used."""
    ACTIVE = 2
    """Used successfully at least once."""
    SUSPENDED = 3
    """Switched off; may come back."""
    DEAD = 4
    """Replaced, or ended with its tenure; for good."""


@dataclass(frozen=True, slots=True)
class Credentials(Record):
    """SUPI (an IMSI), K and OPc."""

    imsi: Imsi = field(repr=False)
    k: Bytes16 = field(repr=False)
    opc: Bytes16 = field(repr=False)


@dataclass(frozen=True, slots=True)
class Subscription(Record):
    """The operator's record. ``slot`` is whatever one device is for this operator; ``grant`` the id of the grant."""

    credentials: Credentials
    sqn: Sqn
    status: SubscriptionStatus
    slot: Bytes16
    grant: Bytes16


@dataclass(frozen=True, slots=True)
class Subscriber:
    """What a register outside should know of an IMSI; ``credentials`` are None for one that has ended."""

    imsi: str = field(repr=False)
    credentials: Credentials | None
    sqn: int
    suspended: bool


@dataclass(frozen=True, slots=True)
class SimGrant(Record):
    """What an operator tells a device in a grant of a SIM: nothing in it is secret but the IMSI."""

    LIMIT = 512

    imsi: Imsi = field(repr=False)
    home: HomeNetwork
    network: NetworkName
    access: Uri


@dataclass(frozen=True, slots=True)
class SoftSim(Record):
    """The soft USIM, all that it has: credentials, home network, network name and sequence numbers."""

    LIMIT = 1024

    credentials: Credentials
    home: HomeNetwork
    network: NetworkName
    access: Uri
    sequence: Sequence

    @classmethod
    def from_grant(cls, grant: SimGrant, credentials: Credentials) -> SoftSim:
        """Return a new USIM; :class:`MalformedError` (``foreign-imsi``) if the grant is for other credentials."""
        if grant.imsi != credentials.imsi or not grant.imsi.startswith(grant.home.mcc + grant.home.mnc):
            raise MalformedError("foreign-imsi", "grant, credentials and home network do not agree")
        return cls(credentials, grant.home, grant.network, grant.access, Sequence.fresh())


def draw_imsi(home: HomeNetwork, random: Random) -> str:
    """Return a random 15-digit IMSI of a home network; the caller makes sure that it is unused."""
    plmn = home.mcc + home.mnc
    digits = 15 - len(plmn)
    limit = 10**digits
    while True:
        drawn = int.from_bytes(random.bytes(5)) & (2**34 - 1)
        if drawn < limit * (2**34 // limit):
            return plmn + str(drawn % limit).zfill(digits)
