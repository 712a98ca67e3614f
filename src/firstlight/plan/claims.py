"""The plan: which network and which services an owner chose, as a salted commitment that opens piece by piece.

A plan is always sixteen digests, ascending: of one owner-profile claim, one network claim, up to fourteen
service claims, and decoys, which nobody can tell from the rest. Its root is the RFC 6962 root over the digests.
A party is shown its own claim and nothing more (:class:`PlanOpening`). Only devices see the profile claim: it
lists the digests of all *other* real claims, so that none can be dropped, and carries the owner's receipt key.

A claim's digest is SHA-256("firstlight-claim-1" ‖ its CBOR); the salt in it hides what it says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, ClassVar

from firstlight import p256
from firstlight.encoding import Bytes16, Bytes33, Count, Packed, Range, Record, Size, decode
from firstlight.errors import MalformedError, ProofError
from firstlight.ports import Random
from firstlight.trees import rfc6962

DIGESTS = 16
DEPTH = 4
MAX_SERVICES = DIGESTS - 2
MAX_CLAIM = 640
_LABEL = b"firstlight-claim-1"


class ClaimKind(IntEnum):
    """What a claim is about."""

    PROFILE = 0
    NETWORK = 1
    SERVICE = 2


class PartyKind(IntEnum):
    """What a party is chosen for; the same numbers as :class:`ClaimKind`."""

    NETWORK = 1
    SERVICE = 2


@dataclass(frozen=True, slots=True)
class ProfileClaim(Record):
    """The owner's profile: the receipt key (compressed), and the digests of all other real claims, ascending."""

    LIMIT: ClassVar[int] = MAX_CLAIM

    salt: Bytes16
    kind: Annotated[int, Range(0, 0)]
    receipt_key: Bytes33
    others: Annotated[tuple[bytes, ...], Packed(DIGESTS - 1, 1)]

    def digest(self) -> bytes:
        """Return this claim's digest (32 bytes)."""
        return claim_digest(self.encode())


@dataclass(frozen=True, slots=True)
class PartyClaim(Record):
    """One chosen party, and the number of the order under which it serves these devices."""

    LIMIT: ClassVar[int] = MAX_CLAIM

    salt: Bytes16
    kind: PartyKind
    party: Bytes16
    order: Bytes16

    def digest(self) -> bytes:
        """Return this claim's digest (32 bytes)."""
        return claim_digest(self.encode())


Claim = ProfileClaim | PartyClaim


@dataclass(frozen=True, slots=True)
class PlanOpening(Record):
    """What one party is shown: its claim, the position of its digest among the sixteen, and four hashes."""

    LIMIT: ClassVar[int] = 1024

    claim: Annotated[bytes, Size(1, MAX_CLAIM)]
    position: Annotated[int, Range(0, DIGESTS - 1)]
    path: Annotated[tuple[bytes, ...], Packed(DEPTH, DEPTH)]


@dataclass(frozen=True, slots=True)
class OpenedPlan:
    """A whole plan, as a device has checked it."""

    profile: ProfileClaim
    network: PartyClaim
    services: tuple[PartyClaim, ...]


@dataclass(frozen=True, slots=True)
class Plan(Record):
    """A plan as its owner keeps it: the digests and every real claim. It is secret; its root is not.

    Raises :class:`ProofError` (``unsorted-digests``).
    """

    digests: Annotated[tuple[bytes, ...], Packed(DIGESTS, DIGESTS)]
    profile: ProfileClaim
    parties: Annotated[tuple[PartyClaim, ...], Count(DIGESTS - 1, 1)]

    def __post_init__(self) -> None:
        """Check the order of the digests."""
        _check_order(self.digests)

    @property
    def root(self) -> bytes:
        """The plan root, as it stands in the tenure's record (32 bytes)."""
        return plan_root(self.digests)

    def claims(self) -> tuple[bytes, ...]:
        """Return the bytes of every real claim, in the order of their digests: what a device is shown."""
        real: list[Claim] = [self.profile, *self.parties]
        return tuple([claim.encode() for claim in sorted(real, key=lambda one: one.digest())])

    def opening(self, claim: PartyClaim) -> PlanOpening:
        """Return the opening that shows ``claim``; :class:`ProofError` (``foreign-claim``) if it is not in the plan."""
        return opening(self.digests, claim)


def claim_digest(claim: bytes) -> bytes:
    """Return the digest (32 bytes) of a claim's bytes."""
    return hashlib.sha256(_LABEL + claim).digest()


def plan_root(digests: Sequence[bytes]) -> bytes:
    """Return the RFC 6962 root over the digests as leaf data."""
    return rfc6962.root([rfc6962.leaf_hash(digest) for digest in digests])


def new_claim(kind: PartyKind, party: bytes, order: bytes, random: Random) -> PartyClaim:
    """Return a claim for ``party`` under ``order`` with a fresh salt."""
    return PartyClaim(random.bytes(16), kind, party, order)


def new_plan(receipt_key: bytes, parties: Sequence[PartyClaim], random: Random) -> Plan:
    """Return the plan for these parties, with a fresh profile claim and as many decoys as it takes.

    Raises :class:`ProofError`: ``no-network``, ``two-networks``, ``too-many-claims``, ``party-twice``;
    :class:`MalformedError` ``bad-point`` for a receipt key that is no key.
    """
    p256.load(receipt_key)
    _check_parties(parties)
    others = sorted(claim.digest() for claim in parties)
    if len(others) > DIGESTS - 1:
        raise ProofError("too-many-claims", f"at most {MAX_SERVICES} services")
    profile = ProfileClaim(random.bytes(16), int(ClaimKind.PROFILE), receipt_key, tuple(others))
    decoys = [random.bytes(32) for _ in range(DIGESTS - 1 - len(others))]
    return Plan(tuple(sorted([profile.digest(), *others, *decoys])), profile, tuple(parties))


def opening(digests: Sequence[bytes], claim: PartyClaim) -> PlanOpening:
    """Return the opening of ``claim`` among a plan's digests; :class:`ProofError` (``foreign-claim``)."""
    digest = claim.digest()
    if digest not in digests:
        raise ProofError("foreign-claim", "the claim is not in the plan")
    position = digests.index(digest)
    path = rfc6962.Tree([rfc6962.leaf_hash(one) for one in digests]).path(position)
    return PlanOpening(claim.encode(), position, path)


def open_claim(root: bytes, shown: PlanOpening) -> PartyClaim:
    """Return the claim that a party is shown, checked against the plan root of the tenure that counts.

    1. The path leads from the claim's digest at its position to ``root`` (``wrong-plan-root``);
    2. the claim is one for a party, not the owner's profile (``profile-shown``, MalformedError otherwise).
    Whether it names *this* party is for the caller to say. Raises :class:`ProofError`.
    """
    leaf = rfc6962.leaf_hash(claim_digest(shown.claim))
    if rfc6962.root_from_path(leaf, shown.position, DIGESTS, shown.path) != root:
        raise ProofError("wrong-plan-root", "the claim does not hash into the plan root")
    claim = parse_claim(shown.claim)
    if isinstance(claim, ProfileClaim):
        raise ProofError("profile-shown", "the owner's profile is for devices only")
    return claim


def open_plan(root: bytes, digests: Sequence[bytes], claims: Sequence[bytes]) -> OpenedPlan:
    """Return the plan that a device was sent, with proof that nothing was changed, added or dropped.

    1. Exactly sixteen digests (``wrong-digest-count``), ascending, none twice (``unsorted-digests``);
    2. they hash into ``root``, the plan root of the tenure that counts (``wrong-plan-root``);
    3. every claim shown parses (MalformedError), and its digest is among them (``foreign-claim``), none twice
       (``claim-twice``);
    4. exactly one of them is the owner's profile (``no-profile``, ``two-profiles``) with a receipt key that is a
       key (MalformedError ``bad-point``);
    5. the digests that the profile lists ascend (``unsorted-digests``) and are all among the sixteen
       (``foreign-digest``);
    6. every claim that the profile lists is shown (``claim-dropped``), and every claim shown is listed
       (``claim-unlisted``);
    7. exactly one is a network (``no-network``, ``two-networks``); no party stands twice for one kind
       (``party-twice``).

    Raises :class:`ProofError` where nothing else is said.
    """
    if len(digests) != DIGESTS:
        raise ProofError("wrong-digest-count", f"{len(digests)} digests, not {DIGESTS}")
    _check_order(digests)
    if plan_root(digests) != root:
        raise ProofError("wrong-plan-root", "the digests do not hash into the plan root")
    shown = _shown(digests, claims)
    profile = _profile(shown.values())
    p256.load(profile.receipt_key)
    _check_order(profile.others)
    if not set(profile.others) <= set(digests):
        raise ProofError("foreign-digest", "the profile lists a digest that is not in the plan")
    parties = {digest: claim for digest, claim in shown.items() if isinstance(claim, PartyClaim)}
    _check_listed(profile, parties)
    ordered = [parties[digest] for digest in profile.others]
    _check_parties(ordered)
    network = next(claim for claim in ordered if claim.kind is PartyKind.NETWORK)
    return OpenedPlan(profile, network, tuple(claim for claim in ordered if claim.kind is PartyKind.SERVICE))


@lru_cache(maxsize=256)
def parse_claim(data: bytes) -> Claim:
    """Parse a claim of either form; raises :class:`MalformedError`."""
    value = decode(data, limit=MAX_CLAIM)
    if type(value) is not list or len(value) != 4:
        raise MalformedError("wrong-shape", "a claim is an array of four")
    if value[1] == ClaimKind.PROFILE:
        return ProfileClaim.from_cbor(value)
    return PartyClaim.from_cbor(value)


def _check_order(digests: Sequence[bytes]) -> None:
    if any(left >= right for left, right in pairwise(digests)):
        raise ProofError("unsorted-digests", "digests do not ascend")


def _shown(digests: Sequence[bytes], claims: Sequence[bytes]) -> dict[bytes, Claim]:
    shown: dict[bytes, Claim] = {}
    for data in claims:
        digest = claim_digest(data)
        if digest not in digests:
            raise ProofError("foreign-claim", "a claim is not in the plan")
        if digest in shown:
            raise ProofError("claim-twice", "a claim is shown twice")
        shown[digest] = parse_claim(data)
    return shown


def _profile(claims: Iterable[Claim]) -> ProfileClaim:
    profiles = [claim for claim in claims if isinstance(claim, ProfileClaim)]
    if not profiles:
        raise ProofError("no-profile", "the owner's profile is not shown")
    if len(profiles) > 1:
        raise ProofError("two-profiles", "more than one owner's profile")
    return profiles[0]


def _check_listed(profile: ProfileClaim, parties: dict[bytes, PartyClaim]) -> None:
    listed = set(profile.others)
    if listed - set(parties):
        raise ProofError("claim-dropped", "a claim that the profile lists is not shown")
    if set(parties) - listed:
        raise ProofError("claim-unlisted", "a claim is shown that the profile does not list")


def _check_parties(parties: Sequence[PartyClaim]) -> None:
    networks = [claim for claim in parties if claim.kind is PartyKind.NETWORK]
    if not networks:
        raise ProofError("no-network", "no network is chosen")
    if len(networks) > 1:
        raise ProofError("two-networks", "more than one network is chosen")
    if len({(claim.kind, claim.party) for claim in parties}) != len(parties):
        raise ProofError("party-twice", "a service is chosen twice")
