"""A chain in memory: root keys, validators and witnesses with keys made from names, and the blocks they sign."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from firstlight import p256
from firstlight.chain.block import (
    BLOCK_PROTOCOL,
    BlockId,
    Header,
    block_id,
    block_protobuf,
    consensus_hash,
    data_hash,
    evidence_hash,
    results_hash,
)
from firstlight.chain.commit import (
    NO_COMMIT_HASH,
    NO_COMMIT_PROTOBUF,
    Commit,
    Validator,
    ValidatorSet,
    make_commit,
)
from firstlight.chain.root import EpochStatement, RootStatement
from firstlight.chain.witness import NonceProof, WitnessSignature, WitnessStatement, nonce_proofs, witness

CHAIN = "test-1"
GENESIS = 1_800_000_000
"""Unix seconds of the first header."""
SECOND = 1_000_000_000


class P256Key:
    """A :class:`firstlight.ports.Signer` whose key follows from a name."""

    def __init__(self, name: str) -> None:
        """Make the key of ``name``."""
        scalar = int.from_bytes(hashlib.sha256(f"p256 {name}".encode()).digest()) % (p256.ORDER - 1) + 1
        self.private = ec.derive_private_key(scalar, ec.SECP256R1())
        self.public = p256.compress(self.private.public_key())

    def sign(self, message: bytes) -> bytes:
        """Return the ES256 signature of ``message``."""
        return p256.sign(self.private, message)

    def exchange(self, peer: bytes) -> bytes:
        """Return the ECDH x-coordinate with ``peer``: it is a :class:`firstlight.ports.KeyAgreement` too."""
        key = p256.load(peer) if len(peer) == 33 else p256.from_x(peer)
        return self.private.exchange(ec.ECDH(), key)


class Ed25519Key:
    """A :class:`firstlight.chain.commit.ValidatorSigner` whose key follows from a name."""

    def __init__(self, name: str) -> None:
        """Make the key of ``name``."""
        self._private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"ed25519 {name}".encode()).digest())
        self.public = self._private.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Return the signature of ``message``."""
        return self._private.sign(message)


@dataclass(frozen=True, slots=True)
class Block:
    """A header, the commit that closes it and the block's id."""

    header: Header
    commit: Commit
    id: BlockId


@dataclass(frozen=True, slots=True)
class Consortium:
    """The keys that govern a chain in memory, and what they sign."""

    validators: tuple[Ed25519Key, ...]
    witnesses: tuple[P256Key, ...]
    roots: tuple[P256Key, ...]
    root_threshold: int = 1
    witness_threshold: int = 2
    chain: str = CHAIN
    version: int = 1
    number: int = 1

    @classmethod
    def of(cls, validators: int = 1, witnesses: int = 3, roots: int = 1) -> Consortium:
        """Return a consortium with that many keys of each kind."""
        return cls(
            tuple(Ed25519Key(f"validator {one}") for one in range(validators)),
            tuple(P256Key(f"witness {one}") for one in range(witnesses)),
            tuple(P256Key(f"root {one}") for one in range(roots)),
            witness_threshold=min(2, witnesses),
        )

    @property
    def validator_set(self) -> ValidatorSet:
        """The validators, of power 10 each."""
        return ValidatorSet.of([Validator(one.public, 10) for one in self.validators])

    @property
    def root(self) -> RootStatement:
        """The root statement."""
        keys = tuple(sorted(one.public for one in self.roots))
        return RootStatement(self.chain, self.version, self.root_threshold, keys)

    @property
    def epoch(self) -> EpochStatement:
        """The epoch statement, from height 1."""
        keys = tuple(sorted(one.public for one in self.witnesses))
        return EpochStatement(self.chain, self.number, self.validator_set.hash(), 1, self.witness_threshold, keys)

    def signed_root(self, *also: P256Key) -> bytes:
        """Return the root statement signed by its own keys and by ``also``."""
        return self.root.sign(list({one.public: one for one in (*self.roots, *also)}.values()))

    def signed_epoch(self) -> bytes:
        """Return the epoch statement signed by the root's keys."""
        return self.epoch.sign(self.roots)

    def block(
        self, app_hash: bytes, *, previous: Block | None = None, height: int | None = None, time: int | None = None
    ) -> Block:
        """Return a block with that application hash after ``previous``, a second later."""
        validators = self.validator_set
        at = height or (1 if previous is None else previous.header.height + 1)
        header = Header(
            BLOCK_PROTOCOL,
            1,
            self.chain,
            at,
            (GENESIS + at if time is None else time) * SECOND,
            None if previous is None else previous.id,
            NO_COMMIT_HASH if previous is None else previous.commit.hash(validators),
            data_hash([]),
            validators.hash(),
            validators.hash(),
            consensus_hash(22_020_096, -1),
            app_hash,
            results_hash([]),
            evidence_hash(),
            validators.validators[0].address,
        )
        last = NO_COMMIT_PROTOBUF if previous is None else previous.commit.protobuf(validators)
        return self.close(header, block_id(header, block_protobuf(header, [], last)))

    def close(self, header: Header, block: BlockId | None = None, *, absent: int = 0) -> Block:
        """Return ``header`` with the commit of all validators but the first ``absent``."""
        named = BlockId(header.hash(), 1, bytes(32)) if block is None else replace(block, hash=header.hash())
        signers = {one.public: one for one in self.validators[absent:]}
        commit = make_commit(self.chain, header.height, named, self.validator_set, signers, time=header.time + SECOND)
        return Block(header, commit, named)

    def attest(
        self, header: Header, nonce: bytes, *, time: int, others: Sequence[bytes] = (), count: int | None = None
    ) -> tuple[NonceProof, tuple[WitnessSignature, ...]]:
        """Return the witnesses' signatures at ``time`` (s) over ``header``, ``nonce`` and the nonces of others."""
        root, proofs = nonce_proofs([*others, nonce])
        statement = WitnessStatement(self.chain, header.height, header.hash(), time, root)
        signers = sorted(self.witnesses, key=lambda one: one.public)[: count or self.witness_threshold]
        return proofs[-1], tuple(witness(statement, self.epoch, one) for one in signers)
