"""RFC 9180 appendix A.3.1, byte for byte, in both directions, and against the HPKE of ``cryptography``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hpke as library
from cryptography.hazmat.primitives.asymmetric import ec

from firstlight import p256
from firstlight.custody.file import AgreementKey
from firstlight.sealing import hpke

VECTOR: dict[str, Any] = json.loads(Path(__file__).with_name("hpke_rfc9180.json").read_text())
SUITE = library.Suite(library.KEM.P256, library.KDF.HKDF_SHA256, library.AEAD.AES_128_GCM)


def field(name: str) -> bytes:
    return bytes.fromhex(VECTOR[name])


def private(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int(VECTOR[name], 16), ec.SECP256R1())


def test_the_sender_makes_the_vector() -> None:
    recipient = p256.from_coordinates(field("pkRm")[1:])
    for form in (recipient, field("pkRm")[1:]):
        enc, context = hpke.setup_sender(form, field("info"), ephemeral=private("skEm"))
        assert enc == field("enc")
        assert (context.key, context.base_nonce) == (field("key"), field("base_nonce"))
        for one in VECTOR["encryptions"]:
            context.sequence = one["sequence"]
            assert context.seal(field("pt"), bytes.fromhex(one["aad"])).hex() == one["ct"]


def test_the_receiver_opens_the_vector() -> None:
    context = hpke.setup_receiver(field("enc"), AgreementKey(private("skRm")), field("info"))
    for one in VECTOR["encryptions"]:
        context.sequence = one["sequence"]
        assert context.open(bytes.fromhex(one["ct"]), bytes.fromhex(one["aad"])) == field("pt")


def test_the_library_opens_what_we_seal_and_we_what_it_seals() -> None:
    key = private("skRm")
    public = p256.compress(key.public_key())
    enc, context = hpke.setup_sender(public, b"i")
    assert SUITE.decrypt(enc + context.seal(b"ours"), key, b"i") == b"ours"
    theirs = SUITE.encrypt(b"theirs", key.public_key(), b"i")
    assert hpke.unseal(theirs, AgreementKey(key), info=b"i") == b"theirs"
