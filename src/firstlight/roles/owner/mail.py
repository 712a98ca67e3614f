"""Leaving sealed plans at the gateways, and beginning to watch for the receipts that will follow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from firstlight.encoding import Record, Uint, Uint32
from firstlight.files import read_limited, write_atomic
from firstlight.identity.birth import compressed
from firstlight.identity.manifest import Entry, Manifest
from firstlight.plan.claims import Plan
from firstlight.ports import Signer
from firstlight.roles.ledger_client import Http
from firstlight.roles.survey import Region
from firstlight.roles.workplace import Workplace
from firstlight.sealing.deposit import PART, DepositEntry, DepositTarget, sign_deposits
from firstlight.sealing.envelope import EnvelopeContent, seal_envelope
from firstlight.sealing.locator import mailbox_locator, receipt_locator
from firstlight.stores.fleet import WATCHED, Deployed, FleetStore
from firstlight.transports.client import CBOR, RemoteError
from firstlight.trees.ownership import Selection

DATABASE = "owner.sqlite"
PASSING = frozenset({"revision-not-current", "unknown-tenure", "tenure-missing", "unknown-batch"})
"""What a gateway may say that has not seen yet what we have just done."""
ATTEMPTS = 40
PAUSE = 0.25
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Job(Record):
    """How many devices of a deployment have their envelopes, for which tenure and plan revision."""

    tenure: Uint32
    revision: Uint
    left: Uint32


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is left for whom: the plan, for ``devices`` of a tenure and plan revision, which lie in ``regions``."""

    batch: bytes
    origin: int
    tenure: int
    revision: int
    plan: Plan
    devices: Selection
    regions: Sequence[Region]


def open_fleet(state_dir: Path) -> FleetStore:
    """Open the database of an owner's fleet; :class:`StoreError`."""
    return FleetStore.open(state_dir / DATABASE)


def leave(
    place: Workplace, parcel: Parcel, sources: tuple[Manifest, Signer], job_file: Path, progress: Progress
) -> None:
    """Seal the plan to each device and deposit it at every gateway; ``sources`` are manifest and the tenure's key.

    What an interrupted run has left is not left again: ``job_file`` says how far it got. Raises :class:`StoreError`,
    and :class:`TransportError` with a gateway's code if it refuses.
    """
    manifest, signer = sources
    done = _done(job_file, parcel)
    progress(done * len(place.gateways))
    sealer = _Sealer(place.chain, parcel)
    indices = islice(parcel.devices.indices(), done, None)
    fleet = open_fleet(place.directory)
    try:
        with place.web() as http:
            while part := [manifest.entry(index) for index in islice(indices, WATCHED)]:
                fleet.deploy(parcel.batch, parcel.tenure, parcel.origin, _watched(part, place.gateways))
                for gateway in place.gateways:
                    target = DepositTarget(place.chain, gateway, parcel.batch, parcel.tenure, parcel.revision)
                    for at, deposit in enumerate(sign_deposits(target, sealer.entries(part, gateway), signer)):
                        _post(http, f"{gateway}/v1/deposits", deposit)
                        progress(min(PART, len(part) - PART * at))
                done += len(part)
                write_atomic(job_file, Job(parcel.tenure, parcel.revision, done).encode())
    finally:
        fleet.close()


def _done(job_file: Path, parcel: Parcel) -> int:
    if not job_file.exists():
        return 0
    job = Job.decode(read_limited(job_file, 256))
    return job.left if (job.tenure, job.revision) == (parcel.tenure, parcel.revision) else 0


def _watched(part: Sequence[Entry], gateways: Sequence[str]) -> Iterator[Deployed]:
    for entry in part:
        locators = {gateway: receipt_locator(entry.mailbox, gateway) for gateway in gateways}
        yield Deployed(entry.index, compressed(entry.attestation), locators)


class _Sealer:
    """Seals one plan; devices that one prefix length covers share the plaintext."""

    def __init__(self, chain: str, parcel: Parcel) -> None:
        self._chain = chain
        self._parcel = parcel
        self._padded: dict[int, bytes] = {}

    def entries(self, part: Sequence[Entry], gateway: str) -> Iterator[DepositEntry]:
        regions = iter(self._parcel.regions)
        region = next(regions)
        for entry in part:
            while entry.index >= region.start + region.count:
                region = next(regions)
            locator = mailbox_locator(entry.mailbox, gateway)
            padded = self._content(region.prefix_length)
            sealed = seal_envelope(padded, identity=entry.identity, chain=self._chain, locator=locator)
            yield DepositEntry(locator, sealed)

    def _content(self, prefix_length: int) -> bytes:
        if prefix_length not in self._padded:
            parcel = self._parcel
            content = EnvelopeContent(
                parcel.tenure, parcel.revision, prefix_length, parcel.plan.digests, parcel.plan.claims()
            )
            self._padded[prefix_length] = content.padded()
        return self._padded[prefix_length]


def _post(http: Http, url: str, deposit: bytes, sleep: Callable[[float], None] = time.sleep) -> None:
    for left in reversed(range(ATTEMPTS)):
        try:
            http.request("POST", url, body=deposit, content_type=CBOR, retries=3)
        except RemoteError as error:
            if error.code not in PASSING or not left:
                raise
            sleep(PAUSE)
        else:
            return
