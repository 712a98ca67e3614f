"""The client against servers that misbehave: each failure has its code, and the next connection serves."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from tests.unit.access.test_gsup import ID_ACK, ID_GET, IMSI, ONE, UNKNOWN

from firstlight.access.serving.gsup import AskVectors, Refusal, Vectors, frame
from firstlight.access.serving.gsup_client import GsupClient
from firstlight.errors import AccessError, StoreError

LONG = 60.0
Turn = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ANSWER = frame(0xEE, b"\x05" + ONE)
REFUSAL = frame(0xEE, b"\x05" + UNKNOWN)


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(ID_GET)
    await reader.readuntil(ID_ACK)
    writer.write(ID_ACK)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await greet(reader, writer)
    while await reader.read(100):
        writer.write(ANSWER)


@contextlib.asynccontextmanager
async def against(*turns: Turn, seconds: float = LONG, before=None) -> AsyncIterator[GsupClient]:
    """A client of a server that deals with its connections as told, the later ones as with the last."""
    left = list(turns)

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        turn = left.pop(0) if len(left) > 1 else left[0]
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await turn(reader, writer)
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = GsupClient(lambda: asyncio.open_connection("127.0.0.1", port), seconds=seconds, before=before)
    try:
        async with asyncio.timeout(LONG):
            await client.start()
            yield client
    finally:
        await client.close()
        server.close()


def run(work: Awaitable[None]) -> None:
    async def main() -> None:
        await work

    asyncio.run(main())


def test_requests_are_answered_and_those_for_one_imsi_take_turns() -> None:
    async def test() -> None:
        async with against(serve) as client:
            await client.ready()
            answers = await asyncio.gather(*(client.ask(AskVectors(IMSI)) for _ in range(5)))
            assert all(isinstance(one, Vectors) for one in answers)

    run(test())


@pytest.mark.parametrize(
    "code", ["ipa-too-long", "gsup-early", "ccm-malformed", "gsup-truncated", "gsup-missing", "gsup-imsi"]
)
def test_a_server_that_talks_nonsense_is_hung_up_on_and_dialled_again(code: str) -> None:
    said = {
        "ipa-too-long": b"\xff\xff\xfe",
        "gsup-early": ANSWER,
        "ccm-malformed": frame(0xFE, b"\x09"),
        "gsup-truncated": ID_GET + ID_ACK + frame(0xEE, b"\x05"),
        "gsup-missing": ID_GET + ID_ACK + frame(0xEE, b"\x05\x0a"),
        "gsup-imsi": ID_GET + ID_ACK + frame(0xEE, b"\x05\x09\x01\x01\xaa"),
    }[code]

    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        while await reader.read(100):
            pass

    async def test() -> None:
        async with against(nonsense, serve) as client:
            while not client.outcomes[code]:  # noqa: ASYNC110 - the client itself tells nobody
                await asyncio.sleep(0.001)
            await client.ready()
            while not isinstance(await asked(client), Vectors):
                pass

    run(test())


async def asked(client: GsupClient) -> object:
    try:
        await client.ready()
        return await client.ask(AskVectors(IMSI))
    except AccessError as error:
        return error.code


def test_whoever_waits_when_the_connection_is_lost_is_told_so_at_once() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        await reader.read(100)

    async def test() -> None:
        async with against(hang_up, serve) as client:
            assert await asked(client) == "hlr-unreachable"
            assert isinstance(await asked(client), Vectors)
            assert client.outcomes["hlr-lost"] == 1

    run(test())


def test_a_late_answer_is_never_taken_for_that_of_the_next_request() -> None:
    asked_twice = asyncio.Event()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        await reader.read(100)
        await asked_twice.wait()
        writer.write(REFUSAL)

    async def test() -> None:
        async with against(late, serve, seconds=0.3) as client:
            assert await asked(client) == "hlr-timeout"
            second = asyncio.create_task(asked(client))
            asked_twice.set()
            assert isinstance(await second, Vectors)

    run(test())


def test_an_answer_for_another_imsi_or_without_a_question_is_passed_over() -> None:
    other = frame(0xEE, b"\x05" + UNKNOWN.replace(b"\xf1", b"\xf2"))

    async def chatty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        writer.write(ANSWER + other)
        while await reader.read(100):
            writer.write(other + REFUSAL)

    async def test() -> None:
        async with against(chatty) as client:
            await client.ready()
            assert await client.ask(AskVectors(IMSI)) == Refusal(IMSI, 2)

    run(test())


def test_nobody_asks_before_what_must_be_done_first_has_been() -> None:
    failures = [StoreError("database-unusable"), None]
    done: list[str] = []

    async def before() -> None:
        failure = failures.pop(0)
        if failure is not None:
            raise failure
        done.append("now")

    async def test() -> None:
        async with against(serve, before=before) as client:
            await client.ready()
            assert done == ["now"]
            assert client.outcomes["database-unusable"] == 1
            assert isinstance(await client.ask(AskVectors(IMSI)), Vectors)

    run(test())


def test_without_a_server_a_request_fails_in_time() -> None:
    async def refuse() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        raise ConnectionRefusedError

    async def test() -> None:
        client = GsupClient(refuse, seconds=0.01)
        await client.start()
        for ask in (client.ready, lambda: client.ask(AskVectors(IMSI))):
            with pytest.raises(AccessError) as error:
                await ask()
            assert error.value.code == "hlr-unreachable"
        await client.close()

    run(test())
