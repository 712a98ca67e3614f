"""Asking MNO and SPs what has become of an owner's devices, and telling all of them that a clone alarm is over.

Everything that an owner has ordered stands in his directory, so he asks each party about each of its orders. Where one
of them cannot be reached the others are asked all the same; what is said twice counts once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from firstlight.custody.file import AgreementKey
from firstlight.errors import ConfigError, FirstlightError, MalformedError, StoreError, TransportError
from firstlight.files import read_limited
from firstlight.ledger.records import Party, Role
from firstlight.plan.claims import Plan
from firstlight.plan.order import MAX_ORDER, Order, parse_order
from firstlight.roles.holdings import DEPLOYMENTS, Holding, holdings, selection_of
from firstlight.roles.owner.deploy import MAX_PLAN, PLAN
from firstlight.roles.owner.orders import ORDERS
from firstlight.roles.survey import Guess, survey
from firstlight.roles.workplace import Workplace, plain_url
from firstlight.sealing.inquiry import (
    MAX_ANSWER,
    Answer,
    Asked,
    Clearance,
    Cleared,
    DeviceLine,
    Question,
    Told,
    open_answer,
    seal_inquiry,
    sign_inquiry,
)
from firstlight.trees.ownership import Selection

RETRIES = 3
SEALED = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class AtParty:
    """What one party says of one order, or the code of the error that kept it from saying anything."""

    order: Order
    role: str
    told: Told | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class ClearedAt:
    """For which devices one party has cleared an alarm, and the error that kept it from clearing all, if any."""

    party: bytes
    role: str
    indices: tuple[int, ...]
    error: str = ""


def ordered(state_dir: Path, holding: Holding | None = None) -> Iterator[Order]:
    """Return what was ordered, all of it or for one holding; :class:`StoreError`, :class:`MalformedError`."""
    for path in sorted((state_dir / ORDERS).glob("*.cose")):
        order = parse_order(read_limited(path, MAX_ORDER))
        if holding is None or (order.batch, order.origin) == (holding.batch, holding.origin):
            yield order


def at_parties(place: Workplace, holding: Holding | None = None, *, lines: bool = False) -> list[AtParty]:
    """Ask every party about every order (of one holding), and with ``lines`` about each device.

    What goes wrong at one party is its ``error``. Raises :class:`ProofError` and :class:`TransportError` where the
    ledger cannot be read, :class:`StoreError`, :class:`MalformedError`.
    """
    with _Asking(place) as asking:
        return [asking.about(order, lines=lines) for order in ordered(place.directory, holding)]


def clear(place: Workplace, holding: Holding, devices: Selection | None) -> list[ClearedAt]:
    """Tell every party in the plans of ``devices`` (None: all that are held) that their clone alarms are over.

    Errors as :func:`at_parties`; ``no-plan`` (:class:`ConfigError`) if none of them is deployed.
    """
    wanted = None if devices is None else frozenset(devices.indices())
    cleared: dict[bytes, ClearedAt] = {}
    with _Asking(place) as asking:
        serving = asking.serving(holding, devices)
        for order in ordered(place.directory, holding):
            if order.number not in serving:
                continue
            before = cleared.get(order.party) or ClearedAt(order.party, asking.role(order.party), ())
            cleared[order.party] = asking.clear(order, wanted, before)
    if not cleared:
        raise ConfigError("no-plan", "no plan is in force for these devices", hint="deploy one")
    return list(cleared.values())


class _Asking:
    """One round of questions; a context manager."""

    def __init__(self, place: Workplace) -> None:
        self._place = place
        self._stack = ExitStack()
        self._parties: dict[bytes, Party] = {}
        self._holdings: Mapping[tuple[bytes, int], Holding] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._ledger = stack.enter_context(self._place.ledger())
            self._http = stack.enter_context(self._place.web())
            self._holdings = {(one.batch, one.origin): one for one in holdings(self._place.directory)}
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def role(self, party: bytes) -> str:
        """Return as what a party is registered."""
        roles = self._party(party).roles
        return next((role.name.lower() for role in roles if role in (Role.MNO, Role.SP)), "")

    def serving(self, holding: Holding, devices: Selection | None) -> frozenset[bytes]:
        """Return the orders that stand in the plans which are in force for devices of a holding, as is proven."""
        wanted = devices or selection_of(holding.manifest().indices())
        found = survey(self._ledger, holding.batch, wanted, Guess(holding.origin, holding.origin))
        roots = {one.standing.plan for one in found.regions if one.standing.origin == holding.origin}
        files = sorted((holding.directory / DEPLOYMENTS).glob(f"*/{PLAN}"))
        plans = [Plan.decode(read_limited(path, MAX_PLAN, private=True)) for path in files]
        return frozenset(claim.order for plan in plans if plan.root in roots for claim in plan.parties)

    def about(self, order: Order, *, lines: bool) -> AtParty:
        """Ask about one order."""
        role = self.role(order.party)
        try:
            found = self._told(order, None)
            if lines:
                found = replace(found, lines=tuple(self._lines(order)))
        except FirstlightError as error:
            return AtParty(order, role, None, error.code)
        return AtParty(order, role, found)

    def clear(self, order: Order, wanted: frozenset[int] | None, before: ClearedAt) -> ClearedAt:
        """Clear what stands under one order; ``before`` is what was cleared at that party under others."""
        done = list(before.indices)
        try:
            found = self._told(order, None)
            standing = [(one.index, one.raised_ns) for one in found.alarms]
            if found.alarmed > len(standing):
                standing = [(line.index, line.alarm_ns) for line in self._lines(order) if line.alarm_ns]
            for index, raised_ns in standing:
                if (wanted is None or index in wanted) and self._cleared(order, index, raised_ns):
                    done.append(index)
        except FirstlightError as error:
            return replace(before, indices=tuple(done), error=error.code)
        return replace(before, indices=tuple(done))

    def _lines(self, order: Order) -> Iterator[DeviceLine]:
        start: int | None = 0
        while start is not None:
            page = self._told(order, start)
            yield from page.lines
            if page.following is not None and page.following <= start:
                raise TransportError("bad-response", "a party's answers go back")
            start = page.following

    def _told(self, order: Order, start: int | None) -> Told:
        random, reply = self._place.random, AgreementKey.generate()[0]
        question = Question(
            chain=order.chain,
            party=order.party,
            batch=order.batch,
            origin=order.origin,
            order=order.number,
            start=start,
            nonce=random.bytes(16),
            at=self._place.now(),
            reply=reply.public,
        )
        answer = self._ask("questions", question, reply)
        assert isinstance(answer, Told)
        return answer

    def _cleared(self, order: Order, index: int, raised_ns: int) -> bool:
        random, reply = self._place.random, AgreementKey.generate()[0]
        clearance = Clearance(
            chain=order.chain,
            party=order.party,
            batch=order.batch,
            origin=order.origin,
            index=index,
            raised_ns=raised_ns,
            nonce=random.bytes(16),
            at=self._place.now(),
            reply=reply.public,
        )
        answer = self._ask("clearances", clearance, reply)
        assert isinstance(answer, Cleared)
        return answer.stood

    def _ask(self, what: str, said: Question | Clearance, reply: AgreementKey) -> Answer:
        party, holding = self._party(said.party), self._holdings.get((said.batch, said.origin))
        if holding is None:
            raise StoreError("no-holding", "the holding that this was ordered for is not here")
        endpoint = next((uri for uri in party.endpoints if uri.startswith("http://")), None)
        if endpoint is None or party.agreement_key is None:
            raise ConfigError("no-endpoint", f"party {said.party.hex()} has no HTTP endpoint on the ledger")
        signed = sign_inquiry(said, holding.owner())
        sealed = seal_inquiry(signed, chain=said.chain, party=said.party, agreement=party.agreement_key)
        url = f"{plain_url(endpoint)}/v1/{what}"
        body = self._http.request("POST", url, body=sealed, content_type=SEALED, retries=RETRIES).body
        if len(body) > MAX_ANSWER:
            raise MalformedError("wrong-size", "more than any answer has")
        return open_answer(body, reply, asked=Asked(said, signed))

    def _party(self, party: bytes) -> Party:
        if party not in self._parties:
            self._parties[party] = self._ledger.party(party)
        return self._parties[party]
