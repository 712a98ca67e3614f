"""When a grant is renewed: in good time before it ends, and again after a failure until it does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from firstlight.errors import ConfigError, FirstlightError, StoreError
from firstlight.roles.device.memory import StoredGrant
from firstlight.roles.device.pace import Pace, changed, leaving
from firstlight.roles.device.unit import Unit

_T = TypeVar("_T")


class Renewal:
    """The renewal of one grant that is in use.

    A failure leaves the grant in use: a clone alarm, a party that cannot be reached or a gateway that is silent ends
    nothing before the grant itself ends.
    """

    def __init__(self, unit: Unit, stored: StoredGrant) -> None:
        """Renew ``stored`` when that is due."""
        self._unit = unit
        self._stored = stored
        self._pace = Pace(unit.tools.random)
        self._not_before = 0.0

    def due(self) -> bool:
        """Say whether to renew now."""
        return self._unit.until_renewal(self._stored) <= 0 and self._unit.clock.seconds >= self._not_before

    def pause(self) -> float:
        """Return for how many seconds there is nothing to do: until it is due, or until the grant ends."""
        until = max(self._unit.until_renewal(self._stored), self._not_before - self._unit.clock.seconds)
        return max(0.0, min(until, self._unit.seconds_left(self._stored)))

    async def attempt(self, renew: Callable[[], Awaitable[_T]]) -> _T | None:
        """Try; return None if it is to be tried again later.

        Raises what means that the device cannot go on like this: its attachment is gone, its tenure or plan has
        changed, or its directory is of no use.
        """
        try:
            return await renew()
        except (StoreError, ConfigError):
            raise
        except FirstlightError as error:
            if changed(error) or leaving(error):
                raise
            self._unit.tools.log.refusal(error, step="renewal", party=self._stored.party)
            wait = self._pace.after(error)
            lifetime = self._stored.grant.expires - self._stored.grant.issued_at
            self._not_before = self._unit.clock.seconds + max(1.0, min(wait, lifetime / 20))
            return None
