"""The embedded broker: amqtt behind a door of our own (``service_door``), in the service provider's process.

amqtt speaks MQTT; identity, admission, topics and revocation are decided here. It is reached through its external
listener and a plugin, the two ways in that it documents.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from amqtt.broker import Broker
from amqtt.contexts import Action, BrokerConfig, ListenerConfig, ListenerType
from amqtt.mqtt.constants import QOS_1
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin
from amqtt.session import ApplicationMessage, Session

from firstlight.access.serving import service_door as door
from firstlight.access.serving.service_port import BrokerIdentity, Endpoint, Kept, Published
from firstlight.access.serving.service_tls import refusal_code, server_context
from firstlight.enrolment.issue import crl_serials
from firstlight.enrolment.topics import check_publish, check_subscribe
from firstlight.errors import AccessError, FirstlightError
from firstlight.logs import Log
from firstlight.ports import Clock

MAX_CLIENTS = 8_192
"""Connections at once, those in their handshake included."""
STOP_SECONDS = 3.0
ACCEPT_PAUSE = 0.1
"""Seconds to wait when the system has no more file descriptors to give."""
_LISTENER = "default"
_PLUGIN = f"{__name__}.GatePlugin"


class Gate:
    """Who is in, and what each may do: what the door and the broker's plugin decide by."""

    def __init__(self, clock: Clock, log: Log) -> None:
        """Start with nobody in."""
        self._clock = clock
        self._log = log
        self._live: dict[str, door.Client] = {}
        self._revoked: frozenset[int] = frozenset()
        self._callback: Callable[[Published, Kept], None] | None = None

    def listen(self, callback: Callable[[Published, Kept], None]) -> None:
        """Tell ``callback`` of every accepted message, with what it calls once that is kept."""
        self._callback = callback

    def revoke(self, serials: frozenset[int]) -> list[door.Client]:
        """Take a new set of revoked serial numbers; return the clients in it, dropped."""
        self._revoked = serials
        out = [client for client in self._live.values() if client.serial in serials]
        for client in out:
            self._log.warning("certificate-revoked", peer=client.name, detail="live connection dropped")
            client.drop()
        return out

    async def enter(self, client: door.Client) -> None:
        """Let ``client`` in; an older connection of the same name goes first.

        1. It was not revoked since its handshake began (``certificate-revoked``). Raises :class:`AccessError`.
        """
        while (older := self._live.get(client.name)) is not None:
            older.drop()
            await older.gone.wait()
        if client.serial in self._revoked:
            raise AccessError("certificate-revoked", "revoked during the handshake")
        self._live[client.name] = client
        self._log.info("client-connected", peer=client.name, count=len(self._live))

    def leave(self, client: door.Client) -> None:
        """Forget ``client``."""
        if self._live.get(client.name) is client:
            del self._live[client.name]
        client.gone.set()

    def find(self, name: str | None) -> door.Client | None:
        """Return the live client of that name."""
        return None if name is None else self._live.get(name)

    def everybody(self) -> list[door.Client]:
        """Return all live clients."""
        return list(self._live.values())

    def permits(self, client: door.Client, topic: str, action: Action) -> bool:
        """Tell whether ``client`` may do that; a client that may not publish is dropped.

        1. It was not revoked since it connected (``certificate-revoked``); 2. the topic is its own
        (:func:`check_publish`, :func:`check_subscribe`).
        """
        try:
            if client.serial in self._revoked:
                raise AccessError("certificate-revoked", "revoked since it connected")
            (check_subscribe if action == Action.SUBSCRIBE else check_publish)(client.name, topic)
        except AccessError as error:
            self._log.refusal(error, peer=client.name, step=str(action))
            if action == Action.PUBLISH:
                client.drop()
            return False
        return True

    def decides(self, name: str | None, topic: str, action: Action) -> bool:
        """Decide for the broker, which knows clients by name; see :meth:`permits`."""
        client = self.find(name)
        if client is None:
            return False
        if action == Action.PUBLISH:
            client.decided()
        return self.permits(client, topic, action)

    def accepted(self, name: str, topic: str, payload: bytes, *, awaits: bool) -> None:
        """Hand on a message that the broker accepted; ``awaits`` says whether its sender awaits an acknowledgement."""
        client = self.find(name) if awaits else None
        kept = _nothing if client is None else partial(_from_any_thread, asyncio.get_running_loop(), client.kept)
        if self._callback is None:
            kept()
        else:
            self._callback(Published(name, topic, payload, self._clock.now()), kept)


class GatePlugin(BaseAuthPlugin, BaseTopicPlugin):  # type: ignore[misc]
    """The broker's plugin: asks the gate."""

    @dataclass
    class Config:
        """What the plugin is given."""

        gate: Gate

    async def authenticate(self, *, session: Session) -> bool:
        """Let in only whom the door let in."""
        return self.config.gate.find(session.client_id) is not None

    async def topic_filtering(
        self, *, session: Session | None = None, topic: str | None = None, action: Action | None = None
    ) -> bool:
        """Allow a client its own topics."""
        if session is None or topic is None or action is None:
            return False
        gate: Gate = self.config.gate
        return gate.decides(session.client_id, topic, action)

    async def on_broker_message_broadcast(self, *, client_id: str, message: ApplicationMessage) -> None:
        """Take a message that has passed the broker's checks and ours."""
        self.config.gate.accepted(client_id, message.topic, bytes(message.data), awaits=message.qos == QOS_1)


def _nothing() -> None:
    """Tell nobody: the sender awaits no acknowledgement, or has gone."""


def _from_any_thread(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call)


class _Broker(Broker):  # type: ignore[misc]
    """amqtt without what a service of ours does not offer."""

    async def retain_message(self, *_: object, **__: object) -> None:
        """Keep nothing: a retained message would outlive its sender's certificate."""

    async def forget(self, name: str) -> None:
        """Drop what is left of a client that has gone."""
        await self._delete_session(name)


class EmbeddedBroker:
    """A :class:`firstlight.access.serving.service_port.ServiceBroker` inside this process's event loop."""

    def __init__(
        self,
        identity: BrokerIdentity,
        crl: bytes,
        *,
        clock: Clock,
        log: Log,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """Prepare a broker with a first DER revocation list; ``port`` 0 lets the system choose."""
        self._identity = identity
        self._crl = crl
        self._log = log
        self._where = (host, port)
        self._gate = Gate(clock, log)
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._broker: _Broker | None = None
        self._context: ssl.SSLContext | None = None

    def messages(self, callback: Callable[[Published, Kept], None]) -> None:
        """Call ``callback`` with every accepted message; it runs in the event loop and must not block.

        What it is given with the message it calls once that is kept: only then is the message acknowledged.
        """
        self._gate.listen(callback)

    @property
    def endpoint(self) -> Endpoint:
        """Where the broker listens."""
        if self._listener is None:
            raise AccessError("broker-not-started", "the broker does not listen")
        host, port = self._listener.getsockname()[:2]
        return Endpoint(host, port)

    async def start(self) -> None:
        """Listen; raises as the port says, ``broker-bad-files`` and the errors of a bad revocation list."""
        await self.reload_crl(self._crl)
        for name in ("amqtt", "transitions"):
            logging.getLogger(name).setLevel(logging.ERROR)
        listeners = {_LISTENER: ListenerConfig(type=ListenerType.EXTERNAL)}
        self._broker = _Broker(BrokerConfig(listeners=listeners, plugins={_PLUGIN: {"gate": self._gate}}))
        try:
            self._listener = door.listen(*self._where)
        except OSError as error:
            raise AccessError("broker-not-started", str(error)) from error
        await self._broker.start()
        self._accepting = asyncio.create_task(self._accept(self._listener))

    async def stop(self) -> None:
        """End every connection and stop listening."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait([self._accepting])
        if self._listener is not None:
            self._listener.close()
        for client in self._gate.everybody():
            client.drop()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
        if self._broker is not None:
            await self._broker.shutdown()
        self._listener = self._accepting = self._broker = None

    async def reload_crl(self, crl: bytes) -> None:
        """Use ``crl`` for every handshake from now on and drop the live clients that it revokes."""
        serials = crl_serials(crl, anchor=self._identity.authority)
        self._context = server_context(self._identity, crl)
        self._crl = crl
        for client in self._gate.revoke(serials):
            await client.gone.wait()

    async def disconnect(self, name: str) -> bool:
        """Drop the client ``name``; tell whether it was connected."""
        client = self._gate.find(name)
        if client is None:
            return False
        client.drop()
        await client.gone.wait()
        return True

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                self._log.error("accept-failed", detail=str(error))
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            if len(self._tasks) >= MAX_CLIENTS:
                self._log.warning("broker-full", count=len(self._tasks))
                connection.close()
                continue
            task = asyncio.create_task(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("client-failed", error=type(error).__name__)

    async def _serve(self, connection: socket.socket) -> None:
        context = self._context
        assert context is not None
        try:
            client = await door.secure(connection, context)
        except OSError as error:
            connection.close()
            self._log.warning(refusal_code(error), detail=str(error))
        except FirstlightError as error:
            self._log.refusal(error)
        else:
            await self._admitted(client)

    async def _admitted(self, client: door.Client) -> None:
        try:
            connect, keep_alive = await door.read_connect(client)
            await self._gate.enter(client)
        except FirstlightError as error:
            self._log.refusal(error, peer=client.name)
        except (OSError, EOFError, TimeoutError) as error:
            self._log.warning("connect-aborted", peer=client.name, error=type(error).__name__)
        else:
            permits = partial(self._gate.permits, client, action=Action.PUBLISH)
            refused = partial(self._log.refusal, peer=client.name)
            await self._talk(client, door.Reader(client, connect, keep_alive, permits, refused))
        finally:
            client.transport.close()

    async def _talk(self, client: door.Client, reader: door.Reader) -> None:
        broker = self._broker
        assert broker is not None
        try:
            with contextlib.suppress(OSError):
                await broker.external_connected(reader, door.Writer(client), _LISTENER)
        finally:
            client.drop()
            await broker.forget(client.name)
            self._gate.leave(client)
