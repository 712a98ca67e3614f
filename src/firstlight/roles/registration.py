"""How a party comes onto the ledger: its keys, its request, and the endorsement by a member of the consortium.

A party makes its keys in its state directory (:func:`create`), writes a request that its own key has signed
(:func:`request`), and hands that to a member, who adds a signature and submits it (:func:`endorse`).

    genesis.cbor    what the chain began with
    party           the party's id, in hexadecimal
    signing.pem     signs transactions and reference values
    next.pem        takes its place one day: the ledger holds its hash
    agreement.pem   EDHOC's static key; a manufacturer has none
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from firstlight import p256
from firstlight.chain.root import open_epoch, open_root
from firstlight.custody.file import AgreementKey, SigningKey
from firstlight.engines.port import Genesis
from firstlight.errors import ConfigError, MalformedError, StoreError
from firstlight.files import private_directory, read_limited, write_atomic
from firstlight.ledger.records import Role, party_id
from firstlight.ledger.transaction import RegisterParty, build, parse
from firstlight.ports import Signer

GENESIS = "genesis.cbor"
PARTY = "party"
SIGNING, FOLLOWING, AGREEMENT = "signing.pem", "next.pem", "agreement.pem"
MAX_REQUEST = 4_096
_ID = re.compile(rb"[0-9a-f]{32}\n?")


@dataclass(frozen=True, slots=True)
class PartyKeys:
    """A party's id and its keys."""

    party: bytes
    signing: SigningKey = field(repr=False)
    following: SigningKey = field(repr=False)
    agreement: AgreementKey | None = field(repr=False)


def read_genesis(path: Path) -> Genesis:
    """Return the genesis in a file, its statements verified.

    Raises :class:`StoreError` of :mod:`firstlight.files`, :class:`ConfigError` (``bad-genesis``): the statements are
    of another chain than it says; :class:`MalformedError`, :class:`firstlight.errors.ProofError`.
    """
    genesis = Genesis.decode(read_limited(path, Genesis.LIMIT))
    root = open_root(genesis.root)
    open_epoch(genesis.epoch, root)
    if root.chain != genesis.chain:
        raise ConfigError("bad-genesis", f"{path}: the root is one of {root.chain}, the chain {genesis.chain}")
    return genesis


def keep_genesis(path: Path, state_dir: Path) -> Genesis:
    """Copy a genesis file into a state directory, which is made if needed, and return it; errors as above.

    Raises :class:`ConfigError` (``other-genesis``) if the directory has another one already.
    """
    genesis = read_genesis(path)
    own = private_directory(state_dir) / GENESIS
    if own.exists() and read_limited(own, Genesis.LIMIT) != genesis.encode():
        raise ConfigError("other-genesis", f"{own} is of another chain", hint="take another directory")
    write_atomic(own, genesis.encode())
    return genesis


def create(state_dir: Path, *, agreement: bool) -> PartyKeys:
    """Make a party's keys; :class:`StoreError` (``file-exists``) if it has some already."""
    private_directory(state_dir)
    signing = SigningKey.create(state_dir / SIGNING)
    following = SigningKey.create(state_dir / FOLLOWING)
    agreeing = AgreementKey.create(state_dir / AGREEMENT) if agreement else None
    party = party_id(signing.public)
    write_atomic(state_dir / PARTY, party.hex().encode() + b"\n", exclusive=True)
    return PartyKeys(party, signing, following, agreeing)


def load(state_dir: Path) -> PartyKeys:
    """Load a party's keys; :class:`StoreError`: ``file-missing``, ``bad-party-id`` and those of the key files."""
    agreement = state_dir / AGREEMENT
    return PartyKeys(
        party_of(state_dir),
        SigningKey.load(state_dir / SIGNING),
        SigningKey.load(state_dir / FOLLOWING),
        AgreementKey.load(agreement) if agreement.exists() else None,
    )


def party_of(state_dir: Path) -> bytes:
    """Return the id of the party of a state directory; :class:`StoreError`: ``file-missing``, ``bad-party-id``."""
    text = read_limited(state_dir / PARTY, 64)
    if not _ID.fullmatch(text):
        raise StoreError("bad-party-id", f"{state_dir / PARTY} holds no party id")
    return bytes.fromhex(text.decode())


def request(keys: PartyKeys, roles: Sequence[Role], *, chain: str, endpoints: Sequence[str] = ()) -> bytes:
    """Return the request to be registered: ``register_party`` signed by the party's own key alone.

    ``endpoints`` begin with where the party onboards devices. Raises :class:`MalformedError` (``wrong-shape``).
    """
    body = RegisterParty(
        key=keys.signing.public,
        next_key_hash=hashlib.sha256(keys.following.public).digest(),
        roles=tuple(sorted(roles)),
        agreement_key=None if keys.agreement is None else keys.agreement.public,
        endpoints=tuple(endpoints),
    )
    return build(body, chain=chain, sequence=1, signer=keys.signing)


@dataclass(frozen=True, slots=True)
class Endorsed:
    """A request with a member's signature: the transaction to submit, its id, and the party that it makes."""

    transaction: bytes
    id: bytes
    party: bytes
    body: RegisterParty


def open_request(data: bytes, *, chain: str) -> RegisterParty:
    """Return what a request asks for.

    1. It is a transaction that registers a party (:class:`MalformedError`; ``not-a-request``) 2. of this chain
    (``wrong-chain``), 3. signed by the party's key and nobody else (:class:`SignatureError`
    ``unknown-key``, ``bad-signature``).
    """
    if len(data) > MAX_REQUEST:
        raise MalformedError("too-large", f"{len(data)} bytes, at most {MAX_REQUEST}")
    transaction = parse(data)
    body = transaction.body
    if not isinstance(body, RegisterParty) or len(transaction.signed.signatures) != 1:
        raise MalformedError("not-a-request", "not the request of one party to be registered")
    if transaction.chain != chain:
        raise MalformedError("wrong-chain", f"a request for {transaction.chain}")
    transaction.signed.verify({p256.kid(body.key): body.key})
    return body


def endorse(data: bytes, member: Signer, *, chain: str) -> Endorsed:
    """Add a member's signature to a request; errors as :func:`open_request`."""
    body = open_request(data, chain=chain)
    signed = parse(data).signed.cosigned(member)
    return Endorsed(signed.encode(), signed.id, party_id(body.key), body)
