"""When grants end: with their time, with the tenure under which they were given, with what they rest upon.

A device that was sold on, retired or frozen keeps no credential of its old owner's choice, one whose firmware was
revoked none at all: the party follows the ledger by itself, whether or not the device ever comes back. Under a new
plan of the same owner only the device can show that the party is still chosen; it has a while to do so.
"""

from __future__ import annotations

from firstlight.encoding import Record
from firstlight.errors import FirstlightError, ProofError
from firstlight.ledger.records import Party, PartyStatus, Reference, ReferenceStatus, TenureState
from firstlight.ledger.tenure import Standing, counting
from firstlight.logs import Log
from firstlight.ports import Clock
from firstlight.roles.party.view import Head, PartyView
from firstlight.sealing.inquiry import Ending
from firstlight.stores.exchanges import ExchangeStore, GrantState, StoredGrant

SECOND = 1_000_000_000
_CONDITIONS = {TenureState.FROZEN: Ending.FROZEN, TenureState.RETIRED: Ending.RETIRED}
_TENURE_OVER = (Ending.SOLD, Ending.FROZEN, Ending.RETIRED)
_CODES = {
    Ending.EXPIRED: "grant-expired",
    Ending.PLAN_CHANGED: "plan-changed",
    Ending.APPRAISAL_OVER: "appraisal-over",
    **dict.fromkeys(_TENURE_OVER, "tenure-over"),
}
"""What the log says of each."""


class Leases:
    """Ends what must end; call :meth:`keep` from time to time, from any one thread."""

    def __init__(self, exchanges: ExchangeStore, view: PartyView, *, clock: Clock, log: Log, grace: int) -> None:
        """Look after the grants in ``exchanges``, by ``view``; devices follow a new plan within ``grace`` seconds."""
        self._exchanges = exchanges
        self._view = view
        self._clock = clock
        self._log = log
        self._grace = grace
        self._followed: tuple[int, frozenset[bytes]] = (0, frozenset())
        """The height that was looked at last, and which grants were looked at there."""
        self._replanned: dict[bytes, int] = {}
        """When it was first seen, for grants given under another plan than the one that is in force."""

    def keep(self) -> None:
        """End the grants whose time or tenure is over, and forget old exchanges.

        Where the ledger is out of reach, tenures are looked at the next time. Raises
        :class:`firstlight.errors.StoreError`.
        """
        now_ns = self._clock.now()
        live = self._exchanges.grants(GrantState.PENDING, GrantState.CONFIRMED)
        self._end(Ending.EXPIRED, [grant for grant in live if grant.expires <= now_ns // SECOND])
        self._exchanges.prune(now_ns)
        if not live:
            return
        try:
            head = self._view.fresh()
            seen = (head.view.height, frozenset(grant.id for grant in live))
            if seen != self._followed:
                self._follow(head, live, now_ns // SECOND)
                self._followed = seen
            self._end(Ending.PLAN_CHANGED, [grant for grant in live if self._overdue(grant, now_ns // SECOND)])
        except FirstlightError as error:
            self._log.refusal(error, step="leases")

    def _follow(self, head: Head, live: tuple[StoredGrant, ...], now: int) -> None:
        """End what a new head puts an end to, and note which grants are of another plan than the one in force."""
        standings = {grant.id: self._standing(head, grant) for grant in live}
        for why in _TENURE_OVER:
            self._end(why, [grant for grant in live if standings[grant.id] is why])
        bases = {grant.basis for grant in live if grant.basis}
        fallen = {basis for basis in bases if not self._holds(head, self._exchanges.basis(basis))}
        self._end(Ending.APPRAISAL_OVER, [grant for grant in live if grant.basis in fallen])
        replanned = [grant.id for grant in live if _replanned(grant, standings[grant.id])]
        self._replanned = {one: self._replanned.get(one, now) for one in replanned}

    def _standing(self, head: Head, grant: StoredGrant) -> Standing | Ending:
        """Return how the device stands, or why its grant is over: it is no active one of the owner that it was for."""
        owned = self._view.owned(head, grant.batch, grant.index)
        try:
            standing = counting(owned.number, owned.tenures, head.view.header_time)
        except ProofError:
            return Ending.SOLD
        if standing.origin != grant.origin:
            return Ending.SOLD
        return standing if standing.state is TenureState.ACTIVE else _CONDITIONS.get(standing.state, Ending.SOLD)

    def _holds(self, head: Head, names: tuple[str, ...]) -> bool:
        """Say whether the records that an appraisal rested upon still say what they said."""
        self._view.prove(head, names)
        return all(_counts(head.records[name]) for name in names)

    def _overdue(self, grant: StoredGrant, now: int) -> bool:
        """Say whether a device has had its time to follow a new plan: a half to all of it, not all devices at once."""
        seen = self._replanned.get(grant.id)
        return seen is not None and now - seen >= self._grace * (256 + grant.id[0]) // 512

    def _end(self, why: Ending, grants: list[StoredGrant]) -> None:
        ended = self._exchanges.end([grant.id for grant in grants], why, self._clock.now()) if grants else ()
        if ended:
            self._log.info(_CODES[why], count=len(ended))


def _replanned(grant: StoredGrant, standing: Standing | Ending) -> bool:
    if isinstance(standing, Ending) or grant.tenure == 0:
        return False
    return (standing.number, standing.plan_revision) != (grant.tenure, grant.revision)


def _counts(record: Record | None) -> bool:
    """Say whether a record speaks for what rests upon it: a live set, an active issuer, no revocation."""
    if isinstance(record, Reference):
        return record.status is ReferenceStatus.LIVE
    if isinstance(record, Party):
        return record.status is PartyStatus.ACTIVE
    return record is None
