"""Exchanges whose message 3 came together: each decided by itself, under one head, in one durable commit.

What costs the same for one and for many, a look at the ledger and a disk that has written, is shared. Nothing else is:
what fails for one of them fails for that one alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from firstlight.errors import StoreError
from firstlight.onboarding.party import Authenticated, Party, Reply, concluded
from firstlight.onboarding.ports import Answered, Entry, Facts
from firstlight.onboarding.token import KeyRing

Outcome = Reply | StoreError
"""A reply, or what the party's own store raised about that one: then nothing is sent."""
_T = TypeVar("_T")


def handle_all(party: Party, requests: Sequence[bytes], *, ring: KeyRing, now_ns: int) -> list[Outcome]:
    """Answer requests, each as :meth:`Party.handle` does, in their order."""
    received = [_or_error(partial(party.receive, request, ring=ring, now_ns=now_ns)) for request in requests]
    asked = [one for one in received if isinstance(one, Authenticated)]
    settled = iter(_settle_all(party, asked, now_ns) if asked else ())
    return [next(settled) if isinstance(one, Authenticated) else one for one in received]


@dataclass(frozen=True, slots=True)
class _Case:
    """One exchange: what was asked, the ledger's facts about it, and what is proposed for the commit."""

    party: Party
    asked: Authenticated
    facts: Facts | None
    now_ns: int

    def propose(self) -> Reply | Entry:
        return self.party.propose(self.asked, self.facts, now_ns=self.now_ns)

    def settle(self) -> Reply:
        return self.party.settle(self.asked, self.facts, now_ns=self.now_ns)


def _settle_all(party: Party, asked: Sequence[Authenticated], now_ns: int) -> list[Outcome]:
    facts = party.facts_of([one.claim for one in asked])
    cases = [_Case(party, *both, now_ns) for both in zip(asked, facts, strict=True)]
    proposed = [_or_error(case.propose) for case in cases]
    counted = iter(_counted(party, [one for one in proposed if isinstance(one, Entry)]))
    return [
        _concluded(case, one, next(counted)) if isinstance(one, Entry) else one
        for case, one in zip(cases, proposed, strict=True)
    ]


def _counted(party: Party, entries: Sequence[Entry]) -> Sequence[Answered | None]:
    """Commit all of it or nothing; where that fails, each is settled by itself, to fail or not."""
    try:
        return party.commit_all(entries) if entries else ()
    except StoreError:
        return [None] * len(entries)


def _concluded(case: _Case, proposed: Entry, counted: Answered | None) -> Outcome:
    if counted is not None:
        return concluded(case.asked, proposed, counted)
    return _or_error(case.settle)


def _or_error(work: Callable[[], _T]) -> _T | StoreError:
    try:
        return work()
    except StoreError as error:
        return error
