"""How a device attaches to the embedded access network: AKA' over TCP, then a SOCKS5 forwarder."""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import urlsplit

from firstlight.access import frames
from firstlight.access.ports import Naming, Proxy, SimStore, TlsCredentials
from firstlight.errors import AccessError, FirstlightError, MalformedError
from firstlight.ports import Random
from firstlight.sim.attach import Challenge, Identity, Message, Refusal, Reject, Success, SyncFailure
from firstlight.sim.attach_device import Answered, Session, conclude, identify, respond
from firstlight.sim.subscription import SoftSim

DEADLINE_S = 15.0


class EmbeddedAttachment:
    """An open :class:`firstlight.access.ports.Attachment`."""

    def __init__(self, endpoint: tuple[str, int], session: Session) -> None:
        """Describe ``session``; it is left at ``endpoint``."""
        host, port = _host_port(session.proxy, "socks5")
        self._endpoint = endpoint
        self._session = session
        self._open = True
        self.proxy = Proxy(host, port, session.id.hex(), session.proof)

    @property
    def session(self) -> bytes:
        """The session's id, 16 bytes."""
        return self._session.id

    @property
    def lifetime(self) -> int:
        """Seconds from the attach until the network ends the session by itself."""
        return self._session.lifetime

    async def lost(self) -> None:
        """Never return: a session that has ended shows at the forwarder."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Tell the network that the device leaves; once, and without complaint if nobody answers."""
        if not self._open:
            return
        self._open = False
        with contextlib.suppress(OSError, TimeoutError, EOFError, MalformedError):
            async with asyncio.timeout(DEADLINE_S):
                reader, writer = await asyncio.open_connection(*self._endpoint)
                with contextlib.closing(writer):
                    await frames.send(writer, self._session.detach)
                    await frames.receive(reader)


class EmbeddedNetworkAccess:
    """A :class:`firstlight.access.ports.NetworkAccess`: to where the grant says, or to ``endpoint`` instead."""

    def __init__(self, random: Random, *, endpoint: str | None = None, deadline_s: float = DEADLINE_S) -> None:
        """Attach within ``deadline_s`` seconds; ``endpoint`` is ``tcp://host:port``."""
        self._random = random
        self._endpoint = endpoint
        self._deadline_s = deadline_s

    async def attach(self, store: SimStore, naming: Naming | None = None) -> EmbeddedAttachment:  # noqa: ARG002
        """Attach, with a SUCI in the first message; errors as :class:`firstlight.access.ports.NetworkAccess`."""
        sim = store.load()
        endpoint = _host_port(self._endpoint or sim.access, "tcp")
        try:
            async with asyncio.timeout(self._deadline_s):
                reader, writer = await asyncio.open_connection(*endpoint)
                with contextlib.closing(writer):
                    session = await _Run(reader, writer, store, sim).complete(identify(sim, self._random))
        except TimeoutError as error:
            raise AccessError("attach-timeout", "the network did not answer in time") from error
        except (OSError, EOFError) as error:
            raise AccessError("attach-unreachable", "no connection to the network, or it broke") from error
        except MalformedError as error:
            raise AccessError("attach-malformed", f"the network sent nonsense: {error.code}") from error
        return EmbeddedAttachment(endpoint, session)

    async def enter(self, own: TlsCredentials) -> EmbeddedAttachment:
        """Refuse: the embedded network knows subscriptions alone (``attach-malformed``)."""
        raise AccessError("attach-malformed", f"{own.access} takes no certificates")


class _Run:
    """One run of the protocol over one connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, store: SimStore, sim: SoftSim
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._store = store
        self._sim = sim

    async def complete(self, identity: Identity) -> Session:
        await frames.send(self._writer, identity)
        answered = await self._answer(identity)
        await asyncio.to_thread(self._store.save, answered.sim)
        message = await self._exchange(answered.response)
        if not isinstance(message, Success):
            raise _unexpected()
        return conclude(answered, message)

    async def _answer(self, identity: Identity) -> Answered:
        result = await self._judge(identity, await self._receive())
        if isinstance(result, SyncFailure):
            result = await self._judge(identity, await self._exchange(result))
        if isinstance(result, SyncFailure):
            raise AccessError("resync-failed", "the sequence number is not acceptable after resynchronisation either")
        return result

    async def _judge(self, identity: Identity, message: Message) -> Answered | SyncFailure:
        if not isinstance(message, Challenge):
            raise _unexpected()
        try:
            return respond(self._sim, identity, message)
        except AccessError:
            await frames.send(self._writer, Reject())
            raise

    async def _exchange(self, message: Message) -> Message:
        await frames.send(self._writer, message)
        return await self._receive()

    async def _receive(self) -> Message:
        message = await frames.receive(self._reader)
        if isinstance(message, Refusal):
            raise AccessError("attach-refused", "the network refuses this device")
        return message


def _unexpected() -> FirstlightError:
    return MalformedError("unexpected-message", "a message out of turn")


def _host_port(uri: str, scheme: str) -> tuple[str, int]:
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as error:
        raise AccessError("attach-malformed", "not an endpoint") from error
    if parts.scheme != scheme or not parts.hostname or not port:
        raise AccessError("attach-malformed", f"not a {scheme} endpoint")
    return parts.hostname, port
