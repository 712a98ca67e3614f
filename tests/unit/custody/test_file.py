import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from firstlight import p256
from firstlight.custody.file import AgreementKey, SigningKey, ValidatorKey
from firstlight.errors import MalformedError, StoreError
from firstlight.ports import KeyAgreement, Signer

KINDS = [SigningKey, AgreementKey, ValidatorKey]
Kind = type[SigningKey] | type[AgreementKey] | type[ValidatorKey]


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_survives_its_file(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / "key.pem"
    made = kind.create(path)
    assert kind.load(path).public == made.public == kind.load_or_create(path).public
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert made.public.hex() in repr(made)


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_is_never_overwritten(tmp_path: Path, kind: Kind) -> None:
    made = kind.load_or_create(tmp_path / "key.pem")
    with pytest.raises(StoreError) as caught:
        kind.create(tmp_path / "key.pem")
    assert caught.value.code == "file-exists"
    assert kind.load(tmp_path / "key.pem").public == made.public


@pytest.mark.parametrize("made", KINDS)
@pytest.mark.parametrize("wanted", KINDS)
def test_a_key_serves_one_use(tmp_path: Path, made: Kind, wanted: Kind) -> None:
    path = tmp_path / "key.pem"
    made.create(path)
    if made is wanted:
        assert wanted.load(path)
        return
    with pytest.raises(StoreError) as caught:
        wanted.load(path)
    assert caught.value.code == "wrong-key-use"


def test_signatures_verify_and_have_a_low_s(tmp_path: Path) -> None:
    key: Signer = SigningKey.create(tmp_path / "a")
    for number in range(8):
        p256.verify(key.public, bytes([number]), key.sign(bytes([number])))


def test_agreement_agrees_over_both_forms_of_a_key(tmp_path: Path) -> None:
    one: KeyAgreement = AgreementKey.create(tmp_path / "a")
    two: KeyAgreement = AgreementKey.create(tmp_path / "b")
    assert one.exchange(two.public) == two.exchange(one.public)
    assert one.exchange(two.public[1:]) == two.exchange(one.public[1:]) == one.exchange(two.public)


def test_agreement_refuses_what_is_no_point(tmp_path: Path) -> None:
    key = AgreementKey.create(tmp_path / "a")
    # no y of P-256 goes with x = p - 1
    off_curve = (0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF - 1).to_bytes(32)
    for peer in (off_curve, b"\x02" + off_curve, b"", b"\x04" + bytes(64), bytes(31), b"\xff" * 32):
        with pytest.raises(MalformedError) as caught:
            key.exchange(peer)
        assert caught.value.code == "bad-point"


def test_a_validator_signs_ed25519(tmp_path: Path) -> None:
    key = ValidatorKey.create(tmp_path / "v")
    Ed25519PublicKey.from_public_bytes(key.public).verify(key.sign(b"vote"), b"vote")


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    SigningKey.create(tmp_path / "a")
    (tmp_path / "a").chmod(0o644)
    with pytest.raises(StoreError) as caught:
        SigningKey.load(tmp_path / "a")
    assert caught.value.code == "file-not-private"


def p384() -> bytes:
    key = ec.generate_private_key(ec.SECP384R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    "content", [b"", b"Use: signing\n", b"Use: signing\nnot PEM", p384(), b"Use: signing\n" + p384()]
)
def test_what_is_no_such_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(StoreError) as caught:
        SigningKey.load(path)
    assert caught.value.code == "bad-key"


def test_a_missing_key_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        SigningKey.load(tmp_path / "none")
    assert caught.value.code == "file-missing"
