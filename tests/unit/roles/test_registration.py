"""From a party's keys to a transaction that the ledger's rules take."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from firstlight import p256
from firstlight.engines.port import Genesis
from firstlight.errors import ConfigError, MalformedError, ProofError, SignatureError, StoreError
from firstlight.ledger.records import Role, party_id
from firstlight.ledger.transaction import UpdateParty, build, parse
from firstlight.roles import registration
from firstlight.testing.chains import CHAIN, GENESIS, SECOND, Consortium, P256Key

ENDPOINT = "http://127.0.0.1:4711"


def genesis(consortium: Consortium) -> Genesis:
    root, epoch = consortium.signed_root(), consortium.signed_epoch()
    return Genesis(consortium.chain, GENESIS * SECOND, root, epoch, consortium.validator_set)


def test_keys_are_made_once_and_loaded(tmp_path: Path) -> None:
    made = registration.create(tmp_path, agreement=True)
    loaded = registration.load(tmp_path)
    assert made.party == loaded.party == party_id(made.signing.public)
    assert loaded.agreement is not None
    assert made.agreement is not None
    assert loaded.agreement.public == made.agreement.public
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    with pytest.raises(StoreError, match="file-exists"):
        registration.create(tmp_path, agreement=True)


def test_a_party_id_that_is_none(tmp_path: Path) -> None:
    registration.create(tmp_path, agreement=False)
    (tmp_path / registration.PARTY).write_text("somebody")
    with pytest.raises(StoreError, match="bad-party-id"):
        registration.load(tmp_path)


def test_request_and_endorsement(tmp_path: Path) -> None:
    keys, member = registration.create(tmp_path, agreement=True), P256Key("root 0")
    request = registration.request(keys, [Role.MNO], chain=CHAIN, endpoints=[ENDPOINT])
    endorsed = registration.endorse(request, member, chain=CHAIN)
    transaction = parse(endorsed.transaction)
    assert endorsed.party == keys.party
    assert (transaction.id, transaction.sequence) == (endorsed.id, 1)
    assert endorsed.body.endpoints == (ENDPOINT,)
    assert endorsed.body.next_key_hash == hashlib.sha256(keys.following.public).digest()
    assert len(transaction.signed.signatures) == 2
    transaction.signed.verify({p256.kid(one.public): one.public for one in (keys.signing, member)})


def test_a_manufacturer_has_no_agreement_key(tmp_path: Path) -> None:
    keys = registration.create(tmp_path, agreement=False)
    body = registration.open_request(registration.request(keys, [Role.MANUFACTURER], chain=CHAIN), chain=CHAIN)
    assert (body.agreement_key, body.endpoints) == (None, ())


def test_what_a_member_does_not_endorse(tmp_path: Path) -> None:
    keys, member = registration.create(tmp_path, agreement=True), P256Key("root 0")
    request = registration.request(keys, [Role.SP], chain=CHAIN)
    with pytest.raises(MalformedError, match="wrong-chain"):
        registration.endorse(request, member, chain="other")
    twice = registration.endorse(request, member, chain=CHAIN).transaction
    with pytest.raises(MalformedError, match="not-a-request"):
        registration.endorse(twice, member, chain=CHAIN)
    update = build(UpdateParty(keys.party, 2, None, (), None), chain=CHAIN, sequence=2, signer=keys.signing)
    with pytest.raises(MalformedError, match="not-a-request"):
        registration.endorse(update, member, chain=CHAIN)
    body = registration.open_request(request, chain=CHAIN)
    forged = build(body, chain=CHAIN, sequence=1, signer=member)
    with pytest.raises(SignatureError, match="unknown-key"):
        registration.endorse(forged, member, chain=CHAIN)
    with pytest.raises(MalformedError, match="too-large"):
        registration.endorse(bytes(5000), member, chain=CHAIN)


def test_the_party_itself_cannot_endorse(tmp_path: Path) -> None:
    keys = registration.create(tmp_path, agreement=False)
    request = registration.request(keys, [Role.SP], chain=CHAIN)
    with pytest.raises(MalformedError, match="signed-twice"):
        registration.endorse(request, keys.signing, chain=CHAIN)


def test_genesis_is_verified_and_kept(tmp_path: Path) -> None:
    honest = genesis(Consortium.of())
    path, own = tmp_path / "given", tmp_path / "own"
    path.write_bytes(honest.encode())
    assert registration.keep_genesis(path, own) == honest
    assert registration.keep_genesis(path, own) == honest
    path.write_bytes(replace(honest, chain="other").encode())
    with pytest.raises(ConfigError, match="bad-genesis"):
        registration.read_genesis(path)
    path.write_bytes(replace(honest, epoch=genesis(Consortium.of(roots=2)).root).encode())
    with pytest.raises((MalformedError, ProofError)):
        registration.read_genesis(path)
    path.write_bytes(genesis(Consortium.of(witnesses=2)).encode())
    with pytest.raises(ConfigError, match="other-genesis"):
        registration.keep_genesis(path, own)
