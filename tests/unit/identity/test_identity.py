"""Credentials, leaves, birth credentials and manifests."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from firstlight import p256
from firstlight.encoding import decode
from firstlight.errors import FirstlightError, MalformedError
from firstlight.identity import birth
from firstlight.identity.birth import BirthCredential, Leaf, derive_mailbox, derive_salt, derive_salts
from firstlight.identity.credential import device_credential, id_cred, party_credential
from firstlight.identity.manifest import NODES_PER_CHUNK, ROWS_PER_CHUNK, Entry, Manifest
from firstlight.trees import rfc6962

CHAIN, BATCH, MODEL = "test-1", b"B" * 16, b"model-1"
SECRET = b"s" * 32


def point(number: int) -> bytes:
    key = ec.derive_private_key(number, ec.SECP256R1()).public_key()
    return p256.coordinates(p256.compress(key))


POINTS = [point(number) for number in range(1, 9)]


def entry(index: int) -> Entry:
    return Entry(
        index, derive_salt(SECRET, index), POINTS[index % 8], POINTS[(index + 3) % 8], derive_mailbox(SECRET, index)
    )


def batch_of(size: int) -> tuple[list[Entry], rfc6962.Tree]:
    entries = [entry(index) for index in range(size)]
    return entries, rfc6962.Tree.from_leaves(one.leaf(MODEL).input() for one in entries)


def refused(error: pytest.ExceptionInfo[FirstlightError]) -> str:
    return error.value.code


# --- credentials --------------------------------------------------------------------------------


def test_credentials_are_the_ccs_that_edhoc_takes() -> None:
    # RFC 9528 §3.5.2: a CCS with full x and y; the map keys in deterministic order
    kid = bytes(range(16))
    assert device_credential(POINTS[0], kid).hex() == (
        "a108a101a501020250" + kid.hex() + "2001" + "215820" + POINTS[0][:32].hex() + "225820" + POINTS[0][32:].hex()
    )
    key = p256.from_coordinates(POINTS[1])
    party = decode(party_credential(CHAIN, b"\xab" * 16, key))
    assert party[2] == "test-1/" + "ab" * 16
    assert party[8][1] == {1: 2, 2: p256.kid(key), -1: 1, -2: POINTS[1][:32], -3: POINTS[1][32:]}
    assert id_cred(kid).hex() == "a10450" + kid.hex()


# --- leaf and birth credential ------------------------------------------------------------------


def test_a_leaf_is_laid_out_exactly() -> None:
    leaf = Leaf(b"S" * 16, POINTS[0], POINTS[1], MODEL)
    assert leaf.input() == b"S" * 16 + POINTS[0] + POINTS[1] + MODEL
    assert leaf.hash() == rfc6962.leaf_hash(leaf.input())
    assert leaf.kid == leaf.hash()[:16]
    assert leaf.attestation_key == p256.from_coordinates(POINTS[1])
    assert Leaf.decode(leaf.encode()) == leaf


@pytest.mark.parametrize(
    ("identity", "attestation", "code"),
    [
        (POINTS[0], POINTS[0], "same-keys"),
        (POINTS[0], POINTS[1][:63] + bytes([POINTS[1][63] ^ 1]), "bad-point"),
        (bytes(64), POINTS[0], "bad-point"),
        (b"\xff" * 64, POINTS[0], "bad-point"),
        (POINTS[0][:32] + (birth._P - int.from_bytes(POINTS[0][32:])).to_bytes(32), POINTS[0], "same-keys"),
    ],
)
def test_a_leaf_needs_two_different_points(identity: bytes, attestation: bytes, code: str) -> None:
    with pytest.raises(MalformedError) as error:
        Leaf(bytes(16), identity, attestation, MODEL)
    assert refused(error) == code


def test_the_quick_point_check_agrees_with_openssl() -> None:
    for xy in (*POINTS, bytes(64), b"\x01" * 64, POINTS[0][::-1]):
        try:
            p256.from_coordinates(xy)
        except MalformedError:
            with pytest.raises(MalformedError):
                birth.check_point(xy)
        else:
            birth.check_point(xy)
            assert birth.compressed(xy) == p256.from_coordinates(xy)


@pytest.mark.parametrize("length", [16, 32, 64, 65, 200])
def test_many_salts_are_those_of_each_device(length: int) -> None:
    secret = bytes(range(length))
    assert list(derive_salts(secret, 300)) == [derive_salt(secret, index) for index in range(300)]


def test_salts_and_mailbox_secrets_differ_by_device_and_purpose() -> None:
    drawn = [derive_salt(SECRET, 0), derive_salt(SECRET, 1), derive_mailbox(SECRET, 0)[:16], derive_salt(b"t" * 32, 0)]
    assert len(set(drawn)) == 4


def credential(index: int, tree: rfc6962.Tree) -> BirthCredential:
    one = entry(index)
    keys = p256.from_coordinates(one.identity), p256.from_coordinates(one.attestation)
    path = tree.path(index)
    return BirthCredential(
        CHAIN, b"root", BATCH, tree.size, index, one.salt, path, one.mailbox, MODEL, *keys, ("http://127.0.0.1:8080",)
    )


def test_a_birth_credential_proves_its_place_in_the_batch() -> None:
    _, tree = batch_of(11)
    for index in (0, 5, 10):
        born = credential(index, tree)
        assert BirthCredential.decode(born.encode()) == born
        born.verify(tree.root)
    with pytest.raises(FirstlightError) as error:
        replace(credential(5, tree), index=4).verify(tree.root)
    assert refused(error) == "not-in-batch"
    with pytest.raises(FirstlightError) as error:
        replace(credential(5, tree), path=()).verify(tree.root)
    assert refused(error) == "bad-path"
    with pytest.raises(FirstlightError) as error:
        replace(credential(5, tree), index=11)
    assert refused(error) == "bad-index"


def test_a_birth_credential_of_a_large_batch_is_small() -> None:
    _, tree = batch_of(2)
    born = replace(credential(0, tree), size=1_000_000, path=(bytes(32),) * 20, root=bytes(160))
    assert len(born.encode()) < 1_250


# --- manifests ----------------------------------------------------------------------------------

SIZE = 37
ENTRIES, TREE = batch_of(SIZE)


def manifest_of(indices: list[int]) -> Manifest:
    return Manifest.build((CHAIN, BATCH, MODEL), [ENTRIES[index] for index in indices], TREE)


@pytest.mark.parametrize("indices", [list(range(SIZE)), [0], [SIZE - 1], [3, 4, 5, 9, 30, 36], list(range(1, SIZE, 2))])
def test_a_manifest_verifies_travels_and_passes_on_a_part(indices: list[int]) -> None:
    manifest = manifest_of(indices[::-1])
    manifest.verify(TREE.root, SIZE)
    assert Manifest.from_chunks(manifest.chunks()) == manifest
    assert list(manifest.indices()) == indices
    assert [one.index for one in manifest.entries()] == indices
    for count in {1, (len(indices) + 1) // 2, len(indices)}:
        part = manifest.subset(indices[-count:])
        assert part == manifest_of(indices[-count:])
        part.verify(TREE.root, SIZE)


def test_a_manifest_finds_its_devices() -> None:
    manifest = manifest_of([3, 9, 30])
    assert manifest.entry(9) == ENTRIES[9]
    assert manifest.entry(9).leaf(MODEL).hash() == TREE.leaf(9)
    for index in (0, 4, 31, SIZE):
        with pytest.raises(MalformedError) as error:
            manifest.entry(index)
        assert refused(error) == "not-in-manifest"
    with pytest.raises(MalformedError) as error:
        manifest.subset([3, 4])
    assert refused(error) == "not-in-manifest"
    with pytest.raises(MalformedError) as error:
        manifest.subset([])
    assert refused(error) == "empty-manifest"


def with_rows(*entries: Entry) -> Manifest:
    return replace(manifest_of([3, 9]), rows=b"".join(one.row() for one in entries))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: with_rows(ENTRIES[9], ENTRIES[3]), "unsorted-entries"),
        (lambda: with_rows(ENTRIES[3], ENTRIES[3]), "unsorted-entries"),
        (lambda: with_rows(ENTRIES[3], replace(ENTRIES[9], index=SIZE)), "bad-index"),
        (with_rows, "empty-manifest"),
        (lambda: replace(with_rows(ENTRIES[3]), rows=ENTRIES[3].row()[:-1]), "bad-manifest"),
        (lambda: replace(manifest_of([3, 9]), proof=b"x"), "bad-manifest"),
    ],
)
def test_a_malformed_manifest_is_refused(make: object, code: str) -> None:
    with pytest.raises(MalformedError) as error:
        make()  # type: ignore[operator]
    assert refused(error) == code


@pytest.mark.parametrize(
    ("manifest", "code"),
    [
        (with_rows(ENTRIES[3], replace(ENTRIES[9], salt=bytes(16))), "not-in-batch"),
        (with_rows(ENTRIES[3], replace(ENTRIES[9], index=10)), "not-in-batch"),
        (with_rows(ENTRIES[3], replace(ENTRIES[9], identity=b"\x01" * 64)), "bad-point"),
        (with_rows(ENTRIES[3], replace(ENTRIES[9], identity=ENTRIES[9].attestation)), "same-keys"),
        (replace(manifest_of([3, 9]), model=b"other"), "not-in-batch"),
        (replace(manifest_of([3, 9]), proof=manifest_of([3, 9]).proof[32:]), "bad-multiproof"),
        (replace(manifest_of([3, 9]), proof=manifest_of([3, 9]).proof + bytes(32)), "bad-multiproof"),
    ],
)
def test_a_manifest_that_does_not_fit_the_ledger_is_refused(manifest: Manifest, code: str) -> None:
    with pytest.raises(FirstlightError) as error:
        manifest.verify(TREE.root, SIZE)
    assert refused(error) == code


def test_a_manifest_for_another_batch_is_refused() -> None:
    with pytest.raises(FirstlightError) as error:
        manifest_of([3]).verify(TREE.root, SIZE + 1)
    assert refused(error) == "wrong-size"
    with pytest.raises(FirstlightError) as error:
        manifest_of([3]).verify(bytes(32), SIZE)
    assert refused(error) == "not-in-batch"


def test_chunks_that_lack_or_are_left_over_are_refused() -> None:
    chunks = list(manifest_of([3, 9]).chunks())
    cut = [*chunks[:-1], chunks[-1][:-1]]
    for bad in (chunks[:-1], chunks[1:], [*chunks, b"x"], [chunks[0], chunks[2], chunks[1]], cut, []):
        with pytest.raises(MalformedError):
            Manifest.from_chunks(bad)
    with pytest.raises(MalformedError) as error:
        Manifest.from_chunks([*chunks, b"x"])
    assert refused(error) == "bad-manifest"


def test_a_large_manifest_goes_in_many_chunks() -> None:
    count = ROWS_PER_CHUNK + 1
    rows = b"".join(replace(ENTRIES[0], index=index).row() for index in range(count))
    manifest = Manifest(CHAIN, BATCH, 2**20, MODEL, rows, bytes(32 * (NODES_PER_CHUNK + 1)))
    assert len(manifest) == count
    assert [len(chunk) for chunk in list(manifest.chunks())[1:]] == [
        32 * NODES_PER_CHUNK,
        32,
        180 * ROWS_PER_CHUNK,
        180,
    ]
    assert Manifest.from_chunks(manifest.chunks()) == manifest
