"""All that a device remembers, in its one directory; what stands there is whole at every moment.

Burnt in: ``birth.cbor``, ``identity.pem``, ``attestation.pem``. Written by the device, one atomic file each:

    view.cbor             :class:`Sight`: what it has verified, and the plan that it acts on; before message 1
    counters.cbor         :class:`Counters`: boots, and receipts; before one is sent
    grants/<id>.cbor      :class:`StoredGrant` with its keys; before it is used, and a SIM again before each RES
    operational/<k>.pem   a key that the device made for a certificate; before the request leaves
    grants/<id>.pem       the certificate chain of a grant, for TLS; follows from the grant

A grant's predecessor stays until the grant has been used successfully once, and the newest one of a party is never
forgotten: a device that cannot name it is taken for a clone.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar, Self, TypeVar

from firstlight.custody.file import AgreementKey, SigningKey
from firstlight.discovery.verify import Trust
from firstlight.encoding import Bytes16, Bytes32, Count, Range, Record, Size, Text, Uint, Uint32
from firstlight.errors import FirstlightError, MalformedError, StoreError
from firstlight.files import PRIVATE_FILE, private_directory, read_limited, remove, write_atomic
from firstlight.identity.birth import BirthCredential
from firstlight.onboarding.messages import Grant
from firstlight.plan.claims import DIGESTS, OpenedPlan, PartyKind, open_plan
from firstlight.sim.subscription import SoftSim

BIRTH, IDENTITY, ATTESTATION = "birth.cbor", "identity.pem", "attestation.pem"
VIEW, COUNTERS, GRANTS, OPERATIONAL, LOCK = "view.cbor", "counters.cbor", "grants", "operational", "lock"
MAX_BIRTH = 16_384
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{16}")
"""What :func:`firstlight.files.write_atomic` calls a file until it is whole."""
_Loaded = TypeVar("_Loaded")
KeyName = Annotated[str, Text(r"[0-9a-f]{16}")]


@dataclass(frozen=True, slots=True)
class Acted(Record):
    """What a device has discovered and acts on: the tenure that counts, its origin, and the plan with all claims.

    ``root`` is the plan's, ``prefix_length`` how many bits of the index say who owns it.
    """

    tenure: Uint32
    origin: Uint32
    revision: Uint
    root: Bytes32
    prefix_length: Annotated[int, Range(0, 32)]
    digests: Annotated[tuple[Bytes32, ...], Count(DIGESTS, DIGESTS)]
    claims: Annotated[tuple[Annotated[bytes, Size(1, 640)], ...], Count(DIGESTS, 1)]

    def plan(self) -> OpenedPlan:
        """Return the plan, opened and checked; :class:`ProofError`, :class:`MalformedError`."""
        return open_plan(self.root, self.digests, self.claims)


@dataclass(frozen=True, slots=True)
class Sight(Record):
    """What a device has verified of the ledger, and what it acts on if it has found its owner's plan."""

    trust: Trust
    acted: Acted | None


@dataclass(frozen=True, slots=True)
class Counters(Record):
    """How often the device has started, and the counter of its last receipt."""

    boots: Uint
    receipts: Uint


@dataclass(frozen=True, slots=True)
class StoredGrant(Record):
    """A grant as it came, from whom and under which origin, with what makes it usable.

    ``number`` rises with every grant. ``sim`` is the USIM of a subscription, ``key`` names the operational key of a
    certificate.
    """

    LIMIT: ClassVar[int] = 32_768

    number: Uint
    party: Bytes16
    kind: PartyKind
    origin: Uint32
    data: Annotated[bytes, Size(1, Grant.LIMIT)]
    sim: SoftSim | None = field(repr=False)
    key: KeyName | None

    @property
    def grant(self) -> Grant:
        """The grant itself."""
        return Grant.decode(self.data)


class Memory:
    """One device's directory, which it has to itself; close it in the end.

    Raises :class:`StoreError`: those of :mod:`firstlight.files`, ``bad-key``, ``memory-damaged``, ``wrong-keys`` (the
    keys are not those of the birth credential), ``device-busy`` (another process runs this device).
    """

    def __init__(self, directory: Path, lock: int) -> None:
        """Load what is there; use :meth:`open`."""
        self.directory = directory
        self._lock = lock
        self.birth = _load(directory / BIRTH, BirthCredential.decode, MAX_BIRTH)
        self.identity = AgreementKey.load(directory / IDENTITY)
        self.attestation = SigningKey.load(directory / ATTESTATION)
        if (self.identity.public, self.attestation.public) != (self.birth.identity, self.birth.attestation):
            raise StoreError("wrong-keys", f"the keys in {directory} are not those of its birth credential")
        first = Sight(Trust.at_birth(self.birth.chain, self.birth.root), None)
        self.sight = _load(directory / VIEW, Sight.decode, Sight.LIMIT, first)
        self.counters = _load(directory / COUNTERS, Counters.decode, Counters.LIMIT, Counters(0, 0))
        self._operational = private_directory(directory / OPERATIONAL)
        grants = private_directory(directory / GRANTS)
        for place in (directory, grants, self._operational):
            _sweep(place)
        self.grants = Grants(grants, self._operational)

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Load the device in ``directory`` and keep everybody else out."""
        lock = _lock(directory / LOCK)
        try:
            return cls(directory, lock)
        except FirstlightError:
            os.close(lock)
            raise

    def close(self) -> None:
        """Let others in."""
        os.close(self._lock)

    def remember(self, trust: Trust, acted: Acted | None) -> None:
        """Store what was verified, durably; returns when it is on disk."""
        sight = Sight(trust, acted)
        if sight != self.sight:
            write_atomic(self.directory / VIEW, sight.encode())
            self.sight = sight

    def start(self) -> int:
        """Count one more start and return its number."""
        self._count(replace(self.counters, boots=self.counters.boots + 1))
        return self.counters.boots

    def next_receipt(self) -> int:
        """Return the counter of one more receipt, which is used up from now on."""
        self._count(replace(self.counters, receipts=self.counters.receipts + 1))
        return self.counters.receipts

    def _count(self, counters: Counters) -> None:
        write_atomic(self.directory / COUNTERS, counters.encode())
        self.counters = counters

    def operational_key(self) -> tuple[str, SigningKey]:
        """Return a key of the device's own that no grant is for, and its name: one made before, or a new one."""
        taken = self.grants.keys()
        for path in sorted(self._operational.glob("*.pem")):
            if path.stem not in taken:
                return path.stem, SigningKey.load(path)
        name = os.urandom(8).hex()
        return name, SigningKey.create(self._operational / f"{name}.pem")

    def key_file(self, name: str) -> Path:
        """Return where the operational key of that name is."""
        return self._operational / f"{name}.pem"


class Grants:
    """The grants that a device has stored."""

    def __init__(self, directory: Path, operational: Path) -> None:
        """Load those in ``directory``; the keys of certificates are in ``operational``."""
        self._directory = directory
        self._operational = operational
        self._all = {path.stem: _load(path, StoredGrant.decode, StoredGrant.LIMIT) for path in directory.glob("*.cbor")}

    def keys(self) -> set[str]:
        """Return the names of operational keys that a grant is for."""
        return {one.key for one in self._all.values() if one.key is not None}

    def count(self, kind: PartyKind) -> int:
        """Return how many grants of a kind there are."""
        return sum(one.kind is kind for one in self._all.values())

    def of(self, party: bytes, kind: PartyKind, origin: int) -> list[StoredGrant]:
        """Return the grants from a party under one origin, the newest first."""
        found = [one for one in self._all.values() if (one.party, one.kind, one.origin) == (party, kind, origin)]
        return sorted(found, key=lambda one: one.number, reverse=True)

    def newest(self, party: bytes, kind: PartyKind, origin: int) -> bytes | None:
        """Return the id of the newest of them."""
        found = self.of(party, kind, origin)
        return found[0].grant.id if found else None

    def add(
        self, grant: Grant, *, party: bytes, kind: PartyKind, origin: int, sim: SoftSim | None, key: str | None
    ) -> StoredGrant:
        """Store a new grant, durably; of its predecessors the oldest stays, which is the one that worked last."""
        number = max((one.number for one in self._all.values()), default=0) + 1
        stored = StoredGrant(number, party, kind, origin, grant.encode(), sim, key)
        earlier = self.of(party, kind, origin)
        self.save(stored)
        for one in earlier[:-1]:
            self._forget(one)
        return stored

    def save(self, stored: StoredGrant) -> None:
        """Write a grant as it is now, durably."""
        name = stored.grant.id.hex()
        write_atomic(self._directory / f"{name}.cbor", stored.encode())
        self._all[name] = stored

    def worked(self, stored: StoredGrant) -> None:
        """Forget what a grant that has been used successfully replaces: a network's all others of its kind."""
        for one in list(self._all.values()):
            replaced = one.kind is PartyKind.NETWORK or one.party == stored.party
            if one.kind is stored.kind and replaced and one.number < stored.number:
                self._forget(one)

    def chain_file(self, stored: StoredGrant, pem: Callable[[], bytes]) -> Path:
        """Return the file with the certificate chain of a grant; ``pem`` makes it if it is not there."""
        path = self._directory / f"{stored.grant.id.hex()}.pem"
        if not path.exists():
            write_atomic(path, pem())
        return path

    def _forget(self, stored: StoredGrant) -> None:
        """Remove a grant and what belongs to it, itself last: what a crash interrupts is done again the next time."""
        name = stored.grant.id.hex()
        if stored.key is not None:
            remove(self._operational / f"{stored.key}.pem")
        remove(self._directory / f"{name}.pem")
        remove(self._directory / f"{name}.cbor")
        del self._all[name]


class GrantedSim:
    """The USIM of a stored grant (:class:`firstlight.access.ports.SimStore`)."""

    def __init__(self, grants: Grants, stored: StoredGrant) -> None:
        """Keep the USIM where the grant is."""
        self._grants = grants
        self._stored = stored

    def load(self) -> SoftSim:
        """Return the USIM; :class:`StoreError` (``memory-damaged``) if the grant is not for one."""
        if self._stored.sim is None:
            raise StoreError("memory-damaged", "a grant of a subscription without its USIM")
        return self._stored.sim

    def save(self, sim: SoftSim) -> None:
        """Replace the USIM; returns when it is on disk."""
        self._stored = replace(self._stored, sim=sim)
        self._grants.save(self._stored)


def _load(path: Path, decode: Callable[[bytes], _Loaded], limit: int, default: _Loaded | None = None) -> _Loaded:
    if default is not None and not path.exists():
        return default
    try:
        return decode(read_limited(path, limit, private=True))
    except MalformedError as error:
        raise StoreError("memory-damaged", f"{path}: {error.code}") from error


def _sweep(directory: Path) -> None:
    """Remove what a crash left of writes that did not come to their end: it may hold keys."""
    for path in directory.glob(".*"):
        if _UNFINISHED.fullmatch(path.name):
            remove(path)


def _lock(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    except OSError as error:
        raise StoreError("file-not-written", f"{path}: {error.strerror or error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StoreError("device-busy", f"another process runs the device in {path.parent}") from error
    return descriptor
