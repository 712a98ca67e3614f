"""A service provider whose broker is mosquitto, and devices with certificates."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.access_service.conftest import SystemClock, SystemRandom, World

from firstlight.access.serving.daemons import MOSQUITTO
from firstlight.access.serving.service_mosquitto import MosquittoBroker
from firstlight.access.serving.service_port import BrokerIdentity
from firstlight.logs import Log
from firstlight.testing.hostapd_world import needs


class MosquittoWorld(World):
    broker: MosquittoBroker

    def make_broker(self, identity: BrokerIdentity, port: int) -> MosquittoBroker:
        return MosquittoBroker(
            self.directory / "broker",
            identity,
            self.crl(),
            named=lambda serials: [self.names[serial] for serial in serials],
            clock=SystemClock(),
            random=SystemRandom(),
            log=Log("sp", SystemClock(), self.log),
            port=port,
        )

    def restarted(self) -> MosquittoWorld:
        """Return the same provider started again: the same files and certificates, another process's memory."""
        again = MosquittoWorld.__new__(MosquittoWorld)
        again.__dict__.update(self.__dict__)
        again.published, again.holding = [], None
        again.broker = again.make_broker(self.identity, self.broker.endpoint.port)
        again.broker.messages(again._take)
        return again


@pytest.fixture
def world(tmp_path: Path) -> MosquittoWorld:
    needs(MOSQUITTO)
    return MosquittoWorld(tmp_path)
