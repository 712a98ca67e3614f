"""A node with its witnesses on loopback: what it commits, proves and refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response as Answer
from starlette.routing import Route

from firstlight.chain.root import EpochStatement
from firstlight.chain.witness import WitnessRequest, WitnessSignature
from firstlight.custody.file import SigningKey
from firstlight.custody.system import SystemClock
from firstlight.discovery.bundle import Bundle, BundleRequest, StateProof
from firstlight.discovery.verify import Trust, verify_bundle, verify_follow_up
from firstlight.errors import ConfigError, FirstlightError, ProofError, StoreError
from firstlight.ledger.records import Party, Role, party_name
from firstlight.ledger.transaction import PublishReference, SetEpoch
from firstlight.roles import consortium, registration
from firstlight.roles.attesters import FILE, WitnessFile, write_witnesses
from firstlight.roles.node import open_engine
from firstlight.roles.wire import HeaderAnswer, Proofs, ProofsRequest, TransactionAnswer
from firstlight.roles.witness import MEMORY, Memory, open_witness
from firstlight.settings import ConsortiumSettings
from firstlight.testing.chains import P256Key
from firstlight.testing.ledgers import register_party
from firstlight.testing.nodes import CHAIN, World, world
from firstlight.testing.random import SeededRandom
from firstlight.transports.client import RemoteError
from firstlight.transports.server import application, cbor, listening

RANDOM = SeededRandom("asker")


def run(directory: Path, test: Callable[[World], Awaitable[None]], *, witnesses: int = 3) -> None:
    async def main() -> None:
        async with world(directory, witnesses=witnesses) as w:
            await test(w)

    asyncio.run(main())


def trust(w: World) -> Trust:
    return Trust.at_birth(CHAIN, w.made.genesis.root)


async def bundle(w: World, request: BundleRequest, url: str = "") -> Bundle:
    return Bundle.decode(await w.client.post(f"{url or w.node_url}/v1/bundles", request.encode()))


async def code_of(call: Awaitable[object]) -> str:
    with pytest.raises(FirstlightError) as caught:
        await call
    return caught.value.code


def test_a_consortium_is_made_once_with_private_keys(tmp_path: Path) -> None:
    settings = ConsortiumSettings(chain=CHAIN, members=3, root_threshold=2, witnesses=2, witness_threshold=1)
    made = consortium.create(tmp_path / "c", settings, SystemClock())
    files = [path for path in (tmp_path / "c").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert {path.name for path in files if path.suffix == ".pem"} == {
        "root-1.pem", "root-2.pem", "root-3.pem", "validator.pem", "witness.pem",
    }  # fmt: skip
    for place in (tmp_path / "c", made.node, *made.witnesses):
        assert registration.read_genesis(place / "genesis.cbor") == made.genesis
    with pytest.raises(ConfigError, match="settings-exist"):
        consortium.create(tmp_path / "c", settings, SystemClock())


@pytest.mark.parametrize("change", [{"root_threshold": 4}, {"witness_threshold": 4}])
def test_a_threshold_that_nobody_can_meet(tmp_path: Path, change: dict[str, int]) -> None:
    settings = replace(ConsortiumSettings(chain=CHAIN, members=3, witnesses=3), **change)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="bad-threshold"):
        consortium.create(tmp_path / "c", settings, SystemClock())
    assert not (tmp_path / "c").exists()


def test_a_party_is_endorsed_and_registered_once(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        keys = registration.create(tmp_path / "party", agreement=True)
        request = tmp_path / "request"
        request.write_bytes(registration.request(keys, [Role.MNO], chain=CHAIN))
        endorsed = consortium.endorse(tmp_path / "world", request, member=2)
        first = TransactionAnswer.decode(await w.client.post(f"{w.node_url}/v1/transactions", endorsed.transaction))
        assert (first.id, first.code, first.subject) == (endorsed.id, "ok", keys.party)
        again = TransactionAnswer.decode(await w.client.post(f"{w.node_url}/v1/transactions", endorsed.transaction))
        status = TransactionAnswer.decode(await w.client.get(f"{w.node_url}/v1/transactions/{endorsed.id.hex()}"))
        assert first == again == status
        assert await w.client.get_json(f"{w.node_url}/v1/counts") == {
            "chain": CHAIN,
            "height": first.height + 1,
            "transactions": 1,
            "by_kind": {"register_party": 1},
            "records": 4,
        }
        with pytest.raises(ConfigError, match="no-such-member"):
            consortium.endorse(tmp_path / "world", request, member=9)

    run(tmp_path / "world", test)


def test_refused_transactions_carry_their_codes_and_change_nothing(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        key = P256Key("maker")
        body = register_party(key)
        unendorsed = w.sign(body, key)
        stranger = w.sign(body, key, P256Key("stranger"))
        unknown = w.sign(PublishReference(bytes(16), b"m", bytes(16), bytes(32), 0, 0, 1), key)
        for data, code, status in (
            (unendorsed, "not-endorsed", 409),
            (stranger, "not-endorsed", 409),
            (unknown, "unknown-party", 409),
            (b"\x00", "not-cose", 400),
        ):
            with pytest.raises(RemoteError) as caught:
                await w.client.post(f"{w.node_url}/v1/transactions", data)
            assert (caught.value.code, caught.value.status) == (code, status)
        assert (await w.client.get_json(f"{w.node_url}/v1/counts"))["transactions"] == 0
        high = [f"/v1/headers/{height}" for height in (0, "x", 99, 2**63 - 1, 2**63, 10**19 - 1, 10**19)]
        for path in ("/v1/transactions/00", "/v1/transactions/zz", *high):
            assert await code_of(w.client.get(w.node_url + path)) == "not-found"

    run(tmp_path, test)


def test_what_comes_together_is_answered_together(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        keys = [P256Key(f"party {number}") for number in range(20)]
        data = [w.sign(register_party(key), key, w.member()) for key in keys]
        answers = await asyncio.gather(*(w.client.post(f"{w.node_url}/v1/transactions", one) for one in data))
        heights = {TransactionAnswer.decode(one).height for one in answers}
        assert len(heights) < len(keys)
        assert w.engine.counts().total == len(keys)

    run(tmp_path, test)


def test_a_bundle_is_proven_fresh_to_somebody_who_trusts_nobody(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        party = w.register(P256Key("maker"), Role.MANUFACTURER)
        w.clock.advance(100)
        name = party_name(party)
        requests = [trust(w).request(RANDOM.bytes(32), names=(name,)) for _ in range(40)]
        for url in (w.node_url, w.gateway_url):
            bundles = await asyncio.gather(*(bundle(w, one, url) for one in requests))
            for one, request in zip(bundles, requests, strict=True):
                view = verify_bundle(one, request, trust=trust(w))
                assert isinstance(view.party(party), Party)
                assert view.time == w.clock.seconds
                assert one.head.epoch is not None
            assert {one.freshness.nonce.size for one in bundles if one.freshness} != {1}
            known = verify_bundle(bundles[0], requests[0], trust=trust(w))
            shorter = known.trust.request(RANDOM.bytes(32), names=(name,))
            again = await bundle(w, shorter, url)
            assert again.head.epoch is None
            ahead = replace(shorter, known_root=2**32 - 1)
            assert (await bundle(w, ahead, url)).head.roots == ()
            assert verify_bundle(again, shorter, trust=known.trust).height == known.height
            with pytest.raises(ProofError, match="witness-signature"):
                verify_bundle(bundles[0], requests[1], trust=trust(w))
            more = replace(shorter, height=known.height, names=(party_name(bytes(16)),))
            proof = StateProof.decode(await w.client.post(f"{url}/v1/bundles", more.encode()))
            assert verify_follow_up(proof, more, view=known).party(bytes(16)) is None
            late = replace(more, height=99)
            assert await code_of(w.client.post(f"{url}/v1/bundles", late.encode())) == "head-not-kept"

    run(tmp_path, test)


def test_a_bundle_that_cannot_be_proven_spoils_no_other(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        good = trust(w).request(RANDOM.bytes(32))
        bad = replace(good, height=77)
        found, refused = await asyncio.gather(bundle(w, good), bundle(w, bad), return_exceptions=True)
        assert isinstance(found, Bundle)
        assert isinstance(refused, RemoteError)
        assert refused.code == "head-not-kept"
        proofs = Proofs.decode(await w.client.post(f"{w.node_url}/v1/proofs", ProofsRequest((good, bad)).encode()))
        assert [one.code for one in proofs.states] == ["", "head-not-kept"]

    run(tmp_path, test)


def test_without_enough_witnesses_a_bundle_says_so_itself(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        request = trust(w).request(RANDOM.bytes(32))
        assert (await bundle(w, request)).freshness is not None
        write_witnesses(w.made.node, w.witness_urls[:1])
        assert (await bundle(w, request)).freshness is None
        assert w.log.has("witnesses-missing")
        write_witnesses(w.made.node, w.witness_urls[1:])
        assert (await bundle(w, request)).freshness is not None

    run(tmp_path, test)


def test_a_witness_that_signs_nonsense_is_passed_over(tmp_path: Path) -> None:
    async def lie(_: Request) -> Answer:
        return cbor(WitnessSignature(0, 1, bytes(64)))

    async def test(w: World) -> None:
        async with listening(application("liar", [Route("/v1/witness", lie, methods=["POST"])])) as url:
            write_witnesses(w.made.node, [url, *w.witness_urls])
            request = trust(w).request(RANDOM.bytes(32))
            view = verify_bundle(await bundle(w, request), request, trust=trust(w))
            assert view.time == w.clock.seconds

    run(tmp_path, test)


def test_witnesses_sign_the_newest_head_or_one_just_superseded(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        one = w.witnesses[0]
        old = w.engine.head().header.height
        await one.sign(WitnessRequest(CHAIN, old, bytes(32)))
        w.clock.advance(60)
        w.register(P256Key("maker"), Role.MANUFACTURER)
        new = w.engine.head().header.height
        signed = await one.sign(WitnessRequest(CHAIN, new, bytes(32)))
        assert signed.time == w.clock.seconds
        w.clock.advance(9)
        await one.sign(WitnessRequest(CHAIN, old, bytes(32)))
        w.clock.advance(1)
        assert await code_of(one.sign(WitnessRequest(CHAIN, old, bytes(32)))) == "witness-superseded-head"
        assert await code_of(one.sign(WitnessRequest(CHAIN, new + 9, bytes(32)))) == "witness-unknown-head"
        assert await code_of(one.sign(WitnessRequest("other-1", new, bytes(32)))) == "wrong-chain"

    run(tmp_path, test, witnesses=2)


def test_no_gateway_holds_a_witness_back(tmp_path: Path) -> None:
    """Asked for an old head only, a witness looks by itself and stops signing it."""

    async def test(w: World) -> None:
        one = w.witnesses[0]
        old = w.engine.head().header.height
        await one.sign(WitnessRequest(CHAIN, old, bytes(32)))
        w.register(P256Key("maker"), Role.MANUFACTURER)
        w.clock.advance(11)
        assert await code_of(one.sign(WitnessRequest(CHAIN, old, bytes(32)))) == "witness-superseded-head"

    run(tmp_path, test, witnesses=2)


def test_a_witness_goes_on_from_its_file(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        place = w.made.witnesses[0]
        w.register(P256Key("maker"), Role.MANUFACTURER)
        height = w.engine.head().header.height
        await w.witnesses[0].sign(WitnessRequest(CHAIN, height, bytes(32)))
        memory = Memory.decode((place / MEMORY).read_bytes())
        assert memory.header == w.engine.head().header
        log = w.node.log
        again = open_witness(place, w.node_url, w.client, log, w.clock)
        await again.sign(WitnessRequest(CHAIN, height, bytes(32)))
        (place / MEMORY).write_bytes(replace(memory, chain="other-1").encode())
        with pytest.raises(ConfigError, match="wrong-chain"):
            open_witness(place, w.node_url, w.client, log, w.clock)
        (place / MEMORY).unlink()
        with pytest.raises(ConfigError, match="no-node"):
            open_witness(place, None, w.client, log, w.clock)
        (place / "witness.pem").unlink()
        SigningKey.create(place / "witness.pem")
        with pytest.raises(ConfigError, match="not-a-witness"):
            open_witness(place, w.node_url, w.client, log, w.clock)

    run(tmp_path, test, witnesses=2)


def test_two_headers_of_one_height_stop_a_witness_for_good(tmp_path: Path) -> None:
    """The same validator signs another chain from the same genesis; the witness is shown first one, then the other."""

    async def test(w: World) -> None:
        w.register(P256Key("maker"), Role.MANUFACTURER)
        height = w.engine.head().header.height
        place = w.made.witnesses[0]
        await w.witnesses[0].sign(WitnessRequest(CHAIN, height, bytes(32)))
        (w.made.node / "other.sqlite").unlink(missing_ok=True)
        toml = w.made.node / "node.toml"
        toml.write_text(toml.read_text().replace("ledger.sqlite", "other.sqlite"))
        with open_engine(w.made.node, w.clock) as fork:
            key = P256Key("another")
            fork.submit(w.sign(register_party(key), key, w.member()))
            head = fork.head()
            assert head.header.height == height

            async def latest(_: Request) -> Answer:
                return cbor(HeaderAnswer(head.header, head.commit, head.validators, head.validators))

            async with listening(application("fork", [Route("/v1/headers/latest", latest)])) as url:
                shown = open_witness(place, url, w.client, w.node.log, w.clock)
                assert await code_of(shown.sign(WitnessRequest(CHAIN, height, bytes(32)))) == "chain-forked"
        assert w.log.has("chain-forked")
        after = open_witness(place, w.node_url, w.client, w.node.log, w.clock)
        assert await code_of(after.sign(WitnessRequest(CHAIN, height, bytes(32)))) == "chain-forked"

    run(tmp_path, test, witnesses=2)


def test_a_header_that_nobody_committed_moves_no_witness(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        w.register(P256Key("maker"), Role.MANUFACTURER)
        head = w.engine.head()
        await w.witnesses[0].sign(WitnessRequest(CHAIN, head.header.height, bytes(32)))
        forged = replace(head.header, height=head.header.height + 5, time=head.header.time + 1, app_hash=bytes(32))
        commit = replace(head.commit, height=forged.height, block=replace(head.commit.block, hash=forged.hash()))

        async def latest(_: Request) -> Answer:
            return cbor(HeaderAnswer(forged, commit, head.validators, head.validators))

        async with listening(application("liar", [Route("/v1/headers/latest", latest)])) as url:
            shown = open_witness(w.made.witnesses[0], url, w.client, w.node.log, w.clock)
            assert await code_of(shown.sign(WitnessRequest(CHAIN, forged.height, bytes(32)))) == "commit-signature"
        memory = Memory.decode((w.made.witnesses[0] / MEMORY).read_bytes())
        assert memory.header == head.header

    run(tmp_path, test, witnesses=2)


def test_witnesses_of_the_next_epoch_take_over(tmp_path: Path) -> None:
    """One witness leaves and another place in the order results: who stays signs under the epoch in force."""

    async def test(w: World) -> None:
        request = WitnessRequest(CHAIN, w.engine.head().header.height, bytes(32))
        keys = [SigningKey.load(place / "witness.pem").public for place in w.made.witnesses]
        stays, leaves = keys.index(max(keys)), keys.index(min(keys))
        assert (await w.witnesses[stays].sign(request)).witness == 2
        validators = w.made.genesis.validators.hash()
        first = w.engine.head().header.height + 3
        left = tuple(sorted(key for key in keys if key != min(keys)))
        epoch = EpochStatement(CHAIN, 2, validators, first, 2, left)
        members = [w.member(1), w.member(2)]
        w.do(SetEpoch(epoch.sign(members)), *members, sequence=2)
        w.register(P256Key("maker"), Role.MANUFACTURER)
        w.clock.advance(3)
        request = replace(request, height=w.engine.head().header.height)
        assert (await w.witnesses[stays].sign(request)).witness == 1
        assert await code_of(w.witnesses[leaves].sign(request)) == "not-a-witness"
        asked = trust(w).request(RANDOM.bytes(32))
        view = verify_bundle(await bundle(w, asked), asked, trust=trust(w))
        assert (view.epoch.number, view.time) == (2, w.clock.seconds)
        with pytest.raises(ConfigError, match="not-a-witness"):
            open_witness(w.made.witnesses[leaves], w.node_url, w.client, w.node.log, w.clock)

    run(tmp_path, test)


def test_a_second_process_on_one_ledger_is_an_error(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        with pytest.raises(StoreError, match="ledger-locked"):
            open_engine(w.made.node, w.clock)

    run(tmp_path, test, witnesses=2)


def test_the_witness_file_is_read_when_it_changes(tmp_path: Path) -> None:
    listed = WitnessFile(tmp_path, ["http://127.0.0.1:1"])
    assert listed.urls() == ("http://127.0.0.1:1",)
    write_witnesses(tmp_path, ["http://127.0.0.1:2", "http://127.0.0.1:1"])
    assert listed.urls() == ("http://127.0.0.1:1", "http://127.0.0.1:2")
    (tmp_path / FILE).write_text('["ftp://x"]')
    with pytest.raises(ConfigError, match="bad-witnesses"):
        listed.urls()
    with pytest.raises(ConfigError, match="bad-witnesses"):
        write_witnesses(tmp_path, ["127.0.0.1:1"])
