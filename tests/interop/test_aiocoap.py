"""Against aiocoap, an independent implementation of CoAP: its client asks our server, our client asks its server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiocoap
import aiocoap.resource
import pytest
from starlette.requests import Request
from starlette.responses import Response as Answer
from starlette.routing import Route

from firstlight.transports.body import EDHOC, RemoteError
from firstlight.transports.coap.answering import by_application
from firstlight.transports.coap.client import CoapClient
from firstlight.transports.coap.path import open_path
from firstlight.transports.coap.serving import answering
from firstlight.transports.http import application, raw, read_body
from firstlight.transports.server import _bind_datagrams


async def mirror(request: Request) -> Answer:
    body = await read_body(request)
    return raw(body + bytes(reversed(body)), EDHOC)


def ours(test: Callable[[str, aiocoap.Context], Awaitable[None]]) -> None:
    async def main() -> None:
        app = application("test", [Route("/mirror", mirror, methods=["POST"])])
        bound = _bind_datagrams("127.0.0.1", 0)
        url = f"coap://127.0.0.1:{bound.getsockname()[1]}"
        context = await aiocoap.Context.create_client_context(transports=["udp6"])
        async with asyncio.timeout(60), answering(bound, by_application(app)):
            await test(url, context)
        await context.shutdown()

    asyncio.run(main())


@pytest.mark.parametrize("size", [0, 40, 1_024, 1_025, 3_000])
def test_its_client_and_our_server(size: int) -> None:
    body = bytes(number % 251 for number in range(size))

    async def test(url: str, context: aiocoap.Context) -> None:
        asked = aiocoap.Message(code=aiocoap.POST, uri=f"{url}/mirror", payload=body, content_format=65)
        answer = await context.request(asked).response
        assert (str(answer.code), int(answer.opt.content_format or 64)) == ("2.04 Changed", 64)
        assert answer.payload == body + bytes(reversed(body))

    ours(test)


def test_its_client_and_our_errors() -> None:
    async def test(url: str, context: aiocoap.Context) -> None:
        asked = aiocoap.Message(code=aiocoap.POST, uri=f"{url}/nowhere-that-anybody-knows-of", payload=bytes(60))
        answer = await context.request(asked).response
        assert str(answer.code) == "4.04 Not Found"
        assert b'"not-found"' in answer.payload
        health = await context.request(aiocoap.Message(code=aiocoap.GET, uri=f"{url}/healthz")).response
        assert (str(health.code), health.payload) == ("2.05 Content", b'{"status": "ok", "role": "test"}')

    ours(test)


class Mirror(aiocoap.resource.Resource):  # type: ignore[misc]
    async def render_post(self, request: aiocoap.Message) -> aiocoap.Message:
        body = request.payload
        return aiocoap.Message(code=aiocoap.CHANGED, payload=body + bytes(reversed(body)), content_format=64)


class Slow(aiocoap.resource.Resource):  # type: ignore[misc]
    async def render_post(self, _: aiocoap.Message) -> aiocoap.Message:
        await asyncio.sleep(0.3)  # longer than its EMPTY_ACK_DELAY, so that the answer comes apart
        return aiocoap.Message(code=aiocoap.CHANGED, payload=b"at last")


@pytest.mark.parametrize("size", [0, 40, 1_024, 1_025, 20_000])
def test_our_client_and_its_server(size: int) -> None:
    body = bytes(number % 251 for number in range(size))

    async def test(url: str, client: CoapClient) -> None:
        answer = await client.forward(f"{url}/mirror", body, "application/cid-edhoc+cbor-seq")
        assert (answer.status, answer.content_type) == (200, EDHOC)
        assert answer.body == body + bytes(reversed(body))

    theirs(test)


def test_our_client_and_its_slow_answers_and_errors() -> None:
    async def test(url: str, client: CoapClient) -> None:
        assert await client.post(f"{url}/slow", b"") == b"at last"
        answer = await client.forward(f"{url}/nowhere", b"", EDHOC)
        assert answer.status == 404
        with pytest.raises(Exception, match="bad-response") as caught:
            await client.post(f"{url}/nowhere", b"")
        assert not isinstance(caught.value, RemoteError)

    theirs(test)


def theirs(test: Callable[[str, CoapClient], Awaitable[None]]) -> None:
    async def main() -> None:
        site: Any = aiocoap.resource.Site()
        site.add_resource(["mirror"], Mirror())
        site.add_resource(["slow"], Slow())
        free = _bind_datagrams("127.0.0.1", 0)
        port = free.getsockname()[1]
        free.close()
        context = await aiocoap.Context.create_server_context(site, bind=("127.0.0.1", port), transports=["udp6"])
        client = CoapClient(open_path, seconds=30, limit=100_000)
        try:
            async with asyncio.timeout(60):
                await test(f"coap://127.0.0.1:{port}", client)
        finally:
            await client.aclose()
            await context.shutdown()

    asyncio.run(main())
