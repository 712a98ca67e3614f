"""Parsers of bytes without a secret: encoding, signatures, records of every kind, trees, JSON, TOML, certificates."""

from __future__ import annotations

import functools
import json
from dataclasses import replace

from tests.fuzz.target import Parser, Target, records
from tests.unit.chain.test_rpc import form

from firstlight import cose, encoding, p256, settings
from firstlight.attestation.evidence import parse_evidence
from firstlight.attestation.reference import parse_reference
from firstlight.chain import ed25519, root, rpc
from firstlight.discovery.bundle import Bundle, BundleRequest, StateProof
from firstlight.discovery.verify import verify_bundle, verify_follow_up
from firstlight.enrolment import issue, request
from firstlight.errors import ConfigError, MalformedError, ProofError
from firstlight.identity.manifest import Manifest
from firstlight.ledger import transaction
from firstlight.ledger.records import party_name
from firstlight.plan import claims, order
from firstlight.roles.holdings import read_selection
from firstlight.testing.bundles import BATCH, NETWORK, Ledger
from firstlight.testing.chains import P256Key
from firstlight.testing.random import SeededRandom
from firstlight.transports import body
from firstlight.transports.plain import _Answer
from firstlight.trees import rfc6962, sparse, varint
from firstlight.trees.ownership import proof
from firstlight.trees.ownership.pages import InnerPage, LeafPage, uniform_page
from firstlight.trees.ownership.selection import Selection

TYPES = ("transaction", "root", "epoch", "witness", "order", "deposit", "receipt")
KINDS = (
    settings.NodeSettings,
    settings.GatewaySettings,
    settings.WitnessSettings,
    settings.ConsortiumSettings,
    settings.ManufacturerSettings,
    settings.OwnerSettings,
    settings.MnoSettings,
    settings.SpSettings,
    settings.DeviceSettings,
)


def _cose() -> tuple[Parser, ...]:
    return tuple(functools.partial(cose.parse, typ=f"application/firstlight-{name}+cbor") for name in TYPES)


def _sequence(data: bytes) -> object:
    return encoding.decode_sequence(data, items=8)


def _again(data: bytes) -> None:
    """What decodes encodes to the same bytes."""
    assert encoding.encode(encoding.decode(data)) == data


def _settings(data: bytes) -> None:
    for kind in KINDS:
        try:
            settings.parse(kind, data, "it")
        except MalformedError as error:  # a setting is wrong, never malformed
            raise AssertionError from error
        except ConfigError:
            continue


def _bundles() -> Target:
    ledger = Ledger()
    asked = ledger.trust.request(bytes(32), batch=BATCH, names=(party_name(NETWORK),))
    honest = ledger.answer(asked)
    view = verify_bundle(honest, asked, trust=ledger.trust, batch_size=ledger.size)

    def whole(data: bytes) -> object:
        return verify_bundle(Bundle.decode(data), asked, trust=ledger.trust, batch_size=ledger.size)

    def state(data: bytes) -> object:
        return verify_follow_up(StateProof.decode(data), asked, view=view, batch_size=ledger.size)

    def mixed(data: bytes) -> object:
        return verify_bundle(replace(honest, state=StateProof.decode(data)), asked, trust=ledger.trust)

    def answered(data: bytes) -> object:
        return ledger.state(BundleRequest.decode(data))

    seeds = (honest.encode(), honest.state.encode(), asked.encode())
    return Target("bundles", (whole, state, mixed, answered), ("discovery",), seeds)


def _selection(data: bytes) -> None:
    found = Selection.decode(data)
    assert found.encode() == data
    assert found.nodes(40) >= 0
    assert found.pages() >= 0


def _ownership(data: bytes) -> None:
    found = proof.OwnershipProof.decode(data)
    for size, bits, length in ((1, 0, 0), (1000, 3, 2), (1 << 32, 5, 32)):
        try:
            proof.verify(bytes(32), size, bits, length, found)
        except ProofError:
            continue


def _multiproof(data: bytes) -> None:
    found = sparse.Multiproof.decode(data)
    for count in (1, 2, 5):
        try:
            sparse.verify(bytes(32), {bytes([n * 50]) * 32: b"x" if n & 1 else None for n in range(count)}, found)
        except ProofError:
            continue


def _paths(data: bytes) -> None:
    parts = [data[at : at + 32] for at in range(0, len(data), 32)]
    for size in (1, 3, 1 << 20):
        for check in (
            lambda size=size: rfc6962.root_from_path(bytes(32), size - 1, size, parts),
            lambda size=size: rfc6962.root_from_multiproof({0: bytes(32), size - 1: bytes(32)}, size, parts),
        ):
            try:
                check()
            except ProofError:
                continue


def _pieces(data: bytes) -> Manifest:
    """Read a manifest whose chunks stand behind lengths of two bytes."""
    chunks = []
    while data:
        length = int.from_bytes(data[:2])
        chunks.append(data[2 : 2 + length])
        data = data[2 + length :]
    found = Manifest.from_chunks(chunks)
    list(found.indices())
    list(found.leaf_hashes())
    found.verify(bytes(32), found.size)
    return found


def _text(data: bytes) -> object:
    return read_selection(data.decode("latin-1").replace("/", "_"))


def _error(data: bytes) -> None:
    for kind in ("application/cbor", "application/json", "text/html"):
        body.parse_error(400, kind, data)


def _answer(data: bytes) -> bytes:
    answer = _Answer(1000)
    for at in range(0, len(data), 50):
        answer.feed(data[at : at + 50])
    return answer.body()


def _question(data: bytes) -> object:
    return rpc.parse_question(data).verdict()


_RANDOM = SeededRandom(1)
_AUTHORITY = issue.create_authority(P256Key("authority"), title="it", now=10**9, lifetime=10**8, random=_RANDOM)
_DEVICE = P256Key("device")
_ISSUED = issue.issue_client(_AUTHORITY, _DEVICE.public, now=10**9, lifetime=1000, random=_RANDOM)
_CRL = issue.issue_crl(_AUTHORITY, (), number=1, now=10**9, lifetime=1000)


def _certificate(data: bytes) -> object:
    return issue.open_client(data, anchor=_AUTHORITY.certificate, public=_DEVICE.public, now=10**9)


def _anchor(data: bytes) -> object:
    return issue.open_client(_ISSUED.certificate, anchor=data, public=_DEVICE.public, now=10**9)


def _crl_anchor(data: bytes) -> object:
    return issue.crl_serials(_CRL, anchor=data)


def _crl(data: bytes) -> object:
    return issue.crl_serials(data, anchor=_AUTHORITY.certificate)


_HTTP = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/cbor\r\ncontent-length: 1\r\n\r\n\x00",
    b"HTTP/1.1 400 Bad\r\ntransfer-encoding: chunked\r\ncontent-type: application/json\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b'{"code":"not-found","detail":"no such thing","hint":""}',
)

TARGETS = (
    Target("encoding", (encoding.decode, _sequence, _again, varint.unpack), ("encoding", "records")),
    Target(
        "points",
        (p256.load, p256.from_x, p256.from_coordinates, lambda data: ed25519.verify(data[:32], b"", data[32:])),
        ("keys",),
    ),
    Target("cose", _cose(), ("cose", "governance", "plan")),
    Target("transactions", (transaction.parse, *records("firstlight.ledger")), ("transactions", "records")),
    Target(
        "headers",
        (root.known_root, root.known_epoch, root.open_root, *records("firstlight.chain", "firstlight.roles.wire")),
        ("governance", "discovery", "http"),
    ),
    _bundles(),
    Target("proofs", (_ownership, _multiproof, _paths), ("trees",)),
    Target(
        "pages",
        (
            _selection,
            _text,
            *(functools.partial(kind.decode, width=width) for kind in (LeafPage, InnerPage) for width in (1, 1024)),
        ),
        ("trees",),
        (b"1-5,7,9", uniform_page(0, 2).encode(), uniform_page(1, 2).encode()),
    ),
    Target("manifests", (_pieces, *records("firstlight.identity")), ("manifest", "identity")),
    Target("plans", (claims.parse_claim, order.parse_order, *records("firstlight.plan")), ("plan",)),
    Target(
        "evidence",
        (parse_evidence, parse_reference, *records("firstlight.attestation")),
        ("attestation", "onboarding-network"),
    ),
    Target(
        "certificates",
        (request.check_request, _certificate, _anchor, _crl, _crl_anchor),
        (),
        (request.build_request(_DEVICE), _ISSUED.certificate, _AUTHORITY.certificate, _CRL),
    ),
    Target(
        "settings",
        (_settings,),
        (),
        (b'chain = "c"\nhost = "127.0.0.1"\nport = 1\n', b"[a]\nb = [1, 2.5, 1979-05-27]\n"),
    ),
    Target("bodies", (body.parse_json, _error, _answer), ("http",), _HTTP),
    Target("light", (_question,), (), (json.dumps(form()).encode(),)),
)
