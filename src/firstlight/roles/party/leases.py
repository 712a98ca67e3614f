"""When grants end: with their time, and with the tenure under which they were given.

A device that was sold on, retired or frozen keeps no credential of its old owner's choice: the party follows the
ledger by itself, whether or not the device ever comes back.
"""

from __future__ import annotations

from firstlight.errors import FirstlightError, ProofError
from firstlight.ledger.records import TenureState
from firstlight.ledger.tenure import counting
from firstlight.logs import Log
from firstlight.ports import Clock
from firstlight.roles.party.view import Head, PartyView
from firstlight.stores.exchanges import ExchangeStore, GrantState, StoredGrant

SECOND = 1_000_000_000


class Leases:
    """Ends what must end; call :meth:`keep` from time to time, from any one thread."""

    def __init__(self, exchanges: ExchangeStore, view: PartyView, *, clock: Clock, log: Log) -> None:
        """Look after the grants in ``exchanges``, by ``view``."""
        self._exchanges = exchanges
        self._view = view
        self._clock = clock
        self._log = log
        self._height = 0

    def keep(self) -> None:
        """End the grants whose time or tenure is over, and forget old exchanges.

        Where the ledger is out of reach, tenures are looked at the next time. Raises
        :class:`firstlight.errors.StoreError`.
        """
        now_ns = self._clock.now()
        live = self._exchanges.grants(GrantState.PENDING, GrantState.CONFIRMED)
        self._end("grant-expired", [grant for grant in live if grant.expires <= now_ns // SECOND])
        self._exchanges.prune(now_ns)
        if not live:
            return
        try:
            head = self._view.fresh()
            if head.view.height != self._height:
                self._end("tenure-over", [grant for grant in live if not self._stands(head, grant)])
                self._height = head.view.height
        except FirstlightError as error:
            self._log.refusal(error, step="leases")

    def _stands(self, head: Head, grant: StoredGrant) -> bool:
        """Say whether the device is still an active one of the owner under whom it was granted something."""
        owned = self._view.owned(head, grant.batch, grant.index)
        try:
            standing = counting(owned.number, owned.tenures, head.view.header_time)
        except ProofError:
            return False
        return standing.origin == grant.origin and standing.state is TenureState.ACTIVE

    def _end(self, code: str, grants: list[StoredGrant]) -> None:
        ended = self._exchanges.end([grant.id for grant in grants]) if grants else ()
        if ended:
            self._log.info(code, count=len(ended))
