"""Making devices: what a factory burns in, and what it keeps.

    DEVICES/<index>/              birth.cbor, identity.pem, attestation.pem: one device's directory
    <state>/batches/<batch>/      secret, from which salts and mailbox secrets derive; batch.cbor; manifest

While a batch is being made its directory has a name that follows from the request; it gets its own once all devices are
there. Made again with the same request, what was interrupted goes on, with the same batch secret and the keys that
are there. The factory keeps no device's private key.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from firstlight import p256
from firstlight.custody.file import AgreementKey, SigningKey
from firstlight.encoding import Bytes16, ChainId, Record, encode
from firstlight.errors import ConfigError, StoreError
from firstlight.files import PRIVATE_FILE, private_directory, read_limited, sync_directory, write_atomic
from firstlight.identity.birth import BirthCredential, compressed, derive_mailbox, derive_salt
from firstlight.identity.manifest import Entry, Manifest
from firstlight.ledger.records import BatchSize, Model, batch_id
from firstlight.roles.holdings import MANIFEST, save_manifest
from firstlight.roles.registration import party_of
from firstlight.roles.workplace import Workplace, plain_url
from firstlight.trees import rfc6962

BATCHES = "batches"
BATCH = "batch.cbor"
SECRET = "secret"  # noqa: S105 - a file's name
BIRTH, IDENTITY, ATTESTATION = "birth.cbor", "identity.pem", "attestation.pem"
SECRET_SIZE = 32
MAX_BIRTH = 16_384
Progress = Callable[[int], None]
"""Told how many more steps are done; making N devices takes 2 N."""


@dataclass(frozen=True, slots=True)
class MadeBatch(Record):
    """What a factory knows of a batch besides its manifest and its secret."""

    chain: ChainId
    batch: Bytes16
    issuer: Bytes16
    size: BatchSize
    model: Model


@dataclass(frozen=True, slots=True)
class Make:
    """A request: so many devices of a model into the directory ``out``, told of these gateways."""

    count: int
    model: bytes
    out: Path
    gateways: tuple[str, ...]


def make(place: Workplace, asked: Make, progress: Progress) -> MadeBatch:
    """Make a batch of devices; they are durable when this returns.

    Raises :class:`ConfigError` (``devices-exist``: the directory holds other devices), :class:`StoreError`,
    :class:`MalformedError` (``wrong-shape``, ``bad-validity``) for a model or a gateway that does not fit.
    """
    issuer = party_of(place.directory)
    parent = private_directory(place.directory / BATCHES)
    workshop = parent / f"making-{_request_id(place, asked)}"
    if not workshop.exists() and asked.out.exists() and any(asked.out.iterdir()):
        raise ConfigError("devices-exist", f"{asked.out} is not empty", hint="make devices in a directory of their own")
    private_directory(workshop)
    secret = _secret(workshop / SECRET, place)
    private_directory(asked.out)
    entries = list(_entries(asked, secret, progress))
    tree = rfc6962.Tree([entry.leaf(asked.model).hash() for entry in entries])
    batch = batch_id(place.chain, issuer, asked.count, asked.model, tree.root)
    made = MadeBatch(place.chain, batch, issuer, asked.count, asked.model)
    for birth in _births(place, asked, made, entries, tree):
        _write(device_directory(asked.out, birth.index) / BIRTH, birth.encode())
        progress(1)
    _sync(asked.out)
    save_manifest(workshop / MANIFEST, Manifest.build((place.chain, batch, asked.model), entries, tree))
    write_atomic(workshop / BATCH, made.encode())
    _name(workshop, parent / batch.hex())
    return made


def device_directory(out: Path, index: int) -> Path:
    """Return the directory of a device among those in ``out``."""
    return out / f"{index:06}"


def batches(place: Workplace) -> Iterator[MadeBatch]:
    """Return the batches that were made, in no particular order; :class:`StoreError`, :class:`MalformedError`."""
    for path in sorted((place.directory / BATCHES).glob(f"*/{BATCH}")):
        if not path.parent.name.startswith("making-"):
            yield MadeBatch.decode(read_limited(path, 4_096))


def _request_id(place: Workplace, asked: Make) -> str:
    words = ["firstlight-make-1", place.chain, asked.count, asked.model, str(asked.out.resolve()), asked.gateways]
    return hashlib.sha256(encode(words)).hexdigest()[:16]


def _secret(path: Path, place: Workplace) -> bytes:
    """Return the batch secret, which is written before anything derives from it."""
    if not path.exists():
        write_atomic(path, place.random.bytes(SECRET_SIZE), exclusive=True)
    return read_limited(path, SECRET_SIZE, private=True)


def _entries(asked: Make, secret: bytes, progress: Progress) -> Iterator[Entry]:
    for index in range(asked.count):
        directory = device_directory(asked.out, index)
        directory.mkdir(mode=0o700, exist_ok=True)
        identity = _key(AgreementKey, directory / IDENTITY)
        attestation = _key(SigningKey, directory / ATTESTATION)
        mailbox = derive_mailbox(secret, index)
        yield Entry(
            index, derive_salt(secret, index), p256.coordinates(identity), p256.coordinates(attestation), mailbox
        )
        progress(1)


def _key(kind: type[AgreementKey] | type[SigningKey], path: Path) -> bytes:
    """Return the public half of the key at ``path``, which is made unless a whole one is there."""
    if path.exists():
        try:
            return kind.load(path).public
        except StoreError as error:
            if error.code != "bad-key":
                raise
            path.unlink()
    key, contents = kind.generate()
    _write(path, contents)
    return key.public


def _births(
    place: Workplace, asked: Make, made: MadeBatch, entries: list[Entry], tree: rfc6962.Tree
) -> Iterator[BirthCredential]:
    gateways = tuple(plain_url(url) for url in asked.gateways)
    for entry in entries:
        yield BirthCredential(
            chain=place.chain,
            root=place.genesis.root,
            batch=made.batch,
            size=made.size,
            index=entry.index,
            salt=entry.salt,
            path=tree.path(entry.index),
            mailbox=entry.mailbox,
            model=made.model,
            identity=compressed(entry.identity),
            attestation=compressed(entry.attestation),
            gateways=gateways,
        )


def _write(path: Path, data: bytes) -> None:
    """Write one of very many files: whole or not there for other processes, durable once :func:`_sync` has run."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_FILE)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, PRIVATE_FILE)
            file.write(data)
        temporary.replace(path)
    except OSError as error:
        raise StoreError("file-not-written", f"{path}: {error.strerror or error}") from error


def _sync(out: Path) -> None:
    os.sync()
    sync_directory(out)


def _name(workshop: Path, target: Path) -> None:
    """Give the finished batch its name; if the same one has it already, the workshop goes."""
    try:
        if target.exists():
            shutil.rmtree(workshop)
        else:
            workshop.rename(target)
    except OSError as error:
        raise StoreError("file-not-written", f"{target}: {error.strerror or error}") from error
