"""Suite 3 against the text of RFC 9528 alone: the same run computed by hand, with nothing of ours but the keys.

No trace of suite 3 is published (RFC 9529 has suites 0 and 2), and the independent peer of ``tests/interop`` has
suite 2 only. So this page follows the RFC: HKDF and AES-CCM from ``cryptography``, every CBOR item written out, and
lengths and labels as the RFC's tables give them (AES-CCM-16-128-128, SHA-256, 16 bytes of MAC, P-256).
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from firstlight.onboarding.edhoc import initiator, responder
from firstlight.onboarding.edhoc.keys import Ephemeral
from firstlight.testing.random import SeededRandom

MAC_LENGTH = 16
X, Y, OF_I, OF_R = (Ephemeral.draw(SeededRandom(f"suite 3 {name}")) for name in "xyir")
CRED_I, CRED_R = b"\xa1\x08\x41I", b"\xa1\x08\x41R"


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def bstr(data: bytes) -> bytes:
    return (bytes([0x40 + len(data)]) if len(data) < 24 else b"\x58" + bytes([len(data)])) + data


def expand(prk: bytes, label: int, context: bytes, length: int) -> bytes:
    size = bytes([length]) if length < 24 else b"\x18" + bytes([length])
    return HKDFExpand(SHA256(), length, bytes([label]) + bstr(context) + size).derive(prk)


def extract(salt: bytes, secret: bytes) -> bytes:
    return hmac.new(salt, secret, "sha256").digest()


def shared(mine: Ephemeral, theirs: Ephemeral) -> bytes:
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x03" + theirs.x)
    return ec.derive_private_key(int.from_bytes(mine.secret), ec.SECP256R1()).exchange(ec.ECDH(), point)


def by_hand() -> tuple[bytes, bytes, bytes, bytes, bytes]:
    """Return messages 1 to 4 and an exported key; C_I 0, C_R 1, both kids one integer: -8 and 7."""
    message_1 = b"\x03" + b"\x03" + bstr(X.x) + b"\x00"
    th_2 = sha(bstr(Y.x) + bstr(sha(message_1)))
    prk_2e = extract(th_2, shared(X, Y))
    prk_3e2m = extract(expand(prk_2e, 1, th_2, 32), shared(OF_R, X))
    mac_2 = expand(prk_3e2m, 2, b"\x01" + b"\xa1\x04\x41\x07" + bstr(th_2) + CRED_R, MAC_LENGTH)
    plaintext_2 = b"\x01" + b"\x07" + bstr(mac_2)
    stream = expand(prk_2e, 0, th_2, len(plaintext_2))
    message_2 = bstr(Y.x + bytes(a ^ b for a, b in zip(plaintext_2, stream, strict=True)))

    th_3 = sha(bstr(th_2) + plaintext_2 + CRED_R)
    prk_4e3m = extract(expand(prk_3e2m, 5, th_3, 32), shared(OF_I, Y))
    mac_3 = expand(prk_4e3m, 6, b"\xa1\x04\x41\x27" + bstr(th_3) + CRED_I, MAC_LENGTH)
    plaintext_3 = b"\x27" + bstr(mac_3)
    aad_3 = b"\x83\x68Encrypt0\x40" + bstr(th_3)
    k_3, iv_3 = expand(prk_3e2m, 3, th_3, 16), expand(prk_3e2m, 4, th_3, 13)
    message_3 = bstr(AESCCM(k_3, tag_length=16).encrypt(iv_3, plaintext_3, aad_3))

    th_4 = sha(bstr(th_3) + plaintext_3 + CRED_I)
    aad_4 = b"\x83\x68Encrypt0\x40" + bstr(th_4)
    k_4, iv_4 = expand(prk_4e3m, 8, th_4, 16), expand(prk_4e3m, 9, th_4, 13)
    message_4 = bstr(AESCCM(k_4, tag_length=16).encrypt(iv_4, b"", aad_4))
    exporter = expand(expand(prk_4e3m, 7, th_4, 32), 10, b"", 32)
    return message_1, message_2, message_3, message_4, expand(exporter, 0, b"", 16)


def test_suite_3_in_both_roles() -> None:
    started = initiator.start(X, c_i=b"\x00", suites=(3,))
    message_2, half = responder.make_2(
        responder.read_1(started.message_1), ephemeral=Y, static=OF_R, kid_r=b"\x07", cred_r=CRED_R, c_r=b"\x01"
    )
    verified = initiator.read_2(started, message_2).verify(CRED_R, OF_R.x)
    message_3, session = initiator.make_3(verified, static=OF_I, kid_i=b"\x27", cred_i=CRED_I)
    other = responder.read_3(half, message_3).verify(CRED_I, OF_I.x)
    assert other == session
    ours = (started.message_1, message_2, message_3, other.message_4(), session.export(0, b"", 16))
    assert ours == by_hand()
