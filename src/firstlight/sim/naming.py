"""One-time names: how a SUCI comes before an attach whose protocol knows IMSIs only.

EAP-AKA' carries an identity of some digits in the clear, and the EAP servers that others wrote know no SUCI. So the
device sends its SUCI to its operator first, at :data:`PATH` through a gateway, and gets a name for one attach, with
which it then proves itself. An observer sees both and learns nothing that another attach would show again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from firstlight.encoding import Range, Record, Text
from firstlight.ports import Random

PATH = "/v1/names"
DIGITS = 15
"""As many as an IMSI has: hosts that take IMSIs take no more than 20."""
SECONDS = 60
"""For how long a name may be used for the first time."""


@dataclass(frozen=True, slots=True)
class OneTimeName(Record):
    """What an operator answers to any SUCI that it can open: whether there is such a subscription, it does not say."""

    name: Annotated[str, Text(r"[0-9]{15}")] = field(repr=False)
    seconds: Annotated[int, Range(1, 3_600)]


def draw_name(random: Random) -> str:
    """Return a name that nobody can foresee; the caller makes sure that it is unused."""
    limit = 10**DIGITS
    while True:
        drawn = int.from_bytes(random.bytes(7)) & (2**50 - 1)
        if drawn < limit:
            return str(drawn).zfill(DIGITS)


def eap_identity(name: str, mcc: str, mnc: str, *, prime: bool = True) -> str:
    """Return the EAP identity of a name, with EAP-AKA' or else EAP-AKA (TS 23.003 §19.3.2)."""
    return f"{'6' if prime else '0'}{name}@wlan.mnc{mnc:0>3}.mcc{mcc}.3gppnetwork.org"
