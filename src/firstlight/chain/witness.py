"""Witnesses: members' keys, other than the validators', that say which head is the newest, and when they said so.

A witness signs (chain, height, header hash, its own time, Merkle root of nonces); a gateway gathers the
nonces of many devices into one request. In a proof bundle each witness costs its index, its time and
its signature: the statement itself is rebuilt from what the verifier already holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from firstlight import cose, p256
from firstlight.chain.block import Height
from firstlight.chain.root import MAX_KEYS, EpochStatement
from firstlight.encoding import Bytes32, Bytes64, ChainId, Packed, Range, Record, Seconds, Uint32, encode
from firstlight.errors import ProofError, SignatureError
from firstlight.ports import Signer
from firstlight.trees import rfc6962

TYPE = "application/firstlight-witness+cbor"
MAX_NONCES = 4096
SUPERSEDED_SECONDS = 10


@dataclass(frozen=True, slots=True)
class WitnessStatement(Record):
    """What a witness says: at ``time`` (its own clock) this header was the newest that it had verified."""

    chain: ChainId
    height: Height
    header_hash: Bytes32
    time: Seconds
    nonce_root: Bytes32

    def sign(self, signer: Signer) -> bytes:
        """Return the signature (64 bytes) of the COSE_Sign1 over this statement."""
        return signer.sign(_to_be_signed(self, signer.public))


@dataclass(frozen=True, slots=True)
class WitnessRequest(Record):
    """What a gateway asks of a witness: to sign a head over the Merkle root of the nonces that it gathered."""

    chain: ChainId
    height: Height
    nonce_root: Bytes32


@dataclass(frozen=True, slots=True)
class WitnessSignature(Record):
    """One witness's part of a bundle: its place in the epoch's witness keys, its time, its signature."""

    witness: Annotated[int, Range(0, MAX_KEYS - 1)]
    time: Seconds
    signature: Bytes64


@dataclass(frozen=True, slots=True)
class NonceProof(Record):
    """Where a nonce stands among those that a statement covers (RFC 6962 path)."""

    index: Uint32
    size: Annotated[int, Range(1, MAX_NONCES)]
    path: Annotated[tuple[bytes, ...], Packed(12)]

    def root(self, nonce: bytes) -> bytes:
        """Return the Merkle root that ``nonce`` leads to; :class:`ProofError` (``bad-path``)."""
        return rfc6962.root_from_path(rfc6962.leaf_hash(nonce), self.index, self.size, self.path)


@dataclass(frozen=True, slots=True)
class SeenHead:
    """A head that a witness verified, and when (Unix seconds, its own clock)."""

    height: int
    header_hash: bytes
    verified_at: int


def nonce_proofs(nonces: Sequence[bytes]) -> tuple[bytes, tuple[NonceProof, ...]]:
    """Return the Merkle root over ``nonces`` (1 to 4,096) and the proof of each; ``too-many-nonces``."""
    if not 1 <= len(nonces) <= MAX_NONCES:
        raise ProofError("too-many-nonces", f"{len(nonces)}, not 1 to {MAX_NONCES}")
    tree = rfc6962.Tree([rfc6962.leaf_hash(nonce) for nonce in nonces])
    proofs = tuple(NonceProof(index, len(nonces), tree.path(index)) for index in range(len(nonces)))
    return tree.root, proofs


def choose_head(heads: Sequence[SeenHead], height: int, now: int) -> SeenHead:
    """Return the head at ``height`` if a witness may still sign it at ``now``.

    ``heads`` are those that it verified, by height ascending. It signs the newest, or one superseded less
    than ten seconds ago. Raises :class:`ProofError`: ``witness-unknown-head``, ``witness-superseded-head``.
    """
    for head, following in zip(heads, [*heads[1:], None], strict=True):
        if head.height != height:
            continue
        if following is not None and now - following.verified_at >= SUPERSEDED_SECONDS:
            raise ProofError("witness-superseded-head", f"height {height} was superseded too long ago")
        return head
    raise ProofError("witness-unknown-head", f"height {height} was not verified here")


def witness(statement: WitnessStatement, epoch: EpochStatement, signer: Signer) -> WitnessSignature:
    """Return the signature of ``signer`` over ``statement``; ``not-a-witness`` if its key is not in ``epoch``."""
    if signer.public not in epoch.witnesses:
        raise ProofError("not-a-witness", "the key is not a witness of this epoch")
    return WitnessSignature(epoch.witnesses.index(signer.public), statement.time, statement.sign(signer))


def verify_witnesses(
    signatures: Sequence[WitnessSignature],
    *,
    epoch: EpochStatement,
    height: int,
    header_hash: bytes,
    nonce_root: bytes,
) -> int:
    """Return the lowest time (Unix seconds) among the witnesses of ``epoch`` that signed this head over these nonces.

    1. each stands once, in ascending order, and is a witness of the epoch (``bad-witness``);
    2. there are as many as the epoch asks for (``not-enough-witnesses``);
    3. every signature verifies (``witness-signature``).

    Raises :class:`ProofError`.
    """
    places = [one.witness for one in signatures]
    if places != sorted(set(places)) or (places and places[-1] >= len(epoch.witnesses)):
        raise ProofError("bad-witness", "not witnesses of this epoch in ascending order, each once")
    if len(places) < epoch.threshold:
        raise ProofError("not-enough-witnesses", f"{len(places)} of {epoch.threshold}")
    for one in signatures:
        statement = WitnessStatement(epoch.chain, height, header_hash, one.time, nonce_root)
        key = epoch.witnesses[one.witness]
        try:
            p256.verify(key, _to_be_signed(statement, key), one.signature)
        except SignatureError:
            raise ProofError("witness-signature", f"witness {one.witness}'s signature does not verify") from None
    return min(one.time for one in signatures)


def _to_be_signed(statement: WitnessStatement, key: bytes) -> bytes:
    body = encode({cose.ALG: cose.ES256, cose.KID: p256.kid(key), cose.TYP: TYPE})
    return encode(["Signature1", body, b"", statement.encode()])
