"""Deploying a plan: sealed to every device, and committed to on the ledger.

    deployments/<id>/      id: the hash of what was asked for
        plan.cbor              the plan, secret
        job.cbor               for which tenure and plan revision, and how far it has got
        deploy.transaction     what is submitted

For a whole tenure the envelopes lie at the gateways, for the next plan revision, before the transaction makes it the
live one. A part of a tenure becomes a tenure of its own by the transaction, so there the envelopes follow it.
Interrupted and asked for again, a deployment goes on where it was.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from firstlight.encoding import encode
from firstlight.errors import ConfigError, ProofError
from firstlight.files import private_directory, read_limited, write_atomic
from firstlight.ledger.records import Tenure, tenure_name
from firstlight.ledger.transaction import Deploy, build
from firstlight.plan.claims import PartyKind, Plan, new_claim, new_plan
from firstlight.roles.holdings import DEPLOYMENTS, Holding, overlap, selection_of
from firstlight.roles.ledger_client import LedgerClient, Submitted, record_of
from firstlight.roles.owner.mail import Parcel, Progress, leave
from firstlight.roles.survey import Guess, Region, spans_of, survey
from firstlight.roles.trade import newest_tenure
from firstlight.roles.workplace import Workplace
from firstlight.trees.ownership import Selection

PLAN, JOB, TRANSACTION = "plan.cbor", "job.cbor", "deploy.transaction"
MAX_PLAN = 16_384


@dataclass(frozen=True, slots=True)
class Choice:
    """A party, and the number of the order under which it serves the devices."""

    party: bytes
    order: bytes


@dataclass(frozen=True, slots=True)
class Asked:
    """What to deploy: one network and services, for the ``tenure`` (None: the holding's own) or a part of it."""

    network: Choice
    services: tuple[Choice, ...]
    tenure: int | None = None
    selection: Selection | None = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is deployed now; ``submitted`` is nothing if it was so before."""

    batch: bytes
    tenure: int
    revision: int
    devices: int
    plan: bytes
    submitted: Submitted | None


def deploy(place: Workplace, holding: Holding, asked: Asked, progress: Progress) -> Deployment:
    """Deploy a plan.

    Raises :class:`ConfigError` (``no-gateway``, ``nothing-to-deploy``, ``not-held`` for selected devices that do not
    count as the tenure), :class:`ProofError` (of the plan: ``party-twice``, …; of the ledger), :class:`RuleError`, and
    :class:`TransportError` with a gateway's own code if it refuses.
    """
    if not place.gateways:
        raise ConfigError("no-gateway", "the settings name no gateway", hint="add one to gateways in owner.toml")
    with place.ledger() as ledger:
        return _Run(place, holding, asked, ledger, progress).go()


@dataclass(slots=True)
class _Run:
    """One run of a deployment."""

    place: Workplace
    holding: Holding
    asked: Asked
    ledger: LedgerClient
    progress: Progress

    @property
    def batch(self) -> bytes:
        return self.holding.batch

    @property
    def number(self) -> int:
        """The tenure that it is about."""
        return self.asked.tenure or self.holding.origin

    @property
    def directory(self) -> Path:
        asked = self.asked
        choices = [[one.party, one.order] for one in (asked.network, *asked.services)]
        packed = None if asked.selection is None else asked.selection.packed
        words = ["firstlight-deployment-1", self.batch, self.number, choices, packed, list(self.place.gateways)]
        return self.holding.directory / DEPLOYMENTS / hashlib.sha256(encode(words)).hexdigest()[:16]

    def go(self) -> Deployment:
        """Do it, or what is left of it."""
        plan = self._plan()
        if (self.directory / TRANSACTION).exists() and self.asked.selection is not None:
            return self._part(plan, self.asked.selection)
        chosen, regions = self._choose()
        standing = regions[0].standing
        if self.asked.selection is not None and chosen.count != standing.count:
            return self._part(plan, chosen)
        if standing.plan == plan.root:
            return Deployment(self.batch, self.number, standing.plan_revision, chosen.count, plan.root, None)
        return self._whole(plan, chosen, regions)

    def _whole(self, plan: Plan, chosen: Selection, regions: list[Region]) -> Deployment:
        revision = regions[0].standing.plan_revision + 1
        self._leave(Parcel(self.batch, self.holding.origin, self.number, revision, plan, chosen, regions))
        submitted = self.ledger.submit_kept(self.directory / TRANSACTION, lambda: self._transaction(plan, None))
        recorded = self._tenure(self.number)
        if (recorded.plan, recorded.plan_revision) != (plan.root, revision):
            raise ProofError("plan-differs", f"tenure {self.number} is at plan revision {recorded.plan_revision}")
        return Deployment(self.batch, self.number, revision, chosen.count, plan.root, submitted)

    def _part(self, plan: Plan, chosen: Selection) -> Deployment:
        submitted = self.ledger.submit_kept(self.directory / TRANSACTION, lambda: self._transaction(plan, chosen))
        number, tenure = newest_tenure(self.ledger, self.batch, lambda one: one.plan == plan.root)
        found = survey(self.ledger, self.batch, chosen, Guess(number, self.number))
        regions = [region for region in found.regions if region.standing.number == number]
        if sum(count for _, count in overlap(chosen, spans_of(regions))) != chosen.count:
            raise ProofError("plan-differs", f"tenure {number} does not hold all devices of this deployment")
        revision = tenure.plan_revision
        self._leave(Parcel(self.batch, self.holding.origin, number, revision, plan, chosen, regions))
        return Deployment(self.batch, number, revision, chosen.count, plan.root, submitted)

    def _plan(self) -> Plan:
        """Return the plan of this deployment, which is made and written down once."""
        path = private_directory(self.directory) / PLAN
        if path.exists():
            return Plan.decode(read_limited(path, MAX_PLAN, private=True))
        random = self.place.random
        claims = [new_claim(PartyKind.NETWORK, self.asked.network.party, self.asked.network.order, random)]
        claims += [new_claim(PartyKind.SERVICE, one.party, one.order, random) for one in self.asked.services]
        plan = new_plan(self.holding.receipts().public, claims, random)
        write_atomic(path, plan.encode())
        return plan

    def _choose(self) -> tuple[Selection, list[Region]]:
        """Return the devices to deploy, and the regions of the trie in which the tenure's devices lie."""
        wanted = self.asked.selection or selection_of(self.holding.manifest().indices())
        guess = Guess(self.number, self._tenure(self.number).previous or self.number)
        found = survey(self.ledger, self.batch, wanted, guess)
        regions = [one for one in found.regions if one.standing.number == self.number and not one.standing.offer]
        chosen = tuple(overlap(wanted, spans_of(regions)))
        if not chosen:
            raise ConfigError("nothing-to-deploy", f"no device counts as tenure {self.number}, free of any offer")
        selection = Selection.of(chosen)
        if self.asked.selection is not None and selection != self.asked.selection:
            raise ConfigError("not-held", f"some of these devices do not count as tenure {self.number}")
        return selection, regions

    def _leave(self, parcel: Parcel) -> None:
        sources = (self.holding.manifest(), self.holding.owner())
        leave(self.place, parcel, sources, self.directory / JOB, self.progress)

    def _transaction(self, plan: Plan, part: Selection | None) -> bytes:
        sequence = self._tenure(self.holding.origin).sequence + 1
        body = Deploy(self.batch, self.number, plan.root, part)
        return build(body, chain=self.place.chain, sequence=sequence, signer=self.holding.owner())

    def _tenure(self, number: int) -> Tenure:
        name = tenure_name(self.batch, number)
        return record_of(self.ledger.view(name), name, Tenure, "unknown-tenure")
