"""Bytes that nobody should send, to every HTTP endpoint of node, witness and gateway.

Whatever comes, the answer is a clear error of the sender's with a stable code, the server goes on, and nothing that it
keeps has changed.
"""

from __future__ import annotations

import hashlib
import random
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from firstlight.chain.witness import WitnessRequest
from firstlight.discovery.bundle import BundleRequest
from firstlight.encoding import decode, encode
from firstlight.errors import FirstlightError
from firstlight.ledger.records import GOVERNANCE, Role
from firstlight.ledger.transaction import MAX_BYTES, Deploy, parse
from firstlight.onboarding import wire
from firstlight.onboarding.device import Granted
from firstlight.onboarding.party import UNIFORM_ERROR
from firstlight.roles.gateway.blobs import MAX_BLOB
from firstlight.roles.holdings import find_holding
from firstlight.roles.wire import MailAnswer, MailRequest, ProofsRequest, ReceiptPut, ReceiptQuery
from firstlight.sealing.deposit import MAX_DEPOSIT, DepositEntry, DepositTarget, parse_deposit, sign_deposits
from firstlight.sealing.receipt import SEALED_SIZE as RECEIPT_SIZE
from firstlight.testing.handheld import Handheld, Said, ask
from firstlight.testing.lab import Lab
from firstlight.testing.strangers import Market
from firstlight.transports.endpoint import read_endpoint

SEED = 20_261_122
HUGE = 2**64 - 1
CODE = re.compile(r"[a-z]+(-[a-z0-9]+)*")
BOMBS = (
    b"",
    b"\x00",
    b"\xff",
    b"\x81" * 4_000 + b"\x00",
    b"\x9b" + b"\xff" * 8,
    b"\x5b" + b"\x7f" * 8,
    b"\x7a\xff\xff\xff\xff",
    b"\xbb" + b"\xff" * 8,
    b"\x9f" * 64,
    b"\xc2\x49" + b"\xff" * 9,
    b"\xd8\x1c\x81\xd8\x1d\x00",
    b"\xc0\x74not a time, after all",
    b"\x63\xff\xfe\xfd",
    b"\xfb\x7f\xf8" + bytes(6),
    b"\xa2\x00\x00\x00\x00",
    b'{"json": true}',
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to send what: a body that is honest, and the most bytes that the server takes."""

    url: str
    honest: bytes
    limit: int
    parse: Callable[[bytes], object]
    """What the server reads the body with."""
    others: frozenset[str] = frozenset()
    """The codes of what is well formed, and cannot be served."""
    method: str = "POST"

    def code(self, body: bytes) -> str:
        """Return the code with which a body must be refused, nothing if it can be read."""
        try:
            self.parse(body)
        except FirstlightError as error:
            return error.code
        return ""

    def send(self, body: bytes) -> Said:
        """Send a body."""
        return ask(self.url, body, method=self.method)


def spoilt(honest: bytes, chance: random.Random) -> Iterator[bytes]:
    """Return what is no message any more: cut, continued, written otherwise, random, and made to explode."""
    yield from (honest[:end] for end in (1, len(honest) // 2, len(honest) - 1))
    yield from (honest[: chance.randrange(len(honest))] for _ in range(6))
    yield honest + b"\x00"
    yield honest + honest
    yield b"\x98" + bytes([honest[0] & 0x1F]) + honest[1:]
    yield b"\x9f" + honest[1:] + b"\xff"
    yield b"\xd2" + honest
    yield from (chance.randbytes(chance.randrange(1, 400)) for _ in range(12))
    yield from BOMBS
    fields = len(decode(honest, limit=MAX_BYTES))
    yield from (encode(one) for one in ({}, [], None, "text", [None] * fields, [{}] * fields, [[]] * (fields + 1)))


def stretched(honest: bytes) -> Iterator[bytes]:
    """Return the message with one field after the other at, or beyond, its bounds."""
    fields = decode(honest, limit=MAX_BYTES)
    for at, field in enumerate(fields):
        others: Mapping[type, tuple[object, ...]] = {
            int: (0, -1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, HUGE, True, "0"),
            bytes: (b"", field + b"\x00" if isinstance(field, bytes) else b"", bytes(64), 0),
            str: ("", "\x00", "x" * 500, b""),
            list: ([], [field] * 2, [HUGE], [[]] * 3),
        }
        for other in others.get(type(field), (0, b"", [])):
            yield encode([*fields[:at], other, *fields[at + 1 :]])


@contextmanager
def unmoved(lab: Lab) -> Iterator[None]:
    """Check that node, gateway and witnesses keep what they kept, and that they are alive."""
    lab.settle()
    witnesses = [lab.places.witness(number) / "heads.cbor" for number in (1, 2, 3)]
    before = [path.read_bytes() for path in witnesses]
    with ExitStack() as stack:
        for state in (lab.places.node, lab.places.gateway):
            assert list(state.glob("*.sqlite"))
        stack.enter_context(lab.untouched())
        yield
    assert [path.read_bytes() for path in witnesses] == before
    lab.family.check()
    for url in (_node(lab), lab.url("gateway"), *lab.addresses.witnesses):
        assert ask(f"{url}/healthz", method="GET").status == 200


def _node(lab: Lab) -> str:
    return read_endpoint(lab.places.node).url


def clear(said: Said) -> bool:
    """Say whether an answer is the sender's mistake, clearly told."""
    return 400 <= said.status < 500 and bool(CODE.fullmatch(said.code)) and said.code != "internal"


def attack(lab: Lab, endpoint: Endpoint) -> None:
    """Send an endpoint what is honest, and then everything else."""
    chance = random.Random(SEED)
    assert endpoint.send(endpoint.honest).status == 200, endpoint.send(endpoint.honest).fields()
    with unmoved(lab):
        for body in spoilt(endpoint.honest, chance):
            said = endpoint.send(body)
            assert clear(said), (endpoint.url, body[:60].hex(), said)
            assert said.code == endpoint.code(body), (endpoint.url, body[:60].hex(), said)
        for extra in (1, 70_000):
            said = endpoint.send(endpoint.honest + bytes(endpoint.limit + extra - len(endpoint.honest)))
            assert (said.status, said.code) == (413, "too-large")
    for body in stretched(endpoint.honest):
        said = endpoint.send(body)
        assert clear(said) or said.status == 200, (endpoint.url, body[:200].hex(), said)
        if code := endpoint.code(body):
            assert said.code == code, (endpoint.url, body[:200].hex(), said)
        else:
            assert said.code in {"", *endpoint.others}, (endpoint.url, body[:200].hex(), said)
    lab.family.check()


def _bundle(lab: Lab) -> bytes:
    return BundleRequest(bytes(32), 0, 1, 1, bytes.fromhex(lab.batch), 0, 0, (GOVERNANCE,)).encode()


def _transaction(lab: Lab) -> bytes:
    market = Market(lab.addresses.node, lab.places.consortium)
    lot = market.lot(market.join(Role.MANUFACTURER), 4)
    return market.make(Deploy(lot.batch, 1, bytes(32), None), lot.keys[1])


def _witness(lab: Lab) -> bytes:
    market = Market(lab.addresses.node, lab.places.consortium)
    return WitnessRequest(market.chain, market.height(), bytes(32)).encode()


def _deposit(lab: Lab) -> bytes:
    holding = find_holding(lab.places.owner, bytes.fromhex(lab.batch), lab.holding.tenure)
    held = Handheld.open(lab.spare[-1])
    found = held.found()
    target = DepositTarget(held.birth.chain, held.gateway, holding.batch, holding.origin, found.standing.plan_revision)
    answer = ask(f"{held.gateway}/v1/mail", MailRequest((held.locator,)).encode())
    entry = DepositEntry(held.locator, MailAnswer.decode(answer.body).envelopes[-1])
    (deposit,) = sign_deposits(target, [entry], holding.owner())
    return deposit


Case = tuple[Callable[[Lab], bytes], int, Callable[[bytes], object]]
NODE: Mapping[str, Case] = {
    "transactions": (_transaction, MAX_BYTES, parse),
    "bundles": (_bundle, BundleRequest.LIMIT, BundleRequest.decode),
    "proofs": (
        lambda lab: ProofsRequest((BundleRequest.decode(_bundle(lab)),)).encode(),
        ProofsRequest.LIMIT,
        ProofsRequest.decode,
    ),
}
GATEWAY: Mapping[str, Case] = {
    "bundles": (_bundle, BundleRequest.LIMIT, BundleRequest.decode),
    "mail": (lambda _: MailRequest((bytes(16),)).encode(), MailRequest.LIMIT, MailRequest.decode),
    "receipts": (
        lambda _: ReceiptPut(bytes(16), bytes(RECEIPT_SIZE)).encode(),
        ReceiptPut.LIMIT,
        ReceiptPut.decode,
    ),
    "receipts/read": (
        lambda _: ReceiptQuery((bytes(16),), 0).encode(),
        ReceiptQuery.LIMIT,
        ReceiptQuery.decode,
    ),
}
UNPROVABLE = frozenset({"head-not-kept"})


@pytest.mark.parametrize("name", NODE)
def test_a_node_survives_any_bytes(lab: Lab, name: str) -> None:
    """Somebody would stop the ledger, or slip in what no rule has looked at."""
    make, limit, read = NODE[name]
    attack(lab, Endpoint(f"{_node(lab)}/v1/{name}", make(lab), limit, read, UNPROVABLE))


UNSIGNED = frozenset({"bad-signature", "unknown-key", "wrong-key", "bad-key-id"})
UNSEEN = frozenset({"wrong-chain", "witness-unknown-head"})


def test_a_witness_survives_any_bytes(lab: Lab) -> None:
    """Somebody would silence a witness, or have it sign what it has not seen."""
    url = f"{lab.addresses.witnesses[0]}/v1/witness"
    attack(lab, Endpoint(url, _witness(lab), WitnessRequest.LIMIT, WitnessRequest.decode, UNSEEN))
    market = Market(lab.addresses.node, lab.places.consortium)
    height = market.height()
    with unmoved(lab):
        for chain, number, code in (
            ("another", height, "wrong-chain"),
            (market.chain, height + 1, "witness-unknown-head"),
            (market.chain, 2**62, "witness-unknown-head"),
        ):
            assert ask(url, WitnessRequest(chain, number, bytes(32)).encode()).code == code


@pytest.mark.parametrize("name", GATEWAY)
def test_a_gateway_survives_any_bytes(lab: Lab, name: str) -> None:
    """Somebody would stop a gateway, or fill it."""
    make, limit, read = GATEWAY[name]
    attack(lab, Endpoint(f"{lab.url('gateway')}/v1/{name}", make(lab), limit, read, UNPROVABLE))


def test_a_gateways_deposits_survive_any_bytes(lab: Lab) -> None:
    """Somebody would stop a gateway with mail."""
    attack(lab, Endpoint(f"{lab.url('gateway')}/v1/deposits", _deposit(lab), MAX_DEPOSIT, parse_deposit, UNSIGNED))


def test_a_gateways_bodies_survive_any_bytes(lab: Lab) -> None:
    """Somebody puts bodies with names that are none, and bodies that are none."""
    chance, url = random.Random(SEED), f"{lab.url('gateway')}/v1/blobs"
    query = f"issuer={'00' * 16}&model={b'fl-1'.hex()}&identifier={'00' * 16}"
    live = dict[str, bytes]()
    for own in (lab.places.manufacturer / "references").glob("*.corim"):
        genuine, digest = own.read_bytes(), hashlib.sha256(own.read_bytes()).hexdigest()
        named = f"issuer={lab.parties['manufacturer']}&model={b'fl-1'.hex()}&identifier={own.stem}"
        said = ask(f"{url}/{digest}?{named}", genuine, method="PUT")
        assert said.status == 200 or said.code == "reference-revoked"
        if said.status == 200:
            live[named] = genuine
            assert ask(f"{url}/{digest}", method="GET").body == genuine
    named = next(iter(live))

    def put(body: bytes, digest: str, query: str) -> str:
        said = ask(f"{url}/{digest}?{query}", body, method="PUT")
        assert clear(said), said
        return said.code

    with unmoved(lab):
        for body in (*BOMBS, *(chance.randbytes(chance.randrange(1, 900)) for _ in range(12))):
            digest = hashlib.sha256(body).hexdigest()
            assert put(body, digest, query) == "reference-unknown"
            assert put(body, digest, named) == "wrong-digest"
            assert put(body, digest, "") == "bad-reference-name"
            assert put(body, "00" * 32, query) == "wrong-digest"
        for text in ("", "issuer=zz", "issuer=%ff&model=%00&identifier=", "a=" * 300, query.replace("00", "0")):
            assert put(b"x", hashlib.sha256(b"x").hexdigest(), text) == "bad-reference-name"
        said = ask(f"{url}/{'00' * 32}?{query}", bytes(MAX_BLOB + 1), method="PUT")
        assert (said.status, said.code) == (413, "too-large")
        for digest in ("zz", "00", "00" * 33, "%00", "%ff%fe", "..%2f..%2fgateway.toml", "é".encode().hex()):
            assert ask(f"{url}/{digest}", method="GET").code == "not-found"


def test_a_gateways_relay_survives_any_bytes(lab: Lab) -> None:
    """Somebody sends a party, through the gateway, what is no handshake, and names parties that are none."""
    wanted: list[str] = []
    chance, mno = random.Random(SEED), lab.parties["mno"]
    url = f"{lab.url('gateway')}/relay"
    manufacturer = lab.parties["manufacturer"]
    held = Handheld.open(lab.device())
    found = held.found()
    assert isinstance(held.onboard(found, held.acting(found, found.plan.network)), Granted)
    bodies = [*BOMBS, *(chance.randbytes(chance.randrange(1, 3_000)) for _ in range(24))]
    with unmoved(lab), lab.heard("mno") as codes:
        for body in bodies:
            said = ask(f"{url}/{mno}{wire.PATH}", body, content_type=wire.MEDIA_TYPE_REQUEST)
            assert said.content_type == wire.MEDIA_TYPE
            assert said.body == UNIFORM_ERROR
        said = ask(f"{url}/{mno}{wire.PATH}", bytes(wire.MAX_REQUEST + 1))
        assert (said.status, said.code) == (413, "too-large")
        for party, code in (
            ("00", "bad-party-id"),
            ("zz" * 16, "bad-party-id"),
            ("00" * 17, "bad-party-id"),
            ("00" * 16, "unknown-party"),
            (manufacturer, "not-relayed"),
        ):
            said = ask(f"{url}/{party}{wire.PATH}", b"\xf5")
            assert (clear(said), said.code) == (True, code)
    for body in bodies:
        with pytest.raises(FirstlightError) as why:
            wire.parse_request(body)
        wanted.append(why.value.code)
    assert codes == wanted


def test_names_in_paths_are_looked_up_or_refused(lab: Lab) -> None:
    """Somebody asks for heights, transactions and paths that are none."""
    node = _node(lab)
    height = Market(lab.addresses.node, lab.places.consortium).height()
    assert ask(f"{node}/v1/headers/{height}", method="GET").status == 200
    texts = (
        "0",
        "-1",
        "abc",
        "%00",
        "%d9%a3",
        "1e3",
        "0x1",
        str(2**63 - 1),
        str(2**63),
        str(2**64),
        "9" * 19,
        "9" * 600,
    )
    with unmoved(lab):
        for text in texts:
            for what in ("headers", "transactions"):
                said = ask(f"{node}/v1/{what}/{text}", method="GET")
                assert (said.status, said.code) == (404, "not-found"), (what, text, said)
        for url in (node, lab.url("gateway"), lab.addresses.witnesses[0]):
            assert ask(f"{url}/v1/nothing", b"x").code == "not-found"
            assert ask(f"{url}/healthz", b"x").code == "wrong-method"
            assert ask(f"{url}/v1/../../etc/passwd", method="GET").code == "not-found"


def test_a_height_beyond_the_chain_is_no_head(lab: Lab) -> None:
    """Somebody asks for proofs under heads that are not there."""
    honest = BundleRequest.decode(_bundle(lab))
    for url in (_node(lab), lab.url("gateway")):
        assert ask(f"{url}/v1/bundles", honest.encode()).status == 200
        for height in (2**31, 2**63 - 1, 2**63, HUGE):
            fields = [bytes(32), height, *honest.to_cbor()[2:]]
            with lab.untouched():
                said = ask(f"{url}/v1/bundles", encode(fields))
            assert (clear(said), said.code) == (True, "head-not-kept"), said


def test_servers_survive_what_is_not_even_http(lab: Lab) -> None:
    """Somebody opens connections and sends noise, half a request, a request without an end, and nothing at all."""
    chance = random.Random(SEED)
    urls = (_node(lab), lab.url("gateway"), *lab.addresses.witnesses)
    head = b"POST /v1/bundles HTTP/1.1\r\nhost: x\r\ncontent-type: application/cbor\r\n"
    pieces = (
        b"",
        chance.randbytes(4_000),
        head,
        head + b"content-length: 4000\r\n\r\nhalf",
        head + b"content-length: -1\r\n\r\n",
        head + b"content-length: " + b"9" * 300 + b"\r\n\r\n",
        head + b"transfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        head + b"transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
        head + b"x: " + b"y" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000,
    )
    with unmoved(lab):
        for url in urls:
            for piece in pieces:
                _throw(url, piece)


def _throw(url: str, data: bytes) -> None:
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=120) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65_536):
                pass
        except ConnectionError:
            pass
