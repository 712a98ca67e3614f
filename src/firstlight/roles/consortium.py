"""The consortium: the keys that govern a chain, the file that it begins with, and the endorsement of parties.

:func:`create` makes, in one state directory,

    consortium.toml   how many members and witnesses, and how many of them must sign
    genesis.cbor      what the chain begins with; whoever joins gets a copy
    root-<n>.pem      the root key of member n
    node/             what the ledger node needs: node.toml, genesis.cbor, validator.pem
    witness-<n>/      what witness n needs: witness.toml, genesis.cbor, witness.pem

In a trial all of it lies on one machine; a consortium that means it makes each key where it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from firstlight.chain.commit import Validator, ValidatorSet
from firstlight.chain.root import EpochStatement, RootStatement
from firstlight.custody.file import SigningKey, ValidatorKey
from firstlight.engines.port import Genesis
from firstlight.errors import ConfigError
from firstlight.files import private_directory, read_limited, write_atomic
from firstlight.ports import Clock
from firstlight.roles import registration
from firstlight.settings import ConsortiumSettings, NodeSettings, WitnessSettings, write_initial

GENESIS = registration.GENESIS
VALIDATOR = "validator.pem"
WITNESS = "witness.pem"
NODE = "node"
POWER = 10
"""Voting power of the one validator; any number will do."""


@dataclass(frozen=True, slots=True)
class Created:
    """What :func:`create` has made."""

    genesis: Genesis
    node: Path
    witnesses: tuple[Path, ...]


def root_key(state_dir: Path, member: int) -> Path:
    """Return where the root key of a member (from 1) is."""
    return state_dir / f"root-{member}.pem"


def create(state_dir: Path, settings: ConsortiumSettings, clock: Clock) -> Created:
    """Make a chain's keys, its first root and epoch statements and its genesis.

    Raises :class:`ConfigError` (``bad-threshold``, ``settings-exist``), :class:`firstlight.errors.StoreError`.
    """
    _check(settings.root_threshold, settings.members, "members")
    _check(settings.witness_threshold, settings.witnesses, "witnesses")
    write_initial(settings, state_dir)
    members = [SigningKey.create(root_key(state_dir, one)) for one in range(1, settings.members + 1)]
    validator = ValidatorKey.create(private_directory(state_dir / NODE) / VALIDATOR)
    places = tuple(state_dir / f"witness-{one}" for one in range(1, settings.witnesses + 1))
    witnesses = [SigningKey.create(private_directory(place) / WITNESS) for place in places]
    genesis = _genesis(settings, members, validator, witnesses, clock.now())
    write_initial(NodeSettings(chain=settings.chain), state_dir / NODE)
    for place in places:
        write_initial(WitnessSettings(chain=settings.chain), place)
    for place in (state_dir, state_dir / NODE, *places):
        write_atomic(place / GENESIS, genesis.encode())
    return Created(genesis, state_dir / NODE, places)


def _check(threshold: int, count: int, what: str) -> None:
    if threshold > count:
        raise ConfigError("bad-threshold", f"{threshold} of {count} {what} can never sign")


def _genesis(
    settings: ConsortiumSettings,
    members: list[SigningKey],
    validator: ValidatorKey,
    witnesses: list[SigningKey],
    now_ns: int,
) -> Genesis:
    validators = ValidatorSet.of([Validator(validator.public, POWER)])
    root = RootStatement(settings.chain, 1, settings.root_threshold, tuple(sorted(one.public for one in members)))
    keys = tuple(sorted(one.public for one in witnesses))
    epoch = EpochStatement(settings.chain, 1, validators.hash(), 1, settings.witness_threshold, keys)
    return Genesis(settings.chain, now_ns, root.sign(members), epoch.sign(members), validators)


def endorse(state_dir: Path, request: Path, *, member: int = 1) -> registration.Endorsed:
    """Return a party's request to be registered with a member's signature added: a transaction to submit.

    Raises :class:`ConfigError` (``no-such-member``), :class:`firstlight.errors.StoreError` and what
    :func:`registration.endorse` raises.
    """
    path = root_key(state_dir, member)
    if not path.exists():
        raise ConfigError("no-such-member", f"there is no {path}", hint="--member NUMBER, from 1")
    genesis = registration.read_genesis(state_dir / GENESIS)
    data = read_limited(request, registration.MAX_REQUEST)
    return registration.endorse(data, SigningKey.load(path), chain=genesis.chain)
