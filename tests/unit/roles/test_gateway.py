"""A gateway on loopback: what it keeps for whom, what it refuses, and what it passes on."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response as Answer
from starlette.routing import Route

from firstlight.discovery.bundle import BundleRequest
from firstlight.errors import FirstlightError, TransportError
from firstlight.ledger.records import PartyStatus, Role, batch_id
from firstlight.ledger.transaction import (
    Accept,
    Deploy,
    Offer,
    PublishReference,
    RevokeReference,
    SetName,
    SuspendParty,
    UpdateParty,
    Withdraw,
)
from firstlight.onboarding.wire import MAX_REQUEST, MAX_RESPONSE, MEDIA_TYPE
from firstlight.ports import Signer
from firstlight.roles.gateway.server import DATABASE
from firstlight.roles.wire import (
    DepositAnswer,
    MailAnswer,
    MailRequest,
    Proofs,
    ReceiptPage,
    ReceiptPut,
    ReceiptQuery,
)
from firstlight.sealing import envelope, receipt
from firstlight.sealing.deposit import DepositEntry, DepositTarget, sign_deposits
from firstlight.testing.chains import P256Key
from firstlight.testing.ledgers import MODEL, anchor_batch, register_party
from firstlight.testing.nodes import CHAIN, Servers, World, world
from firstlight.transports.admission import Admission, OverloadError, Rate
from firstlight.transports.client import RemoteError
from firstlight.transports.server import application, raw, read_body
from firstlight.trees.ownership import Selection

MAKER, FIRST, BUYER = P256Key("maker"), P256Key("first owner"), P256Key("buyer")
PLAN = hashlib.sha256(b"plan").digest()
SIZE = 8
Test = Callable[[World], Awaitable[None]]


def run(directory: Path, test: Test) -> None:
    async def main() -> None:
        async with world(directory, witnesses=2, threshold=1) as w:
            await test(w)

    asyncio.run(main())


def anchored(w: World) -> bytes:
    """Anchor a batch, whose tenure 1 is the first owner's, and return its id."""
    party = w.register(MAKER, Role.MANUFACTURER)
    w.do(anchor_batch(party, FIRST.public, size=SIZE), MAKER)
    return batch_id(CHAIN, party, SIZE, MODEL, bytes(32))


def entries(count: int, mark: int = 1) -> list[DepositEntry]:
    sealed = bytes([mark]) * envelope.SEALED_SIZE
    return [DepositEntry(hashlib.sha256(bytes([number])).digest()[:16], sealed) for number in range(count)]


def signed(batch: bytes, listed: list[DepositEntry], signer: Signer = FIRST, **changes: object) -> bytes:
    target = replace(DepositTarget(CHAIN, "north", batch, 1, 1), **changes)  # type: ignore[arg-type]
    return next(sign_deposits(target, listed, signer))


async def deposit(w: World, data: bytes) -> int:
    return DepositAnswer.decode(await w.client.post(f"{w.gateway_url}/v1/deposits", data)).filled


async def mail(w: World, *locators: bytes) -> tuple[bytes, ...]:
    body = await w.client.post(f"{w.gateway_url}/v1/mail", MailRequest(locators).encode())
    return MailAnswer.decode(body).envelopes


async def code_of(call: Awaitable[object]) -> str:
    with pytest.raises(FirstlightError) as caught:
        await call
    return caught.value.code


# --- deposits and mail ------------------------------------------------------------------------


def test_an_owner_deposits_the_next_revision_first_and_then_deploys(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        batch = anchored(w)
        listed = entries(3)
        assert await deposit(w, signed(batch, listed)) == 3
        assert await deposit(w, signed(batch, listed)) == 3
        locator = listed[0].locator
        assert await mail(w, locator, bytes(16)) == (listed[0].envelope,)
        assert await code_of(deposit(w, signed(batch, listed, revision=2))) == "revision-not-current"
        w.do(Deploy(batch, 1, PLAN, None), FIRST)
        newer = entries(3, 2)
        assert await deposit(w, signed(batch, newer, revision=2)) == 3
        assert await mail(w, locator) == (listed[0].envelope, newer[0].envelope)
        w.do(Deploy(batch, 1, PLAN[::-1], None), FIRST)
        assert await deposit(w, signed(batch, newer, revision=3)) == 3
        assert await mail(w, locator) == (newer[0].envelope, newer[0].envelope)

    run(tmp_path, test)


def test_a_tenure_has_no_more_slots_than_devices(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        batch = anchored(w)
        assert await code_of(deposit(w, signed(batch, entries(SIZE + 1)))) == "slots-full"
        assert await deposit(w, signed(batch, entries(SIZE))) == SIZE
        offered = Offer(batch, 1, BUYER.public, w.clock.seconds + 60, Selection.of([(0, 5)]))
        number = w.do(offered, FIRST).tenure
        assert await code_of(deposit(w, signed(batch, entries(SIZE), BUYER, tenure=number))) == "tenure-not-held"
        assert await deposit(w, signed(batch, entries(SIZE, 2))) == SIZE
        w.do(Accept(batch, number, bytes(32), 0), BUYER)
        assert await code_of(deposit(w, signed(batch, entries(6), BUYER, tenure=number))) == "slots-full"
        assert await deposit(w, signed(batch, entries(5), BUYER, tenure=number)) == 5
        assert await code_of(deposit(w, signed(batch, entries(5), FIRST, tenure=number))) == "unknown-key"
        back = w.do(Offer(batch, 1, MAKER.public, w.clock.seconds + 60, Selection.of([(6, 2)])), FIRST).tenure
        w.do(Withdraw(batch, back), FIRST)
        assert await code_of(deposit(w, signed(batch, entries(1), FIRST, tenure=back))) == "tenure-not-held"

    run(tmp_path, test)


REFUSED: tuple[tuple[dict[str, object], Signer, str], ...] = (
    ({"batch": bytes(16)}, FIRST, "unknown-batch"),
    ({"tenure": 2}, FIRST, "unknown-tenure"),
    ({}, BUYER, "unknown-key"),
    ({"chain": "other-1"}, FIRST, "wrong-chain"),
    ({"gateway": "south"}, FIRST, "wrong-gateway"),
    ({"revision": 7}, FIRST, "revision-not-current"),
)


def test_a_deposit_that_is_refused_changes_nothing(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        batch = anchored(w)
        listed, other = entries(2), entries(2, 9)
        assert await deposit(w, signed(batch, listed)) == 2
        for changes, signer, code in REFUSED:
            target = replace(DepositTarget(CHAIN, "north", batch, 1, 1), **changes)  # type: ignore[arg-type]
            assert await code_of(deposit(w, next(sign_deposits(target, other, signer)))) == code
            assert await mail(w, listed[0].locator) == (listed[0].envelope,)
        broken = bytearray(signed(batch, other))
        broken[-1] ^= 1
        assert await code_of(deposit(w, bytes(broken))) == "bad-signature"
        assert await mail(w, listed[0].locator) == (listed[0].envelope,)
        assert await deposit(w, signed(batch, other)) == 2

    run(tmp_path, test)


def test_receipts_are_read_by_cursor(tmp_path: Path) -> None:
    async def read(w: World, *locators: bytes, after: int = 0) -> ReceiptPage:
        query = ReceiptQuery(locators, after).encode()
        return ReceiptPage.decode(await w.client.post(f"{w.gateway_url}/v1/receipts/read", query))

    async def leave(w: World, locator: bytes, mark: int) -> None:
        put = ReceiptPut(locator, bytes([mark]) * receipt.SEALED_SIZE)
        await w.client.post(f"{w.gateway_url}/v1/receipts", put.encode())

    async def test(w: World) -> None:
        one, two = b"1" * 16, b"2" * 16
        for mark in (1, 2):
            await leave(w, one, mark)
            await leave(w, two, mark)
        await leave(w, one, 1)
        page = await read(w, one, two)
        assert [(found.locator, found.sealed[0]) for found in page.receipts] == [(one, 1), (two, 1), (one, 2), (two, 2)]
        after = page.receipts[1].cursor
        assert [found.locator for found in (await read(w, one, after=after)).receipts] == [one]
        assert (await read(w, one, after=page.receipts[-1].cursor)).receipts == ()
        short = ReceiptPut(one, bytes(receipt.SEALED_SIZE)).encode()[:-1]
        assert await code_of(w.client.post(f"{w.gateway_url}/v1/receipts", short)) == "not-cbor"
        assert len((await read(w, one, two)).receipts) == 4

    run(tmp_path, test)


# --- bodies -----------------------------------------------------------------------------------


def test_bodies_are_kept_only_while_the_ledger_names_them(tmp_path: Path) -> None:
    async def put(w: World, body: bytes, party: bytes, identifier: bytes, digest: bytes = b"") -> None:
        named = f"issuer={party.hex()}&model={MODEL.hex()}&identifier={identifier.hex()}"
        url = f"{w.gateway_url}/v1/blobs/{(digest or hashlib.sha256(body).digest()).hex()}?{named}"
        await w.client.request("PUT", url, body=body)

    async def test(w: World) -> None:
        party = w.register(MAKER, Role.MANUFACTURER)
        body, identifier = b"a body" * 100, b"i" * 16
        digest = hashlib.sha256(body).digest()
        url = f"{w.gateway_url}/v1/blobs/{digest.hex()}"
        assert await code_of(put(w, body, party, identifier)) == "reference-unknown"
        w.do(PublishReference(party, MODEL, identifier, digest, 1, 0, 2**33), MAKER)
        assert await code_of(w.client.get(url)) == "not-found"
        assert await code_of(put(w, b"another", party, identifier)) == "wrong-digest"
        assert await code_of(put(w, b"another", party, identifier, digest)) == "wrong-digest"
        assert await code_of(put(w, bytes(20_000), party, identifier)) == "too-large"
        assert await code_of(put(w, body, bytes(16), identifier)) == "reference-unknown"
        assert await code_of(put(w, body, b"", identifier)) == "bad-reference-name"
        assert await code_of(w.client.get(url)) == "not-found"
        await put(w, body, party, identifier)
        assert await w.client.get(url) == body
        w.do(RevokeReference(party, SetName(MODEL, identifier), None), MAKER)
        assert await code_of(put(w, body, party, identifier)) == "reference-revoked"

    run(tmp_path, test)


# --- relay ------------------------------------------------------------------------------------


async def party_server(servers: Servers, status: int = 200, size: int = 0) -> str:
    async def answer(request: Request) -> Answer:
        return raw(size * b"x" or b"answer to " + await read_body(request), MEDIA_TYPE, status)

    return await servers.start(application("mno", [Route("/.well-known/edhoc", answer, methods=["POST"])]))


def test_the_relay_reaches_the_endpoint_on_the_ledger_and_no_other(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        mno, sp = P256Key("mno"), P256Key("other mno")
        async with Servers() as servers:
            first, second = await party_server(servers), await party_server(servers, 400)
            body = replace(register_party(mno, roles=[Role.MNO]), endpoints=(first,))
            party = w.register(mno, body=body)
            client, url = w.client, f"{w.gateway_url}/relay/{party.hex()}/.well-known/edhoc"
            answer = await client.forward(url, b"message_1", "application/cid-edhoc+cbor-seq")
            assert (answer.status, answer.content_type, answer.body) == (200, MEDIA_TYPE, b"answer to message_1")
            unknown = f"{w.gateway_url}/relay/{bytes(16).hex()}/.well-known/edhoc"
            assert await code_of(client.post(unknown, b"")) == "unknown-party"
            assert await code_of(client.post(f"{w.gateway_url}/relay/00/.well-known/edhoc", b"")) == "bad-party-id"
            assert await code_of(client.post(url, bytes(MAX_REQUEST + 1))) == "too-large"
            w.do(UpdateParty(party, 2, None, (second,), None), mno)
            w.clock.advance(6)
            answer = await client.forward(url, b"again", "application/cid-edhoc+cbor-seq")
            assert (answer.status, answer.body) == (400, b"answer to again")
            w.do(SuspendParty(party, PartyStatus.SUSPENDED), w.member(1), w.member(2), sequence=3)
            w.clock.advance(6)
            assert await code_of(client.post(url, b"")) == "party-suspended"
            other = w.register(sp, Role.MNO)
            assert await code_of(client.post(url.replace(party.hex(), other.hex()), b"")) == "not-relayed"

    run(tmp_path, test)


def test_the_relay_bounds_what_a_party_answers(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with Servers() as servers:
            big = await party_server(servers, size=MAX_RESPONSE + 1)
            names = {"big": big, "gone": "http://127.0.0.1:9"}
            codes = {}
            for name, endpoint in names.items():
                key = P256Key(name)
                party = w.register(key, body=replace(register_party(key, roles=[Role.MNO]), endpoints=(endpoint,)))
                url = f"{w.gateway_url}/relay/{party.hex()}/.well-known/edhoc"
                codes[name] = await code_of(w.client.post(url, b"message"))
            assert codes == {"big": "response-too-large", "gone": "unreachable"}

    run(tmp_path, test)


# --- state ------------------------------------------------------------------------------------


def test_a_gateway_tells_its_name_and_keeps_no_keys(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        assert await w.client.get_json(f"{w.gateway_url}/v1/name") == {"name": "north", "chain": CHAIN}
        place = tmp_path / "gateway"
        assert (place / DATABASE).stat().st_mode & 0o777 == 0o600
        assert not list(place.glob("*.pem"))

    run(tmp_path, test)


def test_a_gateway_whose_node_is_gone_says_so(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        await w.node.bundles.close()
        w.gateway.bundles._source = Gone()
        assert await code_of(w.gateway.ledger.records("party/" + "00" * 16)) == "unreachable"
        with pytest.raises(RemoteError) as caught:
            await deposit(w, signed(bytes(16), entries(1)))
        assert (caught.value.code, caught.value.status) == ("unreachable", 502)

    run(tmp_path, test)


class Gone:
    async def prove(self, requests: Sequence[BundleRequest]) -> Proofs:
        raise TransportError("unreachable", "nobody there")


def test_the_relay_lets_each_address_begin_so_often(tmp_path: Path) -> None:
    """A flood of message 1 from one address leaves their share to the others; message 3 is never in its way."""
    begins, goes_on = b"\xf5rest", b"\x58rest"

    async def test(w: World) -> None:
        async with Servers() as servers:
            url = await party_server(servers)
            body = replace(register_party(P256Key("mno"), roles=[Role.MNO]), endpoints=(url,))
            party = w.register(P256Key("mno"), body=body)
            w.gateway.admission = Admission(w.clock, source=Rate(1, 3), total=Rate(10, 100))
            for _ in range(3):
                assert (await w.gateway.carry(party, begins, "192.0.2.1")).status_code == 200
            with pytest.raises(OverloadError) as caught:
                await w.gateway.carry(party, begins, "192.0.2.1")
            assert (caught.value.code, caught.value.retry_after) == ("rate-limited", 1)
            assert (await w.gateway.carry(party, goes_on, "192.0.2.1")).status_code == 200
            assert (await w.gateway.carry(party, begins, "192.0.2.2")).status_code == 200

    run(tmp_path, test)


def test_the_relay_passes_on_when_to_come_back(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async def busy(_: Request) -> Answer:
            return Answer(b"", 429, {"retry-after": "7"})

        async with Servers() as servers:
            route = Route("/.well-known/edhoc", busy, methods=["POST"])
            url = await servers.start(application("party", [route]))
            body = replace(register_party(P256Key("mno"), roles=[Role.MNO]), endpoints=(url,))
            party = w.register(P256Key("mno"), body=body)
            given = await w.gateway.carry(party, b"\xf5", "192.0.2.1")
            assert (given.status_code, given.headers["retry-after"]) == (429, "7")

    run(tmp_path, test)
