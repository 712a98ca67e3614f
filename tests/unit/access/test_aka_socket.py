"""The authentication centre's socket, spoken to as hostapd speaks; and how it tells a copied USIM."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from firstlight.access.serving.aka_socket import AkaSocket, PlainNames
from firstlight.access.serving.authentication_centre import StoredAuthenticationCentre
from firstlight.access.serving.copies import CopyWatch
from firstlight.errors import AccessError
from firstlight.sim import aka
from firstlight.sim.aka import Accepted, Sequence, SyncFailure
from firstlight.sim.subscription import Credentials, Subscription, SubscriptionStatus
from firstlight.stores.subscriptions import Subscriptions
from firstlight.testing.clock import FakeClock
from firstlight.testing.random import SeededRandom

IMSI = "001010000000001"
RANDOM = SeededRandom("socket")
CARD = Credentials(IMSI, RANDOM.bytes(16), RANDOM.bytes(16))


@dataclass
class Talk:
    """What stands for hostapd, and the operator's side."""

    line: socket.socket
    centre: AkaSocket
    store: Subscriptions
    copied: list[str]
    outcomes: list[str]

    async def say(self, text: str) -> None:
        await asyncio.get_running_loop().sock_sendall(self.line, text.encode())

    async def ask(self, name: str = IMSI) -> list[str]:
        await self.say(f"AKA-REQ-AUTH {name}")
        async with asyncio.timeout(30):
            return (await asyncio.get_running_loop().sock_recv(self.line, 1000)).decode().split(" ")

    async def until(self, code: str, count: int = 1) -> None:
        async with asyncio.timeout(30):
            while self.outcomes.count(code) < count:  # noqa: ASYNC110 - waits for the fact itself
                await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def talking(path: Path) -> AsyncIterator[Talk]:
    store, copied, outcomes = Subscriptions.in_memory(), list[str](), list[str]()
    store.add(Subscription(CARD, 0, SubscriptionStatus.PENDING, bytes(16), bytes(16)))
    centre = StoredAuthenticationCentre(store, random=RANDOM, clock=FakeClock())
    watch = CopyWatch(store, RANDOM, copied.append)
    one = AkaSocket(path / "aka", centre, PlainNames(), outcomes.append, copies=watch)
    one.start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.setblocking(False)
        line.bind(str(path / "hostapd"))
        line.connect(str(path / "aka"))
        yield Talk(line, one, store, copied, outcomes)
    await one.close()
    await centre.close()


def judge(words: list[str], sequence: Sequence) -> aka.Answer:
    assert words[:2] == ["AKA-RESP-AUTH", IMSI]
    rand, autn, _ik, _ck, _res = (bytes.fromhex(word) for word in words[2:])
    return aka.answer(CARD.k, CARD.opc, sequence, rand, autn)


async def used(talk: Talk, sequence: Sequence) -> Sequence:
    """Go through an attach as the right card does, and return what it remembers then."""
    words = await talk.ask()
    result = judge(words, sequence)
    if isinstance(result, SyncFailure):
        known = talk.outcomes.count("usim-known")
        await talk.say(f"AKA-AUTS {IMSI} {result.auts.hex()} {words[2]}")
        result = judge(await talk.ask(), sequence)
        assert talk.outcomes.count("usim-known") == known + 1
    assert isinstance(result, Accepted)
    await talk.centre.proven(IMSI, IMSI)
    return result.sequence


def test_a_card_that_remembers_what_it_accepted_is_let_in_again_and_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with talking(tmp_path) as talk:
            sequence = Sequence.fresh()
            for count in range(1, 6):
                sequence = await used(talk, sequence)
                assert talk.store.accepted(IMSI) == sequence.sqn
                assert sequence.sqn >> aka.IND_BITS == count, "the search for copies uses up no number"
            assert talk.copied == []

    asyncio.run(main())


def test_a_card_that_accepts_what_another_has_accepted_is_a_copy(tmp_path: Path) -> None:
    async def main() -> None:
        async with talking(tmp_path) as talk:
            stolen = await used(talk, Sequence.fresh())
            await used(talk, stolen)
            assert isinstance(judge(await talk.ask(), stolen), Accepted)
            with pytest.raises(AccessError) as caught:
                await talk.centre.proven(IMSI, IMSI)
            assert caught.value.code == "subscription-copied"
            assert talk.copied == [IMSI]

    asyncio.run(main())


def test_nobody_has_proven_anything_who_was_asked_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with talking(tmp_path) as talk:
            with pytest.raises(AccessError) as caught:
                await talk.centre.proven(IMSI, IMSI)
            assert caught.value.code == "unknown-subscriber"
            await used(talk, Sequence.fresh())
            with pytest.raises(AccessError) as caught:
                await talk.centre.proven(IMSI, IMSI)
            assert caught.value.code == "unknown-subscriber"

    asyncio.run(main())


def test_a_forged_auts_proves_no_card(tmp_path: Path) -> None:
    async def main() -> None:
        async with talking(tmp_path) as talk:
            await used(talk, Sequence.fresh())
            words = await talk.ask()
            await talk.say(f"AKA-AUTS {IMSI} {bytes(14).hex()} {words[2]}")
            await talk.until("bad-auts")
            assert "usim-known" not in talk.outcomes
            assert isinstance(judge(await talk.ask(), Sequence.fresh()), Accepted), "still the number used up"
            with pytest.raises(AccessError) as caught:
                await talk.centre.proven(IMSI, IMSI)
            assert caught.value.code == "subscription-copied"

    asyncio.run(main())


def test_whoever_is_unknown_or_talks_nonsense_gets_no_vector(tmp_path: Path) -> None:
    async def main() -> None:
        async with talking(tmp_path) as talk:
            assert await talk.ask("001019999999999") == ["AKA-RESP-AUTH", "001019999999999", "FAILURE"]
            assert talk.outcomes == ["unknown-subscriber"]
            for nonsense in ("", "AKA-REQ-AUTH", "AKA-REQ-AUTH 1' OR 1", "AKA-AUTS 1 2 3", "\0" * 400, "é"):
                await talk.say(nonsense)
            await talk.until("aka-request-malformed", 6)
            assert len(await talk.ask()) == 7

    asyncio.run(main())
