"""CoAP by hand: the product's own client for one request, and a bare socket for whatever bytes a test wants to send."""

from __future__ import annotations

import asyncio
import socket
from types import TracebackType
from typing import Self

from firstlight.errors import TransportError
from firstlight.testing.interceptor import Answered
from firstlight.transports.body import CBOR
from firstlight.transports.coap import codes
from firstlight.transports.coap.client import CoapClient, Target
from firstlight.transports.coap.message import Message, Option, Type, parse
from firstlight.transports.coap.path import open_path

PATIENCE = 30.0
TRIES = 5


def ask_coap(url: str, body: bytes, content_type: str = CBOR) -> Answered:
    """POST over CoAP, as a device does, and return the answer whatever it is."""

    async def main() -> Answered:
        client = CoapClient(open_path, seconds=PATIENCE, limit=1_048_576)
        try:
            answer = await client.forward(url, body, content_type)
        finally:
            await client.aclose()
        return Answered(answer.status, answer.content_type, answer.body)

    return asyncio.run(main())


class Sender:
    """One UDP socket towards one server; a context manager."""

    def __init__(self, url: str) -> None:
        """Aim at the server of a coap URL."""
        target = Target.of(url)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(2.0)
        self._socket.connect((target.host, target.port))
        self.echo = b""
        self._mid = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send a datagram."""
        self._socket.send(data)

    def hear(self, seconds: float) -> bytes | None:
        """Return the next datagram; None if there is none in time."""
        self._socket.settimeout(seconds)
        try:
            return self._socket.recv(65_536)
        except TimeoutError:
            return None

    def message(
        self,
        path: str,
        payload: bytes = b"",
        *options: tuple[int, bytes],
        code: int = codes.NUMBERS["POST"],
        kind: Type = Type.CON,
    ) -> Message:
        """Return a request with a message id and token that were not used before."""
        self._mid += 1
        named = [(int(Option.URI_PATH), one.encode()) for one in path.strip("/").split("/")]
        shown = [(int(Option.ECHO), self.echo)] if self.echo else []
        return Message(kind, code, self._mid, self._mid.to_bytes(4), (*named, *options, *shown), payload)

    def ask(self, message: Message) -> Message:
        """Send a request, again if nothing comes, and return what answers it; acknowledge that if it wants it."""
        for _ in range(TRIES):
            self.send(message.encode())
            while (data := self.hear(PATIENCE / TRIES)) is not None:
                answer = parse(data)
                if answer.is_response and answer.token == message.token:
                    if answer.type is Type.CON:
                        self.send(Message(Type.ACK, 0, answer.mid).encode())
                    return answer
        raise TransportError("timeout", "nothing came")

    def verify(self) -> None:
        """Have the server verify the socket's address."""
        self.echo = b"\x00"
        self.echo = self.ask(self.message("healthz", code=codes.NUMBERS["GET"])).value(Option.ECHO) or b""
        answer = self.ask(self.message("healthz", code=codes.NUMBERS["GET"]))
        assert answer.code == codes.CONTENT, answer
