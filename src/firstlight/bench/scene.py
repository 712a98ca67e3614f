"""What the benchmark of the ledger works on: one directory with keys, a ledger file and a factory's device keys."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from firstlight import p256
from firstlight.chain.commit import Validator, ValidatorSet
from firstlight.chain.root import EpochStatement, RootStatement
from firstlight.chain.witness import WitnessSignature, WitnessStatement, witness
from firstlight.custody.file import SigningKey, ValidatorKey
from firstlight.custody.system import SystemClock
from firstlight.encoding import Bytes16, Record, Uint32
from firstlight.engines.embedded import EmbeddedEngine
from firstlight.engines.port import Genesis
from firstlight.files import read_limited, write_atomic
from firstlight.identity.birth import derive_salts

CHAIN = "bench-1"
MODEL = b"sensor-1"
WITNESSES = 3
WITNESS_THRESHOLD = 2
SECOND = 1_000_000_000
LEAF_KEYS = 128
"""Bytes that a factory delivers for each device: identity key x ‖ y, attestation key x ‖ y."""
_POOL = 2_048
_ROWS = 4_096


@dataclass(frozen=True, slots=True)
class Scale:
    """How much to measure: devices in the batch, records in the state, repetitions."""

    devices: int = 1_000_000
    records: int = 1_000
    sales: int = 9
    scattered_sales: int = 3
    bundles: int = 200
    verifications: int = 5

    @property
    def scattered(self) -> int:
        """How many devices are picked at random: one in ten."""
        return max(1, self.devices // 10)


@dataclass(frozen=True, slots=True)
class Sold(Record):
    """What later stages must know of the earlier ones."""

    batch: Bytes16
    tenure: Uint32


class Scene:
    """The directory that all stages share."""

    def __init__(self, directory: Path) -> None:
        """Work in ``directory``."""
        self._directory = directory
        self._keys: dict[str, SigningKey] = {}

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self._directory / "ledger.sqlite"

    @property
    def devices(self) -> Path:
        """The public keys of the devices, :data:`LEAF_KEYS` bytes each, as the factory wrote them."""
        return self._directory / "devices.keys"

    def key(self, name: str) -> SigningKey:
        """Return the signing key ``name``."""
        key = self._keys.get(name)
        if key is None:
            key = self._keys[name] = SigningKey.load_or_create(self._directory / f"{name}.key")
        return key

    def open(self) -> EmbeddedEngine:
        """Open the ledger, or begin it."""
        signer = ValidatorKey.load_or_create(self._directory / "validator.key")
        genesis = None if self.ledger.exists() else self._genesis(signer)
        return EmbeddedEngine.open(self.ledger, signer=signer, clock=SystemClock(), genesis=genesis)

    @property
    def epoch(self) -> EpochStatement:
        """The epoch: the one validator, and the witnesses."""
        signer = ValidatorKey.load_or_create(self._directory / "validator.key")
        keys = tuple(sorted(one.public for one in self._witnesses()))
        return EpochStatement(CHAIN, 1, _validators(signer).hash(), 1, WITNESS_THRESHOLD, keys)

    def attest(self, statement: WitnessStatement) -> tuple[WitnessSignature, ...]:
        """Return what as many witnesses as the epoch asks for sign."""
        epoch = self.epoch
        signers = sorted(self._witnesses(), key=lambda one: one.public)[: epoch.threshold]
        return tuple(witness(statement, epoch, one) for one in signers)

    def _witnesses(self) -> list[SigningKey]:
        return [self.key(f"witness-{number}") for number in range(WITNESSES)]

    def _genesis(self, signer: ValidatorKey) -> Genesis:
        member = self.key("member")
        root = RootStatement(CHAIN, 1, 1, (member.public,)).sign([member])
        return Genesis(CHAIN, SystemClock().now(), root, self.epoch.sign([member]), _validators(signer))

    # --- what is handed on ------------------------------------------------------------------------

    def write(self, sold: Sold) -> None:
        """Hand ``sold`` to the stages to come."""
        write_atomic(self._directory / "sold.cbor", sold.encode())

    def read(self) -> Sold:
        """Return what an earlier stage handed on."""
        return Sold.decode(read_limited(self._directory / "sold.cbor", Sold.LIMIT))

    # --- devices ----------------------------------------------------------------------------------

    def make_devices(self, count: int) -> None:
        """Write the factory's file: points of P-256, no two devices the same pair."""
        keys = (ec.generate_private_key(ec.SECP256R1()).public_key() for _ in range(_POOL))
        pool = [p256.coordinates(p256.compress(key)) for key in keys]
        with self.devices.open("wb") as file:
            for start in range(0, count, _ROWS):
                file.write(b"".join([_pair(pool, index) for index in range(start, min(start + _ROWS, count))]))

    def leaf_inputs(self, batch_secret: bytes) -> Iterator[bytes]:
        """Iterate over the inputs of the batch's leaves, as :meth:`firstlight.identity.birth.Leaf.input` lays them out.

        The points were checked when each device was made; here they are not checked again.
        """
        salts = derive_salts(batch_secret, self.devices.stat().st_size // LEAF_KEYS)
        with self.devices.open("rb") as file:
            while chunk := file.read(_ROWS * LEAF_KEYS):
                for at in range(0, len(chunk), LEAF_KEYS):
                    yield next(salts) + chunk[at : at + LEAF_KEYS] + MODEL


def scattered(devices: int, count: int, round_: int) -> list[int]:
    """Return ``count`` of the indices below ``devices`` picked at random, the same ones every time."""
    return random.Random(f"scattered {round_}").sample(range(devices), count)  # noqa: S311 - a sample, no secret


def digest(name: str) -> bytes:
    """Return 32 bytes that stand for ``name``."""
    return hashlib.sha256(name.encode()).digest()


def _validators(signer: ValidatorKey) -> ValidatorSet:
    return ValidatorSet.of([Validator(signer.public, 10)])


def _pair(pool: list[bytes], index: int) -> bytes:
    """Return the keys of one device: two different ones of the pool, another pair for every index below 4 million."""
    first, step = index % _POOL, index // _POOL % (_POOL - 1) + 1
    return pool[first] + pool[(first + step) % _POOL]
