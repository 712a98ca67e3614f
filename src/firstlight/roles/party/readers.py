"""What a service does with the messages of its broker: keeps note of them, and confirms grants at their first one.

The broker calls from the event loop; a thread of our own writes, as many messages in one transaction as have come in
the meantime. A message is acknowledged once it is on the disk and its grant confirmed: a device that has heard so may
go to sleep.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from firstlight.access.serving.service_port import Kept, Published
from firstlight.errors import FirstlightError
from firstlight.logs import Log
from firstlight.ports import Clock
from firstlight.stores.certificates import Certificates, CertificateState
from firstlight.stores.exchanges import ExchangeStore, GrantState
from firstlight.stores.messages import Messages, ReadMessage

MAX_WAITING = 65_536
"""Messages that wait to be written; beyond that they are dropped, and the log says so."""
SECOND = 1_000_000_000


class Reader:
    """Reads a broker's messages into the service's database."""

    def __init__(
        self, messages: Messages, certificates: Certificates, exchanges: ExchangeStore, *, clock: Clock, log: Log
    ) -> None:
        """Write to these stores; catch up with what was confirmed in one of them only."""
        self._messages = messages
        self._certificates = certificates
        self._exchanges = exchanges
        self._clock = clock
        self._log = log
        self._lock = threading.Lock()
        self._waiting: list[tuple[Published, Kept]] = []
        self._busy = False
        self._confirmed: set[str] = set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reader")
        for grant in exchanges.grants(GrantState.PENDING):
            found = certificates.by_grant(grant.id)
            if found is not None and found.state is CertificateState.ACTIVE:
                exchanges.confirm(grant.id, clock.now())

    def take(self, message: Published, kept: Kept) -> None:
        """Take a message, and call ``kept`` when it is written; does not block."""
        with self._lock:
            if len(self._waiting) >= MAX_WAITING:
                self._log.error("message-dropped", peer=message.name)
                return
            self._waiting.append((message, kept))
            if not self._busy:
                self._busy = True
                self._thread.submit(self._drain)

    def close(self) -> None:
        """Write what waits."""
        self._thread.shutdown()

    def _drain(self) -> None:
        while True:
            with self._lock:
                taken, self._waiting = self._waiting, []
                if not taken:
                    self._busy = False
                    return
            try:
                self._write(taken)
            except FirstlightError as error:
                self._log.refusal(error, step="read", count=len(taken))

    def _write(self, taken: list[tuple[Published, Kept]]) -> None:
        grants = {name: self._grant(name) for name in {one.name for one, _ in taken}}
        self._messages.add(
            [ReadMessage(one.name, grants[one.name], one.topic, one.time_ns, len(one.payload)) for one, _ in taken]
        )
        for message, kept in taken:
            if message.name not in self._confirmed:
                self._confirm(message.name)
            kept()

    def _grant(self, name: str) -> bytes | None:
        found = self._certificates.by_name(name)
        return None if found is None else found.grant

    def _confirm(self, name: str) -> None:
        now = self._clock.now()
        try:
            confirmation = self._certificates.confirm(name, now // SECOND)
            self._exchanges.confirm(confirmation.grant, now)
        except FirstlightError as error:
            self._log.refusal(error, step="confirm", peer=name)
            return
        self._confirmed.add(name)
        self._log.info("message-read", peer=name)
